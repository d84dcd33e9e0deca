//! Says how long a job waits between looks at its batches, and how far they are: [`Pace`].

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The longest wait that a provider can ask for. A job cannot be cancelled more quickly than it looks for orders, and a
/// date that is wrong may be years away.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// The waits of a job, and the lines that its batches are said to have finished.
#[derive(Debug)]
pub(super) struct Pace {
    shortest: Duration,
    longest: Duration,
    wait: Duration,
    failures: u32,
    /// Completed and all lines of the batches that run, by shard.
    running: HashMap<u32, (u64, u64)>,
    began: Instant,
}

impl Pace {
    pub(super) fn new(shortest: Duration, longest: Duration) -> Self {
        let running = HashMap::new();
        Self { shortest, longest: longest.max(shortest), wait: shortest, failures: 0, running, began: Instant::now() }
    }

    pub(super) const fn shortest(&self) -> Duration {
        self.shortest
    }

    /// Returns the wait before the next look: longer and longer while nothing changes.
    pub(super) fn next_poll(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = self.wait.mul_f64(1.5).min(self.longest);
        wait
    }

    /// Returns the wait after a failure: as long as the provider asks, else longer from one to the next.
    pub(super) fn after_failure(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.shortest.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures += 1;
        // Some at a time, so that many jobs do not come back together.
        own.mul_f64(0.75 + fastrand::f64() / 4.0).max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }

    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Notes how far a batch is. Returns whether that changed.
    pub(super) fn saw(&mut self, shard: u32, completed: Option<u64>, total: Option<u64>) -> bool {
        let now = (completed.unwrap_or_default(), total.unwrap_or_default());
        let changed = self.running.insert(shard, now) != Some(now);
        if changed {
            self.wait = self.shortest;
        }
        changed
    }

    pub(super) fn forget(&mut self, shard: u32) {
        self.running.remove(&shard);
        self.wait = self.shortest;
    }

    /// Returns how much of a shard is done, from 0 to 1, as the provider says.
    pub(super) fn share_done(&self, shard: u32) -> f64 {
        match self.running.get(&shard) {
            Some(&(completed, total)) if total > 0 => (completed as f64 / total as f64).min(1.0),
            _ => 0.0,
        }
    }

    /// Returns how long this process has worked on the job.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_while_nothing_changes() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(second, 4 * second);
        let waits: Vec<Duration> = (0..5).map(|_| pace.next_poll()).collect();
        assert_eq!(waits, [1.0, 1.5, 2.25, 3.375, 4.0].map(Duration::from_secs_f64));
        assert!(pace.saw(1, Some(1), Some(4)));
        assert_eq!(pace.next_poll(), second);
        assert!(!pace.saw(1, Some(1), Some(4)));
        assert_eq!(pace.next_poll(), second.mul_f64(1.5));
        assert_eq!((pace.share_done(1), pace.share_done(2)), (0.25, 0.0));
        pace.saw(1, Some(9), Some(4));
        pace.saw(2, Some(1), None);
        assert_eq!((pace.share_done(1), pace.share_done(2)), (1.0, 0.0));
        pace.forget(1);
        assert_eq!(pace.share_done(1), 0.0);
        // Never below the shortest.
        let mut pace = Pace::new(second, second / 2);
        assert_eq!([pace.next_poll(), pace.next_poll()], [second; 2]);
    }

    #[test]
    fn a_failure_waits_as_long_as_asked() {
        let mut pace = Pace::new(Duration::from_secs(1), Duration::from_secs(8));
        assert_eq!(pace.after_failure(Some(Duration::from_secs(60))), Duration::from_secs(60));
        let waits: Vec<Duration> = (0..40).map(|_| pace.after_failure(None)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(8)), "{waits:?}");
        assert!(waits[39] >= Duration::from_secs(6), "{waits:?}");
    }
}
