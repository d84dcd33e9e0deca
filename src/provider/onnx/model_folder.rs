//! Reads a sentence-transformers folder into data: what sentence-transformers would do with it.
//!
//! Honored: `modules.json`, the pooling configuration in the dialects before and since 5.4, Dense, Normalize,
//! `sentence_bert_config.json` and its older names, prompts, maximal length, lower-casing, `truncate_dim`. Anything
//! else that would change the vectors is an error; nothing is skipped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    family::{computes_positions, positions},
    folder_listing::listing,
    json_file::{JsonFile, config},
    modules::{Modules, TailModule},
    not_embedders,
};
use crate::{Normalization, Pooling, Prompts, Result};

/// A folder, and how its model makes a vector out of a text.
#[derive(Clone, Debug)]
pub(super) struct ModelFolder {
    pub(super) root: PathBuf,
    /// The folder of the transformer's own files: the root, or the path that `modules.json` gives.
    pub(super) transformer: PathBuf,
    pub(super) config: JsonFile,
    pub(super) tokenizer_config: Option<JsonFile>,
    /// The most tokens that the configuration allows, special tokens included; `None` if there is no limit.
    pub(super) max_tokens: Option<usize>,
    /// Tokens that the model has positions for; `None` if it computes positions and does not look them up.
    pub(super) positions: Option<usize>,
    pub(super) lower_case: bool,
    /// Whether texts that are too long lose their beginning and not their end.
    pub(super) truncate_left: bool,
    pub(super) has_modules: bool,
    /// Empty if nothing says it so far: there is no `modules.json`.
    pub(super) pooling: Vec<Pooling>,
    /// Whether the prompt's tokens take part in pooling.
    pub(super) pool_prompt: bool,
    pub(super) tail: Vec<TailModule>,
    /// The scaling that the caller states.
    pub(super) stated_normalization: Option<Normalization>,
    /// Whether the caller states what an output that is pooled already cannot follow: another pooling than the
    /// folder's, or no normalization where the folder has one.
    pub(super) restated: bool,
    /// What was assumed of pooling and normalization, and why.
    pub(super) assumed: Option<String>,
    pub(super) truncate_dim: Option<usize>,
    pub(super) prompts: Prompts,
}

impl ModelFolder {
    pub(super) fn read(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            let what = if root.exists() { "is not a folder" } else { "does not exist" };
            return Err(config(root, &format!("{what}: give the folder of a sentence-transformers model")));
        }
        // First, because it says what the model is.
        let st = JsonFile::find(root.join("config_sentence_transformers.json"))?;
        if let Some(st) = &st
            && let Some(kind) = st.text("model_type")?
            && kind != "SentenceTransformer"
        {
            let what = not_embedders::of_model_type(kind);
            return Err(st.error(format!("field model_type is {kind}: {what}. Load an embedding model in its place")));
        }
        let modules = Modules::read(root)?;
        let has_modules = !modules.pooling.is_empty();
        let config = read_config(root, &modules.transformer)?;
        if !has_modules {
            not_embedders::check_architecture(&config)?;
        }
        let length = LengthConfig::read(root, &modules.transformer)?;
        let tokenizer = JsonFile::find(modules.transformer.join("tokenizer_config.json"))?;
        let of_tokenizer = tokenizer.as_ref().map(|json| json.limit("model_max_length")).transpose()?.flatten();
        // The model's positions limit a text, whatever a file says.
        let positions = positions(&config)?;
        let max_tokens = [length.max_tokens.or(of_tokenizer), positions].into_iter().flatten().min();
        let side = tokenizer.as_ref().map(|json| json.text("truncation_side")).transpose()?.flatten();
        Ok(Self {
            max_tokens,
            positions: positions.filter(|_| !computes_positions(&config)),
            lower_case: length.lower_case,
            truncate_left: side == Some("left"),
            has_modules,
            pooling: modules.pooling,
            pool_prompt: modules.pool_prompt,
            tail: modules.tail,
            stated_normalization: None,
            restated: false,
            assumed: None,
            truncate_dim: st.as_ref().map(|st| st.size("truncate_dim")).transpose()?.flatten(),
            prompts: st.as_ref().map(prompts).transpose()?.unwrap_or_default(),
            root: root.to_owned(),
            transformer: modules.transformer,
            config,
            tokenizer_config: tokenizer,
        })
    }
}

/// Reads `config.json`. Without it, the error says what was looked for and what is there.
fn read_config(root: &Path, transformer: &Path) -> Result<JsonFile> {
    let file = transformer.join("config.json");
    if file.exists() {
        return JsonFile::read(file);
    }
    let mut message = format!(
        "is no folder of a model: it has no config.json (a model has config.json, tokenizer.json and model.safetensors \
         or an .onnx file, and modules.json if sentence-transformers saved it); {}",
        listing(transformer)
    );
    if root.join("snapshots").is_dir() {
        message.push_str("; in the cache of a hub, the model is a folder below snapshots");
    }
    Err(config(transformer, &message))
}

/// Reads the prompts that `encode_query` and `encode_document` of sentence-transformers use. If a repository defines
/// only `passage` beside an empty `document`, which saving fills in, `passage` is meant.
fn prompts(st: &JsonFile) -> Result<Prompts> {
    let Some(table) = st.get("prompts") else { return Ok(Prompts::default()) };
    let table = table.as_object().ok_or_else(|| st.error("field prompts is not an object"))?;
    let named = |name: &str| match table.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| st.error(format!("field prompts.{name} is not a string"))),
    };
    // The default is for plain `encode`: `encode_query` and `encode_document` ignore it.
    if let Some(name) = st.text("default_prompt_name")?.filter(|name| !table.contains_key(*name)) {
        return Err(st.error(format!("field default_prompt_name is {name}, which is none of prompts")));
    }
    let first = |names: &[&str]| -> Result<&str> {
        for name in names {
            match named(name)? {
                "" => {}
                prompt => return Ok(prompt),
            }
        }
        Ok("")
    };
    Ok(Prompts::new(first(&["document", "passage", "corpus"])?, first(&["query"])?))
}

/// The content of `sentence_bert_config.json`, or of the same file under one of its older names.
struct LengthConfig {
    max_tokens: Option<usize>,
    lower_case: bool,
}

impl LengthConfig {
    fn read(root: &Path, transformer: &Path) -> Result<Self> {
        const FAMILIES: [&str; 7] = ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"];
        let names = FAMILIES.map(|family| format!("sentence_{family}_config.json"));
        for file in [transformer, root].iter().flat_map(|folder| names.iter().map(|name| folder.join(name))) {
            if let Some(json) = JsonFile::find(file)? {
                json.refuse_unless("transformer_task", &["feature-extraction"])?;
                json.refuse_unless("module_output_name", &["token_embeddings"])?;
                for field in ["query_length", "document_length"] {
                    json.refuse_unless(field, &[])?;
                }
                if json
                    .get("processing_kwargs")
                    .is_some_and(|kwargs| kwargs.as_object().is_none_or(|all| !all.is_empty()))
                {
                    return Err(json.error("field processing_kwargs is not known here"));
                }
                let lower_case = json.flag("do_lower_case")?.unwrap_or(false);
                return Ok(Self { max_tokens: json.limit("max_seq_length")?, lower_case });
            }
        }
        Ok(Self { max_tokens: None, lower_case: false })
    }
}

/// Returns the folder's name, for people.
pub(super) fn label(root: &Path) -> String {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    root.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
