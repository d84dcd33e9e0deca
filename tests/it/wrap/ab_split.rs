//! `AbSplit`: which arm a batch goes to, what a change of shares moves, and what is counted of each arm.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    Batch, Charges, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits, Payee, Result, Space,
    SpaceId, Tier, TokenCount, Truncation, Usage, async_trait,
    cache::Memory,
    conformance,
    price::Price,
    provider::Fake,
    wrap::{AbSplit, AbSplitBuilder, RetryPolicy},
};
use futures_util::{FutureExt, future::join_all};

use crate::support::numbered;

fn fake(model: &str) -> Fake {
    Fake::builder().with_model(model).with_dimensions(4).build().expect("valid")
}

fn id(fake: &Fake) -> SpaceId {
    fake.spaces()[0].id()
}

/// Makes a split of two arms in two spaces.
fn split(shares: [u32; 2]) -> ([Fake; 2], AbSplit) {
    let fakes = ["hosted", "own"].map(fake);
    let [hosted, own] = fakes.clone();
    (fakes, of(hosted, own).build().map(|split| with(split, shares)).expect("valid"))
}

fn of(hosted: impl Embedder, own: impl Embedder) -> AbSplitBuilder {
    AbSplit::builder("salt").with_arm("hosted", 1, hosted).with_arm("own", 1, own)
}

fn with(split: AbSplit, [hosted, own]: [u32; 2]) -> AbSplit {
    split.set_shares(&[("hosted", hosted), ("own", own)]).expect("arms of the split");
    split
}

/// Returns a key of this arm.
fn key_of(split: &AbSplit, arm: &str) -> String {
    (0..1000).map(|i| format!("key:{i}")).find(|key| split.arm_of(key) == arm).expect("a key of the arm")
}

fn calls(fakes: &[Fake]) -> Vec<usize> {
    fakes.iter().map(|fake| fake.calls().len()).collect()
}

#[tokio::test(start_paused = true)]
async fn keeps_the_laws_of_routers() {
    let two = |arms: Vec<Fake>| {
        let [left, right] = <[Fake; 2]>::try_from(arms).expect("two");
        (left, right)
    };
    for shares in [[1, 1], [90, 10], [u32::MAX, 1], [0, 1]] {
        let make = |arms| {
            let (left, right) = two(arms);
            with(of(left, right).build().expect("valid"), shares)
        };
        conformance::router(make).await.unwrap_or_else(|violation| panic!("{shares:?}: {violation}"));
        for keyless in ["hosted", "own"] {
            let make = |arms| {
                let (left, right) = two(arms);
                with(of(left, right).with_keyless_arm(keyless).build().expect("valid"), shares)
            };
            let checked = conformance::router(make).await;
            checked.unwrap_or_else(|violation| panic!("{shares:?}, else {keyless}: {violation}"));
        }
    }
    let twins = |arms| {
        let (left, right) = two(arms);
        of(left.clone(), right).with_arm("twin", 1, left).build().expect("valid")
    };
    conformance::router(twins).await.expect("with two arms in one space");
    let stacks = |arms| {
        let (left, right) = two(arms);
        let left = left.retry(RetryPolicy::default()).cached(Memory::new(64 << 20)).expect("one space");
        of(left, right.dedup()).build().expect("valid").dedup()
    };
    conformance::router(stacks).await.expect("with a stack in each arm");
}

#[tokio::test(start_paused = true)]
async fn arms_of_one_space_cannot_be_told_from_one_embedder() {
    conformance::wrapper(|fake| of(fake.clone(), fake).build().expect("valid")).await.expect("in turn");
    conformance::wrapper(|fake| of(fake.clone(), fake).with_keyless_arm("own").build().expect("valid"))
        .await
        .expect("always the same");
    conformance::wrapper(|fake| {
        of(fake.clone().dedup(), fake.cached(Memory::new(64 << 20)).expect("one space")).build().expect("valid")
    })
    .await
    .expect("in stacks");
    for key in ["key:0", "key:1", "key:2"] {
        let fake = fake("one");
        let split = of(fake.clone(), fake).build().expect("valid");
        conformance::Suite::new(&split).with_key(key).run().await.expect("with a key");
    }
}

