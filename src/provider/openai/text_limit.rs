//! Reads from a refusal how many texts a request may hold: [`told`].

/// Words of a message that counts texts.
const OF_TEXTS: [&str; 9] = ["array", "batch", "elements", "inputs", "instances", "items", "list", "requests", "texts"];

/// Words of a message that counts something else.
const OF_OTHERS: [&str; 9] =
    ["bytes", "character", "context", "dimension", "minute", "per second", "quota", "size of each", "token"];

/// Words before the limit itself.
const BEFORE_LIMIT: [&str; 9] =
    ["at most", "max", "limit", "larger than", "greater than", "more than", "less than or equal to", "exceed", "up to"];

/// Words after a number that counts something else than texts.
const UNITS: [&str; 21] = [
    "b",
    "byte",
    "bytes",
    "k",
    "kb",
    "kib",
    "mb",
    "mib",
    "gb",
    "gib",
    "token",
    "tokens",
    "word",
    "words",
    "char",
    "chars",
    "character",
    "characters",
    "s",
    "second",
    "seconds",
];

/// Characters between such words and the limit.
const NEAR: usize = 32;

/// Returns the most texts per request, if the message of a refusal says it, and if it is less than were sent.
///
/// Servers say it each in their own words: `batch size 33 > maximum allowed batch size 32`, `total number of texts must
/// be at most 96 - received 104`, `it should not be larger than 10`.
pub(super) fn told(message: &str, sent: usize) -> Option<usize> {
    let message = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if !has(&OF_TEXTS) || has(&OF_OTHERS) {
        return None;
    }
    let mut after = BEFORE_LIMIT.iter().flat_map(|words| message.match_indices(words).map(|(at, _)| at + words.len()));
    after.find_map(|at| first_number(&message[at..]).filter(|limit| (1..sent).contains(limit)))
}

/// Returns the first number, if it is near the beginning, is whole and has no unit.
fn first_number(words: &str) -> Option<usize> {
    let start = words.find(|c: char| c.is_ascii_digit()).filter(|&start| start <= NEAR)?;
    let words = &words[start..];
    let (digits, rest) = words.split_at(words.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(words.len()));
    let is_fraction = rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let unit = rest.trim_start_matches([' ', '-', '_']);
    let unit = &unit[..unit.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(unit.len())];
    if is_fraction || UNITS.contains(&unit) {
        return None;
    }
    digits.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_in_the_words_of_many_servers() {
        for (message, sent, limit) in [
            ("batch size 33 > maximum allowed batch size 32", 33, 32),
            ("input batch size 473 > maximum allowed batch size 64", 473, 64),
            ("total number of texts must be at most 96 - received 104", 104, 96),
            ("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch", 101, 100),
            ("Value error, batch size is invalid, it should not be larger than 10.: input.contents", 64, 10),
            ("List should have at most 2048 items after validation, not 3000", 3000, 2048),
            ("Expected an array with maximum length 2,048, but got an array with length 2,049", 2049, 2048),
            ("The batch size limit is 1000. Your batch size is 1500.", 1500, 1000),
            ("Batch size 104 exceeds 96", 104, 96),
            ("Batch exceeds 4 MB or at most 32 texts", 64, 32),
        ] {
            assert_eq!(told(message, sent), Some(limit), "{message}");
        }
    }

    #[test]
    fn other_numbers_are_no_limit_of_texts() {
        for (message, sent) in [
            ("Too many tokens in batch. Max is 16384 got 17555", 20_000),
            ("The max allowed tokens per submitted batch is 12. Your batch has 13 tokens", 64),
            ("This model's maximum context length is 8192 tokens", 10_000),
            ("`inputs` must have less than 512 tokens. Given: 600", 2048),
            ("too many requests: at most 3 per minute", 64),
            ("Too many inputs in request, split into more batches.", 64),
            ("'$.input' is invalid. Please check the API reference.", 64),
            // Numbers with a unit.
            ("the batch is too large: at most 2 MB", 64),
            ("The list must not be larger than 32kb", 64),
            ("The list must not be larger than 1.5 GB", 64),
            ("inputs exceed 4k", 64),
            ("inputs exceed the maximum of 10-word texts", 64),
            ("this list of items may take up to 30 seconds", 64),
            ("each of the texts may have up to 60 chars", 64),
            // No less than were sent, or none at all.
            ("batch size 33 > maximum allowed batch size 33", 33),
            ("at most 0 texts", 33),
            ("at most 99999999999999999999999 texts", 33),
            ("at most as many texts as the page at the end of a long, long road says: 7", 33),
            ("", 2),
        ] {
            assert_eq!(told(message, sent), None, "{message}");
        }
    }
}
