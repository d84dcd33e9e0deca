//! Decompresses gzip, and says what is wrong with it: [`Gunzip`].

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

/// The first bytes of gzip.
pub(super) const MAGIC: &[u8] = b"\x1F\x8B";

/// A reader of what is compressed, which may have several members.
pub(super) struct Gunzip<R>(MultiGzDecoder<R>);

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(reader: R) -> Self {
        Self(MultiGzDecoder::new(reader))
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).map_err(explained)
    }
}

/// Puts the decoder's errors into words. Others come from the reader below.
fn explained(error: io::Error) -> io::Error {
    let kind = error.kind();
    let message = match kind {
        ErrorKind::UnexpectedEof => "its gzip data ends too early: the file is truncated, copy it again".to_owned(),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            format!("its gzip data is damaged ({error}): copy it again")
        }
        _ => return error,
    };
    io::Error::new(kind, message)
}

/// A helper of tests.
#[cfg(test)]
pub(super) mod testing {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    pub(in crate::input) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("a vector takes everything");
        encoder.finish().expect("a vector takes everything")
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::{testing::gzip, *};

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Gunzip::new(BufReader::with_capacity(3, bytes)).read_to_end(&mut text).map(|_| text)
    }

    /// Gives a byte at a time, with a pause before each.
    struct Slow<'a> {
        bytes: &'a [u8],
        is_pause: bool,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.is_pause = !self.is_pause;
            if self.is_pause { Err(ErrorKind::WouldBlock.into()) } else { self.bytes.read(&mut into[..1]) }
        }
    }

    #[test]
    fn members_are_read_one_after_the_other() {
        let two = [gzip(b"one\n"), gzip(b""), gzip(b"two\n")].concat();
        assert_eq!(read(&two).expect("whole"), b"one\ntwo\n");
    }

    #[test]
    fn a_pause_is_no_end() {
        let bytes = [gzip(&b"line\n".repeat(1000)), gzip(b"end")].concat();
        let mut reader = Gunzip::new(BufReader::with_capacity(7, Slow { bytes: &bytes, is_pause: false }));
        let (mut text, mut part) = (Vec::<u8>::new(), [0; 100]);
        loop {
            match reader.read(&mut part) {
                Ok(0) => break,
                Ok(count) => text.extend(&part[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(text, [&b"line\n".repeat(1000)[..], b"end"].concat());
    }

    #[test]
    fn truncated_and_damaged_data_is_an_error() {
        let text: Vec<u8> = (0..10_000_u32).flat_map(|number| number.to_le_bytes()).collect();
        let whole = gzip(&text);
        for length in [5, 15, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            let error = read(&whole[..length]).expect_err("truncated");
            assert!(error.to_string().contains("truncated"), "{length}: {error}");
        }
        let mut damaged = whole.clone();
        damaged[whole.len() - 6] ^= 1;
        assert!(read(&damaged).expect_err("damaged").to_string().contains("damaged"));
        let followed = [&whole[..], b"0123456789"].concat();
        assert!(read(&followed).expect_err("more than gzip").to_string().contains("damaged"));
    }
}
