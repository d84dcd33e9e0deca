//! Stores a [`Space`] as its fields and its id, with the feature `serde`.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Fields, Normalization, Pooling, Precision, Prompts, PromptsBy, Space, SpaceBuilder, SpaceId};

/// The stored form. A field that is absent has the default of [`SpaceBuilder`].
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The id is checked against the fields. A program that does not know a field of a later version would otherwise
    /// take one space for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<SpaceId>,
    model: String,
    dimensions: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pooling: Vec<Pooling>,
    #[serde(default)]
    normalization: Normalization,
    #[serde(default, skip_serializing_if = "is_default")]
    prompts: StoredPrompts,
    #[serde(default)]
    precision: Precision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
struct StoredPrompts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(default)]
    applied_by: PromptsBy,
}

fn is_default(prompts: &StoredPrompts) -> bool {
    *prompts == StoredPrompts::default()
}

#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl Serialize for Space {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Fields { model, dimensions, revision, pooling, normalization, prompts, precision, label } =
            (*self.0).clone();
        let Prompts { document, query, applied_by } = prompts;
        let owned = |prompt: Option<Arc<str>>| prompt.as_deref().map(str::to_owned);
        let prompts = StoredPrompts { document: owned(document), query: owned(query), applied_by };
        let id = Some(self.id());
        Stored { id, model, dimensions, revision, pooling, normalization, prompts, precision, label }
            .serialize(serializer)
    }
}

#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl<'de> Deserialize<'de> for Space {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { id, model, dimensions, revision, pooling, normalization, prompts, precision, label } =
            Stored::deserialize(deserializer)?;
        let StoredPrompts { document, query, applied_by } = prompts;
        let shared = |prompt: Option<String>| prompt.map(Arc::from);
        let prompts = Prompts { document: shared(document), query: shared(query), applied_by };
        let fields = Fields { model, dimensions, revision, pooling, normalization, prompts, precision, label };
        let space = SpaceBuilder(fields).build().map_err(D::Error::custom)?;
        match id {
            Some(id) if id != space.id() => Err(D::Error::custom(format!(
                "the stored space has the id {id}, but its fields make {}: a later version wrote it, or it was edited",
                space.id()
            ))),
            _ => Ok(space),
        }
    }
}
