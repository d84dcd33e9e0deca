//! Requests that cannot be served: each has the status and the shape of its dialect, and the next good one is served.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use docvector_embed::{Error, ErrorKind, Limits, TokenCount, provider::Fake, server::Server};
use serde_json::{Value, json};

use super::{Running, client::Reply, running::until};

/// Checks the shape of a refusal, and that it quotes nothing.
fn check(reply: &Reply, path: &str, status: u16, about: &str) {
    let shown = format!("{path} {about}: {}", reply.text());
    assert_eq!(reply.status, status, "{shown}");
    assert!(!reply.text().contains("secret"), "{shown}");
    assert!(reply.header("x-embed-error").is_some(), "{shown}");
    let json = reply.json();
    if path.starts_with("/v1") {
        let error = &json["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{shown}");
        assert!(error.get("param").is_some() && error.get("code").is_some(), "{shown}");
    } else {
        assert!(json["error"].is_string() && json["error_type"].is_string(), "{shown}");
        assert!(json["detail"].is_string() && json["kind"].is_string(), "{shown}");
    }
}

#[test]
fn wrong_bodies_have_the_shape_of_their_dialect() {
    let limits = Limits::none().with_tokens_per_text(8).with_tokens(TokenCount::AtMostBytes);
    let fake = Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid");
    let running = Running::limited(fake, |limits| limits.texts = 10);
    let client = running.client();
    let long = "secret words ".repeat(100);
    let many: Vec<&str> = vec!["secret"; 11];
    for (path, body, status) in [
        // Empty lists and texts.
        ("/embed", json!({"inputs": []}), 400),
        ("/v1/embeddings", json!({"input": [], "model": "fake"}), 400),
        ("/embed", json!({"texts": ["secret", ""]}), 400),
        ("/embed", json!({"inputs": ["secret", ""]}), 400),
        ("/v1/embeddings", json!({"input": ["secret", ""], "model": "fake"}), 400),
        // Over-long texts, unless the beginning will do.
        ("/embed", json!({"texts": [long], "truncation": "error"}), 400),
        ("/embed", json!({"inputs": [long], "truncate": false}), 422),
        ("/v1/embeddings", json!({"input": [long], "model": "fake"}), 400),
        // Wrong types.
        ("/embed", json!({"texts": {"secret": 1}}), 400),
        ("/embed", json!({"inputs": {"secret": 1}}), 400),
        ("/embed", json!({"texts": ["a", {"secret": 1}]}), 400),
        ("/embed", json!({"texts": ["a", null]}), 400),
        ("/embed", json!(["secret"]), 400),
        ("/embed", json!("secret"), 400),
        ("/embed", json!({"text": "secret"}), 400),
        ("/embed", json!({"texts": ["a"], "kind": "secret"}), 400),
        ("/embed", json!({"inputs": ["a"], "truncate": "secret"}), 400),
        ("/embed", json!({"inputs": ["a"], "prompt_name": "secret"}), 422),
        ("/embed", json!({"inputs": ["a"], "normalize": false}), 422),
        ("/embed", json!({"inputs": ["a"], "dimensions": 3}), 422),
        ("/v1/embeddings", json!({"input": {"secret": 1}, "model": "fake"}), 400),
        ("/v1/embeddings", json!({"model": "fake"}), 400),
        ("/v1/embeddings", json!({"input": "a", "model": "fake", "dimensions": 3}), 400),
        ("/v1/embeddings", json!({"input": "a", "model": "fake", "encoding_format": "secret"}), 400),
        ("/v1/embeddings", json!({"input": "a", "model": "other"}), 404),
        ("/embed", json!({"texts": ["a"], "model": "other"}), 404),
        ("/embed", json!({"inputs": ["a"], "model": "other"}), 404),
        // Token ids of a vocabulary that nobody named.
        ("/v1/embeddings", json!({"input": [1, 2], "model": "fake"}), 400),
        ("/v1/embeddings", json!({"input": [[1, 2]], "model": "fake"}), 400),
        ("/embed", json!({"inputs": [1, 2]}), 400),
        // Too many texts.
        ("/embed", json!({"texts": many}), 413),
        ("/embed", json!({"inputs": many}), 413),
        ("/v1/embeddings", json!({"input": many, "model": "fake"}), 413),
    ] {
        let about: String = body.to_string().chars().take(60).collect();
        check(&client.post(path, &body), path, status, &about);
    }
    for body in [&b"{\"texts\": [\"secret\""[..], b"", b"secret", b"{\"texts\": [\"\xff\xfe\"]}", b"\0\0\0", b"{}}"] {
        for (path, status) in [("/embed", 400), ("/v1/embeddings", 400), ("/tokenize", 422), ("/decode", 422)] {
            check(&client.post_bytes(path, body), path, status, "no JSON");
        }
    }
    let reply = client.post("/embed", &json!({"texts": ["a", "", "b", ""]}));
    let empty = |index: usize| json!({"index": index, "reason": "empty"});
    assert_eq!(reply.json()["bad_texts"], json!([empty(1), empty(3)]));
    let reply = client.post("/embed", &json!({"texts": ["a", long], "truncation": "error"}));
    let bad = reply.json()["bad_texts"].clone();
    assert_eq!((bad.as_array().map(Vec::len), &bad[0]["index"]), (Some(1), &json!(1)));
    assert_eq!((&bad[0]["reason"], &bad[0]["limit"]), (&json!("too_long"), &json!(8)));
    let words =
        client.post("/v1/embeddings", &json!({"input": [1], "model": "fake"})).json()["error"]["message"].clone();
    assert!(
        words.as_str().is_some_and(|words| words.contains("token ids") && words.contains("--token-ids")),
        "{words}"
    );
    client.is_served();
}

