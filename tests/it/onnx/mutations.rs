//! A loader that got one thing wrong would fail the parity test: each mistake is made here, by changing the folder so
//! that the right loader does what a wrong one would do with the real folder.

use std::{fs, path::Path};

use serde_json::json;

use super::{folders::copy_linked, parity};
use crate::support::{json as read_json, minilm};

fn mutated(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy_linked(&minilm(), folder.path());
    change(folder.path());
    folder
}

fn edit(file: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value = read_json(file);
    change(&mut value);
    // The file is a link to the real one.
    fs::remove_file(file).expect("removed");
    fs::write(file, value.to_string()).expect("written");
}

async fn must_fail(what: &str, folder: &tempfile::TempDir) {
    let found = parity::minilm_distance(folder.path()).await;
    assert!(!parity::passes(&found), "parity does not notice {what}: {found:?}");
}

#[tokio::test]
async fn an_untouched_copy_passes() {
    let found = parity::minilm_distance(mutated(|_| {}).path()).await;
    assert!(parity::passes(&found), "{found:?}");
}

#[tokio::test]
async fn tanh_gelu() {
    let folder = mutated(|folder| edit(&folder.join("config.json"), |config| config["hidden_act"] = json!("gelu_new")));
    must_fail("GELU by tanh", &folder).await;
}

#[tokio::test]
async fn cls_pooling() {
    let folder = mutated(|folder| {
        edit(&folder.join("1_Pooling/config.json"), |config| {
            config["pooling_mode_mean_tokens"] = json!(false);
            config["pooling_mode_cls_token"] = json!(true);
        });
    });
    must_fail("cls pooling", &folder).await;
}

#[tokio::test]
async fn truncation_at_128() {
    let folder = mutated(|folder| {
        edit(&folder.join("sentence_bert_config.json"), |config| config["max_seq_length"] = json!(128));
    });
    must_fail("truncation at 128", &folder).await;
}

#[tokio::test]
async fn no_token_types() {
    let folder = mutated(|folder| {
        let file = folder.join("model.safetensors");
        let mut bytes = fs::read(&file).expect("read");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let entries: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("JSON");
        let offsets = &entries["embeddings.token_type_embeddings.weight"]["data_offsets"];
        let at = |i: usize| 8 + header + offsets[i].as_u64().expect("an offset") as usize;
        bytes[at(0)..at(1)].fill(0);
        fs::remove_file(&file).expect("removed");
        fs::write(&file, bytes).expect("written");
    });
    must_fail("missing token types", &folder).await;
}

#[tokio::test]
async fn another_epsilon() {
    let folder = mutated(|folder| edit(&folder.join("config.json"), |config| config["layer_norm_eps"] = json!(1e-3)));
    must_fail("another epsilon", &folder).await;
}

#[tokio::test]
async fn no_normalization() {
    let folder = mutated(|folder| {
        edit(&folder.join("modules.json"), |modules| {
            modules.as_array_mut().expect("a list").pop();
        });
    });
    must_fail("missing normalization", &folder).await;
}

#[tokio::test]
async fn cased_tokens() {
    let folder = mutated(|folder| {
        edit(&folder.join("tokenizer.json"), |tokenizer| tokenizer["normalizer"]["lowercase"] = json!(false));
        edit(&folder.join("tokenizer_config.json"), |config| config["do_lower_case"] = json!(false));
    });
    must_fail("missing lower-casing", &folder).await;
}
