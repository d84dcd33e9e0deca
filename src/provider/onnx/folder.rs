//! Reads a sentence-transformers folder: what sentence-transformers would do with it, as data.
//!
//! Honoured: `modules.json`, the pooling configuration in the dialects before and since 5.4, Dense, Normalize,
//! `sentence_bert_config.json` and its older names, prompts, maximal length, lower-casing, `truncate_dim`. Anything
//! that would change the vectors and is not understood is an error, never skipped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::weights::{Tensor, Weights};
use crate::{Error, ErrorKind, Pooling, Prompts, Result};

/// The folder, and how its model makes a vector out of a text.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// Where the transformer's own files are: the root, or the path that `modules.json` gives.
    pub(super) transformer: PathBuf,
    pub(super) config: Json,
    pub(super) tokenizer_config: Option<Json>,
    /// Tokens that the configuration allows, special tokens included; `None` for any number.
    pub(super) max_tokens: Option<usize>,
    /// Tokens that the model has positions for.
    pub(super) positions: Option<usize>,
    pub(super) lower_case: bool,
    /// Whether over-long texts lose their beginning instead of their end.
    pub(super) truncate_left: bool,
    pub(super) pooling: Vec<Pooling>,
    /// Whether the prompt's tokens take part in pooling.
    pub(super) pool_prompt: bool,
    pub(super) tail: Vec<Step>,
    pub(super) truncate_dim: Option<usize>,
    pub(super) prompts: Prompts,
}

/// What happens to a vector after pooling.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Dense { folder: PathBuf, activation: Activation, inputs: usize, outputs: usize, bias: bool },
    Normalize,
}

/// An activation function by the name that configurations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Identity,
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    Relu,
    Silu,
    Tanh,
}

impl Activation {
    /// A name of our own, for fingerprints.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
            Self::Relu => "relu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        }
    }

    /// Takes a name of `transformers` (`gelu_new`) or the last part of a torch class path (`GELU`).
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" | "GELU" | "GELUActivation" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "NewGELUActivation" => Self::GeluTanh,
            "relu" | "ReLU" => Self::Relu,
            "silu" | "swish" | "SiLU" => Self::Silu,
            "tanh" | "Tanh" => Self::Tanh,
            "Identity" | "linear" => Self::Identity,
            _ => return None,
        })
    }
}

/// A JSON object and the file it stands in, so that every complaint names both.
#[derive(Clone, Debug)]
pub(super) struct Json {
    file: PathBuf,
    value: Value,
}

