//! Checks that an embedder keeps the laws of [`Embedder`]: one check per law, for all embedders and wrappers.
//!
//! ```
//! use docvector_embed::{EmbedderExt, conformance, provider::Fake};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), conformance::Violation> {
//! // Any embedder, from outside:
//! conformance::Suite::new(&Fake::new(8)).run().await?;
//! // A wrapper, also from inside: over fakes with small limits and scripted failures, whose log shows what it did.
//! conformance::wrapper(|fake| fake.dedup()).await?;
//! // A router across several spaces: `conformance::router`. A store for a cache has laws of its own.
//! conformance::store(|| docvector_embed::cache::Memory::new(256 << 20)).await?;
//! # Ok(()) }
//! ```
//!
//! A check returns the first [`Violation`] that it finds and does not panic, so that the suite itself can be tested.
//! The checks embed a few hundred short texts. They are new in every run, so that a cache cannot answer from the last
//! one. If the embedder states a limit, they embed over-long texts, too: think of the cost if the provider bills.
//! [`Suite`] needs no runtime but the embedder's own. [`wrapper`](fn@wrapper) and [`router`](fn@router) need tokio's,
//! with its clock.
//!
//! # Stability
//! Any release may add new checks of the same laws. An embedder that passes only by luck may fail then.

mod inside;
mod router;
mod scan;
mod store;
mod wrapper;

use std::{
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use futures_util::future::join_all;

pub use self::{router::router, scan::scan, store::store, wrapper::wrapper};
use crate::{
    BadTextReason, Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits, SpaceId, TokenCount,
    Truncation, Usage, planner, planner::yield_once,
};

/// A broken law, and how the embedder breaks it.
///
/// The checks return it, for example [`wrapper`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{embedder} breaks law {law}: {what}")]
pub struct Violation {
    /// The number of the law in [`Embedder`]'s list; for a store, in [`CacheStore`](crate::cache::CacheStore)'s or
    /// [`CacheScan`](crate::cache::CacheScan)'s.
    pub law: u8,
    /// The name of the embedder or store, as it displays itself.
    pub embedder: String,
    /// The finding, and what was expected instead.
    pub what: String,
}

/// The result of a check.
///
/// See [`Violation`].
pub type Verdict = Result<(), Violation>;

/// Numbers the checks of this process, so that no two of them embed the same text.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// The longest over-long text that is tried, in words.
const LONGEST: usize = 200_000;

/// Costs that a failed call may have: known, not reported, not answered, given up, nothing sent.
const COSTS: [Usage; 5] =
    [Usage::of_request(Some(11)), Usage::of_request(None), Usage::of_unanswered(), Usage::of_given_up(), Usage::ZERO];

/// The most texts that are given to an embedder that should refuse them. They are few, as it may take and bill them.
const MORE: usize = 32;

/// The checks of all laws for one embedder, from outside: they use only the methods of [`Embedder`].
///
/// # Default
/// A tolerance of 1e-5, no routing key.
#[derive(Clone, Copy, Debug)]
pub struct Suite<'a> {
    embedder: &'a dyn Embedder,
    tolerance: f32,
    key: Option<&'a str>,
}

impl<'a> Suite<'a> {
    /// Makes a suite for this embedder.
    pub fn new(embedder: &'a dyn Embedder) -> Self {
        Self { embedder, tolerance: 1e-5, key: None }
    }

    /// Sets how far a component may be from the same text's component in another batch, for vectors of length 1. For
    /// longer vectors, the tolerance grows with the length.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: f32) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the routing key of all batches, for routers that need one.
    #[must_use]
    pub const fn with_key(mut self, key: &'a str) -> Self {
        self.key = Some(key);
        self
    }

