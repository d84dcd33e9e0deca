//! Provides vectors: the embedders at the bottom of a stack.

pub mod fake;
#[cfg(feature = "onnx")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "onnx")))]
pub mod onnx;
#[cfg(feature = "openai")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "openai")))]
pub mod openai;

pub use fake::Fake;
#[cfg(feature = "onnx")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "onnx")))]
pub use onnx::Onnx;
#[cfg(feature = "openai")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "openai")))]
pub use openai::{OpenAi, OpenAiBuilder};
