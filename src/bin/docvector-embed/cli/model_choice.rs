//! Reads where a model is: [`ModelChoice`], a folder on this machine or a name at OpenAI; [`BatchModel`], a name alone.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

/// Prefixes of models at OpenAI. A folder whose name begins with one of them can be written `./openai:..`.
const OPENAI: &str = "openai:";
const OPENAI_BATCH: &str = "openai-batch:";

/// The value of `embed --model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModelChoice {
    /// A folder, as sentence-transformers saves it.
    Folder(PathBuf),
    /// A model at OpenAI, which answers at once.
    OpenAi(String),
    /// A model at OpenAI, asked by a batch job.
    OpenAiBatch(String),
}

impl From<OsString> for ModelChoice {
    fn from(value: OsString) -> Self {
        let name_after = |prefix| value.to_str().and_then(|name| name.strip_prefix(prefix)).map(str::to_owned);
        if let Some(name) = name_after(OPENAI_BATCH) {
            Self::OpenAiBatch(name)
        } else if let Some(name) = name_after(OPENAI) {
            Self::OpenAi(name)
        } else {
            Self::Folder(value.into())
        }
    }
}

/// The value of `batch submit --model`, without a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchModel(pub(crate) String);

impl FromStr for BatchModel {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        match value.strip_prefix(OPENAI_BATCH).unwrap_or(value) {
            "" => Err("the model's name is missing".to_owned()),
            name if name.starts_with(OPENAI) => {
                Err(format!("a batch takes the name alone, or {OPENAI_BATCH}NAME; {OPENAI}NAME is answered at once"))
            }
            name => Ok(Self(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_where_the_model_is() {
        let choice = |value: &str| ModelChoice::from(OsString::from(value));
        let name = || "text-embedding-3-small".to_owned();
        assert_eq!(choice("openai:text-embedding-3-small"), ModelChoice::OpenAi(name()));
        assert_eq!(choice("openai-batch:text-embedding-3-small"), ModelChoice::OpenAiBatch(name()));
        for folder in ["assets/all-MiniLM-L6-v2", "./openai:a", "openai", "OpenAI:a", ""] {
            assert_eq!(choice(folder), ModelChoice::Folder(PathBuf::from(folder)));
        }
    }

    #[test]
    fn a_batch_needs_no_prefix() {
        for name in ["a-model", "openai-batch:a-model"] {
            assert_eq!(name.parse(), Ok(BatchModel("a-model".to_owned())));
        }
        for wrong in ["", "openai-batch:", "openai:a-model", "openai-batch:openai:a-model"] {
            assert!(wrong.parse::<BatchModel>().is_err(), "{wrong}");
        }
    }
}
