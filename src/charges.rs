//! Says who is to be paid for what: [`Charges`], on every result and every error.

#[cfg(feature = "serde")]
mod stored;

use std::{fmt, iter::Sum, ops::AddAssign, sync::Arc};

use crate::{Usage, named::named};

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

named! {
    /// The name: `standard`, `batch` or `local`.
    Tier, "a tier",
    Standard = "standard",
    Batch = "batch",
    Local = "local",
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
/// The [`usage`](Self::usage) is the sum over all payees. It also contains cached and deduplicated texts, and usage without
/// a payee, from embedders that name none.
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

    /// Takes off what has no name.
    pub(crate) fn take_unattributed(&mut self, usage: Usage) {
        subtract(&mut self.usage, usage);
    }

    /// Divides them by weight, so that the parts add up to the whole: what each of several callers is to pay of a call
    /// that was made for all of them, by the tokens or bytes of their texts. Where a number does not divide evenly, the
    /// largest remainders get one more. Weights that are all 0 count alike; without any weight there are no parts.
    ///
    /// ```
    /// use docvector_embed::{Charges, Usage};
    /// let whole = Charges::from(Usage::of_request(Some(10)));
    /// let tokens: Vec<u64> = whole.apportion(&[1, 1, 1]).iter().map(|part| part.usage().tokens).collect();
    /// assert_eq!(tokens, [4, 3, 3]);
    /// ```
    pub fn apportion(&self, weights: &[u64]) -> Vec<Self> {
        let of_payees: Vec<(&Payee, Vec<Usage>)> =
            self.iter().map(|charge| (&charge.payee, divide(charge.usage, weights))).collect();
        let saved = Usage { cached: self.usage.cached, deduplicated: self.usage.deduplicated, ..Usage::ZERO };
        let rest = divide(self.unattributed() + saved, weights);
        let part = |(at, rest): (usize, Usage)| {
            let mut part = Self::from(rest);
            for (payee, usages) in of_payees.iter().filter(|(_, usages)| usages[at] != Usage::ZERO) {
                part += Self::of(payee, usages[at]);
            }
            part
        };
        rest.into_iter().enumerate().map(part).collect()
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

/// Divides each number of a usage by weight.
fn divide(usage: Usage, weights: &[u64]) -> Vec<Usage> {
    let mut parts = vec![Usage::ZERO; weights.len()];
    let Usage { tokens, requests, unreported, unanswered, cached, deduplicated } = usage;
    let mut each = |whole: u64, set: fn(&mut Usage) -> &mut u64| {
        parts.iter_mut().zip(divide_number(whole, weights)).for_each(|(part, number)| *set(part) = number);
    };
    each(tokens, |part| &mut part.tokens);
    each(requests, |part| &mut part.requests);
    each(unreported, |part| &mut part.unreported);
    each(unanswered, |part| &mut part.unanswered);
    each(cached, |part| &mut part.cached);
    each(deduplicated, |part| &mut part.deduplicated);
    parts
}

/// Divides a number by weight; the largest remainders, and of equal ones the first, get what is left.
fn divide_number(whole: u64, weights: &[u64]) -> Vec<u64> {
    let alike = weights.iter().all(|&weight| weight == 0);
    let weight = |at: usize| if alike { 1 } else { u128::from(weights[at]) };
    let sum: u128 = (0..weights.len()).map(weight).sum::<u128>().max(1);
    // 128 bits hold the product of two numbers of 64.
    let product = |at: usize| u128::from(whole) * weight(at);
    let mut parts: Vec<u64> = (0..weights.len()).map(|at| (product(at) / sum) as u64).collect();
    let left = whole - parts.iter().sum::<u64>().min(whole);
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&at| std::cmp::Reverse(product(at) % sum));
    by_remainder.into_iter().take(left as usize).for_each(|at| parts[at] += 1);
    parts
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
    use proptest::prelude::*;

    use super::*;

    fn usage() -> impl Strategy<Value = Usage> {
        let number = || prop_oneof![0_u64..10, any::<u64>().prop_map(|number| number / 4)];
        (number(), number(), number(), number(), number(), number()).prop_map(
            |(tokens, requests, unreported, unanswered, cached, deduplicated)| Usage {
                tokens,
                requests,
                unreported,
                unanswered,
                cached,
                deduplicated,
            },
        )
    }

    proptest! {
        /// The parts add up to the whole, for each payee, and none is more than one off its share.
        #[test]
        fn parts_add_up_to_the_whole(
            named in prop::collection::vec((0_usize..3, usage()), 0..3),
            rest in usage(),
            weights in prop::collection::vec(prop_oneof![0_u64..5, any::<u64>()], 1..9),
        ) {
            let payees: Vec<Payee> = ["a", "b", "c"].map(|model| Payee::new("p", model, Tier::Local)).to_vec();
            let mut whole = Charges::from(rest);
            named.iter().for_each(|(payee, usage)| whole += Charges::of(&payees[*payee], usage.billable()));
            let parts = whole.apportion(&weights);
            prop_assert_eq!(parts.len(), weights.len());
            let sum: Charges = parts.iter().sum();
            prop_assert_eq!(sum.usage(), whole.usage());
            prop_assert_eq!(sum.unattributed(), whole.unattributed());
            for charge in whole.iter().filter(|charge| charge.usage != Usage::ZERO) {
                prop_assert!(sum.iter().any(|same| same == charge), "{:?} of {:?}", charge, sum);
            }
            let all: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
            for (part, &weight) in parts.iter().zip(&weights).filter(|_| all > 0) {
                let share = whole.unattributed().tokens as f64 * (weight as f64 / all as f64);
                let off = (part.unattributed().tokens as f64 - share).abs();
                prop_assert!(off <= 1.0 + share * 1e-9, "{} of {}", part.unattributed().tokens, share);
            }
        }
    }

    #[test]
    fn tiers_are_read_back() {
        for &tier in Tier::ALL {
            assert_eq!(tier.to_string().parse::<Tier>().expect("a name"), tier);
        }
        let error = "Batch".parse::<Tier>().expect_err("another case");
        assert_eq!(error.message(), "\"Batch\" as a tier: it must be one of standard, batch, local");
    }

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
