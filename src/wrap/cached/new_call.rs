//! Makes one call of the inner embedder for all callers that share it, and stores its rows: [`NewCall`].

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{
    in_flight::{Answer, InFlightCall, InFlightTable, Progress},
    inner::Inner,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, InputKind, Lane, Limits, OwnedOptions, Result, Usage, cache::Key,
    checked::embed_checked, counted::Counted, observer::Observer, packed::PackedTexts, shared_call::SharedCall,
    stored_vectors::Rows,
};

/// A call that is not yet entered. It owns all it needs, because it outlives the caller that began it.
pub(super) struct NewCall<E> {
    entered: Entered<E>,
    texts: PackedTexts,
    tokens: Option<Vec<u32>>,
    /// Whether other calls have stored since these texts were looked up: rows of these texts may be among theirs.
    overtaken: bool,
    options: OwnedOptions,
    /// The observer of the caller that began the call.
    observer: Option<Arc<dyn Observer>>,
    limits: Limits,
}

impl<E: Embedder> NewCall<E> {
    pub(super) fn new(
        inner: &Arc<Inner<E>>,
        batch: &Batch<'_>,
        limits: Limits,
        texts: PackedTexts,
        tokens: Option<Vec<u32>>,
        keys: Vec<Key>,
        overtaken: bool,
    ) -> Self {
        let id = inner.calls.fetch_add(1, Ordering::Relaxed);
        Self {
            entered: Entered {
                inner: inner.clone(),
                keys: keys.into(),
                id,
                lane: batch.lane(),
                progress: Arc::default(),
            },
            texts,
            tokens,
            overtaken,
            options: batch.options().to_owned(),
            observer: batch.observer().cloned(),
            limits,
        }
    }

    /// Puts the texts on the table, which is that of `inner`, and returns a handle.
    pub(super) fn enter(self, table: &mut InFlightTable) -> InFlightCall {
        let (id, keys, lane) = (self.entered.id, self.entered.keys.clone(), self.entered.lane);
        let progress = self.entered.progress.clone();
        let answer = SharedCall::new(self.run());
        progress.begin(answer.downgrade());
        table.enter(lane, &keys, &progress, id);
        InFlightCall { answer, progress }
    }

    async fn run(self) -> Arc<Answer> {
        let (progress, kind) = (self.entered.progress.clone(), self.options.kind);
        let result = self.answer().await;
        let (inner, keys) = (&*self.entered.inner, &*self.entered.keys);
        let answer = Arc::new(Answer::new(result, self.entered.id, inner.counts.clone()));
        // Set before the rows are stored: a caller whose time is up meanwhile takes the answer.
        progress.arrive(answer.clone());
        {
            let mut storing = pin!(keep(inner, kind, keys, &answer.result));
            // A store in memory ends at once. A task would cost more than the work.
            if storing.as_mut().now_or_never().is_none() {
                // The rows are paid for, and must not be lost with the last caller. Without a runtime they are.
                if let (Ok(runtime), Some(call)) = (Handle::try_current(), progress.join()) {
                    runtime.spawn(async move { _ = call.await });
                }
                storing.await;
            }
        }
        // Counted before the call leaves the table: a caller that does not find it there sees that a call has stored,
        // and looks up again.
        inner.stored.fetch_add(1, Ordering::Release);
        answer
    }

    /// Gets the rows of all its texts: from the inner embedder or, if other calls were faster, from the store.
    async fn answer(&self) -> Result<Embeddings> {
        let (inner, keys) = (&*self.entered.inner, &self.entered.keys);
        let space = &inner.spaces[0];
        let mut rows = Rows::new(keys.len(), space.dimensions());
        if self.overtaken {
            inner.vectors.look_up(keys, &mut rows).await;
        }
        let hits = rows.hits;
        inner.counts.hits.fetch_add(hits, Ordering::Relaxed);
        inner.counts.misses.fetch_add(keys.len() as u64 - hits, Ordering::Relaxed);
        if hits == 0 {
            return self.call(None).await;
        }
        let missing: Vec<usize> = rows.missing().collect();
        let mut charges = Charges::from(Usage::ZERO.with_cached(hits));
        if missing.is_empty() {
            return rows.into_embeddings(space, charges);
        }
        match self.call(Some(&missing)).await {
            Ok(part) => {
                missing.iter().enumerate().for_each(|(row, &place)| rows.place(place, &part, row));
                let mut all = part.charges().clone();
                all += charges;
                rows.into_embeddings(space, all)
            }
            Err(error) => {
                if let Some(partial) = error.partial() {
                    charges += partial.embeddings().charges();
                    for (row, &index) in partial.indices().iter().enumerate() {
                        rows.place(missing[index], partial.embeddings(), row);
                    }
                }
                let error = error.without_partial().map_indices(|index| missing.get(index).copied());
                Err(rows.fail(error, space, charges))
            }
        }
    }

    /// Calls the inner embedder for all texts, or for those at these places.
    async fn call(&self, only: Option<&[usize]>) -> Result<Embeddings> {
        let embedder = &self.entered.inner.embedder;
        let texts: Vec<&str> = self.texts.iter().collect();
        let counted = self.tokens.as_deref().map(|tokens| Counted::by(&self.limits, tokens));
        let mut batch = Batch::with_options(&texts, self.options.borrow()).with_counted(counted);
        if let Some(observer) = &self.observer {
            batch = batch.with_observer(observer);
        }
        self.entered.progress.ask();
        match only {
            None => embed_checked(embedder, batch).await,
            Some(places) => embed_checked(embedder, batch.pick(places).batch()).await,
        }
    }
}

/// Stores the rows of a call, and those that come with its error, if rows of this kind are stored.
async fn keep<E: Embedder>(inner: &Inner<E>, kind: InputKind, keys: &[Key], result: &Result<Embeddings>) {
    if kind == InputKind::Query && !inner.stores_queries {
        return;
    }
    match result {
        Ok(rows) => inner.vectors.keep(keys, rows).await,
        Err(error) => {
            if let Some(partial) = error.partial() {
                let finished: Vec<Key> = partial.indices().iter().map(|&index| keys[index]).collect();
                inner.vectors.keep(&finished, partial.embeddings()).await;
            }
        }
    }
}

/// The entry of a call in the table. Dropping it takes the texts off the table, whether the call ends, is dropped, or
/// never begins, and counts the cost of a call that was dropped before it was answered.
struct Entered<E> {
    inner: Arc<Inner<E>>,
    keys: Arc<[Key]>,
    id: u64,
    lane: Lane,
    progress: Arc<Progress>,
}

impl<E> Drop for Entered<E> {
    fn drop(&mut self) {
        self.progress.abandon(&self.inner.counts);
        self.inner.in_flight.with(|table| table.remove(self.lane, &self.keys, self.id));
    }
}
