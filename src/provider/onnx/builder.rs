//! Loads a model: [`OnnxBuilder`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ort::environment::Environment;

use super::{
    Inner, Onnx, OnnxInfo,
    batch_mates::{Probe, part_if_dependent},
    cpu,
    device::Device,
    family::not_built,
    folder_listing::listing,
    graph::{Graph, GraphTarget, WeightBits},
    library,
    model::Model,
    model_folder::{self, ModelFolder},
    not_embedders,
    onnx_file::{self, OnnxFile},
    pooling_source::Stated,
    runner::Runner,
    scheduler::{Packing, Scheduler, Worker, WorkerRole},
    stages::Tokenize,
    tokenizer::ModelTokenizer,
    tuning::{self, StoredTuning, Tuning, TuningKey, TuningSource},
    weights::Weights,
};
use crate::{
    Error, ErrorKind, Normalization, Payee, Pooling, Precision, Prompts, Result, Space, Tier, assets, telemetry,
};

/// Padded tokens per batch on a CPU: best or tied for all models and lengths measured (benches/RESULTS.md).
const BATCH_TOKENS: usize = 256;
/// Padded tokens per batch on a GPU: a round number that keeps one busy; not measured here.
const BATCH_TOKENS_GPU: usize = 16_384;
/// The same as [`BATCH_OVERHEAD`] on a GPU, where padding costs less than another batch.
const BATCH_OVERHEAD_GPU: usize = 1024;
/// Sessions on a GPU: one computes while the other is fed and read.
const SESSIONS_PER_GPU: usize = 2;
/// The cost of a batch on a CPU besides its tokens, in tokens: the most that a text is padded to share a batch.
const BATCH_OVERHEAD: usize = 8;

impl Onnx {
    /// Loads a sentence-transformers folder with the defaults. Blocks until the weights are read. A name alone that is no
    /// folder here is looked for in the [asset folder](crate::config::asset_folder).
    ///
    /// # Errors
    /// See [`Onnx`](Onnx#errors).
    pub fn load(folder: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(folder).build()
    }

    /// Returns a builder that loads a sentence-transformers folder, or a name in the asset folder.
    pub fn builder(folder: impl Into<PathBuf>) -> OnnxBuilder {
        OnnxBuilder {
            folder: folder.into(),
            library: None,
            file: None,
            devices: vec![Device::Cpu],
            precision: Precision::Full,
            threads: None,
            max_tokens: None,
            batch_tokens: None,
            tuned: true,
            stated: Stated::default(),
            prompts: None,
            truncate_dim: None,
            weight_bits: None,
        }
    }
}

/// Builds an [`Onnx`].
///
/// ```no_run
/// use docvector_embed::{Precision, provider::Onnx};
/// # fn main() -> docvector_embed::Result<()> {
/// let embedder = Onnx::builder("assets/all-MiniLM-L6-v2")
///     .with_precision(Precision::Int8)
///     .with_threads(2)
///     .build()?;
/// # Ok(()) }
/// ```
///
/// # Default
/// - the library: the first in the [places](Onnx#library) that are searched;
/// - the file: `model.safetensors`, else `model.onnx`, else `onnx/model.onnx`; the latter two come first if the weights
///   are of a [family](Onnx#model) that is not known here;
/// - the device: the CPU, in full precision;
/// - threads and padded tokens per batch: what [`docvector-embed tune`](Tuning) found for this model on this machine;
///   otherwise one thread per core and 256 tokens on a CPU, two threads and 16,384 tokens on a GPU;
/// - pooling, normalization, length, prompts and width: the folder's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OnnxBuilder {
    folder: PathBuf,
    library: Option<PathBuf>,
    file: Option<PathBuf>,
    devices: Vec<Device>,
    precision: Precision,
    threads: Option<usize>,
    max_tokens: Option<usize>,
    batch_tokens: Option<usize>,
    tuned: bool,
    stated: Stated,
    prompts: Option<Prompts>,
    truncate_dim: Option<usize>,
    weight_bits: Option<u8>,
}

impl OnnxBuilder {
    /// Sets the file of ONNX Runtime, or its folder.
    #[must_use]
    pub fn with_library(mut self, path: impl Into<PathBuf>) -> Self {
        self.library = Some(path.into());
        self
    }

