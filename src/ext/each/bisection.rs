//! Finds the texts that cause a refusal, by bisection: [`isolate`].
//!
//! ```text
//! refused: a b c d e f g h          no text is named
//!          a b c d | e f g h        the halves are sent; if one passes, the bad texts are in the other one
//!          a b | c d                and so on, down to single texts
//! ```
//! If both halves are refused, further halving might send every text alone. So a few texts are sent alone first. If
//! even those are all refused, the texts are not the cause, and the rest is given up with the error.

use std::collections::VecDeque;

use super::{
    failing_texts::isolate_failing,
    results::{Refused, Results, attempt},
};
use crate::{Batch, Embedder, Error};

/// The number of texts that are sent alone if both halves of a call are refused. It practically never happens that all
/// of them are bad while many other texts are good.
const ALONE: usize = 3;

/// The state of the search.
struct Bisection {
    /// The refused parts that are not searched yet.
    refused: VecDeque<Refused>,
    halvings: usize,
    /// `true` once a part or a single text has passed: then the texts are the cause of the other refusals.
    passed: bool,
}

/// Finds the texts that cause a refusal. If the refusal names texts, they have their errors already, and the rest is
/// sent again as it is. A refused call that names no text is halved.
pub(super) async fn isolate<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    refused: Refused,
    results: &mut Results,
) {
    let mut search = Bisection { refused: VecDeque::from([refused]), halvings: 0, passed: false };
    while let Some(Refused { rest, error, smaller }) = search.refused.pop_front() {
        if results.have_ended() {
            results.spread_the_end(&rest);
            continue;
        }
        let parts = if smaller {
            vec![rest]
        } else if let [index] = rest[..] {
            results.reject(index, error);
            continue;
        } else {
            let Some(halves) = search.halve(embedder, batch, rest, &error, results).await else { return };
            halves.into()
        };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (part, result) = attempt(embedder, batch, part).await;
            search.passed |= result.is_ok();
            match results.settle(part, result) {
                Err(failed) if failed.is_failure() => isolate_failing(embedder, batch, failed, results).await,
                settled => search.refused.extend(settled.err()),
            }
        }
    }
}

impl Bisection {
    /// Splits texts in two; `None` if the texts are not the cause, and all were given up.
    async fn halve<E: Embedder + ?Sized>(
        &mut self,
        embedder: &E,
        batch: Batch<'_>,
        mut rest: Vec<usize>,
        error: &Error,
        results: &mut Results,
    ) -> Option<[Vec<usize>; 2]> {
        self.halvings += 1;
        // The second halving splits a half. If nothing has passed by then, the other half was refused too.
        if self.halvings == 2 && !self.passed {
            let others = self.refused.iter().flat_map(|refused| &refused.rest);
            let all: Vec<usize> = rest.iter().chain(others).copied().collect();
            let tried = try_alone(embedder, batch, &all, results).await;
            // If no text is left that was not tried alone, each has its own result, and nothing is given up.
            if all.len() > tried.len() && tried.iter().all(|&index| results.has_error(index)) {
                results.give_up(&all, error);
                return None;
            }
            self.passed = true;
            rest.retain(|index| !tried.contains(index));
            self.refused.iter_mut().for_each(|refused| refused.rest.retain(|index| !tried.contains(index)));
            self.refused.retain(|refused| !refused.rest.is_empty());
        }
        let right = rest.split_off(rest.len() / 2);
        Some([rest, right])
    }
}

/// Sends a few of many texts alone, and returns their indices: the first, the last, and some between them at even
/// distances.
async fn try_alone<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    all: &[usize],
    results: &mut Results,
) -> Vec<usize> {
    let mut tried: Vec<usize> = (0..ALONE).map(|i| all[i * (all.len() - 1) / (ALONE - 1)]).collect();
    tried.dedup();
    for &index in &tried {
        let (call, result) = attempt(embedder, batch, vec![index]).await;
        match results.settle(call, result) {
            Err(failed) if failed.is_failure() => results.give_up(&[index], &failed.error),
            Err(refused) => results.reject(index, refused.error),
            Ok(()) => {}
        }
    }
    tried
}