impl Json {
    pub(super) fn read(file: PathBuf) -> Result<Self> {
        let bytes = fs::read(&file).map_err(|error| config(&file, "cannot be read").with_source(error))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("is not JSON: line {}, column {}", error.line(), error.column());
            config(&file, &message).with_source(error)
        })?;
        Ok(Self { file, value })
    }

    /// Reads a file that need not be there.
    fn find(file: PathBuf) -> Result<Option<Self>> {
        if file.exists() { Self::read(file).map(Some) } else { Ok(None) }
    }

    pub(super) fn error(&self, message: impl AsRef<str>) -> Error {
        config(&self.file, message.as_ref())
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&str>> {
        let wrong = || self.error(format!("field {field} is not a string"));
        self.get(field).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>> {
        let wrong = || self.error(format!("field {field} is not true or false"));
        self.get(field).map(|value| value.as_bool().ok_or_else(wrong)).transpose()
    }

    /// A token's text, which stands there itself or as the content of an object.
    pub(super) fn token(&self, field: &str) -> Result<Option<&str>> {
        match self.get(field).and_then(|value| value.get("content")) {
            Some(content) => Ok(content.as_str()),
            None => self.text(field),
        }
    }

    /// Refuses a field that changes the vectors and is set to anything but these values or nothing.
    pub(super) fn refuse_unless(&self, field: &str, known: &[&str]) -> Result<()> {
        match self.get(field) {
            Some(value) if value.as_str().is_none_or(|value| !known.contains(&value)) => {
                Err(self.error(format!("field {field} is {value}, which is not known here")))
            }
            _ => Ok(()),
        }
    }

    /// A whole number; written as a float where a tool did so (1e30 stands for "no limit" in some).
    pub(super) fn number(&self, field: &str) -> Result<Option<f64>> {
        let wrong = || self.error(format!("field {field} is not a number"));
        self.get(field).map(|value| value.as_f64().ok_or_else(wrong)).transpose()
    }

    pub(super) fn size(&self, field: &str) -> Result<Option<usize>> {
        let whole = |number: f64| {
            let fits = number.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(&number);
            if fits { Ok(number as usize) } else { Err(self.error(format!("field {field} is {number}, not a size"))) }
        };
        self.number(field)?.map(whole).transpose()
    }

    /// A size that the model cannot do without: at least 1.
    pub(super) fn needed(&self, field: &str) -> Result<usize> {
        match self.size(field)? {
            None => Err(self.error(format!("has no field {field}"))),
            Some(0) => Err(self.error(format!("field {field} is 0"))),
            Some(size) => Ok(size),
        }
    }

    /// A length limit: sizes as they are, negative and astronomical numbers are none.
    fn limit(&self, field: &str) -> Result<Option<usize>> {
        Ok(self.number(field)?.filter(|limit| (1.0..1e9).contains(limit)).map(|limit| limit as usize))
    }
}

fn config(file: &Path, message: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{} {message}", file.display()))
}

impl Folder {
    pub(super) fn read(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            let what = if root.exists() { "is not a folder" } else { "does not exist" };
            return Err(config(root, &format!("{what}: give the folder of a sentence-transformers model")));
        }
        let modules = Modules::read(root)?;
        let config = Json::read(modules.transformer.join("config.json"))?;
        let length = LengthConfig::read(root, &modules.transformer)?;
        let tokenizer = Json::find(modules.transformer.join("tokenizer_config.json"))?;
        let of_tokenizer = tokenizer.as_ref().map(|json| json.limit("model_max_length")).transpose()?.flatten();
        // No text can be longer than the model has positions, whatever a file says.
        let positions = positions(&config)?;
        let max_tokens = [length.max_tokens.or(of_tokenizer), positions].into_iter().flatten().min();
        let side = tokenizer.as_ref().map(|json| json.text("truncation_side")).transpose()?.flatten();
        let st = Json::find(root.join("config_sentence_transformers.json"))?;
        if let Some(st) = &st
            && let Some(kind) = st.text("model_type")?
            && kind != "SentenceTransformer"
        {
            return Err(st.error(format!("field model_type is {kind}: not a model of one dense vector a text")));
        }
        Ok(Self {
            max_tokens,
            positions,
            lower_case: length.lower_case,
            truncate_left: side == Some("left"),
            pooling: modules.pooling,
            pool_prompt: modules.pool_prompt,
            tail: modules.tail,
            truncate_dim: st.as_ref().map(|st| st.size("truncate_dim")).transpose()?.flatten(),
            prompts: st.as_ref().map(prompts).transpose()?.unwrap_or_default(),
            root: root.to_owned(),
            transformer: modules.transformer,
            config,
            tokenizer_config: tokenizer,
        })
    }
}

/// Positions that the model has for tokens. RoBERTa and its kin leave the first ones, up to the padding's id, unused.
fn positions(config: &Json) -> Result<Option<usize>> {
    let unused = positions_after(config)?.map_or(0, |pad| pad + 1);
    Ok(config.size("max_position_embeddings")?.map(|positions| positions.saturating_sub(unused)))
}

/// The padding's id, in the families that number positions from behind it.
pub(super) fn positions_after(config: &Json) -> Result<Option<usize>> {
    match config.text("model_type")?.unwrap_or_default() {
        "roberta" | "xlm-roberta" | "camembert" | "mpnet" => Ok(Some(config.size("pad_token_id")?.unwrap_or(1))),
        _ => Ok(None),
    }
}

