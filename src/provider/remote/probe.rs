//! Compares the vector of a probe text, so that another model under the same address is found out: [`Probe`].

use std::sync::Arc;

use crate::{Error, ErrorKind, Precision, Result, Space, numerics::cosine, sync::Mutex};

/// The text that is embedded to know a model again. It never changes: vectors of it may be kept.
pub(super) const TEXT: &str = "The quick brown fox jumps over the lazy dog; 0123456789, ÄÖÜ and 中文.";

/// The probe text, and the vector that the model gave it first.
pub(super) struct Probe {
    pub(super) text: String,
    reference: Mutex<Option<Arc<[f32]>>>,
    least_cosine: f64,
}

impl Probe {
    /// Makes a probe of a stored vector, or of the first one that comes.
    pub(super) fn new(stored: Option<(String, Vec<f32>)>, space: &Space) -> Self {
        let (text, vector) = stored.map_or((TEXT.to_owned(), None), |(text, vector)| (text, Some(vector.into())));
        // Models in int8 have vectors that differ between CPUs.
        let least_cosine = if space.precision() == Precision::Int8 { 0.99 } else { 0.999 };
        Self { text, reference: Mutex::new(vector), least_cosine }
    }

    /// Compares a vector of the probe text with the first one.
    pub(super) fn compare(&self, vector: &[f32], origin: &str) -> Result<()> {
        let reference = self.reference.with(|reference| reference.get_or_insert_with(|| vector.into()).clone());
        let cosine = if reference.len() == vector.len() { cosine(&reference, vector) } else { 0.0 };
        if cosine >= self.least_cosine {
            return Ok(());
        }
        let message = format!(
            "{origin} serves another model: the vector of the probe text has cosine {cosine:.4} to the first one, and one \
             model gives at least {}; no texts were sent there",
            self.least_cosine
        );
        Err(Error::new(ErrorKind::SpaceMismatch, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_vector_is_the_reference_unless_one_is_stored() {
        let space = Space::builder("a-model", 2).build().expect("valid");
        let kind = |probe: &Probe, vector: &[f32]| probe.compare(vector, "here").err().map(|error| error.kind());
        let probe = Probe::new(None, &space);
        assert_eq!(kind(&probe, &[1.0, 0.0]), None);
        assert_eq!(kind(&probe, &[1.0, 0.01]), None);
        assert_eq!(kind(&probe, &[1.0, 0.1]), Some(ErrorKind::SpaceMismatch));
        let stored = Probe::new(Some(("a text".to_owned(), vec![0.0, 1.0])), &space);
        assert_eq!((stored.text.as_str(), kind(&stored, &[1.0, 0.0])), ("a text", Some(ErrorKind::SpaceMismatch)));
        let int8 = space.to_builder().with_precision(Precision::Int8).build().expect("valid");
        let probe = Probe::new(Some((TEXT.to_owned(), vec![1.0, 0.0])), &int8);
        assert_eq!(kind(&probe, &[1.0, 0.1]), None);
        assert_eq!(kind(&probe, &[1.0, 0.2]), Some(ErrorKind::SpaceMismatch));
    }
}
