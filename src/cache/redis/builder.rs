//! Connects a store to its server, with options: [`RedisBuilder`].

use std::{fmt, time::Duration};

use super::{address::Address, check::Checks, command::Names, pool::Pool, store::Redis, volatile::Volatile};
use crate::{Error, ErrorKind, Result};

/// The maximum number of connections to one server. Each serves many calls at a time.
const MAX_CONNECTIONS: usize = 64;

/// The maximum size of a prefix, which is stored with each entry.
const MAX_PREFIX_BYTES: usize = 1024;

impl Redis {
    /// Connects to a server with the default options: see [`RedisBuilder::build`].
    ///
    /// # Errors
    /// Those of [`RedisBuilder::build`].
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder(url).build().await
    }

    /// Returns a builder for a store at the server of this URL, to set other than the default options.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder {
            url: url.to_owned(),
            is_cluster: false,
            prefix: None,
            volatile: None,
            timeout: None,
            connect_timeout: Duration::from_secs(5),
            connections: 2,
        }
    }
}

/// Builds a [`Redis`].
///
/// ```no_run
/// use std::time::Duration;
/// use docvector_embed::cache::{Redis, Volatile};
/// # async fn build() -> docvector_embed::Result<()> {
/// let store = Redis::builder("rediss://user:password@cache.example:6380")
///     .with_prefix("vectors:")
///     .with_volatile(Volatile::Warn)
///     .with_timeout(Duration::from_secs(20))
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
///
/// # The URL
/// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, of which only the host is needed; the port is 6379 and the database 0
/// otherwise. `rediss` means TLS. `redis+cluster` and `rediss+cluster` mean a cluster, of which several hosts may be
/// named, separated by commas. `valkey` can be written for `redis`. Special characters in a user or password are
/// written as `%XX`. The query may have the options `prefix`, `volatile` (`refuse`, `warn`, `allow`) and `timeout`
/// (seconds), as in `redis://localhost?prefix=vectors:&volatile=warn`. What the builder sets takes precedence.
///
/// # Default
/// The prefix `dve:`; a server that may forget entries is refused; 10 s for a reply, 5 s to connect; 2 connections.
#[derive(Clone)]
pub struct RedisBuilder {
    url: String,
    is_cluster: bool,
    prefix: Option<String>,
    volatile: Option<Volatile>,
    timeout: Option<Duration>,
    connect_timeout: Duration,
    connections: usize,
}

impl RedisBuilder {
    /// Sets the prefix of all keys of this store, at most 1,024 bytes. Stores with the same prefix share their entries.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = Some(prefix.to_owned());
        self
    }

    /// Says that the server is in a cluster, as `redis+cluster://` does.
    #[must_use]
    pub const fn cluster(mut self) -> Self {
        self.is_cluster = true;
        self
    }

    /// Sets what to do if the server may forget entries.
    #[must_use]
    pub const fn with_volatile(mut self, volatile: Volatile) -> Self {
        self.volatile = Some(volatile);
        self
    }

    /// Sets how long to wait for a reply, more than 0. A reply has up to about a megabyte, or one larger value.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long making a connection may take, with TLS and the login, more than 0.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the number of connections, from 1 to 64, which are used in turn. Each serves many calls at a time, and one
    /// thread reads it. The client of a cluster has one connection per server instead.
    #[must_use]
    pub const fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Connects and checks the server.
    ///
    /// # Errors
    /// Those of [`build_lazy`](Self::build_lazy). [`Cache`](ErrorKind::Cache), with the host, the port and what to do,
    /// if the server cannot be reached, refuses the user, the password or the TLS connection, is still loading its
    /// data, or may forget entries and that was [not allowed](Self::with_volatile).
    ///
    /// # Cancellation
    /// A dropped future leaves nothing behind.
    pub async fn build(self) -> Result<Redis> {
        let store = self.build_lazy()?;
        store.pool().connect().await?;
        Ok(store)
    }

    /// Makes a store that connects at the first call, so that a program can start while the server is down.
    ///
    /// ```
    /// use docvector_embed::cache::Redis;
    /// # fn main() -> docvector_embed::Result<()> {
    /// let store = Redis::builder("redis://:secret@cache.example").build_lazy()?;
    /// assert_eq!(store.to_string(), "redis");
    /// assert!(!format!("{store:?}").contains("secret"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the URL or an option of it is wrong, or an option of the builder is out of
    /// range.
    pub fn build_lazy(self) -> Result<Redis> {
        let address = Address::parse(&self.url, self.is_cluster)?;
        let options = address.options.clone();
        let prefix = self.prefix.or(options.prefix).unwrap_or_else(|| "dve:".into());
        let timeout = self.timeout.or(options.timeout).unwrap_or(Duration::from_secs(10));
        let volatile = self.volatile.or(options.volatile).unwrap_or_default();
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        if prefix.len() > MAX_PREFIX_BYTES {
            let bytes = prefix.len();
            return wrong(format!("a prefix of {bytes} bytes for a redis cache: set at most {MAX_PREFIX_BYTES}"));
        }
        if timeout.is_zero() || self.connect_timeout.is_zero() {
            return wrong("a timeout of 0 for a redis cache: set some seconds".into());
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            let connections = self.connections;
            return wrong(format!("{connections} connections for a redis cache: set from 1 to {MAX_CONNECTIONS}"));
        }
        let checks = Checks::new(address.to_string(), volatile);
        let names = Names::new(prefix);
        Ok(Redis::new(Pool::new(address, names, checks, self.connections, self.connect_timeout, timeout)))
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL, which may have a password.
        f.debug_struct("RedisBuilder")
            .field("servers", &Address::parse(&self.url, self.is_cluster).ok())
            .field("prefix", &self.prefix)
            .field("volatile", &self.volatile)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("connections", &self.connections)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused() {
        let url = "redis://:planted@localhost";
        for builder in [
            Redis::builder(url).with_connections(0),
            Redis::builder(url).with_connections(65),
            Redis::builder(url).with_timeout(Duration::ZERO),
            Redis::builder(url).with_connect_timeout(Duration::ZERO),
            Redis::builder(url).with_prefix(&"x".repeat(1025)),
            Redis::builder("redis://:planted@localhost?timeout=0"),
        ] {
            assert!(!format!("{builder:?}").contains("planted"));
            let error = builder.build_lazy().map(|_| ()).expect_err("the option is out of range");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }

    #[test]
    fn the_builder_takes_precedence_over_the_url() -> Result<()> {
        let url = "redis://localhost?prefix=url:";
        assert_eq!(Redis::builder(url).build_lazy()?.pool().names.prefix(), "url:");
        assert_eq!(Redis::builder(url).with_prefix("code:").build_lazy()?.pool().names.prefix(), "code:");
        Ok(())
    }
}
