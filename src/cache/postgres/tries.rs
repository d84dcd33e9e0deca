//! Decides whether a failed statement is tried again: [`Tries`].

use std::time::Duration;

use super::{failure::Failure, pool::Pool};
use crate::Result;

/// How often a statement is tried again that met another transaction.
const MAX_CONFLICTS: u32 = 5;

/// The longest wait before such a try, times its number.
const CONFLICT_WAIT: Duration = Duration::from_millis(20);

/// Counts the tries of one call. All statements may be repeated: a read changes nothing, an entry that is stored
/// already is not stored again, and one that is removed already is not removed again.
#[derive(Debug, Default)]
pub(super) struct Tries {
    needs_fresh: bool,
    conflicts: u32,
}

impl Tries {
    /// Returns `true` if the next try needs a new connection.
    pub(super) const fn needs_fresh(&self) -> bool {
        self.needs_fresh
    }

    /// Returns `Ok` if the statement should be tried again, perhaps after a short wait. The connection that failed must
    /// be given back by then.
    pub(super) async fn again(&mut self, pool: &Pool, failure: Failure) -> Result<()> {
        if failure.is_broken() || failure.is_late() || failure.is_read_only() {
            pool.forget_idle();
        }
        // A server that became read-only may be a former primary: among several hosts, a new one may be found.
        if (failure.is_broken() || failure.is_read_only()) && !self.needs_fresh {
            self.needs_fresh = true;
            return Ok(());
        }
        if failure.is_conflict() && self.conflicts < MAX_CONFLICTS {
            self.conflicts += 1;
            // At random, so that two that met do not meet again.
            let wait = CONFLICT_WAIT.saturating_mul(self.conflicts).mul_f64(fastrand::f64());
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        Err(failure.into_error(pool.address()))
    }
}
