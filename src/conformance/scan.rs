//! Checks that a store lists what it holds.

use std::collections::{HashMap, HashSet};

use super::{Verdict, Violation, store::Check};
use crate::cache::{CacheScan, Key, ScanPlace};

/// Checks that a store keeps the laws of [`CacheScan`]. The store must pass [`store`](fn@super::store) already.
/// `make` makes or opens a store for each check; the one before is dropped by then.
///
/// ```
/// use docvector_embed::{cache::Memory, conformance};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), conformance::Violation> {
/// conformance::scan(|| Memory::new(64 << 20)).await?;
/// # Ok(()) }
/// ```
///
/// The store needs room for 64 MiB, and may hold other entries, but no great number: each check lists all of them.
///
/// # Errors
/// The first violation found. Its [`law`](Violation::law) is the number in the list of [`CacheScan`].
pub async fn scan<S: CacheScan>(make: impl Fn() -> S + Send + Sync) -> Verdict {
    let check = |law| Scan(Check::new(law, make()));
    check(1).all().await?;
    check(1).while_others_write().await?;
    check(3).goes_on_from_any_place().await?;
    check(3).strange_places().await?;
    check(4).contains().await
}

/// The steps of a scan after which nobody writes any more.
const MOST_STEPS_WITH_WRITES: usize = 20;

struct Scan<S>(Check<S>);

/// The entries that a scan handed over: each value of a key once.
type Listed = HashMap<Key, Vec<u8>>;

impl<S: CacheScan> Scan<S> {
    /// Law 1: all entries come, whole, and none that is not there.
    async fn all(&self) -> Verdict {
        let check = &self.0;
        let mut entries = Vec::new();
        for (count, bytes) in [(1, 0), (3_000, 20), (1_000, 3_088), (12, 1 << 20)] {
            let some = check.entries(count, bytes);
            check.put(&some).await?;
            entries.extend(some);
        }
        let listed = self.list(None).await?.0;
        for (key, value) in &entries {
            let what = match listed.get(key) {
                Some(found) if found == value => continue,
                Some(found) => format!("an entry of {} bytes is listed with {} others", value.len(), found.len()),
                None => format!("an entry of {} bytes is not listed", value.len()),
            };
            return Err(check.violation(what));
        }
        let known: HashSet<Key> = entries.iter().map(|(key, _)| *key).collect();
        let others: Vec<Key> = listed.keys().filter(|key| !known.contains(key)).copied().collect();
        let there = check.get(&others).await?;
        check.expect(there.iter().all(Option::is_some), || "an entry is listed that a look-up does not find".into())?;
        // Discarded ones are gone.
        let (gone, kept) = entries.split_at(10);
        check.remove(gone).await?;
        let listed = self.list(None).await?.0;
        check.expect(gone.iter().all(|(key, _)| !listed.contains_key(key)), || "a discarded entry is listed".into())?;
        check.expect(kept.iter().all(|(key, _)| listed.contains_key(key)), || {
            "after others were discarded, an entry is not listed".into()
        })
    }

    /// Law 1: what was there all the time comes, whatever is put and discarded meanwhile.
    async fn while_others_write(&self) -> Verdict {
        let check = &self.0;
        let (kept, gone) = (check.entries(2_000, 3_088), check.entries(400, 3_088));
        check.put(&kept).await?;
        check.put(&gone).await?;
        let (mut listed, mut place, mut gone) = (Listed::new(), None, gone.as_slice());
        let mut steps = 0;
        loop {
            place = self.step(place.as_ref(), &mut listed).await?;
            if place.is_none() {
                break;
            }
            steps += 1;
            // A store that lists in the order of the puts would never come to an end.
            if steps > MOST_STEPS_WITH_WRITES {
                continue;
            }
            check.put(&check.entries(20, 3_088)).await?;
            let (now, later) = gone.split_at(gone.len().min(20));
            check.remove(now).await?;
            gone = later;
        }
        check.expect(kept.iter().all(|(key, value)| listed.get(key) == Some(value)), || {
            "while other entries were put and discarded, one that was there all the time was not listed".into()
        })
    }

