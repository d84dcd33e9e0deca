//! The body of a reply of vectors: [`ReplyBody`]. It holds its call and its memory until it is sent or the client left.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::json_rows::JsonRows;
use crate::{
    Embeddings,
    server::{call::Call, memory::MemoryShare, metrics::Outcome},
};

/// A body that is sent piece by piece.
#[derive(Debug)]
pub(in crate::server) struct ReplyBody {
    source: Source,
    call: Call,
    status: u16,
    /// Held until the body goes.
    _share: Option<MemoryShare>,
}

/// Where the bytes of a body come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Two pieces that are there; each is empty once it is sent.
    Pieces(Bytes, Bytes),
    /// Rows that are written as they are sent, and the first piece of them.
    Json(Bytes, Box<JsonRows>),
}

impl Source {
    /// Sends a head, and rows as they lie in memory.
    pub(super) fn of_rows(head: Vec<u8>, embeddings: Embeddings) -> Self {
        Self::Pieces(head.into(), little_endian(embeddings))
    }

    /// Sends rows as JSON. A small reply is written at once, so that its length is known.
    pub(super) fn of_json(mut rows: JsonRows) -> Self {
        let first = rows.next_piece().unwrap_or_default().into();
        if rows.is_done() { Self::Pieces(first, Bytes::new()) } else { Self::Json(first, Box::new(rows)) }
    }

    fn next(&mut self) -> Option<Bytes> {
        let filled = |piece: &mut Bytes| Some(std::mem::take(piece)).filter(|piece| !piece.is_empty());
        match self {
            Self::Pieces(one, two) => filled(one).or_else(|| filled(two)),
            Self::Json(first, rows) => filled(first).or_else(|| rows.next_piece().map(Bytes::from)),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Pieces(one, two) => one.is_empty() && two.is_empty(),
            Self::Json(first, rows) => first.is_empty() && rows.is_done(),
        }
    }
}

impl ReplyBody {
    pub(super) const fn new(source: Source, status: u16, call: Call, share: Option<MemoryShare>) -> Self {
        Self { source, call, status, _share: share }
    }

    /// Makes the body of a refusal with this status.
    pub(in crate::server) fn of_refusal(body: Bytes, status: u16, call: Call) -> Self {
        Self::new(Source::Pieces(body, Bytes::new()), status, call, None)
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.source.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Pieces(one, two) => SizeHint::with_exact((one.len() + two.len()) as u64),
            Source::Json(..) => SizeHint::default(),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // If bytes are left, the client has gone.
        if self.source.is_done() {
            self.call.end(Outcome::of_status(self.status));
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
