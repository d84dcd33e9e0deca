//! Sends a batch as one request and returns the rows of its reply: [`OpenAi`].

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use tracing::{Instrument, Span, field};

use super::{endpoint::Endpoint, failure, halves, model_name, reply, request};
use crate::{
    Batch, Embedder, Embeddings, Error, Limits, Result, Space, Usage,
    explanation::Explanation,
    http::{Reply, connections::Connections, headers, redaction},
    provider::{decoding, service_headers},
    telemetry,
};

/// Embeds through OpenAI's API.
///
/// ```no_run
/// use docvector_embed::{EmbedderExt, provider::OpenAi, wrap::RetryPolicy};
/// # async fn run() -> docvector_embed::Result<()> {
/// // Reads OPENAI_API_KEY. One call is one request; `retry` repeats a request whose error may pass.
/// let embedder = OpenAi::from_env("text-embedding-3-small")?.retry(RetryPolicy::default());
/// let documents = embedder.embed_documents(&["Any number of texts,", "split by OpenAI's limits."]).await?;
/// assert_eq!(documents.dimensions(), 1536);
/// println!("{:?} tokens", documents.usage().tokens);
/// # Ok(()) }
/// ```
///
/// # A program with TLS of its own
/// `OpenAi` names its cryptography itself: ring. It needs nothing installed and installs nothing. But Cargo gives one
/// dependency one set of features for the whole program, and the feature `openai` adds two:
///
/// - `rustls/ring`. A program whose own rustls has aws-lc, the default, then has two providers. Where it lets rustls
///   choose, as in `ClientConfig::builder()`, rustls panics.
/// - `reqwest/rustls-no-provider`. A program whose own reqwest has no TLS then has TLS without a provider, and
///   `reqwest::Client::new()` panics: "No rustls crypto provider is configured".
///
/// In both cases, name a provider at the beginning of `main`. This takes `rustls` as a dependency of the program, with
/// the feature `ring` or `aws_lc_rs`:
///
/// ```ignore
/// rustls::crypto::ring::default_provider().install_default().expect("no other is installed yet");
/// ```
///
/// A program without rustls and reqwest of its own, or whose reqwest has its default features, needs none of this.
///
/// # Semantics
/// One `embed` call is one HTTP request. Only if the server refuses it because all its texts together are too large
/// (code `max_tokens_per_request`), its halves are sent instead, one after the other. A request asks for vectors as
/// base64, a quarter of the bytes of JSON numbers; replies may have either form. Rows are placed by `index`. A reply that does not match is an error: a wrong row count, a
/// repeated or missing `index`, a wrong width, a component that is not finite, a row of zeros. Only the first row may
/// leave out its `index`, as Google's server does: it is 0. If the reply names another model, the log has one warning.
///
/// For OpenAI's models the limits are 2,048 texts per request, 8,191 tokens per text, and 300,000 tokens and 1,200,000
/// bytes of text per request: OpenAI estimates the tokens of a request as a quarter of its bytes. A text of more bytes
/// is refused, even if over-long texts are truncated. Tokens are counted with tiktoken's cl100k, once per text at most, and only if the text's bytes leave the answer
/// open. An over-long text is an error that names its index, or it is [truncated](crate::Truncation::Truncate) at a
/// token and named in the result. Texts are never split and averaged.
///
/// For other models the limit is 64 texts per request, unless
/// [`with_limits`](crate::provider::OpenAiBuilder::with_limits) sets others. If a server says that it takes fewer, the
/// embedder and its clones keep to that, and the log has one warning.
///
/// # Space
/// The model names the space, whoever runs it: `text-embedding-3-small` is one space at OpenAI and at Azure. With 512
/// and with 1,536 dimensions it is two spaces. For a model that is not OpenAI's, give its space by
/// [`with_space`](crate::provider::OpenAiBuilder::with_space). If the model was trained with prompts, give them too:
/// the embedder puts them before the texts. If you say nothing about prompts for a model that is known to need them,
/// [`build`](crate::provider::OpenAiBuilder::build) fails and names them. What you say is taken as it is.
///
/// This crate's own service states the space of each reply, by the header `x-embed-space`. If it is another one, the call
/// fails with [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch). Such a service puts prompts before texts itself, so for a
/// model with prompts, ask it through `provider::Remote`.
///
/// # Errors
/// The [kind](crate::ErrorKind) says what to do. [`RateLimited`](crate::ErrorKind::RateLimited),
/// [`Unavailable`](crate::ErrorKind::Unavailable) and [`Timeout`](crate::ErrorKind::Timeout) may pass, and
/// [`Retry`](crate::wrap::Retry) retries them. [`QuotaExhausted`](crate::ErrorKind::QuotaExhausted) and
/// [`Auth`](crate::ErrorKind::Auth) do not pass. Each error has what the reply told: the HTTP status, OpenAI's code,
/// the request's id, the wait that the server asks for in a header, in the body or in words. It also has the known [cost](crate::Error::usage) of the call.
/// The server's own words are only in [`provider_message`](crate::Error::provider_message), because they may quote a
/// text.
///
/// # Cancellation
/// Dropping the future closes the connection. The provider may bill a request that was already sent.
///
/// # Stacking
/// The bottom of a stack: `Retry > RateLimit > Concurrency > Timeout > Metered > OpenAi`. Clones share connections.
///
/// # Cost
/// The reply's body is held once, and its vectors are decoded straight into the result, without an allocation per row.
/// Large replies are decoded off the async executor.
///
/// # Tracing
/// One span per request, `embeddings`, with the fields of OpenTelemetry's conventions for generative AI
/// (`gen_ai.request.model`, `gen_ai.usage.input_tokens`, `error.type`, ...). It never holds a text, a key or a body.
#[derive(Clone)]
pub struct OpenAi(pub(in crate::provider) Arc<Endpoint>);