#[test]
fn wrong_routes_methods_and_headers() {
    let running = Running::of(Fake::new(4));
    let client = running.client();
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("POST", "/v1/secret", 404),
        ("GET", "/embed", 405),
        ("PUT", "/v1/embeddings", 405),
        ("POST", "/health", 405),
    ] {
        let reply = client.try_send(method, path, b"").expect("an answer");
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.json()["error"].is_string() || reply.json()["error"]["message"].is_string());
    }
    for (name, value) in [
        ("x-embed-kind", "poem"),
        ("x-embed-lane", "fast"),
        ("x-embed-space", "7"),
        ("x-embed-key", "%GG"),
        ("request-timeout-ms", "soon"),
    ] {
        let reply = client.with(name, value).embed(&["a"]);
        check(&reply, "/embed", 400, name);
        assert!(reply.text().contains(name), "{}", reply.text());
    }
    let reply = client.with("content-encoding", "gzip").embed(&["a"]);
    assert_eq!(reply.status, 415);
    client.is_served();
}

#[test]
fn a_body_of_100_megabytes_is_refused_and_its_client_sees_why() {
    let running = Running::of(Fake::new(4));
    let client = running.client();
    let started = Instant::now();
    let body = vec![b'a'; 100 << 20];
    for path in ["/embed", "/v1/embeddings"] {
        check(&client.post_bytes(path, &body), path, 413, "100 MB");
    }
    // Without a length, it is noticed on the way.
    let mut connection = client.connect();
    let head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head, b"").expect("sent");
    let piece = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b'a'; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..100 {
        connection.send("", &piece).expect("sent");
    }
    connection.send("", b"0\r\n\r\n").expect("sent");
    check(&connection.reply().expect("an answer"), "/embed", 413, "chunked");
    // A client that asks first is told at once.
    let mut connection = client.connect();
    connection.send(&client.with("expect", "100-continue").head("POST", "/embed", 100 << 20), b"").expect("sent");
    check(&connection.reply().expect("an answer"), "/embed", 413, "asked first");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    client.is_served();
}

