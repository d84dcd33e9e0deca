//! Checks what a client reads from good replies, in all forms that servers send.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, ErrorKind, Limits, RateLimitStatus, RateLimitWindow, TokenCount,
    Truncation, Usage,
    provider::{OpenAi, OpenAiEncoding},
};
use serde_json::{Value, json};

use super::{Quarters, TEXTS, assert_rows, builder, charged, client, secrets::watched};
use crate::support::{
    server::{DIMENSIONS, Server, Step},
    stand_in,
};

/// Returns the client's rows for a reply to the two texts.
async fn read(step: Step) -> Embeddings {
    let server = Server::start([step]).await;
    client(&server).embed_documents(&TEXTS).await.expect("a good reply")
}

/// Makes a step of the honest reply with a change to its JSON text.
fn rewritten(rewrite: impl Fn(String) -> String + Send + Sync + 'static) -> Step {
    Step::Body(Box::new(move |request| {
        let (_, reply) = stand_in::answer(&request.json(), DIMENSIONS);
        rewrite(reply.to_string()).into_bytes()
    }))
}

#[tokio::test]
async fn an_honest_reply_is_read_exactly() {
    let rows = read(Step::Honest).await;
    assert_rows(rows.rows(), &TEXTS);
    assert_eq!(rows.usage(), Usage::of_request(Some(charged())));
    assert_eq!((rows.dimensions(), rows.truncated(), rows.rate_limit_status()), (DIMENSIONS, &[][..], None));
}

/// Some servers always send numbers, and some always send base64.
#[tokio::test]
async fn either_encoding_is_read_whichever_was_asked_for() {
    let turned = || {
        Step::rows(|rows| {
            for (row, text) in rows.iter_mut().zip(TEXTS) {
                let vector = stand_in::vector(text, DIMENSIONS);
                let was_base64 = row["embedding"].is_string();
                row["embedding"] = if was_base64 { json!(vector) } else { json!(stand_in::in_base64(&vector)) };
            }
        })
    };
    for encoding in [OpenAiEncoding::Base64, OpenAiEncoding::Float] {
        let server = Server::start([Step::Honest, turned()]).await;
        let client = builder(&server.base_url()).with_encoding(encoding).build().expect("valid");
        for _ in 0..2 {
            assert_rows(client.embed_documents(&TEXTS).await.expect("a good reply").rows(), &TEXTS);
        }
    }
    // One reply may mix both forms.
    let mixed = Step::second_vector(json!(stand_in::vector(TEXTS[1], DIMENSIONS)));
    assert_rows(read(mixed).await.rows(), &TEXTS);
}

#[tokio::test]
async fn rows_are_placed_by_index() {
    assert_rows(read(Step::rows(|rows| rows.reverse())).await.rows(), &TEXTS);
    // The rows are shuffled, so that one swap too many or too few shows.
    let texts: Vec<String> = (0..97).map(|i| format!("text {i}")).collect();
    for step in [31, 42, 96] {
        let shuffled = Step::rows(move |rows| {
            let old = rows.clone();
            (0..old.len()).for_each(|at| rows[at] = old[(at * step + 5) % old.len()].clone());
        });
        let server = Server::start([shuffled]).await;
        let client = builder(&server.base_url()).with_limits(Limits::none()).build().expect("valid");
        let rows = client.embed_documents(&texts).await.expect("a good reply");
        assert_rows(rows.rows(), &texts);
    }
}

