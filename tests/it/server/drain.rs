//! Going away under load: nothing that was accepted is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use docvector_embed::{InputKind, provider::Fake, server::Server};
use serde_json::json;

use super::{Running, client::vector, is_at_once, running::until};

#[test]
fn what_was_accepted_is_finished_and_new_work_is_refused() {
    let fake = Fake::new(4);
    let builder = Server::builder().with_drain(Duration::ZERO, Duration::from_secs(30));
    let running = Running::with(builder, fake.clone());
    let client = running.client();
    let hold = fake.hold();
    let accepted = thread::spawn({
        let client = client.clone();
        move || client.embed(&["accepted"])
    });
    until("it is accepted", || fake.calls().len() == 1);
    // A connection that is open and idle.
    let mut idle = client.connect();
    idle.send(&client.head("GET", "/livez", 0), b"").expect("sent");
    assert_eq!(idle.reply().expect("an answer").status, 200);
    running.server.drain();
    let started = Instant::now();
    assert_eq!(client.get("/readyz").status, 503);
    assert!(is_at_once(started), "{:?}", started.elapsed());
    assert_eq!((client.get("/livez").status, client.get("/health").json()["status"].clone()), (200, json!("draining")));
    until("new work is refused", || client.embed(&["new"]).status == 503);
    let reply = client.embed(&["new"]);
    assert_eq!(reply.number("retry-after"), Some(30), "{}", reply.text());
    assert_eq!(reply.header("connection"), Some("close"));
    drop(hold);
    let reply = accepted.join().expect("no panic");
    assert_eq!(
        (reply.status, vector(&reply.json()["embeddings"][0])),
        (200, fake.vector_of(InputKind::Document, "accepted"))
    );
    let address = running.address;
    assert!(running.ended() < Duration::from_secs(20));
    assert_eq!(idle.rest().expect("closed"), b"");
    assert!(std::net::TcpStream::connect(address).is_err(), "the port is free");
}

#[test]
fn work_that_cannot_be_finished_is_told_so() {
    let fake = Fake::new(4);
    let builder = Server::builder().with_drain(Duration::from_millis(50), Duration::from_millis(400));
    let running = Running::with(builder, fake.clone());
    let client = running.client();
    let _hold = fake.hold();
    let stuck = thread::spawn({
        let client = client.clone();
        move || client.embed(&["stuck"])
    });
    until("it is accepted", || fake.calls().len() == 1);
    let started = Instant::now();
    running.server.drain();
    running.server.drain();
    assert!(running.ended() < Duration::from_secs(20));
    assert!(started.elapsed() >= Duration::from_millis(400));
    let reply = stuck.join().expect("no panic");
    assert_eq!((reply.status, reply.number("retry-after")), (503, Some(1)), "{}", reply.text());
}

/// A client that reads slowly gets all of its reply; one that does not finish its request is told so at the deadline.
#[test]
fn replies_that_are_being_read_and_bodies_that_are_being_sent() {
    let builder = Server::builder().with_drain(Duration::ZERO, Duration::from_secs(3));
    let running = Running::with(builder, Fake::new(768));
    let client = running.client().with("accept", "application/octet-stream");
    let texts: Vec<String> = (0..20_000).map(|i| format!("{i}")).collect();
    let body = json!({"texts": texts}).to_string();
    let mut reader = client.connect();
    reader.send(&client.head("POST", "/embed", body.len()), body.as_bytes()).expect("sent");
    until("the reply begins", || client.get("/metrics").text().contains("texts_total{kind=\"document\"} 20000"));
    let mut sender = client.connect();
    sender.send(&client.head("POST", "/embed", 100), b"{").expect("sent");
    until("both are under way", || running.server.requests_under_way() == 2);
    // Without a key it would be no matter of the drain; here the head alone has been refused already.
    let started = Instant::now();
    running.server.drain();
    thread::sleep(Duration::from_millis(500));
    let reply = reader.reply().expect("all of the reply");
    assert_eq!((reply.status, reply.body.len()), (200, 20_000 * 768 * 4));
    let reply = sender.reply().expect("an answer");
    assert_eq!((reply.status, reply.number("retry-after")), (503, Some(1)), "{}", reply.text());
    assert!(started.elapsed() >= Duration::from_millis(2900));
    running.ended();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// A server within another one drains by the same clock.
#[tokio::test]
async fn a_nested_router_refuses_after_the_delay() {
    let builder = Server::builder().with_drain(Duration::from_millis(100), Duration::from_secs(3));
    let server = builder.build(Arc::new(Fake::new(4))).expect("valid");
    let mut router = server.router();
    let mut status = async |path: &str| {
        use tower_service::Service;
        let body = axum::body::Body::from("{\"texts\": [\"a\"]}");
        let method = if path == "/embed" { "POST" } else { "GET" };
        let request = axum::http::Request::builder().method(method).uri(path).body(body).expect("a request");
        router.call(request).await.expect("an answer").status().as_u16()
    };
    assert_eq!((status("/embed").await, status("/readyz").await), (200, 200));
    server.drain();
    assert_eq!((status("/embed").await, status("/readyz").await), (200, 503));
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!((status("/embed").await, status("/livez").await), (503, 200));
}

/// 64 clients, each with requests one after the other: each gets its vectors, or is refused before it was accepted.
#[test]
fn no_accepted_request_is_lost_under_load() {
    let rounds = if std::env::var_os("DOCVECTOR_EMBED_FULL").is_some() { 20 } else { 5 };
    for round in 0..rounds {
        let fake = Fake::builder().with_dimensions(64).with_latency(Duration::from_millis(5)).build().expect("valid");
        let builder = Server::builder().with_drain(Duration::from_millis(50), Duration::from_secs(10));
        let running = Running::with(builder, fake.clone());
        let (served, refused, gone) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let drains = Arc::new(AtomicBool::new(false));
        let (server, client) = (running.server.clone(), running.client());
        thread::scope(|scope| {
            for worker in 0..64 {
                let (client, fake, drains) = (client.clone(), &fake, drains.clone());
                let (served, refused, gone) = (&served, &refused, &gone);
                scope.spawn(move || {
                    for request in 0.. {
                        let text = format!("{worker} {request}");
                        let reply = client.try_send("POST", "/embed", json!({"texts": [text]}).to_string().as_bytes());
                        match reply {
                            Ok(reply) if reply.status == 200 => {
                                let row = vector(&reply.json()["embeddings"][0]);
                                assert_eq!(row, fake.vector_of(InputKind::Document, &text));
                                served.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(reply) => {
                                assert_eq!(reply.status, 503, "{}", reply.text());
                                assert!(reply.header("retry-after").is_some());
                                refused.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                            Err(error) => {
                                // The listener is closed when all that was accepted is finished.
                                assert!(drains.load(Ordering::Relaxed), "{error}");
                                gone.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(150));
            drains.store(true, Ordering::Relaxed);
            server.drain();
            let started = Instant::now();
            assert_eq!(client.get("/readyz").status, 503);
            assert!(is_at_once(started), "{:?}", started.elapsed());
        });
        assert!(running.ended() < Duration::from_secs(30));
        let (served, refused, gone) = (served.into_inner(), refused.into_inner(), gone.into_inner());
        assert_eq!(fake.calls().len(), served, "round {round}: each call's rows reached their client");
        println!("round {round}: {served} served, {refused} refused, {gone} came too late");
    }
}
