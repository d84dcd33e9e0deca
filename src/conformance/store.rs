//! Checks a store for cached vectors, from outside.

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

use futures_util::future::{join_all, join3};

use super::{RUNS, Verdict, Violation};
use crate::{
    SpaceId,
    cache::{CacheStore, Entry, Key},
    planner::yield_once,
};

/// The size of a value like that of a vector of 768 components, in bytes.
const VECTOR_BYTES: usize = 3_088;

/// Sizes of values in bytes: none, a few, around the limits of lengths in one byte and in two, and a megabyte.
const VALUE_SIZES: [usize; 8] = [0, 1, 2, 255, 256, 65_535, 65_537, 1 << 20];

/// Checks that a store keeps the laws of [`CacheStore`], with one check per law or more. Use it for stores of your own.
/// `make` makes or opens a store for each check; the one before is dropped by then.
///
/// ```
/// use docvector_embed::{cache::Memory, conformance};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), conformance::Violation> {
/// conformance::store(|| Memory::new(64 << 20)).await?;
/// # Ok(()) }
/// ```
///
/// The store needs room for 64 MiB, so that it has no reason to forget anything. It may hold other entries, and keep
/// those of the checks: keys are new in each run. Values have up to 1 MiB, and calls up to 10,000 keys. Calls are
/// concurrent, but on one thread: a store with locks of its own also needs tests with threads.
///
/// # Errors
/// The first violation found. Its [`law`](Violation::law) is the number in the list of [`CacheStore`]; its
/// [`embedder`](Violation::embedder) is the `Display` of the store.
pub async fn store<S: CacheStore>(make: impl Fn() -> S + Send + Sync) -> Verdict {
    let check = |law| Check::new(law, make());
    // Each check relies on those before, so that a store which breaks a law fails the check of that law.
    check(1).found().await?;
    check(1).unknown().await?;
    check(4).values().await?;
    check(7).places().await?;
    check(1).neighbours().await?;
    check(2).first_of_one_put().await?;
    check(2).first_of_several_puts().await?;
    check(2).first_of_writers_at_once().await?;
    check(3).nothing().await?;
    check(8).number().await?;
    check(5).whole().await?;
    check(6).usable().await?;
    check(9).upkeep().await?;
    check(10).discard().await
}

/// A key and its value.
type Written = (Key, Vec<u8>);

/// The value found at each place.
type Found = Vec<Option<Vec<u8>>>;

/// One check: its law, its store, its keys and values, and its violations.
pub(super) struct Check<S> {
    law: u8,
    pub(super) store: S,
    seed: [u8; 32],
    made: AtomicU64,
}

impl<S: CacheStore> Check<S> {
    pub(super) fn new(law: u8, store: S) -> Self {
        // Keys differ between processes, too, because the store may be kept.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("process"));
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let seed = blake3::hash(&[PROCESS.to_le_bytes(), run.to_le_bytes()].concat());
        Self { law, store, seed: *seed.as_bytes(), made: AtomicU64::new(0) }
    }

    /// Law 1: values that were put are found. The values are letters; law 4 is about other bytes.
    async fn found(&self) -> Verdict {
        let text = || -> Vec<u8> { self.value(VECTOR_BYTES).into_iter().map(|byte| b'a' + byte % 16).collect() };
        let one = [(self.key(), text())];
        self.put(&one).await?;
        self.expect_alone("put alone", &one).await?;
        let several: Vec<Written> = (0..20).map(|_| (self.key(), text())).collect();
        self.put(&several).await?;
        self.expect_alone("put with others", &several).await?;
        self.expect_alone("looked up again", &one).await
    }

    /// Law 1: keys that were not put are not found, however close they are.
    async fn unknown(&self) -> Verdict {
        self.expect_none("before a put").await?;
        let known = self.key();
        self.put(&[(known, b"known".to_vec())]).await?;
        self.expect_none("after a put").await?;
        let found = self.get(&neighbours(known)).await?;
        match found.iter().position(Option::is_some) {
            Some(bit) => Err(self.violation(format!("a key is found that differs from the one put in bit {bit}"))),
            None => Ok(()),
        }
    }

    async fn expect_none(&self, what: &str) -> Verdict {
        let keys: Vec<Key> = (0..20).map(|_| self.key()).collect();
        for keys in [&keys[..1], &keys[..]] {
            let count = self.get(keys).await?.iter().flatten().count();
            self.expect(count == 0, || format!("{what}, {count} of {} keys are found that nobody put", keys.len()))?;
        }
        Ok(())
    }

