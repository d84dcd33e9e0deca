//! Records what the inner calls of a merged call cost, for the case that it is dropped: [`Recorded`].

use std::{fmt, mem, sync::Arc};

use async_trait::async_trait;

use super::{bill::Bill, inner::Inner};
use crate::{
    Batch, Charges, Embedder, Embeddings, Limits, Result, Space, checked::CostUnderWay, explanation::Explanation,
    sync::Mutex,
};

/// The inner embedder for one merged call. If it is dropped before [`settle`](Self::settle), nobody gets the answers of
/// the calls that were made through it, and their cost goes to the bill: what is known of those that were answered,
/// and one call given up for each that was not.
pub(super) struct Recorded<E> {
    inner: Arc<Inner<E>>,
    cost: Mutex<Charges>,
    bill: Arc<Bill>,
}

impl<E> Recorded<E> {
    pub(super) const fn new(inner: Arc<Inner<E>>, bill: Arc<Bill>) -> Self {
        Self { inner, cost: Mutex::new(Charges::NONE), bill }
    }

    /// Forgets the cost, because the answer that has come carries it.
    pub(super) fn settle(self) {
        self.cost.with(mem::take);
    }
}

impl<E> Drop for Recorded<E> {
    fn drop(&mut self) {
        self.bill.add(self.cost.with(mem::take));
    }
}

impl<E: fmt::Display> fmt::Display for Recorded<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.embedder.fmt(f)
    }
}

impl<E: fmt::Debug> fmt::Debug for Recorded<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.embedder.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Recorded<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let call = CostUnderWay::begin(&self.cost);
        let result = self.inner.embedder.embed(batch).await;
        call.end(&result);
        result
    }

    fn spaces(&self) -> &[Space] {
        self.inner.embedder.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.embedder.limits()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        self.inner.embedder.explain(batch)
    }
}
