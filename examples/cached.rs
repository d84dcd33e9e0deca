//! Embeds the same texts twice through a cache, and says what the second time cost: nothing.
//!
//! `cargo run --example cached`
//!
//! Offline and free: a provider without a model stands in. Put any other in its place, with the whole stack for calls
//! around it.

use docvector_embed::{EmbedderExt, Result, cache::Memory, provider::Fake, wrap::Cached};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // At most 256 MiB; the least used vectors are dropped.
    let store = Memory::new(256 << 20);
    // `new_verified` also checks that the model is the one whose vectors the store holds.
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
