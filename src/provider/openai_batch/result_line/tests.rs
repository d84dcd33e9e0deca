//! Checks each rule by which a line is read, and properties of any line.

use std::sync::{Arc, OnceLock};

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{BadTextReason, Normalization, Space, provider::OpenAi};

/// Components of the vectors. They are base64 without padding, of 16 characters.
const WIDTH: usize = 3;

fn endpoint() -> Arc<Endpoint> {
    static ENDPOINT: OnceLock<Arc<Endpoint>> = OnceLock::new();
    let make = || {
        let space = Space::builder("test", WIDTH).with_normalization(Normalization::None).build().expect("a space");
        let builder = OpenAi::builder("test").with_api_key("sk-secret").with_base_url("http://127.0.0.1:9/v1");
        builder.with_space(space).build().expect("an embedder").0
    };
    ENDPOINT.get_or_init(make).clone()
}

/// Reads a line of a file whose one known line, `1-a`, has so many texts.
fn read_of(line: &[u8], texts: usize) -> Result<Option<ResultLine>> {
    read(line, |id| (id == "1-a").then_some(texts), &endpoint())
}

/// Returns the rows of a line that has them.
fn rows_of(line: &[u8], texts: usize) -> Embeddings {
    match read_of(line, texts).expect("a line").expect("a known id") {
        ResultLine { outcome: Outcome::Rows(rows), .. } => rows,
        ResultLine { outcome: Outcome::Failed(error), .. } => panic!("no rows: {error}"),
    }
}

/// Returns the error of a line that has no rows, or not all.
fn error_of(line: &Value, texts: usize) -> Error {
    error_of_bytes(line.to_string().as_bytes(), texts)
}

fn error_of_bytes(line: &[u8], texts: usize) -> Error {
    match read_of(line, texts).expect("a line").expect("a known id").outcome {
        Outcome::Failed(error) => error,
        Outcome::Rows(rows) => panic!("{} rows", rows.len()),
    }
}

fn vector(row: &[f32], encoded: bool) -> Value {
    let bytes: Vec<u8> = row.iter().flat_map(|component| component.to_le_bytes()).collect();
    if encoded { Value::from(BASE64_STANDARD.encode(bytes)) } else { Value::from(row.to_vec()) }
}

/// Returns the body of a reply with rows in this order.
fn body(rows: &[(usize, Vec<f32>, bool)]) -> Value {
    let row = |(index, row, encoded): &(usize, Vec<f32>, bool)| json!({"object": "embedding", "index": index, "embedding": vector(row, *encoded)});
    let data: Vec<Value> = rows.iter().map(row).collect();
    json!({"object": "list", "data": data, "model": "test", "usage": {"prompt_tokens": 7, "total_tokens": 7}})
}

fn two_rows() -> Value {
    body(&[(1, vec![4.0, 5.0, 6.0], true), (0, vec![1.0, 2.0, 3.0], false)])
}

fn line(status: impl Into<Value>, body: impl Into<Value>) -> Value {
    let response = json!({"status_code": status.into(), "request_id": "req_0123456789ab", "body": body.into()});
    json!({"id": "batch_req_1", "custom_id": "1-a", "response": response, "error": null})
}

fn line_of_error(error: impl Into<Value>) -> Value {
    json!({"id": "batch_req_1", "custom_id": "1-a", "response": null, "error": error.into()})
}

