//! Divides the work between labelled embedders by share: [`AbSplit`].

mod arms;
mod rendezvous;
mod stats;

use std::{fmt, slice, sync::Arc};

use async_trait::async_trait;

use self::arms::{Arm, Arms};
pub use self::stats::{ArmStats, SplitStats};
use crate::{
    Batch, Embedder, Embeddings, Limits, Result, Space,
    all::{embed_all, embed_within},
    explanation::Explanation,
    observer::EventKind,
    planner,
    under_way::CallUnderWay,
};

/// Divides the work between two or more labelled embedders, its arms, by share: to test a model of your own beside a
/// hosted one, and to move the traffic over by steps.
///
/// ```
/// use docvector_embed::{Batch, EmbedderExt, provider::Fake, wrap::AbSplit};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// // In place of `OpenAi` and `Onnx`, each with its own retries, limits and cache.
/// let hosted = Fake::builder().with_model("hosted").with_dimensions(16).build()?;
/// let own = Fake::builder().with_model("own").with_dimensions(8).build()?;
/// let split = AbSplit::builder("migration-2026")
///     .with_arm("hosted", 90, hosted)
///     .with_arm("own", 10, own)
///     .build()?;
///
/// // All texts of a library lie in one space, and its key finds them again.
/// let key = "library:react";
/// let rows = split.embed_all(Batch::documents(&["a page", "another"]).with_key(key)).await?;
/// let query = split.embed_all(Batch::queries(&["which page?"]).with_key(key)).await?;
/// assert_eq!(query.space(), rows.space());
/// assert_eq!(split.arm_of(key), "hosted");
///
/// // The next step. No library goes back from `own` to `hosted`.
/// split.set_shares(&[("hosted", 10), ("own", 90)])?;
/// assert_eq!(split.arm_of(key), "own");
/// // What was embedded before is still found, by its space.
/// assert_eq!(split.embed_query_in(rows.space(), "which page?").await?.len(), 16);
///
/// println!("{}", split.stats());
/// assert_eq!(split.stats().arm("hosted").map(|arm| arm.totals.calls), Some(3));
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Rows, space and usage are those of one arm, unchanged; the rows are not copied. Clones share arms, shares and
/// numbers. The arm of a batch is decided in this order:
/// - **A wanted space:** an arm of that space, whatever its share. If several have it, the key decides among them.
/// - **A routing key:** the key's arm ([`arm_of`](Self::arm_of)). It depends on the salt, the labels, the shares and
///   the key alone, so all processes with the same configuration agree, on every machine, in every later version.
/// - **Neither:** if all arms lie in one space, each call takes an arm by share. Across several spaces the call fails,
///   because one corpus would be scattered over them. [`with_keyless_arm`](AbSplitBuilder::with_keyless_arm) sends such
///   calls to one fixed arm instead.
///
/// Shares are relative to their sum. An arm of share 0 gets no keys, but answers batches that want its space.
///
/// **A change of shares moves no key back.** If one arm's share grows against the others, keys move to this arm alone;
/// if it shrinks, keys move from this arm alone; an arm that is added takes keys from all others, and no key moves
/// between those. With two arms, every change moves keys in one direction only. A text that was embedded before its key
/// moved stays in the space where it is: search it by its space, or in every space at once
/// ([`embed_query_each`](crate::EmbedderExt::embed_query_each)), until it is embedded again.
///
/// The salt tells experiments apart: with another salt, other keys are in the smaller part. Change neither salt nor
/// label while a split is in use.
///
/// The [`limits`](Embedder::limits) fit every arm ([`Limits::combine`]) and are those of the moment when the split was
/// built. If an arm's limits shrink later, its part of the work is split into calls within them. Arms that lie in one
/// space should take texts of the same length: where one truncates and another does not, the rows of one text differ.
///
/// # Numbers
/// [`stats`](Self::stats) counts each call exactly once, at the arm that it went to, whether it ends with rows, with an
/// error, or dropped. Calls without texts are not counted, nor are those that no arm is found for.
///
/// # Errors
/// - [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) before any work: no arm has the wanted space, or the batch has
///   neither a key nor a wanted space, and the arms lie in several.
/// - [`InvalidInput`](crate::ErrorKind::InvalidInput) before any work: [`Batch::check`] by the limits of the split.
///
/// All other errors are the arm's. **No other arm stands in for one that fails:** it may lie in another space. To
/// survive the failure of a provider, give the arm itself a second one in the same space.
///
/// # Cancellation
/// Dropping the future drops the call of the arm, which is counted as dropped, with one call
/// [`unanswered`](crate::Usage::unanswered).
///
/// # Stacking
/// Outside of everything: retries, limits and prices belong to one provider, so they are in its arm. A cache belongs in
/// each arm, too: [`Cached`](super::Cached) over several spaces does not build. An arm has one space, so a split across
/// spaces is no arm of another split.
///
/// # Cost
/// One hash and a logarithm of the key per arm, two short locks, two reads of the clock, and a sum over the lengths of
/// the texts: about 0.7 microseconds for a call of 256 texts and two arms. If the arms have different limits per text or call,
/// [`Batch::check`] comes twice: once by the limits of the split, and once in the arm.
#[derive(Clone)]
pub struct AbSplit(Arc<Arms>);

impl AbSplit {
    /// Returns a builder. The salt is the name of the experiment: see [Semantics](Self#semantics).
    pub fn builder(salt: impl Into<String>) -> AbSplitBuilder {
        AbSplitBuilder { salt: salt.into(), arms: Vec::new(), keyless: None }
    }

    /// Sets the shares of the named arms, all at once; the others keep theirs. Calls under way keep their arm.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if no arm has one of the labels, if a label occurs twice, or if all shares
    /// would be 0. Then nothing has changed.
    pub fn set_shares(&self, shares: &[(&str, u32)]) -> Result<()> {
        self.0.set_shares(shares).map_err(|error| error.with_embedder(self))
    }

