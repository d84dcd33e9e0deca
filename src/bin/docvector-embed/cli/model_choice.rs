//! Reads the value of `--model`: [`ModelChoice`], any model; [`local_model`], one on this machine; [`BatchModel`], one of
//! OpenAI's Batch API. All are specs of the library's grammar, `ModelSpec`.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use docvector_embed::config::ModelSpec;

/// A model, by where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModelChoice {
    /// A folder, as sentence-transformers saves it.
    Folder(PathBuf),
    /// A model at OpenAI, which answers at once.
    OpenAi(String),
    /// A model at OpenAI, asked by a batch job.
    OpenAiBatch(String),
    /// An embedding service.
    Remote(String),
}

impl ModelChoice {
    /// Reads a spec. A path that is not UTF-8 is a folder.
    pub(crate) fn read(value: OsString) -> Result<Self, String> {
        let Some(text) = value.to_str() else { return Ok(Self::Folder(value.into())) };
        let spec: ModelSpec = text.parse().map_err(|error| format!("{error}"))?;
        match spec.resolved() {
            ModelSpec::Local(folder) => Ok(Self::Folder(folder)),
            ModelSpec::OpenAi(name) => Ok(Self::OpenAi(name)),
            ModelSpec::OpenAiBatch(name) => Ok(Self::OpenAiBatch(name)),
            ModelSpec::Remote(url) => Ok(Self::Remote(url)),
            other => Err(format!("{other} is not known to this command")),
        }
    }
}

/// Reads the spec of a model on this machine.
pub(crate) fn local_model(value: OsString) -> Result<PathBuf, String> {
    match ModelChoice::read(value)? {
        ModelChoice::Folder(folder) => Ok(folder),
        _ => Err("this command is for models on this machine: name a folder".to_owned()),
    }
}

/// The value of `batch submit --model`, with a prefix or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchModel(pub(crate) String);

impl FromStr for BatchModel {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        // A bare name, which elsewhere is a folder, is a name at OpenAI here.
        let spec: ModelSpec = value.parse().map_err(|error| format!("{error}"))?;
        match spec {
            ModelSpec::OpenAiBatch(name) if !name.starts_with("openai:") => Ok(Self(name)),
            ModelSpec::Local(_) if !value.starts_with("local:") => Ok(Self(value.to_owned())),
            ModelSpec::OpenAi(_) => {
                Err("a batch takes the name alone, or openai-batch:NAME; openai:NAME is answered at once".to_owned())
            }
            _ => Err("a batch takes the name of a model at OpenAI, such as text-embedding-3-small".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_where_the_model_is() {
        let choice = |value: &str| ModelChoice::read(OsString::from(value));
        let name = || "text-embedding-3-small".to_owned();
        assert_eq!(choice("openai:text-embedding-3-small"), Ok(ModelChoice::OpenAi(name())));
        assert_eq!(choice("openai-batch:text-embedding-3-small"), Ok(ModelChoice::OpenAiBatch(name())));
        assert_eq!(choice("remote:http://h:1"), Ok(ModelChoice::Remote("http://h:1".to_owned())));
        assert_eq!(choice("https://h"), Ok(ModelChoice::Remote("https://h".to_owned())));
        for folder in ["assets/a-model", "./openai:a", "openai", "OpenAI:a"] {
            assert_eq!(choice(folder), Ok(ModelChoice::Folder(PathBuf::from(folder))));
            assert_eq!(local_model(OsString::from(folder)), Ok(PathBuf::from(folder)));
        }
        assert_eq!(choice("local:a/b"), Ok(ModelChoice::Folder(PathBuf::from("a/b"))));
        for wrong in ["", "openai:", "local:"] {
            assert!(choice(wrong).is_err(), "{wrong}");
        }
        assert!(local_model(OsString::from("openai:a")).is_err());
    }

    #[test]
    fn a_batch_needs_no_prefix() {
        for name in ["a-model", "openai-batch:a-model"] {
            assert_eq!(name.parse(), Ok(BatchModel("a-model".to_owned())));
        }
        for wrong in ["", "openai-batch:", "openai:a-model", "openai-batch:openai:a-model", "local:a", "http://a"] {
            assert!(wrong.parse::<BatchModel>().is_err(), "{wrong}");
        }
    }
}
