//! Runs a sentence-transformers model in this process, on ONNX Runtime: [`Onnx`].

mod activation;
mod builder;
mod cpu;
mod device;
mod family;
mod file_signature;
mod graph;
mod inputs;
mod json_file;
mod library;
mod model;
mod model_folder;
mod modules;
mod onnx_file;
mod placement;
mod pooling;
mod profile;
mod proto;
mod runner;
mod runtime_messages;
mod scheduler;
mod session;
mod stages;
mod tail;
mod tokenizer;
mod truncation;
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
use tokio::sync::oneshot;

pub use self::{
    builder::OnnxBuilder,
    device::Device,
    library::{OnnxLibrary, OnnxLibrarySource},
    profile::NodeShare,
    scheduler::OnnxStats,
    tuning::{Tuning, TuningSource},
};
use self::{model::Model, scheduler::Scheduler, tokenizer::ModelTokenizer, tuning::TuningKey};
use crate::{Batch, Charges, Embedder, Embeddings, Error, Limits, Payee, Result, Space, TokenCount, Usage};

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
/// the weights (BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, MPNet), pooling and normalization in it. Without, or
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
/// Texts are tokenized once, ahead of inference. On a CPU all texts of a call are, before the first is embedded: a bad
/// text fails its call before anything of it is embedded. A text of a megabyte or more is tokenized on a thread of
/// its own, and holds up its own call only.
///
/// Batches are packed by padded tokens (texts times the longest one's tokens), out of all calls that wait in a
/// [lane](crate::Lane), documents and queries alike: many small calls at once cost no more than one large one. A batch
/// begins with the longest text of the call whose turn it is. Another text joins where padding it is cheaper than
/// another batch: on a CPU, lengths in a batch differ by 8 tokens at most, on a card by 1,024. Rows go straight into
/// their call's matrix, in the order of its texts.
///
/// Calls of a lane take turns, a piece of work at a time: a batch, or 8 KB of text to be tokenized. So a small call is
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
/// ever. Attention, normalization and pooling stay fp32. Of all-MiniLM-L6-v2, the cosine to fp32 is 0.9959 on average
/// and at least 0.990 over 200 chunks of documentation, and at least 0.977 of odd texts (emoji, symbols), at 1.5 times
/// the speed. Such vectors are a space of their own. It needs `model.safetensors`, and AVX2 on x86-64 or dot products on 64-bit
/// Arm; otherwise it is an error that says what is missing. An `.onnx` file that quantizes while it runs, with a scale
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
/// but seconds where that is to tokenize a text of megabytes.
///
/// # Cost
/// Loading reads the weights once and makes a session a thread. On a CPU, sessions of weights share one copy of them;
/// of an `.onnx` file, and on a card, each has its own. Threads are this embedder's own: on a CPU they tokenize and
/// embed; beside a card's, a thread a core tokenizes; one more is for giant texts. Nothing runs on an async executor. A
/// call holds a copy of its texts until they are tokenized, their ids until they are embedded, and its rows: of more
/// texts than fit into memory, use [`embed_stream`](crate::EmbedderExt::embed_stream).
#[derive(Clone)]
pub struct Onnx(Arc<Inner>);

struct Inner {
    scheduler: Scheduler,
    tokens: Arc<ModelTokenizer>,
    model: Arc<Model>,
    environment: Environment,
    space: Space,
    payee: Payee,
    key: TuningKey,
    info: OnnxInfo,
}

