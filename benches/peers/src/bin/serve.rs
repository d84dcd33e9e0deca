//! Loads an embedding service: some connections, each with one request after the other, and no look into the vectors.
//!
//! `serve --port N --texts FILE [--connections 4] [--per-request 64] [--dialect native|tei|openai]
//! [--reply rows|json|base64] [--kind document|query] [--path PATH] [--model NAME] [--limit N]
//! [--passes 1 | --seconds S] [--pause-ms 0]`
//!
//! The texts are lines of JSON strings, of which `--limit` takes the first. They are sent in requests of
//! `--per-request` texts, `--passes` times or until `--seconds` are over. All requests are written before the clock
//! starts, and replies are read and thrown away, on one thread: the client costs as little as it can of the cores that
//! it shares with the service. `--pause-ms` is a wait after each reply. The clock stops with the last reply.
//! Then a line of JSON is printed. `cpu_seconds` is what this process took while the clock ran; `server_ms` the mean of
//! each part of the header `server-timing`, if the service has it.

use std::{
    collections::BTreeMap,
    fs, io,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use peers::{Args, Result, cpu_seconds};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const OPTIONS: &[&str] = &[
    "port",
    "texts",
    "connections",
    "per-request",
    "dialect",
    "reply",
    "kind",
    "path",
    "model",
    "limit",
    "passes",
    "seconds",
    "pause-ms",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::read(OPTIONS)?;
    let load = Load::read(&args)?;
    let connections = args.get("connections")?.unwrap_or(4);
    let mut wires = Vec::new();
    for _ in 0..connections {
        wires.push(Wire::open(load.port).await?);
    }
    let mut seen = Seen::default();
    // One thread takes turns, so a cell is shared without a lock.
    let next = std::cell::Cell::new(0);
    let (cpu, start) = (cpu_seconds()?, Instant::now());
    for part in try_join_all(wires.into_iter().map(|wire| work(&load, wire, &next, start))).await? {
        seen.add(part);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", seen.told(seconds, cpu_seconds()? - cpu));
    Ok(())
}

/// What is sent, and for how long.
struct Load {
    port: u16,
    requests: Vec<Request>,
    /// The number of requests, if it is limited.
    most: Option<usize>,
    time: Duration,
    pause: Duration,
}

struct Request {
    /// Head and body.
    bytes: Vec<u8>,
    texts: usize,
}

impl Load {
    fn read(args: &Args) -> Result<Self> {
        let file = args.get::<String>("texts")?.ok_or("--texts is missing")?;
        let lines = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        let limit = args.get("limit")?.unwrap_or(usize::MAX);
        let texts: Vec<String> = lines.lines().take(limit).map(serde_json::from_str).collect::<Result<_, _>>()?;
        if texts.is_empty() {
            return Err(format!("{file} has no texts").into());
        }
        let form = Form::read(args)?;
        let per_request = args.get("per-request")?.unwrap_or(64);
        let requests: Vec<Request> = texts.chunks(per_request).map(|part| form.request(part)).collect();
        let seconds = args.get("seconds")?;
        let passes = args.get("passes")?.or(seconds.is_none().then_some(1));
        Ok(Self {
            port: args.get("port")?.ok_or("--port is missing")?,
            most: passes.map(|passes: usize| passes * requests.len()),
            requests,
            time: seconds.map_or(Duration::MAX, Duration::from_secs_f64),
            pause: Duration::from_millis(args.get("pause-ms")?.unwrap_or(0)),
        })
    }
}

/// How requests are written.
struct Form {
    dialect: String,
    reply: String,
    kind: String,
    path: String,
    model: String,
}

impl Form {
    fn read(args: &Args) -> Result<Self> {
        let one_of = |name: &str, words: &[&str]| -> Result<String> {
            let word = args.get::<String>(name)?.unwrap_or_else(|| words[0].to_owned());
            if words.contains(&word.as_str()) {
                return Ok(word);
            }
            Err(format!("--{name} {word} is not among {}", words.join(", ")).into())
        };
        let dialect = one_of("dialect", &["native", "tei", "openai"])?;
        let path = if dialect == "openai" { "/v1/embeddings" } else { "/embed" };
        Ok(Self {
            reply: one_of("reply", &["rows", "json", "base64"])?,
            kind: one_of("kind", &["document", "query"])?,
            path: args.get("path")?.unwrap_or_else(|| path.to_owned()),
            model: args.get("model")?.unwrap_or_else(|| "all-MiniLM-L6-v2".to_owned()),
            dialect,
        })
    }

    fn request(&self, texts: &[String]) -> Request {
        let mut body = match self.dialect.as_str() {
            "native" => json!({ "texts": texts }),
            "tei" => json!({ "inputs": texts, "truncate": true }),
            _ => json!({ "input": texts, "model": self.model }),
        };
        if self.reply == "base64" {
            body["encoding_format"] = "base64".into();
        }
        let body = body.to_string();
        let accept = if self.reply == "rows" { "application/octet-stream" } else { "application/json" };
        // OpenAI's dialect refuses over-long texts unless it is told otherwise.
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: {accept}\r\n\
             x-embed-kind: {}\r\nx-embed-truncation: truncate\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.kind,
            body.len()
        );
        Request { bytes: [head.as_bytes(), body.as_bytes()].concat(), texts: texts.len() }
    }
}

/// What the replies of a connection were.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<u16, usize>,
    texts: usize,
    bytes: usize,
    /// Of replies with 200.
    milliseconds: Vec<f64>,
    server_ms: BTreeMap<String, f64>,
    /// Replies with 429 or 503 that did not say when to come again.
    without_retry_after: usize,
}

