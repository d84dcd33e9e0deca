//! All integration tests, one binary: modules by subject, fast ones first.

mod cache;
#[cfg(all(feature = "arrow", unix))]
mod cache_export;
mod cache_tools;
mod check_gpu;
mod cli;
mod config;
mod conformance;
mod core_faults;
mod exporters;
mod failing_texts;
mod fetch_assets;
mod house;
mod many;
mod observed;
mod onnx;
mod openai;
mod openai_batch;
mod query_each;
mod remote;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "serde")]
mod stored;
mod support;
mod telemetry;
mod testing;
mod tokenizer_counter;
mod wrap;

// The last: it takes as long as it may.
mod stress;