#[test]
fn rows_come_in_the_order_of_the_texts_with_the_stated_tokens() {
    let rows = rows_of(line(200, two_rows()).to_string().as_bytes(), 2);
    assert_eq!(rows.as_slice(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(rows.usage(), Usage::of_request(Some(7)));
    let mut untold = two_rows();
    untold["usage"] = Value::Null;
    assert_eq!(rows_of(line(201, untold).to_string().as_bytes(), 2).usage(), Usage::of_request(None));
}

/// The walk is what makes the reading fast, so it must be what reads the usual lines.
#[test]
fn usual_lines_are_read_in_one_walk() {
    let walks = |line: &str| read_sound(line.as_bytes(), |_| Some(2), &endpoint()).is_some();
    let usual = line(200, two_rows()).to_string();
    assert!(walks(&usual), "OpenAI's order");
    let (head, tail) = (r#"{"id":"1","error":null,"response":"#, r#","custom_id":"1-a","more":{"custom_id":7}}"#);
    let response = line(200, two_rows())["response"].to_string();
    assert!(walks(&format!("{head}{response}{tail}")), "the id comes last");
    assert!(walks(&usual.replace("batch_req_1", "an \\\"escape\\\"")), "an escape");
    // These are for the steps.
    assert!(!walks(&usual.replace("1-a", "1-\\u0061")));
    assert!(!walks(&usual.replacen("\"batch_req_1\"", r#"{"custom_id":"other"}"#, 1)));
    assert!(!walks(&usual.replace("\"status_code\":200", "\"status_code\":\"200\"")));
}

#[test]
fn other_ways_to_write_a_line_are_read_too() {
    let usual = line(200, two_rows()).to_string();
    let text = two_rows().to_string();
    for line in [
        usual.replace("1-a", "1-\\u0061"),
        usual.replacen("\"batch_req_1\"", r#"{"custom_id":"other"}"#, 1),
        usual.replacen("{\"id\"", r#"{"response":null,"error":null,"custom_id":"1-a","id""#, 1),
        usual.replace("\"error\":null", r#""error":{"code":"ignored","message":"beside rows"}"#),
        usual.replace(":200", ":\"200\""),
        usual.replace(":200", ":\" 200 \""),
        usual.replace(":200", ":200.0"),
        usual.replace(":200", ":2e2"),
        usual.replacen('{', "\u{feff}{", 1).replace('{', "{ ").replace('}', " }\t"),
        format!("{usual}\r"),
        line(200, text).to_string(),
    ] {
        assert_eq!(rows_of(line.as_bytes(), 2).as_slice(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "{line}");
    }
}

#[test]
fn blank_lines_and_unknown_ids_are_nothing() {
    for nothing in ["", " \t", "\r", "\u{feff}"] {
        assert!(read_of(nothing.as_bytes(), 2).expect("blank").is_none(), "{nothing:?}");
    }
    for (status, body) in [(200, two_rows()), (200, json!(7)), (400, Value::Null)] {
        let line = line(status, body).to_string().replace("1-a", "2-b");
        assert!(read_of(line.as_bytes(), 2).expect("a line").is_none(), "{line}");
    }
}

#[test]
fn what_is_no_line_is_an_error_that_names_the_place_and_quotes_nothing() {
    let usual = line(200, two_rows()).to_string();
    let cut = &usual[..usual.len() - 3];
    for (line, place) in [
        ("a secret text", "is not a JSON object, at column 1 of 13 bytes"),
        (cut, "is not a JSON object, at column"),
        ("[]", "is not a JSON object, at column"),
        ("7", "is not a JSON object, at column"),
        ("{} {}", "is not a JSON object, at column"),
        ("{}", "has no `custom_id`, or several, in 2 bytes"),
        (r#"{"custom_id":7,"secret":"secret"}"#, "has no `custom_id`, or several, in 33 bytes"),
        (r#"{"custom_id":null}"#, "has no `custom_id`"),
        (r#"{"custom_id":"\ud800"}"#, "has no `custom_id`"),
        (r#"{"custom_id":"1-a","custom_id":"secret"}"#, "has no `custom_id`, or several"),
        (r#"{"metadata":{"custom_id":"1-a"}}"#, "has no `custom_id`"),
    ] {
        let error = read_of(line.as_bytes(), 2).expect_err(line);
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(None)), "{line}");
        assert!(error.message().contains(place) && !error.to_string().contains("secret"), "{line}: {error}");
    }
    let error = read_of(b"{\"custom_id\": \"\xff\"", 2).expect_err("neither characters nor JSON");
    assert!(error.message().contains("of 17 bytes"), "{error}");
}

#[test]
fn statuses_are_judged_as_those_of_http() {
    use ErrorKind::{Auth, Config, InvalidInput, QuotaExhausted, RateLimited, Timeout, Unavailable};
    let told = |code: &str| json!({"error": {"message": "words", "type": "t", "param": null, "code": code}});
    let (unbilled, unknown) = (Usage::of_request(Some(0)), Usage::of_unanswered());
    let cases = [
        (json!(400), told("invalid_request_error"), InvalidInput, unbilled),
        (json!("400"), told("context_length_exceeded"), InvalidInput, unbilled),
        (json!(400), json!({"error": {"message": "no", "param": "dimensions"}}), Config, unbilled),
        (json!(401), told("invalid_api_key"), Auth, unbilled),
        (json!(404), told("model_not_found"), Config, unbilled),
        (json!(429), told("insufficient_quota"), QuotaExhausted, unbilled),
        (json!(429), told("rate_limit_exceeded"), RateLimited, unbilled),
        (json!(500), told("server_error"), Unavailable, unbilled),
        (json!(503), json!("<html>"), Unavailable, unbilled),
        (json!(500), Value::Null, Unavailable, unbilled),
        (json!(408), Value::Null, Timeout, unknown),
        (json!(504), json!("upstream"), Unavailable, unknown),
    ];
    for (status, body, kind, usage) in cases {
        let error = error_of(&line(status.clone(), body.clone()), 2);
        let number = status.as_u64().or_else(|| status.as_str()?.parse().ok()).map(|status| status as u16);
        assert_eq!((error.kind(), error.usage(), error.status()), (kind, usage, number), "{status} {body}");
        assert_eq!(error.request_id(), Some("req_0123456789ab"), "{status} {body}");
    }
    let error = error_of(&line(429, json!({"error": {"code": "tokens", "message": "try again in 20s."}})), 2);
    assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(20)));
    // The body is a string of JSON.
    let error = error_of(&line(429, told("insufficient_quota").to_string()), 2);
    assert_eq!((error.kind(), error.provider_code()), (QuotaExhausted, Some("insufficient_quota")));
}

#[test]
fn a_status_that_says_nothing_may_pass() {
    let mut missing = line(200, two_rows());
    missing["response"].as_object_mut().expect("an object").remove("status_code");
    let mut no_object = line(200, two_rows());
    no_object["response"] = json!("a string");
    let others = [json!(0), json!(302), json!(199), json!(600), json!(-200), json!(200.5), json!("x"), json!([200])];
    let others = others.into_iter().map(|status| line(status, two_rows()));
    for line in others.chain([missing, no_object]) {
        let error = error_of(&line, 2);
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Unavailable, Usage::of_unanswered()), "{line}");
        assert_eq!(error.status(), None, "{line}");
    }
    // The error beside it says more.
    let mut line = line(0, Value::Null);
    line["error"] = json!({"code": "insufficient_quota", "message": "pay"});
    assert_eq!(error_of(&line, 2).kind(), ErrorKind::QuotaExhausted);
}

#[test]
fn errors_without_a_response_are_judged_by_their_code() {
    use ErrorKind::{Auth, InvalidInput, QuotaExhausted, RateLimited, Timeout, Unavailable};
    let unbilled = Usage::of_request(Some(0));
    for (code, kind, usage) in [
        ("batch_expired", Unavailable, unbilled),
        ("batch_cancelled", Unavailable, unbilled),
        ("request_timeout", Timeout, Usage::of_unanswered()),
        ("insufficient_quota", QuotaExhausted, unbilled),
        ("billing_hard_limit_reached", QuotaExhausted, unbilled),
        ("rate_limit_exceeded", RateLimited, unbilled),
        ("invalid_api_key", Auth, unbilled),
        ("invalid_request", InvalidInput, unbilled),
        ("invalid_request_error", InvalidInput, unbilled),
        ("context_length_exceeded", InvalidInput, unbilled),
        ("server_error", Unavailable, unbilled),
        ("never_heard_of", Unavailable, unbilled),
    ] {
        let error = error_of(&line_of_error(json!({"code": code, "message": "a secret"})), 2);
        assert_eq!((error.kind(), error.usage(), error.status()), (kind, usage, None), "{code}");
        assert_eq!(error.provider_code(), Some(code));
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let model = error_of(&line_of_error(json!({"code": "model_not_found"})), 2);
    assert_eq!(model.kind(), ErrorKind::Config);
    // A status as the code, no code, and no object.
    assert_eq!(error_of(&line_of_error(json!({"code": "429"})), 2).kind(), RateLimited);
    assert_eq!(error_of(&line_of_error(json!({"message": "no"})), 2).kind(), Unavailable);
    assert_eq!(error_of(&line_of_error("no"), 2).kind(), Unavailable);
    let expired = error_of(&line_of_error(json!({"code": "batch_expired"})), 2);
    assert_eq!(expired.message(), "the batch expired before these texts were embedded");
}

#[test]
fn a_line_that_says_nothing_or_two_things_may_have_been_billed() {
    let nothing = line_of_error(Value::Null).to_string();
    let id_alone = r#"{"custom_id":"1-a"}"#.to_owned();
    let usual = line(200, two_rows()).to_string();
    let two_responses = usual.replacen("\"response\"", r#""response":{"status_code":400},"response""#, 1);
    let two_statuses = usual.replacen("\"status_code\"", r#""status_code":400,"status_code""#, 1);
    let two_bodies = usual.replacen("\"body\"", r#""body":{},"body""#, 1);
    let two_errors = r#"{"custom_id":"1-a","error":{"code":"a"},"error":{"code":"b"}}"#.to_owned();
    for line in [nothing, id_alone, two_responses, two_statuses, two_bodies, two_errors] {
        let error = error_of_bytes(line.as_bytes(), 2);
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(None)), "{line}");
    }
}

#[test]
fn wrong_rows_are_errors_with_their_cost() {
    let wide = body(&[(0, vec![1.0; 4], true), (1, vec![1.0; 4], false)]);
    let twice = body(&[(0, vec![1.0; 3], true), (0, vec![2.0; 3], true)]);
    let few = body(&[(0, vec![1.0; 3], true)]);
    let many = body(&[(0, vec![1.0; 3], true), (1, vec![1.0; 3], true), (2, vec![1.0; 3], true)]);
    for body in [wide, twice, few, many] {
        let error = error_of(&line(200, body.clone()), 2);
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(Some(7))), "{body}");
    }
    for body in [Value::Null, json!([]), json!(7), json!("text"), json!({})] {
        let error = error_of(&line(200, body.clone()), 2);
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(None)), "{body}");
        assert!(!error.message().contains("base URL"), "{error}");
    }
}

#[test]
fn rows_beside_unusable_ones_are_kept() {
    let mut body = body(&[(1, vec![0.0; 3], true), (0, vec![1.0, 2.0, 3.0], true), (2, vec![1.0; 3], false)]);
    body["data"][2]["embedding"] = Value::Null;
    let error = error_of(&line(200, body), 3);
    let bad: Vec<_> = error.bad_texts().iter().map(|bad| (bad.index, bad.reason.clone())).collect();
    assert_eq!(bad, [(1, BadTextReason::Unusable), (2, BadTextReason::Unusable)]);
    let partial = error.partial().expect("the sound row");
    assert_eq!((partial.indices(), partial.embeddings().as_slice()), (&[0][..], &[1.0, 2.0, 3.0][..]));
    assert_eq!((error.kind(), error.total_usage()), (ErrorKind::Protocol, Usage::of_request(Some(7))));
}

#[test]
fn an_error_with_a_status_of_success_is_judged_by_what_it_says() {
    let told = |body: Value| {
        let error = error_of(&line(200, body), 2);
        (error.kind(), error.provider_code().map(str::to_owned))
    };
    let error = json!({"error": {"code": "server_overloaded", "message": "no"}});
    assert_eq!(told(error), (ErrorKind::Protocol, Some("server_overloaded".to_owned())));
    assert_eq!(told(json!({"error": {"code": 429, "message": "no"}})), (ErrorKind::RateLimited, None));
    let mut rows = two_rows();
    rows["error"] = json!({"code": "server_error"});
    assert_eq!(told(rows), (ErrorKind::Protocol, Some("server_error".to_owned())));
}

#[test]
fn words_stay_only_beside_a_known_code_and_codes_look_like_codes() {
    let told = |code: &str| {
        let error = error_of(&line(400, json!({"error": {"code": code, "message": "a secret"}})), 2);
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        (error.provider_code().map(str::to_owned), error.provider_message().map(str::to_owned))
    };
    let secret = Some("a secret".to_owned());
    assert_eq!(told("context_length_exceeded"), (Some("context_length_exceeded".to_owned()), secret));
    assert_eq!(told("string_above_max_length"), (Some("string_above_max_length".to_owned()), None));
    for other in ["password", "My_Password", "_", "a__b", "a_", "two words", "", &"long_".repeat(9)] {
        assert_eq!(told(other), (None, None), "{other}");
    }
    let mut line = line(400, Value::Null);
    for (id, is_shown) in [
        ("req_0123456789ab", true),
        ("0123456789abcdef0123456789abcdef", true),
        ("6fb1ffd1-0c8b-4aee-9fc0-25fb0a5a5a5a", true),
        ("my password", false),
        ("password", false),
        ("req_", false),
    ] {
        line["response"]["request_id"] = json!(id);
        assert_eq!(error_of(&line, 2).request_id().is_some(), is_shown, "{id}");
    }
}

#[test]
fn bytes_that_are_no_characters_spoil_only_the_words() {
    let line = line(429, json!({"error": {"code": "insufficient_quota", "message": "WORDS"}})).to_string();
    let at = line.find("WORDS").expect("the words");
    let mut line = line.into_bytes();
    line[at] = 0xff;
    let error = error_of_bytes(&line, 2);
    assert_eq!((error.kind(), error.provider_message()), (ErrorKind::QuotaExhausted, Some("\u{fffd}ORDS")));
}

/// Rows by their index, each in base64 or not, in any order.
fn rows() -> impl Strategy<Value = Vec<(usize, Vec<f32>, bool)>> {
    // The parser rounds numbers twice, which can change the last bit of one that is not exact in few digits.
    let component = (-1000_i32..1000).prop_map(|number| (number * 2 + 1) as f32 / 256.0);
    let row = (prop::collection::vec(component, WIDTH), any::<bool>());
    prop::collection::vec(row, 1..12).prop_flat_map(|rows| {
        let rows: Vec<_> = rows.into_iter().enumerate().map(|(index, (row, encoded))| (index, row, encoded)).collect();
        Just(rows).prop_shuffle()
    })
}

/// Writes an object with its fields in the order of a seed, at every depth, with an unknown field among them.
fn shuffled(value: &Value, random: &mut fastrand::Rng) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}:{}", json!(name), shuffled(value, random))).collect();
            fields.push(r#""unknown":[{"index":0,"custom_id":"x"},null]"#.to_owned());
            random.shuffle(&mut fields);
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shuffled(item, random)).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn neither_the_order_of_fields_nor_the_encoding_matters(rows in rows(), seed in any::<u64>()) {
        let line = shuffled(&line(200, body(&rows)), &mut fastrand::Rng::with_seed(seed));
        let read = rows_of(line.as_bytes(), rows.len());
        prop_assert_eq!(read.len(), rows.len());
        for (index, row, _) in &rows {
            prop_assert_eq!(read.row(*index), row);
        }
        prop_assert_eq!(read.usage(), Usage::of_request(Some(7)));
    }

    /// Any changed bytes are an error, or rows of the right count and width, and never a panic. The steps
    /// read the same rows as the walk.
    #[test]
    fn damaged_lines_are_errors_or_rows(
        rows in rows(),
        seed in any::<u64>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut line = shuffled(&line(200, body(&rows)), &mut fastrand::Rng::with_seed(seed)).into_bytes();
        for (at, byte) in damage {
            let at = at.index(line.len());
            line[at] = byte;
        }
        if let Some(cut) = cut {
            line.truncate(cut.index(line.len()));
        }
        let steps = read_in_steps(&line, |id| (id == "1-a").then_some(rows.len()), &endpoint());
        match read_of(&line, rows.len()) {
            Ok(Some(ResultLine { outcome: Outcome::Rows(read), custom_id })) => {
                prop_assert_eq!((read.len(), read.dimensions()), (rows.len(), WIDTH));
                let Ok(Some(ResultLine { outcome: Outcome::Rows(by_steps), custom_id: id })) = steps else {
                    return Err(TestCaseError::fail("the steps read no rows"));
                };
                prop_assert_eq!((read.as_slice(), custom_id), (by_steps.as_slice(), id));
            }
            Ok(Some(ResultLine { outcome: Outcome::Failed(error), .. })) => {
                prop_assert!(error.bad_texts().iter().all(|bad| bad.index < rows.len()));
            }
            Ok(None) => {}
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Protocol),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(line in prop::collection::vec(any::<u8>(), 0..200), texts in 0_usize..4) {
        let _ = read(&line, |_| Some(texts), &endpoint());
    }
}
