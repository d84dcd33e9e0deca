//! Says what a text is, a document or a query: [`InputKind`].

use crate::named::named;

/// The kind of the texts. Many models embed a document and a query about it differently, so the caller always says
/// which one it is.
///
/// Every [`Batch`](crate::Batch) has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InputKind {
    /// A text that a search finds.
    Document,
    /// A text to search with.
    Query,
}

named! {
    /// Returns the name: `document` or `query`.
    InputKind, "a kind of text",
    Document = "document",
    Query = "query",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::check_names;

    #[test]
    fn names_are_read_back() {
        check_names(InputKind::ALL);
    }
}