/// Returns the number of keys of each arm, and checks that keys have moved only to `grown`.
fn moved(split: &AbSplit, keys: &[String], before: &mut Vec<String>, grown: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (key, before) in keys.iter().zip(before) {
        let arm = split.arm_of(key);
        assert!(before == arm || arm == grown || before.is_empty(), "{key} moved from {before} to {arm}");
        arm.clone_into(before);
        *counts.entry(arm.to_owned()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn a_growing_share_moves_no_key_back_and_every_share_is_met() {
    const KEYS: usize = 100_000;
    let keys: Vec<String> = (0..KEYS).map(|i| format!("library:{i}")).collect();
    for others in [&["openai"][..], &["openai", "cohere"]] {
        let arms: Vec<Fake> = ["own"].iter().chain(others).map(|label| fake(label)).collect();
        let labels: Vec<&str> = ["own"].iter().chain(others).copied().collect();
        let builder = labels
            .iter()
            .zip(arms)
            .fold(AbSplit::builder("migration-2026"), |builder, (&label, arm)| builder.with_arm(label, 1, arm));
        let split = builder.build().expect("valid");
        let mut before = vec![String::new(); KEYS];
        for percent in [10, 20, 30, 50, 70, 80, 90] {
            // The proportion of the others to each other stays, so no key moves between them.
            let others: Vec<(&str, u32)> =
                others.iter().map(|&label| (label, (100 - percent) * 6 / others.len() as u32)).collect();
            split.set_shares(&[others.clone(), vec![("own", percent * 6)]].concat()).expect("arms of the split");
            let counts = moved(&split, &keys, &mut before, "own");
            for (label, share) in split.shares() {
                let expected = f64::from(share) / 600.0;
                let have = counts[label] as f64 / KEYS as f64;
                assert!((have - expected).abs() < 0.01, "{label} has {have}, not {expected}, of {labels:?}");
            }
        }
    }
}

#[test]
fn an_added_arm_takes_keys_and_moves_none_between_the_others() {
    let keys: Vec<String> = (0..10_000).map(|i| format!("{i}")).collect();
    let (_, before) = split([3, 2]);
    let after = of(fake("a"), fake("b")).with_arm("new", 5, fake("c")).build().map(|split| with(split, [3, 2]));
    let after = after.expect("valid");
    let mut moved = 0;
    for key in &keys {
        let (from, to) = (before.arm_of(key), after.arm_of(key));
        assert!(from == to || to == "new", "{key} moved from {from} to {to}");
        moved += usize::from(to == "new");
    }
    assert!((4_800..5_200).contains(&moved), "{moved} of 10,000 for a half");
}

/// Processes agree: a change here moves the keys of every split that runs.
#[test]
fn a_key_has_the_same_arm_everywhere_and_for_ever() {
    let (_, split) = split([1, 1]);
    let turned = AbSplit::builder("salt").with_arm("own", 7, fake("x")).with_arm("hosted", 7, fake("y")).build();
    let turned = turned.expect("valid");
    let other_salt = AbSplit::builder("pepper").with_arm("hosted", 1, fake("x")).with_arm("own", 1, fake("y")).build();
    let other_salt = other_salt.expect("valid");
    let keys: Vec<String> = (0..1000).map(|i| format!("key:{i}")).collect();
    assert!(keys.iter().all(|key| split.arm_of(key) == turned.arm_of(key)));
    let elsewhere = keys.iter().filter(|key| split.arm_of(key) != other_salt.arm_of(key)).count();
    assert!((400..600).contains(&elsewhere), "another salt moved {elsewhere} of 1,000");
    let arms: Vec<&str> = keys[..12].iter().map(|key| &split.arm_of(key)[..1]).collect();
    assert_eq!(arms.concat(), "hohhooooooho");
}

#[tokio::test]
async fn a_batch_with_a_key_goes_to_the_keys_arm() {
    let (fakes, split) = split([1, 1]);
    let keys: Vec<String> = (0..20).map(|i| format!("key:{i}")).collect();
    for key in &keys {
        for kind in [InputKind::Document, InputKind::Query] {
            let rows = split.embed(Batch::new(kind, &["a text"]).with_key(key)).await.expect("embeds");
            let arm = &fakes[usize::from(split.arm_of(key) == "own")];
            assert_eq!(rows.space(), &arm.spaces()[0]);
            assert_eq!(rows.row(0), arm.vector_of(kind, "a text"));
        }
    }
    assert!(calls(&fakes).iter().all(|&calls| calls > 5), "both arms are used");
}

#[tokio::test]
async fn a_wanted_space_is_answered_by_its_arm_whatever_key_and_share_say() {
    let (fakes, split) = split([0, 1]);
    for key in [None, Some("key:0"), Some("key:1")] {
        for (at, arm) in fakes.iter().enumerate() {
            let before = calls(&fakes);
            let batch = Batch::documents(&["a text"]).with_space(id(arm));
            let batch = key.map_or(batch, |key| batch.with_key(key));
            assert_eq!(split.embed(batch).await.expect("embeds").space().id(), id(arm));
            assert_eq!(calls(&fakes)[at], before[at] + 1);
            assert_eq!(calls(&fakes)[1 - at], before[1 - at]);
        }
    }
    let unknown = split.embed(Batch::documents(&["a text"]).with_space(SpaceId::from_bytes([7; 16]))).await;
    let error = unknown.expect_err("no arm has it");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::SpaceMismatch, Some("AbSplit(hosted: fake, own: fake)")));
    assert_eq!(calls(&fakes), [3, 3]);
    assert_eq!(split.stats().arms.iter().map(|arm| arm.totals.calls).sum::<u64>(), 6);
}

/// Two arms lie in the space `twin`, one in `other`.
#[tokio::test]
async fn a_key_decides_among_the_arms_of_the_wanted_space() {
    let fakes = [fake("twin"), fake("twin"), fake("other")];
    let [a, b, c] = fakes.clone();
    let split = AbSplit::builder("s").with_arm("a", 1, a).with_arm("b", 1, b).with_arm("c", 2, c).build();
    let split = split.expect("valid");
    assert_eq!(split.spaces().len(), 2);
    let mut arms = Vec::new();
    for key in (0..200).map(|i| format!("key:{i}")) {
        let asked = |split: AbSplit, key: String, fakes: [Fake; 3]| async move {
            let before = calls(&fakes);
            let batch = Batch::documents(&["a text"]).with_key(&key).with_space(id(&fakes[0]));
            split.embed(batch).await.expect("embeds");
            calls(&fakes).iter().zip(before).position(|(&after, before)| after > before).expect("one was asked")
        };
        let arm = asked(split.clone(), key.clone(), fakes.clone()).await;
        assert_eq!(arm, asked(split.clone(), key.clone(), fakes.clone()).await, "it stays");
        let own = ["a", "b", "c"].iter().position(|&label| label == split.arm_of(&key)).expect("an arm");
        assert!(own == arm || own == 2, "the key's own arm, where it has the space");
        arms.push(arm);
    }
    let first = arms.iter().filter(|&&arm| arm == 0).count();
    assert!((60..140).contains(&first) && !arms.contains(&2), "{first} of 200");

    // Without a share, both twins still answer for their space, by key.
    split.set_shares(&[("a", 0), ("b", 0)]).expect("arms of the split");
    let before = calls(&fakes);
    for key in (0..50).map(|i| format!("key:{i}")) {
        assert_eq!(split.arm_of(&key), "c");
        split.embed(Batch::queries(&["a text"]).with_key(&key).with_space(id(&fakes[0]))).await.expect("embeds");
    }
    assert!(calls(&fakes)[..2].iter().zip(before).all(|(&after, before)| after > before + 10));
}

#[tokio::test]
async fn without_key_and_space_nothing_is_guessed() {
    let (fakes, split) = split([1, 1]);
    for texts in [&[][..], &["a text"], &["one", "", "three"]] {
        let error = split.embed(Batch::documents(texts)).await.expect_err("no arm");
        assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
        let shown = error.to_string();
        for part in ["with_key", "with_space", "with_keyless_arm", "2 spaces"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    assert_eq!(calls(&fakes), [0, 0]);
    assert!(split.stats().arms.iter().all(|arm| arm.totals.calls == 0));

    let [hosted, own] = fakes.clone();
    let split = of(hosted, own).with_keyless_arm("own").build().expect("valid");
    for texts in [&["a text"][..], &["another"]] {
        assert_eq!(split.embed(Batch::documents(texts)).await.expect("embeds").space().id(), id(&fakes[1]));
    }
    let batch = Batch::documents(&["a text"]).with_space(id(&fakes[0]));
    assert_eq!(split.embed(batch).await.expect("embeds").space().id(), id(&fakes[0]));
    let key = key_of(&split, "hosted");
    let rows = split.embed(Batch::documents(&["a text"]).with_key(&key)).await.expect("embeds");
    assert_eq!(rows.space().id(), id(&fakes[0]));
}

#[tokio::test]
async fn without_a_key_calls_in_one_space_are_shared_out() {
    let fakes = [fake("twin"), fake("twin")];
    let [a, b] = fakes.clone();
    let split = with(of(a, b).build().expect("valid"), [3, 1]);
    for _ in 0..4000 {
        split.embed(Batch::documents(&["a text"])).await.expect("embeds");
    }
    let calls = calls(&fakes);
    assert!((2850..3150).contains(&calls[0]) && calls[0] + calls[1] == 4000, "{calls:?}");
}

#[tokio::test]
async fn what_is_refused_costs_no_arm_a_call() {
    let (fakes, split) = split([1, 1]);
    let key = key_of(&split, "own");
    let bad = split.embed(Batch::documents(&["good", "", "good", ""]).with_key(&key)).await.expect_err("empty texts");
    assert_eq!(bad.bad_texts().iter().map(|bad| bad.index).collect::<Vec<_>>(), [1, 3]);
    let none = split.embed(Batch::documents(&[]).with_key(&key)).await.expect("no rows");
    assert_eq!((none.len(), none.space().id()), (0, id(&fakes[1])));
    assert_eq!(calls(&fakes), [0, 0]);
    // The refusal is a call of the arm that it was for.
    let own = split.stats().arm("own").cloned().expect("an arm").totals;
    assert_eq!((own.calls, own.failed), (1, vec![(ErrorKind::InvalidInput, 1)]));
}

#[tokio::test]
async fn a_cache_goes_into_each_arm() {
    let (_, across) = split([1, 1]);
    let error = across.cached(Memory::new(1 << 20)).expect_err("two spaces");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("2 spaces: cache each of its parts"), "{error}");

    let store = Memory::new(64 << 20);
    let fakes = ["hosted", "own"].map(fake);
    let [hosted, own] = fakes.clone().map(|fake| fake.cached(store.clone()).expect("one space"));
    let split = of(hosted, own).build().expect("valid");
    for round in 0..2 {
        for key in (0..20).map(|i| format!("key:{i}")) {
            let texts = ["the same text", key.as_str()];
            let rows = split.embed(Batch::documents(&texts).with_key(&key)).await.expect("embeds");
            let arm = &fakes[usize::from(split.arm_of(&key) == "own")];
            assert_eq!(rows.row(0), arm.vector_of(InputKind::Document, "the same text"));
            assert_eq!(rows.row(1), arm.vector_of(InputKind::Document, &key));
            assert!(round == 0 || rows.usage().cached == 2);
        }
    }
    let asked = |fake: &Fake| {
        fake.calls().iter().flat_map(|call| call.texts.clone()).filter(|text| text == "the same text").count()
    };
    assert_eq!(fakes.each_ref().map(asked), [1, 1]);
    assert_eq!(split.stats().arms.iter().map(|arm| arm.totals.usage.cached).sum::<u64>(), 58);

    // In one space, one cache around the split is right.
    let twin = fake("twin");
    let cached = of(twin.clone(), twin).build().expect("valid").cached(Memory::new(1 << 20)).expect("one space");
    cached.embed_documents(&["a text"]).await.expect("embeds");
    assert_eq!(cached.embed_documents(&["a text"]).await.expect("embeds").usage().cached, 1);
}

#[tokio::test(start_paused = true)]
async fn every_call_is_counted_once_at_its_arm() {
    let slow = |model: &str, seconds| {
        let fake = Fake::builder().with_model(model).with_dimensions(4).with_latency(Duration::from_secs(seconds));
        fake.build().expect("valid")
    };
    let fakes = [slow("hosted", 1), slow("own", 3)];
    let [hosted, own] = fakes.clone();
    let split = of(hosted, own).build().expect("valid");
    let keys = ["hosted", "own"].map(|arm| key_of(&split, arm));
    let texts = ["four", "five5"];
    for _ in 0..3 {
        for key in &keys {
            split.embed(Batch::documents(&texts).with_key(key)).await.expect("embeds");
        }
    }
    let hosted = Batch::documents(&texts).with_key(&keys[0]);
    fakes[0].fail_next(Error::new(ErrorKind::RateLimited, "as scripted"));
    fakes[0].fail_next(Error::new(ErrorKind::Unavailable, "as scripted").with_usage(Usage::of_unanswered()));
    for _ in 0..2 {
        split.embed(hosted).await.expect_err("as scripted");
    }
    drop(split.embed(hosted));
    {
        let mut dropped = split.embed(hosted);
        assert!(dropped.as_mut().now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(500)).await;
    }
    let stats = split.clone().stats();
    let [hosted, own] = ["hosted", "own"].map(|label| stats.arm(label).expect("an arm"));
    assert_eq!(stats.arms.iter().map(|arm| arm.label.as_str()).collect::<Vec<_>>(), ["hosted", "own"]);
    assert!(stats.arm("no such arm").is_none());
    assert_eq!((hosted.share, &hosted.space), (1, &fakes[0].spaces()[0]));
    assert_eq!((hosted.totals.calls, hosted.totals.dropped, hosted.totals.texts), (6, 1, 12));
    assert_eq!(hosted.totals.failed, [(ErrorKind::RateLimited, 1), (ErrorKind::Unavailable, 1)]);
    let mut usage = fakes[0].charged() + Usage::of_unanswered();
    usage.unanswered += 1;
    assert_eq!(hosted.totals.usage, usage);
    assert_eq!(hosted.totals.latency_max, Duration::from_secs(1));
    assert_eq!((own.totals.calls, own.totals.usage), (3, fakes[1].charged()));
    assert_eq!(own.totals.latency_quantile(0.5), Some(Duration::from_secs(3)));
    let payees: Vec<&str> = own.totals.charges.iter().map(|charge| charge.payee.model()).collect();
    assert_eq!(payees, ["own"]);

    let table = "\
arm      share  calls  failed  dropped  texts  tokens      p50      p99  cost
hosted  50.0 %      6       2        1     12       9  1.000 s  1.000 s     ?
own     50.0 %      3       0        0      6       9  3.000 s  3.000 s     ?";
    assert_eq!(stats.to_string(), table);
}

/// An embedder for what a fake cannot do: it learns a limit, panics, or is paid like another provider.
#[derive(Debug)]
struct Odd {
    fake: Fake,
    limits: Mutex<Limits>,
    /// The most bytes per call, which its limits do not let callers count as tokens.
    most_bytes: usize,
    panics: bool,
    payee: Option<Payee>,
    /// The addresses of the rows that it returned.
    rows: Arc<Mutex<Vec<usize>>>,
}

impl Odd {
    fn new(model: &str) -> Self {
        let fake = fake(model);
        let limits = Mutex::new(fake.limits().with_texts(100));
        Self { fake, limits, most_bytes: usize::MAX, panics: false, payee: None, rows: Arc::default() }
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("odd")
    }
}

#[async_trait]
impl Embedder for Odd {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits())?;
        assert!(!self.panics, "as asked");
        let bytes: usize = batch.texts().iter().map(|text| text.len()).sum();
        // A server that takes fewer texts than was known.
        if batch.len() > 8 {
            let mut limits = self.limits.lock().expect("not poisoned");
            *limits = limits.clone().with_texts(8);
        }
        if batch.len() > 8 || bytes > self.most_bytes {
            return Err(Error::new(ErrorKind::InvalidInput, "too large").with_usage(Usage::of_request(Some(0))));
        }
        let rows = self.fake.embed(batch).await?;
        let charges = match &self.payee {
            Some(payee) => Charges::of(payee, rows.usage()),
            None => rows.usage().into(),
        };
        let rows = Embeddings::new(rows.len(), rows.space(), rows.as_slice().to_vec(), charges)?;
        self.rows.lock().expect("not poisoned").push(rows.as_slice().as_ptr() as usize);
        Ok(rows)
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.limits.lock().expect("not poisoned").clone()
    }
}

