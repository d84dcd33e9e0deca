//! Reads the body of a request, within its limits of bytes, time and memory: [`read_body`].

use std::{pin::Pin, time::Duration};

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
/// The slowest client that is waited for, beside the set time.
const BYTES_PER_SECOND: usize = 128 << 10;
/// The first room of a body.
const FIRST: usize = 8 << 10;

/// The body of a request, or why there is none.
#[derive(Debug)]
pub(in crate::server) enum Body {
    Whole(Vec<u8>),
    /// It has more bytes than a request may have.
    TooLarge,
    /// There is no room now for so many bytes of it.
    NoRoom {
        bytes: usize,
    },
    /// It did not come in time.
    TooSlow,
    /// It ended before it was complete.
    Cut,
    /// It is compressed, which is not read.
    Compressed,
}

/// Reads a body of at most so many bytes, in at most this time and a time by its size. The share takes room for each byte.
pub(in crate::server) async fn read_body(
    headers: &HeaderMap,
    mut body: HttpBody,
    max_bytes: usize,
    time: Duration,
    share: &mut MemoryShare,
) -> Body {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes());
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        discard(headers, body);
        return Body::Compressed;
    }
    let told = body.size_hint().exact();
    if told.is_some_and(|bytes| bytes > max_bytes as u64) {
        discard(headers, body);
        return Body::TooLarge;
    }
    let told = told.map_or(0, |bytes| bytes as usize);
    let mut bytes = Vec::new();
    let end = Instant::now() + time + Duration::from_secs((told / BYTES_PER_SECOND) as u64);
    loop {
        let piece = match timeout_at(end, next_piece(&mut body)).await {
            Err(_) => return Body::TooSlow,
            Ok(None) => return Body::Whole(bytes),
            Ok(Some(Err(_))) => return Body::Cut,
            Ok(Some(Ok(piece))) => piece,
        };
        let needed = bytes.len() + piece.len();
        if needed > max_bytes {
            discard(headers, body);
            return Body::TooLarge;
        }
        // Room is taken as the bytes come, doubled like the buffer: what is only told takes none.
        if needed > bytes.capacity() {
            let wanted = needed.max(bytes.capacity() * 2).max(FIRST);
            let wanted = if told >= needed { wanted.min(told) } else { wanted };
            if !share.grow(wanted - bytes.capacity()) {
                discard(headers, body);
                return Body::NoRoom { bytes: wanted };
            }
            bytes.reserve_exact(wanted - bytes.len());
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Returns the next piece of data; `None` at the end.
async fn next_piece(body: &mut HttpBody) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
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

/// Reads the body of a request that is refused and throws it away, beside the reply, as far as that is sensible: a client
/// that still sends would not see the reply if its connection were cut.
pub(in crate::server) fn discard(headers: &HeaderMap, mut body: HttpBody) {
    // A client with `Expect` waits for the reply before it sends the body.
    if headers.contains_key(header::EXPECT) || body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let end = Instant::now() + DISCARDED_TIME;
        let mut left = DISCARDED_BYTES;
        while let Ok(Some(Ok(piece))) = timeout_at(end, next_piece(&mut body)).await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    });
}
