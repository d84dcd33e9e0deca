//! Asks for vectors: [`Batch`], the borrowed texts of one call and the options for embedding them.

mod check;

use std::{fmt, ops::Range, sync::Arc, time::Instant};

use crate::{
    InputKind, Lane, Limits, Options, SpaceId, Truncation,
    counted::{Counted, CountedBy, UNCOUNTED},
    observer::{self, Event, EventKind, Observer},
    pause::Pause,
};

/// The texts of one call and the options for embedding them. Borrowed and `Copy`.
///
/// ```
/// use docvector_embed::{Batch, InputKind, Truncation};
/// let batch = Batch::new(InputKind::Document, &["a text", "another"])
///     .with_truncation(Truncation::Truncate)
///     .with_key("library:serde");
/// // A batch is borrowed and `Copy`, so a retry or a fallback copies no text.
/// let again = batch;
/// assert_eq!(again.len(), batch.len());
/// ```
///
/// Borrow owned texts first: `let texts: Vec<&str> = owned.iter().map(String::as_str).collect();`.
///
/// # Default
/// No routing key, tenant, trace or wanted space; over-long texts are an error; the [lane of the kind](Lane::of); no
/// deadline.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Batch<'a> {
    texts: &'a [&'a str],
    options: Options<'a>,
    /// The token counts that a planner has made.
    counted: Option<Counted<'a>>,
    /// The pause of the rate limit that has let the batch through.
    pause: Option<&'a Pause>,
    /// Hears what happens to the call on its way.
    observer: Option<&'a Arc<dyn Observer>>,
}

