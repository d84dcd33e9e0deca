//! Embeds with OpenAI's API, at OpenAI, Azure, or any server that speaks it: [`OpenAi`].

mod builder;
mod failure;
mod models;
mod reply;
mod tokens;

use std::{borrow::Cow, fmt, sync::Arc};

use async_trait::async_trait;
use reqwest::{Url, header::HeaderMap};
use serde::Serialize;
use tracing::{Instrument, Span, field};

pub use self::builder::OpenAiBuilder;
use crate::{
    BadText, BadTextReason, Batch, Embedder, Embeddings, Error, ErrorKind, InputKind, Limits, Payee, Prompts,
    PromptsBy, Result, Space, TokenCount, Truncation, Usage,
    http::{Http, Reply, headers},
    plan,
};

/// Bodies from this size on are decoded off the async executor: a millisecond's work.
const LARGE: usize = 1 << 20;

/// An embedder behind OpenAI's API.
///
/// ```no_run
/// use docvector_embed::{EmbedderExt, provider::OpenAi, wrap::RetryPolicy};
/// # async fn run() -> docvector_embed::Result<()> {
/// // Reads OPENAI_API_KEY. One request a call; `retry` tries again what may pass.
/// let embedder = OpenAi::from_env("text-embedding-3-small")?.retry(RetryPolicy::default());
/// let documents = embedder.embed_documents(&["Any number of texts,", "split by OpenAI's limits."]).await?;
/// assert_eq!(documents.dimensions(), 1536);
/// println!("{:?} tokens", documents.usage().tokens);
/// # Ok(()) }
/// ```
///
/// # Semantics
/// One `embed` call is one HTTP request. Vectors are asked for as base64, a quarter of the bytes of JSON numbers, and
/// accepted as both; rows are placed by `index`. What does not fit is an error, never a vector: another count, a
/// repeated or missing `index`, another width, a component that is not finite, a row of zeros.
///
/// For OpenAI's models the limits are 2,048 texts, 8,191 tokens a text and 300,000 tokens a request. Tokens are counted
/// with tiktoken's cl100k, each text at most once, and only where its bytes leave the answer open. Over-long texts are an
/// error by index, or [cut](crate::Truncation::Truncate) at a token and named in the result. They are never split and
/// averaged behind your back.
///
/// # Space
/// A space is named by the model, not by who runs it: `text-embedding-3-small` at OpenAI and at Azure is one space, at
/// 512 and at 1,536 dimensions two. For a model that is not OpenAI's, say what it is with
/// [`with_space`](OpenAiBuilder::with_space). Where it was trained with prompts, give them: they are put before the texts
/// here, and a query without its prompt is an error.
///
/// # Errors
/// The [kind](crate::ErrorKind) says what to do: [`RateLimited`](crate::ErrorKind::RateLimited),
/// [`Unavailable`](crate::ErrorKind::Unavailable) and [`Timeout`](crate::ErrorKind::Timeout) may pass and are retried by
/// [`Retry`](crate::wrap::Retry); [`RateLimitWindow`](crate::ErrorKind::QuotaExhausted) and [`Auth`](crate::ErrorKind::Auth) will not.
/// Each error has the HTTP status, OpenAI's code, the request's id and the wait that was asked for, where there were
/// some, and what the call is known to have [cost](crate::Error::usage). The server's own words are in
/// [`provider_message`](crate::Error::provider_message) only, because they may quote a text.
///
/// # Cancellation
/// Dropping the future closes the connection. A request that was sent by then may be billed.
///
/// # Stacking
/// At the bottom: `Retry > RateLimit > Concurrency > Timeout > Metered > OpenAi`. Clones share connections.
///
/// # Cost
/// The reply's body is held once, as it comes, and its vectors are decoded straight into the result: no allocation a
/// row. Large replies are decoded off the async executor.
///
/// # Tracing
/// One span a call, `embeddings`, with the fields of OpenTelemetry's conventions for generative AI
/// (`gen_ai.request.model`, `gen_ai.usage.input_tokens`, `error.type`, ...). Never a text, a key or a body.
#[derive(Clone)]
pub struct OpenAi(Arc<Inner>);

struct Inner {
    /// What `Display` shows: `openai/text-embedding-3-small`.
    name: String,
    /// OpenTelemetry's name of who answers.
    vendor: &'static str,
    payee: Payee,
    url: Url,
    headers: HeaderMap,
    /// What the request calls the model; `None` where the URL names it.
    model: Option<String>,
    dimensions: Option<usize>,
    encoding: OpenAiEncoding,
    space: Space,
    limits: Limits,
    http: Http,
}

