//! Splits any number of texts into calls within an embedder's limits: [`split`], the one planner.
//!
//! # Cost
//! The planner makes one pass over the lengths. It counts the tokens of a text at most once, and only if a bound on
//! them (no more tokens than bytes, say) leaves the question open. The counts go with the texts to the embedder, which
//! does not count again.

use std::{collections::VecDeque, future::poll_fn, ops::Range, task::Poll};

use crate::{
    BadText, Batch, Error, ErrorKind, Limits, Result, Space, TokenCount,
    counting::{CallTokens, Counting},
};

/// The bytes of text that are counted before other tasks get their turn: some milliseconds of tokenizing.
const TURN: usize = 32 << 10;

/// Splits a batch of any size into consecutive ranges of its texts, each within `limits` and as full as possible.
///
/// A batch without texts is split into no ranges.
///
/// # Errors
/// If the texts do not fit into one call, [`InvalidInput`](crate::ErrorKind::InvalidInput) names every text that no
/// call can hold: empty texts, texts that are too large, and texts that are too long, if tokens can be counted and
/// over-long texts are an error. In a single call, the embedder itself finds those texts.
pub fn split(batch: &Batch<'_>, limits: &Limits) -> Result<Vec<Range<usize>>> {
    let mut planner = Planner::new(batch, limits);
    while !planner.advance(usize::MAX) {}
    planner.finish().calls
}

/// Does what [`split`] does, and lets other tasks have their turn while it counts.
///
/// If one call is enough, the texts that may be over-long are counted all the same, so that the counts go with the
/// batch to every attempt. They are not counted if the embedder schedules whole calls itself, because then it reads the
/// texts anyway.
pub(crate) async fn plan<'l>(batch: &Batch<'_>, limits: &'l Limits) -> Plan<'l> {
    let mut planner = Planner::new(batch, limits);
    while !planner.advance(TURN) {
        yield_once().await;
    }
    planner.finish()
}

/// Returns `true` if calls that were planned by earlier limits must be planned again. A rate limiter learns only from
/// the first reply how many tokens a call may hold, and a provider from a refusal how many texts.
pub(crate) fn is_outdated(planned: &Limits, now: &Limits) -> bool {
    let fewer_texts = now.texts.is_some_and(|now| planned.texts.is_none_or(|planned| now < planned));
    planned.tokens_per_call != now.tokens_per_call || fewer_texts
}

/// Returns the parts of a call that was refused, if a call may hold fewer texts by now: in smaller calls, the same texts
/// may pass. Each part is smaller than the call, so that this ends.
pub(crate) fn split_refused(error: &Error, call: &Batch<'_>, now: &Limits) -> Option<Vec<Range<usize>>> {
    let names_none = error.bad_texts().is_empty() && error.partial().is_none();
    let is_too_large = now.texts.is_some_and(|limit| limit < call.len());
    let is_for_size = error.kind() == ErrorKind::InvalidInput && names_none && is_too_large;
    is_for_size.then(|| split(call, now).ok()).flatten().filter(|parts| parts.len() > 1)
}

/// Splits a planned call by new limits, if it has to be split. Returns the first part, and puts the others at the front
/// of `waiting`.
pub(crate) async fn again<C>(
    call: &Batch<'_>,
    now: &Limits,
    waiting: &mut VecDeque<C>,
    part: impl Fn(Range<usize>) -> C,
) -> C {
    // A text that no call can hold any more is left in: the embedder refuses it.
    let parts = plan(call, now).await.calls.unwrap_or_default();
    let Some((first, rest)) = parts.split_first() else { return part(0..call.len()) };
    rest.iter().rev().for_each(|rest| waiting.push_front(part(rest.clone())));
    part(first.clone())
}

/// The calls for a batch, or the error that names the texts that no call can hold, and the counts that were made to
/// find out.
pub(crate) struct Plan<'l> {
    pub(crate) calls: Result<Vec<Range<usize>>>,
    pub(crate) counting: Counting<'l>,
}

