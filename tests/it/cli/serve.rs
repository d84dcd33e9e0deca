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

use super::{program, with_default_signals};
use crate::{
    server::{Client, is_at_once},
    support::minilm,
};

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
        command.args(["serve", "--port", "0"]).args(arguments).env_remove("EMBEDDING_SERVICE_KEYS");
        change(&mut command);
        let mut command = with_default_signals(&command);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
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
        if let Some(line) = self.said.iter().find(|line| line.contains(words)) {
            return line.clone();
        }
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
    assert!(status.success() && time < Duration::from_secs(20), "{status} after {time:?}: {:#?}", serving.said);
    serving.wait_for("terminated: 0 requests under way");
    serving.wait_for("ended: what was accepted is answered");
}

#[cfg(feature = "testing")]
#[test]
fn a_model_that_names_its_server_is_asked_there() {
    let simulator = docvector_embed::testing::Simulator::start().expect("starts");
    let model = format!("openai:text-embedding-3-small@{}", simulator.base_url());
    let serving = Serving::start_with(&["--model", &model, "--dimensions", "8"], |command| {
        command.env_remove("OPENAI_BASE_URL").env("OPENAI_API_KEY", "sk-test");
    });
    let reply = serving.client().embed(&["one"]);
    assert_eq!((reply.status, &reply.json()["dimension"]), (200, &json!(8)), "{}", reply.text());
    assert_eq!(simulator.bills().texts, 1);
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut serving = Serving::start(&["--model", &model(), "--drain-seconds", "60", "--queue-tokens", "9000000"]);
    let client = serving.client();
    // Work for many seconds.
    let text = "a long text of many words ".repeat(60);
    let work = thread::spawn(move || client.post("/embed", &json!({"texts": vec![text; 4_000]}).clone()));
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
    assert!(status.code() == Some(1) && time < Duration::from_secs(20), "{status} after {time:?}");
    // The client hears that the service ends, and not that the model failed.
    let reply = work.join().expect("an answer");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{}", reply.text());
}

