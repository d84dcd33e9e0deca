//! Checks the client against llmock, which fails on request, records every attempt with its time, and judges the
//! client: it must give neither an error nor a warning. llmock replies slowly and really waits, so these tests take
//! seconds.
#![cfg(unix)]

use std::{
    env,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use docvector_embed::{
    Embedder, EmbedderExt, ErrorKind, Space,
    provider::OpenAi,
    wrap::{RateLimiter, RetryPolicy, Totals},
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::root;

const MODEL: &str = "text-embedding-3-small";
/// The key by which llmock tells its clients apart.
const KEY: &str = "sk-for-llmock";
/// Concurrent calls.
const IN_FLIGHT: usize = 8;

/// Returns a policy with short waits. If the server asks for no wait, llmock warns of waits that do not grow by a
/// tenth. One time in four, two random waits do not grow so; those of this seed do, in every run.
fn policy() -> RetryPolicy {
    RetryPolicy::default()
        .with_attempts(5)
        .with_backoff(Duration::from_millis(200), Duration::from_secs(5))
        .with_seed(39)
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    let server = Llmock::start(&[]);
    let cases = [
        // The server's instruction, and the number of requests that it applies to.
        (json!({"type": "fail", "status": 429, "retry_after": 1, "times": 2}), 2),
        // A wait of less than a second comes in milliseconds only.
        (json!({"type": "fail", "status": 429, "retry_after": 0.3, "times": 2}), 2),
        // The server asks for no wait, so the client's own waits must grow.
        (json!({"type": "fail", "status": 500, "times": 3}), 3),
        (json!({"type": "fail", "status": 502, "times": 2}), 2),
        (json!({"type": "fail", "status": 503}), 1),
        (json!({"type": "fail", "status": 529}), 1),
        // The server is down for three of five attempts.
        (json!({"type": "fail", "status": 503, "times": 3}), 3),
    ];
    for (number, (behavior, failures)) in cases.into_iter().enumerate() {
        let text = format!("case {number}");
        let stack = server.stack(policy(), Duration::from_secs(60));
        server.script(&behavior);
        let rows = stack.embed_documents(&[&text]).await.unwrap_or_else(|error| panic!("{behavior}: {error}"));
        let statuses = server.statuses();
        assert_eq!(statuses.len(), failures + 1, "{behavior}: {statuses:?}");
        assert_eq!(statuses.last(), Some(&200), "{behavior}: {statuses:?}");
        server.judge();
        assert_eq!(rows.row(0), server.vector(&text), "{behavior}");
        server.forget();
    }
}

#[tokio::test]
async fn refusals_are_not_tried_again() {
    let server = Llmock::start(&[]);
    let stack = server.stack(policy(), Duration::from_secs(60));
    let cases = [
        (400, ErrorKind::InvalidInput, "bad_request"),
        (401, ErrorKind::Auth, "invalid_api_key"),
        (403, ErrorKind::Auth, "forbidden"),
        (404, ErrorKind::Config, "not_found"),
        (422, ErrorKind::InvalidInput, "unprocessable_entity"),
    ];
    for (status, kind, code) in cases {
        server.script(&json!({"type": "fail", "status": status, "times": null}));
        let error = stack.embed_documents(&[format!("refused with {status}")]).await.expect_err("refused");
        assert_eq!((error.kind(), error.status(), error.provider_code()), (kind, Some(status), Some(code)), "{error}");
        assert_eq!(server.statuses(), [status]);
        server.judge();
        server.forget();
    }
}

#[tokio::test]
async fn an_outage_ends_after_the_attempts_allowed() {
    let server = Llmock::start(&[]);
    let stack = server.stack(policy().with_attempts(3), Duration::from_secs(60));
    server.script(&json!({"type": "fail", "status": 503, "retry_after": 0.2, "times": null}));
    let error = stack.embed_documents(&["the server is down"]).await.expect_err("down");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unavailable, Some(503)), "{error}");
    assert!(!error.is_retryable(), "an outer retry would multiply the attempts: {error}");
    assert_eq!(server.statuses(), [503, 503, 503]);
    server.judge();
    server.report();
}

#[tokio::test]
async fn rows_belong_to_their_texts() {
    let server = Llmock::start(&[]);
    let stack = server.stack(policy(), Duration::from_secs(60));
    let texts: Vec<String> = (0..12).map(|i| format!("text {i} of one call, é")).collect();
    server.script(&json!({"type": "fail", "status": 503, "retry_after": 0.1}));
    let rows = stack.embed_documents(&texts).await.expect("embeds");
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert_eq!(row, server.vector(text), "{text}");
    }
    server.judge();
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_made_again() {
    let server = Llmock::start(&[]);
    let stack = server.stack(policy(), Duration::from_secs(3));
    // The delay is longer than the test, so this attempt gets no reply.
    server.script(&json!({"type": "delay", "seconds": 600}));
    let rows = stack.embed_documents(&["slow at first"]).await.expect("the second attempt is answered");
    assert_eq!(rows.usage().unanswered, 1, "the attempt given up may be billed");
    server.judge();
    assert_eq!(rows.row(0), server.vector("slow at first"));
}

