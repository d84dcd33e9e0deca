//! `Tiered`: what the fast store gets and when, which store is asked, and what a failure of each store costs.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex},
};

use docvector_embed::{
    Error, ErrorKind, Result, SpaceId, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink, Tiered},
    conformance,
};
use futures_util::future::join_all;
use proptest::prelude::*;

use super::stores::{find, find_one, key, put_one, try_find};
use crate::support::warnings::warnings_of;

/// A store that records its calls, and fails those that it is told to fail.
#[derive(Clone, Debug)]
struct Watched(Arc<State>);

#[derive(Debug)]
struct State {
    inner: Memory,
    /// The calls that fail: `get`, `put`, `note`, `flush`; and `half`: a `get` that fails half-way.
    failing: Mutex<BTreeSet<&'static str>>,
    /// The calls, and how many keys or entries each had.
    calls: Mutex<Vec<(&'static str, usize)>>,
}

impl Watched {
    fn new() -> Self {
        Self(Arc::new(State { inner: Memory::unbounded(), failing: Mutex::default(), calls: Mutex::default() }))
    }

    fn failing(calls: &[&'static str]) -> Self {
        let store = Self::new();
        store.fail(calls);
        store
    }

    /// Makes these calls fail from now on, and no others.
    fn fail(&self, calls: &[&'static str]) {
        *self.0.failing.lock().expect("nobody panicked") = calls.iter().copied().collect();
    }

    /// Returns the calls since this was called last.
    fn calls(&self) -> Vec<(&'static str, usize)> {
        std::mem::take(&mut *self.0.calls.lock().expect("nobody panicked"))
    }

    fn fails(&self, call: &'static str) -> Result<()> {
        let failing = self.0.failing.lock().expect("nobody panicked").contains(call);
        if failing { Err(Error::new(ErrorKind::Cache, "as told")) } else { Ok(()) }
    }

    fn begin(&self, call: &'static str, count: usize) -> Result<()> {
        self.0.calls.lock().expect("nobody panicked").push((call, count));
        self.fails(call)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait]
impl CacheStore for Watched {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.begin("get", keys.len())?;
        let half = self.fails("half");
        self.0.inner.get(if half.is_ok() { keys } else { &keys[..keys.len() / 2] }, sink).await?;
        half
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.begin("put", entries.len())?;
        self.0.inner.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.begin("discard", damaged.len())?;
        self.0.inner.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.begin("note", 1)?;
        self.0.inner.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        self.begin("flush", 0)
    }
}

fn tiers() -> (Watched, Watched, Tiered<Watched, Watched>) {
    let (fast, slow) = (Watched::new(), Watched::new());
    (fast.clone(), slow.clone(), Tiered::new(fast, slow))
}

fn forget_calls(stores: &[&Watched]) {
    stores.iter().for_each(|store| drop(store.calls()));
}

/// The value that these tests put under `key(number)`.
fn value(number: u64) -> Vec<u8> {
    format!("the value of {number}").into_bytes()
}

async fn put_numbers(store: &dyn CacheStore, numbers: &[u64]) {
    let values: Vec<(Key, Vec<u8>)> = numbers.iter().map(|&number| (key(number), value(number))).collect();
    let entries: Vec<Entry<'_>> = values.iter().map(|(key, value)| Entry::new(*key, value)).collect();
    store.put(&entries).await.expect("the put succeeds");
}

fn keys(numbers: &[u64]) -> Vec<Key> {
    numbers.iter().copied().map(key).collect()
}

const SPACE: SpaceId = SpaceId::from_bytes([1; 16]);

#[tokio::test]
async fn what_is_asked_for_comes_near_and_is_asked_for_once() {
    let (fast, slow, store) = tiers();
    put_numbers(&store, &[0, 1, 2, 3]).await;
    assert_eq!((fast.calls(), slow.calls()), (vec![], vec![("put", 4)]));

    assert_eq!(find(&store, &keys(&[0, 1])).await, [Some(value(0)), Some(value(1))]);
    assert_eq!((fast.calls(), slow.calls()), (vec![("get", 2), ("put", 2)], vec![("get", 2)]));

    // Keys in the fast store, in the slow one, unknown and repeated, in one call: each value comes to its place.
    let mixed = [3, 77, 0, 0, 2, 1, 3, 77];
    let expected = mixed.map(|number| (number < 4).then(|| value(number)));
    assert_eq!(find(&store, &keys(&mixed)).await, expected);
    assert_eq!((fast.calls(), slow.calls()), (vec![("get", 8), ("put", 3)], vec![("get", 5)]));

    // The second time, only the unknown key is asked for.
    assert_eq!(find(&store, &keys(&mixed)).await, expected);
    assert_eq!((fast.calls(), slow.calls()), (vec![("get", 8)], vec![("get", 2)]));
    assert_eq!(find(&store, &keys(&[3, 2, 1, 0])).await, [3, 2, 1, 0].map(|number| Some(value(number))));
    assert_eq!((fast.calls(), slow.calls()), (vec![("get", 4)], vec![]));
}

#[tokio::test]
async fn nothing_is_asked_of_nobody() {
    let (fast, slow, store) = tiers();
    assert!(find(&store, &[]).await.is_empty());
    assert_eq!((fast.calls(), slow.calls()), (vec![], vec![]));
}

#[tokio::test]
async fn tiers_nest() {
    let [near, middle, far] = [(); 3].map(|()| Memory::unbounded());
    let store = Tiered::new(near.clone(), Tiered::new(middle.clone(), far.clone()));
    assert_eq!(store.to_string(), "Tiered(memory, Tiered(memory, memory))");
    put_one(&store, key(1), b"value").await;
    assert_eq!([near.len(), middle.len(), far.len()], [0, 0, 1]);
    assert!(find_one(&store, key(1)).await.is_some());
    assert_eq!([near.len(), middle.len(), far.len()], [1, 1, 1]);
    assert_eq!((store.fast().len(), store.slow().slow().len()), (1, 1));
    let (_, rest) = store.into_parts();
    assert_eq!(rest.to_string(), "Tiered(memory, memory)");
}

#[tokio::test]
async fn notes_and_flushes_go_to_both() {
    let (fast, slow, store) = tiers();
    store.note(SPACE, "a model").await.expect("both keep it");
    store.flush().await.expect("both flush");
    for (name, watched) in [("fast", fast), ("slow", slow)] {
        assert_eq!(watched.calls(), [("note", 1), ("flush", 0)], "{name}");
        assert_eq!(watched.0.inner.notes(), [(SPACE, "a model".to_owned())], "{name}");
    }
}

/// Runs a future; returns the warnings that it logged.
fn warnings(run: impl Future<Output = ()>) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(warnings_of(run)).1
}

#[test]
fn a_failing_fast_store_costs_a_warning_and_never_an_answer() {
    let (fast, slow, store) = tiers();
    let lines = warnings(async {
        put_numbers(&store, &[0, 1]).await;
        assert!(find_one(&store, key(0)).await.is_some());
        store.flush().await.expect("flushes");
    });
    assert!(lines.is_empty(), "nothing has failed: {lines:?}");

    forget_calls(&[&fast, &slow]);
    fast.fail(&["get"]);
    let lines = warnings(async {
        assert_eq!(find(&store, &keys(&[1, 0])).await, [Some(value(1)), Some(value(0))]);
    });
    // A fast store that cannot be read is not written to either.
    assert_eq!((fast.calls(), slow.calls()), (vec![("get", 2)], vec![("get", 2)]));
    let expected = "the fast cache store could not be read: the slow one is asked for what it did not give";
    assert!(matches!(&lines[..], [line] if line.contains("WARN") && line.contains(expected)), "{lines:?}");
    assert!(lines[0].contains("store=watched") && lines[0].contains("as told"), "{lines:?}");

    fast.fail(&["put"]);
    for _ in 0..2 {
        let lines = warnings(async {
            assert_eq!(find(&store, &keys(&[1, 0])).await, [Some(value(1)), Some(value(0))]);
        });
        assert_eq!((fast.calls(), slow.calls()), (vec![("get", 2), ("put", 1)], vec![("get", 1)]));
        assert!(matches!(&lines[..], [line] if line.contains("could not be written")), "{lines:?}");
    }

    fast.fail(&["note", "flush"]);
    let lines = warnings(async {
        store.note(SPACE, "a model").await.expect("the slow one keeps it");
        store.flush().await.expect("the slow one flushes");
    });
    assert_eq!(slow.calls(), [("note", 1), ("flush", 0)]);
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[tokio::test]
async fn before_a_failing_store_all_laws_hold() {
    for failing in [&["get", "put", "note", "flush"][..], &["get"][..], &["put"][..]] {
        let result = conformance::store(|| Tiered::new(Watched::failing(failing), Memory::unbounded())).await;
        result.unwrap_or_else(|violation| panic!("{failing:?}: {violation}"));
    }
}

#[tokio::test]
async fn what_a_fast_store_gave_before_it_failed_is_not_given_again() {
    let (fast, slow, store) = tiers();
    put_numbers(&store, &[0, 1, 2, 3]).await;
    find(&store, &keys(&[0, 1, 2, 3])).await;
    forget_calls(&[&fast, &slow]);
    fast.fail(&["half"]);
    assert_eq!(find(&store, &keys(&[0, 1, 2, 3])).await, [0, 1, 2, 3].map(|number| Some(value(number))));
    assert_eq!((fast.calls(), slow.calls()), (vec![("get", 4)], vec![("get", 2)]));
}

/// A store that hands over each value twice, and places that were not asked for.
#[derive(Debug)]
struct Chatty(Memory);

impl fmt::Display for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("chatty")
    }
}

#[async_trait]
impl CacheStore for Chatty {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.0.get(keys, sink).await?;
        self.0.get(keys, sink).await?;
        sink(keys.len(), b"too far");
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.0.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.0.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.0.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }
}

