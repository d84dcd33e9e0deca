//! Lets a program in another process steer the simulator over HTTP: [`answer`].

use std::time::Duration;

use hyper::{Method, Request, body::Incoming};
use serde_json::{Value, json};

use super::{
    account::Account,
    api_error::ApiError,
    reply::{self, Reply},
    upload::{NoUpload, read_whole},
    vectors::hash_text,
};

/// The beginning of these paths.
pub(super) const PREFIX: &str = "/_simulator/";

const LONGEST_BODY: usize = 64 << 20;

/// Answers `POST advance`, `POST speed`, `POST billed`, `GET counts` and `GET bills`.
pub(super) async fn answer(account: &Account, request: Request<Incoming>) -> Result<Reply, NoUpload> {
    let (head, mut body) = request.into_parts();
    let body = read_whole(&mut body, LONGEST_BODY).await?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let invalid = |wanted: &str| ApiError::bad_request(format!("The simulator wants {wanted}."));
    let path = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let value = match (path, &head.method) {
        ("advance", &Method::POST) => {
            let by = body["seconds"].as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let by = by.ok_or_else(|| invalid("a field 'seconds' that is a number of at least 0"))?;
            account.with(|state| {
                state.advance(by);
                json!({"now": state.clock.unix(state.clock.now())})
            })
        }
        ("speed", &Method::POST) => {
            let speed = body["speed"].as_f64().ok_or_else(|| invalid("a field 'speed' that is a number"))?;
            account.with(|state| state.clock.set_speed(speed));
            json!({})
        }
        ("billed", &Method::POST) => {
            let texts = body["texts"].as_array().ok_or_else(|| invalid("a field 'texts' that is an array"))?;
            let hashes: Vec<_> = texts.iter().map(|text| hash_text(text.as_str().unwrap_or_default())).collect();
            let times: Vec<u64> = account.with(|state| hashes.iter().map(|hash| state.ledger.times(hash)).collect());
            json!({"billed": times})
        }
        ("counts", &Method::GET) => counts(account),
        ("bills", &Method::GET) => {
            let bills = account.with(|state| state.ledger.bills());
            json!({
                "texts": bills.texts,
                "distinct_texts": bills.distinct_texts,
                "most_per_text": bills.most_per_text,
                "batch_tokens": bills.batch_tokens,
                "standard_tokens": bills.standard_tokens,
            })
        }
        _ => return Err(ApiError::new(404, "The simulator has no such page.").into()),
    };
    Ok(reply::json(200, &value))
}

fn counts(account: &Account) -> Value {
    let counts = account.with(|state| state.counts());
    json!({
        "requests": counts.requests,
        "faults": counts.faults,
        "refused": counts.refused,
        "uploads": counts.uploads,
        "creates": counts.creates,
        "cancels": counts.cancels,
        "polls": counts.polls,
        "lists": counts.lists,
        "downloads": counts.downloads,
        "deletes": counts.deletes,
        "embeddings": counts.embeddings,
        "live_batches": counts.live_batches,
    })
}
