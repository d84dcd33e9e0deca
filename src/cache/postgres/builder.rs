//! Connects a store to a table, with options: [`PostgresBuilder`].

use std::{fmt, time::Duration};

use tokio_postgres::config::Host;

use super::{
    address::address, names::Names, pool::Pool, session::Connector, shared::Shared, store::Postgres, tls, url::Settings,
};
use crate::{Error, ErrorKind, Result};

/// The default number of connections. A server has 100 for all of its clients, and a process of 16 threads is served
/// well by half as many as it has threads.
const DEFAULT_CONNECTIONS: usize = 8;

/// The maximum number of connections. Each is a process of the server.
const MAX_CONNECTIONS: usize = 1_000;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time limit: PostgreSQL counts milliseconds in 31 bits.
const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

impl Postgres {
    /// Connects to a server, and creates or checks the tables, with the default options: see
    /// [`PostgresBuilder::build`].
    ///
    /// # Errors
    /// Those of [`PostgresBuilder::build`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::builder(url).build().await
    }

    /// Returns a builder for a store on this server, to set other than the default options.
    pub fn builder(url: impl AsRef<str>) -> PostgresBuilder {
        PostgresBuilder {
            settings: Settings::parse(url.as_ref()),
            schema: None,
            table: None,
            connections: None,
            timeout: None,
            connect_timeout: None,
            read_only: false,
        }
    }
}

/// Builds a [`Postgres`].
///
/// ```no_run
/// use std::time::Duration;
/// use docvector_embed::cache::Postgres;
/// # async fn run() -> docvector_embed::Result<()> {
/// let store = Postgres::builder("postgres://me@db.example.com/vectors?sslmode=require")
///     .with_schema("embeddings")
///     .with_table("documents")
///     .with_connections(16)
///     .with_timeout(Duration::from_secs(10))
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
///
/// # The connection string
/// A URL, `postgres://user:password@host:port/database?name=value&...`, or pairs such as `host=localhost user=me`. It
/// may name several hosts, which are tried in order:
/// `postgres://me@first,second/vectors?target_session_attrs=read-write` finds the primary among them. Special
/// characters in a URL are percent-encoded: `%40` is an `@`.
///
/// A URL may also have the options of this builder: `table=documents`, `schema=embeddings`, `connections=16` and
/// `timeout=10s` (or `500ms`, `2m`). The methods of the builder win over the URL.
///
/// # Encryption
/// - `sslmode=disable`: none. The password is still not sent in plain text if the server asks for SCRAM or MD5.
/// - `sslmode=prefer`, the default: if the server offers it.
/// - `sslmode=require`: always. `verify-ca` and `verify-full` mean the same.
///
/// **An encrypted connection is always verified**, unlike with other clients: the certificate must be valid for the
/// name of the host, and come from an authority that the system trusts. On Linux, the environment variable
/// `SSL_CERT_FILE` names another file of authorities. A server with a self-signed certificate is refused with `prefer`,
/// too.
///
/// # Default
/// The table `docvector_cache`, found or created by the search path of the user; 8 connections; 30 s per statement; 5 s
/// to connect.
#[derive(Clone)]
pub struct PostgresBuilder {
    settings: Result<Settings>,
    schema: Option<String>,
    table: Option<String>,
    connections: Option<usize>,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    read_only: bool,
}

impl PostgresBuilder {
    /// Sets the schema of the tables, which must exist. Without one, the search path of the user decides.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets the name of the table, at most 56 bytes. Two small tables beside it have the same name with `_spaces` and
    /// `_meta` at its end.
    #[must_use]
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// Sets how many connections are open at most, from 1 to 1,000. Further calls wait.
    #[must_use]
    pub const fn with_connections(mut self, connections: usize) -> Self {
        self.connections = Some(connections);
        self
    }

    /// Sets how long a statement may take, from 1 ms to 24 days. A large call consists of several statements.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long a connection to one host may take.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Opens the table for reading alone, and creates none: see [`Postgres`] for what that means.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Connects, and creates the tables or checks them. Processes may do so at the same time.
    ///
    /// If this user may only read, the store is opened as with [`read_only`](Self::read_only), and a warning is logged:
    /// nothing is stored. If the server takes no writes now, a warning is logged, and each `put` is an error until it does.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the connection string or an option is wrong. [`Cache`](ErrorKind::Cache) if the
    /// server cannot be reached, refuses the user, or has a table of that name that is not of this store, is of a newer
    /// version, or is unlogged.
    pub async fn build(self) -> Result<Postgres> {
        let store = self.build_lazy()?;
        store.shared().access().await?;
        Ok(store)
    }

