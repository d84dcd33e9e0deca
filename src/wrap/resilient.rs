//! Names the parts of the wrapper around several members: [`BreakerPolicy`].

#[allow(dead_code, reason = "the wrapper around it is not here yet")]
mod breaker;

pub use self::breaker::{BreakerPolicy, BreakerState};
