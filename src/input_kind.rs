//! Says what a text is, a document or a query: [`InputKind`].

use crate::named::named;

/// What the texts are: many models embed a document and a query about it differently, so the caller always says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InputKind {
    /// A text to be found.
    Document,
    /// A text to find others by.
    Query,
}

named! {
    /// The name: `document` or `query`.
    InputKind, "a kind of text",
    Document = "document",
    Query = "query",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for &kind in InputKind::ALL {
            assert_eq!(kind.to_string().parse::<InputKind>().expect("a name"), kind);
        }
    }
}
