//! Says what models cost: dated prices in whole pico-dollars per token. A model that is not in the table has no price.
//!
//! ```
//! use docvector_embed::price;
//! let price = price::of("openai", "text-embedding-3-small").expect("a model in the table");
//! assert_eq!(price.cost(1_000_000).to_string(), "$0.02");
//! assert_eq!(price.batch_cost(1_000_000).expect("it has a batch price").to_string(), "$0.01");
//! // Unknown is not free.
//! assert!(price::of("openai", "text-embedding-4").is_none());
//! ```
//!
//! Prices change: each one has its source and the first day for which it is known to hold. Only the provider's bill is
//! binding. If you pay another price, make your own [`Price`]:
//!
//! ```
//! use docvector_embed::price::Price;
//! # fn main() -> docvector_embed::Result<()> {
//! let price = Price::per_million("a-host", "a-model", "0.0125")?.with_batch_per_million("0.00625")?;
//! assert_eq!(price.standard.as_picos(), 12_500);
//! assert_eq!(price.batch.map(|batch| batch.as_picos()), Some(6_250));
//! assert_eq!(price.cost(1).to_string(), "$0.0000000125");
//! # Ok(()) }
//! ```

use std::{
    borrow::Cow,
    fmt,
    iter::Sum,
    ops::{Add, AddAssign},
};

use crate::{Charge, Charges, Error, ErrorKind, Result, Tier, Usage};

/// An amount of money in pico-dollars: millionths of a millionth of a US dollar. The number is whole, so sums are
/// exact.
///
/// ```
/// use docvector_embed::price::PicoDollars;
/// let amount = PicoDollars::from_picos(20_000_000_000) + PicoDollars::from_picos(12_500);
/// assert_eq!(amount.as_picos(), 20_000_012_500);
/// assert_eq!(amount.to_string(), "$0.0200000125");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PicoDollars(u128);

impl PicoDollars {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// Makes an amount of this many pico-dollars. A dollar has 1,000,000,000,000 of them.
    pub const fn from_picos(picos: u128) -> Self {
        Self(picos)
    }

    /// Returns the number of pico-dollars.
    pub const fn as_picos(self) -> u128 {
        self.0
    }

    /// Returns this amount times `tokens`, at most the largest amount that the type can hold.
    const fn times(self, tokens: u64) -> Self {
        Self(self.0.saturating_mul(tokens as u128))
    }

    /// Returns the sum, or `None` if the type cannot hold it. (`+` returns the largest amount instead.)
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(picos) => Some(Self(picos)),
            None => None,
        }
    }
}

impl Add for PicoDollars {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for PicoDollars {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Writes whole pico-dollars as a string: JSON's numbers cannot hold all of them.
#[cfg(feature = "serde")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl serde::Serialize for PicoDollars {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(feature = "serde")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl<'de> serde::Deserialize<'de> for PicoDollars {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let picos = <String as serde::Deserialize>::deserialize(deserializer)?;
        let digits = !picos.is_empty() && picos.bytes().all(|digit| digit.is_ascii_digit());
        digits.then(|| picos.parse().ok()).flatten().map(Self).ok_or_else(|| {
            let shown: String = picos.chars().take(64).collect();
            serde::de::Error::custom(format!("{shown:?} as pico-dollars: it must be a whole number as a string"))
        })
    }
}

impl Sum for PicoDollars {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for PicoDollars {
    /// Shows dollars, with as many digits after the point as the amount has, and at least two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DOLLAR: u128 = 1_000_000_000_000;
        let digits = format!("{:012}", self.0 % DOLLAR);
        let shown = digits.trim_end_matches('0').len().max(2);
        f.pad(&format!("${}.{}", self.0 / DOLLAR, &digits[..shown]))
    }
}

/// The price of one token of a model.
///
/// See the [module](self) for an example.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Price {
    /// The provider that bills, in lower case: `openai`.
    pub provider: Cow<'static, str>,
    /// The model, under the provider's name for it.
    pub model: Cow<'static, str>,
    /// The price per token of a request that is answered at once.
    pub standard: PicoDollars,
    /// The price per token of a batch job; `None` if there are no batch jobs or the price is not known.
    #[cfg_attr(feature = "serde", serde(default))]
    pub batch: Option<PicoDollars>,
    /// The first day for which the price is known to hold, as `YYYY-MM-DD`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub valid_from: Cow<'static, str>,
    /// The place where the price is published.
    #[cfg_attr(feature = "serde", serde(default))]
    pub source: Cow<'static, str>,
}

