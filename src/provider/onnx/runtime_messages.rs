//! Reads the reason of a failure from ONNX Runtime's messages, which carry no codes for it.

use crate::{Error, ErrorKind};

/// Makes an error of the kind `Inference` that says what failed, with the runtime's error as its source.
pub(super) fn failed(what: &str) -> impl FnOnce(ort::Error) -> Error {
    move |error| Error::new(ErrorKind::Inference, what).with_source(error)
}

/// Returns whether the runtime had too little memory for a batch, so that a smaller one may fit. These are the words of
/// its arena, of CUDA, and of the libraries on it.
pub(super) fn says_out_of_memory(message: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "Failed to allocate memory for requested buffer of size",
        "is smaller than requested bytes of",
        "CUDA failure 2:",
        "cudaErrorMemoryAllocation",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "out of memory",
        "bad_alloc",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// Returns why a device cannot be used and what to do; `None` if only the runtime's own words are known.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "nothing else can fail so"))]
pub(super) fn reason(message: &str) -> Option<&'static str> {
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
        "CUDA finds no GPU in this machine"
    } else if has("CUDA failure 803:") {
        "NVIDIA's driver and CUDA's compatibility libraries do not fit: install versions that belong together"
    } else if has("Invalid device ID") || has("CUDA failure 101:") {
        "there is no GPU of this number"
    } else if has("cuDNN is unavailable") || has("libcudnn") {
        "cuDNN is missing: install it and name its folder in LD_LIBRARY_PATH"
    } else if says_out_of_memory(message) {
        "the GPU has too little free memory: end other programs on it, or set one thread"
    } else if has("fallback to CPU EP has been explicitly disabled") {
        "parts of the model can only run on the CPU"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_running_out_of_memory() {
        for message in [
            "Non-zero status code returned while running EmbedLayerNormalization node. Name:'x' Status Message: \
             BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 3221225472",
            "Available memory of 41712640 is smaller than requested bytes of 3221225472",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
            "CUDA failure 2: out of memory ; GPU=0",
            "Exception during initialization: std::bad_alloc",
        ] {
            assert!(says_out_of_memory(message), "{message}");
        }
        for message in [
            "CUDA failure 700: an illegal memory access was encountered",
            "CUDA failure 20: x",
            "Got invalid dimensions for input: input_ids",
            "cuDNN is unavailable for CUDA Execution Provider",
        ] {
            assert!(!says_out_of_memory(message), "{message}");
        }
    }

    /// The messages of ONNX Runtime 1.31 and 1.32.
    #[test]
    fn says_why_a_gpu_cannot_be_used() {
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
                "no GPU",
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
