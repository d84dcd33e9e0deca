//! Embeds with a result for each text: [`Each`].

use std::collections::VecDeque;

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{
    BadText, BadTextReason, Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Result, Usage,
    checked::embed_checked, ext::all::IN_FLIGHT, gather::RowCollector, plan,
};

/// Provider failures in a row after which the rest is not tried.
const FAILURES_IN_A_ROW: usize = 3;

/// Texts of a refused call that are tried alone when both of its halves are refused. That so many are bad by chance,
/// where not nearly all are, does not happen.
const ALONE: usize = 3;

/// A result for each text: a row, or why there is none.
///
/// ```
/// use docvector_embed::{Batch, EmbedderExt, provider::Fake};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let each = Fake::new(8).embed_each(Batch::documents(&["good", "", "good too"])).await;
/// assert!(each.result(0).is_ok() && each.result(2).is_ok());
/// assert_eq!(each.result(1).unwrap_err().bad_texts()[0].index, 1);
/// assert_eq!(each.embeddings().unwrap().len(), 2);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Each {
    embeddings: Option<Embeddings>,
    outcomes: Vec<Result<usize>>,
    charges: Charges,
}

impl Each {
    /// How many texts there were.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether there were no texts.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The vector of text `i`, or why it has none.
    ///
    /// # Panics
    /// Where `i` is not below [`len`](Self::len).
    #[allow(clippy::missing_errors_doc, reason = "the error is the text's own")]
    pub fn result(&self, i: usize) -> Result<&[f32], &Error> {
        match (&self.outcomes[i], &self.embeddings) {
            (Ok(row), Some(embeddings)) => Ok(embeddings.row(*row)),
            (Err(error), _) => Err(error),
            (Ok(_), None) => Ok(&[]),
        }
    }

    /// The results, in the order of the texts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<&[f32], &Error>> {
        (0..self.len()).map(|i| self.result(i))
    }

    /// The texts without a vector, by index, ascending, and why.
    pub fn errors(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.outcomes.iter().enumerate().filter_map(|(i, outcome)| outcome.as_ref().err().map(|error| (i, error)))
    }

    /// The rows of the texts that have one, in their order; `None` where there is none.
    pub const fn embeddings(&self) -> Option<&Embeddings> {
        self.embeddings.as_ref()
    }

    /// Takes the rows of the texts that have one.
    pub fn into_embeddings(self) -> Option<Embeddings> {
        self.embeddings
    }

    /// Whether only the beginning of text `i` was embedded.
    ///
    /// # Panics
    /// Where `i` is not below [`len`](Self::len).
    pub fn is_truncated(&self, i: usize) -> bool {
        let cut = |row: &usize| self.embeddings.as_ref().is_some_and(|all| all.truncated().binary_search(row).is_ok());
        self.outcomes[i].as_ref().is_ok_and(cut)
    }

    /// What all of it cost, failed calls included where they said.
    pub const fn usage(&self) -> Usage {
        self.charges.usage()
    }

    /// The same, by who is to be paid.
    pub const fn charges(&self) -> &Charges {
        &self.charges
    }
}

/// Texts whose call was refused.
struct Refused {
    rest: Vec<usize>,
    error: Error,
    /// Whether some of the call's texts are settled, so that the rest may pass as it is.
    smaller: bool,
}

struct Run {
    rows: RowCollector,
    errors: Vec<Option<Error>>,
    failures: usize,
    /// What failed calls are known to have cost.
    charges: Charges,
    /// Set when nothing more is to be tried.
    ended: Option<Error>,
}

