//! Files of weights: no bytes make the reader panic, and each tensor that it reads is whole and finite.
#![no_main]

#[path = "../files.rs"]
mod files;

use docvector_embed::fuzz::onnx::read_weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = files::folder("safetensors").join("model.safetensors");
    files::write(&path, data);
    let Ok(tensors) = read_weights(&path) else { return };
    let mut bytes = 0;
    for (shape, numbers) in tensors {
        assert_eq!(numbers.len(), shape.iter().product::<usize>(), "not as many numbers as the shape {shape:?} has");
        assert!(numbers.iter().all(|number| number.is_finite()), "a number is not finite");
        // Two bytes at least: a file of few bytes has few numbers.
        bytes += 2 * numbers.len();
    }
    assert!(bytes <= data.len(), "more numbers than the file has bytes for");
});