    /// Law 4: any bytes are a value.
    async fn values(&self) -> Verdict {
        let mut written = Vec::new();
        for bytes in VALUE_SIZES {
            let text: Vec<u8> = b"'\"\\%\r\n;\xff\0".iter().copied().cycle().take(bytes).collect();
            for value in [self.value(bytes), vec![0; bytes], vec![0xff; bytes], text] {
                let entry = [(self.key(), value)];
                self.put(&entry).await?;
                self.expect_alone("put alone", &entry).await?;
                written.extend(entry);
            }
        }
        let mixed: Vec<Written> = VALUE_SIZES.iter().map(|&bytes| (self.key(), self.value(bytes))).collect();
        self.put(&mixed).await?;
        self.expect_alone("put with values of other sizes", &mixed).await?;
        self.expect_alone("looked up again", &written).await
    }

    /// Law 7: each place is handed over once, with the value of its key. Keys are asked for in any order, several
    /// times, among unknown ones.
    async fn places(&self) -> Verdict {
        let known = self.entries(8, 40);
        self.put(&known).await?;
        let mut keys: Vec<Key> = known.iter().map(|(key, _)| *key).collect();
        keys.extend((0..4).map(|_| self.key()));
        let random = self.value(300).into_iter().map(|byte| usize::from(byte) % keys.len());
        let orders: [(&str, Vec<usize>); 8] = [
            ("in the order in which they were put", (0..8).collect()),
            ("in the other order", (0..8).rev().collect()),
            ("twice each", (0..16).map(|at| at / 2).collect()),
            ("one many times", vec![3; 100]),
            ("after an unknown one", vec![8, 0, 1, 2]),
            ("before an unknown one", vec![0, 1, 2, 8]),
            ("between unknown ones", vec![8, 2, 9, 9, 0, 10, 7, 11]),
            ("in no order, known and unknown ones", random.collect()),
        ];
        for (what, order) in orders {
            let asked: Vec<Key> = order.iter().map(|&at| keys[at]).collect();
            let found = self.get(&asked).await?;
            for (place, (&at, found)) in order.iter().zip(&found).enumerate() {
                let wrong = match (known.get(at), found) {
                    (Some((_, value)), found) => difference(found.as_deref(), value),
                    (None, Some(_)) => Some("has the value of another key".into()),
                    (None, None) => None,
                };
                self.expect(wrong.is_none(), || {
                    format!("keys are asked for {what}: place {place} of {} {}", order.len(), wrong.unwrap_or_default())
                })?;
            }
        }
        Ok(())
    }

    /// Law 1: keys that differ in one bit have values of their own.
    async fn neighbours(&self) -> Verdict {
        let key = self.key();
        let keys = neighbours(key).into_iter().chain([key]);
        let entries: Vec<Written> = keys.map(|key| (key, self.value(24))).collect();
        self.put(&entries).await?;
        self.expect_found("put with 256 others whose keys differ in a bit or two", &entries).await
    }

    /// Law 2: if one put has several values for a key, the first stays.
    async fn first_of_one_put(&self) -> Verdict {
        let first = self.entries(3, 20);
        let later = |bytes| first.iter().map(|(key, _)| (*key, self.value(bytes))).collect::<Vec<Written>>();
        let all = [first.clone(), later(30), later(20), later(0)].concat();
        self.put(&all).await?;
        self.expect_found("put first of four by one call", &first).await
    }

    /// Law 2: the first value stays, whatever is put later. Entries that are put beside it are stored.
    async fn first_of_several_puts(&self) -> Verdict {
        for (first, later) in [(20, 20), (0, 20), (20, 0), (20, VECTOR_BYTES), (VECTOR_BYTES, 20)] {
            let entry = [(self.key(), self.value(first))];
            self.put(&entry).await?;
            for _ in 0..2 {
                self.put(&[(entry[0].0, self.value(later))]).await?;
                self.expect_found(&format!("put before one of {later} bytes"), &entry).await?;
            }
            self.put(&entry).await?;
            let new = self.entries(2, 20);
            self.put(&[new[0].clone(), (entry[0].0, self.value(later)), new[1].clone()]).await?;
            self.expect_found("put before others of its key", &entry).await?;
            self.expect_found("put beside a key that was there", &new).await?;
        }
        Ok(())
    }

