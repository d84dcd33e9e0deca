//! Checks the client's error for every fault: its kind, its details, its cost, and the number of requests.

use std::time::{Duration, Instant, SystemTime};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind, Limits, RateLimitWindow, Usage,
    provider::OpenAi,
    wrap::{Retry, RetryPolicy},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

use super::{TEXTS, assert_rows, builder, charged, client, small};
use crate::support::{
    server::{DIMENSIONS, Server, Step},
    stand_in,
};

/// A short time limit, for tests in which no reply comes in time.
const TIMEOUT: Duration = Duration::from_millis(200);
/// A time limit longer than any test waits.
const NEVER: Duration = Duration::from_secs(600);

/// Returns the client's error for a step, after exactly one request.
async fn error_of(step: Step) -> Error {
    let server = Server::start([step]).await;
    error_from(&server, &client(&server)).await
}

/// Does the same with a client's time limit.
async fn error_within(timeout: Duration, step: Step) -> Error {
    let server = Server::start([step]).await;
    error_from(&server, &builder(&server.base_url()).with_timeout(timeout).build().expect("valid")).await
}

async fn error_from(server: &Server, client: &OpenAi) -> Error {
    let error = client.embed_documents(&TEXTS).await.expect_err("it was to fail");
    assert_eq!(server.requests().len(), 1, "a provider never tries again: {error}");
    assert_eq!(error.embedder(), Some("openai/stand-in"), "{error}");
    assert!(error.partial().is_none() && error.bad_texts().is_empty(), "{error}");
    error
}

/// Returns the usage of a request that got a reply, refused or not: nothing about its cost is unknown.
fn answered(tokens: Option<u64>) -> Usage {
    Usage::of_request(tokens)
}

// Statuses

