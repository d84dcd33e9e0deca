//! The cache: each text is embedded once, whatever fails, and each row is that of its text.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits, Result, Space, SpaceId, Truncation,
    Usage, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink, Tiered},
    conformance,
    provider::Fake,
    wrap::{Cached, VectorEncoding},
};
use proptest::prelude::*;

fn memory() -> Memory {
    Memory::new(64 << 20)
}

fn fake(limits: Limits) -> Fake {
    Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid")
}

fn cached(fake: &Fake, store: impl CacheStore) -> Cached<Fake> {
    fake.clone().cached(store).expect("one space")
}

fn asked(fake: &Fake) -> Vec<String> {
    fake.calls().into_iter().flat_map(|call| call.texts).collect()
}

/// A store whose reads or writes fail, or whose values are changed, when told to.
#[derive(Clone, Debug, Default)]
struct Moody(Arc<Mood>);

#[derive(Debug, Default)]
struct Mood {
    values: Mutex<Vec<(Key, Vec<u8>)>>,
    no_reads: AtomicBool,
    no_writes: AtomicBool,
    /// Puts so far.
    puts: AtomicUsize,
}

impl std::fmt::Display for Moody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("moody")
    }
}

#[async_trait]
impl CacheStore for Moody {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        let values = self.0.values.lock().expect("not poisoned").clone();
        let places: Vec<usize> = (0..keys.len()).collect();
        // Half of the values come before it fails.
        for &place in &places[..if self.0.no_reads.load(Ordering::Relaxed) { places.len() / 2 } else { places.len() }] {
            if let Some((_, value)) = values.iter().find(|(key, _)| *key == keys[place]) {
                sink(place, value);
            }
        }
        if self.0.no_reads.load(Ordering::Relaxed) { Err(Error::new(ErrorKind::Cache, "no reads")) } else { Ok(()) }
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.0.puts.fetch_add(1, Ordering::Relaxed);
        if self.0.no_writes.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cache, "no writes"));
        }
        let mut values = self.0.values.lock().expect("not poisoned");
        for entry in entries {
            if values.iter().all(|(key, _)| *key != entry.key) {
                values.push((entry.key, entry.value.to_vec()));
            }
        }
        Ok(())
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        if self.0.no_writes.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cache, "no writes"));
        }
        let mut values = self.0.values.lock().expect("not poisoned");
        values.retain(|(key, value)| damaged.iter().all(|entry| entry.key != *key || entry.value != value));
        Ok(())
    }

    async fn note(&self, _: SpaceId, _: &str) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn cannot_be_told_from_what_it_wraps() {
    conformance::wrapper(|fake| fake.cached(memory()).expect("one space")).await.expect("over memory");
    conformance::wrapper(|fake| fake.cached(Tiered::new(memory(), memory())).expect("one space"))
        .await
        .expect("over tiers");
    conformance::wrapper(|fake| fake.cached(Moody::default()).expect("one space")).await.expect("over a vector");
    let failing = Moody::default();
    failing.0.no_reads.store(true, Ordering::Relaxed);
    failing.0.no_writes.store(true, Ordering::Relaxed);
    conformance::wrapper(|fake| fake.cached(failing.clone()).expect("one space")).await.expect("over a failing store");
    conformance::wrapper(|fake| fake.cached(memory()).expect("one space").dedup().cached(memory()).expect("one space"))
        .await
        .expect("a cache of a cache");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn cannot_be_told_from_what_it_wraps_over_a_file_either() {
    use docvector_embed::cache::Sqlite;
    let folder = tempfile::tempdir().expect("a folder");
    let made = AtomicUsize::new(0);
    let file = || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        Sqlite::open(folder.path().join(format!("{number}.sqlite"))).expect("a file")
    };
    conformance::wrapper(|fake| fake.cached(file()).expect("one space")).await.expect("over a file");
    conformance::wrapper(|fake| fake.cached(Tiered::new(memory(), file())).expect("one space"))
        .await
        .expect("over memory before a file");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_file_is_there_for_the_next_run() {
    use docvector_embed::cache::Sqlite;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache.sqlite");
    let texts: Vec<String> = (0..100).map(|i| format!("text {i}")).collect();
    let fake = fake(Limits::none().with_texts(10).with_in_flight(1));
    // The first run ends half-way.
    (0..5).for_each(|_| fake.succeed_next());
    fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    let first = cached(&fake, Sqlite::open(&path).expect("a file"));
    first.embed_documents(&texts).await.expect_err("half-way");
    drop(first);
    let second = cached(&fake, Sqlite::open(&path).expect("a file"));
    let rows = second.embed_documents(&texts).await.expect("the rest");
    assert_eq!((rows.usage().cached, rows.usage().requests), (50, 5));
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert_eq!(row, fake.vector_of(InputKind::Document, text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the mix of hits, misses and repeats, and however the inner calls are split: each row is that of its
    /// text, each text is paid for once, and all that is paid is told.
    #[test]
    fn rows_are_the_texts_own_whatever_the_mix(
        rounds in prop::collection::vec(prop::collection::vec(0_u8..40, 0..60), 1..6),
        per_call in 1_usize..9,
        in_flight in 1_usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let fake = fake(Limits::none().with_texts(per_call).with_in_flight(in_flight));
            let cached = cached(&fake, memory());
            let mut told = Usage::ZERO;
            let mut seen = std::collections::HashSet::new();
            for round in rounds {
                let texts: Vec<String> = round.iter().map(|i| format!("text {i}")).collect();
                let rows = cached.embed_documents(&texts).await.expect("embeds");
                for (text, row) in texts.iter().zip(rows.rows()) {
                    prop_assert_eq!(row, fake.vector_of(InputKind::Document, text));
                }
                let hits = texts.iter().filter(|text| seen.contains(*text)).count();
                prop_assert_eq!(rows.usage().cached as usize, hits);
                seen.extend(texts);
                told += rows.usage();
            }
            prop_assert_eq!((told.tokens, told.requests), (fake.charged().tokens, fake.charged().requests));
            prop_assert_eq!(asked(&fake).len(), seen.len());
            Ok(())
        })?;
    }

    /// If an inner call fails, each finished row comes with the error, and is not paid for again.
    #[test]
    fn nothing_finished_is_lost_or_paid_for_twice(
        fails_at in 0_usize..12,
        known in prop::collection::vec(0_usize..30, 0..10),
        in_flight in 1_usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let fake = fake(Limits::none().with_texts(3).with_in_flight(in_flight));
            let cached = cached(&fake, memory());
            let texts: Vec<String> = (0..30).map(|i| format!("text {i}")).collect();
            let some: Vec<&String> = known.iter().map(|&i| &texts[i]).collect();
            cached.embed_documents(&some).await.expect("embeds");
            (0..fails_at).for_each(|_| fake.succeed_next());
            fake.fail_next(Error::new(ErrorKind::QuotaExhausted, "no money"));
            if let Err(error) = cached.embed_documents(&texts).await {
                prop_assert_eq!(error.kind(), ErrorKind::QuotaExhausted);
                if let Some(partial) = error.partial() {
                    for (row, &index) in partial.indices().iter().enumerate() {
                        let expected = fake.vector_of(InputKind::Document, &texts[index]);
                        prop_assert_eq!(partial.embeddings().row(row), expected);
                    }
                }
                let finished = error.partial().map_or(0, |partial| partial.indices().len());
                // Only the refused texts are missing.
                let known: std::collections::HashSet<usize> = known.into_iter().collect();
                let paid = fake.charged();
                prop_assert!(finished >= known.len());
                cached.embed_documents(&texts).await.expect("the failure has passed");
                let before = paid.tokens;
                let after = fake.charged().tokens;
                let tokens: u64 = texts.iter().map(|text| text.len().div_ceil(4) as u64).sum();
                prop_assert!(after <= tokens && before <= after, "{before} {after} {tokens}");
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn queries_are_read_from_the_store_and_stored_only_if_asked_for() {
    let (fake, store) = (fake(Limits::none()), Moody::default());
    let puts = || store.0.puts.load(Ordering::Relaxed);
    let plain = cached(&fake, store.clone());
    for times in 1..=2 {
        let rows = plain.embed_queries(&["a query"]).await.expect("embeds");
        assert_eq!(rows.row(0), fake.vector_of(InputKind::Query, "a query"));
        assert_eq!((rows.usage().cached, rows.usage().requests), (0, 1));
        assert_eq!((puts(), asked(&fake).len()), (0, times));
    }
    assert_eq!((plain.counts().stored, plain.counts().misses), (0, 2));

    // A cache that stores queries writes entries that the other reads: the keys are the same.
    let storing = Cached::builder(fake.clone(), store.clone()).with_stored_queries(true).build().expect("one space");
    storing.embed_queries(&["a query"]).await.expect("embeds");
    assert_eq!((storing.counts().stored, puts()), (1, 1));
    let rows = plain.embed_queries(&["a query"]).await.expect("embeds");
    assert_eq!(rows.row(0), fake.vector_of(InputKind::Query, "a query"));
    assert_eq!((rows.usage().cached, asked(&fake).len()), (1, 3));

    // Documents are stored by both.
    plain.embed_documents(&["a query"]).await.expect("embeds");
    assert_eq!((plain.counts().stored, puts()), (1, 2));
}

#[tokio::test]
async fn laws_hold_where_queries_are_stored() {
    let storing = |fake: Fake| Cached::builder(fake, memory()).with_stored_queries(true).build().expect("one space");
    conformance::wrapper(storing).await.expect("keeps the laws");
}

#[tokio::test]
async fn kinds_and_truncation_are_kept_apart_and_cuts_are_remembered() {
    let fake = fake(Limits::none().with_tokens_per_text(2));
    let cached = cached(&fake, memory());
    let document = cached.embed_documents(&["text"]).await.expect("embeds");
    let query = cached.embed_queries(&["text"]).await.expect("embeds");
    assert_ne!(document.row(0), query.row(0));
    for _ in 0..2 {
        let batch = Batch::documents(&["short", "much too long for it"]).with_truncation(Truncation::Truncate);
        assert_eq!(cached.embed_all(batch).await.expect("cuts").truncated(), [1]);
        // If the text must not be truncated, the truncated vector is not used.
        let error = cached.embed_documents(&["much too long for it"]).await.expect_err("too long");
        assert_eq!(error.bad_texts()[0].index, 0);
    }
}

#[tokio::test]
async fn ten_thousand_callers_pay_for_a_hundred_texts() {
    let fake = fake(Limits::none().with_texts(7));
    let cached = cached(&fake, memory());
    let texts: Vec<[String; 1]> = (0..100).map(|i| [format!("text {i}")]).collect();
    let hold = fake.hold();
    let mut calls: Vec<_> = (0..10_000).map(|i| Box::pin(cached.embed_documents(&texts[i % 100]))).collect();
    // The store answers at once: after one poll, a call has looked there, and waits for the held call.
    for call in &mut calls {
        assert!(futures_util::FutureExt::now_or_never(call.as_mut()).is_none());
    }
    assert_eq!(asked(&fake).len(), 100);
    drop(hold);
    let mut told = Usage::ZERO;
    for (rows, [text]) in futures_util::future::join_all(calls).await.into_iter().zip(texts.iter().cycle()) {
        let rows = rows.expect("embeds");
        assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, text));
        told += rows.usage();
    }
    assert_eq!(asked(&fake).len(), 100);
    let counts = cached.counts();
    assert_eq!((counts.misses, counts.joined, counts.hits), (100, 9_900, 0));
    assert_eq!((told.tokens, told.requests), (fake.charged().tokens, fake.charged().requests));
}

#[tokio::test]
async fn the_first_caller_can_leave_without_the_others() {
    let fake = fake(Limits::none());
    let cached = cached(&fake, memory());
    let hold = fake.hold();
    let call = |texts: Vec<&'static str>| {
        let cached = cached.clone();
        tokio::spawn(async move { cached.embed_documents(&texts).await })
    };
    let first = call(vec!["a", "b", "c"]);
    while fake.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = call(vec!["c", "a"]);
    let third = call(vec!["b"]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    first.abort();
    assert!(first.await.expect_err("it left").is_cancelled());
    drop(hold);
    let rows = second.await.expect("no panic").expect("embeds");
    assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, "c"));
    assert_eq!(rows.row(1), fake.vector_of(InputKind::Document, "a"));
    let other = third.await.expect("no panic").expect("embeds");
    assert_eq!(asked(&fake), ["a", "b", "c"]);
    // The caller that left would have been billed. Now another one is.
    let told = rows.usage() + other.usage();
    assert_eq!((told.tokens, told.requests), (fake.charged().tokens, fake.charged().requests));
}

