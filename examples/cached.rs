//! Embeds the same texts twice through a cache, and says what the second time cost: nothing.
//!
//! `cargo run --example cached`
//!
//! Offline and free: a provider without a model stands in. Put any other in its place, and the whole stack for calls in
//! between.

use docvector_embed::{EmbedderExt, Result, cache::Memory, provider::Fake, wrap::Cached};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // At most 256 MiB; the vectors of the least use are let go.
    let store = Memory::new(256 << 20);
    // `open` also checks that the model is the one whose vectors the store holds.
    let embedder = Cached::new_verified(Fake::new(384), store).await?;

    let texts: Vec<String> = (0..1000).map(|i| format!("passage {}", i % 600)).collect();
    for run in ["first", "second"] {
        let rows = embedder.embed_documents(&texts).await?;
        let usage = rows.usage();
        println!(
            "{run:>6} run: {} rows, {} from the cache, {} repeated, {} tokens",
            rows.len(),
            usage.cached,
            usage.deduplicated,
            usage.tokens
        );
    }
    println!("{embedder}: {:?}", embedder.counts());
    Ok(())
}