#[test]
fn slow_clients_are_given_up() {
    let fake = Fake::new(64);
    let running = Running::limited(fake, |limits| {
        limits.body_time = Duration::from_millis(300);
        limits.head_time = Duration::from_millis(300);
        limits.idle_time = Duration::from_millis(1200);
        limits.stall_time = Duration::from_millis(500);
    });
    let client = running.client();
    // A body that does not come.
    let mut connection = client.connect();
    connection.send(&client.head("POST", "/embed", 100), b"{\"texts\"").expect("sent");
    check(&connection.reply().expect("an answer"), "/embed", 408, "slow body");
    // A head that comes byte by byte.
    let started = Instant::now();
    let mut connection = client.connect();
    for byte in client.head("POST", "/embed", 2).bytes() {
        if connection.send("", &[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(connection.reply().is_err(), "the connection is closed");
    assert!(started.elapsed() < Duration::from_secs(30));
    // A connection without a request.
    let started = Instant::now();
    let mut connection = client.connect();
    connection.send(&client.head("GET", "/livez", 0), b"").expect("sent");
    assert_eq!(connection.reply().expect("an answer").status, 200);
    assert_eq!(connection.rest().expect("closed"), b"");
    let open = started.elapsed();
    assert!(open > Duration::from_secs(1) && open < Duration::from_secs(10), "{open:?}");
    // A client that does not take its reply, of more than the system keeps for it: the connection ends.
    let texts: Vec<String> = (0..60_000).map(|i| format!("{i}")).collect();
    for accept in ["application/json", "application/octet-stream"] {
        let body = json!({"texts": texts}).to_string();
        let client = client.with("accept", accept);
        let mut connection = client.connect();
        connection.send(&client.head("POST", "/embed", body.len()), body.as_bytes()).expect("sent");
        until("the reply begins", || running.server.requests_under_way() == 1);
        until("the reply is given up", || running.server.requests_under_way() == 0);
        let reply = connection.reply();
        assert!(reply.is_err(), "{accept}: the reply is cut");
        until("all is given back", || client.get("/status").json()["memory"]["used_bytes"] == 0);
    }
    client.is_served();
}

#[test]
fn connections_that_end_early_cost_nothing() {
    let running = Running::of(Fake::new(4));
    let client = running.client();
    let body = json!({"texts": ["a"]}).to_string();
    // Nothing, half a head, half a body, nonsense.
    drop(client.connect());
    for bytes in
        [&b"POST /em"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n", &[0; 100]]
    {
        let mut connection = client.connect();
        connection.send("", bytes).expect("sent");
        connection.half_close();
        let _ = connection.rest();
    }
    let mut connection = client.connect();
    connection.send(&client.head("POST", "/embed", body.len()), &body.as_bytes()[..5]).expect("sent");
    connection.half_close();
    let _ = connection.rest();
    // A head that is too large, by one field and by many.
    let large = client.with("x-large", &"a".repeat(100_000));
    let reply = large.try_send("POST", "/embed", body.as_bytes());
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 431));
    // Two requests over one connection, sent at once.
    let mut connection = client.connect();
    let request = [client.head("POST", "/embed", body.len()).as_bytes(), body.as_bytes()].concat();
    connection.send("", &[&request[..], &request].concat()).expect("sent");
    for _ in 0..2 {
        assert_eq!(connection.reply().expect("an answer").status, 200);
    }
    until("all are gone", || running.server.requests_under_way() == 0);
    client.is_served();
}

/// Ten thousand are in `cli::serve`: here both ends of each are in this process.
#[test]
fn a_thousand_connections_do_not_keep_others_from_being_served() {
    let running = Running::limited(Fake::new(4), |limits| limits.connections = 1_000);
    let client = running.client();
    let mut open = Vec::new();
    let may_open = 1_050;
    for _ in 0..may_open {
        match TcpStream::connect(running.address) {
            Ok(stream) => open.push(stream),
            // No descriptors are left.
            Err(_) => break,
        }
    }
    println!("{} connections", open.len());
    if open.len() == may_open {
        // All are taken: probes are answered all the same, and others are told.
        until("all are open", || client.get("/status").status == 503);
        let reply = client.embed(&["a"]);
        assert_eq!((reply.status, reply.number("retry-after")), (503, Some(1)), "{}", reply.text());
        assert_eq!(reply.header("connection"), Some("close"));
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(client.get(path).status, 200, "{path}");
        }
    }
    for stream in &mut open {
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\n");
    }
    drop(open.drain(..open.len() / 2));
    until("there is room", || client.try_send("GET", "/status", b"").is_ok_and(|reply| reply.status == 200));
    client.is_served();
}

/// A request without a key, or a body that never comes, takes nothing from others.
#[test]
fn what_is_only_told_takes_no_room() {
    let running =
        Running::limited(Fake::new(4), |limits| (limits.memory_bytes, limits.body_bytes) = (64 << 20, 64 << 20));
    let client = running.client();
    let mut idle: Vec<_> = (0..20).map(|_| client.connect()).collect();
    for connection in &mut idle {
        connection.send(&client.head("POST", "/embed", 64 << 20), b"{").expect("sent");
    }
    until("all are read", || running.server.requests_under_way() == 20);
    client.is_served();
    let used = client.get("/status").json()["memory"]["used_bytes"].as_u64().expect("a number");
    assert!(used < 1 << 20, "{used}");
}

#[test]
fn pages_of_other_sites_cannot_use_a_service_without_keys() {
    let running = Running::of(Fake::new(4));
    let client = running.client();
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        check(&client.with(name, value).embed(&["a"]), "/embed", 403, value);
    }
    client.with("sec-fetch-site", "same-origin").is_served();
    let with_keys = Running::with(Server::builder().with_api_key("key"), Fake::new(4));
    with_keys.client().with("origin", "https://app.example").with("authorization", "Bearer key").is_served();
}

