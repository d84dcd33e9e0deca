//! int8 on a CPU: near fp32, in a space of its own, and as independent of batch-mates as fp32 is.

use std::path::PathBuf;

use docvector_embed::{
    Batch, EmbedderExt, ErrorKind, InputKind, Precision, Result, Truncation,
    conformance::Suite,
    provider::{Device, Onnx},
};

use crate::support::{distance, golden, minilm, minilm_int8, npy, texts, tiny};

fn int8(folder: impl Into<PathBuf>) -> Onnx {
    Onnx::builder(folder).with_precision(Precision::Int8).build().expect("loads")
}

fn with_bits(folder: impl Into<PathBuf>, bits: u8) -> Result<Onnx> {
    Onnx::builder(folder).with_precision(Precision::Int8).with_weight_bits(bits).build()
}

/// The bits of weights that this CPU takes. Only the CPU may forbid 8.
fn bits_of_this_cpu() -> Vec<u8> {
    match with_bits(golden("tiny/bert-cls"), 8) {
        Ok(_) => vec![7, 8],
        Err(error) => {
            assert!(error.to_string().contains("does not add products of 8-bit weights exactly"), "{error}");
            vec![7]
        }
    }
}

/// These are odd texts, of emoji, symbols and many languages: for ordinary text the lowest cosine is 0.99.
#[tokio::test]
async fn int8_is_near_full_precision() {
    let golden_texts = texts(&golden("all-MiniLM-L6-v2/texts.jsonl"));
    let texts: Vec<&str> = golden_texts.iter().map(|(_, text)| text.as_str()).collect();
    let want = npy(&golden("all-MiniLM-L6-v2/vectors.npy"));
    let mut means = Vec::new();
    for bits in bits_of_this_cpu() {
        let embedder = with_bits(minilm(), bits).expect("loads");
        let batch = Batch::documents(&texts).with_truncation(Truncation::Truncate);
        let have = embedder.embed_all(batch).await.expect("embeds");
        let found = distance(have.rows(), want.rows().into_iter().map(|row| row.to_slice().expect("row-major")));
        println!("int8, {bits}-bit weights: {found:?}, worst text {}", golden_texts[found.worst].0);
        assert!(found.cosine_mean >= 0.99 && found.cosine_min >= 0.97, "{found:?}");
        // Without any quantization it would be nearer.
        assert!(found.cosine_min <= 0.9999, "{found:?}");
        means.push(found.cosine_mean);
    }
    assert!(means.is_sorted(), "more bits are no nearer: {means:?}");
}

#[tokio::test]
async fn int8_keeps_the_laws() {
    Suite::new(&int8(minilm())).run().await.expect("int8 keeps the laws");
    for name in
        ["bert-cls", "bert-prompts", "bert-tanh", "xlm-roberta", "mpnet", "distilbert", "bert-multi", "bert-dense"]
    {
        let embedder = tiny(name).with_precision(Precision::Int8).build().expect(name);
        Suite::new(&embedder).run().await.unwrap_or_else(|violation| panic!("{name}: {violation}"));
    }
}

/// Every family through the quantized layers, beside its own full precision. These weights are random, and so small
/// that rounding them shows more than in a model that was trained.
#[tokio::test]
async fn int8_of_every_family_is_near_full_precision() {
    for name in ["bert-cls", "bert-tanh", "bert-dense", "xlm-roberta", "mpnet", "distilbert", "bert-multi"] {
        let folder = golden("tiny").join(name);
        let golden_texts = texts(&folder.join("texts.jsonl"));
        let texts: Vec<&str> = golden_texts.iter().map(|(_, text)| text.as_str()).collect();
        let batch = Batch::new(InputKind::Document, &texts).with_truncation(Truncation::Truncate);
        let want = tiny(name).build().expect("loads").embed_all(batch).await.expect("embeds");
        let int8 = tiny(name).with_precision(Precision::Int8).build().expect("loads");
        let have = int8.embed_all(batch).await.expect("embeds");
        let found = distance(have.rows(), want.rows());
        println!("{name}: {found:?}");
        assert!(found.cosine_min >= 0.97, "{name}: {found:?}");
        assert!(found.difference_max > 0.0, "{name} is not quantized");
    }
}

#[tokio::test]
async fn int8_is_a_space_of_its_own() {
    let (full, int8) = (Onnx::load(minilm()).expect("loads"), int8(minilm()));
    // Queries in int8 for documents in fp32: the widths are equal, so nothing else would notice.
    let documents = full.embed_documents(&["a document"]).await.expect("embeds");
    let error = int8.embed_query_in(documents.space(), "a query").await.expect_err("another space");
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    let query = full.embed_query_in(documents.space(), "a query").await.expect("its own space");
    assert_eq!(query, full.embed_query("a query").await.expect("embeds"));
    let (full, int8) = (full.space().expect("one"), int8.space().expect("one"));
    assert_eq!((full.precision(), int8.precision()), (Precision::Full, Precision::Int8));
    assert_ne!(full.id(), int8.id());
    // The same on every machine: collections are named by it.
    for bits in bits_of_this_cpu() {
        let embedder = with_bits(minilm(), bits).expect("loads");
        let of_bits = embedder.space().expect("one");
        let id = if bits == 7 { "3a0fac3af3d8ac18e775253933b7b0d0" } else { "a7405e34cac6811af387f267f8e4266a" };
        assert_eq!(of_bits.id().to_string(), id, "{bits}-bit weights");
        let label = of_bits.label().expect("a label");
        assert_eq!(label.contains("7-bit"), bits == 7, "{label}");
    }
    // The most bits that the CPU takes are the default.
    let most = with_bits(minilm(), *bits_of_this_cpu().last().expect("one")).expect("loads");
    assert_eq!(int8.id(), most.space().expect("one").id());
}

#[test]
fn int8_that_is_not_possible_is_an_error() {
    for (builder, word) in [
        (Onnx::builder(minilm_int8()).with_precision(Precision::Int8), "int8 needs model.safetensors"),
        (Onnx::builder(minilm()).with_precision(Precision::Int8).with_device(Device::Cuda(0)), "GPUs run fp16"),
        (
            Onnx::builder(minilm()).with_precision(Precision::Int8).with_weight_bits(4),
            "with_weight_bits (--weight-bits) is 4: set 7 or 8",
        ),
        (Onnx::builder(minilm()).with_weight_bits(8), "only int8 has such weights"),
    ] {
        let error = builder.build().expect_err("refused");
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{error}");
    }
}
