//! Embeds through an embedding service, at one of its endpoints: [`Remote`].

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    call, choice, contact::contact, endpoint::Endpoint, inner::Inner, sending::Call, stats::RemoteEndpointStats,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space,
    explanation::Explanation,
    http::{connections::Connections, was_never_sent},
    planner,
    provider::service_headers::ServedBy,
};

/// Embeds through an embedding service: this crate's own server, text-embeddings-inference, or with the feature `openai`
/// a server that speaks OpenAI's API.
///
/// ```no_run
/// use docvector_embed::{EmbedderExt, provider::Remote, wrap::RetryPolicy};
/// # async fn run() -> docvector_embed::Result<()> {
/// // Learns the dialect, the space and the limits from the service. One call is one request; `retry` repeats it.
/// let embedder = Remote::connect("http://127.0.0.1:8080").await?.retry(RetryPolicy::default());
/// let documents = embedder.embed_documents(&["Any number of texts,", "split by the service's limits."]).await?;
/// println!("{} in {}", documents.len(), documents.space());
/// # Ok(()) }
/// ```
///
/// A program that must start while the service is down states the space, and connects with its first call:
///
/// ```
/// use docvector_embed::{EmbedderExt, Space, provider::Remote};
/// # fn main() -> docvector_embed::Result<()> {
/// // Stored beside the collection, by `Space::to_text`.
/// let stored = "id=a39b12dacbab517a740c39a05e880932 model=\"text-embedding-3-small\" dimensions=1536 normalization=l2 \
///               precision=full";
/// let space: Space = stored.parse()?;
/// let embedder = Remote::builder("http://one.example:8080")
///     .with_endpoint("http://two.example:8080")
///     .with_space(space.clone())
///     .build()?;
/// assert_eq!(embedder.space()?, &space);
/// assert_eq!(embedder.to_string(), "remote/text-embedding-3-small");
/// # Ok(()) }
/// ```
///
/// # Semantics
/// One `embed` call is one HTTP request to one [endpoint](crate::provider::RemoteBuilder::with_endpoint). `Remote` does
/// not retry: only if the request surely had no effect, it goes to another endpoint once. That is so if there was no
/// connection, if the server refused the request with 429 or 503 or because its space is another one, or if it could not
/// be found out what the server serves.
///
/// A call goes to the less busy one of two random endpoints, by the bytes that are not answered yet. An endpoint that
/// failed rests: 1 s, doubling to 30 s, or as long as the server asked, and at most 2 minutes. Meanwhile the others are
/// asked; if all rest, the one whose rest ends first.
///
/// | dialect | request | over-long texts | tokens |
/// |---|---|---|---|
/// | [`Docvector`](crate::provider::RemoteDialect::Docvector) | all options of the batch; rows come back as binary numbers | the service finds, truncates and names them | reported |
/// | [`TextEmbeddingsInference`](crate::provider::RemoteDialect::TextEmbeddingsInference) | texts, as JSON both ways | see below | reported by this crate's service only |
/// | `OpenAi` | as [`OpenAi`](crate::provider) sends it | see below | reported |
///
/// In the last two dialects no reply names a text. If the limits have an exact [counter](crate::TokenCount::Exact),
/// over-long texts are found, truncated and named here. Without one, the service refuses the call or truncates in silence,
/// as the batch says, and results name truncated texts only if this crate's service says that all of them were.
/// [`embed_each`](crate::EmbedderExt::embed_each) finds the texts of a refused call.
///
/// The routing key, the tenant and the trace of a batch go to this crate's own service, and to no other server.
///
/// # Space
/// This crate's own service states its space with each reply, in every dialect. If it is another one, as after a restart
/// with another model, the call fails with [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) and the rows are thrown
/// away. The service puts the space's prompts before texts, whoever the space says does it.
///
/// Another server does not say which model answers. So before it gets texts, it embeds a probe text, and the vector must
/// be that of the first time: the cosine must be at least 0.999, or 0.99 in a space of int8. It does so at the first call
/// to each endpoint, after each call that failed with a broken connection, a time limit or a status from 500 on, and after
/// 10 minutes. A server that is restarted loses its connections, so it does so too when a reply came over a new one, before
/// the rows are returned. A server that is replaced behind a proxy is found after 10 minutes at the latest. With
/// [`with_probe`](crate::provider::RemoteBuilder::with_probe) the vector of the first time outlives the program. If the
/// space says that the client applies prompts, they are put before the texts here. If the server applies them, a server of
/// text-embeddings-inference is asked for its prompt `query` or `document`.
///
/// The first call to an endpoint also asks for `GET /info`, which tells this crate's own service from other servers and
/// has its limits.
///
/// # Errors
/// The [kind](crate::ErrorKind) is the one that the service names, and so are the bad texts, by the caller's indices. If a
/// reply names none, as that of a gateway, the status decides. [`Overloaded`](crate::ErrorKind::Overloaded),
/// [`RateLimited`](crate::ErrorKind::RateLimited), [`Unavailable`](crate::ErrorKind::Unavailable) and
/// [`Timeout`](crate::ErrorKind::Timeout) may pass, and [`Retry`](crate::wrap::Retry) retries them after the wait that the
/// service asks for. Each error has the HTTP status, the request's id and the known [cost](crate::Error::usage). The
/// server's own words are only in [`provider_message`](crate::Error::provider_message), because they may quote a text.
///
/// # Cancellation
/// Dropping the future closes the connection, and this crate's service then drops what it has not begun. The deadline of a
/// batch goes with the request, as the time that is left.
///
/// # Stacking
/// The bottom of a stack: `Retry > Concurrency > Timeout > Metered > Remote`. A [`Resilient`](crate::wrap::Resilient) over
/// `Remote` and `Onnx` goes on here while the service is down. Clones share connections, rests and counters. The page of
/// [`OpenAi`](crate::provider) says what a program with TLS of its own has to do; the same holds here.
///
/// # Cost
/// Rows of a binary reply are copied once, into the result, and checked once. Numbers in JSON are parsed straight into the
/// result. Large replies are decoded off the async executor. A probe is told to the call that caused it.
///
/// # Tracing
/// One span per request, `embeddings`, with the fields of OpenTelemetry's conventions for generative AI. It never holds a
/// text, a key or a body.
#[derive(Clone)]
pub struct Remote(pub(super) Arc<Inner>);