#[tokio::test]
async fn an_arm_whose_limits_shrink_gets_smaller_calls() {
    let odd = Odd::new("odd");
    let inner = odd.fake.clone();
    let split = of(odd, fake("other")).build().expect("valid");
    assert_eq!(split.limits().texts, Some(100));
    let key = key_of(&split, "hosted");
    let texts = numbered(20);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // The first call is refused and sent again in parts; the next one is sent in parts.
    for requests in [4, 3] {
        let rows = split.embed(Batch::documents(&texts).with_key(&key)).await.expect("in parts");
        for (text, row) in texts.iter().zip(rows.rows()) {
            assert_eq!(row, inner.vector_of(InputKind::Document, text));
        }
        assert_eq!(rows.usage().requests, requests);
    }
    assert_eq!(split.limits().texts, Some(100), "as it was built");
    assert_eq!(inner.calls().iter().map(|call| call.texts.len()).collect::<Vec<_>>(), [8, 8, 4, 8, 8, 4]);
    // One record for each call of the split, with all that it cost.
    let own = split.stats().arm("hosted").cloned().expect("an arm").totals;
    assert_eq!((own.calls, own.texts, own.usage.requests), (2, 40, 7));

    // A part that fails tells what the parts before it and the refusal cost.
    let odd = Odd::new("odd");
    odd.fake.succeed_next();
    odd.fake.fail_next(Error::new(ErrorKind::QuotaExhausted, "as scripted"));
    *odd.limits.lock().expect("not poisoned") = Limits::none().with_texts(100).with_in_flight(1);
    let failing = of(odd, fake("other")).with_keyless_arm("hosted").build().expect("valid");
    let error = failing.embed(Batch::documents(&texts)).await.expect_err("as scripted");
    assert_eq!(error.partial().map(|partial| partial.indices().to_vec()), Some((0..8).collect()));
    assert_eq!((error.total_usage().requests, failing.stats().arms[0].totals.usage.requests), (2, 2));
}

