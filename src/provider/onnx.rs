//! Runs a sentence-transformers model in this process, on ONNX Runtime: [`Onnx`].

mod activation;
mod batch_mates;
mod builder;
mod catalogue;
mod cpu;
mod device;
mod family;
mod file_signature;
#[cfg(test)]
mod file_tests;
mod folder_listing;
#[cfg(fuzzing)]
pub mod fuzz;
mod graph;
mod inputs;
mod json_file;
mod library;
mod model;
mod model_folder;
mod modules;
mod not_embedders;
mod onnx_contents;
mod onnx_file;
mod placement;
mod pooling;
mod pooling_source;
mod profile;
mod proto;
mod runner;
mod runtime_messages;
mod scheduler;
mod session;
mod stages;
mod tail;
#[cfg(test)]
mod tiny_file;
mod tokenizer;
mod truncation;
mod trusted_place;
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
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, Limits, Payee, Result, Space, TokenCount, TokenizerCounter, Usage,
    explanation::Explanation,
};

/// Embeds with a model in this process. Cheap to clone; clones share everything.
///
/// ```no_run
/// use docvector_embed::{EmbedderExt, provider::Onnx};
/// # async fn example() -> docvector_embed::Result<()> {
/// let embedder = Onnx::load("assets/all-MiniLM-L6-v2")?;
/// let documents = embedder.embed_documents(&["Ownership is Rust's most unique feature.", "Sheep are kept for wool."]).await?;
/// let query = embedder.embed_query_in(documents.space(), "who owns a value?").await?;
/// let score = |row: &[f32]| row.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
/// assert!(score(documents.row(0)) > score(documents.row(1)));
/// # Ok(()) }
/// ```
///
/// # Model
/// The model is a folder as sentence-transformers saves it. `docvector-embed setup` fetches one, all-MiniLM-L6-v2, with
/// ONNX Runtime. For another model, make its folder by Python's sentence-transformers,
/// `SentenceTransformer("NAME").save_pretrained("DIR")`, or download the model's repository with all its files, for
/// example by `git clone` with Git LFS. A name without a path, such as `all-MiniLM-L6-v2`, that is no folder here is
/// looked for in the [asset folder](crate::config::asset_folder).
///
/// - With `model.safetensors`, the graph is built here from `config.json` and the weights, pooling and normalization
///   included. The families are BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT and MPNet.
/// - Without it, for other families, or [on request](OnnxBuilder::with_file), an `.onnx` file of the folder runs as it
///   is. If the file leaves out pooling, Dense or Normalize, they are done after it. [`OnnxInfo::model`] names the file.
///
/// Rerankers, classifiers, SPLADE and ColBERT models give no dense vector per text: the error says what such a model is.
///
/// `modules.json`, the pooling configuration, the maximal length, prompts, lower-casing and `truncate_dim` are honored.
/// Anything that is not understood is an error.
///
/// Without `modules.json`, nothing in the folder says how a model pools. Then the pooling is the
/// [stated](OnnxBuilder::with_pooling) one. Otherwise a table of well-known models gives it, by the name of the folder
/// or of the repository in a hub's cache: a warning is logged, and [`OnnxInfo::assumed`] tells. A model that is not in
/// the table is an error. If `_name_or_path` of `config.json` is in it, the error says how that model pools: a model
/// that was made from it may pool in another way. An `.onnx` file with the output `sentence_embedding` has pooled
/// already, and needs none of this.
///
/// # Library
/// ONNX Runtime is loaded with the first model. These places are searched, in this order:
/// 1. the path given to [`with_library`](OnnxBuilder::with_library);
/// 2. the file or folder that `ORT_DYLIB_PATH` names;
/// 3. the asset folder that `DOCVECTOR_EMBED_ASSETS` names; without it, `assets` in the folder of the program or of the
///    package that cargo runs, or up to three levels above, then the [user's](crate::config::asset_folder), which
///    `docvector-embed setup` fills;
/// 4. the Python package `onnxruntime`.
///
/// A library is code, and a model's folder is data: nothing is loaded from there. An asset folder that nobody named must
/// be safe from others. On Unix, its library and each folder above it belong to you, to root or to the owner of the
/// program, and nobody else may write there. A group whose only member is the owner may write, and so may everybody in a
/// sticky folder further up, such as `/tmp`. Otherwise the library is passed over, and if no other is found, the error
/// says so. Windows has other rights, and none are checked there.
///
/// A process loads one library and makes one environment. A program that uses the `ort` crate itself must leave it to
/// this crate to make the environment.
///
/// # Semantics
/// A text that is too long is an error unless the batch says otherwise:
/// `embedder.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate))` truncates it, as
/// sentence-transformers does without being asked.
///
/// The vectors are those of sentence-transformers in fp32, with a cosine of at least 0.99999. On a CPU the other texts
/// of a batch change them by less than 1e-5. Vectors that `truncate_dim` shortens are scaled to length 1 again if they
/// had it before; sentence-transformers leaves that undone. If a folder defines a `passage` prompt beside an empty
/// `document` prompt, `passage` is used; sentence-transformers does not see it.
/// [`Space::prompts`](crate::Space::prompts) shows which prompts are applied.
///
/// # Scheduling
/// Texts are tokenized once, ahead of inference. On a CPU, all texts of a call are tokenized before the first is
/// embedded, so a bad text fails its call before any inference.
///
/// A long text is read in stretches of 8 KB, and only as far as the model needs. Other calls have their turn after two
/// of them. A text is split before spaces, if `tokenizer.json` shows that this changes no token: most of BERT and RoBERTa
/// do. So do those of XLM-RoBERTa, unless they have the normalizer Replace, as many have. A longer stretch that cannot
/// be split, as in base64, is tokenized on a thread for such stretches: it delays its own call and other such texts only.
///
/// Batches are packed by padded tokens: the number of texts times the tokens of the longest one. They take texts from
/// all calls that wait in a [lane](crate::Lane), documents and queries alike, so many small calls at the same time cost
/// no more than one large call. A batch begins with the longest text of the call whose turn it is. Another text joins
/// if padding it is cheaper than another batch: on a CPU, lengths in a batch differ by at most 8 tokens, on a GPU by at
/// most 1,024. Rows go straight into their call's matrix, in the order of its texts.
///
/// Calls of a lane take turns by pieces of work: a batch, or 8 KB of text to tokenize. So a small call does not wait
/// behind a large one. The interactive lane goes first. After eight interactive pieces a thread does one piece of the
/// bulk lane, so neither lane starves. [`Onnx::stats`] counts the batches, the padding, and the time of each stage.
///
/// If a batch fails, it runs again call by call, so that no call fails for another call's text.
///
/// # Devices
/// A model runs on the CPU or on [GPUs](Device::Cuda), which CUDA numbers. Several GPUs share the work.
///
/// ```no_run
/// use docvector_embed::provider::{Onnx, Device};
/// # fn main() -> docvector_embed::Result<()> {
/// let embedder = Onnx::builder("assets/all-MiniLM-L6-v2").with_device(Device::Cuda(0)).build()?;
/// println!("{:?}", embedder.placement()?); // nodes by provider
/// # Ok(()) }
/// ```
///
/// **CUDA has not been run on a GPU so far.** Its graph and its inputs are tested as far as a CPU can tell, and its
/// errors with a library that has no CUDA. It needs the feature `cuda`. At run time it needs ONNX Runtime's build for
/// CUDA (Python package `onnxruntime-gpu`), NVIDIA's driver, and the libraries of CUDA and cuDNN. If a requested GPU
/// cannot be used, loading fails with the reason; nothing runs on the CPU instead.
///
/// Built from weights, the layers run in fp16, and pooling and later steps in fp32, in the space of the CPU's vectors.
/// Each node runs on the GPU or loading fails. An `.onnx` file keeps its precision. If the GPU has no kernel for a node
/// of the file, that node runs on the CPU; [`Onnx::placement`] and `docvector-embed doctor` count these nodes.
///
/// If a batch does not fit into the GPU's memory, it is halved until it fits, and later batches stay as small. Only a
/// single text that does not fit is an error.
///
/// # Precision
/// [`with_precision(Int8)`](OnnxBuilder::with_precision) quantizes the weights of the layers to 8 bits while loading,
/// with one scale per column. The inputs of the layers have one scale per token. So a vector does not depend on the
/// other texts of its batch (by 3e-8 where it was measured), law 3 holds, and batches are packed as usual. Attention,
/// normalization and pooling stay fp32. It needs `model.safetensors`, and AVX2 on x86-64 or dot products on 64-bit Arm;
/// otherwise loading fails and says what is missing.
///
/// A CPU that has only AVX2 does not add products of 8-bit weights exactly; there the weights have 7 bits. Either is a
/// space of its own. [`with_weight_bits(7)`](OnnxBuilder::with_weight_bits) gives CPUs of both kinds one space.
///
/// For all-MiniLM-L6-v2, the cosine to fp32 over 189 chunks of documentation is 0.998 on average and at least 0.996;
/// with 7-bit weights, 0.996 and 0.993. It is at least 0.977 for odd texts (emoji, symbols). Speed is 1.5 times that of
/// fp32 on a CPU with AVX2.
///
/// A space of int8 promises less than one of full precision. Between two versions of ONNX Runtime or two kinds of CPU,
/// the cosine of a text's vectors is at least 0.99; in full precision it is at least 0.99999. The reason is that
/// rounding to 8 bits magnifies a difference in the last bit of a sum. Versions 1.23 and 1.32 differed by a cosine of
/// 0.9993 on average and at least 0.9979. On one machine with one version, the vectors are the same each time.
///
/// # Batches of an `.onnx` file
/// An `.onnx` file that quantizes while it runs, with one scale per batch, gets one text per batch. So does every other
/// file whose batches change vectors or fail: loading runs a short text alone and beside a longer one. The cosine of its
/// two vectors must be at least 0.9999; it must be 0.999 in fp16 and on a GPU, and 0.995 in int8. If it is lower, or if
/// only the two together fail, an event of the log says so. On a GPU the same check is made of graphs that are built
/// here, and a cosine below 0.999 is an error: a kernel is wrong there.
///
/// # Tuning
/// The defaults are one thread per core and 256 padded tokens per batch on a CPU, and two sessions and 16,384 tokens on
/// a GPU. `docvector-embed bench` shows what other budgets do. `docvector-embed tune` measures threads and budgets, and
/// keeps what is certainly faster. Loading uses these settings, unless you set threads or budget or ask it [not
/// to](OnnxBuilder::without_tuning). [`OnnxInfo::tuning_source`] says which settings are in use, and [`Tuning`] says
/// where they are kept.
///
/// # Errors
/// - Loading: [`Config`](crate::ErrorKind::Config) names the file, field, variable, device or instructions.
/// - Embedding: [`InvalidInput`](crate::ErrorKind::InvalidInput) for empty and over-long texts,
///   [`Inference`](crate::ErrorKind::Inference) if the runtime fails,
///   [`DeadlinePassed`](crate::ErrorKind::DeadlinePassed) at the batch's deadline, unless its last texts are running,
///   [`Config`](crate::ErrorKind::Config) in a fork of the process that loaded the model: a fork has no threads but one,
///   so load the model in each process.
///
/// # Cancellation
/// Dropping the future withdraws its queued work. A batch that is running is finished (on a CPU a few hundred tokens,
/// milliseconds), and the caller's rows of it are discarded. The same holds for a text that is being tokenized: reading
/// it ends after at most 16 KB, or with the stretch that cannot be split. A deadline that passes ends a call in the same
/// way, and its caller has the error at once.
///
/// Dropping the last clone blocks until the running work is done: milliseconds, or seconds if a text of megabytes is
/// being tokenized. [`Onnx::close`] waits for the same without blocking.
///
/// # Cost
/// Loading reads the weights once and makes one session per thread. On a CPU, sessions of weights share one copy of
/// them, and one of the layers' weights as ONNX Runtime packs them for products. While it makes a session, it holds one
/// more copy of the layers' weights: all-MiniLM-L6-v2, with 87 MiB of weights and 41 MiB of them in layers, peaks at 228
/// MiB with three sessions. Each session of an `.onnx` file, and each session on a GPU, has its own copy.
///
/// The threads belong to this embedder. On a CPU they tokenize and embed; beside a GPU's threads, one thread per core
/// tokenizes. Besides, one to four threads are for stretches of text that cannot be split, and one more for those of a
/// megabyte or more. They sleep until there are some. Nothing runs on an async executor.
///
/// A call holds a copy of its texts until they are tokenized, their ids until they are embedded, and its rows. For more
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

