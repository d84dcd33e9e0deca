//! Admission under load: whole requests or none, honest waits, bounded memory.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use docvector_embed::provider::Fake;
use serde_json::json;

use super::{Running, running::until};

/// A text of so many tokens, as requests are judged.
fn of_tokens(tokens: usize) -> String {
    "abcd".repeat(tokens)
}

#[test]
fn a_full_queue_refuses_with_a_wait_and_the_other_lane_goes_on() {
    let fake = Fake::new(4);
    let running = Running::limited(fake.clone(), |limits| {
        (limits.bulk_tokens, limits.interactive_tokens) = (100, 50);
    });
    let client = running.client();
    // What can never fit is told so, and gets no wait.
    let reply = client.embed(&[&of_tokens(101)]);
    assert_eq!((reply.status, reply.header("retry-after")), (413, None), "{}", reply.text());
    assert!(reply.text().contains("about 101 tokens") && reply.text().contains("at most 100"), "{}", reply.text());
    let hold = fake.hold();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..2).map(|_| scope.spawn(|| client.embed(&[&of_tokens(50)]).status)).collect();
        until("both wait", || running.server.requests_under_way() == 2 && fake.calls().len() == 2);
        let reply = client.embed(&["a", "b"]);
        assert_eq!((reply.status, reply.header("x-embed-error")), (429, Some("overloaded")), "{}", reply.text());
        assert!(reply.number("retry-after").is_some_and(|wait| wait >= 1), "{reply:?}");
        assert!(reply.number("retry-after-ms").is_some_and(|wait| wait >= 100), "{reply:?}");
        // The other lane has a queue of its own.
        let query = scope.spawn(|| client.with("x-embed-kind", "query").embed(&["q"]).status);
        until("the query is on its way", || fake.calls().len() == 3);
        let text = client.get("/metrics").text();
        for line in ["queue_tokens{lane=\"bulk\"} 100", "queue_tokens{lane=\"interactive\"} 1"] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        drop(hold);
        assert!(waiting.into_iter().all(|waiting| waiting.join().expect("no panic") == 200));
        assert_eq!(query.join().expect("no panic"), 200);
    });
    client.is_served();
}

#[test]
fn the_wait_that_a_refusal_names_is_what_such_work_took() {
    let latency = Duration::from_millis(200);
    let fake = Fake::builder().with_dimensions(4).with_latency(latency).build().expect("valid");
    let running = Running::limited(fake.clone(), |limits| limits.bulk_tokens = 100);
    let client = running.client();
    let longest = (0..3).map(|_| {
        let began = Instant::now();
        assert_eq!(client.embed(&[&of_tokens(100)]).status, 200);
        began.elapsed()
    });
    // The wait is a mean of what such work took, and a client sees no less than the service.
    let bounds = latency.as_millis() as u64..=longest.max().expect("three").as_millis() as u64 + 1;
    let hold = fake.hold();
    thread::scope(|scope| {
        let first = scope.spawn(|| client.embed(&[&of_tokens(100)]).status);
        // A request is under way before it is admitted, so the embedder says when the queue is full.
        until("it waits", || fake.calls().len() == 4);
        let reply = client.embed(&[&of_tokens(100)]);
        assert_eq!(reply.status, 429, "{}", reply.text());
        let wait = reply.number("retry-after-ms").expect("a wait");
        assert!(bounds.contains(&wait), "{wait} ms, when such a call took {bounds:?} ms");
        drop(hold);
        assert_eq!(first.join().expect("no panic"), 200);
    });
    assert_eq!(client.embed(&[&of_tokens(100)]).status, 200, "there is room");
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let fake = Fake::new(1000);
    let running = Running::limited(fake.clone(), |limits| {
        (limits.memory_bytes, limits.body_bytes) = (4 << 20, 2 << 20);
    });
    let client = running.client();
    // 2,000 rows of 4,000 bytes can never fit.
    let texts: Vec<String> = (0..2_000).map(|i| format!("{i}")).collect();
    let reply = client.post("/embed", &json!({"texts": texts}));
    assert_eq!(reply.status, 413, "{}", reply.text());
    let hold = fake.hold();
    let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let texts = &texts[..300];
        for _ in 0..8 {
            let (client, served, refused) = (client.clone(), &served, &refused);
            scope.spawn(move || match client.post("/embed", &json!({"texts": texts})) {
                reply if reply.status == 200 => _ = served.fetch_add(1, Ordering::Relaxed),
                reply => {
                    assert_eq!(reply.status, 429, "{}", reply.text());
                    assert!(reply.header("retry-after").is_some());
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until("three wait", || fake.calls().len() == 3 && refused.load(Ordering::Relaxed) == 5);
        let used = client.get("/status").json()["memory"]["used_bytes"].as_u64().expect("a number");
        assert!(used > 3_600_000 && used <= 4 << 20, "{used}");
        drop(hold);
    });
    assert_eq!((served.into_inner(), refused.into_inner()), (3, 5));
    // A reply that was sent gives everything back.
    until("all is given back", || client.get("/status").json()["memory"]["used_bytes"] == 0);
    client.is_served();
}

/// Replies that nobody reads count, and the process grows by no more than the limit.
#[cfg(target_os = "linux")]
#[test]
fn unread_replies_count() {
    let running =
        Running::limited(Fake::builder().with_dimensions(1000).without_log().build().expect("valid"), |limits| {
            (limits.memory_bytes, limits.body_bytes) = (64 << 20, 8 << 20);
        });
    let client = running.client().with("accept", "application/octet-stream");
    let texts: Vec<String> = (0..5_000).map(|i| format!("{i}")).collect();
    let body = json!({"texts": texts}).to_string();
    let before = resident();
    // Each reply has 20 MB.
    let mut unread: Vec<_> = (0..12).map(|_| client.connect()).collect();
    for connection in &mut unread {
        connection.send(&client.head("POST", "/embed", body.len()), body.as_bytes()).expect("sent");
        thread::sleep(Duration::from_millis(100));
    }
    let used = || client.get("/status").json()["memory"]["used_bytes"].as_u64().expect("a number");
    until("three are held", || running.server.requests_under_way() == 3 && used() >= 60_000_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes more");
    drop(unread);
    until("all is given back", || used() == 0);
}

/// Returns the resident memory of this process.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

#[test]
fn deadlines_are_kept() {
    let fake = Fake::new(4);
    let _hold = fake.hold();
    let of = |time: Duration| Running::limited(fake.clone(), |limits| limits.request_time = time);
    let (patient, hasty) = (of(Duration::from_secs(60)), of(Duration::from_millis(400)));
    for (client, least) in [
        (patient.client().with("request-timeout-ms", "100"), 100),
        (patient.client().with("request-timeout-ms", "0"), 0),
        (hasty.client(), 400),
        (hasty.client().with("request-timeout-ms", "60000"), 400),
    ] {
        let started = Instant::now();
        let reply = client.embed(&["a"]);
        let took = started.elapsed().as_millis();
        assert_eq!((reply.status, reply.header("x-embed-error")), (504, Some("deadline_passed")), "{}", reply.text());
        assert!((least..30_000).contains(&took), "{took} ms");
    }
}
