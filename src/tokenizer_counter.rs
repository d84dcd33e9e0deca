//! Counts tokens as a `tokenizer.json` does, without a model: [`TokenizerCounter`].

use std::{path::Path, sync::Arc};

use crate::{
    CountTokens, InputKind, Prompts, Result,
    tokenizer::{TextTokenizer, TokenizerJson},
};

/// Counts a text's tokens by the `tokenizer.json` of a model that runs elsewhere. Needs no model and no ONNX Runtime.
/// Cheap to clone.
///
/// Many servers truncate over-long texts silently. With a counter, such texts are found before the first request: they
/// are an error that names them, or they are truncated here and named in the result.
///
/// ```no_run
/// # #[cfg(feature = "openai")]
/// # fn main() -> docvector_embed::Result<()> {
/// use docvector_embed::{Limits, Normalization, Pooling, Space, TokenCount, TokenizerCounter, provider::OpenAi};
/// let space = Space::builder("bge-m3", 1024)
///     .with_pooling([Pooling::Cls])
///     .with_normalization(Normalization::L2)
///     .build()?;
/// let counter = TokenizerCounter::from_file("bge-m3/tokenizer.json")?.with_prompts(space.prompts().clone());
/// let limits = Limits::none().with_texts(256).with_tokens_per_text(8192).with_tokens(TokenCount::exact(counter));
/// let embedder = OpenAi::builder("BAAI/bge-m3")
///     .with_base_url("https://vendor.example/v1")
///     .with_space(space)
///     .with_limits(limits)
///     .build()?;
/// # Ok(()) }
/// # #[cfg(not(feature = "openai"))]
/// # fn main() {}
/// ```
///
/// # Default
/// No prompts. Truncation and padding in the file are ignored.
///
/// # Cost
/// A text is tokenized to be counted. Of a text of megabytes only the beginning is, if `tokenizer.json` shows that a
/// split before a space changes no token. It does for BERT's kind, and for those of bytes (GPT-2's kind) and of
/// SentencePiece that split texts into words. With another kind of normalizer, such as Replace, or of pre-tokenizer, or
/// with added tokens that take white space, all of the text is read.
#[derive(Clone, Debug)]
pub struct TokenizerCounter {
    pub(crate) texts: Arc<TextTokenizer>,
    pub(crate) prompts: Prompts,
}

impl TokenizerCounter {
    /// Reads a `tokenizer.json`, as the models of Hugging Face have it; a folder stands for that file in it. Blocks
    /// until it is read: up to a second for a large vocabulary.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) names the file if it cannot be read or is not a tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let texts = TextTokenizer::new(TokenizerJson::read(&path)?.fields, &path)?;
        Ok(Self { texts: Arc::new(texts), prompts: Prompts::default() })
    }

    /// Sets the prompts that are counted with the texts: those of the [space](crate::Space::prompts), whoever applies
    /// them.
    #[must_use]
    pub fn with_prompts(mut self, prompts: Prompts) -> Self {
        self.prompts = prompts;
        self
    }
}

impl CountTokens for TokenizerCounter {
    fn count(&self, kind: InputKind, text: &str) -> usize {
        self.texts.count(&self.prompts.before(kind, text))
    }

    /// Returns no bound: a normalizer may make more of a text than it has bytes.
    fn at_most(&self, _: InputKind, _: &str) -> usize {
        usize::MAX
    }

    fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
        self.texts.count_to(&self.prompts.before(kind, text), limit)
    }
}
