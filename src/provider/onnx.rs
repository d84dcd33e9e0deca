//! Runs a sentence-transformers model in this process, on ONNX Runtime: [`Onnx`].

mod device;
mod folder;
mod graph;
mod library;
mod model_file;
mod pool;
mod proto;
mod scheduler;
mod session;
mod tokens;
mod tuning;
mod weights;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use async_trait::async_trait;
use ort::environment::Environment;

pub use self::{
    device::Device,
    library::{OnnxLibrary, OnnxLibrarySource},
    scheduler::OnnxStats,
    session::NodeShare,
    tuning::{Tuning, TuningSource},
};
use self::{
    folder::{Folder, Step},
    graph::{Form, Graph},
    model_file::ModelFile,
    scheduler::{Encode, Packing, Role, Scheduler, Worker},
    session::Model,
    tokens::Tokens,
    tuning::{Found, Key},
    weights::Weights,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Normalization, Payee, Precision, Prompts, Result,
    Space, Tier, TokenCount, Usage,
};

/// Padded tokens of a batch on a CPU: best or tied for all models and lengths measured (benches/RESULTS.md).
const BATCH_TOKENS: usize = 256;
/// Padded tokens of a batch on a card: a round number that keeps one busy; not measured here.
const BATCH_TOKENS_ON_A_CARD: usize = 16_384;
/// On a card, padding costs less than another batch.
const BATCH_OVERHEAD_ON_A_CARD: usize = 1024;
/// One computes while the other is fed and read.
const SESSIONS_A_CARD: usize = 2;
/// What a batch costs on a CPU besides its tokens, in tokens: how much a text may be padded to share one.
const BATCH_OVERHEAD: usize = 8;

