//! Puts numbers and texts from outside into words for people.

use std::fmt::{self, Display};

use docvector_embed::cache::CacheSpec;

/// A number with its noun, in the singular or plural.
pub(crate) struct Counted(pub(crate) u64, pub(crate) &'static str);

impl Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A number of bytes with a readable unit.
pub(crate) struct Bytes(pub(crate) u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
        let (mut number, mut unit) = (self.0 as f64, None);
        // From 1023.95 on, the number would be printed as 1024.0: use the next unit.
        while number >= 1023.95 {
            let Some(larger) = units.next() else { break };
            (number, unit) = (number / 1024.0, Some(larger));
        }
        match unit {
            Some(unit) => write!(f, "{number:.1} {unit}"),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// Replaces control characters, so that a text from outside stays on its line and cannot control a terminal.
pub(crate) fn without_controls(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// Describes a space beside its id, without the id that stands in the description.
pub(crate) fn without_id(about: &str, id: &str) -> String {
    without_controls(&about.replacen(&format!(", {id})"), ")", 1))
}

/// Names a store as a user wrote it, without a password.
pub(crate) fn place_of(store: &CacheSpec) -> String {
    match store {
        CacheSpec::Sqlite(path) => path.display().to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (61 << 20, "61.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
    }

    #[test]
    fn a_space_is_described_without_its_id() {
        assert_eq!(without_id("model (384d, 1a)", "1a"), "model (384d)");
        assert_eq!(without_id("model (384d, 2b)", "1a"), "model (384d, 2b)");
        assert_eq!(without_id("", "1a"), "");
    }

    #[test]
    fn texts_from_outside_stay_on_their_line() {
        assert_eq!(without_controls("a\nb\u{1b}[2Jc é"), "a\u{fffd}b\u{fffd}[2Jc é");
    }
}
