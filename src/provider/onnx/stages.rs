//! The contract between the stages of a local model: texts become ids, ids become vectors.

pub(super) use crate::tokenizer::{ReadSoFar, STRETCH_BYTES, Stretch};
use crate::{Error, InputKind, Result, Truncation};

/// Makes ids from texts.
pub(super) trait Tokenize: Send + Sync + 'static {
    /// Makes the ids of a text, stretch by stretch, and asks `go_on` before each one. If the answer is no, it returns
    /// `None`, and another call with the same `so_far` reads on. The outer error is the tokenizer's own.
    fn tokenize(
        &self,
        kind: InputKind,
        text: &str,
        truncation: Truncation,
        so_far: &mut ReadSoFar,
        go_on: &mut dyn FnMut(Stretch) -> bool,
    ) -> Option<Result<Result<TokenizedText, TooManyTokens>>>;

    /// Returns how many tokens at the beginning of a text do not take part in pooling.
    fn unpooled(&self, kind: InputKind) -> usize;

    /// Returns the most tokens that a text may have.
    fn limit(&self) -> usize;
}

/// Makes vectors from ids.
pub(super) trait RunBatch: Send + 'static {
    /// Runs a batch, and hands the vectors of all rows, one after the other, to `place`.
    fn run_batch(&mut self, rows: &[TokenRow<'_>], place: &mut dyn FnMut(&[f32])) -> Result<(), BatchFailure>;
}

/// A text of a batch: ids, and how many of them at the beginning do not take part in pooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenRow<'a> {
    pub(super) ids: &'a [u32],
    pub(super) unpooled: usize,
}

/// Why a batch failed.
#[derive(Debug)]
pub(super) struct BatchFailure {
    pub(super) error: Error,
    /// Whether a smaller batch may succeed.
    pub(super) out_of_memory: bool,
}

impl From<Error> for BatchFailure {
    fn from(error: Error) -> Self {
        Self { error, out_of_memory: false }
    }
}

/// A text as ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenizedText {
    pub(super) ids: Vec<u32>,
    pub(super) truncated: bool,
}

/// A text is longer than the model takes: it has at least this many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyTokens(pub(super) usize);
