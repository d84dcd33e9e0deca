//! Checks any number of texts of any length: requests keep OpenAI's limits, and a failure affects no other text.

use std::{
    collections::HashSet,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    BadText, BadTextReason, Batch, CountTokens, Embedder, EmbedderExt, ErrorKind, InputKind, Limits, StreamOptions,
    TokenCount, Truncation, Usage, cache::Memory, plan, provider::OpenAi, wrap::RetryPolicy,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{assert_rows, builder, client, small};
use crate::support::{
    numbered,
    server::{DIMENSIONS, Server, Step},
    stand_in::{self, Request},
};

/// OpenAI's limits.
const TEXTS: usize = 2048;
const TOKENS: usize = 8191;
const TOKENS_PER_CALL: usize = 300_000;
/// OpenAI estimates the tokens of a request as a quarter of its bytes.
const BYTES_PER_CALL: usize = 1_200_000;

/// The counter of OpenAI's models, from the client's own limits.
static COUNTER: LazyLock<Arc<dyn CountTokens>> = LazyLock::new(|| {
    let limits = small("http://127.0.0.1:1/v1").build().expect("valid").limits();
    let TokenCount::Exact(counter) = limits.tokens else { panic!("tokens cannot be counted") };
    counter
});

pub(super) fn count(text: &str) -> usize {
    COUNTER.count(InputKind::Document, text)
}

/// Returns a text of exactly so many tokens.
fn of_tokens(tokens: usize) -> String {
    let text = vec!["hello"; tokens].join(" ");
    assert_eq!(count(&text), tokens);
    text
}

/// Returns rare syllables with nearly as many tokens as bytes, where a guess by characters is far off.
fn dense(seed: usize) -> String {
    let syllable =
        |i: usize| char::from_u32(0xa000 + ((seed * 7919 + i * 104_729) % 0x480) as u32).expect("a syllable");
    let words = (0..500).map(|word| (0..4).map(|i| syllable(word * 4 + i)).collect::<String>());
    words.collect::<Vec<_>>().join(" ")
}

/// OpenAI's reply to a bad text, which does not name the text.
fn dislikes() -> Step {
    Step::refusal(400, "invalid_request_error", None, "'$.input' is invalid. Please check the API reference.")
}

#[test]
fn openais_limits_are_stated() {
    for model in ["text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"] {
        let client = OpenAi::builder(model).with_base_url("http://127.0.0.1:1/v1").build().expect("known");
        let limits = client.limits();
        assert_eq!((limits.texts, limits.tokens_per_text), (Some(TEXTS), Some(TOKENS)), "{model}");
        assert_eq!((limits.tokens_per_call, limits.in_flight), (Some(TOKENS_PER_CALL), Some(8)), "{model}");
        assert_eq!(limits.bytes, Some(BYTES_PER_CALL), "{model}");
        let TokenCount::Exact(counter) = limits.tokens else { panic!("{model} cannot be counted") };
        assert_eq!(counter.count(InputKind::Query, "hello world"), 2, "{model}");
    }
}

/// Checks token counts of cl100k that other programs gave.
#[test]
fn tokens_are_counted_as_openai_counts_them() {
    for (text, tokens) in [("hello world", 2), ("tiktoken is great!", 6), ("antidisestablishmentarianism", 6), ("", 0)]
    {
        assert_eq!(count(text), tokens, "{text:?}");
    }
    // A text that looks like a special token counts as a text.
    assert!(count("<|endoftext|>") > 1);
    assert!(count(&dense(1)) > 4000, "dense text is dense");
}

#[tokio::test]
async fn more_texts_than_a_request_holds_are_split() {
    let server = Server::start([Step::Honest, Step::Honest, Step::Honest]).await;
    let texts = numbered(2 * TEXTS + 904);
    let client = small(&server.base_url()).build().expect("valid");
    let rows = client.embed_documents(&texts).await.expect("honest");
    assert_rows(rows.rows(), &texts);
    assert_eq!(rows.usage().requests, 3);
    assert_eq!(rows.usage().exact_tokens(), Some(texts.iter().map(|text| stand_in::tokens(text)).sum()));
    let mut sizes: Vec<usize> = server.requests().iter().map(|request| request.texts().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [904, TEXTS, TEXTS]);
}

#[tokio::test]
async fn a_full_request_is_one_request() {
    let server = Server::start([Step::Honest]).await;
    let texts = numbered(TEXTS);
    small(&server.base_url()).build().expect("valid").embed_documents(&texts).await.expect("honest");
    assert_eq!(server.requests()[0].texts(), texts);
}

#[tokio::test]
async fn no_request_has_more_tokens_than_openai_takes() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let server = Server::handling(move |_, request| {
        let tokens: usize = request.texts().iter().map(|text| count(text)).sum();
        seen.fetch_max(tokens, Ordering::Relaxed);
        if tokens <= TOKENS_PER_CALL {
            return Step::Honest;
        }
        too_large(tokens)
    })
    .await;
    let plain = of_tokens(1000);
    let texts: Vec<String> = (0..70).map(dense).chain(std::iter::repeat_n(plain, 40)).collect();
    let total: usize = texts.iter().map(|text| count(text)).sum();
    assert!(total > TOKENS_PER_CALL && total < 2 * TOKENS_PER_CALL, "{total} tokens are for two requests");
    let rows = small(&server.base_url()).build().expect("valid").embed_documents(&texts).await.expect("honest");
    assert_rows(rows.rows(), &texts);
    // If bytes counted as tokens, there would be three.
    assert!(texts.iter().map(String::len).sum::<usize>() > 2 * TOKENS_PER_CALL);
    assert_eq!(rows.usage().requests, 2);
    let most = most.load(Ordering::Relaxed);
    assert!((TOKENS_PER_CALL - TOKENS..=TOKENS_PER_CALL).contains(&most), "{most} tokens in the fullest");
}

