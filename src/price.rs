//! Says what models cost: dated prices in whole nano-dollars a token, and none for a model that is not in the table.
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
//! Prices change: each has the day from which it is known to hold, and its source. What a provider bills is what counts;
//! give your own [`Price`] where yours is another.

use std::{
    borrow::Cow,
    fmt,
    iter::Sum,
    ops::{Add, AddAssign},
};

use crate::Usage;

/// An amount of money: billionths of a US dollar. Whole numbers, so that sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NanoDollars(pub u128);

impl Add for NanoDollars {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for NanoDollars {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for NanoDollars {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self(0), Add::add)
    }
}

impl fmt::Display for NanoDollars {
    /// Shows dollars, with at least two digits after the point and as many as the amount has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DOLLAR: u128 = 1_000_000_000;
        let digits = format!("{:09}", self.0 % DOLLAR);
        let shown = digits.trim_end_matches('0').len().max(2);
        f.pad(&format!("${}.{}", self.0 / DOLLAR, &digits[..shown]))
    }
}

/// What a token of a model costs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Price {
    /// Who bills, in lower case: `openai`.
    pub provider: Cow<'static, str>,
    /// The model, by the provider's name.
    pub model: Cow<'static, str>,
    /// Nano-dollars a token of a request that is answered at once.
    pub standard: u64,
    /// Nano-dollars a token of a batch job; `None` where there are none or the price is not known.
    pub batch: Option<u64>,
    /// The day from which the price is known to hold, as `YYYY-MM-DD`.
    pub valid_from: Cow<'static, str>,
    /// Where it is published.
    pub source: Cow<'static, str>,
}

impl Price {
    /// A price of one's own: `standard` nano-dollars a token (a dollar for a million tokens is 1,000 of them).
    pub fn new(provider: impl Into<Cow<'static, str>>, model: impl Into<Cow<'static, str>>, standard: u64) -> Self {
        let (valid_from, source) = (Cow::Borrowed(""), Cow::Borrowed(""));
        Self { provider: provider.into(), model: model.into(), standard, batch: None, valid_from, source }
    }

    /// Sets the nano-dollars a token of a batch job.
    #[must_use]
    pub const fn with_batch(mut self, batch: u64) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Sets the day from which the price holds, as `YYYY-MM-DD`, and where it is published.
    #[must_use]
    pub fn with_source(
        mut self,
        valid_from: impl Into<Cow<'static, str>>,
        source: impl Into<Cow<'static, str>>,
    ) -> Self {
        (self.valid_from, self.source) = (valid_from.into(), source.into());
        self
    }

    /// What a result or a run cost; `None` where its tokens are not known.
    pub fn cost_of(&self, usage: Usage) -> Option<NanoDollars> {
        usage.exact_tokens().map(|tokens| self.cost(tokens))
    }

    /// What so many tokens cost.
    pub const fn cost(&self, tokens: u64) -> NanoDollars {
        NanoDollars(self.standard as u128 * tokens as u128)
    }

    /// What so many tokens cost in a batch job.
    pub fn batch_cost(&self, tokens: u64) -> Option<NanoDollars> {
        self.batch.map(|batch| NanoDollars(u128::from(batch) * u128::from(tokens)))
    }
}

/// All prices, the newest of a model last. $0.02 a million tokens are 20 nano-dollars a token.
///
/// The batch prices are those of OpenAI's rule that a batch costs half. Of text-embedding-ada-002, sources disagree on
/// whether it can be used in a batch at all, so it has none.
pub const TABLE: &[Price] = &[
    Price {
        provider: Cow::Borrowed("openai"),
        model: Cow::Borrowed("text-embedding-3-small"),
        standard: 20,
        batch: Some(10),
        valid_from: Cow::Borrowed("2024-01-25"),
        source: Cow::Borrowed("platform.openai.com/docs/models/text-embedding-3-small"),
    },
    Price {
        provider: Cow::Borrowed("openai"),
        model: Cow::Borrowed("text-embedding-3-large"),
        standard: 130,
        batch: Some(65),
        valid_from: Cow::Borrowed("2024-01-25"),
        source: Cow::Borrowed("platform.openai.com/docs/models/text-embedding-3-large"),
    },
    Price {
        provider: Cow::Borrowed("openai"),
        model: Cow::Borrowed("text-embedding-ada-002"),
        standard: 100,
        batch: None,
        valid_from: Cow::Borrowed("2023-06-13"),
        source: Cow::Borrowed("platform.openai.com/docs/models/text-embedding-ada-002"),
    },
];

/// The newest price of a provider's model; `None` where it is not known, which is not the same as free.
pub fn of(provider: &str, model: &str) -> Option<Price> {
    TABLE.iter().rev().find(|price| price.provider == provider && price.model == model).cloned()
}

/// The price of a provider's model on a day, as `YYYY-MM-DD`.
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
            assert!(price.standard > 0 && !price.source.is_empty(), "{price:?}");
            assert!(price.batch.is_none_or(|batch| batch > 0 && batch <= price.standard), "{price:?}");
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
        assert_eq!(large.cost(5_940_000_000), NanoDollars(772_200_000_000));
        assert_eq!(large.cost(5_940_000_000).to_string(), "$772.20");
        assert_eq!(large.cost(u64::MAX).0, 130 * u128::from(u64::MAX));
        assert_eq!(NanoDollars(1).to_string(), "$0.000000001");
        assert_eq!([NanoDollars(2), NanoDollars(3)].into_iter().sum::<NanoDollars>(), NanoDollars(5));
    }
}
