//! Looks through an input before any work, so that its last line cannot fail a run of hours: [`refuse_bad_lines`].

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
};

use crate::{
    bad_lines::BadLines,
    cli::{embed::EmbedOptions, rows::OnError},
    failure::Failure,
    input::Input,
    jobs::finish,
    link::{Destination, follow},
    paths::{is_standard, regular_file},
    progress::Progress,
};

/// Reads the input to its end and refuses it if a line cannot be read as a text. Leaves out what can be read only once,
/// and a run that records such lines. Texts that the model refuses, such as too long ones, are not seen here.
pub(crate) fn refuse_bad_lines(options: &EmbedOptions, what_then: &str) -> Result<(), Failure> {
    if options.on_error == OnError::Record {
        return Ok(());
    }
    let Some((input, rewind)) = read_again(options)? else { return Ok(()) };
    let progress = Progress::new(input.size(), "lines checked", options.shows_progress());
    let (mut bad_lines, mut lines) = (BadLines::default(), 0);
    // The run itself warns.
    for window in input.without_warning() {
        let window = window?;
        lines += window.lines.len() as u64;
        progress.advance(window.bytes, lines);
        bad_lines.extend(window.into_bad_lines());
    }
    drop(progress);
    if let Some(StandardFile { mut file, start }) = rewind {
        let rewound = file.seek(SeekFrom::Start(start));
        rewound.map_err(|error| Failure::with_cause("standard input cannot be read again", error))?;
    }
    finish::refuse_bad_lines(&bad_lines, lines, what_then)
}

/// Opens the input if it can be read twice. Standard input that is a file must be set back to where it was.
fn read_again(options: &EmbedOptions) -> Result<Option<(Input, Option<StandardFile>)>, Failure> {
    if !is_standard(&options.input) {
        // What the shell has opened is read from where the shell is in it, and in some systems has that place alone.
        let is_own = follow(&options.input).is_ok_and(|end| !matches!(end, Destination::Path(_)));
        let is_file = options.input.metadata().is_ok_and(|about| about.is_file());
        let opened = (is_file && !is_own).then(|| Input::open(&options.input, &options.input_options)).transpose()?;
        return Ok(opened.map(|input| (input, None)));
    }
    let Some(standard) = standard_file() else { return Ok(None) };
    let Ok(same) = standard.file.try_clone() else { return Ok(None) };
    let input = Input::of(same, &options.input_options, "standard input")?;
    Ok(Some((input, Some(standard))))
}

/// Standard input that is a file, and the place in it from which it is read.
struct StandardFile {
    file: File,
    start: u64,
}

/// Returns standard input if it is a file.
#[cfg(unix)]
fn standard_file() -> Option<StandardFile> {
    let mut file = regular_file(io::stdin())?;
    let start = file.stream_position().ok()?;
    Some(StandardFile { file, start })
}

#[cfg(not(unix))]
fn standard_file() -> Option<StandardFile> {
    None
}
