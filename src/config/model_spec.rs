//! Names a model in a few words: [`ModelSpec`].

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{ParseError, assets};

const OPENAI: &str = "openai:";
const OPENAI_BATCH: &str = "openai-batch:";
const LOCAL: &str = "local:";
const REMOTE: &str = "remote:";
const URLS: [&str; 2] = ["http://", "https://"];

/// A model, by where it is: `openai:MODEL`, `openai-batch:MODEL`, `local:DIR`, `remote:URL`, a bare folder or name, a bare
/// URL.
///
/// ```
/// use docvector_embed::config::ModelSpec;
/// # fn main() -> docvector_embed::Result<()> {
/// assert_eq!("openai:text-embedding-3-small".parse::<ModelSpec>()?, ModelSpec::OpenAi("text-embedding-3-small".into()));
/// assert_eq!("assets/all-MiniLM-L6-v2".parse::<ModelSpec>()?, ModelSpec::Local("assets/all-MiniLM-L6-v2".into()));
/// assert_eq!("http://127.0.0.1:8080".parse::<ModelSpec>()?, ModelSpec::Remote("http://127.0.0.1:8080".into()));
/// # Ok(()) }
/// ```
///
/// The command and the environment read models in this form too. A folder whose name begins like another kind of spec can be
/// written `local:DIR` or `./DIR`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelSpec {
    /// A folder, as sentence-transformers saves it; or a name, which is looked for in the [asset
    /// folder](super::asset_folder). Needs the feature `onnx`.
    Local(PathBuf),
    /// A model at OpenAI, or at a server that speaks its API (`MODEL@BASE_URL`), which answers at once. Needs the feature
    /// `openai`.
    OpenAi(String),
    /// The same model, asked by batch jobs. Needs the feature `openai`.
    OpenAiBatch(String),
    /// An embedding service. Needs the feature `remote`.
    Remote(String),
}

impl ModelSpec {
    /// Finds a model that is named without its folder: a bare name that is no folder here, and is one in the asset folder
    /// (`DOCVECTOR_EMBED_ASSETS`; without it `assets`, then the [user's](super::asset_folder)), becomes that folder.
    /// Everything else stays.
    #[must_use]
    pub fn resolved(self) -> Self {
        let Self::Local(model) = &self else { return self };
        assets::find_model(model).map_or(self, Self::Local)
    }

    /// Splits `MODEL@BASE_URL`, the name of a model at a server that speaks OpenAI's API. A bare name has no URL.
    ///
    /// ```
    /// use docvector_embed::config::ModelSpec;
    /// let at = ModelSpec::model_and_base_url("bge-m3@http://127.0.0.1:8000/v1");
    /// assert_eq!(at, ("bge-m3", Some("http://127.0.0.1:8000/v1")));
    /// assert_eq!(ModelSpec::model_and_base_url("@cf/baai/bge-m3"), ("@cf/baai/bge-m3", None));
    /// ```
    pub fn model_and_base_url(name: &str) -> (&str, Option<&str>) {
        // The URL may have an `@` of its own, and a name, too.
        let at = URLS.iter().filter_map(|url| name.find(&format!("@{url}"))).min();
        at.map_or((name, None), |at| (&name[..at], Some(&name[at + 1..])))
    }

    /// Returns the name of the provider, as `EMBEDDING_PROVIDER` has it.
    pub(super) const fn provider(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::OpenAi(_) => "openai",
            Self::OpenAiBatch(_) => "openai-batch",
            Self::Remote(_) => "remote",
        }
    }

    /// Reads a spec with a prefix; `None` for a bare folder or name.
    pub(super) fn with_prefix(text: &str) -> Option<Result<Self, ParseError>> {
        let named = |rest: &str, make: fn(String) -> Self, example: &str| match Self::model_and_base_url(rest).0 {
            "" => Err(ParseError::new(format!("a name is missing, as in {example}"))),
            _ => Ok(make(rest.to_owned())),
        };
        if let Some(rest) = text.strip_prefix(OPENAI_BATCH) {
            return Some(named(rest, Self::OpenAiBatch, "openai-batch:text-embedding-3-small"));
        }
        if let Some(rest) = text.strip_prefix(OPENAI) {
            return Some(named(rest, Self::OpenAi, "openai:text-embedding-3-small"));
        }
        if let Some(rest) = text.strip_prefix(LOCAL) {
            return Some(named(rest, |path| Self::Local(path.into()), "local:assets/all-MiniLM-L6-v2"));
        }
        if let Some(rest) = text.strip_prefix(REMOTE) {
            return Some(named(rest, Self::Remote, "remote:http://127.0.0.1:8080"));
        }
        URLS.iter().any(|url| text.starts_with(url)).then(|| Ok(Self::Remote(text.to_owned())))
    }
}

impl FromStr for ModelSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        match Self::with_prefix(text) {
            Some(spec) => spec,
            None if text.is_empty() => Err(ParseError::new(
                "the model is empty: name openai:MODEL, openai-batch:MODEL, local:DIR, remote:URL, or a folder",
            )),
            None => Ok(Self::Local(text.into())),
        }
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenAi(name) => write!(f, "{OPENAI}{name}"),
            Self::OpenAiBatch(name) => write!(f, "{OPENAI_BATCH}{name}"),
            Self::Remote(url) => write!(f, "{REMOTE}{url}"),
            Self::Local(folder) => write!(f, "{LOCAL}{}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown() {
        let name = || "text-embedding-3-small".to_owned();
        for (text, spec) in [
            ("openai:text-embedding-3-small", ModelSpec::OpenAi(name())),
            ("openai-batch:text-embedding-3-small", ModelSpec::OpenAiBatch(name())),
            ("openai:m@https://u@h/v1", ModelSpec::OpenAi("m@https://u@h/v1".into())),
            ("local:openai:x", ModelSpec::Local("openai:x".into())),
            ("./openai:x", ModelSpec::Local("./openai:x".into())),
            (" all-MiniLM-L6-v2\n", ModelSpec::Local("all-MiniLM-L6-v2".into())),
            ("OpenAI:x", ModelSpec::Local("OpenAI:x".into())),
            ("remote:http://a:1/x", ModelSpec::Remote("http://a:1/x".into())),
            ("https://a", ModelSpec::Remote("https://a".into())),
        ] {
            assert_eq!(text.parse(), Ok(spec.clone()), "{text}");
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
        for wrong in ["", "  ", "openai:", "openai-batch:", "local:", "remote:", "openai:@http://a"] {
            assert!(wrong.parse::<ModelSpec>().is_err(), "{wrong}");
        }
    }
}
