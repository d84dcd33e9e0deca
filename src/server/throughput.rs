//! Keeps what was done in each second of the last minutes: [`Throughput`].

use std::time::{Duration, SystemTime};

use crate::sync::Mutex;

/// The seconds in the ring: five minutes, and the present second.
const SECONDS: usize = 301;

/// The work of the last minutes, by second.
#[derive(Debug)]
pub(super) struct Throughput(Mutex<Ring>);

#[derive(Debug)]
struct Ring {
    seconds: Box<[Second; SECONDS]>,
    /// The second since 1970 of the newest entry.
    newest: u64,
}

/// The work of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Second {
    pub(super) texts: u64,
    pub(super) tokens: u64,
    pub(super) refused: u64,
}

impl Throughput {
    pub(super) fn new() -> Self {
        let newest = now();
        Self(Mutex::new(Ring { seconds: Box::new([Second::default(); SECONDS]), newest }))
    }

    /// Adds to the present second.
    pub(super) fn add(&self, add: impl FnOnce(&mut Second)) {
        self.0.with(|ring| {
            ring.advance(now());
            add(&mut ring.seconds[(ring.newest % SECONDS as u64) as usize]);
        });
    }

    /// Returns the seconds, oldest first, and the second since 1970 of the last one. The present second is not complete,
    /// so it is left out.
    pub(super) fn seconds(&self) -> (Vec<Second>, u64) {
        self.0.with(|ring| {
            ring.advance(now());
            let end = ring.newest - 1;
            let first = end.saturating_sub(SECONDS as u64 - 2);
            let all = (first..=end).map(|second| ring.seconds[(second % SECONDS as u64) as usize]);
            (all.collect(), end)
        })
    }
}

impl Ring {
    /// Clears the seconds that have passed since the newest one. A clock that was set back changes nothing.
    fn advance(&mut self, now: u64) {
        for second in (self.newest + 1..=now).rev().take(SECONDS) {
            self.seconds[(second % SECONDS as u64) as usize] = Second::default();
        }
        self.newest = self.newest.max(now);
    }
}

/// Returns the seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::from_secs(1)).as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_without_work_are_empty() {
        let mut ring = Ring { seconds: Box::new([Second::default(); SECONDS]), newest: 1000 };
        let fill = |ring: &mut Ring| ring.seconds.iter_mut().for_each(|second| second.texts = 7);
        fill(&mut ring);
        ring.advance(1000);
        ring.advance(990);
        assert!(ring.seconds.iter().all(|second| second.texts == 7) && ring.newest == 1000);
        ring.advance(1003);
        let cleared: Vec<usize> = (0..SECONDS).filter(|&at| ring.seconds[at].texts == 0).collect();
        assert_eq!(cleared, [1001, 1002, 1003].map(|second: usize| second % SECONDS));
        fill(&mut ring);
        ring.advance(1_000_000);
        assert!(ring.seconds.iter().all(|second| *second == Second::default()));
    }

    #[test]
    fn what_is_added_is_seen_after_its_second() {
        let throughput = Throughput::new();
        throughput.add(|second| second.texts += 3);
        throughput.add(|second| second.tokens += 5);
        std::thread::sleep(Duration::from_millis(1100));
        let (seconds, end) = throughput.seconds();
        assert_eq!(seconds.len(), SECONDS - 1);
        assert!(end < now());
        assert_eq!(seconds.iter().map(|second| second.texts).sum::<u64>(), 3);
        assert_eq!(seconds.iter().map(|second| second.tokens).sum::<u64>(), 5);
    }
}
