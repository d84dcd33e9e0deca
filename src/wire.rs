//! Names what the crate's own service and its clients write on the wire: headers, media types, the mark of a frame.

/// The kind of the texts.
pub(crate) const KIND: &str = "x-embed-kind";
/// The lane of the request.
pub(crate) const LANE: &str = "x-embed-lane";
/// The routing key, percent-encoded.
pub(crate) const KEY: &str = "x-embed-key";
/// The tenant, percent-encoded.
pub(crate) const TENANT: &str = "x-embed-tenant";
/// The id of the space: wanted in a request, had in a reply.
pub(crate) const SPACE: &str = "x-embed-space";
/// What is to be done with a text that is too long.
pub(crate) const TRUNCATION: &str = "x-embed-truncation";
/// The time that the client still has, in milliseconds.
pub(crate) const TIMEOUT: &str = "request-timeout-ms";
/// The trace that the request belongs to, as W3C's Trace Context has it.
pub(crate) const TRACE: &str = "traceparent";

/// The texts of a reply whose rows a cache had.
pub(crate) const CACHED: &str = "x-embed-cached";
/// The texts of a reply that were like another one.
pub(crate) const DEDUPLICATED: &str = "x-embed-deduplicated";
/// The tokens that were charged, if they are known exactly.
pub(crate) const TOKENS: &str = "x-embed-tokens";
/// The texts of a reply that were truncated.
pub(crate) const TRUNCATED: &str = "x-embed-truncated";
/// The dimension of each row.
pub(crate) const DIMENSION: &str = "x-embed-dimension";
/// The kind of an error.
pub(crate) const ERROR: &str = "x-embed-error";

/// The media type of rows alone: little-endian f32, row after row.
pub(crate) const ROWS: &str = "application/octet-stream";
/// The media type of rows behind a description.
pub(crate) const FRAMED: &str = "application/vnd.docvector.embeddings";
/// The bytes that a frame begins with.
pub(crate) const MAGIC: &[u8; 4] = b"DVE1";