/// Each cloud says in its own way that it takes the machine away.
#[test]
fn the_clouds_notice_is_a_signal() {
    for (cloud, notice) in [
        ("gcp", "TRUE"),
        ("aws", "{\"action\": \"terminate\"}"),
        ("azure", "{\"Events\": [{\"EventType\": \"Preempt\", \"Resources\": [\"Own-VM\"]}]}"),
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
        assert!(cloud != "gcp" || head.contains("metadata-flavor: google"), "{head}");
        if cloud == "gcp" && head.contains("wait_for_change=true") && !is_said {
            // It answers when something changes that was not said yet.
            assert!(head.contains("last_etag=7f"), "{head}");
            is_said = said.recv_timeout(Duration::from_secs(30)).is_ok();
        }
        let (status, body) = match cloud {
            "aws" if head.starts_with("put /latest/api/token") => ("200 OK", "token"),
            "aws" if !is_said => ("404 Not Found", ""),
            "gcp" if !is_said => ("200 OK\r\nETag: 7f", "FALSE"),
            "azure" if head.contains("/instance/compute/name") => ("200 OK", "own-vm"),
            // Another machine of the set is taken away.
            "azure" if !is_said => {
                ("200 OK", "{\"Events\": [{\"EventType\": \"Preempt\", \"Resources\": [\"other-vm\"]}]}")
            }
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

/// Two signals in quick succession are two signals.
#[test]
fn no_signal_is_lost_between_two() {
    let serving_many = (0..3).map(|_| Serving::start(&["--model", &model(), "--drain-seconds", "60"]));
    for mut serving in serving_many.collect::<Vec<_>>() {
        // A request whose body does not come keeps the drain waiting.
        let mut connection = serving.client().connect();
        connection.send(&serving.client().head("POST", "/embed", 100), b"{").expect("sent");
        let end = Instant::now() + Duration::from_secs(10);
        while serving.client().get("/status").json()["requests_under_way"] != 1 {
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(5));
        }
        serving.signal("TERM");
        serving.signal("TERM");
        let (status, time) = serving.ended();
        assert!(status.code() == Some(1) && time < Duration::from_secs(20), "{status} after {time:?}");
    }
}

/// A signal while the model is loaded does not wait for it: here one of its files never ends.
#[cfg(unix)]
#[test]
fn a_signal_while_loading_ends_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(minilm()).expect("a folder") {
        let from = entry.expect("an entry").path();
        let to = folder.path().join(from.file_name().expect("a name"));
        if to.ends_with("config.json") {
            assert!(Command::new("mkfifo").arg(&to).status().expect("mkfifo").success());
        } else {
            std::os::unix::fs::symlink(from, to).expect("a link");
        }
    }
    let (status, rest) = signalled_while_loading(&folder.path().to_string_lossy(), Duration::from_millis(50));
    assert!(status.success() && !rest.contains("ready in"), "{status}: {rest}");
}

/// ONNX Runtime is in the middle of anything when the process ends.
#[test]
fn no_end_while_loading_is_a_crash() {
    for round in 0..12 {
        let (status, rest) = signalled_while_loading(&model(), Duration::from_millis(round * 10));
        assert!(status.success(), "round {round}: {status}: {rest}");
    }
}

/// Starts the service, ends it by a signal so long after it began to load this model, and returns how it ended and what
/// it said after that.
fn signalled_while_loading(model: &str, after: Duration) -> (ExitStatus, String) {
    let mut command = program();
    let mut command = with_default_signals(command.args(["serve", "--port", "0", "--model", model]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut told = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    told.read_line(&mut line).expect("a line");
    assert!(line.starts_with("loading the model"), "{line}");
    thread::sleep(after);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    let mut rest = String::new();
    told.read_to_string(&mut rest).expect("text");
    (child.wait().expect("it ends"), rest)
}

/// 64 clients with open connections: each request that was accepted is answered, and the readiness changes at once.
#[test]
fn nothing_that_was_accepted_is_lost_under_load() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let rounds = if std::env::var_os("DOCVECTOR_EMBED_FULL").is_some() { 20 } else { 5 };
    for round in 0..rounds {
        let mut serving = Serving::start(&["--model", &model(), "--drain-delay", "0.1", "--drain-seconds", "20"]);
        let (served, refused, closed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let is_signalled = AtomicBool::new(false);
        let client = serving.client();
        thread::scope(|scope| {
            for worker in 0..64 {
                let (client, served, refused, closed, is_signalled) =
                    (client.clone(), &served, &refused, &closed, &is_signalled);
                scope.spawn(move || {
                    let mut connection = client.connect();
                    for request in 0.. {
                        let body = json!({"texts": [format!("request {request} of client {worker}")]}).to_string();
                        let head = client.head("POST", "/embed", body.len());
                        let reply = connection.send(&head, body.as_bytes()).and_then(|()| connection.reply_or_closed());
                        match reply {
                            Ok(Some(reply)) if reply.status == 200 => {
                                assert_eq!(reply.json()["dimension"], 384);
                                served.fetch_add(1, Ordering::Relaxed);
                                if reply.header("connection") == Some("close") {
                                    return;
                                }
                            }
                            Ok(Some(reply)) => {
                                assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true));
                                refused.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                            // Closed before a byte of the reply: the request was not accepted.
                            Ok(None) | Err(_) if is_signalled.load(Ordering::Relaxed) => {
                                closed.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                            other => panic!("client {worker}: {other:?}"),
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(700));
            is_signalled.store(true, Ordering::Relaxed);
            serving.signal("TERM");
            thread::sleep(Duration::from_millis(50));
            let started = Instant::now();
            assert_eq!(client.get("/readyz").status, 503);
            assert!(is_at_once(started), "{:?}", started.elapsed());
            let (status, time) = serving.ended();
            assert!(status.success() && time < Duration::from_secs(20), "{status} after {time:?}");
        });
        let (served, refused, closed) = (served.into_inner(), refused.into_inner(), closed.into_inner());
        println!("round {round}: {served} served, {refused} refused, {closed} closed before they were accepted");
        assert!(served > 64);
        assert!(closed <= 2, "{closed} connections were closed with a request on its way");
    }
}

/// As many connections as the system gives this process, up to 10,000: they wait, and others are served.
#[test]
fn ten_thousand_connections_do_not_keep_others_from_being_served() {
    let serving = Serving::start(&["--model", &model()]);
    let client = serving.client();
    let mut open = Vec::new();
    for _ in 0..10_000 {
        match std::net::TcpStream::connect(serving.address) {
            Ok(stream) => open.push(stream),
            // No descriptors are left.
            Err(_) => break,
        }
    }
    println!("{} connections", open.len());
    assert!(open.len() > 500);
    // Room for the next ones.
    drop(open.drain(..100.min(open.len() / 2)));
    let (status, count) = (client.get("/status").json(), open.len() as u64);
    assert!(status["connections"].as_u64().is_some_and(|have| have >= count), "{count}: {}", status["connections"]);
    client.is_served();
    // All of them begin a request at the same time, and half of them go away.
    for stream in &mut open {
        stream.write_all(b"GET /livez HTTP/1.1\r\n").expect("sent");
    }
    client.is_served();
    open.truncate(open.len() / 2);
    for stream in &mut open {
        stream.write_all(b"host: h\r\n\r\n").expect("sent");
    }
    for stream in open.iter_mut().step_by(100) {
        let mut reply = [0; 12];
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(&reply, b"HTTP/1.1 200");
    }
    client.is_served();
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
    // A secret that did not arrive.
    for blank in ["", " , "] {
        let mut command = program();
        command.args(["serve", "--port", "0", "--model", &model()]).env("EMBEDDING_SERVICE_KEYS", blank);
        let output = super::run(&mut command, b"");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            super::stderr(&output).contains("there is no key in EMBEDDING_SERVICE_KEYS"),
            "{}",
            super::stderr(&output)
        );
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = super::run(program().args(["serve", "--model", &model(), "--port", &port]), b"");
    assert!(super::stderr(&output).contains("cannot be listened on"), "{}", super::stderr(&output));
}

#[test]
fn keys_come_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys.txt");
    std::fs::write(&keys, "# clients\none\n\n two \n").expect("written");
    let status = |serving: &Serving, key: &str| {
        serving.client().with("authorization", &format!("Bearer {key}")).embed(&["a"]).status
    };
    let serving = Serving::start(&["--model", &model(), "--api-keys", &keys.to_string_lossy()]);
    assert_eq!(["one", "two", "three", "# clients"].map(|key| status(&serving, key)), [200, 200, 401, 401]);
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
