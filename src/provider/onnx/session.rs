//! Begins sessions of ONNX Runtime on a device.

use ort::{
    environment::Environment,
    session::builder::{BuilderResult, SessionBuilder},
};

use super::device::Device;
use crate::{Error, ErrorKind, Result};

impl Device {
    /// Begins a session on this device. With `all`, a node that cannot run there is an error.
    pub(super) fn session(self, environment: &Environment, all: bool) -> Result<SessionBuilder> {
        let builder = SessionBuilder::new(environment).map_err(set_up)?;
        let builder = step(builder.with_intra_threads(1))?;
        let builder = step(builder.with_inter_threads(1))?;
        // Memory plans are kept for each shape for ever, and shapes rarely repeat.
        let builder = step(builder.with_memory_pattern(false))?;
        match self {
            Self::Cpu => Ok(builder),
            Self::Cuda(number) => self::cuda::register(builder, number, all),
        }
    }
}

/// Takes one step in setting a session up.
pub(super) fn step(built: BuilderResult) -> Result<SessionBuilder> {
    built.map_err(|error| set_up(error.into()))
}

fn set_up(error: ort::Error) -> Error {
    Error::new(ErrorKind::Inference, "a session cannot be set up").with_source(error)
}

#[cfg(feature = "cuda")]
pub(super) mod cuda {
    //! Sets up sessions on CUDA.

    use ort::{
        ep::{ArenaExtendStrategy, CUDA, cuda::AttentionBackend},
        session::builder::SessionBuilder,
    };

    use super::{Device, step};
    use crate::{Error, ErrorKind, Result, provider::onnx::runtime_messages::reason};

    pub(super) fn register(builder: SessionBuilder, number: u16, all: bool) -> Result<SessionBuilder> {
        // All but cuDNN's, which builds a plan for each new shape, and that takes longer than the batch.
        let attention = AttentionBackend::FLASH_ATTENTION
            | AttentionBackend::EFFICIENT_ATTENTION
            | AttentionBackend::TRT_FUSED_ATTENTION
            | AttentionBackend::TRT_FLASH_ATTENTION
            | AttentionBackend::MATH;
        let provider = CUDA::default()
            .with_device_id(number.into())
            // Otherwise the arena doubles its size each time, and soon holds all of the GPU's memory.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_tf32(false)
            .with_skip_layer_norm_strict_mode(true)
            .with_attention_backend(attention);
        let builder = builder
            .with_execution_providers([provider.build().error_on_failure()])
            .map_err(|error| unusable(Device::Cuda(number), error.into()))?;
        if all { step(builder.with_disable_cpu_fallback()) } else { Ok(builder) }
    }

    /// Makes an error that names the device and says why it cannot be used.
    pub(in crate::provider::onnx) fn unusable(device: Device, error: ort::Error) -> Error {
        let message = match reason(error.message()) {
            Some(reason) => format!("{device} cannot be used: {reason}"),
            None => format!("{device} cannot be used: ONNX Runtime failed to set it up"),
        };
        Error::new(ErrorKind::Config, message).with_source(error)
    }
}

#[cfg(not(feature = "cuda"))]
pub(super) mod cuda {
    //! Stands in for CUDA without the feature `cuda`.

    use ort::session::builder::SessionBuilder;

    use super::Device;
    use crate::{Error, ErrorKind, Result};

    pub(super) fn register(_: SessionBuilder, number: u16, _: bool) -> Result<SessionBuilder> {
        let message = format!(
            "{} cannot be used: this program is built without CUDA: turn on the feature `cuda` of docvector-embed",
            Device::Cuda(number)
        );
        Err(Error::new(ErrorKind::Config, message))
    }

    pub(in crate::provider::onnx) fn unusable(_: Device, error: ort::Error) -> Error {
        super::set_up(error)
    }
}
