//! A server that follows a test's script, one step per request, and fails the test if there are too many or too few
//! requests.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use flate2::{Compress, Compression, Crc, FlushCompress, write::GzEncoder};
use serde_json::Value;
use tokio::{io::AsyncReadExt, time::sleep};

use super::stand_in::{self, Connection, Listening, Request, head};

/// The default number of components of a vector.
pub(crate) const DIMENSIONS: usize = 8;

/// The status of the reply to a request beyond the script; nothing else uses it.
const SURPLUS: u16 = 599;

/// Makes a body from the request.
type Render = Box<dyn Fn(&Request) -> Vec<u8> + Send + Sync>;

/// Changes an honest reply.
type Edit = Box<dyn Fn(&mut Value) + Send + Sync>;

/// Chooses the step for a request, given its number, from 1.
type Handler = Box<dyn Fn(usize, &Request) -> Step + Send + Sync>;

/// The server's reaction to one request.
pub(crate) enum Step {
    /// Answers honestly.
    Honest,
    /// Answers honestly, except for a change.
    Edited(Edit),
    /// Answers with success and this body.
    Body(Render),
    /// Answers with this status.
    Status { code: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Answers with this status and a web page, as gateways do.
    Html(u16),
    /// Answers with this status and another address.
    Redirect(u16, String),
    /// Answers honestly, compressed.
    Gzip,
    /// Answers honestly, compressed, after so many mebibytes of white space.
    GzipBomb(usize),
    /// Answers honestly after so many bytes of white space, without a content length.
    HugeBody(u64),
    /// Promises so many bytes and sends none.
    HugeLength(u64),
    /// Sends half the JSON as if it were the whole.
    TruncatedJson,
    /// Sends half the JSON; the end of the connection ends the body.
    TruncatedJsonNoLength,
    /// Sends half the body, and resets the connection.
    ResetMidBody,
    /// Sends half the body, and closes the connection.
    CloseMidBody,
    /// Answers with this status and the first half of the promised body. Then the connection ends or hangs.
    HalfAnError { code: u16, body: Vec<u8>, hangs: bool },
    /// Closes the connection without a reply.
    Hangup,
    /// Answers honestly, so many bytes at a time.
    Dribble { every: Duration, bytes: usize },
    /// Answers honestly, but late.
    SlowHeaders(Duration),
    /// Answers honestly as in HTTP/1.0: the end of the connection ends the body.
    Http10Close,
    /// Does a step with one more header.
    With(Box<Self>, String, String),
}

impl Step {
    /// Makes a reply with a status and an empty body.
    pub(crate) const fn status(code: u16) -> Self {
        Self::Status { code, headers: Vec::new(), body: Vec::new() }
    }

    /// Makes a reply with a status and JSON.
    pub(crate) fn json(code: u16, body: &Value) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self::Status { code, headers, body: body.to_string().into_bytes() }
    }

    /// Makes a refusal in OpenAI's form: the body's `type`, `code` and `message`.
    pub(crate) fn refusal(code: u16, kind: &str, name: Option<&str>, message: &str) -> Self {
        Self::json(code, &stand_in::refusal(message, kind, None, name))
    }

    /// Makes a success with a body that does not depend on the request.
    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::Body(Box::new(move |_| body.clone()))
    }

    /// Makes an honest reply with a change.
    pub(crate) fn edited(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::Edited(Box::new(edit))
    }

    /// Makes an honest reply with a change to its rows.
    pub(crate) fn rows(edit: impl Fn(&mut Vec<Value>) + Send + Sync + 'static) -> Self {
        Self::edited(move |reply| edit(reply["data"].as_array_mut().expect("an honest reply has rows")))
    }

    /// Makes an honest reply, except for the second text's vector.
    pub(crate) fn second_vector(vector: Value) -> Self {
        Self::rows(move |rows| rows[1]["embedding"] = vector.clone())
    }

    /// Makes the same step with one more header.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self::With(Box::new(self), name.to_owned(), value.to_owned())
    }

    /// Returns the step without its added headers, and these headers.
    fn peel(self) -> (Self, Vec<(String, String)>) {
        match self {
            Self::With(step, name, value) => {
                let (step, mut headers) = step.peel();
                headers.push((name, value));
                (step, headers)
            }
            step => (step, Vec::new()),
        }
    }
}

/// The scripted server. Dropping it ends it, and panics unless exactly one request used each step.
pub(crate) struct Server {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    dimensions: usize,
    script: Script,
    log: Mutex<Vec<Request>>,
    /// Requests beyond the script.
    surplus: AtomicUsize,
    /// Bytes of huge bodies that the client's side accepted.
    taken: AtomicU64,
}

