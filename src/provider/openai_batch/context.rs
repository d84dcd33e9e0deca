//! Holds what all jobs of an embedder share: [`Context`].

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{action::Room, api::Api, folder::Jobs, shard_set::ShardLimits};
use crate::{Embedder, Payee, Tier, provider::openai::endpoint::Endpoint, stored_vectors::VectorStore, sync::Mutex};

/// A function that is called at each gap between an effect and its record.
pub(super) type StepHook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The settings of [`OpenAiBatchBuilder`](super::OpenAiBatchBuilder), checked.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) shortest_poll: Duration,
    pub(super) longest_poll: Duration,
    pub(super) line_texts: usize,
    pub(super) shard_texts: u64,
    pub(super) enqueued_tokens: Option<u64>,
    pub(super) list_patience: Duration,
    pub(super) deletes_files: bool,
    pub(super) step_hook: Option<StepHook>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

/// The parts that all jobs of an embedder share.
pub(super) struct Context {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) api: Api,
    /// The payee of the batches.
    pub(super) payee: Payee,
    pub(super) jobs: Jobs,
    pub(super) settings: Settings,
    pub(super) cache: Option<VectorStore>,
    pub(super) standby: Option<Standby>,
    pub(super) account: Mutex<Account>,
}

/// The embedder for what batches do not answer in time.
pub(super) struct Standby {
    pub(super) embedder: Arc<dyn Embedder>,
    /// The age of a job at which it is asked.
    pub(super) after: Duration,
}

/// The room that the account has for enqueued tokens.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// The limit that a refusal told.
    limit: Option<u64>,
    /// The enqueued tokens of each job.
    enqueued: HashMap<String, u64>,
    /// Until when nothing is created, because the account refused more.
    full_until: Option<Instant>,
    refusals: u32,
}

impl Context {
    /// Calls the hook at a gap between an effect and its record.
    pub(super) fn step(&self, name: &'static str) {
        if let Some(hook) = &self.settings.step_hook {
            hook(name);
        }
    }

    /// Returns who bills batches of this endpoint.
    pub(super) fn payee_of(endpoint: &Endpoint) -> Payee {
        Payee::new(endpoint.payee.provider(), endpoint.payee.model(), Tier::Batch)
    }

    /// Returns what the account has room for.
    pub(super) fn room(&self) -> Room {
        self.account.with(|account| Room {
            limit: account.limit.into_iter().chain(self.settings.enqueued_tokens).min(),
            enqueued: account.enqueued.values().sum(),
            is_full: account.full_until.is_some_and(|until| Instant::now() < until),
        })
    }

    /// Notes the enqueued tokens of a job.
    pub(super) fn note_enqueued(&self, job: &str, tokens: u64) {
        self.account.with(|account| match tokens {
            0 => _ = account.enqueued.remove(job),
            _ => _ = account.enqueued.insert(job.to_owned(), tokens),
        });
    }

    /// Notes that a batch has ended, so that there may be room again.
    pub(super) fn note_ended(&self) {
        self.account.with(|account| (account.full_until, account.refusals) = (None, 0));
    }

    /// Notes that the account refused a batch for its enqueued tokens, and the limit that it told. The next one is tried
    /// when a batch has ended, or after a while that grows.
    pub(super) fn note_full(&self, limit: Option<u64>) {
        let longest = self.settings.longest_poll;
        self.account.with(|account| {
            account.limit = limit.or(account.limit);
            let wait = longest.saturating_mul(1 << account.refusals.min(4));
            account.refusals += 1;
            account.full_until = Instant::now().checked_add(wait);
        });
    }

    /// Forgets what refusals told.
    pub(super) fn forget_limit(&self) {
        self.account.with(|account| (account.limit, account.full_until, account.refusals) = (None, None, 0));
    }

    /// Returns the limits of shards.
    pub(super) fn shard_limits(&self) -> ShardLimits {
        let settings = &self.settings;
        ShardLimits::new(&self.endpoint.limits(), settings.line_texts, settings.shard_texts, self.room().limit)
    }
}