    /// Runs all checks. The check of spaces runs early, because the others rely on it.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn run(&self) -> Verdict {
        self.shape().await?;
        self.spaces().await?;
        self.order().await?;
        self.independence().await?;
        self.all_or_nothing().await?;
        self.bad_texts().await?;
        self.length().await?;
        self.cancellation().await?;
        self.usage().await
    }

    /// Checks law 1: one row per text, as wide as the space. An empty batch returns no rows and does no work.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn shape(&self) -> Verdict {
        let probe = Probe::new(self, 1);
        for kind in [InputKind::Document, InputKind::Query] {
            let none = probe.embed(kind, &[]).await?;
            probe.expect(none.is_empty() && none.usage().requests == 0, || {
                format!("no texts gave {} rows and {} requests", none.len(), none.usage().requests)
            })?;
            for count in [1, 2, 3, 7, 32] {
                let texts = probe.texts(count);
                let rows = probe.embed(kind, &texts).await?;
                let width = rows.space().dimensions();
                probe.expect(rows.len() == texts.len() && rows.dimensions() == width, || {
                    let (have, wide) = (rows.len(), rows.dimensions());
                    format!("{} texts gave {have} rows of {wide} components in a space of {width}", texts.len())
                })?;
            }
        }
        Ok(())
    }

    /// Checks law 2: row `i` belongs to text `i`.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn order(&self) -> Verdict {
        let probe = Probe::new(self, 2);
        let texts = probe.texts(16);
        let alone = probe.each_alone(InputKind::Document, &texts).await?;
        let together = probe.embed(InputKind::Document, &texts).await?;
        for (i, row) in together.rows().enumerate() {
            // Two texts may have equal vectors. So its own text need not be the only nearest one, but no text may be
            // nearer.
            let distances = alone.iter().map(|rows| distance(row, rows.row(0)));
            let least = distances.clone().fold(f32::INFINITY, f32::min);
            let own = distance(row, alone[i].row(0));
            probe.expect(own <= least, || {
                let nearest = distances.clone().position(|distance| distance <= least).unwrap_or(i);
                format!("row {i} is the vector of text {nearest}")
            })?;
        }
        Ok(())
    }

    /// Checks law 3: a row depends on its text, kind and space alone. If the space has different prompts for documents
    /// and queries, it does depend on the kind.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn independence(&self) -> Verdict {
        let probe = Probe::new(self, 3);
        for kind in [InputKind::Document, InputKind::Query] {
            let texts = probe.texts(8);
            let alone = probe.each_alone(kind, &texts).await?;
            let check = |what: &str, rows: &Embeddings, of: &[usize]| {
                of.iter().zip(rows.rows()).try_for_each(|(&text, row)| {
                    let far = distance(row, alone[text].row(0));
                    probe.expect(far <= self.tolerance, || {
                        format!("{what}, the vector of a {kind} is {far:e} from what it is alone")
                    })
                })
            };
            let forward: Vec<usize> = (0..texts.len()).collect();
            let backward: Vec<usize> = forward.iter().rev().copied().collect();
            let repeated: Vec<usize> = (0..texts.len()).map(|i| i / 2).collect();
            for (what, order) in [
                ("in a batch", &forward),
                ("in a batch of another order", &backward),
                ("beside an equal text", &repeated),
                ("in the same batch again", &forward),
            ] {
                let batch: Vec<String> = order.iter().map(|&text| texts[text].clone()).collect();
                if !probe.is_one_call(&batch, Truncation::Error) {
                    continue;
                }
                check(what, &probe.embed(kind, &batch).await?, order)?;
            }
            // A neighbour much longer than the others, if the limits allow it: padding must not change the short rows.
            let mut uneven = texts.clone();
            if let Some(last) = uneven.last_mut() {
                *last = format!("{last} {}", probe.texts(4).join(" "));
            }
            if probe.is_one_call(&uneven, Truncation::Truncate) {
                let rows = probe.embed_with(kind, &uneven, Truncation::Truncate).await?;
                check("beside a longer text", &rows, &forward[..forward.len() - 1])?;
            }
            let calls = join_all(texts.iter().map(|text| probe.embed(kind, std::slice::from_ref(text)))).await;
            for (text, rows) in calls.into_iter().enumerate() {
                check("in a call among others at once", &rows?, &[text])?;
            }
        }
        self.kinds(&probe).await
    }

    /// Checks that an embedder whose space has different prompts for documents and queries does not ignore the kind.
    async fn kinds(&self, probe: &Probe<'_>) -> Verdict {
        let texts = probe.texts(4);
        let documents = probe.embed(InputKind::Document, &texts).await?;
        let prompts = documents.space().prompts();
        if prompts.of(InputKind::Document) == prompts.of(InputKind::Query) {
            return Ok(());
        }
        let queries = probe.embed(InputKind::Query, &texts).await?;
        // A router may send a query elsewhere. And a model may give one text the same vector by chance.
        let differ = documents.space() != queries.space()
            || documents.rows().zip(queries.rows()).any(|(one, other)| distance(one, other) > self.tolerance);
        probe.expect(differ, || {
            "its space has different prompts for documents and queries, and the vectors of both kinds are the same: put \
             the prompt of the batch's kind before each text"
                .into()
        })
    }

    /// Checks law 4: a call returns every row or an error. Many calls made for one return every row.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn all_or_nothing(&self) -> Verdict {
        let probe = Probe::new(self, 4);
        let texts = probe.texts(4);
        for bad in 0..texts.len() {
            let mut batch = texts.clone();
            batch[bad].clear();
            let result = probe.try_embed(InputKind::Document, &batch, Truncation::Error).await;
            probe.expect(result.is_err(), || format!("a batch with an empty text at {bad} gave rows"))?;
        }
        let rows = probe.embed(InputKind::Document, &texts).await?;
        probe.expect(rows.len() == texts.len(), || "after failed calls, rows are missing".into())?;

        let many = probe.any_texts(45);
        let refs: Vec<&str> = many.iter().map(String::as_str).collect();
        let all = self.embedder.embed_all(probe.batch(InputKind::Document, &refs)).await;
        let all = all.map_err(|error| probe.violation(format!("{} texts cannot be embedded: {error}", many.len())))?;
        probe.expect(all.len() == many.len(), || format!("{} texts gave {} rows", many.len(), all.len()))?;
        for (at, row) in all.rows().enumerate() {
            let alone = probe.embed(InputKind::Document, &many[at..=at]).await?;
            let far = distance(row, alone.row(0));
            probe.expect(far <= self.tolerance, || format!("row {at} of {} is {far:e} from its text's", many.len()))?;
        }
        Ok(())
    }

    /// Checks law 5: results lie in an announced space, and in the wanted one.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn spaces(&self) -> Verdict {
        let probe = Probe::new(self, 5);
        let before: Vec<SpaceId> = self.embedder.spaces().iter().map(crate::Space::id).collect();
        probe.expect(!before.is_empty(), || "no space is announced".into())?;
        let name = self.embedder.to_string();
        probe.expect(!name.trim().is_empty() && !name.contains('\n'), || "its name is not one line".into())?;
        let texts = probe.texts(2);
        let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rows = probe.embed(InputKind::Document, &texts).await?;
        probe.expect(before.contains(&rows.space().id()), || {
            format!("the rows lie in {}, which is not announced", rows.space())
        })?;
        for &wanted in &before {
            let batch = probe.batch(InputKind::Document, &refs).with_space(wanted);
            let rows = self.embedder.embed(batch).await;
            let rows = rows.map_err(|error| probe.violation(format!("refuses its own space {wanted}: {error}")))?;
            let have = rows.space().id();
            probe.expect(have == wanted, || format!("asked for {wanted}, gives {have}"))?;
        }
        let mut other = *before[0].as_bytes();
        other[0] ^= 0xff;
        let batch = probe.batch(InputKind::Document, &refs).with_space(SpaceId::from_bytes(other));
        match self.embedder.embed(batch).await {
            Err(error) if error.kind() == ErrorKind::SpaceMismatch => probe.expect_of_the_call(&error, refs.len())?,
            Err(error) => return Err(probe.violation(format!("an unknown space gives another error: {error}"))),
            Ok(_) => return Err(probe.violation("an unknown space was asked for and rows came".into())),
        }
        let after: Vec<SpaceId> = self.embedder.spaces().iter().map(crate::Space::id).collect();
        probe.expect(before == after, || "the announced spaces have changed".into())
    }

    /// Checks law 6: an error names all empty texts at once, by the caller's indices. No error is about a text that the
    /// call does not have.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn bad_texts(&self) -> Verdict {
        let probe = Probe::new(self, 6);
        let good = probe.texts(6);
        let count = good.len();
        // Each bit set is an empty text: the first alone, another alone, with gaps, two pairs, all.
        for pattern in [0b1_u32, 0b10, 0b101, 0b11_0110, 0b11_1111] {
            let is_bad = |i: usize| pattern >> i & 1 == 1;
            let expected: Vec<usize> = (0..count).filter(|&i| is_bad(i)).collect();
            if expected.is_empty() {
                continue;
            }
            let batch: Vec<String> =
                (0..count).map(|i| if is_bad(i) { String::new() } else { good[i].clone() }).collect();
            let error = match probe.try_embed(InputKind::Document, &batch, Truncation::Error).await {
                Ok(_) => return Err(probe.violation(format!("empty texts at {expected:?} were embedded"))),
                Err(error) => error,
            };
            let empty = error.bad_texts().iter().all(|bad| bad.reason == BadTextReason::Empty);
            probe.expect_named(&error, &expected)?;
            probe.expect_of_the_call(&error, count)?;
            probe.expect(empty, || format!("empty texts are called otherwise: {error}"))?;
        }
        // An embedder may take more texts than it says. But if it refuses them, it must not name a text that the call
        // does not have.
        if let Some(limit) = probe.limits.texts.filter(|&limit| limit <= MORE) {
            let texts = probe.any_texts(limit + 1);
            if let Err(error) = probe.try_embed(InputKind::Document, &texts, Truncation::Error).await {
                probe.expect_of_the_call(&error, texts.len())?;
            }
        }
        Ok(())
    }

    /// Checks law 7: over-long texts are refused by index, or truncated and named. An embedder with several spaces may
    /// take them whole: its limits fit all of its arms, and one arm may take more.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn length(&self) -> Verdict {
        let probe = Probe::new(self, 7);
        let Some(long) = probe.over_long() else { return Ok(()) };
        let short = probe.texts(3);
        let several = self.embedder.spaces().len() > 1;
        let (first, last) = (&short[0], &short[short.len() - 1]);
        // Truncation leaves the same of both texts, so their vectors must be equal: an embedder that names a text as
        // truncated and embeds all of it is found out.
        let longer = format!("{long} and more of it");
        let mut tries = vec![(vec![long.clone()], vec![0])];
        if short.len() >= 2 {
            tries.push((vec![first.clone(), long.clone()], vec![1]));
            tries.push((vec![long.clone(), longer.clone()], vec![0, 1]));
        }
        if short.len() >= 3 {
            tries.push((vec![long.clone(), last.clone(), long.clone()], vec![0, 2]));
        }
        tries.retain(|(texts, _)| probe.is_one_call(texts, Truncation::Truncate));
        for (texts, expected) in tries {
            match probe.try_embed(InputKind::Document, &texts, Truncation::Error).await {
                Ok(_) if several => {}
                Ok(_) => {
                    return Err(
                        probe.violation("an over-long text was embedded, though truncation was not asked for".into())
                    );
                }
                Err(error) => probe.expect_named(&error, &expected)?,
            }
            let rows = probe.embed_with(InputKind::Document, &texts, Truncation::Truncate).await?;
            probe.expect(rows.len() == texts.len(), || format!("{} texts gave {} rows", texts.len(), rows.len()))?;
            let named = rows.truncated();
            let right = named == expected || (several && named.iter().all(|index| expected.contains(index)));
            probe.expect(right, || {
                format!("texts {expected:?} are over-long, {:?} are named as truncated", rows.truncated())
            })?;
            if texts[1..] == [longer.clone()] && rows.truncated() == expected {
                let far = distance(rows.row(1), rows.row(0));
                probe.expect(far <= self.tolerance, || {
                    format!("two texts with the same beginning are {far:e} apart when truncated")
                })?;
            }
            for i in (0..texts.len()).filter(|i| !expected.contains(i)) {
                let alone = probe.embed(InputKind::Document, &texts[i..=i]).await?;
                let far = distance(rows.row(i), alone.row(0));
                probe.expect(far <= self.tolerance, || format!("beside a truncated text, a vector is {far:e} off"))?;
            }
        }
        Ok(())
    }

    /// Checks law 8: a dropped call leaves everything usable and changes no other call.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn cancellation(&self) -> Verdict {
        let probe = Probe::new(self, 8);
        let texts = probe.texts(4);
        let alone = probe.each_alone(InputKind::Document, &texts).await?;
        // Dropped after 0 to 5 polls: each number leaves another state behind, from a call never begun to one nearly
        // done.
        for polls in 0..6 {
            let dropped = probe.texts(4);
            {
                let mut call = pin!(probe.embed(InputKind::Document, &dropped));
                for _ in 0..polls {
                    let poll = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
                    if poll.is_ready() {
                        break;
                    }
                    yield_once().await;
                }
            }
            // Other texts and those of the dropped call, now in calls that are not dropped.
            for (texts, others) in [(&texts, Some(&alone)), (&dropped, None)] {
                let rows = probe.embed(InputKind::Document, texts).await?;
                probe.expect(rows.len() == texts.len(), || "after a dropped call, rows are missing".into())?;
                for (row, alone) in rows.rows().zip(others.into_iter().flatten()) {
                    let far = distance(row, alone.row(0));
                    probe.expect(far <= self.tolerance, || format!("after a dropped call, a vector is {far:e} off"))?;
                }
            }
        }
        Ok(())
    }

    /// Checks law 9: each text's tokens are charged once, or the text is counted as cached or deduplicated. This is
    /// checked if tokens can be counted and are reported. If there are several spaces, the count is the most that one
    /// of them may charge.
    ///
    /// # Errors
    /// The first violation found.
    pub async fn usage(&self) -> Verdict {
        let probe = Probe::new(self, 9);
        let TokenCount::Exact(counter) = self.embedder.limits().tokens else { return Ok(()) };
        let texts = probe.texts(5);
        let count = |text: &String| counter.count(InputKind::Document, text) as u64;
        let first = &texts[..1];
        let twice = if texts.len() > 1 { vec![texts[1].clone(), texts[1].clone()] } else { Vec::new() };
        for (what, batch) in [
            ("a new text", first),
            ("the same text again", first),
            ("two equal texts", &twice),
            ("new texts", texts.get(2..).unwrap_or_default()),
        ] {
            if batch.is_empty() {
                continue;
            }
            let usage = probe.embed(InputKind::Document, batch).await?.usage();
            let saved = usage.cached + usage.deduplicated;
            probe.expect(saved <= batch.len() as u64, || format!("{what}: {saved} of {} saved", batch.len()))?;
            let Some(tokens) = usage.exact_tokens() else { continue };
            // In each batch, all texts are equal or none was embedded before. So it does not matter which texts were
            // saved.
            let charged = batch.len() as u64 - saved;
            let expected: u64 = batch.iter().map(count).take(charged as usize).sum();
            probe.expect(saved == 0 || what != "new texts", || format!("{what}: {saved} are said to be saved"))?;
            let several = self.embedder.spaces().len() > 1;
            probe.expect(tokens == expected || (several && tokens <= expected), || {
                format!("{what}: {charged} texts of {expected} tokens were embedded, {tokens} are reported")
            })?;
            probe.expect(charged == 0 || usage.requests > 0, || format!("{what}: tokens without a request"))?;
        }
        Ok(())
    }
}

