//! Makes the error of a reply with rows that cannot be a text's: [`unusable_rows`].

use crate::{BadText, BadTextReason, Embeddings, Error, ErrorKind, Partial, embeddings::not_finite};

/// Whether a vector cannot be that of a text: it is all zeros, or has a component that is not a finite number.
pub(super) fn is_unusable(vector: &[f32]) -> bool {
    not_finite(vector).is_some() || vector.iter().all(|&component| component == 0.0)
}

/// Makes the error of a reply whose rows with these indices are unusable. The other rows were paid for too, and come
/// with it. The matrix has other finite numbers in place of the unusable rows.
pub(super) fn unusable_rows(unusable: &[usize], embeddings: &Embeddings) -> Error {
    let bad = unusable.iter().map(|&index| BadText::new(index, BadTextReason::Unusable)).collect();
    let error =
        Error::new(ErrorKind::Protocol, "the reply has unusable vectors: all zeros, or not finite").with_bad_texts(bad);
    let mut is_sound = vec![true; embeddings.len()];
    unusable.iter().for_each(|&index| is_sound[index] = false);
    let sound: Vec<usize> = (0..embeddings.len()).filter(|&index| is_sound[index]).collect();
    if sound.is_empty() {
        return error.with_usage(embeddings.usage());
    }
    let rows = embeddings.select(&sound);
    match Partial::new(sound, rows) {
        Ok(partial) => error.with_partial(partial),
        // There is one index for each row, and they ascend.
        Err(other) => other.with_usage(embeddings.usage()),
    }
}
