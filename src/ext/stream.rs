//! Embeds a stream of texts in windows of bounded size: [`StreamOptions`].

use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::oneshot;

use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, InputKind, Lane, OwnedOptions, Partial, Result, SpaceId,
    Truncation, Usage, driven::Driven, ext::embed_all,
};

/// The texts per window, unless the caller sets them or the embedder takes more per call.
const WINDOW_TEXTS: usize = 1024;

/// The options of [`embed_stream`](crate::EmbedderExt::embed_stream): its windows, and the options of its batches.
///
/// # Default
/// - window: 1,024 texts, or as many as the embedder takes per call if that is more; or 4 MiB of text, if that is
///   reached first;
/// - 2 windows at once, so that the embedder is never idle while the next texts are read;
/// - over-long texts are an error; the bulk lane; no routing key, tenant, trace or wanted space; no deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamOptions {
    options: OwnedOptions,
    window_texts: Option<usize>,
    window_bytes: usize,
    windows: usize,
}

impl StreamOptions {
    /// Returns the default options for a stream of texts of this kind.
    pub const fn new(kind: InputKind) -> Self {
        let mut options = OwnedOptions::new(kind);
        options.lane = Lane::Bulk;
        Self { options, window_texts: None, window_bytes: 4 << 20, windows: 2 }
    }

    /// Sets all options of the batches at once, the lane included.
    #[must_use]
    pub fn with_options(mut self, options: OwnedOptions) -> Self {
        self.options = options;
        self
    }

    /// Returns the options of the batches.
    pub const fn options(&self) -> &OwnedOptions {
        &self.options
    }

    /// Sets what happens to over-long texts.
    #[must_use]
    pub const fn with_truncation(mut self, truncation: Truncation) -> Self {
        self.options.truncation = truncation;
        self
    }

    /// Sets the [routing key](Batch::with_key) of all texts.
    #[must_use]
    pub fn with_key(mut self, key: impl AsRef<str>) -> Self {
        self.options.key = Some(key.as_ref().into());
        self
    }

    /// Sets the [tenant](Batch::with_tenant) on whose behalf the texts are embedded.
    #[must_use]
    pub fn with_tenant(mut self, tenant: impl AsRef<str>) -> Self {
        self.options.tenant = Some(tenant.as_ref().into());
        self
    }

    /// Sets the [trace](Batch::with_trace) that the calls belong to.
    #[must_use]
    pub fn with_trace(mut self, trace: impl AsRef<str>) -> Self {
        self.options.trace = Some(trace.as_ref().into());
        self
    }

    /// Sets the [space](Batch::with_space) that the vectors must lie in.
    #[must_use]
    pub const fn with_space(mut self, space: SpaceId) -> Self {
        self.options.space = Some(space);
        self
    }

    /// Sets the [lane](Batch::with_lane): the queue that the work waits in.
    #[must_use]
    pub const fn with_lane(mut self, lane: Lane) -> Self {
        self.options.lane = lane;
        self
    }

    /// Sets the [moment](Batch::with_deadline) after which the results are of no use: one moment for all windows.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Instant) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Sets the most texts per window. With 0, the stream's only item is a [`Config`](ErrorKind::Config) error.
    #[must_use]
    pub const fn with_window_texts(mut self, texts: usize) -> Self {
        self.window_texts = Some(texts);
        self
    }

    /// Sets the most bytes of text per window. A window holds at least one text, however long.
    #[must_use]
    pub const fn with_window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// Sets the number of windows that are embedded at once. With 0, the stream's only item is a
    /// [`Config`](ErrorKind::Config) error.
    #[must_use]
    pub const fn with_windows_in_flight(mut self, windows: usize) -> Self {
        self.windows = windows;
        self
    }

    /// Refuses values that make no sense.
    fn check(&self) -> Result<()> {
        let message = match (self.window_texts, self.windows) {
            (Some(0), _) => "a window of 0 texts holds nothing: `with_window_texts` takes at least 1",
            (_, 0) => "with 0 windows in flight nothing is embedded: `with_windows_in_flight` takes at least 1",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, message))
    }
}