    /// Law 2: of concurrent writers, one is first, and all see its value.
    async fn first_of_writers_at_once(&self) -> Verdict {
        let keys: Vec<Key> = (0..16).map(|_| self.key()).collect();
        let writer = |number: usize| {
            let entries = keys.iter().map(|key| (*key, self.value(100 + number)));
            let mut entries: Vec<Written> = entries.collect();
            // Stores that lock entries one by one must not deadlock.
            if number % 2 == 1 {
                entries.reverse();
            }
            entries
        };
        let writers: Vec<Vec<Written>> = (0..8).map(writer).collect();
        let seen = join_all(writers.iter().map(|entries| self.put_and_get(entries, &keys))).await;
        let last = self.get(&keys).await?;
        for seen in seen {
            for ((key, seen), last) in keys.iter().zip(seen?).zip(&last) {
                let Some(seen) = seen else {
                    return Err(self.breaks(1, "one of several writers does not find what it put".into()));
                };
                let mut written = writers.iter().flatten();
                if !written.any(|(other, value)| other == key && *value == seen) {
                    return Err(self.breaks(5, "among several writers, a value is found that nobody put".into()));
                }
                self.expect(last.as_ref() == Some(&seen), || {
                    "one of several writers found a value which is not the one that stayed".into()
                })?;
            }
        }
        Ok(())
    }

    /// Law 3: a call without keys or entries does nothing and is no error.
    async fn nothing(&self) -> Verdict {
        let entries = self.entries(3, 20);
        for what in ["in a new store", "in a store with entries"] {
            let mut handed = 0;
            let result = self.store.get(&[], &mut |_: usize, _: &[u8]| handed += 1).await;
            result.map_err(|error| self.violation(format!("{what}, looking up no keys fails: {error}")))?;
            self.expect(handed == 0, || format!("{what}, {handed} values are found for no keys"))?;
            let result = self.store.put(&[]).await;
            result.map_err(|error| self.violation(format!("{what}, putting no entries fails: {error}")))?;
            if what == "in a new store" {
                self.put(&entries).await?;
            }
        }
        self.expect_found("put before nothing was", &entries).await
    }

