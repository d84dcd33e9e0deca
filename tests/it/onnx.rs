//! `provider::Onnx` on real models and real ONNX Runtime.
#![cfg(feature = "onnx")]

pub(crate) mod folders;
mod laws;
mod mutations;
mod parity;
mod scheduling;
