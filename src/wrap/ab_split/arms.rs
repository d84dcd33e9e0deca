//! Knows the arms of a split and their shares, and says which arm a batch goes to: [`Arms`].

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::rendezvous::{Candidate, Seed, nearest};
use crate::{
    Batch, Embedder, Error, ErrorKind, Limits, Result, Space, SpaceId, TokenCount, sync::Mutex, totals::Totals,
};

/// One of the embedders that the work is divided between.
pub(super) struct Arm {
    pub(super) label: String,
    pub(super) embedder: Arc<dyn Embedder>,
    /// The embedder's name, as it displays itself.
    pub(super) name: String,
    pub(super) space: Space,
    pub(super) totals: Totals,
    /// The embedder's limits when the split was built.
    pub(super) limits: Limits,
    seed: Seed,
}

/// All arms. Only their shares change.
pub(super) struct Arms {
    arms: Vec<Arm>,
    /// The distinct spaces of the arms, in the order of the arms.
    pub(super) spaces: Vec<Space>,
    /// The limits that fit every arm.
    pub(super) limits: Limits,
    /// Whether every arm refuses what these limits refuse, and nothing else.
    pub(super) alike: bool,
    /// The share of each arm. They are replaced as a whole, so a call sees those of one moment.
    shares: Mutex<Arc<[u32]>>,
    /// The index of the arm for batches without a routing key.
    keyless: Option<usize>,
    /// The number of calls so far that took an arm without a routing key.
    turns: AtomicU64,
}

impl Arms {
    /// Checks the arms, each with its label, share and embedder, and works out what the split states.
    pub(super) fn new(salt: &str, arms: Vec<(String, u32, Arc<dyn Embedder>)>, keyless: Option<&str>) -> Result<Self> {
        if arms.len() < 2 {
            return Err(config(format!("a split of {} arms divides nothing: give it two or more", arms.len())));
        }
        let shares: Arc<[u32]> = arms.iter().map(|(_, share, _)| *share).collect();
        let arms = arms.into_iter().map(|(label, _, embedder)| Arm::new(salt, label, embedder));
        let arms: Vec<Arm> = arms.collect::<Result<_>>()?;
        if let Some(twice) = repeated(arms.iter().map(|arm| arm.label.as_str())) {
            return Err(config(format!("two arms have the label {twice:?}: give each a label of its own")));
        }
        check_shares(&shares)?;
        let spaces = Space::distinct(arms.iter().map(|arm| &arm.space));
        let each = arms.iter().map(|arm| arm.limits.clone());
        let limits = each.reduce(|all, limits| all.combine(&limits)).unwrap_or_default();
        let alike = arms.iter().all(|arm| refuse_alike(&arm.limits, &limits));
        let keyless = keyless.map(|label| index_of(&arms, label)).transpose()?;
        Ok(Self { arms, spaces, limits, alike, shares: Mutex::new(shares), keyless, turns: AtomicU64::new(0) })
    }

    /// Returns the arm of a batch.
    pub(super) fn of_batch(&self, batch: &Batch<'_>) -> Result<&Arm> {
        self.fixed(batch).unwrap_or_else(|| {
            // Rows of all candidates can be compared. So the arm may change from one call to the next.
            let turn = self.turns.fetch_add(1, Ordering::Relaxed);
            self.nearest(&turn.to_le_bytes(), batch.space()).ok_or_else(|| self.no_arm())
        })
    }

    /// Returns the arm of a batch, or the error of one that has none; `None` if each call takes an arm by share.
    pub(super) fn fixed(&self, batch: &Batch<'_>) -> Option<Result<&Arm>> {
        if let Err(error) = batch.check_space(&self.spaces) {
            return Some(Err(error));
        }
        Some(match (batch.key(), self.keyless) {
            (Some(key), _) => self.nearest(key.as_bytes(), batch.space()).ok_or_else(|| self.no_arm()),
            (None, Some(keyless)) if batch.space().is_none_or(|space| space == self.arms[keyless].space.id()) => {
                Ok(&self.arms[keyless])
            }
            (None, _) if batch.space().is_none() && self.spaces.len() > 1 => Err(self.no_arm()),
            (None, _) => return None,
        })
    }

    /// Returns the arm of a routing key if no space is wanted.
    pub(super) fn of_key(&self, key: &str) -> &Arm {
        // One share is above 0, so one arm is the nearest.
        self.nearest(key.as_bytes(), None).unwrap_or(&self.arms[0])
    }

