//! Describes a batch to the test: [`BatchRecord`].

use std::collections::BTreeMap;

use super::batch_state::BatchState;

/// A batch as the simulator knows it.
///
/// See [`Simulator::batches`](super::Simulator::batches).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchRecord {
    /// The batch's id.
    pub id: String,
    /// The state, whatever the plan [shows](super::BatchPlan::with_state_shown_as).
    pub state: BatchState,
    /// The metadata that the batch was created with.
    pub metadata: BTreeMap<String, String>,
    /// The id of the input file.
    pub input_file_id: String,
    /// The blake3 hash of the input file's bytes, in hexadecimal. Two batches of equal files have equal digests.
    pub input_digest: String,
    /// The lines of the input file.
    pub lines: usize,
    /// The lines that completed so far.
    pub completed: usize,
    /// The lines that failed so far.
    pub failed: usize,
    /// The tokens that were billed so far.
    pub tokens: u64,
    /// The id of the output file, even if the plan hides it.
    pub output_file_id: Option<String>,
    /// The id of the error file, even if the plan hides it.
    pub error_file_id: Option<String>,
}
