//! Says who is paid for what: [`Charges`], on every result and every error.

#[cfg(feature = "serde")]
mod stored;

use std::{fmt, iter::Sum, ops::AddAssign, sync::Arc};

use crate::{Usage, named::named};

/// The tier of a provider's service, which decides the price.
///
/// Part of a [`Payee`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tier {
    /// Requests that are answered at once.
    Standard,
    /// Jobs of many requests that are answered later.
    Batch,
    /// Work on this machine, which nobody bills.
    Local,
}

named! {
    /// Returns the name: `standard`, `batch` or `local`.
    Tier, "a tier",
    Standard = "standard",
    Batch = "batch",
    Local = "local",
}

/// The provider that is paid, for which model, at which tier. Cheap to clone.
///
/// ```
/// use docvector_embed::{Payee, Tier};
/// let payee = Payee::new("openai", "text-embedding-3-small", Tier::Batch);
/// assert_eq!(payee.to_string(), "openai/text-embedding-3-small (batch)");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Payee(Arc<(Box<str>, Box<str>, Tier)>);

impl Payee {
    /// Makes a payee of the provider's name in lower case, as [`price::of`](crate::price::of) knows it, the provider's
    /// name for the model, and the tier.
    pub fn new(provider: impl Into<Box<str>>, model: impl Into<Box<str>>, tier: Tier) -> Self {
        Self(Arc::new((provider.into(), model.into(), tier)))
    }

    /// Returns the name of the provider that bills, in lower case.
    pub fn provider(&self) -> &str {
        &self.0.0
    }

    /// Returns the provider's name for the model.
    pub fn model(&self) -> &str {
        &self.0.1
    }

    /// Returns the tier of the provider's service.
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

/// The usage that one payee is paid for.
///
/// An item of [`Charges`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Charge {
    /// The provider, model and tier that are paid.
    pub payee: Payee,
    /// The usage that it is paid for. Nothing in it was [cached](Usage::cached) or [deduplicated](Usage::deduplicated).
    pub usage: Usage,
}

/// The cost of a result or an error, per payee. Charges add up; the default is no charges.
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
/// The [`usage`](Self::usage) is the sum over all payees. It also contains cached and deduplicated texts, and usage
/// without a payee, from embedders that name none.
#[derive(Clone, Default, Eq)]
pub struct Charges {
    usage: Usage,
    /// The first payee's charge. There is rarely a second one, and without it nothing is allocated.
    first: Option<Charge>,
    more: Vec<Charge>,
}

/// Charges are equal if all payees have the same: in any order, because calls end in any order.
impl PartialEq for Charges {
    fn eq(&self, other: &Self) -> bool {
        let has_all = |one: &Self, of: &Self| {
            let mut charges = of.iter().filter(|charge| charge.usage != Usage::ZERO);
            charges.all(|charge| one.iter().any(|own| own == charge))
        };
        self.usage == other.usage && has_all(self, other) && has_all(other, self)
    }
}

impl Charges {
    /// No charges.
    pub const NONE: Self = Self { usage: Usage::ZERO, first: None, more: Vec::new() };

    /// Returns the charges of one payee.
    pub fn of(payee: &Payee, usage: Usage) -> Self {
        let first = Charge { payee: payee.clone(), usage: usage.billable() };
        Self { usage, first: Some(first), more: Vec::new() }
    }

    /// Returns everything that was used, whoever is paid for it, and everything that was saved.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// Iterates over the charges, one item per payee.
    pub fn iter(&self) -> impl Iterator<Item = &Charge> {
        self.first.iter().chain(&self.more)
    }

    /// Returns `true` if nothing was used and nothing saved.
    pub fn is_none(&self) -> bool {
        self.usage == Usage::ZERO
    }

    /// Returns the usage without a payee.
    pub fn unattributed(&self) -> Usage {
        let mut rest = self.usage.billable();
        self.iter().for_each(|charge| subtract(&mut rest, charge.usage));
        rest
    }

    /// Names the payee of all usage that has none yet.
    #[must_use]
    pub fn attributed_to(mut self, payee: &Payee) -> Self {
        let rest = self.unattributed();
        if rest != Usage::ZERO {
            self.add(payee, rest);
        }
        self
    }

    /// Subtracts usage that has no payee.
    pub(crate) fn take_unattributed(&mut self, usage: Usage) {
        subtract(&mut self.usage, usage);
    }

    /// Divides the charges by weight into parts that add up to the whole.
    ///
    /// If one call was made for several callers, this tells what each of them is to pay, by the tokens or bytes of its
    /// texts. If a number does not divide evenly, the largest remainders get one more. Weights that are all 0 count
    /// alike; without any weight there are no parts.
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

    /// Adds to the charge of this payee, but not to the sum over all payees.
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

/// Divides a number by weight. Each of the largest remainders, and of equal ones the first, gets one more until nothing
/// is left.
fn divide_number(whole: u64, weights: &[u64]) -> Vec<u64> {
    let alike = weights.iter().all(|&weight| weight == 0);
    let weight = |at: usize| if alike { 1 } else { u128::from(weights[at]) };
    let sum: u128 = (0..weights.len()).map(weight).sum::<u128>().max(1);
    // 128 bits hold the product of two 64-bit numbers.
    let product = |at: usize| u128::from(whole) * weight(at);
    let mut parts: Vec<u64> = (0..weights.len()).map(|at| (product(at) / sum) as u64).collect();
    let left = whole - parts.iter().sum::<u64>().min(whole);
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&at| std::cmp::Reverse(product(at) % sum));
    by_remainder.into_iter().take(left as usize).for_each(|at| parts[at] += 1);
    parts
}

/// Subtracts each number of a usage, and stops at 0.
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
    /// Makes charges without a payee.
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

    #[test]
    fn the_order_of_payees_does_not_matter() {
        let of = |name: &str, tokens| {
            Charges::of(&Payee::new("test", name, Tier::Standard), Usage::of_request(Some(tokens)))
        };
        let sum = |parts: [Charges; 2]| parts.iter().sum::<Charges>();
        assert_eq!(sum([of("a", 1), of("b", 2)]), sum([of("b", 2), of("a", 1)]));
        assert_ne!(sum([of("a", 1), of("b", 2)]), sum([of("a", 2), of("b", 1)]));
        assert_ne!(of("a", 3), of("b", 3));
    }

    proptest! {
        /// The parts add up to the whole, for each payee, and no part differs from its share by more than one.
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
        crate::named::check_names(Tier::ALL);
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
