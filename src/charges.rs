//! Says who is to be paid for what: [`Charges`], on every result and every error.

use std::{
    fmt,
    iter::Sum,
    ops::{AddAssign, SubAssign},
    sync::Arc,
};

use crate::Usage;

/// At which price a provider works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tier {
    /// A request that is answered at once.
    Standard,
    /// A job of many requests that takes its time.
    Batch,
    /// This machine, which nobody bills.
    Local,
}

impl Tier {
    /// Its stable name: `standard`, `batch`, `local`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who is paid, for which model, at which tier. Cheap to clone.
///
/// ```
/// use docvector_embed::{Payee, Tier};
/// let payee = Payee::new("openai", "text-embedding-3-small", Tier::Batch);
/// assert_eq!(payee.to_string(), "openai/text-embedding-3-small (batch)");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Payee(Arc<(Box<str>, Box<str>, Tier)>);

impl Payee {
    /// Names a provider in lower case, as [`price::of`](crate::price::of) knows it, and the model by the provider's name.
    pub fn new(provider: impl Into<Box<str>>, model: impl Into<Box<str>>, tier: Tier) -> Self {
        Self(Arc::new((provider.into(), model.into(), tier)))
    }

    /// Who bills, in lower case.
    pub fn provider(&self) -> &str {
        &self.0.0
    }

    /// The model, by the provider's name.
    pub fn model(&self) -> &str {
        &self.0.1
    }

    /// At which price.
    pub fn tier(&self) -> Tier {
        self.0.2
    }
}

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider(), self.model())?;
        match self.tier() {
            Tier::Standard => Ok(()),
            tier => write!(f, " ({tier})"),
        }
    }
}

impl fmt::Debug for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payee({self})")
    }
}

/// What one payee did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// Who is paid.
    pub payee: Payee,
    /// For what. Nothing in it was [cached](Usage::cached) or [deduplicated](Usage::deduplicated).
    pub usage: Usage,
}

/// What a result or an error cost, by who is to be paid. Adds up; the default is nothing at all.
///
/// ```
/// use docvector_embed::{Charges, Payee, Tier, Usage};
/// let openai = Payee::new("openai", "text-embedding-3-small", Tier::Standard);
/// let mut charges = Charges::of(&openai, Usage::of_request(Some(12)));
/// // Two texts came from a cache: nobody is paid for them.
/// charges += Usage::ZERO.with_cached(2);
/// assert_eq!((charges.usage().tokens, charges.usage().cached), (12, 2));
/// let by_payee: Vec<_> = charges.iter().map(|charge| (charge.payee.model(), charge.usage.tokens)).collect();
/// assert_eq!(by_payee, [("text-embedding-3-small", 12)]);
/// ```
///
/// The [`usage`](Self::usage) is the sum over all payees, with what was saved, and with what nobody has put a name to:
/// that of embedders that do not say who they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Charges {
    usage: Usage,
    /// Nearly always there is one, and then nothing is allocated.
    first: Option<Charge>,
    more: Vec<Charge>,
}

impl Charges {
    /// No charges.
    pub const NONE: Self = Self { usage: Usage::ZERO, first: None, more: Vec::new() };

    /// The charges of one payee.
    pub fn of(payee: &Payee, usage: Usage) -> Self {
        let first = Charge { payee: payee.clone(), usage: usage.billable() };
        Self { usage, first: Some(first), more: Vec::new() }
    }

    /// All that was used, whoever is paid for it, and what was saved.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// Who is paid for what, one item per payee.
    pub fn iter(&self) -> impl Iterator<Item = &Charge> {
        self.first.iter().chain(&self.more)
    }

    /// Whether nothing was used and nothing saved.
    pub fn is_none(&self) -> bool {
        self.usage == Usage::ZERO
    }

    /// What nobody has put a name to.
    pub fn unattributed(&self) -> Usage {
        let mut rest = self.usage.billable();
        self.iter().for_each(|charge| subtract(&mut rest, charge.usage));
        rest
    }

    /// Puts a name to what has none yet.
    #[must_use]
    pub fn attributed_to(mut self, payee: &Payee) -> Self {
        let rest = self.unattributed();
        if rest != Usage::ZERO {
            self.add(payee, rest);
        }
        self
    }

    fn add(&mut self, payee: &Payee, usage: Usage) {
        let same = self.first.iter_mut().chain(&mut self.more).find(|charge| charge.payee == *payee);
        if let Some(charge) = same {
            charge.usage += usage;
            return;
        }
        let charge = Charge { payee: payee.clone(), usage };
        match self.first {
            None => self.first = Some(charge),
            Some(_) => self.more.push(charge),
        }
    }
}

fn subtract(from: &mut Usage, usage: Usage) {
    let Usage { tokens, requests, unreported, unanswered, cached, deduplicated } = usage;
    from.tokens = from.tokens.saturating_sub(tokens);
    from.requests = from.requests.saturating_sub(requests);
    from.unreported = from.unreported.saturating_sub(unreported);
    from.unanswered = from.unanswered.saturating_sub(unanswered);
    from.cached = from.cached.saturating_sub(cached);
    from.deduplicated = from.deduplicated.saturating_sub(deduplicated);
}

impl From<Usage> for Charges {
    /// Charges without a name.
    fn from(usage: Usage) -> Self {
        Self { usage, ..Self::NONE }
    }
}

impl AddAssign<&Self> for Charges {
    fn add_assign(&mut self, other: &Self) {
        self.usage += other.usage;
        other.iter().for_each(|charge| self.add(&charge.payee, charge.usage));
    }
}

impl AddAssign for Charges {
    fn add_assign(&mut self, other: Self) {
        if self.is_none() && self.first.is_none() {
            *self = other;
        } else {
            *self += &other;
        }
    }
}

impl AddAssign<Usage> for Charges {
    fn add_assign(&mut self, usage: Usage) {
        self.usage += usage;
    }
}

impl SubAssign<Usage> for Charges {
    /// Takes off what has no name.
    fn sub_assign(&mut self, usage: Usage) {
        subtract(&mut self.usage, usage);
    }
}

impl<'c> Sum<&'c Self> for Charges {
    fn sum<I: Iterator<Item = &'c Self>>(parts: I) -> Self {
        parts.fold(Self::NONE, |mut sum, part| {
            sum += part;
            sum
        })
    }
}

impl fmt::Debug for Charges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_payee: Vec<&Charge> = self.iter().collect();
        f.debug_struct("Charges").field("usage", &self.usage).field("by_payee", &by_payee).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_payees_apart_and_lose_nothing() {
        let payees = ["small", "large"].map(|model| Payee::new("openai", model, Tier::Standard));
        let one = Charges::of(&payees[0], Usage::of_request(Some(3)));
        let two = Charges::of(&payees[1], Usage::of_request(None));
        let nameless = Charges::from(Usage::of_unanswered().with_cached(4));
        let sum: Charges = [&one, &two, &nameless, &one].into_iter().sum();
        assert_eq!(sum.usage(), one.usage() + one.usage() + two.usage() + nameless.usage());
        let of = |payee: &Payee| sum.iter().find(|charge| charge.payee == *payee).map(|charge| charge.usage);
        assert_eq!(of(&payees[0]), Some(one.usage() + one.usage()));
        assert_eq!(of(&payees[1]), Some(two.usage()));
        assert_eq!(sum.unattributed(), Usage::of_unanswered());
        let named = sum.clone().attributed_to(&payees[0]);
        assert_eq!((named.usage(), named.unattributed()), (sum.usage(), Usage::ZERO));
        assert_eq!(named.iter().count(), 2);
    }
}
