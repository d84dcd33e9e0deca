//! Says what one call may hold: [`Limits`], and how its tokens are counted: [`TokenCount`].

use std::{fmt, sync::Arc};

use crate::InputKind;

/// The limits on one call of an embedder. `None` is no limit.
///
/// ```
/// use docvector_embed::{Limits, TokenCount};
/// let limits = Limits::none()
///     .with_texts(2048)
///     .with_tokens_per_text(8191)
///     .with_tokens_per_call(300_000)
///     .with_tokens(TokenCount::AtMostBytes);
/// assert_eq!(limits.texts, Some(2048));
/// ```
///
/// An embedder accepts a batch within its limits as a whole. [`EmbedderExt`](crate::EmbedderExt) splits any number of
/// texts by the limits. An embedder that schedules whole calls itself states no limits per call.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Limits {
    /// The most texts per call.
    pub texts: Option<usize>,
    /// The most bytes of text per call, all texts together.
    pub bytes: Option<usize>,
    /// The most tokens per text, prompt and special tokens included. The batch says whether a longer text is an error
    /// or is truncated.
    pub tokens_per_text: Option<usize>,
    /// The most tokens per call, all texts together, each counted after truncation.
    pub tokens_per_call: Option<usize>,
    /// The number of calls at once that do not slow each other down; `None` if the embedder does not say.
    pub in_flight: Option<usize>,
    /// The way in which tokens are counted. It is code, so the feature `serde` does not store it: limits that are read
    /// back have [`Unknown`](TokenCount::Unknown).
    #[cfg_attr(feature = "serde", serde(skip))]
    pub tokens: TokenCount,
}

impl Limits {
    /// Returns limits that limit nothing.
    pub const fn none() -> Self {
        Self {
            texts: None,
            bytes: None,
            tokens_per_text: None,
            tokens_per_call: None,
            in_flight: None,
            tokens: TokenCount::Unknown,
        }
    }

    /// Sets the most texts per call.
    #[must_use]
    pub const fn with_texts(mut self, texts: usize) -> Self {
        self.texts = Some(texts);
        self
    }

    /// Sets the most bytes of text per call.
    #[must_use]
    pub const fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Sets the most tokens per text.
    #[must_use]
    pub const fn with_tokens_per_text(mut self, tokens: usize) -> Self {
        self.tokens_per_text = Some(tokens);
        self
    }

    /// Sets the most tokens per call.
    #[must_use]
    pub const fn with_tokens_per_call(mut self, tokens: usize) -> Self {
        self.tokens_per_call = Some(tokens);
        self
    }

    /// Sets the number of calls at once that do not slow each other down.
    #[must_use]
    pub const fn with_in_flight(mut self, calls: usize) -> Self {
        self.in_flight = Some(calls);
        self
    }

    /// Sets how tokens are counted.
    #[must_use]
    pub fn with_tokens(mut self, tokens: TokenCount) -> Self {
        self.tokens = tokens;
        self
    }

    /// Returns the limits that fit both embedders: those of a router over the two. A batch that passes
    /// [`check`](crate::Batch::check) under the combination passes it under each.
    ///
    /// ```
    /// use docvector_embed::Limits;
    /// let hosted = Limits::none().with_texts(2048).with_tokens_per_text(8000).with_tokens_per_call(300_000);
    /// let local = Limits::none().with_tokens_per_text(500).with_in_flight(2);
    /// let both = hosted.combine(&local);
    /// assert_eq!((both.texts, both.tokens_per_text, both.in_flight), (Some(2048), Some(500), Some(2)));
    /// // A truncated text has 500 tokens at one and up to 8,000 at the other.
    /// assert_eq!(both.tokens_per_call, Some(300_000 * 500 / 8000));
    /// ```
    ///
    /// - Each number is the smaller of the two; `None` is no limit.
    /// - Tokens per call: if one of the two takes longer texts than the other, its tokens per call shrink in the same
    ///   proportion first. A truncated text counts as the shorter limit in the combination, but may have as many tokens
    ///   as the longer limit at the embedder that gets it.
    /// - If both have the same counter, it counts the tokens. Of two different counters, the larger count holds.
    /// - If only one of the two counts tokens exactly, its counter is used. The other one then finds the texts that are
    ///   over-long by its own measure, as it does without a combination. A call may also have more tokens than the
    ///   other takes: a router that calls it through [`embed_all`](crate::EmbedderExt::embed_all) has such a call
    ///   split.
    /// - [`AtMostBytes`](TokenCount::AtMostBytes) and [`Unknown`](TokenCount::Unknown) combine to `AtMostBytes`: calls
    ///   are no larger than either needs.
    ///
    /// Combine once, when the router is built, and return clones: counts stay with a batch only as long as the counter
    /// is the same object.
    #[must_use]
    pub fn combine(&self, other: &Self) -> Self {
        // Every field by name: a new one cannot be forgotten here.
        let Self { texts, bytes, tokens_per_text, tokens_per_call: _, in_flight, tokens } = self;
        let text = smaller(self.tokens_of_one_text(), other.tokens_of_one_text());
        Self {
            texts: smaller(*texts, other.texts),
            bytes: smaller(*bytes, other.bytes),
            tokens_per_text: smaller(*tokens_per_text, other.tokens_per_text),
            tokens_per_call: smaller(self.tokens_per_call_of(text), other.tokens_per_call_of(text)),
            in_flight: smaller(*in_flight, other.in_flight),
            tokens: tokens.combine(&other.tokens),
        }
    }

