//! Lends connections: [`Pool`].

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{
    sync::{Mutex as TurnMutex, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};
use tokio_postgres::Client;

use super::{
    failure::Failure,
    gate::Gate,
    session::{Connector, Session},
};
use crate::{Error, ErrorKind, Result, sync::Mutex};

/// A bounded number of connections, made when they are needed and kept for later calls.
///
/// It is our own, and small, because it must know what a general pool does not: that no connection is tried while the
/// server is known to be down, that all idle connections are suspect after one broke, and that a connection whose call
/// was dropped may still be busy.
pub(super) struct Pool {
    connector: Connector,
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
    gate: Gate,
    /// Held while a connection is tried after a failed one.
    probe: TurnMutex<()>,
}

impl Pool {
    pub(super) fn new(connector: Connector, connections: usize) -> Self {
        Self {
            connector,
            permits: Semaphore::new(connections),
            idle: Mutex::default(),
            gate: Gate::default(),
            probe: TurnMutex::new(()),
        }
    }

    /// Returns the server and its database, for messages.
    pub(super) fn address(&self) -> &str {
        &self.connector.address
    }

    /// Lends a connection: an idle one if there is one and it need not be fresh. Waits for one to come back if all are
    /// lent.
    pub(super) async fn lease(&self, fresh: bool) -> Result<Lease<'_>> {
        let permit = self.permits.acquire().await.map_err(|error| {
            let message = format!("the connections to {} are closed", self.address());
            Error::new(ErrorKind::Cache, message).with_source(error)
        })?;
        let idle = if fresh { None } else { self.idle() };
        let session = match idle {
            Some(session) => session,
            None => self.connect().await?,
        };
        Ok(Lease {
            pool: self,
            session: Some(session),
            is_busy: AtomicBool::new(false),
            is_tainted: AtomicBool::new(false),
            _permit: permit,
        })
    }

    /// Drops the idle connections: when one breaks, the others probably are broken too.
    pub(super) fn forget_idle(&self) {
        drop(self.idle.with(std::mem::take));
    }

    /// Takes the connection that was used last, so that the others can be closed by the server if they are not needed.
    fn idle(&self) -> Option<Session> {
        self.idle.with(|idle| {
            while let Some(session) = idle.pop() {
                if session.is_open() {
                    return Some(session);
                }
            }
            None
        })
    }

    async fn connect(&self) -> Result<Session> {
        self.gate.check()?;
        // While the server is known to be down, one call at a time tries.
        let turn = if self.gate.is_failing() { Some(self.probe.lock().await) } else { None };
        self.gate.check()?;
        let began = Instant::now();
        let connected = self.connector.connect().await;
        match &connected {
            Ok(_) => self.gate.succeeded(),
            Err(error) => self.gate.failed(began, error),
        }
        drop(turn);
        connected
    }
}

/// A connection that is lent until this is dropped. If a statement is under way then, the connection is closed: nobody
/// else waits for the end of the statement.
pub(super) struct Lease<'p> {
    pool: &'p Pool,
    /// `None` only while this is dropped.
    session: Option<Session>,
    is_busy: AtomicBool,
    is_tainted: AtomicBool,
    _permit: SemaphorePermit<'p>,
}

impl Lease<'_> {
    pub(super) fn client(&self) -> &Client {
        match &self.session {
            Some(session) => session.client(),
            None => unreachable!("a lease has a session until it is dropped"),
        }
    }

    /// Waits for the end of a statement, within the time limit.
    pub(super) async fn run<T: Send>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
    ) -> Result<T, Failure> {
        let limit = self.pool.connector.limit();
        let run = timeout(limit, self.run_without_limit(statement)).await;
        run.unwrap_or(Err(Failure::Late(limit)))
    }

    /// Waits for the end of a statement, however long it takes.
    pub(super) async fn run_without_limit<T: Send>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
    ) -> Result<T, Failure> {
        self.is_busy.store(true, Ordering::Relaxed);
        let result = statement.await.map_err(Failure::Server);
        // After an error that the server reports, the connection can be used again.
        if result.as_ref().err().is_none_or(|failure| failure.code().is_some() && !failure.is_broken()) {
            self.is_busy.store(false, Ordering::Relaxed);
        }
        result
    }

    /// Sets whether the connection has a transaction open, with which no other call may go on.
    pub(super) fn taint(&self, is_tainted: bool) {
        self.is_tainted.store(is_tainted, Ordering::Relaxed);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if *self.is_busy.get_mut() || *self.is_tainted.get_mut() {
            session.abort();
        } else if session.is_open() {
            // The permit is given back after this, so whoever gets it finds the connection.
            self.pool.idle.with(|idle| idle.push(session));
        }
    }
}