struct Planner<'b, 'a, 'l> {
    batch: &'b Batch<'a>,
    limits: &'l Limits,
    counting: Counting<'l>,
    calls: Vec<Range<usize>>,
    bad: Vec<BadText>,
    /// The next text to look at.
    next: usize,
    /// `true` if bounds show that one call is enough.
    one_call: bool,
    /// The call being filled: its first text, its bytes, and a bound on its tokens.
    start: usize,
    bytes: usize,
    tokens: usize,
    /// The texts of the call that come before this one are in `tokens` with their exact counts.
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
        // If one call is enough, nothing has to be placed. The texts are read all the same if tokens per call are
        // limited, to count those that may be over-long; an embedder without that limit schedules whole calls itself,
        // and reads the texts anyway. If several calls are needed, bad texts must be found now, before the first call
        // is paid for.
        planner.one_call = planner.is_one_call();
        if planner.one_call {
            planner.next = if limits.tokens_per_call.is_some() { 0 } else { batch.len() };
        } else {
            planner.bad = batch.bad_texts(limits);
        }
        planner
    }

    /// Returns `true` if bounds show that one call is enough.
    fn is_one_call(&self) -> bool {
        let texts = self.batch.texts();
        let at_most = || (0..texts.len()).map(|index| self.counting.at_most(self.batch, index));
        self.limits.texts.is_none_or(|limit| texts.len() <= limit)
            && self.limits.bytes.is_none_or(|limit| texts.iter().map(|text| text.len()).sum::<usize>() <= limit)
            && self.limits.tokens_per_call.is_none_or(|limit| at_most().fold(0, usize::saturating_add) <= limit)
    }

    /// Places texts until about this many bytes were counted. Returns `true` once all texts are placed.
    fn advance(&mut self, work: usize) -> bool {
        let mut done = 0;
        while done < work {
            let index = self.next;
            let Some(text) = self.batch.texts().get(index) else { return true };
            self.next += 1;
            // An estimate: a text of no more bytes than the limit has tokens is rarely counted.
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
            // After a bad text there will be no calls: the rest is only searched for other bad texts.
            if self.bad.is_empty() {
                done = done.saturating_add(self.place(index, text.len()));
            }
        }
        self.next >= self.batch.len()
    }

    /// Puts a text into the call being filled, or into a new one. Returns the number of bytes that were counted for
    /// that.
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

    /// Returns whether the text's tokens fit into the call being filled, and the number of bytes that were counted for
    /// that.
    ///
    /// If the sum of the bounds is above the limit, the call may still fit. So exact counts replace the bounds, one
    /// text at a time, until the sum fits or all texts of the call are counted.
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
                // No bound is above the limit of a call, and neither is the sum of a call, so nothing saturates here.
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

/// Does what [`Batch::check`] does, and lets other tasks have a turn while it counts. Returns the counts, so that
/// truncation counts nothing again.
pub(crate) async fn check<'l>(batch: &Batch<'_>, spaces: &[Space], limits: &'l Limits) -> Result<Counting<'l>> {
    batch.check_space(spaces)?;
    let mut counting = Counting::new(batch, limits);
    let mut turn = 0;
    // The check needs the counts of the texts that may be over-long, and of as many others as show that the call is not
    // too large. They are counted here, in turns, so that the check itself has nothing left to count.
    for (index, text) in batch.texts().iter().enumerate() {
        if limits.tokens_of_one_text().is_some_and(|limit| text.len() > limit) {
            counting.is_over(batch, index);
            end_turn(&mut turn, text.len()).await;
        }
    }
    if let Some(mut tokens) = CallTokens::new(batch, &counting) {
        while let Some(index) = tokens.count_next(batch, &mut counting) {
            end_turn(&mut turn, batch.texts()[index].len()).await;
        }
    }
    batch.check_counted(&mut counting)?;
    Ok(counting)
}

/// Lets other tasks have a turn once enough bytes were counted since the last one.
async fn end_turn(counted: &mut usize, more: usize) {
    *counted = counted.saturating_add(more);
    if *counted >= TURN {
        *counted = 0;
        yield_once().await;
    }
}

/// Lets other tasks have a turn, on any runtime.
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
