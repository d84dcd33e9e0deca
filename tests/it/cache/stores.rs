//! The stores keep the laws, and the suite fails stores that break one, naming that law.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use docvector_embed::{
    Error, ErrorKind, Result, SpaceId, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink, Tiered},
    conformance,
};

/// A key as uniform as those of `Cached`.
pub(super) fn key(number: u64) -> Key {
    Key::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What is found at each place.
pub(super) async fn try_find(store: &dyn CacheStore, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut found: Vec<Option<Vec<u8>>> = vec![None; keys.len()];
    let mut sink = |place: usize, value: &[u8]| {
        let before = found[place].replace(value.to_vec());
        assert!(before.is_none(), "place {place} was handed over twice");
    };
    store.get(keys, &mut sink).await?;
    Ok(found)
}

pub(super) async fn find(store: &dyn CacheStore, keys: &[Key]) -> Vec<Option<Vec<u8>>> {
    try_find(store, keys).await.expect("the lookup succeeds")
}

/// What is found under one key.
pub(super) async fn find_one(store: &dyn CacheStore, key: Key) -> Option<Vec<u8>> {
    find(store, &[key]).await.remove(0)
}

pub(super) async fn put_one(store: &dyn CacheStore, key: Key, value: &[u8]) {
    store.put(&[Entry::new(key, value)]).await.expect("the put succeeds");
}

fn memory() -> Memory {
    Memory::new(64 << 20)
}

#[tokio::test]
async fn memory_passes() {
    conformance::store(memory).await.expect("with a bound");
    conformance::store(Memory::unbounded).await.expect("without a bound");
}

#[tokio::test]
async fn tiers_pass() {
    conformance::store(|| Tiered::new(memory(), memory())).await.expect("two tiers");
    conformance::store(|| Tiered::new(Memory::new(20_000), memory())).await.expect("the fast one is small");
    conformance::store(|| Tiered::new(Memory::new(0), memory())).await.expect("the fast one keeps nothing");
    conformance::store(|| Tiered::new(memory(), Tiered::new(memory(), memory()))).await.expect("three tiers");
    conformance::store(|| Tiered::new(Tiered::new(memory(), memory()), memory())).await.expect("the other way");
}

#[tokio::test]
async fn pointers_pass() {
    conformance::store(|| Arc::new(memory())).await.expect("Arc keeps the laws");
    conformance::store(|| Box::new(memory())).await.expect("Box keeps the laws");
    conformance::store(|| Box::new(memory()) as Box<dyn CacheStore>).await.expect("Box of any store keeps the laws");
    conformance::store(|| Tiered::new(Arc::new(memory()) as Arc<dyn CacheStore>, Box::new(memory())))
        .await
        .expect("tiers of pointers keep the laws");
}

#[tokio::test]
async fn a_store_that_is_kept_passes_again() {
    let kept = memory();
    for round in 0..3 {
        conformance::store(|| kept.clone()).await.unwrap_or_else(|violation| panic!("round {round}: {violation}"));
    }
}

/// How a store breaks a law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    LosesAll,
    LosesTheLast,
    FindsAll,
    LooksAtHalfTheKey,
    LooksAtAllBitsButOne,
    LastWins,
    LastWinsWithinAPut,
    TakesEmptyForAbsent,
    RefusesKnownKeys,
    SkipsAllForAKnownKey,
    LooksBeforeItWrites,
    RefusesNoKeys,
    RefusesNoEntries,
    FindsSomethingForNothing,
    ForgetsForNothing,
    LosesEmpty,
    CutsAtNul,
    CutsAt64KiB,
    TakesTextOnly,
    WritesInHalves,
    GetsStuck,
    GetsStuckInGet,
    LeavesHalves,
    LeavesClaims,
    HandsTwice,
    HandsRepeatedKeysOnce,
    HandsInTheOtherOrder,
    HandsAmongTheFound,
    HandsTheNextPlace,
    FindsFew,
    TakesFew,
    KeepsOneNote,
    NotesOverEntries,
    NameOfTwoLines,
    CannotFlush,
    FlushesAway,
    KeepsDiscarded,
    DiscardsAll,
    DiscardsOne,
    DiscardsWhateverIsThere,
    DiscardsBeginnings,
    LeavesNothing,
    RefusesAbsentDiscards,
}