/// The model, library and devices of an [`Onnx`], for reports.
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
    /// The loaded ONNX Runtime.
    pub library: OnnxLibrary,
    /// The file with the weights.
    pub model: PathBuf,
    /// Whether the graph was built here from the weights, and not taken from a file.
    pub built_graph: bool,
    /// What was assumed of pooling and normalization, and why; `None` if the folder or the caller said it.
    pub assumed: Option<String>,
    /// The devices that run it.
    pub devices: Vec<Device>,
    /// Threads on each device; each has a session.
    pub threads: usize,
    /// The most tokens of a text, special ones included; `None` if there is no limit.
    pub max_tokens: Option<usize>,
    /// Padded tokens per batch, as set when loading. After running out of memory, a GPU takes fewer.
    pub batch_tokens: usize,
    /// The source of `threads` and `batch_tokens`.
    pub tuning_source: TuningSource,
    /// The name that the processor gives itself, if the system tells it.
    pub cpu: Option<String>,
}

impl Onnx {
    /// Returns what this embedder runs on.
    pub fn info(&self) -> &OnnxInfo {
        &self.0.info
    }

    /// Keeps measured settings, and the tokens per second that they reached, for later loads of this model on this
    /// machine, and returns the file that holds them. See [`Tuning`].
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if there is no place for the file, if it cannot be read or written, or if a
    /// setting is out of range.
    pub fn store_tuning(&self, tuning: &Tuning, tokens_per_second: f64) -> Result<PathBuf> {
        tuning::store(&self.0.key, self.0.space.label(), tuning, tokens_per_second)
    }

