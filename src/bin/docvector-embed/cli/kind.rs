//! Defines the argument that says whether texts are documents or queries.

use clap::ValueEnum;
use docvector_embed::InputKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    Document,
    Query,
}

impl From<KindArg> for InputKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Document => Self::Document,
            KindArg::Query => Self::Query,
        }
    }
}
