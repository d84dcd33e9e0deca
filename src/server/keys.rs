//! Compares bearer keys in constant time: [`Keys`].

use axum::http::{HeaderMap, header::AUTHORIZATION};

/// The hashes of the keys that are accepted. Without any, no key is needed.
///
/// Keys are compared by their hashes, whose comparison takes the same time wherever they differ. So the time of a refusal
/// tells nothing about a key.
#[derive(Clone, Default)]
pub(super) struct Keys(Vec<blake3::Hash>);

impl Keys {
    pub(super) fn add(&mut self, key: &str) {
        self.0.push(blake3::hash(key.as_bytes()));
    }

    /// Whether one of the keys is the empty one.
    pub(super) fn has_empty(&self) -> bool {
        self.0.contains(&blake3::hash(b""))
    }

    /// Whether requests need a key.
    pub(super) fn are_needed(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether a request may be served.
    pub(super) fn accept(&self, headers: &HeaderMap) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(given) = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) else { return false };
        let given = blake3::hash(given);
        // All keys are compared, so that the time does not tell which one it was.
        self.0.iter().fold(false, |accepted, key| accepted | (*key == given))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Returns the key of `Bearer KEY`. The scheme's name has any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_key_is_accepted() {
        let with = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            value.into_iter().for_each(|value| _ = headers.insert(AUTHORIZATION, value.parse().expect("a value")));
            headers
        };
        let mut keys = Keys::default();
        assert!(keys.accept(&with(None)) && keys.accept(&with(Some("Bearer x"))));
        keys.add("one");
        keys.add("two");
        for (value, accepted) in [
            (Some("Bearer one"), true),
            (Some("bearer two"), true),
            (Some("BEARER  one "), true),
            (Some("Bearer three"), false),
            (Some("Bearer on"), false),
            (Some("Bearer one two"), false),
            (Some("Bearer "), false),
            (Some("Basic one"), false),
            (Some("one"), false),
            (None, false),
        ] {
            assert_eq!(keys.accept(&with(value)), accepted, "{value:?}");
        }
        assert_eq!(format!("{keys:?}"), "2 keys");
    }
}
