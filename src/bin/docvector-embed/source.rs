//! Reads an input several times and makes sure that it stays the same: [`Source`].

mod block;
pub(crate) mod windows;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use self::{block::Block, windows::Windows};
use crate::{
    bad_lines::BadLines,
    cli::input::InputOptions,
    failure::Failure,
    input::Input,
    json_warning::warn_of_json,
    paths::is_standard,
    window::{BadLine, InputLine, Window},
};

/// An input that was read once, to find its bad lines, and can be read again. A batch job needs that: its texts are read
/// when it is submitted, and their lines again when the rows are there, a day later perhaps.
pub(crate) struct Source {
    place: Place,
    options: InputOptions,
    name: String,
    /// The windows as they were first read. Later they may be cut elsewhere, and then these blocks are compared.
    blocks: Vec<Block>,
    /// Texts that cannot be embedded, by their index among all lines, and why: they are bad lines from now on. Elements
    /// of an array may share a line, so that its number does not tell them apart.
    excluded: BTreeMap<u64, String>,
    pub(crate) texts: u64,
    pub(crate) lines: u64,
    pub(crate) bad_lines: BadLines,
    /// Whether the first line looks like a JSON line and is read as a text.
    looks_like_json: bool,
}

enum Place {
    File(PathBuf),
    /// A copy of something that can be read only once. It has no name, so nothing is left of it if this process is killed.
    Copy(File),
}

impl Source {
    /// Reads a file, or standard input for `-`, to its end.
    pub(crate) fn read(path: &Path, options: &InputOptions) -> Result<Self, Failure> {
        let is_file = !is_standard(path) && fs::metadata(path).is_ok_and(|about| about.is_file());
        let name = if is_standard(path) { "standard input".to_owned() } else { path.display().to_string() };
        let place = if is_file { Place::File(path.to_owned()) } else { Place::Copy(copy(path, &name)?) };
        let (options, bad_lines) = (options.clone(), BadLines::default());
        let (blocks, excluded) = (Vec::new(), BTreeMap::new());
        let mut source =
            Self { place, options, name, blocks, excluded, texts: 0, lines: 0, bad_lines, looks_like_json: false };
        let mut input = source.open()?;
        for window in input.by_ref() {
            source.add(window?);
        }
        source.looks_like_json = input.looks_like_json();
        Ok(source)
    }

    fn add(&mut self, window: Window) {
        self.blocks.push(Block::of(&window));
        self.lines += window.lines.len() as u64;
        self.texts += window.text_lines().count() as u64;
        self.bad_lines.extend(window.into_bad_lines());
    }

    /// Returns the name of the input in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the lines of texts that cannot be embedded, which are given by their index among the texts with the
    /// reason.
    pub(crate) fn lines_of(&self, texts: &BTreeMap<u64, String>) -> Result<Vec<BadLine>, Failure> {
        Ok(self.find(texts)?.into_iter().map(|(_, bad_line)| bad_line).collect())
    }

    /// Makes bad lines of such texts, so that the input is read without them from now on.
    pub(crate) fn exclude(&mut self, texts: &BTreeMap<u64, String>) -> Result<(), Failure> {
        let excluded = self.find(texts)?;
        self.texts -= excluded.len() as u64;
        self.excluded.extend(excluded.into_iter().map(|(index, bad_line)| (index, bad_line.reason)));
        Ok(())
    }

    /// Finds the lines of such texts, each with its index among all lines.
    fn find(&self, texts: &BTreeMap<u64, String>) -> Result<Vec<(u64, BadLine)>, Failure> {
        let (mut found, mut index, mut text) = (Vec::new(), 0, 0);
        for window in self.windows()? {
            for line in &window?.lines {
                if let InputLine::Text(text_line) = line {
                    if let Some(reason) = texts.get(&text) {
                        let (line, reason) = (text_line.line, reason.clone());
                        found.push((index, BadLine { line, reason, object: None }));
                    }
                    text += 1;
                }
                index += 1;
            }
        }
        Ok(found)
    }

    /// Warns if the first line looks like a JSON line and is read as a text.
    pub(crate) fn warn_of_json(&self) {
        if self.looks_like_json {
            warn_of_json(1);
        }
    }

    /// Reads the input again. Read it once at a time: readings of standard input share a position.
    pub(crate) fn windows(&self) -> Result<Windows, Failure> {
        Ok(Windows::new(self.open()?, &self.name, self.blocks.clone(), self.excluded.clone()))
    }

    fn open(&self) -> Result<Input, Failure> {
        let input = match &self.place {
            Place::File(path) => Input::open(path, &self.options)?,
            Place::Copy(file) => {
                let file = file.try_clone().and_then(|mut file| file.seek(SeekFrom::Start(0)).map(|_| file));
                let file =
                    file.map_err(|error| Failure::with_cause(format!("{} cannot be read again", self.name), error))?;
                Input::of(file, &self.options, &self.name)?
            }
        };
        // It is read more than once, and the warning comes once.
        Ok(input.without_warning())
    }
}