/// A model in this process. Cheap to clone; clones share everything.
///
/// ```no_run
/// use docvector_embed::{EmbedderExt, provider::Onnx};
/// # async fn example() -> docvector_embed::Result<()> {
/// let embedder = Onnx::load("assets/all-MiniLM-L6-v2")?;
/// let documents = embedder.embed_documents(&["Ownership is Rust's most unique feature.", "Sheep are kept for wool."]).await?;
/// let query = embedder.embed_query("who owns a value?").await?;
/// let score = |row: &[f32]| row.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
/// assert!(score(documents.row(0)) > score(documents.row(1)));
/// # Ok(()) }
/// ```
///
/// # Model
/// A folder as sentence-transformers saves it. With `model.safetensors`, the graph is built here from `config.json` and
/// the weights (BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, MPNet), pooling and normalisation in it. Without, or
/// [where asked](OnnxBuilder::with_file), an `.onnx` file of the folder is taken as it is; what it leaves out (pooling,
/// Dense, Normalize) is done behind it. `modules.json`, pooling configuration, maximal length, prompts, lower-casing
/// and `truncate_dim` are honoured; what is not understood is an error.
///
/// # Library
/// ONNX Runtime is loaded when the first model is: from [`with_library`](OnnxBuilder::with_library), or the file or
/// folder that `ORT_DYLIB_PATH` names, or the asset folder (`DOCVECTOR_EMBED_ASSETS`, or the folder that the model lies
/// in, or `assets` in the folder of the program or of the package that cargo runs, or up to three levels above), or the
/// Python package `onnxruntime`. A process loads one library and makes one environment; a program that uses the `ort`
/// crate itself must leave making it to this crate.
///
/// # Semantics
/// A text that is too long is an error unless the batch says otherwise: `embedder.embed_all(Batch::documents(&texts)
/// .with_truncation(Truncation::Truncate))` cuts it, as sentence-transformers does without being asked.
///
/// Vectors are those of sentence-transformers in fp32: cosine at least 0.99999. On a CPU they depend on their
/// batch-mates by less than 1e-5. Vectors cut by `truncate_dim` are scaled to length 1 again if they were before, which
/// sentence-transformers leaves undone. A folder that defines a `passage` prompt beside an empty `document` one means
/// the former, which sentence-transformers does not see; [`Space::prompts`](crate::Space::prompts) shows what is
/// applied.
///
/// # Scheduling
/// Texts are tokenised once, ahead of inference. On a CPU all texts of a call are, before the first is embedded: a bad
/// text fails its call before anything of it is embedded. A text of a megabyte or more is tokenised on a thread of
/// its own, and holds up its own call only.
///
/// Batches are packed by padded tokens (texts times the longest one's tokens), out of all calls that wait in a
/// [lane](crate::Lane), documents and queries alike: many small calls at once cost no more than one large one. A batch
/// begins with the longest text of the call whose turn it is. Another text joins where padding it is cheaper than
/// another batch: on a CPU, lengths in a batch differ by 8 tokens at most, on a card by 1,024. Rows go straight into
/// their call's matrix, in the order of its texts.
///
/// Calls of a lane take turns, a piece of work at a time: a batch, or 8 KB of text to be tokenised. So a small call is
/// not stuck behind a large one. The interactive lane goes first; a thread that has done eight pieces of it does one of
/// the bulk lane, so neither starves. [`Onnx::stats`] tells the batches, padding, and time of each stage.
///
/// A batch that fails is run again call by call, so that nobody's call fails for another's text.
///
/// # Devices
/// The CPU, or [cards](Device::Cuda) by CUDA's number; several cards share the work.
///
/// ```no_run
/// use docvector_embed::provider::{Onnx, Device};
/// # fn main() -> docvector_embed::Result<()> {
/// let embedder = Onnx::builder("assets/all-MiniLM-L6-v2").with_device(Device::Cuda(0)).build()?;
/// println!("{:?}", embedder.placement()?); // nodes by provider
/// # Ok(()) }
/// ```
///
/// **CUDA has not been run on a card so far.** Its graph and its inputs are tested as far as a CPU can tell, its errors
/// with a library that has no CUDA. It needs the feature `cuda`, and when it runs ONNX Runtime's build for CUDA (Python
/// package `onnxruntime-gpu`), NVIDIA's driver, and the libraries of CUDA and cuDNN. A card that was asked for and
/// cannot be used is an error when the model is loaded, with the reason; nothing runs on the CPU in its place. Of
/// weights, the layers run in fp16 and pooling and what follows in fp32, in the space of the CPU's vectors, and each
/// node runs on the card or loading fails. An `.onnx` file keeps its precision, and nodes that the card has no kernels
/// for run on the CPU; [`Onnx::placement`] and `docvector-embed doctor` tell how many.
///
/// A batch for which the card has too little memory is halved until it fits, and later ones are as small. Only a single
/// text that does not fit is an error.
///
/// # Precision
/// [`with_precision(Int8)`](OnnxBuilder::with_precision) makes the layers' weights 8 bits wide when loading: -64 to 64
/// with a scale a column, so that products are exact on every CPU. Inputs of the layers have a scale a token. So a
/// vector does not depend on its batch-mates (by 3e-8 where it was measured), law 3 holds, and batches are packed as
/// ever. Attention, normalisation and pooling stay fp32. Of all-MiniLM-L6-v2, the cosine to fp32 is 0.9959 on average
/// and at least 0.990 over 200 chunks of documentation, and at least 0.977 of odd texts (emoji, symbols), at 1.5 times
/// the speed. Such vectors are a space of their own. It needs `model.safetensors`, and AVX2 on x86-64 or dot products on 64-bit
/// Arm; otherwise it is an error that says what is missing. An `.onnx` file that quantises while it runs, with a scale
/// a batch, is given one text a batch.
///
/// # Tuning
/// The defaults: on a CPU a thread a core and 256 padded tokens a batch, on a card two sessions and 16,384 tokens.
/// `docvector-embed bench` shows what other budgets do; `docvector-embed tune` measures threads and budgets and keeps
/// what is surely faster. Loading looks for it, unless threads or budget are given or it was asked [not
/// to](OnnxBuilder::without_tuning); [`OnnxInfo::tuning_source`] says what was taken, and [`Tuning`] where it is kept.
///
/// # Errors
/// Loading: [`Config`](crate::ErrorKind::Config) names the file, field, variable, device or instructions. Embedding:
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for empty and over-long texts,
/// [`Inference`](crate::ErrorKind::Inference) where the runtime fails,
/// [`DeadlinePassed`](crate::ErrorKind::DeadlinePassed) past the batch's deadline.
///
/// # Cancellation
/// A dropped future withdraws its queued work. A batch being run (on a CPU a few hundred tokens, milliseconds) is
/// finished; the caller's rows of it are forgotten. Dropping the last clone waits for what is being run: milliseconds,
/// but seconds where that is to tokenise a text of megabytes.
///
/// # Cost
/// Loading reads the weights once and makes a session a thread. On a CPU, sessions of weights share one copy of them;
/// of an `.onnx` file, and on a card, each has its own. Threads are this embedder's own: on a CPU they tokenise and
/// embed; beside a card's, a thread a core tokenises; one more is for giant texts. Nothing runs on an async executor. A
/// call holds a copy of its texts until they are tokenised, their ids until they are embedded, and its rows: of more
/// texts than fit into memory, use [`embed_stream`](crate::EmbedderExt::embed_stream).
#[derive(Clone)]
pub struct Onnx(Arc<Inner>);