/// A call that failed at one endpoint.
struct Failure {
    error: Error,
    /// Whether the texts surely were not embedded there, so that another endpoint may be asked at once.
    had_no_effect: bool,
}

impl Remote {
    /// Asks every endpoint what it serves, now and not with the next call, and has foreign servers embed the probe text.
    ///
    /// # Errors
    /// [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) if an endpoint serves another model, else the first error of an
    /// endpoint. The error has the cost of all probes.
    pub async fn verify(&self) -> Result<()> {
        let inner = &*self.0;
        let results = join_all(inner.endpoints.iter().map(async |endpoint| {
            endpoint.known.forget();
            let mut cost = Charges::NONE;
            let found = contact(inner, endpoint, &Batch::documents(&[]), &mut cost, None).await;
            found.as_ref().err().into_iter().for_each(|error| endpoint.stayed_unknown(error));
            (found.err(), cost)
        }));
        let results = results.await;
        let cost: Charges = results.iter().map(|(_, cost)| cost).sum();
        let mut problems: Vec<Error> = results.into_iter().filter_map(|(problem, _)| problem).collect();
        // A wrong model is what the caller must hear of, whatever else was wrong.
        let worst = problems.iter().position(|problem| problem.kind() == ErrorKind::SpaceMismatch).unwrap_or(0);
        if problems.is_empty() {
            return Ok(());
        }
        Err(self.named(problems.swap_remove(worst).with_charges(&cost)))
    }

    /// Returns how each endpoint fares, in the order in which they were given.
    pub fn endpoints(&self) -> Vec<RemoteEndpointStats> {
        self.0.endpoints.iter().map(Endpoint::stats).collect()
    }

