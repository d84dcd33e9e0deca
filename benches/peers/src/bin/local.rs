//! Embeds texts with this crate's `Onnx`, as often as it is told to, and prints the seconds of each run.
//!
//! `local --folder DIR --texts DIR [--max-tokens 512] [--threads N] [--library FILE]`
//!
//! `--folder` is the model, `--texts` holds `<corpus>.jsonl`, lines of JSON strings. Over-long texts are truncated.
//! Nothing else is set unless asked for, so that the crate's defaults are measured. Then each line of stdin is
//! `<corpus> <setting> <texts> [<file>]`: embed the first `<texts>` texts of the corpus in one call, and write the
//! vectors to the file, if one is given, as 32-bit floats. Each line is answered with a line of JSON. The only setting
//! is `default`. benches/fastembed and scripts/bench_peers.py obey the same lines.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

use docvector_embed::{Batch, EmbedderExt as _, Truncation, provider::Onnx};
use peers::{Args, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::read(&["folder", "texts", "max-tokens", "threads", "library"])?;
    let folder = args.get::<PathBuf>("folder")?.ok_or("--folder is missing")?;
    // The defaults, whatever was tuned on this machine.
    let mut builder = Onnx::builder(folder).without_tuning();
    if let Some(tokens) = args.get("max-tokens")? {
        builder = builder.with_max_tokens(tokens);
    }
    if let Some(threads) = args.get("threads")? {
        builder = builder.with_threads(threads);
    }
    if let Some(library) = args.get::<PathBuf>("library")? {
        builder = builder.with_library(library);
    }
    let embedder = builder.build()?;
    let folder: PathBuf = args.get("texts")?.ok_or("--texts is missing")?;
    let mut corpora = HashMap::new();
    let info = embedder.info();
    answer(&serde_json::json!({ "library": info.library.version, "threads": info.threads }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (corpus, texts, file) = match words[..] {
            [corpus, "default", texts] => (corpus, texts, None),
            [corpus, "default", texts, file] => (corpus, texts, Some(file)),
            _ => return Err(format!("not <corpus> default <texts> [<file>]: {line}").into()),
        };
        if !corpora.contains_key(corpus) {
            corpora.insert(corpus.to_owned(), read_texts(&folder.join(format!("{corpus}.jsonl")))?);
        }
        let texts =
            corpora[corpus].get(..texts.parse()?).ok_or_else(|| format!("{corpus} has fewer than {texts} texts"))?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let start = Instant::now();
        let rows = embedder.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await?;
        let seconds = start.elapsed().as_secs_f64();
        if rows.len() != texts.len() {
            return Err(format!("{} rows for {} texts", rows.len(), texts.len()).into());
        }
        if let Some(file) = file {
            let bytes: Vec<u8> = rows.rows().flatten().flat_map(|component| component.to_le_bytes()).collect();
            fs::write(file, bytes)?;
        }
        answer(&serde_json::json!({ "texts": texts.len(), "seconds": seconds }))?;
    }
    Ok(())
}

fn read_texts(path: &Path) -> Result<Vec<String>> {
    let lines = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn answer(told: &serde_json::Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{told}")?;
    Ok(stdout.flush()?)
}
