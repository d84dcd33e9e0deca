//! Counts what a simulator was asked for: [`Counts`].

/// The requests to a simulator so far.
///
/// See [`Simulator::counts`](super::Simulator::counts). Requests that a [`Fault`](super::Fault) ended before they had
/// an effect count in [`requests`](Self::requests) alone; a create whose answer was lost counts as a create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// All requests of the API.
    pub requests: u64,
    /// Requests that met a [`Fault`](super::Fault).
    pub faults: u64,
    /// Requests that were refused: those answered with a status of 400 or more, faults aside.
    pub refused: u64,
    /// Files that were uploaded whole.
    pub uploads: u64,
    /// Batches that were created.
    pub creates: u64,
    /// Batches that were asked to be cancelled.
    pub cancels: u64,
    /// Reads of one batch.
    pub polls: u64,
    /// Reads of the list of batches.
    pub lists: u64,
    /// Contents of files that were asked for.
    pub downloads: u64,
    /// Files that were deleted.
    pub deletes: u64,
    /// Requests for vectors at once that were answered.
    pub embeddings: u64,
    /// Batches that are not in a terminal state now.
    pub live_batches: u64,
}
