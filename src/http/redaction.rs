//! Finds quotes of texts and secrets in a server's words, so that errors and logs do not show them.

use reqwest::header::HeaderMap;

/// Whether the words quote a secret header of the request.
pub(crate) fn quotes_secret(words: &str, headers: &HeaderMap) -> bool {
    let mut secrets = headers.values().filter(|value| value.is_sensitive());
    secrets.any(|secret| secret.to_str().is_ok_and(|secret| quotes(words, secret.trim_start_matches("Bearer "))))
}

/// Whether words and a text share a piece that is too long to be chance.
pub(crate) fn quotes(words: &str, text: &str) -> bool {
    const MIN_QUOTE: usize = 10;
    words == text
        || (text.len() >= 6 && words.contains(text))
        || words.as_bytes().windows(MIN_QUOTE).any(|piece| memchr::memmem::find(text.as_bytes(), piece).is_some())
}
