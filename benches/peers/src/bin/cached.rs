//! Embeds texts through `Cached` over a SQLite file or Redis and prints time and memory, as one line of JSON.
//!
//! `cached --texts FILE --cache FILE|redis://... [--base-url URL] [--mode documents|stream] [--call 2048]
//! [--counted yes|no] [--dimensions 1536]`
//!
//! The texts are lines of JSON strings. With `--base-url`, the embedder is `OpenAi`. `--counted no` turns its counting
//! of tokens off, as with a server that is not OpenAI's. Without `--base-url`, the embedder is one in this process
//! whose vectors cost next to nothing. `documents` embeds `--call` texts per call (0: all in one), one call after the
//! other, and holds all rows; `stream` drops each window of `--call` texts. The clock starts before the first call.
//! Each row is checked to be its text's own: after the clock has stopped, or in a stream while it runs.

use std::{
    fmt, fs,
    io::{BufRead as _, BufReader},
    pin::pin,
    time::Instant,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt as _, Embeddings, InputKind, Limits, Space, StreamOptions, Usage, async_trait,
    cache::{CacheStore, Redis, Sqlite},
    provider::OpenAi,
    wrap::Cached,
};
use futures_util::{StreamExt as _, stream};
use peers::{Args, DIMENSIONS, MODEL, OWN, Result, TEXTS_PER_REQUEST, own, unit_vector};

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::read(&["texts", "cache", "base-url", "mode", "call", "counted", "dimensions"])?;
    let texts = read_texts(&args.get::<String>("texts")?.ok_or("--texts is missing")?)?;
    let store = open(&args.get::<String>("cache")?.ok_or("--cache is missing")?).await?;
    let dimensions = args.get("dimensions")?.unwrap_or(DIMENSIONS);
    match args.get::<String>("base-url")? {
        Some(base_url) => {
            let counted = match args.get::<String>("counted")?.as_deref() {
                None | Some("yes") => true,
                Some("no") => false,
                Some(other) => return Err(format!("--counted {other} is neither yes nor no").into()),
            };
            measure(&Cached::new(openai(&base_url, counted, dimensions)?, store)?, &texts, &args).await
        }
        None => measure(&Cached::new(Ready::new(dimensions)?, store)?, &texts, &args).await,
    }
}

async fn open(cache: &str) -> Result<Box<dyn CacheStore>> {
    Ok(if cache.starts_with("redis://") {
        Box::new(Redis::connect(cache).await?)
    } else {
        Box::new(Sqlite::open(cache)?)
    })
}

fn read_texts(path: &str) -> Result<Vec<String>> {
    let lines = BufReader::new(fs::File::open(path)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

fn openai(base_url: &str, counted: bool, dimensions: usize) -> Result<OpenAi> {
    // No tokens are counted for a model that is not OpenAI's, unless the builder gets a counter.
    let mut builder = if counted {
        OpenAi::builder(MODEL)
    } else {
        OpenAi::builder("mock-embedding")
            .with_space(Space::builder("mock-embedding", dimensions).build()?)
            .with_limits(Limits::none().with_texts(TEXTS_PER_REQUEST).with_in_flight(4))
    };
    if dimensions != DIMENSIONS {
        builder = builder.with_dimensions(dimensions);
    }
    Ok(builder.with_base_url(base_url).with_api_key("bench").build()?)
}

async fn measure<E: Embedder>(embedder: &Cached<E>, texts: &[String], args: &Args) -> Result<()> {
    let mode: String = args.get("mode")?.unwrap_or_else(|| "documents".into());
    let call = match args.get("call")?.unwrap_or(TEXTS_PER_REQUEST) {
        0 => texts.len().max(1),
        call => call,
    };
    let mut check = Check::new(texts);
    let seconds = match mode.as_str() {
        "documents" => {
            let start = Instant::now();
            let mut parts = Vec::new();
            for part in texts.chunks(call) {
                parts.push(embedder.embed_documents(part).await?);
            }
            let seconds = start.elapsed().as_secs_f64();
            parts.iter().for_each(|part| check.look_at(part));
            seconds
        }
        "stream" => {
            let options = StreamOptions::new(InputKind::Document).with_window_texts(call).with_window_bytes(usize::MAX);
            let owned = texts.to_vec();
            let start = Instant::now();
            let mut windows = pin!(embedder.embed_stream(stream::iter(owned), options));
            while let Some(window) = windows.next().await {
                check.look_at(&window?);
            }
            start.elapsed().as_secs_f64()
        }
        other => return Err(format!("--mode {other} is neither documents nor stream").into()),
    };
    if check.rows != texts.len() {
        return Err(format!("{} rows for {} texts", check.rows, texts.len()).into());
    }
    let counts = embedder.counts();
    let told = serde_json::json!({
        "texts": texts.len(),
        "seconds": seconds,
        "hits": counts.hits,
        "asked": counts.misses,
        "wrong_rows": check.wrong,
        "peak_rss_mib": peak_rss_mib()?,
    });
    println!("{told}");
    Ok(())
}

/// Compares rows, in the order of their texts, with the expected rows.
struct Check {
    own: Vec<[f32; OWN]>,
    /// The end of the first row, which all rows share.
    common: Vec<f32>,
    rows: usize,
    wrong: usize,
}

impl Check {
    fn new(texts: &[String]) -> Self {
        Self { own: texts.iter().map(|text| own(text)).collect(), common: Vec::new(), rows: 0, wrong: 0 }
    }

    fn look_at(&mut self, part: &Embeddings) {
        for row in part.rows() {
            let (own, common) = row.split_at(OWN);
            if self.rows == 0 {
                self.common = common.to_vec();
            }
            let right = self.own.get(self.rows).is_some_and(|wanted| wanted == own) && common == self.common;
            self.wrong += usize::from(!right);
            self.rows += 1;
        }
    }
}

/// Returns the mock's vectors by text, from memory.
#[derive(Debug)]
struct Ready {
    space: Space,
    common: Vec<f32>,
}

impl Ready {
    fn new(dimensions: usize) -> Result<Self> {
        if dimensions <= OWN {
            return Err(format!("{dimensions} dimensions are too few to tell texts apart").into());
        }
        let vector = unit_vector(&mut fastrand::Rng::with_seed(1), dimensions);
        Ok(Self { space: Space::builder("ready", dimensions).build()?, common: vector[OWN..].to_vec() })
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ready")
    }
}

#[async_trait]
impl Embedder for Ready {
    async fn embed(&self, batch: Batch<'_>) -> docvector_embed::Result<Embeddings> {
        batch.check(self.spaces(), &self.limits()).map_err(|error| error.with_embedder(self))?;
        let mut components = Vec::with_capacity(batch.len() * self.space.dimensions());
        for text in batch.texts() {
            components.extend(own(text));
            components.extend_from_slice(&self.common);
        }
        Embeddings::new(batch.len(), &self.space, components, Usage::of_request(Some(0)))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.space)
    }

    fn limits(&self) -> Limits {
        Limits::none()
    }
}

/// The peak resident memory of this process.
fn peak_rss_mib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM: Linux is needed")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kib / 1024.0)
}
