//! Reads the body of a request, within its limits of bytes, time and memory: [`read_body`].

use std::{pin::pin, time::Duration};

use axum::{
    body::{Body as HttpBody, Bytes, HttpBody as _},
    http::{HeaderMap, header},
};
use futures_util::future::poll_fn;
use tokio::time::{Instant, timeout_at};

use crate::server::memory::MemoryShare;

/// Of a body that is refused, so many bytes are read and thrown away, for so long: a client that still sends would not
/// see the reply.
const DISCARDED_BYTES: usize = 1 << 28;
const DISCARDED_TIME: Duration = Duration::from_secs(20);

/// The body of a request, or why there is none.
#[derive(Debug)]
pub(in crate::server) enum Body {
    Whole(Vec<u8>),
    /// It has more bytes than a request may have.
    TooLarge,
    /// There is no room for it now.
    NoRoom,
    /// It did not come in time.
    TooSlow,
    /// It ended before it was complete.
    Cut,
    /// It is compressed, which is not read.
    Compressed,
}

/// Reads a body of at most so many bytes, in at most this time. The share takes room for it before it is read.
pub(in crate::server) async fn read_body(
    headers: &HeaderMap,
    body: HttpBody,
    max_bytes: usize,
    time: Duration,
    share: &mut MemoryShare,
) -> Body {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes());
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        discard(headers, body).await;
        return Body::Compressed;
    }
    let told = body.size_hint().exact();
    if told.is_some_and(|bytes| bytes > max_bytes as u64) {
        discard(headers, body).await;
        return Body::TooLarge;
    }
    let told = told.map_or(0, |bytes| bytes as usize);
    if !share.grow(told) {
        discard(headers, body).await;
        return Body::NoRoom;
    }
    let mut bytes = Vec::new();
    bytes.reserve_exact(told);
    let mut body = pin!(body);
    let end = Instant::now() + time;
    loop {
        let piece = match timeout_at(end, next_piece(body.as_mut())).await {
            Err(_) => return Body::TooSlow,
            Ok(None) => return Body::Whole(bytes),
            Ok(Some(Err(_))) => return Body::Cut,
            Ok(Some(Ok(piece))) => piece,
        };
        if bytes.len() + piece.len() > max_bytes {
            discard_rest(headers, body).await;
            return Body::TooLarge;
        }
        // The length was not told: room is taken as it comes, doubled like the buffer.
        let more = (bytes.len() + piece.len()).saturating_sub(bytes.capacity());
        if more > 0 {
            let more = more.max(bytes.capacity()).max(8 << 10);
            if !share.grow(more) {
                discard_rest(headers, body).await;
                return Body::NoRoom;
            }
            bytes.reserve_exact(bytes.capacity() - bytes.len() + more);
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Returns the next piece of data; `None` at the end.
async fn next_piece(mut body: std::pin::Pin<&mut HttpBody>) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await? {
            Ok(frame) => {
                // Trailers are no part of the body.
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Reads a body that is refused and throws it away, as far as that is sensible.
pub(in crate::server) async fn discard(headers: &HeaderMap, body: HttpBody) {
    discard_rest(headers, pin!(body)).await;
}

async fn discard_rest(headers: &HeaderMap, mut body: std::pin::Pin<&mut HttpBody>) {
    // Such a client waits for the reply before it sends the body.
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let end = Instant::now() + DISCARDED_TIME;
    let mut left = DISCARDED_BYTES;
    while let Ok(Some(Ok(piece))) = timeout_at(end, next_piece(body.as_mut())).await {
        match left.checked_sub(piece.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
