//! Splits any number of texts into calls within an embedder's limits: the one planner.
//!
//! ```
//! use docvector_embed::{Batch, Limits, plan};
//! # fn main() -> docvector_embed::Result<()> {
//! let calls = plan::split(&Batch::documents(&["a", "b", "c", "d", "e"]), &Limits::none().with_texts(2))?;
//! assert_eq!(calls, [0..2, 2..4, 4..5]);
//! # Ok(()) }
//! ```
//!
//! # Cost
//! One pass over the lengths. Tokens are counted at most once a text, and only where a bound on them (as many as
//! bytes, say) does not settle the matter; what was counted goes with the texts to the embedder, which does not count
//! again.

use std::{collections::VecDeque, future::poll_fn, ops::Range, task::Poll};

use crate::{BadText, Batch, Error, Limits, Result, TokenCount, counted::Counted, counting::Counting};

/// Bytes of text that are counted before others get their turn: some milliseconds of tokenising.
const TURN: usize = 32 << 10;

/// Splits a batch of any size into consecutive ranges of its texts, each within `limits`, each as full as can be.
/// No texts, no calls.
///
/// # Errors
/// Where one call will not do, [`InvalidInput`](crate::ErrorKind::InvalidInput) names every text that no call can hold:
/// empty, too large, or, where tokens can be counted and over-long texts are an error, too long. In a single call the
/// embedder itself finds those.
pub fn split(batch: &Batch<'_>, limits: &Limits) -> Result<Vec<Range<usize>>> {
    let mut planner = Planner::new(batch, limits);
    while !planner.advance(usize::MAX) {}
    planner.finish().calls
}

/// Does what [`split`] does, and lets others have their turn while it counts. Where one call will do, the texts that may
/// be over-long are counted all the same, unless the embedder schedules whole calls itself and reads the texts anyway:
/// so the counts go with the batch, to every attempt.
pub(crate) async fn plan<'l>(batch: &Batch<'_>, limits: &'l Limits) -> Plan<'l> {
    let mut planner = Planner::new(batch, limits);
    while !planner.advance(TURN) {
        yield_once().await;
    }
    planner.finish()
}

/// Whether calls that were planned by some limits are to be looked at again: a rate limit learns with the first reply how
/// many tokens a call is to hold.
pub(crate) fn is_outdated(planned: &Limits, now: &Limits) -> bool {
    planned.tokens_per_call != now.tokens_per_call
}

/// Splits a planned call by other limits, where it has to be. Gives its first part; the others are the next that wait.
pub(crate) async fn again<C>(
    call: &Batch<'_>,
    now: &Limits,
    waiting: &mut VecDeque<C>,
    part: impl Fn(Range<usize>) -> C,
) -> C {
    // What no call can hold any more is for the embedder to refuse.
    let parts = plan(call, now).await.calls.unwrap_or_default();
    let Some((first, rest)) = parts.split_first() else { return part(0..call.len()) };
    rest.iter().rev().for_each(|rest| waiting.push_front(part(rest.clone())));
    part(first.clone())
}

/// The calls for a batch, or the texts that stand in their way, and what was counted to find out.
pub(crate) struct Plan<'l> {
    pub(crate) calls: Result<Vec<Range<usize>>>,
    counting: Counting<'l>,
}

impl Plan<'_> {
    /// What was counted for the texts of the batch.
    pub(crate) fn counted(&self, batch: &Batch<'_>) -> Option<Counted<'_>> {
        self.counting.counted(batch)
    }
}

struct Planner<'b, 'a, 'l> {
    batch: &'b Batch<'a>,
    limits: &'l Limits,
    counting: Counting<'l>,
    calls: Vec<Range<usize>>,
    bad: Vec<BadText>,
    /// The next text to look at.
    next: usize,
    /// Bounds show that one call will do.
    one_call: bool,
    /// The first text of the call being filled, its bytes, and at most how many tokens.
    start: usize,
    bytes: usize,
    tokens: usize,
    /// The texts of the call before this one are counted as exactly as can be.
    settled: usize,
}

impl<'b, 'a, 'l> Planner<'b, 'a, 'l> {
    fn new(batch: &'b Batch<'a>, limits: &'l Limits) -> Self {
        let counting = Counting::new(batch, limits);
        let mut planner = Self {
            batch,
            limits,
            counting,
            calls: Vec::new(),
            bad: Vec::new(),
            next: 0,
            one_call: false,
            start: 0,
            bytes: 0,
            tokens: 0,
            settled: 0,
        };
        planner.one_call = planner.is_one_call();
        if planner.one_call {
            planner.next = if limits.tokens_per_call.is_some() { 0 } else { batch.len() };
        } else {
            planner.bad = batch.bad_texts(limits);
        }
        planner
    }

