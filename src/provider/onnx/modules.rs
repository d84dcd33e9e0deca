//! Reads `modules.json`, the modules that make a vector out of a text, and the weights of Dense modules.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    activation::Activation,
    json_file::{JsonFile, config, stays_below},
    not_embedders, pooling,
    weights::{Tensor, Weights},
};
use crate::{Error, ErrorKind, Pooling, Result};

/// A module that follows pooling.
#[derive(Clone, Debug)]
pub(super) enum TailModule {
    Dense { folder: PathBuf, activation: Activation, inputs: usize, outputs: usize, bias: bool },
    Normalize,
}

/// The modules of `modules.json`: a transformer, a pooling, and what follows.
pub(super) struct Modules {
    pub(super) transformer: PathBuf,
    /// Empty if there is no `modules.json`.
    pub(super) pooling: Vec<Pooling>,
    pub(super) pool_prompt: bool,
    pub(super) tail: Vec<TailModule>,
}

impl Modules {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let Some(json) = JsonFile::find(root.join("modules.json"))? else {
            return Ok(Self { transformer: root.to_owned(), pooling: Vec::new(), pool_prompt: true, tail: Vec::new() });
        };
        let mut modules: Vec<(f64, &str, &str)> = Vec::new();
        for entry in json.value.as_array().ok_or_else(|| json.error("is not a list of modules"))? {
            let field = |name: &str| entry.get(name).and_then(Value::as_str);
            let kind = field("type").ok_or_else(|| json.error("has a module without a type"))?;
            if let Some(what) = not_embedders::of_module(kind) {
                let message = format!("module {kind} is a part of {what}: load an embedding model in its place");
                return Err(json.error(message));
            }
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
                    let (modes, prompt) = pooling::read(&folder)?;
                    (pooling, pool_prompt) = (Some(modes), prompt);
                }
                ("Dense", Some(_), Some(_)) => tail.push(read_dense(&folder)?),
                ("Normalize", Some(_), Some(_)) => {
                    if let Some(json) = JsonFile::find(folder.join("config.json"))? {
                        for field in ["module_input_name", "module_output_name"] {
                            json.refuse_unless(field, &["sentence_embedding"])?;
                        }
                    }
                    tail.push(TailModule::Normalize);
                }
                // Dropout is only active in training.
                ("Dropout", Some(_), _) => {}
                _ => {
                    let message = format!("module {kind} is not known here, or not known in this place");
                    return Err(json.error(message));
                }
            }
        }
        let transformer = transformer.ok_or_else(|| json.error("has no Transformer module"))?;
        let pooling = pooling.ok_or_else(|| json.error("has no Pooling module"))?;
        Ok(Self { transformer, pooling, pool_prompt, tail })
    }
}

/// Joins a path from a file to `root`; `None` if the path leaves `root`.
fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    // Joining an empty path would add a separator at the end.
    let whole = path.as_os_str().is_empty();
    stays_below(path).then(|| if whole { root.to_owned() } else { root.join(path) })
}

fn read_dense(folder: &Path) -> Result<TailModule> {
    let json = JsonFile::read(folder.join("config.json"))?;
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
    Ok(TailModule::Dense { folder: folder.to_owned(), activation, inputs, outputs, bias })
}

/// The weights of a Dense module, inputs by outputs.
#[derive(Debug)]
pub(super) struct DenseWeights {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    pub(super) hash: blake3::Hash,
}

impl TailModule {
    /// Reads a Dense module's weights for vectors of `width` components.
    pub(super) fn read_dense(&self, width: usize) -> Result<DenseWeights> {
        let Self::Dense { folder, inputs, outputs, bias, .. } = self else {
            return Err(Error::new(ErrorKind::Config, "a module without weights cannot be read as Dense"));
        };
        if *inputs != width {
            let message = format!("takes {inputs} components, but the module before it gives {width}");
            return Err(config(&folder.join("config.json"), &message));
        }
        let path = folder.join("model.safetensors");
        if !path.exists() && folder.join("pytorch_model.bin").exists() {
            return Err(config(folder, "holds pytorch_model.bin, which can run code: convert it to safetensors"));
        }
        let mut weights = Weights::open(&path)?;
        let weight = weights.read("linear.weight", &[*outputs, *inputs])?.transposed();
        let bias = bias.then(|| weights.read("linear.bias", &[*outputs])).transpose()?;
        Ok(DenseWeights { weight, bias, hash: weights.hash() })
    }
}
