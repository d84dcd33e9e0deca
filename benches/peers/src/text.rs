//! Makes chunks of text out of files of documentation.

use std::borrow::Cow;

/// The part of a file that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The main part of a page, without its tags.
    Html,
    Markdown,
    /// A source as it is: its documentation stands in its docstrings.
    Python,
    /// A source as it is.
    Rust,
    /// The documentation comments of a source.
    RustDoc,
}

impl Kind {
    pub const ALL: &[Self] = &[Self::Html, Self::Markdown, Self::Python, Self::RustDoc];

    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Html => &["html"],
            Self::Markdown => &["md", "rst", "txt"],
            Self::Python => &["py"],
            Self::Rust | Self::RustDoc => &["rs"],
        }
    }

    /// Returns the file's text; nothing if the file is too large to have been written by hand.
    pub fn text_of(self, file: &str) -> Option<Cow<'_, str>> {
        const BY_HAND: usize = 1 << 20;
        match self {
            Self::Html => Some(Cow::Owned(text_of_html(file))),
            _ if file.len() > BY_HAND => None,
            Self::RustDoc => Some(Cow::Owned(doc_comments(file))),
            Self::Markdown | Self::Python | Self::Rust => Some(Cow::Borrowed(file)),
        }
    }
}

fn doc_comments(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines().map(str::trim_start) {
        match line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
            Some(comment) => text.push_str(comment.strip_prefix(' ').unwrap_or(comment)),
            // A blank line ends the paragraph; further ones do no harm.
            None if text.ends_with("\n\n") => continue,
            None => {}
        }
        text.push('\n');
    }
    text
}

fn text_of_html(page: &str) -> String {
    let start = page.find("<main").unwrap_or(0);
    let end = page.rfind("</main>").filter(|&end| end > start).unwrap_or(page.len());
    let mut rest = &page[start..end];
    let mut text = String::new();
    while let Some(open) = rest.find('<') {
        push_decoded(&mut text, &rest[..open]);
        rest = &rest[open..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let close = end_of_tag(rest);
        let tag = rest[1..close].trim_end_matches('>');
        rest = &rest[close..];
        let name = tag.trim_start_matches('/');
        let name = &name[..name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len())];
        match name {
            "script" | "style" | "svg" | "button" if !tag.starts_with('/') => {
                let end = format!("</{name}");
                rest = rest.find(&end).map_or("", |end| &rest[end..]);
            }
            "p" | "div" | "section" | "pre" | "ul" | "ol" | "table" | "details" | "blockquote" | "dl" | "h1" | "h2"
            | "h3" | "h4" | "h5" | "h6" => text.push_str("\n\n"),
            "li" | "tr" | "br" | "dt" | "dd" | "summary" => text.push('\n'),
            _ => {}
        }
    }
    push_decoded(&mut text, rest);
    text
}

/// Finds the end of the tag at the beginning of `rest`; a `>` in a quoted attribute does not end it.
fn end_of_tag(rest: &str) -> usize {
    let mut quote = None;
    for (at, byte) in rest.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if byte == open => quote = None,
            _ => {}
        }
    }
    rest.len()
}

fn push_decoded(text: &mut String, mut encoded: &str) {
    const ENTITIES: [(&str, char); 7] = [
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&amp;", '&'),
        ("&quot;", '"'),
        ("&#39;", '\''),
        ("&#x27;", '\''),
        ("&nbsp;", ' '),
    ];
    while let Some(at) = encoded.find('&') {
        text.push_str(&encoded[..at]);
        encoded = &encoded[at..];
        let known = ENTITIES.iter().find(|(entity, _)| encoded.starts_with(entity));
        let (length, character) = known.map_or((1, '&'), |(entity, character)| (entity.len(), *character));
        text.push(character);
        encoded = &encoded[length..];
    }
    text.push_str(encoded);
}

/// Splits texts at the ends of paragraphs.
pub mod chunks {
    /// Bytes of a chunk, at least: a shorter one is joined with the next, or left out at the end of a file.
    pub const SHORTEST: usize = 64;
    /// Bytes after which a chunk ends with the paragraph.
    const LONG_ENOUGH: usize = 220;
    /// Bytes of a chunk, at most.
    const LONGEST: usize = 2_000;

    /// Passes on the chunks of a text.
    pub fn cut(text: &str, mut give: impl FnMut(&str)) {
        let mut chunk = String::new();
        let mut finish = |chunk: &mut String| {
            if chunk.trim().len() >= SHORTEST {
                give(chunk.trim());
            }
            chunk.clear();
        };
        for paragraph in paragraphs(text) {
            for piece in pieces(paragraph) {
                if chunk.len() + 2 + piece.len() > LONGEST {
                    finish(&mut chunk);
                }
                if !chunk.is_empty() {
                    chunk.push_str("\n\n");
                }
                chunk.push_str(piece);
                if chunk.len() >= LONG_ENOUGH {
                    finish(&mut chunk);
                }
            }
        }
        finish(&mut chunk);
    }

    /// Returns the runs of lines between blank lines.
    fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            loop {
                // Skips the blank lines before.
                let line_end = rest.find('\n').map_or(rest.len(), |at| at + 1);
                if rest.is_empty() {
                    return None;
                }
                if rest[..line_end].trim().is_empty() {
                    rest = &rest[line_end..];
                    continue;
                }
                let mut end = 0;
                for line in rest.split_inclusive('\n').take_while(|line| !line.trim().is_empty()) {
                    end += line.len();
                }
                let paragraph = rest[..end].trim_end();
                rest = &rest[end..];
                return Some(paragraph);
            }
        })
    }

    /// Returns a paragraph in pieces that fit into a chunk, split at the end of a line, or of a word, or anywhere.
    fn pieces(paragraph: &str) -> impl Iterator<Item = &str> {
        let mut rest = paragraph;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            if rest.len() <= LONGEST {
                return Some(std::mem::take(&mut rest));
            }
            let window = &rest[..rest.floor_char_boundary(LONGEST)];
            let break_at = |c: char| window.rfind(c).filter(|&at| at >= LONGEST / 2).map(|at| at + 1);
            let end = break_at('\n').or_else(|| break_at(' ')).unwrap_or(window.len());
            let (piece, after) = rest.split_at(end);
            rest = after;
            Some(piece)
        })
    }
}
