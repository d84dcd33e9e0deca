//! Shows what each arm of a split did: [`SplitStats`], one [`ArmStats`] per arm.

use std::fmt;

use crate::{
    Space,
    price::{self, PicoDollars, Price},
    totals::TotalsSnapshot,
};

/// The numbers of all arms, as [`AbSplit::stats`](super::AbSplit::stats) returns them. `Display` shows them as a small
/// table with one row per arm.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SplitStats {
    /// The arms, in the order in which the split was built.
    pub arms: Vec<ArmStats>,
}

/// The numbers of one arm, all from the same moment.
///
/// An item of [`SplitStats`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ArmStats {
    /// The arm's label.
    pub label: String,
    /// The arm's share at that moment.
    pub share: u32,
    /// The space of the arm's rows.
    pub space: Space,
    /// The calls of the arm, with errors by kind, latency quantiles, tokens and charges.
    pub totals: TotalsSnapshot,
}

impl SplitStats {
    /// Returns the numbers of the arm with this label.
    pub fn arm(&self, label: &str) -> Option<&ArmStats> {
        self.arms.iter().find(|arm| arm.label == label)
    }
}

impl ArmStats {
    /// Returns the cost of the arm's calls by the [table of prices](price::TABLE), or `None` if a price, a payee, or the
    /// number of tokens that it billed is not known. Unknown is never free.
    ///
    /// Work on this machine ([`Tier::Local`](crate::Tier::Local)) costs nothing. Calls without an answer
    /// ([`unanswered`](crate::Usage::unanswered)) are not included, but the provider may bill them. If there are any,
    /// the cost is a lower bound.
    pub fn cost(&self) -> Option<PicoDollars> {
        self.cost_at(&[])
    }

    /// Does the same as [`cost`](Self::cost) with prices of your own. They go before those of the table.
    ///
    /// ```
    /// use docvector_embed::{Batch, Embedder, price::Price, provider::Fake, wrap::AbSplit};
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let split = AbSplit::builder("twins")
    ///     .with_arm("one", 1, Fake::new(8))
    ///     .with_arm("other", 0, Fake::new(8))
    ///     .build()?;
    /// split.embed(Batch::documents(&["a text of 8 tokens, of 4 letters"])).await?;
    /// let stats = split.stats();
    /// let one = stats.arm("one").expect("an arm");
    /// assert_eq!(one.cost(), None);
    /// let price = Price::per_million("fake", "fake", "0.50")?;
    /// assert_eq!(one.cost_at(&[price]).map(|cost| cost.to_string()).as_deref(), Some("$0.000004"));
    /// # Ok(()) }) }
    /// ```
    pub fn cost_at(&self, prices: &[Price]) -> Option<PicoDollars> {
        price::total(&self.totals.charges, prices)
    }
}

impl fmt::Display for SplitStats {
    /// Shows one row per arm. A latency is the upper bound of its bucket, as
    /// [`latency_quantile`](TotalsSnapshot::latency_quantile) returns it. A cost that is not known is `?`; one that is a
    /// lower bound has `>=` before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["arm", "share", "calls", "failed", "dropped", "texts", "tokens", "p50", "p99", "cost"];
        let sum: u64 = self.arms.iter().map(|arm| u64::from(arm.share)).sum();
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.arms.iter().map(|arm| row(arm, sum)));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 10] = std::array::from_fn(width);
        for (number, row) in rows.iter().enumerate() {
            let [label, cells @ ..] = row;
            write!(f, "{}{label:<1$}", if number == 0 { "" } else { "\n" }, widths[0])?;
            for (cell, width) in cells.iter().zip(&widths[1..]) {
                write!(f, "  {cell:>width$}")?;
            }
        }
        Ok(())
    }
}

/// Returns the cells of an arm's row; `sum` is the sum of all shares.
fn row(arm: &ArmStats, sum: u64) -> [String; 10] {
    let totals = &arm.totals;
    let share = f64::from(arm.share) * 100.0 / sum.max(1) as f64;
    let latency = |q| totals.latency_quantile(q).map_or("-".into(), |time| format!("{:.3} s", time.as_secs_f64()));
    let at_least = if totals.usage.unanswered > 0 { ">= " } else { "" };
    [
        arm.label.clone(),
        format!("{share:.1} %"),
        totals.calls.to_string(),
        totals.failed.iter().map(|(_, calls)| calls).sum::<u64>().to_string(),
        totals.dropped.to_string(),
        totals.texts.to_string(),
        totals.usage.exact_tokens().map_or_else(|| format!(">= {}", totals.usage.tokens), |tokens| tokens.to_string()),
        latency(0.5),
        latency(0.99),
        arm.cost().map_or("?".into(), |cost| format!("{at_least}{cost}")),
    ]
}
