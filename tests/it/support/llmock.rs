//! Runs llmock, which fails on request, records every attempt with its time, and judges the client: [`Llmock`].

use std::{
    env,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use docvector_embed::{Space, provider::OpenAi};
use serde_json::{Value, json};

use super::root;

pub(crate) const MODEL: &str = "text-embedding-3-small";
/// The key by which llmock tells its clients apart.
const KEY: &str = "sk-for-llmock";

/// A running llmock. Dropping it ends it.
pub(crate) struct Llmock {
    process: Child,
    port: u16,
}

impl Llmock {
    /// Starts llmock on a free loopback port and waits until it replies.
    pub(crate) fn start(options: &[&str]) -> Self {
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

    #[cfg(feature = "remote")]
    pub(crate) fn remote(&self) -> docvector_embed::provider::RemoteBuilder {
        let builder = docvector_embed::provider::Remote::builder(self.base_url()).with_model(MODEL);
        builder.with_space(Space::builder("llmock", 1536).build().expect("valid")).with_api_key(KEY)
    }

    fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Builds a client of it. Its vectors are not of length 1, as OpenAI's are, so they need a space of their own.
    pub(crate) fn openai(&self) -> OpenAi {
        let space = Space::builder("llmock", 1536).build().expect("valid");
        let builder = OpenAi::builder(MODEL).with_space(space).with_api_key(KEY);
        builder.with_base_url(self.base_url()).build().expect("valid")
    }

    /// Tells llmock what to do with the next requests.
    pub(crate) fn script(&self, behavior: &Value) {
        let reply = self.ask("POST", "/_llmock/scenario", Some(&json!({"behaviors": [behavior]})));
        assert_eq!(reply.expect("an answer").status, 201, "{behavior}");
    }

    /// Returns the statuses of all requests so far, oldest first.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let seen = self.get("/_llmock/requests");
        let statuses = seen["requests"].as_array().expect("requests").iter().map(|seen| seen["status"].as_u64());
        statuses.map(|status| status.and_then(|status| u16::try_from(status).ok()).expect("a status")).collect()
    }

    /// Fails if the client got an error or a warning so far.
    pub(crate) fn judge(&self) {
        let verdict = self.get("/_llmock/verdict");
        let clean = verdict["passed"] == true && verdict["errors"] == 0 && verdict["warnings"] == 0;
        assert!(clean, "{verdict:#}");
        assert_ne!(verdict["calls"], 0, "there is something to judge");
    }

    /// Checks the same by llmock's own command.
    pub(crate) fn report(&self) {
        let url = format!("http://127.0.0.1:{}", self.port);
        let mut command = Command::new(program());
        // Without this, it would use a proxy for loopback too.
        let report = command.args(["report", "--strict", "--json", "--url", &url]).env("NO_PROXY", "*").output();
        let report = report.expect("llmock runs");
        let said = String::from_utf8_lossy(&report.stdout);
        assert!(report.status.success(), "{said}{}", String::from_utf8_lossy(&report.stderr));
    }

    /// Makes llmock forget the requests and its instructions.
    pub(crate) fn forget(&self) {
        assert_eq!(self.ask("POST", "/_llmock/reset", None).expect("an answer").status, 200);
    }

    /// Makes llmock forget the requests, but not the used quota.
    pub(crate) fn clear_requests(&self) {
        assert_eq!(self.ask("DELETE", "/_llmock/requests", None).expect("an answer").status, 200);
    }

    /// Embeds one text without the code under test. If the server fails at random, this may take a few attempts, which
    /// the server would count against the client: call it after the verdict.
    pub(crate) fn embed(&self, text: &str) -> Reply {
        let body = json!({"model": MODEL, "input": [text]});
        let attempt = |_| self.ask("POST", "/v1/embeddings", Some(&body)).expect("an answer");
        (0..50).map(attempt).find(|reply| reply.status == 200).expect("an embedding")
    }

    /// Returns the vector of one text in a request of its own.
    pub(crate) fn vector(&self, text: &str) -> Vec<f32> {
        let reply = self.embed(text).json();
        let components = reply["data"][0]["embedding"].as_array().expect("a vector").iter();
        components.map(|component| component.as_f64().expect("a number") as f32).collect()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
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

pub(crate) struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn json(&self) -> Value {
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
