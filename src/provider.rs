//! Holds the providers: the embedders at the bottom of a stack, which make the vectors.

#[cfg(any(feature = "openai", feature = "remote"))]
mod client_texts;
#[cfg(any(feature = "openai", feature = "remote"))]
mod decoding;
mod fake;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "openai")]
mod openai;
#[cfg(feature = "openai")]
mod openai_batch;
#[cfg(feature = "remote")]
mod remote;
#[cfg(any(feature = "openai", feature = "remote"))]
mod service_headers;
#[cfg(any(feature = "openai", feature = "remote"))]
mod unusable_rows;

pub use self::fake::{Fake, FakeBuilder, FakeCall, FakeOutcome, Hold};
#[cfg(all(feature = "onnx", fuzzing))]
pub use self::onnx::fuzz as onnx_fuzz;
#[cfg(feature = "onnx")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "onnx")))]
pub use self::onnx::{
    Device, NodeShare, Onnx, OnnxBuilder, OnnxInfo, OnnxLibrary, OnnxLibrarySource, OnnxStats, Tuning, TuningSource,
};
#[cfg(all(feature = "openai", feature = "__bench"))]
#[doc(hidden)]
pub use self::openai::bench;
#[cfg(all(feature = "openai", fuzzing))]
pub use self::openai::fuzz as openai_fuzz;
#[cfg(feature = "openai")]
pub(crate) use self::openai::is_openai_model;
#[cfg(feature = "openai")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "openai")))]
pub use self::openai::{OpenAi, OpenAiBuilder, OpenAiEncoding};
#[cfg(all(feature = "openai", any(feature = "__bench", fuzzing)))]
#[doc(hidden)]
pub use self::openai_batch::lines as batch_lines;
#[cfg(feature = "openai")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "openai")))]
pub use self::openai_batch::{FailedText, Job, JobReport, JobState, JobStatus, OpenAiBatch, OpenAiBatchBuilder};
#[cfg(feature = "remote")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "remote")))]
pub use self::remote::{Remote, RemoteBuilder, RemoteDialect, RemoteEndpointStats};
