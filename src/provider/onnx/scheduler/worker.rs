//! The threads to be started: what each is there for, and what it runs batches on.

use super::packing::Packing;
use crate::provider::onnx::stages::RunBatch;

/// A thread to be started: what it is there for, and what it runs batches on.
pub(in crate::provider::onnx) struct Worker {
    pub(in crate::provider::onnx) name: String,
    pub(in crate::provider::onnx) role: WorkerRole,
    /// There if the role has a packing.
    pub(in crate::provider::onnx) runner: Option<Box<dyn RunBatch>>,
}

/// What a thread is there for.
#[derive(Clone, Debug)]
pub(in crate::provider::onnx) struct WorkerRole {
    pub(in crate::provider::onnx) tokenizes: bool,
    /// How it packs batches, if it runs any.
    pub(in crate::provider::onnx) packing: Option<Packing>,
}
