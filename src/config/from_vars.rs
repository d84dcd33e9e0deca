//! Reads a configuration from variables: [`Config::from_env`].

use std::path::PathBuf;

use super::{
    model_spec::ModelSpec,
    settings::{Config, OpenAiVars, Secret},
};
use crate::{Error, ErrorKind, ParseError, Result, Space, cache::CacheSpec};

const PROVIDERS: &str = "openai, openai-batch, local, remote";
/// The folder of batch jobs, if nobody names another one.
const JOBS: &str = "docvector-jobs";

/// Looks a variable up.
type Lookup<'l> = dyn Fn(&str) -> Option<String> + 'l;

impl Config {
    /// Makes the configuration of a model with the recommended stack, without a cache and a fall-back. Keys and addresses
    /// are those that the environment has.
    pub fn new(model: ModelSpec) -> Self {
        Self::of_model(model, &|name| std::env::var(name).ok())
    }

    /// Reads the [variables](Self#variables) of the environment.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) names the variable that is missing or wrong, and the choices.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Reads the same variables from a function, in place of the environment.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let lookup: &Lookup<'_> = &|name| lookup(name).map(|value| value.trim().to_owned()).filter(|v| !v.is_empty());
        if lookup("EMBEDDING_BUDGET").is_some() {
            let message = "budgets are not built yet: unset it, and watch the cost by `wrap::Totals` until they are";
            return Err(wrong("EMBEDDING_BUDGET", message));
        }
        let (model, service_model) = model(lookup)?;
        let urls = lookup("EMBEDDING_SERVICE_URL");
        let mut more_endpoints = Vec::new();
        if let (ModelSpec::Remote(_), Some(urls)) = (&model, &urls) {
            more_endpoints
                .extend(urls.split(',').map(str::trim).filter(|url| !url.is_empty()).skip(1).map(str::to_owned));
        }
        let parsed_cache = |value: String| match value.as_str() {
            "none" => Ok(None),
            value => value.parse::<CacheSpec>().map(Some).map_err(|error| unparsed("EMBEDDING_CACHE", &error)),
        };
        let parsed_space = |value: String| value.parse::<Space>().map_err(|error| unparsed("EMBEDDING_SPACE", &error));
        let parsed_model =
            |value: String| value.parse::<ModelSpec>().map_err(|error| unparsed("EMBEDDING_FALLBACK", &error));
        Ok(Self {
            service_model,
            more_endpoints,
            space: lookup("EMBEDDING_SPACE").map(parsed_space).transpose()?,
            batch_size: lookup("EMBEDDING_BATCH_SIZE").map(batch_size).transpose()?,
            device: lookup("EMBEDDING_DEVICE").map(device).transpose()?,
            cache: lookup("EMBEDDING_CACHE").map(parsed_cache).transpose()?.flatten(),
            fallback: lookup("EMBEDDING_FALLBACK").map(parsed_model).transpose()?,
            ..Self::of_model(model, lookup)
        })
    }

    /// Makes the configuration of a model with the keys and addresses that the variables have.
    pub(super) fn of_model(model: ModelSpec, lookup: &Lookup<'_>) -> Self {
        let filled = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let secret = |name: &str| filled(name).map(Secret);
        Self {
            model,
            service_model: None,
            more_endpoints: Vec::new(),
            space: None,
            batch_size: None,
            device: None,
            cache: None,
            fallback: None,
            jobs: filled("EMBEDDING_JOBS").map_or_else(|| PathBuf::from(JOBS), PathBuf::from),
            service_key: secret("EMBEDDING_SERVICE_KEY"),
            openai: OpenAiVars {
                key: secret("OPENAI_API_KEY"),
                base_url: filled("OPENAI_BASE_URL"),
                organization: secret("OPENAI_ORG_ID"),
                project: secret("OPENAI_PROJECT_ID"),
            },
        }
    }
}

