//! Writes the head of the framed binary reply: [`framed_head`].
//!
//! `DVE1`, the length of the description as a little-endian u32, the description in JSON with spaces at its end, then the
//! rows as little-endian f32. The rows begin at a multiple of 4 bytes.

use serde_json::json;

use crate::{Embeddings, wire::MAGIC};

/// Makes everything before the rows.
pub(super) fn framed_head(embeddings: &Embeddings, model: &str) -> Vec<u8> {
    let description = json!({
        "model": model,
        "space": embeddings.space().id().to_string(),
        "dimension": embeddings.dimensions(),
        "rows": embeddings.len(),
        "truncated": embeddings.truncated(),
        "tokens": embeddings.usage().exact_tokens(),
    });
    let mut description = description.to_string().into_bytes();
    description.resize(description.len().next_multiple_of(4), b' ');
    let mut head = Vec::with_capacity(8 + description.len());
    head.extend_from_slice(MAGIC);
    // No description is as long as 4 GiB: its longest part has an index per row.
    head.extend_from_slice(&u32::try_from(description.len()).unwrap_or(u32::MAX).to_le_bytes());
    head.extend_from_slice(&description);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Space, Usage};

    #[test]
    fn the_head_is_as_documented() {
        let space = Space::builder("m", 2).build().expect("a space");
        let rows = Embeddings::new(2, &space, vec![1., 2., 3., 4.], Usage::of_request(Some(7))).expect("rows");
        let head = framed_head(&rows.with_truncated(vec![1]), "name");
        assert_eq!(&head[..4], b"DVE1");
        let length = u32::from_le_bytes(head[4..8].try_into().expect("4 bytes")) as usize;
        assert_eq!((head.len(), head.len() % 4), (8 + length, 0));
        let description: serde_json::Value = serde_json::from_slice(&head[8..]).expect("JSON");
        let expected = json!({
            "model": "name", "space": space.id().to_string(), "dimension": 2, "rows": 2, "truncated": [1], "tokens": 7
        });
        assert_eq!(description, expected);
    }
}
