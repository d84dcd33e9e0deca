//! Calls an embedder and holds it to its laws, where a breach would harm somebody else: [`embed_checked`].

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::{Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Result, Space, Usage};

/// All that a caller is told of what a call cost.
pub(crate) fn cost_of(result: &Result<Embeddings>) -> Charges {
    match result {
        Ok(rows) => rows.charges().clone(),
        Err(error) => error.total_charges(),
    }
}

/// What the error says that a panic becomes.
pub(crate) const PANICKED: &str = "the embedder panicked";

/// Holds an embedder to laws 1, 5 and 6 where a breach would put wrong rows into somebody's index, or blame a text that
/// nobody asked about. Every place that maps indices, or keeps rows or bills of several calls, stands behind this check.
pub(crate) async fn embed_checked<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Result<Embeddings> {
    let wanted =
        |space: &Space| embedder.spaces().contains(space) && batch.space().is_none_or(|wanted| wanted == space.id());
    // A panic is the embedder's mistake. Its caller may have the rows and bills of other calls in its hands, which would go
    // with it; and what the call itself was billed by then, nobody can say.
    let answer = AssertUnwindSafe(async { embedder.embed(batch).await }).catch_unwind().await.unwrap_or_else(|_| {
        let panicked = Error::new(ErrorKind::Inference, PANICKED);
        Err(panicked.with_embedder(embedder).with_usage(Usage::of_given_up()))
    });
    let result = answer.map_err(|error| {
        if let Some(index) = error.highest_index().filter(|&index| index >= batch.len()) {
            // Rows that cannot be placed are not handed on; what they cost is.
            let message = format!("the error is about text {index}, but the call has {} texts", batch.len());
            let breach = Error::new(ErrorKind::Protocol, message).with_embedder(embedder);
            let breach = breach.with_charges(&error.total_charges());
            return breach.with_source(error.without_partial());
        }
        // Nor are rows that cannot be compared.
        let comparable = error.partials().all(|partial| wanted(partial.embeddings().space()));
        if comparable { error } else { error.without_rows() }
    })?;
    let breach = |message: String| {
        let breach = Error::new(ErrorKind::Protocol, message).with_embedder(embedder);
        Err(breach.with_charges(result.charges()))
    };
    if result.len() != batch.len() {
        return breach(format!("{} rows for {} texts", result.len(), batch.len()));
    }
    let space = result.space();
    if !wanted(space) {
        return breach(format!("rows in {space}, which was not announced or not asked for"));
    }
    Ok(result)
}