struct Inner {
    scheduler: Scheduler,
    tokens: Arc<Tokens>,
    model: Arc<Model>,
    environment: Environment,
    space: Space,
    payee: Payee,
    key: Key,
    about: OnnxInfo,
}

/// What an [`Onnx`] runs on, for reports.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OnnxInfo {
    /// ONNX Runtime.
    pub library: OnnxLibrary,
    /// The file with the weights.
    pub model: PathBuf,
    /// Whether the graph was built here from the weights, rather than taken from a file.
    pub built_graph: bool,
    /// The devices that run it.
    pub devices: Vec<Device>,
    /// Threads with a session each, on each device.
    pub threads: usize,
    /// Tokens of a text, special ones included; `None` for any number.
    pub max_tokens: Option<usize>,
    /// Padded tokens of a batch, as asked for. A card that ran out of memory takes less.
    pub batch_tokens: usize,
    /// Where these two numbers are from.
    pub tuning_source: TuningSource,
    /// What the processor calls itself, where the system tells.
    pub cpu: Option<String>,
}

impl Onnx {
    /// Loads a sentence-transformers folder with the defaults. Blocks for as long as reading the weights takes.
    ///
    /// # Errors
    /// See [`Onnx`](Onnx#errors).
    pub fn load(folder: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(folder).build()
    }

    /// Begins loading a sentence-transformers folder.
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
            prompts: None,
            truncate_dim: None,
        }
    }

    /// What this embedder runs on.
    pub fn info(&self) -> &OnnxInfo {
        &self.0.about
    }

    /// Keeps settings that were measured, at so many tokens a second, for later loads of this model on this machine; says
    /// in which file. See [`Tuning`].
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) where there is no place for the file, or it cannot be read or written, or the
    /// settings make no sense.
    pub fn store_tuning(&self, tuning: &Tuning, tokens_per_second: f64) -> Result<PathBuf> {
        tuning::store(&self.0.key, self.0.space.label(), tuning, tokens_per_second)
    }

    /// The file that [`store_tuning`](Self::store_tuning) writes, whether or not it is there.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) where there is no place for one, or it cannot be read or written.
    pub fn tuning_file() -> Result<PathBuf> {
        tuning::file()
    }

    /// Runs two short texts on the first device, in a session of its own, and tells how many of the model's nodes each of
    /// ONNX Runtime's providers ran. Blocks for about as long as loading does.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) where no temporary folder can be made for ONNX Runtime's profile,
    /// [`Inference`](ErrorKind::Inference) where the runtime fails.
    pub fn placement(&self) -> Result<Vec<NodeShare>> {
        let inner = &*self.0;
        inner.model.placement(&inner.environment, inner.about.devices[0])
    }

    /// What its threads have done since it was loaded.
    pub fn stats(&self) -> OnnxStats {
        self.0.scheduler.stats()
    }

    /// Finds and loads ONNX Runtime without a model, as loading one would.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) lists the places tried.
    pub fn load_library(path: Option<&Path>) -> Result<OnnxLibrary> {
        library::load(path, None).map(|(library, _)| library)
    }
}

impl fmt::Display for Onnx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "onnx/{}", self.0.space.label().unwrap_or_else(|| self.0.space.model()))
    }
}

impl fmt::Debug for Onnx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onnx").field("space", &self.0.space).field("info", &self.0.about).finish_non_exhaustive()
    }
}

