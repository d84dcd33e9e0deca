//! Says where vectors are kept, in a few words: [`CacheSpec`].

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use super::byte_size;
use crate::{
    ParseError, Result,
    cache::{CacheStore, Memory},
};

/// A place for vectors: `vectors.sqlite`, `sqlite:PATH`, or `memory:256MB`.
///
/// ```
/// use docvector_embed::config::CacheSpec;
/// # fn main() -> docvector_embed::Result<()> {
/// assert_eq!("memory:256MB".parse::<CacheSpec>()?, CacheSpec::Memory(256 << 20));
/// assert_eq!("vectors.sqlite".parse::<CacheSpec>()?, CacheSpec::Sqlite("vectors.sqlite".into()));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheSpec {
    /// This process's memory, up to so many bytes. The vectors are gone at its end.
    Memory(u64),
    /// A file, created if it is missing. Needs the feature `sqlite`.
    Sqlite(PathBuf),
}

impl CacheSpec {
    /// Opens the store.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a file without the feature `sqlite`; those of opening the file.
    pub fn open(&self) -> Result<Arc<dyn CacheStore>> {
        match self {
            Self::Memory(bytes) => Ok(Arc::new(Memory::new(*bytes))),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Ok(Arc::new(crate::cache::Sqlite::open(path)?)),
            #[cfg(not(feature = "sqlite"))]
            Self::Sqlite(_) => Err(super::not_built_in::not_built_in("a cache in a file", "sqlite")),
        }
    }
}

impl FromStr for CacheSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        if let Some(size) = text.strip_prefix("memory:") {
            let bytes = byte_size::parse(size).filter(|&bytes| bytes > 0);
            let wrong = "a cache in memory needs its size above 0, such as memory:256MB";
            return bytes.map(Self::Memory).ok_or_else(|| ParseError::new(wrong));
        }
        for other in ["redis:", "rediss:", "postgres:", "postgresql:"] {
            if text.starts_with(other) {
                let message = format!("{other} is not a cache that is built yet: take sqlite:PATH or memory:SIZE");
                return Err(ParseError::new(message));
            }
        }
        match text.strip_prefix("sqlite:").unwrap_or(text) {
            "" => Err(ParseError::new("a cache needs a place, such as vectors.sqlite, sqlite:PATH or memory:256MB")),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

impl fmt::Display for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "memory:{}", byte_size::shown(*bytes)),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_back() {
        for (text, shown) in [
            ("memory:1GB", "memory:1GB"),
            ("vectors.sqlite", "sqlite:vectors.sqlite"),
            ("sqlite:a/b", "sqlite:a/b"),
            ("C:\\a", "sqlite:C:\\a"),
        ] {
            let spec: CacheSpec = text.parse().expect(text);
            assert_eq!(spec.to_string(), shown);
            assert_eq!(shown.parse(), Ok(spec));
        }
        for wrong in ["", "sqlite:", "memory:", "memory:0", "memory:lots", "redis://host", "postgres://host/db"] {
            assert!(wrong.parse::<CacheSpec>().is_err(), "{wrong}");
        }
    }
}