/// Implements [`EmbedderExt::embed_stream`](crate::EmbedderExt::embed_stream).
///
/// A window under way holds places in gates and rate limits, and has a time limit. So it must go on while the consumer
/// of the stream is busy, perhaps with a call that waits for one of those places: each window is [`Driven`].
pub(super) fn embed_stream<E, T, S>(
    embedder: &E,
    texts: S,
    options: StreamOptions,
) -> impl Stream<Item = Result<Embeddings>> + Send + use<E, T, S>
where
    E: Embedder + Clone,
    T: AsRef<str> + Send + Sync + 'static,
    S: Stream<Item = T> + Send,
{
    let refused = options.check().err().map(|error| error.with_embedder(embedder));
    let StreamOptions { options, window_texts, window_bytes, windows: in_flight } = options;
    let most_texts = window_texts.unwrap_or_else(|| embedder.limits().texts.unwrap_or(0).max(WINDOW_TEXTS));
    let windows = windows(texts, most_texts, window_bytes);
    let embedder = embedder.clone();
    let embed = move |(first, window): (usize, Vec<T>)| {
        let (embedder, options) = (embedder.clone(), options.clone());
        let embedded = Driven::new(async move {
            let texts: Vec<&str> = window.iter().map(AsRef::as_ref).collect();
            let result = embed_all(&embedder, Batch::with_options(&texts, options.borrow())).await;
            result.map_err(|error| error.map_indices(|index| [first + index]))
        });
        async move { (first, embedded.await.unwrap_or_else(|| Err(ended()))) }
    };
    // Sent when no further windows are to begin.
    let (stop, stopped) = oneshot::channel::<()>();
    let embedded = Box::pin(windows.take_until(stopped).map(embed).buffered(in_flight.max(1)));
    let embedded = stream::unfold((embedded, Some(stop)), |(mut embedded, stop)| async move {
        // A consumer that reads in order cannot place rows that come after missing ones. So an error is the last item.
        let stop = stop?;
        let mut error = match embedded.next().await? {
            (_, Ok(rows)) => return Some((Ok(rows), (embedded, Some(stop)))),
            (_, Err(error)) => error,
        };
        // Later windows that have begun are paid for: their rows and charges go with the error.
        let _ = stop.send(());
        let (mut finished, mut charges) = (Vec::new(), Charges::NONE);
        while let Some((first, result)) = embedded.next().await {
            match result {
                Ok(rows) => finished.extend(Partial::new((first..first + rows.len()).collect(), rows)),
                Err(later) => {
                    // Bad texts are named all at once, whichever window they were in, as in `embed_all`.
                    if !error.bad_texts().is_empty() {
                        error = error.with_more_bad_texts(later.bad_texts());
                    }
                    charges += later.charges();
                    finished.extend(later.into_partials());
                }
            }
        }
        Some((Err(error.with_charges(&charges).with_more_partials(finished)), (embedded, None)))
    });
    match refused {
        None => embedded.left_stream(),
        Some(error) => stream::once(async { Err(error) }).right_stream(),
    }
}

/// Makes the error of a window whose runtime ended. Its cost is not known.
fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the tokio runtime that embedded this window has ended")
        .with_usage(Usage::of_given_up())
}

/// Groups texts into windows, each with the stream index of its first text.
fn windows<T: AsRef<str> + Send>(
    texts: impl Stream<Item = T> + Send,
    max_texts: usize,
    max_bytes: usize,
) -> impl Stream<Item = (usize, Vec<T>)> + Send {
    struct State<S, T> {
        texts: S,
        next: usize,
        /// The text that did not fit into the last window.
        over: Option<T>,
    }
    let state = State { texts: Box::pin(texts.fuse()), next: 0, over: None };
    stream::unfold(state, move |mut state| async move {
        let mut window: Vec<T> = state.over.take().into_iter().collect();
        let mut bytes: usize = window.iter().map(|text| text.as_ref().len()).sum();
        while window.is_empty() || (window.len() < max_texts && bytes < max_bytes) {
            let Some(text) = state.texts.next().await else { break };
            let length = text.as_ref().len();
            if !window.is_empty() && bytes + length > max_bytes {
                state.over = Some(text);
                break;
            }
            bytes += length;
            window.push(text);
        }
        let first = state.next;
        state.next += window.len();
        (!window.is_empty()).then_some(((first, window), state))
    })
}
