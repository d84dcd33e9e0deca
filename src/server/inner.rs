//! Holds what all requests of a server share: [`Inner`].

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use tokio::sync::{Semaphore, watch};

use super::{
    admission::Admission,
    health::{Health, LogLimit},
    keys::Keys,
    memory::Memory,
    metrics::{Metrics, Snapshot},
    model::ServedModel,
    options::ServerOptions,
    refusal::Refusal,
    state::{Lifecycle, ServerState},
    throughput::Throughput,
    vocabulary::Vocabulary,
};
use crate::{ErrorKind, Lane};

/// Requests that may tokenize or decode at once, apart from embedding.
const TOKENIZING: usize = 2;
/// The wait that a refusal names while the model is loaded.
const WHILE_LOADING: Duration = Duration::from_secs(5);

/// What all requests of a server share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) keys: Keys,
    pub(super) options: ServerOptions,
    pub(super) lifecycle: Lifecycle,
    pub(super) model: OnceLock<ServedModel>,
    pub(super) admission: Arc<Admission>,
    pub(super) memory: Arc<Memory>,
    pub(super) metrics: Metrics,
    pub(super) throughput: Throughput,
    pub(super) totals: Totals,
    pub(super) tokenizing: Arc<Semaphore>,
    pub(super) health: Health,
    pub(super) log_limit: LogLimit,
    pub(super) connections: AtomicUsize,
    /// The requests for vectors that are not answered yet.
    pub(super) under_way: watch::Sender<usize>,
}

/// What was done since the start, for the page.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: AtomicU64,
    pub(super) texts: AtomicU64,
    pub(super) tokens: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Inner {
    pub(super) fn new(keys: Keys, options: ServerOptions) -> Self {
        let (limits, lifecycle) = (options.limits, Lifecycle::new(options.drain));
        Self {
            keys,
            options,
            lifecycle,
            model: OnceLock::new(),
            admission: Arc::new(Admission::new(limits.tokens(Lane::Interactive), limits.tokens(Lane::Bulk))),
            memory: Arc::new(Memory::new(limits.memory_bytes)),
            metrics: Metrics::new(),
            throughput: Throughput::new(),
            totals: Totals::default(),
            tokenizing: Arc::new(Semaphore::new(TOKENIZING)),
            health: Health::default(),
            log_limit: LogLimit::default(),
            connections: AtomicUsize::new(0),
            under_way: watch::Sender::new(0),
        }
    }

    /// Returns the model for new work, or why there is none.
    pub(super) fn ready(&self) -> Result<&ServedModel, Refusal> {
        let refused = |message: &str, wait: Duration| {
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable, message).with_wait(wait))
        };
        let drain = self.options.drain;
        match (self.lifecycle.state(), self.model.get()) {
            (ServerState::Failed, _) => refused("the model could not be loaded", WHILE_LOADING),
            (ServerState::Draining, _) if self.lifecycle.refuses() => {
                refused("the server is going away: send the request to another one", drain.deadline)
            }
            (ServerState::Ready | ServerState::Draining, Some(model)) => Ok(model),
            _ => refused("the model is being loaded", WHILE_LOADING),
        }
    }

    /// Returns the vocabulary of token ids in requests; `None` if they are refused.
    pub(super) fn token_ids<'s>(&'s self, model: &'s ServedModel) -> Option<&'s Arc<dyn Vocabulary>> {
        match self.options.token_ids.as_ref()? {
            super::options::TokenIds::Of(vocabulary) => Some(vocabulary),
            super::options::TokenIds::Model => model.vocabulary.as_ref(),
        }
    }

    /// Returns the numbers of this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        let queue = |lane: Lane| {
            let load = self.admission.load(lane);
            (lane, [load.requests, load.texts, load.tokens, self.admission.limit(lane)])
        };
        Snapshot {
            state: self.lifecycle.state(),
            queues: [queue(Lane::Interactive), queue(Lane::Bulk)],
            memory: [self.memory.used(), self.memory.limit()],
            connections: self.connections.load(Ordering::Relaxed),
            under_way: *self.under_way.borrow(),
        }
    }
}
