//! Packs a million chunks of real documentation into requests within OpenAI's limits, counts their tokens with plain
//! tiktoken beside it, and shows how full the requests are by texts, tokens and bytes.
//!
//! `pack [--chunks 1000000] [FOLDER ...]`. Without folders: the Rust documentation that came with the compiler, then
//! the documentation in the crates that cargo has fetched, then the sources of `python3`'s own library, whose
//! documentation is inside them, then the crates' sources. Equal chunks count once. If all this is too little, chunks
//! are repeated with another ending, and the output says how many.
//!
//! Two halves: in the first, this crate goes first, in the second, tiktoken. One thread.

use std::{
    collections::HashSet,
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Instant,
};

use docvector_embed::{Batch, CountTokens, Embedder as _, InputKind, TokenCount, plan, provider::OpenAi};
use peers::{
    Args, MODEL, Result, TEXTS_PER_REQUEST,
    text::{Kind, chunks},
};

/// The most tokens that OpenAI takes in a request.
const TOKENS_A_REQUEST: usize = 300_000;

/// The most bytes of text that OpenAI takes in a request: it estimates the tokens as a quarter of the bytes.
const BYTES_A_REQUEST: usize = 4 * TOKENS_A_REQUEST;

fn main() -> Result<()> {
    let args = Args::read(&["chunks"])?;
    let wanted: usize = args.get("chunks")?.unwrap_or(1_000_000);
    let sources = match &args.rest[..] {
        [] => Source::of_this_machine(),
        folders => folders.iter().map(|folder| Source::new("given folders", folder, Kind::ALL)).collect(),
    };
    let corpus = Corpus::read(&sources, wanted)?;
    let texts: Vec<&str> = corpus.texts().collect();
    corpus.describe();

    let openai = OpenAi::builder(MODEL).with_base_url("http://127.0.0.1:9/v1").build()?;
    let mut limits = openai.limits();
    let TokenCount::Exact(counter) = limits.tokens.clone() else { return Err("tokens are not counted exactly".into()) };
    let counted = Arc::new(Counted::new(counter, &corpus.text));
    limits = limits.with_tokens(TokenCount::Exact(counted.clone()));
    let tiktoken = tiktoken_rs::cl100k_base()?;
    // Both load what they need before the clock starts.
    counted.inner.count(InputKind::Document, "warm up");
    tiktoken.encode_ordinary("warm up");

    let (first, second) = texts.split_at(texts.len() / 2);
    let ours = |half: &[&str]| {
        let start = Instant::now();
        let calls = plan::split(&Batch::documents(half), &limits)?;
        Ok::<_, docvector_embed::Error>((calls, start.elapsed().as_secs_f64()))
    };
    let plain = |half: &[&str]| {
        let start = Instant::now();
        let tokens: Vec<usize> = half.iter().map(|text| tiktoken.encode_ordinary(text).len()).collect();
        (tokens, start.elapsed().as_secs_f64())
    };
    let (first_calls, first_ours) = ours(first)?;
    let (first_tokens, first_plain) = plain(first);
    let (second_tokens, second_plain) = plain(second);
    let (second_calls, second_ours) = ours(second)?;

    let mut fills = Vec::new();
    let mut requests = 0;
    for (half, calls, tokens) in [(first, &first_calls, &first_tokens), (second, &second_calls, &second_tokens)] {
        fills.extend(fills_of(half, calls, tokens)?);
        requests += calls.len();
    }
    let tokens: usize = first_tokens.iter().chain(&second_tokens).sum();
    let of_chunk = tokens as f64 / texts.len().max(1) as f64;
    println!("{tokens} tokens, {of_chunk:.1} a chunk: {requests} requests, of which {} are full.\n", fills.len());
    print_fills(&fills);
    let (once, most) = counted.told();
    println!("{once} texts were counted, none more than {most} times.\n");

    println!("| | first half, s | second half, s | whole, s | ratio |");
    println!("|---|---:|---:|---:|---:|");
    let (all_ours, all_plain) = (first_ours + second_ours, first_plain + second_plain);
    println!("| plan::split | {first_ours:.2} | {second_ours:.2} | {all_ours:.2} | {:.2} |", all_ours / all_plain);
    println!("| plain tiktoken | {first_plain:.2} | {second_plain:.2} | {all_plain:.2} | 1.00 |");
    println!("\nWanted: a mean fill of at least 95 % by the nearest limit, each text counted at most once.");
    Ok(())
}

