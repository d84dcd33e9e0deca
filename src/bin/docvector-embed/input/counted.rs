//! Counts the bytes that are taken from a reader: [`CountedReader`].

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A reader whose bytes are counted as they are taken.
pub(super) struct CountedReader<R> {
    reader: R,
    count: Arc<AtomicU64>,
}

impl<R: BufRead> CountedReader<R> {
    pub(super) const fn new(reader: R, count: Arc<AtomicU64>) -> Self {
        Self { reader, count }
    }
}

impl<R: BufRead> BufRead for CountedReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.count.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<R: BufRead> Read for CountedReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_taken_counts() {
        let count = Arc::new(AtomicU64::new(0));
        let mut reader = CountedReader::new(&b"0123456789"[..], Arc::clone(&count));
        assert_eq!(reader.fill_buf().expect("read").len(), 10);
        assert_eq!(count.load(Ordering::Relaxed), 0);
        reader.read_exact(&mut [0; 3]).expect("read");
        reader.consume(2);
        assert_eq!(count.load(Ordering::Relaxed), 5);
        reader.read_to_end(&mut Vec::new()).expect("read");
        assert_eq!(count.load(Ordering::Relaxed), 10);
    }
}
