//! Stacks everything that a service needs: two models side by side, each with a cache, a fall-back, limits and times.
//!
//! `cargo run --example production_stack`
//!
//! Offline and free: stand-ins without a model play the providers. It plays one step of a migration: libraries move from
//! OpenAI to a model of your own, a share at a time, and search goes on over both.

use std::{process::ExitCode, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Limits, Result,
    cache::Memory,
    observer::{Event, EventKind},
    plan,
    provider::Fake,
    wrap::{AbSplit, Hedging, RateLimiter, Resilient, RetryPolicy, Totals},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let totals = Totals::new();
    // In place of `OpenAi`, of `Onnx` or a server of your own, and of a vendor that hosts the same model as yours.
    let openai = member(provider("text-embedding-3-small", 1536)?, &totals);
    let own = member(provider("BAAI/bge-base-en-v1.5", 768)?, &totals);
    let twin = member(provider("BAAI/bge-base-en-v1.5", 768)?, &totals);

    // An arm lies in one space. A cache of its own keeps what was paid for; calls that come together become one; the twin
    // answers while the own model is down, and queries that take too long are asked for at both.
    let own = Resilient::builder(own)
        .with_label("own")
        .with_fallback(twin)
        .with_label("twin")
        .with_hedging(Hedging::default())
        .build_verified()
        .await?;
    let split = AbSplit::builder("migration-2026")
        .with_arm("openai", 90, openai.coalesce(Duration::from_millis(2)).cached(Memory::new(256 << 20))?)
        .with_arm("own", 10, own.coalesce(Duration::from_millis(2)).cached(Memory::new(256 << 20))?)
        .build()?;
    // In place of a log, or of `observer::ToTracing`.
    let embedder = split.clone().observed(|event: &Event<'_>| {
        if let EventKind::FellBack { from, to, error, .. } = event.kind {
            println!("{from} failed ({}), {to} is asked", error.kind());
        }
    });

    // What would a batch meet? Nobody is asked.
    let texts = ["How to read a file.", "How to write one."];
    println!("{}\n", plan::explain(&embedder, &Batch::documents(&texts).with_key("library:serde")));

    index(&embedder, "at 10 %").await?;
    split.set_shares(&[("openai", 50), ("own", 50)])?;
    index(&embedder, "at 50 %: no library moves back").await?;
    println!("{}\n", split.stats());

    // A search covers the collections of both spaces, until all libraries have moved.
    for (space, query) in embedder.embed_query_each("how do I read a file?").await {
        println!("search the collection {} with {} components", space.id(), query?.len());
    }
    println!("\nat the providers:\n{}", totals.snapshot());
    Ok(())
}

/// Makes the wrappers that are around the calls of one provider: limits, times and prices are those of one account.
fn member(provider: Fake, totals: &Totals) -> impl Embedder + Clone + use<> {
    provider
        .metered(totals.clone())
        .timeout(Duration::from_secs(60))
        .concurrency(8)
        .rate_limit(RateLimiter::new().with_requests_per_minute(30_000))
        .retry(RetryPolicy::default().with_attempts(3))
}

/// Embeds the documentation of some libraries. Each library has one arm, and its vectors lie in one space.
async fn index(embedder: &impl Embedder, step: &str) -> Result<()> {
    let mut spaces = Vec::new();
    for library in 0..20 {
        let key = format!("library:{library}");
        let pages: Vec<String> = (0..50).map(|page| format!("page {page} of {key}")).collect();
        let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
        let rows = embedder.embed_all(Batch::documents(&pages).with_key(&key)).await?;
        spaces.push(rows.dimensions());
    }
    let moved = spaces.iter().filter(|&&width| width == 768).count();
    println!("{step}: {moved} of {} libraries lie in the new space", spaces.len());
    Ok(())
}

fn provider(model: &str, dimensions: usize) -> Result<Fake> {
    let limits = Limits::none().with_texts(2048);
    Fake::builder().with_model(model).with_dimensions(dimensions).with_limits(limits).build()
}
