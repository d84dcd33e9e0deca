//! Keeps answering while a server is down: a model of your own, the same model at a vendor, and OpenAI in a second space.
//!
//! `cargo run --example resilient`
//!
//! Offline and free: stand-ins without a model play the three providers, and one of them goes down and comes back.

use std::{process::ExitCode, time::Duration};

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, Result,
    observer::{Event, EventKind},
    provider::Fake,
    wrap::{BreakerPolicy, Resilient, RetryPolicy},
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
    // In place of `Onnx` or a server of yours, of a vendor that hosts the same model, and of OpenAI.
    let own = stand_in("BAAI/bge-base-en-v1.5", 768)?;
    let twin = stand_in("BAAI/bge-base-en-v1.5", 768)?;
    let openai = stand_in("text-embedding-3-small", 1536)?;

    // Few attempts per member: the next member is the better second attempt. The breaker's times are short, so that this
    // program ends soon; the default is half a minute.
    let attempts =
        RetryPolicy::default().with_attempts(2).with_backoff(Duration::from_millis(5), Duration::from_millis(5));
    let member = |provider: Fake| provider.timeout(Duration::from_secs(10)).retry(attempts.clone());
    let resilient = Resilient::builder(member(own.clone()))
        .with_label("own")
        .with_fallback(member(twin))
        .with_label("hosted twin")
        // Another model: its vectors cannot be compared with the others', so each result says where it is from.
        .with_fallback_in_another_space(member(openai.clone()))
        .with_label("OpenAI")
        .with_breaker(BreakerPolicy::default().with_open_for(Duration::from_millis(100)))
        // Embeds probe texts with the first two, and fails if the vectors are not those of one model.
        .build_verified()
        .await?;
    let embedder = resilient.clone().observed(|event: &Event<'_>| match event.kind {
        EventKind::FellBack { from, to, error, .. } => println!("    {from} failed ({}), {to} is asked", error.kind()),
        EventKind::Breaker { member, state, .. } => println!("    the breaker of {member} is {state}"),
        _ => {}
    });

    println!("All are up.");
    let rows = embedder.embed_documents(&["Sheep are kept for wool."]).await?;
    println!("  the rows lie in {}", rows.space());

    println!("\nThe own model is down: ten calls.");
    for call in 0..10 {
        // Each call makes up to two attempts. After five failed calls the breaker opens, and nobody waits for it any more.
        for _ in 0..2 {
            own.fail_next(Error::new(ErrorKind::Unavailable, "connection refused"));
        }
        let rows = embedder.embed_documents(&[format!("document {call}")]).await?;
        assert_eq!(rows.dimensions(), 768);
    }
    for member in resilient.members() {
        println!(
            "  {:<12} {:>2} answered, {} failed, {}",
            member.label, member.answered, member.failed, member.breaker
        );
    }

    println!("\nA batch that wants OpenAI's space goes to OpenAI alone.");
    let query = embedder.embed_query_in(openai.space()?, "which animal has wool?").await?;
    println!("  {} components", query.len());

    println!("\nThe own model is back: probes first, then all calls.");
    // The stand-in has failures left in its script, as no call has come to it for a while.
    while own.embed_query("is it up?").await.is_err() {}
    tokio::time::sleep(Duration::from_millis(110)).await;
    for _ in 0..5 {
        embedder.embed_documents(&["a document"]).await?;
    }
    let own = &resilient.members()[0];
    println!("  {:<12} {:>2} answered, {} failed, {}", own.label, own.answered, own.failed, own.breaker);
    Ok(())
}

fn stand_in(model: &str, dimensions: usize) -> Result<Fake> {
    Fake::builder().with_model(model).with_dimensions(dimensions).build()
}