#[tokio::test]
async fn an_arm_that_counts_otherwise_gets_calls_that_it_takes() {
    // The limits of the split count four bytes as a token, and this arm's server counts each.
    let mut odd = Odd::new("odd");
    odd.most_bytes = 100;
    let limits = Limits::none().with_tokens_per_call(100);
    odd.limits = Mutex::new(limits.clone().with_tokens(TokenCount::AtMostBytes));
    let inner = odd.fake.clone();
    let counts = Fake::builder().with_model("other").with_dimensions(4).with_limits(limits).build().expect("valid");
    let split = of(odd, counts).with_keyless_arm("hosted").build().expect("valid");
    let texts: Vec<String> = (0..4).map(|i| format!("{i}").repeat(80)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows = split.embed(Batch::documents(&texts)).await.expect("in calls that the arm takes");
    assert_eq!(rows.len(), 4);
    assert_eq!(inner.calls().iter().map(|call| call.texts.len()).collect::<Vec<_>>(), [1; 4]);
}

#[tokio::test]
async fn rows_pass_through_without_a_copy() {
    let odd = Odd::new("odd");
    let log = odd.rows.clone();
    let split = of(odd, fake("other")).with_keyless_arm("hosted").build().expect("valid");
    let rows = split.embed(Batch::documents(&["one", "two"])).await.expect("embeds");
    assert_eq!(*log.lock().expect("not poisoned"), [rows.as_slice().as_ptr() as usize]);
}

#[tokio::test]
async fn an_arm_that_panics_is_an_error_and_is_counted() {
    let mut odd = Odd::new("odd");
    odd.panics = true;
    let split = of(odd, fake("other")).with_keyless_arm("hosted").build().expect("valid");
    let error = split.embed(Batch::documents(&["a text"])).await.expect_err("it panics");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::Inference, Some("odd")));
    let stats = split.stats();
    let totals = &stats.arm("hosted").expect("an arm").totals;
    assert_eq!((totals.calls, totals.failed.clone()), (1, vec![(ErrorKind::Inference, 1)]));
}