    /// Returns the arm of a key among those that lie in the wanted space; `None` if none does.
    fn nearest(&self, key: &[u8], wanted: Option<SpaceId>) -> Option<&Arm> {
        let shares = self.shares();
        let fitting = self.arms.iter().zip(shares.iter());
        let fitting = fitting.filter(|(arm, _)| wanted.is_none_or(|wanted| arm.space.id() == wanted));
        // An arm of share 0 gets no keys. But if only such arms have the wanted space, they answer all the same.
        let shared_out = fitting.clone().any(|(_, &share)| share > 0);
        let mut candidates = fitting.filter(|(_, share)| !shared_out || **share > 0);
        let all = candidates.clone();
        let (first, _) = candidates.next()?;
        if candidates.next().is_none() {
            return Some(first);
        }
        let index = nearest(key, all.clone().map(|(arm, &share)| arm.candidate(share)))?;
        all.map(|(arm, _)| arm).nth(index)
    }

    /// Returns the error of a batch that says nothing of its arm.
    fn no_arm(&self) -> Error {
        let spaces: Vec<String> = self.spaces.iter().map(Space::to_string).collect();
        let message = format!(
            "the batch has neither a routing key nor a wanted space, and the arms lie in {} spaces ({}): set a key \
             (`Batch::with_key`) or the space (`Batch::with_space`), or build the split `with_keyless_arm`",
            spaces.len(),
            spaces.join(", ")
        );
        Error::new(ErrorKind::SpaceMismatch, message)
    }

    /// Replaces the shares of the named arms. If it fails, no share has changed.
    pub(super) fn set_shares(&self, new: &[(&str, u32)]) -> Result<()> {
        if let Some(twice) = repeated(new.iter().map(|(label, _)| *label)) {
            return Err(config(format!("two shares for the arm {twice:?}: give one")));
        }
        let new = new.iter().map(|&(label, share)| Ok((index_of(&self.arms, label)?, share)));
        let new: Vec<(usize, u32)> = new.collect::<Result<_>>()?;
        self.shares.with(|shares| {
            let mut all = shares.to_vec();
            new.iter().for_each(|&(index, share)| all[index] = share);
            check_shares(&all)?;
            *shares = all.into();
            Ok(())
        })
    }

    /// Returns the share of each arm, in the order of the arms, all from the same moment.
    pub(super) fn shares(&self) -> Arc<[u32]> {
        self.shares.with(|shares| shares.clone())
    }

    /// Iterates over the arms, in their order.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arm> {
        self.arms.iter()
    }
}

impl Arm {
    fn new(salt: &str, label: String, embedder: Arc<dyn Embedder>) -> Result<Self> {
        if label.trim().is_empty() || label.contains(char::is_control) {
            return Err(config(format!("the label {label:?} of an arm: it must be a word or more, in one line")));
        }
        let name = embedder.to_string();
        let [space] = embedder.spaces() else {
            let message = format!(
                "the arm {label:?} ({name}) lies in {} spaces, and its share would not say which: give this split an \
                 arm for each of them instead",
                embedder.spaces().len()
            );
            return Err(config(message));
        };
        let (space, limits, seed) = (space.clone(), embedder.limits(), Seed::new(salt, &label));
        Ok(Self { label, embedder, name, space, totals: Totals::new(), limits, seed })
    }

    /// Returns whether a batch that fits the split's limits fits this arm's, as they were when the split was built. It may
    /// not if the arm cannot count the tokens of a call: then they were counted as another arm does.
    pub(super) fn takes_what_the_split_takes(&self) -> bool {
        self.limits.tokens_per_call.is_none() || matches!(self.limits.tokens, TokenCount::Exact(_))
    }

    /// Returns the arm as it matters for a key, with its share of the moment.
    fn candidate(&self, share: u32) -> Candidate<'_> {
        Candidate { label: &self.label, seed: self.seed, share: share.max(1) }
    }
}

/// Returns whether the same batches fit both limits. The way of counting tokens matters only if tokens are limited.
fn refuse_alike(one: &Limits, other: &Limits) -> bool {
    let bounds = |limits: &Limits| {
        let tokens = limits.tokens_of_one_text().map_or(TokenCount::Unknown, |_| limits.tokens.clone());
        Limits { in_flight: None, tokens, ..limits.clone() }
    };
    bounds(one) == bounds(other)
}

/// Returns the index of the arm with this label.
fn index_of(arms: &[Arm], label: &str) -> Result<usize> {
    arms.iter().position(|arm| arm.label == label).ok_or_else(|| {
        let labels: Vec<&str> = arms.iter().map(|arm| arm.label.as_str()).collect();
        config(format!("no arm has the label {label:?}: there are {}", labels.join(", ")))
    })
}

fn check_shares(shares: &[u32]) -> Result<()> {
    if shares.iter().all(|&share| share == 0) {
        return Err(config("all shares are 0, so no key would have an arm: give one arm a share above 0".into()));
    }
    Ok(())
}

/// Returns a label that occurs twice.
fn repeated<'a>(labels: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    labels
        .clone()
        .enumerate()
        .find(|(index, label)| labels.clone().take(*index).any(|one| one == *label))
        .map(|(_, twice)| twice)
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}
