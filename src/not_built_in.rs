//! The error of a part that this build does not have: [`not_built_in`].

use crate::{Error, ErrorKind};

/// Makes the error of a part that this build does not have.
#[cfg_attr(
    all(
        feature = "onnx",
        feature = "openai",
        feature = "postgres",
        feature = "redis",
        feature = "remote",
        feature = "sqlite"
    ),
    allow(dead_code, reason = "this build has everything")
)]
pub(crate) fn not_built_in(what: &str, feature: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{what} needs the feature `{feature}` of docvector-embed, which is off"))
}
