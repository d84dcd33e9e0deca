//! Names the states of a simulated batch: [`BatchState`].

use crate::named::named;

/// The state of a simulated batch, as OpenAI names it.
///
/// ```
/// use docvector_embed::testing::BatchState;
/// assert_eq!(BatchState::InProgress.to_string(), "in_progress");
/// assert!(BatchState::Expired.is_terminal() && !BatchState::Cancelling.is_terminal());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BatchState {
    /// The input file is being checked.
    Validating,
    /// The input file was refused.
    Failed,
    /// Lines are being answered.
    InProgress,
    /// All lines were tried, and the files are being written.
    Finalizing,
    /// The results are there.
    Completed,
    /// The completion window ended first. The results of the finished lines are there.
    Expired,
    /// The batch is being cancelled.
    Cancelling,
    /// The batch was cancelled. The results of the finished lines are there.
    Cancelled,
}

named! {
    /// Returns OpenAI's name, such as `in_progress`.
    BatchState, "a batch's state",
    Validating = "validating",
    Failed = "failed",
    InProgress = "in_progress",
    Finalizing = "finalizing",
    Completed = "completed",
    Expired = "expired",
    Cancelling = "cancelling",
    Cancelled = "cancelled",
}

impl BatchState {
    /// Returns `true` if nothing more happens to the batch.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_four_states_are_the_last() {
        for state in BatchState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        assert_eq!(BatchState::ALL.iter().filter(|state| state.is_terminal()).count(), 4);
    }
}