/// Another client with the same key has used up the quota, which only the replies tell. The quota grows by four
/// requests per second: clients that wait exactly as long as each reply says collide again each time, and give up.
#[tokio::test]
async fn a_quota_is_learned_from_the_answers_and_kept() {
    let server = Llmock::start(&["--rpm", "240"]);
    while server.embed("somebody else's").header("x-ratelimit-remaining-requests") != Some("0") {}
    server.clear_requests();

    let stack = server.stack(policy(), Duration::from_secs(60));
    let texts: Vec<String> = (0..24).map(|i| format!("call {i}")).collect();
    let results = join_all(texts.iter().map(|text| stack.embed_query(text))).await;
    for (text, result) in texts.iter().zip(results) {
        result.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let statuses = server.statuses();
    let refused = statuses.iter().filter(|&&status| status == 429).count();
    // All requests may have begun before the first reply; after it, the server refuses next to none.
    assert!(refused <= texts.len(), "{refused} of {} attempts were refused", statuses.len());
    server.judge();
    server.report();
}

/// llmock counts a token for every four bytes of the whole request, more than the text has. So only its replies tell
/// what is left.
#[tokio::test]
async fn a_quota_of_tokens_is_kept_too() {
    let server = Llmock::start(&["--tpm", "24000"]);
    let reply = server.embed(&"x".repeat(95_500));
    let left = reply.header("x-ratelimit-remaining-tokens").and_then(|left| left.parse::<u64>().ok());
    assert!(left.is_some_and(|left| left < 300), "{left:?} tokens are left");
    server.clear_requests();

    // A client that counts fewer tokens than the server sometimes comes too early.
    let stack = server.stack(policy().with_attempts(7), Duration::from_secs(60));
    let texts: Vec<String> = (0..16).map(|i| format!("call {i} {}", "word ".repeat(80))).collect();
    let results = join_all(texts.iter().map(|text| stack.embed_query(text))).await;
    for (number, result) in results.into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("call {number}: {error}"));
    }
    server.judge();
    server.report();
}

#[tokio::test]
async fn random_failures_under_many_calls_lose_nothing() {
    let server = Llmock::start(&["--error-rate", "429=0.2", "--error-rate", "503=0.1"]);
    let stack = server.stack(policy(), Duration::from_secs(60));
    let texts: Vec<String> = (0..48).map(|i| format!("chaos {i}")).collect();
    let results = join_all(texts.iter().map(|text| stack.embed_documents(std::slice::from_ref(text)))).await;
    let mut done = Vec::new();
    for (text, result) in texts.iter().zip(results) {
        match result {
            Ok(rows) => done.push((text, rows)),
            // Five failures in a row happen in one of four hundred calls.
            Err(error) => {
                let kinds = [ErrorKind::RateLimited, ErrorKind::Unavailable];
                assert!(kinds.contains(&error.kind()) && !error.is_retryable(), "{text}: {error}");
            }
        }
    }
    assert!(done.len() > texts.len() / 2, "{} of {} calls succeeded", done.len(), texts.len());
    let statuses = server.statuses();
    assert!(statuses.iter().any(|&status| status == 429 || status == 503), "nothing failed: {statuses:?}");
    let answered = statuses.iter().filter(|&&status| status == 200).count();
    assert_eq!(answered, done.len(), "every answer was used, and none was asked for twice");
    server.judge();
    server.report();
    for (text, rows) in done {
        assert_eq!(rows.row(0), server.vector(text), "{text}");
    }
}

/// A running llmock. Dropping it ends it.
struct Llmock {
    process: Child,
    port: u16,
}

