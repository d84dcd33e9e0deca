//! Names a model in a few words: [`ModelSpec`].

use std::{
    fmt,
    path::{MAIN_SEPARATOR, PathBuf},
    str::FromStr,
};

use crate::ParseError;

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
    /// A folder, as sentence-transformers saves it; or a name, which is looked for in the asset folder. Needs the feature
    /// `onnx`.
    Local(PathBuf),
    /// A model at OpenAI, or at a server that speaks its API, which answers at once. Needs the feature `openai`.
    OpenAi(String),
    /// The same model, asked by batch jobs. Needs the feature `openai`.
    OpenAiBatch(String),
    /// An embedding service. Needs the feature `remote`.
    Remote(String),
}

impl ModelSpec {
    /// Finds a model that is named without its folder: a bare name that is no folder here, and is one in the asset folder
    /// (`DOCVECTOR_EMBED_ASSETS`, or `assets`), becomes that folder. Everything else stays.
    #[must_use]
    pub fn resolved(self) -> Self {
        let Self::Local(path) = &self else { return self };
        if path.exists() || !path.to_str().is_some_and(is_bare_name) {
            return self;
        }
        let assets = std::env::var_os("DOCVECTOR_EMBED_ASSETS").map_or_else(|| "assets".into(), PathBuf::from);
        let in_assets = assets.join(path);
        if in_assets.is_dir() { Self::Local(in_assets) } else { self }
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
        let named = |rest: &str, make: fn(String) -> Self, example: &str| match rest {
            "" => Err(ParseError::new(format!("a name is missing, as in {example}"))),
            name => Ok(make(name.to_owned())),
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

/// Returns whether a path is a name alone.
fn is_bare_name(path: &str) -> bool {
    !path.contains(['/', MAIN_SEPARATOR]) && !matches!(path, "." | "..")
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
        for wrong in ["", "  ", "openai:", "openai-batch:", "local:", "remote:"] {
            assert!(wrong.parse::<ModelSpec>().is_err(), "{wrong}");
        }
        assert_eq!(["a", "a/b", "./a", ".."].map(is_bare_name), [true, false, false, false]);
    }
}
