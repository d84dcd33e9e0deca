//! Makes the calls of a round: a [`Caller`] has its texts, its way to read the answer, and a time to leave.

use std::{
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Lane, SpaceId, StreamOptions, Truncation,
};
use futures_util::{FutureExt, StreamExt, stream};

use super::{
    answers,
    checks::Check,
    round::{Ended, Round},
};

/// The method by which a caller asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum How {
    /// One call of the embedder, within its limits.
    Embed,
    All,
    Each,
    Stream {
        window: usize,
        windows: usize,
        /// The time for which it is busy with each item.
        busy: Duration,
        /// Whether it embeds on the same stack meanwhile.
        embeds: bool,
    },
    /// Asks for no rows, but for the proof that the members of the stack's `Resilient` are one model.
    Proof,
    /// Asks for no rows, and gives this share to the last arm of the stack's `AbSplit`.
    Shift(u32),
}

/// The moment at which a caller leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leaves {
    Never,
    /// In the poll of this number that gives no answer yet.
    InPoll(usize),
    /// In the first poll after so many.
    AfterPolls(usize),
    After(Duration),
    /// When the test that polls by hand drops it.
    ByHand,
}

/// One caller.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) stack: usize,
    pub(super) begins: Duration,
    pub(super) how: How,
    pub(super) kind: InputKind,
    pub(super) lane: Option<Lane>,
    pub(super) truncation: Truncation,
    pub(super) key: Option<&'static str>,
    pub(super) deadline: Option<Duration>,
    pub(super) texts: Vec<String>,
    pub(super) leaves: Leaves,
    /// The number of polls without an answer after which it stops polling for a while, and the length of that while.
    pub(super) rests: Option<(usize, Duration)>,
    /// The longest time that it may wait for its answer, if that is known.
    pub(super) patience: Option<Duration>,
    /// Whether it names the space that it wants.
    pub(super) names_space: bool,
}

impl Caller {
    pub(super) const fn is_stream(&self) -> bool {
        matches!(self.how, How::Stream { .. })
    }

    pub(super) fn is_dropped_by_hand(&self) -> bool {
        self.leaves == Leaves::ByHand
    }

    pub(super) fn lane(&self) -> Lane {
        match (self.lane, self.kind, self.how) {
            // A stream has no lane of its own.
            (_, _, How::Stream { .. }) => Lane::Bulk,
            (Some(lane), ..) => lane,
            (None, kind, _) => Batch::new(kind, &[]).lane(),
        }
    }

    fn batch<'a>(&'a self, texts: &'a [&'a str], space: SpaceId) -> Batch<'a> {
        let batch = Batch::new(self.kind, texts).with_truncation(self.truncation).with_lane(self.lane());
        let batch = self.key.map_or(batch, |key| batch.with_key(key));
        let batch = if self.names_space { batch.with_space(space) } else { batch };
        match self.deadline {
            Some(deadline) => batch.with_deadline((tokio::time::Instant::now() + deadline).into_std()),
            None => batch,
        }
    }
}

/// Lets a caller come, ask, and leave, and notes how it ended.
pub(super) async fn run(round: Arc<Round>, number: usize) {
    let caller = &round.plan.callers[number];
    tokio::time::sleep(caller.begins).await;
    let began = tokio::time::Instant::now();
    let asking = AssertUnwindSafe(resting(caller.rests, ask(&round, number))).catch_unwind();
    let ended = match leaving(caller.leaves, asking).await {
        Some(Ok(failed)) => failed.map_or(Ended::Whole, Ended::Failed),
        Some(Err(_)) => Ended::Panicked,
        None => Ended::Left,
    };
    round.end(number, ended, began.elapsed());
}

