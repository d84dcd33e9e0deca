//! Holds one caller's texts: pieces to be tokenized, then texts by length to be embedded, then rows.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    mem::take,
    ops::RangeInclusive,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::oneshot;

use super::pieces::{PerSize, TextPiece, pieces};
use crate::{
    BadText, BadTextReason, Batch, Error, ErrorKind, InputKind, Lane, Result, Truncation,
    provider::onnx::stages::{TokenizedText, TooManyTokens},
};

/// A text's place in its call, and its ids.
pub(super) type IndexedIds = (usize, Box<[u32]>);

/// One call of [`Scheduler::submit`](super::Scheduler::submit).
///
/// Its life: it is made with all its pieces and waits in the queue while threads take pieces from it. With texts to
/// embed it is put into the queue again. It ends with its last row, with its first failure, past its deadline, or when its
/// caller withdraws it. From then on `over` is set, and the threads that still hold it do no more work for it.
pub(super) struct EmbedCall {
    pub(super) kind: InputKind,
    pub(super) truncation: Truncation,
    pub(super) lane: Lane,
    pub(super) deadline: Option<Instant>,
    /// Nobody waits for the rest: the call was withdrawn, has failed, or is complete.
    over: AtomicBool,
    state: Mutex<CallState>,
}

impl std::fmt::Debug for EmbedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedCall").field("lane", &self.lane).finish_non_exhaustive()
    }
}

/// The part of a call that changes: what is left to do, and what is done.
pub(super) struct CallState {
    /// Pieces that no thread has begun to tokenize.
    pub(super) pieces: VecDeque<TextPiece>,
    /// Long texts whose next stretch is too long for the threads that embed, each a piece of its own.
    pub(super) long: PerSize<VecDeque<TextPiece>>,
    /// The number of pieces that are not tokenized, with those in work and the long texts.
    untokenized: usize,
    /// The ids of texts that no thread has begun to embed.
    ids: Vec<Box<[u32]>>,
    /// The places of those texts, by their length in tokens.
    waiting: BTreeMap<usize, Vec<usize>>,
    /// The sum of their tokens.
    waiting_tokens: usize,
    /// Whether the call is in the queue of calls with texts to embed.
    pub(super) ready: bool,
    /// Texts without a row.
    left: usize,
    truncated: Vec<usize>,
    bad: Vec<BadText>,
    tokens: u64,
    components: Vec<f32>,
    reply: Option<oneshot::Sender<Result<CallRows>>>,
}

/// The result of a call.
#[derive(Debug)]
pub(in crate::provider::onnx) struct CallRows {
    pub(in crate::provider::onnx) components: Vec<f32>,
    pub(in crate::provider::onnx) truncated: Vec<usize>,
    pub(in crate::provider::onnx) tokens: u64,
}

fn too_late() -> Error {
    Error::new(ErrorKind::DeadlinePassed, "the batch's texts were not all tokenized and on their way through the model")
}

/// The next step of a call after one of its pieces was tokenized.
#[derive(Debug)]
pub(super) enum AfterTokenizing {
    /// Nothing: other pieces are not tokenized yet, or nobody waits any more.
    Nothing,
    /// Put it into the queue of calls with texts to embed.
    Ready,
    /// Finish it with this.
    Finished(Result<CallRows>),
}

