//! Holds one address of the service: what is under way there, and how it fares: [`Endpoint`].

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use reqwest::Url;
use tokio::time::Instant;

use super::{
    known::Known,
    rest::{self, Rest},
    service_url::route,
    stats::RemoteEndpointStats,
};
#[cfg(feature = "openai")]
use crate::provider::OpenAi;
use crate::{Batch, Error, ErrorKind};

/// One address of the service.
pub(super) struct Endpoint {
    /// The scheme, host and port, for people.
    pub(super) origin: String,
    /// The URL that embeds texts, in the dialects with a route `/embed`.
    pub(super) embed_url: Url,
    pub(super) info_url: Url,
    /// Asks in OpenAI's dialect.
    #[cfg(feature = "openai")]
    pub(super) openai: Option<OpenAi>,
    pub(super) known: Known,
    rest: Rest,
    texts: AtomicUsize,
    bytes: AtomicUsize,
    calls: AtomicU64,
    failures: AtomicU64,
}

/// Texts under way at an endpoint. Dropping it counts them as done.
pub(super) struct UnderWay<'e> {
    endpoint: &'e Endpoint,
    texts: usize,
    bytes: usize,
}

impl Endpoint {
    pub(super) fn new(base: &Url) -> Self {
        Self {
            origin: base.origin().ascii_serialization(),
            embed_url: route(base, "embed"),
            info_url: route(base, "info"),
            #[cfg(feature = "openai")]
            openai: None,
            known: Known::default(),
            rest: Rest::default(),
            texts: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Counts a call as under way.
    pub(super) fn begin(&self, batch: &Batch<'_>) -> UnderWay<'_> {
        let (texts, bytes) = (batch.len(), batch.texts().iter().map(|text| text.len()).sum());
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.texts.fetch_add(texts, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        UnderWay { endpoint: self, texts, bytes }
    }

    /// Returns the bytes of text that were sent and not yet answered.
    pub(super) fn outstanding_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the end of its rest, if it rests.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rest.until(now)
    }

    /// Notes that a call got its rows.
    pub(super) fn succeeded(&self) {
        self.rest.end();
    }

    /// Notes that a call failed. After some failures the endpoint rests, after others nobody knows what answers there.
    pub(super) fn failed(&self, error: &Error) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if rest::is_for(error) {
            self.rest.begin(error);
        }
        let may_be_another = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::SpaceMismatch => true,
            // A reply that does not state its space, or that has prompts from two sides, came from another program.
            ErrorKind::Protocol | ErrorKind::Config => true,
            _ => error.status().is_some_and(|status| status >= 500),
        };
        if may_be_another {
            self.known.forget();
        }
    }

    /// Notes that nobody could find out what answers there.
    pub(super) fn stayed_unknown(&self, error: &Error) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.rest.begin(error);
    }

    pub(super) fn stats(&self) -> RemoteEndpointStats {
        RemoteEndpointStats {
            origin: self.origin.clone(),
            outstanding_texts: self.texts.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            verified: self.known.get().is_some(),
            resting_until: self.rests_until(Instant::now()).map(Instant::into_std),
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.endpoint.texts.fetch_sub(self.texts, Ordering::Relaxed);
        self.endpoint.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