impl Price {
    /// Makes a price of your own, per token. One dollar per million tokens is 1,000,000 pico-dollars per token.
    pub fn new(
        provider: impl Into<Cow<'static, str>>,
        model: impl Into<Cow<'static, str>>,
        standard: PicoDollars,
    ) -> Self {
        let (valid_from, source) = (Cow::Borrowed(""), Cow::Borrowed(""));
        Self { provider: provider.into(), model: model.into(), standard, batch: None, valid_from, source }
    }

    /// Makes a price of your own from dollars per million tokens, as providers publish it: `0.0125`, `$0.02`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if `dollars` is not a decimal number with at most 6 digits after the point, or is
    /// too large. A `$` may stand before it.
    pub fn per_million(
        provider: impl Into<Cow<'static, str>>,
        model: impl Into<Cow<'static, str>>,
        dollars: &str,
    ) -> Result<Self> {
        Ok(Self::new(provider, model, picos_per_token(dollars)?))
    }

    /// Sets the price per token of a batch job.
    #[must_use]
    pub const fn with_batch(mut self, batch: PicoDollars) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Sets the price of a batch job in dollars per million tokens.
    ///
    /// # Errors
    /// Those of [`per_million`](Self::per_million).
    pub fn with_batch_per_million(self, dollars: &str) -> Result<Self> {
        Ok(self.with_batch(picos_per_token(dollars)?))
    }

    /// Sets the first day for which the price holds, as `YYYY-MM-DD`, and the place where it is published.
    #[must_use]
    pub fn with_source(
        mut self,
        valid_from: impl Into<Cow<'static, str>>,
        source: impl Into<Cow<'static, str>>,
    ) -> Self {
        (self.valid_from, self.source) = (valid_from.into(), source.into());
        self
    }

    /// Returns the cost of all answered requests of a result or a run, or `None` if a reply did not report its tokens.
    ///
    /// Calls without an answer ([`unanswered`](Usage::unanswered)) are not included, but the provider may bill them. If
    /// there are any, the cost is a lower bound.
    pub fn cost_of(&self, usage: Usage) -> Option<PicoDollars> {
        usage.exact_tokens().map(|tokens| self.cost(tokens))
    }

    /// Returns the cost of a charge at its payee's tier, or `None` if the price or the tokens are not known. Nobody
    /// bills [`Local`](Tier::Local) work, so it costs nothing.
    ///
    /// ```
    /// use docvector_embed::{Charges, Payee, Tier, Usage, price};
    /// let batch = Payee::new("openai", "text-embedding-3-small", Tier::Batch);
    /// let charges = Charges::of(&batch, Usage::of_request(Some(1_000_000)));
    /// for charge in charges.iter() {
    ///     let price = price::of(charge.payee.provider(), charge.payee.model()).expect("in the table");
    ///     assert_eq!(price.of_charge(charge).expect("known").to_string(), "$0.01");
    /// }
    /// ```
    pub fn of_charge(&self, charge: &Charge) -> Option<PicoDollars> {
        let tokens = charge.usage.exact_tokens()?;
        match charge.payee.tier() {
            Tier::Standard => Some(self.cost(tokens)),
            Tier::Batch => self.batch_cost(tokens),
            Tier::Local => Some(PicoDollars::ZERO),
        }
    }

    /// Returns the cost of this many tokens.
    pub const fn cost(&self, tokens: u64) -> PicoDollars {
        self.standard.times(tokens)
    }

    /// Returns the cost of this many tokens in a batch job, or `None` if there is no batch price.
    pub fn batch_cost(&self, tokens: u64) -> Option<PicoDollars> {
        self.batch.map(|batch| batch.times(tokens))
    }
}

/// Converts dollars per million tokens into pico-dollars per token. Nothing is rounded.
fn picos_per_token(dollars: &str) -> Result<PicoDollars> {
    /// Digits after the point: a millionth of a dollar per million tokens is one pico-dollar per token.
    const PLACES: usize = 6;
    let parse = || {
        let number = dollars.strip_prefix('$').unwrap_or(dollars);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        (fraction.len() <= PLACES).then(|| format!("{whole}{fraction:0<PLACES$}").parse().ok()).flatten()
    };
    parse().map(|picos: u64| PicoDollars(picos.into())).ok_or_else(|| {
        let message = format!(
            "{dollars:?} as a price in dollars per million tokens: it must be a decimal number such as 0.0125, with at \
             most {PLACES} digits after the point, and at most {}",
            u64::MAX / 10_u64.pow(PLACES as u32)
        );
        Error::new(ErrorKind::Config, message)
    })
}