#[tokio::test]
async fn a_fast_store_that_breaks_the_law_of_places_does_no_harm() {
    conformance::store(|| Tiered::new(Chatty(Memory::unbounded()), Memory::unbounded())).await.expect("lawful");
}

#[tokio::test]
async fn failures_of_the_slow_store_are_errors() {
    let (fast, slow, store) = tiers();
    put_numbers(&store, &[0, 1]).await;
    find_one(&store, key(0)).await;
    forget_calls(&[&fast, &slow]);
    slow.fail(&["get", "put", "note", "flush"]);

    let failed = store.put(&[Entry::new(key(2), b"value")]).await.expect_err("it is not durable");
    assert_eq!(failed.kind(), ErrorKind::Cache);
    assert!(fast.calls().is_empty(), "what the slow one does not have does not come near");
    store.note(SPACE, "a model").await.expect_err("the slow one does not keep it");
    store.flush().await.expect_err("the slow one does not flush");
    assert_eq!(fast.calls(), [("note", 1), ("flush", 0)]);

    // Keys in the fast store do not need the slow one. With others, the call is an error after it gave those.
    assert_eq!(find_one(&store, key(0)).await, Some(value(0)));
    let mut given = Vec::new();
    let mut sink = |place: usize, value: &[u8]| given.push((place, value.to_vec()));
    store.get(&keys(&[1, 0]), &mut sink).await.expect_err("the slow one fails");
    assert_eq!(given, [(1, value(0))]);
    try_find(&store, &keys(&[1])).await.expect_err("the slow one still fails");
}

