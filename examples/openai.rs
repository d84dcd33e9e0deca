//! Embeds some documents and a question with OpenAI, or a server that speaks its API, and says what that cost.
//!
//! `cargo run --features openai --example openai`
//!
//! Export `OPENAI_API_KEY` to ask OpenAI, which costs about a millionth of a dollar; `OPENAI_BASE_URL` names another
//! server. Without either, a stand-in on this machine answers: offline and free, but its vectors mean nothing.

use std::{env, error::Error as _, process::ExitCode, time::Duration};

use docvector_embed::{EmbedderExt, Error, ErrorKind, Result, price, provider::OpenAi, wrap::RetryPolicy};

/// The server that the tests use, too.
#[path = "../tests/it/support/stand_in.rs"]
mod stand_in;

const MODEL: &str = "text-embedding-3-small";
/// Components of this model's vectors.
const DIMENSIONS: usize = 1536;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    // The server runs as long as this variable holds it.
    let server;
    let openai = if is_set("OPENAI_API_KEY") || is_set("OPENAI_BASE_URL") {
        OpenAi::from_env(MODEL)?
    } else {
        println!("OPENAI_API_KEY is not set: a stand-in on this machine answers, with vectors that mean nothing\n");
        server = stand_in::StandIn::start(DIMENSIONS).await;
        OpenAi::builder(MODEL).with_base_url(server.base_url()).build()?
    };
    // One call needs no more than this. docs::calls has the stack for many.
    let embedder = openai.timeout(Duration::from_secs(30)).retry(RetryPolicy::default());

    let texts = [
        "Ownership is Rust's most unique feature: each value has one owner.",
        "A future does nothing until it is polled by an executor.",
        "Sheep are kept for wool, milk and meat.",
    ];
    let question = "who frees a value?";
    let documents = embedder.embed_documents(&texts).await?;
    let query = embedder.embed_queries(&[question]).await?;

    // These vectors have length 1, so the dot product is the cosine.
    println!("? {question}");
    for (text, row) in texts.iter().zip(documents.rows()) {
        let cosine: f32 = row.iter().zip(query.row(0)).map(|(a, b)| a * b).sum();
        println!("{cosine:>8.3}  {text}");
    }

    let usage = documents.usage() + query.usage();
    println!("\nembedder  {embedder}");
    println!("space     {}", documents.space().id());
    println!("requests  {}", usage.requests);
    match (usage.exact_tokens(), price::of("openai", MODEL)) {
        (Some(tokens), Some(price)) => {
            println!("tokens    {tokens}");
            println!("cost      {} at OpenAI's price", price.cost(tokens));
        }
        // Other servers need not report their tokens.
        (tokens, _) => println!("tokens    {}", tokens.map_or("unknown".to_owned(), |tokens| tokens.to_string())),
    }
    Ok(())
}

/// Prints what failed, why, and what can be done.
fn explain(error: &Error) {
    eprintln!("{error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        eprintln!("  because: {source}");
        cause = source.source();
    }
    // It may quote the texts or the key, so the error's own text leaves it out. Here nobody else reads it.
    if let Some(message) = error.provider_message() {
        eprintln!("  the provider says: {message}");
    }
    let advice = match error.kind() {
        ErrorKind::Auth => "check that OPENAI_API_KEY is a key of this account and may embed",
        ErrorKind::QuotaExhausted => "the account's money is used up: waiting does not help",
        ErrorKind::RateLimited => "the account's limit is reached, after several attempts: wait a minute",
        ErrorKind::Timeout | ErrorKind::Unavailable => {
            "the server cannot be reached, after several attempts: check the network and OPENAI_BASE_URL"
        }
        _ => return,
    };
    eprintln!("  {advice}");
}
