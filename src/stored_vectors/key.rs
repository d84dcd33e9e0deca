//! Computes the key of a cached vector from its space, kind, truncation and text: [`Keys`].

use crate::{InputKind, SpaceId, Truncation, cache::Key};

/// Fixes what a key means. A change to how fields are hashed needs a new context, and every cache begins empty again.
const CONTEXT: &str = "docvector-embed 2026-11-22 cache key v1";

/// Computes keys for one space, kind and truncation, which are hashed once for all texts.
pub(crate) struct Keys(blake3::Hasher);

/// The kind of the probe text, which identifies a model. Documents are 0 and queries 1.
const PROBE: u8 = 2;

impl Keys {
    /// Begins the keys. `limit` is the embedder's limit of tokens per text: it says where a text is truncated.
    pub(crate) fn new(space: SpaceId, kind: InputKind, truncation: Truncation, limit: Option<usize>) -> Self {
        let kind = match kind {
            InputKind::Document => 0,
            InputKind::Query => 1,
        };
        let cut_at = match truncation {
            Truncation::Error => 0,
            Truncation::Truncate => limit.map_or(u64::MAX, |limit| limit as u64),
        };
        Self::of(space, kind, cut_at)
    }

    /// Begins the key of the probe text.
    pub(crate) fn of_probe(space: SpaceId) -> Self {
        Self::of(space, PROBE, 0)
    }

    // All fields before the text have a fixed length, and the text comes last: no two fields can run together.
    fn of(space: SpaceId, kind: u8, cut_at: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(space.as_bytes()).update(&[kind]).update(&cut_at.to_le_bytes());
        Self(hasher)
    }

    /// Computes the key of a text.
    pub(crate) fn key(&self, text: &str) -> Key {
        let mut hasher = self.0.clone();
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        Key::from_bytes(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// If anything differs, the keys differ.
        #[test]
        fn keys_differ_where_anything_does(a in ".{0,12}", b in ".{0,12}", space in any::<[u8; 16]>()) {
            let space = SpaceId::from_bytes(space);
            let mut keys = Vec::new();
            for kind in [InputKind::Document, InputKind::Query] {
                for (truncation, limit) in
                    [(Truncation::Error, None), (Truncation::Truncate, None), (Truncation::Truncate, Some(512))]
                {
                    keys.extend([&a, &b].map(|text| Keys::new(space, kind, truncation, limit).key(text)));
                }
            }
            keys.extend([&a, &b].map(|text| Keys::of_probe(space).key(text)));
            let elsewhere = SpaceId::from_bytes([0xee; 16]);
            keys.push(Keys::new(elsewhere, InputKind::Document, Truncation::Error, None).key(&a));
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), if a == b { 1 + all.div_ceil(2) - 1 } else { all });
        }
    }

    /// A change here loses every cache that exists.
    #[test]
    fn keys_stay_what_they_are() {
        let space = SpaceId::from_bytes(*b"0123456789abcdef");
        let key = Keys::new(space, InputKind::Query, Truncation::Error, Some(512)).key("text");
        assert_eq!(key.to_string(), "fb75a302db2a9e6b52addd1c118ff0c4ae41f775871fad0332f7b41492dcb187");
    }
}