impl OpenAi {
    /// Embeds a batch that has texts, and notes over which connections the replies came.
    pub(in crate::provider) async fn embed_noting(
        &self,
        batch: &Batch<'_>,
        connections: &Connections,
    ) -> Result<Embeddings> {
        halves::embed(batch, |part| self.embed_at_once(part, connections)).await
    }

    /// Embeds a batch with one request, in a span of its own.
    async fn embed_at_once(&self, batch: Batch<'_>, connections: &Connections) -> Result<Embeddings> {
        let span = self.span(&batch);
        let result = self.embed_in_span(&batch, &span, connections).instrument(span.clone()).await;
        match &result {
            Ok(embeddings) => {
                if let Some(tokens) = embeddings.usage().exact_tokens() {
                    span.record(telemetry::INPUT_TOKENS, tokens);
                }
            }
            Err(error) => {
                _ = span.record(
                    telemetry::ERROR_TYPE,
                    field::display(error.provider_code().unwrap_or(error.kind().as_str())),
                )
            }
        }
        result
    }

    async fn embed_in_span(&self, batch: &Batch<'_>, span: &Span, connections: &Connections) -> Result<Embeddings> {
        let endpoint = &*self.0;
        // Read once: what is known of the server may change while this call waits.
        let server = endpoint.served_by();
        let (body, mut truncated) = request::body_of(endpoint, batch, server).await?;
        let rows = batch.len();
        let max_bytes = reply::max_bytes(rows, endpoint.space.dimensions());
        let headers = endpoint.headers_of(batch, server);
        // An error must not show a piece of a text or of a secret, which the server's words may quote.
        let quoted = |words: &str| {
            batch.texts().iter().any(|text| redaction::quotes(words, text))
                || redaction::quotes_secret(words, &endpoint.headers)
        };
        let unquoted = |error: Error| error.without_words(|words| !failure::is_known_code(words) && quoted(words));
        let reply = endpoint.http.post_json(&endpoint.url, &headers, body, batch.deadline(), max_bytes).await;
        let reply = reply.map_err(unquoted)?;
        connections.note(reply.connection);
        let (status, rate_limit_status) = (reply.status, headers::rate_limit_status(&reply.headers));
        let id = headers::request_id(&reply.headers);
        let about = |error: Error| {
            let error = error.with_status(status.as_u16());
            let error = id.iter().fold(error, |error, id| error.with_request_id(id));
            unquoted(rate_limit_status.into_iter().fold(error, Error::with_rate_limit_status))
        };
        if !status.is_success() {
            if let Some(error) = service_headers::refused_space(&reply.headers, &endpoint.space) {
                return Err(about(error.with_usage(Usage::of_request(Some(0)))));
            }
            let (error, told) = failure::error_of(&reply, endpoint, rows);
            told.into_iter().for_each(|texts| self.remember_texts(texts));
            return Err(about(error));
        }
        let stated = service_headers::check_space(&reply.headers, &endpoint.space, server);
        let truncated_by_server = service_headers::truncated(&reply.headers, rows);
        let saved = service_headers::saved(&reply.headers, rows);
        let read = self.decode(reply, rows).await;
        if let Err(error) = stated {
            let usage = read.map_or_else(|error| error.usage(), |read| read.embeddings.usage());
            return Err(about(error.with_usage(usage)));
        }
        let read = read.map_err(about)?;
        truncated.extend(truncated_by_server);
        if let Some(model) = &read.model {
            self.compare_model(model, || model_name::is_name(model) && !quoted(model), span);
        }
        let embeddings = read.embeddings.with_truncated(truncated).with_usage(saved);
        Ok(rate_limit_status.into_iter().fold(embeddings, Embeddings::with_rate_limit_status))
    }

