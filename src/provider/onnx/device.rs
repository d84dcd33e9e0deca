//! Names the devices that models run on.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind, ParseError, Result};

/// The device that a model runs on.
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
    /// The processor, in fp32 or, on request, int8.
    #[default]
    Cpu,
    /// A GPU by CUDA's number, in fp16. Needs the feature `cuda`, and ONNX Runtime's build for CUDA.
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
    type Err = ParseError;

    /// Reads `cpu`, `cuda` (the first GPU) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once(':') {
            None if text == "cpu" => Some(Self::Cpu),
            None if text == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().ok().map(Self::Cuda),
            _ => None,
        }
        .ok_or_else(|| ParseError::new(format!("{text:?} is not a device: use cpu, cuda or cuda:N")))
    }
}

impl Device {
    /// Refuses a list of devices that is empty, names one twice, or mixes the CPU with GPUs.
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

    /// Returns the devices' names, separated by commas.
    pub(super) fn names(devices: &[Self]) -> String {
        devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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
            assert!(error.to_string().contains("cuda:N"), "{error}");
            assert_eq!(Error::from(error).kind(), ErrorKind::Config);
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
        Device::check(&[Device::Cuda(1), Device::Cuda(0)]).expect("two GPUs");
        Device::check(&[Device::Cpu]).expect("the processor");
    }
}
