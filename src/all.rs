//! Embeds a batch of any size in calls within the limits, several at once: [`embed_all`].

use std::{collections::VecDeque, ops::Range};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{
    Batch, Charges, Embedder, Embeddings, Error, Limits, Partial, Result,
    checked::embed_checked,
    gather::RowCollector,
    planner::{self, Plan},
};

/// The number of calls at once if an embedder does not say: enough to hide the latency of a network, few enough not to
/// flood a server.
pub(crate) const IN_FLIGHT: usize = 4;

/// The parts that a batch is embedded in if its progress is wanted and the embedder takes any number of texts: about so
/// many, each of at least and at most so many texts. Many small parts say more; a cache around a remote provider makes a
/// request of each.
const PARTS: usize = 64;
const MIN_PART_TEXTS: usize = 128;
const MAX_PART_TEXTS: usize = 1024;

/// Implements [`EmbedderExt::embed_all`](crate::EmbedderExt::embed_all).
pub(crate) async fn embed_all<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Result<Embeddings> {
    embed_calls(embedder, batch, embedder.limits(), &mut |_| {}).await
}

/// Embeds a batch in one call if the embedder still has the limits that the batch was made for, and else in calls within
/// its limits of now. For routers, whose callers do not see how the limits of a part change.
pub(crate) async fn embed_within<E: Embedder + ?Sized>(
    embedder: &E,
    planned: &Limits,
    batch: Batch<'_>,
) -> Result<Embeddings> {
    if embedder.limits() != *planned {
        return Box::pin(embed_all(embedder, batch)).await;
    }
    let result = embed_checked(embedder, batch).await;
    match &result {
        // A refusal may have told the embedder what it takes.
        Err(error) if planner::split_refused(error, &batch, &embedder.limits()).is_some() => {
            let charges = error.charges().clone();
            let result = Box::pin(embed_all(embedder, batch)).await;
            result.map(|rows| rows.with_charges(&charges)).map_err(|error| error.with_charges(&charges))
        }
        _ => result,
    }
}

/// Implements [`EmbedderExt::embed_all_with_progress`](crate::EmbedderExt::embed_all_with_progress).
pub(crate) async fn embed_all_with_progress<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    mut progress: impl FnMut(usize) + Send,
) -> Result<Embeddings> {
    let mut limits = embedder.limits();
    let part = (batch.len() / PARTS).clamp(MIN_PART_TEXTS, MAX_PART_TEXTS);
    limits.texts = limits.texts.or(Some(part));
    embed_calls(embedder, batch, limits, &mut progress).await
}

/// Embeds a batch in calls within the limits, and says after each how many rows are there.
///
/// After a failure no call begins: it would cost money, and its rows would only go into an error. Calls in flight are
/// awaited, because they are paid for: dropping them would lose finished rows and their charges.
///
/// The first failure is the result; later ones add their rows and charges. If both name bad texts, all are named at
/// once. If only the later one does, the first failure has another cause, and naming texts would hide it.
async fn embed_calls<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    limits: Limits,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Embeddings> {
    batch.check_space(embedder.spaces())?;
    let Plan { calls, counting } = planner::plan(&batch, &limits).await;
    let calls = calls.map_err(|error| error.with_embedder(embedder))?;
    let batch = batch.with_counted(counting.counted(&batch));
    let mut waiting = VecDeque::from(calls);
    // The cost of calls that were refused for their size and sent again in parts.
    let mut refused = Charges::NONE;
    if waiting.len() <= 1 {
        // Nothing has to be put together: the rows are not copied, and the error is the call's own.
        let result = embed_checked(embedder, batch).await.inspect(|rows| progress(rows.len()));
        let Err(error) = &result else { return result };
        waiting.clear();
        if !put_parts_back(embedder, batch, error, &(0..batch.len()), &mut waiting) {
            return result;
        }
        refused += error.charges();
    }
    // In a box, so that the future of a single call is small: it is moved and allocated for every call.
    Box::pin(embed_many(embedder, batch, &limits, progress, waiting, refused)).await
}

/// Makes several calls, some of them at once, and puts their rows together.
async fn embed_many<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    limits: &Limits,
    progress: &mut (dyn FnMut(usize) + Send),
    mut waiting: VecDeque<Range<usize>>,
    mut refused: Charges,
) -> Result<Embeddings> {
    let mut in_flight = FuturesUnordered::new();
    let mut rows = RowCollector::new(batch.len());
    let (mut done, mut failed) = (0, None::<Error>);
    loop {
        while failed.is_none() && in_flight.len() < limits.in_flight.unwrap_or(IN_FLIGHT).max(1) {
            let Some(call) = next_call(embedder, batch, limits, &mut waiting).await else { break };
            in_flight.push(embed_range(embedder, batch, call));
        }
        let Some((call, result)) = in_flight.next().await else { break };
        let error = match result {
            Ok(part) => {
                let other = rows.put(&part, |row| call.start + row).err();
                if other.is_none() {
                    done += part.len();
                    progress(done);
                }
                other.map(|error| of_another_space(error, part, call))
            }
            Err(error) if failed.is_none() && put_parts_back(embedder, batch, &error, &call, &mut waiting) => {
                refused += error.charges();
                None
            }
            // The finished rows of the failed call join the others. Rows of another space stay with the error.
            Err(error) => Some(rows.take(error.map_indices(|index| [call.start + index]))),
        };
        failed = match (failed, error) {
            (Some(first), Some(next)) => Some(with_later(first, next)),
            (first, next) => first.or(next),
        };
    }
    match failed {
        None => rows.finish().map(|rows| rows.with_charges(&refused)),
        Some(error) => Err(rows.fail(error.with_charges(&refused))),
    }
}

/// Adds rows to the error that they lie in another space than those of the calls before: they must not get into one
/// matrix. They are paid for, so they go with the error. They carry their charges themselves: the error's copy is dropped.
fn of_another_space(error: Error, rows: Embeddings, call: Range<usize>) -> Error {
    let beside = Partial::new(call.collect(), rows).into_iter().collect();
    error.without_charges().with_more_partials(beside)
}

/// Adds what a later failure says to the first one. Bad texts are named all at once, whichever call they were in.
fn with_later(first: Error, next: Error) -> Error {
    let named = !first.bad_texts().is_empty() && !next.bad_texts().is_empty();
    let first = first.with_charges(next.charges());
    let first = if named { first.with_more_bad_texts(next.bad_texts()) } else { first };
    first.with_more_partials(next.into_partials())
}

/// Puts the parts of a call at the front of the line, if the error is a refusal of its size. Returns whether it is.
fn put_parts_back<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    error: &Error,
    call: &Range<usize>,
    waiting: &mut VecDeque<Range<usize>>,
) -> bool {
    let Some(parts) = planner::split_refused(error, &batch.part(call.clone()), &embedder.limits()) else {
        return false;
    };
    parts.iter().rev().for_each(|part| waiting.push_front(call.start + part.start..call.start + part.end));
    true
}

/// Takes the next call. If the limits have changed since the calls were planned, it is split again, and its other parts
/// are the next in line.
async fn next_call<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    planned: &Limits,
    waiting: &mut VecDeque<Range<usize>>,
) -> Option<Range<usize>> {
    let call = waiting.pop_front()?;
    let now = embedder.limits();
    if !planner::is_outdated(planned, &now) {
        return Some(call);
    }
    let Range { start, .. } = call;
    let part = |part: Range<usize>| start + part.start..start + part.end;
    Some(planner::again(&batch.part(call), &now, waiting, part).await)
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
