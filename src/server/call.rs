//! Counts one request for vectors from its head to the last byte of its reply: [`Call`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{dialect::Dialect, inner::Inner, metrics::Outcome};

/// A request. If it is dropped before it ended, its client went away.
#[derive(Debug)]
pub(super) struct Call {
    server: Arc<Inner>,
    pub(super) dialect: Dialect,
    started: Instant,
    outcome: Outcome,
    /// Whether it was accepted: a drain waits for it.
    is_accepted: bool,
}

impl Call {
    pub(super) fn begin(server: &Arc<Inner>, dialect: Dialect) -> Self {
        let (started, outcome) = (Instant::now(), Outcome::Cancelled);
        Self { server: server.clone(), dialect, started, outcome, is_accepted: false }
    }

    /// Accepts the request: from now on, a drain waits for it.
    pub(super) fn accept(&mut self) {
        if !self.is_accepted {
            self.is_accepted = true;
            self.server.under_way.send_modify(|calls| *calls += 1);
        }
    }

    /// Notes how it ended.
    pub(super) const fn end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let server = &self.server;
        server.metrics.request(self.dialect, self.outcome, self.started.elapsed());
        server.totals.requests.fetch_add(1, Ordering::Relaxed);
        match self.outcome {
            Outcome::Ok | Outcome::Cancelled => {}
            Outcome::Failed | Outcome::Late => _ = server.totals.failed.fetch_add(1, Ordering::Relaxed),
            _ => {
                server.totals.refused.fetch_add(1, Ordering::Relaxed);
                server.throughput.add(|second| second.refused += 1);
            }
        }
        if self.is_accepted {
            server.under_way.send_modify(|calls| *calls -= 1);
        }
    }
}
