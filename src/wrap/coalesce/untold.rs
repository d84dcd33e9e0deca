//! Keeps what a caller is to be told until it is told: [`Untold`].

use std::{mem, sync::Arc};

use super::counts::Counts;
use crate::{
    Batch, Charges, Embeddings, Error, Result,
    checked::cost_of,
    finished::{Finished, Rest},
};

/// The rows and the cost of one caller so far, and its answer once there is one. If nobody is left to be told, the cost
/// goes to [`Counts::unclaimed`], wherever this is dropped: so no path can lose it.
///
/// All indices are the caller's.
pub(super) struct Untold {
    /// The number of the caller's texts.
    texts: usize,
    /// The rows that failed calls have finished.
    finished: Finished,
    /// The cost of failed calls.
    spent: Charges,
    answer: Option<Result<Embeddings>>,
    counts: Arc<Counts>,
}

impl Untold {
    /// Begins with nothing.
    pub(super) fn new(texts: usize, counts: Arc<Counts>) -> Self {
        Self { texts, finished: Finished::default(), spent: Charges::NONE, answer: None, counts }
    }

    /// Returns the texts of the caller's batch that have no row yet.
    pub(super) fn rest<'a>(&self, batch: &Batch<'a>) -> Rest<'a> {
        self.finished.rest(batch)
    }

    /// Returns the texts without a row; `None` if these are all texts.
    pub(super) fn missing(&self) -> Option<Vec<usize>> {
        self.finished.missing()
    }

    /// Keeps the rows and the cost of a call that failed for another caller's reasons.
    pub(super) fn keep(&mut self, error: Error) {
        self.spent += error.charges();
        self.finished.keep(self.texts, error);
    }

    /// Makes the answer of the last call's result, which has rows of the [missing](Self::missing) texts.
    pub(super) fn end(&mut self, result: Result<Embeddings>) {
        let spent = mem::take(&mut self.spent);
        self.answer = Some(match result.and_then(|rest| self.finished.complete(rest)) {
            Ok(rows) => Ok(rows.with_charges(&spent)),
            // A router may have answered in another space. The first rows come with the error.
            Err(error) => Err(mem::take(&mut self.finished).give_back(error.with_charges(&spent))),
        });
    }

    /// Takes the answer; `None` if the caller has to ask for its missing texts itself. The caller returns it without
    /// another await.
    pub(super) fn tell(&mut self) -> Option<Result<Embeddings>> {
        self.answer.take()
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        let mut cost = mem::take(&mut self.spent);
        cost += self.finished.cost();
        if let Some(answer) = &self.answer {
            cost += cost_of(answer);
        }
        self.counts.leave_unclaimed(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Partial, Space, Usage};

    fn rows(model: &str, texts: &[usize], tokens: u64) -> Embeddings {
        let space = Space::builder(model, 1).build().expect("a valid space");
        let components = texts.iter().map(|&text| text as f32).collect();
        Embeddings::new(texts.len(), &space, components, Usage::of_request(Some(tokens))).expect("valid")
    }

    /// Keeps rows of two spaces, as a router inside may have finished them.
    fn after_a_failure(counts: &Arc<Counts>) -> Untold {
        let mut untold = Untold::new(4, counts.clone());
        let own = Partial::new(vec![1, 3], rows("one", &[1, 3], 100)).expect("ascending");
        let other = Partial::new(vec![2], rows("two", &[2], 20)).expect("ascending");
        let error = Error::new(ErrorKind::InvalidInput, "scripted").with_usage(Usage::of_request(Some(3)));
        untold.keep(error.with_partial(own).with_more_partials(vec![other]));
        assert_eq!(untold.missing(), Some(vec![0, 2]));
        untold
    }

    #[test]
    fn the_answer_has_the_rows_and_the_cost_of_all_calls() {
        let counts = Arc::default();
        let mut untold = after_a_failure(&counts);
        untold.end(Ok(rows("one", &[0, 2], 4_000)));
        let answer = untold.tell().expect("an answer").expect("all rows");
        assert_eq!((answer.as_slice(), answer.usage().tokens), (&[0., 1., 2., 3.][..], 4_123));
        // It is told, so nothing is left.
        drop(untold);
        assert!(counts.unclaimed.with(|unclaimed| unclaimed.is_none()));
    }

    #[test]
    fn a_failed_answer_has_the_finished_rows() {
        for last in [Err(Error::new(ErrorKind::Timeout, "scripted")), Ok(rows("two", &[0, 2], 4_000))] {
            let counts = Arc::default();
            let mut untold = after_a_failure(&counts);
            let (is_ok, cost) = (last.is_ok(), cost_of(&last).usage().tokens);
            untold.end(last);
            let error = untold.tell().expect("an answer").expect_err("no rows of text 0");
            assert_eq!(error.kind(), if is_ok { ErrorKind::SpaceMismatch } else { ErrorKind::Timeout });
            let finished: Vec<&[usize]> = error.partials().map(Partial::indices).collect();
            assert_eq!(finished, [&[1, 3][..], &[2]]);
            assert_eq!(error.total_usage().tokens, 123 + cost);
        }
    }

    #[test]
    fn what_is_not_told_is_unclaimed() {
        for ends in [false, true] {
            let counts = Arc::default();
            let mut untold = after_a_failure(&counts);
            if ends {
                untold.end(Ok(rows("one", &[0, 2], 4_000)));
            }
            drop(untold);
            let unclaimed = counts.unclaimed.with(|unclaimed| unclaimed.usage().tokens);
            assert_eq!(unclaimed, if ends { 4_123 } else { 123 });
        }
    }
}
