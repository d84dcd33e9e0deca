//! Tells whether lines are what they were when they were first read: [`Block`].

use std::slice;

use crate::window::{BadLine, InputLine, TextLine, Window};

/// The bytes of a digest that are kept.
const DIGEST_BYTES: usize = 16;

/// Consecutive lines: how many, and a digest of what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) lines: usize,
    digest: [u8; DIGEST_BYTES],
}

impl Block {
    /// Makes the block of a window.
    pub(super) fn of(window: &Window) -> Self {
        Self { lines: window.lines.len(), digest: digest(window) }
    }
}

/// Returns a digest of all that a window holds, and of the numbers of its lines.
fn digest(window: &Window) -> [u8; DIGEST_BYTES] {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    for item in &window.lines {
        let (kind, line, content, object) = match item {
            InputLine::Text(TextLine { line, text, object }) => (0, line, text, object),
            InputLine::Bad(BadLine { line, reason, object }) => (1, line, reason, object),
        };
        add(slice::from_ref(&(kind + 2 * u8::from(object.is_some()))));
        add(&line.to_le_bytes());
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
                InputLine::text(2, "a", None),
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
