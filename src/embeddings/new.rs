//! Checks components and makes a matrix of them: [`Embeddings::new`].

use super::{Embeddings, not_finite};
use crate::{Charges, Error, ErrorKind, Result, Space};

impl Embeddings {
    /// Takes the vectors of `rows` texts: `rows * space.dimensions()` components, row after row.
    ///
    /// The cost is a [`Usage`](crate::Usage), or [`Charges`] that say who is paid.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) if the number of components is another one, or if a component is not finite;
    /// then the error names its row.
    pub fn new(rows: usize, space: &Space, components: Vec<f32>, charges: impl Into<Charges>) -> Result<Self> {
        let width = space.dimensions();
        if let Some(at) = not_finite(&components) {
            let message =
                format!("row {}, component {} is {}, not a finite number", at / width, at % width, components[at]);
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        Self::of_finite(rows, space, components, charges)
    }

    /// Does the same for components that are known to be finite, so that no row is scanned twice.
    pub(crate) fn of_finite(
        rows: usize,
        space: &Space,
        components: Vec<f32>,
        charges: impl Into<Charges>,
    ) -> Result<Self> {
        let (width, given) = (space.dimensions(), components.len());
        Self::matrix(rows, space, components, charges).ok_or_else(|| {
            let message = format!("{given} components do not make {rows} rows of {width} dimensions");
            Error::new(ErrorKind::Protocol, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Usage;

    fn space() -> Space {
        Space::builder("test", 2).build().expect("a valid space")
    }

    #[test]
    fn refuses_wrong_shapes_and_what_is_not_finite() {
        for (rows, components) in [(1, vec![1.0]), (2, vec![1.0, 2.0]), (usize::MAX, vec![]), (1, vec![f32::NAN, 0.0])]
        {
            let error = Embeddings::new(rows, &space(), components, Usage::ZERO).expect_err("must be refused");
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        let error =
            Embeddings::new(2, &space(), vec![0.0, 0.0, 0.0, f32::INFINITY], Usage::ZERO).expect_err("infinite");
        assert!(error.to_string().contains("row 1, component 1 is inf"), "{error}");
    }
}
