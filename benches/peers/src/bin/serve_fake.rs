//! Serves `Fake`, which has no model, so that the service itself is measured.
//!
//! `serve_fake [--dimensions 768]` prints its port and serves until it is killed, with the limits and the runtime of
//! `docvector-embed serve`.
//! `serve_fake --alone FILE [--dimensions 768] [--per-request 64] [--seconds 2]` embeds the texts of the file, lines of
//! JSON strings, again and again in this process, on one thread and without a server, and prints a line of JSON: the
//! part of the service's time that is the embedder's.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use docvector_embed::{Batch, EmbedderExt as _, provider::Fake, server::Server};
use peers::{Args, Result, cpu_seconds};

fn main() -> Result<()> {
    let args = Args::read(&["dimensions", "alone", "per-request", "seconds"])?;
    // A log would keep every text.
    let fake = Fake::builder().with_dimensions(args.get("dimensions")?.unwrap_or(768)).without_log().build()?;
    match args.get::<String>("alone")? {
        Some(file) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(alone(&fake, &file, &args))
        }
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(fake))
        }
    }
}

async fn serve(fake: Fake) -> Result<()> {
    let server = Server::new(Arc::new(fake))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    stdout.flush()?;
    Ok(server.serve(listener).await?)
}

async fn alone(fake: &Fake, file: &str, args: &Args) -> Result<()> {
    let lines = fs::read_to_string(file)?;
    let texts: Vec<String> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let wanted = Duration::from_secs_f64(args.get("seconds")?.unwrap_or(2.0));
    let (cpu, start, mut embedded) = (cpu_seconds()?, Instant::now(), 0);
    'passes: loop {
        for part in texts.chunks(args.get("per-request")?.unwrap_or(64)) {
            embedded += fake.embed_all(Batch::documents(part)).await?.len();
            if start.elapsed() >= wanted {
                break 'passes;
            }
        }
        if texts.is_empty() {
            return Err(format!("{file} has no texts").into());
        }
    }
    let (seconds, cpu_seconds) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    println!("{}", serde_json::json!({ "texts": embedded, "seconds": seconds, "cpu_seconds": cpu_seconds }));
    Ok(())
}