    /// Law 3: a scan goes on from each of its places.
    async fn goes_on_from_any_place(&self) -> Verdict {
        let check = &self.0;
        let entries = check.entries(3_000, 9_000);
        check.put(&entries).await?;
        let (all, places) = self.list(None).await?;
        check.expect(places.len() > 1, || "27 MB of entries are listed in one step".into())?;
        let (mut listed, mut place) = (Listed::new(), None);
        for _ in 0..places.len() / 2 {
            place = self.step(place.as_ref(), &mut listed).await?;
            check.expect(place.is_some(), || "a second scan of the same entries is much shorter".into())?;
        }
        let written = place.map(|place| place.to_string()).unwrap_or_default();
        let place = written.parse().map_err(|_| check.violation("its place is no hex".into()))?;
        // As another process would.
        for _ in 0..2 {
            listed.extend(self.list(Some(&place)).await?.0);
            check.expect(all.keys().all(|key| listed.contains_key(key)), || {
                "what is listed before a place, and from it on, is not all".into()
            })?;
        }
        Ok(())
    }

    /// Law 3: a place of another store is an error, and no panic.
    async fn strange_places(&self) -> Verdict {
        for bytes in [&b""[..], b"x", &[0xff; 15], &[0xff; 400]] {
            let _ = self.0.store.scan(Some(&ScanPlace::from_bytes(bytes)), &mut |_, _| {}).await;
        }
        self.0.put(&self.0.entries(3, 20)).await
    }

    /// Law 4: `contains` says what a look-up would find.
    async fn contains(&self) -> Verdict {
        let check = &self.0;
        let entries = check.entries(3_000, 20);
        check.put(&entries).await?;
        let known = entries.iter().map(|(key, _)| (*key, true));
        let unknown = (0..3_000).map(|_| (check.key(), false));
        let mut keys: Vec<(Key, bool)> = known.zip(unknown).flat_map(|(one, other)| [one, other, one]).collect();
        keys.rotate_left(1_000);
        let asked: Vec<Key> = keys.iter().map(|(key, _)| *key).collect();
        for asked in [&asked[..], &asked[..1], &[]] {
            let there = self.0.store.contains(asked).await;
            let there = there.map_err(|error| check.violation(format!("keys cannot be asked for: {error}")))?;
            check.expect(there.len() == asked.len(), || format!("{} answers for {} keys", there.len(), asked.len()))?;
            check.expect(there.iter().zip(&keys).all(|(there, (_, wanted))| there == wanted), || {
                "a key that is there is said not to be, or the other way round".into()
            })?;
        }
        let (gone, _) = entries.split_at(5);
        check.remove(gone).await?;
        let gone: Vec<Key> = gone.iter().map(|(key, _)| *key).collect();
        let there = self.0.store.contains(&gone).await;
        let there = there.map_err(|error| check.violation(format!("keys cannot be asked for: {error}")))?;
        check.expect(there.iter().all(|there| !there), || "a discarded key is said to be there".into())
    }

    /// Lists from a place to the end; returns what was listed, and the places of all steps.
    async fn list(&self, from: Option<&ScanPlace>) -> Result<(Listed, Vec<ScanPlace>), Violation> {
        let (mut listed, mut places) = (Listed::new(), Vec::new());
        let mut place = from.cloned();
        loop {
            place = self.step(place.as_ref(), &mut listed).await?;
            let Some(place) = &place else { return Ok((listed, places)) };
            places.push(place.clone());
        }
    }

    async fn step(&self, place: Option<&ScanPlace>, listed: &mut Listed) -> Result<Option<ScanPlace>, Violation> {
        let mut changed = false;
        let mut sink = |key: Key, value: &[u8]| {
            let before = listed.entry(key).or_insert_with(|| value.to_vec());
            changed |= *before != value;
        };
        let next = self.0.store.scan(place, &mut sink).await;
        let next = next.map_err(|error| self.0.violation(format!("it cannot be listed: {error}")))?;
        self.0.expect(!changed, || "a key is listed with two values".into())?;
        Ok(next)
    }
}
