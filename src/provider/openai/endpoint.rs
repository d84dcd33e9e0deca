//! Holds the settings of an embedder that was built: where requests go, and what they and the replies hold.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use reqwest::{Url, header::HeaderMap};

use super::body_fields::BodyFields;
use crate::{
    Batch, Limits, Payee, Prompts, Space,
    http::Http,
    named::named,
    provider::service_headers::{self, ServedBy},
};

/// The settings that every call of an [`OpenAi`](crate::provider::OpenAi) shares.
pub(in crate::provider) struct Endpoint {
    /// The text of `Display`: `openai/text-embedding-3-small`.
    pub(super) name: String,
    /// OpenTelemetry's name of the provider.
    pub(super) vendor: &'static str,
    pub(in crate::provider) payee: Payee,
    pub(in crate::provider) url: Url,
    pub(in crate::provider) headers: HeaderMap,
    /// The model's name in the request; `None` if the URL names the model.
    pub(in crate::provider) model: Option<String>,
    pub(super) dimensions: Option<usize>,
    pub(super) encoding: OpenAiEncoding,
    pub(super) body_fields: BodyFields,
    pub(in crate::provider) space: Space,
    /// The limits that were set.
    pub(super) limits: Limits,
    /// The most texts per request that a refusal has told; `usize::MAX` before.
    pub(super) told_texts: AtomicUsize,
    pub(in crate::provider) http: Http,
    /// Whether the log has the warning that another model answers.
    pub(super) told_other_model: AtomicBool,
    /// For [`Remote`](crate::provider::Remote) alone: whether the server is the crate's own service, as far as is known.
    /// Only then requests say in headers how a batch is to be embedded.
    pub(super) is_own_service: Option<AtomicBool>,
}

impl Endpoint {
    /// Returns the limits of a request: those that were set, and the texts that the server has said it takes.
    pub(in crate::provider) fn limits(&self) -> Limits {
        let told = self.told_texts.load(Ordering::Relaxed);
        match self.limits.texts {
            Some(texts) if texts <= told => self.limits.clone(),
            None if told == usize::MAX => self.limits.clone(),
            _ => self.limits.clone().with_texts(told),
        }
    }

    /// Returns who answers, as far as is known.
    pub(super) fn served_by(&self) -> ServedBy {
        match &self.is_own_service {
            Some(is_own) if is_own.load(Ordering::Relaxed) => ServedBy::Own,
            _ => ServedBy::Other,
        }
    }

    /// Returns the prompts that the client may have to put before texts. The crate's own service puts them itself.
    pub(super) fn client_prompts(&self, server: ServedBy) -> Option<&Prompts> {
        (server == ServedBy::Other).then(|| self.space.prompts())
    }

    /// Returns the headers of a request for this batch.
    pub(super) fn headers_of(&self, batch: &Batch<'_>, server: ServedBy) -> Cow<'_, HeaderMap> {
        if self.is_own_service.is_none() {
            return Cow::Borrowed(&self.headers);
        }
        let mut headers = self.headers.clone();
        service_headers::add_options(&mut headers, batch, self.space.id(), server);
        Cow::Owned(headers)
    }

    /// Remembers the most texts per request. Returns `true` if it is less than was known.
    pub(super) fn remember_texts(&self, told: usize) -> bool {
        told < self.told_texts.fetch_min(told, Ordering::Relaxed)
    }
}

/// How a request asks for vectors: see [`with_encoding`](crate::provider::OpenAiBuilder::with_encoding).
///
/// The reply is decoded by what it contains, whatever was asked for.
///
/// ```
/// use docvector_embed::provider::{OpenAi, OpenAiEncoding};
/// # fn main() -> docvector_embed::Result<()> {
/// let builder = OpenAi::builder("text-embedding-3-small").with_api_key("sk-...");
/// let embedder = builder.with_encoding(OpenAiEncoding::Float).build()?;
/// assert_eq!("float".parse::<OpenAiEncoding>()?, OpenAiEncoding::Float);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenAiEncoding {
    /// As base64 of little-endian 32-bit floats: a quarter of the bytes, and exact.
    #[default]
    Base64,
    /// As JSON numbers, for servers that support nothing else.
    Float,
}

named! {
    /// The name, which is the API's: `base64` or `float`.
    OpenAiEncoding, "an encoding",
    Base64 = "base64",
    Float = "float",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_have_names_both_ways() {
        crate::named::check_names(OpenAiEncoding::ALL);
    }
}
