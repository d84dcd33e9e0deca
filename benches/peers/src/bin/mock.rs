//! A server that speaks OpenAI's embeddings API and does as little as it can, so that what is measured is the client.
//!
//! `mock [--port 0] [--dimensions 1536] [--latency-ms 0]` prints its port and serves until it is killed. One thread;
//! what it answers for so many texts is made once and kept. All texts get the same vector.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use peers::{Args, DIMENSIONS, Result, TEXTS_A_REQUEST, base64_row, float_row, reply, unit_vector};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Bytes of a request's head, at most.
const HEAD: usize = 64 << 10;
/// Bytes of a request's body, at most.
const BODY: usize = 256 << 20;
/// Tokens that the reply says each text had.
const TOKENS_A_TEXT: usize = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::read(&["port", "dimensions", "latency-ms"])?;
    let latency = Duration::from_millis(args.get("latency-ms")?.unwrap_or(0));
    let dimensions = args.get("dimensions")?.unwrap_or(DIMENSIONS);
    let listener = TcpListener::bind(("127.0.0.1", args.get("port")?.unwrap_or(0))).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    stdout.flush()?;
    let mock = Arc::new(Mock { dimensions, latency, replies: Mutex::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A client that goes away in the middle is no concern of the server's.
        tokio::spawn(serve(stream, mock.clone()));
    }
}

struct Mock {
    dimensions: usize,
    latency: Duration,
    replies: Mutex<HashMap<Form, Message>>,
}

/// What replies differ in.
#[derive(PartialEq, Eq, Hash)]
struct Form {
    texts: usize,
    dimensions: usize,
    base64: bool,
}

/// Head and body in one piece.
type Message = Arc<Vec<u8>>;

/// What the server reads of a request.
#[derive(Deserialize)]
struct Ask {
    input: Texts,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

/// How many texts there are.
struct Texts(usize);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;

        impl<'de> Visitor<'de> for Count {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, _: &str) -> Result<Texts, E> {
                Ok(Texts(1))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Texts, A::Error> {
                let mut count = 0;
                while texts.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Texts(count))
            }
        }

        deserializer.deserialize_any(Count)
    }
}

impl Mock {
    fn answer(&self, body: &[u8]) -> Message {
        let ask: Ask = match serde_json::from_slice(body) {
            Ok(ask) => ask,
            Err(error) => return refuse(&error.to_string()),
        };
        let (texts, dimensions) = (ask.input.0, ask.dimensions.unwrap_or(self.dimensions));
        if !(1..=TEXTS_A_REQUEST).contains(&texts) || !(1..=DIMENSIONS).contains(&dimensions) {
            return refuse(&format!("{texts} texts, {dimensions} dimensions"));
        }
        let base64 = match ask.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return refuse("encoding_format is neither float nor base64"),
        };
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let made = replies.entry(Form { texts, dimensions, base64 }).or_insert_with(|| {
            let vector = unit_vector(&mut fastrand::Rng::with_seed(1), dimensions);
            let row = if base64 { base64_row(&vector) } else { float_row(&vector) };
            let rows = std::iter::repeat_n(row.as_str(), texts);
            message("200 OK", &reply(rows, texts * TOKENS_A_TEXT))
        });
        made.clone()
    }
}

fn message(status: &str, body: &str) -> Message {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    Arc::new([head.as_bytes(), body.as_bytes()].concat())
}

fn refuse(why: &str) -> Message {
    let why = serde_json::Value::from(why);
    message("400 Bad Request", &format!("{{\"error\":{{\"message\":{why},\"type\":\"invalid_request_error\"}}}}"))
}

/// Answers the requests of one connection, one after the other.
async fn serve(mut stream: TcpStream, mock: Arc<Mock>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(256 << 10);
    loop {
        let head_end = loop {
            let searched = &buffer[..buffer.len().min(HEAD)];
            if let Some(at) = searched.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if searched.len() == HEAD || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = Head::read(&buffer[..head_end]);
        let Some(length) = head.length.filter(|&length| length <= BODY) else {
            return stream.write_all(&message("411 Length Required", "{}")).await;
        };
        let end = head_end + length;
        buffer.reserve(end.saturating_sub(buffer.len()));
        while buffer.len() < end {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let reply = if head.embeds {
            mock.answer(&buffer[head_end..end])
        } else {
            message("404 Not Found", "{\"error\":{\"message\":\"only POST /v1/embeddings\"}}")
        };
        buffer.drain(..end);
        if !mock.latency.is_zero() {
            tokio::time::sleep(mock.latency).await;
        }
        stream.write_all(&reply).await?;
        if head.closes {
            return stream.shutdown().await;
        }
    }
}

/// What the server needs of a request's head.
struct Head {
    embeds: bool,
    /// Missing where the body's length is not told, as in chunks.
    length: Option<usize>,
    closes: bool,
}

impl Head {
    fn read(head: &[u8]) -> Self {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let request = lines.next().unwrap_or_default();
        let posts = request.starts_with("POST ");
        let embeds = posts && request.split(' ').nth(1) == Some("/v1/embeddings");
        let mut read = Self { embeds, length: (!posts).then_some(0), closes: false };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                read.length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                read.closes = value.eq_ignore_ascii_case("close");
            }
        }
        read
    }
}
