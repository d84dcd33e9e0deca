//! Names entries: [`Key`]. How the key of a text is computed is in `stored_vectors/key.rs`.

use std::{
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

/// Names an entry: 32 bytes that no two entries share. It displays as 64 hexadecimal digits.
///
/// ```
/// use docvector_embed::cache::Key;
/// let key = Key::from_bytes([0xa7; 32]);
/// assert_eq!(key.as_bytes(), &[0xa7; 32]);
/// assert_eq!(key.to_string(), "a7".repeat(32));
/// assert_eq!(format!("{key:#x}"), format!("0x{key}"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Makes a key of its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:x}")
    }
}

impl fmt::LowerHex for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            f.write_str("0x")?;
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Uses the first eight bytes of a key as its hash, because a key is a hash already.
pub(crate) type HashOfKey = BuildHasherDefault<EightBytes>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EightBytes(u64);

impl Hasher for EightBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*bytes);
        }
    }

    /// Ignores the length of a key, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn eight_bytes_of_a_key_are_its_hash() {
        // Otherwise all keys would have one hash, and each look-up would go through all entries.
        for number in 0..10 {
            let key = Key::from_bytes(*blake3::hash(&[number]).as_bytes());
            assert_eq!(HashOfKey::default().hash_one(key).to_le_bytes(), key.as_bytes()[..8]);
        }
    }
}
