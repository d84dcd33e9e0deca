//! A number of the engine for metrics: [`Figure`].

/// A number of the engine below, for the server's metrics.
///
/// Returned by the function that is given to [`ServedModel::with_figures`](super::ServedModel::with_figures).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Figure {
    /// The name, in lower case with `_`: `batches`.
    pub name: &'static str,
    /// What it counts, in one sentence.
    pub about: &'static str,
    /// The value so far. It never falls.
    pub value: f64,
}

impl Figure {
    /// Makes a figure of its name, what it counts, and its value so far.
    pub const fn new(name: &'static str, about: &'static str, value: f64) -> Self {
        Self { name, about, value }
    }
}