/// How vectors are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenAiEncoding {
    /// As base64 of little-endian 32-bit floats: a quarter of the bytes, and exact.
    #[default]
    Base64,
    /// As JSON numbers, for servers that know nothing else. Which they answer with is seen, not believed.
    Float,
}

impl OpenAi {
    /// Connects to OpenAI, or to what the environment names, with one of OpenAI's models.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `OPENAI_API_KEY` | the key; needed unless `OPENAI_BASE_URL` is set |
    /// | `OPENAI_BASE_URL` | another server, `/v1` included |
    /// | `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID` | whom to bill, where the key can bill several |
    ///
    /// # Errors
    /// Those of [`OpenAiBuilder::build`].
    pub fn from_env(model: impl Into<String>) -> Result<Self> {
        Self::builder(model).with_env().build()
    }

    /// Begins with a model, by OpenAI's name or the server's.
    pub fn builder(model: impl Into<String>) -> OpenAiBuilder {
        OpenAiBuilder::new(model.into())
    }

    /// The headers and body of a request, and the texts that were cut for it.
    async fn request(&self, batch: &Batch<'_>) -> Result<(Vec<u8>, Vec<usize>)> {
        let inner = &*self.0;
        batch.check_space(self.spaces())?;
        let mut counting = plan::count(batch, &inner.limits).await;
        let counted = counting.counted(batch).map_or(*batch, |counted| batch.with_counted(counted));
        counted.check(self.spaces(), &inner.limits)?;
        let prompt = prompt_of(inner.space.prompts(), batch.kind());
        let mut truncated = Vec::new();
        let mut input: Vec<Cow<'_, str>> = Vec::with_capacity(batch.len());
        for (index, &text) in batch.texts().iter().enumerate() {
            let mut text = text;
            if batch.truncation() == Truncation::Truncate && counting.is_over(batch, index) {
                text = self.cut(batch, index)?;
                truncated.push(index);
                plan::yield_once().await;
            }
            input.push(prompt.map_or(Cow::Borrowed(text), |prompt| Cow::Owned(format!("{prompt}{text}"))));
        }
        let request = Request {
            model: inner.model.as_deref(),
            input: &input,
            encoding_format: match inner.encoding {
                OpenAiEncoding::Base64 => "base64",
                OpenAiEncoding::Float => "float",
            },
            dimensions: inner.dimensions,
        };
        let body = serde_json::to_vec(&request).map_err(|error| {
            Error::new(ErrorKind::Config, "the request cannot be written as JSON").with_source(error)
        })?;
        Ok((body, truncated))
    }

