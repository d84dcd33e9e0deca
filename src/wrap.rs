//! Holds the wrappers: each has one job. A wrapper is an embedder itself, so wrappers stack.

mod ab_split;
mod cached;
mod coalesce;
mod concurrency;
mod dedup;
mod metered;
mod observed;
mod rate_limit;
mod resilient;
mod retry;
mod timeout;

#[cfg(fuzzing)]
pub use self::cached::fuzz;
pub use self::{
    ab_split::{AbSplit, AbSplitBuilder, ArmStats, SplitStats},
    cached::{CacheCounts, Cached, CachedBuilder, EntryInfo, VectorEncoding},
    coalesce::{Coalesce, CoalesceCounts},
    concurrency::{Concurrency, Gate},
    dedup::Dedup,
    metered::Metered,
    observed::Observed,
    rate_limit::{RateLimit, RateLimiter},
    resilient::{BreakerPolicy, Hedging, MemberStatus, Proof, Resilient, ResilientBuilder, Verifier},
    retry::{Retry, RetryBudget, RetryPolicy},
    timeout::Timeout,
};
pub use crate::{
    call_record::{CallOutcome, CallRecord, MetricsSink},
    totals::{Totals, TotalsSnapshot},
};
