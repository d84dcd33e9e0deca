//! Reads on a thread of its own what comes in its own time, so that whoever reads notices a pause: [`ReadAhead`].

use std::{
    io::{self, BufRead, ErrorKind, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use crate::{failure::Failure, threads::spawn};

/// The most bytes that are read at once, and the most reads that wait to be taken.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS: usize = 16;

/// The time without further bytes after which a pause is reported.
const PATIENCE: Duration = Duration::from_millis(100);

/// The time between two attempts to read a pipe that somebody made non-blocking.
const RETRY: Duration = Duration::from_millis(10);

/// A reader of standard input, a pipe and the like. It fails with [`ErrorKind::WouldBlock`] in a pause, and can be
/// asked again.
pub(super) struct ReadAhead {
    /// The bytes that were read. An empty chunk is the end.
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    /// Bytes of the chunk that were taken.
    taken: usize,
    has_ended: bool,
}

impl ReadAhead {
    /// Starts to read. The thread ends with the input, or at its next read after this reader was dropped.
    pub(super) fn start(reader: impl Read + Send + 'static) -> Result<Self, Failure> {
        let (sending, chunks) = sync_channel(CHUNKS);
        spawn("input", move || read(reader, &sending))?;
        Ok(Self { chunks, chunk: Vec::new(), taken: 0, has_ended: false })
    }

    /// Waits for the next chunk.
    fn next_chunk(&mut self) -> io::Result<()> {
        self.chunk = match self.chunks.recv_timeout(PATIENCE) {
            Ok(chunk) => chunk?,
            Err(RecvTimeoutError::Timeout) => return Err(ErrorKind::WouldBlock.into()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the thread that reads it ended early: this is a bug"));
            }
        };
        self.taken = 0;
        self.has_ended = self.chunk.is_empty();
        Ok(())
    }
}

impl BufRead for ReadAhead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.chunk.len() && !self.has_ended {
            self.next_chunk()?;
        }
        Ok(&self.chunk[self.taken..])
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

impl Read for ReadAhead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// Reads chunks and sends them on, until the input ends or the receiver is gone.
fn read(mut reader: impl Read, chunks: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let chunk = match reader.read(&mut chunk) {
            Ok(count) => {
                chunk.truncate(count);
                Ok(chunk)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(RETRY);
                continue;
            }
            Err(error) => Err(error),
        };
        let goes_on = chunk.as_ref().is_ok_and(|chunk| !chunk.is_empty());
        if chunks.send(chunk).is_err() || !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader of what is sent to it.
    struct Sent(Receiver<io::Result<&'static [u8]>>);

    impl Read for Sent {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.recv() {
                Ok(part) => part?.read(into),
                Err(_) => Ok(0),
            }
        }
    }

    #[test]
    fn a_pause_is_reported_and_nothing_is_lost() {
        let (sending, sent) = mpsc::channel();
        let mut reader = ReadAhead::start(Sent(sent)).expect("started");
        assert_eq!(reader.fill_buf().expect_err("a pause").kind(), ErrorKind::WouldBlock);
        sending.send(Ok(&b"one"[..])).expect("sent");
        // A busy machine may take its time.
        let first = loop {
            match reader.fill_buf() {
                Ok(bytes) => break bytes.to_vec(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        };
        assert_eq!(first, b"one");
        reader.consume(3);
        assert_eq!(reader.fill_buf().expect_err("a pause").kind(), ErrorKind::WouldBlock);
        sending.send(Err(ErrorKind::Interrupted.into())).expect("sent");
        sending.send(Err(ErrorKind::WouldBlock.into())).expect("sent");
        sending.send(Ok(b"two")).expect("sent");
        drop(sending);
        let mut rest = Vec::new();
        loop {
            match reader.read_to_end(&mut rest) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(rest, b"two");
        assert!(reader.fill_buf().expect("the end stays the end").is_empty());
    }

    #[test]
    fn all_bytes_come_in_order() {
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
        let mut reader = ReadAhead::start(io::Cursor::new(bytes.clone())).expect("started");
        let mut read = Vec::new();
        while reader.read_to_end(&mut read).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {}
        assert!(read == bytes);
    }

    #[test]
    fn an_error_of_the_input_is_one_here() {
        let (sending, sent) = mpsc::channel();
        sending.send(Ok(&b"one"[..])).expect("sent");
        sending.send(Err(io::Error::other("the disk is gone"))).expect("sent");
        let mut reader = ReadAhead::start(Sent(sent)).expect("started");
        let mut read = Vec::new();
        let error = loop {
            match reader.read_to_end(&mut read) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => break other.expect_err("broken"),
            }
        };
        assert_eq!((error.to_string().as_str(), read.as_slice()), ("the disk is gone", &b"one"[..]));
    }
}
