//! Keeps the connections of a store, makes new ones, and sends each request once or, over a new connection, twice:
//! [`Pool`].

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ::redis::{RedisError, Value};
use tokio::{runtime::Handle, sync::Mutex as AsyncMutex, time::Instant};

use super::{
    address::Address,
    check::{Checks, Rejection},
    command::Names,
    connection::{Connection, Request},
    failure::{Failure, Fate},
};
use crate::{Error, ErrorKind, Result, sync::Mutex};

/// How long no connection is tried after the first failure. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The maximum of that time.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The connections of a store to its server. Each is made when it is first needed, and again after it broke.
pub(super) struct Pool {
    pub(super) address: Address,
    pub(super) names: Names,
    /// The hosts and ports, for messages.
    at: String,
    connect_timeout: Duration,
    timeout: Duration,
    pub(super) checks: Checks,
    slots: Box<[Mutex<Option<Live>>]>,
    /// The slot that the next request uses.
    next: AtomicUsize,
    /// Held while a connection is made, so that one is made at a time.
    attempts: AsyncMutex<Attempts>,
}

/// A connection in its slot.
#[derive(Clone)]
struct Live {
    connection: Connection,
    /// Tells it from those that were in the slot before.
    number: u64,
    takes_writes: bool,
}

/// The attempts to connect.
#[derive(Default)]
struct Attempts {
    made: u64,
    /// Failures since the last success.
    failures: u32,
    /// The last failure, and until when it stands for others.
    last: Option<(Error, Instant)>,
}

impl Pool {
    pub(super) fn new(
        address: Address,
        names: Names,
        checks: Checks,
        connections: usize,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Self {
        // The client of a cluster has connections of its own.
        let slots = if address.is_cluster { 1 } else { connections };
        Self {
            at: address.to_string(),
            address,
            names,
            connect_timeout,
            timeout,
            checks,
            slots: (0..slots).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
            attempts: AsyncMutex::default(),
        }
    }

    /// Makes one connection, unless there is one.
    pub(super) async fn connect(&self) -> Result<()> {
        self.lease(0).await.map(|_| ())
    }

    /// Sends a request and returns the reply. If the connection is broken, sends it again over a new one. `what` says
    /// what did not happen if it fails, as in "entries were not stored".
    pub(super) async fn send(&self, request: &Request<'_>, what: &str) -> Result<Value> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let mut is_again = false;
        loop {
            let mut live = self.lease(slot).await?;
            let error = match live.connection.send(request).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let is_useless = match Fate::of(&error) {
                Fate::Refused => false,
                Fate::Broken | Fate::Late => true,
                Fate::ReadOnly => live.takes_writes,
            };
            if is_useless {
                self.forget(slot, live.number);
            }
            // A server that did not answer in time would make the caller wait as long again.
            if is_again || !is_useless || Fate::of(&error) == Fate::Late {
                return Err(self.failed(what, self.timeout, error));
            }
            is_again = true;
        }
    }

    /// Returns an error for a reply that this request cannot have.
    pub(super) fn unexpected(&self, what: &str) -> Error {
        let message = format!(
            "redis at {}: {what}: the reply does not match the request: check whether a proxy is in between",
            self.at
        );
        Error::new(ErrorKind::Cache, message)
    }

    fn failed(&self, what: &str, timeout: Duration, error: RedisError) -> Error {
        Failure { at: &self.at, what, timeout, has_tls: self.address.has_tls }.error(error)
    }

    /// Returns the connection of a slot. Calls without one wait for the one that makes it, and share its failure.
    async fn lease(&self, slot: usize) -> Result<Live> {
        let current = || self.slots[slot].with(|slot| slot.clone());
        if let Some(live) = current() {
            return Ok(live);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(live) = current() {
            return Ok(live);
        }
        if let Some((error, until)) = &attempts.last
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        attempts.made += 1;
        match self.open(attempts.made).await {
            Ok(live) => {
                *attempts = Attempts { made: attempts.made, ..Attempts::default() };
                self.slots[slot].with(|slot| *slot = Some(live.clone()));
                Ok(live)
            }
            Err(error) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << attempts.failures.min(8)).min(MAX_PAUSE);
                attempts.failures = attempts.failures.saturating_add(1);
                attempts.last = Some((error.clone(), Instant::now() + pause));
                Err(error)
            }
        }
    }

    async fn open(&self, number: u64) -> Result<Live> {
        const WHAT: &str = "no connection could be made";
        if Handle::try_current().is_err() {
            let message = format!("redis at {}: {WHAT}: this needs a tokio runtime around it", self.at);
            return Err(Error::new(ErrorKind::Cache, message));
        }
        let opened = Connection::open(&self.address, self.connect_timeout, self.timeout).await;
        let mut connection = opened.map_err(|error| self.failed(WHAT, self.connect_timeout, error))?;
        let checked = self.checks.check(&mut connection, &self.names).await;
        let takes_writes = checked.map_err(|rejection| match rejection {
            Rejection::Failed(error) => self.failed("the server could not be checked", self.timeout, error),
            Rejection::Refused(error) => error,
        })?;
        Ok(Live { connection, number, takes_writes })
    }

    /// Removes a connection from its slot, unless a newer one is there. Calls that still use it are not disturbed.
    fn forget(&self, slot: usize, number: u64) {
        let gone = self.slots[slot].with(|slot| slot.take_if(|live| live.number == number));
        // Not dropped under the lock: the last clone ends a task.
        drop(gone);
    }
}
