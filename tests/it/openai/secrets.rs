//! Checks that a planted key and planted texts appear in no log, span, error or `Debug`, whatever the server sends.

use std::{
    io,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error,
    provider::OpenAiBuilder,
    wrap::{RateLimiter, RetryPolicy, Totals},
};
use serde_json::json;
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

use super::builder;
use crate::support::server::{Server, Step};

/// The secret in the key and in every text, which must not appear.
const MARK: &str = "planted";
/// A text without a space, which could pass for a code or an id.
const KEY: &str = "sk-planted-4711";
const TEXT: &str = "a planted-word of a customer";
const WORD: &str = "planted-word";
/// The value of the caller's own header.
const HEADER: &str = "planted-header";

const TEXTS: [&str; 2] = [TEXT, WORD];

/// A buffer for logs.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Capture {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Runs a future on this thread alone. Returns its output and everything that this crate and all crates below logged
/// meanwhile, including spans with their fields.
pub(super) fn watched<F: Future<Output = Vec<String>>>(run: impl FnOnce() -> F) -> (Vec<String>, String) {
    static LOG: Once = Once::new();
    LOG.call_once(|| tracing_log::LogTracer::init().expect("nobody else takes the log"));
    let capture = Capture::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(capture.clone())
        .finish();
    let shown = tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("a line of tracing");
        tracing_log::log::trace!("a line of log");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run())
    });
    let logged = String::from_utf8_lossy(&capture.0.lock().expect("nobody panicked")).into_owned();
    (shown, logged)
}

/// Returns everything that an error can show, including its causes.
fn ways(error: &Error) -> Vec<String> {
    let mut shown = vec![error.to_string(), format!("{error:?}"), format!("{error:#?}")];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        shown.extend([cause.to_string(), format!("{cause:?}"), format!("{cause:#?}")]);
        source = cause.source();
    }
    // The values that programs are meant to show.
    shown
        .extend([error.provider_code(), error.request_id(), error.embedder()].into_iter().flatten().map(str::to_owned));
    shown
}

fn assert_unseen(what: &str, shown: &[String]) {
    for shown in shown {
        let at = shown.to_ascii_lowercase().find(MARK);
        // Shows only the part around the secret, because the rest may be long.
        let around = |at: usize| {
            let start = shown.floor_char_boundary(at.saturating_sub(200));
            shown[start..shown.ceil_char_boundary((at + 100).min(shown.len()))].to_owned()
        };
        assert!(at.is_none(), "{what}: {:?}", at.map(around));
    }
}

fn keyed(base_url: &str) -> OpenAiBuilder {
    builder(base_url).with_api_key(KEY).with_organization(KEY).with_project(KEY).with_header("x-own", HEADER)
}

/// Makes a step that replies with this text.
fn plain(code: u16, body: String) -> Step {
    Step::Status { code, headers: Vec::new(), body: body.into_bytes() }
}

fn both() -> String {
    format!("about {KEY} and {TEXT} and {WORD}")
}

/// Returns replies with the key and the texts in every place where a server can put them.
#[allow(clippy::type_complexity, reason = "a table")]
const FAULTS: [(&str, fn() -> Step); 33] = [
    ("nothing", || Step::Honest),
    ("the key for a model", || Step::edited(|reply| reply["model"] = json!(KEY))),
    ("a text for a model", || Step::edited(|reply| reply["model"] = json!(WORD))),
    ("a piece of a text for a model", || Step::edited(|reply| reply["model"] = json!("echo: planted-word of a cus"))),
    ("a wrong key, quoted", || Step::refusal(401, "invalid_request_error", Some("invalid_api_key"), &both())),
    ("the key for a code", || Step::refusal(401, "invalid_request_error", Some(KEY), &both())),
    ("the key for a type", || Step::refusal(403, KEY, None, &both())),
    ("a text for a code", || Step::refusal(400, TEXT, Some(WORD), &both())),
    ("a text for a parameter", || {
        Step::json(400, &json!({"error": {"message": both(), "type": WORD, "param": WORD, "code": TEXT}}))
    }),
    ("the key in a rate limit", || Step::refusal(429, "requests", Some(KEY), &both()).header("retry-after", KEY)),
    ("a quota", || Step::refusal(429, "insufficient_quota", Some("insufficient_quota"), &both())),
    ("a flat refusal", || Step::json(404, &json!({"error": both(), "error_type": KEY}))),
    ("a detailed refusal", || Step::json(422, &json!({"detail": [{"loc": ["body", TEXT], "input": both()}]}))),
    ("a gateway", || plain(502, format!("<html>{}</html>", both()))),
    ("a failure", || plain(500, both())),
    ("a failure about size", || Step::refusal(500, KEY, None, &format!("too large to process: {}", both()))),
    ("another address", || Step::Redirect(307, format!("http://127.0.0.1:1/{KEY}?text={WORD}"))),
    ("an error with success", || Step::body(json!({"error": {"message": both(), "code": KEY}}).to_string())),
    ("a word with success", || Step::body(json!({"error": {"message": both(), "type": WORD}}).to_string())),
    ("no JSON", || Step::body(both())),
    ("broken JSON", || Step::body(format!("{{\"data\": [{{\"{KEY}\": \"{TEXT}\", {WORD}"))),
    ("another shape", || Step::body(json!({"data": both(), "usage": KEY, "model": TEXT}).to_string())),
    ("a text for a vector", || Step::second_vector(json!(TEXT))),
    ("a text for a number", || Step::second_vector(json!([TEXT, KEY]))),
    ("the key for an index", || Step::rows(|rows| rows[1]["index"] = json!(KEY))),
    ("the key for a row", || Step::rows(|rows| rows[1] = json!(KEY))),
    ("an encoding", || Step::Honest.header("content-encoding", KEY)),
    ("broken gzip", || plain(200, both()).header("content-encoding", "gzip")),
    ("half", || Step::TruncatedJson.header("server", KEY)),
    ("half, and an end", || Step::CloseMidBody.header("set-cookie", KEY)),
    ("half, and a reset", || Step::ResetMidBody),
    ("silence", || Step::Hangup),
    ("too much", || Step::HugeBody(1 << 20)),
];