#[tokio::test]
async fn a_cost_is_told_where_all_of_it_is_known() {
    let payee = |provider: &str, model: &str, tier| Some(Payee::new(provider, model, tier));
    let arms = [
        ("table", payee("openai", "text-embedding-3-small", Tier::Standard)),
        ("batch", payee("openai", "text-embedding-3-small", Tier::Batch)),
        ("local", payee("onnx", "minilm", Tier::Local)),
        ("unknown", payee("openai", "text-embedding-9", Tier::Standard)),
        ("nobody", None),
    ];
    let paid_as = |model: &str, payee: &Option<Payee>| Odd { payee: payee.clone(), ..Odd::new(model) };
    let builder = arms
        .iter()
        .fold(AbSplit::builder("cost"), |builder, (label, payee)| builder.with_arm(*label, 1, paid_as(label, payee)));
    let split = builder.build().expect("valid");
    let costs = |prices: &[Price]| {
        split.stats().arms.iter().map(|arm| arm.cost_at(prices).map(|cost| cost.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(costs(&[]), vec![Some("$0.00".to_owned()); 5], "nothing was done");
    for space in split.spaces() {
        // Two tokens.
        split.embed(Batch::documents(&["8 bytes."]).with_space(space.id())).await.expect("embeds");
    }
    let shown = |costs: [Option<&str>; 5]| costs.map(|cost| cost.map(str::to_owned)).to_vec();
    let by_table = [Some("$0.00000004"), Some("$0.00000002"), Some("$0.00"), None, None];
    assert_eq!(costs(&[]), shown(by_table));
    let own = [("text-embedding-3-small", "1"), ("text-embedding-9", "2")]
        .map(|(model, dollars)| Price::per_million("openai", model, dollars).expect("a price"));
    // A price of one's own without a batch price says nothing of batch jobs.
    assert_eq!(costs(&own), shown([Some("$0.000002"), None, Some("$0.00"), Some("$0.000004"), None]));

    let split = of(paid_as("one", &arms[0].1), fake("other")).with_keyless_arm("hosted").build();
    let split = split.expect("valid");
    split.embed(Batch::documents(&["8 bytes."])).await.expect("embeds");
    let arm = |split: &AbSplit| split.stats().arms.swap_remove(0);
    assert_eq!(arm(&split).cost(), Some(docvector_embed::price::PicoDollars::from_picos(40_000)));
    assert!(split.stats().to_string().lines().nth(1).is_some_and(|row| row.ends_with("  $0.00000004")));
}

#[tokio::test]
async fn a_cost_without_all_answers_is_a_lower_bound() {
    let twin = fake("twin");
    let payee = Payee::new("openai", "text-embedding-3-small", Tier::Standard);
    let split = of(twin.clone(), fake("other")).with_keyless_arm("hosted").build().expect("valid");
    let batch = Batch::documents(&["a text"]);
    let fails =
        |usage| twin.fail_next(Error::new(ErrorKind::Unavailable, "as scripted").with_payee(&payee).with_usage(usage));
    let price = Price::per_million("fake", "twin", "1").expect("a price");
    let cost = || split.stats().arms[0].cost_at(std::slice::from_ref(&price)).map(|cost| cost.to_string());
    split.embed(batch).await.expect("embeds");
    assert_eq!(cost().as_deref(), Some("$0.000002"));
    fails(Usage::of_unanswered());
    split.embed(batch).await.expect_err("as scripted");
    assert_eq!(cost().as_deref(), Some("$0.000002"));
    fails(Usage::of_request(None));
    split.embed(batch).await.expect_err("as scripted");
    assert_eq!(cost(), None, "a reply did not report its tokens");
    assert!(split.stats().to_string().contains(" >= 2 "));
}

#[test]
fn what_makes_no_split_is_refused() {
    let build = |arms: &[(&str, u32)]| {
        let builder = AbSplit::builder("salt");
        arms.iter().fold(builder, |builder, &(label, share)| builder.with_arm(label, share, fake("a"))).build()
    };
    for (arms, what) in [
        (&[][..], "a split of 0 arms"),
        (&[("a", 1)], "a split of 1 arms"),
        (&[("a", 1), ("", 1)], "the label \"\""),
        (&[("a", 1), (" ", 1)], "the label \" \""),
        (&[("a", 1), ("b\nc", 1)], "in one line"),
        (&[("a", 1), ("b", 1), ("a", 1)], "two arms have the label \"a\""),
        (&[("a", 0), ("b", 0)], "all shares are 0"),
    ] {
        let error = build(arms).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(what) && !error.to_string().contains('\n'), "{what}: {error}");
    }
    let unknown = of(fake("a"), fake("b")).with_keyless_arm("openai").build().expect_err("no such arm");
    assert!(unknown.to_string().contains("no arm has the label \"openai\": there are hosted, own"), "{unknown}");
    let (_, across) = split([1, 1]);
    let nested = of(across, fake("c")).build().expect_err("two spaces");
    assert_eq!(nested.kind(), ErrorKind::Config);
    assert!(nested.to_string().contains("\"hosted\" (AbSplit(hosted: fake, own: fake)) lies in 2 spaces"), "{nested}");
    // A split in one space is an arm like others.
    let twins = of(fake("a"), fake("a")).build().expect("one space");
    assert_eq!(of(twins, fake("b")).build().expect("two spaces").spaces().len(), 2);
}

#[test]
fn shares_change_as_a_whole_or_not_at_all() {
    let split = of(fake("a"), fake("b")).with_arm("third", 0, fake("c")).build().expect("valid");
    assert_eq!(split.shares(), [("hosted", 1), ("own", 1), ("third", 0)]);
    let clone = split.clone();
    split.set_shares(&[("third", 5), ("hosted", 0)]).expect("arms of the split");
    assert_eq!(clone.shares(), [("hosted", 0), ("own", 1), ("third", 5)]);
    split.set_shares(&[]).expect("nothing to do");
    for (shares, what) in [
        (&[("own", 7), ("openai", 1)][..], "no arm has the label \"openai\""),
        (&[("own", 7), ("own", 8)], "two shares for the arm \"own\""),
        (&[("own", 0), ("third", 0)], "all shares are 0"),
    ] {
        let error = split.set_shares(shares).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(split.shares(), [("hosted", 0), ("own", 1), ("third", 5)]);
    }
}

#[test]
fn shows_its_arms_by_label() {
    let [a, b] = [fake("a"), fake("b")];
    let split = of(a.clone().dedup(), b).build().expect("valid");
    assert_eq!(split.to_string(), "AbSplit(hosted: Dedup(fake), own: fake)");
    let shown = format!("{split:?}");
    assert!(
        shown.starts_with("AbSplit { hosted: (1, Dedup") && shown.contains("own: (1, Fake") && !shown.contains("salt"),
        "{shown}"
    );
    assert_eq!(split.arm("hosted").map(|arm| arm.to_string()).as_deref(), Some("Dedup(fake)"));
    assert!(split.arm("c").is_none());
}

#[test]
fn the_limits_fit_every_arm() {
    let limited = |model: &str, limits| Fake::builder().with_model(model).with_limits(limits).build().expect("valid");
    let hosted =
        limited("hosted", Limits::none().with_texts(2048).with_tokens_per_text(8000).with_tokens_per_call(300_000));
    let own = limited("own", Limits::none().with_tokens_per_text(500).with_in_flight(2));
    let split = of(hosted.clone(), own.clone()).build().expect("valid");
    let (have, both) = (split.limits(), hosted.limits().combine(&own.limits()));
    assert_eq!(
        (have.texts, have.tokens_per_text, have.tokens_per_call, have.in_flight),
        (Some(2048), Some(500), both.tokens_per_call, Some(2))
    );
    // Counts stay with a batch as long as the counter is the same object.
    assert_eq!(split.limits(), have);
}

#[tokio::test]
async fn an_over_long_text_is_refused_or_truncated_whatever_its_arm() {
    let limited = |model: &str, tokens| {
        Fake::builder()
            .with_model(model)
            .with_limits(Limits::none().with_tokens_per_text(tokens))
            .build()
            .expect("valid")
    };
    let split = of(limited("hosted", 100), limited("own", 10)).build().expect("valid");
    let long = "long".repeat(20);
    for arm in ["hosted", "own"] {
        let key = key_of(&split, arm);
        let texts = ["short", long.as_str()];
        let batch = Batch::documents(&texts).with_key(&key);
        let error = split.embed(batch).await.expect_err("over the smaller limit");
        assert_eq!(error.bad_texts().iter().map(|bad| bad.index).collect::<Vec<_>>(), [1]);
        let rows = split.embed(batch.with_truncation(Truncation::Truncate)).await.expect("truncated where it must be");
        assert_eq!(rows.truncated().len(), usize::from(arm == "own"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shares_change_under_calls() {
    let fakes = ["hosted", "own"].map(|model| {
        let fake = Fake::builder().with_model(model).with_dimensions(4).without_log();
        fake.build().expect("valid")
    });
    let [hosted, own] = fakes.clone();
    let split = with(of(hosted, own).build().expect("valid"), [100, 0]);
    let done = Arc::new(AtomicBool::new(false));
    let changes = tokio::spawn({
        let (split, done) = (split.clone(), done.clone());
        async move {
            let mut percent = 0;
            while !done.load(Ordering::Relaxed) {
                percent = (percent + 7) % 101;
                split.set_shares(&[("hosted", 100 - percent), ("own", percent)]).expect("arms of the split");
                assert_eq!(split.shares().iter().map(|(_, share)| share).sum::<u32>(), 100);
                tokio::task::yield_now().await;
            }
        }
    });
    let callers = (0..4).map(|caller| {
        let (split, fakes) = (split.clone(), fakes.clone());
        tokio::spawn(async move {
            let mut charges = Charges::NONE;
            for i in 0..500 {
                let key = format!("key:{}", (caller * 500 + i) % 64);
                assert_eq!(split.shares().iter().map(|(_, share)| share).sum::<u32>(), 100, "of one moment");
                let texts = [key.as_str(), "a text"];
                let rows = split.embed(Batch::documents(&texts).with_key(&key)).await.expect("embeds");
                let arm = fakes.iter().find(|fake| fake.spaces()[0] == *rows.space()).expect("the space of an arm");
                for (text, row) in texts.iter().zip(rows.rows()) {
                    assert_eq!(row, arm.vector_of(InputKind::Document, text));
                }
                charges += rows.charges();
            }
            charges
        })
    });
    let mut told = Charges::NONE;
    for charges in join_all(callers).await {
        told += &charges.expect("no panic");
    }
    done.store(true, Ordering::Relaxed);
    changes.await.expect("no panic");
    let stats = split.stats();
    let mut counted = Charges::NONE;
    stats.arms.iter().for_each(|arm| counted += &arm.totals.charges);
    assert_eq!(counted, told);
    assert_eq!(stats.arms.iter().map(|arm| arm.totals.calls).sum::<u64>(), 2000);
    for (arm, fake) in stats.arms.iter().zip(&fakes) {
        assert_eq!(arm.totals.usage, fake.charged());
    }
}