/// Returns the model, and the name that a service must have for its own.
fn model(lookup: &Lookup<'_>) -> Result<(ModelSpec, Option<String>)> {
    let (provider, model) = (lookup("EMBEDDING_PROVIDER"), lookup("EMBEDDING_MODEL"));
    let spec = model.as_deref().and_then(ModelSpec::with_prefix).transpose();
    let spec = spec.map_err(|error| unparsed("EMBEDDING_MODEL", &error))?;
    let Some(provider) = provider else {
        return match spec {
            Some(spec) => Ok((spec, None)),
            None => Err(wrong("EMBEDDING_PROVIDER", format_args!("it is not set, and must be one of {PROVIDERS}"))),
        };
    };
    if let Some(spec) = spec {
        let own = spec.provider();
        if own != provider {
            let message = format!("it is {provider:?}, but EMBEDDING_MODEL is of {own}: make them agree, or unset it");
            return Err(wrong("EMBEDDING_PROVIDER", message));
        }
        return Ok((spec, None));
    }
    let needed = |what: &str| {
        let message = format!("it is not set, and EMBEDDING_PROVIDER={provider} needs {what}");
        model.clone().ok_or_else(|| wrong("EMBEDDING_MODEL", message))
    };
    let spec = match provider.as_str() {
        "openai" => ModelSpec::OpenAi(needed("a name, such as text-embedding-3-small")?),
        "openai-batch" => ModelSpec::OpenAiBatch(needed("a name, such as text-embedding-3-small")?),
        "local" => ModelSpec::Local(needed("a folder, such as assets/all-MiniLM-L6-v2")?.into()),
        "remote" => {
            let urls = lookup("EMBEDDING_SERVICE_URL").unwrap_or_default();
            let first = urls.split(',').map(str::trim).find(|url| !url.is_empty());
            let message =
                "it is not set, and EMBEDDING_PROVIDER=remote needs the service, such as http://127.0.0.1:8080";
            let url = first.ok_or_else(|| wrong("EMBEDDING_SERVICE_URL", message))?;
            return Ok((ModelSpec::Remote(url.to_owned()), model));
        }
        other => {
            let shown: String = other.chars().take(64).collect();
            let message = format!("it is {shown:?}, and must be one of {PROVIDERS}");
            return Err(wrong("EMBEDDING_PROVIDER", message));
        }
    };
    Ok((spec, None))
}

fn batch_size(value: String) -> Result<usize> {
    let number = value.parse().ok().filter(|&number: &usize| number > 0);
    number.ok_or_else(|| wrong("EMBEDDING_BATCH_SIZE", "it must be a whole number above 0: the most texts per request"))
}

fn device(value: String) -> Result<String> {
    let is_cuda = |number: &str| number.parse::<u32>().is_ok();
    let known = value == "cpu" || value == "cuda" || value.strip_prefix("cuda:").is_some_and(is_cuda);
    if known { Ok(value) } else { Err(wrong("EMBEDDING_DEVICE", "it must be one of cpu, cuda, cuda:N")) }
}

fn unparsed(variable: &str, error: &ParseError) -> Error {
    wrong(variable, error.message())
}

