//! Says how texts are to be embedded: [`Options`], borrowed with a batch, and [`OwnedOptions`], which outlive it.

use std::{sync::Arc, time::Instant};

use crate::{InputKind, SpaceId, named::named};

/// The treatment of a text that is longer than the model takes.
///
/// Set by [`Batch::with_truncation`](crate::Batch::with_truncation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Truncation {
    /// The call fails, and the error names every such text.
    #[default]
    Error,
    /// Its beginning is embedded, and the result names it in [`Embeddings::truncated`](crate::Embeddings::truncated).
    Truncate,
}

named! {
    /// Returns the name: `error` or `truncate`.
    Truncation, "a treatment of over-long texts",
    Error = "error",
    Truncate = "truncate",
}

/// The queue that the work waits in, if an embedder has queues.
///
/// Set by [`Batch::with_lane`](crate::Batch::with_lane).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Lane {
    /// Somebody waits for the result, so it goes ahead of bulk work. The default for queries.
    Interactive,
    /// Throughput matters, latency does not. The default for documents.
    Bulk,
}

named! {
    /// Returns the name: `interactive` or `bulk`.
    Lane, "a lane",
    Interactive = "interactive",
    Bulk = "bulk",
}

impl Lane {
    /// Returns the default lane of texts of this kind.
    pub const fn of(kind: InputKind) -> Self {
        match kind {
            InputKind::Document => Self::Bulk,
            InputKind::Query => Self::Interactive,
        }
    }

    /// Returns `true` if a call of this lane is at least as quick as a caller of lane `other` expects, so that the
    /// caller may wait for it.
    pub(crate) const fn serves(self, other: Self) -> bool {
        matches!((self, other), (Self::Interactive, _) | (_, Self::Bulk))
    }
}

/// The options for embedding texts: everything in a [`Batch`](crate::Batch) except its texts. Borrowed and `Copy`.
///
/// ```
/// use docvector_embed::{Batch, InputKind, Lane};
/// let batch = Batch::documents(&["a text"]).with_key("library:serde").with_lane(Lane::Interactive);
/// // Keep the options for later, and use them for other texts: none is forgotten.
/// let kept = batch.options().to_owned();
/// let later = Batch::with_options(&["another"], kept.borrow());
/// assert_eq!(later.options(), batch.options());
/// assert_eq!(later.kind(), InputKind::Document);
/// ```
///
/// The fields are public, so that many batches can use the same options:
///
/// ```
/// use docvector_embed::{Batch, EmbedderExt, InputKind, Options, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut options = Options::new(InputKind::Document);
/// options.key = Some("library:serde");
/// for texts in [["a", "b"], ["c", "d"]] {
///     Fake::new(8).embed_all(Batch::with_options(&texts, options)).await?;
/// }
/// # Ok(()) }) }
/// ```
///
/// # Default
/// No routing key, tenant, trace or wanted space; over-long texts are an error; the lane of the kind; no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Options<'a> {
    /// The kind of the texts. Setting it does not change the lane: begin with [`new`](Self::new) of the kind.
    pub kind: InputKind,
    /// The routing key: texts with the same key go to the same arm of a split.
    pub key: Option<&'a str>,
    /// The tenant on whose behalf the texts are embedded, for accounting. It is never part of what is embedded or
    /// cached.
    pub tenant: Option<&'a str>,
    /// The trace that the call belongs to, as a W3C `traceparent`. It is for embedders that call a service of your own,
    /// and is not sent to providers.
    pub trace: Option<&'a str>,
    /// The space that the vectors must lie in.
    pub space: Option<SpaceId>,
    /// The treatment of over-long texts.
    pub truncation: Truncation,
    /// The queue that the work waits in.
    pub lane: Lane,
    /// The moment after which the result is of no use. It is a moment and not a duration: set it again for each batch.
    pub deadline: Option<Instant>,
}

impl<'a> Options<'a> {
    /// Returns the default options for texts of this kind.
    pub const fn new(kind: InputKind) -> Self {
        let (key, tenant, trace, space, deadline) = (None, None, None, None, None);
        Self { kind, key, tenant, trace, space, truncation: Truncation::Error, lane: Lane::of(kind), deadline }
    }

    /// Copies the options, so that they can outlive the batch.
    #[must_use]
    pub fn to_owned(&self) -> OwnedOptions {
        // Every field by name: a new one cannot be forgotten here.
        let Self { kind, key, tenant, trace, space, truncation, lane, deadline } = *self;
        let (key, tenant, trace) = (key.map(Into::into), tenant.map(Into::into), trace.map(Into::into));
        OwnedOptions { kind, key, tenant, trace, space, truncation, lane, deadline }
    }
}

/// [`Options`] that can outlive the batch that they came with. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OwnedOptions {
    /// See [`Options::kind`].
    pub kind: InputKind,
    /// See [`Options::key`].
    pub key: Option<Arc<str>>,
    /// See [`Options::tenant`].
    pub tenant: Option<Arc<str>>,
    /// See [`Options::trace`].
    pub trace: Option<Arc<str>>,
    /// See [`Options::space`].
    pub space: Option<SpaceId>,
    /// See [`Options::truncation`].
    pub truncation: Truncation,
    /// See [`Options::lane`].
    pub lane: Lane,
    /// See [`Options::deadline`].
    pub deadline: Option<Instant>,
}

impl OwnedOptions {
    /// Returns the default options for texts of this kind.
    pub const fn new(kind: InputKind) -> Self {
        let (key, tenant, trace, space, deadline) = (None, None, None, None, None);
        Self { kind, key, tenant, trace, space, truncation: Truncation::Error, lane: Lane::of(kind), deadline }
    }

    /// Lends the options to a batch.
    pub fn borrow(&self) -> Options<'_> {
        let Self { kind, key, tenant, trace, space, truncation, lane, deadline } = self;
        let (kind, space, truncation, lane, deadline) = (*kind, *space, *truncation, *lane, *deadline);
        let (key, tenant, trace) = (key.as_deref(), tenant.as_deref(), trace.as_deref());
        Options { kind, key, tenant, trace, space, truncation, lane, deadline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::check_names;

    #[test]
    fn names_are_read_back() {
        check_names(Lane::ALL);
        check_names(Truncation::ALL);
        let error = "Bulk".parse::<Lane>().expect_err("another case");
        assert_eq!(
            crate::Error::from(error).to_string(),
            "wrong configuration: \"Bulk\" as a lane: it must be one of interactive, bulk"
        );
        assert!("x".repeat(1 << 20).parse::<Lane>().expect_err("no name").message().len() < 500);
    }
}
