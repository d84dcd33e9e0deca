//! Writes rows as JSON lines or a NumPy matrix; a file gets its name when it is complete, or never.

use std::{
    fs::{self, Metadata, OpenOptions},
    io::{self, BufWriter, Write},
    path::Path,
};

use docvector_embed::Space;

use crate::{
    cli::rows::OutputFormat,
    failure::Failure,
    json_rows::{push_bad_line, push_vector},
    link::{Destination, follow},
    npy,
    paths::is_standard,
    space_file::SpaceFile,
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
    File(BufWriter<UnfinishedFile>, SpaceFile),
}

impl Output {
    /// Opens the output before any work, so that errors show early.
    pub(crate) fn create(path: &Path, format: OutputFormat) -> Result<Self, Failure> {
        if is_standard(path) {
            return Ok(Self::new(stream(io::stdout()), format, "standard output".to_owned()));
        }
        let name = path.display().to_string();
        let cannot = |error| Failure::writing(&name, error);
        let about = existing(path).map_err(cannot)?;
        if about.as_ref().is_some_and(Metadata::is_dir) {
            return Err(Failure::new(format!("{name} is a folder: name a file in it")));
        }
        let destination = follow(path).map_err(cannot)?;
        let is_stream = about.as_ref().is_some_and(|about| !about.is_file());
        let sink = match destination {
            Destination::Path(path) if !is_stream => {
                // The output itself first: an error is about its name.
                let file = unfinished(&path, about, format).map_err(cannot)?;
                Sink::File(file, SpaceFile::create(&path)?)
            }
            _ if format == OutputFormat::Npy => {
                return Err(Failure::new(format!(
                    "{name} is not a regular file, and npy needs one, because its header holds the number of rows: \
                     name a file"
                )));
            }
            Destination::Path(path) => stream(OpenOptions::new().write(true).open(path).map_err(cannot)?),
            Destination::Own(number) => own(number, &name)?,
            Destination::Other(path) => stream(OpenOptions::new().append(true).open(path).map_err(cannot)?),
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
            Sink::File(file, _) => file,
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

    /// Hands on what was written, where somebody may wait for it. Nobody reads an unfinished file.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.sink {
            Sink::Stream(stream) => stream.flush().map_err(|error| Failure::writing(&self.name, error)),
            Sink::File(..) => Ok(()),
        }
    }

    /// Completes the output. A file then appears under its name, and the space of its vectors beside it.
    pub(crate) fn finish(self, space: &Space) -> Result<(), Failure> {
        let Self { sink, format, name, rows, .. } = self;
        let cannot = |error| Failure::writing(&name, error);
        match sink {
            Sink::Stream(mut stream) => stream.flush().map_err(cannot),
            Sink::File(file, mut space_file) => {
                let header = (format == OutputFormat::Npy).then(|| npy::header(rows, space.dimensions()));
                let (file, bytes) = complete(file, header).map_err(cannot)?;
                space_file.replace(space, bytes)?;
                file.rename().map_err(cannot)?;
                space_file.rename()
            }
        }
    }
}

fn stream(writer: impl Write + Send + 'static) -> Sink {
    Sink::Stream(BufWriter::with_capacity(BUFFER_BYTES, Box::new(writer)))
}

/// Creates an unfinished file, which may replace another.
fn unfinished(path: &Path, replaced: Option<Metadata>, format: OutputFormat) -> io::Result<BufWriter<UnfinishedFile>> {
    let file = UnfinishedFile::create(path)?;
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

/// Writes the last bytes of a file to the disk, and returns it with its size.
fn complete(
    file: BufWriter<UnfinishedFile>,
    header: Option<[u8; npy::HEADER_BYTES]>,
) -> io::Result<(UnfinishedFile, u64)> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Some(header) = header {
        file.overwrite_start(&header)?;
    }
    let bytes = file.sync()?;
    Ok((file, bytes))
}