/// Copies what can be read only once into a file without a name.
fn copy(path: &Path, name: &str) -> Result<File, Failure> {
    if path.is_dir() {
        return Err(Failure::new(format!("{name} is a folder, not a file of texts")));
    }
    let mut original: Box<dyn Read> = if is_standard(path) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| Failure::with_cause(format!("{name} cannot be read"), error))?)
    };
    let copied = tempfile::tempfile().and_then(|mut copy| io::copy(&mut original, &mut copy).map(|_| copy));
    copied.map_err(|error| Failure::with_cause(format!("{name} cannot be copied into a temporary file"), error))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::input::InputFormat;

    fn jsonl() -> InputOptions {
        InputOptions::by_name(InputFormat::Jsonl)
    }

    fn source(folder: &Path, content: &str) -> Source {
        let path = folder.join("in.jsonl");
        fs::write(&path, content).expect("written");
        Source::read(&path, &jsonl()).expect("read")
    }

    fn lines(source: &Source) -> Vec<String> {
        let windows = source.windows().expect("opened").map(|window| window.expect("read as before"));
        let shown = |line| match line {
            InputLine::Text(text_line) => text_line.text,
            InputLine::Bad(bad_line) => format!("{}: {}", bad_line.line, bad_line.reason),
        };
        windows.flat_map(|window| window.lines).map(shown).collect()
    }

    #[test]
    fn is_read_again_without_the_texts_that_are_excluded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut source = source(folder.path(), "{\"text\":\"a\"}\n{}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n");
        assert_eq!((source.lines, source.texts, source.bad_lines.count), (4, 3, 1));
        assert_eq!(lines(&source), ["a", "2: the object has no field `text`", "b", "c"]);
        // The second text is on the third line.
        source.exclude(&BTreeMap::from([(1, "the text is odd".to_owned())])).expect("read");
        assert_eq!(source.texts, 2);
        let after = ["a", "2: the object has no field `text`", "3: the text is odd", "c"];
        assert_eq!(lines(&source), after);
        // Indices are those among the texts that are left.
        source.exclude(&BTreeMap::from([(1, "so is this".to_owned())])).expect("read");
        assert_eq!(lines(&source)[3], "4: so is this");
    }

    #[test]
    fn texts_on_one_line_are_excluded_one_by_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("in.json");
        fs::write(&path, "[\"a\", 1, \"b\", \"c\"]").expect("written");
        let mut source = Source::read(&path, &InputOptions::by_name(InputFormat::Json)).expect("read");
        let odd = BTreeMap::from([(1, "the text is odd".to_owned())]);
        assert_eq!(source.lines_of(&odd).expect("read").len(), 1);
        source.exclude(&odd).expect("read");
        let neither = "1: the element is JSON, but neither a string nor an object";
        assert_eq!(lines(&source), ["a", neither, "1: the text is odd", "c"]);
        assert_eq!(source.texts, 2);
    }

    #[test]
    fn an_input_that_changes_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let content = "{\"text\":\"a\"}\n{\"text\":\"b\"}\n";
        for changed in [
            "{\"text\":\"a\"}\n{\"text\":\"x\"}\n",
            "{\"text\":\"a\"}\n",
            "",
            &format!("{content}{{\"text\":\"c\"}}\n"),
        ] {
            let source = source(folder.path(), content);
            assert_eq!(lines(&source), ["a", "b"]);
            fs::write(folder.path().join("in.jsonl"), changed).expect("written");
            let mut windows = source.windows().expect("opened");
            assert!(windows.by_ref().any(|window| window.is_err()), "{changed}");
            assert!(windows.next().is_none());
        }
    }

    #[test]
    fn blocks_are_compared_wherever_windows_are_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let content: String = (0..3000).map(|number| format!("{{\"text\":\"{number}\"}}\n")).collect();
        let mut source = source(folder.path(), &content);
        let expected = lines(&source);
        let whole: u64 = source.windows().expect("opened").map(|window| window.expect("read").bytes).sum();
        assert_eq!((expected.len(), whole), (3000, content.len() as u64));
        // As if the windows had been cut after other lines when the input was first read.
        for length in [1, 7, 100, 1500] {
            let mut rest = source.windows().expect("opened").flat_map(|window| window.expect("read").lines);
            let parts = (0..3000_usize.div_ceil(length)).map(|_| rest.by_ref().take(length).collect::<Vec<_>>());
            source.blocks = parts.map(|lines| Block::of(&Window { lines, bytes: 0 })).collect();
            assert_eq!(lines(&source), expected);
            let cut = source.windows().expect("opened").map(|window| window.expect("read").lines.len());
            assert!(cut.eq(source.blocks.iter().map(|block| block.lines)));
        }
    }

    #[test]
    fn an_array_or_a_table_is_read_again_compressed_or_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("in");
        for (format, content) in
            [(InputFormat::Json, "[\"a\", {\"text\": \"b\"},\n7]"), (InputFormat::Csv, "id,text\n1,a\n\n2,b\n3\n")]
        {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(content.as_bytes()).expect("a vector takes everything");
            for bytes in [content.as_bytes().to_vec(), gzip.finish().expect("a vector takes everything")] {
                fs::write(&path, bytes).expect("written");
                let source = Source::read(&path, &InputOptions::by_name(format)).expect("read");
                assert_eq!((source.lines, source.texts, source.bad_lines.count), (3, 2, 1), "{format:?}");
                for _ in 0..2 {
                    assert_eq!(lines(&source)[..2], ["a", "b"]);
                }
            }
        }
    }

    #[test]
    fn a_first_line_of_json_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("in.txt");
        fs::write(&path, "{\"text\":\"a\"}\n").expect("written");
        let options = InputOptions::by_name(InputFormat::Lines);
        assert!(Source::read(&path, &options).expect("read").looks_like_json);
        assert!(!Source::read(&path, &options.named()).expect("read").looks_like_json);
    }
}
