//! Holds a result for each text: [`Each`].

mod bisection;
mod results;
mod run;

pub(super) use self::run::embed_each;
use crate::{Charges, Embeddings, Error, Result, Usage};

/// A result for each text: a row, or why there is none.
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
    /// The row of each text, or why it has none.
    outcomes: Vec<Result<usize>>,
    charges: Charges,
}

impl Each {
    /// How many texts there were.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether there were no texts.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The vector of text `i`, or why it has none.
    ///
    /// # Panics
    /// Where `i` is not below [`len`](Self::len).
    #[allow(clippy::missing_errors_doc, reason = "the error is the text's own")]
    pub fn result(&self, i: usize) -> Result<&[f32], &Error> {
        match (&self.outcomes[i], &self.embeddings) {
            (Ok(row), Some(embeddings)) => Ok(embeddings.row(*row)),
            (Err(error), _) => Err(error),
            (Ok(_), None) => Ok(&[]),
        }
    }

    /// The results, in the order of the texts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<&[f32], &Error>> {
        (0..self.len()).map(|i| self.result(i))
    }

    /// The texts without a vector, by index, ascending, and why.
    pub fn errors(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.outcomes.iter().enumerate().filter_map(|(i, outcome)| outcome.as_ref().err().map(|error| (i, error)))
    }

    /// The rows of the texts that have one, in their order; `None` where there is none.
    pub const fn embeddings(&self) -> Option<&Embeddings> {
        self.embeddings.as_ref()
    }

    /// Takes the rows of the texts that have one.
    pub fn into_embeddings(self) -> Option<Embeddings> {
        self.embeddings
    }

    /// Whether only the beginning of text `i` was embedded.
    ///
    /// # Panics
    /// Where `i` is not below [`len`](Self::len).
    pub fn is_truncated(&self, i: usize) -> bool {
        let cut = |row: &usize| self.embeddings.as_ref().is_some_and(|all| all.truncated().binary_search(row).is_ok());
        self.outcomes[i].as_ref().is_ok_and(cut)
    }

    /// What all of it cost, failed calls included where they said.
    pub const fn usage(&self) -> Usage {
        self.charges.usage()
    }

    /// The same, by who is to be paid.
    pub const fn charges(&self) -> &Charges {
        &self.charges
    }
}
