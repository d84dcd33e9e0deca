//! Reads an input several times and makes sure that it stays the same: [`Source`].

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    slice,
};

use crate::{
    bad_lines::BadLines,
    failure::Failure,
    input::Input,
    json_warning::warn_of_json,
    paths::is_standard,
    window::{BadLine, InputLine, TextLine, Window},
};

/// The bytes of a window's digest that are kept.
const DIGEST_BYTES: usize = 16;

/// An input that was read once, to find its bad lines, and can be read again. A batch job needs that: its texts are read
/// when it is submitted, and their lines again when the rows are there, a day later perhaps.
pub(crate) struct Source {
    place: Place,
    jsonl: bool,
    name: String,
    /// A digest of each window, as it was first read.
    digests: Vec<[u8; DIGEST_BYTES]>,
    /// Texts that cannot be embedded, by their line, and why: they are bad lines from now on.
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
    pub(crate) fn read(path: &Path, jsonl: bool) -> Result<Self, Failure> {
        let is_file = !is_standard(path) && fs::metadata(path).is_ok_and(|about| about.is_file());
        let name = if is_standard(path) { "standard input".to_owned() } else { path.display().to_string() };
        let place = if is_file { Place::File(path.to_owned()) } else { Place::Copy(copy(path, &name)?) };
        let (digests, excluded, bad_lines) = (Vec::new(), BTreeMap::new(), BadLines::default());
        let mut source =
            Self { place, jsonl, name, digests, excluded, texts: 0, lines: 0, bad_lines, looks_like_json: false };
        for window in source.open()? {
            source.add(window?);
        }
        Ok(source)
    }

    fn add(&mut self, window: Window) {
        self.digests.push(digest(&window));
        self.lines += window.lines.len() as u64;
        self.texts += window.text_lines().count() as u64;
        self.looks_like_json |= window.text_lines().next().is_some_and(TextLine::looks_like_json);
        let bad_lines = window.lines.into_iter().filter_map(|line| match line {
            InputLine::Bad(bad_line) => Some(bad_line),
            InputLine::Text(_) => None,
        });
        self.bad_lines.extend(bad_lines.collect());
    }

    /// Returns the name of the input in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the lines of texts that cannot be embedded, which are given by their index among the texts with the
    /// reason.
    pub(crate) fn lines_of(&self, texts: &BTreeMap<u64, String>) -> Result<Vec<BadLine>, Failure> {
        let (mut bad_lines, mut index) = (Vec::new(), 0);
        for window in self.windows()? {
            for text_line in window?.text_lines() {
                if let Some(reason) = texts.get(&index) {
                    bad_lines.push(BadLine { line: text_line.line, reason: reason.clone(), object: None });
                }
                index += 1;
            }
        }
        Ok(bad_lines)
    }

    /// Makes bad lines of such texts, so that the input is read without them from now on.
    pub(crate) fn exclude(&mut self, texts: &BTreeMap<u64, String>) -> Result<(), Failure> {
        let excluded = self.lines_of(texts)?;
        self.texts -= excluded.len() as u64;
        self.excluded.extend(excluded.into_iter().map(|bad_line| (bad_line.line, bad_line.reason)));
        Ok(())
    }

    /// Warns if the first line looks like a JSON line and is read as a text.
    pub(crate) fn warn_of_json(&self) {
        if self.looks_like_json {
            warn_of_json(1);
        }
    }

    /// Reads the input again. Read it once at a time: readings of standard input share a position.
    pub(crate) fn windows(&self) -> Result<Windows, Failure> {
        Ok(Windows {
            input: self.open()?,
            name: self.name.clone(),
            digests: self.digests.clone().into_iter(),
            excluded: self.excluded.clone(),
            has_failed: false,
        })
    }

    fn open(&self) -> Result<Input, Failure> {
        match &self.place {
            Place::File(path) => Input::open(path, self.jsonl),
            Place::Copy(file) => {
                let file = file.try_clone().and_then(|mut file| file.seek(SeekFrom::Start(0)).map(|_| file));
                let file =
                    file.map_err(|error| Failure::with_cause(format!("{} cannot be read again", self.name), error))?;
                Ok(Input::of(file, self.jsonl, &self.name))
            }
        }
    }
}

/// The windows of a source that is read again. Its bad texts are bad lines.
pub(crate) struct Windows {
    input: Input,
    name: String,
    digests: std::vec::IntoIter<[u8; DIGEST_BYTES]>,
    excluded: BTreeMap<u64, String>,
    has_failed: bool,
}

impl Windows {
    /// Compares a window with what was read before, so that no row meets another text than its own.
    fn check(&mut self, window: Option<Result<Window, Failure>>) -> Result<Option<Window>, Failure> {
        let window = window.transpose()?;
        if window.as_ref().map(digest) != self.digests.next() {
            return Err(Failure::new(format!("{} changed while it was in use: leave it as it is", self.name)));
        }
        Ok(window.map(|mut window| {
            for item in &mut window.lines {
                exclude(item, &self.excluded);
            }
            window
        }))
    }
}

impl Iterator for Windows {
    type Item = Result<Window, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let window = self.input.next();
        let checked = self.check(window);
        self.has_failed = checked.is_err();
        checked.transpose()
    }
}

/// Makes a bad line of a text that was excluded.
fn exclude(item: &mut InputLine, excluded: &BTreeMap<u64, String>) {
    if let InputLine::Text(text_line) = item
        && let Some(reason) = excluded.get(&text_line.line)
    {
        let (line, reason, object) = (text_line.line, reason.clone(), text_line.object.take());
        *item = InputLine::Bad(BadLine { line, reason, object });
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

/// Returns a digest of all that a window holds.
fn digest(window: &Window) -> [u8; DIGEST_BYTES] {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    for item in &window.lines {
        let (kind, content, object) = match item {
            InputLine::Text(TextLine { text, object, .. }) => (0, text, object),
            InputLine::Bad(BadLine { reason, object, .. }) => (1, reason, object),
        };
        add(slice::from_ref(&(kind + 2 * u8::from(object.is_some()))));
        add(content.as_bytes());
        add(object.as_deref().unwrap_or_default().as_bytes());
    }
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..DIGEST_BYTES]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(folder: &Path, content: &str) -> Source {
        let path = folder.join("in.jsonl");
        fs::write(&path, content).expect("written");
        Source::read(&path, true).expect("read")
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
    fn digests_tell_all_parts_of_a_line_apart() {
        let of = |item| {
            let mut window = Window::default();
            window.push(item, 1);
            digest(&window)
        };
        let items = || {
            [
                InputLine::text(1, "a", None),
                InputLine::text(1, "b", None),
                InputLine::text(1, "a", Some("")),
                InputLine::text(1, "a", Some("{}")),
                InputLine::bad(1, "a", None),
                InputLine::text(1, "", Some("a")),
            ]
        };
        let digests: std::collections::BTreeSet<_> = items().into_iter().map(of).collect();
        assert_eq!(digests.len(), items().len());
    }
}
