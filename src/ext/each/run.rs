//! Embeds with one result per text: [`embed_each`].

use std::collections::VecDeque;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{
    Each,
    bisection::isolate,
    failing_texts::isolate_failing,
    results::{Results, attempt},
};
use crate::{Batch, Embedder, Limits, Result, all::IN_FLIGHT, counted::Counted, planner, planner::Plan};

/// Implements [`EmbedderExt::embed_each`](crate::EmbedderExt::embed_each).
pub(in crate::ext) async fn embed_each<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Each {
    let mut results = Results::new(batch.len());
    if let Err(error) = batch.check_space(embedder.spaces()) {
        results.fail_the_rest(&error);
        return results.finish();
    }
    let limits = embedder.limits();
    let Planned { calls, tokens } = match plan_good_texts(&batch, &limits, &mut results).await {
        Ok(planned) => planned,
        Err(error) => {
            results.fail_the_rest(&error);
            return results.finish();
        }
    };
    let counted = tokens.as_deref().map(|tokens| Counted::by(&limits, tokens));
    let batch = batch.with_counted(counted);
    run_calls(embedder, batch, &limits, calls, &mut results).await;
    results.finish()
}

/// The calls that are to be made, each as the indices of its texts.
struct Planned {
    calls: VecDeque<Vec<usize>>,
    /// The tokens of all texts of the batch, as far as planning counted them.
    tokens: Option<Vec<u32>>,
}

/// Plans calls of the texts that a call can hold. The other texts get their errors before the first call.
async fn plan_good_texts(batch: &Batch<'_>, limits: &Limits, results: &mut Results) -> Result<Planned> {
    let Plan { calls, counting } = planner::plan(batch, limits).await;
    let counted = counting.counted(batch);
    let tokens = counted.map(|counted| counted.tokens.to_vec());
    let error = match calls {
        Ok(calls) => return Ok(Planned { calls: calls.into_iter().map(Vec::from_iter).collect(), tokens }),
        Err(error) => error,
    };
    let mut good: Vec<usize> = (0..batch.len()).collect();
    results.set_aside(&mut good, &error);
    // The texts that are left are planned again, with the counts of the first time.
    let rest = batch.with_counted(counted).pick(&good);
    let Plan { calls, counting } = planner::plan(&rest.batch(), limits).await;
    let of_rest = counting.counted(&rest.batch()).map(|counted| counted.scatter(&good, batch.len()));
    let calls = calls?.into_iter().map(|call| good[call].to_vec()).collect();
    Ok(Planned { calls, tokens: of_rest.or(tokens) })
}

/// Makes several calls at once. If a call is refused, its cause is found before further calls begin, because all of
/// them may be refused.
async fn run_calls<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    limits: &Limits,
    mut waiting: VecDeque<Vec<usize>>,
    results: &mut Results,
) {
    let room = limits.in_flight.unwrap_or(IN_FLIGHT).max(1);
    let mut in_flight = FuturesUnordered::new();
    let mut refused = Vec::new();
    loop {
        while !results.have_ended() && refused.is_empty() && in_flight.len() < room {
            let Some(mut call) = waiting.pop_front() else { break };
            let now = embedder.limits();
            if planner::is_outdated(limits, &now) {
                // The limits have changed since the calls were planned. The call is split again, and its other parts
                // are the next in line.
                let picked = batch.pick(&call);
                call = planner::again(&picked.batch(), &now, &mut waiting, |part| call[part].to_vec()).await;
            }
            in_flight.push(attempt(embedder, batch, call));
        }
        if let Some((call, result)) = in_flight.next().await {
            let Err(of_call) = results.settle(call, result) else { continue };
            let picked = batch.pick(&of_call.rest);
            match planner::split_refused(&of_call.error, &picked.batch(), &embedder.limits()) {
                Some(parts) => parts.into_iter().rev().for_each(|part| waiting.push_front(of_call.rest[part].to_vec())),
                None => refused.push(of_call),
            }
        } else if let Some(refused) = refused.pop() {
            match refused.is_failure() {
                true => isolate_failing(embedder, batch, refused, results).await,
                false => isolate(embedder, batch, refused, results).await,
            }
        } else {
            break;
        }
    }
    waiting.iter().for_each(|call| results.spread_the_end(call));
}
