//! Wrappers: what each promises, and the documented stack of them.

mod bad_values;
mod bounded_queues;
mod cached;
#[cfg(all(feature = "openai", feature = "sqlite"))]
mod cached_killed;
mod cached_races;
mod concurrency;
mod metered;
mod rate_limit;
mod retry;
mod stack;
mod timeout;