    /// Returns the label and share of each arm, in the order in which the split was built, all from the same moment.
    pub fn shares(&self) -> Vec<(&str, u32)> {
        let shares = self.0.shares();
        self.0.iter().zip(shares.iter()).map(|(arm, &share)| (arm.label.as_str(), share)).collect()
    }

    /// Returns the label of the arm that a routing key has at the moment, for batches that want no space.
    pub fn arm_of(&self, key: &str) -> &str {
        &self.0.of_key(key).label
    }

    /// Returns the embedder of the arm with this label.
    pub fn arm(&self, label: &str) -> Option<&dyn Embedder> {
        self.0.iter().find(|arm| arm.label == label).map(|arm| &*arm.embedder)
    }

    /// Returns what each arm did so far.
    pub fn stats(&self) -> SplitStats {
        let shares = self.0.shares();
        let arms = self.0.iter().zip(shares.iter()).map(|(arm, &share)| ArmStats {
            label: arm.label.clone(),
            share,
            space: arm.space.clone(),
            totals: arm.totals.snapshot(),
        });
        SplitStats { arms: arms.collect() }
    }

    /// Checks the batch by the limits of the split, and has the arm embed it. Arms that refuse the same batches check it
    /// themselves, each as the others would.
    async fn embed_by(&self, arm: &Arm, batch: Batch<'_>) -> Result<Embeddings> {
        if self.0.alike {
            return embed_within(&*arm.embedder, &arm.limits, batch).await;
        }
        Box::pin(async {
            let counting = planner::check(&batch, slice::from_ref(&arm.space), &self.0.limits).await;
            let counting = counting.map_err(|error| error.with_embedder(self))?;
            // The arm does not count again, if it counts in the same way. And it splits the batch if its limits have
            // shrunk since the split was built: nobody outside can know of it.
            let batch = batch.with_counted(counting.counted(&batch));
            if arm.takes_what_the_split_takes() {
                return embed_within(&*arm.embedder, &arm.limits, batch).await;
            }
            embed_all(&*arm.embedder, batch).await
        })
        .await
    }
}

impl fmt::Display for AbSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AbSplit(")?;
        for (index, arm) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}", arm.label, arm.name)?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for AbSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = self.0.shares();
        let mut shown = f.debug_struct("AbSplit");
        for (arm, share) in self.0.iter().zip(shares.iter()) {
            shown.field(&arm.label, &(share, &arm.embedder));
        }
        shown.finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Embedder for AbSplit {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let arm = self.0.of_batch(&batch).map_err(|error| error.with_embedder(self))?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&arm.space));
        }
        batch.tell(self, EventKind::Routed { arm: &arm.label });
        let mut call = CallUnderWay::begin(self, &arm.name, &arm.totals, batch);
        let result = self.embed_by(arm, batch).await;
        call.end(&result);
        result
    }

    fn spaces(&self) -> &[Space] {
        &self.0.spaces
    }

    /// Returns the limits that fit every arm, as they were when the split was built.
    fn limits(&self) -> Limits {
        self.0.limits.clone()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let explanation = Explanation::new("AbSplit");
        let shares = self.0.shares();
        let sum: u64 = shares.iter().map(|&share| u64::from(share)).sum();
        let arms = || self.0.iter().zip(shares.iter());
        match self.0.fixed(batch) {
            Some(Err(error)) => explanation.with_fact(format!("refuses the batch: {error}")),
            Some(Ok(arm)) => {
                let share = arms().find(|(own, _)| own.label == arm.label).map_or(0, |(_, share)| *share);
                let fact = format!("goes to the arm {}, which has {share} of {sum} shares", arm.label);
                explanation.with_fact(fact).with_inner(arm.embedder.explain(batch))
            }
            None => {
                let fits = |arm: &Arm| batch.space().is_none_or(|wanted| wanted == arm.space.id());
                let fact = "has no routing key, so each call takes an arm by share";
                arms().filter(|(arm, _)| fits(arm)).fold(explanation.with_fact(fact), |all, (arm, share)| {
                    let mut inside = arm.embedder.explain(batch);
                    inside.facts.insert(0, format!("arm {}, {share} of {sum} shares", arm.label));
                    all.with_inner(inside)
                })
            }
        }
    }
}

/// Builds an [`AbSplit`].
///
/// # Default
/// No arms. A batch with neither a routing key nor a wanted space takes an arm by share if all arms lie in one space, and
/// fails otherwise.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct AbSplitBuilder {
    salt: String,
    arms: Vec<(String, u32, Arc<dyn Embedder>)>,
    keyless: Option<String>,
}

impl AbSplitBuilder {
    /// Adds an arm: its label, its share of the work, and its embedder with all that it is wrapped in. Shares are
    /// relative to their sum.
    pub fn with_arm(mut self, label: impl Into<String>, share: u32, embedder: impl Embedder) -> Self {
        self.arms.push((label.into(), share, Arc::new(embedder)));
        self
    }

    /// Sends each batch without a routing key to the arm with this label, unless it wants another space.
    pub fn with_keyless_arm(mut self, label: impl Into<String>) -> Self {
        self.keyless = Some(label.into());
        self
    }

    /// Builds the split.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if there are fewer than two arms, a label is blank, has several lines or
    /// occurs twice, all shares are 0, an arm has more than one space, or no arm has the label of
    /// [`with_keyless_arm`](Self::with_keyless_arm).
    pub fn build(self) -> Result<AbSplit> {
        Ok(AbSplit(Arc::new(Arms::new(&self.salt, self.arms, self.keyless.as_deref())?)))
    }
}