    /// Returns the tokens per call if each text is counted only up to `text` tokens.
    fn tokens_per_call_of(&self, text: Option<usize>) -> Option<usize> {
        let (call, own) = (self.tokens_per_call?, self.tokens_of_one_text()?);
        let text = text.map_or(own, |text| text.min(own));
        // 128 bits hold the product of any two numbers. The quotient is not above `call`.
        let scaled = (call as u128 * text as u128).checked_div(own as u128).unwrap_or(call as u128);
        usize::try_from(scaled).ok()
    }

    /// Returns the most tokens that a single text can have: it must fit into a call, too.
    pub fn tokens_of_one_text(&self) -> Option<usize> {
        match (self.tokens_per_text, self.tokens_per_call) {
            (Some(text), Some(call)) => Some(text.min(call)),
            (text, call) => text.or(call),
        }
    }
}

/// Returns the smaller of two limits; `None` is no limit.
fn smaller(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The way in which callers can count an embedder's tokens.
///
/// Part of [`Limits`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum TokenCount {
    /// Callers cannot count tokens. The embedder itself checks its token limits.
    #[default]
    Unknown,
    /// A text has at most as many tokens as bytes.
    AtMostBytes,
    /// Callers can count tokens exactly.
    Exact(Arc<dyn CountTokens>),
}

/// Two counters are equal if they are the same object.
impl PartialEq for TokenCount {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unknown, Self::Unknown) | (Self::AtMostBytes, Self::AtMostBytes) => true,
            (Self::Exact(a), Self::Exact(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => false,
        }
    }
}

impl TokenCount {
    /// Makes an [`Exact`](Self::Exact) count of a counter.
    pub fn exact(counter: impl CountTokens) -> Self {
        Self::Exact(Arc::new(counter))
    }

    /// Returns the count that holds for two embedders at once. See [`Limits::combine`].
    fn combine(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) if std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)) => self.clone(),
            (Self::Exact(a), Self::Exact(b)) => Self::Exact(Arc::new(Larger(a.clone(), b.clone()))),
            (Self::Exact(_), Self::AtMostBytes | Self::Unknown) => self.clone(),
            (Self::AtMostBytes | Self::Unknown, Self::Exact(_)) => other.clone(),
            (Self::Unknown, Self::Unknown) => Self::Unknown,
            (Self::AtMostBytes, Self::AtMostBytes | Self::Unknown) | (Self::Unknown, Self::AtMostBytes) => {
                Self::AtMostBytes
            }
        }
    }
}

