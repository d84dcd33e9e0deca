//! Names the vector space that vectors lie in: [`Space`], and its stable fingerprint [`SpaceId`].

mod builder;
#[cfg(feature = "serde")]
mod stored;
#[cfg(test)]
mod tests;
mod text;

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

pub use self::builder::SpaceBuilder;
use crate::{
    InputKind, ParseError,
    named::{named, stored_by_name},
};

/// Fixes the meaning of a [`SpaceId`]. Any change in the way fields are hashed needs a new context, and then every
/// space gets a new id.
const CONTEXT: &str = "docvector-embed 2026-11-22 space id v1";

/// The fingerprint of a [`Space`]. Two are equal exactly if their vectors can be compared. It is shown as 32 hex
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpaceId([u8; 16]);

impl SpaceId {
    /// Restores a fingerprint from the bytes that [`as_bytes`](Self::as_bytes) returned.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the fingerprint's bytes, for keys and wire formats.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::LowerHex for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if f.alternate() { "0x" } else { "" })?;
        fmt::Display::fmt(self, f)
    }
}

impl AsRef<[u8]> for SpaceId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; 16]> for SpaceId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl From<&Space> for SpaceId {
    fn from(space: &Space) -> Self {
        space.id()
    }
}

impl From<SpaceId> for [u8; 16] {
    fn from(id: SpaceId) -> Self {
        id.0
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceId({self})")
    }
}

impl FromStr for SpaceId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.as_bytes();
        let wrong = || ParseError::new("a space id must be 32 hex digits");
        if digits.len() != 32 {
            return Err(wrong());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(wrong);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

stored_by_name!(SpaceId, |id| *id);

/// The way in which a model makes one vector from the vectors of a text's tokens.
///
/// Part of a [`Space`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The largest value of each component.
    Max,
    /// The mean over the tokens.
    Mean,
    /// The sum over the tokens divided by the square root of their number.
    MeanSqrtLen,
    /// The mean weighted by position: 1 for the first token, 2 for the second, and so on.
    WeightedMean,
    /// The last token's vector.
    LastToken,
}

named! {
    /// Returns the name that sentence-transformers' configurations use: `mean`, `cls`. It is a part of [`SpaceId`]s.
    Pooling, "a pooling",
    Cls = "cls",
    Max = "max",
    Mean = "mean",
    MeanSqrtLen = "mean_sqrt_len_tokens",
    WeightedMean = "weightedmean",
    LastToken = "lasttoken",
}

/// The scaling of vectors.
///
/// Part of a [`Space`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Normalization {
    /// None: the vectors stay as the model makes them.
    #[default]
    None,
    /// To Euclidean length 1.
    L2,
}

named! {
    /// Returns the name: `none` or `l2`. It is a part of [`SpaceId`]s.
    Normalization, "a normalization",
    None = "none",
    L2 = "l2",
}

/// The class of arithmetic. Vectors of the same class can be compared.
///
/// Part of a [`Space`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// fp32, fp16 and bf16: the cosine between their vectors of one text is at least 0.9999.
    #[default]
    Full,
    /// 8-bit weights or arithmetic: the vectors are close to those of `Full`, but not close enough to count as the
    /// same.
    Int8,
}

named! {
    /// Returns the name: `full` or `int8`. It is a part of [`SpaceId`]s.
    Precision, "a precision",
    Full = "full",
    Int8 = "int8",
}

/// The strings put before documents and queries, and who puts them there. They change the vectors, so they are part of
/// the space.
///
/// Part of a [`Space`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Prompts {
    /// The string put before a document; `None` for nothing.
    pub document: Option<Arc<str>>,
    /// The string put before a query; `None` for nothing.
    pub query: Option<Arc<str>>,
    /// The side that puts them there.
    pub applied_by: PromptsBy,
}