    /// Embeds a batch at one endpoint, and at another one if the first surely did nothing.
    async fn embed_somewhere(&self, batch: &Batch<'_>) -> Result<Embeddings> {
        let endpoints = &self.0.endpoints;
        let Some(first) = choice::choose(endpoints) else {
            return Err(Error::new(ErrorKind::Config, "there is no endpoint: give one to `Remote::builder`"));
        };
        let Failure { error, had_no_effect } = match self.embed_at(first, batch).await {
            Ok(rows) => return Ok(rows),
            Err(failure) => failure,
        };
        let second = if had_no_effect && !batch.is_late() { choice::choose_other(endpoints, first) } else { None };
        let Some(second) = second else { return Err(error) };
        match self.embed_at(second, batch).await {
            Ok(rows) => Ok(rows.with_charges(&error.total_charges())),
            Err(failure) => Err(failure.error.with_charges(&error.total_charges())),
        }
    }

    /// Embeds a batch at one endpoint, once it is known what answers there.
    async fn embed_at(&self, endpoint: &Endpoint, batch: &Batch<'_>) -> Result<Embeddings, Failure> {
        let inner = &*self.0;
        let _under_way = endpoint.begin(batch);
        let mut cost = Charges::NONE;
        let server = match contact(inner, endpoint, batch, &mut cost, None).await {
            Ok(server) => server,
            Err(error) => {
                let is_late = error.kind() == ErrorKind::DeadlinePassed;
                if !is_late {
                    endpoint.stayed_unknown(&error);
                }
                return Err(Failure { error: error.with_charges(&cost), had_no_effect: !is_late });
            }
        };
        let connections = Connections::default();
        match call::embed(Call { inner, endpoint, batch, server, connections: &connections }).await {
            Ok(rows) => {
                if server == ServedBy::Other && inner.probe.is_some() {
                    let proven = self.prove(endpoint, batch, &connections.noted(), &mut cost).await;
                    if let Err(error) = proven {
                        let error = error.with_charges(rows.charges()).with_charges(&cost);
                        return Err(Failure { error, had_no_effect: false });
                    }
                }
                endpoint.succeeded();
                Ok(rows.with_charges(&cost))
            }
            Err(error) => {
                endpoint.failed(&error);
                let had_no_effect = was_never_sent(&error) || matches!(error.status(), Some(409 | 429 | 503));
                Err(Failure { error: self.located(error, endpoint).with_charges(&cost), had_no_effect })
            }
        }
    }

    /// Finds out whether rows that came over new connections are of the right model: the server may have been restarted.
    async fn prove(
        &self,
        endpoint: &Endpoint,
        batch: &Batch<'_>,
        connections: &[SocketAddr],
        cost: &mut Charges,
    ) -> Result<()> {
        if endpoint.known.has_all(connections) {
            return Ok(());
        }
        let found = contact(&self.0, endpoint, batch, cost, Some(Instant::now())).await;
        let found = found.and_then(|server| match server {
            ServedBy::Other => Ok(()),
            ServedBy::Own => {
                let message =
                    format!("another program answers at {} by now, so its last rows are not used", endpoint.origin);
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        });
        match &found {
            Ok(()) => endpoint.known.add(connections),
            Err(error) if error.kind() == ErrorKind::DeadlinePassed => {}
            Err(error) => endpoint.stayed_unknown(error),
        }
        found
    }

    /// Says in an error which of several endpoints it is about.
    fn located(&self, error: Error, endpoint: &Endpoint) -> Error {
        let is_said =
            self.0.endpoints.len() < 2 || error.message().is_empty() || error.message().contains(&endpoint.origin);
        if is_said { error } else { error.while_doing(&endpoint.origin) }
    }

    fn named(&self, error: Error) -> Error {
        error.with_embedder(self).with_payee(&self.0.payee)
    }
}

#[async_trait]
impl Embedder for Remote {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let limits = self.limits();
        let counting = planner::check(&batch, self.spaces(), &limits).await.map_err(|error| self.named(error))?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&self.0.space));
        }
        let batch = batch.with_counted(counting.counted(&batch));
        let result = self.embed_somewhere(&batch).await;
        result.map(|rows| rows.with_payee(&self.0.payee)).map_err(|error| self.named(error))
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

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins: Vec<&str> = self.0.endpoints.iter().map(|endpoint| endpoint.origin.as_str()).collect();
        f.debug_struct("Remote")
            .field("name", &self.0.name)
            .field("dialect", &self.0.dialect)
            .field("endpoints", &origins)
            .field("space", &self.0.space.id())
            .field("limits", &self.limits())
            .finish_non_exhaustive()
    }
}
