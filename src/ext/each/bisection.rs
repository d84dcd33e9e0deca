//! Finds the texts that a refused call is about by halving it: [`isolate`].
//!
//! ```text
//! refused: a b c d e f g h          nothing is named
//!          a b c d | e f g h        the halves are sent; if one passes, the other one has the bad texts
//!          a b | c d                and so on, down to single texts
//! ```
//! If both halves are refused, halving on would send every text alone. So a few texts are sent alone first: if even
//! those are all refused, the texts are not the cause, and the rest is given up with the error.

use std::collections::VecDeque;

use super::results::{Refused, Results, attempt};
use crate::{Batch, Embedder, Error};

/// Texts that are sent alone when both halves of a call are refused. That so many are bad by chance, although not nearly
/// all texts are, does not happen.
const ALONE: usize = 3;

/// How far the search has come.
struct Bisection {
    /// The parts that were refused and not looked into yet.
    refused: VecDeque<Refused>,
    halvings: usize,
    /// Whether a part has passed, or a text alone: then the texts are the cause of the other refusals.
    passed: bool,
}

/// Finds the texts that a refusal is about. The texts that it names are out already, so the rest is sent again as it is;
/// a refusal that names none is halved.
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
            search.refused.extend(results.settle(part, result).err());
        }
    }
}

impl Bisection {
    /// Cuts texts in two; `None` if the texts are not the cause, and all are given up.
    async fn halve<E: Embedder + ?Sized>(
        &mut self,
        embedder: &E,
        batch: Batch<'_>,
        mut rest: Vec<usize>,
        error: &Error,
        results: &mut Results,
    ) -> Option<[Vec<usize>; 2]> {
        self.halvings += 1;
        // The second halving is of a half. If nothing has passed, the other half was refused too.
        if self.halvings == 2 && !self.passed {
            let others = self.refused.iter().flat_map(|refused| &refused.rest);
            let all: Vec<usize> = rest.iter().chain(others).copied().collect();
            let tried = try_alone(embedder, batch, &all, results).await;
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

/// Sends some of many texts alone: the first, the last, and those between at even distances.
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
        if let Err(refused) = results.settle(call, result) {
            results.reject(index, refused.error);
        }
    }
    tried
}
