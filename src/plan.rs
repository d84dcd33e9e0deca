//! Shows what would be done before anything is done: [`split`] plans the calls for a batch, and [`explain`] says what they
//! would meet.
//!
//! ```
//! use docvector_embed::{Batch, Limits, plan};
//! # fn main() -> docvector_embed::Result<()> {
//! let calls = plan::split(&Batch::documents(&["a", "b", "c", "d", "e"]), &Limits::none().with_texts(2))?;
//! assert_eq!(calls, [0..2, 2..4, 4..5]);
//! # Ok(()) }
//! ```

use crate::{Batch, Embedder};
pub use crate::{
    explanation::{Explanation, Forecast},
    planner::split,
};

/// Says which wrappers, members, limits and prices a batch would meet, without a call: a dry run.
///
/// ```
/// use docvector_embed::{Batch, EmbedderExt, Limits, plan, provider::Fake, wrap::RetryPolicy};
/// # fn main() -> docvector_embed::Result<()> {
/// let fake = Fake::builder().with_limits(Limits::none().with_texts(2)).build()?;
/// let stack = fake.concurrency(8).retry(RetryPolicy::default());
/// let dry_run = plan::explain(&stack, &Batch::documents(&["one text", "another", "a third"]));
/// println!("{dry_run}");
/// let provider = dry_run.providers().next().expect("one");
/// assert_eq!(provider.forecast.as_ref().map(|forecast| forecast.calls), Some(2));
/// // Nobody was asked.
/// assert!(stack.get_ref().get_ref().calls().is_empty());
/// # Ok(()) }
/// ```
///
/// The batch may be of any size. Every embedder explains itself ([`Embedder::explain`]); one that does not is shown by
/// its name, space and limits. What is said holds for this moment: a breaker may open, and a limit may be learned.
///
/// # Cost
/// If the tokens of a text can be counted, all texts are counted, on this thread.
pub fn explain<E: Embedder + ?Sized>(embedder: &E, batch: &Batch<'_>) -> Explanation {
    embedder.explain(batch)
}
