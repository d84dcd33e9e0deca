//! Answers the routes of batches.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    sync::Arc,
};

use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

use crate::testing::{
    account::Account,
    api_error::ApiError,
    batch::Order,
    files::Content,
    input_file::{ENDPOINT, texts_of},
    line_script::{Fate, Line, LineRule},
    query::Query,
    reply::{self, Reply},
    upload::{NoUpload, kept, read_whole},
};

/// The most bytes of a create.
const LONGEST_BODY: usize = 256 << 10;
/// The most pairs of metadata, and the most characters of their halves.
const MOST_PAIRS: usize = 16;
const LONGEST_KEY: usize = 64;
const LONGEST_VALUE: usize = 512;

#[derive(Deserialize)]
struct Create {
    input_file_id: Option<String>,
    endpoint: Option<String>,
    completion_window: Option<String>,
    metadata: Option<Value>,
    output_expires_after: Option<OutputExpiry>,
}

#[derive(Deserialize)]
struct OutputExpiry {
    anchor: Option<String>,
    seconds: Option<u64>,
}

pub(super) async fn create(account: &Account, body: &mut Incoming) -> Result<Reply, NoUpload> {
    let body = read_whole(body, LONGEST_BODY).await?;
    // From here to the answer nothing waits: a create happens whole or not at all.
    Ok(create_of(account, &body)?)
}

fn create_of(account: &Account, body: &[u8]) -> Result<Reply, ApiError> {
    let create: Create = serde_json::from_slice(body).map_err(|_| ApiError::not_json())?;
    let missing = |param| ApiError::bad_request(format!("Missing required parameter: '{param}'.")).with_param(param);
    let input_file_id = create.input_file_id.ok_or_else(|| missing("input_file_id"))?;
    let endpoint = create.endpoint.ok_or_else(|| missing("endpoint"))?;
    let window = create.completion_window.ok_or_else(|| missing("completion_window"))?;
    if endpoint != ENDPOINT {
        let message = format!("Invalid value: '{endpoint}'. The simulator has '{ENDPOINT}'.");
        return Err(ApiError::bad_request(message).with_param("endpoint").with_code("invalid_value"));
    }
    if window != "24h" {
        let message = format!("Invalid value: '{window}'. Supported values are: '24h'.");
        return Err(ApiError::bad_request(message).with_param("completion_window").with_code("invalid_value"));
    }
    let metadata = create.metadata.filter(|metadata| !metadata.is_null()).map(check_metadata).transpose()?;
    let names = ["output_expires_after.anchor", "output_expires_after.seconds"];
    let kept = |expiry: OutputExpiry| kept(expiry.anchor.as_deref(), expiry.seconds, names);
    let keeps_results = create.output_expires_after.map(kept).transpose()?;
    let (content, rules) = account.with(|state| {
        let content = state.file(&input_file_id).map(|file| file.content.clone());
        (content, state.rules.clone())
    });
    let Some(Content::Uploaded(path, input)) = content else {
        let message = format!("No such File object with purpose 'batch': {input_file_id}");
        return Err(ApiError::bad_request(message).with_param("input_file_id"));
    };
    // The functions of the rules are the test's own, so no lock is held.
    let content = Content::Uploaded(path, input.clone());
    let fates = judge_lines(&content, &rules).map_err(|error| ApiError::broken(&error))?;
    let order = Order { input_file_id, input, metadata, keeps_results, fates };
    Ok(reply::json(200, &account.with(|state| state.create(order))))
}

fn check_metadata(metadata: Value) -> Result<BTreeMap<String, String>, ApiError> {
    let refused =
        |message: &str| ApiError::bad_request(format!("Invalid 'metadata': {message}")).with_param("metadata");
    let metadata: BTreeMap<String, String> =
        serde_json::from_value(metadata).map_err(|_| refused("expected an object of strings."))?;
    if metadata.len() > MOST_PAIRS {
        return Err(
            refused("an object with at most 16 properties is permitted.").with_code("object_above_max_properties")
        );
    }
    for (key, value) in &metadata {
        if key.chars().count() > LONGEST_KEY || value.chars().count() > LONGEST_VALUE {
            return Err(
                refused("a key has at most 64 characters and a value 512.").with_code("string_above_max_length")
            );
        }
    }
    Ok(metadata)
}

/// Finds the lines that the rules choose, among those that the endpoint does not refuse anyway.
fn judge_lines(content: &Content, rules: &[Arc<LineRule>]) -> std::io::Result<HashMap<usize, Arc<Fate>>> {
    let mut fates = HashMap::new();
    let Content::Uploaded(path, input) = content else { return Ok(fates) };
    if rules.is_empty() {
        return Ok(fates);
    }
    let mut file = std::io::BufReader::new(std::fs::File::open(&***path)?);
    let (mut bytes, mut position) = (Vec::new(), 0);
    for (number, line) in input.lines.iter().enumerate().filter(|(_, line)| line.refusal.is_none()) {
        let skipped = i64::try_from(line.place.start - position).map_err(std::io::Error::other)?;
        // Unlike `seek`, this keeps what has been read from the disk.
        file.seek_relative(skipped)?;
        bytes.clear();
        file.by_ref().take(line.place.end - line.place.start).read_to_end(&mut bytes)?;
        position = line.place.end;
        let texts = texts_of(&bytes);
        let line = Line { number, custom_id: &line.custom_id, texts: &texts };
        if let Some(fate) = rules.iter().find_map(|rule| rule.judge(&line)) {
            fates.insert(number, fate);
        }
    }
    Ok(fates)
}

pub(super) fn list(account: &Account, query: &str) -> Result<Reply, ApiError> {
    let query = Query::read(query, 20, 100)?;
    account.with(|state| {
        let now = state.clock.now();
        state.counts.lists += 1;
        let listed = state.batches().iter().rev().filter(|batch| batch.is_listed(now));
        let page = query.page(listed, |batch| &batch.id, |batch| batch.to_json(&state.clock))?;
        state.was_listed();
        Ok(reply::json(200, &page))
    })
}

pub(super) fn get(account: &Account, id: &str) -> Result<Reply, ApiError> {
    let batch = account.with(|state| {
        let batch = state.batch(id).map(|batch| batch.to_json(&state.clock));
        state.counts.polls += u64::from(batch.is_some());
        batch
    });
    Ok(reply::json(200, &batch.ok_or_else(|| ApiError::no_batch(id))?))
}

pub(super) fn cancel(account: &Account, id: &str) -> Result<Reply, ApiError> {
    account.with(|state| {
        let is_cancelled = state.cancel(id);
        let batch = state.batch(id).ok_or_else(|| ApiError::no_batch(id))?;
        if !is_cancelled {
            let message = format!("Cannot cancel a batch with status '{}'.", batch.state);
            return Err(ApiError::new(409, message));
        }
        let shown = batch.to_json(&state.clock);
        state.counts.cancels += 1;
        Ok(reply::json(200, &shown))
    })
}
