//! Says what a batch would meet in an embedder, without a call: [`Explanation`], a tree with one item per embedder.

use std::{collections::HashSet, fmt};

use crate::{
    Batch, Error, Limits, Payee, Space, Tier, TokenCount, Truncation,
    planner::split,
    price::{self, PicoDollars, Price},
};

/// The dry run of a batch in one embedder, with those inside it. `Display` shows it as an indented list.
///
/// Returned by [`plan::explain`](crate::plan::explain).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The embedder's own name, without those inside it: `Retry`, `openai/text-embedding-3-small`.
    pub name: String,
    /// The facts about this batch here, one sentence each, without a full stop.
    pub facts: Vec<String>,
    /// The calls that the batch would make of a provider; `None` for a wrapper.
    pub forecast: Option<Forecast>,
    /// The embedders inside, in the order in which they would be asked.
    pub inner: Vec<Self>,
}

/// The calls that a batch would make of a provider, with their cost.
///
/// Part of an [`Explanation`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Forecast {
    /// The spaces that the rows can lie in.
    pub spaces: Vec<Space>,
    /// The limits of one call.
    pub limits: Limits,
    /// The number of calls that the texts fill.
    pub calls: usize,
    /// The tokens of all texts: counted, or one for every four bytes. A text that would be truncated counts up to its limit.
    pub tokens: u64,
    /// Whether the tokens are counted.
    pub counted: bool,
    /// The error of texts that no call can hold. Then there are no calls.
    pub refused: Option<Error>,
    /// The payee; `None` if the provider does not name it.
    pub payee: Option<Payee>,
    /// The price, if it is in the table of [`price`].
    pub price: Option<Price>,
}

impl Forecast {
    /// Returns what these tokens cost at the payee's tier, or `None` if the price is not known. Nobody bills
    /// [`Local`](Tier::Local) work.
    pub fn cost(&self) -> Option<PicoDollars> {
        match (self.payee.as_ref()?.tier(), &self.price) {
            (Tier::Local, _) => Some(PicoDollars::ZERO),
            (Tier::Standard, price) => price.as_ref().map(|price| price.cost(self.tokens)),
            (Tier::Batch, price) => price.as_ref().and_then(|price| price.batch_cost(self.tokens)),
        }
    }
}

impl Explanation {
    /// Begins the explanation of an embedder by its own name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), facts: Vec::new(), forecast: None, inner: Vec::new() }
    }

    /// Explains a provider: the calls that its limits make of the batch, and what they cost.
    pub fn of_provider(
        name: impl fmt::Display,
        batch: &Batch<'_>,
        spaces: &[Space],
        limits: &Limits,
        payee: Option<&Payee>,
    ) -> Self {
        let (tokens, counted) = tokens(batch, limits);
        let calls = batch.check_space(spaces).and_then(|()| split(batch, limits));
        // A planner leaves the texts of a single call to the embedder, which checks them.
        let calls = calls
            .and_then(|calls| if calls.len() == 1 { batch.check(spaces, limits).map(|()| calls) } else { Ok(calls) });
        let (calls, refused) = match calls {
            Ok(calls) => (calls.len(), None),
            Err(error) => (0, Some(error)),
        };
        let price = payee.and_then(|payee| price::of(payee.provider(), payee.model()));
        let forecast = Forecast {
            spaces: spaces.to_vec(),
            limits: limits.clone(),
            calls,
            tokens,
            counted,
            refused,
            payee: payee.cloned(),
            price,
        };
        Self { forecast: Some(forecast), ..Self::new(name.to_string()) }
    }

    /// Adds a fact: a sentence without a full stop, and without a text or a key.
    #[must_use]
    pub fn with_fact(mut self, fact: impl Into<String>) -> Self {
        self.facts.push(fact.into());
        self
    }

    /// Adds an embedder inside, after those before it.
    #[must_use]
    pub fn with_inner(mut self, inner: Self) -> Self {
        self.inner.push(inner);
        self
    }

    /// Iterates over the providers, in the order in which they would be asked.
    pub fn providers(&self) -> impl Iterator<Item = &Self> {
        let mut left = vec![self];
        std::iter::from_fn(move || {
            loop {
                let next = left.pop()?;
                left.extend(next.inner.iter().rev());
                if next.forecast.is_some() {
                    return Some(next);
                }
            }
        })
    }
}

/// Returns the tokens of a batch, and whether they are counted.
fn tokens(batch: &Batch<'_>, limits: &Limits) -> (u64, bool) {
    let TokenCount::Exact(counter) = &limits.tokens else {
        return (batch.guessed_tokens(limits) as u64, false);
    };
    let limit = limits.tokens_of_one_text().filter(|_| batch.truncation() == Truncation::Truncate);
    let count = |text: &&str| match limit {
        Some(limit) => counter.count_to(batch.kind(), text, limit).min(limit),
        None => counter.count(batch.kind(), text),
    };
    (batch.texts().iter().map(|text| count(text) as u64).sum(), true)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show(f, 0)
    }
}

impl Explanation {
    fn show(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        if depth > 0 {
            write!(f, "\n{:1$}", "", depth * 2)?;
        }
        f.write_str(&self.name)?;
        for (at, fact) in self.facts.iter().enumerate() {
            write!(f, "{}{fact}", if at == 0 { ": " } else { "; " })?;
        }
        if let Some(forecast) = &self.forecast {
            write!(f, "{}{forecast}", if self.facts.is_empty() { ": " } else { "; " })?;
        }
        self.inner.iter().try_for_each(|inner| inner.show(f, depth + 1))
    }
}

impl fmt::Display for Forecast {
    /// Shows one line: calls, tokens, cost, space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            Some(error) => write!(f, "refuses the batch: {error}")?,
            None => write!(f, "{}", plural(self.calls, "call"))?,
        }
        let about = if self.counted { "" } else { "about " };
        write!(f, ", {about}{}", plural(self.tokens as usize, "token"))?;
        match (self.cost(), &self.payee) {
            (Some(cost), _) => write!(f, ", {cost}")?,
            (None, Some(payee)) => write!(f, ", the price of {payee} is not known")?,
            (None, None) => {}
        }
        let Limits { texts, tokens_per_text, tokens_per_call, .. } = &self.limits;
        for (limit, what) in
            [(texts, "texts per call"), (tokens_per_text, "tokens per text"), (tokens_per_call, "tokens per call")]
        {
            limit.iter().try_for_each(|limit| write!(f, ", at most {limit} {what}"))?;
        }
        self.spaces.iter().try_for_each(|space| write!(f, ", space {space}"))
    }
}

/// Returns the distinct texts, in order.
pub(crate) fn distinct<'t>(texts: &[&'t str]) -> Vec<&'t str> {
    let mut seen = HashSet::with_capacity(texts.len());
    texts.iter().copied().filter(|text| seen.insert(*text)).collect()
}

/// Returns a number with its noun: `1 call`, `2 calls`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
