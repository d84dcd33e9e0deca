//! Owns all that a merged call needs of one caller: [`Caller`].

use std::{sync::Arc, time::Instant};

use super::{divide::Part, size::Size, untold::Untold};
use crate::{
    Batch, Embeddings, Error, Result, counted::CountedBy, counting::Counting, observer::Observer, packed::PackedTexts,
    sync::oneshot,
};

/// One caller of a merged call, with copies of its texts: the caller itself may leave.
pub(super) struct Caller {
    pub(super) size: Size,
    pub(super) trace: Option<Arc<str>>,
    pub(super) deadline: Option<Instant>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    texts: PackedTexts,
    counted: Option<(CountedBy, Vec<u32>)>,
    weight: u64,
    /// The texts that are asked for; `None` for all.
    todo: Option<Vec<usize>>,
    untold: Untold,
    reply: oneshot::Sender<Untold>,
}

/// One text that is asked for, and its tokens if they were counted.
pub(super) struct Asked<'c> {
    pub(super) text: &'c str,
    pub(super) counted: Option<(CountedBy, u32)>,
}

impl Caller {
    /// Copies the texts of a batch that was checked.
    pub(super) fn new(
        batch: &Batch<'_>,
        counting: &Counting<'_>,
        size: Size,
        untold: Untold,
        reply: oneshot::Sender<Untold>,
    ) -> Self {
        let counted = counting.counted(batch);
        let weight = batch.with_counted(counted).guessed_tokens(counting.limits) as u64;
        Self {
            size,
            trace: batch.trace().map(Into::into),
            deadline: batch.deadline(),
            observer: batch.observer().cloned(),
            texts: PackedTexts::copy(batch.texts().iter().copied()),
            counted: counted.map(|counted| (counted.by, counted.tokens.to_vec())),
            weight,
            todo: None,
            untold,
            reply,
        }
    }

    /// Returns `false` once the caller has left.
    pub(super) fn is_there(&self) -> bool {
        !self.reply.is_closed()
    }

    /// Iterates over the texts that are asked for.
    pub(super) fn asks(&self) -> impl Iterator<Item = Asked<'_>> {
        let todo = self.todo.as_deref();
        (0..self.part().texts).map(move |at| {
            let index = todo.map_or(at, |todo| todo[at]);
            let counted = self.counted.as_ref().map(|(by, tokens)| (*by, tokens[index]));
            Asked { text: self.texts.get(index), counted }
        })
    }

    /// Returns the part that the caller has in the next call.
    pub(super) fn part(&self) -> Part {
        Part { texts: self.todo.as_ref().map_or(self.texts.len(), Vec::len), weight: self.weight }
    }

    /// Tells the caller the result of its part in the last call.
    pub(super) fn answer(mut self, result: Result<Embeddings>) {
        let result = result.map_err(|error| self.own(error));
        self.untold.end(result);
        self.send();
    }

    /// Keeps what a failed call has for the caller, which is asked for again.
    pub(super) fn keep(&mut self, error: Error) {
        let error = self.own(error);
        self.untold.keep(error);
        self.todo = self.untold.missing();
    }

    /// Tells the caller to ask for its missing texts itself, without the others.
    pub(super) fn leave_alone(self) {
        self.send();
    }

    fn send(self) {
        // If the caller has left, `Untold` accounts for its cost.
        drop(self.reply.send(self.untold));
    }

    /// Replaces the indices of its part in a call by those of its texts.
    fn own(&self, error: Error) -> Error {
        match &self.todo {
            Some(todo) => error.map_indices(|index| todo.get(index).copied()),
            None => error,
        }
    }
}

/// Returns the tokens of a batch that was checked: bounds, or counts where the check had to count.
pub(super) fn tokens_at_most(batch: &Batch<'_>, counting: &Counting<'_>) -> usize {
    (0..batch.len()).map(|index| counting.at_most(batch, index)).fold(0, usize::saturating_add)
}