enum Script {
    Steps(Mutex<VecDeque<Step>>),
    Handler(Handler),
}

impl Server {
    /// Starts a server that does one step per request, with a model of [`DIMENSIONS`].
    pub(crate) async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::start_with(DIMENSIONS, steps).await
    }

    /// Starts one with a model of so many dimensions.
    pub(crate) async fn start_with(dimensions: usize, steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Self::run(dimensions, Script::Steps(Mutex::new(steps))).await
    }

    /// Starts a server for any number of requests. `handler` gets each request and its number, from 1.
    pub(crate) async fn handling(handler: impl Fn(usize, &Request) -> Step + Send + Sync + 'static) -> Self {
        Self::run(DIMENSIONS, Script::Handler(Box::new(handler))).await
    }

    async fn run(dimensions: usize, script: Script) -> Self {
        let (log, surplus, taken) = (Mutex::default(), AtomicUsize::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { dimensions, script, log, surplus, taken });
        let inside = shared.clone();
        let listening = Listening::start(move |connection| serve(inside.clone(), connection)).await;
        Self { listening, shared }
    }

    /// Returns the base URL for clients.
    pub(crate) fn base_url(&self) -> String {
        self.listening.base_url()
    }

    /// Returns the requests so far, in order of arrival, including those beyond the script.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.log().clone()
    }

    /// Returns how many bytes of huge bodies were sent.
    pub(crate) fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A second panic would abort a test that already fails.
        if thread::panicking() {
            return;
        }
        let surplus = self.shared.surplus.load(Ordering::Relaxed);
        assert!(surplus == 0, "a request that was not in the script ({surplus} of them)");
        if let Script::Steps(steps) = &self.shared.script {
            let left = steps.lock().expect("nobody panicked").len();
            assert!(left == 0, "{left} steps of the script that no request took");
        }
    }
}

async fn serve(shared: Arc<Shared>, mut connection: Connection) {
    while let Ok(Some(request)) = connection.request().await {
        let step = shared.next(&request);
        let goes_on = shared.perform(&mut connection, step, &request).await;
        if request.is_last() || !goes_on.unwrap_or(false) {
            break;
        }
    }
}

impl Shared {
    fn log(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.log.lock().expect("nobody panicked")
    }

    /// Records a request and returns its step.
    fn next(&self, request: &Request) -> Step {
        let number = {
            let mut log = self.log();
            log.push(request.clone());
            log.len()
        };
        match &self.script {
            Script::Handler(handler) => handler(number, request),
            Script::Steps(steps) => steps.lock().expect("nobody panicked").pop_front().unwrap_or_else(|| {
                self.surplus.fetch_add(1, Ordering::Relaxed);
                Step::status(SURPLUS)
            }),
        }
    }