/// Returns OpenAI's refusal of a request whose texts together are too large.
fn too_large(tokens: usize) -> Step {
    let message = format!("Requested {tokens} tokens, max {TOKENS_PER_CALL} tokens per request");
    Step::refusal(400, "max_tokens_per_request", Some("max_tokens_per_request"), &message)
}

/// OpenAI refuses a request by its bytes before it counts tokens. Prose has more than four bytes per token.
#[tokio::test]
async fn no_request_of_prose_has_more_bytes_than_openai_takes() {
    let server = Server::handling(|_, request| {
        let bytes: usize = request.texts().iter().map(String::len).sum();
        if bytes / 4 <= TOKENS_PER_CALL { Step::Honest } else { too_large(bytes / 4) }
    })
    .await;
    let words = "international documentation describes responsibilities ".repeat(400);
    let texts: Vec<String> = (0..70).map(|number| format!("{number} {words}")).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let tokens = count(&texts[0]) * texts.len();
    assert!(bytes > BYTES_PER_CALL && tokens < TOKENS_PER_CALL, "{bytes} bytes, {tokens} tokens");
    let client = small(&server.base_url()).build().expect("valid");
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let calls = plan::split(&Batch::documents(&refs), &client.limits()).expect("all fit");
    let first: usize = texts[calls[0].clone()].iter().map(String::len).sum();
    assert!(first <= BYTES_PER_CALL && first + texts[0].len() > BYTES_PER_CALL, "{first} bytes in the first call");
    let rows = client.embed_documents(&texts).await.expect("nothing is refused");
    assert_rows(rows.rows(), &texts);
    assert_eq!((rows.usage().requests, server.requests().len()), (2, 2));
    let options = StreamOptions::new(InputKind::Document).with_windows_in_flight(1);
    let windows: Vec<_> = client.embed_stream(stream::iter(texts.clone()), options).collect().await;
    let rows: Vec<_> = windows.into_iter().map(|window| window.expect("nothing is refused")).collect();
    assert_rows(rows.iter().flat_map(|window| window.rows()), &texts);
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_request_that_the_server_finds_too_large_is_sent_in_halves() {
    let server = Server::handling(|_, request| {
        let texts = request.texts().len();
        if texts > 3 { too_large(texts) } else { Step::Honest }
    })
    .await;
    let texts = numbered(10);
    let rows = client(&server).embed_documents(&texts).await.expect("the halves fit");
    assert_rows(rows.rows(), &texts);
    let sizes: Vec<usize> = server.requests().iter().map(|request| request.texts().len()).collect();
    assert_eq!(sizes, [10, 5, 2, 3, 5, 2, 3]);
    // Each request counts, and the refused ones were not billed.
    let tokens = texts.iter().map(|text| stand_in::tokens(text)).sum();
    assert_eq!((rows.usage().requests, rows.usage().exact_tokens()), (7, Some(tokens)));
}

#[tokio::test]
async fn a_text_that_is_too_large_alone_is_named_and_the_rows_before_it_are_kept() {
    let server = Server::handling(|_, request| {
        if request.texts().iter().any(|text| text == "text number 5") { too_large(9) } else { Step::Honest }
    })
    .await;
    let texts = numbered(8);
    let error = client(&server).embed_documents(&texts).await.expect_err("one is too large");
    assert_eq!((error.kind(), error.status()), (ErrorKind::InvalidInput, Some(400)));
    assert_eq!(error.bad_texts(), [BadText::new(5, BadTextReason::Rejected)]);
    let partial = error.partial().expect("the rows before");
    assert_eq!(partial.indices(), [0, 1, 2, 3, 4]);
    assert_rows(partial.embeddings().rows(), &texts[..5]);
    assert_eq!(error.total_usage().requests as usize, server.requests().len());
    // A request of one text has no halves.
    let before = server.requests().len();
    let error = client(&server).embed_documents(&texts[5..6]).await.expect_err("too large");
    assert_eq!((error.kind(), error.usage()), (ErrorKind::InvalidInput, Usage::of_request(Some(0))));
    assert_eq!(server.requests().len(), before + 1);
}

#[tokio::test]
async fn the_longest_text_is_taken_and_one_token_more_is_not() {
    let server = Server::start([Step::Honest]).await;
    let client = small(&server.base_url()).build().expect("valid");
    let longest = of_tokens(TOKENS);
    client.embed_documents(&["a short one", &longest]).await.expect("within the limit");
    // The client refuses them with all indices at once, for one request and for many; the script has no more steps.
    let over = of_tokens(TOKENS + 1);
    let few = ["fine", over.as_str(), "fine", over.as_str()];
    let mut many = vec!["fine"; TEXTS + 10];
    (many[7], many[TEXTS + 3]) = (over.as_str(), over.as_str());
    for (texts, at) in [(&few[..], [1, 3]), (&many[..], [7, TEXTS + 3])] {
        let error = client.embed_documents(texts).await.expect_err("too long");
        assert_eq!((error.kind(), error.usage().requests), (ErrorKind::InvalidInput, 0));
        let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
        assert_eq!(named, at);
        for bad in error.bad_texts() {
            let BadTextReason::TooLong { tokens, limit } = bad.reason else { panic!("{bad:?}") };
            assert!(limit == TOKENS && tokens > TOKENS, "{bad:?}");
        }
    }
}

#[tokio::test]
async fn too_long_texts_are_cut_at_a_token_and_named() {
    let server = Server::start([Step::Honest]).await;
    let client = small(&server.base_url()).build().expect("valid");
    let plain = of_tokens(3 * TOKENS);
    let dense = [dense(1), dense(2), dense(3)].join(" ");
    let texts = ["before", &plain, "between", &dense, "after"];
    let rows = client.embed(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await.expect("cut");
    assert_eq!(rows.truncated(), [1, 3]);
    // Each row is that of its text's beginning, not an average of the text's parts.
    let sent = server.requests()[0].texts();
    assert_rows(rows.rows(), &sent);
    for (sent, text) in sent.iter().zip(texts) {
        assert!(text.starts_with(sent.as_str()), "what was sent is not a beginning");
    }
    assert_eq!([&*sent[0], &*sent[2], &*sent[4]], ["before", "between", "after"]);
    for sent in [&sent[1], &sent[3]] {
        let tokens = count(sent);
        assert!((TOKENS - 8..=TOKENS).contains(&tokens), "{tokens} tokens are left");
    }
}

#[tokio::test]
async fn cut_texts_are_named_by_the_callers_indices_in_every_call() {
    let server = Server::handling(|_, _| Step::Honest).await;
    let client = small(&server.base_url()).with_limits(Limits::none().with_texts(3).with_tokens_per_text(4));
    let client = client.build().expect("valid");
    let mut texts = numbered(20);
    let at = [0, 5, 6, 19];
    at.iter().for_each(|&index| texts[index] = "hello".to_owned() + &" hello".repeat(index + 4));
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows = client.embed_all(Batch::documents(&refs).with_truncation(Truncation::Truncate)).await.expect("cut");
    assert_eq!(rows.truncated(), at);
    at.iter().for_each(|&index| texts[index] = "hello hello hello hello".to_owned());
    assert_rows(rows.rows(), &texts);
}

#[tokio::test]
async fn one_disliked_text_is_found_and_the_others_have_their_rows() {
    const PLANTED: usize = 41;
    let server = Server::handling(|_, request| {
        if request.texts().iter().any(|text| text == "text number 41") { dislikes() } else { Step::Honest }
    })
    .await;
    let texts = numbered(64);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = client(&server).embed_each(Batch::documents(&refs)).await;
    let failed: Vec<usize> = each.errors().map(|(index, _)| index).collect();
    assert_eq!(failed, [PLANTED]);
    let error = each.result(PLANTED).expect_err("refused");
    assert_eq!(error.bad_texts(), [BadText::new(PLANTED, BadTextReason::Rejected)]);
    assert_eq!(error.status(), Some(400));
    let (before, after) = texts.split_at(PLANTED);
    let others: Vec<&String> = before.iter().chain(&after[1..]).collect();
    assert_rows(each.embeddings().expect("the others").rows(), &others);
    // One request for the whole, and two for the halves at each of the six steps down to one text.
    assert!(server.requests().len() <= 13, "{} requests", server.requests().len());
    assert_eq!(each.usage().exact_tokens(), Some(others.iter().map(|text| stand_in::tokens(text)).sum()));
    assert_eq!(each.usage().requests as usize, server.requests().len());
}

/// The client does not search the texts for a cause that is not in them.
#[tokio::test]
async fn a_wrong_model_name_costs_few_requests() {
    #[allow(clippy::type_complexity, reason = "a table")]
    let names: [(&str, fn() -> Step); 3] = [
        ("404", || Step::refusal(404, "invalid_request_error", Some("model_not_found"), "The model does not exist.")),
        ("400", || Step::refusal(400, "invalid_request_error", Some("model_not_found"), "The model does not exist.")),
        ("400, by its parameter", || {
            let body = stand_in::refusal("invalid model ID", "invalid_request_error", Some("model"), None);
            Step::json(400, &body)
        }),
    ];
    for (what, step) in names {
        for texts_a_call in [TEXTS, 100, 1] {
            let server = Server::handling(move |_, _| step()).await;
            let client = builder(&server.base_url()).with_limits(Limits::none().with_texts(texts_a_call));
            let client = client.build().expect("valid");
            let texts = numbered(5000);
            let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
            let each = client.embed_each(Batch::documents(&refs)).await;
            assert_eq!(each.errors().count(), 5000, "{what}");
            assert!(each.errors().all(|(_, error)| error.kind() == ErrorKind::Config), "{what}");
            assert!(server.requests().len() <= 20, "{what}: {} requests", server.requests().len());
            let all = client.embed_documents(&texts).await.expect_err("no such model");
            assert_eq!((all.kind(), all.partial().is_none()), (ErrorKind::Config, true), "{what}");
        }
    }
}

/// A refusal without details is bisected, but not without end.
#[tokio::test]
async fn a_refusal_of_everything_costs_few_requests() {
    let server = Server::handling(|_, _| dislikes()).await;
    let texts = numbered(5000);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = client(&server).embed_each(Batch::documents(&refs)).await;
    assert_eq!(each.errors().count(), 5000);
    assert!(each.errors().all(|(_, error)| error.kind() == ErrorKind::InvalidInput));
    assert!(server.requests().len() <= 40, "{} requests", server.requests().len());
}

#[tokio::test]
async fn work_that_was_paid_for_is_not_lost() {
    const FAILS: usize = 500;
    let failed = Arc::new(Mutex::new(String::new()));
    let note = failed.clone();
    let server = Server::handling(move |number, request| {
        if number != FAILS {
            return Step::Honest;
        }
        *note.lock().expect("nobody panicked") = request.texts().remove(0);
        Step::refusal(429, "insufficient_quota", Some("insufficient_quota"), "You exceeded your current quota.")
    })
    .await;
    let limits = Limits::none().with_texts(1).with_in_flight(4);
    let client = builder(&server.base_url()).with_limits(limits).build().expect("valid");
    let texts = numbered(600);
    let error = client.embed_documents(&texts).await.expect_err("no money");
    assert_eq!((error.kind(), error.provider_code()), (ErrorKind::QuotaExhausted, Some("insufficient_quota")));
    // Requests in flight finish, and then no other one begins.
    let requests = server.requests().len();
    assert!((FAILS..FAILS + 50).contains(&requests), "{requests} requests");
    let partial = error.into_partial().expect("rows");
    assert_eq!(partial.indices().len(), requests - 1, "every answered text has its row");
    let done: Vec<&String> = partial.indices().iter().map(|&index| &texts[index]).collect();
    assert_rows(partial.embeddings().rows(), &done);
    assert!(!done.contains(&&*failed.lock().expect("nobody panicked")), "the failed one has none");
    let asked: HashSet<String> = server.requests().iter().flat_map(|request| request.texts()).collect();
    assert_eq!(asked.len(), requests, "no text was asked for twice");
    let usage = partial.embeddings().usage();
    assert_eq!(usage.exact_tokens(), Some(done.iter().map(|text| stand_in::tokens(text)).sum()));
}

#[tokio::test]
async fn one_bad_answer_of_many_spoils_no_other() {
    // If a reply lacks a row, no row takes another's place, and the texts of this call have none. Each of its parts
    // might be billed and wrong, too, so the call is not searched.
    let server = Server::handling(|_, request| {
        let short = request.texts().contains(&"text number 10".to_owned());
        if short { Step::rows(|rows| drop(rows.pop())) } else { Step::Honest }
    })
    .await;
    let client = builder(&server.base_url()).with_limits(Limits::none().with_texts(4)).build().expect("valid");
    let texts = numbered(40);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = client.embed_each(Batch::documents(&refs)).await;
    let failed: Vec<usize> = each.errors().map(|(index, _)| index).collect();
    assert_eq!((failed.as_slice(), server.requests().len()), (&[8, 9, 10, 11][..], 10));
    assert!(each.errors().all(|(_, error)| error.bad_texts().is_empty()));
    assert!(each.errors().all(|(_, error)| error.kind() == ErrorKind::Protocol));
    for (index, row) in each.iter().enumerate().filter(|(index, _)| !failed.contains(index)) {
        assert_rows([row.expect("a row")], &texts[index..=index]);
    }
    // The unusable replies were paid for too.
    let all = server.requests().iter().flat_map(Request::texts).map(|text| stand_in::tokens(&text)).sum();
    assert_eq!(each.usage().exact_tokens(), Some(all));
}

/// Makes the reply of a server that fails for as long as one text is in the request.
fn poisoned(request: &Request, how: fn(&Request) -> Step) -> Step {
    if request.texts().contains(&"text number 41".to_owned()) { how(request) } else { Step::Honest }
}

/// Ollama's failure to write NaN, a reply with a bare NaN, a row that is null, and a proxy whose server crashed.
#[tokio::test]
async fn a_text_with_which_a_server_fails_costs_no_other_its_row() {
    #[allow(clippy::type_complexity, reason = "a table")]
    let ways: [(&str, ErrorKind, fn(&Request) -> Step); 6] = [
        ("status 500", ErrorKind::Unavailable, |_| {
            let message = "failed to encode response: json: unsupported value: NaN";
            Step::refusal(500, "api_error", None, message)
        }),
        ("a bare NaN", ErrorKind::Protocol, |request| {
            let row = |index| format!("{{\"index\": {index}, \"embedding\": [NaN, 1, 0, 0, 0, 0, 0, 0]}}");
            let rows: Vec<String> = (0..request.texts().len()).map(row).collect();
            Step::body(format!("{{\"data\": [{}]}}", rows.join(", ")))
        }),
        ("a null row", ErrorKind::Protocol, |_| Step::rows(|rows| rows.iter_mut().for_each(|row| *row = Value::Null))),
        ("no vector", ErrorKind::Protocol, |_| {
            Step::rows(|rows| drop(rows[0].as_object_mut().expect("a row").remove("embedding")))
        }),
        ("NaN in quotes", ErrorKind::Protocol, |_| {
            Step::rows(|rows| rows[0]["embedding"] = json!(["NaN", 1, 0, 0, 0, 0, 0, 0]))
        }),
        ("status 502", ErrorKind::Unavailable, |_| Step::Html(502)),
    ];
    let texts = numbered(64);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let policy =
        RetryPolicy::default().with_attempts(2).with_backoff(Duration::from_millis(1), Duration::from_millis(2));
    for (what, kind, how) in ways {
        for retries in [false, true] {
            let server = Server::handling(move |_, request| poisoned(request, how)).await;
            let each = match retries {
                false => client(&server).embed_each(Batch::documents(&refs)).await,
                true => client(&server).retry(policy.clone()).embed_each(Batch::documents(&refs)).await,
            };
            assert_eq!(each.errors().map(|(index, _)| index).collect::<Vec<_>>(), [41], "{what}");
            let error = each.result(41).expect_err("poisoned");
            assert_eq!((error.kind(), error.bad_texts()), (kind, &[BadText::new(41, BadTextReason::Rejected)][..]));
            for (index, row) in each.iter().enumerate().filter(|(index, _)| *index != 41) {
                assert_rows([row.expect("a row")], &texts[index..=index]);
            }
            // The whole, the halves at six steps, the text once more, and a proof; with a second attempt of each failure.
            let requests = server.requests().len();
            assert!(requests <= 15 + 8, "{what}: {requests} requests");
            assert_eq!(each.usage().requests as usize, requests, "{what}");
        }
    }
}

/// What is wrong with the whole of a reply would be wrong with any part of it, which would be billed as well.
#[tokio::test]
async fn a_reply_that_is_wrong_as_a_whole_is_not_searched() {
    #[allow(clippy::type_complexity, reason = "a table")]
    let ways: [(&str, ErrorKind, fn() -> Step); 8] = [
        ("another width", ErrorKind::Protocol, || Step::second_vector(json!([0.5, 0.5]))),
        ("a row too few", ErrorKind::Protocol, || Step::rows(|rows| drop(rows.pop()))),
        ("an index twice", ErrorKind::Protocol, || Step::rows(|rows| rows[1]["index"] = json!(0))),
        ("no index", ErrorKind::Protocol, || Step::rows(|rows| rows[1]["index"] = Value::Null)),
        ("an error", ErrorKind::Protocol, || Step::body(json!({"error": {"message": "no", "code": "no"}}).to_string())),
        ("an error of 502", ErrorKind::Unavailable, || Step::body(json!({"error": {"code": 502}}).to_string())),
        ("a page", ErrorKind::Protocol, || Step::Html(200)),
        ("a compression", ErrorKind::Protocol, || Step::Honest.header("content-encoding", "br")),
    ];
    let texts = numbered(64);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (what, kind, how) in ways {
        let server = Server::handling(move |_, _| how()).await;
        let each = client(&server).embed_each(Batch::documents(&refs)).await;
        assert_eq!((each.errors().count(), server.requests().len()), (64, 1), "{what}");
        assert!(each.errors().all(|(_, error)| error.kind() == kind && error.bad_texts().is_empty()), "{what}");
    }
    // Vectors of OpenAI's models have length 1.
    let longer = || Step::edited(|reply| reply["data"][1]["embedding"] = json!(vec![0.5; DIMENSIONS]));
    let server = Server::handling(move |_, _| longer()).await;
    let each = small(&server.base_url()).build().expect("valid").embed_each(Batch::documents(&refs)).await;
    assert_eq!((each.errors().count(), server.requests().len()), (64, 1));
}

/// A server that takes ten texts per request, and says so.
async fn takes_ten() -> Server {
    Server::handling(|_, request| {
        let message = "Value error, batch size is invalid, it should not be larger than 10.: input.contents";
        let fits = request.texts().len() <= 10;
        if fits { Step::Honest } else { Step::refusal(400, "InvalidParameter", Some("InvalidParameter"), message) }
    })
    .await
}

#[tokio::test]
async fn how_many_texts_a_server_takes_is_read_from_its_refusal_and_remembered() {
    let texts = numbered(200);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    for count in [11, 64, 200] {
        let (texts, refs) = (&texts[..count], &refs[..count]);
        let server = takes_ten().await;
        let client = client(&server);
        let rows = client.embed_documents(texts).await.expect("in parts");
        assert_rows(rows.rows(), texts);
        assert_eq!((rows.usage().requests as usize, client.limits().texts), (server.requests().len(), Some(10)));
        // Those in flight at once are refused alike; no later request is too large.
        let refused = |server: &Server| server.requests().iter().filter(|sent| sent.texts().len() > 10).count();
        assert!((1..=4).contains(&refused(&server)), "{count}: {}", refused(&server));
        let before = (refused(&server), server.requests().len());
        client.clone().embed_documents(texts).await.expect("remembered");
        assert_eq!((refused(&server), server.requests().len()), (before.0, before.1 + count.div_ceil(10)), "{count}");

        let server = takes_ten().await;
        let each = self::client(&server).embed_each(Batch::documents(refs)).await;
        assert_eq!((each.errors().count(), each.usage().requests as usize), (0, server.requests().len()), "{count}");
        assert_rows(each.embeddings().expect("all").rows(), texts);

        let server = takes_ten().await;
        let cached = self::client(&server).cached(Memory::unbounded()).expect("one space");
        let rows = cached.embed_documents(texts).await.expect("in parts");
        assert_rows(rows.rows(), texts);
        assert_eq!(rows.usage().requests as usize, server.requests().len(), "{count}");
    }
}

#[tokio::test]
async fn a_refusal_of_too_many_texts_says_what_to_set() {
    let server = takes_ten().await;
    let texts = numbered(11);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let error = client(&server).embed(Batch::documents(&refs)).await.expect_err("one too many");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("with_limits(Limits::none().with_texts(10))"), "{error}");
    assert!(error.to_string().contains("11 texts"), "{error}");
    // In the words that FastAPI puts beside the place of the fault.
    let detail = |place: &str| {
        let message = "List should have at most 10 items after validation, not 11";
        Step::json(422, &json!({"detail": [{"loc": ["body", place], "msg": message}]}))
    };
    let server = Server::start([detail("input")]).await;
    let client = self::client(&server);
    let error = client.embed(Batch::documents(&refs)).await.expect_err("one too many");
    assert!(error.message().contains("with_texts(10)"), "{error}");
    assert_eq!(client.limits().texts, Some(10));
    // Another list than that of the texts.
    let server = Server::start([detail("embedding_types")]).await;
    let client = self::client(&server);
    let error = client.embed(Batch::documents(&refs)).await.expect_err("refused");
    assert_eq!((error.kind(), client.limits().texts), (ErrorKind::Config, Some(64)), "{error}");
    // The same, named in words only.
    for (words, kind) in [
        ("encoding_format is not in the list of at most 2 items", ErrorKind::Config),
        ("unknown model: the list of models has at most 2 items", ErrorKind::Config),
        ("api key not valid: the list of keys has at most 2 items", ErrorKind::Auth),
    ] {
        let server = Server::start([Step::refusal(400, "invalid_request_error", None, words)]).await;
        let client = self::client(&server);
        let error = client.embed(Batch::documents(&refs)).await.expect_err("refused");
        assert_eq!((error.kind(), client.limits().texts), (kind, Some(64)), "{error}");
    }
}

/// A limit that was misread must not stay unseen.
#[test]
fn a_limit_that_was_learned_is_logged_once() {
    let (_, logged) = super::secrets::watched(|| async {
        let server = takes_ten().await;
        let client = client(&server);
        for _ in 0..2 {
            // Several requests are refused at once.
            client.embed_documents(&numbered(200)).await.expect("in parts");
        }
        Vec::new()
    });
    let lines: Vec<&str> = logged.lines().filter(|line| line.contains("embed.limit.texts")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("embed.limit.texts=10"), "{lines:?}");
}

#[tokio::test]
async fn models_that_are_not_openais_get_64_texts_per_request() {
    let server = Server::handling(|_, _| Step::Honest).await;
    let texts = numbered(130);
    let rows = client(&server).embed_documents(&texts).await.expect("honest");
    assert_rows(rows.rows(), &texts);
    let mut sizes: Vec<usize> = server.requests().iter().map(|request| request.texts().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 64, 64]);
    // What is set counts.
    let server = Server::start([Step::Honest]).await;
    let client = builder(&server.base_url()).with_limits(Limits::none().with_texts(130)).build().expect("valid");
    client.embed_documents(&texts).await.expect("honest");
}
