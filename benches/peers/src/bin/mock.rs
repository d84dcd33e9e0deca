//! A server that speaks OpenAI's embeddings API and does as little as it can, so that the client is measured.
//!
//! `mock [--port 0] [--dimensions 1536] [--latency-ms 0] [--vectors same|by-text]` prints its port and serves until it
//! is killed. One thread. With `same`, all texts get the same vector, and the reply for each number of texts is made
//! once and kept. With `by-text`, each vector begins with `peers::own(text)`, and can be told from those of other
//! texts. `GET /asked` returns the number of texts that were embedded so far.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write as _},
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use peers::{Args, DIMENSIONS, OWN, Result, TEXTS_PER_REQUEST, base64_row, float_row, own, reply, unit_vector};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, IgnoredAny, IntoDeserializer as _, SeqAccess, Visitor},
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
    let args = Args::read(&["port", "dimensions", "latency-ms", "vectors"])?;
    let latency = Duration::from_millis(args.get("latency-ms")?.unwrap_or(0));
    let dimensions = args.get("dimensions")?.unwrap_or(DIMENSIONS);
    let by_text = match args.get::<String>("vectors")?.as_deref() {
        None | Some("same") => false,
        Some("by-text") => true,
        Some(other) => return Err(format!("--vectors {other} is neither same nor by-text").into()),
    };
    let listener = TcpListener::bind(("127.0.0.1", args.get("port")?.unwrap_or(0))).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    stdout.flush()?;
    let mock = Arc::new(Mock { dimensions, latency, by_text, asked: AtomicUsize::new(0), replies: Mutex::default() });
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
    by_text: bool,
    /// Texts embedded so far.
    asked: AtomicUsize,
    replies: Mutex<HashMap<Form, Message>>,
}

/// The properties in which replies differ.
#[derive(PartialEq, Eq, Hash)]
struct Form {
    texts: usize,
    dimensions: usize,
    base64: bool,
}

/// Head and body in one piece.
type Message = Arc<Vec<u8>>;

/// The part of a request that the server reads, and of each text in it.
#[derive(Deserialize)]
struct Ask<T> {
    input: Texts<T>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

/// A text of which only its own components are kept.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Own([f32; OWN]);

impl From<String> for Own {
    fn from(text: String) -> Self {
        Self(own(&text))
    }
}

struct Texts<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Texts<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
            type Value = Texts<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts<T>, E> {
                T::deserialize(text.into_deserializer()).map(|text| Texts(vec![text]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Texts<T>, A::Error> {
                let mut read = Vec::new();
                while let Some(text) = texts.next_element()? {
                    read.push(text);
                }
                Ok(Texts(read))
            }
        }

        deserializer.deserialize_any(Each(PhantomData))
    }
}

impl Mock {
    fn answer(&self, body: &[u8]) -> Message {
        let made = if self.by_text { self.answer_by_text(body) } else { self.answer_alike(body) };
        made.unwrap_or_else(|why| refuse(&why))
    }

    fn answer_alike(&self, body: &[u8]) -> Result<Message, String> {
        let (_, form) = self.read::<IgnoredAny>(body)?;
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let made = replies.entry(form).or_insert_with_key(|form| {
            let row = form.row(&unit_vector(&mut fastrand::Rng::with_seed(1), form.dimensions));
            let rows = std::iter::repeat_n(row.as_str(), form.texts);
            message("200 OK", &reply(rows, form.texts * TOKENS_A_TEXT))
        });
        Ok(made.clone())
    }

    fn answer_by_text(&self, body: &[u8]) -> Result<Message, String> {
        let (texts, form) = self.read::<Own>(body)?;
        if form.dimensions <= OWN {
            return Err(format!("{} dimensions are too few to tell texts apart", form.dimensions));
        }
        // Written once: rows differ in their beginning alone.
        let common = form.row(&unit_vector(&mut fastrand::Rng::with_seed(1), form.dimensions)[OWN..]);
        let rows = texts.iter().map(|Own(own)| {
            let mut row = form.row(own);
            row.pop();
            row.push_str(if form.base64 { "" } else { "," });
            row + &common[1..]
        });
        Ok(message("200 OK", &reply(rows, form.texts * TOKENS_A_TEXT)))
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<(Vec<T>, Form), String> {
        let ask: Ask<T> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let (texts, dimensions) = (ask.input.0.len(), ask.dimensions.unwrap_or(self.dimensions));
        if !(1..=TEXTS_PER_REQUEST).contains(&texts) || !(1..=DIMENSIONS).contains(&dimensions) {
            return Err(format!("{texts} texts, {dimensions} dimensions"));
        }
        let base64 = match ask.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err("encoding_format is neither float nor base64".into()),
        };
        self.asked.fetch_add(texts, Relaxed);
        Ok((ask.input.0, Form { texts, dimensions, base64 }))
    }
}

impl Form {
    fn row(&self, vector: &[f32]) -> String {
        if self.base64 { base64_row(vector) } else { float_row(vector) }
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
        } else if head.counts {
            message("200 OK", &mock.asked.load(Relaxed).to_string())
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

/// The part of a request's head that the server needs.
struct Head {
    embeds: bool,
    /// Asks how many texts were embedded.
    counts: bool,
    /// Missing if the head does not tell the body's length, as with chunks.
    length: Option<usize>,
    closes: bool,
}

impl Head {
    fn read(head: &[u8]) -> Self {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let request = lines.next().unwrap_or_default();
        let posts = request.starts_with("POST ");
        let path = request.split(' ').nth(1);
        let (embeds, counts) = (posts && path == Some("/v1/embeddings"), !posts && path == Some("/asked"));
        let mut read = Self { embeds, counts, length: (!posts).then_some(0), closes: false };
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
