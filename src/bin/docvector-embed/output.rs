//! Writes rows as JSON lines or a NumPy matrix; a file gets its name when it is complete, or never.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    cli::rows::OutputFormat,
    failure::Failure,
    json_rows::{push_bad_line, push_vector},
    npy,
    paths::is_standard,
    unfinished_file::{UnfinishedFile, existing},
    window::{BadLine, InputLine, Rows, TextLine},
};

const BUFFER_BYTES: usize = 256 << 10;

/// The output of rows. Dropping an unfinished one leaves nothing under a file's name.
pub(crate) struct Output {
    sink: Sink,
    format: OutputFormat,
    name: String,
    rows: u64,
    /// The bytes of the current row.
    row: Vec<u8>,
}

enum Sink {
    Stream(BufWriter<Box<dyn Write + Send>>),
    File(BufWriter<UnfinishedFile>),
}

impl Output {
    /// Opens the output before any work, so that errors show early.
    pub(crate) fn create(path: &Path, format: OutputFormat) -> Result<Self, Failure> {
        if is_standard(path) {
            return Ok(Self::new(stream(io::stdout()), format, "standard output".to_owned()));
        }
        let name = path.display().to_string();
        let cannot = |error| Failure::writing(&name, error);
        let sink = match existing(path).map_err(cannot)? {
            Some(about) if about.is_dir() => {
                return Err(Failure::new(format!("{name} is a folder: name a file in it")));
            }
            Some(about) if !about.is_file() && format == OutputFormat::Npy => {
                let message = format!(
                    "{name} is not a regular file, and npy needs one, because its header holds the number of rows"
                );
                return Err(Failure::new(message));
            }
            Some(about) if !about.is_file() => stream(OpenOptions::new().write(true).open(path).map_err(cannot)?),
            replaced => Sink::File(unfinished(path, replaced, format).map_err(cannot)?),
        };
        Ok(Self::new(sink, format, name))
    }

    fn new(sink: Sink, format: OutputFormat, name: String) -> Self {
        Self { sink, format, name, rows: 0, row: Vec::with_capacity(BUFFER_BYTES) }
    }

    /// Returns the name of the output in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the output is a file, which appears only when it is complete.
    pub(crate) const fn is_file(&self) -> bool {
        matches!(self.sink, Sink::File(..))
    }

    /// Writes the rows of a window.
    pub(crate) fn write(&mut self, rows: &Rows) -> Result<(), Failure> {
        let out: &mut dyn Write = match &mut self.sink {
            Sink::Stream(stream) => stream,
            Sink::File(file) => file,
        };
        let mut row = 0;
        let written = rows.lines.iter().try_for_each(|item| {
            self.row.clear();
            match (item, &rows.embeddings) {
                (InputLine::Text(text_line), Some(embeddings)) if row < embeddings.len() => {
                    match self.format {
                        OutputFormat::Npy => npy::push_row(embeddings.row(row), &mut self.row),
                        OutputFormat::Jsonl => {
                            let truncated = embeddings.is_truncated(row);
                            push_vector(text_line, embeddings.row(row), truncated, &mut self.row)?;
                        }
                    }
                    row += 1;
                    self.rows += 1;
                }
                (InputLine::Bad(bad_line), _) if self.format == OutputFormat::Jsonl => {
                    push_bad_line(bad_line, &mut self.row)?
                }
                (InputLine::Text(TextLine { line, .. }) | InputLine::Bad(BadLine { line, .. }), _) => {
                    return Err(io::Error::other(format!("line {line} has no row: this is a bug")));
                }
            }
            out.write_all(&self.row)
        });
        written.map_err(|error| Failure::writing(&self.name, error))
    }

    /// Completes the output. A file then appears under its name.
    pub(crate) fn finish(self, width: usize) -> Result<(), Failure> {
        let Self { sink, format, name, rows, .. } = self;
        let finished = match sink {
            Sink::Stream(mut stream) => stream.flush(),
            Sink::File(file) => complete(file, (format == OutputFormat::Npy).then(|| npy::header(rows, width))),
        };
        finished.map_err(|error| Failure::writing(&name, error))
    }
}

fn stream(writer: impl Write + Send + 'static) -> Sink {
    Sink::Stream(BufWriter::with_capacity(BUFFER_BYTES, Box::new(writer)))
}

