//! Splits any number of texts into calls within an embedder's limits: the one planner.
//!
//! ```
//! use docvector_embed::{Batch, Limits, plan};
//! # fn main() -> docvector_embed::Result<()> {
//! let calls = plan::split(&Batch::documents(&["a", "b", "c", "d", "e"]), &Limits::none().with_texts(2))?;
//! assert_eq!(calls, [0..2, 2..4, 4..5]);
//! # Ok(()) }
//! ```
//!
//! # Cost
//! One pass over the lengths. Tokens are counted at most once a text, and only where a bound on them (as many as
//! bytes, say) does not settle the matter.

use std::ops::Range;

use crate::{BadText, BadTextReason, Batch, Error, Limits, Result, TokenCount, TooLong};

/// Splits a batch of any size into consecutive ranges of its texts, each within `limits`, each as full as can be.
/// No texts, no calls.
///
/// # Errors
/// Where one call will not do, [`InvalidInput`](crate::ErrorKind::InvalidInput) names every text that no call can hold:
/// empty, too large, or, where tokens can be counted and over-long texts are an error, too long. In a single call the
/// embedder itself finds those.
pub fn split(batch: &Batch<'_>, limits: &Limits) -> Result<Vec<Range<usize>>> {
    let texts = batch.texts();
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let one_call = limits.texts.is_none_or(|limit| texts.len() <= limit)
        && limits.bytes.is_none_or(|limit| bytes <= limit)
        && limits.tokens_per_call.is_none_or(|limit| total_at_most(batch, limits) <= limit);
    if one_call {
        return Ok((!texts.is_empty()).then_some(0..texts.len()).into_iter().collect());
    }

    // Each text is counted at most once: what is counted for the limit of a text serves the limit of a call.
    let mut counted: Vec<Option<usize>> = vec![None; texts.len()];
    let mut bad = batch.bad_texts(limits);
    bad.extend(too_long(batch, limits, limits.tokens_per_call.map(|_| &mut counted[..])));
    if !bad.is_empty() {
        return Err(Error::invalid_texts(bad));
    }
    let per_text = limits.tokens_of_one_text();
    let mut calls = Vec::new();
    let (mut start, mut bytes, mut tokens) = (0, 0_usize, 0_usize);
    for (index, text) in texts.iter().enumerate() {
        let cost = match limits.tokens_per_call {
            None => 0,
            Some(_) => {
                let cost = counted[index].unwrap_or_else(|| exact(batch, limits, index));
                per_text.map_or(cost, |limit| cost.min(limit))
            }
        };
        let full = limits.texts.is_some_and(|limit| index - start >= limit.max(1))
            || limits.bytes.is_some_and(|limit| bytes + text.len() > limit)
            || limits.tokens_per_call.is_some_and(|limit| tokens.saturating_add(cost) > limit);
        if full && index > start {
            calls.push(start..index);
            (start, bytes, tokens) = (index, 0, 0);
        }
        bytes += text.len();
        tokens = tokens.saturating_add(cost);
    }
    calls.push(start..texts.len());
    Ok(calls)
}

/// Tokens of one text as exactly as they can be had; none where they cannot be counted at all.
fn exact(batch: &Batch<'_>, limits: &Limits, index: usize) -> usize {
    let text = batch.texts()[index];
    match &limits.tokens {
        TokenCount::Unknown => 0,
        TokenCount::AtMostBytes => text.len(),
        TokenCount::Exact(counter) => counter.count(batch.kind(), text),
    }
}

/// An upper bound of the tokens of the whole batch, found without counting.
fn total_at_most(batch: &Batch<'_>, limits: &Limits) -> usize {
    let bound = |text: &&str| match &limits.tokens {
        TokenCount::Unknown => 0,
        TokenCount::AtMostBytes => text.len(),
        TokenCount::Exact(counter) => counter.at_most(batch.kind(), text),
    };
    batch.texts().iter().map(bound).fold(0, usize::saturating_add)
}

/// The texts that are certainly longer than a text may be, read only as far as that takes; or counted, where the counts
/// are wanted, in those places.
fn too_long(batch: &Batch<'_>, limits: &Limits, mut counts: Option<&mut [Option<usize>]>) -> Vec<BadText> {
    let (TokenCount::Exact(counter), TooLong::Error, Some(limit)) =
        (&limits.tokens, batch.too_long(), limits.tokens_of_one_text())
    else {
        return Vec::new();
    };
    let over = |(index, text): (usize, &&str)| {
        if text.is_empty() || counter.at_most(batch.kind(), text) <= limit {
            return None;
        }
        let tokens = match &mut counts {
            None => counter.over(batch.kind(), text, limit)?,
            Some(counts) => {
                let tokens = counter.count(batch.kind(), text);
                counts[index] = Some(tokens);
                (tokens > limit).then_some(tokens)?
            }
        };
        Some(BadText::new(index, BadTextReason::TooLong { tokens, limit }))
    };
    batch.texts().iter().enumerate().filter_map(over).collect()
}