#[tokio::test]
async fn every_status_has_its_kind() {
    use ErrorKind::{Auth, Config, InvalidInput, QuotaExhausted, RateLimited, Timeout, Unavailable};
    let plain = |message: &str| stand_in::refusal(message, "invalid_request_error", None, None);
    let about = |param: &str| stand_in::refusal("Not like this.", "invalid_request_error", Some(param), None);
    let named = |kind: &str, code: &str| stand_in::refusal("In words.", kind, None, Some(code));
    let context = "This model's maximum context length is 8192 tokens, however you requested 9001 tokens.";
    let physical = "input (1032 tokens) is too large to process. increase the physical batch size (current: 512)";
    let cases: Vec<(u16, Value, ErrorKind, Option<&str>)> = vec![
        (400, plain("'$.input' is invalid. Please check the API reference."), InvalidInput, None),
        (400, plain(context), InvalidInput, None),
        (400, named("invalid_request_error", "a_code_of_next_year"), InvalidInput, Some("a_code_of_next_year")),
        (400, about("input"), InvalidInput, None),
        // vLLM, about a text that is too long: by its own name of the field, or by any other.
        (400, stand_in::refusal(context, "BadRequestError", Some("input_tokens"), None), InvalidInput, None),
        (400, about("input_tokens"), InvalidInput, None),
        (400, stand_in::refusal(context, "BadRequestError", Some("max_model_len"), None), InvalidInput, None),
        (400, about("max_model_len"), Config, None),
        (400, about("model"), Config, None),
        (400, about("dimensions"), Config, None),
        (400, about("encoding_format"), Config, None),
        (422, about("dimensions"), Config, None),
        (422, json!({"detail": [{"loc": ["body", "input"], "msg": "field required"}]}), InvalidInput, None),
        (
            413,
            json!({"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}),
            InvalidInput,
            None,
        ),
        (401, named("invalid_request_error", "invalid_api_key"), Auth, Some("invalid_api_key")),
        (403, named("invalid_request_error", "unsupported_country_region_territory"), Auth, None),
        // Google's server has an array, and says with 400 that the key is wrong.
        (
            400,
            json!([{"error": {
                "code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT",
                "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            }}]),
            Auth,
            Some("API_KEY_INVALID"),
        ),
        (
            400,
            json!([{"error": {"code": 400, "message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT"}}]),
            InvalidInput,
            Some("INVALID_ARGUMENT"),
        ),
        (
            429,
            json!([{"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED"}}]),
            RateLimited,
            Some("RESOURCE_EXHAUSTED"),
        ),
        // What is not about the texts is not blamed on them.
        (
            422,
            json!({"detail": [{"loc": ["body", "encoding_format"], "msg": "Input should be 'float'"}]}),
            Config,
            None,
        ),
        (422, json!({"detail": [{"loc": ["body", "input_type"], "msg": "Field required"}]}), Config, None),
        (422, json!({"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}), Config, None),
        (
            422,
            json!({"message": {"detail": [{"loc": ["body", "dimensions"], "msg": "Extra inputs are not permitted"}]}}),
            Config,
            None,
        ),
        (400, json!({"error": {"message": "some/model is not a valid model ID", "code": 400}}), Config, None),
        (400, plain("Only 'float' is supported as encoding_format."), Config, None),
        (403, json!({"code": "AUTHZ_INSUFFICIENT_BALANCE"}), QuotaExhausted, Some("AUTHZ_INSUFFICIENT_BALANCE")),
        (406, Value::Null, Config, None),
        (415, plain("Unsupported media type."), Config, None),
        (402, json!({"error": {"message": "Insufficient credits", "code": 402}}), QuotaExhausted, None),
        (404, named("invalid_request_error", "model_not_found"), Config, Some("model_not_found")),
        (404, json!({"error": "model \"m\" not found, try pulling it first"}), Config, None),
        (405, Value::Null, Config, None),
        (501, Value::Null, Config, None),
        (408, Value::Null, Timeout, None),
        (409, Value::Null, Unavailable, None),
        (425, Value::Null, Unavailable, None),
        (500, named("server_error", "internal_error"), Unavailable, Some("internal_error")),
        (502, Value::Null, Unavailable, None),
        (503, plain("Slow down."), Unavailable, None),
        (504, Value::Null, Unavailable, None),
        (524, Value::Null, Unavailable, None),
        (499, Value::Null, Unavailable, None),
        (424, json!({"error": "out of memory", "error_type": "Backend"}), Unavailable, Some("Backend")),
        (410, Value::Null, Config, None),
        (529, Value::Null, Unavailable, None),
        // llama.cpp: permanent, although the status is 500 and the code is a number.
        (500, json!({"error": {"code": 500, "message": physical, "type": "server_error"}}), InvalidInput, None),
        (429, named("requests", "rate_limit_exceeded"), RateLimited, Some("rate_limit_exceeded")),
        (429, named("tokens", "rate_limit_exceeded"), RateLimited, Some("rate_limit_exceeded")),
        (429, plain("The engine is currently overloaded, please try again later."), RateLimited, None),
        (429, Value::Null, RateLimited, None),
        (429, named("insufficient_quota", "insufficient_quota"), QuotaExhausted, Some("insufficient_quota")),
        // The code may be missing, or the type may be less specific.
        (429, stand_in::refusal("In words.", "insufficient_quota", None, None), QuotaExhausted, None),
        (429, named("billing_error", "billing_hard_limit_reached"), QuotaExhausted, Some("billing_hard_limit_reached")),
        (429, named("billing_error", "billing_not_active"), QuotaExhausted, Some("billing_not_active")),
    ];
    for (status, body, kind, code) in cases {
        let shown = format!("{status} {body}");
        let step = if body.is_null() { Step::status(status) } else { Step::json(status, &body) };
        let error = error_of(step.header("x-request-id", "req_7")).await;
        assert_eq!(error.kind(), kind, "{shown}");
        assert_eq!(error.status(), Some(status), "{shown}");
        assert_eq!(error.request_id(), Some("req_7"), "{shown}");
        if let Some(code) = code {
            assert_eq!(error.provider_code(), Some(code), "{shown}");
        } else if body.is_null() {
            assert_eq!(error.provider_code(), None, "{shown}");
        }
        assert_eq!(error.retry_after(), None, "{shown}");
        // The cost is unknown only if a gateway stopped waiting: the server behind it may have finished the work.
        let unanswered = u64::from([408, 499, 502, 504, 524].contains(&status));
        assert_eq!((error.usage().exact_tokens(), error.usage().unanswered), (Some(0), unanswered), "{shown}");
        assert_eq!(error.is_retryable(), matches!(kind, RateLimited | Timeout | Unavailable), "{shown}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_judged_by_its_status() {
    for (code, kind) in [(401, ErrorKind::Auth), (404, ErrorKind::Config), (429, ErrorKind::RateLimited)] {
        assert_eq!(error_of(Step::Html(code)).await.kind(), kind, "{code}");
    }
    let gateway = error_of(Step::Html(502)).await;
    assert_eq!((gateway.kind(), gateway.status()), (ErrorKind::Unavailable, Some(502)));
    // The page may be of any length and compression.
    let page = vec![b'x'; 4 << 20];
    let long = Step::Status { code: 503, headers: Vec::new(), body: page };
    assert_eq!(error_of(long).await.kind(), ErrorKind::Unavailable);
    let packed = Step::Status { code: 401, headers: Vec::new(), body: b"not brotli".to_vec() };
    assert_eq!(error_of(packed.header("content-encoding", "br")).await.kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn a_limit_that_one_request_exceeds_is_not_waited_for() {
    let says = |words: &str| Step::refusal(429, "tokens", Some("rate_limit_exceeded"), words);
    let never = error_of(says("Request too large for m on tokens per min (TPM): Limit 1000, Requested 1001.")).await;
    assert_eq!(never.kind(), ErrorKind::InvalidInput, "it will never fit");
    let never = error_of(says("Request too large: Limit 1,000,000, Requested 1,000,001.")).await;
    assert_eq!(never.kind(), ErrorKind::InvalidInput, "thousands may be set apart");
    for words in [
        "Rate limit reached for m on tokens per min (TPM): Limit 1000, Used 900, Requested 200. Try again in 6s.",
        "Limit 1000, Requested 1000.",
        "Rate limit reached.",
    ] {
        assert_eq!(error_of(says(words)).await.kind(), ErrorKind::RateLimited, "{words}");
    }
}

#[tokio::test]
async fn the_providers_words_are_kept_apart() {
    let error = error_of(Step::refusal(400, "invalid_request_error", None, "about the first text")).await;
    assert_eq!(error.provider_message(), Some("about the first text"));
    assert!(!format!("{error} {error:?}").contains("about the first text"), "{error:?}");
    for body in [json!({"message": "flat"}), json!({"error": "flat"}), json!({"detail": "flat"})] {
        assert_eq!(error_of(Step::json(400, &body)).await.provider_message(), Some("flat"), "{body}");
    }
}

#[tokio::test]
async fn the_providers_words_are_kept_in_every_shape() {
    let loc = json!(["body", "encoding_format"]);
    for (body, words) in [
        (json!([{"error": {"message": "Google's", "status": "INVALID_ARGUMENT"}}]), "Google's"),
        (json!({"detail": [{"loc": loc, "msg": "FastAPI's"}]}), "encoding_format: FastAPI's"),
        (json!({"message": {"detail": [{"loc": loc, "msg": "Mistral's"}]}}), "encoding_format: Mistral's"),
        (json!({"message": ["in", "an array"]}), "in; an array"),
        (json!({"errors": [{"code": 7, "message": "Cloudflare's"}]}), "Cloudflare's"),
        (json!("a string"), "a string"),
    ] {
        assert_eq!(error_of(Step::json(400, &body)).await.provider_message(), Some(words), "{body}");
    }
    let plain = Step::Status { code: 404, headers: Vec::new(), body: b"404 page not found".to_vec() };
    assert_eq!(error_of(plain).await.provider_message(), Some("404 page not found"));
    assert_eq!(error_of(Step::Html(404)).await.provider_message(), None);
}

#[tokio::test]
async fn a_refused_parameter_is_named_with_the_method_that_changes_it() {
    for (param, method) in [("encoding_format", "`with_encoding`"), ("dimensions", "`with_dimensions`")] {
        let by_param = stand_in::refusal("Not like this.", "invalid_request_error", Some(param), None);
        let by_place = json!({"detail": [{"loc": ["body", param], "msg": "Not like this."}]});
        for body in [by_param, by_place] {
            let error = error_of(Step::json(400, &body)).await;
            assert_eq!(error.kind(), ErrorKind::Config, "{body}");
            assert!(error.message().contains(&format!("`{param}`")), "{error}");
            assert!(error.message().contains(method), "{error}");
        }
    }
    // The words alone name it if the request had it.
    let words = || Step::refusal(400, "invalid_request_error", None, "This model does not support dimensions.");
    let server = Server::start([words()]).await;
    let client = small(&server.base_url()).build().expect("valid");
    let error = client.embed_documents(&TEXTS).await.expect_err("refused");
    assert!(error.message().contains("`with_dimensions`"), "{error}");
    assert_eq!(error_of(words()).await.kind(), ErrorKind::InvalidInput, "the request had none");
}

/// NVIDIA NIM requires `input_type`, and says so in words only.
#[tokio::test]
async fn a_missing_field_is_named_with_the_method_that_adds_it() {
    let says = |words: &str| json!({"object": "error", "message": words, "type": "invalid_request_error"});
    for body in [
        says("The field 'input_type' is required."),
        says("Missing parameter: input_type"),
        json!({"detail": [{"loc": ["body", "input_type"], "msg": "Field required"}]}),
        stand_in::refusal("This field is required.", "invalid_request_error", Some("input_type"), None),
    ] {
        let error = error_of(Step::json(400, &body)).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{body}");
        for words in ["requires the field `input_type`", "`with_body_field`", "`with_body_field_for`"] {
            assert!(error.message().contains(words), "{body}: {error}");
        }
    }
    // A field that is not known, and one with a wrong value.
    let unknown = json!({"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]});
    let wrong = stand_in::refusal("Not like this.", "invalid_request_error", Some("input_type"), None);
    for body in [unknown, wrong] {
        let error = error_of(Step::json(400, &body)).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{body}");
        assert!(error.message().contains("`with_body_field`"), "{body}: {error}");
    }
    // Words that name no field, another one, or none as missing.
    for words in [
        "A text is required by the model.",
        "'input' is required",
        "my_input_type_2 is missing",
        "The input_type of the first text is odd.",
    ] {
        assert_eq!(error_of(Step::json(400, &says(words))).await.kind(), ErrorKind::InvalidInput, "{words}");
    }
}

/// Some servers send the status before they know the answer.
#[tokio::test]
async fn an_error_with_success_keeps_its_words_and_its_meaning() {
    use ErrorKind::{Auth, Config, InvalidInput, Protocol, QuotaExhausted, RateLimited, Unavailable};
    let says = |code: Value| json!({"error": {"message": "the server's words", "code": code}});
    for (body, kind) in [
        (says(json!(404)), Config),
        (says(json!("404")), Config),
        (says(json!(401)), Auth),
        (says(json!(402)), QuotaExhausted),
        (says(json!(429)), RateLimited),
        (says(json!(400)), InvalidInput),
        (says(json!(500)), Unavailable),
        (says(json!(501)), Config),
        (says(json!(502)), Unavailable),
        (says(json!(503)), Unavailable),
        (says(json!("529")), Unavailable),
        (says(json!("a_code")), Protocol),
        (json!({"error": "the server's words"}), Protocol),
        (json!([{"error": {"message": "the server's words", "code": 404}}]), Config),
    ] {
        let error = error_of(Step::body(body.to_string())).await;
        assert_eq!((error.kind(), error.status()), (kind, Some(200)), "{body}");
        assert_eq!(error.provider_message(), Some("the server's words"), "{body}");
        assert_eq!(error.usage(), answered(None), "{body}");
    }
    for code in [429, 503] {
        let slow = json!({"error": {"message": "Please try again in 20s.", "code": code}});
        assert_eq!(error_of(Step::body(slow.to_string())).await.retry_after(), Some(Duration::from_secs(20)), "{code}");
    }
}

#[tokio::test]
async fn a_wrong_base_url_is_hinted_at() {
    let lm_studio = json!({"error": "Unexpected endpoint or method. (POST /embeddings)"}).to_string();
    let ollama = json!({"embedding": []}).to_string();
    let steps: [(&str, Step, ErrorKind, &str); 7] = [
        ("/v1", Step::status(404), ErrorKind::Config, "/v1/embeddings: "),
        ("/v1", Step::status(405), ErrorKind::Config, "/v1/embeddings: "),
        ("", Step::Html(404), ErrorKind::Config, "this one does not"),
        ("/v1/v1", Step::status(404), ErrorKind::Config, "this one has /v1 twice"),
        ("", Step::body(lm_studio), ErrorKind::Config, "this one does not"),
        ("/api", Step::body(ollama), ErrorKind::Protocol, "not in /api"),
        ("", Step::Html(200), ErrorKind::Protocol, "this one does not"),
    ];
    for (path, step, kind, remark) in steps {
        let server = Server::start([step]).await;
        let url = server.base_url().replace("/v1", path);
        let client = builder(&url).build().expect("valid");
        let error = error_from(&server, &client).await;
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(error.message().contains(&format!("POST {url}/embeddings: ")), "{url}: {error}");
        assert!(error.message().contains("usually ends in /v1") && error.message().contains(remark), "{url}: {error}");
    }
    // Azure's URL has another form.
    let server = Server::start([Step::status(404)]).await;
    let endpoint = server.base_url().replace("/v1", "");
    let azure = small(&endpoint).with_azure(&endpoint, "mine", None).build().expect("valid");
    let error = azure.embed_documents(&TEXTS).await.expect_err("not there");
    assert!(error.message().contains("`with_azure`") && !error.message().contains("usually"), "{error}");
}

/// The status has arrived, so it decides the error even if the body is lost.
#[tokio::test]
async fn an_error_that_breaks_off_is_judged_by_its_status() {
    let quota = stand_in::refusal("You exceeded your current quota.", "insufficient_quota", None, None);
    for (code, kind, hangs) in [
        (401, ErrorKind::Auth, false),
        (400, ErrorKind::InvalidInput, false),
        (429, ErrorKind::RateLimited, false),
        (503, ErrorKind::Unavailable, false),
    ] {
        let body = quota.to_string().into_bytes();
        let step = Step::HalfAnError { code, body, hangs }.header("retry-after", "3").header("x-request-id", "req_9");
        let error = error_of(step).await;
        assert_eq!((error.kind(), error.status(), error.request_id()), (kind, Some(code), Some("req_9")));
        assert_eq!((error.retry_after(), error.usage().unanswered), (Some(Duration::from_secs(3)), 0), "{code}");
    }
    // A body that hangs is not awaited as long as a reply.
    let body = quota.to_string().into_bytes();
    let error = error_within(Duration::from_secs(60), Step::HalfAnError { code: 403, body, hangs: true }).await;
    assert_eq!((error.kind(), error.status()), (ErrorKind::Auth, Some(403)));
}

#[tokio::test]
async fn a_late_answer_is_told_with_its_name() {
    let every = Duration::from_millis(50);
    let server = Server::start([Step::Dribble { every, bytes: 1 }.header("x-request-id", "req_late")]).await;
    let client = builder(&server.base_url()).with_timeout(Duration::from_millis(300)).build().expect("valid");
    let error = client.embed_documents(&TEXTS).await.expect_err("too slow");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Timeout, Some(200)));
    assert!(["with_limits", "with_timeout"].iter().all(|name| error.to_string().contains(name)), "{error}");
    assert_eq!((error.request_id(), error.usage().unanswered), (Some("req_late"), 1));
}

#[tokio::test]
async fn vectors_of_another_length_are_not_those_of_the_space() {
    let server = Server::start([Step::second_vector(json!([0.2, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1]))]).await;
    let client = small(&server.base_url()).build().expect("valid");
    let error = client.embed_documents(&TEXTS).await.expect_err("not of length 1");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("length 0.300"), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    // No request may arrive here: the server fails the test if one does.
    let elsewhere = Server::start([]).await;
    for code in [301, 302, 303, 307, 308] {
        let to = format!("{}/embeddings", elsewhere.base_url());
        let error = error_of(Step::Redirect(code, to)).await;
        assert_eq!((error.kind(), error.status()), (ErrorKind::Config, Some(code)));
    }
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn requests_have_a_name() {
    let id = async |name: &str, value: &str| error_of(Step::status(500).header(name, value)).await;
    assert_eq!(id("x-request-id", "req_011a-b").await.request_id(), Some("req_011a-b"));
    assert_eq!(id("apim-request-id", "6d0c-azure").await.request_id(), Some("6d0c-azure"));
    let both = Step::status(500).header("apim-request-id", "second").header("x-request-id", "first");
    assert_eq!(error_of(both).await.request_id(), Some("first"));
    // An unusable reply has an id too, and so has one that never ends.
    let step = Step::body("[]").header("x-request-id", "req_2");
    assert_eq!(error_of(step).await.request_id(), Some("req_2"));
    let step = Step::CloseMidBody.header("x-request-id", "req_3");
    assert_eq!(error_of(step).await.request_id(), Some("req_3"));
}

#[tokio::test]
async fn the_server_says_how_long_to_wait() {
    let wait = async |headers: &[(&str, &str)]| {
        let step = headers.iter().fold(Step::status(429), |step, (name, value)| step.header(name, value));
        let error = error_of(step).await;
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{headers:?}");
        error.retry_after()
    };
    assert_eq!(wait(&[("retry-after", "7")]).await, Some(Duration::from_secs(7)));
    assert_eq!(wait(&[("retry-after", "1.5")]).await, Some(Duration::from_millis(1500)));
    assert_eq!(wait(&[("retry-after", "0")]).await, Some(Duration::ZERO));
    assert_eq!(wait(&[("retry-after-ms", "250")]).await, Some(Duration::from_millis(250)));
    // The more precise header counts, if it can be parsed.
    assert_eq!(wait(&[("retry-after", "1"), ("retry-after-ms", "250.5")]).await, Some(Duration::from_micros(250_500)));
    assert_eq!(wait(&[("retry-after", "1"), ("retry-after-ms", "soon")]).await, Some(Duration::from_secs(1)));
    let in_an_hour = wait(&[("retry-after", http_date(3600).as_str())]).await.expect("a date");
    assert!((3000..=3600).contains(&in_an_hour.as_secs()), "{in_an_hour:?}");
    assert!(wait(&[("retry-after", http_date(-3600).as_str())]).await.is_none_or(|wait| wait.is_zero()));
    for nonsense in ["soon", "-5", "NaN", "", "Mon, 99 Foo 2026 00:00:00 GMT"] {
        assert!(wait(&[("retry-after", nonsense)]).await.is_none_or(|wait| wait.is_zero()), "{nonsense:?}");
    }
    // A wait that is too long for a `Duration` must not panic.
    for endless in ["inf", "1e300", "99999999999999999999"] {
        wait(&[("retry-after", endless)]).await;
    }
    let unavailable = error_of(Step::status(503).header("retry-after", "3")).await;
    assert_eq!(unavailable.retry_after(), Some(Duration::from_secs(3)), "not of 429 alone");
}

/// A wait stands in a header, in the body, in words or in the reset of a limit: the first of these counts.
#[tokio::test]
async fn the_wait_is_found_wherever_it_stands() {
    let wait = async |body: &Value, headers: &[(&str, &str)]| {
        let step = headers.iter().fold(Step::json(429, body), |step, (name, value)| step.header(name, value));
        error_of(step).await.retry_after()
    };
    let info = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "25s"});
    let google = json!([{"error": {"message": "Quota.", "status": "RESOURCE_EXHAUSTED", "details": [info]}}]);
    assert_eq!(wait(&google, &[]).await, Some(Duration::from_secs(25)));
    let reset = [("x-ratelimit-reset-requests", "40s"), ("x-ratelimit-remaining-requests", "0")];
    assert_eq!(wait(&google, &reset).await, Some(Duration::from_secs(25)));
    assert_eq!(wait(&google, &[("retry-after", "3")]).await, Some(Duration::from_secs(3)));
    let words = "Rate limit reached for m on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in";
    for (time, millis) in [("20s", 20_000), ("1m2.5s", 62_500), ("850ms", 850)] {
        let words = format!("{words} {time}. Visit the page to learn more.");
        let body = stand_in::refusal(&words, "requests", None, Some("rate_limit_exceeded"));
        assert_eq!(wait(&body, &reset).await, Some(Duration::from_millis(millis)), "{time}");
    }
    let silent = json!({});
    assert_eq!(wait(&silent, &reset).await, Some(Duration::from_secs(40)));
    let tokens = [("x-ratelimit-reset-tokens", "2s"), ("x-ratelimit-remaining-tokens", "0")];
    assert_eq!(wait(&silent, &tokens).await, Some(Duration::from_secs(2)));
    // Something is left of the requests, so their reset is not the one to wait for.
    let both = [("x-ratelimit-reset-requests", "40s"), ("x-ratelimit-remaining-requests", "7")];
    assert_eq!(wait(&silent, &[both, tokens].concat()).await, Some(Duration::from_secs(2)));
    let named = stand_in::refusal("Too many.", "requests", None, None);
    assert_eq!(wait(&named, &[both, tokens].concat()).await, Some(Duration::from_secs(40)));
    // That of a day's limit is none to wait for, and two minutes are the most.
    for (reset, wait_for) in [("2m0s", Some(Duration::from_secs(120))), ("2m1s", None), ("23h59m0s", None)] {
        let day = [("x-ratelimit-reset-requests", reset), ("x-ratelimit-remaining-requests", "0")];
        assert_eq!(wait(&silent, &day).await, wait_for, "{reset}");
    }
    // No other status waits for a reset.
    let down = reset.iter().fold(Step::status(503), |step, (name, value)| step.header(name, value));
    assert_eq!(error_of(down).await.retry_after(), None);
}

/// Returns the HTTP date that lies this many seconds ahead.
fn http_date(seconds: i64) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let then = u64::try_from(i64::try_from(since.as_secs()).expect("this age") + seconds).expect("after 1970");
    let (mut day, second) = (then / 86_400, then % 86_400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(day % 7) as usize];
    let (mut year, mut month) = (1970, 0);
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month];
        if day < length {
            break;
        }
        day -= length;
        (year, month) = if month == 11 { (year + 1, 0) } else { (year, month + 1) };
    }
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday}, {:02} {name} {year} {hour:02}:{minute:02}:{second:02} GMT", day + 1)
}

#[tokio::test]
async fn a_refusal_says_what_is_still_allowed() {
    let step = Step::status(429)
        .header("x-ratelimit-limit-requests", "3000")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", "20ms")
        .header("x-ratelimit-limit-tokens", "-1");
    let rate_limit_status = error_of(step).await.rate_limit_status().expect("a status");
    let requests = RateLimitWindow::new(3000).with_remaining(0).with_reset(Duration::from_millis(20));
    assert_eq!((rate_limit_status.requests, rate_limit_status.tokens), (Some(requests), None));
    assert_eq!(error_of(Step::status(429)).await.rate_limit_status(), None);
}

#[tokio::test]
async fn the_server_can_forbid_to_try_again() {
    let error = error_of(Step::status(500).header("x-should-retry", "false")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.is_retryable());
    assert!(error_of(Step::status(500).header("x-should-retry", "true")).await.is_retryable());
}

// Connections

/// Returns a port where nobody listens and nobody else can.
fn dead_port() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let url = format!("http://{}/v1", socket.local_addr().expect("an address"));
    (socket, url)
}

#[tokio::test]
async fn a_server_that_is_not_there_has_cost_nothing() {
    let (_socket, url) = dead_port();
    let error = builder(&url).build().expect("valid").embed_documents(&TEXTS).await.expect_err("nobody listens");
    assert_eq!((error.kind(), error.usage(), error.status()), (ErrorKind::Unavailable, Usage::ZERO, None));
    assert!(error.is_retryable());
    assert!(std::error::Error::source(&error).is_some(), "the cause is there to be looked at");
}

/// A retry does not change the two sides' configuration.
#[tokio::test]
async fn a_server_without_encryption_is_not_spoken_to_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}/v1", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.expect("takes it");
        let mut sent = Vec::new();
        // It does not matter how the client ends the connection, only what it had sent by then.
        let _ = stream.read_to_end(&mut sent).await;
        sent
    });
    let client = builder(&url).with_api_key("sk-encrypted").build().expect("valid");
    let error = client.embed_documents(&TEXTS).await.expect_err("no TLS there");
    assert_eq!((error.kind(), error.usage()), (ErrorKind::Config, Usage::ZERO));
    drop(client);
    let sent = server.await.expect("it does not panic");
    assert!(!String::from_utf8_lossy(&sent).contains("sk-encrypted"), "the key went over the wire");
}

#[tokio::test]
async fn an_answer_that_breaks_off_may_have_been_billed() {
    for step in [Step::ResetMidBody, Step::CloseMidBody, Step::Hangup, Step::TruncatedJsonNoLength] {
        let error = error_of(step).await;
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Unavailable, Usage::of_unanswered()), "{error}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_replaced_and_the_request_not_repeated() {
    let breaks = [Step::ResetMidBody, Step::CloseMidBody, Step::Hangup];
    let server = Server::start(breaks.into_iter().flat_map(|step| [Step::Honest, step])).await;
    let client = client(&server);
    for _ in 0..3 {
        // The second request uses the connection of the first, where HTTP clients tend to repeat a broken request.
        client.embed_documents(&TEXTS).await.expect("honest");
        let error = client.embed_documents(&TEXTS).await.expect_err("broken");
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Unavailable, Usage::of_unanswered()), "{error}");
    }
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn too_slow_is_a_timeout_that_may_have_been_billed() {
    for step in [Step::SlowHeaders(NEVER), Step::Dribble { every: Duration::from_millis(30), bytes: 1 }] {
        let error = error_within(TIMEOUT, step).await;
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Timeout, Usage::of_unanswered()), "{error}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_slow_answer_in_time_is_an_answer() {
    let dribble = Step::Dribble { every: Duration::from_millis(1), bytes: 64 };
    let server = Server::start([dribble, Step::SlowHeaders(Duration::from_millis(20)), Step::Http10Close]).await;
    let client = client(&server);
    for _ in 0..3 {
        let rows = client.embed_documents(&TEXTS).await.expect("slow, not wrong");
        assert_rows(rows.rows(), &TEXTS);
    }
}

#[tokio::test]
async fn the_batchs_deadline_is_kept() {
    let server = Server::start([Step::SlowHeaders(NEVER)]).await;
    let client = client(&server);
    let batch = Batch::documents(&TEXTS);
    let error = client.embed(batch.with_deadline(Instant::now() + TIMEOUT)).await.expect_err("too late");
    assert_eq!((error.kind(), error.usage()), (ErrorKind::DeadlinePassed, Usage::of_unanswered()));
    assert!(!error.is_retryable());
    // A deadline that has already passed costs nothing: the script has no second step.
    let error = client.embed(batch.with_deadline(Instant::now())).await.expect_err("too late");
    assert_eq!((error.kind(), error.usage()), (ErrorKind::DeadlinePassed, Usage::ZERO));
}

#[tokio::test]
async fn what_comes_first_of_deadline_and_timeout_counts() {
    let server = Server::start([Step::SlowHeaders(NEVER)]).await;
    let client = builder(&server.base_url()).with_timeout(TIMEOUT).build().expect("valid");
    let error = client.embed(Batch::documents(&TEXTS).with_deadline(Instant::now() + NEVER)).await;
    assert_eq!(error.expect_err("too slow").kind(), ErrorKind::Timeout);
}

// Replies that are malformed

#[tokio::test]
async fn success_that_is_not_an_answer_is_an_error() {
    for body in [
        "<html><body>Please log in</body></html>",
        "",
        "ok",
        "null",
        "[]",
        "{}",
        "{\"error\": {\"message\": \"no such luck\", \"type\": \"server_error\", \"code\": 302}}",
        "{\"object\": \"list\", \"data\": null, \"model\": \"m\"}",
        "{\"object\": \"list\", \"data\": {}, \"model\": \"m\"}",
        "{\"object\": \"list\", \"data\": [[0.5], [0.5]], \"model\": \"m\"}",
    ] {
        let error = error_of(Step::body(body)).await;
        assert_eq!((error.kind(), error.status()), (ErrorKind::Protocol, Some(200)), "{body}");
        assert_eq!(error.usage(), answered(None), "what it cost is not known: {body}");
        assert!(!error.is_retryable(), "{body}");
    }
    assert_eq!(error_of(Step::Html(200)).await.kind(), ErrorKind::Protocol);
    assert_eq!(error_of(Step::status(204)).await.kind(), ErrorKind::Protocol);
    let truncated = error_of(Step::TruncatedJson).await;
    assert_eq!((truncated.kind(), truncated.usage().requests), (ErrorKind::Protocol, 1), "{truncated}");
    assert!(truncated.usage().unreported == 1 || truncated.usage().unanswered == 1, "it is not free: {truncated:?}");
}

#[tokio::test]
async fn wrong_rows_are_an_error_with_what_they_cost() {
    let base64 = |row: &[f32]| json!(stand_in::in_base64(row));
    let honest = stand_in::vector("any", DIMENSIONS);
    let numbers = |component: Value| {
        let mut row = json!(honest);
        row[3] = component;
        row
    };
    let text = stand_in::in_base64(&honest);
    let cases = [
        ("a row too few", Step::rows(|rows| drop(rows.pop()))),
        ("no rows", Step::rows(Vec::clear)),
        ("a row too many", Step::rows(|rows| rows.push(json!({"index": 2, "embedding": rows[0]["embedding"]})))),
        ("a row twice", Step::rows(|rows| rows.push(rows[0].clone()))),
        ("one index twice", Step::rows(|rows| rows[1]["index"] = json!(0))),
        ("an index beyond the texts", Step::rows(|rows| rows[1]["index"] = json!(2))),
        ("an index below", Step::rows(|rows| rows[1]["index"] = json!(-1))),
        ("an enormous index", Step::rows(|rows| rows[1]["index"] = json!(u64::MAX))),
        ("no index", Step::rows(|rows| drop(rows[1].as_object_mut().expect("a row").remove("index")))),
        (
            "no index anywhere",
            Step::rows(|rows| {
                rows.iter_mut().for_each(|row| drop(row.as_object_mut().expect("a row").remove("index")));
            }),
        ),
        ("no vector", Step::rows(|rows| drop(rows[1].as_object_mut().expect("a row").remove("embedding")))),
        ("null for a row", Step::rows(|rows| rows[1] = Value::Null)),
        ("numbers too few", Step::second_vector(json!(honest[1..]))),
        ("numbers too many", Step::second_vector(json!([&honest[..], &honest[..1]].concat()))),
        ("no numbers", Step::second_vector(json!([]))),
        ("text for a number", Step::second_vector(numbers(json!("0.5")))),
        ("a truth for a number", Step::second_vector(numbers(json!(true)))),
        ("base64 too short", Step::second_vector(base64(&honest[1..]))),
        ("base64 too long", Step::second_vector(base64(&[&honest[..], &honest[..]].concat()))),
        ("base64 of nothing", Step::second_vector(json!(""))),
        ("base64 with bytes left over", Step::second_vector(json!(format!("{}AAA=", text.trim_end_matches('='))))),
        ("no base64", Step::second_vector(json!("!".repeat(text.len())))),
        ("base64 with a hole", Step::second_vector(json!(text.replacen(&text[8..9], "\u{0}", 1)))),
    ];
    for (what, step) in cases {
        let error = error_of(step).await;
        assert_eq!((error.kind(), error.status()), (ErrorKind::Protocol, Some(200)), "{what}: {error}");
        // Where a row is not of the form, the cost behind it is not read any more.
        let tokens = (what != "null for a row").then(charged);
        assert_eq!(error.usage(), answered(tokens), "{what}");
    }
}

#[tokio::test]
async fn numbers_that_are_none_are_an_error() {
    // Written by hand, because they are not JSON or not numbers of any size.
    for number in ["NaN", "Infinity", "-1e999", "1e999", "[0.5]", "{}", ".5", "0x1"] {
        let row = |component: &str| format!("[{component}, 1, 0, 0, 0, 0, 0, 0]");
        let body = format!(
            "{{\"data\": [{{\"index\": 0, \"embedding\": {}}}, {{\"index\": 1, \"embedding\": {}}}]}}",
            row("0.5"),
            row(number)
        );
        let error = error_of(Step::body(body)).await;
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, answered(None)), "{number}: {error}");
    }
}

