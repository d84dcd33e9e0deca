//! Makes the labels of a metric of what an event says: [`Part`], with [`Name`] for the embedder.

use std::{
    fmt::{self, Write},
    hash::{BuildHasher, Hash, Hasher, RandomState},
};

use metrics::Label;

use super::super::short_space::ShortSpace;
use crate::{
    SpaceId,
    shown_name::{innermost, inside},
    telemetry,
};

/// An embedder's name, read once per event.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    shown: &'a dyn fmt::Display,
    fingerprint: u64,
}

impl<'a> Name<'a> {
    /// Hashes the name where it is, without a copy.
    pub(super) fn new(shown: &'a dyn fmt::Display, hashes: &RandomState) -> Self {
        let mut hashing = Hashing(hashes.build_hasher());
        // Only a name that fails to show itself is an error, and then the part before that is its name.
        let _ = write!(hashing, "{shown}");
        Self { shown, fingerprint: hashing.0.finish() }
    }
}

struct Hashing<H>(H);

impl<H: Hasher> Write for Hashing<H> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.write(part.as_bytes());
        Ok(())
    }
}

/// What one or some labels of a metric say.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// A label with this name and value.
    Word(&'static str, &'a str),
    /// The provider and the model at the bottom of the embedder with this name.
    Model(Name<'a>),
    /// The same, and the operation, under OpenTelemetry's names.
    Operation(Name<'a>),
    /// The whole name of an embedder.
    Embedder(Name<'a>),
    /// The space, if it is known.
    Space(Option<SpaceId>),
}

/// Equal parts feed the same to a hasher.
impl Hash for Part<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Word(name, value) => (name, value).hash(state),
            Self::Model(name) | Self::Operation(name) | Self::Embedder(name) => name.fingerprint.hash(state),
            Self::Space(space) => space.hash(state),
        }
    }
}

/// Makes the labels. A label without a value is left out.
pub(super) fn labels(parts: &[Part<'_>]) -> Vec<Label> {
    let mut labels = Vec::with_capacity(parts.len() + 3);
    let mut add = |name: &'static str, value: &str| {
        if !value.is_empty() {
            labels.push(Label::new(name, value.to_owned()));
        }
    };
    for part in parts {
        match *part {
            Part::Word(name, value) => add(name, value),
            Part::Model(name) => {
                let shown = name.shown.to_string();
                let (provider, model) = provider_and_model(&shown);
                add(telemetry::PROVIDER, provider);
                add(telemetry::MODEL, model);
            }
            Part::Operation(name) => {
                let shown = name.shown.to_string();
                let (provider, model) = provider_and_model(&shown);
                add(telemetry::OPERATION_NAME, "embeddings");
                add(telemetry::PROVIDER_NAME, if provider == "azure" { "azure.ai.openai" } else { provider });
                add(telemetry::REQUEST_MODEL, model);
            }
            Part::Embedder(name) => add(telemetry::EMBEDDER, &name.shown.to_string()),
            Part::Space(space) => {
                if let Some(space) = space {
                    add(telemetry::SPACE, &ShortSpace(space).to_string());
                }
            }
        }
    }
    labels
}

/// Returns the provider and the model at the bottom of a stack: the parts of `openai/text-embedding-3-small`. A name
/// without a `/` has no model. If there are several embedders, the provider is `several`.
fn provider_and_model(name: &str) -> (&str, &str) {
    let provider = innermost(name);
    if inside(provider).is_some() {
        return ("several", "");
    }
    provider.split_once('/').unwrap_or((provider, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_is_found_inside_all_wrappers() {
        for (name, provider, model) in [
            ("fake", "fake", ""),
            ("openai/text-embedding-3-small", "openai", "text-embedding-3-small"),
            ("Cached(Retry(azure/my deployment))", "azure", "my deployment"),
            ("Retry(onnx/BAAI/bge-small (v2))", "onnx", "BAAI/bge-small (v2)"),
            ("onnx/model (v2)", "onnx", "model (v2)"),
            ("Cached(Resilient(openai/a, onnx/b))", "several", ""),
            ("AbSplit(old: Cached(openai/a), new: openai/b)", "several", ""),
            ("a name, of a kind", "a name, of a kind", ""),
            ("(odd)", "(odd)", ""),
            ("Unclosed(openai/a", "Unclosed(openai", "a"),
            ("", "", ""),
        ] {
            assert_eq!(provider_and_model(name), (provider, model), "{name:?}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        let hashes = RandomState::new();
        let of = |name: &str| Name::new(&name, &hashes).fingerprint;
        assert_eq!(of("Cached(fake)"), Name::new(&format_args!("Cached({})", "fake"), &hashes).fingerprint);
        assert_ne!(of("Cached(fake)"), of("Cached(fake )"));
    }
}
