//! Answers `/status`, the data of the page.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Value, json};

use super::probes::described;
use crate::{
    Lane,
    server::{inner::Inner, model::ServedModel, refusal::json_reply, throughput::Second},
};

/// Describes the server at this moment.
pub(super) async fn status(State(server): State<Arc<Inner>>) -> Response<Body> {
    let model = server.model.get();
    let space = model.and_then(ServedModel::space);
    let now = server.snapshot();
    let total = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let totals = &server.totals;
    let body = json!({
        "state": now.state.as_str(),
        "model": model.map(ServedModel::name),
        "space_id": space.map(|space| space.id().to_string()),
        "space": space.map(described),
        "device": model.and_then(|model| model.device.as_deref()),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": server.lifecycle.age().as_secs(),
        "now_s": SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "keys": server.keys.are_needed(),
        "queue": {
            "interactive": queue(now.queues[0].1),
            "bulk": queue(now.queues[1].1),
        },
        "memory": {"used_bytes": now.memory[0], "limit_bytes": now.memory[1]},
        "connections": now.connections,
        "requests_under_way": now.under_way,
        "totals": {
            "requests": total(&totals.requests),
            "texts": total(&totals.texts),
            "tokens": total(&totals.tokens),
            "refused": total(&totals.refused),
            "failed": total(&totals.failed),
        },
        "tokens_per_s": {
            "interactive": server.admission.tokens_per_second(Lane::Interactive),
            "bulk": server.admission.tokens_per_second(Lane::Bulk),
        },
        "wait_s": {
            "interactive": server.admission.wait(Lane::Interactive).map(|wait| wait.as_secs_f64()),
            "bulk": server.admission.wait(Lane::Bulk).map(|wait| wait.as_secs_f64()),
        },
        "throughput": throughput(server.throughput.seconds()),
    });
    let mut reply = json_reply(StatusCode::OK, &body);
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn queue([requests, texts, tokens, limit]: [usize; 4]) -> Value {
    json!({"requests": requests, "texts": texts, "tokens": tokens, "limit_tokens": limit})
}

fn throughput((seconds, end): (Vec<Second>, u64)) -> Value {
    let column = |of: fn(&Second) -> u64| seconds.iter().map(of).collect::<Vec<u64>>();
    json!({
        "step_s": Duration::from_secs(1).as_secs(),
        "end_s": end,
        "texts": column(|second| second.texts),
        "tokens": column(|second| second.tokens),
        "refused": column(|second| second.refused),
    })
}
