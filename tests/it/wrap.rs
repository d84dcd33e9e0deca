//! Tests of the wrappers, each alone, and of the documented stack.

mod ab_split;
mod bad_values;
mod bounded_queues;
mod cached;
#[cfg(all(feature = "openai", feature = "sqlite"))]
mod cached_killed;
mod cached_races;
mod coalesce;
mod coalesce_races;
mod concurrency;
mod metered;
mod pairs;
mod rate_limit;
mod resilient;
mod resilient_scenarios;
#[cfg(feature = "openai")]
mod resilient_servers;
mod retry;
mod stack;
mod timeout;
mod unknown_limits;