#[tokio::test]
async fn what_a_slow_store_gave_before_it_failed_comes_near() {
    let (fast, slow, store) = tiers();
    put_numbers(&store, &[0, 1]).await;
    slow.fail(&["half"]);
    try_find(&store, &keys(&[0, 1])).await.expect_err("the slow one fails half-way");
    assert_eq!(find(&fast, &keys(&[0, 1])).await, [Some(value(0)), None]);
}

#[tokio::test]
async fn of_two_writers_the_first_is_in_front_of_both() {
    let (fast, slow) = ([Memory::unbounded(), Memory::unbounded()], Memory::unbounded());
    let [first, second] = [&fast[0], &fast[1]].map(|fast| Tiered::new(fast.clone(), slow.clone()));
    put_one(&first, key(1), b"first").await;
    // No error: the key is there, though with another value.
    put_one(&second, key(1), b"second").await;
    assert_eq!([fast[0].len(), fast[1].len()], [0, 0], "what is put does not come near");
    for store in [&second, &first] {
        assert_eq!(find_one(store, key(1)).await.as_deref(), Some(&b"first"[..]));
    }
    put_one(&second, key(1), b"second").await;
    for store in [&fast[0], &fast[1], &slow] {
        assert_eq!(find_one(store, key(1)).await.as_deref(), Some(&b"first"[..]));
    }
}

