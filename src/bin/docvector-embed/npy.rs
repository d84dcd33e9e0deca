//! Writes and reads the header of a NumPy file of 32-bit floats: version 1.0, little-endian, row after row.

use std::io::{self, Read};

/// The size of every header written here. It is fixed, so that the header can be overwritten when the number of rows is
/// known.
pub(crate) const HEADER_BYTES: usize = 128;

/// Magic bytes, version 1.0.
pub(crate) const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// The bytes before the description: the magic bytes and the description's length.
const PREFIX_BYTES: usize = MAGIC.len() + 2;

/// Returns the header of a matrix.
pub(crate) fn header(rows: u64, width: usize) -> [u8; HEADER_BYTES] {
    let description = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut header = [b' '; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..PREFIX_BYTES].copy_from_slice(&((HEADER_BYTES - PREFIX_BYTES) as u16).to_le_bytes());
    // The description fits: with two numbers of 20 digits it has 97 bytes.
    header[PREFIX_BYTES..PREFIX_BYTES + description.len()].copy_from_slice(description.as_bytes());
    header[HEADER_BYTES - 1] = b'\n';
    header
}

/// Appends a row as bytes.
pub(crate) fn push_row(row: &[f32], bytes: &mut Vec<u8>) {
    bytes.extend(row.iter().flat_map(|component| component.to_le_bytes()));
}

/// Reads the header of a matrix: its rows, and their width. The components follow.
pub(crate) fn read_shape(reader: &mut impl Read) -> io::Result<(u64, usize)> {
    let mut prefix = [0; PREFIX_BYTES];
    reader.read_exact(&mut prefix)?;
    let length = u16::from_le_bytes([prefix[MAGIC.len()], prefix[MAGIC.len() + 1]]);
    let mut description = vec![0; usize::from(length)];
    reader.read_exact(&mut description)?;
    let shape = prefix.starts_with(MAGIC).then(|| shape(&description)).flatten();
    shape.ok_or_else(|| {
        let what = "it is no matrix of 32-bit floats, row after row, as `embed` writes it";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Reads the description of a matrix.
fn shape(description: &[u8]) -> Option<(u64, usize)> {
    let shape = str::from_utf8(description)
        .ok()?
        .trim_end()
        .strip_prefix("{'descr': '<f4', 'fortran_order': False, 'shape': (")?
        .strip_suffix("), }")?;
    let (rows, width) = shape.split_once(", ")?;
    Some((rows.parse().ok()?, width.parse().ok()?))
}

/// Reads the width and the components of a matrix, or `None` if the header is not like one of [`header`].
pub(crate) fn parse(mut bytes: &[u8]) -> Option<(usize, Vec<f32>)> {
    let (rows, width) = read_shape(&mut bytes).ok()?;
    if usize::try_from(rows).ok()?.checked_mul(width)?.checked_mul(4)? != bytes.len() {
        return None;
    }
    Some((width, components(bytes).collect()))
}

/// Reads components as [`push_row`] writes them.
pub(crate) fn components(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_of_one_size_and_aligned() {
        for (rows, width) in [(0, 384), (1, 1), (100_000, 768), (u64::MAX, usize::MAX)] {
            let header = header(rows, width);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
            let text = String::from_utf8_lossy(&header[PREFIX_BYTES..]);
            assert!(text.contains(&format!("'shape': ({rows}, {width}), }}")), "{text}");
        }
        assert_eq!(header(1, 1)[..10], *b"\x93NUMPY\x01\x00\x76\x00");
    }

    #[test]
    fn reads_what_it_writes() {
        let mut bytes = header(2, 3).to_vec();
        push_row(&[1.0, -0.5, 0.1], &mut bytes);
        push_row(&[f32::MIN_POSITIVE, 0.0, 7.0], &mut bytes);
        assert_eq!(parse(&bytes), Some((3, vec![1.0, -0.5, 0.1, f32::MIN_POSITIVE, 0.0, 7.0])));
        assert_eq!(parse(&header(0, 384)), Some((384, Vec::new())));
    }

    #[test]
    fn refuses_anything_else() {
        let mut bytes = header(1, 1).to_vec();
        assert_eq!(parse(&bytes), None, "a row is missing");
        push_row(&[1.0, 2.0], &mut bytes);
        assert_eq!(parse(&bytes), None, "a component too many");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"\x93NUMPY\x02\x00\x76\x00"), None);
        let double = String::from_utf8_lossy(&header(0, 1)[10..]).replace("<f4", "<f8");
        let double = [&header(0, 1)[..10], double.as_bytes()].concat();
        assert_eq!(parse(&double), None);
    }
}
