//! Decides who says how a model pools and scales: the caller, else the folder's `modules.json`, else the catalogue.

use std::{fs, path::Path};

use super::{
    catalogue::{self, KnownModel},
    json_file::{JsonFile, config},
    model_folder::ModelFolder,
    modules::TailModule,
    not_embedders,
};
use crate::{Error, ErrorKind, Normalization, Pooling, Result, telemetry};

/// What the caller states in place of the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Stated {
    pub(super) pooling: Option<Vec<Pooling>>,
    pub(super) normalization: Option<Normalization>,
}

impl ModelFolder {
    /// Puts what the caller states in place of what the folder says.
    pub(super) fn state(&mut self, stated: &Stated) -> Result<()> {
        if let Some(pooling) = &stated.pooling {
            let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
            if pooling.is_empty() {
                return wrong("with_pooling (--pooling) names no pooling: name at least one".into());
            }
            if let Some((_, twice)) = pooling.iter().enumerate().find(|(at, mode)| pooling[..*at].contains(mode)) {
                return wrong(format!("with_pooling (--pooling) names {twice} twice: name each pooling once"));
            }
            self.restated |= self.pooling != *pooling;
            self.pooling.clone_from(pooling);
        }
        if let Some(normalization) = stated.normalization {
            self.restated |= normalization == Normalization::None && self.normalization() == Normalization::L2;
            self.normalize(normalization);
        }
        self.stated_normalization = stated.normalization;
        Ok(())
    }

    /// Returns how the last module scales vectors.
    pub(super) fn normalization(&self) -> Normalization {
        match self.tail.last() {
            Some(TailModule::Normalize) => Normalization::L2,
            _ => Normalization::None,
        }
    }

    fn normalize(&mut self, normalization: Normalization) {
        while matches!(self.tail.last(), Some(TailModule::Normalize)) {
            self.tail.pop();
        }
        if normalization == Normalization::L2 {
            self.tail.push(TailModule::Normalize);
        }
    }

    /// Makes sure that pooling and normalization are known, for a model that gives one vector per token. What nobody
    /// said of a folder without `modules.json`, the catalogue does, with a warning. A pooling that is not there is an
    /// error; vectors whose normalization is not there are not scaled.
    pub(super) fn settle_pooling(&mut self) -> Result<()> {
        let is_pooled = !self.pooling.is_empty();
        if is_pooled && (self.has_modules || self.stated_normalization.is_some()) {
            return Ok(());
        }
        let known = catalogue::find(&names(&self.root));
        let why = match known {
            Some(known) => format!("there is no modules.json, and the name is that of {}", known.repository),
            None if is_pooled => "there is no modules.json, and nothing states it".to_owned(),
            None => return Err(self.unknown_pooling()),
        };
        if let Some(known) = known {
            if !is_pooled {
                self.pooling = vec![known.pooling];
            }
            if self.stated_normalization.is_none() {
                self.normalize(known.normalization);
            }
        }
        let pooling = self.pooling.first().filter(|_| !is_pooled).map(ToString::to_string);
        let normalization = self.normalization();
        tracing::warn!(
            { telemetry::FILE } = %self.root.display(),
            { telemetry::POOLING } = pooling,
            { telemetry::NORMALIZATION } = %normalization,
            { telemetry::WHY } = why,
            "pooling or normalization is assumed"
        );
        let pooling = pooling.map_or_else(String::new, |pooling| format!("pooling {pooling} and "));
        self.assumed = Some(format!("{pooling}normalization {normalization}, because {why}"));
        Ok(())
    }

    fn unknown_pooling(&self) -> Error {
        let mut message = String::from(
            "has no modules.json, so nothing says how the vectors of tokens become one vector per text \
             (sentence-transformers would take their mean here, with a warning): fetch modules.json and the \
             files that it names, or state pooling and normalization, such as --pooling mean --normalize (without \
             --normalize, vectors are not scaled), in code with OnnxBuilder::with_pooling and with_normalization",
        );
        if let Some(known) = made_from(&self.config) {
            let (scales, flag) = match known.normalization {
                Normalization::L2 => ("normalizes", " --normalize"),
                Normalization::None => ("does not normalize", ""),
            };
            message.push_str(&format!(
                ". config.json says that it was made from {}, which pools {pooling} and {scales}: state it with \
                 --pooling {pooling}{flag} if that is right",
                known.repository,
                pooling = known.pooling,
            ));
        }
        if let Some(name) = not_embedders::language_model(&self.config) {
            message.push_str(&format!(
                ". Make sure that it is an embedder: its architecture {name} is that of language models and of sparse \
                 models (SPLADE)"
            ));
        }
        config(&self.root, &message)
    }
}

/// Returns the names that a model is known by: that of its folder, and that of its repository if the folder lies in a
/// hub's cache.
fn names(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let real = fs::canonicalize(root);
    for path in [Some(root), real.as_deref().ok()].into_iter().flatten() {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        names.extend(name(path));
        // models--OWNER--NAME/snapshots/COMMIT
        let snapshots = path.parent().filter(|parent| name(parent).as_deref() == Some("snapshots"));
        let cached = snapshots.and_then(Path::parent).and_then(name);
        let repository = cached.as_deref().and_then(|cached| cached.strip_prefix("models--"));
        names.extend(repository.and_then(|repository| repository.rsplit("--").next()).map(str::to_owned));
    }
    names
}

/// Returns the known model that `config.json` says this one was made from. It is no proof: a model that was trained
/// further may pool in another way.
fn made_from(config: &JsonFile) -> Option<KnownModel> {
    let path = config.get("_name_or_path")?.as_str()?;
    let last = path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next()?;
    catalogue::find(&[last.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_folder_and_its_repository() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("models--BAAI--bge-base-en-v1.5/snapshots/0a1b");
        fs::create_dir_all(&root).expect("a folder");
        let names = names(&root);
        for name in ["0a1b", "bge-base-en-v1.5"] {
            assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
        }
        assert!(super::names(Path::new("/")).is_empty());
    }

    #[test]
    fn a_configuration_names_what_a_model_was_made_from() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.json");
        // The configuration may hold anything.
        for (text, known) in [
            (r#"{"_name_or_path": "C:\\models\\all-MiniLM-L6-v2\\"}"#, Some("sentence-transformers/all-MiniLM-L6-v2")),
            (r#"{"_name_or_path": "BAAI/bge-base-en-v1.5"}"#, Some("BAAI/bge-base-en-v1.5")),
            (r#"{"_name_or_path": "bert-base-uncased"}"#, None),
            (r#"{"_name_or_path": ""}"#, None),
            (r#"{"_name_or_path": 5}"#, None),
            ("[]", None),
        ] {
            fs::write(&file, text).expect("written");
            let config = JsonFile::read(file.clone()).expect("JSON");
            assert_eq!(made_from(&config).map(|known| known.repository), known, "{text}");
        }
    }
}
