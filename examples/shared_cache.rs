//! Shares one cache among machines: two embedders that know nothing of each other, and each text is paid for once.
//!
//! `cargo run --example shared_cache --features sqlite`
//! `cargo run --example shared_cache --features redis -- redis://localhost:6379`
//! `cargo run --example shared_cache --features postgres -- postgres://me@localhost/vectors`
//!
//! Without a server, a file in a temporary folder stands in. A provider without a model stands in for one that costs money.

use docvector_embed::{
    EmbedderExt, Result,
    cache::{Guarded, Memory, Tiered, from_url},
    provider::Fake,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("docvector-shared-cache-{}", std::process::id()));
    let file = format!("sqlite:{}", folder.join("vectors.sqlite").display());
    let url = std::env::args().nth(1).unwrap_or(file);
    if url.starts_with("sqlite:") && std::fs::create_dir_all(&folder).is_err() {
        eprintln!("{} cannot be made", folder.display());
    }

    let texts: Vec<String> = (0..1000).map(|i| format!("passage {i}")).collect();
    for machine in ["first", "second"] {
        // Memory for what is asked for often; a time limit and a breaker, so that a server that hangs costs little.
        let server = from_url(&url).await?;
        let store = Tiered::new(Memory::new(64 << 20), Guarded::new(server));
        let embedder = Fake::new(384).cached(store)?;
        let rows = embedder.embed_documents(&texts).await?;
        let (cached, paid) = (rows.usage().cached, rows.usage().tokens);
        println!("{machine:>6} machine: {} rows, {cached} from the cache, {paid} tokens paid for", rows.len());
    }
    // Nothing is there, if a server was named.
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}
