//! Holds the fields that a caller adds to the bodies of requests: [`BodyFields`].

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Error, ErrorKind, InputKind, Result};

/// The fields that this crate writes itself, and what sets each of them.
const RESERVED: [(&str, &str); 4] = [
    ("dimensions", "call `with_dimensions`"),
    ("encoding_format", "call `with_encoding`"),
    ("input", "it holds the texts of the batch"),
    ("model", "give the name to `OpenAi::builder`"),
];

/// OpenAI's field for the name of an end user. It is documented to change no vector.
const USER: &str = "user";

/// Fields for requests of documents and of queries.
#[derive(Clone, Default)]
pub(super) struct BodyFields {
    document: Map<String, Value>,
    query: Map<String, Value>,
    /// What is wrong with the first field that cannot be sent.
    fault: Option<String>,
}

impl BodyFields {
    /// Sets a field for requests of these kinds of texts. The last value of a name counts.
    pub(super) fn set(&mut self, kinds: &[InputKind], name: String, value: &impl Serialize) {
        match checked_value(&name, value) {
            Ok(value) => kinds.iter().for_each(|kind| _ = self.of_mut(*kind).insert(name.clone(), value.clone())),
            Err(fault) => _ = self.fault.get_or_insert(fault),
        }
    }

    /// Returns the fields of a request of this kind of texts.
    pub(super) const fn of(&self, kind: InputKind) -> &Map<String, Value> {
        match kind {
            InputKind::Document => &self.document,
            InputKind::Query => &self.query,
        }
    }

    const fn of_mut(&mut self, kind: InputKind) -> &mut Map<String, Value> {
        match kind {
            InputKind::Document => &mut self.document,
            InputKind::Query => &mut self.query,
        }
    }

    /// Refuses a field that cannot be sent.
    pub(super) fn check(&self) -> Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| Err(Error::new(ErrorKind::Config, fault)))
    }

    /// Returns what the fields add to the identity of a space; `None` if they change no vector. The order in which they
    /// were set takes no part in it.
    pub(super) fn revision(&self) -> Option<String> {
        let shaping = |fields: &Map<String, Value>| {
            let fields = fields.iter().filter(|(name, _)| *name != USER);
            Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
        };
        let mut all = Value::Array(vec![shaping(&self.document), shaping(&self.query)]);
        all.sort_all_objects();
        let is_empty = |fields: &Value| fields.as_object().is_none_or(Map::is_empty);
        let none = all.as_array().is_none_or(|all| all.iter().all(is_empty));
        (!none).then(|| format!("body-fields:{}", &blake3::hash(all.to_string().as_bytes()).to_hex()[..32]))
    }
}

/// Returns the value of a field, or what is wrong with it.
fn checked_value(name: &str, value: &impl Serialize) -> std::result::Result<Value, String> {
    if name.is_empty() {
        return Err("a body field has an empty name: give the name that the server knows".into());
    }
    if let Some((name, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return Err(format!("the body field {name:?} cannot be added, because every request has its own: {instead}"));
    }
    match serde_json::to_value(value) {
        // Servers refuse `null`, and serde_json makes one of a number that is not finite.
        Ok(Value::Null) => Err(format!("the body field {name:?} has no value or no finite number: leave it out")),
        Ok(value) => Ok(value),
        // The words of a `Serialize` may quote the value.
        Err(_) => Err(format!("the value of the body field {name:?} cannot be written as JSON")),
    }
}
