//! Defines the argument that says how over-long texts are treated.

use clap::ValueEnum;
use docvector_embed::Truncation;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TooLongArg {
    /// Embed its beginning
    Truncate,
    /// Treat it as a line that cannot be embedded
    Error,
}

impl From<TooLongArg> for Truncation {
    fn from(too_long: TooLongArg) -> Self {
        match too_long {
            TooLongArg::Truncate => Self::Truncate,
            TooLongArg::Error => Self::Error,
        }
    }
}
