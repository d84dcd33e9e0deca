//! The forms that the feature `serde` stores: other programs and later versions read them, so none may change.

use std::fmt::Debug;

use docvector_embed::{
    Batch, Charges, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Lane, Limits, Normalization, Payee, Pooling,
    Precision, Prompts, PromptsBy, Space, SpaceId, Tier, TokenCount, Truncation, Usage,
    price::{self, PicoDollars, Price},
    provider::Fake,
    wrap::{AbSplit, SplitStats, Totals, TotalsSnapshot},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Checks the stored form, and that it is read back.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, form: Value) {
    assert_eq!(serde_json::to_value(value).expect("stored"), form);
    // Through text, as a file holds it: strings that borrow and strings that own are both read.
    let text = form.to_string();
    assert_eq!(serde_json::from_str::<T>(&text).expect("read from text"), *value);
    assert_eq!(serde_json::from_value::<T>(form).expect("read from a value"), *value);
}

fn refused<T: DeserializeOwned + Debug>(form: Value) -> String {
    serde_json::from_value::<T>(form).expect_err("must be refused").to_string()
}

fn space() -> Space {
    Space::builder("text-embedding-3-small", 1536).with_normalization(Normalization::L2).build().expect("a space")
}

#[test]
fn names_are_strings() {
    check(&InputKind::Query, json!("query"));
    check(&Lane::Bulk, json!("bulk"));
    check(&Truncation::Truncate, json!("truncate"));
    check(&Tier::Batch, json!("batch"));
    check(&Pooling::MeanSqrtLen, json!("mean_sqrt_len_tokens"));
    check(&Normalization::L2, json!("l2"));
    check(&Precision::Int8, json!("int8"));
    check(&PromptsBy::Server, json!("server"));
    check(&ErrorKind::QuotaExhausted, json!("quota"));
    assert!(refused::<Lane>(json!("fast")).contains("must be one of interactive, bulk"));
    assert!(refused::<ErrorKind>(json!("quota used up")).contains("unavailable"));
}

#[test]
fn an_id_is_its_hex_digits() {
    let id = space().id();
    check(&id, json!(id.to_string()));
    assert!(refused::<SpaceId>(json!("a39b")).contains("32 hex digits"));
}

#[test]
fn a_space_is_its_fields_and_its_id() {
    let id = "a39b12dacbab517a740c39a05e880932";
    let form = json!({
        "id": id, "model": "text-embedding-3-small", "dimensions": 1536, "normalization": "l2", "precision": "full",
    });
    check(&space(), form.clone());
    let full = Space::builder("e5", 384)
        .with_revision("1")
        .with_pooling([Pooling::Mean, Pooling::Cls])
        .with_prompts(Prompts::by_server("passage: ", "query: "))
        .with_precision(Precision::Int8)
        .with_label("E5")
        .build()
        .expect("a space");
    let fields = json!({
        "id": full.id(), "model": "e5", "dimensions": 384, "revision": "1", "pooling": ["mean", "cls"],
        "normalization": "none", "precision": "int8", "label": "E5",
        "prompts": {"document": "passage: ", "query": "query: ", "applied_by": "server"},
    });
    check(&full, fields.clone());
    let read: Space = serde_json::from_value(fields).expect("read");
    assert_eq!((read.label(), read.prompts()), (Some("E5"), full.prompts()));
    // An empty prompt is another space than none, and stays one.
    let mut prompts = Prompts::default();
    prompts.query = Some("".into());
    let empty = Space::builder("m", 8).with_prompts(prompts).build().expect("a space");
    let read: Space = serde_json::from_value(serde_json::to_value(&empty).expect("stored")).expect("read");
    assert_eq!(read.id(), empty.id());
    // Without an id, as people write it.
    let short: Space = serde_json::from_value(json!({"model": "m", "dimensions": 8})).expect("read");
    assert_eq!(short.id(), Space::builder("m", 8).build().expect("a space").id());
}

#[test]
fn a_space_that_is_not_what_its_id_says_is_refused() {
    let mut form = serde_json::to_value(space()).expect("stored");
    form["dimensions"] = json!(512);
    let error = refused::<Space>(form.clone());
    assert!(error.contains("a39b12dacbab517a740c39a05e880932") && error.contains("its fields make"), "{error}");
    form["dimensions"] = json!(0);
    assert!(refused::<Space>(form).contains("must be 1 to 65536"));
    assert!(refused::<Space>(json!({"model": "", "dimensions": 8})).contains("name of its model"));
}

