//! Names the parts of the wrapper around several members: [`BreakerPolicy`], [`Hedging`].

#[allow(dead_code, reason = "the wrapper around it is not here yet")]
mod breaker;
#[allow(dead_code, reason = "the wrapper around it is not here yet")]
mod hedging;

pub use self::{
    breaker::{BreakerPolicy, BreakerState},
    hedging::Hedging,
};
