//! Makes the simulator's vectors and writes them as the API does: [`vector`], [`Encoding`], [`HEAD`], [`tail`].

use std::sync::OnceLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use half::f16;
use serde_json::json;

/// Stands for a text, in the space of 16 bytes.
pub(super) type TextHash = [u8; 16];

pub(super) fn hash_text(text: &str) -> TextHash {
    first_half(blake3::Hasher::new_derive_key("docvector-embed simulator: text").update(text.as_bytes()))
}

/// Returns the hash of a text that came as tokens.
pub(super) fn hash_tokens(tokens: &[u32]) -> TextHash {
    let mut hasher = blake3::Hasher::new_derive_key("docvector-embed simulator: tokens");
    for token in tokens {
        hasher.update(&token.to_le_bytes());
    }
    first_half(&hasher)
}

fn first_half(hasher: &blake3::Hasher) -> TextHash {
    let mut half = TextHash::default();
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    half
}

/// Returns the vector of a text: random numbers seeded by the model and the text, of length 1, rounded to 16 bits as
/// OpenAI's are. A shorter vector is the beginning of a longer one, scaled to length 1 again.
pub(super) fn vector(model: &str, dimensions: usize, text: &TextHash) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new_derive_key("docvector-embed simulator: vector");
    hasher.update(text).update(model.as_bytes());
    let mut seed = [0; 8];
    seed.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let mut random = fastrand::Rng::with_seed(u64::from_le_bytes(seed));
    let mut vector: Vec<f32> = (0..dimensions).map(|_| random.f32() * 2.0 - 1.0).collect();
    let length = vector.iter().map(|&component| f64::from(component).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        let scale = (1.0 / length) as f32;
        vector.iter_mut().for_each(|component| *component = f16::from_f32(*component * scale).to_f32());
    } else if let Some(first) = vector.first_mut() {
        *first = 1.0;
    }
    vector
}

/// The form in which a request wants its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Float,
    Base64,
}

/// The characters of a component as a number. All have the same width, so that the size of a file is known before it is
/// written: 17 decimals are enough for any 16-bit number, and JSON permits the space before a positive one.
const WIDTH: usize = 20;

impl Encoding {
    /// Returns the bytes that [`write`](Self::write) adds for a vector.
    pub(super) fn size(self, dimensions: usize) -> usize {
        match self {
            // Two brackets, and commas between.
            Self::Float => 2 + dimensions * WIDTH + dimensions.saturating_sub(1),
            Self::Base64 => 2 + (4 * dimensions).div_ceil(3) * 4,
        }
    }

    /// Adds a vector as JSON.
    pub(super) fn write(self, vector: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::Float => {
                let table = decimals();
                for (i, &component) in vector.iter().enumerate() {
                    out.push(if i == 0 { b'[' } else { b',' });
                    out.extend_from_slice(&table[usize::from(f16::from_f32(component).to_bits())]);
                }
                out.push(b']');
            }
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|component| component.to_le_bytes()).collect();
                out.push(b'"');
                out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
        }
    }
}

/// What stands before the rows of an answer.
pub(super) const HEAD: &str = r#"{"object":"list","data":["#;

/// What stands after the vector of a row.
pub(super) const ROW_TAIL: &str = "}";

/// Returns what stands before the vector of a row.
pub(super) fn row_head(row: usize, index: usize) -> String {
    let comma = if row == 0 { "" } else { "," };
    format!(r#"{comma}{{"object":"embedding","index":{index},"embedding":"#)
}

/// Returns what stands after the rows of an answer.
pub(super) fn tail(model: Option<&str>, tokens: u64) -> String {
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    format!(r#"],"model":{},"usage":{usage}}}"#, json!(model))
}

/// Returns the decimals of all 16-bit numbers, by their bits. To look a number up is much faster than to write it.
fn decimals() -> &'static [[u8; WIDTH]] {
    static TABLE: OnceLock<Vec<[u8; WIDTH]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let decimal = |bits| {
            let number = f16::from_bits(bits).to_f64();
            // No component of a vector of length 1 is larger.
            let number = if number.abs() <= 1.0 { number } else { 0.0 };
            let mut decimal = [b' '; WIDTH];
            let text = format!("{number:.17}");
            decimal[WIDTH - text.len()..].copy_from_slice(text.as_bytes());
            decimal
        };
        (0..=u16::MAX).map(decimal).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "text-embedding-3-small";

    #[test]
    fn vectors_are_of_length_one_and_belong_to_their_text() {
        let hash = hash_text("a text");
        let vector_of = |dimensions, hash: &TextHash| vector(MODEL, dimensions, hash);
        for dimensions in [1, 2, 256, 3072] {
            let length = vector_of(dimensions, &hash).iter().map(|component| component * component).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-3, "{dimensions}: {length}");
        }
        assert_eq!(vector_of(16, &hash), vector_of(16, &hash));
        assert_ne!(vector_of(16, &hash), vector_of(16, &hash_text("another")));
        assert_ne!(vector_of(16, &hash), vector("another model", 16, &hash));
        assert_ne!(hash_tokens(&[1, 2]), hash_tokens(&[2, 1]));
    }

    #[test]
    fn both_forms_hold_the_vector_exactly_in_the_bytes_foretold() {
        for dimensions in [1, 2, 3, 1536] {
            let vector = vector(MODEL, dimensions, &hash_text("a text"));
            let mut written = Vec::new();
            Encoding::Float.write(&vector, &mut written);
            assert_eq!(written.len(), Encoding::Float.size(dimensions));
            assert_eq!(serde_json::from_slice::<Vec<f32>>(&written).expect("JSON"), vector);
            written.clear();
            Encoding::Base64.write(&vector, &mut written);
            assert_eq!(written.len(), Encoding::Base64.size(dimensions));
            let text: String = serde_json::from_slice(&written).expect("JSON");
            let bytes = BASE64_STANDARD.decode(text).expect("base64");
            let four = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("whole"));
            let read: Vec<f32> = bytes.chunks(4).map(four).collect();
            assert_eq!(read, vector);
        }
    }

    #[test]
    fn every_small_number_of_16_bits_is_read_back_as_it_was() {
        for bits in 0..=u16::MAX {
            let number = f16::from_bits(bits).to_f32();
            if number.abs() <= 1.0 {
                let text = std::str::from_utf8(&decimals()[usize::from(bits)]).expect("ASCII");
                assert_eq!(text.trim_start().parse::<f32>(), Ok(number), "{bits}");
            }
        }
    }
}
