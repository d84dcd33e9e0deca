//! Keeps what a caller is to be told until it is told: [`Untold`].

use std::{mem, sync::Arc};

use super::counts::Counts;
use crate::{Charges, Embeddings, Error, Partial, Result, RowCollector, checked::cost_of};

/// The rows and the cost of one caller so far, and its answer once there is one. If nobody is left to be told, the cost
/// goes to [`Counts::unclaimed`], wherever this is dropped: so no path can lose it.
///
/// All indices are the caller's.
pub(super) struct Untold {
    /// The number of the caller's texts.
    texts: usize,
    /// The rows that failed calls have finished, in one space. `None` if there are none, which is nearly always so.
    rows: Option<RowCollector>,
    /// Finished rows of other spaces, which a router may return. They cannot be in one result with the others.
    others: Vec<Partial>,
    /// The cost of failed calls.
    spent: Charges,
    answer: Option<Result<Embeddings>>,
    counts: Arc<Counts>,
}

impl Untold {
    /// Begins with nothing.
    pub(super) const fn new(texts: usize, counts: Arc<Counts>) -> Self {
        Self { texts, rows: None, others: Vec::new(), spent: Charges::NONE, answer: None, counts }
    }

    /// Returns the texts without a row; `None` if these are all texts.
    pub(super) fn missing(&self) -> Option<Vec<usize>> {
        self.rows.as_ref().map(|rows| rows.missing().collect())
    }

    /// Keeps the rows and the cost of a call that failed for another caller's reasons.
    pub(super) fn keep(&mut self, error: Error) {
        self.spent += error.charges();
        if error.partial().is_some() {
            let rows = self.rows.get_or_insert_with(|| RowCollector::new(self.texts));
            // `take` collects the rows that fit. Rows of another space stay with the error.
            self.others.extend(rows.take(error).into_partials());
        }
    }

    /// Makes the answer of the last call's result, which has rows of the [missing](Self::missing) texts.
    pub(super) fn end(&mut self, result: Result<Embeddings>) {
        let (spent, others) = (mem::take(&mut self.spent), mem::take(&mut self.others));
        self.answer = Some(match (self.rows.take(), result) {
            (None, Ok(rows)) if spent.is_none() => Ok(rows),
            (None, result) => result.map(|rows| rows.with_charges(&spent)).map_err(|error| error.with_charges(&spent)),
            (Some(rows), Ok(rest)) => whole(rows, &rest)
                .map(|all| others.iter().fold(all, |all, other| all.with_charges(other.embeddings().charges())))
                .map(|all| all.with_charges(&spent))
                .map_err(|error| error.with_charges(&spent)),
            (Some(rows), Err(error)) => Err(rows.fail(error.with_charges(&spent)).with_more_partials(others)),
        });
    }

    /// Takes the answer; `None` if the caller has to ask for its missing texts itself. The caller returns it without
    /// another await.
    pub(super) fn tell(&mut self) -> Option<Result<Embeddings>> {
        self.answer.take()
    }
}

/// Puts the last rows to those that were there before.
fn whole(mut rows: RowCollector, rest: &Embeddings) -> Result<Embeddings> {
    let missing: Vec<usize> = rows.missing().collect();
    match rows.put(rest, |row| missing[row]) {
        Ok(()) => rows.finish(),
        // A router may have answered in another space. The first rows come with the error.
        Err(error) => Err(rows.fail(error)),
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        let mut cost = mem::take(&mut self.spent);
        let rows = self.rows.iter().map(RowCollector::charges);
        rows.chain(self.others.iter().map(|other| other.embeddings().charges())).for_each(|charges| cost += charges);
        if let Some(answer) = &self.answer {
            cost += cost_of(answer);
        }
        self.counts.leave_unclaimed(cost);
    }
}
