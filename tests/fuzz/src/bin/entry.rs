//! The codec of cached entries: it reads the entries that were written, and nothing else.
//!
//! The first byte of an input selects one of two checks, which describe the rest.
#![no_main]

use docvector_embed::{
    cache::Key,
    fuzz::{append, seal, write},
    wrap::{EntryInfo, VectorEncoding},
};
use libfuzzer_sys::fuzz_target;

/// Bytes before the components, and those of the space and the day, which entries of version 2 have between.
const HEADER: usize = 16;
const STAMP: usize = 20;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    match input.byte() % 2 {
        0 => anything(input),
        _ => written(input),
    }
});

/// Reads in both ways, which must agree.
fn read(entry: &[u8], key: [u8; 32], row: &mut [f32]) -> Option<bool> {
    let truncated = docvector_embed::fuzz::read(entry, key, row);
    let mut rows = vec![7.0];
    assert_eq!(append(entry, key, &mut rows, row.len()), truncated, "appending does not agree with reading");
    let appended = if truncated.is_some() { &*row } else { &[] };
    assert_eq!(bits(&rows), [bits(&[7.0]), bits(appended)].concat(), "appending reads other components");
    truncated
}

/// Any bytes are refused, or are exactly the entry that writing their row gives.
///
/// Input: what is put right in the header, a byte of the key, a width, the entry.
fn anything(mut input: Input<'_>) {
    let (right, key, width) = (input.byte(), [input.byte(); 32], usize::from(input.byte()));
    let mut entry = input.0.to_vec();
    // Unchanged, its checksum is hardly ever right.
    let _ = read(&entry, key, &mut vec![0.0; width]);

    if entry.len() >= HEADER {
        if right & 1 != 0 {
            entry[..3].copy_from_slice(b"dv\x01");
        }
        if right & 2 != 0 {
            let bytes = if entry[3] & 0x7f == 2 { 2 } else { 4 };
            let width = ((entry.len() - HEADER) / bytes) as u32;
            entry[4..8].copy_from_slice(&width.to_le_bytes());
        }
    }
    seal(key, &mut entry);
    // A width that the entry has no bytes for is wrong anyway, and need not take memory.
    let width = claimed(&entry).min(entry.len());
    let mut row = vec![0.0; width];
    let truncated = read(&entry, key, &mut row);
    let Some((wanted, halves, wanted_truncated)) = decoded(&entry, width) else {
        assert_eq!(truncated, None, "an entry is read that nobody wrote");
        return;
    };
    assert_eq!(truncated, Some(wanted_truncated), "an entry is refused that is whole, or its mark is lost");
    assert_eq!(bits(&row), bits(&wanted), "other components are read than are there");
    let key_of_entry = Key::from_bytes(key);
    let again = EntryInfo::read(&key_of_entry, &entry, &mut Vec::new()).map(|info| info.entry_of(&key_of_entry, &row));
    assert_eq!(again.as_ref(), Some(&entry), "an entry is made in another way of what it says");
    if entry[2] != 1 {
        return;
    }
    let encodings: &[VectorEncoding] =
        if halves { &[VectorEncoding::Half, VectorEncoding::HalfWhereExact] } else { &[VectorEncoding::Exact] };
    for &encoding in encodings {
        let again = write(key, &row, wanted_truncated, encoding);
        assert_eq!(again, entry, "what is read is written in another way ({encoding:?})");
    }
}

/// A written entry is read again under its key and width, and refused once it is changed.
///
/// Input: flags, a byte of the key, the kind of change, two places of two bytes, a byte to change by, the row.
fn written(mut input: Input<'_>) {
    let flags = input.byte();
    let (truncated, in_halves) = (flags & 1 != 0, flags & 2 != 0);
    let encodings = [VectorEncoding::Exact, VectorEncoding::HalfWhereExact, VectorEncoding::Half];
    let encoding = encodings[usize::from(flags >> 2) % 3];
    let key = [input.byte(); 32];
    let (change, one, two, by) = (input.byte(), input.place(), input.place(), input.byte());
    let row = row(input.0, in_halves);
    let entry = write(key, &row, truncated, encoding);

    let mut found = vec![0.0; row.len()];
    assert_eq!(read(&entry, key, &mut found), Some(truncated), "what is written is not read ({encoding:?})");
    if encoding == VectorEncoding::Half {
        for (found, number) in found.iter().zip(&row) {
            let (found, number) = (f64::from(*found), f64::from(*number));
            // Half of the distance to the next 16-bit float, be it the smallest one.
            let near = number.abs() / 2048.0 + 0.5_f64.powi(25);
            assert!((found - number).abs() <= near, "{found} for {number}");
        }
    } else {
        assert_eq!(bits(&found), bits(&row), "a component is not what it was ({encoding:?})");
    }
    if encoding == VectorEncoding::Exact || in_halves {
        let bytes = if encoding == VectorEncoding::Exact { 4 } else { 2 };
        assert_eq!(entry.len(), HEADER + bytes * row.len(), "it takes another room ({encoding:?})");
    }

    let mut other = key;
    other[one % 32] ^= by | 1;
    assert_eq!(read(&entry, other, &mut found), None, "it is read under another key");
    for width in [row.len() + 1, row.len() * 2, row.len() / 2, row.len().saturating_sub(1), 0] {
        if width != row.len() {
            assert_eq!(read(&entry, key, &mut vec![0.0; width]), None, "it is read for another width");
        }
    }

    let changed = changed(&entry, &row, other, change, [one, two], by);
    if changed != entry {
        for width in [row.len(), claimed(&changed).min(changed.len())] {
            assert_eq!(read(&changed, key, &mut vec![0.0; width]), None, "a changed entry is read (change {change})");
        }
    }
}