#[tokio::test]
async fn what_it_cost_is_told_or_unknown_but_never_made_up() {
    let known: [(Value, Option<u64>); 11] = [
        (json!({"prompt_tokens": 12, "total_tokens": 12}), Some(12)),
        (json!({"total_tokens": 12}), Some(12)),
        (json!({"prompt_tokens": 12, "total_tokens": 12, "cost": 2.4e-7, "details": {"cached": []}}), Some(12)),
        // A number that is too large for 32 bits.
        (json!({"prompt_tokens": 5_000_000_000_u64}), Some(5_000_000_000)),
        (json!({"prompt_tokens": null}), None),
        (json!({"prompt_tokens": "12"}), None),
        (json!({"prompt_tokens": -12}), None),
        (json!({"prompt_tokens": 12.5}), None),
        (json!({}), None),
        (json!(12), None),
        (Value::Null, None),
    ];
    for (usage, tokens) in known {
        let said = usage.clone();
        let rows = read(Step::edited(move |reply| reply["usage"] = said.clone())).await;
        assert_eq!(rows.usage(), Usage::of_request(tokens), "{usage}");
        assert_rows(rows.rows(), &TEXTS);
    }
    let without = Step::edited(|reply| drop(reply.as_object_mut().expect("a reply").remove("usage")));
    assert_eq!(read(without).await.usage(), Usage::of_request(None));
}

#[tokio::test]
async fn what_does_not_matter_is_not_looked_at() {
    let edits: [fn(&mut Value); 9] = [
        |reply| reply["model"] = json!("text-embedding-3-small-0001"),
        |reply| reply["model"] = json!({"name": "another", "parts": [1, 2]}),
        |reply| drop(reply.as_object_mut().expect("a reply").remove("model")),
        |reply| reply["object"] = json!(["of", "next", "year"]),
        |reply| drop(reply.as_object_mut().expect("a reply").remove("object")),
        |reply| reply["id"] = json!({"data": [{"index": 7, "embedding": [0.5]}], "embedding": null}),
        |reply| reply["error"] = Value::Null,
        |reply| reply["data"][0]["object"] = json!("vector"),
        |reply| reply["data"][1]["meta"] = json!({"index": 9, "usage": {"prompt_tokens": 1}}),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let rows = read(Step::edited(edit)).await;
        assert_rows(rows.rows(), &TEXTS);
        assert_eq!(rows.usage().exact_tokens(), Some(charged()), "edit {number}");
    }
}

#[tokio::test]
async fn fields_may_come_in_any_order() {
    // The usage comes before the rows, and each vector before its index.
    let step = Step::Body(Box::new(|request| {
        let rows = request.texts().iter().enumerate().rev().fold(String::new(), |rows, (index, text)| {
            let row = stand_in::in_base64(&stand_in::vector(text, DIMENSIONS));
            let comma = if rows.is_empty() { "" } else { "," };
            format!("{rows}{comma}{{\"embedding\":\"{row}\",\"index\":{index}}}")
        });
        format!("{{\"usage\":{{\"total_tokens\":9,\"prompt_tokens\":8}},\"data\":[{rows}]}}").into_bytes()
    }));
    let rows = read(step).await;
    assert_rows(rows.rows(), &TEXTS);
    assert_eq!(rows.usage().exact_tokens(), Some(8));
}

