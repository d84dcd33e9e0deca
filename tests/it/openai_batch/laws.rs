//! `OpenAiBatch` keeps the laws of `Embedder`, with the simulator's clock running fast.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    EmbedderExt, Limits, TokenCount,
    conformance::Suite,
    provider::{OpenAi, OpenAiBatch},
    testing::Simulator,
};
use tempfile::TempDir;

use super::support::{MODEL, Quarters, WIDTH, builder};

/// A client with limits with which every law has something to check. A batch takes some milliseconds.
fn fast() -> (Simulator, TempDir, OpenAiBatch) {
    let simulator = Simulator::builder().with_speed(200_000.0).start().expect("starts");
    // In memory where that is possible: the suite makes hundreds of jobs, each of which waits for the disk.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let limits = Limits::none().with_tokens_per_text(40).with_tokens(TokenCount::Exact(Arc::new(Quarters)));
    let openai = OpenAi::builder(MODEL).with_base_url(simulator.base_url()).with_dimensions(WIDTH);
    let openai = openai.with_api_key("sk-test").with_limits(limits).build().expect("valid");
    let interval = Duration::from_millis(2);
    let batch = builder(openai, folder.path()).with_poll_interval(interval, interval).build().expect("valid");
    (simulator, folder, batch)
}

#[tokio::test]
async fn alone() {
    let (simulator, _folder, batch) = fast();
    Suite::new(&batch).run().await.expect("it keeps the laws");
    let (counts, bills) = (simulator.counts(), simulator.bills());
    assert!(counts.creates > 100 && counts.embeddings == 0, "{counts:?}");
    assert_eq!(bills.standard_tokens, 0);
}

#[tokio::test]
async fn under_wrappers() {
    let (simulator, _folder, batch) = fast();
    let store = docvector_embed::cache::Memory::unbounded();
    let stack =
        batch.timeout(Duration::from_secs(60)).retry(Default::default()).cached(store).expect("one space").dedup();
    Suite::new(&stack).run().await.expect("the stack keeps the laws");
    assert!(simulator.counts().creates > 50, "{:?}", simulator.counts());
}
