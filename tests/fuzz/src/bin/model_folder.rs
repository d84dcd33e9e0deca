//! Folders of models: no files make the reader panic, and no text gets more tokens than the model takes.
//!
//! An input is the folder's files one after the other, in the order of `FILES`, each ended by a byte that no JSON has.
//! A file without a byte is not there.
#![no_main]

#[path = "../files.rs"]
mod files;

use std::{
    fs,
    panic::{catch_unwind, set_hook, take_hook},
};

use docvector_embed::fuzz::onnx::read_folder;
use libfuzzer_sys::fuzz_target;

const END: u8 = 0xff;

const FILES: [&str; 8] = [
    "tokenizer.json",
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
];

/// Ids that the model has vectors for.
const VOCABULARY: usize = 1000;

const TEXTS: [&str; 4] =
    ["a", "The quick brown fox, 1 2 3.", "naïve 漢字\u{301}\n\tx", "a b c d e f g h i j k l m n o p"];

/// The crate `tokenizers` panics on some files: on a template that names a token which it does not declare, for
/// example. Such a panic is known, and is no crash of this target. Every other one is.
fn forgive_tokenizers() {
    let crash = take_hook();
    set_hook(Box::new(move |panic| {
        if panic.location().is_none_or(|place| !place.file().contains("/tokenizers-")) {
            crash(panic);
        }
    }));
}

fuzz_target!(init: forgive_tokenizers(), |data: &[u8]| {
    let root = files::folder("model_folder");
    let mut parts = data.split(|&byte| byte == END);
    for name in FILES {
        let path = root.join(name);
        match parts.next() {
            Some(bytes) if !bytes.is_empty() => files::write(&path, bytes),
            _ => _ = fs::remove_file(&path),
        }
    }
    let Ok(Ok((max, texts))) = catch_unwind(|| read_folder(&root, VOCABULARY, &TEXTS)) else { return };
    for tokens in texts {
        let have = tokens.ids.len();
        assert!(have <= max, "{have} tokens of at most {max}");
        assert_eq!(tokens.truncated, tokens.counted > max, "truncated by another count than {}", tokens.counted);
        assert!(tokens.truncated || have == tokens.counted, "{have} tokens, counted as {}", tokens.counted);
    }
});