/// A server that encodes base64 twice, or decodes it as bytes, gives a row of a quarter of its width.
#[tokio::test]
async fn a_quarter_of_the_width_is_named() {
    for vector in [json!([0.5, 0.5]), json!(stand_in::in_base64(&[0.5, 0.5]))] {
        let error = error_of(Step::second_vector(vector.clone())).await;
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("quarter"), "{vector}: {error}");
    }
}

/// A large reply of wide rows is too large as a whole, but what is wrong is the width.
#[tokio::test]
async fn wide_rows_of_a_large_reply_are_called_so() {
    const WIDE: usize = 512;
    let texts: Vec<String> = (0..300).map(|number| format!("text {number}")).collect();
    let numbers = Step::edited(|reply| {
        let rows = reply["data"].as_array_mut().expect("rows");
        rows.iter_mut().for_each(|row| row["embedding"] = json!(stand_in::vector("any", WIDE)));
    });
    for step in [Step::Honest, numbers] {
        let server = Server::start_with(WIDE, [step]).await;
        let limits = Limits::none().with_texts(texts.len());
        let embedder = builder(&server.base_url()).with_limits(limits).build().expect("valid");
        let error = embedder.embed_documents(&texts).await.expect_err("another model");
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, answered(None)));
        assert!(error.message().contains("another width: 512 components, not 8"), "{error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_the_end() {
    const BYTES: u64 = 256 << 20;
    let server = Server::start([Step::HugeBody(BYTES)]).await;
    let error = error_from(&server, &client(&server)).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains(" bytes"), "the limit is told: {error}");
    // The limit of this reply is about 70 KB; the rest is the buffers of the connection's two ends.
    assert!(server.taken() < 16 << 20, "{} bytes were taken", server.taken());
    for step in [Step::HugeLength(1 << 50), Step::GzipBomb(16)] {
        // A client that waits for the promised bytes, or decompresses them all, must not hang the tests.
        let error = error_within(Duration::from_secs(20), step).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(" bytes"), "the limit is told: {error}");
    }
}

