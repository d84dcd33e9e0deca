//! Searches this project's own documentation by meaning.
//!
//! `cargo run --release --features onnx --example search -- "how do I add my own provider?"`
//!
//! Needs the files that `scripts/fetch-assets` fetches (once, 130 MB). Costs nothing. Without a query it asks a few of
//! its own.

use std::{
    env, error, fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use docvector_embed::{Batch, EmbedderExt, Embeddings, Truncation, provider::Onnx};

/// Results shown per query.
const SHOWN: usize = 3;
/// Characters of a chunk: about 120 tokens, the length that MiniLM was trained on.
const CHUNK: usize = 600;

/// A passage of the documentation.
struct Chunk {
    /// File and line.
    place: String,
    text: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn error::Error>> {
    let assets = env::var_os("DOCVECTOR_EMBED_ASSETS").map_or_else(|| root().join("assets"), PathBuf::from);
    let embedder = Onnx::load(assets.join("all-MiniLM-L6-v2"))?;
    let chunks = chunks()?;
    let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.text.as_str()).collect();

    let start = Instant::now();
    let documents = embedder.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens = documents.usage().tokens;
    println!(
        "{} passages, {tokens} tokens, embedded in {seconds:.1} s ({:.0} tokens/s) with {embedder}\n",
        chunks.len(),
        tokens as f64 / seconds
    );

    let mut queries: Vec<String> = env::args().skip(1).collect();
    if queries.is_empty() {
        queries = [
            "what happens to the finished vectors when a request fails half-way?",
            "how do I test an embedder that I wrote myself?",
            "two models with the same number of dimensions are not comparable",
            "where is the ONNX Runtime library looked for?",
        ]
        .map(str::to_owned)
        .to_vec();
    }
    for query in queries {
        println!("? {query}");
        let vector = embedder.embed_query_in(documents.space(), &query).await?;
        for (score, at) in best(&documents, &vector) {
            println!("  {score:.3}  {:<34}  {}", chunks[at].place, summary(&chunks[at].text));
        }
        println!();
    }
    Ok(())
}

/// Returns the rows most like the query. The vectors have length 1, so the dot product is the cosine.
fn best(documents: &Embeddings, query: &[f32]) -> Vec<(f32, usize)> {
    let score = |row: &[f32]| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
    let mut scores: Vec<(f32, usize)> = documents.rows().map(score).zip(0..).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores.truncate(SHOWN);
    scores
}

/// Returns the documentation in passages: markdown files, and the doc comments of the sources.
fn chunks() -> io::Result<Vec<Chunk>> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files)?;
    // The command line has its own help.
    files.retain(|file| !file.starts_with(root().join("src/bin")));
    files.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    files.sort();
    let mut chunks = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let is_source = file.extension().is_some_and(|extension| extension == "rs");
        let text = fs::read_to_string(&file).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        let (mut start, mut passage, mut in_code) = (1, String::new(), false);
        for (number, line) in (1..).zip(text.lines()) {
            let doc = line.trim_start();
            let doc = match doc.strip_prefix("//!").or_else(|| doc.strip_prefix("///")) {
                Some(doc) => doc.trim(),
                None if is_source => "",
                None => line.trim(),
            };
            let fence = doc.starts_with("```");
            in_code ^= fence;
            // A passage ends at an empty line, at a heading, or when it is long enough.
            if (doc.is_empty() || doc.starts_with('#') || passage.len() > CHUNK) && !passage.is_empty() {
                chunks.push(Chunk { place: format!("{name}:{start}"), text: std::mem::take(&mut passage) });
            }
            if passage.is_empty() {
                start = number;
            }
            if !doc.is_empty() && !fence && !in_code {
                passage.push_str(doc.trim_start_matches('#').trim());
                passage.push(' ');
            }
        }
        chunks.extend((!passage.is_empty()).then(|| Chunk { place: format!("{name}:{start}"), text: passage }));
    }
    // A heading or a few words alone say too little.
    chunks.retain(|chunk| chunk.text.len() > 60);
    Ok(chunks)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let documents = path.extension().is_some_and(|extension| extension == "rs" || extension == "md");
        if path.is_dir() {
            walk(&path, files)?;
        } else if documents {
            files.push(path);
        }
    }
    Ok(())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the beginning of a passage, on one line.
fn summary(text: &str) -> String {
    const WIDTH: usize = 90;
    let mut line: String = text.chars().take(WIDTH).collect();
    if text.chars().count() > WIDTH {
        line.push('…');
    }
    line
}
