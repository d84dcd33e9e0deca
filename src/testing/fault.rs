//! Scripts how a request fails on its way: [`Fault`], [`Route`].

use std::time::Duration;

use super::api_error::ApiError;

/// A route of the simulated API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// `POST /v1/files`.
    CreateFile,
    /// `GET /v1/files`.
    ListFiles,
    /// `GET /v1/files/{id}`.
    GetFile,
    /// `GET /v1/files/{id}/content`.
    FileContent,
    /// `DELETE /v1/files/{id}`.
    DeleteFile,
    /// `POST /v1/batches`.
    CreateBatch,
    /// `GET /v1/batches`.
    ListBatches,
    /// `GET /v1/batches/{id}`.
    GetBatch,
    /// `POST /v1/batches/{id}/cancel`.
    CancelBatch,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `GET /v1/models` and `GET /v1/models/{id}`.
    Models,
}

/// A failure of one request, for [`Simulator::fail_next`](super::Simulator::fail_next).
///
/// ```
/// use docvector_embed::testing::{Fault, Route, Simulator};
/// # fn main() -> docvector_embed::Result<()> {
/// let simulator = Simulator::start()?;
/// // Three polls get a gateway's page, and one create has its effect but no answer.
/// simulator.fail_next(Route::GetBatch, 3, Fault::html(502));
/// simulator.fail_next(Route::CreateBatch, 1, Fault::lost_answer());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Fault(pub(super) Kind);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Reply { status: u16, content_type: &'static str, headers: Vec<(String, String)>, body: String },
    Cut,
    Hang,
    LostAnswer,
    HeldAnswer,
    CutUpload(u64),
    CutAnswer(u64),
    SlowAnswer { bytes: usize, pause: Duration },
    Delay(Duration),
}

impl Fault {
    /// The request gets an HTML page with this status, as gateways send it, and has no effect.
    pub fn html(status: u16) -> Self {
        let body = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n");
        Self(Kind::Reply { status, content_type: "text/html", headers: Vec::new(), body })
    }

    /// The request gets an error in OpenAI's form, with this status and code, and has no effect.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = ApiError::scripted(status, code, message).body().to_string();
        Self(Kind::Reply { status, content_type: "application/json", headers: Vec::new(), body })
    }

    /// The request gets this answer, which need not be JSON or an error, and has no effect.
    pub fn answer(status: u16, body: impl Into<String>) -> Self {
        Self(Kind::Reply { status, content_type: "application/json", headers: Vec::new(), body: body.into() })
    }

    /// The connection is closed before the request has an effect.
    pub fn cut() -> Self {
        Self(Kind::Cut)
    }

    /// The request has no effect and no answer. The connection stays open until the client closes it or the simulator
    /// ends.
    pub fn hang() -> Self {
        Self(Kind::Hang)
    }

    /// The request has its effect; then the connection is closed without an answer.
    pub fn lost_answer() -> Self {
        Self(Kind::LostAnswer)
    }

    /// The request has its effect; then the connection stays open without an answer, as with [`hang`](Self::hang).
    pub fn held_answer() -> Self {
        Self(Kind::HeldAnswer)
    }

    /// The connection is closed after so many bytes of the upload. No file exists afterwards. A shorter upload is
    /// closed at its end. On routes other than [`CreateFile`](Route::CreateFile) this is [`cut`](Self::cut).
    pub fn cut_upload(after_bytes: u64) -> Self {
        Self(Kind::CutUpload(after_bytes))
    }

    /// The connection is closed after so many bytes of the answer's body. A shorter answer is whole.
    pub fn cut_answer(after_bytes: u64) -> Self {
        Self(Kind::CutAnswer(after_bytes))
    }

    /// The answer's body comes in pieces of so many bytes, at least 1, with a pause of real time before each.
    pub fn slow_answer(bytes: usize, pause: Duration) -> Self {
        Self(Kind::SlowAnswer { bytes: bytes.max(1), pause })
    }

    /// The request is handled only after this real time.
    pub fn delay(by: Duration) -> Self {
        Self(Kind::Delay(by))
    }

    /// Adds a header, such as `retry-after`, to the answer of [`html`](Self::html), [`error`](Self::error) or
    /// [`answer`](Self::answer). A `content-type` replaces that of the answer. Other faults have no answer of their own
    /// and ignore it. A header that HTTP does not permit is ignored too, and so is a `content-length`.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Kind::Reply { headers, .. } = &mut self.0 {
            headers.push((name.into(), value.into()));
        }
        self
    }
}
