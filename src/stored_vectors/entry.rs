//! Writes vectors as entries of a store, and reads them: the format and its checksum.
//!
//! An entry is a header and the components, all little-endian:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..2 | `dv` |
//! | 2 | version: 2, or 1 without the bytes 16..36, as entries were until 2026-11 |
//! | 3 | kind of number: 1 for f32, 2 for f16; 128 is added if the text was truncated |
//! | 4..8 | number of components |
//! | 8..16 | xxh3-64 of all that follows, seeded with the xxh3-64 of the key and the bytes 0..8 |
//! | 16..32 | id of the space |
//! | 32..36 | day on which it was written: days since 1970-01-01, UTC |

use half::f16;
use half::slice::HalfFloatSliceExt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{SpaceId, cache::Key};

/// The bytes before those that the checksum covers.
const HEADER_BYTES: usize = 16;
const MAGIC: [u8; 2] = *b"dv";
/// Entries of newer versions are left alone, and their texts are embedded at each use: so all programs that share a store
/// should be of one version.
const VERSION: u8 = 2;
/// The version without a stamp.
const UNSTAMPED: u8 = 1;
/// The bytes of a space and a day.
const STAMP_BYTES: usize = 20;
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

/// What an entry says of its origin, so that entries can be picked out later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    pub(crate) space: SpaceId,
    /// Days since 1970-01-01, UTC.
    pub(crate) day: u32,
}

impl Stamp {
    /// Makes the stamp of an entry of this space that is written now.
    pub(crate) fn now(space: SpaceId) -> Self {
        // A clock before 1970 is wrong, and then the day does not matter.
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self { space, day: u32::try_from(since.as_secs() / 86_400).unwrap_or(u32::MAX) }
    }
}

/// The largest number of bytes of an entry beside its components.
pub(super) const MAX_OVERHEAD: usize = HEADER_BYTES + STAMP_BYTES;