/// Opens a file that the shell has opened for this process. The shell is somewhere in it, and goes on from there.
fn own(number: u32, name: &str) -> Result<Sink, Failure> {
    match number {
        1 => return Ok(stream(io::stdout())),
        2 => return Ok(stream(io::stderr())),
        _ => {}
    }
    let path = format!("/dev/fd/{number}");
    let cannot = |error| Failure::writing(name, error);
    let is_file = existing(Path::new(&path)).map_err(cannot)?.is_some_and(|about| about.is_file());
    if is_file && !appends(number) {
        return Err(Failure::new(format!(
            "{name} is a file that is not open for appending, so it would be written from its start a second time: open it \
             with {number}>> or name it with --output"
        )));
    }
    Ok(stream(OpenOptions::new().append(true).open(path).map_err(cannot)?))
}

/// Returns whether all is written at the end of an open file, as far as the system tells.
fn appends(number: u32) -> bool {
    /// As Linux has it, in octal.
    const O_APPEND: u32 = 0o2000;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & O_APPEND != 0)
}

#[cfg(test)]
mod tests {
    use docvector_embed::{Charges, Embeddings, Usage};

    use super::*;
    use crate::space_file::StatedSpace;

    fn space(dimensions: usize) -> Space {
        Space::builder("test", dimensions).build().expect("a valid space")
    }

    fn embeddings(components: &[f32]) -> Embeddings {
        Embeddings::new(components.len() / 2, &space(2), components.to_vec(), Usage::ZERO).expect("valid")
    }

    fn rows(lines: Vec<InputLine>, embeddings: Embeddings) -> Rows {
        Rows { lines, embeddings: Some(embeddings), charges: Charges::NONE }
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
        output.finish(&space(2)).expect("finished");
        let lines = fs::read_to_string(&path).expect("there");
        let expected = "{\"text\":\"a\",\"embedding\":[1.0,0.0]}\n{\"line\":2,\"error\":\"no\"}\n\
                        {\"text\":\"b\",\"embedding\":[0.0,1.0],\"truncated\":true}\n";
        assert_eq!(lines, expected);
        let beside = StatedSpace::beside(&path).expect("readable").expect("there");
        assert_eq!((beside.space, beside.bytes), (space(2), Some(lines.len() as u64)));
        assert_eq!(count(), 2);

        let mut output = Output::create(&path, OutputFormat::Jsonl).expect("created");
        output.write(&window).expect("written");
        drop(output);
        assert_eq!(fs::read_to_string(&path).expect("there"), expected, "the old file stays");
        assert_eq!(count(), 2);
    }

    #[test]
    fn a_matrix_has_its_count_in_the_header() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.npy");
        let mut output = Output::create(&path, OutputFormat::Npy).expect("created");
        output.write(&rows(vec![InputLine::text(1, "a", None)], embeddings(&[1.0, 0.5]))).expect("written");
        output.write(&rows(vec![InputLine::text(2, "b", None)], embeddings(&[0.1, 0.2]))).expect("written");
        output.finish(&space(2)).expect("finished");
        let bytes = fs::read(&path).expect("there");
        assert_eq!(npy::parse(&bytes), Some((2, vec![1.0, 0.5, 0.1, 0.2])));

        Output::create(&path, OutputFormat::Npy).expect("created").finish(&space(384)).expect("finished");
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
            assert!(Output::create(Path::new("/dev/stdout"), OutputFormat::Npy).is_err());
        }
        assert!(Output::create(&folder.path().join("new/"), OutputFormat::Npy).is_err());
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
        Output::create(&path, OutputFormat::Jsonl).expect("created").finish(&space(1)).expect("finished");
        assert_eq!(mode(&path), mode(&plain));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        Output::create(&path, OutputFormat::Jsonl).expect("created").finish(&space(1)).expect("finished");
        assert_eq!(mode(&path), 0o640);

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        Output::create(&link, OutputFormat::Npy).expect("created").finish(&space(1)).expect("finished");
        assert!(link.is_symlink());
        let to_nothing = folder.path().join("to nothing");
        std::os::unix::fs::symlink("new", &to_nothing).expect("linked");
        Output::create(&to_nothing, OutputFormat::Npy).expect("created").finish(&space(1)).expect("finished");
        assert!(to_nothing.is_symlink() && folder.path().join("new").is_file());
        assert!(npy::parse(&fs::read(&path).expect("there")).is_some());
    }
}
