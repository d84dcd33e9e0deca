//! Notices a model that fails again and again: [`Health`]; and limits what is logged of it: [`LogLimit`].

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::throughput::now;
use crate::{ErrorKind, sync::Mutex};

/// After so many failures in a row, no new work is wanted.
const FAILURES: u32 = 5;
/// A model that fails for so long in a row does not recover: the process should be started again.
const DEAD_AFTER: Duration = Duration::from_secs(300);

/// The failures of the model since it last succeeded.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<(u32, Instant)>>);

impl Health {
    /// Notes the end of a call: the kind of its error, or `None`.
    pub(super) fn note(&self, error: Option<ErrorKind>) {
        match error {
            None => self.0.with(|failures| *failures = None),
            Some(ErrorKind::Inference) => self.0.with(|failures| {
                let (count, since) = failures.unwrap_or((0, Instant::now()));
                *failures = Some((count.saturating_add(1), since));
            }),
            // Other errors say nothing about the model.
            Some(_) => {}
        }
    }

    /// Whether the model fails, so that others should get the work.
    pub(super) fn is_failing(&self) -> bool {
        self.0.with(|failures| failures.is_some_and(|(count, _)| count >= FAILURES))
    }

    /// Whether it has failed for so long that a new process may help.
    pub(super) fn is_dead(&self) -> bool {
        self.0
            .with(|failures| failures.is_some_and(|(count, since)| count >= FAILURES && since.elapsed() >= DEAD_AFTER))
    }
}

/// Lets one line per second through.
#[derive(Debug, Default)]
pub(super) struct LogLimit(AtomicU64);

impl LogLimit {
    pub(super) fn may_log(&self) -> bool {
        let second = now();
        self.0.swap(second, Ordering::Relaxed) != second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_count_and_a_success_ends_them() {
        let health = Health::default();
        (0..4).for_each(|_| health.note(Some(ErrorKind::Inference)));
        health.note(Some(ErrorKind::InvalidInput));
        assert!(!health.is_failing());
        health.note(Some(ErrorKind::Inference));
        assert!(health.is_failing() && !health.is_dead());
        health.0.with(|failures| {
            if let Some((_, since)) = failures {
                *since -= DEAD_AFTER;
            }
        });
        assert!(health.is_dead());
        health.note(None);
        assert!(!health.is_failing() && !health.is_dead());
    }

    #[test]
    fn one_line_per_second() {
        let limit = LogLimit::default();
        let lines = (0..1000).filter(|_| limit.may_log()).count();
        assert!((1..=2).contains(&lines), "{lines}");
    }
}
