//! Walks the JSON of a reply into a [`PartialReply`]; an unexpected value is a fault and does not end the walk.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    partial_reply::PartialReply,
    values::{KnownFields, NumberSeed, Scalar, expecting},
};

/// The reply's object.
pub(in crate::provider) struct ReplySeed<'r, 'b>(pub(in crate::provider) &'r mut PartialReply<'b>);

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
        while let Some(name) = map.next_key_seed(FieldNameSeed)? {
            match name {
                FieldName::Data => map.next_value_seed(DataSeed(self.0))?,
                FieldName::Usage => {
                    let usage: KnownFields = map.next_value()?;
                    self.0.tokens = usage.number("prompt_tokens").or_else(|| usage.number("total_tokens"));
                }
                FieldName::Model => self.0.model = map.next_value::<Scalar>()?.text(),
                FieldName::Error => {
                    let error: KnownFields = map.next_value()?;
                    self.0.error =
                        error.is_present.then(|| error.text("code").or_else(|| error.text("type")).unwrap_or_default());
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// The field names that matter, in the reply and in a row.
enum FieldName {
    Data,
    Embedding,
    Error,
    Index,
    Model,
    Other,
    Usage,
}

struct FieldNameSeed;

impl<'de> DeserializeSeed<'de> for FieldNameSeed {
    type Value = FieldName;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldName, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldNameSeed {
    type Value = FieldName;

    expecting!("a name");

    fn visit_str<E>(self, name: &str) -> Result<FieldName, E> {
        Ok(match name {
            "data" => FieldName::Data,
            "embedding" => FieldName::Embedding,
            "error" => FieldName::Error,
            "index" => FieldName::Index,
            "model" => FieldName::Model,
            "usage" => FieldName::Usage,
            _ => FieldName::Other,
        })
    }
}

/// The array of rows.
struct DataSeed<'r, 'b>(&'r mut PartialReply<'b>);

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
struct RowSeed<'r, 'b>(&'r mut PartialReply<'b>);

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
        let (mut index, mut has_index, mut has_vector) = (None, false, false);
        while let Some(name) = map.next_key_seed(FieldNameSeed)? {
            match name {
                FieldName::Embedding => {
                    has_vector = true;
                    map.next_value_seed(VectorSeed(&mut *self.0))?;
                }
                FieldName::Index => {
                    has_index = true;
                    index = map.next_value::<Scalar>()?.number().and_then(|index| u32::try_from(index).ok());
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if !has_vector {
            self.0.fault_of_text(|row| format!("row {row} has no `embedding`"));
        }
        // Protobuf leaves out a field that is 0, and so does Google's server in the first row. The check that the indices
        // are those of all texts comes later.
        if !has_index && self.0.indices.is_empty() {
            index = Some(0);
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
struct VectorSeed<'r, 'b>(&'r mut PartialReply<'b>);

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
        match self.0.taken_string(text) {
            Some(vector) => {
                self.0.push_base64(vector);
                // All of it was base64, so no quote was in it, and the string was a whole one.
                self.0.taken_decoded += usize::from(self.0.fault.is_none());
            }
            None => self.0.push_base64(text.as_bytes()),
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        // Servers write null where they have no usable number: a fault of this text's vector alone.
        self.0.push_unusable();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<(), A::Error> {
        let (mut have, mut odd) = (0, false);
        let width = self.0.width;
        if let Some(slot) = self.0.next_row() {
            while have < width {
                match numbers.next_element_seed(NumberSeed)? {
                    None => break,
                    Some(Some(number)) => slot[have] = number,
                    Some(None) => odd = true,
                }
                have += 1;
            }
        }
        loop {
            match numbers.next_element::<IgnoredAny>() {
                Ok(Some(_)) => have += 1,
                Ok(None) => break,
                Err(error) => {
                    // The rest is missing or broken, but it is already too much.
                    if have > width {
                        self.0.wrong_width(have, "at least ");
                    }
                    return Err(error);
                }
            }
        }
        if odd {
            self.0.fault_of_text(|row| format!("vector {row} has a component that is not a number"));
        }
        if have != width {
            self.0.wrong_width(have, "");
        }
        if self.0.fault.is_none() {
            self.0.accept_vector();
        }
        Ok(())
    }
}
