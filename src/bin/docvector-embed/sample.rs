//! Provides texts to measure with, from a file or from this crate's documentation.

use std::path::Path;

use crate::{
    cli::input::FormatArgs,
    failure::Failure,
    input::Input,
    window::{BadLine, InputLine, Window},
};

/// Pages of the documentation: prose, tables and code in chapters of all lengths.
const PAGES: [&str; 5] = [
    include_str!("../../docs/calls.md"),
    include_str!("../../docs/design.md"),
    include_str!("../../docs/stacking.md"),
    include_str!("../../docs/testing.md"),
    include_str!("../../docs/writing_a_provider.md"),
];

/// The most texts that are kept of a file, and their most bytes.
const MAX_TEXTS: usize = 8192;
const MAX_BYTES: usize = 64 << 20;

/// The most words of a query that is made from a longer text: about ten tokens.
const QUERY_WORDS: usize = 8;
/// The most characters of such a query: words may be long, or there may be no spaces.
const QUERY_CHARS: usize = 64;

/// Texts to measure with, mixed in length.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) documents: Vec<String>,
    /// Short texts, made from the documents.
    pub(crate) queries: Vec<String>,
    /// The source of the texts, as it is printed.
    pub(crate) source: String,
    /// Lines of the file that cannot be embedded.
    pub(crate) skipped_lines: u64,
}

impl Sample {
    /// Reads the texts of a file, or takes those of this crate.
    pub(crate) fn open(input: Option<&Path>, format: &FormatArgs) -> Result<Self, Failure> {
        let options = format.options_if_any(input).map_err(Failure::new)?;
        match input.zip(options) {
            Some((path, options)) => Self::read(Input::open(path, &options)?, path),
            None => Ok(Self::of_documentation()),
        }
    }

    /// Takes the chapters of the documentation, their headings and their paragraphs.
    fn of_documentation() -> Self {
        let mut sample = Self { source: "this crate's documentation".to_owned(), ..Self::default() };
        for chapter in PAGES.into_iter().flat_map(chapters) {
            let paragraphs = paragraphs(&chapter.text);
            let prose = paragraphs.iter().filter(|text| text.starts_with(char::is_alphabetic));
            sample.queries.extend(prose.map(|text| beginning(text)));
            if !chapter.heading.is_empty() {
                sample.queries.push(chapter.heading.clone());
                sample.documents.push(chapter.heading);
            }
            // A chapter of one paragraph is that paragraph.
            if paragraphs.len() > 1 {
                sample.documents.push(chapter.text);
            }
            sample.documents.extend(paragraphs);
        }
        sample
    }

    /// Reads the texts of a file. If there are too many, an even selection is kept.
    fn read(windows: impl Iterator<Item = Result<Window, Failure>>, path: &Path) -> Result<Self, Failure> {
        let mut sample = Self { source: path.display().to_string(), ..Self::default() };
        let (mut seen, mut every, mut bytes) = (0_usize, 1, 0);
        let mut first_bad_line: Option<BadLine> = None;
        for window in windows {
            for item in window?.lines {
                let text = match item {
                    InputLine::Text(text_line) => text_line.text,
                    InputLine::Bad(bad_line) => {
                        sample.skipped_lines += 1;
                        first_bad_line.get_or_insert(bad_line);
                        continue;
                    }
                };
                if seen.is_multiple_of(every) {
                    bytes += text.len();
                    sample.documents.push(text);
                }
                seen += 1;
                while sample.documents.len() > MAX_TEXTS || (bytes > MAX_BYTES && sample.documents.len() > 1) {
                    let mut keep = false;
                    sample.documents.retain(|_| {
                        keep = !keep;
                        keep
                    });
                    every *= 2;
                    bytes = sample.documents.iter().map(String::len).sum();
                }
            }
        }
        if sample.documents.is_empty() {
            let why = first_bad_line
                .map(|bad_line| format!(": line {}: {}", bad_line.line, bad_line.reason))
                .unwrap_or_default();
            return Err(Failure::new(format!("there is no text to measure with in {}{why}", sample.source)));
        }
        sample.queries = sample.documents.iter().map(|text| beginning(text)).collect();
        Ok(sample)
    }
}

/// Picks `count` texts, evenly spread. If there are fewer, they are repeated.
pub(crate) fn pick_evenly(texts: &[String], count: usize) -> Vec<&str> {
    let place = |number: usize| if count < texts.len() { number * texts.len() / count } else { number % texts.len() };
    (0..count).map(|number| texts[place(number)].as_str()).collect()
}

fn beginning(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().take(QUERY_WORDS).collect();
    // A text of white space alone has no words.
    let words = if words.is_empty() { text.chars().take(QUERY_WORDS).collect() } else { words.join(" ") };
    // Some languages, and encoded data, have no spaces.
    words.chars().take(QUERY_CHARS).collect()
}