impl EmbedCall {
    /// Copies the texts.
    pub(super) fn new(
        batch: &Batch<'_>,
        bad: Vec<BadText>,
        dimensions: usize,
        reply: oneshot::Sender<Result<CallRows>>,
    ) -> Self {
        let texts = batch.texts();
        let pieces = pieces(texts);
        let state = CallState {
            untokenized: pieces.len(),
            pieces,
            long: PerSize::default(),
            ids: vec![Box::default(); texts.len()],
            waiting: BTreeMap::new(),
            waiting_tokens: 0,
            ready: false,
            left: texts.len(),
            truncated: Vec::new(),
            components: if bad.is_empty() { vec![0.0; texts.len() * dimensions] } else { Vec::new() },
            bad,
            tokens: 0,
            reply: Some(reply),
        };
        Self {
            kind: batch.kind(),
            truncation: batch.truncation(),
            lane: batch.lane(),
            deadline: batch.deadline(),
            over: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, CallState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether nobody waits for the rest.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends the call of a caller who has gone, and frees its memory: a thread may hold the call for a while.
    pub(super) fn withdraw(&self) {
        self.end();
    }

    /// Frees the call's memory, and returns who waits for the result.
    fn end(&self) -> Option<oneshot::Sender<Result<CallRows>>> {
        self.over.store(true, Ordering::Relaxed);
        let mut state = self.state();
        let CallState { pieces, long, ids, waiting, components, .. } = &mut *state;
        let freed = (take(pieces), take(long), take(ids), take(waiting), take(components));
        let reply = state.reply.take();
        // Freeing memory takes time, which is no time to hold the lock for.
        drop(state);
        drop(freed);
        reply
    }

    /// Returns whether a caller waits for the result; an error if the deadline has passed.
    pub(super) fn still_wanted(&self) -> Result<bool> {
        if self.is_over() {
            return Ok(false);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(too_late());
        }
        Ok(true)
    }

    /// Fails the call at its deadline, unless its last texts are being embedded: those rows come soon.
    pub(super) fn pass_deadline(&self) {
        let state = self.state();
        let unbegun = state.is_tokenizing() || !state.waiting.is_empty();
        drop(state);
        if unbegun {
            self.finish(Err(too_late()));
        }
    }

    /// Sends the result to the caller, once, and frees the call's memory. No lock is held: a caller that is woken may
    /// run any code.
    pub(super) fn finish(&self, result: Result<CallRows>) {
        if let Some(reply) = self.end() {
            // The caller may have gone.
            let _ = reply.send(result);
        }
    }

    /// Adds the tokens of a piece's texts. With `early` tokens, inference begins while other pieces are being
    /// tokenized.
    pub(super) fn add_tokens(
        &self,
        encoded: Vec<(usize, Result<Result<TokenizedText, TooManyTokens>>)>,
        limit: usize,
        early: Option<usize>,
    ) -> AfterTokenizing {
        let mut state = self.state();
        if self.is_over() {
            return AfterTokenizing::Nothing;
        }
        for (index, encoded) in encoded {
            match encoded {
                Ok(Ok(encoded)) => {
                    let length = encoded.ids.len();
                    state.ids[index] = encoded.ids.into_boxed_slice();
                    state.waiting.entry(length).or_default().push(index);
                    state.waiting_tokens += length;
                    state.tokens += length as u64;
                    if encoded.truncated {
                        state.truncated.push(index);
                    }
                }
                // The tokenizer's error fails its own text and not the tokenizing of the others.
                Err(_) => state.bad.push(BadText::new(index, BadTextReason::Rejected)),
                Ok(Err(TooManyTokens(tokens))) => {
                    let reason = BadTextReason::TooLong { tokens, limit };
                    state.bad.push(BadText::new(index, reason));
                }
            }
        }
        state.untokenized -= 1;
        if !state.bad.is_empty() {
            // One error names all bad texts, so the other texts are still tokenized; none of them is embedded.
            let all = state.untokenized == 0;
            return if all {
                AfterTokenizing::Finished(Err(Error::invalid_texts(take(&mut state.bad))))
            } else {
                AfterTokenizing::Nothing
            };
        }
        let enough = state.untokenized == 0 || early.is_some_and(|tokens| state.waiting_tokens >= tokens);
        if enough && !state.ready {
            state.ready = true;
            return AfterTokenizing::Ready;
        }
        AfterTokenizing::Nothing
    }

    /// Writes the rows of some texts, and finishes the call with the last of them.
    pub(super) fn place_rows(&self, indices: &[usize], rows: &[f32], width: usize) {
        let mut state = self.state();
        if self.is_over() {
            return;
        }
        for (&index, row) in indices.iter().zip(rows.chunks_exact(width)) {
            state.components[index * width..(index + 1) * width].copy_from_slice(row);
        }
        state.left -= indices.len();
        if state.left > 0 {
            return;
        }
        let mut truncated = take(&mut state.truncated);
        truncated.sort_unstable();
        let done = CallRows { components: take(&mut state.components), truncated, tokens: state.tokens };
        drop(state);
        self.finish(Ok(done));
    }
}

impl CallState {
    /// Returns whether there will be more texts than are waiting now.
    pub(super) const fn is_tokenizing(&self) -> bool {
        self.untokenized > 0
    }

    pub(super) const fn waiting_tokens(&self) -> usize {
        self.waiting_tokens
    }

    /// Returns whether no text, no ids and no row is kept.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        let sizes = [self.pieces.capacity(), self.ids.capacity(), self.components.capacity()];
        sizes == [0; 3] && self.waiting.is_empty() && self.long.all().all(|pieces| pieces.capacity() == 0)
    }

    /// Returns whether there are texts to embed. A call with a bad text has none, because it is an error already.
    pub(super) fn has_texts(&self) -> bool {
        self.bad.is_empty() && !self.waiting.is_empty()
    }

    /// Returns the length of the longest text that is waiting.
    pub(super) fn longest(&self) -> Option<usize> {
        self.waiting.last_key_value().map(|(&length, _)| length)
    }

    /// Returns the lengths of the waiting texts of at most `most` tokens, from the longest on, each with the number of such
    /// texts.
    pub(super) fn lengths_to(&self, most: usize) -> impl Iterator<Item = (usize, usize)> {
        let waiting = self.bad.is_empty().then(|| self.waiting.range(..=most).rev());
        waiting.into_iter().flatten().map(|(&length, indices)| (length, indices.len()))
    }

    /// Takes at most `most` texts whose tokens are in `range`, the longest first.
    pub(super) fn take(&mut self, range: RangeInclusive<usize>, most: usize, into: &mut Vec<IndexedIds>) {
        let mut room = most;
        while room > 0 {
            let Some((&length, _)) = self.waiting.range(range.clone()).next_back() else { return };
            let Entry::Occupied(mut indices) = self.waiting.entry(length) else { return };
            let keep = indices.get().len().saturating_sub(room);
            let taken = indices.get_mut().split_off(keep);
            if keep == 0 {
                indices.remove();
            }
            room -= taken.len();
            self.waiting_tokens -= taken.len() * length;
            into.extend(taken.into_iter().map(|index| (index, take(&mut self.ids[index]))));
        }
    }
}