    async fn decode(&self, reply: Reply, rows: usize) -> Result<reply::DecodedReply> {
        let (endpoint, bytes) = (self.0.clone(), reply.len());
        let read = move || {
            let body = reply.decompressed()?;
            if body.is_cut {
                return Err(reply::of_beginning(&body.bytes, rows, &endpoint.space, reply.too_large()));
            }
            let read = reply::read(&body.bytes, rows, &endpoint.space, reply.has_content_length);
            read.map_err(|error| failure::explain(error, &body.bytes, &endpoint))
        };
        decoding::decode(bytes, read).await
    }

    /// Notes who answers, as [`Remote`](crate::provider::Remote) found out.
    #[cfg(feature = "remote")]
    pub(in crate::provider) fn set_served_by(&self, server: service_headers::ServedBy) {
        if let Some(is_own) = &self.0.is_own_service {
            is_own.store(server == service_headers::ServedBy::Own, Ordering::Relaxed);
        }
    }

    /// Keeps to what the server said it takes per request, and warns of it once.
    fn remember_texts(&self, told: usize) {
        if self.0.remember_texts(told) {
            tracing::warn!(
                { telemetry::EMBEDDER } = %self,
                { telemetry::LIMIT_TEXTS } = told,
                "the server refused a request for its number of texts: no later request has more than it said; set the \
                 number by `with_limits`"
            );
        }
    }

    /// Notes the server's name of the model in the span, and warns once if it is that of another model. A name that
    /// could be words of a text is not shown; it takes a search of all texts to know.
    fn compare_model(&self, model: &str, is_shown: impl Fn() -> bool, span: &Span) {
        let asked = self.asked_model();
        let is_same = [asked, self.0.space.model()].into_iter().any(|asked| model_name::is_same(asked, model));
        if is_same && !span.is_disabled() && is_shown() {
            span.record(telemetry::RESPONSE_MODEL, model);
        }
        if is_same || model.is_empty() || self.0.told_other_model.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            { telemetry::EMBEDDER } = %self,
            { telemetry::REQUEST_MODEL } = asked,
            { telemetry::RESPONSE_MODEL } = if is_shown() { model } else { "(not shown)" },
            "another model answered than was asked for: check that its vectors lie in the declared space"
        );
    }

    /// Returns the model's name in requests, or that of the space if the URL names the model.
    fn asked_model(&self) -> &str {
        self.0.model.as_deref().unwrap_or_else(|| self.0.space.model())
    }

    fn span(&self, batch: &Batch<'_>) -> Span {
        let endpoint = &*self.0;
        let model = self.asked_model();
        tracing::info_span!(
            telemetry::REQUEST_SPAN,
            { telemetry::OTEL_NAME } = format_args!("embeddings {model}"),
            { telemetry::OTEL_KIND } = "client",
            { telemetry::OPERATION_NAME } = "embeddings",
            { telemetry::PROVIDER_NAME } = endpoint.vendor,
            { telemetry::REQUEST_MODEL } = model,
            { telemetry::RESPONSE_MODEL } = field::Empty,
            { telemetry::DIMENSION_COUNT } = endpoint.space.dimensions(),
            { telemetry::ENCODING_FORMATS } = endpoint.encoding.as_str(),
            { telemetry::INPUT_TOKENS } = field::Empty,
            { telemetry::SERVER_ADDRESS } = endpoint.url.host_str(),
            { telemetry::SERVER_PORT } = endpoint.url.port_or_known_default(),
            { telemetry::ERROR_TYPE } = field::Empty,
            { telemetry::BATCH_SIZE } = batch.len(),
        )
    }
}

#[async_trait]
impl Embedder for OpenAi {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        if batch.is_empty() {
            batch.check_space(self.spaces()).map_err(|error| error.with_embedder(self))?;
            return Ok(Embeddings::empty(&self.0.space));
        }
        let result = self.embed_noting(&batch, &Connections::default()).await;
        let payee = &self.0.payee;
        result.map(|rows| rows.with_payee(payee)).map_err(|error| error.with_embedder(self).with_payee(payee))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.space)
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::of_provider(self, batch, self.spaces(), &self.limits(), Some(&self.0.payee))
    }
}

impl fmt::Display for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("name", &self.0.name)
            .field("host", &self.0.url.host_str())
            .field("space", &self.0.space.id())
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}
