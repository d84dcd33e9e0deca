//! `serve`, run as users run it: its start, its end, and the cloud's notice.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::program;
use crate::{server::Client, support::minilm};

/// A running `serve`, killed when dropped.
struct Serving {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
    address: SocketAddr,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// Starts the program, and waits until it is ready.
    fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = program();
        command.args(["serve", "--port", "0"]).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_remove("EMBEDDING_SERVICE_KEYS");
        change(&mut command);
        let mut child = command.spawn().expect("the program starts");
        let told = BufReader::new(child.stderr.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || told.lines().map_while(Result::ok).try_for_each(|line| send.send(line).ok()));
        let mut serving = Self { child, lines, said: Vec::new(), address: ([127, 0, 0, 1], 0).into() };
        let ready = serving.wait_for("ready in ");
        let address = ready.split("http://").nth(1).and_then(|rest| rest.split([',', ' ']).next()).expect("an address");
        serving.address = address.parse().expect("an address");
        serving
    }

    /// Waits for a line with these words.
    fn wait_for(&mut self, words: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
        panic!("{words:?} is not said: {:#?}", self.said);
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill").success());
    }

    fn ended(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a process") {
                return (status, started.elapsed());
            }
            assert!(started.elapsed() < Duration::from_secs(30), "it goes on: {:#?}", self.said);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn model() -> String {
    minilm().to_string_lossy().into_owned()
}

#[test]
fn a_model_is_served_until_a_signal() {
    let mut serving =
        Serving::start(&["--model", &model(), "--alias", "text-embedding-3-small", "--token-ids", "model"]);
    assert!(serving.said.iter().any(|line| line.starts_with("loading the model")), "{:?}", serving.said);
    assert!(serving.said.iter().any(|line| line.contains("warming up")), "{:?}", serving.said);
    let client = serving.client();
    let reply = client.embed(&["hello", "world"]);
    assert_eq!((reply.status, &reply.json()["dimension"]), (200, &json!(384)), "{}", reply.text());
    let health = client.get("/health").json();
    assert_eq!((&health["model"], &health["device"]), (&json!("all-MiniLM-L6-v2"), &json!("cpu")));
    // Ids of the model's vocabulary are the text that they stand for.
    let tokens = client.post("/tokenize", &json!({"inputs": "hello world", "add_special_tokens": false})).json();
    let ids: Vec<u64> = tokens[0].as_array().expect("tokens").iter().filter_map(|token| token["id"].as_u64()).collect();
    assert_eq!(client.post("/decode", &json!({"ids": ids})).json(), json!(["hello world"]));
    let special = client.post("/tokenize", &json!({"inputs": "hello world"})).json();
    assert_eq!(special[0][0], json!({"id": 101, "text": "[CLS]", "special": true, "start": null, "stop": null}));
    let by = |input: serde_json::Value| {
        let reply = client.post("/v1/embeddings", &json!({"input": input, "model": "text-embedding-3-small"}));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["data"][0]["embedding"].clone()
    };
    assert_eq!(by(json!([ids])), by(json!("hello world")));
    assert!(client.get("/metrics").text().contains("docvector_embed_engine_padded_tokens_total"));
    serving.signal("TERM");
    let (status, time) = serving.ended();
    assert!(status.success() && time < Duration::from_secs(3), "{status} after {time:?}: {:#?}", serving.said);
    serving.wait_for("terminated: 0 requests under way");
    serving.wait_for("ended: all that was accepted");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut serving = Serving::start(&["--model", &model(), "--drain-seconds", "60", "--queue-tokens", "9000000"]);
    let client = serving.client();
    // Work for many seconds.
    let text = "a long text of many words ".repeat(60);
    let work = thread::spawn(move || client.post("/embed", &json!({"texts": vec![text; 4_000]}).clone()).status);
    let client = serving.client();
    let has_work = || client.get("/status").json()["queue"]["bulk"]["texts"] == 4_000;
    let end = Instant::now() + Duration::from_secs(20);
    while !has_work() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(10));
    }
    serving.signal("INT");
    serving.wait_for("interrupted: 1 requests under way");
    assert_eq!(client.get("/readyz").status, 503);
    serving.signal("INT");
    let (status, time) = serving.ended();
    assert!(status.code() == Some(1) && time < Duration::from_secs(2), "{status} after {time:?}");
    assert!(work.join().is_err(), "the client's connection was cut");
}