    /// Sets the model's file by its path in the folder: an `.onnx` file or a `.safetensors` file.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Sets the device. If it cannot be used, `build` fails with the reason: nothing runs on another device instead.
    #[must_use]
    pub fn with_device(self, device: Device) -> Self {
        self.with_devices([device])
    }

    /// Sets several devices that share the work: GPUs of one kind.
    #[must_use]
    pub fn with_devices(mut self, devices: impl IntoIterator<Item = Device>) -> Self {
        self.devices = devices.into_iter().collect();
        self
    }

    /// Sets the precision. [`Int8`](Precision::Int8) quantizes the layers' weights while loading: 1.5 times as fast on a
    /// CPU with AVX2, and a quarter of their memory, at a mean cosine of 0.998, or of 0.996 with weights of 7 bits. See
    /// [`Onnx`](Onnx#precision).
    #[must_use]
    pub const fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets the bits of the weights in [`Int8`](Precision::Int8): 8, which is the default on CPUs that add products of
    /// 8-bit numbers exactly (AVX-VNNI, AVX-512 VNNI, dot products on Arm), or 7, which is the default on others. Each
    /// has a space of its own. Set 7 if CPUs of both kinds share one index or one cache. 8 is an error on a CPU that
    /// does not add exactly.
    #[must_use]
    pub const fn with_weight_bits(mut self, bits: u8) -> Self {
        self.weight_bits = Some(bits);
        self
    }

    /// Sets the threads on each device; each has a session of its own. 0 is an error. The most are four per core, or 16
    /// if there are fewer than four cores: more is an error, because each costs memory and none makes it faster.
    #[must_use]
    pub const fn with_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the most tokens of a text, special ones included. More than the model has positions for is an error, and so
    /// are so few that the special tokens leave no room. Another length is another space: it changes the vectors of
    /// truncated texts.
    #[must_use]
    pub const fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sets the padded tokens per batch. A longer text is a batch of its own. 0 is an error.
    /// `docvector-embed bench` and `tune` show which number is best.
    #[must_use]
    pub const fn with_batch_tokens(mut self, tokens: usize) -> Self {
        self.batch_tokens = Some(tokens);
        self
    }

    /// Ignores what `docvector-embed tune` found.
    #[must_use]
    pub const fn without_tuning(mut self) -> Self {
        self.tuned = false;
        self
    }