/// Creates an unfinished file, which may replace another.
fn unfinished(path: &Path, replaced: Option<Metadata>, format: OutputFormat) -> io::Result<BufWriter<UnfinishedFile>> {
    let file = UnfinishedFile::create(path, replaced.is_some())?;
    if let Some(about) = replaced {
        // Keep the permissions of a replaced file, if possible.
        let _ = file.set_permissions(about.permissions());
    }
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    if format == OutputFormat::Npy {
        // Zeros in place of the header: the rest of a killed run must not pass for a matrix.
        file.write_all(&[0; npy::HEADER_BYTES])?;
    }
    Ok(file)
}

fn complete(file: BufWriter<UnfinishedFile>, header: Option<[u8; npy::HEADER_BYTES]>) -> io::Result<()> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Some(header) = header {
        file.overwrite_start(&header)?;
    }
    file.persist()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use docvector_embed::{Embeddings, Space, Usage};

    use super::*;

    fn embeddings(components: &[f32]) -> Embeddings {
        let space = Space::builder("test", 2).build().expect("a valid space");
        Embeddings::new(components.len() / 2, &space, components.to_vec(), Usage::ZERO).expect("valid")
    }

    fn rows(lines: Vec<InputLine>, embeddings: Embeddings) -> Rows {
        Rows { lines, embeddings: Some(embeddings), usage: Usage::ZERO }
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.jsonl");
        let count = || fs::read_dir(folder.path()).expect("readable").count();

        let mut output = Output::create(&path, OutputFormat::Jsonl).expect("created");
        let items = vec![InputLine::text(1, "a", None), InputLine::bad(2, "no", None), InputLine::text(3, "b", None)];
        let window = rows(items, embeddings(&[1.0, 0.0, 0.0, 1.0]).with_truncated(vec![1]));
        output.write(&window).expect("written");
        assert!(!path.exists());
        output.finish(2).expect("finished");
        let lines = fs::read_to_string(&path).expect("there");
        let expected = "{\"text\":\"a\",\"embedding\":[1.0,0.0]}\n{\"line\":2,\"error\":\"no\"}\n\
                        {\"text\":\"b\",\"embedding\":[0.0,1.0],\"truncated\":true}\n";
        assert_eq!(lines, expected);
        assert_eq!(count(), 1);

        let mut output = Output::create(&path, OutputFormat::Jsonl).expect("created");
        output.write(&window).expect("written");
        drop(output);
        assert_eq!(fs::read_to_string(&path).expect("there"), expected, "the old file stays");
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_matrix_has_its_count_in_the_header() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.npy");
        let mut output = Output::create(&path, OutputFormat::Npy).expect("created");
        output.write(&rows(vec![InputLine::text(1, "a", None)], embeddings(&[1.0, 0.5]))).expect("written");
        output.write(&rows(vec![InputLine::text(2, "b", None)], embeddings(&[0.1, 0.2]))).expect("written");
        output.finish(2).expect("finished");
        let bytes = fs::read(&path).expect("there");
        assert_eq!(npy::parse(&bytes), Some((2, vec![1.0, 0.5, 0.1, 0.2])));

        Output::create(&path, OutputFormat::Npy).expect("created").finish(384).expect("finished");
        assert_eq!(npy::parse(&fs::read(&path).expect("there")), Some((384, Vec::new())));
    }

    #[test]
    fn a_text_without_a_row_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut output = Output::create(&folder.path().join("out.npy"), OutputFormat::Npy).expect("created");
        let window = rows(vec![InputLine::text(1, "a", None), InputLine::text(2, "b", None)], embeddings(&[1.0, 0.5]));
        assert!(output.write(&window).is_err());
    }

    #[test]
    fn wrong_places_are_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Output::create(folder.path(), OutputFormat::Jsonl).is_err());
        assert!(Output::create(&folder.path().join("missing/out.jsonl"), OutputFormat::Jsonl).is_err());
        #[cfg(unix)]
        {
            assert!(Output::create(Path::new("/dev/null"), OutputFormat::Npy).is_err());
            assert!(Output::create(Path::new("/dev/null"), OutputFormat::Jsonl).is_ok_and(|output| !output.is_file()));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn new_files_have_ordinary_permissions_and_old_ones_keep_theirs() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let plain = folder.path().join("plain");
        fs::write(&plain, "").expect("written");
        let path = folder.path().join("out.jsonl");
        Output::create(&path, OutputFormat::Jsonl).expect("created").finish(1).expect("finished");
        assert_eq!(mode(&path), mode(&plain));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        Output::create(&path, OutputFormat::Jsonl).expect("created").finish(1).expect("finished");
        assert_eq!(mode(&path), 0o640);

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        Output::create(&link, OutputFormat::Npy).expect("created").finish(1).expect("finished");
        assert!(link.is_symlink());
        assert!(npy::parse(&fs::read(&path).expect("there")).is_some());
    }
}
