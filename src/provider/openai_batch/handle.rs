//! Connects a job's callers with the course that works on it: [`Handle`], [`Order`].

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use super::{present::Present, report::JobReport, status::JobStatus};
use crate::{Charges, Error, InputKind, Space, Truncation, sync::Mutex};

/// A wish of a caller. Each is answered once it is in the journal.
#[derive(Debug)]
pub(super) enum Order {
    Cancel(oneshot::Sender<Result<(), Error>>),
    Resume(oneshot::Sender<Result<(), Error>>),
    /// Returns the charges that no caller was told of, and notes that they are told.
    Tell(oneshot::Sender<Result<Charges, Error>>),
}

/// A job as its callers see it.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) status: JobStatus,
    /// Why the job is paused.
    pub(super) error: Option<Error>,
    /// The report, once it has ended.
    pub(super) report: Option<Arc<JobReport>>,
}

/// The rows of a job, which its course writes and its callers read.
#[derive(Debug)]
pub(super) struct JobRows {
    pub(super) path: PathBuf,
    pub(super) space: Space,
    pub(super) present: Mutex<Present>,
    /// The indices of texts that were truncated, ascending.
    pub(super) truncated: Vec<u64>,
}

/// The hash of a job's texts, and how it was made.
#[derive(Debug)]
pub(super) struct TextsHash {
    pub(super) hash: String,
    pub(super) kind: InputKind,
    pub(super) truncation: Truncation,
}

/// The callers' end of a job.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) id: Arc<str>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) snapshot: watch::Receiver<Snapshot>,
    pub(super) rows: Arc<JobRows>,
    /// The hash of the job's texts, and how it was made.
    pub(super) texts: Arc<TextsHash>,
}