/// Counts the tokens that an embedder would see. Cheap enough to be called for every text, and pure.
///
/// Given to [`TokenCount::Exact`].
pub trait CountTokens: fmt::Debug + Send + Sync + 'static {
    /// Returns the tokens of this text, with the prompt of its kind and special tokens.
    fn count(&self, kind: InputKind, text: &str) -> usize;

    /// Returns a cheap upper bound on [`count`](Self::count), without counting; `usize::MAX` if there is none.
    fn at_most(&self, kind: InputKind, text: &str) -> usize;

    /// Counts only as far as `limit`.
    ///
    /// The result is exact up to `limit`; beyond it, any number above `limit` and at most [`count`](Self::count). This
    /// default counts the whole text. Override it if a text of megabytes takes long to count.
    fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
        let _ = limit;
        self.count(kind, text)
    }

    /// Returns the beginning of a text, as long as possible with at most `limit` tokens. This default finds the length
    /// by bisection.
    fn truncate<'t>(&self, kind: InputKind, text: &'t str, limit: usize) -> &'t str {
        let (mut fits, mut over) = (0, text.len() + 1);
        while over - fits > 1 {
            let end = text.floor_char_boundary(fits + (over - fits) / 2);
            // The middle rounds down to a character boundary. If that is `fits` again, the next boundary is the last
            // candidate: without it the search would not advance.
            let end = if end <= fits { text.ceil_char_boundary(fits + 1) } else { end };
            if end >= over {
                break;
            }
            if self.count_to(kind, &text[..end], limit) <= limit {
                fits = end;
            } else {
                over = end;
            }
        }
        &text[..fits]
    }
}

/// Two counters, of which the larger count holds.
#[derive(Debug)]
struct Larger(Arc<dyn CountTokens>, Arc<dyn CountTokens>);

impl CountTokens for Larger {
    fn count(&self, kind: InputKind, text: &str) -> usize {
        self.0.count(kind, text).max(self.1.count(kind, text))
    }

    fn at_most(&self, kind: InputKind, text: &str) -> usize {
        self.0.at_most(kind, text).max(self.1.at_most(kind, text))
    }

    fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
        let tokens = self.0.count_to(kind, text, limit);
        // If one count is over the limit, the result is any number over it: the second count is not needed.
        if tokens > limit { tokens } else { tokens.max(self.1.count_to(kind, text, limit)) }
    }

    fn truncate<'t>(&self, kind: InputKind, text: &'t str, limit: usize) -> &'t str {
        let mut text = text;
        loop {
            let cut = self.1.truncate(kind, self.0.truncate(kind, text, limit), limit);
            // A beginning can have more tokens than the whole text. So each counter sees the result of the other again,
            // until neither of them shortens it.
            if cut.len() >= text.len() {
                return text;
            }
            text = cut;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Batch, Truncation};

    /// Counts one token per `.0` characters, and `.1` more per text.
    #[derive(Debug)]
    struct Every(usize, usize);

    impl CountTokens for Every {
        fn count(&self, _: InputKind, text: &str) -> usize {
            text.chars().count().div_ceil(self.0) + self.1
        }

        fn at_most(&self, _: InputKind, text: &str) -> usize {
            text.len().div_ceil(self.0) + self.1
        }
    }

    /// Counts one token per word, and two per short word, so that a beginning can have more tokens than the whole text.
    #[derive(Debug)]
    struct Words;

    impl CountTokens for Words {
        fn count(&self, _: InputKind, text: &str) -> usize {
            text.split(' ').map(|word| if word.len() < 4 { 2 } else { 1 }).sum()
        }

        fn at_most(&self, _: InputKind, _: &str) -> usize {
            usize::MAX
        }

        fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
            self.count(kind, text).min(limit.saturating_add(1))
        }
    }

    fn counts() -> impl Strategy<Value = TokenCount> {
        let shared: Arc<dyn CountTokens> = Arc::new(Every(3, 0));
        prop_oneof![
            Just(TokenCount::Unknown),
            Just(TokenCount::AtMostBytes),
            Just(TokenCount::Exact(shared)),
            (1..6_usize, 0..3_usize).prop_map(|(every, more)| TokenCount::Exact(Arc::new(Every(every, more)))),
            Just(TokenCount::Exact(Arc::new(Words))),
        ]
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let number = |to: usize| proptest::option::of(1..to);
        let numbers = (number(8), number(120), number(12), number(40), number(5));
        (numbers, counts()).prop_map(|((texts, bytes, tokens_per_text, tokens_per_call, in_flight), tokens)| Limits {
            texts,
            bytes,
            tokens_per_text,
            tokens_per_call,
            in_flight,
            tokens,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_passes_the_combination_passes_each(
            a in limits(),
            b in limits(),
            texts in proptest::collection::vec("[a-zä ]{1,24}", 0..7),
            cut in any::<bool>(),
        ) {
            let both = a.combine(&b);
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let truncation = if cut { Truncation::Truncate } else { Truncation::Error };
            let batch = Batch::documents(&texts).with_truncation(truncation);
            if batch.check(&[], &both).is_ok() {
                prop_assert!(batch.check(&[], &a).is_ok(), "{both:?} and {a:?}");
                prop_assert!(batch.check(&[], &b).is_ok(), "{both:?} and {b:?}");
            }
            // The same holds for each call that a planner makes of a larger batch by the combination.
            for call in crate::planner::split(&batch, &both).unwrap_or_default() {
                let call = batch.part(call);
                if call.check(&[], &both).is_ok() {
                    prop_assert!(call.check(&[], &a).is_ok() && call.check(&[], &b).is_ok(), "{:?}", call.texts());
                }
            }
        }

        #[test]
        fn a_single_text_of_the_smaller_limit_still_fits(a in limits(), b in limits()) {
            let both = a.combine(&b);
            let one = smaller(a.tokens_of_one_text(), b.tokens_of_one_text());
            prop_assert_eq!(both.tokens_of_one_text(), one);
            let turned = b.combine(&a);
            let numbers = |l: &Limits| (l.texts, l.bytes, l.tokens_per_text, l.tokens_per_call, l.in_flight);
            prop_assert_eq!(numbers(&both), numbers(&turned));
            prop_assert_eq!(numbers(&a.combine(&a)), numbers(&a));
            prop_assert_eq!(numbers(&a.combine(&Limits::none())), numbers(&a));
        }

        #[test]
        fn the_larger_count_holds(text in "[a-zä ]{0,40}", every in 1..6_usize, limit in 0..20_usize) {
            let counters: [Arc<dyn CountTokens>; 2] = [Arc::new(Every(every, 1)), Arc::new(Words)];
            let both = Larger(counters[0].clone(), counters[1].clone());
            let kind = InputKind::Document;
            let counts = counters.each_ref().map(|counter| counter.count(kind, &text));
            let most = counts[0].max(counts[1]);
            prop_assert_eq!(both.count(kind, &text), most);
            prop_assert!(both.at_most(kind, &text) >= most);
            let to = both.count_to(kind, &text, limit);
            let exact = most <= limit;
            prop_assert!((exact && to == most) || (!exact && to > limit && to <= most));
            let cut = both.truncate(kind, &text, limit);
            prop_assert!(text.starts_with(cut));
            // An empty text has tokens, too: those of the prompt.
            prop_assert!(cut.is_empty() || both.count(kind, cut) <= limit, "{cut:?}");
            let even: [Arc<dyn CountTokens>; 2] = [Arc::new(Every(every, 1)), Arc::new(Every(3, 0))];
            let shorter = even.each_ref().map(|counter| counter.truncate(kind, &text, limit).len());
            let [first, second] = even;
            let cut = Larger(first, second).truncate(kind, &text, limit);
            prop_assert_eq!(cut.len(), shorter[0].min(shorter[1]));
        }
    }

    #[test]
    fn the_same_counter_stays_and_two_become_one() {
        let counter: Arc<dyn CountTokens> = Arc::new(Every(4, 0));
        let limits = |tokens| Limits::none().with_tokens(tokens);
        let one = limits(TokenCount::Exact(counter.clone()));
        let same = |limits: &Limits| matches!(&limits.tokens, TokenCount::Exact(c) if Arc::ptr_eq(c, &counter));
        assert!(same(&one.combine(&one.clone())));
        for other in [TokenCount::Unknown, TokenCount::AtMostBytes] {
            assert!(same(&one.combine(&limits(other.clone()))) && same(&limits(other).combine(&one)));
        }
        let other = limits(TokenCount::Exact(Arc::new(Every(4, 0))));
        assert!(!same(&one.combine(&other)) && matches!(one.combine(&other).tokens, TokenCount::Exact(_)));
        let bytes = limits(TokenCount::AtMostBytes).combine(&limits(TokenCount::Unknown));
        assert!(matches!(bytes.tokens, TokenCount::AtMostBytes));
        assert!(matches!(Limits::none().combine(&Limits::none()).tokens, TokenCount::Unknown));
    }

    #[test]
    fn numbers_of_any_size_combine() {
        let large = Limits::none().with_tokens_per_text(usize::MAX).with_tokens_per_call(usize::MAX);
        let both = large.combine(&Limits::none().with_tokens_per_text(2));
        assert_eq!((both.tokens_per_text, both.tokens_per_call), (Some(2), Some(2)));
        let none = Limits::none().with_tokens_per_text(0).with_tokens_per_call(0);
        assert_eq!(large.combine(&none).tokens_per_call, Some(0));
    }
}