    /// Sets the poolings, in place of what the folder's `modules.json` says, or because there is
    /// [none](Onnx#model). The vectors of several are joined in this order. Another pooling is another space.
    ///
    /// No pooling and one that is named twice are errors. So is an `.onnx` file that gives one vector per text only,
    /// unless this is the folder's own pooling. A folder without `modules.json` then has no normalization, unless
    /// [`with_normalization`](Self::with_normalization) states one.
    ///
    /// ```no_run
    /// use docvector_embed::{Normalization, Pooling, provider::Onnx};
    /// # fn main() -> docvector_embed::Result<()> {
    /// // A folder of config.json, tokenizer.json and onnx/model.onnx, and nothing else.
    /// let builder = Onnx::builder("our-own-bge").with_pooling([Pooling::Cls]).with_normalization(Normalization::L2);
    /// let embedder = builder.build()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_pooling(mut self, pooling: impl IntoIterator<Item = Pooling>) -> Self {
        self.stated.pooling = Some(pooling.into_iter().collect());
        self
    }

    /// Sets the scaling of vectors, after all modules, in place of what the folder's `modules.json` says. Another
    /// scaling is another space. An `.onnx` file that gives one vector per text only may scale it: then
    /// [`None`](Normalization::None) is an error if the folder says [`L2`](Normalization::L2).
    #[must_use]
    pub const fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.stated.normalization = Some(normalization);
        self
    }

    /// Sets the prompts before documents and queries, in place of the folder's. A prompt that leaves no room for a text
    /// is an error.
    #[must_use]
    pub fn with_prompts(mut self, prompts: Prompts) -> Self {
        self.prompts = Some(prompts);
        self
    }

    /// Truncates the vectors to their first components, for models that are trained for it (Matryoshka). 0 and more
    /// than the model's dimensions are errors.
    #[must_use]
    pub const fn with_truncate_dim(mut self, dimensions: usize) -> Self {
        self.truncate_dim = Some(dimensions);
        self
    }

    /// Loads the model. Blocks until the weights are read: in an async program, run it where blocking is allowed.
    ///
    /// # Errors
    /// See [`Onnx`](Onnx#errors).
    pub fn build(self) -> Result<Onnx> {
        let target = self.check_options()?;
        let mut folder = self.read_folder()?;
        let file = model_path(&folder, self.file.as_deref())?;
        let (library, environment) = library::load(self.library.as_deref())?;
        let loaded = self.load_model(&mut folder, &file, target, &environment)?;
        let space = self.describe_space(&folder, &loaded, target)?;
        let built_graph = is_weights(&file);
        let kind = if built_graph { "weights" } else { "file" };
        let key = TuningKey::here(&library.version, &Device::names(&self.devices), space.id(), kind);
        let (Tuning { threads, batch_tokens, .. }, tuning_source) = self.choose_settings(&key);
        let (tokens, model) = (Arc::new(loaded.tokens), Arc::new(loaded.model));
        let workers = self.start_workers(&model, &tokens, &environment, Tuning::new(threads, batch_tokens))?;
        let tokenize: Arc<dyn Tokenize> = tokens.clone();
        let scheduler = Scheduler::start(tokenize, model.dimensions, workers)?;
        let info = OnnxInfo {
            library,
            model: file,
            built_graph,
            assumed: folder.assumed,
            devices: self.devices,
            threads,
            max_tokens: folder.max_tokens,
            batch_tokens,
            tuning_source,
            cpu: cpu::cpu(),
        };
        let payee = Payee::new("onnx", space.model(), Tier::Local);
        Ok(Onnx(Arc::new(Inner { scheduler, tokens, model, environment, space, payee, key, info })))
    }

    fn on_cpu(&self) -> bool {
        self.devices.contains(&Device::Cpu)
    }

    fn int8(&self) -> bool {
        self.precision == Precision::Int8
    }

    /// Refuses options that are wrong whatever the folder holds. Returns what graphs are built for.
    fn check_options(&self) -> Result<GraphTarget> {
        if self.batch_tokens == Some(0) || self.threads == Some(0) {
            return Err(wrong("threads and padded tokens per batch must be at least 1".into()));
        }
        let most = cpu::most_threads();
        if let Some(threads) = self.threads.filter(|&threads| threads > most) {
            return Err(wrong(format!(
                "{threads} threads are too many for this machine: set 1 to {most}; each thread holds a session in memory"
            )));
        }
        Device::check(&self.devices)?;
        if self.int8() && !self.on_cpu() {
            return Err(wrong("int8 needs the CPU: GPUs run fp16".into()));
        }
        if let (true, Some(missing)) = (self.int8(), cpu::missing_for_int8()) {
            return Err(wrong(format!("int8 needs {missing}, which this CPU lacks")));
        }
        if let (Some(bits), false) = (self.weight_bits, self.int8()) {
            return Err(wrong(format!(
                "with_weight_bits (--weight-bits) is {bits}, but only int8 has such weights: set the precision too \
                 (with_precision, --precision int8)"
            )));
        }
        let weight_bits = WeightBits::choose(self.weight_bits).map_err(wrong)?;
        Ok(match (self.on_cpu(), self.int8()) {
            (true, false) => GraphTarget::Cpu,
            (true, true) => GraphTarget::Int8(weight_bits),
            (false, _) => GraphTarget::Cuda,
        })
    }

    /// Reads the folder, and applies the options to it.
    fn read_folder(&self) -> Result<ModelFolder> {
        let root = assets::find_model(&self.folder).map_err(|looked_at| nowhere(&self.folder, &looked_at))?;
        let mut folder = ModelFolder::read(&root)?;
        folder.state(&self.stated)?;
        if let Some(prompts) = &self.prompts {
            folder.prompts = prompts.clone();
        }
        folder.truncate_dim = self.truncate_dim.or(folder.truncate_dim);
        if let Some(asked) = self.max_tokens {
            if let Some(positions) = folder.positions.filter(|&positions| asked > positions) {
                return Err(wrong(format!(
                    "with_max_tokens (--max-tokens) is {asked}, but the model has positions for {positions} tokens: set \
                     at most {positions}"
                )));
            }
            folder.max_tokens = Some(asked);
        }
        Ok(folder)
    }

    /// Loads the model and its tokenizer, from weights or from a file as it is.
    fn load_model(
        &self,
        folder: &mut ModelFolder,
        file: &Path,
        target: GraphTarget,
        environment: &Environment,
    ) -> Result<Loaded> {
        if is_weights(file) {
            folder.settle_pooling()?;
            let mut weights = Weights::open(file)?;
            if !folder.has_modules {
                not_embedders::check_weights(&weights, file)?;
            }
            let graph = Graph::build(folder, &mut weights, target)?;
            let tokens = ModelTokenizer::read(folder, Some(graph.vocabulary))?;
            let model = Model::of_graph(graph, folder, tokens.pad)?;
            return Ok(Loaded { model, tokens, weights: weights.hash(), precision: self.precision });
        }
        if self.int8() {
            let message =
                format!("int8 needs model.safetensors of a known family: {} cannot be quantized", file.display());
            return Err(wrong(message));
        }
        let inspected = OnnxFile::inspect(file)?;
        let tokens = ModelTokenizer::read(folder, folder.config.size("vocab_size")?)?;
        let device = self.devices[0];
        let (model, session) = Model::of_file(&inspected, folder, environment, device, tokens.pad)?;
        // First, because a longer text must not get there.
        if let Some(tokens) = model.fixed_tokens.filter(|&fixed| folder.max_tokens.is_none_or(|max| max > fixed)) {
            let message = format!(
                "{} takes texts of exactly {tokens} tokens: set with_max_tokens (--max-tokens) to at most {tokens}",
                file.display()
            );
            return Err(wrong(message));
        }
        let model = part_if_dependent(model, session, &Probe::new(&tokens)?, device, file)?;
        Ok(Loaded { model, tokens, weights: inspected.hash, precision: inspected.precision })
    }

    /// Describes the space of the model's vectors.
    fn describe_space(&self, folder: &ModelFolder, loaded: &Loaded, target: GraphTarget) -> Result<Space> {
        let Loaded { model, tokens, weights, precision } = loaded;
        let label = model_folder::label(&folder.root);
        Space::builder(folder.config.text("model_type")?.unwrap_or("onnx"), model.dimensions)
            .with_revision(revision(folder, tokens, *weights, &model.facts))
            .with_pooling(folder.pooling.iter().copied())
            .with_normalization(folder.normalization())
            .with_prompts(folder.prompts.clone())
            .with_precision(*precision)
            .with_label(match target {
                GraphTarget::Cpu | GraphTarget::Cuda => label,
                GraphTarget::Int8(WeightBits::Eight) => format!("{label} (int8)"),
                GraphTarget::Int8(WeightBits::Seven) => format!("{label} (int8, 7-bit weights)"),
            })
            .build()
    }

    /// Chooses the threads and the size of batches: the given numbers, else the measured ones, else the defaults.
    fn choose_settings(&self, key: &TuningKey) -> (Tuning, TuningSource) {
        let defaults = if self.on_cpu() {
            Tuning::new(cpu::cores(), BATCH_TOKENS)
        } else {
            Tuning::new(SESSIONS_PER_GPU, BATCH_TOKENS_GPU)
        };
        // Threads and budget are measured together, so one given number rules out the measured other one.
        let given = self.threads.is_some() || self.batch_tokens.is_some();
        let found = if self.tuned && !given { tuning::find(key) } else { StoredTuning::Nothing };
        let (tuning, source) = match found {
            StoredTuning::Tuned(tuning, file) => (tuning, TuningSource::Tuned(file)),
            StoredTuning::Nothing => (defaults, if given { TuningSource::Given } else { TuningSource::Defaults }),
            StoredTuning::Unreadable(file, why) => {
                tracing::warn!(
                    { telemetry::FILE } = %file.display(),
                    { telemetry::WHY } = why,
                    "tuned settings cannot be used"
                );
                (defaults, TuningSource::Unusable(file, why))
            }
        };
        let threads = self.threads.unwrap_or(tuning.threads);
        let batch_tokens = self.batch_tokens.unwrap_or(tuning.batch_tokens);
        (Tuning::new(threads, batch_tokens), source)
    }

    /// Makes the workers of each device with their sessions, and those that only tokenize.
    fn start_workers(
        &self,
        model: &Arc<Model>,
        tokens: &ModelTokenizer,
        environment: &Environment,
        tuning: Tuning,
    ) -> Result<Vec<Worker>> {
        let on_cpu = self.on_cpu();
        let overhead = if on_cpu { BATCH_OVERHEAD } else { BATCH_OVERHEAD_GPU };
        let mut workers = Vec::new();
        for &device in &self.devices {
            let packing = Packing::new(tuning.batch_tokens, overhead, model.most_texts());
            for number in 0..tuning.threads {
                let role = WorkerRole { tokenizes: on_cpu, packing: Some(packing.clone()) };
                // Made here, one after the other. If each thread made its own, each heap would keep the garbage of it.
                let mut runner = Runner::start(model, environment, device)?;
                if !on_cpu && number == 0 {
                    runner.refuse_mates(&Probe::new(tokens)?, device)?;
                }
                let name = format!("docvector-{device}-{number}");
                workers.push(Worker { name, role, runner: Some(Box::new(runner)) });
            }
        }
        // A GPU embeds faster than the thread that feeds it could tokenize.
        for number in 0..if on_cpu { 0 } else { cpu::cores() } {
            let role = WorkerRole { tokenizes: true, packing: None };
            workers.push(Worker { name: format!("docvector-tokens-{number}"), role, runner: None });
        }
        Ok(workers)
    }
}

