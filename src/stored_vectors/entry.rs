//! Writes vectors as entries of a store, and reads them: the format and its checksum.
//!
//! An entry is a header of 16 bytes, followed by the components, all little-endian:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..2 | `dv` |
//! | 2 | version, 1 |
//! | 3 | kind of number: 1 for f32, 2 for f16; 128 is added if the text was truncated |
//! | 4..8 | number of components |
//! | 8..16 | xxh3-64 of the components, seeded with the xxh3-64 of the key and the bytes 0..8 |

use half::f16;
use half::slice::HalfFloatSliceExt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::cache::Key;

const HEADER_BYTES: usize = 16;
const MAGIC: [u8; 2] = *b"dv";
/// Entries of another version are discarded as damaged, so a new version needs a new `CONTEXT` in `key.rs` as well.
const VERSION: u8 = 1;
const F32: u8 = 1;
const F16: u8 = 2;
const TRUNCATED: u8 = 128;
const F32_TRUNCATED: u8 = F32 | TRUNCATED;

/// How the components of vectors are stored: see [`CachedBuilder`](crate::wrap::CachedBuilder) for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VectorEncoding {
    /// As 32-bit floats, exactly.
    #[default]
    Exact,
    /// As 16-bit floats if that loses nothing, as with many vectors of OpenAI, else as 32-bit floats.
    HalfWhereExact,
    /// As 16-bit floats: half the size, and cosines that differ from the 8th digit on. Rows that would lose more,
    /// because components are too large or all too small for 16 bits, are stored as 32-bit floats.
    Half,
}

/// Whether a row loses no more in 16 bits than most numbers do. Numbers that are too large become infinite in 16 bits,
/// and those that are too small zero.
fn is_close(halves: &[f16], row: &[f32]) -> bool {
    let (mut lost, mut all) = (0.0_f64, 0.0_f64);
    for (half, number) in halves.iter().zip(row) {
        let number = f64::from(*number);
        lost += (half.to_f64() - number).powi(2);
        all += number * number;
    }
    // The loss of a number is at most 2^-11 of it; an infinite loss is never that small.
    lost <= all * 0.5_f64.powi(21)
}

/// Appends an entry to `out`.
pub(super) fn write(out: &mut Vec<u8>, key: &Key, row: &[f32], truncated: bool, encoding: VectorEncoding) {
    let start = out.len();
    let halves = match encoding {
        VectorEncoding::Exact => None,
        VectorEncoding::Half | VectorEncoding::HalfWhereExact => {
            let mut halves = vec![f16::ZERO; row.len()];
            halves.convert_from_f32_slice(row);
            let same = || halves.iter().zip(row).all(|(half, number)| half.to_f32().to_bits() == number.to_bits());
            (if encoding == VectorEncoding::Half { is_close(&halves, row) } else { same() }).then_some(halves)
        }
    };
    let number_type = if halves.is_some() { F16 } else { F32 } | if truncated { TRUNCATED } else { 0 };
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, number_type]);
    out.extend_from_slice(&(row.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    match halves {
        Some(halves) => halves.iter().for_each(|half| out.extend_from_slice(&half.to_le_bytes())),
        None if cfg!(target_endian = "little") => out.extend_from_slice(bytemuck::cast_slice(row)),
        None => row.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes())),
    }
    let sum = checksum(key, &out[start..]);
    out[start + 8..start + HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// The header of an entry: see [`inspect`](Self::inspect).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EntryInfo {
    /// The number of components.
    pub dimensions: usize,
    /// Whether the components are stored as 16-bit floats.
    pub half_precision: bool,
    /// Whether the text was truncated.
    pub truncated: bool,
}

impl EntryInfo {
    /// Checks an entry of a store, as [`Cached`](crate::wrap::Cached) does before it uses one. Returns `None` if the
    /// entry is not the one that was written under this key: damaged, shortened, the entry of another key, or no vector.
    ///
    /// ```
    /// use docvector_embed::{cache::Key, wrap::EntryInfo};
    /// assert_eq!(EntryInfo::inspect(&Key::from_bytes([7; 32]), b"no entry"), None);
    /// ```
    pub fn inspect(key: &Key, value: &[u8]) -> Option<Self> {
        let header = value.get(..HEADER_BYTES)?;
        let dimensions = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
        // Checked before memory is allocated for so many.
        if dimensions.checked_mul(2)? > value.len() {
            return None;
        }
        let truncated = read(value, key, &mut vec![0.0; dimensions])?;
        Some(Self { dimensions, half_precision: header[3] & !TRUNCATED == F16, truncated })
    }
}

