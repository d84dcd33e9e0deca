//! The laws hold for what others write, and the suite is theirs to run.

use docvector_embed::{Embedder, EmbedderExt, ErrorKind, conformance};
use downstream::{Hashing, Screened, embed_what_can_be};

#[tokio::test]
async fn an_embedder_of_ones_own() {
    for texts in [1, 3, 7, 1000] {
        let hashing = Hashing::new(texts, 64).expect("valid");
        conformance::Suite::new(&hashing).run().await.expect("Hashing keeps the laws");
        conformance::Suite::new(&hashing.dedup()).run().await.expect("Dedup(Hashing) keeps the laws");
    }
}

#[tokio::test]
async fn a_wrapper_of_ones_own() {
    conformance::wrapper(|inner| Screened::new(inner, "forbidden")).await.expect("Screened keeps the laws");
    conformance::wrapper(|inner| Screened::new(inner, "forbidden").dedup()).await.expect("a stack keeps the laws");
}

#[tokio::test]
async fn a_stack_behind_a_pointer() {
    let screened = Screened::new(Hashing::new(2, 64).expect("valid"), "forbidden");
    let stack: Box<dyn Embedder> = Box::new(screened.dedup());
    assert_eq!(stack.to_string(), "Dedup(Screened(hashing))");
    let error = stack.embed_documents(&["fine", "forbidden word", "fine", "forbidden word"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let texts = ["a", "", "b", "forbidden", "c"];
    assert_eq!(embed_what_can_be(&*stack, &texts).await, (3, vec![1, 3]));
}