#[tokio::test]
async fn when_all_leave_the_call_ends() {
    let fake = fake(Limits::none());
    let cached = cached(&fake, memory());
    let hold = fake.hold();
    for _ in 0..3 {
        let call = tokio::time::timeout(Duration::from_millis(5), cached.embed_documents(&["a"]));
        call.await.expect_err("held");
    }
    assert!(fake.calls().iter().all(|call| call.outcome == docvector_embed::provider::FakeOutcome::Dropped));
    drop(hold);
    cached.embed_documents(&["a"]).await.expect("usable");
}

/// A caller must not fail for the bad text or the deadline of another caller.
#[tokio::test]
async fn the_mistakes_of_another_caller_are_not_mine() {
    let fake = fake(Limits::none());
    let cached = cached(&fake, memory());
    fake.fail_next(Error::invalid_texts(vec![docvector_embed::BadText::new(
        0,
        docvector_embed::BadTextReason::Rejected,
    )]));
    let hold = fake.hold();
    let call = |texts: Vec<&'static str>| {
        let cached = cached.clone();
        tokio::spawn(async move { cached.embed_documents(&texts).await })
    };
    let theirs = call(vec!["bad", "shared"]);
    while fake.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    let mine = call(vec!["shared", "my own"]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(hold);
    let error = theirs.await.expect("no panic").expect_err("bad");
    assert_eq!(error.bad_texts()[0].index, 0);
    let rows = mine.await.expect("no panic").expect("not my mistake");
    assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, "shared"));
    assert_eq!(rows.row(1), fake.vector_of(InputKind::Document, "my own"));
}

