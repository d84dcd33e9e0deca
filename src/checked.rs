//! Calls an embedder and checks the laws whose breach would harm others: [`embed_checked`].

use std::{mem, panic::AssertUnwindSafe};

use futures_util::FutureExt;

use crate::{Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Result, Space, Usage, sync::Mutex};

/// Returns the whole known cost of a call, whether it succeeded or failed.
pub(crate) fn cost_of(result: &Result<Embeddings>) -> Charges {
    match result {
        Ok(rows) => rows.charges().clone(),
        Err(error) => error.total_charges(),
    }
}

/// A call under way. Dropping it adds its cost to the ledger: one call given up, until the answer is there.
pub(crate) struct CostUnderWay<'l>(&'l Mutex<Charges>, Charges);

impl<'l> CostUnderWay<'l> {
    pub(crate) fn begin(ledger: &'l Mutex<Charges>) -> Self {
        Self(ledger, Usage::of_given_up().into())
    }

    pub(crate) fn end(mut self, result: &Result<Embeddings>) {
        self.1 = cost_of(result);
    }
}

impl Drop for CostUnderWay<'_> {
    fn drop(&mut self) {
        let cost = mem::take(&mut self.1);
        self.0.with(|ledger| *ledger += cost);
    }
}

/// The message of the error that a panic becomes.
pub(crate) const PANICKED: &str = "the embedder panicked";

/// Calls an embedder and checks laws 1, 5 and 6. A breach of these would put wrong rows into an index, or name a text
/// that was not in the call.
///
/// All code that maps indices, or keeps rows or charges of several calls, calls embedders through this function.
pub(crate) async fn embed_checked<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Result<Embeddings> {
    let wanted =
        |space: &Space| embedder.spaces().contains(space) && batch.space().is_none_or(|wanted| wanted == space.id());
    // A panic is the embedder's mistake. Its caller may hold the rows and charges of other calls, and unwinding would
    // lose them, so the panic becomes an error. Nobody knows what the call had cost until then: it counts as given up.
    let answer = AssertUnwindSafe(async { embedder.embed(batch).await }).catch_unwind().await.unwrap_or_else(|_| {
        let panicked = Error::new(ErrorKind::Inference, PANICKED);
        Err(panicked.with_embedder(embedder).with_usage(Usage::of_given_up()))
    });
    let result = answer.map_err(|error| {
        if let Some(index) = error.highest_index().filter(|&index| index >= batch.len()) {
            // The caller uses the index to find its own text: this one would panic there, or name the text of another
            // call. Rows with such an index cannot be placed, so they are dropped; their cost is passed on.
            let message = format!("the error is about text {index}, but the call has only {} texts", batch.len());
            let breach = Error::new(ErrorKind::Protocol, message).with_embedder(embedder);
            let breach = breach.with_charges(&error.total_charges());
            return breach.with_source(error.without_partial());
        }
        // Finished rows of a space that was not announced or not wanted cannot be compared with others. They are
        // dropped, and their cost is passed on.
        let comparable = error.partials().all(|partial| wanted(partial.embeddings().space()));
        if comparable { error } else { error.without_rows() }
    })?;
    let breach = |message: String| {
        let breach = Error::new(ErrorKind::Protocol, message).with_embedder(embedder);
        Err(breach.with_charges(result.charges()))
    };
    // The rows are dropped, because nobody knows which texts they belong to. They are paid for, so `breach` keeps the
    // charges.
    if result.len() != batch.len() {
        return breach(format!("the embedder returned {} rows for {} texts", result.len(), batch.len()));
    }
    let space = result.space();
    if !wanted(space) {
        return breach(format!(
            "the rows lie in {space}, which the embedder did not announce or the batch did not ask for"
        ));
    }
    Ok(result)
}
