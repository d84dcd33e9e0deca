//! Describes the threads to start: what each one does, and what it runs batches on.

use super::packing::Packing;
use crate::provider::onnx::stages::RunBatch;

/// A thread to start.
pub(in crate::provider::onnx) struct Worker {
    pub(in crate::provider::onnx) name: String,
    pub(in crate::provider::onnx) role: WorkerRole,
    /// The session that it runs batches on, if its role has a packing.
    pub(in crate::provider::onnx) runner: Option<Box<dyn RunBatch>>,
}

/// The work that a thread takes.
#[derive(Clone, Debug)]
pub(in crate::provider::onnx) struct WorkerRole {
    pub(in crate::provider::onnx) tokenizes: bool,
    /// How it packs batches, if it runs batches.
    pub(in crate::provider::onnx) packing: Option<Packing>,
}