/// The prompts that `encode_query` and `encode_document` of sentence-transformers use; where a repository defines only
/// `passage` beside an empty `document` (which saving fills in), `passage` is meant.
fn prompts(st: &Json) -> Result<Prompts> {
    let Some(table) = st.get("prompts") else { return Ok(Prompts::default()) };
    let table = table.as_object().ok_or_else(|| st.error("field prompts is not an object"))?;
    let named = |name: &str| match table.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| st.error(format!("field prompts.{name} is not a string"))),
    };
    // A default is for plain `encode`: neither `encode_query` nor `encode_document` takes it.
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

/// `sentence_bert_config.json`, or one of the names it had.
struct LengthConfig {
    max_tokens: Option<usize>,
    lower_case: bool,
}

impl LengthConfig {
    fn read(root: &Path, transformer: &Path) -> Result<Self> {
        const FAMILIES: [&str; 7] = ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"];
        let names = FAMILIES.map(|family| format!("sentence_{family}_config.json"));
        for file in [transformer, root].iter().flat_map(|folder| names.iter().map(|name| folder.join(name))) {
            if let Some(json) = Json::find(file)? {
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

/// `modules.json`: a transformer, a pooling, and what follows. Without the file: a transformer and mean pooling.
struct Modules {
    transformer: PathBuf,
    pooling: Vec<Pooling>,
    pool_prompt: bool,
    tail: Vec<Step>,
}

impl Modules {
    fn read(root: &Path) -> Result<Self> {
        let mean = vec![Pooling::Mean];
        let Some(json) = Json::find(root.join("modules.json"))? else {
            return Ok(Self { transformer: root.to_owned(), pooling: mean, pool_prompt: true, tail: Vec::new() });
        };
        let mut modules: Vec<(f64, &str, &str)> = Vec::new();
        for entry in json.value.as_array().ok_or_else(|| json.error("is not a list of modules"))? {
            let field = |name: &str| entry.get(name).and_then(Value::as_str);
            let kind = field("type").ok_or_else(|| json.error("has a module without a type"))?;
            if !kind.starts_with("sentence_transformers.") {
                return Err(json.error(format!("module {kind} is not one of sentence-transformers")));
            }
            let index = entry.get("idx").and_then(Value::as_f64).unwrap_or(modules.len() as f64);
            modules.push((index, kind.rsplit('.').next().unwrap_or(kind), field("path").unwrap_or("")));
        }
        modules.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut transformer, mut pooling, mut pool_prompt, mut tail) = (None, None, true, Vec::new());
        for (_, kind, path) in modules {
            let folder =
                inside(root, path).ok_or_else(|| json.error(format!("module path {path} leaves the folder")))?;
            match (kind, &transformer, &pooling) {
                ("Transformer", None, None) => transformer = Some(folder),
                ("Pooling", Some(_), None) => {
                    let (modes, prompt) = read_pooling(&folder)?;
                    (pooling, pool_prompt) = (Some(modes), prompt);
                }
                ("Dense", Some(_), Some(_)) => tail.push(read_dense(&folder)?),
                ("Normalize", Some(_), Some(_)) => {
                    if let Some(json) = Json::find(folder.join("config.json"))? {
                        for field in ["module_input_name", "module_output_name"] {
                            json.refuse_unless(field, &["sentence_embedding"])?;
                        }
                    }
                    tail.push(Step::Normalize);
                }
                // Only active in training.
                ("Dropout", Some(_), _) => {}
                _ => {
                    let message = format!("module {kind} is not known here, or not in this place");
                    return Err(json.error(message));
                }
            }
        }
        let transformer = transformer.ok_or_else(|| json.error("has no Transformer module"))?;
        let pooling = pooling.ok_or_else(|| json.error("has no Pooling module"))?;
        Ok(Self { transformer, pooling, pool_prompt, tail })
    }
}

/// Joins a path out of a file, if it stays below `root`.
fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let plain =
        path.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    // Joined with nothing, a path would end in a separator.
    let whole = path.as_os_str().is_empty();
    plain.then(|| if whole { root.to_owned() } else { root.join(path) })
}

/// The pooling configuration, in either dialect.
fn read_pooling(folder: &Path) -> Result<(Vec<Pooling>, bool)> {
    const ORDER: [(Pooling, &str, &str); 6] = [
        (Pooling::Cls, "cls", "pooling_mode_cls_token"),
        (Pooling::Max, "max", "pooling_mode_max_tokens"),
        (Pooling::Mean, "mean", "pooling_mode_mean_tokens"),
        (Pooling::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
        (Pooling::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
        (Pooling::LastToken, "lasttoken", "pooling_mode_lasttoken"),
    ];
    let json = Json::read(folder.join("config.json"))?;
    let mut modes = Vec::new();
    match json.get("pooling_mode") {
        Some(mode) => {
            let names = mode.as_array().map_or(std::slice::from_ref(mode), Vec::as_slice);
            for name in names {
                let known = ORDER.iter().find(|(_, known, _)| name.as_str() == Some(known));
                let (mode, ..) = known.ok_or_else(|| json.error(format!("pooling_mode {name} is not known")))?;
                modes.push(*mode);
            }
        }
        None => {
            for (mode, _, field) in ORDER {
                if json.flag(field)?.unwrap_or(false) {
                    modes.push(mode);
                }
            }
            let known = |field: &str| ORDER.iter().any(|(.., known)| *known == field);
            let unknown = json.value.as_object().and_then(|fields| {
                fields.iter().find(|(name, value)| name.starts_with("pooling_mode_") && !known(name) && **value == true)
            });
            if let Some((name, _)) = unknown {
                return Err(json.error(format!("{name} is not known")));
            }
        }
    }
    if modes.iter().enumerate().any(|(at, mode)| modes[..at].contains(mode)) {
        return Err(json.error("names a pooling twice"));
    }
    if modes.is_empty() {
        modes.push(Pooling::Mean);
    }
    Ok((modes, json.flag("include_prompt")?.unwrap_or(true)))
}

fn read_dense(folder: &Path) -> Result<Step> {
    let json = Json::read(folder.join("config.json"))?;
    let name = json.text("activation_function")?.unwrap_or("torch.nn.modules.linear.Identity");
    let last = name.rsplit('.').next().unwrap_or(name);
    let activation =
        Activation::of(last).ok_or_else(|| json.error(format!("activation_function {name} is not known")))?;
    for field in ["module_input_name", "module_output_name"] {
        json.refuse_unless(field, &["sentence_embedding"])?;
    }
    if json.flag("use_residual")?.unwrap_or(false) {
        return Err(json.error("use_residual is not known"));
    }
    let (inputs, outputs) = (json.needed("in_features")?, json.needed("out_features")?);
    let bias = json.flag("bias")?.unwrap_or(true);
    Ok(Step::Dense { folder: folder.to_owned(), activation, inputs, outputs, bias })
}

/// The activation of the transformer's feed-forward layers.
pub(super) fn hidden_activation(config: &Json, field: &str) -> Result<Activation> {
    let name = config.text(field)?.unwrap_or("gelu");
    Activation::of(name).ok_or_else(|| config.error(format!("{field} {name} is not known")))
}

/// The folder's name, for people.
pub(super) fn label(root: &Path) -> String {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    root.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The weights of a Dense module: inputs by outputs.
#[derive(Debug)]
pub(super) struct Dense {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    pub(super) hash: blake3::Hash,
}

impl Step {
    /// Reads a Dense module's weights for vectors of `width` components.
    pub(super) fn read_dense(&self, width: usize) -> Result<Dense> {
        let Self::Dense { folder, inputs, outputs, bias, .. } = self else {
            return Err(Error::new(ErrorKind::Config, "a module without weights was asked for them"));
        };
        if *inputs != width {
            let message = format!("takes {inputs} components, the module before it gives {width}");
            return Err(config(&folder.join("config.json"), &message));
        }
        let path = folder.join("model.safetensors");
        if !path.exists() && folder.join("pytorch_model.bin").exists() {
            return Err(config(folder, "holds pytorch_model.bin, which can run code: convert it to safetensors"));
        }
        let mut weights = Weights::open(&path)?;
        let weight = weights.read("linear.weight", &[*outputs, *inputs])?.transposed();
        let bias = bias.then(|| weights.read("linear.bias", &[*outputs])).transpose()?;
        Ok(Dense { weight, bias, hash: weights.hash() })
    }
}