impl Prompts {
    /// Makes prompts that the embedder in this process puts before documents and queries. An empty string stands for
    /// none.
    pub fn new(document: impl AsRef<str>, query: impl AsRef<str>) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        Self { document: some(document.as_ref()), query: some(query.as_ref()), applied_by: PromptsBy::Client }
    }

    /// Makes prompts that the server puts before documents and queries, so that nobody else must.
    pub fn by_server(document: impl AsRef<str>, query: impl AsRef<str>) -> Self {
        Self { applied_by: PromptsBy::Server, ..Self::new(document, query) }
    }

    /// Returns the string put before texts of this kind.
    pub fn of(&self, kind: InputKind) -> Option<&str> {
        match kind {
            InputKind::Document => self.document.as_deref(),
            InputKind::Query => self.query.as_deref(),
        }
    }

    /// Returns the text with its prompt before it, whether the client or the server puts it there.
    #[cfg_attr(not(any(feature = "tokenizers", feature = "__http")), allow(dead_code, reason = "for providers"))]
    pub(crate) fn before<'t>(&self, kind: InputKind, text: &'t str) -> Cow<'t, str> {
        self.of(kind).map_or(Cow::Borrowed(text), |prompt| Cow::Owned(format!("{prompt}{text}")))
    }

    /// Returns the text as the client hands it on: with its prompt, unless the server puts it there.
    #[cfg_attr(not(feature = "__http"), allow(dead_code, reason = "for providers on a network"))]
    pub(crate) fn before_by_client<'t>(&self, kind: InputKind, text: &'t str) -> Cow<'t, str> {
        match self.applied_by {
            PromptsBy::Client => self.before(kind, text),
            PromptsBy::Server => Cow::Borrowed(text),
        }
    }
}

/// The side that puts the prompts before the texts.
///
/// Part of [`Prompts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PromptsBy {
    /// The embedder in this process.
    #[default]
    Client,
    /// The service that it calls.
    Server,
}

named! {
    /// Returns the name: `client` or `server`. It is a part of [`SpaceId`]s.
    PromptsBy, "the one who puts prompts",
    Client = "client",
    Server = "server",
}

/// A vector space: everything that must be equal for two vectors to be comparable. It is cheap to clone. Spaces are
/// equal if their [`id`](Self::id)s are.
///
/// Vectors can be compared only within one space, so every result carries its space and every wrapper checks it.
///
/// ```
/// use docvector_embed::{Normalization, Space};
/// # fn main() -> docvector_embed::Result<()> {
/// let small = Space::builder("text-embedding-3-small", 1536).with_normalization(Normalization::L2).build()?;
/// let short = Space::builder("text-embedding-3-small", 512).with_normalization(Normalization::L2).build()?;
/// // One model with two numbers of dimensions makes two spaces.
/// assert_ne!(small.id(), short.id());
/// // Name a collection by the fingerprint: it is the same tomorrow, on another machine, and from another vendor.
/// assert_eq!(small.id().to_string(), "a39b12dacbab517a740c39a05e880932");
/// # Ok(()) }
/// ```
///
/// # What is in the identity
/// The identity is made of the model family, the revision or weights hash, dimensions, pooling, normalization, prompts
/// and who applies them, and the precision class. The vendor, address, key, device, file name and
/// [label](SpaceBuilder::with_label) are not part of it.
///
/// # One model at two vendors
/// Two embedders lie in one space only if they say so: equal dimensions mean nothing. Build the space once and give it
/// to both, under whatever name each vendor has for the model. Write it down with [`to_text`](Self::to_text), so that a
/// later program can declare it without the model:
///
/// ```
/// # #[cfg(feature = "openai")]
/// # fn main() -> docvector_embed::Result<()> {
/// use docvector_embed::{EmbedderExt, Normalization, Pooling, Prompts, Space, provider::OpenAi};
/// let query = "Represent this sentence for searching relevant passages: ";
/// let stored = Space::builder("bge-base-en-v1.5", 768)
///     .with_pooling([Pooling::Cls])
///     .with_normalization(Normalization::L2)
///     .with_prompts(Prompts::new("", query))
///     .build()?
///     .to_text();
/// // Later, elsewhere:
/// let space: Space = stored.parse()?;
/// let one = OpenAi::builder("BAAI/bge-base-en-v1.5").with_base_url("https://one.example/v1").with_space(space.clone());
/// let two = OpenAi::builder("bge-base-en").with_base_url("https://two.example/v1/").with_space(space);
/// assert_eq!(one.build()?.space()?, two.build()?.space()?);
/// # Ok(()) }
/// # #[cfg(not(feature = "openai"))]
/// # fn main() {}
/// ```
///
/// The space of a local model names the hash of its weights too ([`revision`](Self::revision)): for a hosted twin, take
/// the local embedder's space. Nobody checks a declaration: a vendor may serve other weights, or int8. So embed some
/// texts at both first, and compare the rows; the cosines of one model are above 0.999.
/// [`Cached::check_model`](crate::wrap::Cached::check_model) does this for a filled cache.
#[derive(Clone)]
pub struct Space(Arc<Fields>, SpaceId);