    /// Makes a store that connects at its first call, so that a server which is down does not keep a program from
    /// starting. That call then has the errors of [`build`](Self::build). Until it succeeds, each call tries again.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the connection string or an option is wrong.
    pub fn build_lazy(self) -> Result<Postgres> {
        let Settings { mut config, table, schema, connections, timeout } = self.settings?;
        let schema = self.schema.or(schema);
        let names = Names::new(schema.as_deref(), self.table.as_ref().unwrap_or(&table))?;
        let connections = self.connections.or(connections).unwrap_or(DEFAULT_CONNECTIONS);
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            let message = format!("{connections} connections: set from 1 to {MAX_CONNECTIONS}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let timeout = checked("timeout", self.timeout.or(timeout).unwrap_or(DEFAULT_TIMEOUT))?;
        let told = self.connect_timeout.or(config.get_connect_timeout().copied());
        let per_host = checked("connect timeout", told.unwrap_or(DEFAULT_CONNECT_TIMEOUT))?;
        config.connect_timeout(per_host);
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        let connector = Connector {
            tls: if has_network_host(config.get_hosts()) { tls::connector(&config)? } else { None },
            address: address(&config),
            connect_timeout: per_host.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX)),
            timeout,
            config,
        };
        let pool = Pool::new(connector, connections);
        Ok(Postgres::new(Shared::new(pool, names, self.read_only)))
    }
}

/// Returns `true` unless all hosts are sockets of this machine, which are not encrypted.
fn has_network_host(hosts: &[Host]) -> bool {
    hosts.is_empty() || hosts.iter().any(|host| matches!(host, Host::Tcp(_)))
}

fn checked(what: &str, time: Duration) -> Result<Duration> {
    if (Duration::from_millis(1)..=MAX_TIMEOUT).contains(&time) {
        return Ok(time);
    }
    let message = format!("a {what} of {time:?}: set from 1 ms to {} days", MAX_TIMEOUT.as_secs() / 86_400);
    Err(Error::new(ErrorKind::Config, message))
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("address", &self.settings.as_ref().map(|settings| address(&settings.config)))
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused() {
        let builder = || Postgres::builder("postgres://u:secret@db/x?sslmode=disable");
        for (builder, named) in [
            (builder().with_connections(0), "0 connections"),
            (builder().with_connections(1_001), "1001 connections"),
            (builder().with_timeout(Duration::ZERO), "timeout"),
            (builder().with_timeout(Duration::MAX), "24 days"),
            (builder().with_connect_timeout(Duration::ZERO), "connect timeout"),
            (builder().with_table(""), "table"),
            (builder().with_schema("a\nb"), "schema"),
            (Postgres::builder("postgres://u:secret@db/x?nonsense=1"), "the parameters are `table`"),
        ] {
            assert!(!format!("{builder:?}").contains("secret"), "{builder:?}");
            let error = builder.build_lazy().expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(named), "{error}");
        }
    }

    #[test]
    fn the_builder_wins_over_the_url_and_nothing_shows_the_password() {
        let url = "postgres://u:secret@db/x?sslmode=disable&table=one&schema=s";
        let store = Postgres::builder(url).with_table("two").build_lazy().expect("it is valid");
        let shown = format!("{store:?}");
        assert!(shown.contains("db:5432/x") && shown.contains("s.two") && !shown.contains("secret"), "{shown}");
        assert_eq!(store.to_string(), "postgres");
        assert!(!store.is_read_only());
        assert!(Postgres::builder(url).read_only().build_lazy().expect("it is valid").is_read_only());
    }

    #[tokio::test]
    async fn a_server_that_is_down_is_an_error_that_names_it_and_does_not_stop_the_start() {
        use crate::cache::{CacheStore, Key};

        // Port 1 of loopback takes no connections.
        let store = Postgres::builder("postgres://u:secret@127.0.0.1:1/x?sslmode=disable").build_lazy();
        let store = store.expect("it does not connect yet");
        for _ in 0..2 {
            let error = store.get(&[Key::from_bytes([1; 32])], &mut |_, _| {}).await.expect_err("it is down");
            assert_eq!(error.kind(), ErrorKind::Cache);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("127.0.0.1:1/x") && shown.contains("check that it runs"), "{shown}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn without_a_runtime_a_call_is_an_error() {
        use futures_util::FutureExt;

        let store = Postgres::builder("postgres://127.0.0.1:1/x?sslmode=disable").build_lazy().expect("it is valid");
        let error = store.shared().access().now_or_never().expect("it does not wait").expect_err("there is no runtime");
        assert!(error.message().contains("tokio runtime"), "{error}");
    }
}
