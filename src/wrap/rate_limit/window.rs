//! Bounds the calls under way while nobody has named a limit: [`Window`].

use std::time::Duration;

use tokio::time::Instant;

/// The calls that go at once before the first reply.
const FIRST: usize = 4;

/// The most calls that go at once if the inner embedder names no number.
const MOST: usize = 16;

/// If no call was let through and none came back for this time, one more goes. A call that nobody polls never comes
/// back, and must not hold up the others for ever.
const SILENCE: Duration = Duration::from_secs(10);

/// The calls under way, and how many may be. The window begins small, each success widens it by one call, and a refusal
/// closes it to one.
pub(super) struct Window {
    size: usize,
    under_way: usize,
    /// The moment of the last change of `under_way`.
    changed: Option<Instant>,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: FIRST, under_way: 0, changed: None }
    }
}

impl Window {
    /// Returns the time until one more call may go. `in_flight` is the most calls at once that its embedder takes.
    pub(super) fn wait(&self, in_flight: Option<usize>, now: Instant) -> Duration {
        let most = self.size.min(in_flight.unwrap_or(MOST)).max(1);
        match self.changed {
            Some(changed) if self.under_way >= most => SILENCE.saturating_sub(now.saturating_duration_since(changed)),
            _ => Duration::ZERO,
        }
    }

    /// Counts a call that was let through.
    pub(super) fn went(&mut self, now: Instant) {
        self.under_way += 1;
        self.changed = Some(now);
    }

    /// Counts a call that has ended, in whatever way.
    pub(super) fn came_back(&mut self, now: Instant) {
        self.under_way -= 1;
        self.changed = Some(now);
    }

    pub(super) const fn widen(&mut self) {
        self.size = self.size.saturating_add(1);
    }

    pub(super) const fn close(&mut self) {
        self.size = 1;
    }
}
