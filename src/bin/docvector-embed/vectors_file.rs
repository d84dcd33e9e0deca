//! Reads the rows of a file that `embed` wrote: [`VectorsFile`].

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
};

use docvector_embed::Space;
use serde::{Deserialize, de::IgnoredAny};

use crate::{failure::Failure, npy, paths::has_extension, space_file::StatedSpace};

/// The most bytes of a line. A vector of 65,536 components, and a text of 16 MB.
const LINE_BYTES: u64 = 32 << 20;

/// An open file of vectors, read row by row.
pub(crate) struct VectorsFile {
    reader: BufReader<File>,
    name: String,
    /// The space that the file beside it states.
    pub(crate) space: Option<Space>,
    /// Whether the file beside it was written with another file of vectors.
    pub(crate) is_other: bool,
    format: Format,
    /// Rows, or lines, read so far.
    place: u64,
}

enum Format {
    JsonLines,
    Npy { rows: u64, width: usize },
}

/// A row of the file.
#[derive(Debug, PartialEq)]
pub(crate) struct VectorRow {
    /// The number of its line or row, from 1.
    pub(crate) place: u64,
    pub(crate) vector: Vec<f32>,
    /// The JSON object, unless the file is a matrix.
    pub(crate) object: Option<String>,
}

/// The field of a row that a search needs. A recorded error has none.
#[derive(Deserialize)]
struct Embedding {
    embedding: Option<Vec<f32>>,
    error: Option<IgnoredAny>,
}

impl VectorsFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let cannot = |error| Failure::with_cause(format!("{name} cannot be read"), error);
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(cannot)?);
        let bytes = reader.get_ref().metadata().map_err(cannot)?.len();
        let format = if has_extension(path, &["npy"]) || reader.fill_buf().map_err(cannot)?.starts_with(npy::MAGIC) {
            let (rows, width) = npy::read_shape(&mut reader).map_err(cannot)?;
            let start = reader.stream_position().map_err(cannot)?;
            let size = rows.checked_mul(width as u64).and_then(|all| all.checked_mul(4)?.checked_add(start));
            if width == 0 || size != Some(bytes) {
                let what = format!(
                    "{name} has {bytes} bytes, and its header says {rows} rows of {width}: it is cut or damaged"
                );
                return Err(Failure::new(what));
            }
            Format::Npy { rows, width }
        } else {
            Format::JsonLines
        };
        let stated = StatedSpace::beside(path)?;
        let is_other = stated.as_ref().and_then(|stated| stated.bytes).is_some_and(|stated| stated != bytes);
        Ok(Self { reader, space: stated.map(|stated| stated.space), is_other, name, format, place: 0 })
    }

    /// Returns the name of the file in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self) -> Result<Option<VectorRow>, Failure> {
        match self.format {
            Format::Npy { rows, width } => self.read_of_matrix(rows, width),
            Format::JsonLines => self.read_line(),
        }
    }

    fn read_of_matrix(&mut self, rows: u64, width: usize) -> Result<Option<VectorRow>, Failure> {
        if self.place == rows {
            return Ok(None);
        }
        self.place += 1;
        let mut bytes = vec![0; width * size_of::<f32>()];
        self.reader.read_exact(&mut bytes).map_err(|error| {
            Failure::with_cause(format!("{} cannot be read at row {} of {rows}", self.name, self.place), error)
        })?;
        self.row(npy::components(&bytes).collect(), None).map(Some)
    }

    fn row(&self, vector: Vec<f32>, object: Option<String>) -> Result<VectorRow, Failure> {
        if vector.iter().all(|component| component.is_finite()) {
            return Ok(VectorRow { place: self.place, vector, object });
        }
        let (name, place) = (&self.name, self.place);
        Err(Failure::new(format!(
            "{name}, row {place}: a component of the vector is no finite number: embed the text again"
        )))
    }

    /// Reads the next line with a vector.
    fn read_line(&mut self) -> Result<Option<VectorRow>, Failure> {
        loop {
            self.place += 1;
            let at = |what: &str| format!("{}, line {}: {what}", self.name, self.place);
            let mut line = String::new();
            let read = self.reader.by_ref().take(LINE_BYTES).read_line(&mut line);
            let bytes = read.map_err(|error| Failure::with_cause(at("it cannot be read"), error))? as u64;
            if bytes == 0 {
                return Ok(None);
            }
            if bytes == LINE_BYTES {
                return Err(Failure::new(at(&format!("it is longer than {LINE_BYTES} bytes"))));
            }
            // The parser's own words may hold a part of the text.
            let parsed: Embedding = serde_json::from_str(&line).map_err(|error| {
                let column = error.column();
                Failure::new(at(&format!(
                    "it is no row that `embed` wrote (column {column}): name a file of its output"
                )))
            })?;
            match parsed {
                Embedding { embedding: Some(vector), .. } => {
                    return self.row(vector, Some(line)).map(Some);
                }
                Embedding { error: Some(_), .. } => {}
                Embedding { .. } => {
                    return Err(Failure::new(at("the row has no vector: name a file that `embed` wrote")));
                }
            }
        }
    }
}

impl Iterator for VectorsFile {
    type Item = Result<VectorRow, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rows(name: &str, bytes: &[u8]) -> Result<Vec<VectorRow>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        let said = |failure: Failure| format!("{failure:?}");
        let file = VectorsFile::open(&path).map_err(said)?;
        file.map(|row| row.map_err(said)).collect()
    }

    #[test]
    fn rows_of_both_formats_are_read() {
        let line = "{\"text\":\"a\",\"embedding\":[1.0,-0.5]}\n";
        let recorded = "{\"line\":2,\"error\":\"no\"}\n";
        let read = rows("a.jsonl", format!("{line}{recorded}{line}").as_bytes()).expect("sound");
        let row = |place| VectorRow { place, vector: vec![1.0, -0.5], object: Some(line.to_owned()) };
        assert_eq!(read, [row(1), row(3)]);
        let mut matrix = npy::header(2, 2).to_vec();
        npy::push_row(&[1.0, 2.0], &mut matrix);
        npy::push_row(&[3.0, 4.0], &mut matrix);
        for name in ["a.npy", "another name"] {
            let read = rows(name, &matrix).expect("sound");
            let row = |place, vector| VectorRow { place, vector, object: None };
            assert_eq!(read, [row(1, vec![1.0, 2.0]), row(2, vec![3.0, 4.0])]);
        }
    }

    #[test]
    fn what_embed_did_not_write_is_refused() {
        let refused = |name: &str, bytes: &[u8], says: &str| {
            let said = rows(name, bytes).expect_err("refused");
            assert!(said.contains(says), "{said}");
            assert!(!said.contains("secret"), "{said}");
        };
        refused("a.jsonl", b"{\"embedding\":[1]}\nsecret\n", "line 2");
        refused("a.jsonl", b"{\"embedding\":[\"secret\"]}\n", "line 1");
        refused("a.jsonl", b"{\"text\":\"secret\"}\n", "line 1: the row has no vector");
        refused("a.jsonl", b"{\"embedding\":[1e39]}\n", "row 1: a component of the vector is no finite number");
        refused("a.npy", &npy::header(1 << 61, 8), "it is cut or damaged");
        refused("a.npy", &npy::header(5, 0), "it is cut or damaged");
        refused("a.npy", b"secret", "cannot be read");
        let mut cut = npy::header(2, 2).to_vec();
        npy::push_row(&[1.0, 2.0], &mut cut);
        refused("a.npy", &cut, "it is cut or damaged");
    }
}
