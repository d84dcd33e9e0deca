//! Reads the texts of a request straight into one buffer: [`Input`].

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

use crate::packed::PackedTexts;

/// Why token ids are refused.
pub(in crate::server) const NO_IDS: &str = "has token ids, and ids of another vocabulary than the model's would silently \
    give vectors of other texts: send texts (in LangChain, `check_embedding_ctx_length=False`), or let the operator name \
    the vocabulary of the ids by `--token-ids`";

/// The texts or token ids of a request.
#[derive(Debug, Default)]
pub(in crate::server) struct Input {
    pub(in crate::server) texts: PackedTexts,
    /// Token ids in place of texts; each list stands for one text.
    pub(in crate::server) ids: Vec<Vec<u32>>,
}

impl Input {
    /// Returns the bytes of the texts, and four for each id.
    pub(in crate::server) fn bytes(&self) -> usize {
        self.texts.bytes() + self.ids.iter().map(|ids| ids.len() * size_of::<u32>()).sum::<usize>()
    }

    /// Returns the number of texts.
    pub(in crate::server) fn len(&self) -> usize {
        self.texts.len() + self.ids.len()
    }
}

/// Reads an input of at most so many texts.
pub(super) struct InputSeed<'f> {
    pub(super) max_texts: usize,
    /// Whether token ids are read. If not, the first one is an error.
    pub(super) takes_ids: bool,
    /// Says why an input is refused, if it is not for its type.
    pub(super) fault: &'f mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for InputSeed<'_> {
    type Value = Option<Input>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InputSeed<'_> {
    type Value = Option<Input>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let mut input = Input::default();
        input.texts.push_with(|buffer| buffer.push_str(text));
        Ok(Some(input))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut input = Input::default();
        // Ids without a list around them are one text.
        let mut loose = Vec::new();
        while let Some(item) = list.next_element_seed(ItemSeed(&mut input, self.takes_ids))? {
            loose.extend(item);
            if !self.takes_ids && (!loose.is_empty() || !input.ids.is_empty()) {
                *self.fault = Some(NO_IDS.to_owned());
                return Err(A::Error::custom("token ids"));
            }
            let mixed = !input.texts.is_empty() as u8 + !input.ids.is_empty() as u8 + !loose.is_empty() as u8;
            if mixed > 1 {
                return Err(A::Error::custom("texts and token ids in one list"));
            }
            if input.len() > self.max_texts {
                let most = self.max_texts;
                *self.fault = Some(format!("has more than {most} texts, which is the most of one request: send less"));
                return Err(A::Error::custom("too many texts"));
            }
        }
        if !loose.is_empty() {
            input.ids = vec![loose];
        }
        Ok(Some(input))
    }
}

/// Reads one item of a list: a text and a list of ids go into the input, a single id is returned.
struct ItemSeed<'i>(&'i mut Input, bool);

impl<'de> DeserializeSeed<'de> for ItemSeed<'_> {
    type Value = Option<u32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemSeed<'_> {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.0.texts.push_with(|buffer| buffer.push_str(text));
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Self::Value, E> {
        u32::try_from(id).map(Some).map_err(|_| E::custom("a token id above the largest"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element()? {
            ids.push(id);
            if !self.1 {
                break;
            }
        }
        if !self.1 {
            // What follows is not read: the list is refused anyway.
            while list.next_element::<IgnoredAny>()?.is_some() {}
        }
        self.0.ids.push(ids);
        Ok(None)
    }
}
