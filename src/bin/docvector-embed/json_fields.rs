//! Finds the fields of a JSON object and leaves their values as they were written: [`Fields`].

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of an object, in their order. A value is only read to its end, so that numbers of any size and values of
/// any depth pass.
#[derive(Debug)]
pub(crate) struct Fields<'j>(Vec<Field<'j>>);

/// A field, as it was written.
#[derive(Debug)]
pub(crate) struct Field<'j> {
    pub(crate) name: Cow<'j, str>,
    pub(crate) written_name: &'j str,
    pub(crate) value: &'j RawValue,
}

impl<'j> Fields<'j> {
    /// Finds the fields of a JSON that is an object.
    pub(crate) fn of(json: &'j str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    /// Returns the value of a field, if the object has it. Of two with the same name, the last one counts.
    pub(crate) fn get(&self, name: &str) -> Option<&'j RawValue> {
        self.0.iter().rev().find(|field| field.name == name).map(|field| field.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Field<'j>> {
        self.0.iter()
    }
}

impl<'j> Deserialize<'j> for Fields<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'j> Visitor<'j> for FieldsVisitor {
    type Value = Fields<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Fields<'j>, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<&'j RawValue, &'j RawValue>()? {
            fields.push(Field { name: name_of(name.get()), written_name: name.get(), value });
        }
        Ok(Fields(fields))
    }
}

/// Returns the name that a string in JSON stands for.
fn name_of(written: &str) -> Cow<'_, str> {
    let inside = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(written);
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    // Half of a surrogate pair is valid JSON, and no name of ours.
    serde_json::from_str(written).map_or(Cow::Borrowed(inside), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_field_of_a_name_counts() {
        let fields = Fields::of(r#"{"a": 1, "b" : [2, 3] ,"a": "x"}"#).expect("an object");
        assert_eq!(fields.get("a").map(RawValue::get), Some("\"x\""));
        assert_eq!(fields.get("b").map(RawValue::get), Some("[2, 3]"));
        assert!(fields.get("c").is_none());
        let written: Vec<&str> = fields.iter().map(|field| field.written_name).collect();
        assert_eq!(written, ["\"a\"", "\"b\"", "\"a\""]);
    }

    #[test]
    fn names_are_compared_without_escapes() {
        let fields = Fields::of(r#"{"t\u0065xt": 1, "\ud800": 2, "": 3}"#).expect("an object");
        assert_eq!(fields.get("text").map(RawValue::get), Some("1"));
        assert_eq!(fields.get("").map(RawValue::get), Some("3"));
    }

    #[test]
    fn valid_json_passes_whatever_its_values_are() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for value in ["1e400", "-0.0e-9999", "\"\\ud800\"", &deep] {
            let object = format!("{{\"x\":{value},\"text\":\"a\"}}");
            let fields = Fields::of(&object).expect("an object");
            assert_eq!(fields.get("x").map(RawValue::get), Some(value));
            assert_eq!(fields.get("text").map(RawValue::get), Some("\"a\""));
        }
    }

    #[test]
    fn other_json_and_broken_json_are_errors() {
        for json in ["[1]", "\"a\"", "1", "{\"a\":1", "{\"a\":01}", "{\"a\":\"\n\"}", "{\"a\":1} x", "{\"a\" 1}", ""] {
            assert!(Fields::of(json).is_err(), "{json}");
        }
    }
}
