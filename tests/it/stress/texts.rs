//! Makes texts and their vectors.

use std::hash::{DefaultHasher, Hash, Hasher};

use docvector_embed::{CountTokens, InputKind, Normalization, Space, Truncation};

/// Components of a vector.
pub(super) const WIDTH: usize = 4;

/// The models of the members, by the numbers of their spaces.
const MODELS: [&str; 2] = ["stress", "second"];

/// Returns the space of a model.
pub(super) fn space_of(model: &str) -> Space {
    let builder = Space::builder(model, WIDTH).with_normalization(Normalization::None);
    builder.build().expect("a valid space")
}

/// Returns the space of this number.
pub(super) fn space(number: usize) -> Space {
    space_of(MODELS[number])
}

/// Returns the number of a space; `None` if no member has it.
pub(super) fn number_of(space: &Space) -> Option<usize> {
    MODELS.iter().position(|model| *model == space.model())
}

/// Bytes of a token.
const TOKEN: usize = 4;

/// Makes the text of a number. Every seventh is longer than [`LIMIT`] tokens.
pub(super) fn text(number: usize) -> String {
    if number % 7 == 6 { format!("text {number} with a long tail of words") } else { format!("text {number}") }
}

/// Returns the tokens of a text, for a member that limits them.
pub(super) const LIMIT: usize = 5;

pub(super) fn tokens(text: &str) -> usize {
    text.len().div_ceil(TOKEN)
}

/// Whether a member with this limit takes only the beginning of the text.
pub(super) fn is_over(text: &str, limit: Option<usize>) -> bool {
    limit.is_some_and(|limit| tokens(text) > limit)
}

/// Returns the rest of a text after truncation. All texts here are ASCII.
pub(super) fn cut(text: &str, limit: Option<usize>, truncation: Truncation) -> &str {
    match limit {
        Some(limit) if truncation == Truncation::Truncate && is_over(text, Some(limit)) => &text[..limit * TOKEN],
        _ => text,
    }
}

/// Returns the vector of a text in a space: a hash of its kind and bytes, so that no two texts have the same.
pub(super) fn vector(space: usize, kind: InputKind, text: &str) -> [f32; WIDTH] {
    let mut hasher = DefaultHasher::new();
    (space, kind, text).hash(&mut hasher);
    let first = hasher.finish();
    first.hash(&mut hasher);
    let second = hasher.finish();
    let component = |bits: u64| (bits as u32) as f32 / u32::MAX as f32 + 0.25;
    [component(first), component(first >> 32), component(second), component(second >> 32)]
}

/// Counts tokens as a member does.
#[derive(Debug)]
pub(super) struct Counter;

impl CountTokens for Counter {
    fn count(&self, _: InputKind, text: &str) -> usize {
        tokens(text)
    }

    fn at_most(&self, _: InputKind, text: &str) -> usize {
        text.len()
    }
}
