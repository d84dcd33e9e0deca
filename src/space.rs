//! Names the vector space that vectors lie in: [`Space`], and its stable fingerprint [`SpaceId`].

mod builder;
#[cfg(feature = "serde")]
mod stored;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

pub use self::builder::SpaceBuilder;
use crate::{
    InputKind, ParseError,
    named::{named, stored_by_name},
};

/// Fixes the meaning of a [`SpaceId`]; a change to how fields are hashed needs a new one, and makes new spaces.
const CONTEXT: &str = "docvector-embed 2026-11-22 space id v1";

/// The fingerprint of a [`Space`]: equal exactly where vectors can be compared. Shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpaceId([u8; 16]);

impl SpaceId {
    /// Restores a fingerprint from the bytes that [`as_bytes`](Self::as_bytes) gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The fingerprint's bytes, for keys and wire formats.
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
        let wrong = || ParseError::new("a space id is 32 hex digits");
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

/// How a model makes one vector out of the vectors of a text's tokens.
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
    /// The name that sentence-transformers' configurations use: `mean`, `cls`. It is a part of [`SpaceId`]s.
    Pooling, "a pooling",
    Cls = "cls",
    Max = "max",
    Mean = "mean",
    MeanSqrtLen = "mean_sqrt_len_tokens",
    WeightedMean = "weightedmean",
    LastToken = "lasttoken",
}

/// How vectors are scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Normalization {
    /// As the model gives them.
    #[default]
    None,
    /// To Euclidean length 1.
    L2,
}

named! {
    /// The name: `none` or `l2`. It is a part of [`SpaceId`]s.
    Normalization, "a normalization",
    None = "none",
    L2 = "l2",
}

/// The class of arithmetic: members of one class can be searched by one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// fp32, fp16 and bf16: cosine at least 0.9999 between them.
    #[default]
    Full,
    /// 8-bit weights or arithmetic: close, but not close enough to be called the same.
    Int8,
}

named! {
    /// The name: `full` or `int8`. It is a part of [`SpaceId`]s.
    Precision, "a precision",
    Full = "full",
    Int8 = "int8",
}

/// The strings put before documents and queries, and who puts them there. Part of the space: they move the vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Prompts {
    /// Put before a document; `None` for nothing.
    pub document: Option<Arc<str>>,
    /// Put before a query; `None` for nothing.
    pub query: Option<Arc<str>>,
    /// Who puts them there.
    pub applied_by: PromptsBy,
}

impl Prompts {
    /// Puts these strings before documents and queries; empty ones are none.
    pub fn new(document: impl AsRef<str>, query: impl AsRef<str>) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        Self { document: some(document.as_ref()), query: some(query.as_ref()), applied_by: PromptsBy::Client }
    }

    /// Says that the server puts these strings before documents and queries, so that nobody else must.
    pub fn by_server(document: impl AsRef<str>, query: impl AsRef<str>) -> Self {
        Self { applied_by: PromptsBy::Server, ..Self::new(document, query) }
    }

    /// The string put before texts of this kind.
    pub fn of(&self, kind: InputKind) -> Option<&str> {
        match kind {
            InputKind::Document => self.document.as_deref(),
            InputKind::Query => self.query.as_deref(),
        }
    }
}

/// Who puts the prompts before the texts.
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
    /// The name: `client` or `server`. It is a part of [`SpaceId`]s.
    PromptsBy, "the one who puts prompts",
    Client = "client",
    Server = "server",
}

/// A vector space: what must be equal for two vectors to be comparable. Cheap to clone; equal by [`id`](Self::id).
///
/// Vectors can be compared only within one space, so every result carries its space and every wrapper checks it.
///
/// ```
/// use docvector_embed::{Normalization, Space};
/// # fn main() -> docvector_embed::Result<()> {
/// let small = Space::builder("text-embedding-3-small", 1536).with_normalization(Normalization::L2).build()?;
/// let short = Space::builder("text-embedding-3-small", 512).with_normalization(Normalization::L2).build()?;
/// // One model at two widths is two spaces.
/// assert_ne!(small.id(), short.id());
/// // The fingerprint names a collection: the same tomorrow, on another machine, from another vendor.
/// assert_eq!(small.id().to_string(), "a39b12dacbab517a740c39a05e880932");
/// # Ok(()) }
/// ```
///
/// # What is in the identity
/// Model family, revision or weights hash, dimensions, pooling, normalisation, prompts and who applies them, and the
/// precision class. Not the vendor, address, key, device, file name or [label](SpaceBuilder::with_label).
#[derive(Clone)]
pub struct Space(Arc<Fields>, SpaceId);

/// What a space is made of.
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
    /// The stable fingerprint. Name collections and cache entries by it.
    pub const fn id(&self) -> SpaceId {
        self.1
    }

    /// The model family.
    pub fn model(&self) -> &str {
        &self.0.model
    }

    /// The revision or weights hash.
    pub fn revision(&self) -> Option<&str> {
        self.0.revision.as_deref()
    }

    /// Components of a vector.
    pub fn dimensions(&self) -> usize {
        self.0.dimensions
    }

    /// How token vectors become one; several are concatenated in this order; empty where not known.
    pub fn pooling(&self) -> &[Pooling] {
        &self.0.pooling
    }

    /// How vectors are scaled.
    pub fn normalization(&self) -> Normalization {
        self.0.normalization
    }

    /// What is put before the texts, and by whom.
    pub fn prompts(&self) -> &Prompts {
        &self.0.prompts
    }

    /// The class of arithmetic.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// A name for people; not part of the identity.
    pub fn label(&self) -> Option<&str> {
        self.0.label.as_deref()
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
    /// Hashes every field that matters, each with its length or a tag before it, so that no two spaces run together.
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
        // Without prompts there is nothing to apply, and so nobody who does.
        let has_prompts = self.prompts.document.is_some() || self.prompts.query.is_some();
        field(has_prompts.then_some(self.prompts.applied_by.as_str().as_bytes()));
        field(Some(self.precision.as_str().as_bytes()));
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        SpaceId(id)
    }
}
