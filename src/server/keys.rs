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

/// Whether a page of another site sent a request, as browsers say. Without keys, any page that somebody looks at could use
/// a service on the same machine.
pub(super) fn comes_from_a_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") {
        return true;
    }
    let origin = text("origin").map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    origin.is_some_and(|origin| text("host") != Some(origin))
}

/// Returns the key of `Bearer KEY`. The scheme's name has any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

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

    #[test]
    fn pages_of_other_sites_are_told_apart() {
        for (pairs, is_other) in [
            (&[][..], false),
            (&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")], false),
            (&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:9090")], true),
            (&[("host", "h"), ("origin", "null")], true),
            (&[("origin", "https://evil.example")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
        ] {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value")))
                .collect();
            assert_eq!(comes_from_a_page(&headers), is_other, "{pairs:?}");
        }
    }
}
