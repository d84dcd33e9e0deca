//! Sends one request and reads one bounded reply: the HTTP layer of all remote providers.
//!
//! It follows no redirect and takes no proxy from the environment. It reads no more of a reply than the request can
//! produce, before and after decompression. Its errors hold only a status, names and numbers.

pub(crate) mod base_url;
pub(crate) mod connections;
pub(crate) mod download;
pub(crate) mod headers;
pub(crate) mod redaction;
pub(crate) mod upload;

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::read::MultiGzDecoder;
use reqwest::{
    Client, Method, Proxy, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_ENCODING, HeaderMap},
};
use rustls_platform_verifier::BuilderVerifierExt;
use secrecy::{ExposeSecret, SecretString};

use crate::{Error, ErrorKind, Result, Usage, deadline::until};

/// Maximum bytes of an error reply that are usually read: enough for any message, too few to fill memory.
pub(crate) const MAX_ERROR_BYTES: usize = 64 << 10;

/// Maximum wait for the body of an error reply, whose status is already known.
const MAX_ERROR_WAIT: Duration = Duration::from_secs(5);

/// Bytes that are read of a reply which says beforehand that it is too large. They tell what is wrong with it.
const BEGINNING: usize = 1 << 20;

/// A reply that says that it is so many times too large is not read at all.
const ABSURD: u64 = 128;

/// How long unused connections stay open. If a server closes one earlier, the client notices.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The settings of a connection to a server.
#[derive(Clone, Debug)]
pub(crate) struct HttpOptions {
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) proxy: Option<SecretString>,
    /// Maximum bytes of an error reply that are read.
    pub(crate) max_error_bytes: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        let (connect_timeout, timeout) = (Duration::from_secs(10), Duration::from_secs(120));
        Self { connect_timeout, timeout, proxy: None, max_error_bytes: MAX_ERROR_BYTES }
    }
}

/// A pool of connections and its settings. Clones share the pool.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    options: HttpOptions,
    encrypted: bool,
}

/// A reply as it arrived.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// This machine's end of the connection.
    pub(crate) connection: Option<SocketAddr>,
    body: Vec<u8>,
    /// Maximum bytes of the body, compressed or not.
    max_bytes: usize,
    /// Whether the reply told its body's length, so that a lost end would have been noticed.
    pub(crate) has_content_length: bool,
    /// Whether the body is too large, and only its beginning was read.
    is_cut: bool,
}

/// The decompressed body of a reply.
pub(crate) struct Body<'r> {
    pub(crate) bytes: Cow<'r, [u8]>,
    /// Whether the body is too large, and this is only its beginning.
    pub(crate) is_cut: bool,
}

impl Reply {
    /// Bytes of the body as it arrived.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Adds what the head of the reply says to an error about its body.
    pub(crate) fn about(&self, error: Error) -> Error {
        of_reply(error, self.status, &self.headers)
    }

    /// Returns the error of a reply that is too large.
    pub(crate) fn too_large(&self) -> Error {
        too_large(self.max_bytes)
    }

    /// Returns the decompressed body; of an error reply, as much as can be read.
    pub(crate) fn decompressed(&self) -> Result<Body<'_>> {
        let is_error = !self.status.is_success();
        let whole = |bytes| Ok(Body { bytes, is_cut: self.is_cut });
        let encoding = self.headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase());
        match encoding.as_deref() {
            None | Some(b"" | b"identity") => whole(Cow::Borrowed(&self.body)),
            Some(b"gzip" | b"x-gzip") => {
                let mut plain = Vec::new();
                let most = self.max_bytes as u64 + 1;
                let read = MultiGzDecoder::new(&self.body[..]).take(most).read_to_end(&mut plain);
                match read {
                    _ if plain.len() > self.max_bytes => Ok(Body { bytes: Cow::Owned(plain), is_cut: true }),
                    Err(_) if is_error || self.is_cut => whole(Cow::Owned(plain)),
                    // Without a content length, only the broken gzip shows that the connection lost the end.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !self.has_content_length => {
                        let message = "the connection ended before the reply did";
                        Err(Error::new(ErrorKind::Unavailable, message).with_usage(Usage::of_unanswered()))
                    }
                    Err(error) => {
                        let error =
                            Error::new(ErrorKind::Protocol, "the reply's gzip cannot be read").with_source(error);
                        Err(error.with_usage(Usage::of_request(None)))
                    }
                    Ok(_) => whole(Cow::Owned(plain)),
                }
            }
            Some(_) if is_error => whole(Cow::Borrowed(&[])),
            Some(_) => {
                let message = "the reply has a compression that the request did not ask for";
                Err(Error::new(ErrorKind::Protocol, message).with_usage(Usage::of_request(None)).of_whole_reply())
            }
        }
    }
}

