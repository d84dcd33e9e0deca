//! Ready `.onnx` files: no bytes make the reader panic or run for long.
#![no_main]

#[path = "../files.rs"]
mod files;

use docvector_embed::fuzz::onnx::read_onnx_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let root = files::folder("onnx_file");
    let path = root.join("model.onnx");
    files::write(&path, data);
    // A file that a model may keep its weights in.
    files::write(&root.join("weights"), &[7; 64]);
    let _ = read_onnx_file(&path);
});