#[async_trait]
impl Embedder for Onnx {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let inner = &*self.0;
        let named = |error: Error| error.with_embedder(self);
        batch.check_space(self.spaces()).map_err(named)?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&inner.space));
        }
        // Lengths are checked where the texts are tokenised anyway, and all bad texts are named at once.
        let bad = batch.bad_texts(&Limits::none());
        let done = inner.scheduler.embed(&batch, bad).await.map_err(named)?;
        let charges = Charges::of(&inner.payee, Usage::of_request(Some(done.tokens)));
        let embeddings = Embeddings::new(batch.len(), &inner.space, done.components, charges).map_err(named)?;
        Ok(embeddings.with_truncated(done.truncated))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.space)
    }

    /// No limits for a call, which is scheduled here; the model's for a text.
    fn limits(&self) -> Limits {
        let tokens: Arc<Tokens> = Arc::clone(&self.0.tokens);
        let limits = Limits::none().with_tokens(TokenCount::Exact(tokens));
        match self.0.about.max_tokens {
            Some(max) => limits.with_tokens_per_text(max),
            None => limits,
        }
    }
}

/// Builds an [`Onnx`].
///
/// # Default
/// - the library: searched for as [`Onnx`](Onnx#library) says;
/// - the file: `model.safetensors`, else `model.onnx`, else `onnx/model.onnx`;
/// - the device: the CPU, in full precision;
/// - threads and padded tokens of a batch: what [`docvector-embed tune`](Tuning) found for this model on this machine;
///   else, on a CPU, a thread a core and 256 tokens, and on a card two threads and 16,384 tokens;
/// - length, prompts and width: the folder's.
#[derive(Clone, Debug)]
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
    prompts: Option<Prompts>,
    truncate_dim: Option<usize>,
}

impl OnnxBuilder {
    /// Sets the file of ONNX Runtime, or the folder that it is in.
    #[must_use]
    pub fn with_library(mut self, path: impl Into<PathBuf>) -> Self {
        self.library = Some(path.into());
        self
    }

    /// Sets the model's file, below the folder: an `.onnx` file, or one of safetensors.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Sets the device. One that cannot be used is an error with the reason: nothing runs elsewhere in its place.
    #[must_use]
    pub fn with_device(self, device: Device) -> Self {
        self.with_devices([device])
    }

    /// Sets several devices, cards of one kind, which share the work.
    #[must_use]
    pub fn with_devices(mut self, devices: impl IntoIterator<Item = Device>) -> Self {
        self.devices = devices.into_iter().collect();
        self
    }

    /// Sets the precision. [`Int8`](Precision::Int8) makes the layers' weights 8 bits wide when loading: half as fast again
    /// on a CPU with AVX2, and a quarter of their memory, at a mean cosine of 0.996. See [`Onnx`](Onnx#precision).
    #[must_use]
    pub const fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets the threads on each device, each with a session of its own.
    #[must_use]
    pub const fn with_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the tokens of a text, special ones included, below what the model has positions for. Another length is
    /// another space: it changes the vectors of texts that are cut.
    #[must_use]
    pub const fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sets the padded tokens of a batch. A longer text is a batch of its own.
    /// `docvector-embed bench` and `tune` show what is best.
    #[must_use]
    pub const fn with_batch_tokens(mut self, tokens: usize) -> Self {
        self.batch_tokens = Some(tokens);
        self
    }

    /// Takes no notice of what `docvector-embed tune` found.
    #[must_use]
    pub const fn without_tuning(mut self) -> Self {
        self.tuned = false;
        self
    }

    /// Sets what is put before documents and queries, in place of what the folder says.
    #[must_use]
    pub fn with_prompts(mut self, prompts: Prompts) -> Self {
        self.prompts = Some(prompts);
        self
    }

    /// Cuts the vectors to their first components, which models trained for it (Matryoshka) allow.
    #[must_use]
    pub const fn with_truncate_dim(mut self, dimensions: usize) -> Self {
        self.truncate_dim = Some(dimensions);
        self
    }

