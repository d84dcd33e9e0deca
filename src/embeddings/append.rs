//! Makes one matrix of several: [`Embeddings::append`].

use ndarray::Array2;

use super::Embeddings;
use crate::{Error, ErrorKind, Result};

impl Embeddings {
    /// Appends the rows of `more`, with their charges and their marks for truncated texts: row `i` of `more` becomes row
    /// `len() + i`. So the windows of [`embed_stream`](crate::EmbedderExt::embed_stream) become one matrix.
    ///
    /// ```
    /// use docvector_embed::{Embeddings, EmbedderExt, InputKind, StreamOptions, provider::Fake};
    /// use futures_util::{StreamExt, stream};
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let embedder = Fake::new(4);
    /// let corpus = stream::iter((0..3_000).map(|i| format!("line {i}")));
    /// let mut windows = std::pin::pin!(embedder.embed_stream(corpus, StreamOptions::new(InputKind::Document)));
    /// let mut all = Embeddings::empty(embedder.space()?);
    /// while let Some(window) = windows.next().await {
    ///     all.append(&window?)?;
    /// }
    /// assert_eq!(all.len(), 3_000);
    /// # Ok(()) }) }
    /// ```
    ///
    /// What the provider still allows is forgotten, because the rows come from several calls.
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) if the rows lie in another space. Then nothing is appended.
    ///
    /// # Cost
    /// One copy of the new rows. The matrix grows as a [`Vec`] does: now and then all of it is moved.
    pub fn append(&mut self, more: &Self) -> Result<()> {
        if self.space != more.space {
            let message = format!("rows in {} cannot be appended to rows in {}", more.space, self.space);
            return Err(Error::new(ErrorKind::SpaceMismatch, message));
        }
        let (before, width) = (self.len(), self.dimensions());
        let mut components = std::mem::take(&mut self.vectors).into_raw_vec_and_offset().0;
        components.extend_from_slice(more.as_slice());
        // The number of components is a multiple of the width: both matrices are whole rows.
        self.vectors = Array2::from_shape_vec((components.len() / width, width), components).unwrap_or_default();
        self.charges += &more.charges;
        self.truncated.extend(more.truncated.iter().map(|row| before + row));
        self.rate_limit_status = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Charges, Payee, Space, Tier, Usage};

    fn space() -> Space {
        Space::builder("test", 2).build().expect("a valid space")
    }

    #[test]
    fn appends_rows_with_their_marks_and_payees() {
        let part = |first: f32, rows: usize, payee: &str| {
            let components = (0..rows * 2).map(|i| first + i as f32).collect();
            let payee = Payee::new("test", payee, Tier::Standard);
            let charges = Charges::of(&payee, Usage::of_request(Some(rows as u64)));
            Embeddings::new(rows, &space(), components, charges).expect("valid")
        };
        let mut all = Embeddings::empty(&space());
        all.append(&part(0.0, 2, "a").with_truncated(vec![1])).expect("one space");
        all.append(&part(0.0, 0, "b").with_usage(Usage::of_unanswered())).expect("one space");
        all.append(&part(4.0, 3, "b").with_truncated(vec![0, 2])).expect("one space");
        assert_eq!(all.as_slice(), [0., 1., 2., 3., 4., 5., 6., 7., 8., 9.]);
        assert_eq!((all.len(), all.truncated()), (5, &[1, 2, 4][..]));
        let paid: Vec<(&str, u64)> =
            all.charges().iter().map(|charge| (charge.payee.model(), charge.usage.tokens)).collect();
        assert!(paid.contains(&("a", 2)) && paid.contains(&("b", 3)), "{paid:?}");
        assert_eq!(all.usage().tokens, 5);
        assert_eq!(all.usage().unanswered, 1);

        let before = all.clone();
        let other = Space::builder("another", 2).build().expect("a valid space");
        let foreign = Embeddings::new(1, &other, vec![1., 1.], Usage::of_request(Some(1))).expect("valid");
        assert_eq!(all.append(&foreign).expect_err("another space").kind(), ErrorKind::SpaceMismatch);
        assert_eq!(all, before);
    }
}