/// How much of each limit a request uses: the share of the texts, of the tokens and of the bytes.
type Fill = [f64; 3];

/// Checks the requests of one half, and returns the fill of each but the last, which takes the rest.
fn fills_of(texts: &[&str], calls: &[Range<usize>], tokens: &[usize]) -> Result<Vec<Fill>> {
    let (mut fills, mut next) = (Vec::new(), 0);
    for (at, call) in calls.iter().enumerate() {
        let call_tokens: usize = tokens[call.clone()].iter().sum();
        let bytes: usize = texts[call.clone()].iter().map(|text| text.len()).sum();
        let have = [(call.len(), TEXTS_PER_REQUEST), (call_tokens, TOKENS_A_REQUEST), (bytes, BYTES_A_REQUEST)];
        if call.start != next || call.is_empty() || have.iter().any(|(have, limit)| have > limit) {
            let what = format!("{call_tokens} tokens and {bytes} bytes");
            return Err(format!("request {at} of {call:?} with {what} is not within limits").into());
        }
        next = call.end;
        fills.push(have.map(|(have, limit)| have as f64 / limit as f64));
    }
    if next != texts.len() {
        return Err(format!("{next} of {} texts are in a request", texts.len()).into());
    }
    fills.pop();
    Ok(fills)
}

/// Prints a table: what fills the requests, by each limit and by the one that is nearest.
fn print_fills(fills: &[Fill]) {
    println!("| limit | requests that it fills | mean fill, % | least fill, % |");
    println!("|---|---:|---:|---:|");
    let nearest = |fill: &Fill| fill.iter().copied().fold(0.0, f64::max);
    let row = |name: &str, filled: usize, of: &dyn Fn(&Fill) -> f64| {
        let mean = fills.iter().map(of).sum::<f64>() / fills.len().max(1) as f64;
        let least = fills.iter().map(of).fold(f64::INFINITY, f64::min);
        println!("| {name} | {filled} | {:.2} | {:.2} |", mean * 100.0, least * 100.0);
    };
    for (at, name) in ["texts", "tokens", "bytes, OpenAI's estimate of tokens"].into_iter().enumerate() {
        let filled = fills.iter().filter(|fill| fill[at] >= nearest(fill)).count();
        row(name, filled, &|fill| fill[at]);
    }
    row("the nearest", fills.len(), &nearest);
    println!();
}

/// Counts as another does, and remembers how often each text was counted.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn CountTokens>,
    /// The range of memory that holds the texts.
    start: usize,
    /// By address: no text is shorter than a slot, so no two texts begin in the same slot.
    counts: Vec<AtomicU8>,
}

impl Counted {
    fn new(inner: Arc<dyn CountTokens>, texts: &str) -> Self {
        let slots = texts.len() / chunks::SHORTEST + 1;
        Self { inner, start: texts.as_ptr() as usize, counts: (0..slots).map(|_| AtomicU8::new(0)).collect() }
    }

    fn note(&self, text: &str) {
        let slot = (text.as_ptr() as usize).checked_sub(self.start).map(|offset| offset / chunks::SHORTEST);
        if let Some(count) = slot.and_then(|slot| self.counts.get(slot)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How many texts were counted at all, and how often one was at most.
    fn told(&self) -> (usize, u8) {
        let counts = || self.counts.iter().map(|count| count.load(Relaxed));
        (counts().filter(|&count| count > 0).count(), counts().max().unwrap_or(0))
    }
}

impl CountTokens for Counted {
    fn count(&self, kind: InputKind, text: &str) -> usize {
        self.note(text);
        self.inner.count(kind, text)
    }

    fn at_most(&self, kind: InputKind, text: &str) -> usize {
        self.inner.at_most(kind, text)
    }

    fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
        self.note(text);
        self.inner.count_to(kind, text, limit)
    }
}

/// A folder and which of its files are read.
struct Source {
    name: &'static str,
    folder: PathBuf,
    kinds: &'static [Kind],
}

impl Source {
    fn new(name: &'static str, folder: impl Into<PathBuf>, kinds: &'static [Kind]) -> Self {
        Self { name, folder: folder.into(), kinds }
    }

