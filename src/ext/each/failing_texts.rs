//! Finds the texts with which a service fails while it answers for others, by bisection: [`isolate_failing`].
//!
//! ```text
//! failed: a b c d e f g h          status 500, say, and no text is named
//!         a b c d | e f g h        the halves are sent; if one passes, the service answers
//!         a b | c d                and so on, down to single texts
//! ```
//! A failure may be that of the whole service, and then requests only add to its trouble. So before a text is blamed, and
//! wherever both halves fail, the service has to prove that it answers: for a text that passed before, or, if none has,
//! for one of a few others. If it does not, the rest is given up with the error.
//!
//! A bad text among `n` costs about `2 log2(n) + 2` requests. A service that is down costs [`ALONE`] and two requests
//! more. A search makes at most [`MOST_REQUESTS`].

use std::collections::VecDeque;

use super::results::{Refused, Results, attempt};
use crate::{Batch, Embedder, Error, ErrorKind};

/// The most requests of one search. What is not found by then is given up.
const MOST_REQUESTS: usize = 128;

/// The number of texts that are sent alone to see whether the service answers, if no text has passed before.
const ALONE: usize = 3;

/// Failures in a row after which the service has to prove that it answers: a call and both its halves.
const DOUBTFUL: usize = 3;

/// The state of one search.
struct Search<'s, 'b, E: ?Sized> {
    embedder: &'s E,
    batch: Batch<'b>,
    results: &'s mut Results,
    /// The failed parts that are not searched yet.
    parts: VecDeque<Refused>,
    /// A text for which the service answered.
    passed: Option<usize>,
    /// The failures since the service answered last.
    failures: usize,
    requests: usize,
}

/// Finds the texts of a failed call that are the cause, and gets the rows of the others.
pub(super) async fn isolate_failing<E: Embedder + ?Sized>(
    embedder: &E,
    batch: Batch<'_>,
    failed: Refused,
    results: &mut Results,
) {
    let passed = results.any_with_row();
    let mut search = Search { embedder, batch, results, parts: VecDeque::new(), passed, failures: 1, requests: 0 };
    // Nothing shows that the service answers for other texts than this one.
    let is_alone = passed.is_none() && failed.rest.len() == 1;
    // If an earlier search has ended without an answer, the service may be down.
    let is_doubtful = search.results.is_failing() && (passed.is_none() || !search.service_answers(&[]).await);
    if is_alone || is_doubtful {
        return search.give_up(failed);
    }
    search.parts.push_back(failed);
    while let Some(part) = search.parts.pop_front() {
        if search.results.have_ended() {
            search.results.spread_the_end(&part.rest);
        } else if search.requests >= MOST_REQUESTS {
            return search.give_up(part);
        } else if part.smaller {
            search.send(part.rest).await;
        } else if let [index] = part.rest[..] {
            if let Err(failed) = search.judge(index, part.error).await {
                return search.give_up(failed);
            }
        } else if search.failures >= DOUBTFUL && !search.service_answers(&part.rest).await {
            return search.give_up(part);
        } else {
            let mut left = part.rest;
            left.retain(|&index| !search.results.has_row(index));
            let right = left.split_off(left.len() / 2);
            for half in [left, right].into_iter().filter(|half| !half.is_empty()) {
                search.send(half).await;
            }
        }
    }
}

impl<E: Embedder + ?Sized> Search<'_, '_, E> {
    /// Makes one call with these texts, and keeps its rows, or the part that failed.
    async fn send(&mut self, texts: Vec<usize>) {
        if let Err(failed) = self.attempt(texts).await {
            self.parts.push_back(failed);
        }
    }

    async fn attempt(&mut self, texts: Vec<usize>) -> Result<(), Refused> {
        self.requests += 1;
        let first = texts.first().copied();
        let (texts, result) = attempt(self.embedder, self.batch, texts).await;
        // A refusal is an answer, too.
        match result.as_ref().map_err(Error::kind) {
            Ok(_) => (self.failures, self.passed) = (0, first),
            Err(ErrorKind::InvalidInput) => self.failures = 0,
            Err(_) => self.failures += 1,
        }
        self.results.settle(texts, result)
    }

    /// Finds out whether a text that was sent alone is the cause. Gives it back if the service has stopped answering.
    async fn judge(&mut self, index: usize, mut error: Error) -> Result<(), Refused> {
        // A failure may have passed by now, unless a wrapper below has repeated the call already.
        if error.kind() != ErrorKind::InvalidInput && !error.is_exhausted() {
            match self.attempt(vec![index]).await {
                Ok(()) => return Ok(()),
                Err(again) => error = again.error,
            }
        }
        if error.kind() != ErrorKind::InvalidInput && !self.service_answers(&[]).await {
            return Err(Refused { rest: vec![index], error, smaller: false });
        }
        self.results.reject(index, error);
        Ok(())
    }

    /// Returns whether the service answers: for a text that passed before, or else for one of a few of these texts and
    /// of the parts that wait. Rows that come are kept.
    async fn service_answers(&mut self, texts: &[usize]) -> bool {
        if self.failures == 0 {
            return true;
        }
        if let Some(passed) = self.passed {
            let _ = self.attempt(vec![passed]).await;
            return self.failures == 0;
        }
        // Single texts that wait were sent alone already.
        let waiting = self.parts.iter().map(|part| &part.rest).filter(|rest| rest.len() > 1).flatten();
        let all: Vec<usize> = texts.iter().chain(waiting).copied().collect();
        let Some(last) = all.len().checked_sub(1) else { return false };
        let mut some: Vec<usize> = (0..ALONE).map(|i| all[i * last / (ALONE - 1)]).collect();
        some.dedup();
        for index in some {
            let _ = self.attempt(vec![index]).await;
            if self.failures == 0 {
                return true;
            }
        }
        false
    }

    /// Makes a failure the result of its texts and of all that wait.
    fn give_up(mut self, failed: Refused) {
        let waiting = self.parts.drain(..).flat_map(|part| part.rest);
        let all: Vec<usize> = failed.rest.into_iter().chain(waiting).collect();
        self.results.give_up(&all, &failed.error);
    }
}
