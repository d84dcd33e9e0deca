//! Says whether a breaker lets calls through: [`BreakerState`].

use crate::named::named;

/// Whether a breaker lets calls through to what is behind it: a store ([`Guarded`](crate::cache::Guarded)), or a member of a
/// [`Resilient`](crate::wrap::Resilient).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// All calls go through.
    Closed,
    /// A few calls, the probes, go through. They show whether what is behind is well again.
    HalfOpen,
    /// No call goes through until the pause is over.
    Open,
}

named! {
    /// Returns the name: `closed`, `half_open` or `open`.
    BreakerState, "the state of a breaker",
    Closed = "closed",
    HalfOpen = "half_open",
    Open = "open",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        crate::named::check_names(BreakerState::ALL);
    }
}
