//! Says where requests go, and what they and the replies hold.

use reqwest::{Url, header::HeaderMap};

use crate::{Limits, Payee, Space, http::Http};

/// What a builder has settled: where requests go, what they say, and what the replies hold.
pub(super) struct Endpoint {
    /// What `Display` shows: `openai/text-embedding-3-small`.
    pub(super) name: String,
    /// OpenTelemetry's name of who answers.
    pub(super) vendor: &'static str,
    pub(super) payee: Payee,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// What the request calls the model; `None` where the URL names it.
    pub(super) model: Option<String>,
    pub(super) dimensions: Option<usize>,
    pub(super) encoding: OpenAiEncoding,
    pub(super) space: Space,
    pub(super) limits: Limits,
    pub(super) http: Http,
}

/// How vectors are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenAiEncoding {
    /// As base64 of little-endian 32-bit floats: a quarter of the bytes, and exact.
    #[default]
    Base64,
    /// As JSON numbers, for servers that know nothing else. Which they answer with is seen, not believed.
    Float,
}
