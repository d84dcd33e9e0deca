//! Asks for vectors: [`Batch`], the borrowed texts of one call and how they are to be embedded.

use std::{fmt, time::Instant};

use crate::{BadText, BadTextReason, Error, ErrorKind, Limits, Result, Space, SpaceId, TokenCount};

/// What the texts are: many models embed a document and a query about it differently, so the caller always says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InputKind {
    /// A text to be found.
    Document,
    /// A text to find others by.
    Query,
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Document => "document",
            Self::Query => "query",
        })
    }
}

/// What happens to a text that is longer than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TooLong {
    /// It is an error that names every such text.
    #[default]
    Error,
    /// Its beginning is embedded, and the result names it in [`Embeddings::truncated`](crate::Embeddings::truncated).
    Truncate,
}

/// Which queue the work waits in, where an embedder has queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Someone is waiting: ahead of bulk work. What queries get unless told otherwise.
    Interactive,
    /// Throughput matters, latency does not. What documents get unless told otherwise.
    Bulk,
}

/// The texts of one call and how to embed them. Borrowed and `Copy`.
///
/// ```
/// use docvector_embed::{Batch, InputKind, TooLong};
/// let batch = Batch::new(InputKind::Document, &["a text", "another"]).with_too_long(TooLong::Truncate).with_key("library:serde");
/// // Borrowed and `Copy`: a retry or a fall-back costs nothing.
/// let again = batch;
/// assert_eq!(again.len(), batch.len());
/// ```
///
/// Texts that are owned are borrowed first: `let texts: Vec<&str> = owned.iter().map(String::as_str).collect();`.
///
/// # Default
/// No routing key, no wanted space, over-long texts are an error, the lane of the kind, no deadline.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Batch<'a> {
    texts: &'a [&'a str],
    kind: InputKind,
    key: Option<&'a str>,
    space: Option<SpaceId>,
    too_long: TooLong,
    lane: Lane,
    deadline: Option<Instant>,
}

