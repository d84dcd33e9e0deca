//! Serves an embedder over HTTP, asks it as a program in another process would, restarts it, and lets it go away.
//!
//! `cargo run --features server,remote --example serve_and_remote`
//!
//! Offline and free: a stand-in without a model plays the model, and all traffic stays on this machine. The command
//! `docvector-embed serve --model DIR` serves a real one.

use std::{io, net::TcpListener, process::ExitCode, sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, ErrorKind,
    cache::Memory,
    provider::{Fake, Remote},
    server::{Server, ServerLimits},
    wrap::RetryPolicy,
};
use tokio::task::JoinHandle;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    // In place of `Onnx::load(..)`. Any stack can be served.
    let model = Fake::new(384).cached(Memory::new(64 << 20))?;
    let (server, address, serving) = serve(Arc::new(model), "127.0.0.1:0")?;
    println!("serving at http://{address}: its page is at /, its description at /docs");

    // Another process needs the address alone: it learns the space and the limits from the service.
    let remote = Remote::builder(format!("http://{address}")).with_api_key("a-long-random-string").connect().await?;
    println!("{} says that its space is {}", remote, remote.space()?);
    let remote = remote.retry(RetryPolicy::default());
    let documents = remote.embed_documents(&["the first text", "the second"]).await?;
    let query = remote.embed_query_in(documents.space(), "which one?").await?;
    let cosine: f32 = documents.row(0).iter().zip(&query).map(|(a, b)| a * b).sum();
    println!("{} rows of {} components over HTTP; cosine {cosine:.3}", documents.len(), documents.dimensions());

    // The machine goes away: what was accepted is finished first.
    let busy = remote.clone();
    let call =
        tokio::spawn(async move { busy.embed(Batch::documents(&["accepted in time"])).await.map(|rows| rows.len()) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.drain();
    serving.await??;
    println!("drained: the call under way got {} row", call.await??);

    // Somebody starts another model at the same address. Its vectors have the same width, and are never returned.
    let other = Fake::builder().with_model("another-model").with_dimensions(384).build()?;
    let (server, _, serving) = serve(Arc::new(other), &address)?;
    match remote.embed_documents(&["a third text"]).await {
        Err(error) if error.kind() == ErrorKind::SpaceMismatch => println!("refused: {error}"),
        other => return Err(format!("vectors of another model came through: {other:?}").into()),
    }
    server.drain();
    serving.await??;
    Ok(())
}

/// Serves an embedder in a task.
fn serve(embedder: Arc<dyn Embedder>, address: &str) -> Result<(Server, String, JoinHandle<io::Result<()>>), Failure> {
    let mut limits = ServerLimits::default();
    limits.bulk_tokens = 500_000;
    let server = Server::builder()
        .with_api_key("a-long-random-string")
        .with_limits(limits)
        .with_drain(Duration::ZERO, Duration::from_secs(10))
        .build(embedder)?;
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?.to_string();
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    Ok((server, address, serving))
}
