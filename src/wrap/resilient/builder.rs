//! Collects the members of a [`Resilient`](super::Resilient), and refuses those whose vectors cannot be compared:
//! [`ResilientBuilder`].

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    breaker::BreakerPolicy,
    hedging::{Hedger, Hedging},
    inner::Inner,
    member::Member,
    proof::Proof,
};
use crate::{
    Charges, Embedder, Error, ErrorKind, Result, Space, observer::Observer, shown_name::innermost, sync::Mutex,
};

/// The least cosine of two vectors of a probe text that are of one model. Repeated calls of a hosted model differ by
/// at most 3e-4, and fp16 from fp32 by less.
const MIN_COSINE: f32 = 0.999;

/// Builds a [`Resilient`](super::Resilient).
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::{Embedder, EmbedderExt, provider::Fake, wrap::{BreakerPolicy, Hedging, Resilient}};
/// # fn main() -> docvector_embed::Result<()> {
/// let own = Fake::new(8).timeout(Duration::from_secs(10));
/// let twin = Fake::new(8).timeout(Duration::from_secs(30));
/// // A model of another space, whose results say so.
/// let other = Fake::builder().with_model("other").with_dimensions(16).build()?;
/// let embedder = Resilient::builder(own)
///     .with_fallback(twin)
///     .with_fallback_in_another_space(other)
///     .with_trusted_spaces()
///     .with_breaker(BreakerPolicy::default().with_open_for(Duration::from_secs(10)))
///     .with_hedging(Hedging::default())
///     .build()?;
/// assert_eq!(embedder.spaces().len(), 2);
/// # Ok(()) }
/// ```
///
/// # Default
/// No fall-back, [`BreakerPolicy::default`], no hedging; fall-backs in the primary's space must be proved, with a cosine
/// of at least 0.999.
#[must_use = "a builder does nothing until it is built"]
pub struct ResilientBuilder {
    /// The primary first, each with its label if it has been given one.
    members: Vec<(Arc<dyn Embedder>, Option<String>, Opt)>,
    breaker: BreakerPolicy,
    hedging: Option<Hedging>,
    trusted: bool,
    min_cosine: f32,
    observer: Option<Arc<dyn Observer>>,
}

impl fmt::Debug for ResilientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientBuilder").field("members", &self.members).finish_non_exhaustive()
    }
}

/// Whether the caller has agreed to vectors of another space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    SameSpace,
    AnotherSpace,
}

impl ResilientBuilder {
    pub(super) fn new(primary: Arc<dyn Embedder>) -> Self {
        let members = vec![(primary, None, Opt::SameSpace)];
        let (breaker, hedging) = (BreakerPolicy::default(), None);
        Self { members, breaker, hedging, trusted: false, min_cosine: MIN_COSINE, observer: None }
    }

    /// Adds a fall-back in the primary's space, after those before it.
    pub fn with_fallback(mut self, fallback: impl Embedder) -> Self {
        self.members.push((Arc::new(fallback), None, Opt::SameSpace));
        self
    }

    /// Adds a fall-back whose vectors may lie in another space, after those before it.
    ///
    /// Its vectors cannot be compared with those of the primary, not even if they have the same width. Look at the
    /// [`space`](crate::Embeddings::space) of each result before you store or compare it. A batch that wants a space, as of
    /// [`embed_query_in`](crate::EmbedderExt::embed_query_in), is never answered in another one, and a batch with a routing key
    /// is never answered outside of the primary's space: its collection lies there. So this is for batches with neither, and
    /// departs there from the duty of [routers](crate::Embedder::spaces) to have one arm for them. If the primary fails in
    /// the middle of an [`embed_all`](crate::EmbedderExt::embed_all) of several calls, their rows lie in two spaces, and it
    /// fails with [`SpaceMismatch`](ErrorKind::SpaceMismatch) and all rows.
    pub fn with_fallback_in_another_space(mut self, fallback: impl Embedder) -> Self {
        self.members.push((Arc::new(fallback), None, Opt::AnotherSpace));
        self
    }