/// All known prices. A model's newest price comes last. $0.02 per million tokens is 20,000 pico-dollars per token.
///
/// The batch prices follow OpenAI's rule that a batch costs half. Sources disagree on whether text-embedding-ada-002
/// can be used in a batch at all, so it has no batch price.
pub const TABLE: &[Price] = &[
    Price {
        provider: Cow::Borrowed("openai"),
        model: Cow::Borrowed("text-embedding-3-small"),
        standard: PicoDollars(20_000),
        batch: Some(PicoDollars(10_000)),
        valid_from: Cow::Borrowed("2024-01-25"),
        source: Cow::Borrowed("platform.openai.com/docs/models/text-embedding-3-small"),
    },
    Price {
        provider: Cow::Borrowed("openai"),
        model: Cow::Borrowed("text-embedding-3-large"),
        standard: PicoDollars(130_000),
        batch: Some(PicoDollars(65_000)),
        valid_from: Cow::Borrowed("2024-01-25"),
        source: Cow::Borrowed("platform.openai.com/docs/models/text-embedding-3-large"),
    },
    Price {
        provider: Cow::Borrowed("openai"),
        model: Cow::Borrowed("text-embedding-ada-002"),
        standard: PicoDollars(100_000),
        batch: None,
        valid_from: Cow::Borrowed("2023-06-13"),
        source: Cow::Borrowed("platform.openai.com/docs/models/text-embedding-ada-002"),
    },
];

/// Returns the newest price of a provider's model, or `None` if it is not known. An unknown price does not mean free.
pub fn of(provider: &str, model: &str) -> Option<Price> {
    TABLE.iter().rev().find(|price| price.provider == provider && price.model == model).cloned()
}

/// Returns the cost of all charges by the first price that fits each, of `own` or else of the table, or `None` if a price,
/// a payee or a number of tokens is not known. Unknown is never free.
///
/// Nobody bills [`Local`](Tier::Local) work. Calls without an answer ([`unanswered`](Usage::unanswered)) are not included,
/// but the provider may bill them. If there are any, the cost is a lower bound.
///
/// ```
/// use docvector_embed::{Charges, Payee, Tier, Usage, price};
/// let payee = Payee::new("openai", "text-embedding-3-small", Tier::Standard);
/// let charges = Charges::of(&payee, Usage::of_request(Some(1_000_000)));
/// assert_eq!(price::total(&charges, &[]).map(|cost| cost.to_string()).as_deref(), Some("$0.02"));
/// assert!(price::total(&Charges::from(Usage::of_request(Some(7))), &[]).is_none());
/// ```
pub fn total(charges: &Charges, own: &[Price]) -> Option<PicoDollars> {
    let nobodys = charges.unattributed();
    if nobodys.tokens > 0 || nobodys.unreported > 0 {
        return None;
    }
    charges.iter().map(|charge| cost_of(charge, own)).sum()
}

/// Returns the cost of a charge by the first price that fits, of `own` or else of the table. Nobody bills
/// [`Local`](Tier::Local) work.
pub(crate) fn cost_of(charge: &Charge, own: &[Price]) -> Option<PicoDollars> {
    let payee = &charge.payee;
    if payee.tier() == Tier::Local {
        return Some(PicoDollars::ZERO);
    }
    let fits = |price: &&Price| price.provider == payee.provider() && price.model == payee.model();
    own.iter().find(fits).or_else(|| TABLE.iter().rev().find(fits))?.of_charge(charge)
}

