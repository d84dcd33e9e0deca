//! Keeps the handles of metrics, so that an event costs a look-up: [`Handles`].

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
};

use metrics::{Counter, Gauge, Histogram};

use super::label::{Name, Part, labels};
use crate::sync::Mutex;

/// The most handles of a kind that are kept. Labels are names that a program has chosen, so there are few; if there are
/// more all the same, the recorder is asked for each event.
const MOST: usize = 4096;

/// The handles by metric and labels.
#[derive(Default)]
pub(super) struct Handles {
    hashes: RandomState,
    counters: Kept<Counter>,
    gauges: Kept<Gauge>,
    histograms: Kept<Histogram>,
    begun: Kept<()>,
}

impl Handles {
    /// Reads an embedder's name.
    pub(super) fn name<'a>(&self, shown: &'a dyn fmt::Display) -> Name<'a> {
        Name::new(shown, &self.hashes)
    }

    pub(super) fn counter(&self, name: &'static str, parts: &[Part<'_>]) -> Counter {
        self.counters.get(self.key(name, parts), || metrics::counter!(name, labels(parts)))
    }

    pub(super) fn gauge(&self, name: &'static str, parts: &[Part<'_>]) -> Gauge {
        self.gauges.get(self.key(name, parts), || metrics::gauge!(name, labels(parts)))
    }

    pub(super) fn histogram(&self, name: &'static str, parts: &[Part<'_>]) -> Histogram {
        self.histograms.get(self.key(name, parts), || metrics::histogram!(name, labels(parts)))
    }

    /// Runs `begin` the first time that these parts are given. It may run twice if two threads are first at once.
    pub(super) fn begin(&self, parts: &[Part<'_>], begin: impl FnOnce()) {
        self.begun.get(self.key("", parts), begin);
    }

    /// The hash stands for the labels: its 64 bits have a random seed, so that two sets of labels of a program do not
    /// meet.
    fn key(&self, name: &'static str, parts: &[Part<'_>]) -> u64 {
        self.hashes.hash_one((name, parts))
    }
}

struct Kept<T>(Mutex<HashMap<u64, T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<T: Clone> Kept<T> {
    /// Returns the handle, and makes it if there is none. The recorder makes it, so that happens outside the lock.
    fn get(&self, key: u64, make: impl FnOnce() -> T) -> T {
        if let Some(handle) = self.0.with(|kept| kept.get(&key).cloned()) {
            return handle;
        }
        let handle = make();
        // A handle that another thread has kept meanwhile leaves the lock before it is dropped.
        drop(self.0.with(|kept| (kept.len() < MOST).then(|| kept.insert(key, handle.clone()))));
        handle
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_handle_is_made_once_and_their_number_is_bounded() {
        let (kept, made) = (Kept::<u64>::default(), Cell::new(0));
        let get = |key: u64| {
            kept.get(key, || {
                made.set(made.get() + 1);
                key
            })
        };
        for _ in 0..2 {
            (0..MOST as u64).for_each(|key| assert_eq!(get(key), key));
        }
        assert_eq!(made.get(), MOST);
        assert_eq!((get(u64::MAX), get(u64::MAX)), (u64::MAX, u64::MAX));
        assert_eq!((made.get(), kept.0.with(|kept| kept.len())), (MOST + 2, MOST));
    }

    #[test]
    fn labels_are_told_apart() {
        let handles = Handles::default();
        let (fake, other) = (handles.name(&"fake"), handles.name(&"other"));
        let parts: &[&[Part<'_>]] = &[
            &[],
            &[Part::Model(fake)],
            &[Part::Model(other)],
            &[Part::Operation(fake)],
            &[Part::Embedder(fake)],
            &[Part::Space(None)],
            &[Part::Space(Some([0; 16].into()))],
            &[Part::Word("a", "bc")],
            &[Part::Word("ab", "c")],
            &[Part::Word("a", "b"), Part::Word("a", "b")],
        ];
        let keys = parts.iter().flat_map(|parts| [handles.key("one", parts), handles.key("two", parts)]);
        assert_eq!(keys.collect::<std::collections::HashSet<u64>>().len(), 2 * parts.len());
    }
}
