//! Wrappers: what each promises, and the documented stack of them.

mod cached;
mod concurrency;
mod metered;
mod rate_limit;
mod retry;
mod stack;
mod timeout;