    /// Does a step, and returns whether the connection can be used again.
    async fn perform(&self, connection: &mut Connection, step: Step, request: &Request) -> io::Result<bool> {
        let (step, extra) = step.peel();
        let mut headers: Vec<(&str, &str)> =
            extra.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (status, reply) = stand_in::respond(request, self.dimensions);
        let honest = reply.to_string().into_bytes();
        let half = &honest[..honest.len() / 2];
        let length = honest.len().to_string();
        let with_length =
            |headers: &[(&str, &str)]| head(status, &[headers, &[("content-length", length.as_str())][..]].concat());
        match step {
            Step::With(..) => unreachable!("the headers are off"),
            Step::Honest => {
                headers.push(("content-type", "application/json"));
                connection.reply(status, &headers, &honest).await?;
            }
            Step::Edited(edit) => {
                let mut reply = reply;
                edit(&mut reply);
                connection.reply(status, &headers, reply.to_string().as_bytes()).await?;
            }
            Step::Body(render) => connection.reply(200, &headers, &render(request)).await?,
            Step::Status { code, headers: more, body } => {
                headers.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
                connection.reply(code, &headers, &body).await?;
            }
            Step::Html(code) => {
                headers.push(("content-type", "text/html"));
                connection.reply(code, &headers, b"<html><body><h1>Something went wrong</h1></body></html>").await?;
            }
            Step::Redirect(code, to) => {
                headers.push(("location", to.as_str()));
                connection.reply(code, &headers, b"").await?;
            }
            Step::Gzip => {
                headers.push(("content-encoding", "gzip"));
                connection.reply(status, &headers, &gzip(&honest)).await?;
            }
            Step::GzipBomb(mebibytes) => {
                headers.push(("content-encoding", "gzip"));
                connection.reply(status, &headers, &bomb(mebibytes, &honest)).await?;
            }
            Step::HugeBody(bytes) => {
                headers.push(("transfer-encoding", "chunked"));
                connection.send(&head(status, &headers)).await?;
                self.spaces(connection, bytes).await?;
                let last = [format!("{:x}\r\n", honest.len()).as_bytes(), &honest[..], b"\r\n0\r\n\r\n"].concat();
                connection.send(&last).await?;
            }
            Step::HugeLength(bytes) => {
                let length = bytes.to_string();
                headers.push(("content-length", length.as_str()));
                connection.send(&head(status, &headers)).await?;
                // A client that waits for a reply sends nothing, so this ends when the client goes away.
                let _ = connection.stream().read_u8().await;
                return Ok(false);
            }
            Step::TruncatedJson => connection.reply(status, &headers, half).await?,
            Step::TruncatedJsonNoLength => {
                headers.push(("connection", "close"));
                connection.send(&head(status, &headers)).await?;
                connection.send(half).await?;
                return Ok(false);
            }
            Step::ResetMidBody => {
                connection.send(&with_length(&headers)).await?;
                connection.send(half).await?;
                // A reset overtakes bytes in transit, so these get time to arrive first.
                sleep(Duration::from_millis(20)).await;
                connection.stream().set_zero_linger()?;
                return Ok(false);
            }
            Step::CloseMidBody => {
                connection.send(&with_length(&headers)).await?;
                connection.send(half).await?;
                return Ok(false);
            }
            Step::HalfAnError { code, body, hangs } => {
                let length = body.len().to_string();
                headers.push(("content-length", length.as_str()));
                connection.send(&head(code, &headers)).await?;
                connection.send(&body[..body.len() / 2]).await?;
                if hangs {
                    // Hangs until the client goes away.
                    let _ = connection.stream().read_u8().await;
                }
                return Ok(false);
            }
            Step::Hangup => return Ok(false),
            Step::Dribble { every, bytes } => {
                connection.send(&with_length(&headers)).await?;
                for some in honest.chunks(bytes) {
                    connection.send(some).await?;
                    sleep(every).await;
                }
            }
            Step::SlowHeaders(wait) => {
                sleep(wait).await;
                connection.reply(status, &headers, &honest).await?;
            }
            Step::Http10Close => {
                let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                connection.send(format!("HTTP/1.0 {status} OK\r\n{lines}\r\n").as_bytes()).await?;
                connection.send(&honest).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends so many bytes of white space in chunks.
    async fn spaces(&self, connection: &mut Connection, bytes: u64) -> io::Result<()> {
        const CHUNK: usize = 64 << 10;
        let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &[b' '; CHUNK][..], b"\r\n"].concat();
        while self.taken.load(Ordering::Relaxed) < bytes {
            connection.send(&chunk).await?;
            self.taken.fetch_add(CHUNK as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Compresses so many mebibytes of white space followed by `body`; each mebibyte takes about a kilobyte.
fn bomb(mebibytes: usize, body: &[u8]) -> Vec<u8> {
    let deflate = |data: &[u8], flush: FlushCompress| {
        let mut out = Vec::with_capacity(data.len() + 1024);
        Compress::new(Compression::best(), false).compress_vec(data, &mut out, flush).expect("deflates");
        out
    };
    let check = |data: &[u8]| {
        let mut check = Crc::new();
        check.update(data);
        check
    };
    let mebibyte = vec![b' '; 1 << 20];
    // After a full flush the block ends on a byte and refers to nothing before it, so it can be repeated.
    let (piece, piece_check) = (deflate(&mebibyte, FlushCompress::Full), check(&mebibyte));
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut whole = Crc::new();
    for _ in 0..mebibytes {
        bomb.extend_from_slice(&piece);
        whole.combine(&piece_check);
    }
    bomb.extend(deflate(body, FlushCompress::Finish));
    whole.combine(&check(body));
    bomb.extend(whole.sum().to_le_bytes());
    bomb.extend(whole.amount().to_le_bytes());
    bomb
}

mod tests {
    use std::{
        any::Any,
        io::Read,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use flate2::read::GzDecoder;
    use serde_json::json;
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    use super::*;

    /// Sends bodies over one connection and reads all replies.
    async fn ask(base_url: &str, bodies: &[Value]) -> String {
        let address = base_url.trim_start_matches("http://").trim_end_matches("/v1");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        for (number, body) in bodies.iter().enumerate() {
            let body = body.to_string();
            let connection = if number + 1 == bodies.len() { "close" } else { "keep-alive" };
            let headers = format!("Connection: {connection}\r\nContent-Length: {}\r\n", body.len());
            let head = format!("POST /v1/embeddings HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await.expect("takes it");
        }
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.expect("answers");
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Returns the message of the panic in the server's drop.
    fn panic_of(server: Server) -> String {
        let panic: Box<dyn Any + Send> =
            catch_unwind(AssertUnwindSafe(|| drop(server))).expect_err("the drop was to panic");
        panic.downcast_ref::<String>().expect("a message").clone()
    }

    #[tokio::test]
    async fn a_step_that_no_request_takes_fails_the_test() {
        let server = Server::start([Step::Honest, Step::Honest]).await;
        ask(&server.base_url(), &[json!({"model": "m", "input": ["a"]})]).await;
        assert_eq!(panic_of(server), "1 steps of the script that no request took");
    }

    #[tokio::test]
    async fn a_request_beyond_the_script_fails_the_test() {
        let server = Server::start([Step::Honest]).await;
        let body = json!({"model": "m", "input": ["a"]});
        let replies = ask(&server.base_url(), &[body.clone(), body]).await;
        assert!(replies.starts_with("HTTP/1.1 200 ") && replies.contains("HTTP/1.1 599 "), "{replies}");
        assert_eq!(server.requests().len(), 2);
        assert_eq!(panic_of(server), "a request that was not in the script (1 of them)");
    }

    #[tokio::test]
    async fn a_script_that_is_followed_is_no_failure() {
        let server = Server::start([Step::status(503).header("retry-after", "1"), Step::Honest]).await;
        let body = json!({"model": "m", "input": ["a text", "another"]});
        let replies = ask(&server.base_url(), &[body.clone(), body]).await;
        assert!(replies.starts_with("HTTP/1.1 503 ") && replies.contains("retry-after: 1\r\n"), "{replies}");
        // Two requests of one connection are told apart; header names are in lower case.
        let requests = server.requests();
        assert_eq!(requests[1].texts(), ["a text", "another"]);
        assert_eq!(requests[0].header("connection"), Some("keep-alive"));
    }

    #[tokio::test]
    async fn the_stand_in_answers_with_the_vectors_that_it_tells() {
        let server = stand_in::StandIn::start(6).await;
        let replies = ask(&server.base_url(), &[json!({"model": "m", "input": ["a", "bcdef"], "dimensions": 4})]).await;
        let (head, body) = replies.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("x-request-id: req_1"), "{head}");
        let reply: Value = serde_json::from_str(body).expect("JSON");
        // Compared as 32-bit floats, because this JSON parser may miss the last digit of 64 bits.
        let components = reply["data"][1]["embedding"].as_array().expect("a vector").iter();
        let components: Vec<f32> = components.map(|component| component.as_f64().expect("a number") as f32).collect();
        assert_eq!(components, stand_in::vector("bcdef", 4));
        assert_eq!(reply["usage"]["prompt_tokens"], 3);
        assert_eq!(server.requests(), 1);
    }

    #[test]
    fn the_stand_in_refuses_what_servers_refuse() {
        let code = |request: Value| stand_in::answer(&request, 4).0;
        assert_eq!(code(json!({"model": "m", "input": "a"})), 200);
        for request in [
            json!({"model": "m", "input": []}),
            json!({"model": "m", "input": ["a", ""]}),
            json!({"model": "m", "input": [[1, 2]]}),
            json!({"model": "m", "input": vec!["a"; 2049]}),
            json!({"model": "m", "input": ["a"], "dimensions": null}),
            json!({"model": "m", "input": ["a"], "dimensions": 5}),
            json!({"model": "m", "input": ["a"], "encoding_format": ""}),
            json!({"input": ["a"]}),
        ] {
            assert_eq!(code(request.clone()), 400, "{request}");
        }
    }

    #[test]
    fn the_stand_ins_vectors_are_of_unit_length_and_their_own() {
        let (a, b) = (stand_in::vector("a", 512), stand_in::vector("b", 512));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!((dot(&a, &a) - 1.0).abs() < 1e-5 && dot(&a, &b).abs() < 0.3);
        let short = stand_in::vector("a", 8);
        let cosine = dot(&a[..8], &short) / dot(&a[..8], &a[..8]).sqrt();
        assert!((cosine - 1.0).abs() < 1e-5, "the beginning of a vector, stretched, is the shorter one");
    }

    #[test]
    fn a_bomb_is_what_it_says() {
        let packed = bomb(3, b"{}");
        assert!(packed.len() < 3 * 2048, "{} bytes", packed.len());
        let mut plain = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut plain).expect("gzip, checks included");
        assert_eq!((plain.len(), plain.trim()), ((3 << 20) + 2, "{}"));
    }
}