    /// Returns the file that [`store_tuning`](Self::store_tuning) writes, whether or not it exists.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if there is no place for one, or if it cannot be read or written.
    pub fn tuning_file() -> Result<PathBuf> {
        tuning::file()
    }

    /// Runs two short texts on the first device, in a session of its own, and returns how many of the model's nodes
    /// each of ONNX Runtime's providers ran. Blocks for about as long as loading does.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if no temporary folder can be made for ONNX Runtime's profile,
    /// [`Inference`](crate::ErrorKind::Inference) if the runtime fails.
    pub fn placement(&self) -> Result<Vec<NodeShare>> {
        let inner = &*self.0;
        placement::placement(&inner.model, &inner.environment, inner.info.devices[0])
    }

    /// Returns what the threads have done since the model was loaded.
    pub fn stats(&self) -> OnnxStats {
        self.0.scheduler.stats()
    }

    /// Returns the model's tokenizer, with the space's prompts. It counts tokens, and it is what a
    /// service tokenizes with.
    pub fn tokenizer(&self) -> TokenizerCounter {
        TokenizerCounter::clone(&self.0.tokens.counter)
    }

    /// Ends this embedder and waits for its threads, without blocking the executor. Dropping the last clone blocks.
    ///
    /// Its threads finish what they run: a batch, which takes milliseconds on a CPU, or a text that is being tokenized,
    /// which takes seconds for a text of megabytes. Then the sessions and the weights are freed, on a thread of their
    /// own.
    ///
    /// Other clones keep the embedder open: then this returns at once, and the last of them to be closed or dropped
    /// ends it. An [`embed`](Embedder::embed) call borrows its embedder, so a clone that others use for calls counts as
    /// open.
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
        // If several clones close at the same time, exactly one of them gets the inner value.
        let Some(inner) = Arc::into_inner(self.0) else { return };
        let (ended, end) = oneshot::channel::<()>();
        let closing = thread::Builder::new().name("docvector-close".to_owned()).spawn(move || {
            drop(inner);
            drop(ended);
        });
        // If no thread can be started, the closure and the inner value have been dropped here.
        if closing.is_ok() {
            // The sender is never used: it goes when all has ended.
            let _ = end.await;
        }
    }

    /// Finds and loads ONNX Runtime without a model, in the same way as loading a model does.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) lists the places that were tried.
    pub fn load_library(path: Option<&Path>) -> Result<OnnxLibrary> {
        library::load(path).map(|(library, _)| library)
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
        // Tokenizing checks the lengths, so that one error names all bad texts.
        let bad = batch.bad_texts(&Limits::none());
        let done = inner.scheduler.submit(&batch, bad).await.map_err(named)?;
        let charges = Charges::of(&inner.payee, Usage::of_request(Some(done.tokens)));
        let embeddings = Embeddings::new(batch.len(), &inner.space, done.components, charges).map_err(named)?;
        Ok(embeddings.with_truncated(done.truncated))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.space)
    }

    /// Returns no limits for a call, as calls of any size are scheduled here, and the model's limit for a text.
    fn limits(&self) -> Limits {
        let tokens = Arc::clone(&self.0.tokens.counter);
        let limits = Limits::none().with_tokens(TokenCount::Exact(tokens));
        match self.0.info.max_tokens {
            Some(max) => limits.with_tokens_per_text(max),
            None => limits,
        }
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::of_provider(self, batch, self.spaces(), &self.limits(), Some(&self.0.payee))
    }
}
