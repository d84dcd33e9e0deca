//! Records what was billed: [`Ledger`], and [`Bills`] for those that ask.

use std::collections::HashMap;

use super::vectors::TextHash;
use crate::Tier;

/// What a simulator billed so far.
///
/// See [`Simulator::bills`](super::Simulator::bills).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bills {
    /// Texts that were billed. A text that was billed twice counts twice.
    pub texts: u64,
    /// Different texts among them.
    pub distinct_texts: u64,
    /// How often the text was billed that was billed most often.
    pub most_per_text: u64,
    /// Tokens at the price of a batch.
    pub batch_tokens: u64,
    /// Tokens at the price of requests that are answered at once.
    pub standard_tokens: u64,
}

/// All bills, by text.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    texts: HashMap<TextHash, u32>,
    batch_tokens: u64,
    standard_tokens: u64,
}

impl Ledger {
    /// Bills these texts, and tokens for all of them.
    pub(super) fn bill<'a>(&mut self, tier: Tier, texts: impl IntoIterator<Item = &'a TextHash>, tokens: u64) {
        for text in texts {
            *self.texts.entry(*text).or_default() += 1;
        }
        match tier {
            Tier::Batch => self.batch_tokens += tokens,
            _ => self.standard_tokens += tokens,
        }
    }

    /// Returns how often a text was billed.
    pub(super) fn times(&self, text: &TextHash) -> u64 {
        self.texts.get(text).copied().map_or(0, u64::from)
    }

    pub(super) fn bills(&self) -> Bills {
        Bills {
            texts: self.texts.values().copied().map(u64::from).sum(),
            distinct_texts: self.texts.len() as u64,
            most_per_text: self.texts.values().copied().max().map_or(0, u64::from),
            batch_tokens: self.batch_tokens,
            standard_tokens: self.standard_tokens,
        }
    }
}
