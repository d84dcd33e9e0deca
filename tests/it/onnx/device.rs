//! Devices: what was asked for is what runs, or an error says why not.

use std::collections::BTreeSet;

use docvector_embed::{
    ErrorKind,
    provider::{Device, Onnx},
};

use crate::support::{golden, minilm_int8};

/// The library of the tests has no CUDA: never a run on the CPU in its place.
#[test]
fn a_gpu_that_cannot_be_used_is_an_error_with_the_reason() {
    for folder in [golden("tiny/bert-cls"), golden("tiny/mpnet"), minilm_int8()] {
        for device in [Device::Cuda(0), Device::Cuda(3)] {
            let error = Onnx::builder(&folder).with_device(device).build().expect_err("there is none");
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(text.contains(&format!("{device} cannot be used")), "{text}");
            let reason = if cfg!(feature = "cuda") { "built for the CPU alone" } else { "feature `cuda`" };
            assert!(text.contains(reason), "{text}");
        }
    }
}

#[test]
fn devices_that_make_no_sense() {
    for (devices, word) in [
        (&[][..], "no device"),
        (&[Device::Cpu, Device::Cpu], "twice"),
        (&[Device::Cpu, Device::Cuda(0)], "once for each"),
    ] {
        let builder = Onnx::builder(golden("tiny/bert-cls")).with_devices(devices.iter().copied());
        let error = builder.build().expect_err("refused");
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn what_runs_where_can_be_read() {
    for folder in [golden("tiny/bert-cls"), minilm_int8()] {
        let embedder = Onnx::load(&folder).expect("loads");
        assert_eq!(embedder.info().devices, [Device::Cpu]);
        let shares = embedder.placement().expect("runs");
        let providers: BTreeSet<&str> = shares.iter().map(|share| share.provider.as_str()).collect();
        assert_eq!(providers, BTreeSet::from(["CPUExecutionProvider"]));
        assert!(shares[0].nodes > 10, "{shares:?}");
    }
}