#[tokio::test]
async fn numbers_of_every_form_are_numbers() {
    let row = "[1, 0, -2, 1e-2, 1E+1, 0.1000000000000000055511151231257827, 3.4e38, -0.0]";
    let rows = format!("{{\"index\":0,\"embedding\":[0,0,0,0,0,0,0,1]}},{{\"index\":1,\"embedding\":{row}}}");
    let body = format!("{{\"data\":[{rows}],\"model\":\"m\"}}");
    let rows = read(Step::body(body)).await;
    assert_eq!(rows.row(0), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(rows.row(1), [1.0, 0.0, -2.0, 0.01, 10.0, 0.1, 3.4e38, 0.0]);
}

#[tokio::test]
async fn white_space_is_white_space() {
    for encoding in [OpenAiEncoding::Base64, OpenAiEncoding::Float] {
        let pretty = |spaces: fn(&str) -> String| {
            Step::Body(Box::new(move |request| {
                let (_, reply) = stand_in::answer(&request.json(), DIMENSIONS);
                spaces(&serde_json::to_string_pretty(&reply).expect("JSON")).into_bytes()
            }))
        };
        let steps = [
            pretty(str::to_owned),
            pretty(|json| json.replace('\n', "\r\n\t")),
            pretty(|json| format!("\n\n {json} \r\n\n")),
        ];
        let server = Server::start(steps).await;
        let client = builder(&server.base_url()).with_encoding(encoding).build().expect("valid");
        for _ in 0..3 {
            assert_rows(client.embed_documents(&TEXTS).await.expect("a good reply").rows(), &TEXTS);
        }
    }
}

/// Google's server leaves out the index of the first row.
#[tokio::test]
async fn the_first_index_may_be_missing() {
    let without_first = |rows: &mut Vec<Value>| drop(rows[0].as_object_mut().expect("a row").remove("index"));
    assert_rows(read(Step::rows(without_first)).await.rows(), &TEXTS);
    let server = Server::start([Step::rows(without_first)]).await;
    assert_rows(client(&server).embed_documents(&["alone"]).await.expect("a good reply").rows(), &["alone"]);
}

/// Its vectors may lie in another space. An alias is no other model.
#[test]
fn another_model_is_told_once() {
    let named = |name: &'static str| Step::edited(move |reply| reply["model"] = json!(name));
    let logged_of = |names: [&'static str; 4]| {
        let (_, logged) = watched(|| async move {
            let server = Server::start(names.map(named)).await;
            let client = client(&server);
            for _ in 0..2 {
                for client in [client.clone(), client.clone()] {
                    assert_rows(client.embed_documents(&TEXTS).await.expect("a good reply").rows(), &TEXTS);
                }
            }
            Vec::new()
        });
        let told = logged.lines().filter(|line| line.contains("another model answered")).map(str::to_owned);
        told.collect::<Vec<_>>()
    };
    let aliases = ["stand-in", "stand-in-2024-05-01", "models/stand-in", "vendor/Stand-In:latest"];
    assert_eq!(logged_of(aliases), Vec::<String>::new());
    let told = logged_of(["stand-in", "stand-in-large", "stand-in-large", "a-third-model"]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("WARN") && told[0].contains("stand-in-large"), "{told:?}");
}

#[tokio::test]
async fn escapes_are_undone() {
    // The base64 of this number has many slashes, which some servers escape.
    let slashes = [f32::from_bits(0x3f3f_ffff); DIMENSIONS];
    for escape in ["\\/", "\\u002f", "\\u002F"] {
        let step = rewritten(move |reply| {
            let honest = stand_in::in_base64(&stand_in::vector(TEXTS[1], DIMENSIONS));
            let reply = reply.replace(&honest, &stand_in::in_base64(&slashes)).replace('/', escape);
            assert!(reply.matches(escape).count() > 8, "{reply}");
            reply
        });
        let rows = read(step).await;
        assert_eq!(rows.row(1), slashes, "{escape}");
        assert_eq!(rows.row(0), stand_in::vector(TEXTS[0], DIMENSIONS), "{escape}");
    }
    let names =
        [("\"data\"", "\"d\\u0061ta\""), ("\"index\"", "\"\\u0069ndex\""), ("\"embedding\":", "\"embed\\u0064ing\":")];
    let step = rewritten(move |reply| {
        names.iter().fold(reply, |reply, (name, escaped)| {
            assert!(reply.contains(name), "{reply}");
            reply.replace(name, escaped)
        })
    });
    assert_rows(read(step).await.rows(), &TEXTS);
}

/// Some servers omit the padding, which changes nothing.
#[tokio::test]
async fn padding_may_be_missing() {
    let step = Step::rows(|rows| {
        for row in rows {
            let text = row["embedding"].as_str().expect("base64").to_owned();
            assert!(text.ends_with('='), "{DIMENSIONS} numbers need padding");
            row["embedding"] = json!(text.trim_end_matches('='));
        }
    });
    assert_rows(read(step).await.rows(), &TEXTS);
}

#[tokio::test]
async fn compressed_replies_are_unpacked() {
    let rows = read(Step::Gzip).await;
    assert_rows(rows.rows(), &TEXTS);
    assert_eq!(rows.usage().exact_tokens(), Some(charged()));
    assert_rows(read(Step::Honest.header("content-encoding", "identity")).await.rows(), &TEXTS);
}

/// Checks megabytes of numbers, at the full width of one of OpenAI's models.
#[tokio::test]
async fn large_replies_are_read_as_small_ones_are() {
    let reversed = Step::rows(|rows| rows.reverse());
    let server = Server::start_with(1536, [Step::Honest, reversed, Step::Gzip]).await;
    let client = OpenAi::builder("text-embedding-3-small").with_base_url(server.base_url());
    let client = client.with_encoding(OpenAiEncoding::Float).build().expect("valid");
    let texts: Vec<String> = (0..60).map(|i| format!("text {i}")).collect();
    for _ in 0..3 {
        assert_rows(client.embed_documents(&texts).await.expect("a good reply").rows(), &texts);
    }
}

#[tokio::test]
async fn cut_texts_are_named() {
    let limits = Limits::none().with_tokens_per_text(5).with_tokens(TokenCount::Exact(Arc::new(Quarters)));
    let server = Server::start([Step::rows(|rows| rows.reverse())]).await;
    let client = builder(&server.base_url()).with_limits(limits).build().expect("valid");
    let texts = ["short", "a text of more than twenty bytes", "just twenty bytes!!!", "zwölf große Käfer schwärmen"];
    // Only one request is sent: the script has one step.
    let error = client.embed_documents(&texts).await.expect_err("too long");
    let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
    assert_eq!((error.kind(), &named[..]), (ErrorKind::InvalidInput, &[1, 3][..]));
    let rows = client.embed(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await.expect("cut");
    assert_eq!(rows.truncated(), [1, 3]);
    let sent = server.requests()[0].texts();
    assert_eq!(sent[..3], ["short", "a text of more than ", "just twenty bytes!!!"]);
    assert!(texts[3].starts_with(&sent[3]) && (17..=20).contains(&sent[3].len()), "{} bytes", sent[3].len());
    assert_rows(rows.rows(), &sent);
}

#[tokio::test]
async fn what_is_still_allowed_comes_with_the_rows() {
    let step = Step::Honest
        .header("x-ratelimit-limit-requests", "3000")
        .header("x-ratelimit-remaining-requests", "2999")
        .header("x-ratelimit-reset-requests", "12ms")
        .header("x-ratelimit-limit-tokens", "1000000")
        .header("x-ratelimit-remaining-tokens", "7")
        .header("x-ratelimit-reset-tokens", "6m0s");
    let requests = RateLimitWindow::new(3000).with_remaining(2999).with_reset(Duration::from_millis(12));
    let tokens = RateLimitWindow::new(1_000_000).with_remaining(7).with_reset(Duration::from_secs(360));
    let want = RateLimitStatus::default().with_requests(requests).with_tokens(tokens);
    assert_eq!(read(step).await.rate_limit_status(), Some(want));
    // Azure's meaningless values, and values that cannot be parsed, are not a limit of zero.
    for (limit, remaining, reset) in [("-1", "-1", "0s"), ("0", "0", ""), ("many", "some", "soon")] {
        let step = Step::Honest
            .header("x-ratelimit-limit-requests", limit)
            .header("x-ratelimit-remaining-requests", remaining)
            .header("x-ratelimit-reset-requests", reset);
        assert_eq!(
            read(step).await.rate_limit_status().and_then(|rate_limit_status| rate_limit_status.requests),
            None,
            "{limit}"
        );
    }
    // A reset that is not a Go duration is ignored, and the rest counts.
    let step = Step::Honest.header("x-ratelimit-limit-tokens", "50").header("x-ratelimit-reset-tokens", "1x");
    let tokens = read(step).await.rate_limit_status().and_then(|rate_limit_status| rate_limit_status.tokens);
    assert_eq!(tokens.map(|tokens| (tokens.limit, tokens.reset)), Some((50, None)));
}