/// A store that breaks one law.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    entries: Mutex<BTreeMap<Key, Vec<u8>>>,
    /// Keys that a call is working on. If the call was dropped, they stay here.
    claims: Mutex<BTreeSet<Key>>,
    notes: AtomicUsize,
    stuck: AtomicBool,
    /// For the store that shows no entry while it works on it.
    alone: tokio::sync::Mutex<()>,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            entries: Mutex::default(),
            claims: Mutex::default(),
            notes: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
            alone: tokio::sync::Mutex::default(),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Fails if this is the fault and it applies.
    fn fails(&self, fault: Fault, applies: bool) -> Result<()> {
        if self.is(fault) && applies { Err(Error::new(ErrorKind::Cache, "as broken")) } else { Ok(()) }
    }

    /// The key as this store sees it.
    fn seen(&self, key: Key) -> Key {
        let mut bytes = *key.as_bytes();
        match self.fault {
            Fault::LooksAtHalfTheKey => bytes[16..].fill(0),
            Fault::LooksAtAllBitsButOne => bytes[31] &= 0x7f,
            _ => {}
        }
        Key::from_bytes(bytes)
    }

    /// The value as this store keeps it.
    fn kept<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        match self.fault {
            Fault::LosesAll => None,
            Fault::LosesEmpty if value.is_empty() => None,
            Fault::CutsAtNul => value.split(|&byte| byte == 0).next(),
            Fault::CutsAt64KiB => Some(&value[..value.len().min(65_535)]),
            _ => Some(value),
        }
    }

    fn has(&self, key: Key) -> bool {
        self.entries.lock().expect("nobody panicked").contains_key(&key)
    }

    fn insert(&self, key: Key, value: &[u8]) {
        self.entries.lock().expect("nobody panicked").insert(key, value.to_vec());
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)?;
        if self.is(Fault::NameOfTwoLines) { f.write_str("\nof two lines") } else { Ok(()) }
    }
}

/// Marks its store as stuck if the call is dropped.
struct Stuck<'a>(&'a AtomicBool);

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl CacheStore for Broken {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.fails(Fault::GetsStuckInGet, self.stuck.load(Ordering::Relaxed))?;
        self.fails(Fault::RefusesNoKeys, keys.is_empty())?;
        if self.is(Fault::FindsSomethingForNothing) && keys.is_empty() {
            sink(0, b"something");
        }
        if self.is(Fault::GetsStuckInGet) {
            let stuck = Stuck(&self.stuck);
            tokio::task::yield_now().await;
            std::mem::forget(stuck);
        }
        let _alone = self.alone.lock().await;
        let entries = self.entries.lock().expect("nobody panicked");
        let most = if self.is(Fault::FindsFew) { 1_000 } else { usize::MAX };
        let mut hits = 0;
        for (place, &key) in keys.iter().enumerate().take(most) {
            let Some(value) = entries.get(&self.seen(key)) else {
                if self.is(Fault::FindsAll) {
                    sink(place, b"");
                }
                continue;
            };
            match self.fault {
                Fault::HandsTwice => {
                    sink(place, value);
                    sink(place, value);
                }
                Fault::HandsRepeatedKeysOnce if keys[..place].contains(&key) => {}
                Fault::HandsInTheOtherOrder => sink(keys.len() - 1 - place, value),
                Fault::HandsAmongTheFound => sink(hits, value),
                Fault::HandsTheNextPlace => sink(place + 1, value),
                _ => sink(place, value),
            }
            hits += 1;
        }
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.fails(Fault::GetsStuck, self.stuck.load(Ordering::Relaxed))?;
        self.fails(Fault::RefusesNoEntries, entries.is_empty())?;
        self.fails(Fault::TakesFew, entries.len() > 1_000)?;
        if self.is(Fault::ForgetsForNothing) && entries.is_empty() {
            self.entries.lock().expect("nobody panicked").clear();
        }
        // The entries to be written: the first of each key that is not there.
        let mut new: Vec<(Key, &[u8])> = Vec::new();
        let mut known = false;
        for entry in entries {
            self.fails(Fault::TakesTextOnly, std::str::from_utf8(entry.value).is_err())?;
            let (key, Some(value)) = (self.seen(entry.key), self.kept(entry.value)) else { continue };
            let again = new.iter().position(|(other, _)| *other == key);
            match again {
                Some(at) if self.is(Fault::LastWinsWithinAPut) || self.is(Fault::LastWins) => new[at].1 = value,
                Some(_) => {}
                None if self.has(key) && !self.is(Fault::LastWins) => {
                    known = true;
                    let held = self.entries.lock().expect("nobody panicked").get(&key).is_some_and(Vec::is_empty);
                    if self.is(Fault::TakesEmptyForAbsent) && held {
                        new.push((key, value));
                    }
                }
                None => new.push((key, value)),
            }
        }
        self.fails(Fault::RefusesKnownKeys, known)?;
        match self.fault {
            Fault::SkipsAllForAKnownKey if known => return Ok(()),
            Fault::LosesTheLast if new.len() > 1 => {
                new.pop();
            }
            Fault::LooksBeforeItWrites => tokio::task::yield_now().await,
            Fault::GetsStuck => {
                let stuck = Stuck(&self.stuck);
                tokio::task::yield_now().await;
                std::mem::forget(stuck);
                // Other calls may have come first meanwhile.
                new.retain(|(key, _)| !self.has(*key));
            }
            Fault::WritesInHalves => {
                new.iter().for_each(|(key, value)| self.insert(*key, &value[..value.len() / 2]));
                tokio::task::yield_now().await;
            }
            Fault::LeavesHalves => {
                let _alone = self.alone.lock().await;
                // Other calls may have come first while this one waited.
                new.retain(|(key, _)| !self.has(*key));
                new.iter().for_each(|(key, value)| self.insert(*key, &value[..value.len() / 2]));
                tokio::task::yield_now().await;
                new.iter().for_each(|(key, value)| self.insert(*key, value));
                return Ok(());
            }
            Fault::LeavesClaims => {
                let alone = self.alone.lock().await;
                new.retain(|(key, _)| !self.has(*key) && self.claims.lock().expect("nobody panicked").insert(*key));
                tokio::task::yield_now().await;
                drop(alone);
            }
            _ => {}
        }
        new.iter().for_each(|(key, value)| self.insert(*key, value));
        Ok(())
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.fails(Fault::RefusesAbsentDiscards, damaged.iter().any(|entry| !self.has(entry.key)))?;
        if self.is(Fault::KeepsDiscarded) {
            return Ok(());
        }
        if self.is(Fault::DiscardsAll) {
            self.entries.lock().expect("nobody panicked").clear();
        }
        for entry in damaged {
            let mut entries = self.entries.lock().expect("nobody panicked");
            let same = entries.get(&entry.key).is_some_and(|value| match self.fault {
                Fault::DiscardsWhateverIsThere => true,
                Fault::DiscardsBeginnings => entry.value.starts_with(value),
                _ => value == entry.value,
            });
            if same && self.is(Fault::LeavesNothing) {
                entries.insert(entry.key, Vec::new());
            } else if same {
                entries.remove(&entry.key);
            }
            if same && self.is(Fault::DiscardsOne) {
                break;
            }
        }
        Ok(())
    }

    async fn note(&self, _: SpaceId, _: &str) -> Result<()> {
        self.fails(Fault::KeepsOneNote, self.notes.fetch_add(1, Ordering::Relaxed) > 0)?;
        if self.is(Fault::NotesOverEntries) {
            self.entries.lock().expect("nobody panicked").pop_first();
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        self.fails(Fault::CannotFlush, true)?;
        if self.is(Fault::FlushesAway) {
            self.entries.lock().expect("nobody panicked").clear();
        }
        Ok(())
    }
}