    /// The beginning of a text that is too long.
    fn cut<'t>(&self, batch: &Batch<'t>, index: usize) -> Result<&'t str> {
        let (text, limits) = (batch.texts()[index], &self.0.limits);
        let (TokenCount::Exact(counter), Some(limit)) = (&limits.tokens, limits.tokens_of_one_text()) else {
            return Ok(text);
        };
        match counter.truncate(batch.kind(), text, limit) {
            // Not even a character: the prompt alone is too long.
            "" => {
                let tokens = counter.count_to(batch.kind(), text, limit);
                Err(Error::invalid_texts(vec![BadText::new(index, BadTextReason::TooLong { tokens, limit })]))
            }
            beginning => Ok(beginning),
        }
    }

    async fn embed_in_span(&self, batch: &Batch<'_>, span: &Span) -> Result<Embeddings> {
        let inner = &*self.0;
        let (body, truncated) = self.request(batch).await?;
        let rows = batch.len();
        let cap = reply::most_bytes(rows, inner.space.dimensions());
        // What is shown of the server's words must not be a piece of a text or of a secret.
        let quoted = |words: &str| batch.texts().iter().any(|text| quotes(words, text)) || self.holds(words);
        let unquoted = |error: Error| error.without_words(|words| !failure::is_known(words) && quoted(words));
        let reply = inner.http.post_json(&inner.url, &inner.headers, body, batch.deadline(), cap).await;
        let reply = reply.map_err(unquoted)?;
        let (status, rate_limit_status) = (reply.status, headers::rate_limit_status(&reply.headers));
        let id = headers::request_id(&reply.headers);
        let about = |error: Error| {
            let error = error.with_status(status.as_u16());
            let error = id.iter().fold(error, |error, id| error.with_request_id(id));
            unquoted(rate_limit_status.into_iter().fold(error, Error::with_rate_limit_status))
        };
        if !status.is_success() {
            return Err(about(failure::of(&reply, &inner.url)));
        }
        let read = self.read(reply, rows).await.map_err(about)?;
        if let Some(model) = read.model.filter(|model| self.is_name_like(model)) {
            span.record("gen_ai.response.model", model);
        }
        let embeddings = read.embeddings.with_truncated(truncated);
        Ok(rate_limit_status.into_iter().fold(embeddings, Embeddings::with_rate_limit_status))
    }

    async fn read(&self, reply: Reply, rows: usize) -> Result<reply::Read> {
        let (space, large) = (self.0.space.clone(), reply.len() >= LARGE);
        let read = move || reply::read(&reply.plain()?, rows, &space, reply.has_length);
        if !large {
            return read();
        }
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
            // Asked for again, it would be billed again.
            let message = match error.is_panic() {
                true => "decoding the reply failed, which is a mistake in this program",
                false => "the program is ending, and the reply was not decoded",
            };
            Err(Error::new(ErrorKind::Protocol, message).with_usage(Usage::of_request(None)))
        })
    }

    /// Whether what the server calls the model is the name that was asked for, or that with an addition: anything else
    /// could be words of a text.
    fn is_name_like(&self, model: &str) -> bool {
        let asked = self.0.model.as_deref().unwrap_or_else(|| self.0.space.model());
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@-".contains(c);
        model.len() <= 128 && model.starts_with(asked) && model.chars().all(plain)
    }

    /// Whether a secret of the request has these words in it.
    fn holds(&self, words: &str) -> bool {
        let mut secrets = self.0.headers.values().filter(|value| value.is_sensitive());
        secrets.any(|secret| secret.to_str().is_ok_and(|secret| quotes(words, secret.trim_start_matches("Bearer "))))
    }

    fn span(&self, batch: &Batch<'_>) -> Span {
        let inner = &*self.0;
        let model = inner.model.as_deref().unwrap_or_else(|| inner.space.model());
        let encoding = match inner.encoding {
            OpenAiEncoding::Base64 => "base64",
            OpenAiEncoding::Float => "float",
        };
        tracing::info_span!(
            "embeddings",
            otel.name = format_args!("embeddings {model}"),
            otel.kind = "client",
            gen_ai.operation.name = "embeddings",
            gen_ai.provider.name = inner.vendor,
            gen_ai.request.model = model,
            gen_ai.response.model = field::Empty,
            gen_ai.embeddings.dimension.count = inner.space.dimensions(),
            gen_ai.request.encoding_formats = encoding,
            gen_ai.usage.input_tokens = field::Empty,
            server.address = inner.url.host_str(),
            server.port = inner.url.port_or_known_default(),
            error.r#type = field::Empty,
            embed.batch.size = batch.len(),
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
        let span = self.span(&batch);
        let result = self.embed_in_span(&batch, &span).instrument(span.clone()).await;
        match &result {
            Ok(embeddings) => {
                if let Some(tokens) = embeddings.usage().exact_tokens() {
                    span.record("gen_ai.usage.input_tokens", tokens);
                }
            }
            Err(error) => {
                _ = span.record("error.type", field::display(error.provider_code().unwrap_or(error.kind().as_str())))
            }
        }
        let payee = &self.0.payee;
        result.map(|rows| rows.with_payee(payee)).map_err(|error| error.with_embedder(self).with_payee(payee))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.space)
    }

    fn limits(&self) -> Limits {
        self.0.limits.clone()
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

/// Whether words and a text have a piece in common. A few letters are a piece of anything.
fn quotes(words: &str, text: &str) -> bool {
    const PIECE: usize = 10;
    words == text
        || (text.len() >= 6 && words.contains(text))
        || words.as_bytes().windows(PIECE).any(|piece| memchr::memmem::find(text.as_bytes(), piece).is_some())
}

/// The request's body. Fields that do not apply are left out: servers refuse `null`.
#[derive(Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    input: &'a [Cow<'a, str>],
    encoding_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

/// The prompt that is put before a text here, and not by the server.
fn prompt_of(prompts: &Prompts, kind: InputKind) -> Option<&str> {
    prompts.of(kind).filter(|_| prompts.applied_by == PromptsBy::Client)
}

/// What the benchmarks measure alone. Not part of the API.
#[cfg(feature = "__bench")]
#[allow(missing_docs, unnameable_types)]
pub mod bench {
    use crate::{Embeddings, Result, Space};

    /// Reads a reply to a request of `rows` texts.
    ///
    /// # Errors
    /// Where the reply is not one.
    pub fn decode(body: &[u8], rows: usize, space: &Space) -> Result<Embeddings> {
        super::reply::read(body, rows, space, true).map(|read| read.embeddings)
    }
}