/// See [`EmbedderExt::embed_each`](crate::EmbedderExt::embed_each).
pub(super) async fn embed_each<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Each {
    let count = batch.len();
    let mut run = Run {
        rows: RowCollector::new(count),
        errors: vec![None; count],
        failures: 0,
        charges: Charges::NONE,
        ended: None,
    };
    if let Err(error) = batch.check_space(embedder.spaces()) {
        run.errors.fill(Some(error));
        return run.finish();
    }
    let limits = embedder.limits();
    let mut todo: Vec<usize> = (0..count).collect();
    // Texts that no call can hold fall out first; what is left can be planned, with what was counted.
    let first = plan::plan(&batch, &limits).await;
    let mut batch = first.counted(&batch).map_or(batch, |counted| batch.with_counted(counted));
    let (second, counts);
    let calls = match &first.calls {
        Ok(calls) => calls,
        Err(error) => {
            run.set_aside(&mut todo, error);
            let rest = batch.pick(&todo);
            second = plan::plan(&rest.batch(), &limits).await;
            if let Some(counted) = second.counted(&rest.batch()) {
                counts = counted.scatter(&todo, count);
                batch = batch.with_counted(counted.of(&counts));
            }
            match &second.calls {
                Ok(calls) => calls,
                Err(error) => {
                    run.errors.iter_mut().for_each(|slot| _ = slot.get_or_insert_with(|| error.clone()));
                    return run.finish();
                }
            }
        }
    };
    // Several calls at a time; but what was refused is looked into before more is sent: it may be everything.
    let mut waiting: VecDeque<Vec<usize>> = calls.iter().map(|call| todo[call.clone()].to_vec()).collect();
    let mut in_flight = FuturesUnordered::new();
    let mut refused = Vec::new();
    loop {
        let room = limits.in_flight.unwrap_or(IN_FLIGHT).max(1);
        while run.ended.is_none() && refused.is_empty() && in_flight.len() < room {
            let Some(mut call) = waiting.pop_front() else { break };
            let now = embedder.limits();
            if plan::is_outdated(&limits, &now) {
                let picked = batch.pick(&call);
                call = plan::again(&picked.batch(), &now, &mut waiting, |part| call[part].to_vec()).await;
            }
            in_flight.push(attempt(embedder, batch, call));
        }
        if let Some((call, result)) = in_flight.next().await {
            refused.extend(run.settle(call, result).err());
        } else if let Some(refused) = refused.pop() {
            run.isolate(embedder, batch, refused).await;
        } else {
            break;
        }
    }
    waiting.iter().for_each(|call| run.spread_the_end(call));
    run.finish()
}

async fn attempt<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    call: Vec<usize>,
) -> (Vec<usize>, Result<Embeddings>) {
    let result = embed_checked(embedder, batch.pick(&call).batch()).await;
    (call, result)
}

/// What becomes of a text that is refused alone.
fn rejected(index: usize, error: Error) -> Error {
    error.with_bad_texts(vec![BadText::new(index, BadTextReason::Rejected)])
}

impl Run {
    /// Takes the texts to blame and those that have a row out of `todo`; the former get an error of their own. `error`
    /// has neither rows nor a bill: both are told once, for all.
    fn set_aside(&mut self, todo: &mut Vec<usize>, error: &Error) {
        for bad in error.bad_texts() {
            self.errors[bad.index] = Some(error.clone().with_bad_texts(vec![bad.clone()]));
        }
        todo.retain(|&index| self.errors[index].is_none() && !self.rows.has(index));
    }

