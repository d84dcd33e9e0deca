//! Says what failed, where, and what to do: [`Error`], with the finished rows of a call that failed halfway.

mod bad_text;
mod kind;
mod partial;
mod show;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use self::{
    bad_text::{BadText, BadTextReason},
    kind::ErrorKind,
    partial::Partial,
};
use crate::{Charges, Embeddings, ParseError, Payee, RateLimitStatus, Usage};

/// A limit with a longer reset than this is not one per minute, whatever the provider calls it. Nobody waits for it.
pub(crate) const LONGEST_RESET: Duration = Duration::from_secs(120);

/// The crate's result type.
///
/// Its error is [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: its kind, the facts around it, and the rows that were finished before it.
///
/// ```
/// use docvector_embed::{EmbedderExt, ErrorKind, provider::Fake};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let error = Fake::new(8).embed_documents(&["fine", "", "also fine", ""]).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// // All bad texts at once, by the caller's indices.
/// let at: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
/// assert_eq!(at, [1, 3]);
/// # });
/// ```
///
/// An error is one word wide and cheap to clone, and new facts can be added to it without a breaking change. Its text
/// is one lower-case line. The text does not repeat that of the cause, which [`source`](StdError::source) returns, and
/// never contains an input text, a key or a reply's body.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    embedder: Option<String>,
    bad_texts: Vec<BadText>,
    status: Option<u16>,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    code: Option<String>,
    provider_message: Option<String>,
    charges: Charges,
    rate_limit_status: Option<RateLimitStatus>,
    exhausted: bool,
    /// Whether the whole reply is at fault, so that no single text can be the cause.
    of_whole_reply: bool,
    /// The number of attempts that were made, and why there were no more.
    gave_up: Option<(u32, String)>,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
    /// One per space; nearly always there is one or none. Shared, because every caller that waits for a failed call
    /// gets the error: the matrix is not copied for each of them.
    partials: Vec<Arc<Partial>>,
}

impl Inner {
    /// Restores the invariant that all code that maps indices relies on: the bad texts ascend, each is named once, and
    /// none of them has a finished row.
    fn settle(&mut self) {
        self.bad_texts.sort_by_key(|bad| bad.index);
        self.bad_texts.dedup_by_key(|bad| bad.index);
        // An embedder may report a text as bad and return its row. Then the row counts: it is there and paid for, and a
        // caller that drops bad texts would lose it.
        for partial in &self.partials {
            self.bad_texts.retain(|bad| partial.indices.binary_search(&bad.index).is_err());
        }
    }
}