#[test]
fn tokens_have_limits_of_their_own() {
    let running = Running::loading(Server::builder());
    let model = docvector_embed::server::ServedModel::new(std::sync::Arc::new(Fake::new(4)));
    running.server.open(model.with_vocabulary(Letters)).expect("opens");
    let client = running.client();
    let reply = client.post("/tokenize", &json!({"inputs": ["a ".repeat(200_000)]}));
    check(&reply, "/tokenize", 413, "large");
    assert!(reply.text().contains("262144"), "{}", reply.text());
    check(&client.post("/tokenize", &json!({"inputs": []})), "/tokenize", 400, "empty");
    check(&client.post("/decode", &json!({"ids": ["a"]})), "/decode", 422, "texts");
    assert_eq!(client.post("/tokenize", &json!({"inputs": "ab"})).json()[0][1]["text"], "b");
    until("all is given back", || client.get("/status").json()["memory"]["used_bytes"] == 0);
}

/// A vocabulary with one token per character.
#[derive(Debug)]
struct Letters;

impl docvector_embed::server::Vocabulary for Letters {
    fn tokenize(&self, text: &str, _: bool) -> docvector_embed::Result<Vec<docvector_embed::server::Token>> {
        let token = |(at, letter): (usize, char)| {
            docvector_embed::server::Token::new(letter as u32, letter, Some(at..at + letter.len_utf8()))
        };
        Ok(text.char_indices().map(token).collect())
    }

    fn decode(&self, ids: &[u32], _: bool) -> docvector_embed::Result<String> {
        Ok(ids.iter().filter_map(|&id| char::from_u32(id)).collect())
    }
}

#[test]
fn keys_are_asked_for_and_never_shown() {
    let builder = Server::builder().with_api_key("secret-key-one").with_api_key("secret-key-two");
    let shown = format!("{builder:?}");
    let running = Running::with(builder, Fake::new(4));
    assert!(!shown.contains("secret") && !format!("{:?}", running.server).contains("secret"));
    let client = running.client();
    for (path, body) in [
        ("/embed", json!({"texts": ["a"]})),
        ("/", json!({"inputs": ["a"]})),
        ("/v1/embeddings", json!({"input": "a"})),
        ("/tokenize", json!({"inputs": "a"})),
    ] {
        for client in [
            client.clone(),
            client.with("authorization", "Bearer secret-key"),
            client.with("authorization", "secret-key-one"),
        ] {
            let reply = client.post(path, &body);
            check(&reply, path, 401, "no key");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
        let status = client.with("authorization", "Bearer secret-key-two").post(path, &body).status;
        assert_eq!(status, if path == "/tokenize" { 404 } else { 200 });
    }
    for path in ["/v1/models", "/info"] {
        assert_eq!(client.get(path).status, 401, "{path}");
        assert_eq!(client.with("authorization", "Bearer secret-key-one").get(path).status, 200, "{path}");
    }
    for path in ["/health", "/livez", "/readyz", "/startupz", "/metrics", "/status", "/", "/docs", "/openapi.json"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
}

#[test]
fn failures_below_have_their_status_and_hide_what_is_the_servers_own() {
    let fake = Fake::new(4);
    let running = Running::of(fake.clone());
    let client = running.client();
    for (kind, native, tei, openai) in [
        (ErrorKind::Inference, 500, 424, 500),
        (ErrorKind::Auth, 502, 502, 502),
        (ErrorKind::QuotaExhausted, 502, 502, 502),
        (ErrorKind::RateLimited, 429, 429, 429),
        (ErrorKind::Unavailable, 503, 503, 503),
        (ErrorKind::Timeout, 504, 504, 504),
    ] {
        for (path, field, status) in
            [("/embed", "texts", native), ("/embed", "inputs", tei), ("/v1/embeddings", "input", openai)]
        {
            fake.fail_next(Error::new(kind, "secret").with_retry_after(Duration::from_millis(2500)));
            let reply = client.post(path, &json!({field: ["a"]}));
            check(&reply, path, status, kind.as_str());
            assert_eq!(reply.header("x-embed-error"), Some(kind.as_str()));
            assert_eq!((reply.header("retry-after"), reply.header("retry-after-ms")), (Some("3"), Some("2500")));
        }
    }
    client.is_served();
    let text = client.get("/metrics").text();
    for (dialect, outcome, count) in [("native", "failed", 3), ("openai", "overloaded", 1), ("tei", "late", 1)] {
        let line = format!("docvector_embed_requests_total{{dialect=\"{dialect}\",outcome=\"{outcome}\"}} {count}");
        assert!(text.contains(&line), "{line}\n{text}");
    }
    let _: Value = client.get("/status").json();
}