impl Seen {
    fn note(&mut self, reply: &Reply, texts: usize, took: Duration) {
        *self.statuses.entry(reply.status).or_default() += 1;
        if reply.status == 200 {
            self.texts += texts;
            self.bytes += reply.bytes;
            self.milliseconds.push(took.as_secs_f64() * 1e3);
            for (name, millis) in parts_of(&reply.timing) {
                match self.server_ms.get_mut(name) {
                    Some(sum) => *sum += millis,
                    None => _ = self.server_ms.insert(name.to_owned(), millis),
                }
            }
        } else if matches!(reply.status, 429 | 503) && !reply.has_retry_after {
            self.without_retry_after += 1;
        }
    }

    fn add(&mut self, other: Self) {
        other.statuses.into_iter().for_each(|(status, count)| *self.statuses.entry(status).or_default() += count);
        other.server_ms.into_iter().for_each(|(name, sum)| *self.server_ms.entry(name).or_default() += sum);
        self.texts += other.texts;
        self.bytes += other.bytes;
        self.milliseconds.extend(other.milliseconds);
        self.without_retry_after += other.without_retry_after;
    }

    fn told(mut self, seconds: f64, cpu: f64) -> Value {
        self.milliseconds.sort_by(f64::total_cmp);
        let good = self.milliseconds.len();
        // The least time that so many of a hundred replies did not exceed.
        let percentile = |hundredths: usize| match good {
            0 => Value::Null,
            _ => self.milliseconds[(good * hundredths).div_ceil(100).max(1) - 1].into(),
        };
        self.server_ms.values_mut().for_each(|sum| *sum /= good.max(1) as f64);
        json!({
            "seconds": seconds,
            "texts": self.texts,
            "texts_per_second": self.texts as f64 / seconds,
            "requests": self.statuses.values().sum::<usize>(),
            "statuses": self.statuses,
            "bytes": self.bytes,
            "p50_ms": percentile(50),
            "p95_ms": percentile(95),
            "p99_ms": percentile(99),
            "worst_ms": self.milliseconds.last(),
            "server_ms": self.server_ms,
            "without_retry_after": self.without_retry_after,
            "cpu_seconds": cpu,
        })
    }
}

/// Returns the parts of a `server-timing` header, as `body;dur=0.1, total;dur=12.3`.
fn parts_of(timing: &str) -> impl Iterator<Item = (&str, f64)> {
    timing.split(',').filter_map(|part| {
        let (name, millis) = part.trim().split_once(";dur=")?;
        Some((name, millis.parse().ok()?))
    })
}

/// Sends requests over one connection until there are no more.
async fn work(load: &Load, mut wire: Wire, next: &std::cell::Cell<usize>, start: Instant) -> Result<Seen> {
    let mut seen = Seen::default();
    loop {
        let number = next.get();
        if load.most.is_some_and(|most| number >= most) || start.elapsed() >= load.time {
            return Ok(seen);
        }
        next.set(number + 1);
        let request = &load.requests[number % load.requests.len()];
        let sent = Instant::now();
        let reply = wire.exchange(&request.bytes).await?;
        seen.note(&reply, request.texts, sent.elapsed());
        if !load.pause.is_zero() {
            tokio::time::sleep(load.pause).await;
        }
        if reply.closes {
            wire = Wire::open(load.port).await?;
        }
    }
}

/// The part of a reply that is looked at.
#[derive(Default)]
struct Reply {
    status: u16,
    bytes: usize,
    timing: String,
    has_retry_after: bool,
    closes: bool,
}

/// A connection that is kept.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are read.
    at: usize,
}

impl Wire {
    async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(256 << 10), at: 0 })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Reply> {
        self.stream.write_all(request).await?;
        let mut reply = Reply::default();
        let (mut length, mut is_chunked) = (0, false);
        let status = self.line().await?;
        reply.status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("the reply is not HTTP")?;
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse()?,
                "transfer-encoding" => is_chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => reply.closes = value.eq_ignore_ascii_case("close"),
                "retry-after" => reply.has_retry_after = value.parse::<u64>().is_ok_and(|seconds| seconds >= 1),
                "server-timing" => reply.timing = value.to_owned(),
                _ => {}
            }
        }
        if !is_chunked {
            self.skip(length).await?;
            reply.bytes = length;
            return Ok(reply);
        }
        loop {
            let line = self.line().await?;
            let length = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
            if length == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(reply);
            }
            self.skip(length).await?;
            self.line().await?;
            reply.bytes += length;
        }
    }

    /// Returns the next line, without its end.
    async fn line(&mut self) -> Result<String> {
        let mut searched = self.at;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[self.at..searched + end]).trim_end().to_owned();
                self.at = searched + end + 1;
                return Ok(line);
            }
            let read = self.more().await?;
            searched = self.buffer.len() - read;
        }
    }

    /// Throws bytes away.
    async fn skip(&mut self, mut bytes: usize) -> io::Result<()> {
        loop {
            let there = bytes.min(self.buffer.len() - self.at);
            self.at += there;
            bytes -= there;
            if bytes == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Reads more, and returns the number of bytes. What was read before is dropped from the buffer.
    async fn more(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.at);
        self.at = 0;
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}
