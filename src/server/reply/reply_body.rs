//! The body of a reply of vectors: [`ReplyBody`]. Its bytes hold the call and its memory until they have left.
//!
//! The HTTP layer takes the pieces of a body before it writes them. So each piece holds a share of the [`Guard`], which
//! goes with the last byte, and not with the body.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::json_rows::JsonRows;
use crate::{
    Embeddings,
    server::{call::Call, memory::MemoryShare, metrics::Outcome},
};

/// The bytes of a piece. The connection's buffer takes a few of them.
const PIECE: usize = 64 << 10;

/// A body that is sent piece by piece.
#[derive(Debug)]
pub(in crate::server) struct ReplyBody {
    source: Source,
    guard: Arc<Guard>,
    /// Whether the executor had its turn since the last piece.
    has_yielded: bool,
}

/// Where the bytes of a body come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A head, and rows as they lie in memory.
    Rows(Vec<u8>, Bytes),
    /// Rows that are written as they are sent, and the first piece of them.
    Json(Vec<u8>, Option<Box<JsonRows>>),
}

/// Ends a call when the last of its bytes has left, or its client.
#[derive(Debug)]
struct Guard {
    call: Call,
    status: u16,
    /// Whether all pieces were handed out.
    is_complete: AtomicBool,
    /// Held until then.
    _share: Option<MemoryShare>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // If pieces are left, the client has gone.
        if self.is_complete.load(Ordering::Relaxed) {
            self.call.end(Outcome::of_status(self.status));
        }
    }
}

/// Bytes that hold their guard.
struct Held<B>(B, #[allow(dead_code, reason = "held until the bytes go")] Arc<Guard>);

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl Source {
    /// Sends a head, and rows as they lie in memory.
    pub(super) fn of_rows(head: Vec<u8>, embeddings: Embeddings) -> Self {
        Self::Rows(head, little_endian(embeddings))
    }

    /// Sends rows as JSON. A small reply is written at once, so that its length is known.
    pub(super) fn of_json(mut rows: JsonRows) -> Self {
        let first = rows.next_piece().unwrap_or_default();
        Self::Json(first, (!rows.is_done()).then(|| Box::new(rows)))
    }

    /// Takes the next piece; `None` at the end.
    fn next(&mut self, guard: &Arc<Guard>) -> Option<Bytes> {
        let held = |piece: Vec<u8>| Bytes::from_owner(Held(piece, guard.clone()));
        match self {
            Self::Rows(head, _) if !head.is_empty() => Some(held(std::mem::take(head))),
            Self::Rows(_, rows) if rows.is_empty() => None,
            Self::Rows(_, rows) => {
                let piece = rows.split_to(rows.len().min(PIECE));
                Some(Bytes::from_owner(Held(piece, guard.clone())))
            }
            Self::Json(first, _) if !first.is_empty() => Some(held(std::mem::take(first))),
            Self::Json(_, rows) => rows.as_mut()?.next_piece().map(held),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Rows(head, rows) => head.is_empty() && rows.is_empty(),
            Self::Json(first, rows) => first.is_empty() && rows.as_ref().is_none_or(|rows| rows.is_done()),
        }
    }
}

impl ReplyBody {
    pub(super) fn new(source: Source, status: u16, call: Call, share: Option<MemoryShare>) -> Self {
        let is_complete = AtomicBool::new(source.is_done());
        let guard = Arc::new(Guard { call, status, is_complete, _share: share });
        Self { source, guard, has_yielded: true }
    }

    /// Makes the body of a reply without rows, with this status.
    pub(in crate::server) fn of_words(body: Vec<u8>, status: u16, call: Call, share: Option<MemoryShare>) -> Self {
        Self::new(Source::Json(body, None), status, call, share)
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // Writing numbers takes a fraction of a millisecond per piece. Others have their turn after each, probes above all.
        if !self.has_yielded {
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_yielded = false;
        let this = &mut *self;
        let piece = this.source.next(&this.guard);
        if this.source.is_done() {
            this.guard.is_complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Rows(head, rows) => SizeHint::with_exact((head.len() + rows.len()) as u64),
            Source::Json(first, None) => SizeHint::with_exact(first.len() as u64),
            Source::Json(_, Some(_)) => SizeHint::default(),
        }
    }
}

/// Returns the components as bytes, without a copy where memory is little-endian.
fn little_endian(embeddings: Embeddings) -> Bytes {
    struct Components(Vec<f32>);
    impl AsRef<[u8]> for Components {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    let mut components = match embeddings.len() {
        0 => Vec::new(),
        _ => embeddings.into_vectors().into_raw_vec_and_offset().0,
    };
    if cfg!(target_endian = "big") {
        components.iter_mut().for_each(|component| *component = f32::from_bits(component.to_bits().swap_bytes()));
    }
    Bytes::from_owner(Components(components))
}
