//! Reads requests for vectors: [`EmbedRequest`], whatever the dialect.

mod body;
mod fields;
mod headers;
mod input;
mod native_and_tei;
mod openai;

pub(super) use self::{
    body::{Body, discard, read_body},
    fields::{BadBody, Fields},
    headers::{ReplyFormat, options_of_headers, reply_format, request_id},
    input::Input,
    native_and_tei::of_embed,
    openai::of_openai,
};
use super::dialect::Dialect;
use crate::{OwnedOptions, packed::PackedTexts};

/// A request for vectors.
#[derive(Debug)]
pub(super) struct EmbedRequest {
    pub(super) texts: PackedTexts,
    /// Token ids in place of texts; each list stands for one text.
    pub(super) ids: Vec<Vec<u32>>,
    pub(super) options: OwnedOptions,
    pub(super) dialect: Dialect,
    /// The format of the rows, if the reply is JSON.
    pub(super) encoding: Encoding,
    /// The model's name in the request.
    pub(super) model: Option<String>,
    /// The dimensions that the request wants.
    pub(super) dimensions: Option<u64>,
    /// Whether the request wants vectors of length 1; `None` if it does not say.
    pub(super) normalize: Option<bool>,
    /// The time in milliseconds after which the result is of no use.
    pub(super) timeout_ms: Option<u64>,
}

/// The form of a vector in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Numbers,
    Base64,
}
