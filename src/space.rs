//! Names the vector space that vectors lie in: [`Space`], and its stable fingerprint [`SpaceId`].

use std::{fmt, str::FromStr, sync::Arc};

use crate::{Error, ErrorKind, InputKind, Result, named::named};

/// Fixes the meaning of a [`SpaceId`]; a change to how fields are hashed needs a new one, and makes new spaces.
const CONTEXT: &str = "docvector-embed 2026-11-22 space id v1";

/// The most dimensions that a space may have: ten times the widest model known, and far from where products overflow.
const MAX_DIMENSIONS: usize = 65_536;

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

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceId({self})")
    }
}

impl FromStr for SpaceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.as_bytes();
        let wrong = || Error::new(ErrorKind::Config, "a space id is 32 hex digits");
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
pub struct Space(Arc<SpaceBuilder>, SpaceId);

impl Space {
    /// Begins a space of `dimensions` components (1 to 65,536) of this model family.
    pub fn builder(model: impl Into<String>, dimensions: usize) -> SpaceBuilder {
        SpaceBuilder {
            model: model.into(),
            dimensions,
            revision: None,
            pooling: Vec::new(),
            normalization: Normalization::None,
            prompts: Prompts::default(),
            precision: Precision::Full,
            label: None,
        }
    }

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

    /// Begins another space from this one's fields.
    pub fn to_builder(&self) -> SpaceBuilder {
        (*self.0).clone()
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

/// Builds a [`Space`].
///
/// # Default
/// No revision, no known pooling, no normalisation, no prompts, full precision, no label.
#[derive(Clone, Debug)]
pub struct SpaceBuilder {
    model: String,
    dimensions: usize,
    revision: Option<String>,
    pooling: Vec<Pooling>,
    normalization: Normalization,
    prompts: Prompts,
    precision: Precision,
    label: Option<String>,
}

impl SpaceBuilder {
    /// Sets the revision, or the hash of the weights.
    #[must_use]
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// Sets the number of components.
    #[must_use]
    pub const fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = dimensions;
        self
    }

    /// Sets how token vectors become one; several are concatenated.
    #[must_use]
    pub fn with_pooling(mut self, pooling: impl IntoIterator<Item = Pooling>) -> Self {
        self.pooling = pooling.into_iter().collect();
        self
    }

    /// Sets how vectors are scaled.
    #[must_use]
    pub const fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        self
    }

    /// Sets what is put before the texts, and by whom.
    #[must_use]
    pub fn with_prompts(mut self, prompts: Prompts) -> Self {
        self.prompts = prompts;
        self
    }

    /// Sets the class of arithmetic.
    #[must_use]
    pub const fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets a name for people. It is not part of the identity.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Makes the space and its fingerprint.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) where the model has no name or the dimensions are not 1 to 65,536.
    pub fn build(self) -> Result<Space> {
        if self.model.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a vector space needs the name of its model"));
        }
        if !(1..=MAX_DIMENSIONS).contains(&self.dimensions) {
            let message = format!("a vector space of {} dimensions: must be 1 to {MAX_DIMENSIONS}", self.dimensions);
            return Err(Error::new(ErrorKind::Config, message));
        }
        let id = self.fingerprint();
        Ok(Space(Arc::new(self), id))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> SpaceBuilder {
        Space::builder("a-model", 384)
    }

    fn id(builder: SpaceBuilder) -> String {
        builder.build().expect("a space").id().to_string()
    }

    /// Collections and caches are named by these: one that changes loses them. Add to the table; change nothing in it.
    #[test]
    fn ids_stay_as_they_are() {
        let pooled = |pooling: &[Pooling]| builder().with_pooling(pooling.iter().copied());
        let all = [Pooling::Mean, Pooling::Cls, Pooling::Max];
        for (what, builder, expected) in [
            ("nothing", builder(), "f5cee18fa372b5c62e6af5ceb54e1f52"),
            ("revision", builder().with_revision("1"), "059a56d91028bf4f1a7dbf2182e924f0"),
            ("label", builder().with_label("a label"), "f5cee18fa372b5c62e6af5ceb54e1f52"),
            ("l2", builder().with_normalization(Normalization::L2), "ada1bf10714ea43cc8963bb443036054"),
            ("int8", builder().with_precision(Precision::Int8), "65b5f8ced76908396a710672238cd959"),
            ("cls", pooled(&[Pooling::Cls]), "b845341cc1f6be9c1b31efed437499d4"),
            ("max", pooled(&[Pooling::Max]), "2c36d7788431bd37c2dbdbab74cd61b4"),
            ("mean", pooled(&[Pooling::Mean]), "98a9d09b389570180e40094f118a25ac"),
            ("mean sqrt", pooled(&[Pooling::MeanSqrtLen]), "998e6c163f7b64ee1d275251e6ab1615"),
            ("weighted", pooled(&[Pooling::WeightedMean]), "f203e898411bc19e20b47d70445164ec"),
            ("last", pooled(&[Pooling::LastToken]), "2815d6fce197f928be130e1863af555c"),
            ("several", pooled(&all), "8d332294945e81cb8e1651fab53c75ad"),
            ("client", builder().with_prompts(Prompts::new("d: ", "q: ")), "0469e001f0737479170845d8ff70708c"),
            ("server", builder().with_prompts(Prompts::by_server("d: ", "q: ")), "de0528bb9f283c7520795f76b5480ff3"),
            ("no prompts", builder().with_prompts(Prompts::by_server("", "")), "f5cee18fa372b5c62e6af5ceb54e1f52"),
        ] {
            assert_eq!(id(builder), expected, "{what}");
        }
    }

    /// Files and other machines hold these, and ids are made of them. Add to the tables; change nothing in them.
    #[test]
    fn names_stay_as_they_are() {
        let pooling = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"];
        assert_eq!(Pooling::ALL.iter().map(|pooling| pooling.as_str()).collect::<Vec<_>>(), pooling);
        assert_eq!((Normalization::None.as_str(), Normalization::L2.as_str()), ("none", "l2"));
        assert_eq!((Precision::Full.as_str(), Precision::Int8.as_str()), ("full", "int8"));
        assert_eq!((PromptsBy::Client.as_str(), PromptsBy::Server.as_str()), ("client", "server"));
    }

    /// Each name is read back, what is near one is not, and the error says which there are.
    fn check_names<T: Copy + PartialEq + fmt::Debug + fmt::Display + FromStr<Err = Error>>(all: &[T]) {
        for value in all {
            assert_eq!(value.to_string().parse::<T>().expect("a name"), *value);
        }
        let first = all[0].to_string();
        for given in ["", "nothing", &first.to_uppercase(), &format!(" {first}"), &format!("{first},{first}")] {
            let error = given.parse::<T>().expect_err(given);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().starts_with(&format!("{given:?} as ")), "{error}");
            assert!(all.iter().all(|value| error.message().contains(&value.to_string())), "{error}");
        }
    }

    #[test]
    fn names_are_read_back() {
        check_names(Pooling::ALL);
        check_names(Normalization::ALL);
        check_names(Precision::ALL);
        check_names(PromptsBy::ALL);
    }
}