impl Error {
    /// Makes an error. The message says what failed, where, and what to do, in lower case, without an input text, a key
    /// or a reply's body.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            embedder: None,
            bad_texts: Vec::new(),
            status: None,
            retry_after: None,
            request_id: None,
            code: None,
            provider_message: None,
            charges: Charges::NONE,
            rate_limit_status: None,
            exhausted: false,
            of_whole_reply: false,
            gave_up: None,
            source: None,
            partials: Vec::new(),
        }))
    }

    /// Makes an [`InvalidInput`](ErrorKind::InvalidInput) error that names these texts, sorted by index.
    pub fn invalid_texts(bad: Vec<BadText>) -> Self {
        Self::new(ErrorKind::InvalidInput, String::new()).with_bad_texts(bad)
    }

    /// Returns the facts for a change. They are copied first if another error shares them.
    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the message that the error was made with: what failed, where, and what to do. `Display` shows the other
    /// facts too. The message is empty if the [bad texts](Self::bad_texts) say everything.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the embedder that failed, as it displays itself.
    pub fn embedder(&self) -> Option<&str> {
        self.0.embedder.as_deref()
    }

    /// Returns all texts that are the cause, ascending by index; empty if the cause is not in single texts. None of
    /// them has a row in [`partials`](Self::partials).
    pub fn bad_texts(&self) -> &[BadText] {
        &self.0.bad_texts
    }

    /// Returns the HTTP status, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns the time that the provider asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the wait that a refusal names: its own words, or else the reset of a limit that has nothing left. A reset
    /// of a longer window than a minute's is no wait: somebody waits for this call.
    pub(crate) fn asked_wait(&self) -> Option<Duration> {
        let status = self.0.rate_limit_status.filter(|_| self.0.kind == ErrorKind::RateLimited).unwrap_or_default();
        let used_up =
            [status.requests, status.tokens].into_iter().flatten().filter(|window| window.remaining == Some(0));
        let reset = used_up.filter_map(|window| window.reset).filter(|reset| *reset <= LONGEST_RESET).max();
        self.0.retry_after.or(reset)
    }

    /// Returns the provider's id of the request, for questions to its support.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Returns the provider's code for the failure (`rate_limit_exceeded`). The crate's own code is
    /// `error.kind().as_str()`.
    pub fn provider_code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Returns the provider's own words. Neither `Display` nor `Debug` shows them, because they may quote a text or a
    /// key.
    pub fn provider_message(&self) -> Option<&str> {
        self.0.provider_message.as_deref()
    }

    /// Returns the known cost of the failed call: of a reply that was billed but is not usable, and of attempts without
    /// a reply. The rows in [`partials`](Self::partials) carry their own usage, which is not counted here.
    pub fn usage(&self) -> Usage {
        self.0.charges.usage()
    }

    /// Returns the known cost of the failed call, per payee.
    pub fn charges(&self) -> &Charges {
        &self.0.charges
    }

    /// Returns all charges: those of the failed call and those of the rows in [`partials`](Self::partials).
    pub fn total_charges(&self) -> Charges {
        let mut all = self.0.charges.clone();
        for partial in self.partials() {
            all += partial.embeddings().charges();
        }
        all
    }

    /// Returns all known usage: that of the [failed call](Self::usage) and that of the rows in
    /// [`partials`](Self::partials).
    pub fn total_usage(&self) -> Usage {
        self.partials().fold(self.usage(), |sum, partial| sum + partial.embeddings().usage())
    }

    /// Returns what the provider still allows, as it said with the error.
    pub fn rate_limit_status(&self) -> Option<RateLimitStatus> {
        self.0.rate_limit_status
    }

    /// Returns the number of attempts after which [`Retry`](crate::wrap::Retry) gave up; `None` if it did not, or if
    /// there is no `Retry`.
    pub fn attempts(&self) -> Option<u32> {
        self.0.gave_up.as_ref().map(|&(attempts, _)| attempts)
    }

    /// Returns `true` if trying again was [given up](Self::mark_exhausted).
    pub fn is_exhausted(&self) -> bool {
        self.0.exhausted
    }

    /// Returns `true` if no single text can be the cause: see [`of_whole_reply`](Self::of_whole_reply).
    pub(crate) fn is_of_whole_reply(&self) -> bool {
        self.0.of_whole_reply
    }

    /// Returns `true` if the same call may succeed later, and no wrapper below has tried it again already and given up.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::{Overloaded, RateLimited, Timeout, Unavailable};
        !self.0.exhausted && matches!(self.0.kind, Overloaded | RateLimited | Timeout | Unavailable)
    }

    /// Returns `true` if another provider may do better. It cannot if the texts are not acceptable, if its space is not
    /// the wanted one, or if it is too late.
    ///
    /// A wrong configuration that shows only in a call (a 404, a redirect, a certificate that is not accepted) is that
    /// of one provider, and another provider may well answer. So a fallback goes on to the next provider, and `Retry`
    /// does not try again. A caller's own mistakes show when a provider is built, before there is a call to fall back
    /// with. A server that breaks off a TLS handshake is [`Unavailable`](ErrorKind::Unavailable).
    pub fn should_fall_back(&self) -> bool {
        use ErrorKind::{DeadlinePassed, InvalidInput, SpaceMismatch};
        !matches!(self.0.kind, DeadlinePassed | InvalidInput | SpaceMismatch)
    }

    /// Returns the rows finished before the failure, if there are any. If they lie in several spaces, see
    /// [`partials`](Self::partials).
    pub fn partial(&self) -> Option<&Partial> {
        self.0.partials.first().map(|partial| &**partial)
    }

    /// Iterates over all rows finished before the failure, one item per space. Only an embedder of several spaces has
    /// several items.
    pub fn partials(&self) -> impl Iterator<Item = &Partial> {
        self.0.partials.iter().map(|partial| &**partial)
    }

    /// Returns the highest index of a text that the error is about, as a bad text or with a finished row.
    pub(crate) fn highest_index(&self) -> Option<usize> {
        let bad = self.bad_texts().last().map(|bad| bad.index);
        self.partials().filter_map(|partial| partial.indices().last().copied()).chain(bad).max()
    }

    /// Takes the rows finished before the failure, so that no finished work is lost.
    pub fn into_partial(self) -> Option<Partial> {
        self.into_partials().into_iter().next()
    }

    /// Takes all rows finished before the failure, one item per space.
    pub fn into_partials(self) -> Vec<Partial> {
        Arc::unwrap_or_clone(self.0).partials.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// Names the embedder that failed, unless one is named already: the innermost one is the one to look at.
    #[must_use]
    pub fn with_embedder(mut self, embedder: &(impl fmt::Display + ?Sized)) -> Self {
        self.inner().embedder.get_or_insert_with(|| embedder.to_string());
        self
    }

    /// Adds the HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.inner().status = Some(status);
        self
    }

    /// Adds the time that the provider asked to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.inner().retry_after = Some(wait);
        self
    }

    /// Adds the provider's id of the request.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.inner().request_id = Some(id.into());
        self
    }

    /// Says in the message what was being done: `what`, then a colon and the message.
    #[must_use]
    pub(crate) fn while_doing(mut self, what: impl fmt::Display) -> Self {
        let inner = self.inner();
        inner.message = format!("{what}: {}", inner.message);
        self
    }

    /// Removes the provider's code and its id of the request, each if `hidden` says that it must not be shown.
    #[cfg_attr(not(feature = "__http"), allow(dead_code, reason = "for providers on a network"))]
    #[must_use]
    pub(crate) fn without_words(mut self, hidden: impl Fn(&str) -> bool) -> Self {
        let inner = self.inner();
        inner.request_id.take_if(|words| hidden(words));
        inner.code.take_if(|words| hidden(words));
        self
    }

    /// Removes the provider's own words.
    #[cfg_attr(not(feature = "openai"), allow(dead_code, reason = "for providers on a network"))]
    #[must_use]
    pub(crate) fn without_provider_message(mut self) -> Self {
        self.inner().provider_message = None;
        self
    }

    /// Adds the provider's code, if it looks like one: up to 64 letters and underscores. Keys contain other characters,
    /// and so do nearly all texts.
    #[must_use]
    pub fn with_provider_code(mut self, code: &str) -> Self {
        if (1..=64).contains(&code.len()) && code.chars().all(|c| c.is_ascii_alphabetic() || c == '_') {
            self.inner().code = Some(code.to_owned());
        }
        self
    }

    /// Adds the provider's own words. Only [`provider_message`](Self::provider_message) returns them.
    #[must_use]
    pub fn with_provider_message(mut self, message: impl Into<String>) -> Self {
        self.inner().provider_message = Some(message.into());
        self
    }

    /// Adds to the known cost of the failed call, without the rows in [`partials`](Self::partials). A second call adds
    /// again.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.inner().charges += usage;
        self
    }

    /// Adds charges to the known cost of the failed call, without the rows in [`partials`](Self::partials).
    #[must_use]
    pub fn with_charges(mut self, charges: &Charges) -> Self {
        if !charges.is_none() {
            self.inner().charges += charges;
        }
        self
    }

    /// Names the payee of the failed call, and of the rows finished before it, for all usage that has none yet.
    #[must_use]
    pub fn with_payee(mut self, payee: &Payee) -> Self {
        let inner = self.inner();
        inner.charges = std::mem::take(&mut inner.charges).attributed_to(payee);
        for partial in &mut inner.partials {
            let Partial { indices, embeddings } = (**partial).clone();
            *partial = Arc::new(Partial { indices, embeddings: embeddings.with_payee(payee) });
        }
        self
    }

    /// Removes the cost of the failed call, for callers that account for it elsewhere.
    #[must_use]
    pub(crate) fn without_charges(mut self) -> Self {
        self.inner().charges = Charges::NONE;
        self
    }

    /// Adds what the provider still allows.
    #[must_use]
    pub fn with_rate_limit_status(mut self, rate_limit_status: RateLimitStatus) -> Self {
        self.inner().rate_limit_status = Some(rate_limit_status);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        self.inner().source = Some(Arc::from(source.into()));
        self
    }

    /// Sets the rows that were finished. An empty partial result is the same as none. A text that has a row is not
    /// [named as bad](Self::bad_texts).
    #[must_use]
    pub fn with_partial(mut self, partial: Partial) -> Self {
        let some = (!partial.indices.is_empty()).then(|| Arc::new(partial));
        self.inner().partials = some.into_iter().collect();
        self.inner().settle();
        self
    }

    /// Adds finished rows of other calls, whose indices are the caller's. Rows of one space become one partial result;
    /// rows of another space stay beside them.
    #[must_use]
    pub(crate) fn with_more_partials(mut self, more: Vec<Partial>) -> Self {
        if more.is_empty() {
            return self;
        }
        // The parts are sorted by space, because one matrix must not hold rows of two spaces. A part without rows is no
        // partial result, but it may have cost something: its charges become those of the failed call.
        let own = std::mem::take(&mut self.inner().partials);
        let all = own.into_iter().map(Arc::unwrap_or_clone).chain(more);
        let mut spaces: Vec<Vec<Partial>> = Vec::new();
        let mut nobodys = Charges::NONE;
        for partial in all {
            if partial.indices.is_empty() {
                nobodys += partial.embeddings.charges();
                continue;
            }
            let same = |of: &&mut Vec<Partial>| of[0].embeddings.space() == partial.embeddings.space();
            match spaces.iter_mut().find(same) {
                Some(of) => of.push(partial),
                None => spaces.push(vec![partial]),
            }
        }
        self.inner().charges += nobodys;
        for mut of in spaces {
            if of.len() == 1 {
                self.inner().partials.extend(of.pop().map(Arc::new));
                continue;
            }
            // Calls end in any order, but the indices of a partial result must ascend.
            of.sort_by_key(|part| part.indices[0]);
            let indices: Vec<usize> = of.iter().flat_map(|part| part.indices.iter().copied()).collect();
            let rows = Embeddings::concat(of.iter().map(|part| &part.embeddings));
            let joined = rows.and_then(|rows| Partial::pair(indices, rows));
            // Parts whose indices would not ascend together cannot be joined. They stay as they are, so no row is lost.
            let parts = joined.map_or(of, |joined| vec![joined]);
            self.inner().partials.extend(parts.into_iter().map(Arc::new));
        }
        self.inner().settle();
        self
    }

    /// Removes the finished rows and their cost, for callers that keep both elsewhere.
    #[must_use]
    pub fn without_partial(mut self) -> Self {
        if !self.0.partials.is_empty() {
            self.inner().partials.clear();
        }
        self
    }

    /// Removes the finished rows, because they are of no use. Their cost becomes that of the failed call.
    #[must_use]
    pub fn without_rows(self) -> Self {
        let charges: Charges = self.partials().map(|partial| partial.embeddings().charges()).sum();
        self.without_partial().with_charges(&charges)
    }

    /// Replaces the texts that are the cause, whatever the kind of the error. Texts that have a row in
    /// [`partials`](Self::partials) are left out.
    #[must_use]
    pub fn with_bad_texts(mut self, bad: Vec<BadText>) -> Self {
        self.inner().bad_texts = bad;
        self.inner().settle();
        self
    }

    /// Adds texts that are the cause.
    #[must_use]
    pub(crate) fn with_more_bad_texts(mut self, bad: &[BadText]) -> Self {
        self.inner().bad_texts.extend_from_slice(bad);
        self.inner().settle();
        self
    }

    /// Marks texts that were never sent because an earlier call failed.
    #[must_use]
    pub(crate) fn of_others(mut self) -> Self {
        let inner = self.inner();
        inner.message = format!("not sent, because an earlier call failed: {}", inner.message);
        // The error of the earlier call reports the cost and the attempts: they must not be counted for each text.
        (inner.charges, inner.gave_up) = (Charges::NONE, None);
        self
    }

    /// Marks that the whole reply is at fault, as if it has rows of another width: no single text can be the cause.
    #[cfg_attr(not(feature = "__http"), allow(dead_code, reason = "for providers on a network"))]
    #[must_use]
    pub(crate) fn of_whole_reply(mut self) -> Self {
        self.inner().of_whole_reply = true;
        self
    }

    /// Marks that retrying was given up, so that an outer retry does not multiply the attempts.
    #[must_use]
    pub fn mark_exhausted(mut self) -> Self {
        self.inner().exhausted = true;
        self
    }

    /// Marks that retrying was given up after this many attempts, and says why.
    #[must_use]
    pub(crate) fn gave_up(mut self, attempts: u32, why: String) -> Self {
        self.inner().gave_up = Some((attempts, why));
        self.mark_exhausted()
    }

    /// Replaces the indices of an inner call by the caller's, in [`bad_texts`](Self::bad_texts) and
    /// [`partials`](Self::partials).
    ///
    /// One inner text may stand for several texts of the caller (as in [`Dedup`](crate::wrap::Dedup)). Then each of
    /// them is named, or gets its row.
    #[must_use]
    pub fn map_indices<I: IntoIterator<Item = usize>>(mut self, outer: impl Fn(usize) -> I) -> Self {
        let bad = std::mem::take(&mut self.inner().bad_texts);
        self.inner().bad_texts = bad
            .iter()
            .flat_map(|bad| outer(bad.index).into_iter().map(|index| BadText { index, reason: bad.reason.clone() }))
            .collect();
        for partial in &mut self.inner().partials {
            let mut rows: Vec<(usize, usize)> = partial
                .indices
                .iter()
                .enumerate()
                .flat_map(|(row, &inner)| outer(inner).into_iter().map(move |index| (index, row)))
                .collect();
            rows.sort_unstable();
            // Two inner texts may stand for one text of the caller, which has one row.
            rows.dedup_by_key(|&mut (index, _)| index);
            let picked: Vec<usize> = rows.iter().map(|&(_, row)| row).collect();
            *partial = Arc::new(Partial {
                indices: rows.into_iter().map(|(index, _)| index).collect(),
                embeddings: partial.embeddings.select(&picked),
            });
        }
        self.inner().settle();
        self
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl Partial {
    /// Pairs row `r` of `embeddings` with the caller's text `indices[r]`.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) if there is not one index per row, or if the indices do not ascend.
    pub fn new(indices: Vec<usize>, embeddings: Embeddings) -> Result<Self> {
        let (given, rows) = (indices.len(), embeddings.len());
        Self::pair(indices, embeddings).ok_or_else(|| {
            let message = format!(
                "{given} indices for {rows} finished rows: there must be one index per row, in ascending order"
            );
            Error::new(ErrorKind::Protocol, message)
        })
    }
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::new(ErrorKind::Config, error.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn names_the_first_bad_texts_and_counts_the_rest() {
        let bad = (0..20).rev().map(|i| BadText::new(i, BadTextReason::Empty)).collect();
        let text = Error::invalid_texts(bad).to_string();
        assert!(text.starts_with("invalid input: text 0 is empty; text 1 is empty"), "{text}");
        assert!(text.ends_with("and 12 more texts"), "{text}");
    }

    #[test]
    fn advice_about_many_texts_is_given_once_at_the_end() {
        let too_long = |index| BadText::new(index, BadTextReason::TooLong { tokens: 300, limit: 256 });
        let text = Error::invalid_texts((0..688).map(too_long).collect()).with_request_id("r-1").to_string();
        assert!(
            text.starts_with("invalid input: text 0 has at least 300 tokens, the limit is 256; text 1 has "),
            "{text}"
        );
        let end = "; and 680 more texts [request r-1]: split the over-long texts, or embed their beginnings: \
                   `embedder.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate))`";
        assert!(text.ends_with(end), "{text}");
        assert_eq!(text.matches("Truncation::Truncate").count(), 1);
        let too_large = BadText::new(3, BadTextReason::TooLarge { bytes: 9, limit: 8 });
        let text = Error::invalid_texts(vec![BadText::new(1, BadTextReason::Empty), too_large.clone()]).to_string();
        let all = "invalid input: text 1 is empty; text 3 has 9 bytes, a call holds at most 8: split the texts that are \
                   too large";
        assert_eq!(text, all);
        // The call that embeds the most is named, whatever else is wrong.
        assert!(Error::invalid_texts(vec![too_large, too_long(4)]).to_string().ends_with("Truncation::Truncate))`"));
        assert_eq!(
            Error::invalid_texts(vec![BadText::new(1, BadTextReason::Empty)]).to_string().matches(':').count(),
            1
        );
    }

    #[test]
    fn what_was_retried_to_the_end_is_not_retryable() {
        let error = Error::new(ErrorKind::Unavailable, "down");
        assert!(error.is_retryable());
        assert!(!error.mark_exhausted().is_retryable());
        assert!(!Error::new(ErrorKind::QuotaExhausted, "no money").is_retryable());
    }

    #[test]
    fn the_message_is_what_the_error_was_made_with() {
        let error = Error::new(ErrorKind::Unavailable, "no connection").with_embedder("fake").with_status(503);
        assert_eq!((error.message(), error.attempts()), ("no connection", None));
        let error = error.gave_up(3, "as told".into());
        assert_eq!((error.message(), error.attempts()), ("no connection", Some(3)));
        assert_eq!(error.clone().mark_exhausted().attempts(), Some(3));
        let text = "unavailable in fake (status 503): no connection (gave up after 3 attempts: as told)";
        assert_eq!(error.to_string(), text);
        assert_eq!(Error::invalid_texts(vec![BadText::new(0, BadTextReason::Empty)]).message(), "");
        assert_eq!(Error::new(ErrorKind::Timeout, "late").mark_exhausted().attempts(), None);
    }

    #[test]
    fn one_inner_index_can_stand_for_many() {
        let error = Error::invalid_texts(vec![BadText::new(1, BadTextReason::Empty)]).map_indices(|_| [7, 2]);
        let at: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
        assert_eq!(at, [2, 7]);
    }
}
