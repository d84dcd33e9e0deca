//! Decodes the parts of a URL or a header that are percent-encoded: [`percent_decoded`].

/// Decodes `%XX`; `None` for a wrong code, or for bytes that are not UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        bytes.push(if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            rest = after;
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            u8::try_from(digit(0)? * 16 + digit(1)?).ok()?
        } else {
            first
        });
    }
    String::from_utf8(bytes).ok()
}