    /// Law 8: any number of entries and keys.
    async fn number(&self) -> Verdict {
        let entries: Vec<Written> = (0..5_000).map(|number| (self.key(), self.value(number % 300))).collect();
        self.put(&entries).await?;
        // As many unknown keys in between.
        let keys: Vec<Key> = entries.iter().flat_map(|(key, _)| [*key, self.key()]).collect();
        let found = self.get(&keys).await?;
        for (number, (found, (_, value))) in found.chunks(2).zip(&entries).enumerate() {
            let wrong = difference(found[0].as_deref(), value);
            let wrong =
                wrong.or_else(|| found[1].as_ref().map(|_| "is followed by an unknown key that is found".into()));
            self.expect(wrong.is_none(), || {
                format!("of {} entries put at once, number {number} {}", entries.len(), wrong.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    /// Law 5: a get during puts finds the whole value or none, and the value that it found stays.
    async fn whole(&self) -> Verdict {
        for _ in 0..4 {
            let ours = self.entries(48, 8 << 10);
            let keys: Vec<Key> = ours.iter().map(|(key, _)| *key).collect();
            let theirs: Vec<Written> = keys.iter().rev().map(|key| (*key, self.value(5_000))).collect();
            let (put, other, read) = join3(
                self.put_in_parts(&ours),
                self.put_in_parts(&theirs),
                self.read_meanwhile(&keys, [&ours, &theirs]),
            )
            .await;
            put.and(other).and(read)?;
        }
        Ok(())
    }

    async fn put_in_parts(&self, entries: &[Written]) -> Verdict {
        for part in entries.chunks(8) {
            self.put(part).await?;
            yield_once().await;
        }
        Ok(())
    }

    async fn read_meanwhile(&self, keys: &[Key], written: [&[Written]; 2]) -> Verdict {
        let mut seen: Found = vec![None; keys.len()];
        for _ in 0..24 {
            for ((key, seen), found) in keys.iter().zip(&mut seen).zip(self.get(keys).await?) {
                let Some(found) = found else {
                    if seen.is_some() {
                        return Err(self.breaks(1, "a value that was found is not found any more".into()));
                    }
                    continue;
                };
                let mut all = written.into_iter().flatten();
                let is_whole = all.any(|(other, value)| other == key && *value == found);
                self.expect(is_whole, || {
                    format!("beside puts of this key, a value of {} bytes is found that nobody put", found.len())
                })?;
                if *seen.get_or_insert_with(|| found.clone()) != found {
                    return Err(self.breaks(2, "a value that was found is another one later".into()));
                }
            }
            yield_once().await;
        }
        Ok(())
    }

    /// Law 6: dropped calls leave everything usable, and no part of a value.
    async fn usable(&self) -> Verdict {
        for polls in 0..6 {
            let kept = self.entries(4, 100);
            self.put(&kept).await?;
            let entries = self.entries(32, 4 << 10);
            let keys: Vec<Key> = entries.iter().map(|(key, _)| *key).collect();
            poll_and_drop(self.store.put(&borrowed(&entries)), polls).await;
            for (found, (_, value)) in self.get(&keys).await?.iter().zip(&entries) {
                let wrong = found.as_deref().and_then(|found| difference(Some(found), value));
                self.expect(wrong.is_none(), || {
                    format!("of a dropped put, a value of {} bytes {}", value.len(), wrong.unwrap_or_default())
                })?;
            }
            self.put(&entries).await?;
            self.expect_found("put again after the put was dropped", &entries).await?;
            poll_and_drop(self.store.get(&keys, &mut |_: usize, _: &[u8]| {}), polls).await;
            self.expect_found("looked up again after the lookup was dropped", &entries).await?;
            self.expect_found("put before calls were dropped", &kept).await?;
        }
        Ok(())
    }

    /// Law 9: notes and flushes change no entry, at any time, any number of times. The name is one line.
    async fn upkeep(&self) -> Verdict {
        let name = self.store.to_string();
        self.expect(!name.trim().is_empty() && !name.contains('\n'), || "its name is not one line".into())?;
        self.flush().await?;
        let entries = self.entries(10, VECTOR_BYTES);
        self.put(&entries).await?;
        let space = |last| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&self.seed[..16]);
            bytes[15] = last;
            SpaceId::from_bytes(bytes)
        };
        for (space, about) in [
            (space(1), "a model (768d)"),
            (space(1), "a model (768d)"),
            (space(1), "the same one under another name"),
            (space(2), "one that is 'quoted', \"quoted\" again, 100 % – ünïcödé; and \\"),
        ] {
            let result = self.store.note(space, about).await;
            result.map_err(|error| self.violation(format!("a note about a space cannot be kept: {error}")))?;
            self.expect_found("put before a note was kept", &entries).await?;
        }
        for _ in 0..2 {
            self.flush().await?;
            self.expect_found("put before a flush", &entries).await?;
        }
        let more = self.entries(10, VECTOR_BYTES);
        self.put(&more).await?;
        self.expect_found("put after a flush", &more).await
    }

    /// Law 10: discarded entries are gone, and no others. The next put of such a key is the first.
    async fn discard(&self) -> Verdict {
        let entries = self.entries(8, VECTOR_BYTES);
        self.put(&entries).await?;
        self.remove(&[]).await?;
        self.expect_found("put before nothing was discarded", &entries).await?;

        // Another value, a shorter one, a longer one, an empty one, and an unknown key.
        let (key, value) = &entries[0];
        let others = [
            (*key, self.value(VECTOR_BYTES)),
            (*key, value[..VECTOR_BYTES - 1].to_vec()),
            (*key, [value.as_slice(), &[0]].concat()),
            (*key, Vec::new()),
            (self.key(), value.clone()),
        ];
        self.remove(&others).await?;
        self.expect_found("put before other values were discarded", &entries).await?;

        // Together with others, and twice.
        let (gone, kept) = entries.split_at(3);
        let mixed = [gone, &[(kept[0].0, self.value(VECTOR_BYTES)), gone[0].clone()], &others[4..]].concat();
        self.remove(&mixed).await?;
        let keys: Vec<Key> = gone.iter().map(|(key, _)| *key).collect();
        let left = self.get(&keys).await?.iter().flatten().count();
        self.expect(left == 0, || format!("{left} of {} entries are found after they were discarded", keys.len()))?;
        self.expect_found("put beside some that were discarded", kept).await?;

        let anew: Vec<Written> = keys.iter().map(|key| (*key, self.value(VECTOR_BYTES))).collect();
        self.put(&anew).await?;
        self.put(gone).await?;
        self.expect_found("put first after its key was discarded", &anew).await?;
        self.remove(gone).await?;
        self.expect_found("put in the place of one that is discarded again", &anew).await
    }

    /// Returns bytes that no call before returned.
    fn fresh(&self) -> [u8; 8] {
        self.made.fetch_add(1, Ordering::Relaxed).to_le_bytes()
    }

    /// A new key.
    pub(super) fn key(&self) -> Key {
        Key::from_bytes(*blake3::keyed_hash(&self.seed, &self.fresh()).as_bytes())
    }

    /// A new value.
    fn value(&self, bytes: usize) -> Vec<u8> {
        let mut value = vec![0; bytes];
        blake3::Hasher::new_keyed(&self.seed).update(&self.fresh()).finalize_xof().fill(&mut value);
        value
    }

    /// New keys with new values.
    pub(super) fn entries(&self, count: usize, bytes: usize) -> Vec<Written> {
        (0..count).map(|_| (self.key(), self.value(bytes))).collect()
    }

    pub(super) fn violation(&self, what: String) -> Violation {
        self.breaks(self.law, what)
    }

    /// A violation of another law than the one of this check.
    fn breaks(&self, law: u8, what: String) -> Violation {
        Violation { law, embedder: self.store.to_string(), what }
    }

    pub(super) fn expect(&self, holds: bool, what: impl FnOnce() -> String) -> Verdict {
        if holds { Ok(()) } else { Err(self.violation(what())) }
    }

    pub(super) async fn put(&self, entries: &[Written]) -> Verdict {
        let result = self.store.put(&borrowed(entries)).await;
        result.map_err(|error| self.violation(format!("{} entries cannot be put: {error}", entries.len())))
    }

    pub(super) async fn get(&self, keys: &[Key]) -> Result<Found, Violation> {
        let mut found: Found = vec![None; keys.len()];
        let mut stray = None;
        let mut sink = |place: usize, value: &[u8]| match found.get_mut(place) {
            Some(empty) if empty.is_none() => *empty = Some(value.to_vec()),
            _ => stray = Some(place),
        };
        let result = self.store.get(keys, &mut sink).await;
        result.map_err(|error| self.violation(format!("{} keys cannot be looked up: {error}", keys.len())))?;
        match stray {
            None => Ok(found),
            Some(place) if place < keys.len() => {
                Err(self.breaks(7, format!("place {place} of {} is handed over twice", keys.len())))
            }
            Some(place) => Err(self.breaks(7, format!("place {place} is handed over, of {} places", keys.len()))),
        }
    }

    pub(super) async fn remove(&self, entries: &[Written]) -> Verdict {
        let result = self.store.discard(&borrowed(entries)).await;
        result.map_err(|error| self.violation(format!("{} entries cannot be discarded: {error}", entries.len())))
    }

    async fn put_and_get(&self, entries: &[Written], keys: &[Key]) -> Result<Found, Violation> {
        self.put(entries).await?;
        self.get(keys).await
    }

    async fn flush(&self) -> Verdict {
        self.store.flush().await.map_err(|error| self.violation(format!("it cannot be flushed: {error}")))
    }

    /// Looks up entries in one call.
    async fn expect_found(&self, what: &str, entries: &[Written]) -> Verdict {
        let keys: Vec<Key> = entries.iter().map(|(key, _)| *key).collect();
        for (found, (_, value)) in self.get(&keys).await?.iter().zip(entries) {
            let wrong = difference(found.as_deref(), value);
            self.expect(wrong.is_none(), || {
                format!("{what}, a value of {} bytes {}", value.len(), wrong.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    /// Looks up each entry in a call of its own.
    async fn expect_alone(&self, what: &str, entries: &[Written]) -> Verdict {
        for entry in entries {
            self.expect_found(what, std::slice::from_ref(entry)).await?;
        }
        Ok(())
    }
}

/// The entries as a store takes them.
fn borrowed(entries: &[Written]) -> Vec<Entry<'_>> {
    entries.iter().map(|(key, value)| Entry::new(*key, value)).collect()
}

/// Says how a found value differs; `None` if it is the value.
fn difference(found: Option<&[u8]>, value: &[u8]) -> Option<String> {
    match found {
        None => Some("is not found".into()),
        Some(found) if found.len() != value.len() => Some(format!("comes back with {} bytes", found.len())),
        Some(found) if found != value => Some("comes back with other bytes".into()),
        Some(_) => None,
    }
}

/// Returns all keys that differ from this one in one bit.
fn neighbours(key: Key) -> Vec<Key> {
    let flipped = |bit: usize| {
        let mut bytes = *key.as_bytes();
        bytes[bit / 8] ^= 1_u8 << (bit % 8);
        Key::from_bytes(bytes)
    };
    (0..256).map(flipped).collect()
}

/// Polls a call so many times, or until it ends, and drops it.
async fn poll_and_drop(call: impl Future<Output = crate::Result<()>> + Send, polls: usize) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await.is_ready() {
            return;
        }
        yield_once().await;
    }
}
