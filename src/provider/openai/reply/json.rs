//! Walks the JSON of a reply, and hands what it finds to the rows; what is not expected is a fault, not an end.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::Partly;

/// Implements `Visitor`'s description and takes whatever is not expected as a fault instead of an end.
macro_rules! expecting {
    ($what:literal) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($what)
        }
    };
}

/// The reply's object.
pub(super) struct ReplySeed<'r, 'b>(pub(super) &'r mut Partly<'b>);

impl<'de> DeserializeSeed<'de> for ReplySeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReplySeed<'_, '_> {
    type Value = ();

    expecting!("an object");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(NameSeed)? {
            match name {
                Name::Data => map.next_value_seed(DataSeed(self.0))?,
                Name::Usage => {
                    let usage: Few = map.next_value()?;
                    self.0.tokens = usage.number("prompt_tokens").or_else(|| usage.number("total_tokens"));
                }
                Name::Model => self.0.model = map.next_value::<Scalar>()?.text(),
                Name::Error => {
                    let error: Few = map.next_value()?;
                    self.0.error = error
                        .is_something
                        .then(|| error.text("code").or_else(|| error.text("type")).unwrap_or_default());
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// The names that matter, in the reply and in a row.
enum Name {
    Data,
    Embedding,
    Error,
    Index,
    Model,
    Other,
    Usage,
}

struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Name;

    expecting!("a name");

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "data" => Name::Data,
            "embedding" => Name::Embedding,
            "error" => Name::Error,
            "index" => Name::Index,
            "model" => Name::Model,
            "usage" => Name::Usage,
            _ => Name::Other,
        })
    }
}

/// The array of rows.
struct DataSeed<'r, 'b>(&'r mut Partly<'b>);

impl<'de> DeserializeSeed<'de> for DataSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_, '_> {
    type Value = ();

    expecting!("an array of rows");

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(RowSeed(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// One row: `{"object": "embedding", "index": 0, "embedding": ...}`, in any order.
struct RowSeed<'r, 'b>(&'r mut Partly<'b>);

impl<'de> DeserializeSeed<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, '_> {
    type Value = ();

    expecting!("an object with `index` and `embedding`");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut index, mut has_vector) = (None, false);
        while let Some(name) = map.next_key_seed(NameSeed)? {
            match name {
                Name::Embedding => {
                    has_vector = true;
                    map.next_value_seed(VectorSeed(&mut *self.0))?;
                }
                Name::Index => {
                    index = map.next_value::<Scalar>()?.number().and_then(|index| u32::try_from(index).ok());
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if !has_vector {
            self.0.fault(|row| format!("row {row} has no `embedding`"));
        }
        let Some(index) = index else {
            self.0.fault(|row| format!("row {row} has no usable `index`"));
            self.0.indices.push(u32::MAX);
            return Ok(());
        };
        self.0.indices.push(index);
        Ok(())
    }
}

/// One vector, as base64 or as numbers.
struct VectorSeed<'r, 'b>(&'r mut Partly<'b>);

impl<'de> DeserializeSeed<'de> for VectorSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for VectorSeed<'_, '_> {
    type Value = ();

    expecting!("base64 or an array of numbers");

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match self.0.set_aside(text) {
            Some(vector) => {
                self.0.take_base64(vector);
                // All of it was base64, so there was no quote in it.
                self.0.proven += usize::from(self.0.fault.is_none());
            }
            None => self.0.take_base64(text.as_bytes()),
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.fault(|row| format!("vector {row} is null"));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<(), A::Error> {
        let (mut have, mut odd) = (0, false);
        let width = self.0.width;
        if let Some(slot) = self.0.slot() {
            while have < width {
                match numbers.next_element_seed(NumberSeed)? {
                    None => break,
                    Some(Some(number)) => slot[have] = number,
                    Some(None) => odd = true,
                }
                have += 1;
            }
        }
        while numbers.next_element::<IgnoredAny>()?.is_some() {
            have += 1;
        }
        if odd {
            self.0.fault(|row| format!("vector {row} has a component that is not a number"));
        }
        if have != width {
            self.0.wrong_width(have);
        }
        if self.0.fault.is_none() {
            self.0.check_vector();
        }
        Ok(())
    }
}

/// A number, or `None` for what is none.
struct NumberSeed;

impl<'de> DeserializeSeed<'de> for NumberSeed {
    type Value = Option<f32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NumberSeed {
    type Value = Option<f32>;

    expecting!("a number");

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(number as f32))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number as f32))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number as f32))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// Numbers come as maps where another crate has the parser keep all their digits.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut number = None;
        while let Some(name) = map.next_key::<Scalar>()? {
            let value: Scalar = map.next_value()?;
            if name.text().is_some_and(|name| name == "$serde_json::private::Number") {
                number = value.text().and_then(|digits| digits.parse().ok());
            }
        }
        Ok(number)
    }
}

/// A value of which only a number or a short string is of interest. Nothing else is kept, however large.
#[derive(Default)]
enum Scalar {
    Number(u64),
    Text(String),
    #[default]
    Other,
}

impl Scalar {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) | Self::Other => None,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    expecting!("anything");

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        // One that stands for a vector is no text.
        let short = text.len() <= 128 && !text.starts_with('\0');
        Ok(if short { Scalar::Text(text.to_owned()) } else { Scalar::Other })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        let mut number = Scalar::Other;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let value: Scalar = map.next_value()?;
            if let (true, Some(digits)) = (name == "$serde_json::private::Number", value.text()) {
                number = digits.parse().map_or(Scalar::Other, Scalar::Number);
            }
        }
        Ok(number)
    }
}

/// A few fields of an object: those that are looked for in `usage` and `error`.
#[derive(Default)]
struct Few {
    fields: Vec<(&'static str, Scalar)>,
    /// Whether it was anything but null.
    is_something: bool,
}

impl Few {
    const NAMES: [&str; 4] = ["code", "prompt_tokens", "total_tokens", "type"];

    fn number(&self, name: &str) -> Option<u64> {
        self.fields.iter().find(|field| field.0 == name)?.1.number()
    }

    fn text(&self, name: &str) -> Option<String> {
        match &self.fields.iter().find(|field| field.0 == name)?.1 {
            Scalar::Text(text) => Some(text.clone()),
            Scalar::Number(_) | Scalar::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Few {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FewVisitor)
    }
}

struct FewVisitor;

impl<'de> Visitor<'de> for FewVisitor {
    type Value = Few;

    expecting!("an object");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Few, A::Error> {
        let mut few = Few { is_something: true, ..Few::default() };
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            match Few::NAMES.iter().find(|wanted| **wanted == name) {
                Some(name) if few.fields.len() < Few::NAMES.len() => few.fields.push((name, map.next_value()?)),
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(few)
    }

    fn visit_unit<E>(self) -> Result<Few, E> {
        Ok(Few::default())
    }

    fn visit_bool<E>(self, something: bool) -> Result<Few, E> {
        Ok(Few { is_something: something, ..Few::default() })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Few, E> {
        Ok(Few { is_something: true, ..Few::default() })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Few, E> {
        Ok(Few { is_something: true, ..Few::default() })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Few, E> {
        Ok(Few { is_something: true, ..Few::default() })
    }

    fn visit_str<E>(self, _: &str) -> Result<Few, E> {
        Ok(Few { is_something: true, ..Few::default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Few, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Few { is_something: true, ..Few::default() })
    }
}
