//! Collects the result of each text while calls are made: [`Results`].

use super::Each;
use crate::{
    BadText, BadTextReason, Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Result, checked::embed_checked,
    gather::RowCollector,
};

/// The number of failures of the provider in a row after which the other texts are not sent.
const FAILURES_IN_A_ROW: usize = 3;

/// The texts of a refused or failed call that have no result yet.
pub(super) struct Refused {
    pub(super) rest: Vec<usize>,
    pub(super) error: Error,
    /// `true` if some texts of the call have a result, so that the rest may pass as it is.
    pub(super) smaller: bool,
}

impl Refused {
    /// Returns `true` if the service failed and did not refuse, and no text is known to be the cause.
    pub(super) fn is_failure(&self) -> bool {
        let names_some = self.smaller && !self.error.bad_texts().is_empty();
        self.error.kind() != ErrorKind::InvalidInput && !names_some
    }
}

/// Statuses of a server all of which is too busy, or of a gateway that waited for it in vain.
const BUSY: [u16; 5] = [503, 504, 522, 524, 529];

/// Returns `true` if one text may be the cause of a failure: a server answered, and its answer was a failure or made no
/// sense. Without a status, there was no answer, or an embedder has broken a law. If the whole reply is at fault, each
/// further one would be too, and would be billed.
fn may_be_of_one_text(error: &Error) -> bool {
    let has_answered = error.status().is_some_and(|status| !BUSY.contains(&status));
    has_answered && !error.is_of_whole_reply() && matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Unavailable)
}

/// The rows, errors and costs so far.
pub(super) struct Results {
    rows: RowCollector,
    errors: Vec<Option<Error>>,
    failures_in_a_row: usize,
    /// The known cost of failed calls.
    charges: Charges,
    /// The error that ended the run, once no further call is to be made.
    ended: Option<Error>,
}

/// Makes one call with these texts of the batch. Returns their indices with the result.
pub(super) async fn attempt<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    call: Vec<usize>,
) -> (Vec<usize>, Result<Embeddings>) {
    let result = embed_checked(embedder, batch.pick(&call).batch()).await;
    (call, result)
}

impl Results {
    pub(super) fn new(texts: usize) -> Self {
        let (rows, errors) = (RowCollector::new(texts), vec![None; texts]);
        Self { rows, errors, failures_in_a_row: 0, charges: Charges::NONE, ended: None }
    }

    /// Returns `true` if no further call is to be made.
    pub(super) const fn have_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Returns `true` if the last that was heard of the provider is a failure.
    pub(super) const fn is_failing(&self) -> bool {
        self.failures_in_a_row > 0
    }

    pub(super) fn has_row(&self, index: usize) -> bool {
        self.rows.has(index)
    }

    /// Returns a text that has a row.
    pub(super) fn any_with_row(&self) -> Option<usize> {
        (0..self.errors.len()).find(|&index| self.rows.has(index))
    }

    pub(super) fn has_error(&self, index: usize) -> bool {
        self.errors[index].is_some()
    }

    /// Makes `error` the result of all texts that have no error yet.
    pub(super) fn fail_the_rest(&mut self, error: &Error) {
        self.errors.iter_mut().for_each(|slot| _ = slot.get_or_insert_with(|| error.clone()));
    }

    /// Makes the refusal of a text that was sent alone, or the failure with it, the result of that text.
    pub(super) fn reject(&mut self, index: usize, error: Error) {
        let alone = vec![BadText::new(index, BadTextReason::Rejected)];
        self.errors[index] = Some(error.with_bad_texts(alone));
    }

    /// Removes from `todo` the texts that `error` names and those that have a row. Each named text gets an error of its
    /// own. `error` must have neither rows nor charges: both are counted once for the whole call.
    pub(super) fn set_aside(&mut self, todo: &mut Vec<usize>, error: &Error) {
        for bad in error.bad_texts() {
            self.errors[bad.index] = Some(error.clone().with_bad_texts(vec![bad.clone()]));
        }
        todo.retain(|&index| self.errors[index].is_none() && !self.rows.has(index));
    }

    /// Takes a call's rows, or those that were finished before it failed. If texts may be the cause, returns those that
    /// have no result yet, whether or not the error names others.
    pub(super) fn settle(
        &mut self,
        mut call: Vec<usize>,
        result: Result<Embeddings>,
    ) -> std::result::Result<(), Refused> {
        let error = match result {
            Ok(part) => match self.rows.put(&part, |row| call[row]) {
                Ok(()) => {
                    self.failures_in_a_row = 0;
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => self.rows.take(error.map_indices(|index| [call[index]])),
        };
        // Rows that are still with the error lie in another space, which only a router can cause. One matrix cannot
        // hold them, so only their cost is kept.
        self.charges += error.total_charges();
        let error = error.without_partial().without_charges();
        let before = call.len();
        self.set_aside(&mut call, &error);
        let smaller = call.len() < before;
        self.judge(call, error, smaller)
    }

    /// Decides what happens to the texts of a failed call that have no result yet.
    fn judge(&mut self, call: Vec<usize>, error: Error, smaller: bool) -> std::result::Result<(), Refused> {
        if call.is_empty() {
            return Ok(());
        }
        // If an error names texts, they are the cause, whatever its kind, and the rest is sent again. Each time at
        // least one text gets its result, so this ends.
        let names_some = smaller && !error.bad_texts().is_empty();
        if error.kind() == ErrorKind::InvalidInput || names_some || may_be_of_one_text(&error) {
            return Err(Refused { rest: call, error, smaller });
        }
        self.give_up(&call, &error);
        Ok(())
    }

    /// Makes the error that ended the run the result of texts that were never sent.
    pub(super) fn spread_the_end(&mut self, texts: &[usize]) {
        let error = self.ended.clone().map(Error::of_others);
        texts.iter().for_each(|&index| self.errors[index].clone_from(&error));
    }

    /// Makes `error` the result of these texts. Ends the run if sending others is of no use.
    pub(super) fn give_up(&mut self, texts: &[usize], error: &Error) {
        // The error becomes the result of each of these texts, so it must not name others.
        let error = &error.clone().with_bad_texts(Vec::new());
        texts.iter().for_each(|&index| self.errors[index] = Some(error.clone()));
        self.failures_in_a_row += 1;
        let hopeless = matches!(
            error.kind(),
            ErrorKind::Auth | ErrorKind::Config | ErrorKind::QuotaExhausted | ErrorKind::SpaceMismatch
        );
        if hopeless || self.failures_in_a_row >= FAILURES_IN_A_ROW {
            self.ended = Some(error.clone());
        }
    }

    /// Returns one result per text.
    pub(super) fn finish(self) -> Each {
        let (embeddings, done, mut charges) = self.rows.into_done();
        charges += self.charges;
        let mut rows = 0..;
        let outcomes = done.into_iter().zip(self.errors).map(|(done, error)| match (done, error) {
            // A text that has a row has no error, even if an earlier error named it.
            (true, _) => Ok(rows.next().unwrap_or_default()),
            (false, Some(error)) => Err(error),
            (false, None) => Err(Error::new(ErrorKind::Protocol, "no call returned a row or an error for this text")),
        });
        let outcomes = outcomes.collect();
        Each { embeddings, outcomes, charges }
    }
}
