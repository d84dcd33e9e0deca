//! Builds a [`Remote`]: [`RemoteBuilder`] takes the endpoints, the credentials and the space.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};

#[cfg(feature = "openai")]
use super::service_url::route;
use super::{
    connecting::{self, Given, Learned},
    contact::contact,
    dialect::RemoteDialect,
    embedder::Remote,
    endpoint::Endpoint,
    inner::Inner,
    limits::CallLimits,
    probe::Probe,
    service_url::base_of,
};
use crate::{
    Batch, Charges, Error, ErrorKind, Limits, Payee, Result, Space, Tier, TokenCount,
    http::{Http, HttpOptions, base_url, headers},
    provider::unusable_rows::is_unusable,
};

/// The texts per call until this crate's own service has told its limit.
const DOCVECTOR_TEXTS: usize = 64;

/// The texts per call until text-embeddings-inference has told its limit: its default.
const TEI_TEXTS: usize = 32;

/// Maximum bytes of an error that are read: one may name thousands of bad texts.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// Maximum characters of the model's name in the name of an embedder.
const MAX_NAME: usize = 128;

impl Remote {
    /// Connects to a service, and learns from it the dialect, the space and the limits.
    ///
    /// # Errors
    /// Those of [`RemoteBuilder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// Returns a builder for a service at this URL: `http://host:port`, with or without a route such as `/v1` or `/embed`
    /// at its end.
    pub fn builder(url: impl Into<String>) -> RemoteBuilder {
        RemoteBuilder {
            urls: vec![url.into()],
            dialect: None,
            model: None,
            space: None,
            limits: None,
            key: None,
            headers: Vec::new(),
            plain_http: false,
            payee: None,
            http: HttpOptions { max_error_bytes: MAX_ERROR_BYTES, ..HttpOptions::default() },
            probe: None,
            is_verified: true,
        }
    }
}

/// Builds a [`Remote`].
///
/// ```
/// use docvector_embed::{Normalization, Space, provider::{Remote, RemoteDialect}};
/// # fn main() -> docvector_embed::Result<()> {
/// let space = Space::builder("BAAI/bge-m3", 1024).with_normalization(Normalization::L2).build()?;
/// let embedder = Remote::builder("http://127.0.0.1:8080")
///     .with_dialect(RemoteDialect::TextEmbeddingsInference)
///     .with_space(space)
///     .build()?;
/// assert!(!embedder.endpoints()[0].verified);
/// # Ok(()) }
/// ```
///
/// # Default
/// - With [`connect`](Self::connect), dialect, space and limits are those of the service.
/// - With [`build`](Self::build), the dialect is that of this crate's own service. Until the first call has asked the
///   service for its limits, calls have at most 64 texts, and 32 in the dialect of text-embeddings-inference.
/// - No key; foreign servers are verified by a probe text; 10 s to connect, 120 s for a whole call; no proxy, whatever the
///   environment says.
#[derive(Clone)]
pub struct RemoteBuilder {
    urls: Vec<String>,
    dialect: Option<RemoteDialect>,
    model: Option<String>,
    space: Option<Space>,
    limits: Option<Limits>,
    key: Option<SecretString>,
    headers: Vec<(String, SecretString)>,
    plain_http: bool,
    payee: Option<Payee>,
    http: HttpOptions,
    probe: Option<(String, Vec<f32>)>,
    is_verified: bool,
}

impl RemoteBuilder {
    /// Adds an endpoint of the same service: a replica that serves the same model in the same dialect. Calls are divided
    /// among all endpoints.
    #[must_use]
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Sets the dialect of the service.
    #[must_use]
    pub const fn with_dialect(mut self, dialect: RemoteDialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// Sets the model's name in requests in OpenAI's dialect, and for people. The default is that of the space.
    #[must_use]
    pub fn with_model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Sets the space that the vectors must lie in. A service that states another one gets no texts.
    #[must_use]
    pub fn with_space(mut self, space: Space) -> Self {
        self.space = Some(space);
        self
    }

    /// Sets the limits of a call. Limits that are not set are those that the service tells.
    ///
    /// In the dialects of text-embeddings-inference and OpenAI, a limit of tokens per text needs a counter, such as
    /// `TokenizerCounter` (feature `tokenizers`), because no reply names a text. In this crate's own dialect the service
    /// counts; with a counter, over-long texts are found before they are sent.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets the key, which goes into the header `Authorization`.
    #[must_use]
    pub fn with_api_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(SecretString::from(key.into()));
        self
    }

