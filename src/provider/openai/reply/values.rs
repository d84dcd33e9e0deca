//! Reads single JSON values of a reply, of any kind, and keeps only numbers and short strings.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Implements `Visitor::expecting`, which describes what a visitor expects.
macro_rules! expecting {
    ($what:literal) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($what)
        }
    };
}
pub(super) use expecting;

/// Reads a number; NaN for null, and `None` for any other value.
pub(super) struct NumberSeed;

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

    /// JSON has no NaN, so servers write null.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(f32::NAN))
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

    /// Numbers come as maps if another crate turns on serde_json's `arbitrary_precision`.
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

/// A value. Only a number or a short string is kept of it, however large it is.
#[derive(Default)]
pub(in crate::provider) enum Scalar {
    Number(u64),
    Text(String),
    #[default]
    Other,
}

impl Scalar {
    pub(in crate::provider) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) | Self::Other => None,
        }
    }

    pub(in crate::provider) fn text(self) -> Option<String> {
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
        // A string that stands for a vector is not kept: see `WithoutVectors`.
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

/// The fields of an object that are looked for in `usage` and `error`.
#[derive(Default)]
pub(super) struct KnownFields {
    fields: Vec<(&'static str, Scalar)>,
    /// Whether the value was anything but null or false.
    pub(super) is_present: bool,
}

impl KnownFields {
    const NAMES: [&str; 4] = ["code", "prompt_tokens", "total_tokens", "type"];

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.fields.iter().find(|field| field.0 == name)?.1.number()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match &self.fields.iter().find(|field| field.0 == name)?.1 {
            Scalar::Text(text) => Some(text.clone()),
            Scalar::Number(_) | Scalar::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for KnownFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KnownFieldsVisitor)
    }
}

struct KnownFieldsVisitor;

impl<'de> Visitor<'de> for KnownFieldsVisitor {
    type Value = KnownFields;

    expecting!("an object");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KnownFields, A::Error> {
        let mut known = KnownFields { is_present: true, ..KnownFields::default() };
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            match KnownFields::NAMES.iter().find(|wanted| **wanted == name) {
                Some(name) if known.fields.len() < KnownFields::NAMES.len() => {
                    known.fields.push((name, map.next_value()?))
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(known)
    }

    fn visit_unit<E>(self) -> Result<KnownFields, E> {
        Ok(KnownFields::default())
    }

    fn visit_bool<E>(self, something: bool) -> Result<KnownFields, E> {
        Ok(KnownFields { is_present: something, ..KnownFields::default() })
    }

    fn visit_u64<E>(self, _: u64) -> Result<KnownFields, E> {
        Ok(KnownFields { is_present: true, ..KnownFields::default() })
    }

    fn visit_i64<E>(self, _: i64) -> Result<KnownFields, E> {
        Ok(KnownFields { is_present: true, ..KnownFields::default() })
    }

    fn visit_f64<E>(self, _: f64) -> Result<KnownFields, E> {
        Ok(KnownFields { is_present: true, ..KnownFields::default() })
    }

    fn visit_str<E>(self, _: &str) -> Result<KnownFields, E> {
        Ok(KnownFields { is_present: true, ..KnownFields::default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<KnownFields, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(KnownFields { is_present: true, ..KnownFields::default() })
    }
}