    /// The existing sources, the best documentation first; missing ones are left out.
    fn of_this_machine() -> Vec<Self> {
        let mut sources = Vec::new();
        if let Some(root) = output_of("rustc", &["--print", "sysroot"]) {
            sources.push(Self::new("Rust documentation", root.join("share/doc/rust/html"), &[Kind::Html]));
        }
        let home = |name: &str| env::var_os(name).map(PathBuf::from);
        let cargo = home("CARGO_HOME").or_else(|| home("HOME").map(|home| home.join(".cargo")));
        let crates = cargo.map(|cargo| cargo.join("registry/src"));
        if let Some(crates) = &crates {
            sources.push(Self::new("crates' documentation", crates, &[Kind::Markdown, Kind::RustDoc]));
        }
        let stdlib = ["-c", "import sysconfig; print(sysconfig.get_paths()['stdlib'])"];
        if let Some(library) = output_of("python3", &stdlib) {
            sources.push(Self::new("Python's library", library, &[Kind::Markdown, Kind::Python]));
        }
        if let Some(crates) = crates {
            sources.push(Self::new("crates' sources", crates, &[Kind::Rust]));
        }
        sources
    }
}

fn output_of(program: &str, arguments: &[&str]) -> Option<PathBuf> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// The chunks, one after the other in one string.
struct Corpus {
    text: String,
    ends: Vec<usize>,
    /// How many chunks each source gave.
    parts: Vec<(&'static str, usize)>,
    seen: HashSet<u64>,
}

impl Corpus {
    fn read(sources: &[Source], wanted: usize) -> Result<Self> {
        let mut corpus = Self { text: String::new(), ends: Vec::new(), parts: Vec::new(), seen: HashSet::new() };
        for source in sources {
            let before = corpus.ends.len();
            corpus.walk(&source.folder, source.kinds, wanted);
            corpus.parts.push((source.name, corpus.ends.len() - before));
        }
        let real = corpus.ends.len();
        if real == 0 {
            return Err("no documentation found: name folders with some".into());
        }
        for copy in real..wanted {
            let (original, round) = (copy % real, copy / real);
            let start = original.checked_sub(1).map_or(0, |before| corpus.ends[before]);
            corpus.text.extend_from_within(start..corpus.ends[original]);
            corpus.text.push_str(&format!("\n({round})"));
            corpus.ends.push(corpus.text.len());
        }
        if wanted > real {
            corpus.parts.push(("repeated with another ending", wanted - real));
        }
        Ok(corpus)
    }

    /// Adds the chunks of the files below a folder. Unreadable files are left out.
    fn walk(&mut self, folder: &Path, kinds: &[Kind], wanted: usize) {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if self.ends.len() >= wanted {
                return;
            }
            // `html/src` are rustdoc's pages of sources.
            if path.is_symlink() || path.ends_with("html/src") {
                continue;
            }
            if path.is_dir() {
                self.walk(&path, kinds, wanted);
                continue;
            }
            let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else { continue };
            for kind in kinds.iter().filter(|kind| kind.extensions().contains(&extension)) {
                let Ok(file) = fs::read_to_string(&path) else { break };
                if let Some(text) = kind.text_of(&file) {
                    chunks::cut(&text, |chunk| self.push(chunk, wanted));
                }
            }
        }
    }

    fn push(&mut self, chunk: &str, wanted: usize) {
        let mut hasher = DefaultHasher::new();
        chunk.hash(&mut hasher);
        if self.ends.len() < wanted && self.seen.insert(hasher.finish()) {
            self.text.push_str(chunk);
            self.ends.push(self.text.len());
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }

    fn describe(&self) {
        let (chunks, bytes) = (self.ends.len(), self.text.len());
        println!("{chunks} chunks, {:.1} MB, {:.0} bytes per chunk:", bytes as f64 / 1e6, bytes as f64 / chunks as f64);
        for (name, count) in &self.parts {
            println!("- {count} ({:.1} %) {name}", *count as f64 * 100.0 / chunks as f64);
        }
        println!();
    }
}