    /// Adds a header to every request. Its value counts as a secret.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), SecretString::from(value.into())));
        self
    }

    /// Sets the time limit of a whole call, from connecting to the last byte.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.http.timeout = timeout;
        self
    }

    /// Sets the time limit of connecting. With several endpoints, a short one lets calls pass over a dead machine sooner.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.http.connect_timeout = timeout;
        self
    }

    /// Sets the proxy that requests go through. The environment's proxies are never used.
    #[must_use]
    pub fn with_proxy(mut self, url: impl Into<String>) -> Self {
        self.http.proxy = Some(SecretString::from(url.into()));
        self
    }

    /// Allows requests with a key over an unencrypted connection to another machine.
    #[must_use]
    pub const fn with_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Sets who is paid for the calls. The default is the host's name of the first endpoint.
    #[must_use]
    pub fn with_payee(mut self, payee: Payee) -> Self {
        self.payee = Some(payee);
        self
    }

    /// Sets a text and its vector by the right model, as stored by an earlier program. A foreign server must give this
    /// vector for the text before it gets texts. Without it, the first vector that this program sees counts as right.
    ///
    /// The text is embedded as a document. It should be short, and in the languages that the model is used for.
    #[must_use]
    pub fn with_probe(mut self, text: impl Into<String>, vector: impl Into<Vec<f32>>) -> Self {
        self.probe = Some((text.into(), vector.into()));
        self
    }

    /// Takes foreign servers at their word: they embed no probe text. This crate's own service is checked all the same,
    /// because that costs nothing.
    #[must_use]
    pub const fn without_verification(mut self) -> Self {
        self.is_verified = false;
        self
    }

    /// Builds the embedder. It does not connect: the service may be down. The first call verifies what it serves.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) names what is missing or wrong: no space, an unusable URL, key, header, proxy or probe,
    /// a time or limit of zero, a limit of tokens per text that nobody can count, a key that would be sent unencrypted.
    pub fn build(self) -> Result<Remote> {
        let Some(space) = self.space.clone() else {
            let message =
                "the space is not known before the service is asked: give it by `with_space`, or call `connect`";
            return Err(config(message));
        };
        let bases = self.checked_bases()?;
        let (http, headers) = (self.client(&bases)?, self.checked_headers(&bases)?);
        self.finish(&bases, http, headers, self.dialect.unwrap_or_default(), space)
    }

    /// Connects to the first endpoint that answers, and learns what was not set.
    ///
    /// - This crate's own service tells its space and its limits.
    /// - A server of text-embeddings-inference tells its model and limits, and embeds a probe text to tell the width. Without
    ///   [`with_space`](Self::with_space), the space is one of the model's name, revision and pooling, with vectors of length
    ///   1. It is a space of its own: that of a local copy of the model names the hash of its weights instead.
    /// - A server that tells nothing is taken for one of OpenAI's API, if the space is set and the feature `openai` is on.
    ///
    /// Then the endpoint is verified. The cost of these probes is not told.
    ///
    /// # Errors
    /// Those of [`build`](Self::build), and those of the first endpoint if none answers.
    pub async fn connect(self) -> Result<Remote> {
        let bases = self.checked_bases()?;
        let (http, headers) = (self.client(&bases)?, self.checked_headers(&bases)?);
        let given = Given { http: &http, headers: &headers, dialect: self.dialect, space: self.space.as_ref() };
        let learned = connecting::learn(&given, &bases).await.map_err(Error::without_charges)?;
        let Learned { place, dialect, space, limits } = learned;
        let remote = self.finish(&bases, http, headers, dialect, space)?;
        let inner = &*remote.0;
        limits.into_iter().for_each(|limits| inner.limits.learn(limits));
        let mut cost = Charges::NONE;
        contact(inner, &inner.endpoints[place], &Batch::documents(&[]), &mut cost, None).await?;
        Ok(remote)
    }

    /// Makes the embedder of what was checked and learned.
    fn finish(
        &self,
        bases: &[Url],
        http: Http,
        headers: HeaderMap,
        dialect: RemoteDialect,
        space: Space,
    ) -> Result<Remote> {
        self.check_probe(&space)?;
        let limits = self.checked_limits(dialect)?;
        let model = self.model.as_deref().unwrap_or_else(|| space.model());
        let host = bases.first().and_then(Url::host_str).unwrap_or_default();
        let payee = self.payee.clone().unwrap_or_else(|| Payee::new(host, model, Tier::Standard));
        let endpoints = bases.iter().map(|base| {
            #[cfg_attr(not(feature = "openai"), allow(unused_mut, reason = "there is no other dialect"))]
            let mut endpoint = Endpoint::new(base);
            #[cfg(feature = "openai")]
            if dialect == RemoteDialect::OpenAi {
                endpoint.openai = Some(self.openai(base, model, &space, &payee)?);
            }
            Ok(endpoint)
        });
        let endpoints = endpoints.collect::<Result<Vec<Endpoint>>>()?;
        let probe = self.is_verified.then(|| Probe::new(self.probe.clone(), &space));
        // A service may call its model anything, and a name is one short line.
        let shown: String = model.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let name = format!("remote/{shown}");
        Ok(Remote(Arc::new(Inner { name, payee, space, dialect, limits, endpoints, http, headers, probe })))
    }

    /// Makes the client of one endpoint in OpenAI's dialect.
    #[cfg(feature = "openai")]
    fn openai(&self, base: &Url, model: &str, space: &Space, payee: &Payee) -> Result<crate::provider::OpenAi> {
        // The prompts of the space are stated, so that a model that is known to need some is not refused.
        let mut builder = crate::provider::OpenAi::builder(model)
            .with_base_url(route(base, "v1"))
            .with_space(space.clone())
            .with_prompts(space.prompts().clone())
            .with_payee(payee.clone())
            .with_timeout(self.http.timeout)
            .with_connect_timeout(self.http.connect_timeout)
            .for_service();
        if let Some(limits) = &self.limits {
            builder = builder.with_limits(limits.clone());
        }
        if let Some(key) = &self.key {
            builder = builder.with_api_key(key.expose_secret());
        }
        for (name, value) in &self.headers {
            builder = builder.with_header(name, value.expose_secret());
        }
        if let Some(proxy) = &self.http.proxy {
            builder = builder.with_proxy(proxy.expose_secret());
        }
        if self.plain_http { builder.with_plain_http().build() } else { builder.build() }
    }

    /// Returns the addresses of the service.
    fn checked_bases(&self) -> Result<Vec<Url>> {
        let bases = self.urls.iter().map(|url| base_of(url)).collect::<Result<Vec<Url>>>()?;
        match (1..bases.len()).find(|&at| bases[..at].contains(&bases[at])) {
            Some(at) => Err(config(format!(
                "endpoint {at} has the address of an earlier one: give each address once, as an address gets calls once"
            ))),
            None => Ok(bases),
        }
    }

    fn client(&self, bases: &[Url]) -> Result<Http> {
        let times = [("with_timeout", self.http.timeout), ("with_connect_timeout", self.http.connect_timeout)];
        if let Some((setter, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err(config(format!("`{setter}` of zero would end every call: give a longer time")));
        }
        Http::new(&self.http, self.http.proxy.is_some() || bases.iter().any(|base| base.scheme() == "https"))
    }

    /// Checks the key and returns the headers of every request.
    fn checked_headers(&self, bases: &[Url]) -> Result<HeaderMap> {
        // Through a proxy, the request leaves this machine even if its URL names this machine.
        let leaves = |base: &Url| !base_url::is_loopback(base) || self.http.proxy.is_some();
        let in_the_clear = bases.iter().any(|base| base.scheme() == "http" && leaves(base));
        let has_secrets = self.key.is_some() || !self.headers.is_empty();
        if has_secrets && in_the_clear && !self.plain_http {
            let message =
                "the key would go unencrypted to another machine: use https, or allow it by `with_plain_http`";
            return Err(config(message));
        }
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            headers::check_key(key, "`with_api_key`")?;
            let bearer = SecretString::from(format!("Bearer {}", key.expose_secret()));
            map.extend([headers::secret_header("authorization", &bearer)?]);
        }
        for (name, value) in &self.headers {
            map.extend([headers::secret_header(name, value)?]);
        }
        Ok(map)
    }

    /// Refuses a stored vector of a probe text that no model of this space could have made.
    fn check_probe(&self, space: &Space) -> Result<()> {
        let Some((text, vector)) = &self.probe else { return Ok(()) };
        if !self.is_verified {
            return Err(config("`with_probe` and `without_verification` contradict each other: leave one of them out"));
        }
        if text.is_empty() {
            return Err(config("`with_probe`: the text is empty, which no model embeds: give a short sentence"));
        }
        if vector.len() != space.dimensions() || is_unusable(vector) {
            return Err(config(format!(
                "`with_probe`: the vector has {} components, or is all zeros or not finite, but it must be one of a space \
                 of {} dimensions",
                vector.len(),
                space.dimensions()
            )));
        }
        Ok(())
    }

    /// Refuses limits with which no call could succeed, or that nobody could keep.
    fn checked_limits(&self, dialect: RemoteDialect) -> Result<CallLimits> {
        let limits = self.limits.clone().unwrap_or_default();
        let numbers = [
            ("texts", limits.texts),
            ("bytes", limits.bytes),
            ("tokens_per_text", limits.tokens_per_text),
            ("tokens_per_call", limits.tokens_per_call),
            ("in_flight", limits.in_flight),
        ];
        if let Some((name, _)) = numbers.into_iter().find(|&(_, number)| number == Some(0)) {
            return Err(config(format!("`with_limits`: {name} is 0, which no call can keep: give 1 or more")));
        }
        let is_own = dialect == RemoteDialect::Docvector;
        if !is_own && limits.tokens_per_text.is_some() && !matches!(limits.tokens, TokenCount::Exact(_)) {
            let message = "a limit of tokens per text cannot be kept in this dialect without a counter: give one \
                           (`Limits::with_tokens(TokenCount::Exact(..))`, such as `TokenizerCounter` of the feature \
                           `tokenizers`), or leave the limit to the server";
            return Err(config(message));
        }
        Ok(CallLimits::new(limits, if is_own { DOCVECTOR_TEXTS } else { TEI_TEXTS }, is_own))
    }
}

impl fmt::Debug for RemoteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No URL, which may hold a password.
        f.debug_struct("RemoteBuilder")
            .field("endpoints", &self.urls.len())
            .field("dialect", &self.dialect)
            .field("space", &self.space.as_ref().map(Space::id))
            .finish_non_exhaustive()
    }
}

fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
