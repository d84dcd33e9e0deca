//! Holds one result per text: [`Each`].

mod bisection;
mod failing_texts;
mod results;
mod run;

pub(super) use self::run::embed_each;
use crate::{Charges, Embeddings, Error, Result, Usage};

/// One result per text: a row, or the error that says why there is none.
///
/// ```
/// use docvector_embed::{Batch, EmbedderExt, provider::Fake};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let each = Fake::new(8).embed_each(Batch::documents(&["good", "", "good too"])).await;
/// assert!(each.result(0).is_ok() && each.result(2).is_ok());
/// assert_eq!(each.result(1).unwrap_err().bad_texts()[0].index, 1);
/// assert_eq!(each.embeddings().unwrap().len(), 2);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Each {
    embeddings: Option<Embeddings>,
    /// The row of each text, or the error that says why it has none.
    outcomes: Vec<Result<usize>>,
    charges: Charges,
}

impl Each {
    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Returns `true` if there were no texts.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Returns the vector of text `i`, or the error that says why it has none.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len).
    #[allow(clippy::missing_errors_doc, reason = "the error is the text's own")]
    pub fn result(&self, i: usize) -> Result<&[f32], &Error> {
        match (&self.outcomes[i], &self.embeddings) {
            (Ok(row), Some(embeddings)) => Ok(embeddings.row(*row)),
            (Err(error), _) => Err(error),
            (Ok(_), None) => Ok(&[]),
        }
    }

    /// Iterates over the results, in the order of the texts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<&[f32], &Error>> {
        (0..self.len()).map(|i| self.result(i))
    }

    /// Iterates over the texts without a vector: the index, ascending, and the error.
    pub fn errors(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.outcomes.iter().enumerate().filter_map(|(i, outcome)| outcome.as_ref().err().map(|error| (i, error)))
    }

    /// Returns the rows of the texts that have one, in their order; `None` if no text has one.
    pub const fn embeddings(&self) -> Option<&Embeddings> {
        self.embeddings.as_ref()
    }

    /// Takes the rows of the texts that have one.
    pub fn into_embeddings(self) -> Option<Embeddings> {
        self.embeddings
    }

    /// Returns `true` if only the beginning of text `i` was embedded.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len).
    pub fn is_truncated(&self, i: usize) -> bool {
        let cut = |row: &usize| self.embeddings.as_ref().is_some_and(|all| all.is_truncated(*row));
        self.outcomes[i].as_ref().is_ok_and(cut)
    }

    /// Returns the cost of all calls, with the known cost of failed ones.
    pub const fn usage(&self) -> Usage {
        self.charges.usage()
    }

    /// Returns the cost of all calls, per payee.
    pub const fn charges(&self) -> &Charges {
        &self.charges
    }
}
