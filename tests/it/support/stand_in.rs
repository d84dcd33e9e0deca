//! An honest server of OpenAI's embeddings API on loopback, with deterministic vectors: for tests and examples.
//!
//! It needs only tokio, `serde_json`, base64 and the standard library, so any program can include it by `#[path]`.
#![allow(dead_code, reason = "who takes this file in need not use all of it")]

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Maximum texts of a request, as at OpenAI.
pub(crate) const MOST_TEXTS: usize = 2048;

/// Returns the server's vector of a text: random numbers seeded by its hash, normalized. A shorter vector is the
/// beginning of a longer one, normalized again.
pub(crate) fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    // FNV-1a over the text seeds splitmix64: random enough, and without a dependency.
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let mut component = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 32) as i32 as f32 / i32::MAX as f32
    };
    let mut vector: Vec<f32> = (0..dimensions).map(|_| component()).collect();
    let length = vector.iter().map(|component| component * component).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|component| *component /= length);
    }
    vector
}

/// Returns the tokens that the server charges for a text: one per four bytes, rounded up.
pub(crate) fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

/// Encodes a vector as the API does: base64 of little-endian floats.
pub(crate) fn in_base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|component| component.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

/// Makes the body of a refusal.
pub(crate) fn refusal(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

/// Returns the status and body of the reply to a request's body, for a model of so many dimensions.
pub(crate) fn answer(request: &Value, dimensions: usize) -> (u16, Value) {
    let refuse = |message: &str, param: Option<&str>| (400, refusal(message, "invalid_request_error", param, None));
    let Some(fields) = request.as_object() else {
        return refuse("We could not parse the JSON body of your request.", None);
    };
    // Some servers refuse an explicit null as a value of the wrong type.
    if let Some((name, _)) = fields.iter().find(|(_, value)| value.is_null()) {
        return refuse("Expected a value, but got null instead.", Some(name));
    }
    let Some(model) = request["model"].as_str().filter(|model| !model.is_empty()) else {
        return refuse("You must provide a model parameter.", Some("model"));
    };
    let texts: Option<Vec<&str>> = match &request["input"] {
        Value::String(text) => Some(vec![text]),
        // Numbers would be tokens, which few servers except OpenAI's accept.
        Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let acceptable = |texts: &Vec<&str>| (1..=MOST_TEXTS).contains(&texts.len()) && !texts.contains(&"");
    let Some(texts) = texts.filter(acceptable) else {
        return refuse("'$.input' is invalid. Please check the API reference.", None);
    };
    let width = match request.get("dimensions") {
        None => dimensions,
        Some(wanted) => match wanted.as_u64().and_then(|wanted| usize::try_from(wanted).ok()) {
            Some(wanted) if (1..=dimensions).contains(&wanted) => wanted,
            _ => return refuse("Invalid value for 'dimensions'.", Some("dimensions")),
        },
    };
    let encode: fn(Vec<f32>) -> Value = match request.get("encoding_format").map(Value::as_str) {
        None | Some(Some("float")) => Value::from,
        Some(Some("base64")) => |vector| Value::from(in_base64(&vector)),
        Some(_) => return refuse("Invalid value for 'encoding_format'.", Some("encoding_format")),
    };
    let row = |(index, text): (usize, &&str)| {
        let vector = encode(vector(text, width));
        json!({"object": "embedding", "index": index, "embedding": vector})
    };
    let data: Vec<Value> = texts.iter().enumerate().map(row).collect();
    let charged: u64 = texts.iter().map(|text| tokens(text)).sum();
    let usage = json!({"prompt_tokens": charged, "total_tokens": charged});
    (200, json!({"object": "list", "data": data, "model": model, "usage": usage}))
}

/// Returns the status and body of the reply to a request; checks its path and method too.
pub(crate) fn respond(request: &Request, dimensions: usize) -> (u16, Value) {
    let path = request.path.split('?').next().unwrap_or_default();
    if !path.ends_with("/embeddings") {
        return (404, refusal("Invalid URL.", "invalid_request_error", None, None));
    }
    if request.method != "POST" {
        return (405, refusal("Not allowed to do this with this URL.", "invalid_request_error", None, None));
    }
    let mut body = request.json();
    // Azure's older path names the deployment, so the body need not name the model.
    if let (Some((_, rest)), Some(fields)) = (path.split_once("/deployments/"), body.as_object_mut()) {
        let deployment = rest.split('/').next().unwrap_or_default();
        fields.insert("model".to_owned(), Value::from(deployment));
    }
    answer(&body, dimensions)
}

/// The honest server. Dropping it ends it and its connections.
#[derive(Debug)]
pub(crate) struct StandIn {
    listening: Listening,
    requests: Arc<AtomicUsize>,
}

impl StandIn {
    /// Starts a server of a model of so many dimensions on a free port.
    pub(crate) async fn start(dimensions: usize) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = requests.clone();
        let listening = Listening::start(move |connection| serve(connection, dimensions, counter.clone())).await;
        Self { listening, requests }
    }

    /// Returns the base URL for clients.
    pub(crate) fn base_url(&self) -> String {
        self.listening.base_url()
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn serve(mut connection: Connection, dimensions: usize, requests: Arc<AtomicUsize>) {
    // An honest server ignores a client that goes away early.
    while let Ok(Some(request)) = connection.request().await {
        let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
        let (status, body) = respond(&request, dimensions);
        let id = format!("req_{number}");
        let headers = [("content-type", "application/json"), ("x-request-id", id.as_str())];
        let sent = connection.reply(status, &headers, body.to_string().as_bytes()).await;
        if sent.is_err() || request.is_last() {
            break;
        }
    }
}

/// A free loopback port and the task that listens there. Dropping it ends both and all connections.
#[derive(Debug)]
pub(crate) struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    /// Passes each connection to `serve`.
    pub(crate) async fn start<F, S>(serve: F) -> Self
    where
        F: Fn(Connection) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port"), serve)
    }

    /// Does the same on a port of the caller's choice.
    pub(crate) fn on<F, S>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(Connection) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            // When this task ends, it drops the set, which ends the set's tasks.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Connection::new(stream)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, task }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path with its query.
    pub(crate) path: String,
    /// The headers in their order, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns the value of the first header of this name, which must be in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body, or null if it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns the texts to embed.
    pub(crate) fn texts(&self) -> Vec<String> {
        match self.json().get("input") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the fields of the body.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        self.json().as_object().cloned().unwrap_or_default()
    }

    /// Whether the client wants the connection closed after the reply.
    pub(crate) fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The server's end of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes that were read and not yet used.
    buffer: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        // A failure only costs speed.
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::new() }
    }

    /// Returns the bare connection.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads the next request; `None` if the client closed the connection after the last one.
    pub(crate) async fn request(&mut self) -> io::Result<Option<Request>> {
        const END: &[u8] = b"\r\n\r\n";
        let end = loop {
            if let Some(at) = self.buffer.windows(END.len()).position(|window| window == END) {
                break at;
            }
            if self.read_more().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let head = String::from_utf8(self.buffer[..end].to_vec()).map_err(|_| wrong())?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, path) = words.next().zip(words.next()).ok_or_else(wrong)?;
        let split =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        let headers = lines.map(split).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        let mut request = Request { method: method.to_owned(), path: path.to_owned(), headers, body: Vec::new() };
        // A request without a length has no body, because no client of this API sends chunks.
        let length = request.header("content-length").map_or(Ok(0), str::parse::<usize>).map_err(|_| wrong())?;
        let start = end + END.len();
        while self.buffer.len() < start + length {
            if self.read_more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        request.body = self.buffer[start..start + length].to_vec();
        self.buffer.drain(..start + length);
        Ok(Some(request))
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        self.buffer.reserve(64 << 10);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Sends a whole reply.
    pub(crate) async fn reply(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        headers.push(("content-length", length.as_str()));
        let mut reply = head(status, &headers);
        reply.extend_from_slice(body);
        self.send(&reply).await
    }

    /// Sends these bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// Returns the beginning of a reply, up to its body.
pub(crate) fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Status" };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} {reason}\r\n{headers}\r\n").into_bytes()
}