/// Each cloud says in its own way that it takes the machine away.
#[test]
fn the_clouds_notice_is_a_signal() {
    for (cloud, notice) in [
        ("gcp", "TRUE"),
        ("aws", "{\"action\": \"terminate\"}"),
        ("azure", "{\"Events\": [{\"EventType\": \"Preempt\"}]}"),
    ] {
        let metadata = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", metadata.local_addr().expect("bound"));
        let (say, said) = mpsc::channel();
        let cloud_of = cloud.to_owned();
        thread::spawn(move || answer(&metadata, &cloud_of, notice, &said));
        let mut serving = Serving::start_with(&["--model", &model(), "--preemption", cloud], |command| {
            command.env("DOCVECTOR_EMBED_METADATA_URL", &url);
        });
        thread::sleep(Duration::from_millis(300));
        serving.client().is_served();
        say.send(()).expect("the cloud runs");
        serving.wait_for("the cloud takes the machine away");
        assert!(serving.ended().0.success(), "{cloud}");
    }
}

/// Answers as a cloud's metadata do: that nothing happens, and after a message the notice.
fn answer(listener: &TcpListener, cloud: &str, notice: &str, said: &mpsc::Receiver<()>) {
    let mut is_said = false;
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let mut head = [0; 2048];
        let length = stream.read(&mut head).unwrap_or_default();
        let head = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
        is_said = is_said || said.try_recv().is_ok();
        if cloud == "gcp" && !is_said {
            // It answers when something changes.
            assert!(head.contains("metadata-flavor: google") && head.contains("wait_for_change=true"), "{head}");
            is_said = said.recv_timeout(Duration::from_secs(30)).is_ok();
        }
        let (status, body) = match cloud {
            "aws" if head.starts_with("put /latest/api/token") => ("200 OK", "token"),
            "aws" if !is_said => ("404 Not Found", ""),
            "azure" if !is_said => ("200 OK", "{\"Events\": []}"),
            _ => ("200 OK", notice),
        };
        assert!(
            cloud != "aws" || head.starts_with("put") || head.contains("x-aws-ec2-metadata-token: token"),
            "{head}"
        );
        assert!(cloud != "azure" || head.contains("metadata: true"), "{head}");
        let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(reply.as_bytes());
    }
}

#[test]
fn what_cannot_be_served_is_told_before_or_after_loading() {
    let failed = |arguments: &[&str]| {
        let output = super::run(program().args(["serve", "--port", "0"]).args(arguments), b"");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        super::stderr(&output)
    };
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("nothing").to_string_lossy().into_owned();
    let words = failed(&["--model", &missing]);
    assert!(words.contains("error: ") && words.contains("nothing"), "{words}");
    let words = failed(&["--model", &model(), "--api-keys", &missing]);
    assert!(words.contains("the keys cannot be read from"), "{words}");
    let empty = folder.path().join("keys.txt");
    std::fs::write(&empty, "\n \n").expect("written");
    let words = failed(&["--model", &model(), "--api-keys", &empty.to_string_lossy()]);
    assert!(words.contains("there is no key in"), "{words}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = super::run(program().args(["serve", "--model", &model(), "--port", &port]), b"");
    assert!(super::stderr(&output).contains("cannot be listened on"), "{}", super::stderr(&output));
}

#[test]
fn keys_come_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys.txt");
    std::fs::write(&keys, "one\n\n two \n").expect("written");
    let status = |serving: &Serving, key: &str| {
        serving.client().with("authorization", &format!("Bearer {key}")).embed(&["a"]).status
    };
    let serving = Serving::start(&["--model", &model(), "--api-keys", &keys.to_string_lossy()]);
    assert_eq!(["one", "two", "three"].map(|key| status(&serving, key)), [200, 200, 401]);
    let serving = Serving::start_with(&["--model", &model(), "--cache", &cache(folder.path())], |command| {
        command.env("EMBEDDING_SERVICE_KEYS", "three,four");
    });
    assert_eq!(["one", "three", "four"].map(|key| status(&serving, key)), [401, 200, 200]);
    // The cache answers the second time.
    let client = serving.client().with("authorization", "Bearer four");
    assert_eq!(client.embed(&["cached"]).number("x-embed-tokens"), Some(4));
    assert_eq!(client.embed(&["cached"]).number("x-embed-tokens"), Some(0));
}

fn cache(folder: &Path) -> String {
    folder.join("cache.sqlite").to_string_lossy().into_owned()
}
