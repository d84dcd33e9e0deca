//! Tells whether words of a server quote a text or a secret, so that they are not shown.

use reqwest::header::HeaderMap;

/// Whether a secret of the request has these words in it.
pub(super) fn quotes_secret(words: &str, headers: &HeaderMap) -> bool {
    let mut secrets = headers.values().filter(|value| value.is_sensitive());
    secrets.any(|secret| secret.to_str().is_ok_and(|secret| quotes(words, secret.trim_start_matches("Bearer "))))
}

/// Whether words and a text have a piece in common. A few letters are a piece of anything.
pub(super) fn quotes(words: &str, text: &str) -> bool {
    const MIN_QUOTE: usize = 10;
    words == text
        || (text.len() >= 6 && words.contains(text))
        || words.as_bytes().windows(MIN_QUOTE).any(|piece| memchr::memmem::find(text.as_bytes(), piece).is_some())
}
