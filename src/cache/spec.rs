//! Says where vectors are kept, in a few words: [`CacheSpec`], and opens it: [`from_url`].

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use super::{CacheScan, Memory};
use crate::{ParseError, Result, byte_size};

/// A place for vectors: `vectors.sqlite`, `sqlite:PATH`, `memory:256MB`, `redis://HOST` or `postgres://USER@HOST/DATABASE`.
///
/// ```
/// use docvector_embed::cache::CacheSpec;
/// # fn main() -> docvector_embed::Result<()> {
/// assert_eq!("memory:256MB".parse::<CacheSpec>()?, CacheSpec::Memory(256 << 20));
/// assert_eq!("vectors.sqlite".parse::<CacheSpec>()?, CacheSpec::Sqlite("vectors.sqlite".into()));
/// let shown = "redis://:secret@cache:6379/0".parse::<CacheSpec>()?.to_string();
/// assert_eq!(shown, "redis://***@cache:6379/0");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheSpec {
    /// This process's memory, up to so many bytes. The vectors are gone at its end.
    Memory(u64),
    /// A file, created if it is missing. Needs the feature `sqlite`.
    Sqlite(PathBuf),
    /// A Redis or Valkey server or cluster. Needs the feature `redis`.
    Redis(CacheUrl),
    /// A table of PostgreSQL. Needs the feature `postgres`.
    Postgres(CacheUrl),
}

/// The URL of a server. `Display` and `Debug` leave out the user and the password.
///
/// See [`CacheSpec`] for an example.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CacheUrl(String);

