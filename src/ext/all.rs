//! Embeds a batch of any size in calls within the limits, several at once: [`embed_all`].

use std::{collections::VecDeque, ops::Range};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{Batch, Embedder, Embeddings, Error, Partial, Result, checked::embed_checked, gather::RowCollector, plan};

/// Calls at once where an embedder does not say: enough to hide a network's latency, few enough to be polite.
pub(super) const IN_FLIGHT: usize = 4;

/// See [`EmbedderExt::embed_all`](super::EmbedderExt::embed_all).
pub(super) async fn embed_all<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Result<Embeddings> {
    batch.check_space(embedder.spaces())?;
    let limits = embedder.limits();
    let mut plan = plan::plan(&batch, &limits).await;
    let calls = std::mem::replace(&mut plan.calls, Ok(Vec::new()));
    let calls = calls.map_err(|error| error.with_embedder(embedder))?;
    let batch = plan.counted(&batch).map_or(batch, |counted| batch.with_counted(counted));
    if calls.len() <= 1 {
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
                // Rows of another space than those of the calls before: paid, and not to be mixed with them.
                other.map(|error| {
                    let beside = Partial::new(call.collect(), part).into_iter().collect();
                    error.without_charges().with_more_partials(beside)
                })
            }
            Err(error) => {
                // Rows of another space stay with the error.
                Some(rows.take(error.map_indices(|index| [call.start + index])))
            }
        };
        failed = match (failed, error) {
            // Bad texts are named all at once, whichever call they were in.
            (Some(first), Some(next)) => {
                let named = !first.bad_texts().is_empty() && !next.bad_texts().is_empty();
                let first = first.with_charges(next.charges()).with_more_partials(next.clone().into_partials());
                Some(if named { first.with_more_bad_texts(next.bad_texts()) } else { first })
            }
            (first, next) => first.or(next),
        };
    }
    match failed {
        None => rows.finish(),
        Some(error) => Err(rows.fail(error)),
    }
}

async fn embed_range<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    call: Range<usize>,
) -> (Range<usize>, Result<Embeddings>) {
    let result = embed_checked(embedder, batch.part(call.clone())).await;
    (call, result)
}
