//! An embedding service on loopback that answers with the vectors of a [`Fake`]: this crate's own service, or another
//! server in the dialect of text-embeddings-inference or OpenAI. A test may script other reactions.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, Embeddings, Error, ErrorKind, InputKind, Lane, Limits, Options, Space, SpaceId, TokenCount,
    Truncation, provider::Fake,
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpListener, time::sleep};

use super::stand_in::{Connection, Listening, Request, in_base64};

/// The program that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This crate's own service, which speaks all dialects and states its space.
    Own,
    /// text-embeddings-inference.
    Tei,
    /// A server that speaks OpenAI's API and nothing else.
    OpenAi,
}

/// What the server does with a request.
pub(crate) enum Act {
    /// Answers honestly.
    Honest,
    /// Answers honestly, with this header, or without it if it is empty.
    Header(&'static str, String),
    /// Answers honestly, but for a change of the body.
    Edited(fn(Vec<u8>) -> Vec<u8>),
    /// Answers with this.
    Reply { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Answers honestly, but late.
    Late(Duration),
    /// Never answers.
    Hang,
    /// Closes the connection.
    Hangup,
    /// Promises so many bytes, and sends none.
    HugeLength(u64),
}

impl Act {
    /// Answers with a status and a body.
    pub(crate) fn reply(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Reply { status, headers: Vec::new(), body: body.into() }
    }

    /// Answers with a status, JSON, and more headers.
    pub(crate) fn json(status: u16, body: &Value, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::Reply { status, headers, body: body.to_string().into_bytes() }
    }
}

/// Chooses the reaction to a request, given its number among those with texts, from 1. `GET /info` has number 0.
type Script = Box<dyn Fn(usize, &Request) -> Act + Send + Sync>;

/// The service. Dropping it ends it and its connections.
pub(crate) struct Service {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    program: Program,
    fake: Fake,
    script: Script,
    log: Mutex<Vec<Request>>,
    /// Requests that the client gave up while they hung.
    given_up: AtomicUsize,
    embedding: AtomicUsize,
}

impl Service {
    /// Starts an honest service on a free port.
    pub(crate) async fn start(program: Program, fake: &Fake) -> Self {
        Self::scripted(program, fake, |_, _| Act::Honest).await
    }

    /// Starts a service that follows a script.
    pub(crate) async fn scripted(
        program: Program,
        fake: &Fake,
        script: impl Fn(usize, &Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        Self::run(listener, program, fake, Box::new(script))
    }

    /// Starts an honest service at an address where another one was.
    pub(crate) async fn start_at(address: SocketAddr, program: Program, fake: &Fake) -> Self {
        // The port may be busy for a moment, while connections of the old service end.
        for _ in 0..100 {
            if let Ok(listener) = TcpListener::bind(address).await {
                return Self::run(listener, program, fake, Box::new(|_, _| Act::Honest));
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{address} stays busy");
    }

    fn run(listener: TcpListener, program: Program, fake: &Fake, script: Script) -> Self {
        let (log, given_up, embedding) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { program, fake: fake.clone(), script, log, given_up, embedding });
        let inside = shared.clone();
        let listening = Listening::on(listener, move |connection| serve(inside.clone(), connection));
        Self { listening, shared }
    }

    /// Ends the service, and its connections, and returns its address.
    pub(crate) async fn stop(self) -> SocketAddr {
        let address = self.listening.address();
        drop(self);
        // The connections end with their tasks, which the runtime drops a little later.
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(address).await.is_err() {
                return address;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{address} still answers");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listening.address())
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.log.lock().expect("nobody panicked").clone()
    }

    /// Returns the requests with texts so far.
    pub(crate) fn embeddings(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.method == "POST").collect()
    }

    /// Returns the requests that the client gave up while they hung.
    pub(crate) fn given_up(&self) -> usize {
        self.shared.given_up.load(Ordering::SeqCst)
    }
}

async fn serve(shared: Arc<Shared>, mut connection: Connection) {
    while let Ok(Some(request)) = connection.request().await {
        let number = match request.method.as_str() {
            "POST" => shared.embedding.fetch_add(1, Ordering::SeqCst) + 1,
            _ => 0,
        };
        shared.log.lock().expect("nobody panicked").push(request.clone());
        let act = (shared.script)(number, &request);
        let goes_on = shared.perform(&mut connection, act, &request).await;
        if request.is_last() || !goes_on.unwrap_or(false) {
            break;
        }
    }
}

impl Shared {
    /// Does what the script says, and returns whether the connection can be used again.
    async fn perform(&self, connection: &mut Connection, act: Act, request: &Request) -> io::Result<bool> {
        let send = async |connection: &mut Connection, (status, headers, body): Answer| {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            connection.reply(status, &headers, &body).await
        };
        match act {
            Act::Honest => send(connection, self.answer(request).await).await?,
            Act::Header(name, value) => {
                let (status, mut headers, body) = self.answer(request).await;
                headers.retain(|(have, _)| have != name);
                if !value.is_empty() {
                    headers.push((name.to_owned(), value));
                }
                send(connection, (status, headers, body)).await?;
            }
            Act::Edited(edit) => {
                let (status, headers, body) = self.answer(request).await;
                send(connection, (status, headers, edit(body))).await?;
            }
            Act::Reply { status, headers, body } => send(connection, (status, headers, body)).await?,
            Act::Late(wait) => {
                sleep(wait).await;
                send(connection, self.answer(request).await).await?;
            }
            Act::Hang => {
                // A client that waits for a reply sends nothing, so this ends when the client goes away.
                let _ = connection.stream().read_u8().await;
                self.given_up.fetch_add(1, Ordering::SeqCst);
                return Ok(false);
            }
            Act::HugeLength(bytes) => {
                let length = bytes.to_string();
                connection.send(&super::stand_in::head(200, &[("content-length", length.as_str())])).await?;
                let _ = connection.stream().read_u8().await;
                return Ok(false);
            }
            Act::Hangup => return Ok(false),
        }
        Ok(true)
    }

    fn space(&self) -> &Space {
        &self.fake.spaces()[0]
    }

    /// Answers a request honestly.
    async fn answer(&self, request: &Request) -> Answer {
        let body = request.json();
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/info") if self.program != Program::OpenAi => json_answer(200, &self.info(), Vec::new()),
            ("POST", "/embed") if self.program == Program::Own && body.get("texts").is_some() => {
                self.native(&body).await
            }
            ("POST", "/embed") if self.program != Program::OpenAi => self.tei(request, &body).await,
            ("POST", "/v1/embeddings") if self.program != Program::Tei => self.openai(request, &body).await,
            _ => json_answer(404, &json!({"detail": "Not Found"}), Vec::new()),
        }
    }

    fn info(&self) -> Value {
        let Limits { texts, bytes, tokens_per_text, .. } = self.fake.limits();
        let mut info = json!({
            "model_id": self.space().model(), "model_sha": "abc", "model_dtype": "float32",
            "model_type": {"embedding": {"pooling": "mean"}}, "max_input_length": tokens_per_text,
            "max_client_batch_size": texts, "auto_truncate": true, "version": "1.8.0"
        });
        if self.program == Program::Own {
            info["docvector"] = json!({
                "space": self.space().to_text(), "space_id": self.space().id().to_string(),
                "dimension": self.space().dimensions(), "state": "ready", "max_texts": texts,
                "max_body_bytes": bytes.map(|bytes| bytes * 2), "max_request_tokens": 100_000
            });
        }
        info
    }

    /// Answers in the own dialect: a binary frame.
    async fn native(&self, body: &Value) -> Answer {
        let texts = strings(&body["texts"]);
        let word = |name: &str| body[name].as_str();
        let mut options = Options::new(kind_of(word("kind")));
        options.lane = word("lane").and_then(|lane| lane.parse::<Lane>().ok()).unwrap_or(options.lane);
        options.truncation = word("truncation").and_then(|way| way.parse().ok()).unwrap_or(Truncation::Truncate);
        options.space = word("space").and_then(|space| space.parse::<SpaceId>().ok());
        let (key, tenant) = (word("key").map(str::to_owned), word("tenant").map(str::to_owned));
        (options.key, options.tenant) = (key.as_deref(), tenant.as_deref());
        match self.embed(&texts, options).await {
            Ok(rows) => (200, self.headers_of(&rows), frame(&rows)),
            Err(error) => {
                let (status, headers) = (status_of(&error), self.error_headers(&error));
                json_answer(status, &native_error(&error), headers)
            }
        }
    }

    /// Answers in the dialect of text-embeddings-inference.
    async fn tei(&self, request: &Request, body: &Value) -> Answer {
        let texts = strings(&body["inputs"]);
        // The other program knows nothing of kinds.
        let kind =
            if self.program == Program::Own { kind_of(request.header("x-embed-kind")) } else { InputKind::Document };
        let mut options = Options::new(kind);
        if body["truncate"] != json!(false) {
            options.truncation = Truncation::Truncate;
        }
        options.space = self.wanted_space(request);
        match self.embed(&texts, options).await {
            Ok(rows) => {
                let all: Vec<&[f32]> = rows.rows().collect();
                let headers = if self.program == Program::Own { self.headers_of(&rows) } else { Vec::new() };
                json_answer(200, &json!(all), headers)
            }
            Err(error) => {
                let (status, kind) = match error.kind() {
                    ErrorKind::InvalidInput => (422, "Validation"),
                    ErrorKind::SpaceMismatch => (409, "Validation"),
                    _ => (424, "Backend"),
                };
                let headers = if self.program == Program::Own { self.error_headers(&error) } else { Vec::new() };
                json_answer(status, &json!({"error": error.to_string(), "error_type": kind}), headers)
            }
        }
    }

    /// Answers in OpenAI's dialect.
    async fn openai(&self, request: &Request, body: &Value) -> Answer {
        let texts = strings(&body["input"]);
        let kind =
            if self.program == Program::Own { kind_of(request.header("x-embed-kind")) } else { InputKind::Document };
        let mut options = Options::new(kind);
        options.space = self.wanted_space(request);
        if request.header("x-embed-truncation") == Some("truncate") {
            options.truncation = Truncation::Truncate;
        }
        match self.embed(&texts, options).await {
            Ok(rows) => {
                let row = |(index, row): (usize, &[f32])| json!({"object": "embedding", "index": index, "embedding": in_base64(row)});
                let data: Vec<Value> = rows.rows().enumerate().map(row).collect();
                let tokens = rows.usage().tokens;
                let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
                let reply = json!({"object": "list", "data": data, "model": body["model"], "usage": usage});
                let headers = if self.program == Program::Own { self.headers_of(&rows) } else { Vec::new() };
                json_answer(200, &reply, headers)
            }
            Err(error) => {
                let status = status_of(&error);
                let body = json!({"error": {"message": error.to_string(), "type": "invalid_request_error"}});
                let headers = if self.program == Program::Own { self.error_headers(&error) } else { Vec::new() };
                json_answer(status, &body, headers)
            }
        }
    }

    async fn embed(&self, texts: &[String], options: Options<'_>) -> docvector_embed::Result<Embeddings> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.fake.embed(Batch::with_options(&texts, options)).await
    }

    fn wanted_space(&self, request: &Request) -> Option<SpaceId> {
        let wanted = request.header("x-embed-space").filter(|_| self.program == Program::Own);
        wanted.and_then(|space| space.parse().ok())
    }

    fn headers_of(&self, rows: &Embeddings) -> Vec<(String, String)> {
        let header = |name: &str, value: String| (name.to_owned(), value);
        vec![
            header("x-embed-space", self.space().id().to_string()),
            header("x-embed-dimension", self.space().dimensions().to_string()),
            header("x-embed-tokens", rows.usage().tokens.to_string()),
            header("x-embed-truncated", rows.truncated().len().to_string()),
            header("x-request-id", format!("req-{}", self.embedding.load(Ordering::SeqCst))),
        ]
    }

    fn error_headers(&self, error: &Error) -> Vec<(String, String)> {
        let space = ("x-embed-space".to_owned(), self.space().id().to_string());
        vec![space, ("x-embed-error".to_owned(), error.kind().as_str().to_owned())]
    }
}

/// A status, headers and a body.
type Answer = (u16, Vec<(String, String)>, Vec<u8>);

fn json_answer(status: u16, body: &Value, mut headers: Vec<(String, String)>) -> Answer {
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    (status, headers, body.to_string().into_bytes())
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        value => value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

fn kind_of(name: Option<&str>) -> InputKind {
    name.and_then(|name| name.parse().ok()).unwrap_or(InputKind::Document)
}

fn status_of(error: &Error) -> u16 {
    match error.kind() {
        ErrorKind::InvalidInput => 400,
        ErrorKind::SpaceMismatch => 409,
        ErrorKind::Overloaded => 429,
        ErrorKind::Unavailable => 503,
        ErrorKind::DeadlinePassed => 504,
        _ => 500,
    }
}

/// Writes an error as the own dialect has it.
pub(crate) fn native_error(error: &Error) -> Value {
    use docvector_embed::BadTextReason::{TooLarge, TooLong};
    let bad_text = |bad: &docvector_embed::BadText| {
        let mut json = json!({"index": bad.index, "reason": bad.reason.as_str()});
        match bad.reason {
            TooLong { tokens, limit } => (json["tokens"], json["limit"]) = (json!(tokens), json!(limit)),
            TooLarge { bytes, limit } => (json["bytes"], json["limit"]) = (json!(bytes), json!(limit)),
            _ => {}
        }
        json
    };
    let bad_texts: Vec<Value> = error.bad_texts().iter().map(bad_text).collect();
    let message = error.to_string();
    json!({"error": message, "detail": message, "kind": error.kind().as_str(), "bad_texts": bad_texts})
}

/// Writes rows as a binary frame.
pub(crate) fn frame(rows: &Embeddings) -> Vec<u8> {
    let metadata = json!({
        "model": rows.space().model(), "space": rows.space().id().to_string(), "dimension": rows.dimensions(),
        "rows": rows.len(), "truncated": rows.truncated(), "tokens": rows.usage().tokens
    });
    let mut metadata = metadata.to_string();
    while !metadata.len().is_multiple_of(4) {
        metadata.push(' ');
    }
    let mut frame = b"DVE1".to_vec();
    frame.extend(u32::try_from(metadata.len()).expect("short").to_le_bytes());
    frame.extend(metadata.as_bytes());
    frame.extend(rows.as_slice().iter().flat_map(|number| number.to_le_bytes()));
    frame
}

/// Returns the counter of a fake, for limits of a client.
pub(crate) fn counter_of(fake: &Fake) -> TokenCount {
    fake.limits().tokens
}
