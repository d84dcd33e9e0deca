//! Bounds the calls under way while nobody has named a limit: [`Window`].

use std::time::Duration;

use tokio::time::Instant;

/// The calls that go at once before the first reply.
const FIRST: usize = 4;

/// The most calls that go at once if the inner embedder names no number.
const MOST: usize = 16;

/// If no call was let through and none came back for this time, one more goes. A call that nobody polls never comes
/// back, and must not hold up the others for ever. If a later call comes back before any of those that were silent, they
/// no longer count.
const SILENCE: Duration = Duration::from_secs(10);

/// The calls under way, and how many may be. The window begins small, each success widens it by one call, and a refusal
/// closes it to one.
///
/// It counts the calls of all embedders together, so it is bounded by what the embedder of the most calls at once takes.
/// That an embedder of fewer calls gets no more of them is the work of its own gate.
pub(super) struct Window {
    size: usize,
    /// The most calls at once that any embedder takes.
    most: usize,
    /// The calls that were ever let through. The last one's number is this.
    all: u64,
    under_way: usize,
    /// The calls that were under way in the last silence, while none of them has ended.
    silent: Option<Silent>,
    /// The moment of the last change of `under_way`.
    changed: Option<Instant>,
}

/// Calls that did not end for long.
struct Silent {
    /// The number of the last one of them.
    last: u64,
    count: usize,
    /// Whether a later call has ended, so that it is not the provider that is slow.
    is_lost: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: FIRST, most: 1, all: 0, under_way: 0, silent: None, changed: None }
    }
}

impl Window {
    /// Learns the most calls at once that an embedder takes.
    pub(super) fn serves(&mut self, in_flight: Option<usize>) {
        self.most = self.most.max(in_flight.unwrap_or(MOST));
    }

    /// Returns whether all places are taken, by calls that are not lost.
    fn is_full(&self) -> bool {
        let lost = self.silent.as_ref().filter(|silent| silent.is_lost).map_or(0, |silent| silent.count);
        self.under_way - lost >= self.size.min(self.most)
    }

    /// Returns the time until one more call may go.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        match self.changed {
            Some(changed) if self.is_full() => SILENCE.saturating_sub(now.saturating_duration_since(changed)),
            _ => Duration::ZERO,
        }
    }

    /// Counts a call that was let through. Returns its number.
    pub(super) fn went(&mut self, now: Instant) -> u64 {
        if self.is_full() {
            // It goes because of a silence.
            self.silent = Some(Silent { last: self.all, count: self.under_way, is_lost: false });
        }
        self.all += 1;
        self.under_way += 1;
        self.changed = Some(now);
        self.all
    }

    /// Counts the call of this number, which has ended, in whatever way.
    pub(super) fn came_back(&mut self, number: u64, now: Instant) {
        self.under_way -= 1;
        self.changed = Some(now);
        self.silent = self.silent.take().filter(|silent| number > silent.last);
        if let Some(silent) = &mut self.silent {
            silent.is_lost = true;
        }
    }

    pub(super) const fn widen(&mut self) {
        self.size = self.size.saturating_add(1);
    }

    pub(super) const fn close(&mut self) {
        self.size = 1;
    }
}