impl<'a> Batch<'a> {
    /// Asks for one vector a text.
    pub const fn new(kind: InputKind, texts: &'a [&'a str]) -> Self {
        let lane = match kind {
            InputKind::Document => Lane::Bulk,
            InputKind::Query => Lane::Interactive,
        };
        Self { texts, kind, key: None, space: None, too_long: TooLong::Error, lane, deadline: None }
    }

    /// Asks for the vectors of documents.
    pub const fn documents(texts: &'a [&'a str]) -> Self {
        Self::new(InputKind::Document, texts)
    }

    /// Asks for the vectors of queries.
    pub const fn queries(texts: &'a [&'a str]) -> Self {
        Self::new(InputKind::Query, texts)
    }

    /// Sets the routing key (`"library:react"`): what belongs together gets the same arm of a split.
    #[must_use]
    pub const fn with_key(mut self, key: &'a str) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the space that the vectors must lie in.
    #[must_use]
    pub const fn with_space(mut self, space: SpaceId) -> Self {
        self.space = Some(space);
        self
    }

    /// Sets what happens to over-long texts.
    #[must_use]
    pub const fn with_too_long(mut self, too_long: TooLong) -> Self {
        self.too_long = too_long;
        self
    }

    /// Sets the queue.
    #[must_use]
    pub const fn with_lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// Sets when the answer is of no more use. Work that has not begun by then is given up with
    /// [`DeadlinePassed`](ErrorKind::DeadlinePassed); work under way may still finish.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Asks the same of other texts, as a wrapper does for a part of its batch.
    #[must_use]
    pub const fn with_texts<'b>(self, texts: &'b [&'b str]) -> Batch<'b>
    where
        'a: 'b,
    {
        Batch { texts, ..self }
    }

    /// The texts, in the caller's order.
    pub const fn texts(&self) -> &'a [&'a str] {
        self.texts
    }

    /// How many texts there are.
    pub const fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are no texts.
    pub const fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// What the texts are.
    pub const fn kind(&self) -> InputKind {
        self.kind
    }

    /// The routing key.
    pub const fn key(&self) -> Option<&'a str> {
        self.key
    }

    /// The wanted space.
    pub const fn space(&self) -> Option<SpaceId> {
        self.space
    }

    /// What happens to over-long texts.
    pub const fn too_long(&self) -> TooLong {
        self.too_long
    }

    /// The queue.
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// When the answer is of no more use.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Checks all that can be checked before any work: what every `embed` begins with.
    ///
    /// # Errors
    /// - [`SpaceMismatch`](ErrorKind::SpaceMismatch): the wanted space is not among `spaces`.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): empty texts, or texts that no call can hold, all of them at once;
    ///   more texts or bytes than a call holds. Tokens are checked where they can be [counted](TokenCount::Exact) and
    ///   over-long texts are an error; a batch whose tokens can only be bounded passes.
    pub fn check(&self, spaces: &[Space], limits: &Limits) -> Result<()> {
        self.check_space(spaces)?;
        let mut bad = self.bad_texts(limits);
        let per_text = limits.tokens_of_one_text();
        let counted = match (&limits.tokens, self.too_long) {
            (TokenCount::Exact(counter), TooLong::Error) => per_text.map(|limit| (counter, limit)),
            _ => None,
        };
        if let Some((counter, limit)) = counted {
            bad.extend(self.texts.iter().enumerate().filter_map(|(index, text)| {
                if text.is_empty() || counter.at_most(self.kind, text) <= limit {
                    return None;
                }
                let tokens = counter.over(self.kind, text, limit)?;
                Some(BadText::new(index, BadTextReason::TooLong { tokens, limit }))
            }));
        }
        if !bad.is_empty() {
            return Err(Error::invalid_texts(bad));
        }
        let over = |what: &str, have: usize, limit: usize| {
            let message = format!("a call of {have} {what}, the limit is {limit}: use EmbedderExt, which splits");
            Err(Error::new(ErrorKind::InvalidInput, message))
        };
        if let Some(limit) = limits.texts.filter(|&limit| self.len() > limit) {
            return over("texts", self.len(), limit);
        }
        let bytes = self.texts.iter().map(|text| text.len()).sum();
        if let Some(limit) = limits.bytes.filter(|&limit| bytes > limit) {
            return over("bytes", bytes, limit);
        }
        if let (TokenCount::Exact(counter), Some(limit)) = (&limits.tokens, limits.tokens_per_call) {
            let cut = |tokens: usize| per_text.map_or(tokens, |limit| tokens.min(limit));
            let sum = |count: &dyn Fn(&str) -> usize| {
                self.texts.iter().fold(0_usize, |sum, text| sum.saturating_add(cut(count(text))))
            };
            if sum(&|text| counter.at_most(self.kind, text)) > limit {
                let tokens = sum(&|text| counter.count(self.kind, text));
                if tokens > limit {
                    return over("tokens", tokens, limit);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn check_space(&self, spaces: &[Space]) -> Result<()> {
        match self.space {
            Some(wanted) if spaces.iter().all(|space| space.id() != wanted) => {
                let have: Vec<String> = spaces.iter().map(Space::to_string).collect();
                let message = format!("space {wanted} was asked for, here is {}", have.join(", "));
                Err(Error::new(ErrorKind::SpaceMismatch, message))
            }
            _ => Ok(()),
        }
    }

    /// The texts that no call can hold, whatever the model.
    pub(crate) fn bad_texts(&self, limits: &Limits) -> Vec<BadText> {
        let reason = |text: &str| match limits.bytes {
            _ if text.is_empty() => Some(BadTextReason::Empty),
            Some(limit) if text.len() > limit => Some(BadTextReason::TooLarge { bytes: text.len(), limit }),
            _ => None,
        };
        self.texts
            .iter()
            .enumerate()
            .filter_map(|(index, text)| reason(text).map(|reason| BadText::new(index, reason)))
            .collect()
    }
}

impl fmt::Debug for Batch<'_> {
    /// Shows how many texts there are, never a text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("texts", &self.len())
            .field("kind", &self.kind)
            .field("key", &self.key)
            .field("space", &self.space)
            .field("too_long", &self.too_long)
            .field("lane", &self.lane)
            .field("deadline", &self.deadline)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_text() {
        let shown = format!("{:?}", Batch::documents(&["secret"]));
        assert!(shown.contains("texts: 1") && !shown.contains("secret"), "{shown}");
    }
}