/// Flips bits of an entry, shortens it, lengthens it, or puts a part of the entry of another key into it. It makes one
/// change at a time, and copies no bytes of the input: the fuzzer sees the checksum compared, and could copy it into
/// the entry.
fn changed(entry: &[u8], row: &[f32], other: [u8; 32], change: u8, [one, two]: [usize; 2], by: u8) -> Vec<u8> {
    let mut changed = entry.to_vec();
    match change % 4 {
        0 => {
            changed[one % entry.len()] ^= by;
            changed[two % entry.len()] ^= by.rotate_left(3);
        }
        1 => changed.truncate(one % entry.len()),
        2 => changed.resize(entry.len() + 1 + one % 64, by),
        _ => {
            let reversed: Vec<f32> = row.iter().rev().copied().collect();
            let other = write(other, &reversed, by % 2 != 0, VectorEncoding::Exact);
            let end = entry.len().min(other.len());
            let (start, end) = (one % end, (two % end) + 1);
            if start < end {
                changed[start..end].copy_from_slice(&other[start..end]);
            }
        }
    }
    changed
}

/// A row of finite components: those that are not lose the highest bit of their exponent.
fn row(bytes: &[u8], in_halves: bool) -> Vec<f32> {
    if in_halves {
        let two = |two: &[u8]| u16::from_le_bytes([two[0], two[1]]);
        let finite = |bits: u16| if bits & 0x7c00 == 0x7c00 { bits & !0x4000 } else { bits };
        bytes.chunks_exact(2).map(|bytes| of_half(finite(two(bytes)))).collect()
    } else {
        let four = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        let finite = |bits: u32| if bits & 0x7f80_0000 == 0x7f80_0000 { bits & !0x4000_0000 } else { bits };
        bytes.chunks_exact(4).map(|bytes| f32::from_bits(finite(four(bytes)))).collect()
    }
}

/// The components that an entry says it has.
fn claimed(entry: &[u8]) -> usize {
    entry.get(4..8).map_or(0, |width| u32::from_le_bytes([width[0], width[1], width[2], width[3]]) as usize)
}

/// Reads an entry whose checksum is right by the description of the format alone: the row, whether it is one of 16-bit
/// floats, and whether only the beginning of the text was embedded.
fn decoded(entry: &[u8], width: usize) -> Option<(Vec<f32>, bool, bool)> {
    let (header, components) = entry.split_at_checked(HEADER)?;
    let (halves, bytes) = match header[3] & 0x7f {
        1 => (false, 4),
        2 => (true, 2),
        _ => return None,
    };
    let components = match &header[..3] {
        b"dv\x01" => components,
        b"dv\x02" => components.get(STAMP..)?,
        _ => return None,
    };
    if claimed(entry) != width || components.len() != width * bytes {
        return None;
    }
    let row: Vec<f32> = if halves {
        components.chunks_exact(2).map(|two| of_half(u16::from_le_bytes([two[0], two[1]]))).collect()
    } else {
        let four = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        components.chunks_exact(4).map(four).collect()
    };
    row.iter().all(|number| number.is_finite()).then_some((row, halves, header[3] & 0x80 != 0))
}

/// A 16-bit float, by its definition.
fn of_half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f32::from(bits & 0x3ff);
    sign * match i32::from(bits >> 10 & 0x1f) {
        0 => fraction * 0.5_f32.powi(24),
        31 => f32::INFINITY,
        exponent => (1024.0 + fraction) * 2.0_f32.powi(exponent - 25),
    }
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|number| number.to_bits()).collect()
}

/// The rest of an input. After its end, there are zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn place(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }
}
