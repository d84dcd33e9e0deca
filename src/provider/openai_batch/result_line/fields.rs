//! Picks fields of a JSON object without reading the others: [`Fields`].

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of these names, in their order.
#[derive(Debug)]
pub(super) struct Fields<'j, const N: usize>(pub(super) [Picked<'j>; N]);

/// A field of an object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Picked<'j> {
    /// The object has no such field, or it is null.
    #[default]
    Nothing,
    Value(&'j RawValue),
    /// The object has the field more than once, with different values.
    Several,
}

impl<'j, const N: usize> Fields<'j, N> {
    /// Picks fields of a JSON that is an object and nothing more.
    pub(super) fn of_object(json: &'j [u8], names: [&'static str; N]) -> serde_json::Result<Self> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let fields = json.deserialize_map(FieldsVisitor(names))?;
        json.end().map(|()| fields)
    }
}

struct FieldsVisitor<const N: usize>([&'static str; N]);

impl<'j, const N: usize> Visitor<'j> for FieldsVisitor<N> {
    type Value = Fields<'j, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Fields<'j, N>, A::Error> {
        let mut fields = [Picked::Nothing; N];
        while let Some(name) = map.next_key::<Cow<'j, str>>()? {
            let Some(at) = self.0.iter().position(|wanted| *wanted == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &'j RawValue = map.next_value()?;
            fields[at] = match fields[at] {
                earlier if value.get() == "null" => earlier,
                Picked::Nothing => Picked::Value(value),
                Picked::Value(earlier) if earlier.get() == value.get() => Picked::Value(earlier),
                Picked::Value(_) | Picked::Several => Picked::Several,
            };
        }
        Ok(Fields(fields))
    }
}

/// Returns the characters of a JSON string; `None` for any other value.
pub(super) fn string(value: &RawValue) -> Option<String> {
    string_of(value.get())
}

/// Returns the characters of a JSON that is a string; `None` for any other JSON.
pub(super) fn string_of(json: &str) -> Option<String> {
    // Only a string begins with a quote, so nothing else is looked through.
    json.starts_with('"').then(|| serde_json::from_str(json).ok()).flatten()
}

/// Returns a whole number, which may be written as 200, "200" or 200.0; `None` for any other value.
pub(super) fn whole_number(value: &RawValue) -> Option<u16> {
    let number = string(value);
    let number = number.as_deref().unwrap_or(value.get()).trim().parse::<f64>().ok()?;
    (number.fract() == 0.0 && (0.0..=65_535.0).contains(&number)).then_some(number as u16)
}
