//! Walks the JSON of a line: hands the reply in it to the reader of replies, and notes what is around it: [`LineSeed`].

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::provider::openai::reply::{PartialReply, ReplySeed, Scalar};

/// The fields around the reply.
#[derive(Default)]
pub(super) struct Around {
    pub(super) custom_id: Option<String>,
    status: Option<u64>,
    /// How often each of the fields came that may come only once: `custom_id`, `response`, `status_code`, `body`.
    seen: [usize; 4],
}

impl Around {
    /// Whether the line answers with the status of success, and has each of its fields once.
    pub(super) fn is_success(&self) -> bool {
        self.seen == [1; 4] && self.status.is_some_and(|status| (200..=299).contains(&status))
    }
}

/// The line's object.
pub(super) struct LineSeed<'r, 'b>(pub(super) &'r mut PartialReply<'b>);

impl<'de> DeserializeSeed<'de> for LineSeed<'_, '_> {
    type Value = Around;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Around, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LineSeed<'_, '_> {
    type Value = Around;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the object of a line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Around, A::Error> {
        let mut around = Around::default();
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            match &*name {
                "custom_id" => {
                    around.seen[0] += 1;
                    around.custom_id = map.next_value::<Scalar>()?.text();
                }
                "response" => {
                    around.seen[1] += 1;
                    map.next_value_seed(ResponseSeed(&mut *self.0, &mut around))?;
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(around)
    }
}

/// The object of the response. Anything else is an error, which ends the walk.
struct ResponseSeed<'r, 'b>(&'r mut PartialReply<'b>, &'r mut Around);

impl<'de> DeserializeSeed<'de> for ResponseSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ResponseSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the object of a response")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(reply, around) = self;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            match &*name {
                "status_code" => {
                    around.seen[2] += 1;
                    around.status = map.next_value::<Scalar>()?.number();
                }
                "body" => {
                    around.seen[3] += 1;
                    map.next_value_seed(ReplySeed(&mut *reply))?;
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}