/// A heading of a page, and the text below it.
struct Chapter {
    heading: String,
    text: String,
}

fn chapters(page: &str) -> Vec<Chapter> {
    let mut chapters = vec![Chapter { heading: String::new(), text: String::new() }];
    let mut in_code = false;
    for line in page.lines() {
        in_code ^= line.starts_with("```");
        match chapters.last_mut() {
            // In code, a line with `#` is not a heading.
            Some(chapter) if in_code || !line.starts_with('#') => {
                chapter.text.push_str(line);
                chapter.text.push('\n');
            }
            _ => {
                let heading = line.trim_matches(['#', ' ']).to_owned();
                chapters.push(Chapter { heading, text: String::new() });
            }
        }
    }
    chapters
}

/// Splits a text into paragraphs. A block of code is one paragraph.
fn paragraphs(text: &str) -> Vec<String> {
    let (mut found, mut current, mut in_code) = (Vec::new(), String::new(), false);
    for line in text.lines().chain([""]) {
        in_code ^= line.starts_with("```");
        if in_code || !line.trim().is_empty() {
            current.push_str(line);
            current.push('\n');
        } else if !current.is_empty() {
            found.push(std::mem::take(&mut current).trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::TextLine;

    fn read(windows: Vec<Window>) -> Result<Sample, Failure> {
        Sample::read(windows.into_iter().map(Ok), Path::new("a file"))
    }

    fn window(texts: impl Iterator<Item = String>) -> Window {
        let text = |(line, text)| InputLine::Text(TextLine { line: line as u64 + 1, text, object: None });
        Window { lines: texts.enumerate().map(text).collect(), bytes: 0 }
    }

    #[test]
    fn our_own_texts_are_mixed_in_length() {
        let sample = Sample::of_documentation();
        let mut lengths: Vec<usize> = sample.documents.iter().map(String::len).collect();
        lengths.sort_unstable();
        assert!(lengths.len() >= 200 && sample.queries.len() >= 100, "{} {}", lengths.len(), sample.queries.len());
        assert!(
            lengths[0] > 0 && lengths[lengths.len() / 10] < 100 && lengths[lengths.len() - 10] > 1000,
            "{lengths:?}"
        );
        assert!(sample.queries.iter().all(|query| !query.is_empty() && query.len() < 200), "{:?}", sample.queries);
    }

    #[test]
    fn pages_are_cut_at_headings_outside_of_code() {
        let chapters = chapters("before\n\n# One\na\n\n```\n# hidden\n\nb\n```\n## Two #\nc\n");
        let headings: Vec<&str> = chapters.iter().map(|chapter| chapter.heading.as_str()).collect();
        assert_eq!(headings, ["", "One", "Two"]);
        assert_eq!(paragraphs(&chapters[1].text), ["a", "```\n# hidden\n\nb\n```"]);
    }

    #[test]
    fn a_large_file_is_thinned_out_evenly() {
        let sample = read(vec![window((0..20_000).map(|number| format!("text {number}")))]).expect("texts");
        assert_eq!(sample.documents.len(), 5000);
        assert_eq!((sample.documents[1].as_str(), sample.documents[4999].as_str()), ("text 4", "text 19996"));
        let long = "x".repeat(MAX_BYTES / 2);
        let sample = read(vec![window((0..4).map(|_| long.clone()))]).expect("texts");
        assert!(sample.documents.len() < 4);
    }

    #[test]
    fn a_file_without_texts_is_a_failure_and_bad_lines_are_counted() {
        let bad = || Window {
            lines: vec![InputLine::Bad(BadLine { line: 1, reason: "the text is empty".to_owned(), object: None })],
            bytes: 0,
        };
        let said = |failure| match failure {
            Failure::Error(error) => error.to_string(),
            _ => String::new(),
        };
        assert_eq!(said(read(vec![]).expect_err("none")), "there is no text to measure with in a file");
        assert_eq!(
            said(read(vec![bad()]).expect_err("none")),
            "there is no text to measure with in a file: line 1: the text is empty"
        );
        let sample = read(vec![bad(), window(["one two three four five six seven eight nine".to_owned()].into_iter())]);
        let sample = sample.expect("a text");
        assert_eq!((sample.skipped_lines, sample.documents.len()), (1, 1));
        assert_eq!(sample.queries, ["one two three four five six seven eight"]);
    }

    #[test]
    fn texts_are_spread() {
        let texts: Vec<String> = (0..6).map(|number| number.to_string()).collect();
        assert_eq!(pick_evenly(&texts, 3), ["0", "2", "4"]);
        assert_eq!(pick_evenly(&texts, 6), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(pick_evenly(&texts, 8), ["0", "1", "2", "3", "4", "5", "0", "1"]);
        assert_eq!(beginning(" \u{a0} "), " \u{a0} ");
    }
}