/// Makes the error of a variable.
fn wrong(variable: &str, message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("{variable}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Config> {
        Config::from_vars(|name| vars.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn every_provider_is_configured() {
        let shown = |vars: &[(&str, &str)]| of(vars).expect("valid").to_string();
        assert_eq!(shown(&[("EMBEDDING_PROVIDER", "openai"), ("EMBEDDING_MODEL", "m")]), "openai:m");
        assert_eq!(shown(&[("EMBEDDING_PROVIDER", "openai-batch"), ("EMBEDDING_MODEL", "m")]), "openai-batch:m");
        assert_eq!(shown(&[("EMBEDDING_MODEL", "openai:m"), ("EMBEDDING_PROVIDER", "")]), "openai:m");
        assert_eq!(shown(&[("EMBEDDING_MODEL", "local:m"), ("EMBEDDING_PROVIDER", "local")]), "local:m");
        let all = [
            ("EMBEDDING_PROVIDER", "local"),
            ("EMBEDDING_MODEL", "folder"),
            ("EMBEDDING_DEVICE", "cuda:1"),
            ("EMBEDDING_CACHE", "memory:1MB"),
            ("EMBEDDING_FALLBACK", "openai:m"),
            ("EMBEDDING_BATCH_SIZE", "32"),
        ];
        assert_eq!(shown(&all), "local:folder on cuda:1, cache memory:1MB, fall-back openai:m");
        assert_eq!(of(&all).expect("valid").batch_size, Some(32));
        let remote = of(&[
            ("EMBEDDING_PROVIDER", "remote"),
            ("EMBEDDING_SERVICE_URL", "http://a:1, http://b:2,"),
            ("EMBEDDING_MODEL", "m"),
            ("EMBEDDING_SERVICE_KEY", "secret"),
            ("EMBEDDING_CACHE", "none"),
        ])
        .expect("valid");
        assert_eq!(
            (remote.model.clone(), remote.service_model.as_deref()),
            (ModelSpec::Remote("http://a:1".into()), Some("m"))
        );
        assert_eq!((remote.more_endpoints.as_slice(), &remote.cache), (&["http://b:2".to_owned()][..], &None));
        assert!(!format!("{remote:?} {remote}").contains("secret"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_the_choices() {
        let local = [("EMBEDDING_PROVIDER", "local"), ("EMBEDDING_MODEL", "m")];
        for (vars, variable, words) in [
            (&[][..], "EMBEDDING_PROVIDER", PROVIDERS),
            (&[("EMBEDDING_MODEL", "m")], "EMBEDDING_PROVIDER", PROVIDERS),
            (&[("EMBEDDING_PROVIDER", "cohere")], "EMBEDDING_PROVIDER", PROVIDERS),
            (&[("EMBEDDING_PROVIDER", "openai")], "EMBEDDING_MODEL", "text-embedding-3-small"),
            (&[("EMBEDDING_PROVIDER", "local")], "EMBEDDING_MODEL", "a folder"),
            (&[("EMBEDDING_PROVIDER", "remote")], "EMBEDDING_SERVICE_URL", "http://127.0.0.1:8080"),
            (
                &[("EMBEDDING_PROVIDER", "local"), ("EMBEDDING_MODEL", "openai:m")],
                "EMBEDDING_PROVIDER",
                "make them agree",
            ),
            (&[("EMBEDDING_MODEL", "openai:")], "EMBEDDING_MODEL", "a name is missing"),
            (&[local[0], local[1], ("EMBEDDING_BATCH_SIZE", "0")], "EMBEDDING_BATCH_SIZE", "above 0"),
            (&[local[0], local[1], ("EMBEDDING_BATCH_SIZE", "many")], "EMBEDDING_BATCH_SIZE", "above 0"),
            (&[local[0], local[1], ("EMBEDDING_DEVICE", "tpu")], "EMBEDDING_DEVICE", "cpu, cuda, cuda:N"),
            (&[local[0], local[1], ("EMBEDDING_CACHE", "memory:x")], "EMBEDDING_CACHE", "memory:256MB"),
            (&[local[0], local[1], ("EMBEDDING_FALLBACK", "openai:")], "EMBEDDING_FALLBACK", "a name is missing"),
            (&[local[0], local[1], ("EMBEDDING_SPACE", "x")], "EMBEDDING_SPACE", ""),
            (&[local[0], local[1], ("EMBEDDING_BUDGET", "10")], "EMBEDDING_BUDGET", "not built yet"),
        ] {
            let error = of(vars).expect_err(variable);
            assert_eq!(error.kind(), ErrorKind::Config);
            let start = format!("{variable}: ");
            assert!(error.message().starts_with(&start) && error.message().contains(words), "{}", error.message());
        }
    }
}