/// One check at work: it knows its law, makes its texts, and makes its violations.
struct Probe<'a> {
    suite: &'a Suite<'a>,
    law: u8,
    limits: Limits,
    run: u64,
    made: AtomicU64,
}

impl<'a> Probe<'a> {
    fn new(suite: &'a Suite<'a>, law: u8) -> Self {
        // Other texts in every process, too: a cache may outlive the process, and must not answer.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("process"));
        let run = PROCESS.wrapping_add(RUNS.fetch_add(1, Ordering::Relaxed));
        let limits = suite.embedder.limits();
        Self { suite, law, limits, run, made: AtomicU64::new(0) }
    }

    fn violation(&self, what: String) -> Violation {
        Violation { law: self.law, embedder: self.suite.embedder.to_string(), what }
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) -> Verdict {
        if holds { Ok(()) } else { Err(self.violation(what())) }
    }

    fn expect_named(&self, error: &Error, expected: &[usize]) -> Verdict {
        let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
        self.expect(error.kind() == ErrorKind::InvalidInput && named == expected, || {
            format!("texts {expected:?} are bad, the error names {named:?}: {error}")
        })
    }

    /// Expects that an error is only about texts that the call has.
    fn expect_of_the_call(&self, error: &Error, texts: usize) -> Verdict {
        let beyond = error.highest_index().filter(|&index| index >= texts);
        beyond.map_or(Ok(()), |index| {
            Err(self.violation(format!("a call of {texts} texts gives an error about text {index}: {error}")))
        })
    }

