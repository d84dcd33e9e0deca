//! Tests `testing::Simulator`: every route, and everything that can be scripted.
#![cfg(feature = "testing")]

mod answers;
pub(crate) mod client;
mod course;
mod faults;
mod files;
mod lines;
mod process;
mod python;

use std::time::Duration;

use docvector_embed::testing::Simulator;
use serde_json::{Value, json};

use self::client::Client;

const MODEL: &str = "text-embedding-3-small";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer than a batch takes that nobody scripted.
const LONG: Duration = Duration::from_secs(3600);

fn start() -> (Simulator, Client) {
    let simulator = Simulator::start().expect("starts");
    let client = Client::new(simulator.address());
    (simulator, client)
}

/// Makes a line whose vectors are short and in base64.
fn line(id: &str, texts: &[&str]) -> Value {
    line_of(id, &json!({"model": MODEL, "input": texts, "dimensions": 8, "encoding_format": "base64"}))
}

fn line_of(id: &str, body: &Value) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/embeddings", "body": body})
}

/// Makes so many lines, `line 0` and on, each with the text `text 0` and on.
fn lines(count: usize) -> Vec<Value> {
    (0..count).map(|i| line(&format!("line {i}"), &[&format!("text {i}")])).collect()
}

fn jsonl(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}
