//! Says how an endpoint fares: [`RemoteEndpointStats`].

use std::time::Instant;

/// How one endpoint of a [`Remote`](crate::provider::Remote) fares.
///
/// Returned by [`Remote::endpoints`](crate::provider::Remote::endpoints).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteEndpointStats {
    /// The scheme, host and port, as in `http://host:8080`.
    pub origin: String,
    /// Texts that were sent and not yet answered.
    pub outstanding_texts: usize,
    /// Calls that went there, including those that failed before their texts were sent.
    pub calls: u64,
    /// Calls that failed there.
    pub failures: u64,
    /// Whether the server is known to embed in this embedder's space.
    pub verified: bool,
    /// Until when it gets no calls if there are others, because it failed.
    pub resting_until: Option<Instant>,
}
