//! A connection that notices clients who are too slow: [`ConnectionIo`].

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// What a connection is doing.
#[derive(Debug, Default)]
pub(super) struct Activity(AtomicU8);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

impl Activity {
    /// The head of a request is complete.
    pub(super) fn begin(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// The head of the reply is there.
    pub(super) fn end(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }
}

/// A connection whose client must send the head of a request, and take its reply, in time.
#[derive(Debug)]
pub(super) struct ConnectionIo {
    stream: TcpStream,
    activity: Arc<Activity>,
    head_time: Duration,
    stall_time: Duration,
    /// Runs from the first byte of a head.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes little, and the bytes that it took meanwhile.
    stall: Option<Pin<Box<Sleep>>>,
    taken: usize,
}

/// The least bytes per second that a client must take of its reply.
const LEAST_RATE: u64 = 1024;

impl ConnectionIo {
    pub(super) const fn new(
        stream: TcpStream,
        activity: Arc<Activity>,
        head_time: Duration,
        stall_time: Duration,
    ) -> Self {
        Self { stream, activity, head_time, stall_time, head: None, stall: None, taken: 0 }
    }

    /// Fails if the head of a request takes too long.
    fn check_head(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.activity.0.load(Ordering::Relaxed) != HEAD {
            self.head = None;
            return Ok(());
        }
        let time = self.head_time;
        let head = self.head.get_or_insert_with(|| Box::pin(sleep(time)));
        match head.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Passes on what a write came to, and fails if the client takes too little for too long.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.taken = self.taken.saturating_add(*bytes);
            return written;
        }
        if written.is_ready() {
            return written;
        }
        let time = self.stall_time;
        loop {
            let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(time)));
            ready!(stall.as_mut().poll(cx));
            let enough = self.taken as u64 >= time.as_secs().saturating_mul(LEAST_RATE).max(1);
            if !enough {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // Enough was taken: another time begins.
            (self.stall, self.taken) = (None, 0);
        }
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            // The first byte after a reply begins another head.
            let _ = this.activity.0.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed);
        }
        this.check_head(cx)?;
        read
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