/// Collects all that a user can see of one fault, with a bare client and with a whole stack.
async fn all_of(step: fn() -> Step, id: Option<&'static str>, timeout: Duration) -> Vec<String> {
    let server = Server::handling(move |_, _| {
        let step = step();
        id.into_iter().fold(step, |step, id| step.header("x-request-id", id).header("x-ratelimit-limit-tokens", id))
    })
    .await;
    let builder = keyed(&server.base_url()).with_timeout(timeout);
    let client = builder.clone().build().expect("valid");
    let totals = Totals::new();
    let metered = client.clone().metered(totals.clone());
    let stack = metered.timeout(Duration::from_secs(60)).concurrency(4).rate_limit(RateLimiter::new());
    let policy =
        RetryPolicy::default().with_attempts(2).with_backoff(Duration::from_millis(1), Duration::from_millis(2));
    let stack = stack.retry(policy).dedup();
    let batch = Batch::documents(&TEXTS);
    let mut shown = vec![format!("{builder:?} {client:?} {stack:?} {client} {stack} {batch:?}")];
    shown.push(format!("{builder:#?} {client:#?} {stack:#?}"));
    for embedder in [&client as &dyn Embedder, &stack] {
        match embedder.embed_all(batch).await {
            Ok(rows) => shown.push(format!("{rows:?} {:?}", rows.rate_limit_status())),
            Err(error) => shown.extend(ways(&error)),
        }
        let each = embedder.embed_each(batch).await;
        shown.push(format!("{each:?}"));
        shown.extend(each.errors().flat_map(|(_, error)| ways(error)));
    }
    shown.push(format!("{totals:?} {:?} {}", totals.snapshot(), totals.snapshot()));
    shown
}

#[test]
fn nothing_shows_a_key_or_a_text() {
    for (what, step) in FAULTS {
        // With and without the key as the request's id.
        for id in [None, Some(KEY), Some(WORD), Some("req-planted-word")] {
            let (shown, logged) = watched(|| all_of(step, id, Duration::from_secs(60)));
            let what = format!("{what}, request {id:?}");
            assert_unseen(&what, &shown);
            assert_unseen(&format!("the log of {what}"), &[logged]);
        }
    }
}

#[test]
fn a_timeout_shows_none_either() {
    let (shown, logged) =
        watched(|| all_of(|| Step::SlowHeaders(Duration::from_secs(600)), None, Duration::from_millis(100)));
    assert_unseen("a timeout", &shown);
    assert_unseen("its log", &[logged]);
}

/// Checks that the logs which the other tests search exist: spans and lines of this crate and of the crates below.
#[test]
fn the_log_is_seen() {
    let (_, logged) = watched(|| all_of(|| Step::status(503), None, Duration::from_secs(60)));
    for line in ["a line of tracing", "a line of log", "embeddings{", "gen_ai.request.model", "tries again"] {
        assert!(logged.contains(line), "{line:?} is missing");
    }
    assert!(logged.contains("reqwest") || logged.contains("hyper"), "no line of the HTTP client");
}

#[test]
fn a_builder_that_is_refused_shows_none() {
    let fresh = || keyed("http://127.0.0.1:1/v1");
    let broken = [
        fresh().with_api_key(format!("{KEY}\n")),
        fresh().with_header("x-own", format!("{HEADER}\r\n")),
        fresh().with_organization(format!("{KEY}\u{0}")),
        fresh().with_base_url(format!("http://user:{KEY}@127.0.0.1/v1")),
        fresh().with_base_url(format!("http://127.0.0.1/v1?key={KEY}")),
        fresh().with_base_url(format!("http://127.0.0.1:{KEY}/v1")),
        fresh().with_base_url("http://example.com/v1"),
        fresh().with_proxy(format!("http://user:{KEY}@[nowhere")),
        fresh().with_azure(format!("http://{KEY}@127.0.0.1"), "deployment", None),
    ];
    for builder in broken {
        assert_unseen("a builder", &[format!("{builder:?} {builder:#?}")]);
        assert_unseen("its error", &ways(&builder.build().expect_err("it was to be refused")));
    }
    // A valid URL of a proxy with a password.
    let proxied = fresh().with_proxy(format!("http://user:{KEY}@127.0.0.1:1"));
    // Through a proxy, the key leaves this machine.
    assert_unseen("its error", &ways(&proxied.clone().build().expect_err("a key in the clear")));
    let proxied = proxied.with_plain_http();
    assert_unseen("a builder", &[format!("{proxied:?}")]);
    let client = &proxied.build().expect("valid");
    let (shown, logged) = watched(|| async move {
        let error = client.embed_documents(&TEXTS).await.expect_err("no proxy there");
        [ways(&error), vec![format!("{client:?} {client}")]].concat()
    });
    assert_unseen("a proxy that is not there", &shown);
    assert_unseen("its log", &[logged]);
}
