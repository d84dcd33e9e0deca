//! The threads to be started: what each is there for, and what it runs batches on.

use super::packing::Packing;
use crate::provider::onnx::stages::Run;

/// A thread to be started: what it is there for, and what it runs batches on.
pub(in crate::provider::onnx) struct Worker {
    pub(in crate::provider::onnx) name: String,
    pub(in crate::provider::onnx) role: Role,
    /// There if the role has a packing.
    pub(in crate::provider::onnx) runner: Option<Box<dyn Run>>,
}

/// What a thread is there for.
#[derive(Clone, Debug)]
pub(in crate::provider::onnx) struct Role {
    pub(in crate::provider::onnx) tokenises: bool,
    /// How it packs batches, if it runs any.
    pub(in crate::provider::onnx) packing: Option<Packing>,
}