impl Llmock {
    /// Starts llmock on a free loopback port and waits until it replies.
    fn start(options: &[&str]) -> Self {
        let program = program();
        // Another program may take the port after it was chosen, so several are tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
            let mut command = Command::new(&program);
            for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LLMOCK_")) {
                command.env_remove(name);
            }
            command.args(["serve", "--host", "127.0.0.1", "--log-level", "critical", "--port", &port.to_string()]);
            let process = command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            let mut server = Self { process: process.expect("llmock starts"), port };
            if server.answers() {
                return server;
            }
        }
        panic!("llmock ended by itself, five times");
    }

    /// Waits for the first reply; false if the process ended instead.
    fn answers(&mut self) -> bool {
        let give_up = Instant::now() + Duration::from_secs(120);
        while self.process.try_wait().expect("its state").is_none() {
            if self.ask("GET", "/health", None).is_ok_and(|reply| reply.status == 200) {
                return self.process.try_wait().expect("its state").is_none();
            }
            assert!(Instant::now() < give_up, "llmock does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Builds the documented stack. A new limiter knows no limits and learns them from the replies.
    fn stack(&self, policy: RetryPolicy, timeout: Duration) -> impl Embedder + use<> {
        // llmock's vectors are not of length 1, as OpenAI's are, so they need a space of their own.
        let space = Space::builder("llmock", 1536).build().expect("valid");
        let openai = OpenAi::builder(MODEL)
            .with_space(space)
            .with_api_key(KEY)
            .with_base_url(format!("http://127.0.0.1:{}/v1", self.port))
            .build()
            .expect("valid");
        let metered = openai.metered(Totals::new());
        metered.timeout(timeout).concurrency(IN_FLIGHT).rate_limit(RateLimiter::new()).retry(policy)
    }

    /// Tells llmock what to do with the next requests.
    fn script(&self, behavior: &Value) {
        let reply = self.ask("POST", "/_llmock/scenario", Some(&json!({"behaviors": [behavior]})));
        assert_eq!(reply.expect("an answer").status, 201, "{behavior}");
    }

    /// Returns the statuses of all requests so far, oldest first.
    fn statuses(&self) -> Vec<u16> {
        let seen = self.get("/_llmock/requests");
        let statuses = seen["requests"].as_array().expect("requests").iter().map(|seen| seen["status"].as_u64());
        statuses.map(|status| status.and_then(|status| u16::try_from(status).ok()).expect("a status")).collect()
    }

    /// Fails if the client got an error or a warning so far.
    fn judge(&self) {
        let verdict = self.get("/_llmock/verdict");
        let clean = verdict["passed"] == true && verdict["errors"] == 0 && verdict["warnings"] == 0;
        assert!(clean, "{verdict:#}");
        assert_ne!(verdict["calls"], 0, "there is something to judge");
    }

    /// Checks the same by llmock's own command.
    fn report(&self) {
        let url = format!("http://127.0.0.1:{}", self.port);
        let mut command = Command::new(program());
        // Without this, it would use a proxy for loopback too.
        let report = command.args(["report", "--strict", "--json", "--url", &url]).env("NO_PROXY", "*").output();
        let report = report.expect("llmock runs");
        let said = String::from_utf8_lossy(&report.stdout);
        assert!(report.status.success(), "{said}{}", String::from_utf8_lossy(&report.stderr));
    }

    /// Makes llmock forget the requests and its instructions.
    fn forget(&self) {
        assert_eq!(self.ask("POST", "/_llmock/reset", None).expect("an answer").status, 200);
    }

    /// Makes llmock forget the requests, but not the used quota.
    fn clear_requests(&self) {
        assert_eq!(self.ask("DELETE", "/_llmock/requests", None).expect("an answer").status, 200);
    }

    /// Embeds one text without the code under test. If the server fails at random, this may take a few attempts, which
    /// the server would count against the client: call it after the verdict.
    fn embed(&self, text: &str) -> Reply {
        let body = json!({"model": MODEL, "input": [text]});
        let attempt = |_| self.ask("POST", "/v1/embeddings", Some(&body)).expect("an answer");
        (0..50).map(attempt).find(|reply| reply.status == 200).expect("an embedding")
    }

    /// Returns the vector of one text in a request of its own.
    fn vector(&self, text: &str) -> Vec<f32> {
        let reply = self.embed(text).json();
        let components = reply["data"][0]["embedding"].as_array().expect("a vector").iter();
        components.map(|component| component.as_f64().expect("a number") as f32).collect()
    }

    fn get(&self, path: &str) -> Value {
        let reply = self.ask("GET", path, None).expect("an answer");
        assert_eq!(reply.status, 200, "{path}");
        reply.json()
    }

    /// Sends one request and returns its whole reply.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Reply> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let fields = [
            format!("{method} {path} HTTP/1.1"),
            "Host: 127.0.0.1".to_owned(),
            "Connection: close".to_owned(),
            format!("Authorization: Bearer {KEY}"),
            "Content-Type: application/json".to_owned(),
            format!("Content-Length: {}", body.len()),
        ];
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(format!("{}\r\n\r\n{body}", fields.join("\r\n")).as_bytes())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Reply { status, head: head.to_owned(), body: body.to_owned() })
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// Returns the path of llmock.
fn program() -> PathBuf {
    let program =
        env::var_os("DOCVECTOR_EMBED_LLMOCK").map_or_else(|| root().join("target/tools/bin/llmock"), PathBuf::from);
    assert!(program.is_file(), "{} is missing: run scripts/fetch-tools", program.display());
    program
}
