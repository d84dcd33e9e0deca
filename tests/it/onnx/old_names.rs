//! Old checkpoints name the weights of a LayerNorm gamma and beta.

use std::{fs, path::Path};

use docvector_embed::{EmbedderExt, provider::Onnx};
use serde_json::{Map, Value};

use super::folders::{assert_says, copy, refused};
use crate::support::golden;

/// Gives tensors of `model.safetensors` other names.
pub(super) fn rename(folder: &Path, new_name: &dyn Fn(&str) -> Option<String>) {
    let file = folder.join("model.safetensors");
    let bytes = fs::read(&file).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    let renamed: Map<String, Value> =
        header.into_iter().map(|(name, tensor)| (new_name(&name).unwrap_or(name), tensor)).collect();
    let header = serde_json::to_vec(&renamed).expect("JSON");
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend_from_slice(&bytes[8 + length..]);
    fs::write(&file, out).expect("written");
}

fn old_name(name: &str) -> Option<String> {
    let (norm, part) = name.rsplit_once('.')?;
    let old = if part == "weight" { "gamma" } else { "beta" };
    (norm.ends_with("LayerNorm") || norm.ends_with("layer_norm")).then(|| format!("{norm}.{old}"))
}

#[tokio::test]
async fn gamma_and_beta_are_weight_and_bias() {
    for name in ["bert-cls", "bert-lower", "distilbert", "mpnet", "xlm-roberta"] {
        let folder = tempfile::tempdir().expect("a folder");
        copy(&golden("tiny").join(name), folder.path());
        rename(folder.path(), &old_name);
        let bytes = fs::read(folder.path().join("model.safetensors")).expect("read");
        assert!(!String::from_utf8_lossy(&bytes).contains("LayerNorm.weight"), "{name} was not renamed");
        let text = ["The old bridge over the river"];
        let have = Onnx::load(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let want = Onnx::load(golden("tiny").join(name)).expect("loads");
        let have = have.embed_documents(&text).await.expect("embeds");
        assert_eq!(have.row(0), want.embed_documents(&text).await.expect("embeds").row(0), "{name}");
    }
}

#[test]
fn a_tensor_under_both_names_is_refused() {
    let text = refused("bert-cls", &|folder| {
        rename(folder, &|name| (name == "pooler.dense.bias").then(|| "embeddings.LayerNorm.beta".to_owned()));
    });
    assert_says(&text, &["DIR/model.safetensors has both embeddings.LayerNorm.bias and embeddings.LayerNorm.beta"]);
}
