//! Hands the simulator to the test: [`Simulator`].

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    account::Account,
    bills::Bills,
    counts::Counts,
    fault::{Fault, Route},
    line_script::{Line, LineFate, LineRule},
    plan::BatchPlan,
    record::BatchRecord,
    server::Server,
    settings::Settings,
    vectors::{hash_text, vector},
};
use crate::{Error, ErrorKind, Result};

/// OpenAI's Files and Batches API on loopback: a real HTTP server whose clock, failures and bills the test holds.
///
/// See the [module](super) for an example and for all that can be scripted.
///
/// # Semantics
/// Clones share the server; it ends when the last one is dropped, and with it all connections and files. Every method
/// can be called at any time from any thread, and takes effect for requests that come later. The server has a thread and
/// a runtime of its own, so clients may be blocking. Do not pause tokio's clock in a client's runtime: it would jump to
/// the client's timeout while the answer is on its way.
///
/// # Cost
/// Uploaded files lie in a temporary folder, and results are made while they are read. In memory are about 100 bytes per
/// line and 16 per text of the files that exist and of the batches that have not ended, and about 40 per text that was
/// billed.
#[derive(Clone)]
pub struct Simulator(Arc<Inner>);

struct Inner {
    // Before the account: the server's thread ends first, and the folder is removed last.
    server: Server,
    account: Arc<Account>,
}

impl Simulator {
    /// Starts a simulator with OpenAI's limits and models, whose time stands still.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if this machine gives no port, thread or temporary folder.
    pub fn start() -> Result<Self> {
        Self::start_with(Settings::default(), None)
    }

    pub(super) fn start_with(settings: Settings, enqueued_tokens: Option<u64>) -> Result<Self> {
        let failed = |error: std::io::Error| {
            let message = "the simulator needs a port of 127.0.0.1, a thread and a temporary folder";
            Error::new(ErrorKind::Config, format!("{message}: {error}")).with_source(error)
        };
        let account = Arc::new(Account::new(settings, enqueued_tokens).map_err(failed)?);
        let server = Server::start(account.clone()).map_err(failed)?;
        Ok(Self(Arc::new(Inner { server, account })))
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.0.server.address()
    }

    /// Returns the base URL that clients take in place of OpenAI's, such as `http://127.0.0.1:34567/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address())
    }

    // -- time --

    /// Moves time on. All that is due happens before this returns: states change, lines are finished and billed, files
    /// expire.
    pub fn advance(&self, by: Duration) {
        self.0.account.with(|state| state.advance(by));
    }

    /// Lets time move by itself, by so many virtual seconds per real second; 0 stops it. A speed below 0 is 0.
    pub fn set_speed(&self, speed: f64) {
        self.0.account.with(|state| state.clock.set_speed(speed));
    }

    /// Returns the simulator's time as unix time in seconds. It begins with that of the machine.
    pub fn unix_time(&self) -> u64 {
        self.0.account.with(|state| state.clock.unix(state.clock.now()))
    }

    // -- the script --

    /// Plans the next batch that has no plan yet. Calls add up: the second one plans the batch after it.
    pub fn plan_next(&self, plan: BatchPlan) {
        self.0.account.with(|state| state.plans.push_back(plan));
    }

    /// Plans all later batches that have no plan of their own.
    pub fn plan_all(&self, plan: BatchPlan) {
        self.0.account.with(|state| state.plan = plan);
    }

    /// Lets the next requests of a route, so many of them, meet a fault. Calls add up, in their order.
    pub fn fail_next(&self, route: Route, times: usize, fault: Fault) {
        self.0.account.with(|state| state.add_faults(route, times, &fault));
    }

    /// Forgets the faults that no request has met yet.
    pub fn clear_faults(&self) {
        self.0.account.with(|state| state.clear_faults());
    }

    /// Gives lines of batches that are created later a fate: those that `chooses` chooses, at most `times` of them.
    ///
    /// For a line that several calls choose, the first call counts. A line whose body the endpoint refuses has no other
    /// fate: the function does not see it. It is called while a batch is created, in the server's thread, once for each
    /// other line. It must return soon, and may not move time. A function that holds a simulator keeps it alive until
    /// [`clear_lines`](Self::clear_lines).
    pub fn script_lines(
        &self,
        fate: LineFate,
        times: Option<usize>,
        chooses: impl Fn(&Line<'_>) -> bool + Send + Sync + 'static,
    ) {
        let rule = Arc::new(LineRule::new(fate, times, chooses));
        self.0.account.with(|state| state.rules.push(rule));
    }

    /// Forgets the fates of lines, for batches that are created later.
    pub fn clear_lines(&self) {
        // Dropped outside of the lock: the functions are the test's own.
        let _rules = self.0.account.with(|state| std::mem::take(&mut state.rules));
    }

    /// Sets how many tokens the account can pay for; `None`: any number. Lines and requests that cost more than is left
    /// fail with `insufficient_quota`.
    pub fn set_credit(&self, tokens: Option<u64>) {
        self.0.account.with(|state| state.credit = tokens);
    }

    /// Sets the most enqueued tokens of a model, judged as one token per four bytes; `None`: any number. A batch that
    /// would exceed it, together with the model's batches that were validated and have not ended, fails with
    /// `token_limit_exceeded`.
    pub fn set_enqueued_tokens(&self, tokens: Option<u64>) {
        self.0.account.with(|state| state.enqueued_tokens = tokens);
    }

    // -- what happened --

    /// Returns what was asked for so far.
    pub fn counts(&self) -> Counts {
        self.0.account.with(|state| state.counts())
    }

    /// Returns what was billed so far.
    pub fn bills(&self) -> Bills {
        self.0.account.with(|state| state.ledger.bills())
    }

    /// Returns how often a text was billed, whatever the model.
    pub fn billed(&self, text: &str) -> u64 {
        let hash = hash_text(text);
        self.0.account.with(|state| state.ledger.times(&hash))
    }

    /// Returns all batches, the oldest first.
    pub fn batches(&self) -> Vec<BatchRecord> {
        self.0.account.with(|state| state.batches().iter().map(|batch| batch.record()).collect())
    }

    /// Returns the vector of a text, as every answer has it. It has length 1, and its components are 16-bit numbers.
    ///
    /// A shorter vector is the beginning of a longer one, scaled to length 1 again. Vectors say nothing about meaning.
    pub fn vector(&self, model: &str, dimensions: usize, text: &str) -> Vec<f32> {
        vector(model, dimensions, &hash_text(text))
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("address", &self.address()).finish_non_exhaustive()
    }
}
