//! What each dialect sends and gets.

use std::sync::Arc;

use docvector_embed::{
    Batch, Embedder, EmbedderExt, InputKind, Lane, Limits, SpaceId, TokenCount, Truncation,
    cache::Memory,
    provider::Fake,
    server::{ServedModel, Server},
};
use serde_json::{Value, json};

use super::{
    Running,
    client::{floats, vector},
};

const TEXTS: [&str; 4] = ["one", "zwei — ü", "三 \"quoted\" \\ \n", "👋"];

fn own(fake: &Fake, kind: InputKind) -> Vec<Vec<f32>> {
    TEXTS.iter().map(|text| fake.vector_of(kind, text)).collect()
}

#[test]
fn our_own_dialect() {
    let fake = Fake::new(33);
    let running = Running::of(fake.clone());
    let space = fake.space().expect("one").id();
    let reply = running.client().post("/embed", &json!({"texts": TEXTS, "batch_size": 2}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    let rows: Vec<Vec<f32>> = json["embeddings"].as_array().expect("rows").iter().map(vector).collect();
    assert_eq!(rows, own(&fake, InputKind::Document));
    assert_eq!((&json["model"], &json["dimension"]), (&json!("fake"), &json!(33)));
    assert_eq!((&json["space"], &json["truncated"]), (&json!(space.to_string()), &json!([])));
    assert_eq!(reply.header("x-embed-space"), Some(&*space.to_string()));
    assert_eq!(reply.number("x-embed-tokens"), json["tokens"].as_u64());
    assert!(
        reply.header("x-request-id").is_some() && reply.header("server-timing").is_some_and(|t| t.contains("embed;"))
    );
    // The server makes one call of a request, and hands on what it asks for.
    let body = json!({
        "texts": TEXTS, "kind": "query", "lane": "bulk", "key": "library:ä", "tenant": "t", "space": space.to_string(),
        "truncation": "error", "timeout_ms": 60_000
    });
    let reply = running.client().with("traceparent", "00-1").post("/embed", &body);
    let rows: Vec<Vec<f32>> = reply.json()["embeddings"].as_array().expect("rows").iter().map(vector).collect();
    assert_eq!(rows, own(&fake, InputKind::Query));
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    let call = &calls[1];
    assert_eq!((call.kind, call.lane, call.truncation), (InputKind::Query, Lane::Bulk, Truncation::Error));
    assert_eq!((call.key.as_deref(), call.tenant.as_deref()), (Some("library:ä"), Some("t")));
    assert_eq!((call.trace.as_deref(), call.space), (Some("00-1"), Some(space)));
    assert!(call.deadline.is_some());
    // No texts make no rows.
    let reply = running.client().embed(&[]);
    assert_eq!((reply.status, &reply.json()["embeddings"]), (200, &json!([])));
}

#[test]
fn binary_replies_in_every_dialect() {
    let fake = Fake::builder()
        .with_dimensions(7)
        .with_limits(Limits::none().with_tokens_per_text(3).with_tokens(TokenCount::AtMostBytes))
        .build()
        .expect("valid");
    let running = Running::of(fake.clone());
    let texts = ["short", &"much too long ".repeat(50), "end"];
    let bodies = [
        ("/embed", json!({"texts": texts})),
        ("/embed", json!({"inputs": texts})),
        ("/", json!({"inputs": texts})),
        ("/v1/embeddings", json!({"input": texts, "model": "fake"})),
    ];
    for (path, body) in bodies {
        let client = running.client().with("x-embed-truncation", "truncate");
        let rows = client.with("accept", "application/octet-stream").post(path, &body);
        assert_eq!((rows.status, rows.header("content-type")), (200, Some("application/octet-stream")), "{path}");
        assert_eq!((rows.body.len(), rows.number("x-embed-truncated")), (3 * 7 * 4, Some(1)));
        let framed = client.with("accept", "application/vnd.docvector.embeddings").post(path, &body);
        assert_eq!(&framed.body[..4], b"DVE1");
        let length = u32::from_le_bytes(framed.body[4..8].try_into().expect("4 bytes")) as usize;
        let about: Value = serde_json::from_slice(&framed.body[8..8 + length]).expect("JSON");
        assert_eq!((&about["rows"], &about["truncated"], &about["dimension"]), (&json!(3), &json!([1]), &json!(7)));
        assert_eq!(floats(&framed.body[8 + length..]), rows.floats());
        assert_eq!(rows.floats()[..7], fake.vector_of(InputKind::Document, "short"));
    }
}

#[test]
fn openais_dialect() {
    let fake = Fake::new(16);
    let running = Running::of(fake.clone());
    let client = running.client();
    for (format, is_text) in [(json!("float"), false), (json!("base64"), true), (Value::Null, false)] {
        let body = json!({"input": TEXTS, "model": "fake", "encoding_format": format, "user": "u", "dimensions": 16});
        let reply = client.post("/v1/embeddings", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let json = reply.json();
        assert_eq!((&json["object"], &json["model"]), (&json!("list"), &json!("fake")));
        assert!(json["usage"]["total_tokens"].as_u64() > Some(0));
        let data = json["data"].as_array().expect("rows");
        let rows: Vec<Vec<f32>> = data.iter().map(|item| vector(&item["embedding"])).collect();
        assert_eq!(rows, own(&fake, InputKind::Document));
        assert!(data.iter().enumerate().all(|(at, item)| item["index"] == at && item["object"] == "embedding"));
        assert_eq!(data[0]["embedding"].is_string(), is_text);
    }
    let query = fake.vector_of(InputKind::Query, "q");
    for body in [
        json!({"input": "q", "model": "fake:query"}),
        json!({"input": ["q"], "model": "fake", "input_type": "search_query"}),
    ] {
        assert_eq!(vector(&client.post("/v1/embeddings", &body).json()["data"][0]["embedding"]), query);
    }
    let reply = client.with("x-embed-kind", "query").post("/v1/embeddings", &json!({"input": "q"}));
    assert_eq!(vector(&reply.json()["data"][0]["embedding"]), query);
    let models = client.get("/v1/models").json();
    let names: Vec<&str> = models["data"].as_array().expect("models").iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(names, ["fake", "fake:query", "fake:document"]);
    assert_eq!(client.get("/v1/models/fake:query").json()["id"], "fake:query");
    assert_eq!(client.get("/v1/models/other").status, 404);
}

#[test]
fn the_dialect_of_text_embeddings_inference() {
    let fake = Fake::new(16);
    let running = Running::of(fake.clone());
    let client = running.client();
    for path in ["/embed", "/"] {
        let rows: Vec<Vec<f32>> =
            serde_json::from_value(client.post(path, &json!({"inputs": TEXTS, "truncate": true})).json())
                .expect("rows");
        assert_eq!(rows, own(&fake, InputKind::Document));
        let row: Vec<Vec<f32>> =
            serde_json::from_value(client.post(path, &json!({"inputs": "q", "prompt_name": "query"})).json())
                .expect("a row");
        assert_eq!(row, [fake.vector_of(InputKind::Query, "q")]);
    }
    let info = client.get("/info").json();
    assert_eq!((&info["model_id"], &info["max_client_batch_size"]), (&json!("fake"), &json!(65_536)));
    let text = info["docvector"]["space"].as_str().expect("a space");
    let space: docvector_embed::Space = text.parse().expect("a space");
    assert_eq!(space, *fake.space().expect("one"));
    assert_eq!(info["docvector"]["space_id"].as_str().map(str::parse::<SpaceId>), Some(Ok(space.id())));
    // Without a vocabulary, these routes are not there.
    assert_eq!(client.post("/tokenize", &json!({"inputs": "a"})).status, 404);
    assert_eq!(client.post("/decode", &json!({"ids": [1]})).status, 404);
}

#[cfg(feature = "openai")]
#[test]
fn tokens_and_ids() {
    use docvector_embed::server::Cl100k;

    let fake = Fake::new(8);
    let running = Running::loading(Server::builder().with_token_ids(Cl100k::default()));
    running.server.open(ServedModel::new(Arc::new(fake.clone())).with_vocabulary(Cl100k::default())).expect("opens");
    let client = running.client();
    let tokens = client.post("/tokenize", &json!({"inputs": ["hello world", "ü"]})).json();
    assert_eq!(tokens[0][0], json!({"id": 15339, "text": "hello", "special": false, "start": 0, "stop": 5}));
    assert_eq!((tokens[0][1]["text"].as_str(), tokens[0][1]["start"].as_u64()), (Some(" world"), Some(5)));
    assert_eq!(client.post("/decode", &json!({"ids": [15339, 1917]})).json(), json!(["hello world"]));
    assert_eq!(client.post("/decode", &json!({"ids": [[15339], [1917]]})).json(), json!(["hello", " world"]));
    let hello = fake.vector_of(InputKind::Document, "hello world");
    for input in [json!([15339, 1917]), json!([[15339, 1917]])] {
        let reply = client.post("/v1/embeddings", &json!({"input": input, "model": "fake"}));
        assert_eq!(vector(&reply.json()["data"][0]["embedding"]), hello, "{}", reply.text());
    }
    let reply = client.post("/v1/embeddings", &json!({"input": [[15339], [200_000]], "model": "fake"}));
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["bad_texts"], json!([{"index": 1, "reason": "rejected"}]));
    assert!(reply.json()["error"]["message"].as_str().is_some_and(|words| words.contains("200000")));
}

#[test]
fn a_whole_stack_and_large_requests_are_served() {
    // The inner embedder takes few texts per call: the server splits.
    let fake = Fake::builder().with_dimensions(64).with_limits(Limits::none().with_texts(100)).build().expect("valid");
    let stack = fake.clone().dedup().cached(Memory::new(64 << 20)).expect("one space");
    let running = Running::of(stack);
    let texts: Vec<String> = (0..5_000).map(|i| format!("text {}", i % 4_000)).collect();
    let body = json!({"inputs": texts});
    for round in 0..2 {
        let reply = running.client().post("/embed", &body);
        assert_eq!((reply.status, reply.header("transfer-encoding")), (200, Some("chunked")));
        let rows: Vec<Vec<f32>> = serde_json::from_slice(&reply.body).expect("rows");
        assert_eq!(rows.len(), 5_000);
        for (text, row) in texts.iter().zip(&rows).step_by(97) {
            assert_eq!(*row, fake.vector_of(InputKind::Document, text));
        }
        assert_eq!(fake.calls().len(), 40, "round {round}: the second one is cached");
    }
}

#[test]
fn every_reply_says_its_space_and_another_one_is_refused() {
    let fake = Fake::new(8);
    let running = Running::of(fake.clone());
    let id = fake.space().expect("one").id().to_string();
    let other = Fake::new(9).space().expect("one").id().to_string();
    for (path, field) in [("/embed", "texts"), ("/embed", "inputs"), ("/v1/embeddings", "input")] {
        let body = json!({field: ["a"]});
        let reply = running.client().with("x-embed-space", &id).post(path, &body);
        assert_eq!((reply.status, reply.header("x-embed-space")), (200, Some(&*id)));
        let reply = running.client().with("x-embed-space", &other).post(path, &body);
        assert_eq!((reply.status, reply.header("x-embed-error")), (409, Some("space_mismatch")), "{}", reply.text());
        assert_eq!(reply.header("x-embed-space"), Some(&*id));
        assert!(!reply.text().contains("\"a\""));
    }
    assert_eq!(fake.calls().len(), 3 + 3 - 3, "a refused request makes no call");
}

/// An alias is a name that requests may have.
#[test]
fn aliases_are_names() {
    let fake = Fake::new(4);
    let running = Running::loading(Server::builder());
    let model = ServedModel::new(Arc::new(fake)).with_name("org/model").with_alias("text-embedding-3-small");
    running.server.open(model).expect("opens");
    for (name, status) in [("org/model", 200), ("model", 200), ("text-embedding-3-small:query", 200), ("fake", 404)] {
        let reply = running.client().post("/v1/embeddings", &json!({"input": "a", "model": name}));
        assert_eq!(reply.status, status, "{name}");
        assert!(status != 404 || reply.json()["error"]["code"] == "model_not_found");
    }
}

/// The router is part of a larger service.
#[tokio::test]
async fn the_router_can_stand_in_another_one() {
    let fake = Fake::new(4);
    let server = Server::new(Arc::new(fake.clone())).expect("valid");
    let _router: axum::Router = axum::Router::new().nest("/vectors", server.router());
    assert_eq!(fake.embed(Batch::documents(&["a"])).await.expect("a row").len(), 1);
}
