//! All integration tests, one binary: modules by subject, fast ones first.

mod conformance;
mod many;
mod onnx;
mod support;