#[tokio::test]
async fn broken_stores_fail_the_law_they_break() {
    conformance::store(|| Broken::new(Fault::None)).await.expect("unbroken, it keeps the laws");
    for (fault, law) in [
        (Fault::LosesAll, 1),
        (Fault::LosesTheLast, 1),
        (Fault::FindsAll, 1),
        (Fault::LooksAtHalfTheKey, 1),
        (Fault::LooksAtAllBitsButOne, 1),
        (Fault::LastWins, 2),
        (Fault::LastWinsWithinAPut, 2),
        (Fault::TakesEmptyForAbsent, 2),
        (Fault::RefusesKnownKeys, 2),
        (Fault::SkipsAllForAKnownKey, 2),
        (Fault::LooksBeforeItWrites, 2),
        (Fault::RefusesNoKeys, 3),
        (Fault::RefusesNoEntries, 3),
        (Fault::FindsSomethingForNothing, 3),
        (Fault::ForgetsForNothing, 3),
        (Fault::LosesEmpty, 4),
        (Fault::CutsAtNul, 4),
        (Fault::CutsAt64KiB, 4),
        (Fault::TakesTextOnly, 4),
        (Fault::WritesInHalves, 5),
        (Fault::GetsStuck, 6),
        (Fault::GetsStuckInGet, 6),
        (Fault::LeavesHalves, 6),
        (Fault::LeavesClaims, 6),
        (Fault::HandsTwice, 7),
        (Fault::HandsRepeatedKeysOnce, 7),
        (Fault::HandsInTheOtherOrder, 7),
        (Fault::HandsAmongTheFound, 7),
        (Fault::HandsTheNextPlace, 7),
        (Fault::FindsFew, 8),
        (Fault::TakesFew, 8),
        (Fault::KeepsOneNote, 9),
        (Fault::NotesOverEntries, 9),
        (Fault::NameOfTwoLines, 9),
        (Fault::CannotFlush, 9),
        (Fault::FlushesAway, 9),
        (Fault::KeepsDiscarded, 10),
        (Fault::DiscardsAll, 10),
        (Fault::DiscardsOne, 10),
        (Fault::DiscardsWhateverIsThere, 10),
        (Fault::DiscardsBeginnings, 10),
        (Fault::LeavesNothing, 10),
        (Fault::RefusesAbsentDiscards, 10),
    ] {
        let result = conformance::store(|| Broken::new(fault)).await;
        let violation = result.expect_err(&format!("{fault:?} passed"));
        assert_eq!(violation.law, law, "{violation}");
        assert!(violation.embedder.starts_with(&format!("{fault:?}")), "{violation}");
    }
}

#[tokio::test]
async fn a_violation_says_what_was_done_and_what_is_wrong() {
    let violation =
        |fault| async move { conformance::store(|| Broken::new(fault)).await.expect_err("broken").to_string() };
    let expected = "LastWins breaks law 2: put first of four by one call, a value of 20 bytes comes back with 0 bytes";
    assert_eq!(violation(Fault::LastWins).await, expected);
    let expected = "HandsTwice breaks law 7: place 0 of 1 is handed over twice";
    assert_eq!(violation(Fault::HandsTwice).await, expected);
}