/// The parts of a space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fields {
    model: String,
    dimensions: usize,
    revision: Option<String>,
    pooling: Vec<Pooling>,
    normalization: Normalization,
    prompts: Prompts,
    precision: Precision,
    label: Option<String>,
}

impl Space {
    /// Returns the stable fingerprint. Name collections and cache entries by it.
    pub const fn id(&self) -> SpaceId {
        self.1
    }

    /// Returns the model family.
    pub fn model(&self) -> &str {
        &self.0.model
    }

    /// Returns the revision or the hash of the weights.
    pub fn revision(&self) -> Option<&str> {
        self.0.revision.as_deref()
    }

    /// Returns the number of components of a vector.
    pub fn dimensions(&self) -> usize {
        self.0.dimensions
    }

    /// Returns the poolings that make one vector from the tokens' vectors. The results of several are concatenated in
    /// this order. The list is empty if the pooling is not known.
    pub fn pooling(&self) -> &[Pooling] {
        &self.0.pooling
    }

    /// Returns the scaling of vectors.
    pub fn normalization(&self) -> Normalization {
        self.0.normalization
    }

    /// Returns the strings put before texts, and who puts them there.
    pub fn prompts(&self) -> &Prompts {
        &self.0.prompts
    }

    /// Returns the class of arithmetic.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// Returns the name for people. It is not part of the identity.
    pub fn label(&self) -> Option<&str> {
        self.0.label.as_deref()
    }

    /// Returns the distinct spaces, in their order.
    pub(crate) fn distinct<'s>(spaces: impl Iterator<Item = &'s Self>) -> Vec<Self> {
        let mut distinct = Vec::new();
        for space in spaces {
            if !distinct.contains(space) {
                distinct.push(space.clone());
            }
        }
        distinct
    }
}

impl PartialEq for Space {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl Eq for Space {}

impl std::hash::Hash for Space {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.1.hash(state);
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}d, {})", self.label().unwrap_or_else(|| self.model()), self.dimensions(), self.1)
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Space").field(&self.1).field(&self.0).finish()
    }
}

impl Fields {
    /// Hashes every field of the identity. A tag says whether an optional field is there, and a length stands before
    /// its bytes: without them, two different spaces could feed the same bytes to the hash.
    fn fingerprint(&self) -> SpaceId {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let mut field = |bytes: Option<&[u8]>| match bytes {
            None => {
                hasher.update(&[0]);
            }
            Some(bytes) => {
                hasher.update(&[1]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            }
        };
        field(Some(self.model.as_bytes()));
        field(self.revision.as_deref().map(str::as_bytes));
        field(Some(&(self.dimensions as u64).to_le_bytes()));
        let pooling: Vec<&str> = self.pooling.iter().map(|pooling| pooling.as_str()).collect();
        field(Some(pooling.join("+").as_bytes()));
        field(Some(self.normalization.as_str().as_bytes()));
        field(self.prompts.document.as_deref().map(str::as_bytes));
        field(self.prompts.query.as_deref().map(str::as_bytes));
        // Without prompts it means nothing who applies them, so it must not make another space.
        let has_prompts = self.prompts.document.is_some() || self.prompts.query.is_some();
        field(has_prompts.then_some(self.prompts.applied_by.as_str().as_bytes()));
        field(Some(self.precision.as_str().as_bytes()));
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        SpaceId(id)
    }
}
