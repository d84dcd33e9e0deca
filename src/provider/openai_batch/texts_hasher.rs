//! Hashes the texts of a job, with all else that its vectors depend on: [`TextsHasher`].

use crate::{InputKind, Truncation, cache::Key, provider::openai::endpoint::Endpoint, stored_vectors::Keys};

/// The hash of texts as they come. Two jobs with the same hash have the same rows.
pub(super) struct TextsHasher {
    /// The keys of a cache say everything that the vector of a text depends on.
    keys: Keys,
    hasher: blake3::Hasher,
}

impl TextsHasher {
    pub(super) fn new(endpoint: &Endpoint, kind: InputKind, truncation: Truncation) -> Self {
        let limit = endpoint.limits().tokens_of_one_text();
        Self { keys: Keys::new(endpoint.space.id(), kind, truncation, limit), hasher: blake3::Hasher::new() }
    }

    /// Adds a text, and returns its key in a cache.
    pub(super) fn add(&mut self, text: &str) -> Key {
        let key = self.keys.key(text);
        self.hasher.update(key.as_bytes());
        key
    }

    /// Returns the hash in hexadecimal digits.
    pub(super) fn finish(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}
