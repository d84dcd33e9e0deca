//! Names the devices that models run on, and sets sessions up for them.

use std::{fmt, str::FromStr};

use ort::{
    environment::Environment,
    session::builder::{BuilderResult, SessionBuilder},
};

use super::session::says_out_of_memory;
use crate::{Error, ErrorKind, Result};

/// Where a model runs.
///
/// ```
/// use docvector_embed::provider::Device;
/// # fn main() -> docvector_embed::Result<()> {
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// assert_eq!(Device::Cpu.to_string(), "cpu");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The processor, in fp32 or, where asked for, int8.
    #[default]
    Cpu,
    /// A graphics card by CUDA's number, in fp16. Needs the feature `cuda`, and ONNX Runtime's build for CUDA.
    Cuda(u16),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `cpu`, `cuda` (the first card) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "cpu" => Some(Self::Cpu),
            None if text == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().ok().map(Self::Cuda),
            _ => None,
        }
        .ok_or_else(|| Error::new(ErrorKind::Config, format!("{text:?} is no device: cpu, cuda and cuda:N are")))
    }
}

impl Device {
    /// Begins a session on this device, whose nodes `all` must run there or it is an error.
    pub(super) fn session(self, environment: &Environment, all: bool) -> Result<SessionBuilder> {
        let builder = SessionBuilder::new(environment).map_err(set_up)?;
        let builder = step(builder.with_intra_threads(1))?;
        let builder = step(builder.with_inter_threads(1))?;
        // Plans of memory are kept by shape, for ever, and shapes hardly repeat.
        let builder = step(builder.with_memory_pattern(false))?;
        match self {
            Self::Cpu => Ok(builder),
            Self::Cuda(number) => self::cuda::register(builder, number, all),
        }
    }

    /// Refuses devices that cannot be meant together.
    pub(super) fn check(devices: &[Self]) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        let Some(first) = devices.first() else { return wrong("no device was named".into()) };
        if let Some(at) = devices.iter().enumerate().position(|(at, device)| devices[..at].contains(device)) {
            return wrong(format!("the device {} was named twice", devices[at]));
        }
        if devices.iter().any(|device| (*device == Self::Cpu) != (*first == Self::Cpu)) {
            return wrong("cpu and cuda were named together: load the model once for each".into());
        }
        Ok(())
    }
}

/// Takes one step in setting a session up.
pub(super) fn step(built: BuilderResult) -> Result<SessionBuilder> {
    built.map_err(|error| set_up(error.into()))
}

fn set_up(error: ort::Error) -> Error {
    Error::new(ErrorKind::Inference, "a session cannot be set up").with_source(error)
}

/// Why a device cannot be used, in words that say what to do; `None` where the runtime's words are all there is.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "nothing else can fail so"))]
fn reason(message: &str) -> Option<&'static str> {
    let has = |text: &str| message.contains(text);
    let missing = has("Failed to load library") || has("Failed to load shared library");
    Some(if has("is not enabled in this build") || has("was not compiled with CUDA") {
        "this ONNX Runtime is built for the CPU alone: install the one for CUDA (Python package onnxruntime-gpu) and \
         name it with ORT_DYLIB_PATH"
    } else if missing && has("libcuda.so") {
        "NVIDIA's driver is not installed (libcuda.so is missing)"
    } else if missing && has("providers_cuda") && has("cannot open shared object file") && !has("libcu") {
        "the provider's library is not beside ONNX Runtime's: install the build for CUDA as a whole"
    } else if missing {
        "a library that CUDA needs is missing: install CUDA's runtime libraries and name their folders in LD_LIBRARY_PATH"
    } else if has("CUDA failure 35:") {
        "NVIDIA's driver is older than what this ONNX Runtime was built for: install a newer one"
    } else if has("CUDA failure 100:") {
        "CUDA finds no card in this machine"
    } else if has("CUDA failure 803:") {
        "NVIDIA's driver and CUDA's compatibility libraries do not fit each other"
    } else if has("Invalid device ID") || has("CUDA failure 101:") {
        "there is no card of this number"
    } else if has("cuDNN is unavailable") || has("libcudnn") {
        "cuDNN is missing: install it and name its folder in LD_LIBRARY_PATH"
    } else if says_out_of_memory(message) {
        "the card has too little free memory: end other programs on it, or ask for one thread"
    } else if has("fallback to CPU EP has been explicitly disabled") {
        "parts of the model can only run on the CPU"
    } else {
        return None;
    })
}

