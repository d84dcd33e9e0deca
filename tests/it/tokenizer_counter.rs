//! `TokenizerCounter`: the tokens of a model that runs elsewhere, known before it is asked.
#![cfg(feature = "tokenizers")]

use std::{fs, path::PathBuf};

use docvector_embed::{CountTokens, ErrorKind, InputKind, Prompts, TokenizerCounter};

use crate::support::root;

fn folder(name: &str) -> PathBuf {
    root().join("tests/golden/tiny").join(name)
}

fn counter() -> TokenizerCounter {
    TokenizerCounter::from_file(folder("bert-cls").join("tokenizer.json")).expect("reads")
}

#[test]
fn counts_only_as_far_as_asked_and_truncates_to_fit() {
    let prompted = counter().with_prompts(Prompts::new("", "a query: "));
    let text = "a text, of some words. ".repeat(400);
    for (counter, kind) in [(counter(), InputKind::Document), (prompted, InputKind::Query)] {
        let all = counter.count(kind, &text);
        assert!(all > 2000, "{all}");
        for limit in [3, 17, 512, all - 1, all, all + 1] {
            let to = counter.count_to(kind, &text, limit);
            assert!(if limit < all { (limit + 1..=all).contains(&to) } else { to == all }, "{to} to {limit} of {all}");
            let cut = counter.truncate(kind, &text, limit);
            assert!(text.starts_with(cut) && (cut.is_empty() || counter.count(kind, cut) <= limit), "{limit}");
            assert_eq!(cut.len() == text.len(), limit >= all, "{limit} of {all}");
        }
    }
    let tokens_of_prompt = counter().count(InputKind::Query, "a query: x") - counter().count(InputKind::Query, "x");
    let with = counter().with_prompts(Prompts::by_server("", "a query: "));
    let without = counter().count(InputKind::Query, "x");
    assert_eq!(with.count(InputKind::Query, "x"), without + tokens_of_prompt);
    assert_eq!(with.count(InputKind::Document, "x"), without);
}

#[test]
fn a_folder_stands_for_its_tokenizer() {
    let of_folder = TokenizerCounter::from_file(folder("bert-cls")).expect("reads");
    assert_eq!(of_folder.count(InputKind::Document, "a text"), counter().count(InputKind::Document, "a text"));
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    let temporary = tempfile::tempdir().expect("a folder");
    let file = temporary.path().join("tokenizer.json");
    for (content, why) in [
        (None, "is not there"),
        (Some("{\n  ["), "is not JSON: line 2"),
        (Some("[]"), "is not a tokenizer"),
        (Some("{}"), "is not a tokenizer that is known here"),
    ] {
        if let Some(content) = content {
            fs::write(&file, content).expect("written");
        }
        let error = TokenizerCounter::from_file(&file).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        let named = format!("{} {why}", file.display());
        assert!(error.message().starts_with(&named), "{error}");
    }
}

/// The same texts have the same tokens there and here.
#[cfg(feature = "onnx")]
#[test]
fn counts_as_the_local_provider_does() {
    use docvector_embed::{Embedder, EmbedderExt, TokenCount, provider::Onnx};

    use crate::support::{golden, minilm, texts};

    let golden_texts = texts(&golden("all-MiniLM-L6-v2/texts.jsonl"));
    for model in [minilm(), folder("bert-prompts"), folder("mpnet"), folder("xlm-roberta")] {
        let embedder = Onnx::load(&model).expect("loads");
        let TokenCount::Exact(own) = embedder.limits().tokens else { panic!("it counts") };
        let prompts = embedder.space().expect("one").prompts().clone();
        let counter = TokenizerCounter::from_file(&model).expect("reads").with_prompts(prompts);
        for (name, text) in &golden_texts {
            for kind in [InputKind::Document, InputKind::Query] {
                assert_eq!(counter.count(kind, text), own.count(kind, text), "{name} in {}", model.display());
            }
        }
    }
}

/// What a server would cut silently is an error before any request, or is cut here and named.
#[cfg(feature = "openai")]
#[tokio::test]
async fn a_remote_model_is_asked_for_no_more_than_it_takes() {
    use docvector_embed::{Batch, EmbedderExt, Limits, Space, TokenCount, Truncation, provider::OpenAi};

    use crate::support::server::{DIMENSIONS, Server, Step};

    let server = Server::start([Step::Honest]).await;
    let space = Space::builder("own", DIMENSIONS).with_prompts(Prompts::new("passage: ", "query: ")).build();
    let counter = counter().with_prompts(Prompts::new("passage: ", "query: "));
    let limits = Limits::none().with_tokens_per_text(64).with_tokens(TokenCount::exact(counter.clone()));
    let client = OpenAi::builder("own").with_base_url(server.base_url()).with_space(space.expect("a space"));
    let client = client.with_limits(limits).build().expect("valid");
    let long = "a text of some words ".repeat(60);
    let texts = ["short", &long];
    let error = client.embed_documents(&texts).await.expect_err("too long");
    assert_eq!((error.kind(), error.bad_texts()[0].index), (ErrorKind::InvalidInput, 1));
    assert!(server.requests().is_empty(), "it was asked");
    let rows = client.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await.expect("cut");
    assert_eq!(rows.truncated(), [1]);
    let sent = server.requests().remove(0);
    let sent = serde_json::Value::from(sent.fields());
    let sent = sent["input"][1].as_str().and_then(|text| text.strip_prefix("passage: ")).expect("with its prompt");
    let tokens = counter.count(InputKind::Document, sent);
    assert!(long.starts_with(sent) && (60..=64).contains(&tokens), "{tokens} tokens");
}
