//! Makes the embedder that environment variables describe, with its whole stack, and says what it is.
//!
//! `EMBEDDING_PROVIDER=local EMBEDDING_MODEL=all-MiniLM-L6-v2 cargo run --features onnx --example from_env`
//!
//! The same program then runs on OpenAI or on a service of your own: only the variables change. Without any, it shows what
//! is missing, and goes on with a small example of the variables in the program.

use std::process::ExitCode;

use docvector_embed::{Batch, Config, EmbedderExt, Result, Truncation, plan};

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
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            println!("{error}\n");
            return without_variables();
        }
    };
    println!("{config}");
    let embedder = config.build().await?;
    let texts = ["Ownership is Rust's most unique feature.", "Sheep are kept for wool."];
    let batch = Batch::documents(&texts).with_truncation(Truncation::Truncate);
    // What would happen? Nobody is asked yet.
    println!("{}\n", plan::explain(&embedder, &batch));
    let documents = embedder.embed_all(batch).await?;
    let query = embedder.embed_query_in(documents.space(), "who owns a value?").await?;
    for (text, row) in texts.iter().zip(documents.rows()) {
        let score: f32 = row.iter().zip(&query).map(|(a, b)| a * b).sum();
        println!("{score:.3}  {text}");
    }
    Ok(())
}

/// Shows a configuration without the environment.
fn without_variables() -> Result<()> {
    let vars = [
        ("EMBEDDING_PROVIDER", "openai"),
        ("EMBEDDING_MODEL", "text-embedding-3-small"),
        ("EMBEDDING_CACHE", "vectors.sqlite"),
        ("OPENAI_API_KEY", "sk-.."),
    ];
    let lookup = |name: &str| vars.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned());
    println!("With these variables:");
    vars.iter().for_each(|(name, value)| println!("  {name}={value}"));
    println!("the embedder is {}", Config::from_vars(lookup)?);
    Ok(())
}