impl<'a> Batch<'a> {
    /// Makes a batch that asks for one vector per text, with the default options of the kind.
    pub const fn new(kind: InputKind, texts: &'a [&'a str]) -> Self {
        Self::with_options(texts, Options::new(kind))
    }

    /// Makes a batch that asks for one vector per text, with all options at once.
    pub const fn with_options(texts: &'a [&'a str], options: Options<'a>) -> Self {
        Self { texts, options, counted: None, pause: None, observer: None }
    }

    /// Makes a batch of documents, with the default options.
    pub const fn documents(texts: &'a [&'a str]) -> Self {
        Self::new(InputKind::Document, texts)
    }

    /// Makes a batch of queries, with the default options.
    pub const fn queries(texts: &'a [&'a str]) -> Self {
        Self::new(InputKind::Query, texts)
    }

    /// Sets the routing key (`"library:react"`): a split sends all texts with the same key to the same arm.
    #[must_use]
    pub const fn with_key(mut self, key: &'a str) -> Self {
        self.options.key = Some(key);
        self
    }

    /// Sets the tenant on whose behalf the texts are embedded, for accounting.
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

    /// Sets the lane: the queue that the work waits in.
    #[must_use]
    pub const fn with_lane(mut self, lane: Lane) -> Self {
        self.options.lane = lane;
        self
    }

    /// Sets the moment after which the result is of no use.
    ///
    /// Work that has not begun by then fails with [`DeadlinePassed`](crate::ErrorKind::DeadlinePassed). Work under way
    /// may still finish.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Instant) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Sets the observer that hears what happens to the call on its way, in place of one that was set before.
    /// [`EmbedderExt::observed`](crate::EmbedderExt::observed) does so for all calls of a stack.
    #[must_use]
    pub const fn with_observer(mut self, observer: &'a Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Returns this batch with other texts; everything else stays. A wrapper asks in this way for a part of its batch.
    #[must_use]
    pub const fn with_texts<'b>(self, texts: &'b [&'b str]) -> Batch<'b>
    where
        'a: 'b,
    {
        Batch { texts, counted: None, ..self }
    }

    /// Returns the part of the batch in this range.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        let counted = self.counted.map(|counted| Counted { tokens: &counted.tokens[range.clone()], ..counted });
        Batch { texts: &self.texts[range], counted, ..self }
    }

    /// Picks the texts at these places of the batch, for a call of their own.
    pub(crate) fn pick(&self, places: &[usize]) -> Picked<'a> {
        let texts = places.iter().map(|&place| self.texts[place]).collect();
        let counted = self.counted.map(|counted| (counted.by, places.iter().map(|&at| counted.tokens[at]).collect()));
        Picked { texts, counted, whole: *self }
    }

    /// Adds the token counts that a planner has made. If it made none, those that the batch carries stay.
    pub(crate) fn with_counted(mut self, counted: Option<Counted<'a>>) -> Self {
        self.counted = counted.or(self.counted);
        self
    }

    /// Adds the pause that a call of this batch must look at before it is sent.
    pub(crate) const fn with_pause(mut self, pause: &'a Pause) -> Self {
        self.pause = Some(pause);
        self
    }

    /// Waits until the pause is over that the batch carries, but not past its deadline.
    pub(crate) async fn pause_is_over(&self) {
        if let Some(pause) = self.pause {
            pause.is_over(self.deadline().map(Into::into)).await;
        }
    }

    /// Returns whether the pause that the batch carries lasts on, and its deadline has not passed.
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_some_and(|pause| {
            let now = tokio::time::Instant::now();
            !pause.left(now).is_zero() && self.deadline().is_none_or(|deadline| deadline > now.into_std())
        })
    }

    /// Returns the token counts that the batch carries, if they were made by these limits.
    pub(crate) fn counted_by(&self, limits: &Limits) -> Option<&'a [u32]> {
        let counted = self.counted.filter(|counted| counted.by == CountedBy::of(limits))?;
        Some(counted.tokens)
    }

    /// Returns the texts, in the caller's order.
    pub const fn texts(&self) -> &'a [&'a str] {
        self.texts
    }

    /// Returns the number of texts.
    pub const fn len(&self) -> usize {
        self.texts.len()
    }

    /// Returns `true` if there are no texts.
    pub const fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Returns the options: everything in the batch except its texts.
    pub const fn options(&self) -> Options<'a> {
        self.options
    }

    /// Returns the kind of the texts.
    pub const fn kind(&self) -> InputKind {
        self.options.kind
    }

    /// Returns the routing key.
    pub const fn key(&self) -> Option<&'a str> {
        self.options.key
    }

    /// Returns the tenant on whose behalf the texts are embedded.
    pub const fn tenant(&self) -> Option<&'a str> {
        self.options.tenant
    }

    /// Returns the trace that the call belongs to.
    pub const fn trace(&self) -> Option<&'a str> {
        self.options.trace
    }

    /// Returns the space that the vectors must lie in.
    pub const fn space(&self) -> Option<SpaceId> {
        self.options.space
    }

    /// Returns what happens to over-long texts.
    pub const fn truncation(&self) -> Truncation {
        self.options.truncation
    }

    /// Returns the lane: the queue that the work waits in.
    pub const fn lane(&self) -> Lane {
        self.options.lane
    }

    /// Returns the moment after which the result is of no use.
    pub const fn deadline(&self) -> Option<Instant> {
        self.options.deadline
    }

    /// Returns whether the deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline().is_some_and(|deadline| tokio::time::Instant::now() >= deadline.into())
    }

    /// Returns the observer that hears what happens to the call on its way.
    pub const fn observer(&self) -> Option<&'a Arc<dyn Observer>> {
        self.observer
    }

    /// Tells the observer, if there is one. `embedder` is the one that tells: a wrapper gives itself.
    pub fn tell(&self, embedder: &dyn fmt::Display, kind: EventKind<'_>) {
        if let Some(observer) = self.observer {
            let event = Event { embedder, options: self.options, texts: self.len(), kind };
            observer::tell(&**observer, &event);
        }
    }

    /// Returns an estimate of the tokens of all texts: the counts that the batch carries, and one token per four bytes
    /// for texts without a count.
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

/// Some texts of a batch, with the batch's options and the token counts of these texts.
pub(crate) struct Picked<'a> {
    texts: Vec<&'a str>,
    counted: Option<(CountedBy, Vec<u32>)>,
    /// The batch that they were picked from, for everything but its texts and counts.
    whole: Batch<'a>,
}

impl Picked<'_> {
    /// Returns a batch of these texts.
    pub(crate) fn batch(&self) -> Batch<'_> {
        let counted = self.counted.as_ref().map(|(by, tokens)| Counted { by: *by, tokens });
        Batch { texts: &self.texts, counted, ..self.whole }
    }
}

impl fmt::Debug for Batch<'_> {
    /// Shows the number of texts, never a text.
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
