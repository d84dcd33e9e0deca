//! Knows how well-known models pool: their repositories say it in `modules.json`, which converted copies often lack.
//!
//! An entry is a copy of what the repository's own `modules.json` and pooling configuration say. Leave out a model if
//! you are not certain of these files: a folder that is not found here is refused, and a wrong entry gives wrong vectors.

use crate::{
    Normalization::{self, L2, None as Unscaled},
    Pooling::{self, Cls, Mean},
};

/// A model whose pooling is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownModel {
    /// The repository whose `modules.json` is the source.
    pub(super) repository: &'static str,
    pub(super) pooling: Pooling,
    pub(super) normalization: Normalization,
}

const MODELS: [(&str, Pooling, Normalization); 42] = [
    ("BAAI/bge-small-en", Cls, L2),
    ("BAAI/bge-base-en", Cls, L2),
    ("BAAI/bge-large-zh", Cls, L2),
    ("BAAI/bge-small-en-v1.5", Cls, L2),
    ("BAAI/bge-base-en-v1.5", Cls, L2),
    ("BAAI/bge-large-en-v1.5", Cls, L2),
    ("BAAI/bge-small-zh-v1.5", Cls, L2),
    ("BAAI/bge-base-zh-v1.5", Cls, L2),
    ("BAAI/bge-large-zh-v1.5", Cls, L2),
    ("BAAI/bge-m3", Cls, L2),
    ("Snowflake/snowflake-arctic-embed-xs", Cls, L2),
    ("Snowflake/snowflake-arctic-embed-s", Cls, L2),
    ("Snowflake/snowflake-arctic-embed-m", Cls, L2),
    ("Snowflake/snowflake-arctic-embed-l", Cls, L2),
    ("mixedbread-ai/mxbai-embed-large-v1", Cls, Unscaled),
    ("intfloat/e5-small", Mean, L2),
    ("intfloat/e5-base", Mean, L2),
    ("intfloat/e5-large", Mean, L2),
    ("intfloat/e5-small-v2", Mean, L2),
    ("intfloat/e5-base-v2", Mean, L2),
    ("intfloat/e5-large-v2", Mean, L2),
    ("intfloat/multilingual-e5-small", Mean, L2),
    ("intfloat/multilingual-e5-base", Mean, L2),
    ("intfloat/multilingual-e5-large", Mean, L2),
    ("thenlper/gte-small", Mean, L2),
    ("thenlper/gte-base", Mean, L2),
    ("thenlper/gte-large", Mean, L2),
    ("sentence-transformers/all-MiniLM-L6-v1", Mean, L2),
    ("sentence-transformers/all-MiniLM-L6-v2", Mean, L2),
    ("sentence-transformers/all-MiniLM-L12-v1", Mean, L2),
    ("sentence-transformers/all-MiniLM-L12-v2", Mean, L2),
    ("sentence-transformers/all-mpnet-base-v1", Mean, L2),
    ("sentence-transformers/all-mpnet-base-v2", Mean, L2),
    ("sentence-transformers/all-distilroberta-v1", Mean, L2),
    ("sentence-transformers/multi-qa-MiniLM-L6-cos-v1", Mean, L2),
    ("sentence-transformers/multi-qa-distilbert-cos-v1", Mean, L2),
    ("sentence-transformers/multi-qa-mpnet-base-cos-v1", Mean, L2),
    // Trained for the dot product.
    ("sentence-transformers/multi-qa-mpnet-base-dot-v1", Cls, Unscaled),
    ("sentence-transformers/paraphrase-MiniLM-L6-v2", Mean, Unscaled),
    ("sentence-transformers/paraphrase-mpnet-base-v2", Mean, Unscaled),
    ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", Mean, Unscaled),
    ("sentence-transformers/paraphrase-multilingual-mpnet-base-v2", Mean, Unscaled),
];

/// Finds the model that goes by these names, without the owner. If they name models that differ, none is meant.
pub(super) fn find(names: &[String]) -> Option<KnownModel> {
    let mut found = MODELS.iter().filter(|(repository, ..)| {
        let own = repository.rsplit('/').next();
        names.iter().any(|name| own == Some(name))
    });
    let &(repository, pooling, normalization) = found.next()?;
    let agree = found.all(|&(_, other, scaling)| (other, scaling) == (pooling, normalization));
    agree.then_some(KnownModel { repository, pooling, normalization })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Option<(Pooling, Normalization)> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        find(&names).map(|model| (model.pooling, model.normalization))
    }

    #[test]
    fn models_are_found_by_their_exact_names() {
        assert_eq!(known(&["model", "bge-base-en-v1.5"]), Some((Cls, L2)));
        assert_eq!(known(&["all-MiniLM-L6-v2"]), Some((Mean, L2)));
        assert_eq!(known(&["multi-qa-mpnet-base-dot-v1"]), Some((Cls, Unscaled)));
        for name in ["bge-base-en-v1.5-ours", "BGE-base-en-v1.5", "bge", "", "BAAI/bge-base-en-v1.5"] {
            assert_eq!(known(&[name]), None, "{name}");
        }
    }

    #[test]
    fn names_of_models_that_differ_name_none() {
        assert_eq!(known(&["bge-base-en-v1.5", "all-MiniLM-L6-v2"]), None);
        assert_eq!(known(&["bge-base-en-v1.5", "bge-small-en-v1.5"]), Some((Cls, L2)));
    }

    #[test]
    fn each_name_stands_for_one_model() {
        let names: std::collections::HashSet<_> = MODELS.iter().map(|(name, ..)| name.rsplit('/').next()).collect();
        assert_eq!(names.len(), MODELS.len());
    }
}