/// A loaded model, and what its space is described by.
struct Loaded {
    model: Model,
    tokens: ModelTokenizer,
    /// The hash of the weights, or of the file with them.
    weights: blake3::Hash,
    precision: Precision,
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Makes the error of a model's name for which there is no folder.
fn nowhere(name: &Path, looked_at: &[PathBuf]) -> Error {
    let looked_at = looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    wrong(format!(
        "there is no folder of a model {}: looked for {looked_at}. Give the folder of a sentence-transformers model, or \
         run `docvector-embed setup` (in a clone: scripts/fetch-assets), which fetches all-MiniLM-L6-v2",
        name.display()
    ))
}

/// Whether the file holds weights, which the graph is built from here.
fn is_weights(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "safetensors")
}

/// Finds the file with the model.
fn model_path(folder: &ModelFolder, asked: Option<&Path>) -> Result<PathBuf> {
    let found = onnx_file::find(&folder.transformer);
    if let Some(asked) = asked {
        let file = folder.transformer.join(asked);
        if !file.is_file() {
            return Err(wrong(format!("{} does not exist", file.display())));
        }
        if let (true, Some(there)) = (is_weights(&file), found)
            && let Some(why) = not_built(&folder.config)?
        {
            let there = there.display();
            return Err(wrong(format!("{}: {why}, but {there} is there: name it, or no file", file.display())));
        }
        return Ok(file);
    }
    let weights = folder.transformer.join("model.safetensors");
    match (weights.is_file(), found) {
        (true, Some(file)) => {
            let Some(why) = not_built(&folder.config)? else { return Ok(weights) };
            tracing::info!(
                { telemetry::FILE } = %file.display(),
                { telemetry::WHY } = why,
                "an .onnx file is taken and not the weights"
            );
            return Ok(file);
        }
        (true, None) => return Ok(weights),
        (false, Some(file)) => return Ok(file),
        (false, None) => {}
    }
    let at = folder.transformer.display();
    if folder.transformer.join("model.safetensors.index.json").exists() {
        return Err(wrong(format!("{at} has its weights in several files: merge them into one model.safetensors")));
    }
    if folder.transformer.join("pytorch_model.bin").exists() {
        return Err(wrong(format!(
            "{at} holds pytorch_model.bin, which can run code: convert it to model.safetensors"
        )));
    }
    let others = onnx_file::others(&folder.transformer);
    let advice = match others.first() {
        None => String::new(),
        Some(first) => format!(". A file of another name must be named: with_file (--file) {}", first.display()),
    };
    Err(wrong(format!(
        "{at} has neither model.safetensors nor model.onnx nor onnx/model.onnx; {}{advice}",
        listing(&folder.transformer)
    )))
}

/// Returns a fingerprint of everything that shapes the vectors and is not a field of the space. The device, the
/// library, the threads and the names of files are not in it.
fn revision(folder: &ModelFolder, tokens: &ModelTokenizer, weights: blake3::Hash, facts: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("docvector-embed 2026-11-22 onnx revision v1");
    hasher.update(weights.as_bytes()).update(tokens.hash.as_bytes());
    let max = folder.max_tokens.map_or_else(|| "any".to_owned(), |max| max.to_string());
    let rest = format!("{facts}|{max}|{}|{}|{}", folder.lower_case, folder.truncate_left, folder.pool_prompt);
    hasher.update(rest.as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}
