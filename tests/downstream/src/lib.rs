//! An embedder, a wrapper and a store of somebody else's making.

mod folder;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use docvector_embed::{
    BadText, BadTextReason, Batch, CountTokens, Embedder, Embeddings, Error, InputKind, Limits, Result, Space,
    TokenCount, Truncation, Usage, async_trait, observer::EventKind,
};

pub use self::folder::Folder;

/// Components of a [`Hashing`] vector.
const WIDTH: usize = 128;

/// The hashing trick: each word adds one to a component chosen by its hash, and a sign.
#[derive(Debug)]
pub struct Hashing {
    space: Space,
    limits: Limits,
}

/// Words are this model's tokens.
#[derive(Debug)]
struct Words;

impl CountTokens for Words {
    fn count(&self, _: InputKind, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn at_most(&self, _: InputKind, text: &str) -> usize {
        text.len().div_ceil(2)
    }
}

impl Hashing {
    /// Takes `texts` texts a call and `words` words a text.
    pub fn new(texts: usize, words: usize) -> Result<Self> {
        let limits = Limits::none().with_texts(texts).with_tokens_per_text(words);
        let limits = limits.with_tokens(TokenCount::Exact(Arc::new(Words)));
        Ok(Self { space: Space::builder("hashing-trick", WIDTH).with_revision("fnv1a").build()?, limits })
    }
}

impl fmt::Display for Hashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hashing")
    }
}

fn fnv1a(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[async_trait]
impl Embedder for Hashing {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits)?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&self.space));
        }
        let most = self.limits.tokens_per_text.unwrap_or(usize::MAX);
        let mut components = vec![0.0; batch.len() * WIDTH];
        let (mut truncated, mut tokens) = (Vec::new(), 0);
        for (index, text) in batch.texts().iter().enumerate() {
            let words = text.split_whitespace().count();
            if words > most {
                truncated.push(index);
            }
            for word in text.split_whitespace().take(most) {
                let hash = fnv1a(word);
                let sign = if hash >> 63 == 1 { -1.0 } else { 1.0 };
                components[index * WIDTH + (hash % WIDTH as u64) as usize] += sign;
                tokens += 1;
            }
        }
        let usage = Usage::of_request(Some(tokens));
        Ok(Embeddings::new(batch.len(), &self.space, components, usage)?.with_truncated(truncated))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.space)
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }
}

/// Refuses texts that hold a forbidden word, and lets the others through.
#[derive(Debug)]
pub struct Screened<E> {
    inner: E,
    forbidden: String,
    refused: AtomicU64,
}

impl<E> Screened<E> {
    /// Wraps `inner`.
    pub fn new(inner: E, forbidden: impl Into<String>) -> Self {
        Self { inner, forbidden: forbidden.into(), refused: AtomicU64::new(0) }
    }

    /// Texts refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl<E: fmt::Display> fmt::Display for Screened<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Screened({})", self.inner)
    }
}

#[async_trait]
impl<E: Embedder> Embedder for Screened<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits())?;
        let bad: Vec<BadText> = (0..batch.len())
            .filter(|&index| batch.texts()[index].contains(&self.forbidden))
            .map(|index| BadText::new(index, BadTextReason::Rejected))
            .collect();
        if !bad.is_empty() {
            self.refused.fetch_add(bad.len() as u64, Ordering::Relaxed);
            batch.tell(self, EventKind::Other { name: "texts_refused", count: bad.len() as u64 });
            return Err(Error::invalid_texts(bad).with_embedder(self));
        }
        self.inner.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

/// What a program does with any embedder: the rows of what could be embedded, and the indices of what could not.
pub async fn embed_what_can_be(embedder: &dyn Embedder, texts: &[&str]) -> (usize, Vec<usize>) {
    use docvector_embed::EmbedderExt;
    let each = embedder.embed_each(Batch::documents(texts).with_truncation(Truncation::Truncate)).await;
    (each.embeddings().map_or(0, Embeddings::len), each.errors().map(|(index, _)| index).collect())
}