#[test]
fn usage_and_charges_are_integers_by_payee() {
    let usage = Usage::of_request(Some(12)).with_cached(3);
    let form = json!({
        "tokens": 12, "requests": 1, "unreported": 0, "unanswered": 0, "cached": 3, "deduplicated": 0,
    });
    check(&usage, form.clone());
    // What an earlier version did not know yet is zero.
    assert_eq!(serde_json::from_value::<Usage>(json!({"tokens": 7})).expect("read").tokens, 7);
    let payee = Payee::new("openai", "text-embedding-3-small", Tier::Batch);
    let payee_form = json!({"provider": "openai", "model": "text-embedding-3-small", "tier": "batch"});
    check(&payee, payee_form.clone());
    let paid = json!({
        "tokens": 12, "requests": 1, "unreported": 0, "unanswered": 0, "cached": 0, "deduplicated": 0,
    });
    let charges = Charges::of(&payee, usage);
    check(&charges, json!({"usage": form, "by_payee": [{"payee": payee_form, "usage": paid}]}));
    check(&Charges::NONE, json!({"usage": Usage::ZERO, "by_payee": []}));
    let too_much = json!({"usage": Usage::ZERO, "by_payee": [{"payee": payee_form, "usage": paid}]});
    assert!(refused::<Charges>(too_much).contains("tokens 12 together"));
    let mut unreported = serde_json::to_value(Charges::of(&payee, Usage::of_request(None))).expect("stored");
    unreported["usage"]["unreported"] = json!(0);
    assert!(refused::<Charges>(unreported).contains("unreported 1 together"));
    let mut cached = serde_json::to_value(Charges::of(&payee, usage)).expect("stored");
    cached["by_payee"][0]["usage"]["cached"] = json!(1);
    assert!(refused::<Charges>(cached).contains("that a cache or an equal text answered"));
}

#[test]
fn money_is_a_string_of_whole_pico_dollars() {
    check(&PicoDollars::from_picos(u128::MAX), json!("340282366920938463463374607431768211455"));
    check(&PicoDollars::ZERO, json!("0"));
    for wrong in ["", "-1", "+5", "0.5", "$1", "340282366920938463463374607431768211456"] {
        assert!(refused::<PicoDollars>(json!(wrong)).contains("whole number"), "{wrong}");
    }
}

#[test]
fn a_price_is_its_fields() {
    let price = price::of("openai", "text-embedding-3-small").expect("in the table");
    let form = json!({
        "provider": "openai", "model": "text-embedding-3-small", "standard": "20000", "batch": "10000",
        "valid_from": price.valid_from, "source": price.source,
    });
    check(&price, form);
    let own: Price = serde_json::from_value(json!({"provider": "here", "model": "m", "standard": "5"})).expect("read");
    assert_eq!(own, Price::new("here", "m", PicoDollars::from_picos(5)));
}

#[test]
fn limits_are_their_numbers() {
    let limits = Limits::none().with_texts(2048).with_tokens_per_call(300_000).with_tokens(TokenCount::AtMostBytes);
    let form = json!({
        "texts": 2048, "bytes": null, "tokens_per_text": null, "tokens_per_call": 300_000, "in_flight": null,
    });
    assert_eq!(serde_json::to_value(&limits).expect("stored"), form);
    let read: Limits = serde_json::from_value(form).expect("read");
    assert_eq!((read.texts, read.tokens_per_call, read.bytes), (Some(2048), Some(300_000), None));
    // How tokens are counted is code.
    assert!(matches!(read.tokens, TokenCount::Unknown));
}

#[tokio::test(start_paused = true)]
async fn totals_are_integers_and_stay_the_same_when_read() {
    let totals = Totals::new();
    let fake = Fake::new(4);
    fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    let embedder = fake.metered(totals.clone());
    embedder.embed_query("a").await.expect_err("as scripted");
    embedder.embed_query("b").await.expect("embedded");
    let snapshot = totals.snapshot();
    let form = serde_json::to_value(&snapshot).expect("stored");
    let mut keys: Vec<&str> = form.as_object().expect("a map").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let known = [
        "bytes",
        "calls",
        "charges",
        "dropped",
        "failed",
        "latency_buckets",
        "latency_max_ns",
        "latency_sum_ns",
        "texts",
        "usage",
    ];
    assert_eq!(keys, known);
    assert_eq!((&form["calls"], &form["failed"]), (&json!(2), &json!({"unavailable": 1})));
    assert_eq!(form["latency_buckets"].as_array().map(Vec::len), Some(15));
    let read: TotalsSnapshot = serde_json::from_value(form).expect("read");
    assert_eq!(read, snapshot);
    assert_eq!(read.to_string(), snapshot.to_string());
}

#[tokio::test(start_paused = true)]
async fn the_numbers_of_arms_are_those_of_totals_beside_label_share_and_space() {
    let split = AbSplit::builder("salt").with_arm("one", 3, Fake::new(4)).with_arm("two", 1, Fake::new(8)).build();
    let split = split.expect("valid");
    split.embed(Batch::documents(&["a text"]).with_space(split.spaces()[0].id())).await.expect("embedded");
    let stats = split.stats();
    let form = serde_json::to_value(&stats).expect("stored");
    let one = form["arms"][0].as_object().expect("a map");
    assert_eq!(one.keys().map(String::as_str).collect::<Vec<_>>(), ["label", "share", "space", "totals"]);
    assert_eq!((&one["label"], &one["share"], &one["totals"]["calls"]), (&json!("one"), &json!(3), &json!(1)));
    let read: SplitStats = serde_json::from_value(form).expect("read");
    assert_eq!(read, stats);
}