impl CacheUrl {
    /// Returns digits that tell this URL from others, with all of its parts, and do not show them.
    pub fn fingerprint(&self) -> String {
        blake3::derive_key("docvector-embed 2026-11-28 cache url", self.0.as_bytes())[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Makes the spec of a URL.
type OfUrl = fn(CacheUrl) -> CacheSpec;

/// The schemes of URLs, and what they stand for.
const SCHEMES: [(&str, OfUrl); 10] = [
    ("redis://", CacheSpec::Redis),
    ("rediss://", CacheSpec::Redis),
    ("redis+cluster://", CacheSpec::Redis),
    ("rediss+cluster://", CacheSpec::Redis),
    ("valkey://", CacheSpec::Redis),
    ("valkeys://", CacheSpec::Redis),
    ("valkey+cluster://", CacheSpec::Redis),
    ("valkeys+cluster://", CacheSpec::Redis),
    ("postgres://", CacheSpec::Postgres),
    ("postgresql://", CacheSpec::Postgres),
];

/// Opens a store: `redis://..`, `postgres://..`, `sqlite:vectors.sqlite`, `memory:256MB`, or the path of a file.
///
/// ```
/// use docvector_embed::{EmbedderExt, cache, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = cache::from_url("memory:256MB").await?;
/// let embedder = Fake::new(8).cached(store)?;
/// embedder.embed_documents(&["a text"]).await?;
/// # Ok(()) }) }
/// ```
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) if it cannot be understood, or if its feature is off; those of opening the file or
/// of connecting to the server.
pub async fn from_url(url: &str) -> Result<Arc<dyn CacheScan>> {
    url.parse::<CacheSpec>()?.open().await
}

impl CacheSpec {
    /// Opens the store: connects to the server, which must be there, or opens the file.
    ///
    /// # Errors
    /// Those of [`from_url`].
    pub async fn open(&self) -> Result<Arc<dyn CacheScan>> {
        match self {
            Self::Memory(bytes) => Ok(Arc::new(Memory::new(*bytes))),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Ok(Arc::new(super::Sqlite::open(path)?)),
            #[cfg(feature = "redis")]
            Self::Redis(url) => Ok(Arc::new(super::Redis::connect(&url.0).await?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => Ok(Arc::new(super::Postgres::connect(&url.0).await?)),
            #[cfg(not(feature = "sqlite"))]
            Self::Sqlite(_) => Err(crate::not_built_in::not_built_in("a cache in a file", "sqlite")),
            #[cfg(not(feature = "redis"))]
            Self::Redis(_) => Err(crate::not_built_in::not_built_in("a cache at Redis", "redis")),
            #[cfg(not(feature = "postgres"))]
            Self::Postgres(_) => Err(crate::not_built_in::not_built_in("a cache in PostgreSQL", "postgres")),
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
        let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        if let Some((_, make)) = SCHEMES.iter().find(|(scheme, _)| begins(scheme)) {
            return Ok(make(CacheUrl(text.to_owned())));
        }
        if text.contains("://") {
            let message = "the scheme of a cache's URL must be redis, rediss, postgres, or one of a cluster, such as \
                           redis+cluster://";
            return Err(ParseError::new(message));
        }
        if let Some((scheme, _)) = SCHEMES.iter().find(|(scheme, _)| begins(scheme.trim_end_matches('/'))) {
            let end = if scheme.starts_with("postgres") { "USER@HOST/DATABASE" } else { "HOST:6379" };
            return Err(ParseError::new(format!("write the server as {scheme}{end}")));
        }
        if text.contains("password=") || text.starts_with("host=") {
            return Err(ParseError::new("write a server as a URL, such as postgres://USER@HOST/DATABASE"));
        }
        if looks_like_server(text) {
            return Err(ParseError::new(
                "this looks like a server: write redis://HOST:PORT or postgres://USER@HOST/DATABASE; for a file of this \
                 name, write sqlite: before it",
            ));
        }
        match text.strip_prefix("sqlite:").unwrap_or(text) {
            "" => Err(ParseError::new(
                "a cache needs a place, such as vectors.sqlite, memory:256MB, redis://HOST or postgres://USER@HOST/DATABASE",
            )),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

/// Returns whether a name is that of a host, with a port or of this machine, and not that of a file.
fn looks_like_server(text: &str) -> bool {
    let (host, rest) = text.split_once(':').unwrap_or((text, ""));
    let port = rest.split('/').next().unwrap_or_default();
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let has_port = is_host && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    has_port || text == "localhost" || ["redis//", "rediss//", "postgres//"].iter().any(|start| text.starts_with(start))
}

impl fmt::Display for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "memory:{}", byte_size::shown(*bytes)),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Redis(url) | Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        match place.rsplit_once('@') {
            // A password may have any character that its user forgot to escape, and a query may have a password.
            _ if query.contains('@') => write!(f, "{scheme}://***"),
            Some((_, place)) => write!(f, "{scheme}://***@{place}"),
            None => write!(f, "{scheme}://{place}"),
        }
    }
}

impl fmt::Debug for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
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
            ("sqlite:localhost:1", "sqlite:localhost:1"),
            ("redis://host:6379/1", "redis://host:6379/1"),
            ("redis+cluster://a:1,b:2", "redis+cluster://a:1,b:2"),
            ("postgresql://host/db", "postgresql://host/db"),
        ] {
            let spec: CacheSpec = text.parse().expect(text);
            assert_eq!(spec.to_string(), shown);
            assert_eq!(shown.parse(), Ok(spec));
        }
        for wrong in [
            "",
            "sqlite:",
            "memory:",
            "memory:0",
            "memory:lots",
            "redis:host",
            "mysql://host/db",
            "postgresql:host",
            "valkey:h",
            "host=db user=u",
            "x password=y",
            "localhost",
            "localhost:6379",
            "10.0.0.1:6379/0",
            "redis//host",
        ] {
            assert!(wrong.parse::<CacheSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        for text in [
            "redis://:secret@host/0",
            "rediss://user:secret@host",
            "POSTGRES://user:se@cret@host/db",
            "postgres://host/db?password=secret",
            "postgres://user:secret?x@host/db",
        ] {
            let spec: CacheSpec = text.parse().expect(text);
            let shown = format!("{spec} {spec:?}");
            assert!(!shown.contains("cret"), "{shown}");
        }
    }
}