/// A store that waits before and after it does something, as a script says, so that other tasks come between.
#[derive(Clone, Debug)]
struct Late {
    inner: Memory,
    script: Arc<Mutex<VecDeque<(usize, usize)>>>,
}

impl Late {
    fn new(script: Vec<(usize, usize)>) -> Self {
        Self { inner: Memory::unbounded(), script: Arc::new(Mutex::new(script.into())) }
    }

    /// How long to wait, in turns of other tasks. Without a script, one turn.
    fn waits(&self) -> (usize, usize) {
        self.script.lock().expect("nobody panicked").pop_front().unwrap_or((1, 1))
    }
}

async fn wait(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("late")
    }
}

#[async_trait]
impl CacheStore for Late {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        let (before, after) = self.waits();
        wait(before).await;
        self.inner.get(keys, sink).await?;
        wait(after).await;
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        let (before, after) = self.waits();
        wait(before).await;
        self.inner.put(entries).await?;
        wait(after).await;
        Ok(())
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        wait(self.waits().0).await;
        self.inner.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.inner.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        wait(self.waits().0).await;
        Ok(())
    }
}

#[tokio::test]
async fn stores_that_take_their_time_pass() {
    let late = || Late::new(Vec::new());
    conformance::store(|| Tiered::new(Memory::unbounded(), late())).await.expect("the slow one");
    conformance::store(|| Tiered::new(late(), late())).await.expect("both");
}

/// One step of a writer: it puts a value of its own under one of a few keys, or looks it up.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u64),
    Get(u64),
}

proptest! {
    #[test]
    fn nobody_ever_sees_another_value_than_the_first(
        bounds in prop::array::uniform3(prop_oneof![Just(0_u64), 170_u64..1_500]),
        writers in prop::array::uniform3(prop::collection::vec(
            prop_oneof![(0_u64..5).prop_map(Step::Put), (0_u64..5).prop_map(Step::Get)],
            0..30,
        )),
        script in prop::collection::vec((0_usize..3, 0_usize..3), 0..90),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let slow = Late::new(script);
            let fast = bounds.map(Memory::new);
            let run = |writer: usize| {
                let store = Tiered::new(fast[writer].clone(), slow.clone());
                let steps = writers[writer].clone();
                async move {
                    let mut seen = Vec::new();
                    for (number, step) in steps.into_iter().enumerate() {
                        match step {
                            Step::Put(name) => put_one(&store, key(name), &[writer as u8, number as u8]).await,
                            Step::Get(name) => seen.push((name, find_one(&store, key(name)).await)),
                        }
                    }
                    seen
                }
            };
            let seen = join_all((0..3).map(run)).await;
            for name in 0..5 {
                let first = find_one(&slow.inner, key(name)).await;
                for fast in &fast {
                    let near = find_one(fast, key(name)).await;
                    prop_assert!(near.is_none() || near == first, "{:?} is near, {:?} is stored", near, first);
                }
                for (_, found) in seen.iter().flatten().filter(|(other, found)| *other == name && found.is_some()) {
                    prop_assert_eq!(found, &first);
                }
            }
            Ok(())
        })?;
    }
}