/// Appends the row of an entry to `rows`; returns the same as [`read`]. If the bytes are aligned as floats are, they
/// are copied straight into the spare capacity, which is not zeroed first.
pub(super) fn append(entry: &[u8], key: &Key, rows: &mut Vec<f32>, width: usize) -> Option<bool> {
    if cfg!(target_endian = "little")
        && let Some(&(F32 | F32_TRUNCATED)) = entry.get(3)
        && let Ok(row) = bytemuck::try_cast_slice(entry.get(HEADER_BYTES..)?)
    {
        let cut = (row.len() == width).then(|| check(entry, key, width))??;
        crate::embeddings::not_finite(row).is_none().then(|| rows.extend_from_slice(row))?;
        return Some(cut);
    }
    let start = rows.len();
    rows.resize(start + width, 0.0);
    let cut = read(entry, key, &mut rows[start..]);
    if cut.is_none() {
        rows.truncate(start);
    }
    cut
}

/// Checks header and checksum; returns whether the text was truncated.
fn check(entry: &[u8], key: &Key, width: usize) -> Option<bool> {
    let header = entry.get(..HEADER_BYTES)?;
    let said = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let known = header[..2] == MAGIC && header[2] == VERSION && said == width;
    let sum = u64::from_le_bytes(header[8..HEADER_BYTES].try_into().ok()?);
    (known && sum == checksum(key, entry)).then_some(header[3] & TRUNCATED != 0)
}

/// Reads an entry into `row`; returns whether the text was truncated, or `None` if the entry is not the one that was
/// written under this key for this width.
pub(super) fn read(entry: &[u8], key: &Key, row: &mut [f32]) -> Option<bool> {
    let width = row.len();
    let truncated = check(entry, key, width)?;
    let payload = &entry[HEADER_BYTES..];
    match entry[3] & !TRUNCATED {
        F32 if payload.len() == width * 4 => {
            bytemuck::cast_slice_mut(row).copy_from_slice(payload);
            if cfg!(target_endian = "big") {
                row.iter_mut().for_each(|number| *number = f32::from_bits(number.to_bits().swap_bytes()));
            }
        }
        F16 if payload.len() == width * 2 => {
            let numbers = payload.chunks_exact(2);
            row.iter_mut().zip(numbers).for_each(|(number, bytes)| {
                *number = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            });
        }
        _ => return None,
    }
    // Only finite components are written here. Others with a right checksum were written by another program.
    crate::embeddings::not_finite(row).is_none().then_some(truncated)
}

/// Binds the components to the header and to the key: an entry under another key counts as damaged.
fn checksum(key: &Key, entry: &[u8]) -> u64 {
    let mut about = [0; 40];
    about[..32].copy_from_slice(key.as_bytes());
    about[32..].copy_from_slice(&entry[..8]);
    xxh3_64_with_seed(&entry[HEADER_BYTES..], xxh3_64(&about))
}

/// Opens the codec to `tests/fuzz`.
#[cfg(fuzzing)]
pub mod fuzz {
    #![allow(missing_docs)]

    use super::{HEADER_BYTES, Key, VectorEncoding, checksum};

    pub fn read(entry: &[u8], key: [u8; 32], row: &mut [f32]) -> Option<bool> {
        super::read(entry, &Key::from_bytes(key), row)
    }

    pub fn append(entry: &[u8], key: [u8; 32], rows: &mut Vec<f32>, width: usize) -> Option<bool> {
        super::append(entry, &Key::from_bytes(key), rows, width)
    }

    pub fn write(key: [u8; 32], row: &[f32], truncated: bool, encoding: VectorEncoding) -> Vec<u8> {
        let mut out = Vec::new();
        super::write(&mut out, &Key::from_bytes(key), row, truncated, encoding);
        out
    }

