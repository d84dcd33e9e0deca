//! `provider::Onnx` on real models and real ONNX Runtime.
#![cfg(feature = "onnx")]

mod device;
pub(crate) mod folders;
#[cfg(target_os = "linux")]
mod fork;
mod laws;
mod mates;
mod mutations;
mod not_embedders;
mod old_names;
mod parity;
mod pooling;
mod precision;
mod scheduling;
