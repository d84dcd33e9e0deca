//! Defines the argument that says whether texts are documents or queries.

use clap::ValueEnum;
use docvector_embed::InputKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Document,
    Query,
}

impl From<Kind> for InputKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Document => Self::Document,
            Kind::Query => Self::Query,
        }
    }
}