#[tokio::test]
async fn a_store_that_fails_costs_no_vector() {
    let fake = fake(Limits::none().with_texts(2));
    let store = Moody::default();
    let cached = cached(&fake, store.clone());
    let texts = ["a", "b", "c", "d", "e"];
    let check = async |what: &str| {
        let rows = cached.embed_documents(&texts).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        for (text, row) in texts.iter().zip(rows.rows()) {
            assert_eq!(row, fake.vector_of(InputKind::Document, text), "{what}");
        }
        rows.usage().requests
    };
    store.0.no_writes.store(true, Ordering::Relaxed);
    assert_eq!(check("no writes").await, 3);
    assert_eq!(check("still none").await, 3);
    store.0.no_writes.store(false, Ordering::Relaxed);
    assert_eq!(check("writes again").await, 3);
    store.0.no_reads.store(true, Ordering::Relaxed);
    // The values that came before it failed are used.
    assert_eq!(check("no reads").await, 2);
    store.0.no_reads.store(false, Ordering::Relaxed);
    assert_eq!(check("reads again").await, 0);
    assert_eq!(cached.counts().failures, 6 + 1);
}

#[tokio::test]
async fn damaged_entries_are_embedded_anew_once_and_counted() {
    let fake = fake(Limits::none());
    let store = Moody::default();
    let cached = cached(&fake, store.clone());
    cached.embed_documents(&["a", "b"]).await.expect("embeds");
    let damage = |at: usize| {
        let mut values = store.0.values.lock().expect("not poisoned");
        // An entry that was discarded and put again is the last.
        let key = values.iter().position(|(key, _)| *key == first_key(&fake)).expect("it is there");
        values[key].1[at] ^= 0x10;
    };
    let length = store.0.values.lock().expect("not poisoned")[0].1.len();
    for byte in 0..length {
        damage(byte);
        for requests in [1, 0] {
            let rows = cached.embed_documents(&["a", "b"]).await.expect("embeds");
            assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, "a"), "byte {byte}");
            let cost = (rows.usage().cached, rows.usage().requests);
            assert_eq!(cost, (2 - requests, requests), "byte {byte}: what is damaged is embedded anew, once");
        }
    }
    assert_eq!(cached.counts().damaged, length as u64);

    // The entry of another key counts as damaged, too.
    {
        let mut values = store.0.values.lock().expect("not poisoned");
        values[0].1 = values[1].1.clone();
    }
    let rows = cached.embed_documents(&["a", "b"]).await.expect("embeds");
    assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, "a"));
    assert_eq!(rows.row(1), fake.vector_of(InputKind::Document, "b"));

    // A store that cannot be written keeps the damaged entry. The vector is right all the same, each time.
    damage(20);
    store.0.no_writes.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let rows = cached.embed_documents(&["a"]).await.expect("embeds");
        assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, "a"));
        assert_eq!(rows.usage().requests, 1);
    }
    store.0.no_writes.store(false, Ordering::Relaxed);
    cached.embed_documents(&["a"]).await.expect("embeds");
    assert_eq!(cached.embed_documents(&["a"]).await.expect("embeds").usage().requests, 0);
}

