//! Probes, metrics, and the pages for people.

use std::{sync::Arc, thread, time::Duration};

use docvector_embed::{
    provider::Fake,
    server::{Figure, ServedModel, Server, ServerState},
};
use serde_json::{Value, json};

use super::Running;

#[test]
fn probes_tell_every_state() {
    let running = Running::loading(Server::builder());
    let client = running.client();
    let statuses = || ["/livez", "/readyz", "/startupz", "/health"].map(|path| client.get(path).status);
    assert_eq!(statuses(), [200, 503, 503, 503]);
    let reply = client.embed(&["a"]);
    assert_eq!((reply.status, reply.number("retry-after")), (503, Some(5)), "{}", reply.text());
    assert_eq!(client.get("/health").json()["status"], "loading");
    assert!(client.get("/status").json()["model"].is_null());
    running.server.open(ServedModel::new(Arc::new(Fake::new(4))).with_device("cpu")).expect("opens");
    assert_eq!(statuses(), [200, 200, 200, 200]);
    let health = client.get("/health").json();
    assert_eq!(
        (&health["status"], &health["model"], &health["dimension"], &health["device"]),
        (&json!("ok"), &json!("fake"), &json!(4), &json!("cpu"))
    );
    client.is_served();
    // A second model is refused.
    assert!(running.server.open(ServedModel::new(Arc::new(Fake::new(4)))).is_err());

    let failed = Running::loading(Server::builder());
    failed.server.fail();
    let client = failed.client();
    assert_eq!(["/livez", "/readyz", "/startupz"].map(|path| client.get(path).status), [200, 503, 503]);
    assert_eq!(client.get("/health").json()["state"], "failed");
    assert_eq!(client.embed(&["a"]).status, 503);
    assert_eq!(failed.server.state(), ServerState::Failed);
}

#[test]
fn probes_are_answered_while_all_else_waits() {
    let fake = Fake::new(4);
    let running = Running::of(fake.clone());
    let client = running.client();
    let hold = fake.hold();
    thread::scope(|scope| {
        (0..50).for_each(|_| _ = scope.spawn(|| assert_eq!(client.embed(&["a"]).status, 200)));
        super::running::until("all wait", || running.server.requests_under_way() == 50);
        for path in ["/livez", "/readyz", "/startupz", "/health", "/metrics", "/status"] {
            assert_eq!(client.get(path).status, 200, "{path}");
        }
        drop(hold);
    });
}

#[test]
fn metrics_begin_with_zeros_and_have_the_engines_figures() {
    let running = Running::loading(Server::builder());
    let figures = || vec![Figure::new("batches", "Batches that ran", 7.0)];
    running.server.open(ServedModel::new(Arc::new(Fake::new(4))).with_figures(figures)).expect("opens");
    let client = running.client();
    let reply = client.get("/metrics");
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let text = reply.text();
    for line in [
        "docvector_embed_requests_total{dialect=\"openai\",outcome=\"ok\"} 0",
        "docvector_embed_state{state=\"ready\"} 1",
        "docvector_embed_engine_batches_total 7",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.contains("docvector_embed_model_info{model=\"fake\",space=\"") && text.ends_with("# EOF\n"));
    client.embed(&["one", "two"]);
    let text = client.get("/metrics").text();
    assert!(text.contains("docvector_embed_texts_total{kind=\"document\"} 2"), "{text}");
}

#[test]
fn the_page_is_whole_and_can_be_left_out() {
    let running = Running::of(Fake::new(4));
    let client = running.client();
    for path in ["/", "/docs"] {
        let reply = client.get(path);
        let policy = reply.header("content-security-policy").expect("a policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
        assert!(reply.text().contains(&format!("nonce=\"{nonce}\"")) && !reply.text().contains("{{"), "{path}");
        assert_ne!(reply.text(), client.get(path).text(), "each reply has its own nonce");
    }
    client.embed(&["one", "two", "three"]);
    thread::sleep(Duration::from_millis(1200));
    let status = client.get("/status").json();
    assert_eq!((&status["state"], &status["totals"]["texts"]), (&json!("ready"), &json!(3)));
    let texts = status["throughput"]["texts"].as_array().expect("a list");
    assert_eq!((texts.len(), texts.iter().filter_map(Value::as_u64).sum::<u64>()), (300, 3));

    let bare = Running::with(Server::builder().without_page(), Fake::new(4));
    for path in ["/docs", "/openapi.json", "/status"] {
        assert_eq!(bare.client().get(path).status, 404, "{path}");
    }
    assert_eq!(bare.client().get("/").status, 405);
    assert_eq!(bare.client().post("/", &json!({"inputs": "a"})).status, 200);
}

/// The description names each route, and no other.
#[test]
fn the_description_has_every_route() {
    let running = Running::of(Fake::new(4));
    let client = running.client();
    let description = client.get("/openapi.json").json();
    let paths = description["paths"].as_object().expect("paths");
    for (path, methods) in paths {
        let path = path.replace("{name}", "fake").replace("{model}", "fake");
        for method in methods.as_object().expect("methods").keys().filter(|name| *name != "parameters") {
            let reply = client.try_send(&method.to_ascii_uppercase(), &path, b"{}").expect("an answer");
            let known = reply.status != 405 && !reply.text().contains("there is no route");
            assert!(known, "{method} {path}: {}", reply.text());
        }
    }
    for path in [
        "/",
        "/ping",
        "/embed",
        "/v1/embeddings",
        "/embeddings",
        "/v1/models",
        "/info",
        "/tokenize",
        "/decode",
        "/health",
        "/livez",
        "/readyz",
        "/startupz",
        "/metrics",
        "/status",
        "/docs",
        "/openapi.json",
    ] {
        assert!(paths.contains_key(path), "{path} is not described");
    }
}
