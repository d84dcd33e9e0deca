//! Asks for vectors: [`Batch`], the borrowed texts of one call and how they are to be embedded.

mod check;

use std::{fmt, ops::Range, time::Instant};

use crate::{
    InputKind, Lane, Limits, Options, SpaceId, Truncation,
    counted::{Counted, CountedBy, UNCOUNTED},
};

/// The texts of one call and how to embed them. Borrowed and `Copy`.
///
/// ```
/// use docvector_embed::{Batch, InputKind, Truncation};
/// let batch = Batch::new(InputKind::Document, &["a text", "another"]).with_truncation(Truncation::Truncate).with_key("library:serde");
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
    options: Options<'a>,
    /// What a planner has counted already.
    counted: Option<Counted<'a>>,
}

impl<'a> Batch<'a> {
    /// Asks for one vector per text.
    pub const fn new(kind: InputKind, texts: &'a [&'a str]) -> Self {
        Self::with_options(texts, Options::new(kind))
    }

    /// Asks for one vector per text, with all options at once.
    pub const fn with_options(texts: &'a [&'a str], options: Options<'a>) -> Self {
        Self { texts, options, counted: None }
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
        self.options.key = Some(key);
        self
    }

    /// Sets on whose behalf the texts are embedded, for accounting.
    #[must_use]
    pub const fn with_tenant(mut self, tenant: &'a str) -> Self {
        self.options.tenant = Some(tenant);
        self
    }

    /// Sets the trace that the call belongs to, as a W3C `traceparent`.
    #[must_use]
    pub const fn with_trace(mut self, trace: &'a str) -> Self {
        self.options.trace = Some(trace);
        self
    }

    /// Sets the space that the vectors must lie in.
    #[must_use]
    pub const fn with_space(mut self, space: SpaceId) -> Self {
        self.options.space = Some(space);
        self
    }

    /// Sets what happens to over-long texts.
    #[must_use]
    pub const fn with_truncation(mut self, truncation: Truncation) -> Self {
        self.options.truncation = truncation;
        self
    }

    /// Sets the queue.
    #[must_use]
    pub const fn with_lane(mut self, lane: Lane) -> Self {
        self.options.lane = lane;
        self
    }

    /// Sets when the answer is of no more use. Work that has not begun by then is given up with
    /// [`DeadlinePassed`](ErrorKind::DeadlinePassed); work under way may still finish.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Instant) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Asks the same of other texts, as a wrapper does for a part of its batch.
    #[must_use]
    pub const fn with_texts<'b>(self, texts: &'b [&'b str]) -> Batch<'b>
    where
        'a: 'b,
    {
        Batch { texts, counted: None, ..self }
    }

    /// The part of the batch in this range.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        let counted = self.counted.map(|counted| Counted { tokens: &counted.tokens[range.clone()], ..counted });
        Batch { texts: &self.texts[range], counted, ..self }
    }

    /// Picks texts out of the batch, by their places, to be asked for in a call of their own.
    pub(crate) fn pick(&self, places: &[usize]) -> Picked<'a> {
        let texts = places.iter().map(|&place| self.texts[place]).collect();
        let counted = self.counted.map(|counted| (counted.by, places.iter().map(|&at| counted.tokens[at]).collect()));
        Picked { texts, options: self.options, counted }
    }

    /// Adds what a planner has counted.
    pub(crate) const fn with_counted(mut self, counted: Counted<'a>) -> Self {
        self.counted = Some(counted);
        self
    }

    /// What was counted already, if it was by these limits.
    pub(crate) fn counted_by(&self, limits: &Limits) -> Option<&'a [u32]> {
        let counted = self.counted.filter(|counted| counted.by == Some(CountedBy::of(limits)))?;
        Some(counted.tokens)
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

    /// All that it says beside the texts.
    pub const fn options(&self) -> Options<'a> {
        self.options
    }

    /// What the texts are.
    pub const fn kind(&self) -> InputKind {
        self.options.kind
    }

    /// The routing key.
    pub const fn key(&self) -> Option<&'a str> {
        self.options.key
    }

    /// On whose behalf the texts are embedded.
    pub const fn tenant(&self) -> Option<&'a str> {
        self.options.tenant
    }

    /// The trace that the call belongs to.
    pub const fn trace(&self) -> Option<&'a str> {
        self.options.trace
    }

    /// The wanted space.
    pub const fn space(&self) -> Option<SpaceId> {
        self.options.space
    }

    /// What happens to over-long texts.
    pub const fn truncation(&self) -> Truncation {
        self.options.truncation
    }

    /// The queue.
    pub const fn lane(&self) -> Lane {
        self.options.lane
    }

    /// When the answer is of no more use.
    pub const fn deadline(&self) -> Option<Instant> {
        self.options.deadline
    }

    /// The tokens of all texts: as they were counted, else at four bytes each.
    pub(crate) fn guessed_tokens(&self, limits: &Limits) -> usize {
        let counted = self.counted_by(limits);
        let limit = limits.tokens_of_one_text().unwrap_or(usize::MAX);
        let tokens = |(index, text): (usize, &&str)| match counted.map(|counted| counted[index]) {
            Some(tokens) if tokens != UNCOUNTED => (tokens as usize).min(limit),
            _ => text.len().div_ceil(4).min(limit),
        };
        self.texts.iter().enumerate().map(tokens).fold(0, usize::saturating_add)
    }
}

/// Some of a batch's texts, with the batch's options and what was counted of them.
pub(crate) struct Picked<'a> {
    texts: Vec<&'a str>,
    options: Options<'a>,
    counted: Option<(Option<CountedBy>, Vec<u32>)>,
}

impl Picked<'_> {
    /// Asks for them.
    pub(crate) fn batch(&self) -> Batch<'_> {
        let counted = self.counted.as_ref().map(|(by, tokens)| Counted { by: *by, tokens });
        Batch { texts: &self.texts, options: self.options, counted }
    }
}

impl fmt::Debug for Batch<'_> {
    /// Shows how many texts there are, never a text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("texts", &self.len()).field("options", &self.options).finish()
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
