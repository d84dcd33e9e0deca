//! Lists what a store holds, for tools: [`CacheScan`].

use std::{fmt, str::FromStr};

use async_trait::async_trait;

use super::{CacheStore, Key};
use crate::{ParseError, Result, SpaceId};

/// Receives the entries that [`CacheScan::scan`] finds.
pub type ScanSink<'a> = dyn FnMut(Key, &[u8]) + Send + 'a;

/// A place in a [scan](CacheScan::scan), from which it goes on. Its content is the store's own matter.
///
/// It can be written down, as hex digits, and read again, in another process too.
///
/// ```
/// use docvector_embed::cache::ScanPlace;
/// # fn main() -> Result<(), docvector_embed::ParseError> {
/// let place = ScanPlace::from_bytes(&[0, 255]);
/// assert_eq!(place.to_string(), "00ff");
/// assert_eq!("00ff".parse::<ScanPlace>()?, place);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanPlace(Box<[u8]>);

impl ScanPlace {
    /// Makes a place of bytes that a store understands.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ScanPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ScanPlace {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("a place in a scan must be an even number of hex digits");
        let (twos, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let byte = |two: &[u8; 2]| Some(digit(two[0])? << 4 | digit(two[1])?);
        let bytes = twos.iter().map(byte).collect::<Option<Box<[u8]>>>();
        bytes.filter(|_| rest.is_empty()).map(Self).ok_or_else(wrong)
    }
}

/// A store that can list what it holds: for copies, exports, checks and statistics. `Cached` does not need it.
///
/// ```
/// use docvector_embed::cache::{CacheScan, CacheStore, Entry, Key, Memory};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = Memory::new(1 << 20);
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"bytes")]).await?;
/// let (mut found, mut place) = (Vec::new(), None);
/// loop {
///     place = store.scan(place.as_ref(), &mut |key, value| found.push((key, value.to_vec()))).await?;
///     if place.is_none() {
///         break;
///     }
/// }
/// assert_eq!(found, [(key, b"bytes".to_vec())]);
/// # Ok(()) }) }
/// ```
///
/// # Laws
/// 1. **All.** A scan from the beginning to the end hands over each entry that was there all the time, whole, with its
///    key. It hands over no entry that was never there. An entry that is put or discarded meanwhile may or may not come.
/// 2. **Again.** An entry may come more than once, also in one call.
/// 3. **Steps.** A call hands over a bounded part, and returns the place from which the next call goes on; `None` at the
///    end. A part may be empty. The same place can be used again, by another handle of the same store too.
/// 4. **Contains.** `contains` says of each key whether `get` would find it.
///
/// [`conformance::scan`](fn@crate::conformance::scan) checks them.
#[async_trait]
pub trait CacheScan: CacheStore {
    /// Hands over the entries after a place, or the first ones, up to a few megabytes, and returns where to go on.
    ///
    /// # Errors
    /// Those of [`get`](CacheStore::get). [`Config`](crate::ErrorKind::Config) if the place is not one of this kind of
    /// store.
    async fn scan(&self, after: Option<&ScanPlace>, sink: &mut ScanSink<'_>) -> Result<Option<ScanPlace>>;

    /// Returns whether each key is there, without its value.
    async fn contains(&self, keys: &[Key]) -> Result<Vec<bool>>;

    /// Returns about how many entries there are, for a progress bar.
    async fn estimated_len(&self) -> Result<u64>;

    /// Returns whether nothing can be stored, because this user may only read.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Returns the noted spaces and the lines about them, ordered by id.
    async fn notes(&self) -> Result<Vec<(SpaceId, String)>>;
}

/// Fails to compile if the trait stops being object-safe.
const _: fn(&dyn CacheScan) = |_| {};
