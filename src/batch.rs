//! Asks for vectors: [`Batch`], the borrowed texts of one call and how they are to be embedded.

use std::{fmt, ops::Range, sync::Arc, time::Instant};

use crate::{
    BadText, BadTextReason, Error, ErrorKind, InputKind, Lane, Limits, Options, Result, Space, SpaceId, TokenCount,
    Truncation,
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
        let mut counting = Counting::new(self, limits);
        bad.extend((0..self.len()).filter_map(|index| counting.too_long(self, index)));
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
        if let (TokenCount::Exact(_), Some(limit)) = (&limits.tokens, limits.tokens_per_call) {
            // 128 bits: the sum of any bounds fits.
            let mut tokens: u128 = (0..self.len()).map(|index| counting.at_most(self, index) as u128).sum();
            let mut next = 0..self.len();
            while tokens > limit as u128 {
                let Some(index) = next.next() else {
                    return over("tokens", usize::try_from(tokens).unwrap_or(usize::MAX), limit);
                };
                tokens -= counting.at_most(self, index) as u128;
                tokens += counting.exact(self, index) as u128;
            }
        }
        Ok(())
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

    pub(crate) fn check_space(&self, spaces: &[Space]) -> Result<()> {
        match self.options.space {
            Some(wanted) if spaces.iter().all(|space| space.id() != wanted) => {
                let have: Vec<String> = spaces.iter().map(Space::to_string).collect();
                let have = have.join(", ");
                let message = format!("space {wanted} was asked for, here is {have}: use the embedder of that space");
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

/// Stands for the tokens of a text that nobody had to count.
const UNCOUNTED: u32 = u32::MAX;

/// Tokens of a batch's texts as a planner left them: `UNCOUNTED` where it did not have to count.
#[derive(Clone, Copy)]
pub(crate) struct Counted<'a> {
    by: Option<CountedBy>,
    tokens: &'a [u32],
}

impl<'a> Counted<'a> {
    /// Counts that a batch had which is no more; by the same limits, so by the same counter.
    pub(crate) fn by(limits: &Limits, tokens: &'a [u32]) -> Self {
        Self { by: Some(CountedBy::of(limits)), tokens }
    }

    /// The same counts in the places of a larger batch's texts: count `i` at `places[i]` of `len`.
    pub(crate) fn scatter(&self, places: &[usize], len: usize) -> Vec<u32> {
        let mut tokens = vec![UNCOUNTED; len];
        places.iter().zip(self.tokens).for_each(|(&place, &count)| tokens[place] = count);
        tokens
    }
}

/// Whose counts they are: another counter's, or those up to another limit, say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
struct CountedBy {
    counter: usize,
    limit: Option<usize>,
}

impl CountedBy {
    fn of(limits: &Limits) -> Self {
        let counter = match &limits.tokens {
            TokenCount::Exact(counter) => Arc::as_ptr(counter).cast::<()>() as usize,
            _ => 0,
        };
        Self { counter, limit: limits.tokens_of_one_text() }
    }
}

/// Counts the tokens of a batch's texts, each at most once, and only those that are asked for.
pub(crate) struct Counting<'l> {
    limits: &'l Limits,
    by: CountedBy,
    /// Empty until something is counted.
    tokens: Vec<u32>,
}

impl<'l> Counting<'l> {
    /// Begins with what is counted already.
    pub(crate) fn new(batch: &Batch<'_>, limits: &'l Limits) -> Self {
        let tokens = batch.counted_by(limits).map(<[u32]>::to_vec).unwrap_or_default();
        Self { limits, by: CountedBy::of(limits), tokens }
    }

    /// What was counted, to go with the batch.
    pub(crate) fn counted(&self, batch: &Batch<'_>) -> Option<Counted<'_>> {
        (self.tokens.len() == batch.len()).then_some(Counted { by: Some(self.by), tokens: &self.tokens })
    }

    /// The text's tokens, not counted beyond the limit of a text and never above it; 0 where they cannot be counted.
    pub(crate) fn exact(&mut self, batch: &Batch<'_>, index: usize) -> usize {
        let tokens = match &self.limits.tokens {
            TokenCount::Exact(_) => self.count(batch, index),
            _ => return self.at_most(batch, index),
        };
        self.by.limit.map_or(tokens, |limit| tokens.min(limit))
    }

    /// The least that is known not to be exceeded by the text's tokens, without counting; 0 where nothing is known.
    pub(crate) fn at_most(&self, batch: &Batch<'_>, index: usize) -> usize {
        let text = batch.texts()[index];
        let tokens = match (&self.limits.tokens, self.tokens.get(index)) {
            (TokenCount::Unknown, _) => 0,
            (TokenCount::AtMostBytes, _) => text.len(),
            (TokenCount::Exact(_), Some(&tokens)) if tokens != UNCOUNTED => tokens as usize,
            (TokenCount::Exact(counter), _) => counter.at_most(batch.kind(), text),
        };
        self.by.limit.map_or(tokens, |limit| tokens.min(limit))
    }

    /// Whether the text is longer than a text may be, which must be an error; counted only if its bytes leave it open.
    pub(crate) fn too_long(&mut self, batch: &Batch<'_>, index: usize) -> Option<BadText> {
        let limit = self.by.limit.filter(|_| batch.truncation() == Truncation::Error)?;
        let tokens = self.over(batch, index, limit)?;
        Some(BadText::new(index, BadTextReason::TooLong { tokens, limit }))
    }

    /// Whether the text is to be cut.
    pub(crate) fn is_over(&mut self, batch: &Batch<'_>, index: usize) -> bool {
        self.by.limit.is_some_and(|limit| self.over(batch, index, limit).is_some())
    }

    fn over(&mut self, batch: &Batch<'_>, index: usize, limit: usize) -> Option<usize> {
        let TokenCount::Exact(counter) = &self.limits.tokens else { return None };
        let text = batch.texts()[index];
        if text.is_empty() || counter.at_most(batch.kind(), text) <= limit {
            return None;
        }
        Some(self.count(batch, index)).filter(|&tokens| tokens > limit)
    }

    fn count(&mut self, batch: &Batch<'_>, index: usize) -> usize {
        let TokenCount::Exact(counter) = &self.limits.tokens else { return 0 };
        if self.tokens.is_empty() {
            self.tokens = vec![UNCOUNTED; batch.len()];
        }
        let slot = &mut self.tokens[index];
        if *slot == UNCOUNTED {
            let text = batch.texts()[index];
            let tokens = match self.by.limit {
                Some(limit) => counter.count_to(batch.kind(), text, limit),
                None => counter.count(batch.kind(), text),
            };
            *slot = u32::try_from(tokens).unwrap_or(UNCOUNTED).min(UNCOUNTED - 1);
        }
        *slot as usize
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
