//! The vectors are those of sentence-transformers.

use std::path::Path;

use docvector_embed::{Batch, EmbedderExt, Embeddings, InputKind, Prompts, Truncation, provider::Onnx};

use crate::support::{Distance, distance, golden, json, minilm, minilm_int8, npy, texts, tiny};

/// The bounds for fp32.
const COSINE: f64 = 0.99999;
const DIFFERENCE: f64 = 1e-4;

async fn embed(embedder: &Onnx, kind: InputKind, texts: &[(String, String)]) -> Embeddings {
    let texts: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
    let batch = Batch::new(kind, &texts).with_truncation(Truncation::Truncate);
    embedder.embed_all(batch).await.expect("the golden texts can be embedded")
}

/// How far a folder's vectors are from those of sentence-transformers for all-MiniLM-L6-v2.
pub(super) async fn minilm_distance(folder: &Path) -> Distance {
    let embedder = Onnx::load(folder).expect("the folder loads");
    let texts = texts(&golden("all-MiniLM-L6-v2/texts.jsonl"));
    assert!(texts.len() >= 64);
    let have = embed(&embedder, InputKind::Document, &texts).await;
    let want = npy(&golden("all-MiniLM-L6-v2/vectors.npy"));
    assert_eq!(have.vectors().shape(), want.shape());
    let found = distance(have.rows(), want.rows().into_iter().map(|row| row.to_slice().expect("row-major")));
    println!("{}: {found:?}, worst text {}", folder.display(), texts[found.worst].0);
    found
}

pub(super) fn passes(found: &Distance) -> bool {
    found.cosine_min >= COSINE && found.difference_max <= DIFFERENCE
}

#[tokio::test]
async fn from_the_weights() {
    let found = minilm_distance(&minilm()).await;
    assert!(passes(&found), "{found:?}");
}

#[tokio::test]
async fn from_an_onnx_file() {
    // The file stores int8, so the bounds are wider.
    let found = minilm_distance(&minilm_int8()).await;
    assert!(found.cosine_min >= 0.995 && found.cosine_mean >= 0.998, "{found:?}");
}

/// Every pooling, both dialects, Dense, prompts, lower-casing, length rules, and each family, on models of random
/// weights whose vectors sentence-transformers computed.
#[tokio::test]
async fn of_every_configuration() {
    let mut seen = 0;
    for entry in std::fs::read_dir(golden("tiny")).expect("the folder") {
        let folder = entry.expect("an entry").path();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let meta = json(&folder.join("meta.json"));
        // The prompts that sentence-transformers applied: they differ from ours if a folder has `passage` beside an
        // empty `document`.
        let prompt = |kind: &str| meta[kind]["prompt"].as_str().unwrap_or_default().to_owned();
        let prompts = Prompts::new(prompt("document"), prompt("query"));
        let embedder = tiny(&name).with_prompts(prompts).build();
        let embedder = embedder.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(embedder.info().max_tokens.map(|max| max as u64), meta["max_seq_length"].as_u64(), "{name}");
        let texts = texts(&folder.join("texts.jsonl"));
        for (kind, file, of) in
            [(InputKind::Document, "documents.npy", "document"), (InputKind::Query, "queries.npy", "query")]
        {
            let have = embed(&embedder, kind, &texts).await;
            let want = npy(&folder.join(file));
            let found = distance(have.rows(), want.rows().into_iter().map(|row| row.to_slice().expect("row-major")));
            println!("{name} {kind}: {found:?}, worst text {}", texts[found.worst].0);
            // Vectors that sentence-transformers truncates have length 1 again here.
            let close = name == "bert-truncate" || found.difference_max <= 2e-5;
            assert!(close && found.cosine_min >= 0.999_999, "{name} {kind}: {found:?}");
            let truncated: Vec<&str> = have.truncated().iter().map(|&at| texts[at].0.as_str()).collect();
            let expected: Vec<&str> =
                meta[of]["truncated"].as_array().expect("a list").iter().filter_map(|id| id.as_str()).collect();
            assert_eq!(truncated, expected, "{name} {kind}");
            let tokens: u64 = meta[of]["tokens"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|tokens| tokens.as_u64())
                .map(|tokens| tokens.min(meta["max_seq_length"].as_u64().expect("a number")))
                .sum();
            assert_eq!(have.usage().exact_tokens(), Some(tokens), "{name} {kind}");
        }
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} models");
}
