//! Embeds a batch of any size in calls within the limits, several at once: [`embed_all`].

use std::{collections::VecDeque, ops::Range};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{
    Batch, Embedder, Embeddings, Error, Partial, Result,
    checked::embed_checked,
    gather::RowCollector,
    plan::{self, Plan},
};

/// The number of calls at once if an embedder does not say: enough to hide the latency of a network, few enough not to
/// flood a server.
pub(super) const IN_FLIGHT: usize = 4;

/// Implements [`EmbedderExt::embed_all`](super::EmbedderExt::embed_all).
///
/// After a failure no call begins: it would cost money, and its rows would only go into an error. Calls in flight are
/// awaited, because they are paid for: dropping them would lose finished rows and their charges.
///
/// The first failure is the result; later ones add their rows and charges. If both name bad texts, all are named at
/// once. If only the later one does, the first failure has another cause, and naming texts would hide it.
pub(super) async fn embed_all<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Result<Embeddings> {
    batch.check_space(embedder.spaces())?;
    let limits = embedder.limits();
    let Plan { calls, counting } = plan::plan(&batch, &limits).await;
    let calls = calls.map_err(|error| error.with_embedder(embedder))?;
    let batch = batch.with_counted(counting.counted(&batch));
    if calls.len() <= 1 {
        // Nothing has to be put together: the rows are not copied, and the error is the call's own.
        return embed_checked(embedder, batch).await;
    }
    let mut waiting = VecDeque::from(calls);
    let mut in_flight = FuturesUnordered::new();
    let mut rows = RowCollector::new(batch.len());
    let mut failed: Option<Error> = None;
    loop {
        while failed.is_none() && in_flight.len() < limits.in_flight.unwrap_or(IN_FLIGHT).max(1) {
            let Some(mut call) = waiting.pop_front() else { break };
            let now = embedder.limits();
            if plan::is_outdated(&limits, &now) {
                // The limits have changed since the calls were planned. The call is split again, and its other parts
                // are the next in line.
                let Range { start, .. } = call;
                let part = |part: Range<usize>| start + part.start..start + part.end;
                call = plan::again(&batch.part(call), &now, &mut waiting, part).await;
            }
            in_flight.push(embed_range(embedder, batch, call));
        }
        let Some((call, result)) = in_flight.next().await else { break };
        let error = match result {
            Ok(part) => {
                let other = rows.put(&part, |row| call.start + row).err();
                // These rows lie in another space than those of the calls before, so they must not get into one matrix.
                // They are paid for, so they go with the error. They carry their charges themselves: the error's copy
                // is dropped.
                other.map(|error| {
                    let beside = Partial::new(call.collect(), part).into_iter().collect();
                    error.without_charges().with_more_partials(beside)
                })
            }
            Err(error) => {
                // The finished rows of the failed call join the others. Rows of another space stay with the error.
                Some(rows.take(error.map_indices(|index| [call.start + index])))
            }
        };
        failed = match (failed, error) {
            // Bad texts are named all at once, whichever call they were in.
            (Some(first), Some(next)) => {
                let named = !first.bad_texts().is_empty() && !next.bad_texts().is_empty();
                let first = first.with_charges(next.charges());
                let first = if named { first.with_more_bad_texts(next.bad_texts()) } else { first };
                Some(first.with_more_partials(next.into_partials()))
            }
            (first, next) => first.or(next),
        };
    }
    match failed {
        None => rows.finish(),
        Some(error) => Err(rows.fail(error)),
    }
}

/// Makes one call, and returns its range with the result, because calls end in any order.
async fn embed_range<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    call: Range<usize>,
) -> (Range<usize>, Result<Embeddings>) {
    let result = embed_checked(embedder, batch.part(call.clone())).await;
    (call, result)
}
