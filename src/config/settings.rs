//! Everything that makes an embedder with its stack: [`Config`].

use std::path::PathBuf;

use super::model_spec::ModelSpec;
use crate::{Space, cache::CacheSpec};

/// Everything that makes an embedder with the recommended stack around it.
///
/// ```
/// use docvector_embed::Config;
/// # fn main() -> docvector_embed::Result<()> {
/// // In place of the environment: a function from names to values.
/// let vars = [("EMBEDDING_PROVIDER", "openai"), ("EMBEDDING_MODEL", "text-embedding-3-small"), ("OPENAI_API_KEY", "sk-..")];
/// let config = Config::from_vars(|name| vars.iter().find(|(have, _)| *have == name).map(|(_, value)| value.to_string()))?;
/// assert_eq!(config.to_string(), "openai:text-embedding-3-small");
/// // A missing value names the variable and the choices.
/// let error = Config::from_vars(|_| None).unwrap_err();
/// assert!(error.to_string().contains("EMBEDDING_PROVIDER") && error.to_string().contains("openai, openai-batch, local, remote"));
/// # Ok(()) }
/// ```
///
/// # Variables
/// | variable | meaning |
/// |---|---|
/// | `EMBEDDING_PROVIDER` | `openai`, `openai-batch`, `local` or `remote`; not needed if `EMBEDDING_MODEL` is a whole spec |
/// | `EMBEDDING_MODEL` | the model: a name at OpenAI, a folder, or a [spec](ModelSpec); for `remote` the name that the service has, if it should be checked |
/// | `EMBEDDING_SERVICE_URL` | the service of `remote`; several addresses of one service with commas between them |
/// | `EMBEDDING_SERVICE_KEY` | its key |
/// | `EMBEDDING_SPACE` | the space of the service, as [`Space::to_text`] writes it: then nothing is asked before the first texts, and the stack builds while the service is down |
/// | `EMBEDDING_BATCH_SIZE` | the most texts per request; local models pack by tokens and do not need it |
/// | `EMBEDDING_DEVICE` | `cpu`, `cuda`, `cuda:N`, for local models |
/// | `EMBEDDING_CACHE` | a [cache](CacheSpec): `vectors.sqlite`, `sqlite:PATH`, `memory:256MB`, `redis://HOST`, `postgres://USER@HOST/DATABASE`, or `none` |
/// | `EMBEDDING_FALLBACK` | the spec of a model that is asked when the first one fails; it must be the same model elsewhere |
/// | `EMBEDDING_JOBS` | the folder of the jobs of `openai-batch`; `docvector-jobs` without it |
/// | `EMBEDDING_BUDGET` | refused, as budgets are not built yet: nobody should believe in one that is not there |
/// | `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID` | as OpenAI's own clients have them |
///
/// An empty variable counts as one that is not set.
///
/// # Stack
/// From outside to inside: the cache, the fall-back, and around each hosted model retries, its rate limit, eight requests
/// at a time and a time limit. [Stacking](crate::docs::stacking) says why in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The model.
    pub model: ModelSpec,
    /// The name that the service must have for its model; `None` if any will do.
    pub service_model: Option<String>,
    /// More addresses of the same service.
    pub more_endpoints: Vec<String>,
    /// The space of a service, if it is known before.
    pub space: Option<Space>,
    /// The most texts per request.
    pub batch_size: Option<usize>,
    /// What a local model runs on.
    pub device: Option<String>,
    /// Where vectors are kept.
    pub cache: Option<CacheSpec>,
    /// The model that is asked when the first one fails.
    pub fallback: Option<ModelSpec>,
    /// The folder of batch jobs.
    pub jobs: PathBuf,
    /// The service's key. `Debug` hides it.
    pub(super) service_key: Option<Secret>,
    /// What the environment says about OpenAI.
    pub(super) openai: OpenAiVars,
}

/// The variables of OpenAI's own clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "openai"), allow(dead_code, reason = "for models at OpenAI"))]
pub(super) struct OpenAiVars {
    pub(super) key: Option<Secret>,
    pub(super) base_url: Option<String>,
    pub(super) organization: Option<Secret>,
    pub(super) project: Option<Secret>,
}

/// A value that `Debug` hides.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(not(any(feature = "openai", feature = "remote")), allow(dead_code, reason = "for models elsewhere"))]
pub(super) struct Secret(pub(super) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Config {
    /// Keeps vectors there.
    #[must_use]
    pub fn with_cache(mut self, cache: CacheSpec) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Asks this model when the first one fails.
    #[must_use]
    pub fn with_fallback(mut self, fallback: ModelSpec) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// Sets the key of the service.
    #[must_use]
    pub fn with_service_key(mut self, key: impl Into<String>) -> Self {
        self.service_key = Some(Secret(key.into()));
        self
    }
}

impl std::fmt::Display for Config {
    /// Shows the model, the cache and the fall-back, without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.model.fmt(f)?;
        if let Some(device) = &self.device {
            write!(f, " on {device}")?;
        }
        if let Some(cache) = &self.cache {
            write!(f, ", cache {cache}")?;
        }
        if let Some(fallback) = &self.fallback {
            write!(f, ", fall-back {fallback}")?;
        }
        Ok(())
    }
}