#[tokio::test]
async fn only_gzip_is_unpacked() {
    for encoding in ["br", "deflate", "zstd", "gzip, gzip"] {
        let error = error_of(Step::Honest.header("content-encoding", encoding)).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{encoding}");
    }
    let error = error_of(Step::body("not packed at all").header("content-encoding", "gzip")).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

// Retries

fn policy() -> RetryPolicy {
    RetryPolicy::default().with_backoff(Duration::from_millis(1), Duration::from_millis(5)).without_budget()
}

fn down() -> Step {
    Step::refusal(500, "server_error", None, "The server had an error.")
}

fn slow_down() -> Step {
    Step::refusal(429, "requests", Some("rate_limit_exceeded"), "Rate limit reached.")
}

/// Runs a retrying client against a script, every step of which it must use.
async fn retried(steps: impl IntoIterator<Item = Step>) -> docvector_embed::Result<docvector_embed::Embeddings> {
    let server = Server::start(steps).await;
    let result = client(&server).retry(policy().with_attempts(4)).embed_documents(&TEXTS).await;
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.body == requests[0].body), "the same is asked each time");
    result
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for (steps, unanswered) in [
        (vec![slow_down()], 0),
        (vec![down(), down()], 0),
        (vec![Step::Html(502), Step::status(503), Step::status(529)], 1),
        (vec![Step::status(408), Step::status(409), Step::status(425)], 1),
        (vec![Step::CloseMidBody, Step::ResetMidBody, Step::Hangup], 3),
        (vec![Step::TruncatedJsonNoLength], 1),
        (vec![slow_down().header("retry-after", "0"), down().header("retry-after-ms", "2.5")], 0),
    ] {
        let failures = steps.len() as u64;
        let rows = retried(steps.into_iter().chain([Step::Honest])).await.expect("it passes");
        assert_rows(rows.rows(), &TEXTS);
        // Every attempt counts once, with its own cost.
        let usage = rows.usage();
        assert_eq!((usage.requests, usage.exact_tokens()), (failures + 1, Some(charged())));
        assert_eq!(usage.unanswered, unanswered);
    }
    // What an error with the status of success cost is not known.
    let failed = Step::body(json!({"error": {"message": "Provider returned error", "code": 502}}).to_string());
    let rows = retried([failed, Step::Honest]).await.expect("it passes");
    assert_rows(rows.rows(), &TEXTS);
    assert_eq!((rows.usage().requests, rows.usage().unreported, rows.usage().unanswered), (2, 1, 0));
}