/// Returns the price of a provider's model on a day (`YYYY-MM-DD`), or `None` if it is not known for that day.
pub fn on(provider: &str, model: &str, day: &str) -> Option<Price> {
    let is_it = |price: &&Price| price.provider == provider && price.model == model && *price.valid_from <= *day;
    TABLE.iter().rev().find(is_it).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_dated() {
        for (i, price) in TABLE.iter().enumerate() {
            assert!(price.standard > PicoDollars::ZERO && !price.source.is_empty(), "{price:?}");
            assert!(price.batch.is_none_or(|batch| batch > PicoDollars::ZERO && batch <= price.standard), "{price:?}");
            let date: Vec<usize> = price.valid_from.split('-').map(str::len).collect();
            assert_eq!(date, [4, 2, 2], "{price:?}");
            let earlier =
                TABLE[..i].iter().filter(|one| (&one.provider, &one.model) == (&price.provider, &price.model));
            assert!(earlier.map(|one| &one.valid_from).all(|day| *day < price.valid_from), "{price:?}");
        }
    }

    #[test]
    fn unknown_is_not_free() {
        assert_eq!(of("openai", "no-such-model"), None);
        assert_eq!(of("azure", "text-embedding-3-small"), None);
        assert_eq!(on("openai", "text-embedding-3-small", "2023-12-31"), None);
        assert_eq!(of("openai", "text-embedding-ada-002").and_then(|price| price.batch_cost(1)), None);
    }

    #[test]
    fn amounts_are_exact_and_shown_in_dollars() {
        let large = of("openai", "text-embedding-3-large").expect("in the table");
        // 49.5 million passages of 120 tokens.
        assert_eq!(large.cost(5_940_000_000), PicoDollars(772_200_000_000_000));
        assert_eq!(large.cost(5_940_000_000).to_string(), "$772.20");
        assert_eq!(large.cost(u64::MAX).as_picos(), 130_000 * u128::from(u64::MAX));
        assert_eq!([PicoDollars(2), PicoDollars(3)].into_iter().sum::<PicoDollars>(), PicoDollars(5));
        for (picos, shown) in [
            (0, "$0.00"),
            (1, "$0.000000000001"),
            (12_500, "$0.0000000125"),
            (10_000_000_000, "$0.01"),
            (100_000_000_000, "$0.10"),
            (999_999_999_999, "$0.999999999999"),
            (1_000_000_000_000, "$1.00"),
            (1_234_500_000_000, "$1.2345"),
            (u128::MAX, "$340282366920938463463374607.431768211455"),
        ] {
            assert_eq!(PicoDollars::from_picos(picos).to_string(), shown);
        }
        assert_eq!(format!("{:>8}", PicoDollars(10_000_000_000)), "   $0.01");
    }

    #[test]
    fn the_most_is_not_passed() {
        let most = PicoDollars::from_picos(u128::MAX);
        let dearest =
            Price::new("anyone", "any", PicoDollars(u64::MAX.into())).with_batch(PicoDollars(u64::MAX.into()));
        let cost = u128::from(u64::MAX) * u128::from(u64::MAX);
        assert_eq!(dearest.cost(u64::MAX).as_picos(), cost);
        assert_eq!(dearest.batch_cost(u64::MAX), Some(PicoDollars(cost)));
        assert_eq!(most + PicoDollars(1), most);
        assert_eq!(
            (most.checked_add(PicoDollars(1)), PicoDollars(2).checked_add(PicoDollars(3))),
            (None, Some(PicoDollars(5)))
        );
        assert_eq!(most.checked_add(PicoDollars::ZERO), Some(most));
        let mut sum = most;
        sum += most;
        assert_eq!([sum, most].into_iter().sum::<PicoDollars>(), most);
    }

    #[test]
    fn prices_are_read_as_they_are_published() {
        for (dollars, picos) in [
            ("0.02", 20_000),
            ("0.0125", 12_500),
            ("$0.13", 130_000),
            ("1", 1_000_000),
            ("0", 0),
            ("0.000001", 1),
            ("000.100000000000000000", 100_000),
            ("18446744073709.551615", u64::MAX),
        ] {
            let picos = PicoDollars(picos.into());
            let price = Price::per_million("anyone", "any", dollars).expect(dollars);
            assert_eq!((price.standard, price.batch), (picos, None), "{dollars}");
            assert_eq!(price, Price::new("anyone", "any", picos));
            let price = price.with_batch_per_million(dollars).expect(dollars);
            assert_eq!(price.batch, Some(picos), "{dollars}");
            // A million tokens cost the number of dollars that was given.
            let numeric = |shown: &str| shown.trim_start_matches(['$', '0']).trim_end_matches(['0', '.']).to_owned();
            assert_eq!(numeric(&price.cost(1_000_000).to_string()), numeric(dollars));
        }
        for (model, standard, batch) in [
            ("text-embedding-3-small", "0.02", "0.01"),
            ("text-embedding-3-large", "0.13", "0.065"),
            ("text-embedding-ada-002", "0.10", ""),
        ] {
            let price = of("openai", model).expect("in the table");
            let read = Price::per_million("openai", model, standard).expect("a price");
            let read = if batch.is_empty() { read } else { read.with_batch_per_million(batch).expect("a price") };
            assert_eq!((price.standard, price.batch), (read.standard, read.batch), "{model}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for dollars in [
            "",
            "$",
            ".",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1.",
            ".5",
            "1,5",
            "1e-3",
            "0x1",
            "1.2.3",
            "$$1",
            "1$",
            "NaN",
            "٣",
            "1_000",
            // Half a pico-dollar per token, and one pico-dollar more than fits.
            "0.0000005",
            "18446744073709.551616",
            "99999999999999999999999999999999999999999999999999",
        ] {
            let error = Price::per_million("anyone", "any", dollars).expect_err(dollars);
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            for part in [&format!("{dollars:?}"), "such as 0.0125", "at most 6 digits", "at most 18446744073709"] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(Price::new("anyone", "any", PicoDollars(1)).with_batch_per_million(dollars).is_err(), "{dollars}");
        }
    }
}