/// What an [`Onnx`] runs on, for reports.
///
/// ```no_run
/// use docvector_embed::provider::Onnx;
/// # fn main() -> docvector_embed::Result<()> {
/// let embedder = Onnx::load("assets/all-MiniLM-L6-v2")?;
/// let info = embedder.info();
/// println!("ONNX Runtime {}, {} threads ({})", info.library.version, info.threads, info.tuning_source);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// What this embedder runs on.
    pub fn info(&self) -> &OnnxInfo {
        &self.0.info
    }

    /// Keeps settings that were measured, at so many tokens a second, for later loads of this model on this machine; says
    /// in which file. See [`Tuning`].
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) where there is no place for the file, or it cannot be read or written, or the
    /// settings make no sense.
    pub fn store_tuning(&self, tuning: &Tuning, tokens_per_second: f64) -> Result<PathBuf> {
        tuning::store(&self.0.key, self.0.space.label(), tuning, tokens_per_second)
    }

    /// The file that [`store_tuning`](Self::store_tuning) writes, whether or not it is there.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) where there is no place for one, or it cannot be read or written.
    pub fn tuning_file() -> Result<PathBuf> {
        tuning::file()
    }

    /// Runs two short texts on the first device, in a session of its own, and tells how many of the model's nodes each of
    /// ONNX Runtime's providers ran. Blocks for about as long as loading does.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) where no temporary folder can be made for ONNX Runtime's profile,
    /// [`Inference`](crate::ErrorKind::Inference) where the runtime fails.
    pub fn placement(&self) -> Result<Vec<NodeShare>> {
        let inner = &*self.0;
        placement::placement(&inner.model, &inner.environment, inner.info.devices[0])
    }

    /// What its threads have done since it was loaded.
    pub fn stats(&self) -> OnnxStats {
        self.0.scheduler.stats()
    }

    /// Ends this embedder and waits for its threads, without blocking the executor as dropping the last clone does.
    ///
    /// Its threads finish what they run: a batch, which takes milliseconds on a CPU, or a text that is being tokenized,
    /// which takes seconds for a text of megabytes. Then the sessions and the weights are freed, on a thread of their own.
    ///
    /// Other clones keep the embedder open: then this returns at once, and the last of them to be closed or dropped ends
    /// it. An [`embed`](Embedder::embed) call borrows its embedder, so a clone that others use for calls counts as open.
    ///
    /// Dropping the future leaves the threads to end by themselves, and nothing waits for them. If the future is never
    /// polled, this is a drop.
    ///
    /// ```no_run
    /// use docvector_embed::{EmbedderExt, provider::Onnx};
    /// # async fn example() -> docvector_embed::Result<()> {
    /// let embedder = Onnx::load("assets/all-MiniLM-L6-v2")?;
    /// let rows = embedder.embed_documents(&["the only text"]).await?;
    /// embedder.close().await;
    /// # Ok(()) }
    /// ```
    pub async fn close(self) {
        // Of clones that close at the same time, exactly one gets what is inside.
        let Some(inner) = Arc::into_inner(self.0) else { return };
        let (ended, end) = oneshot::channel::<()>();
        let closing = thread::Builder::new().name("docvector-close".to_owned()).spawn(move || {
            drop(inner);
            drop(ended);
        });
        // Without a thread, the closure has been dropped here, and what is inside with it.
        if closing.is_ok() {
            // The sender is never used: it goes when all has ended.
            let _ = end.await;
        }
    }

    /// Finds and loads ONNX Runtime without a model, as loading one would.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) lists the places tried.
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
        f.debug_struct("Onnx").field("space", &self.0.space).field("info", &self.0.info).finish_non_exhaustive()
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
        // Lengths are checked where the texts are tokenized anyway, and all bad texts are named at once.
        let bad = batch.bad_texts(&Limits::none());
        let done = inner.scheduler.submit(&batch, bad).await.map_err(named)?;
        let charges = Charges::of(&inner.payee, Usage::of_request(Some(done.tokens)));
        let embeddings = Embeddings::new(batch.len(), &inner.space, done.components, charges).map_err(named)?;
        Ok(embeddings.with_truncated(done.truncated))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.space)
    }

    /// No limits for a call, which is scheduled here; the model's for a text.
    fn limits(&self) -> Limits {
        let tokens: Arc<ModelTokenizer> = Arc::clone(&self.0.tokens);
        let limits = Limits::none().with_tokens(TokenCount::Exact(tokens));
        match self.0.info.max_tokens {
            Some(max) => limits.with_tokens_per_text(max),
            None => limits,
        }
    }
}