/// The key of "a".
fn first_key(fake: &Fake) -> Key {
    let seen = Moody::default();
    let embed = cached(fake, seen.clone());
    futures_util::FutureExt::now_or_never(embed.embed_documents(&["a"])).expect("at once").expect("embeds");
    seen.0.values.lock().expect("not poisoned")[0].0
}

#[tokio::test]
async fn of_a_damaged_entry_another_tier_may_have_a_sound_one() {
    let fake = fake(Limits::none());
    let (fast, slow) = (Moody::default(), Moody::default());
    let cached = cached(&fake, Tiered::new(fast.clone(), slow.clone()));
    cached.embed_documents(&["a", "b"]).await.expect("embeds");
    cached.embed_documents(&["a", "b"]).await.expect("and comes into the fast one");
    let damage = |store: &Moody| {
        store
            .0
            .values
            .lock()
            .expect("not poisoned")
            .iter_mut()
            .for_each(|(_, value)| value[30] = value[30].wrapping_add(1))
    };
    let texts = ["a", "b", "a"];
    for (damaged, requests) in [(vec![&fast], 0), (vec![&slow], 0), (vec![&fast, &slow], 1), (vec![], 0)] {
        damaged.iter().for_each(|store| damage(store));
        let rows = cached.embed_documents(&texts).await.expect("embeds");
        for (text, row) in texts.iter().zip(rows.rows()) {
            assert_eq!(row, fake.vector_of(InputKind::Document, text));
        }
        assert_eq!(rows.usage().requests, requests, "{} damaged", damaged.len());
        // This fills the fast store again.
        cached.embed_documents(&texts).await.expect("embeds");
    }
}

