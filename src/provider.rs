//! Provides vectors: the embedders at the bottom of a stack.

pub mod fake;
#[cfg(feature = "onnx")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "onnx")))]
pub mod onnx;

pub use fake::Fake;
#[cfg(feature = "onnx")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "onnx")))]
pub use onnx::Onnx;