/// Waits for a future until it is time to leave.
async fn leaving<F: Future<Output: Send> + Send>(leaves: Leaves, future: F) -> Option<F::Output> {
    if let Leaves::After(long) = leaves {
        return tokio::time::timeout(long, future).await.ok();
    }
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        if matches!(leaves, Leaves::AfterPolls(most) if polls > most) {
            return Poll::Ready(None);
        }
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if matches!(leaves, Leaves::InPoll(last) if polls >= last) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Leaves a future unpolled for a while, as a task does that waits for something else in between.
async fn resting<F: Future<Output: Send> + Send>(rests: Option<(usize, Duration)>, future: F) -> F::Output {
    let mut future = pin!(future);
    if let Some((polls, long)) = rests {
        let mut left = polls;
        let answer = poll_fn(|context| {
            left = left.saturating_sub(1);
            match future.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        if let Some(answer) = answer.await {
            return answer;
        }
        tokio::time::sleep(long).await;
    }
    future.await
}

/// Asks, checks every row that comes back, and notes the cost that it is told.
async fn ask(round: &Round, number: usize) -> Option<ErrorKind> {
    let caller = &round.plan.callers[number];
    let stack = &round.stacks[caller.stack].embedder;
    let space = round.member.spaces()[0].id();
    let mut texts: Vec<&str> = caller.texts.iter().map(String::as_str).collect();
    round.calls.fetch_add(1, Ordering::Relaxed);
    match caller.how {
        How::Embed | How::All => {
            if caller.how == How::Embed {
                texts.truncate(stack.limits().texts.unwrap_or(usize::MAX));
            }
            let batch = caller.batch(&texts, space);
            let result = match caller.how {
                How::Embed => stack.embed(batch).await,
                _ => stack.embed_all(batch).await,
            };
            round.tell(result.as_ref().map_or_else(docvector_embed::Error::total_usage, |rows| rows.usage()));
            answers::check(round, number, &texts, 0, &result);
            result.err().map(|error| error.kind())
        }
        How::Proof => {
            let proof = round.stacks[caller.stack].parts.resilients.last()?.verify().await;
            round.tell(proof.as_ref().map_or_else(Error::total_usage, |cost| cost.usage()));
            proof.err().map(|error| error.kind())
        }
        How::Shift(share) => {
            let split = round.stacks[caller.stack].parts.splits.last()?;
            let last = split.stats().arms.pop()?.label;
            split.set_shares(&[(&last, share)]).err().map(|error| error.kind())
        }
        How::Each => {
            let each = stack.embed_each(caller.batch(&texts, space)).await;
            round.tell(each.usage());
            answers::check_each(round, number, &texts, &each);
            each.errors().next().map(|(_, error)| error.kind())
        }
        How::Stream { window, windows, busy, embeds } => {
            let mut options = StreamOptions::new(caller.kind).with_truncation(caller.truncation);
            options = options.with_window_texts(window).with_window_bytes(1 << 20).with_windows_in_flight(windows);
            options = caller.key.map_or(options.clone(), |key| options.with_key(key));
            options = if caller.names_space { options.with_space(space) } else { options };
            let mut items = pin!(stack.embed_stream(stream::iter(caller.texts.clone()), options));
            let mut next = 0;
            while let Some(result) = items.next().await {
                round.tell(result.as_ref().map_or_else(docvector_embed::Error::total_usage, |rows| rows.usage()));
                let part = result.as_ref().map_or(0, |rows| rows.len());
                let (texts, first) = if result.is_ok() {
                    (texts.get(next..next + part).unwrap_or_default(), next)
                } else {
                    (&texts[..], 0)
                };
                answers::check(round, number, texts, first, &result);
                next += part;
                if let Err(error) = result {
                    return Some(error.kind());
                }
                tokio::time::sleep(busy).await;
                if embeds {
                    round.calls.fetch_add(1, Ordering::Relaxed);
                    let texts = &texts[..1];
                    let batch = Batch::new(caller.kind, texts).with_truncation(caller.truncation).with_lane(Lane::Bulk);
                    let result = stack.embed_all(batch).await;
                    round.tell(result.as_ref().map_or_else(docvector_embed::Error::total_usage, |rows| rows.usage()));
                    answers::check(round, number, texts, 0, &result);
                }
            }
            if next != texts.len() {
                round
                    .fault(Check::Rows, format!("caller {number}: a stream ends after {next} of {} rows", texts.len()));
            }
            None
        }
    }
}

/// Asks once more for the texts of a stack's first caller, with nothing in the way.
pub(super) async fn last(round: &Round, stack: usize) -> Result<(), Error> {
    let Some(number) = round.plan.callers.iter().position(|caller| caller.stack == stack) else { return Ok(()) };
    let caller = &round.plan.callers[number];
    let mut texts: Vec<&str> = round.plan.good_texts(caller);
    texts.truncate(20);
    let patient = Caller { deadline: None, ..caller.clone() };
    let batch = patient.batch(&texts, round.member.spaces()[0].id());
    round.calls.fetch_add(1, Ordering::Relaxed);
    let result = round.stacks[stack].embedder.embed_all(batch).await;
    round.tell(result.as_ref().map_or_else(docvector_embed::Error::total_usage, |rows| rows.usage()));
    answers::check(round, number, &texts, 0, &result);
    result.map(|_| ())
}