#[cfg(feature = "cuda")]
pub(super) mod cuda {
    //! What is particular to CUDA.

    use ort::{
        ep::{ArenaExtendStrategy, CUDA, cuda::AttentionBackend},
        session::builder::SessionBuilder,
    };

    use super::{Device, reason, step};
    use crate::{Error, ErrorKind, Result};

    pub(super) fn register(builder: SessionBuilder, number: u16, all: bool) -> Result<SessionBuilder> {
        // Named one by one, without cuDNN's: it builds a plan for each new shape, which takes longer than the batch.
        let attention = AttentionBackend::FLASH_ATTENTION
            | AttentionBackend::EFFICIENT_ATTENTION
            | AttentionBackend::TRT_FUSED_ATTENTION
            | AttentionBackend::TRT_FLASH_ATTENTION
            | AttentionBackend::MATH;
        let provider = CUDA::default()
            .with_device_id(number.into())
            // Otherwise it doubles what it holds, and soon holds the whole card.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_tf32(false)
            .with_skip_layer_norm_strict_mode(true)
            .with_attention_backend(attention);
        let builder = builder
            .with_execution_providers([provider.build().error_on_failure()])
            .map_err(|error| unusable(Device::Cuda(number), error.into()))?;
        if all { step(builder.with_disable_cpu_fallback()) } else { Ok(builder) }
    }

    /// Names the device, and says why it cannot be used.
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
    //! Stands in for CUDA where it is not built in.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for (text, device) in [("cpu", Device::Cpu), ("cuda", Device::Cuda(0)), ("cuda:7", Device::Cuda(7))] {
            assert_eq!(text.parse::<Device>().expect("a device"), device);
            assert_eq!(device.to_string().parse::<Device>().expect("a device"), device);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "CUDA", "cuda:99999"] {
            let error = text.parse::<Device>().expect_err("no device");
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn devices_that_cannot_be_meant_together() {
        for (devices, word) in [
            (&[][..], "no device"),
            (&[Device::Cuda(1), Device::Cuda(0), Device::Cuda(1)], "cuda:1 was named twice"),
            (&[Device::Cpu, Device::Cuda(0)], "together"),
        ] {
            let error = Device::check(devices).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
        Device::check(&[Device::Cuda(1), Device::Cuda(0)]).expect("two cards");
        Device::check(&[Device::Cpu]).expect("the processor");
    }

    /// What ONNX Runtime 1.31 and 1.32 say.
    #[test]
    fn says_why_a_card_cannot_be_used() {
        for (message, words) in [
            ("CUDA execution provider is not enabled in this build.", "the CPU alone"),
            (
                "Failed to load library /x/libonnxruntime_providers_cuda.so with error: \
                 /x/libonnxruntime_providers_cuda.so: cannot open shared object file: No such file or directory",
                "beside ONNX Runtime's",
            ),
            (
                "Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open \
                 shared object file: No such file or directory",
                "LD_LIBRARY_PATH",
            ),
            (
                "Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcuda.so.1: cannot open shared \
                 object file: No such file or directory",
                "driver is not installed",
            ),
            ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "older"),
            (
                "Failed to parse provider option \"device_id\": CUDA failure 100: no CUDA-capable device is detected",
                "no card",
            ),
            ("CUDA failure 803: system has unsupported display driver / cuda driver combination", "do not fit"),
            ("Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).", "this number"),
            ("cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed for libcudnn.so", "cuDNN is"),
            ("CUDA failure 2: out of memory ; GPU=0", "too little free memory"),
            (
                "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has \
                 been explicitly disabled by the user.",
                "only run on the CPU",
            ),
        ] {
            assert!(reason(message).is_some_and(|reason| reason.contains(words)), "{message}");
        }
        assert_eq!(reason("something else"), None);
    }
}
