//! Requests that are answered at once, and what the simulator tells.

use docvector_embed::{CountTokens, InputKind, testing::Simulator};
use serde_json::{Value, json};

use super::{
    LONG, MODEL,
    client::{Client, vectors},
    lines, start,
};

#[test]
fn vectors_are_answered_at_once_for_the_standard_price() {
    let (simulator, client) = start();
    let body = json!({"model": MODEL, "input": ["a text", "another"], "dimensions": 5, "encoding_format": "base64"});
    let reply = client.post("/v1/embeddings", &body).json();
    assert_eq!((&reply["object"], &reply["model"]), (&json!("list"), &json!(MODEL)));
    assert_eq!(reply["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    assert_eq!(vectors(&reply), ["a text", "another"].map(|text| simulator.vector(MODEL, 5, text)));

    let reply = client.post("/v1/embeddings", &json!({"model": MODEL, "input": "a text"})).json();
    assert_eq!(vectors(&reply), [simulator.vector(MODEL, 1536, "a text")]);
    let reply = client.post("/v1/embeddings", &json!({"model": MODEL, "input": [[1, 2, 3], [4]]})).json();
    assert_eq!((vectors(&reply).len(), &reply["usage"]["total_tokens"]), (2, &json!(4)));

    let (bills, counts) = (simulator.bills(), simulator.counts());
    assert_eq!((bills.standard_tokens, bills.batch_tokens, counts.embeddings), (10, 0, 3));
    assert_eq!((bills.texts, bills.distinct_texts, simulator.billed("a text")), (5, 4, 2));
}

#[test]
fn requests_that_openai_would_refuse_are_refused() {
    let (simulator, client) = start();
    let refused = |body: Value| client.post("/v1/embeddings", &body).refusal();
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": MODEL, "input": "x"});
        body[name] = value;
        body
    };
    let code = |code: &str| Some(code.to_owned());
    assert_eq!(refused(with("model", json!("unknown"))), (404, code("model_not_found")));
    assert_eq!(refused(json!({"input": "x"})), (400, None));
    for input in [Value::Null, json!(""), json!([]), json!(["a", ""]), json!(["a", 1]), json!([[]]), json!({})] {
        assert_eq!(refused(with("input", input.clone())), (400, None), "{input}");
    }
    assert_eq!(refused(with("input", json!(vec!["a"; 2049]))), (400, code("array_above_max_length")));
    assert_eq!(refused(with("input", json!("x".repeat(4 * 8191 + 1)))), (400, None));
    let fat = vec!["x".repeat(4 * 8191); 37];
    assert_eq!(refused(with("input", json!(fat))), (400, code("max_tokens_per_request")));
    assert_eq!(refused(with("dimensions", json!(1537))), (400, None));
    assert_eq!(refused(with("encoding_format", json!("hex"))), (400, code("invalid_value")));
    let mut ada = with("model", json!("text-embedding-ada-002"));
    assert_eq!(client.post("/v1/embeddings", &ada).status, 200);
    ada["dimensions"] = json!(512);
    assert_eq!(refused(ada), (400, None));
    assert_eq!(client.send("POST", "/v1/embeddings", "", b"{\"model\"").expect("an answer").refusal().0, 400);
    assert_eq!((simulator.counts().embeddings, simulator.counts().refused), (1, 16));
    assert_eq!(simulator.bills().texts, 1);
    // As much as one request may have.
    assert_eq!(client.post("/v1/embeddings", &with("input", json!("x".repeat(4 * 8191)))).status, 200);
}

#[derive(Debug)]
struct Words;

impl CountTokens for Words {
    fn count(&self, _: InputKind, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn at_most(&self, kind: InputKind, text: &str) -> usize {
        self.count(kind, text)
    }
}

#[test]
fn models_and_the_count_of_tokens_can_be_the_tests_own() {
    let builder = Simulator::builder().with_model("mine", 4).with_token_counter(Words).with_max_requests(2);
    let simulator = builder.with_max_inputs(1).start().expect("starts");
    let client = Client::new(simulator.address());
    let reply = client.post("/v1/embeddings", &json!({"model": "mine", "input": "these are four words"})).json();
    assert_eq!(reply["usage"]["total_tokens"], 4);
    assert_eq!(vectors(&reply), [simulator.vector("mine", 4, "these are four words")]);
    let models = client.get_json("/v1/models");
    assert_eq!(models["data"].as_array().map(Vec::len), Some(4));
    assert_eq!(client.get_json("/v1/models/mine")["id"], "mine");
    assert_eq!(client.get("/v1/models/other").refusal(), (404, Some("model_not_found".to_owned())));
    for (count, codes) in [(1, 0), (2, 1), (3, 2)] {
        let id = client.submit(&lines(count));
        simulator.advance(LONG);
        let errors = client.batch(&id)["errors"]["data"].as_array().cloned().unwrap_or_default();
        assert_eq!(errors.len(), codes, "{count} lines");
        assert!(errors.iter().all(|error| error["code"] == "too_many_tasks"));
    }
}

#[test]
fn another_process_can_steer_over_http() {
    let (simulator, client) = start();
    let id = client.submit(&lines(2));
    let before = simulator.unix_time();
    let now = client.post("/_simulator/advance", &json!({"seconds": 3600.5})).json()["now"].as_u64();
    assert_eq!((now, simulator.unix_time()), (Some(before + 3600), before + 3600));
    assert_eq!(client.status(&id), "completed");
    let billed = client.post("/_simulator/billed", &json!({"texts": ["text 0", "text 2"]})).json();
    assert_eq!(billed, json!({"billed": [1, 0]}));
    let counts = client.get_json("/_simulator/counts");
    assert_eq!((&counts["creates"], &counts["requests"]), (&json!(1), &json!(3)));
    let bills = client.get_json("/_simulator/bills");
    assert_eq!((&bills["texts"], &bills["batch_tokens"]), (&json!(2), &json!(4)));
    assert_eq!(client.post("/_simulator/speed", &json!({"speed": 0})).status, 200);
    for (path, body) in [("advance", json!({"seconds": -1})), ("speed", json!({})), ("billed", json!([]))] {
        assert_eq!(client.post(&format!("/_simulator/{path}"), &body).refusal().0, 400);
    }
    assert_eq!(client.get("/_simulator/other").refusal().0, 404);
}

/// The provider that users have is served as OpenAI serves it.
#[cfg(feature = "openai")]
#[tokio::test]
async fn the_provider_embeds_through_it() {
    use docvector_embed::{EmbedderExt, provider::OpenAi};
    let simulator = Simulator::start().expect("starts");
    let builder = OpenAi::builder(MODEL).with_api_key("sk-test").with_base_url(simulator.base_url());
    let openai = builder.with_dimensions(32).build().expect("valid");
    let texts: Vec<String> = (0..3000).map(|i| format!("text {i}")).collect();
    let rows = openai.embed_documents(&texts).await.expect("embeds");
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert_eq!(row, simulator.vector(MODEL, 32, text), "{text}");
    }
    let bills = simulator.bills();
    assert_eq!((bills.texts, bills.distinct_texts), (3000, 3000));
    assert_eq!(rows.usage().tokens, bills.standard_tokens);
}
