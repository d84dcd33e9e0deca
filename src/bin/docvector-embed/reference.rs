//! Compares a model's vectors with those that sentence-transformers computed for all-MiniLM-L6-v2.

use docvector_embed::{Batch, Embedder, EmbedderExt, Embeddings, Precision, Space, Truncation};
use serde_json::Value;

use crate::{cosine::cosine, failure::Failure, npy};

/// The model that computed the reference vectors.
pub(crate) const MODEL: &str = "all-MiniLM-L6-v2";

/// The number of tokens to which the model truncated the texts.
const MAX_TOKENS: usize = 256;

const TEXTS: &str = include_str!("../../../tests/golden/all-MiniLM-L6-v2/texts.jsonl");
const VECTORS: &[u8] = include_bytes!("../../../tests/golden/all-MiniLM-L6-v2/vectors.npy");

/// Texts and their reference vectors.
pub(crate) struct Reference {
    ids: Vec<String>,
    texts: Vec<String>,
    width: usize,
    vectors: Vec<f32>,
}

/// How close vectors are to the reference.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) texts: usize,
    pub(crate) min_cosine: f64,
    pub(crate) mean_cosine: f64,
    /// The largest difference between two components.
    pub(crate) max_difference: f64,
    /// The id of the text with the smallest cosine.
    pub(crate) worst: String,
}

/// How close vectors have to be to the reference.
pub(crate) struct Bounds {
    pub(crate) min_cosine: f64,
    pub(crate) mean_cosine: f64,
    pub(crate) max_difference: Option<f64>,
}

/// Checks whether the vectors of a space should be those of the reference. The error says why not.
pub(crate) fn applies(space: &Space, max_tokens: Option<usize>) -> Result<(), String> {
    let label = space.label().unwrap_or_default().to_lowercase();
    if space.model() != "bert" || space.dimensions() != 384 || !label.contains(&MODEL.to_lowercase()) {
        return Err(format!("none for this model, only for {MODEL}"));
    }
    if max_tokens != Some(MAX_TOKENS) {
        return Err(format!(
            "only for {MODEL} with texts of at most {MAX_TOKENS} tokens: give --max-tokens {MAX_TOKENS}"
        ));
    }
    Ok(())
}

impl Reference {
    /// Reads the reference that is stored in this program.
    pub(crate) fn read() -> Result<Self, Failure> {
        let broken = || Failure::new("the reference vectors stored in this program are unusable");
        let (width, vectors) = npy::parse(VECTORS).ok_or_else(broken)?;
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        for line in TEXTS.lines() {
            let object: Value = serde_json::from_str(line).map_err(|_| broken())?;
            let field = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(broken);
            ids.push(field("id")?);
            texts.push(field("text")?);
        }
        if width == 0 || texts.len() * width != vectors.len() {
            return Err(broken());
        }
        Ok(Self { ids, texts, width, vectors })
    }

    /// Embeds the texts, and compares their vectors with the reference.
    pub(crate) async fn compare(&self, embedder: &impl Embedder) -> Result<Comparison, Failure> {
        let have = embedder.dimensions()?;
        if have != self.width {
            let message = format!("the reference vectors have {} dimensions, those of this model {have}", self.width);
            return Err(Failure::new(message));
        }
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let batch = Batch::documents(&texts).with_truncation(Truncation::Truncate);
        Ok(self.compare_rows(&embedder.embed_all(batch).await?))
    }

    fn compare_rows(&self, embeddings: &Embeddings) -> Comparison {
        let (mut sum, mut max_difference) = (0.0, 0.0_f64);
        let (mut min_cosine, mut worst) = (f64::INFINITY, "");
        for ((own, reference), id) in embeddings.rows().zip(self.vectors.chunks_exact(self.width)).zip(&self.ids) {
            let cosine = cosine(own, reference);
            sum += cosine;
            if cosine < min_cosine {
                (min_cosine, worst) = (cosine, id);
            }
            let differences = own.iter().zip(reference).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
            max_difference = differences.fold(max_difference, f64::max);
        }
        let texts = embeddings.len();
        Comparison { texts, min_cosine, mean_cosine: sum / texts as f64, max_difference, worst: worst.to_owned() }
    }
}

impl Bounds {
    /// Returns the bounds for a precision, on a CPU or a GPU.
    pub(crate) const fn of(precision: Precision, on_gpu: bool) -> Self {
        match precision {
            // On a GPU the layers run in fp16. These are the bounds that full precision promises.
            Precision::Full if on_gpu => Self { min_cosine: 0.9999, mean_cosine: 0.9999, max_difference: None },
            // The reference texts are unusual: emoji, symbols, many languages. Ordinary texts come closer.
            Precision::Int8 => Self { min_cosine: 0.97, mean_cosine: 0.99, max_difference: None },
            _ => Self { min_cosine: 0.999_99, mean_cosine: 0.999_99, max_difference: Some(1e-4) },
        }
    }

    /// Returns whether the vectors are close enough.
    pub(crate) fn are_met(&self, comparison: &Comparison) -> bool {
        comparison.min_cosine >= self.min_cosine
            && comparison.mean_cosine >= self.mean_cosine
            && self.max_difference.is_none_or(|bound| comparison.max_difference <= bound)
    }
}

#[cfg(test)]
mod tests {
    use docvector_embed::Usage;

    use super::*;

    fn space(width: usize) -> Space {
        Space::builder("bert", width).with_label("All-MiniLM-L6-v2-int8").build().expect("a valid space")
    }

    #[test]
    fn the_stored_vectors_are_their_own_equals() {
        let reference = Reference::read().expect("usable");
        assert_eq!((reference.ids.len(), reference.width), (120, 384));
        let space = space(384);
        let own = Embeddings::new(120, &space, reference.vectors.clone(), Usage::ZERO).expect("valid");
        let comparison = reference.compare_rows(&own);
        assert!(comparison.min_cosine > 0.999_999 && comparison.max_difference == 0.0, "{comparison:?}");
        assert!(Bounds::of(Precision::Full, false).are_met(&comparison));
    }

    #[test]
    fn a_single_bad_row_fails() {
        let reference = Reference {
            ids: vec!["good".to_owned(), "bad".to_owned()],
            texts: Vec::new(),
            width: 2,
            vectors: vec![1.0, 0.0, 0.0, 1.0],
        };
        let own = Embeddings::new(2, &space(2), vec![1.0, 0.0, 0.0, -1.0], Usage::ZERO).expect("valid");
        let comparison = reference.compare_rows(&own);
        assert_eq!((comparison.worst.as_str(), comparison.min_cosine), ("bad", -1.0));
        assert_eq!((comparison.max_difference, comparison.mean_cosine), (2.0, 0.0));
        for precision in [Precision::Full, Precision::Int8] {
            assert!(!Bounds::of(precision, false).are_met(&comparison));
            assert!(!Bounds::of(precision, true).are_met(&comparison));
        }
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }

    #[test]
    fn knows_the_model() {
        assert!(applies(&space(384), Some(256)).is_ok());
        assert!(applies(&space(384), Some(128)).is_err());
        assert!(applies(&space(768), Some(256)).is_err());
    }
}
