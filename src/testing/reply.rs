//! Makes the answers of the simulated server and their bodies: [`Reply`], [`Body`].

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    Response,
    body::{Bytes, Frame, SizeHint},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio::time::{Sleep, sleep};

use super::{api_error::ApiError, files::ContentReader};

pub(super) type Reply = Response<Body>;

/// A body that is there or is written as it is sent, whole or as a fault wants it.
pub(super) struct Body {
    source: Source,
    /// The bytes of the body that have not been sent.
    left: u64,
    /// Sent so far and not yet given to hyper.
    ready: Bytes,
    /// The connection is closed after so many more bytes.
    cut_after: Option<u64>,
    /// The most bytes of a piece, and the pause before each.
    pace: Option<(usize, Duration)>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Whether hyper had a chance to send what it has before the connection is cut.
    has_yielded: bool,
}

enum Source {
    Bytes(Bytes),
    Content(ContentReader),
}

impl Body {
    fn new(source: Source, left: u64) -> Self {
        let ready = Bytes::new();
        Self { source, left, ready, cut_after: None, pace: None, pause: None, has_yielded: false }
    }

    pub(super) fn of_content(content: ContentReader, bytes: u64) -> Self {
        Self::new(Source::Content(content), bytes)
    }

    pub(super) fn cut_after(&mut self, bytes: u64) {
        self.cut_after = (bytes < self.left).then_some(bytes);
    }

    pub(super) fn slow_down(&mut self, bytes: usize, pause: Duration) {
        self.pace = Some((bytes, pause));
    }

    /// Makes the next bytes ready; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.ready.is_empty() {
            self.ready = match &mut self.source {
                Source::Bytes(bytes) => std::mem::take(bytes),
                Source::Content(content) => content.next_piece()?.unwrap_or_default().into(),
            };
        }
        Ok(!self.ready.is_empty())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        let left = bytes.len() as u64;
        Self::new(Source::Bytes(bytes.into()), left)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        if body.cut_after == Some(0) {
            if !body.has_yielded {
                // Hyper sends what it has before it asks again.
                body.has_yielded = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        if let Some((_, pause)) = body.pace {
            let pause = body.pause.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(pause.as_mut().poll(cx));
            body.pause = None;
        }
        if !body.fill()? {
            return Poll::Ready(None);
        }
        let most = body.pace.map_or(usize::MAX, |(bytes, _)| bytes);
        let most = most.min(body.cut_after.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX)));
        let piece = body.ready.split_to(body.ready.len().min(most));
        body.left = body.left.saturating_sub(piece.len() as u64);
        body.cut_after = body.cut_after.map(|left| left - piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Makes an answer of a body that is there.
pub(super) fn answer(status: u16, content_type: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Body::from(body));
    // Statuses come from tests, so they can be any number.
    *reply.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub(super) fn json(status: u16, value: &Value) -> Reply {
    answer(status, "application/json", value.to_string().into_bytes())
}

pub(super) fn refusal(error: &ApiError) -> Reply {
    json(error.status, &error.body())
}

/// Makes an answer of the content of a file.
pub(super) fn content(content: ContentReader, bytes: u64) -> Reply {
    let mut reply = Response::new(Body::of_content(content, bytes));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    reply
}

/// Adds a header, unless HTTP does not permit it. There is one content type, and the body alone decides its length:
/// Hyper panics at another one.
pub(super) fn add_header(reply: &mut Reply, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
        if name == CONTENT_TYPE {
            reply.headers_mut().insert(name, value);
        } else if name != CONTENT_LENGTH {
            reply.headers_mut().append(name, value);
        }
    }
}