/// Appends an entry to `out`. Without a stamp it has the form of old entries.
pub(super) fn write(
    out: &mut Vec<u8>,
    key: &Key,
    row: &[f32],
    truncated: bool,
    encoding: VectorEncoding,
    stamp: Option<Stamp>,
) {
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
    out.extend_from_slice(&[if stamp.is_some() { VERSION } else { UNSTAMPED }, number_type]);
    out.extend_from_slice(&(row.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    if let Some(Stamp { space, day }) = stamp {
        out.extend_from_slice(space.as_bytes());
        out.extend_from_slice(&day.to_le_bytes());
    }
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
    /// The space of the vector; `None` for entries that were written before 2026-12, which do not say.
    pub space: Option<SpaceId>,
    /// The day on which the entry was written, as days since 1970-01-01 UTC; `None` as for `space`.
    pub day: Option<u32>,
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
        Self::read(key, value, &mut Vec::new())
    }

    /// Does the same, and appends the vector to `rows`. Nothing is appended if the result is `None`.
    ///
    /// ```
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use docvector_embed::{EmbedderExt, cache::{CacheScan, Memory}, provider::Fake, wrap::EntryInfo};
    /// let store = Memory::new(1 << 20);
    /// let rows = Fake::new(8).cached(store.clone())?.embed_documents(&["a text"]).await?;
    /// store.scan(None, &mut |key, value| {
    ///     let mut row = Vec::new();
    ///     let info = EntryInfo::read(&key, value, &mut row).expect("an entry");
    ///     assert_eq!((row.as_slice(), info.space), (rows.row(0), Some(rows.space().id())));
    ///     // The same entry again, byte for byte.
    ///     assert_eq!(info.entry_of(&key, &row), value);
    /// }).await?;
    /// # Ok(()) }) }
    /// ```
    pub fn read(key: &Key, value: &[u8], rows: &mut Vec<f32>) -> Option<Self> {
        let header = value.get(..HEADER_BYTES)?;
        let dimensions = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
        // Checked before memory is allocated for so many.
        if dimensions.checked_mul(2)? > value.len() {
            return None;
        }
        let truncated = append(value, key, rows, dimensions)?;
        let stamp = stamp_of(value);
        Some(Self {
            dimensions,
            half_precision: header[3] & !TRUNCATED == F16,
            truncated,
            space: stamp.map(|stamp| stamp.space),
            day: stamp.map(|stamp| stamp.day),
        })
    }

    /// Returns whether the first bytes of an entry are those of one of so many bytes. The checksum is not looked at.
    #[cfg(feature = "sqlite")]
    pub(crate) fn says_length(head: &[u8], bytes: usize) -> bool {
        let (Some(magic), Some(said)) = (head.get(..2), head.get(4..8).and_then(<[u8]>::first_chunk)) else {
            return false;
        };
        let before = match head[2] {
            VERSION => MAX_OVERHEAD,
            UNSTAMPED => HEADER_BYTES,
            _ => return false,
        };
        let width = match head[3] & !TRUNCATED {
            F32 => 4,
            F16 => 2,
            _ => return false,
        };
        let said = u32::from_le_bytes(*said) as usize;
        magic == MAGIC && said.checked_mul(width).is_some_and(|rest| before + rest == bytes)
    }

    /// Makes the entry of a vector that this describes: that of a [read](Self::read) one, byte for byte. A vector that is
    /// not exact in 16 bits is written with 32, whatever `half_precision` says. Without a space or a day, the entry has
    /// neither.
    pub fn entry_of(&self, key: &Key, row: &[f32]) -> Vec<u8> {
        let encoding = if self.half_precision { VectorEncoding::HalfWhereExact } else { VectorEncoding::Exact };
        let stamp = self.space.zip(self.day).map(|(space, day)| Stamp { space, day });
        let mut entry = Vec::with_capacity(MAX_OVERHEAD + 4 * row.len());
        write(&mut entry, key, row, self.truncated, encoding, stamp);
        entry
    }
}

/// Returns whether an entry is of a version that is not known here: made by a newer program, and not damaged. Each version
/// has its checksum in the same place, over the same bytes.
pub(super) fn is_of_newer_version(entry: &[u8], key: &Key) -> bool {
    let sum = entry.get(8..HEADER_BYTES).and_then(<[u8]>::first_chunk).map(|sum| u64::from_le_bytes(*sum));
    sum.is_some_and(|sum| entry[..2] == MAGIC && entry[2] > VERSION && sum == checksum(key, entry))
}

/// Returns the stamp of an entry that is sound.
fn stamp_of(entry: &[u8]) -> Option<Stamp> {
    let stamp = entry.get(HEADER_BYTES..MAX_OVERHEAD).filter(|_| entry[2] == VERSION)?;
    let (space, day) = stamp.split_at(16);
    Some(Stamp { space: SpaceId::from_bytes(space.try_into().ok()?), day: u32::from_le_bytes(day.try_into().ok()?) })
}

/// Returns the bytes of the components; `None` for a version that is not known.
fn payload(entry: &[u8]) -> Option<&[u8]> {
    match *entry.get(2)? {
        VERSION => entry.get(MAX_OVERHEAD..),
        UNSTAMPED => entry.get(HEADER_BYTES..),
        _ => None,
    }
}

/// Appends the row of an entry to `rows`; returns the same as [`read`]. If the bytes are aligned as floats are, they
/// are copied straight into the spare capacity, which is not zeroed first.
pub(super) fn append(entry: &[u8], key: &Key, rows: &mut Vec<f32>, width: usize) -> Option<bool> {
    if cfg!(target_endian = "little")
        && let Some(&(F32 | F32_TRUNCATED)) = entry.get(3)
        && let Ok(row) = bytemuck::try_cast_slice(payload(entry)?)
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
    let known = header[..2] == MAGIC && matches!(header[2], UNSTAMPED | VERSION) && said == width;
    let sum = u64::from_le_bytes(header[8..HEADER_BYTES].try_into().ok()?);
    (known && sum == checksum(key, entry)).then_some(header[3] & TRUNCATED != 0)
}

/// Reads an entry into `row`; returns whether the text was truncated, or `None` if the entry is not the one that was
/// written under this key for this width.
pub(super) fn read(entry: &[u8], key: &Key, row: &mut [f32]) -> Option<bool> {
    let width = row.len();
    let truncated = check(entry, key, width)?;
    let payload = payload(entry)?;
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

/// Binds the components and the stamp to the header and to the key: an entry under another key counts as damaged.
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
        super::write(&mut out, &Key::from_bytes(key), row, truncated, encoding, None);
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

    const STAMP: Stamp = Stamp { space: SpaceId::from_bytes([7; 16]), day: 20_000 };

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    fn entry(row: &[f32], encoding: VectorEncoding) -> Vec<u8> {
        let mut out = vec![9; 3];
        write(&mut out, &key(1), row, false, encoding, Some(STAMP));
        out.split_off(3)
    }

    fn finite() -> impl Strategy<Value = f32> {
        prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(row in prop::collection::vec(finite(), 1..40), truncated: bool, stamped: bool) {
            for encoding in [VectorEncoding::Exact, VectorEncoding::HalfWhereExact] {
                let mut out = Vec::new();
                write(&mut out, &key(1), &row, truncated, encoding, stamped.then_some(STAMP));
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
            prop_assert_eq!(out.len(), MAX_OVERHEAD + 2 * row.len());
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
            for (truncated, stamp) in [(false, None), (true, None), (false, Some(STAMP)), (true, Some(STAMP))] {
                let mut out = Vec::new();
                write(&mut out, &key(1), &[0.5, 0.25, 1.0], truncated, encoding, stamp);
                let info = EntryInfo {
                    dimensions: 3,
                    half_precision: halves,
                    truncated,
                    space: stamp.map(|stamp| stamp.space),
                    day: stamp.map(|stamp| stamp.day),
                };
                assert_eq!(EntryInfo::inspect(&key(1), &out), Some(info));
                assert_eq!(EntryInfo::inspect(&key(2), &out), None);
                assert_eq!(EntryInfo::inspect(&key(1), &out[..out.len() - 1]), None);
                let mut row = vec![7.0];
                assert_eq!(EntryInfo::read(&key(1), &out, &mut row), Some(info));
                assert_eq!(row, [7.0, 0.5, 0.25, 1.0]);
                assert_eq!(info.entry_of(&key(1), &row[1..]), out);
            }
        }
        // A header that claims four billion components makes no room for them.
        let mut claims = entry(&[1.0], VectorEncoding::Exact);
        claims[4..8].fill(0xff);
        assert_eq!(EntryInfo::inspect(&key(1), &claims), None);
    }

    #[test]
    fn halves_are_taken_only_where_nothing_is_lost() {
        assert_eq!(entry(&[0.5, -0.25, 0.0], VectorEncoding::HalfWhereExact).len(), MAX_OVERHEAD + 6);
        for odd in [0.1, 1e-9, 1e9] {
            assert_eq!(entry(&[0.5, odd], VectorEncoding::HalfWhereExact).len(), MAX_OVERHEAD + 8, "{odd}");
        }
        // Too large for 16 bits, whatever was asked for.
        assert_eq!(entry(&[0.5, 1e9], VectorEncoding::Half).len(), MAX_OVERHEAD + 8);
        // The sign of zero is a bit, too.
        let mut row = [1.0];
        assert_eq!(read(&entry(&[-0.0], VectorEncoding::HalfWhereExact), &key(1), &mut row), Some(false));
        assert_eq!(row[0].to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn an_entry_of_a_newer_version_is_told_from_a_damaged_one() {
        let mut out = entry(&[1.0, 2.0], VectorEncoding::Exact);
        assert!(!is_of_newer_version(&out, &key(1)));
        out[2] = VERSION + 1;
        assert!(!is_of_newer_version(&out, &key(1)), "damaged");
        let sum = checksum(&key(1), &out);
        out[8..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        assert!(is_of_newer_version(&out, &key(1)) && !is_of_newer_version(&out, &key(2)));
        assert_eq!(EntryInfo::inspect(&key(1), &out), None);
        assert!(!is_of_newer_version(&out[..HEADER_BYTES - 1], &key(1)));
    }

    /// A change here loses every cache that exists.
    #[test]
    fn entries_stay_what_they_are() {
        let hex = "fb75a302db2a9e6b52addd1c118ff0c4ae41f775871fad0332f7b41492dcb187";
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("a byte");
        let key = Key::from_bytes(std::array::from_fn(byte));
        let written = |stamp| {
            let mut out = Vec::new();
            write(&mut out, &key, &[1.0, -2.5], true, VectorEncoding::Exact, stamp);
            out.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(written(None), "64760181020000008963e0766f2bae980000803f000020c0");
        let space = "07".repeat(16);
        assert_eq!(written(Some(STAMP)), format!("647602810200000049d8b049a085eb5f{space}204e00000000803f000020c0"));
    }
}