    /// Sets the label of the member that was added last, which is the primary at first. Errors, events and
    /// [`members`](super::Resilient::members) name it so. Without it, the label is the name of the innermost embedder, such
    /// as `openai/text-embedding-3-small`. If several members have one label, the later ones get a number.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        if let Some((_, last, _)) = self.members.last_mut() {
            *last = Some(label.into());
        }
        self
    }

    /// Sets the rules of the breakers. Each member has a breaker of its own.
    pub fn with_breaker(mut self, policy: BreakerPolicy) -> Self {
        self.breaker = policy;
        self
    }

    /// Asks a second member beside the first one if an interactive call takes longer than usual. Each such call may be
    /// paid twice.
    pub fn with_hedging(mut self, hedging: Hedging) -> Self {
        self.hedging = Some(hedging);
        self
    }

    /// Takes members at their word: a member that states the primary's space gets calls without a proof. Do so for one
    /// provider at two addresses, and not for one model at two vendors.
    pub const fn with_trusted_spaces(mut self) -> Self {
        self.trusted = true;
        self
    }

    /// Sets the least cosine of two vectors of a probe text that count as those of one model: above 0, at most 1. Less
    /// than 0.999 is for models in int8, whose vectors differ between CPUs.
    pub const fn with_min_cosine(mut self, cosine: f32) -> Self {
        self.min_cosine = cosine;
        self
    }

    /// Sets the observer that hears of proofs that no call has asked for: those of [`Resilient::verify`](super::Resilient::verify)
    /// and [`verify_every`](super::Resilient::verify_every). Of everything else, the observer of the batch hears.
    pub fn with_observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Checks everything, and makes the state that clones share.
    pub(super) fn into_inner(self) -> Result<Inner> {
        let Self { members: given, breaker, hedging, trusted, min_cosine, observer } = self;
        breaker.check()?;
        hedging.as_ref().map_or(Ok(()), Hedging::check)?;
        if !(min_cosine > 0.0 && min_cosine <= 1.0) {
            let message = format!("a least cosine of {min_cosine}: `with_min_cosine` takes above 0, at most 1");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let primary = given[0].0.clone();
        let space = only_space(&*primary)?;
        let mut labels = Labels::default();
        let mut members = Vec::with_capacity(given.len());
        for (place, (member, label, opt)) in given.into_iter().enumerate() {
            let own = only_space(&*member)?;
            let same = own == space;
            if !same && opt == Opt::SameSpace {
                return Err(other_space(&*primary, &space, &*member, &own));
            }
            if !same && !trusted && members.iter().any(|member: &Member| member.space == own) {
                return Err(unproved_twins(&own));
            }
            let is_taken_at_its_word = place == 0 || trusted || !same;
            let proof = if is_taken_at_its_word { Proof::Stated } else { Proof::Missing };
            let label = labels.unique(label.unwrap_or_else(|| innermost(&member.to_string()).to_owned()))?;
            members.push(Member::new(label, member, own, &breaker, proof));
        }
        let first = members[0].limits.clone();
        let alike = members.iter().all(|member| member.limits == first);
        members.iter_mut().for_each(|member| member.alike = alike);
        let mut limits = members.iter().skip(1).fold(first.clone(), |all, member| all.combine(&member.limits));
        // A fall-back that takes fewer calls at once is no reason to slow the primary down.
        limits.in_flight = first.in_flight;
        let spaces = Space::distinct(members.iter().map(|member| &member.space));
        Ok(Inner {
            members,
            spaces,
            limits,
            alike,
            hedging: hedging.map(|hedging| Mutex::new(Hedger::new(hedging))),
            min_cosine,
            reference: Mutex::new(None),
            unclaimed: Mutex::new(Charges::NONE),
            observer,
            warned: AtomicBool::new(false),
        })
    }
}

/// Returns the one space of a member.
fn only_space(member: &dyn Embedder) -> Result<Space> {
    match member.spaces() {
        [space] => Ok(space.clone()),
        spaces => {
            let message = format!(
                "{member} lies in {} spaces, and a member lies in one: put a `Resilient` into each of its parts",
                spaces.len()
            );
            Err(Error::new(ErrorKind::Config, message))
        }
    }
}

/// Returns the error of two members in a second space: nobody compares them.
fn unproved_twins(space: &Space) -> Error {
    let message = format!(
        "two fall-backs lie in {space}, which is not the primary's space, and nothing proves that they are one model: put \
         them into a `Resilient` of their own and add that, or take them at their word `with_trusted_spaces`"
    );
    Error::new(ErrorKind::Config, message)
}

fn other_space(primary: &dyn Embedder, space: &Space, fallback: &dyn Embedder, own: &Space) -> Error {
    let width = if space.dimensions() == own.dimensions() { ", though they have the same width" } else { "" };
    let message = format!(
        "{primary} lies in {space} and its fall-back {fallback} in {own}: their vectors cannot be compared{width}; take \
         the same model, or `with_fallback_in_another_space` if each result's space is looked at"
    );
    Error::new(ErrorKind::SpaceMismatch, message)
}

/// Makes the labels of members distinct.
#[derive(Default)]
struct Labels(Vec<String>);

impl Labels {
    /// Returns the label, with a number if a member before has the same.
    fn unique(&mut self, label: String) -> Result<String> {
        if label.trim().is_empty() || label.contains(char::is_control) {
            let message = format!("the label {label:?} of a member: it must have one line, and not be blank");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let numbered = (2..).map(|number| format!("{label} #{number}"));
        let free = std::iter::once(label.clone()).chain(numbered).find(|label| !self.0.contains(label));
        let free = free.unwrap_or(label);
        self.0.push(free.clone());
        Ok(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let mut labels = Labels::default();
        let mut unique = |label: &str| labels.unique(label.into()).expect("one line");
        assert_eq!(["fake #2", "fake", "fake", "fake"].map(&mut unique), ["fake #2", "fake", "fake #3", "fake #4"]);
        for label in ["", " ", "two\nlines"] {
            assert_eq!(labels.unique(label.into()).expect_err(label).kind(), ErrorKind::Config);
        }
    }
}
