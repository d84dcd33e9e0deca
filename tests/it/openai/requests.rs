//! Checks what requests contain, what they never contain, and what a builder refuses.

use std::{env, io, net::TcpListener, process::Command, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Limits, Normalization, Precision, Prompts, PromptsBy,
    Space, SpaceId, TokenCount,
    provider::{OpenAi, OpenAiBuilder, OpenAiEncoding},
};
use serde_json::{Value, json};

use super::{TEXTS, assert_rows, builder, client, small};
use crate::support::{
    server::{DIMENSIONS, Server, Step},
    stand_in::{self, Request},
};

/// Returns the one request that a client sends for the two texts.
async fn request_of(build: impl FnOnce(OpenAiBuilder) -> OpenAiBuilder) -> Request {
    let server = Server::start([Step::Honest]).await;
    let client = build(builder(&server.base_url())).build().expect("valid");
    client.embed_documents(&TEXTS).await.expect("honest");
    server.requests().remove(0)
}

/// Returns the error of a builder, which must not quote a planted secret.
fn refused(builder: OpenAiBuilder) -> Error {
    let error = builder.build().expect_err("it was to be refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!format!("{error} {error:?}").contains("planted"), "quoted: {error:?}");
    error
}

#[tokio::test]
async fn a_request_is_as_the_api_wants_it() {
    let request = request_of(|builder| {
        let builder = builder.with_api_key("sk-the-key").with_organization("org-7").with_project("proj_8");
        builder.with_header("X-Team", "search")
    })
    .await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/embeddings"));
    assert_eq!(request.header("authorization"), Some("Bearer sk-the-key"));
    assert_eq!(request.header("openai-organization"), Some("org-7"));
    assert_eq!(request.header("openai-project"), Some("proj_8"));
    assert_eq!(request.header("x-team"), Some("search"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert!(request.header("user-agent").is_some_and(|agent| agent.starts_with("docvector-embed/")));
    // No other field and no null: servers refuse fields that are unknown or empty.
    let want = json!({"model": "stand-in", "input": TEXTS, "encoding_format": "base64"});
    assert_eq!(Value::from(request.fields()), want);
}

#[tokio::test]
async fn what_is_not_set_is_not_sent() {
    let request = request_of(|builder| builder).await;
    for name in ["authorization", "api-key", "openai-organization", "openai-project", "cookie", "referer"] {
        assert_eq!(request.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn dimensions_are_sent_when_asked_for() {
    let request = request_of(|builder| builder.with_dimensions(DIMENSIONS)).await;
    assert_eq!(request.fields().get("dimensions"), Some(&json!(DIMENSIONS)));
}

#[tokio::test]
async fn both_encodings_can_be_asked_for() {
    for (encoding, name) in [(OpenAiEncoding::Base64, "base64"), (OpenAiEncoding::Float, "float")] {
        let request = request_of(|builder| builder.with_encoding(encoding)).await;
        assert_eq!(request.fields().get("encoding_format"), Some(&json!(name)));
    }
}

#[tokio::test]
async fn a_base_url_may_end_in_a_slash() {
    for (end, path) in [("", "/v1/embeddings"), ("/", "/v1/embeddings")] {
        let server = Server::start([Step::Honest]).await;
        let client = builder(&format!("{}{end}", server.base_url())).build().expect("valid");
        client.embed_documents(&TEXTS).await.expect("honest");
        assert_eq!(server.requests()[0].path, path);
    }
}

/// All texts are sent as strings, in their order and without a changed byte. A text that looks empty is not replaced,
/// and one that looks like a special token stays a text.
#[tokio::test]
async fn texts_are_sent_as_they_are() {
    let server = Server::start([Step::Honest]).await;
    let texts = [
        "zebra",
        "ant",
        " ",
        "\n\t",
        "zebra",
        "<|endoftext|>",
        "\"quoted\\\"",
        "naïve 漢字 😀",
        "\u{0}\u{7f}\u{2028}",
        "\r\nlines\r\n",
        " padded ",
        "12",
        "null",
    ];
    let rows = client(&server).embed_documents(&texts).await.expect("honest");
    let fields = server.requests()[0].fields();
    assert_eq!(fields["input"], json!(texts));
    assert_rows(rows.rows(), &texts);
}

#[tokio::test]
async fn one_text_is_an_array_too() {
    let server = Server::start([Step::Honest]).await;
    client(&server).embed_query("one").await.expect("honest");
    assert_eq!(server.requests()[0].fields()["input"], json!(["one"]));
}

#[tokio::test]
async fn prompts_go_before_the_texts_of_their_kind() {
    let prompts = Prompts::new("passage: ", "query: ");
    let plain = Space::builder("stand-in", DIMENSIONS).build().expect("valid");
    let in_space = plain.to_builder().with_prompts(prompts.clone()).build().expect("valid");
    // Prompts of the builder and prompts of the space have the same effect.
    let ways: [fn(OpenAiBuilder, &Space, &Prompts) -> OpenAiBuilder; 2] = [
        |builder, _, prompts| builder.with_prompts(prompts.clone()),
        |builder, space, _| builder.with_space(space.clone()),
    ];
    for way in ways {
        let server = Server::start([Step::Honest, Step::Honest]).await;
        let client = way(builder(&server.base_url()), &in_space, &prompts).build().expect("valid");
        assert_eq!(client.space().expect("one"), &in_space, "prompts are part of the space");
        assert_ne!(client.space().expect("one"), &plain);
        let document = client.embed_documents(&["a text"]).await.expect("honest");
        let query = client.embed_query("a text").await.expect("honest");
        assert_rows(document.rows(), &["passage: a text"]);
        assert_rows([&query[..]], &["query: a text"]);
    }
}

#[tokio::test]
async fn prompts_that_the_server_applies_are_left_to_it() {
    let mut prompts = Prompts::new("passage: ", "query: ");
    prompts.applied_by = PromptsBy::Server;
    let server = Server::start([Step::Honest]).await;
    let client = builder(&server.base_url()).with_prompts(prompts).build().expect("valid");
    client.embed_query("a text").await.expect("honest");
    assert_eq!(server.requests()[0].texts(), ["a text"]);
}

/// A model that was trained with prompts also gives vectors without them, but wrong ones. Noticed at the first query,
/// the documents would already be embedded in another space.
#[test]
fn a_model_without_a_word_about_its_prompts_is_not_built() {
    for (model, says) in [
        ("intfloat/e5-base-v2", r#"`with_prompts(Prompts::new("passage: ", "query: "))`"#),
        ("BAAI/bge-base-en-v1.5", r#"Prompts::new("", "Represent this sentence"#),
        ("snowflake-arctic-embed-l-v2.0", r#"Prompts::new("", "query: ")"#),
        ("multilingual-e5-large-instruct", "with an instruction before each query"),
        ("nomic-embed-text:latest", r#"Prompts::new("search_document: ", "search_query: ")"#),
    ] {
        let error = refused(of_model(model, "http://127.0.0.1:1/v1"));
        assert!(error.to_string().contains(says), "{model}: {error}");
    }
    // The model's name counts even if the space has another one.
    let renamed = Space::builder("docs", DIMENSIONS).build().expect("valid");
    refused(of_model("intfloat/e5-base-v2", "http://127.0.0.1:1/v1").with_space(renamed));
    for model in ["code5-x", "acme-e5-like", "BAAI/bge-m3", "Alibaba-NLP/gte-base-en-v1.5"] {
        of_model(model, "http://127.0.0.1:1/v1").build().unwrap_or_else(|error| panic!("{model}: {error}"));
    }
}

/// Returns a builder for a model of any name, in a space without prompts.
fn of_model(model: &str, base_url: &str) -> OpenAiBuilder {
    let space = Space::builder(model, DIMENSIONS).build().expect("valid");
    OpenAi::builder(model).with_base_url(base_url).with_space(space)
}

/// Whatever the caller states is sent as it was stated, also if it is not what the model card says.
#[tokio::test]
async fn stated_prompts_are_sent_and_never_judged() {
    let server = Server::handling(|_, _| Step::Honest).await;
    let instruct = "Instruct: Given a question, find its answer.\nQuery: ";
    let by_server = Prompts::by_server("passage: ", "query: ");
    for model in [
        "intfloat/e5-base-v2",
        "intfloat/multilingual-e5-large-instruct",
        "intfloat/e5-mistral-7b-instruct",
        "Snowflake/snowflake-arctic-embed-l-v2.0",
        "BAAI/bge-base-en-v1.5",
        "nomic-embed-text:latest",
    ] {
        let fresh = || of_model(model, &server.base_url());
        let in_space =
            |prompts: Prompts| Space::builder(model, DIMENSIONS).with_prompts(prompts).build().expect("valid");
        #[rustfmt::skip]
        let cases = [
            (fresh().without_prompts(), "", ""),
            (fresh().with_prompts(Prompts::new("", "")), "", ""),
            (fresh().with_prompts(Prompts::new("", instruct)), "", instruct),
            (fresh().with_prompts(Prompts::new("", "query: ")), "", "query: "),
            (fresh().with_prompts(Prompts::new("passage: ", "")), "passage: ", ""),
            (fresh().with_prompts(Prompts::new("d: ", "q: ")), "d: ", "q: "),
            (fresh().with_space(in_space(Prompts::new("", "q: "))), "", "q: "),
            (fresh().with_prompts(by_server.clone()), "", ""),
            (fresh().with_space(in_space(by_server.clone())), "", ""),
        ];
        for (number, (builder, document, query)) in cases.into_iter().enumerate() {
            let client = builder.build().unwrap_or_else(|error| panic!("{model}, {number}: {error}"));
            client.embed_documents(&["a document"]).await.expect("honest");
            client.embed_query("a query").await.expect("honest");
            let sent: Vec<String> = server.requests().iter().rev().take(2).flat_map(Request::texts).collect();
            assert_eq!(sent, [format!("{query}a query"), format!("{document}a document")], "{model}, {number}");
        }
    }
}

/// NVIDIA NIM tells documents from queries by a field that OpenAI does not have.
#[tokio::test]
async fn added_fields_go_into_the_body_by_kind() {
    let server = Server::start([Step::Honest, Step::Honest]).await;
    let builder = builder(&server.base_url())
        .with_body_field("truncate", "END")
        .with_body_field("input_type", "replaced")
        .with_body_field_for(InputKind::Document, "input_type", "passage")
        .with_body_field_for(InputKind::Query, "input_type", "query")
        .with_body_field("provider", json!({"order": ["a", "b"], "allow_fallbacks": false}))
        .with_body_field("priority", 3);
    let client = builder.build().expect("valid");
    client.embed_documents(&["a text"]).await.expect("honest");
    client.embed_query("a text").await.expect("honest");
    let sent: Vec<Value> = server.requests().iter().map(|request| Value::from(request.fields())).collect();
    let want = |kind: &str| {
        json!({
            "model": "stand-in", "input": ["a text"], "encoding_format": "base64", "truncate": "END",
            "input_type": kind, "provider": {"order": ["a", "b"], "allow_fallbacks": false}, "priority": 3,
        })
    };
    assert_eq!(sent, [want("passage"), want("query")]);
}

#[test]
fn fields_that_every_request_has_are_refused_with_what_sets_them() {
    let fresh = || builder("http://127.0.0.1:1/v1");
    for (name, instead) in [
        ("input", "batch"),
        ("model", "OpenAi::builder"),
        ("dimensions", "with_dimensions"),
        ("encoding_format", "with_encoding"),
        ("", "name"),
    ] {
        for builder in [fresh().with_body_field(name, 8), fresh().with_body_field_for(InputKind::Query, name, 8)] {
            let error = refused(builder);
            assert!(error.to_string().contains(instead), "{name}: {error}");
        }
    }
    // No value that a server would take.
    refused(fresh().with_body_field("input_type", None::<&str>));
    refused(fresh().with_body_field("weight", f64::NAN));
    refused(fresh().with_body_field("map", std::collections::HashMap::from([((1, 2), 3)])));
}

/// Fields shape vectors. So they belong to a space that the crate describes, and a space that the caller describes is
/// left as it is.
#[test]
fn added_fields_belong_to_the_space_of_openais_models() {
    let id = |builder: OpenAiBuilder| builder.build().expect("valid").spaces()[0].id();
    let fresh = || small("http://127.0.0.1:1/v1");
    let plain = id(fresh());
    let typed = || fresh().with_body_field("input_type", "passage");
    assert_ne!(id(typed()), plain);
    assert_ne!(id(fresh().with_body_field("input_type", "query")), id(typed()));
    assert_ne!(id(fresh().with_body_field_for(InputKind::Document, "input_type", "passage")), id(typed()));
    let both = |first: &str, second: &str| {
        let value = |name: &str| json!({"b": name, "a": [1, 2.5]});
        id(fresh().with_body_field(first, value(first)).with_body_field(second, value(second)))
    };
    assert_eq!(both("x", "y"), both("y", "x"), "their order is nothing");
    assert_eq!(id(fresh().with_body_field("user", "somebody")), plain, "OpenAI's name for a user changes no vector");
    // These stay: collections and cache entries are named by them.
    assert_eq!(
        [plain.to_string(), id(typed()).to_string()],
        ["853857a04f5ad02d15b3a694b39486ac", "6878bc27af4888ed08fa6599f5b3a894"]
    );
    let own = || builder("http://127.0.0.1:1/v1");
    assert_eq!(id(own().with_body_field("input_type", "passage")), id(own()));
    assert_eq!(id(fresh().with_space(own_space()).with_body_field("input_type", "passage")), own_space().id());
}

fn own_space() -> Space {
    Space::builder("mine", DIMENSIONS).with_revision("r1").build().expect("valid")
}

/// Limits that are not set stay as OpenAI has them; limits that the client cannot keep are refused.
#[test]
fn limits_are_filled_in_or_refused() {
    let fewer = small("http://127.0.0.1:1/v1").with_limits(Limits::none().with_texts(25)).build().expect("valid");
    let limits = fewer.limits();
    assert_eq!((limits.texts, limits.tokens_per_text, limits.tokens_per_call), (Some(25), Some(8191), Some(300_000)));
    assert_eq!(limits.bytes, Some(1_200_000));
    for tokens in [TokenCount::Unknown, TokenCount::AtMostBytes] {
        let limits = Limits::none().with_tokens_per_text(512).with_tokens(tokens);
        let error = builder("http://127.0.0.1:1/v1").with_limits(limits).build().expect_err("nobody counts");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[test]
fn what_is_no_key_is_refused_by_name() {
    for key in ["", " ", "sk-abc ", "sk-abc\n", "\"sk-abc\"", "'sk-abc'", "sk-\u{e4}", "sk a"] {
        let error = builder("http://127.0.0.1:1/v1").with_api_key(key).build().expect_err("no key");
        assert!(error.to_string().contains("OPENAI_API_KEY") && !error.to_string().contains("abc"), "{key:?}: {error}");
    }
}

// Azure

#[tokio::test]
async fn azures_two_paths() {
    for (version, path, model) in [
        (Some("2024-10-21"), "/openai/deployments/my-embedder/embeddings?api-version=2024-10-21", None),
        (None, "/openai/v1/embeddings", Some("my-embedder")),
    ] {
        // With and without a slash at the end of the endpoint.
        for end in ["", "/"] {
            let server = Server::start([Step::Honest]).await;
            let endpoint = format!("{}{end}", server.base_url().trim_end_matches("/v1"));
            let azure = OpenAi::builder("text-embedding-3-small").with_dimensions(DIMENSIONS);
            let azure = azure.with_azure(endpoint, "my-embedder", version).with_api_key("azure-key");
            let azure = azure.build().expect("valid");
            let rows = azure.embed_documents(&TEXTS).await.expect("honest");
            assert_rows(rows.rows(), &TEXTS);
            let request = server.requests().remove(0);
            assert_eq!(request.path, path);
            assert_eq!((request.header("api-key"), request.header("authorization")), (Some("azure-key"), None));
            assert_eq!(request.fields().get("model").and_then(Value::as_str), model);
            // The space is that of the model, which is the same one as at OpenAI.
            assert!(azure.to_string().ends_with("/text-embedding-3-small"), "{azure}");
            let elsewhere = small("http://127.0.0.1:1/v1").build().expect("valid");
            assert_eq!(azure.space().expect("one"), elsewhere.space().expect("one"));
        }
    }
}

#[tokio::test]
async fn a_deployments_name_stays_within_its_place() {
    let server = Server::start([Step::status(404)]).await;
    let azure = OpenAi::builder("text-embedding-3-small").with_dimensions(DIMENSIONS).with_api_key("azure-key");
    let azure = azure.with_azure(server.base_url().trim_end_matches("/v1"), "../x?y#z", Some("a&b=c"));
    azure.build().expect("valid").embed_documents(&TEXTS).await.expect_err("no such deployment");
    let path = server.requests().remove(0).path;
    assert_eq!(path, "/openai/deployments/..%2Fx%3Fy%23z/embeddings?api-version=a%26b%3Dc");
}

/// A space that was stored as text needs no model: a remote embedder declared to lie in it takes its prompts, and answers
/// queries that ask for it.
#[tokio::test]
async fn a_stored_space_serves_two_vendors() {
    let space = Space::builder("own", DIMENSIONS).with_prompts(Prompts::new("passage: ", "query: ")).build();
    let stored = space.expect("a space").to_text();
    let read = || stored.parse::<Space>().expect("its own text");
    let (one, two) = (Server::start([Step::Honest]).await, Server::start([Step::Honest, Step::Honest]).await);
    let client = |server: &Server, name: &str| {
        OpenAi::builder(name).with_base_url(server.base_url()).with_space(read()).build().expect("valid")
    };
    let (documents, queries) = (client(&one, "vendor/own"), client(&two, "own-v1"));
    let rows = documents.embed_documents(&TEXTS).await.expect("embedded");
    queries.embed_query_in(rows.space(), "one query").await.expect("the same space");
    queries.embed_query_in(read().id(), "by its id").await.expect("the same space");
    let sent = Value::from(two.requests()[0].fields());
    assert_eq!((&sent["model"], &sent["input"]), (&json!("own-v1"), &json!(["query: one query"])));
    // The same width is not the same space, and no request is made to find out.
    let asked = two.requests().len();
    let other = read().to_builder().with_precision(Precision::Int8).build().expect("a space");
    let error = queries.embed_query_in(&other, "one query").await.expect_err("another space");
    assert_eq!((error.kind(), two.requests().len()), (ErrorKind::SpaceMismatch, asked));
}

// Before any request

#[tokio::test]
async fn what_can_be_refused_at_once_is() {
    let server = Server::start([]).await;
    let client = client(&server);
    let none = client.embed(Batch::documents(&[])).await.expect("nothing to do");
    assert_eq!((none.len(), none.usage().requests), (0, 0));
    let error = client.embed_documents(&["fine", "", "fine", ""]).await.expect_err("empty texts");
    let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
    assert_eq!((error.kind(), &named[..]), (ErrorKind::InvalidInput, &[1, 3][..]));
    let other = Batch::documents(&TEXTS).with_space(SpaceId::from_bytes([7; 16]));
    assert_eq!(client.embed(other).await.expect_err("another space").kind(), ErrorKind::SpaceMismatch);
    let error = client.embed(Batch::documents(&["many"; 2049])).await.expect_err("more than a call holds");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

// Addresses and keys

#[test]
fn addresses_that_cannot_be_used_are_refused() {
    for url in [
        "http://user:planted@127.0.0.1/v1",
        "http://planted@127.0.0.1/v1",
        "http://127.0.0.1/v1?key=planted",
        "http://127.0.0.1/v1#planted",
        "ftp://127.0.0.1/v1",
        "file:///v1",
        "127.0.0.1:8080/v1",
        "localhost:8080/v1",
        "/v1",
        "http://",
        "http://planted host/v1",
        "",
    ] {
        refused(builder(url));
        refused(builder("http://127.0.0.1/v1").with_azure(url, "deployment", None));
    }
    refused(builder("http://127.0.0.1/v1").with_proxy("http://user:planted@ not an address"));
}

#[test]
fn a_key_does_not_leave_the_machine_unencrypted() {
    for url in [
        "http://example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "http://localhost.example.com/v1",
        "http://example.com:443/v1",
        "http://10.0.0.7:8080/v1",
        "http://[2001:db8::1]:8080/v1",
    ] {
        let keyed = builder(url).with_api_key("sk-planted");
        refused(keyed.clone());
        refused(builder(url).with_header("x-key", "planted"));
        refused(small("https://example.com/v1").with_azure(url, "deployment", None).with_api_key("planted"));
        keyed.with_plain_http().build().expect("as was asked for");
        builder(url).build().expect("there is no key to protect");
    }
    for url in [
        "http://127.0.0.1:8080/v1",
        "http://127.8.8.8/v1",
        "http://localhost:8080/v1",
        "HTTP://LOCALHOST/v1",
        "http://[::1]:8080/v1",
        "https://example.com/v1",
    ] {
        builder(url).with_api_key("sk-planted").build().unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}

#[test]
fn values_with_which_no_call_succeeds_are_refused_by_name() {
    let fresh = || builder("http://127.0.0.1/v1");
    let says = |builder: OpenAiBuilder, what: &str| {
        let error = refused(builder);
        assert!(error.to_string().contains(what), "{what}: {error}");
    };
    says(OpenAi::builder("").with_base_url("http://127.0.0.1/v1"), "model");
    says(fresh().with_timeout(Duration::ZERO), "with_timeout");
    says(fresh().with_connect_timeout(Duration::ZERO), "with_connect_timeout");
    says(fresh().with_azure("http://127.0.0.1", "", None), "deployment");
    says(fresh().with_azure("http://127.0.0.1", "deployment", Some("")), "version");
    for (limits, name) in [
        (Limits::none().with_texts(0), "texts"),
        (Limits::none().with_bytes(0), "bytes"),
        (Limits::none().with_tokens_per_text(0), "tokens_per_text"),
        (Limits::none().with_tokens_per_call(0), "tokens_per_call"),
        (Limits::none().with_in_flight(0), "in_flight"),
    ] {
        says(fresh().with_limits(limits), name);
    }
    for prompts in [Prompts::new("passage: ", ""), Prompts::by_server("", "query: ")] {
        says(fresh().with_prompts(prompts).without_prompts(), "without_prompts");
    }
}

#[test]
fn keys_and_headers_that_cannot_be_sent_are_refused() {
    let fresh = || builder("http://127.0.0.1/v1");
    for value in ["planted\nkey", "planted\r\nx-more: headers", "planted\u{0}", "planted\u{7f}", ""] {
        refused(fresh().with_api_key(value));
        refused(fresh().with_organization(value));
        refused(fresh().with_project(value));
        refused(fresh().with_header("x-team", value));
        refused(fresh().with_azure("http://127.0.0.1", "deployment", None).with_api_key(value));
    }
    for name in ["", "x team", "x:team", "x\r\nteam"] {
        refused(fresh().with_header(name, "planted"));
    }
}

#[test]
fn openais_own_endpoint_needs_a_key() {
    let error = refused(OpenAi::builder("text-embedding-3-small"));
    assert!(error.to_string().contains("OPENAI_API_KEY"), "{error}");
    OpenAi::builder("text-embedding-3-small").with_api_key("sk-some").build().expect("valid");
}

#[tokio::test]
async fn a_proxy_is_used_where_one_is_given() {
    let proxy = Server::start([Step::Honest]).await;
    // No host has this name, so the client must talk to the proxy only.
    let client = builder("http://embeddings.invalid/v1").with_proxy(proxy.base_url().trim_end_matches("/v1"));
    client.build().expect("valid").embed_documents(&TEXTS).await.expect("through the proxy");
    assert_eq!(proxy.requests()[0].path, "http://embeddings.invalid/v1/embeddings");
}

// Spaces and models

#[test]
fn the_space_is_the_models_wherever_it_runs() {
    let of = |model: &str| OpenAi::builder(model).with_base_url("http://127.0.0.1:1/v1");
    for (model, dimensions) in
        [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("text-embedding-ada-002", 1536)]
    {
        let client = of(model).build().expect("known");
        let space = client.space().expect("one");
        assert_eq!((space.model(), space.dimensions()), (model, dimensions));
        assert_eq!(space.normalization(), Normalization::L2);
        assert_eq!(client.to_string(), format!("openai/{model}"));
    }
    let id = |builder: OpenAiBuilder| builder.build().expect("valid").spaces()[0].id();
    let small = || of("text-embedding-3-small");
    let other_server = OpenAi::builder("text-embedding-3-small").with_base_url("http://127.0.0.1:2/other");
    assert_eq!(id(small()), id(other_server));
    assert_eq!(id(small()), id(small().with_encoding(OpenAiEncoding::Float).with_api_key("sk-some")));
    assert_eq!(id(small()), id(small().with_dimensions(1536)), "the width that it has anyway");
    assert_ne!(id(small()), id(small().with_dimensions(512)));
    assert_ne!(id(small()), id(of("text-embedding-ada-002")), "as wide, and another model");
    assert_ne!(id(small()), id(small().with_prompts(Prompts::new("", "query: "))));
}

#[test]
fn models_that_are_not_there_are_refused_before_they_cost() {
    let of = |model: &str| OpenAi::builder(model).with_base_url("http://127.0.0.1:1/v1");
    for model in ["text-embedding-3-smal", "my-model", ""] {
        refused(of(model));
    }
    for dimensions in [0, 1537, usize::MAX] {
        refused(of("text-embedding-3-small").with_dimensions(dimensions));
    }
    refused(of("text-embedding-3-large").with_dimensions(3073));
    refused(of("text-embedding-ada-002").with_dimensions(512));
    // The builder gets two contradicting settings.
    let space = Space::builder("my-model", 64).with_prompts(Prompts::new("", "find: ")).build().expect("valid");
    refused(of("my-model").with_space(space.clone()).with_dimensions(32));
    refused(of("my-model").with_space(space.clone()).with_prompts(Prompts::new("", "search: ")));
    of("my-model").with_space(space).with_dimensions(64).build().expect("it says the same twice");
}

// The environment belongs to the process, so each of these tests runs itself again in its own process.

/// The variable that tells a test that it runs in its own process.
const INNER: &str = "DOCVECTOR_EMBED_TEST_INNER";

fn is_inner() -> bool {
    env::var_os(INNER).is_some()
}

async fn run_inner(test: &str, variables: &[(&str, &str)]) {
    let (_, module) = module_path!().split_once("::").expect("the crate's name comes first");
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", &format!("{module}::{test}")]).env(INNER, "yes").envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it starts");
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains(" 1 passed"), "{told}\n{warned}");
}

#[tokio::test]
async fn the_environment_names_server_key_and_payer() {
    if is_inner() {
        let client = OpenAi::from_env("text-embedding-3-small").expect("all is there");
        client.embed_documents(&TEXTS).await.expect("honest");
        return;
    }
    let server = Server::start_with(1536, [Step::Honest]).await;
    let base_url = server.base_url();
    let variables = [
        ("OPENAI_API_KEY", "sk-of-the-environment"),
        ("OPENAI_BASE_URL", base_url.as_str()),
        ("OPENAI_ORG_ID", "org-9"),
        ("OPENAI_PROJECT_ID", "proj_9"),
    ];
    run_inner("the_environment_names_server_key_and_payer", &variables).await;
    let request = server.requests().remove(0);
    assert_eq!(request.header("authorization"), Some("Bearer sk-of-the-environment"));
    assert_eq!(request.header("openai-organization"), Some("org-9"));
    assert_eq!(request.header("openai-project"), Some("proj_9"));
    assert_eq!(request.texts(), TEXTS);
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    if is_inner() {
        let server = Server::start([Step::Honest]).await;
        let rows = client(&server).embed_documents(&TEXTS).await.expect("straight to the server");
        assert_eq!(rows.row(0), stand_in::vector(TEXTS[0], DIMENSIONS));
        return;
    }
    // A proxy that takes connections and never answers.
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", proxy.local_addr().expect("an address"));
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let mut variables: Vec<(&str, &str)> = names.iter().map(|name| (*name, url.as_str())).collect();
    variables.extend([("NO_PROXY", ""), ("no_proxy", "")]);
    run_inner("proxies_of_the_environment_are_not_used", &variables).await;
    proxy.set_nonblocking(true).expect("it can");
    let visit = proxy.accept().expect_err("somebody came to the proxy");
    assert_eq!(visit.kind(), io::ErrorKind::WouldBlock);
}