    /// Loads the model. Blocks for as long as reading the weights takes: within an async program, run it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// See [`Onnx`](Onnx#errors).
    pub fn build(self) -> Result<Onnx> {
        let wrong = |message: String| Error::new(ErrorKind::Config, message);
        if self.batch_tokens == Some(0) || self.threads == Some(0) {
            return Err(wrong("threads and padded tokens of a batch must be at least 1".into()));
        }
        Device::check(&self.devices)?;
        let on_cpu = self.devices.contains(&Device::Cpu);
        let int8 = self.precision == Precision::Int8;
        if int8 && !on_cpu {
            return Err(wrong("int8 was asked for on a card: cards run fp16, int8 is for the CPU".into()));
        }
        if let (true, Some(missing)) = (int8, missing_for_int8()) {
            return Err(wrong(format!("int8 was asked for, and this CPU lacks {missing}")));
        }
        let mut folder = Folder::read(&self.folder)?;
        if let Some(prompts) = self.prompts {
            folder.prompts = prompts;
        }
        if let Some(dimensions) = self.truncate_dim {
            folder.truncate_dim = Some(dimensions);
        }
        let mut max_tokens = folder.max_tokens;
        if let Some(asked) = self.max_tokens {
            if let Some(positions) = folder.positions.filter(|&positions| asked > positions) {
                return Err(wrong(format!(
                    "{asked} tokens a text were asked for, the model has positions for {positions}"
                )));
            }
            max_tokens = Some(asked);
        }
        let file = model_path(&folder, self.file.as_deref())?;
        let (library, environment) = library::load(self.library.as_deref(), Some(&self.folder))?;

        let built_graph = file.extension().is_some_and(|extension| extension == "safetensors");
        let (model, tokens, weights, precision);
        if built_graph {
            let mut open = Weights::open(&file)?;
            let form = match (on_cpu, int8) {
                (true, false) => Form::Cpu,
                (true, true) => Form::Int8,
                (false, _) => Form::Cuda,
            };
            let graph = Graph::build(&folder, &mut open, form)?;
            tokens = Tokens::read(&folder, Some(graph.vocabulary), max_tokens)?;
            (weights, precision) = (open.hash(), self.precision);
            model = Model::of_graph(graph, &folder, folder.truncate_dim, tokens.pad)?;
        } else {
            if int8 {
                let message =
                    format!("int8 was asked for: {} stays what it is, int8 is made of weights", file.display());
                return Err(wrong(message));
            }
            let inspected = ModelFile::inspect(&file)?;
            tokens = Tokens::read(&folder, folder.config.size("vocab_size")?, max_tokens)?;
            model =
                Model::of_file(&inspected, &folder, &environment, self.devices[0], folder.truncate_dim, tokens.pad)?;
            (weights, precision) = (inspected.hash, inspected.precision);
            if let Some(tokens) = model.fixed_tokens.filter(|&fixed| max_tokens.is_none_or(|max| max > fixed)) {
                let message =
                    format!("{} takes texts of exactly {tokens} tokens: ask for at most so many", file.display());
                return Err(wrong(message));
            }
        }
        let label = folder::label(&folder.root);
        let normalized = matches!(folder.tail.last(), Some(Step::Normalize));
        let space = Space::builder(folder.config.text("model_type")?.unwrap_or("onnx"), model.dimensions)
            .with_revision(revision(&folder, &tokens, weights, &model.facts, max_tokens))
            .with_pooling(folder.pooling.iter().copied())
            .with_normalization(if normalized { Normalization::L2 } else { Normalization::None })
            .with_prompts(folder.prompts.clone())
            .with_precision(precision)
            .with_label(if int8 { format!("{label} (int8)") } else { label })
            .build()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let defaults = if on_cpu { (cores, BATCH_TOKENS) } else { (SESSIONS_A_CARD, BATCH_TOKENS_ON_A_CARD) };
        let kind = if built_graph { "weights" } else { "file" };
        let key = Key::here(&library.version, &names(&self.devices), space.id(), kind);
        let defaults = Tuning::new(defaults.0, defaults.1);
        // The two were measured together: one of them without the other was not.
        let given = self.threads.is_some() || self.batch_tokens.is_some();
        let found = if self.tuned && !given { tuning::find(&key) } else { Found::Nothing };
        let (tuning, tuning_source) = match found {
            Found::Tuned(tuning, file) => (tuning, TuningSource::Tuned(file)),
            Found::Nothing => (defaults, if given { TuningSource::Given } else { TuningSource::Defaults }),
            Found::Unreadable(file, why) => {
                tracing::warn!(file = %file.display(), why, "what tune found cannot be used");
                (defaults, TuningSource::Unusable(file, why))
            }
        };
        // What was asked for goes before what was measured.
        let threads = self.threads.unwrap_or(tuning.threads);
        let batch_tokens = self.batch_tokens.unwrap_or(tuning.batch_tokens);
        let overhead = if on_cpu { BATCH_OVERHEAD } else { BATCH_OVERHEAD_ON_A_CARD };
        let most_texts = if model.alone { Some(1) } else { model.fixed_texts };
        let width = model.dimensions;
        let (tokens, model) = (Arc::new(tokens), Arc::new(model));
        let mut workers = Vec::new();
        for &device in &self.devices {
            let packing = Packing::new(batch_tokens, overhead, most_texts);
            for number in 0..threads {
                let role = Role { tokenises: on_cpu, packing: Some(packing.clone()) };
                // Made here, one after the other: each thread making its own would leave its scraps in its own heap.
                let runner = Box::new(model.runner(&environment, device)?);
                workers.push(Worker { name: format!("docvector-{device}-{number}"), role, runner: Some(runner) });
            }
        }
        // A card embeds faster than the thread that feeds it could tokenise.
        for number in 0..if on_cpu { 0 } else { cores } {
            let role = Role { tokenises: true, packing: None };
            workers.push(Worker { name: format!("docvector-tokens-{number}"), role, runner: None });
        }
        let encode: Arc<dyn Encode> = tokens.clone();
        let scheduler = Scheduler::start(encode, width, workers)?;
        let about = OnnxInfo {
            library,
            model: file,
            built_graph,
            devices: self.devices,
            threads,
            max_tokens,
            batch_tokens,
            tuning_source,
            cpu: tuning::cpu(),
        };
        let payee = Payee::new("onnx", space.model(), Tier::Local);
        Ok(Onnx(Arc::new(Inner { scheduler, tokens, model, environment, space, payee, key, about })))
    }
}

