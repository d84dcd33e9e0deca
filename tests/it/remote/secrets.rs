//! A key, a text and a URL's password appear in no error, no `Debug` and no name, whatever the service sends.

use docvector_embed::{EmbedderExt, Error, provider::Remote};
use serde_json::json;

use super::{SPOKEN, builder, model, space_of};
use crate::support::service::{Act, Program, Service};

/// The secret in the key and in every text, which must not appear.
const MARK: &str = "planted";
const KEY: &str = "sk-planted-4711";
const WORD: &str = "planted-word";
const TEXTS: [&str; 2] = ["a planted-word of a customer", WORD];

/// Makes a reaction of the service.
type MakeAct = Box<dyn Fn() -> Act + Send + Sync>;

/// Returns everything that an error can show, including its causes.
fn ways(error: &Error) -> Vec<String> {
    let mut shown = vec![error.to_string(), format!("{error:?}"), format!("{error:#?}")];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        shown.extend([cause.to_string(), format!("{cause:?}")]);
        source = cause.source();
    }
    shown
        .extend([error.provider_code(), error.request_id(), error.embedder()].into_iter().flatten().map(str::to_owned));
    shown
}

fn assert_unseen(what: &str, shown: &[String]) {
    shown.iter().for_each(|shown| assert!(!shown.to_ascii_lowercase().contains(MARK), "{what}: {shown}"));
}

#[tokio::test]
async fn nothing_shows_a_key_or_a_text() {
    let words = || format!("about {KEY} and {WORD}");
    let acts: Vec<(&str, MakeAct)> = vec![
        ("nothing", Box::new(|| Act::Honest)),
        (
            "a native error",
            Box::new(move || {
                let bad_texts = json!([{"index": 0, "reason": WORD}]);
                let error = json!({"error": words(), "detail": words(), "kind": KEY, "bad_texts": bad_texts});
                Act::json(400, &error, &[("x-request-id", KEY), ("x-embed-error", WORD)])
            }),
        ),
        (
            "a flat error",
            Box::new(move || Act::json(422, &json!({"error": words(), "error_type": WORD}), &[("x-request-id", WORD)])),
        ),
        ("a failure", Box::new(move || Act::reply(500, words()))),
        (
            "another address",
            Box::new(|| Act::json(307, &json!({}), &[("location", "http://127.0.0.1:1/sk-planted-4711")])),
        ),
        ("words", Box::new(move || Act::reply(200, words()))),
        ("a frame of words", Box::new(move || Act::reply(200, format!("DVE1\x20\0\0\0{:32}", words())))),
        ("a space of words", Box::new(|| Act::Header("x-embed-space", WORD.to_owned()))),
        ("silence", Box::new(|| Act::Hangup)),
    ];
    for (what, act) in acts {
        let act = std::sync::Arc::new(act);
        for &(dialect, program) in SPOKEN {
            let (fake, act) = (model("fake"), act.clone());
            let service =
                Service::scripted(program, &fake, move |number, _| if number == 0 { Act::Honest } else { act() });
            let service = service.await;
            let builder = builder(&service.url(), dialect, &fake).with_api_key(KEY).with_header("x-own", KEY);
            let remote = builder.clone().build().expect("valid");
            let what = format!("{what}, {dialect} at {program:?}");
            for _ in 0..2 {
                match remote.embed_documents(&TEXTS).await {
                    Ok(rows) => assert_unseen(&what, &[format!("{rows:?}")]),
                    Err(error) => assert_unseen(&what, &ways(&error)),
                }
            }
            assert_unseen(&what, &[format!("{builder:?} {remote:?} {remote} {:?}", remote.endpoints())]);
            let sent = service.requests();
            assert!(sent.iter().all(|request| request.header("authorization") == Some("Bearer sk-planted-4711")));
        }
    }
}

#[tokio::test]
async fn what_info_says_is_not_quoted() {
    let fake = model("fake");
    for body in [
        json!({"docvector": {"space": WORD, "space_id": WORD}}),
        json!({"model_id": "m", "model_type": {WORD: {}}}),
        json!({"error": WORD}),
    ] {
        let service = Service::scripted(Program::Own, &fake, move |_, _| Act::json(200, &body, &[])).await;
        assert_unseen("connecting", &ways(&Remote::connect(service.url()).await.expect_err("nonsense")));
    }
    let service = Service::scripted(Program::Own, &fake, |_, _| Act::json(500, &json!({"error": WORD}), &[])).await;
    assert_unseen("connecting", &ways(&Remote::connect(service.url()).await.expect_err("a failure")));
}

#[test]
fn a_builder_that_is_refused_shows_none() {
    let space = || space_of(&model("fake"));
    for builder in [
        Remote::builder(format!("http://user:{KEY}@127.0.0.1")),
        Remote::builder(format!("http://127.0.0.1?key={KEY}")),
        Remote::builder(format!("http://127.0.0.1:{KEY}")),
        Remote::builder("http://127.0.0.1").with_endpoint(format!("http://{KEY}@host")),
        Remote::builder("http://127.0.0.1").with_api_key(format!("{KEY}\n")),
        Remote::builder("http://127.0.0.1").with_header("x-own", format!("{KEY}\r\n")),
        Remote::builder("http://example.com").with_api_key(KEY),
        Remote::builder("http://127.0.0.1").with_proxy(format!("http://user:{KEY}@[nowhere")),
    ] {
        let builder = builder.with_space(space());
        assert_unseen("a builder", &[format!("{builder:?} {builder:#?}")]);
        assert_unseen("its error", &ways(&builder.build().expect_err("it was to be refused")));
    }
}
