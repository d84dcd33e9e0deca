//! Makes one call for all callers of a group, and tells each its part: [`MergedCall`].

use std::sync::Arc;

use super::{
    bill::Bill,
    caller::Caller,
    counts::Counts,
    divide::{Part, divide},
    inner::Inner,
    recorded::Recorded,
};
use crate::{
    Batch, Embedder, Embeddings, OwnedOptions, Result,
    all::embed_all,
    counted::{Counted, UNCOUNTED},
    observer::EventKind,
    sync::oneshot,
};

/// The call of one group. It owns all it needs, because any of its callers may leave.
pub(super) struct MergedCall<E> {
    inner: Arc<Inner<E>>,
    /// The options that all callers have in common.
    options: OwnedOptions,
    bill: Arc<Bill>,
}

impl<E: Embedder> MergedCall<E> {
    pub(super) const fn new(inner: Arc<Inner<E>>, options: OwnedOptions, bill: Arc<Bill>) -> Self {
        Self { inner, options, bill }
    }

    /// Waits for the departure of the group, and asks for all its callers together. If that call fails because of texts
    /// of some of them, it asks once more for the others. Those who still have no answer then ask alone.
    pub(super) async fn run(self, begin: oneshot::Receiver<Vec<Caller>>) {
        let Ok(mut callers) = begin.await else { return };
        for is_last in [false, true] {
            // Those who have left are not asked for.
            callers.retain(Caller::is_there);
            if callers.is_empty() {
                return;
            }
            let result = self.ask(&callers, is_last).await;
            callers = answer(callers, result, is_last);
        }
    }

    /// Asks the inner embedder for all texts of these callers.
    async fn ask(&self, callers: &[Caller], is_again: bool) -> Result<Embeddings> {
        let mut texts = Vec::new();
        let (mut by, mut tokens) = (None, Vec::new());
        for asked in callers.iter().flat_map(Caller::asks) {
            texts.push(asked.text);
            // All counts of a call must be of one counter and limit. After a change of the limits, they are not.
            let counted = asked.counted.filter(|counted| *by.get_or_insert(counted.0) == counted.0);
            tokens.push(counted.map_or(UNCOUNTED, |(_, tokens)| tokens));
        }
        let counts = &self.inner.counts;
        Counts::add(&counts.merged_calls, 1);
        if !is_again {
            Counts::add(&counts.calls, callers.len());
            Counts::add(&counts.texts, texts.len());
        }
        let options = self.options_of(callers);
        let counted = by.map(|by| Counted { by, tokens: &tokens });
        let batch = Batch::with_options(&texts, options.borrow()).with_counted(counted);
        let observer = callers.first().and_then(|caller| caller.observer.as_ref());
        let batch = observer.map_or(batch, |observer| batch.with_observer(observer));
        if callers.len() > 1 {
            let teller = format_args!("Coalesce({})", self.inner.embedder);
            batch.tell(&teller, EventKind::Coalesced { calls: callers.len(), texts: texts.len() });
        }
        let embedder = Recorded::new(self.inner.clone(), self.bill.clone());
        // The texts fit into one call, unless the inner embedder takes less than it did when they were collected.
        let result = embed_all(&embedder, batch).await;
        embedder.settle();
        result
    }

    /// Adds what follows from the callers: the trace that all share, and the latest deadline.
    fn options_of(&self, callers: &[Caller]) -> OwnedOptions {
        let mut options = self.options.clone();
        let first = callers.first().and_then(|caller| caller.trace.clone());
        options.trace = first.filter(|trace| callers.iter().all(|caller| caller.trace.as_ref() == Some(trace)));
        let deadlines: Option<Vec<_>> = callers.iter().map(|caller| caller.deadline).collect();
        options.deadline = deadlines.and_then(|deadlines| deadlines.into_iter().max());
        options
    }
}

/// Tells each caller its part of the result. Returns those who are asked for again, together.
fn answer(callers: Vec<Caller>, result: Result<Embeddings>, is_last: bool) -> Vec<Caller> {
    let parts: Vec<Part> = callers.iter().map(Caller::part).collect();
    let is_shared = callers.len() > 1;
    let is_named = result.as_ref().is_err_and(|error| !error.bad_texts().is_empty());
    let mut again = Vec::new();
    for (mut caller, result) in callers.into_iter().zip(divide(result, &parts)) {
        let error = match result {
            Err(error) if is_shared => error,
            own => {
                caller.answer(own);
                continue;
            }
        };
        let names_own = is_named.then(|| !error.bad_texts().is_empty());
        if !error.kind().may_be_fault_of_another(names_own) {
            caller.answer(Err(error));
            continue;
        }
        caller.keep(error);
        if is_named && !is_last {
            again.push(caller);
        } else {
            caller.leave_alone();
        }
    }
    again
}
