//! Builds a server: [`ServerBuilder`].

use std::{fmt, sync::Arc, time::Duration};

use super::{
    handle::Server,
    inner::Inner,
    keys::Keys,
    model::ServedModel,
    options::{ServerLimits, ServerOptions, TokenIds, config},
    state::DrainOptions,
    vocabulary::Vocabulary,
};
use crate::{Embedder, Result};

impl Server {
    /// Serves an embedder with the default limits and without keys.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for an embedder without a space.
    pub fn new(embedder: Arc<dyn Embedder>) -> Result<Self> {
        Self::builder().build(embedder)
    }

    /// Returns a builder.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }
}

/// Builds a [`Server`].
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use docvector_embed::{provider::Fake, server::Server};
/// # fn main() -> docvector_embed::Result<()> {
/// let server = Server::builder()
///     .with_api_key("a-long-random-string")
///     .with_drain(Duration::from_secs(3), Duration::from_secs(20))
///     .build(Arc::new(Fake::new(8)))?;
/// assert!(!format!("{server:?}").contains("random"));
/// # Ok(()) }
/// ```
///
/// # Default
/// No keys; the [default limits](ServerLimits::default); the page and its description are there; token ids are refused;
/// a drain refuses new work at once and ends requests under way after 10 s.
#[derive(Clone)]
pub struct ServerBuilder {
    keys: Keys,
    limits: ServerLimits,
    drain: DrainOptions,
    has_page: bool,
    token_ids: Option<TokenIds>,
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        let drain = DrainOptions { delay: Duration::ZERO, deadline: Duration::from_secs(10) };
        Self { keys: Keys::default(), limits: ServerLimits::default(), drain, has_page: true, token_ids: None }
    }

    /// Adds a key, without the white space around it. Requests for vectors then need one of the keys, as `Authorization: Bearer KEY`. Probes, metrics and
    /// the page need none.
    #[must_use]
    pub fn with_api_key(mut self, key: impl AsRef<str>) -> Self {
        self.keys.add(key.as_ref().trim());
        self
    }

    /// Sets the limits.
    #[must_use]
    pub const fn with_limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how a [drain](Server::drain) goes. For `delay`, new work is still accepted, while probes say already that the
    /// server is not ready: load balancers take seconds to notice. After `deadline`, counted from the same moment,
    /// requests under way are ended with 503.
    #[must_use]
    pub const fn with_drain(mut self, delay: Duration, deadline: Duration) -> Self {
        self.drain = DrainOptions { delay, deadline };
        self
    }

    /// Leaves out the page, its description and its data: `/`, `/docs`, `/openapi.json` and `/status`.
    #[must_use]
    pub const fn without_page(mut self) -> Self {
        self.has_page = false;
        self
    }

    /// Accepts token ids of this vocabulary in place of texts. They are decoded, and the text is embedded.
    ///
    /// Name the vocabulary that the *clients* use. Ids of another one would be decoded to other texts, and nobody would
    /// notice.
    #[must_use]
    pub fn with_token_ids(mut self, vocabulary: impl Vocabulary) -> Self {
        self.token_ids = Some(TokenIds::Of(Arc::new(vocabulary)));
        self
    }

    /// Accepts token ids of the model's own vocabulary in place of texts.
    #[must_use]
    pub fn with_token_ids_of_model(mut self) -> Self {
        self.token_ids = Some(TokenIds::Model);
        self
    }

    /// Builds a server of an embedder, which is ready at once.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a limit of 0, an empty key, a drain whose delay is not below its
    /// deadline, an embedder without a space, or token ids of a model whose vocabulary is not known.
    pub fn build(self, embedder: Arc<dyn Embedder>) -> Result<Server> {
        let server = self.build_loading()?;
        server.open(ServedModel::new(embedder))?;
        Ok(server)
    }

    /// Builds a server whose model is not there yet. It answers probes, and refuses requests with 503 until
    /// [`Server::open`] brings the model.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) that are not about the embedder.
    pub fn build_loading(self) -> Result<Server> {
        self.limits.check()?;
        if self.keys.has_empty() {
            return Err(config("a key is empty, and everybody would have it: set a long random string, or no key"));
        }
        if self.drain.delay >= self.drain.deadline {
            let DrainOptions { delay, deadline } = self.drain;
            let message = format!(
                "a drain accepts work for {delay:?} and ends all work after {deadline:?}: the delay must be shorter"
            );
            return Err(config(message));
        }
        let Self { keys, limits, drain, has_page, token_ids } = self;
        Ok(Server(Arc::new(Inner::new(keys, ServerOptions { limits, drain, has_page, token_ids }))))
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("keys", &self.keys)
            .field("limits", &self.limits)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}