    /// Whether bounds show that one call will do.
    fn is_one_call(&self) -> bool {
        let texts = self.batch.texts();
        let at_most = || (0..texts.len()).map(|index| self.counting.at_most(self.batch, index));
        self.limits.texts.is_none_or(|limit| texts.len() <= limit)
            && self.limits.bytes.is_none_or(|limit| texts.iter().map(|text| text.len()).sum::<usize>() <= limit)
            && self.limits.tokens_per_call.is_none_or(|limit| at_most().fold(0, usize::saturating_add) <= limit)
    }

    /// Places texts until about so many bytes were counted; tells whether all are placed.
    fn advance(&mut self, work: usize) -> bool {
        let mut done = 0;
        while done < work {
            let index = self.next;
            let Some(text) = self.batch.texts().get(index) else { return true };
            self.next += 1;
            if self.limits.tokens_of_one_text().is_some_and(|limit| text.len() > limit) {
                done = done.saturating_add(text.len());
            }
            if self.one_call {
                self.counting.is_over(self.batch, index);
                continue;
            }
            if let Some(bad) = self.counting.too_long(self.batch, index) {
                self.bad.push(bad);
            }
            // Where there is an error, there will be no calls: only the other bad texts are of interest.
            if self.bad.is_empty() {
                done = done.saturating_add(self.place(index, text.len()));
            }
        }
        self.next >= self.batch.len()
    }

    /// Puts a text into the call being filled, or into a new one; tells how many bytes were counted for that.
    fn place(&mut self, index: usize, length: usize) -> usize {
        let full = self.limits.texts.is_some_and(|limit| index - self.start >= limit.max(1))
            || self.limits.bytes.is_some_and(|limit| self.bytes.saturating_add(length) > limit);
        let (fits, counted) = if full { (false, 0) } else { self.fits(index) };
        if !fits && index > self.start {
            self.calls.push(self.start..index);
            (self.start, self.bytes, self.tokens, self.settled) = (index, 0, 0, index);
        }
        self.bytes = self.bytes.saturating_add(length);
        self.tokens = self.tokens.saturating_add(self.counting.at_most(self.batch, index));
        counted
    }

    /// Whether the text's tokens fit into the call being filled. Bounds are replaced by counts, one text at a time, only
    /// while they leave it open.
    fn fits(&mut self, index: usize) -> (bool, usize) {
        let Some(limit) = self.limits.tokens_per_call else { return (true, 0) };
        let mut counted = 0;
        loop {
            let more = self.counting.at_most(self.batch, index);
            if self.tokens.saturating_add(more) <= limit {
                return (true, counted);
            }
            if self.settled > index || !matches!(self.limits.tokens, TokenCount::Exact(_)) {
                return (false, counted);
            }
            let before = self.counting.at_most(self.batch, self.settled);
            let exact = self.counting.exact(self.batch, self.settled);
            if self.settled < index {
                // No bound is above the limit of a call, and no call is above it, so that nothing saturates here.
                self.tokens = self.tokens.saturating_sub(before).saturating_add(exact);
            }
            counted += self.batch.texts()[self.settled].len();
            self.settled += 1;
        }
    }

    fn finish(mut self) -> Plan<'l> {
        if self.start < self.batch.len() {
            self.calls.push(self.start..self.batch.len());
        }
        let calls = if self.bad.is_empty() { Ok(self.calls) } else { Err(Error::invalid_texts(self.bad)) };
        Plan { calls, counting: self.counting }
    }
}

/// Counts every text of a batch that may be over-long, in turn with other tasks, so that neither a check nor a cut has
/// anything left to count.
#[cfg_attr(not(feature = "openai"), allow(dead_code, reason = "for providers that count tokens"))]
pub(crate) async fn count<'l>(batch: &Batch<'_>, limits: &'l Limits) -> Counting<'l> {
    let mut counting = plan(batch, limits).await.counting;
    let mut done = 0;
    for (index, text) in batch.texts().iter().enumerate() {
        if limits.tokens_of_one_text().is_some_and(|limit| text.len() > limit) {
            counting.is_over(batch, index);
            done += text.len();
            if done >= TURN {
                done = 0;
                yield_once().await;
            }
        }
    }
    counting
}

/// Lets other tasks have their turn, on any runtime.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