#[tokio::test]
async fn what_was_too_slow_is_tried_again() {
    let server = Server::start([Step::SlowHeaders(NEVER), Step::Honest]).await;
    let client = builder(&server.base_url()).with_timeout(Duration::from_millis(500)).build().expect("valid");
    let rows = client.retry(policy()).embed_documents(&TEXTS).await.expect("it passes");
    assert_rows(rows.rows(), &TEXTS);
    assert_eq!((rows.usage().requests, rows.usage().unanswered), (2, 1));
}

#[tokio::test]
async fn what_does_not_pass_is_asked_once() {
    for step in [
        Step::refusal(429, "insufficient_quota", Some("insufficient_quota"), "You exceeded your current quota."),
        Step::refusal(401, "invalid_request_error", Some("invalid_api_key"), "Incorrect API key."),
        Step::refusal(429, "tokens", Some("rate_limit_exceeded"), "Limit 100, Requested 200"),
        Step::refusal(500, "server_error", None, "input is too large to process. increase the physical batch size"),
        Step::refusal(404, "invalid_request_error", Some("model_not_found"), "No such model."),
        Step::status(403),
        Step::status(422),
        Step::status(501),
        Step::Redirect(307, "/elsewhere".into()),
        Step::Html(200),
        Step::TruncatedJson,
        Step::rows(|rows| rows[1] = Value::Null),
        Step::rows(|rows| drop(rows.pop())),
        down().header("x-should-retry", "false"),
        // A wait that is longer than the policy allows.
        slow_down().header("retry-after", "3600"),
    ] {
        // The script has this one step.
        let error = retried([step]).await.expect_err("it does not pass");
        assert_eq!(error.usage().requests, 1, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_too_long_is_told_on() {
    let error = retried([slow_down().header("retry-after", "3600")]).await.expect_err("an hour");
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(3600))));
    assert!(!error.is_retryable(), "nobody further out is to try");
}

#[tokio::test]
async fn attempts_run_out() {
    let error = retried([down(), slow_down(), Step::CloseMidBody, down()]).await.expect_err("never up");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unavailable, Some(500)), "the last one is told");
    assert!(!error.is_retryable());
    assert_eq!((error.usage().requests, error.usage().unanswered), (4, 1), "what all of them cost");
}

/// Two nested `Retry` of three attempts make three attempts, not nine.
#[tokio::test]
async fn retries_around_retries_do_not_multiply() {
    let server = Server::start([down(), down(), down()]).await;
    let inner = Retry::new(client(&server), policy().with_attempts(3));
    let outer = Retry::new(inner, policy().with_attempts(3));
    let error = outer.embed_documents(&TEXTS).await.expect_err("never up");
    assert_eq!((error.kind(), error.usage().requests), (ErrorKind::Unavailable, 3));
}

#[tokio::test]
async fn the_servers_wait_is_waited() {
    let server = Server::start([slow_down().header("retry-after-ms", "150"), Step::Honest]).await;
    let began = Instant::now();
    client(&server).retry(policy()).embed_documents(&TEXTS).await.expect("it passes");
    assert!(began.elapsed() >= Duration::from_millis(150), "it came back too early");
}
