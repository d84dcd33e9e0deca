//! Reads what the API says about a batch: [`BatchObject`].

use std::{collections::HashMap, fmt};

use serde_json::Value;

/// Maximum characters of a message that are kept.
const MAX_MESSAGE_CHARS: usize = 1000;

/// Maximum bytes of an id.
const MAX_ID_BYTES: usize = 256;

/// The code of a batch that found no room in the account.
pub(super) const NO_ROOM: &str = "token_limit_exceeded";

/// A batch, as a reply shows it. Only its id and its status are sure to be there.
#[derive(Clone, Debug)]
pub(super) struct BatchObject {
    pub(super) id: String,
    pub(super) status: BatchStatus,
    pub(super) input_file_id: Option<String>,
    /// `None` if there is no such file, or if its id cannot be one.
    pub(super) output_file_id: Option<String>,
    pub(super) error_file_id: Option<String>,
    /// In seconds since 1970.
    pub(super) created_at: Option<u64>,
    /// Why the whole batch failed.
    pub(super) errors: Vec<BatchError>,
    /// Lines, as the server counts them. It has counted wrongly: what became of a line is in the files alone.
    pub(super) completed: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) metadata: HashMap<String, String>,
}

/// The state of a batch. A state that is not known is not the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BatchStatus {
    Validating,
    InProgress,
    Finalizing,
    Cancelling,
    Completed,
    Failed,
    Expired,
    Cancelled,
    /// Its name; empty if it looks like no name.
    Unknown(String),
}

/// Why a batch failed as a whole.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BatchError {
    /// Empty if there is none, or if it looks like no code.
    pub(super) code: String,
    /// The server's words, which may quote a text: they are for programs alone. `Debug` does not show them.
    pub(super) message: String,
    /// The number of the line, as the server counts it.
    pub(super) line: Option<u64>,
}

impl BatchObject {
    /// Reads a batch; `None` if the value is none, because it lacks a usable id or a status.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let id = id(value.get("id")?)?;
        let status = BatchStatus::read(value.get("status")?.as_str()?);
        let file = |name: &str| value.get(name).and_then(self::id);
        let time = |name: &str| value.get(name).and_then(number);
        let count = |name: &str| value.get("request_counts")?.get(name).and_then(number);
        Some(Self {
            id,
            status,
            input_file_id: file("input_file_id"),
            output_file_id: file("output_file_id"),
            error_file_id: file("error_file_id"),
            created_at: time("created_at"),
            errors: errors(value.get("errors")),
            completed: count("completed"),
            total: count("total"),
            metadata: metadata(value.get("metadata")),
        })
    }
}

impl BatchStatus {
    fn read(name: &str) -> Self {
        let name = name.trim();
        match name.to_ascii_lowercase().as_str() {
            "validating" => Self::Validating,
            "in_progress" => Self::InProgress,
            "finalizing" => Self::Finalizing,
            "cancelling" | "canceling" => Self::Cancelling,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "expired" => Self::Expired,
            "cancelled" | "canceled" => Self::Cancelled,
            _ => Self::Unknown(code(name)),
        }
    }

    /// Returns the API's name.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unknown(name) => name,
        }
    }

    /// Whether the batch has ended, so that its files do not change any more.
    pub(super) const fn is_terminal(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }
}

impl fmt::Debug for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchError").field("code", &self.code).field("line", &self.line).finish_non_exhaustive()
    }
}

/// Returns the most tokens that may be enqueued, if the errors say that a batch exceeded them, as in `Limit: 3,000,000
/// enqueued tokens`.
pub(super) fn enqueued_limit(errors: &[BatchError]) -> Option<u64> {
    let number = |message: &str| {
        let rest = message.split_once("Limit:")?.1.trim_start();
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(rest.len())];
        digits.replace(',', "").parse().ok().filter(|&limit| limit > 0)
    };
    errors.iter().filter(|error| error.code == NO_ROOM).find_map(|error| number(&error.message))
}

/// Reads an id of a file or a batch; `None` if it is empty, too long, or would change the path of a URL.
pub(super) fn id(value: &Value) -> Option<String> {
    value.as_str().filter(|id| is_id(id)).map(str::to_owned)
}

/// Whether a string can be an id of a file or a batch.
pub(super) fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && !id.chars().all(|c| c == '.') && !id.contains(char::is_control)
}

/// Reads a number of at least 0, in any form: 3, 3.0 or "3".
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(digits) => digits.trim().parse().ok(),
        // Between these bounds, nothing is lost but a fraction.
        _ => value.as_u64().or_else(|| value.as_f64().filter(|n| (0.0..=9e15).contains(n)).map(|n| n as u64)),
    }
}

/// Reads the errors of a batch: a list of the API, or a plain array.
fn errors(value: Option<&Value>) -> Vec<BatchError> {
    let list = value.and_then(|value| value.as_array().or_else(|| value.get("data")?.as_array()));
    let error = |value: &Value| {
        let word = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        BatchError {
            code: code(word("code")),
            message: word("message").chars().take(MAX_MESSAGE_CHARS).collect(),
            // A number alone: a string may be anything.
            line: value.get("line").filter(|line| line.is_number()).and_then(number),
        }
    };
    list.into_iter().flatten().map(error).collect()
}