fn too_large(max_bytes: usize) -> Error {
    let message = format!("the reply has more than {max_bytes} bytes, which is more than this request can produce");
    Error::new(ErrorKind::Protocol, message).with_usage(Usage::of_request(None)).of_whole_reply()
}

impl Http {
    /// Makes a client. Without `encrypted` it reads no certificates, which a small container may lack.
    pub(crate) fn new(options: &HttpOptions, encrypted: bool) -> Result<Self> {
        let config = |what: &str, source: Box<dyn std::error::Error + Send + Sync>| {
            Err(Error::new(ErrorKind::Config, what).with_source(source))
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let verifier = |builder: rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>| {
            let builder = match encrypted {
                true => builder.with_platform_verifier()?,
                false => builder.with_root_certificates(rustls::RootCertStore::empty()),
            };
            Ok(builder.with_no_client_auth())
        };
        let tls = match versions.and_then(verifier) {
            Ok(tls) => tls,
            Err(error) => return config("the system's certificates cannot be loaded", Box::new(error)),
        };
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("docvector-embed/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            // A request is one write and one wait: a delay to gather more bytes would gain nothing.
            .tcp_nodelay(true)
            // Even if another crate turns these features of reqwest on: this file counts the bytes as they arrive.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .no_proxy();
        if let Some(proxy) = &options.proxy {
            match Proxy::all(proxy.expose_secret()) {
                Ok(proxy) => builder = builder.proxy(proxy),
                // The cause would quote the URL, which may hold a password.
                Err(_) => {
                    return Err(Error::new(
                        ErrorKind::Config,
                        "the proxy's URL cannot be parsed: give one like http://host:port",
                    ));
                }
            }
        }
        match builder.build() {
            Ok(client) => Ok(Self { client, options: options.clone(), encrypted }),
            Err(error) => config("the HTTP client cannot be built", Box::new(error.without_url())),
        }
    }

    /// Makes a client with the same settings and with connections of its own, for another runtime: a connection lives as
    /// long as the runtime that opened it.
    pub(crate) fn with_own_connections(&self) -> Result<Self> {
        Self::new(&self.options, self.encrypted)
    }

    /// Posts JSON and reads the reply: at most `max_bytes`, before and after decompression.
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn post_json(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: Vec<u8>,
        deadline: Option<Instant>,
        max_bytes: usize,
    ) -> Result<Reply> {
        let now = Instant::now();
        let total = now.checked_add(self.options.timeout);
        let (end, passed) = match (total, deadline) {
            (total, Some(deadline)) if total.is_none_or(|total| deadline < total) => {
                (Some(deadline), ErrorKind::DeadlinePassed)
            }
            (total, _) => (total, ErrorKind::Timeout),
        };
        if passed == ErrorKind::DeadlinePassed && end.is_some_and(|end| end <= now) {
            return Err(Error::new(passed, "before the request was sent"));
        }
        let late = || {
            let message = match passed {
                ErrorKind::DeadlinePassed => "before the reply was complete".to_owned(),
                _ => format!(
                    "no complete reply within {:?}: send less per call (`with_limits`), or allow more time \
                     (`with_timeout`)",
                    self.options.timeout
                ),
            };
            Error::new(passed, message).with_usage(Usage::of_unanswered())
        };
        let request = self.client.post(url.clone()).headers(headers.clone()).body(body);
        self.send(request, url, max_bytes, end, late).await
    }

    /// Sends a request of any method, whose body may be empty, and reads the reply: at most `max_bytes`, before and after
    /// decompression.
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Vec<u8>,
        max_bytes: usize,
    ) -> Result<Reply> {
        let end = Instant::now().checked_add(self.options.timeout);
        let request = self.client.request(method, url.clone()).headers(headers.clone()).body(body);
        let timeout = self.options.timeout;
        self.send(request, url, max_bytes, end, || too_late("no complete reply", timeout)).await
    }

    async fn send(
        &self,
        request: RequestBuilder,
        url: &Url,
        max_bytes: usize,
        end: Option<Instant>,
        late: impl Fn() -> Error + Send,
    ) -> Result<Reply> {
        let sent = until(end, request.send()).await.ok_or_else(&late)?;
        let response = sent.map_err(|error| transport_error(error, url))?;
        self.read(response, max_bytes, end, late).await
    }

    /// Reads a reply's body. An error reply is useful even if its body is incomplete.
    async fn read(
        &self,
        mut response: Response,
        max_bytes: usize,
        end: Option<Instant>,
        late: impl Fn() -> Error + Send,
    ) -> Result<Reply> {
        let (status, headers) = (response.status(), response.headers().clone());
        let connection = connections::connection_of(&response);
        let is_error = !status.is_success();
        let about = |error: Error| of_reply(error, status, &headers);
        let length = response.content_length();
        let mut is_cut = !is_error && length.is_some_and(|length| length > max_bytes as u64);
        if is_cut && length.is_some_and(|length| length / ABSURD > max_bytes as u64) {
            return Err(about(too_large(max_bytes)));
        }
        // Of these, what can be read is enough.
        let in_part = is_error || is_cut;
        let (room_for, end) = match in_part {
            false => (max_bytes, end),
            true => {
                let soon = Instant::now() + MAX_ERROR_WAIT;
                let most = if is_error { self.options.max_error_bytes } else { BEGINNING };
                (max_bytes.min(most), Some(end.map_or(soon, |end| end.min(soon))))
            }
        };
        let mut body = Vec::new();
        if !in_part {
            body.reserve_exact(length.map_or(0, |length| length as usize));
        }
        loop {
            let chunk = match until(end, response.chunk()).await {
                Some(Ok(Some(chunk))) => chunk,
                Some(Ok(None)) => break,
                Some(Err(_)) | None if in_part => break,
                Some(Err(error)) => return Err(about(transport_error(error, response.url()))),
                None => return Err(about(late())),
            };
            let room = room_for - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                is_cut = true;
                break;
            }
        }
        let max_bytes = if is_error { room_for } else { max_bytes };
        Ok(Reply { status, headers, connection, body, max_bytes, has_content_length: length.is_some(), is_cut })
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("timeout", &self.options.timeout).finish_non_exhaustive()
    }
}