#[tokio::test]
async fn each_calls_rows_are_stored_when_they_arrive() {
    let fake = fake(Limits::none().with_texts(1).with_in_flight(1));
    let store = Moody::default();
    let cached = cached(&fake, store.clone());
    (0..3).for_each(|_| fake.succeed_next());
    fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    cached.embed_documents(&["a", "b", "c", "d", "e"]).await.expect_err("the fourth fails");
    assert_eq!(store.0.values.lock().expect("not poisoned").len(), 3);
    // A run that starts again pays for the unfinished texts.
    cached.embed_documents(&["a", "b", "c", "d", "e"]).await.expect("the rest");
    assert_eq!(asked(&fake), ["a", "b", "c", "d", "d", "e"]);
}

#[tokio::test]
async fn halves_take_half_the_room() {
    let sizes = async |storage| {
        let store = Moody::default();
        let fake = Fake::new(256);
        let cached =
            Cached::builder(fake.clone(), store.clone()).with_vector_encoding(storage).build().expect("one space");
        cached.embed_documents(&["a"]).await.expect("embeds");
        let rows = cached.embed_documents(&["a"]).await.expect("a hit");
        let far = rows.row(0).iter().zip(fake.vector_of(InputKind::Document, "a")).map(|(a, b)| (a - b).abs());
        let far = far.fold(0.0, f32::max);
        let size = store.0.values.lock().expect("not poisoned")[0].1.len();
        (size, far)
    };
    assert_eq!(sizes(VectorEncoding::Exact).await, (36 + 1024, 0.0));
    assert_eq!(sizes(VectorEncoding::HalfWhereExact).await, (36 + 1024, 0.0));
    let (size, far) = sizes(VectorEncoding::Half).await;
    assert_eq!(size, 36 + 512);
    assert!(far > 0.0 && far < 1e-3, "{far}");
}

/// Another model under the same name.
#[derive(Debug)]
struct Swapped(Fake);

impl std::fmt::Display for Swapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("swapped")
    }
}

#[async_trait]
impl Embedder for Swapped {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let rows = self.0.embed(batch).await?;
        let turned = rows.as_slice().chunks(4).flat_map(|row| [row[1], row[2], row[3], -row[0]]).collect();
        Embeddings::new(rows.len(), rows.space(), turned, rows.usage())
    }

    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

#[tokio::test]
async fn a_model_changed_behind_its_name_is_caught() {
    let store = memory();
    let fake = Fake::new(4);
    Cached::new_verified(fake.clone(), store.clone()).await.expect("the first");
    Cached::new_verified(fake.clone(), store.clone()).await.expect("the same");
    let error = Cached::new_verified(Swapped(fake.clone()), store.clone()).await.expect_err("another model");
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    // In another space it is the probe of another model.
    Cached::new_verified(Fake::new(8), store).await.expect("another space");
}
