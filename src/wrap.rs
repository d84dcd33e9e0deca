//! Wraps embedders with one job each; wrappers are embedders, so they stack.

pub mod cached;
pub mod concurrency;
pub mod dedup;
pub mod metered;
pub mod rate_limit;
pub mod retry;
pub mod timeout;

pub use cached::Cached;
pub use concurrency::{Concurrency, Gate};
pub use dedup::Dedup;
pub use metered::{Meter, Metered, Metering, Totals};
pub use rate_limit::{RateLimit, RateLimiter};
pub use retry::{Retry, RetryBudget, RetryPolicy};
pub use timeout::Timeout;