/// Makes the error of a request that took too long and cannot be made smaller: `what` did not come in this time.
fn too_late(what: &str, timeout: Duration) -> Error {
    let message = format!("{what} within {timeout:?}: allow more time (`with_timeout`)");
    Error::new(ErrorKind::Timeout, message).with_usage(Usage::of_unanswered())
}

/// Adds what the head of a reply says to an error about its body.
fn of_reply(error: Error, status: StatusCode, headers: &HeaderMap) -> Error {
    let error = error.with_status(status.as_u16());
    headers::request_id(headers).into_iter().fold(error, Error::with_request_id)
}

/// Whether a request surely did not reach the server, because there was no connection.
pub(crate) fn was_never_sent(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<reqwest::Error>());
    source.is_some_and(|source| source.is_connect() || source.is_builder())
}

/// Makes the error of a request that got no reply, or not all of it.
fn transport_error(error: reqwest::Error, url: &Url) -> Error {
    // A request that was not sent was not billed.
    let sent = !error.is_connect() && !error.is_builder();
    let (kind, message) = match tls_error(&error) {
        // The server itself ended the handshake. It may be broken or overloaded, which may pass.
        Some(rustls::Error::AlertReceived(_)) => {
            (ErrorKind::Unavailable, "no encrypted connection: the server refused the handshake")
        }
        Some(_) => (ErrorKind::Config, "no encrypted connection: the certificate is not trusted, or the port is wrong"),
        None if error.is_builder() => (ErrorKind::Config, "the request cannot be built"),
        None if error.is_connect() && error.is_timeout() => (ErrorKind::Timeout, "no connection in time"),
        None if error.is_connect() => (ErrorKind::Unavailable, "no connection"),
        None if error.is_timeout() => (ErrorKind::Timeout, "no reply in time"),
        None => (ErrorKind::Unavailable, "the connection ended before the reply did"),
    };
    let usage = if sent { Usage::of_unanswered() } else { Usage::ZERO };
    // The origin alone: a path or a query could hold a secret.
    let message = format!("{message} ({})", url.origin().ascii_serialization());
    Error::new(kind, message).with_source(error.without_url()).with_usage(usage)
}

/// Returns the TLS error among the causes.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(mut source) = cause {
        // `source` of an I/O error skips the error that it wraps, and gives that error's source.
        while let Some(inner) = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            source = inner;
        }
        if let Some(tls) = source.downcast_ref() {
            return Some(tls);
        }
        cause = source.source();
    }
    None
}
