//! Names a line of an input file by its number and the hash of its request: [`LineId`].

use std::fmt;

/// The `custom_id` of a line: `17-0123456789abcdef`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LineId {
    /// The number of the line in its file, from 0.
    pub(super) number: u32,
    /// The first eight bytes of the blake3 hash of the request's body, the first byte in the highest place.
    pub(super) hash: u64,
}

impl LineId {
    /// Names the line of this number, whose request has this body.
    pub(super) fn of(number: u32, body: &[u8]) -> Self {
        let hash = blake3::hash(body);
        let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        Self { number, hash: u64::from_be_bytes(first) }
    }

    /// Reads a name. Returns `None` if it is not exactly as [`Display`](fmt::Display) writes it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (number, hash) = name.split_once('-')?;
        let id = Self { number: number.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? };
        (id.to_string() == name).then_some(id)
    }
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_read_back(number: u32, hash: u64) {
            let id = LineId { number, hash };
            prop_assert_eq!(LineId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn no_other_text_is_a_name(text in "[0-9a-fA-F+ -]{0,24}") {
            if let Some(id) = LineId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn a_name_has_the_beginning_of_the_hash_as_blake3_shows_it() {
        let id = LineId::of(7, b"a body").to_string();
        assert_eq!(id, format!("7-{}", &blake3::hash(b"a body").to_hex()[..16]));
        for other in [
            "",
            "7",
            "7-",
            "-7",
            "07-0123456789abcdef",
            "7-123456789abcdef",
            "7-0123456789ABCDEF",
            "7-+123456789abcdef",
        ] {
            assert_eq!(LineId::parse(other), None, "{other}");
        }
    }
}