/// The instructions that int8 needs and this CPU lacks. Without them it is slower than fp32.
fn missing_for_int8() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    return (!std::arch::is_x86_feature_detected!("avx2")).then_some("AVX2");
    #[cfg(target_arch = "aarch64")]
    return (!std::arch::is_aarch64_feature_detected!("dotprod")).then_some("dot products (asimddp)");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Some("AVX2 (x86-64) or dot products (64-bit Arm)");
}

fn names(devices: &[Device]) -> String {
    devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The file with the model.
fn model_path(folder: &Folder, asked: Option<&Path>) -> Result<PathBuf> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    if let Some(asked) = asked {
        let file = folder.transformer.join(asked);
        return if file.is_file() { Ok(file) } else { wrong(format!("{} is not there", file.display())) };
    }
    let weights = folder.transformer.join("model.safetensors");
    if weights.is_file() {
        return Ok(weights);
    }
    if let Some(file) = model_file::find(&folder.transformer) {
        return Ok(file);
    }
    let at = folder.transformer.display();
    if folder.transformer.join("model.safetensors.index.json").exists() {
        return wrong(format!("{at} has its weights in several files: put them into one model.safetensors"));
    }
    if folder.transformer.join("pytorch_model.bin").exists() {
        return wrong(format!("{at} holds pytorch_model.bin, which can run code: convert it to model.safetensors"));
    }
    wrong(format!("{at} has neither model.safetensors nor model.onnx nor onnx/model.onnx"))
}

/// A fingerprint of all that shapes the vectors and is not a field of the space. Not the device, the library, the
/// threads or the names of files.
fn revision(folder: &Folder, tokens: &Tokens, weights: blake3::Hash, facts: &str, max: Option<usize>) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("docvector-embed 2026-11-22 onnx revision v1");
    hasher.update(weights.as_bytes()).update(tokens.hash.as_bytes());
    let max = max.map_or_else(|| "any".to_owned(), |max| max.to_string());
    let rest = format!("{facts}|{max}|{}|{}|{}", folder.lower_case, folder.truncate_left, folder.pool_prompt);
    hasher.update(rest.as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}