    /// Takes a call's rows, or those that were finished before it failed. Gives back the texts that are to be looked
    /// into: refused, with or without others being named.
    fn settle(&mut self, mut call: Vec<usize>, result: Result<Embeddings>) -> std::result::Result<(), Refused> {
        let error = match result {
            Ok(part) => match self.rows.put(&part, |row| call[row]) {
                Ok(()) => {
                    self.failures = 0;
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => self.rows.take(error.map_indices(|index| [call[index]])),
        };
        // A call's error has rows of several spaces only where a router answers: those cannot all be given.
        self.charges += error.total_charges();
        let error = error.without_partial().without_charges();
        let before = call.len();
        self.set_aside(&mut call, &error);
        let smaller = call.len() < before;
        self.judge(call, error, smaller)
    }

    /// What is to be done about the texts that a failed call leaves.
    fn judge(&mut self, call: Vec<usize>, error: Error, smaller: bool) -> std::result::Result<(), Refused> {
        if call.is_empty() {
            return Ok(());
        }
        // An error that names texts is about those, whatever its kind; it names at least one each time, so this ends.
        if error.kind() == ErrorKind::InvalidInput || (smaller && !error.bad_texts().is_empty()) {
            return Err(Refused { rest: call, error, smaller });
        }
        self.give_up(&call, &error);
        Ok(())
    }

    /// Finds the texts that a refusal is about: those that it names are out already, so the rest is sent again; where
    /// it names none, by halving. If both halves are refused, some texts alone tell whether it is the texts at all.
    async fn isolate<E: Embedder + ?Sized>(&mut self, embedder: &E, batch: Batch<'_>, refused: Refused) {
        let mut groups = VecDeque::from([refused]);
        let (mut cuts, mut succeeded) = (0, false);
        while let Some(Refused { mut rest, error, smaller }) = groups.pop_front() {
            if self.ended.is_some() {
                self.spread_the_end(&rest);
                continue;
            }
            let mut parts = Vec::new();
            if smaller {
                parts.push(rest);
            } else if let [index] = rest[..] {
                self.errors[index] = Some(rejected(index, error));
            } else {
                cuts += 1;
                if cuts == 2 && !succeeded {
                    let others = groups.iter().flat_map(|group| &group.rest);
                    let all: Vec<usize> = rest.iter().chain(others).copied().collect();
                    let tried = self.try_alone(embedder, batch, &all).await;
                    if all.len() > tried.len() && tried.iter().all(|&index| self.errors[index].is_some()) {
                        return self.give_up(&all, &error);
                    }
                    succeeded = true;
                    rest.retain(|index| !tried.contains(index));
                    groups.iter_mut().for_each(|group| group.rest.retain(|index| !tried.contains(index)));
                    groups.retain(|group| !group.rest.is_empty());
                }
                let right = rest.split_off(rest.len() / 2);
                parts.extend([rest, right]);
            }
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                let (part, result) = attempt(embedder, batch, part).await;
                succeeded |= result.is_ok();
                groups.extend(self.settle(part, result).err());
            }
        }
    }

    /// Tries some texts of many each in a call of its own: the first, the last, and those between at even distances.
    async fn try_alone<E: Embedder + ?Sized>(&mut self, embedder: &E, batch: Batch<'_>, all: &[usize]) -> Vec<usize> {
        let mut tried: Vec<usize> = (0..ALONE).map(|i| all[i * (all.len() - 1) / (ALONE - 1)]).collect();
        tried.dedup();
        for &index in &tried {
            let (call, result) = attempt(embedder, batch, vec![index]).await;
            if let Err(refused) = self.settle(call, result) {
                self.errors[index] = Some(rejected(index, refused.error));
            }
        }
        tried
    }

    /// Makes the error that ended the run the result of texts that were not tried.
    fn spread_the_end(&mut self, texts: &[usize]) {
        let error = self.ended.clone().map(Error::of_others);
        texts.iter().for_each(|&index| self.errors[index].clone_from(&error));
    }

    /// Makes `error` the result of these texts, and of all further ones where trying them is of no use.
    fn give_up(&mut self, texts: &[usize], error: &Error) {
        // What it names, it names by the places of one call.
        let error = &error.clone().with_bad_texts(Vec::new());
        texts.iter().for_each(|&index| self.errors[index] = Some(error.clone()));
        self.failures += 1;
        let hopeless = matches!(
            error.kind(),
            ErrorKind::Auth | ErrorKind::Config | ErrorKind::QuotaExhausted | ErrorKind::SpaceMismatch
        );
        if hopeless || self.failures >= FAILURES_IN_A_ROW {
            self.ended = Some(error.clone());
        }
    }

    fn finish(self) -> Each {
        let (embeddings, done, mut charges) = self.rows.into_done();
        charges += self.charges;
        let mut rows = 0..;
        let outcomes = done.into_iter().zip(self.errors).map(|(done, error)| match (done, error) {
            // A text that has a row has no error, whatever was said of it before the row came.
            (true, _) => Ok(rows.next().unwrap_or_default()),
            (false, Some(error)) => Err(error),
            (false, None) => Err(Error::new(ErrorKind::Protocol, "no answer came for this text")),
        });
        let outcomes = outcomes.collect();
        Each { embeddings, outcomes, charges }
    }
}