    fn batch<'b>(&self, kind: InputKind, texts: &'b [&'b str]) -> Batch<'b>
    where
        'a: 'b,
    {
        let batch = Batch::new(kind, texts);
        match self.suite.key {
            Some(key) => batch.with_key(key),
            None => batch,
        }
    }

    /// Makes `count` new short texts that have little to do with each other, or fewer if one call cannot hold them, but
    /// at least one.
    fn texts(&self, count: usize) -> Vec<String> {
        let mut texts = self.any_texts(count);
        while texts.len() > 1 && !self.is_one_call(&texts, Truncation::Error) {
            texts.pop();
        }
        texts
    }

    /// Makes `count` new short texts, also if one call cannot hold them.
    fn any_texts(&self, count: usize) -> Vec<String> {
        const WORDS: [&str; 24] = [
            "river", "lock", "parse", "violin", "query", "bread", "thread", "harbour", "index", "frost", "borrow",
            "kiln", "socket", "meadow", "schema", "lantern", "cursor", "granite", "token", "saddle", "buffer",
            "orchid", "mutex", "comet",
        ];
        let text = |number: u64| {
            let hash = blake3::hash(&[self.run.to_le_bytes(), number.to_le_bytes()].concat());
            let words = hash.as_bytes()[..4].iter().map(|&byte| WORDS[usize::from(byte) % WORDS.len()]);
            let words: Vec<&str> = words.collect();
            // Some tokenizers make many tokens of a word, and some models take few. So drop words until the text fits.
            let texts =
                (0..=words.len()).map(|from| format!("{} {}{number}", words[from..].join(" "), self.run % 1000));
            let mut texts = texts.map(|text| text.trim_start().to_owned());
            match (&self.limits.tokens, self.limits.tokens_of_one_text()) {
                (TokenCount::Exact(counter), Some(limit)) => {
                    texts.find(|text| counter.count(InputKind::Document, text) <= limit)
                }
                _ => texts.next(),
            }
            .unwrap_or_else(|| number.to_string())
        };
        (0..count).map(|_| text(self.made.fetch_add(1, Ordering::Relaxed))).collect()
    }

    /// Makes a text with more tokens than the embedder takes. `None` if it states no limit, or if no text up to the
    /// longest one exceeds it.
    fn over_long(&self) -> Option<String> {
        let limit = self.limits.tokens_per_text?;
        let mut words = limit.checked_add(1).filter(|&words| words <= LONGEST)?;
        loop {
            let text = vec!["borrow"; words].join(" ");
            let over = match &self.limits.tokens {
                TokenCount::Exact(counter) => counter.count(InputKind::Document, &text) > limit,
                _ => true,
            };
            if over {
                return Some(text);
            }
            words = words.checked_mul(2).filter(|&words| words <= LONGEST)?;
        }
    }

    fn is_one_call(&self, texts: &[String], truncation: Truncation) -> bool {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let batch = self.batch(InputKind::Document, &texts).with_truncation(truncation);
        planner::split(&batch, &self.limits).is_ok_and(|calls| calls.len() <= 1)
    }

    async fn embed(&self, kind: InputKind, texts: &[String]) -> Result<Embeddings, Violation> {
        self.embed_with(kind, texts, Truncation::Error).await
    }

    async fn embed_with(
        &self,
        kind: InputKind,
        texts: &[String],
        truncation: Truncation,
    ) -> Result<Embeddings, Violation> {
        let result = self.try_embed(kind, texts, truncation).await;
        result.map_err(|error| self.violation(format!("{} good texts cannot be embedded: {error}", texts.len())))
    }

    async fn try_embed(&self, kind: InputKind, texts: &[String], truncation: Truncation) -> crate::Result<Embeddings> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.suite.embedder.embed(self.batch(kind, &texts).with_truncation(truncation)).await
    }

    async fn each_alone(&self, kind: InputKind, texts: &[String]) -> Result<Vec<Embeddings>, Violation> {
        let mut alone = Vec::with_capacity(texts.len());
        for text in texts {
            let rows = self.embed(kind, std::slice::from_ref(text)).await?;
            self.expect(rows.len() == 1, || format!("one text gave {} rows", rows.len()))?;
            alone.push(rows);
        }
        Ok(alone)
    }
}

/// Returns the largest difference of two components, relative to vectors of length 1.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let length = b.iter().map(|value| value * value).sum::<f32>().sqrt().max(1.0);
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / length
}
