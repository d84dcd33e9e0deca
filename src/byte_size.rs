//! Reads and shows sizes in bytes: `256MB`.

/// The units, largest first. They are powers of 1,024, as memory is sold.
const UNITS: [(&str, u64); 4] = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];

/// Reads a whole number of bytes, with a unit or without: `1048576`, `256MB`, `2 GiB`, `4g`.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_ascii_uppercase();
    let unit = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    let factor = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| name.strip_suffix('B') == Some(unit))?.1,
    };
    number.checked_mul(factor)
}

/// Shows bytes in the largest unit in which they are a whole number.
pub(crate) fn shown(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, again) in [
            ("0", 0, "0"),
            ("1000", 1000, "1000"),
            ("1024", 1024, "1KB"),
            ("256MB", 256 << 20, "256MB"),
            (" 2 GiB ", 2 << 30, "2GB"),
            ("4g", 4 << 30, "4GB"),
            ("1b", 1, "1"),
            ("3tb", 3 << 40, "3TB"),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
            assert_eq!(shown(bytes), again);
            assert_eq!(parse(again), Some(bytes));
        }
        for wrong in ["", "MB", "-1", "1.5GB", "1XB", "1 MB x", "99999999999999999999", "99999999TB"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