    /// Puts the right checksum into a header.
    pub fn seal(key: [u8; 32], entry: &mut [u8]) {
        if entry.len() >= HEADER_BYTES {
            let sum = checksum(&Key::from_bytes(key), entry);
            entry[8..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::numerics::cosine;

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    fn entry(row: &[f32], encoding: VectorEncoding) -> Vec<u8> {
        let mut out = vec![9; 3];
        write(&mut out, &key(1), row, false, encoding);
        out.split_off(3)
    }

    fn finite() -> impl Strategy<Value = f32> {
        prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(row in prop::collection::vec(finite(), 1..40), truncated: bool) {
            for encoding in [VectorEncoding::Exact, VectorEncoding::HalfWhereExact] {
                let mut out = Vec::new();
                write(&mut out, &key(1), &row, truncated, encoding);
                let mut read_back = vec![0.0; row.len()];
                prop_assert_eq!(read(&out, &key(1), &mut read_back), Some(truncated));
                let bits = |row: &[f32]| row.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&read_back), bits(&row));
                // At every alignment, and behind any other rows.
                for shift in 0..4 {
                    let moved = [vec![0; shift], out.clone()].concat();
                    let mut rows = vec![7.0];
                    prop_assert_eq!(append(&moved[shift..], &key(1), &mut rows, row.len()), Some(truncated));
                    prop_assert_eq!(bits(&rows[1..]), bits(&row));
                }
            }
        }

        /// Half the size, and each component as close as 16 bits allow.
        #[test]
        fn halves_are_close(row in prop::collection::vec(-1.0_f32..1.0, 1..40)) {
            let out = entry(&row, VectorEncoding::Half);
            prop_assert_eq!(out.len(), HEADER_BYTES + 2 * row.len());
            let mut read_back = vec![0.0; row.len()];
            prop_assert_eq!(read(&out, &key(1), &mut read_back), Some(false));
            for (half, number) in read_back.iter().zip(&row) {
                prop_assert!((half - number).abs() <= number.abs() / 2048.0 + 6e-8, "{half} for {number}");
            }
        }

        /// However long the vector is.
        #[test]
        fn halves_keep_the_direction(row in prop::collection::vec(-1.0_f32..1.0, 4..40), scale in -40_i32..40) {
            let row: Vec<f32> = row.iter().map(|number| number * 2.0_f32.powi(scale)).collect();
            let mut read_back = vec![0.0; row.len()];
            prop_assert_eq!(read(&entry(&row, VectorEncoding::Half), &key(1), &mut read_back), Some(false));
            let is_zero = row.iter().all(|number| *number == 0.0);
            prop_assert!(is_zero || cosine(&row, &read_back) > 1.0 - 1e-6);
        }

        #[test]
        fn a_changed_byte_is_seen(row in prop::collection::vec(finite(), 1..20), at: prop::sample::Index, by in 1_u8..) {
            let mut out = entry(&row, VectorEncoding::Exact);
            let at = at.index(out.len());
            out[at] ^= by;
            prop_assert_eq!(read(&out, &key(1), &mut vec![0.0; row.len()]), None);
            let mut rows = vec![7.0];
            prop_assert_eq!(append(&out, &key(1), &mut rows, row.len()), None);
            prop_assert_eq!(rows, [7.0]);
        }

        #[test]
        fn another_length_is_seen(row in prop::collection::vec(finite(), 2..20), cut in 0_usize..60) {
            let mut out = entry(&row, VectorEncoding::Exact);
            prop_assert_eq!(read(&out, &key(1), &mut vec![0.0; row.len() - 1]), None);
            prop_assert_eq!(read(&out, &key(2), &mut vec![0.0; row.len()]), None);
            out.truncate(cut.min(out.len() - 1));
            prop_assert_eq!(read(&out, &key(1), &mut vec![0.0; row.len()]), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), width in 0_usize..8) {
            let _ = read(&bytes, &key(1), &mut vec![0.0; width]);
            let _ = append(&bytes, &key(1), &mut Vec::new(), width);
        }
    }

    #[test]
    fn entries_say_what_they_are() {
        for (encoding, halves) in [(VectorEncoding::Exact, false), (VectorEncoding::Half, true)] {
            for truncated in [false, true] {
                let mut out = Vec::new();
                write(&mut out, &key(1), &[0.5, 0.25, 1.0], truncated, encoding);
                assert_eq!(
                    EntryInfo::inspect(&key(1), &out),
                    Some(EntryInfo { dimensions: 3, half_precision: halves, truncated })
                );
                assert_eq!(EntryInfo::inspect(&key(2), &out), None);
                assert_eq!(EntryInfo::inspect(&key(1), &out[..out.len() - 1]), None);
            }
        }
        // A header that claims four billion components makes no room for them.
        let mut claims = entry(&[1.0], VectorEncoding::Exact);
        claims[4..8].fill(0xff);
        assert_eq!(EntryInfo::inspect(&key(1), &claims), None);
    }

    #[test]
    fn halves_are_taken_only_where_nothing_is_lost() {
        assert_eq!(entry(&[0.5, -0.25, 0.0], VectorEncoding::HalfWhereExact).len(), HEADER_BYTES + 6);
        for odd in [0.1, 1e-9, 1e9] {
            assert_eq!(entry(&[0.5, odd], VectorEncoding::HalfWhereExact).len(), HEADER_BYTES + 8, "{odd}");
        }
        // Too large for 16 bits, whatever was asked for.
        assert_eq!(entry(&[0.5, 1e9], VectorEncoding::Half).len(), HEADER_BYTES + 8);
        // The sign of zero is a bit, too.
        let mut row = [1.0];
        assert_eq!(read(&entry(&[-0.0], VectorEncoding::HalfWhereExact), &key(1), &mut row), Some(false));
        assert_eq!(row[0].to_bits(), (-0.0_f32).to_bits());
    }

    /// A change here loses every cache that exists.
    #[test]
    fn entries_stay_what_they_are() {
        let hex = "fb75a302db2a9e6b52addd1c118ff0c4ae41f775871fad0332f7b41492dcb187";
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("a byte");
        let key = Key::from_bytes(std::array::from_fn(byte));
        let mut out = Vec::new();
        write(&mut out, &key, &[1.0, -2.5], true, VectorEncoding::Exact);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "64760181020000008963e0766f2bae980000803f000020c0");
    }
}