fn metadata(value: Option<&Value>) -> HashMap<String, String> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    pairs.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

/// Returns a word that looks like a code, and nothing of any other.
fn code(word: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_code = word.len() <= 64 && word.chars().all(is_part);
    if is_code { word.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_is_read_whatever_is_missing_or_odd() {
        let least = BatchObject::read(&json!({"id": "batch_1", "status": "validating"})).expect("a batch");
        assert_eq!((least.id.as_str(), &least.status), ("batch_1", &BatchStatus::Validating));
        assert_eq!((least.total, least.created_at, &least.output_file_id), (None, None, &None));
        assert!(least.errors.is_empty() && least.metadata.is_empty());
        let odd = BatchObject::read(&json!({
            "id": "batch_1", "status": "completed", "object": 7, "new": {"field": []},
            "input_file_id": "file-1", "output_file_id": null, "error_file_id": "",
            "created_at": "1700000000", "expires_at": 1.7000864e9, "completed_at": -1,
            "request_counts": {"total": 3.0, "completed": "2", "failed": -1}, "metadata": {"a": "b", "n": 7, "x": null},
            "errors": {"object": "list", "data": [{"code": "token_limit_exceeded", "message": "m", "line": 4.0}, 7]},
        }));
        let odd = odd.expect("a batch");
        assert_eq!(odd.input_file_id.as_deref(), Some("file-1"));
        assert_eq!((odd.output_file_id, odd.error_file_id), (None, None));
        assert_eq!(odd.created_at, Some(1_700_000_000));
        assert_eq!((odd.total, odd.completed), (Some(3), Some(2)));
        assert_eq!((odd.metadata.len(), odd.metadata["a"].as_str(), odd.metadata["n"].as_str()), (2, "b", "7"));
        assert_eq!((odd.errors.len(), odd.errors[0].line, odd.errors[1].code.as_str()), (2, Some(4), ""));
        for wrong in [json!("errors"), json!(null), json!([{"code": "c"}]), json!({"data": {}})] {
            let batch =
                json!({"id": "b", "status": "failed", "errors": wrong, "request_counts": wrong, "metadata": wrong});
            assert!(BatchObject::read(&batch).is_some_and(|batch| batch.errors.len() <= 1), "{wrong}");
        }
    }

    #[test]
    fn without_an_id_or_a_status_it_is_no_batch() {
        let long = "x".repeat(257);
        for id in [json!(null), json!(7), json!(""), json!(".."), json!("a\nb"), json!(long)] {
            assert!(BatchObject::read(&json!({"id": id, "status": "completed"})).is_none(), "{id}");
        }
        for other in [json!(null), json!([]), json!("x"), json!({"id": "b"}), json!({"id": "b", "status": 7})] {
            assert!(BatchObject::read(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn only_the_known_last_states_are_terminal() {
        let terminal = ["completed", "failed", "expired", "cancelled", "canceled", "COMPLETED"];
        for name in terminal {
            assert!(BatchStatus::read(name).is_terminal(), "{name}");
        }
        for name in ["validating", "in_progress", "finalizing", "cancelling", "paused", "", "complete"] {
            assert!(!BatchStatus::read(name).is_terminal(), "{name}");
        }
        assert_eq!(BatchStatus::read("paused"), BatchStatus::Unknown("paused".to_owned()));
        for words in ["a text of somebody", &"x".repeat(65)] {
            assert_eq!(BatchStatus::read(words), BatchStatus::Unknown(String::new()), "{words}");
        }
    }

    #[test]
    fn the_enqueued_limit_is_read_from_its_own_error() {
        let error = |code: &str, message: &str| BatchError { code: code.into(), message: message.into(), line: None };
        let words = "Enqueued token limit reached for text-embedding-3-small in organization org-x. Limit: 3,000,000 \
                     enqueued tokens. Please try again once some in_progress batches have been completed.";
        assert_eq!(enqueued_limit(&[error("other", words), error(NO_ROOM, words)]), Some(3_000_000));
        assert_eq!(enqueued_limit(&[error("other", words)]), None);
        for (message, limit) in [
            ("Limit: 90000 enqueued tokens.", Some(90_000)),
            ("Limit: 0 enqueued tokens.", None),
            ("Limit: unknown", None),
            ("Limit: 99999999999999999999999", None),
            ("Limit:", None),
            ("", None),
        ] {
            assert_eq!(enqueued_limit(&[error(NO_ROOM, message)]), limit, "{message}");
        }
        assert!(!format!("{:?}", error("c", "a text")).contains("text"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,9}".prop_map(Value::from),
        ];
        let name = "id|status|errors|data|code|line|request_counts|total|metadata|output_file_id|created_at";
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(name, inner, 0..9).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_panics_and_every_id_is_usable(value in any_json()) {
            if let Some(batch) = BatchObject::read(&value) {
                let files = [batch.output_file_id, batch.error_file_id, batch.input_file_id].into_iter().flatten();
                for id in files.chain([batch.id]) {
                    prop_assert!(is_id(&id));
                }
            }
        }
    }
}
