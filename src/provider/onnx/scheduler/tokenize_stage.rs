//! The tokenize stage: makes the ids of a piece's texts. A long text is read a slice at a time, in turns with others.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use super::{
    call::{AfterTokenizing, CallRows, EmbedCall},
    counters::{Counters, TimedStage},
    pieces::{SLICE_BYTES, StretchSize, TextPiece},
};
use crate::{
    Error, ErrorKind, Result,
    provider::onnx::stages::{ReadSoFar, Stretch, Tokenize, TokenizedText, TooManyTokens},
};

/// The ids of texts, with their places in the call.
type AllTokens = Vec<(usize, Result<Result<TokenizedText, TooManyTokens>>)>;

/// What a thread may read before others have their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// [`SLICE_BYTES`] in short stretches.
    Slice,
    /// One stretch of any length.
    LongStretch,
}

/// How the tokenizing of a piece ended.
enum Tokenized {
    All(AllTokens),
    /// The text is long, and its turn is over. A stretch of this size comes next, or a short one.
    Rest(Option<StretchSize>),
}

/// The next step of a call after a turn.
pub(super) enum AfterTurn {
    /// Nothing: other pieces are not tokenized yet, or nobody waits any more.
    Nothing,
    /// Put it into the queue of calls with texts to embed.
    Ready,
    /// Read on in this long text. A stretch of this size comes next, or a short one.
    Rest(TextPiece, Option<StretchSize>),
}

/// What a thread needs to tokenize texts.
pub(super) struct TokenizeStage<'a> {
    pub(super) tokens: &'a dyn Tokenize,
    pub(super) counters: &'a Counters,
    /// The tokens of a call after which its inference begins while the rest is tokenized.
    pub(super) early: Option<usize>,
}

impl TokenizeStage<'_> {
    /// Tokenizes a piece of a call, as much of it as one turn allows.
    pub(super) fn run(&self, call: &EmbedCall, mut piece: TextPiece, turn: Turn) -> AfterTurn {
        match call.still_wanted() {
            Ok(true) => {}
            Ok(false) => return AfterTurn::Nothing,
            Err(error) => return end(call, Err(error)),
        }
        let started = Instant::now();
        let tokenized = catch_unwind(AssertUnwindSafe(|| self.tokenize(call, &mut piece, turn)));
        self.counters.took(TimedStage::Tokenizing, started.elapsed());
        let texts = match tokenized {
            Ok(Tokenized::All(texts)) => texts,
            Ok(Tokenized::Rest(size)) => return AfterTurn::Rest(piece, size),
            Err(_) => return end(call, Err(Error::new(ErrorKind::Inference, "the tokenizer panicked"))),
        };
        match call.add_tokens(texts, self.tokens.limit(), self.early) {
            AfterTokenizing::Nothing => AfterTurn::Nothing,
            AfterTokenizing::Ready => AfterTurn::Ready,
            AfterTokenizing::Finished(result) => end(call, result),
        }
    }

    fn tokenize(&self, call: &EmbedCall, piece: &mut TextPiece, turn: Turn) -> Tokenized {
        let (kind, truncation) = (call.kind, call.truncation);
        let Some((at, text, so_far)) = piece.long() else {
            let all = |text| {
                let tokens = self.tokens.tokenize(kind, text, truncation, &mut ReadSoFar::default(), &mut |_| true);
                tokens.unwrap_or_else(|| Err(Error::new(ErrorKind::Inference, "the tokenizer stopped in a short text")))
            };
            return Tokenized::All(piece.texts().map(|(at, text)| (at, all(text))).collect());
        };
        let (mut stretches, mut bytes, mut is_long) = (0, 0, false);
        let mut go_on = |stretch| {
            let goes_on = match (turn, stretch) {
                (Turn::Slice, Stretch::Short(more)) => {
                    bytes += more;
                    bytes <= SLICE_BYTES
                }
                (Turn::LongStretch, Stretch::Long) => stretches == 0,
                (Turn::Slice, Stretch::Long) | (Turn::LongStretch, Stretch::Short(_)) => false,
            };
            stretches += 1;
            is_long = stretch == Stretch::Long;
            goes_on
        };
        match self.tokens.tokenize(kind, text, truncation, so_far, &mut go_on) {
            Some(tokens) => Tokenized::All(vec![(at, tokens)]),
            None => Tokenized::Rest(is_long.then(|| piece.next_size())),
        }
    }
}

fn end(call: &EmbedCall, result: Result<CallRows>) -> AfterTurn {
    call.finish(result);
    AfterTurn::Nothing
}
