//! Reads a URL: which servers, with which password, and the options in its query: [`Address`].

use std::{fmt, str::FromStr, time::Duration};

use ::redis::{ConnectionInfo, IntoConnectionInfo, io::tcp::TcpSettings};
use socket2::TcpKeepalive;

use super::volatile::Volatile;
use crate::{Error, ErrorKind, Result, percent::percent_decoded};

/// How long a connection may say nothing before the system asks the other side, and how often it asks then.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The schemes, and whether they mean TLS and a cluster.
const SCHEMES: [(&str, bool, bool); 8] = [
    ("redis", false, false),
    ("rediss", true, false),
    ("redis+cluster", false, true),
    ("rediss+cluster", true, true),
    ("valkey", false, false),
    ("valkeys", true, false),
    ("valkey+cluster", false, true),
    ("valkeys+cluster", true, true),
];

/// The places of servers, and how to log in. `Debug` and `Display` show hosts and ports alone.
#[derive(Clone)]
pub(super) struct Address {
    /// One server, or the first servers of a cluster; at least one.
    pub(super) servers: Vec<ConnectionInfo>,
    pub(super) is_cluster: bool,
    pub(super) has_tls: bool,
    pub(super) options: UrlOptions,
}

/// The options in the query of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UrlOptions {
    pub(super) prefix: Option<String>,
    pub(super) volatile: Option<Volatile>,
    pub(super) timeout: Option<Duration>,
}

impl Address {
    /// Reads a URL. No error repeats a part of it: a password with a special character may be in any part.
    pub(super) fn parse(url: &str, is_cluster: bool) -> Result<Self> {
        let (scheme, rest) = url.trim().split_once("://").ok_or_else(|| wrong("has no scheme: begin with redis://"))?;
        let known = SCHEMES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme));
        let &(_, has_tls, cluster_scheme) = known.ok_or_else(|| {
            let names: Vec<&str> = SCHEMES.iter().map(|(name, ..)| *name).collect();
            wrong(&format!("has another scheme than {}", names.join(", ")))
        })?;
        let is_cluster = is_cluster || cluster_scheme;
        let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if after.contains('@') {
            return Err(wrong(
                "has an @ after its host: write /, ?, # and @ in a user or password as %2F, %3F, %23 and %40",
            ));
        }
        if after.contains('#') {
            return Err(wrong("has a part after #, which has no meaning here: remove it, or write %23 in a password"));
        }
        let (path, query) = after.split_once('?').unwrap_or((after, ""));
        let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let server = |host: &str| Self::server(login, host, path, has_tls);
        let servers = hosts.split(',').map(|host| server(host.trim())).collect::<Result<Vec<_>>>()?;
        if servers.len() > 1 && !is_cluster {
            let message = "names several hosts, which only a cluster has: use redis+cluster:// or rediss+cluster://, \
                           or name one host";
            return Err(wrong(message));
        }
        Ok(Self { servers, is_cluster, has_tls, options: query.parse()? })
    }

    fn server(login: &str, host: &str, path: &str, has_tls: bool) -> Result<ConnectionInfo> {
        if host.is_empty() || host.starts_with(':') {
            return Err(wrong("names no host: write redis://HOST:6379"));
        }
        let number = path.trim_matches('/');
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong("has something else than the number of a database after its host: write redis://HOST/0"));
        }
        let scheme = if has_tls { "rediss" } else { "redis" };
        let at = if login.is_empty() { "" } else { "@" };
        let url = format!("{scheme}://{login}{at}{host}/{number}");
        let malformed = |_| {
            wrong(
                "cannot be read: write redis://USER:PASSWORD@HOST:PORT/DATABASE, and special characters in a user or \
                 password as %XX",
            )
        };
        let info = url.as_str().into_connection_info().map_err(malformed)?;
        let settings = info.redis_settings().clone().set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
    }
}

/// Returns the settings of connections: no small command waits for the acknowledgement of the one before, and a connection
/// that was cut without a word is noticed.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, server) in self.servers.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            server.addr().fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for UrlOptions {
    type Err = Error;

    fn from_str(query: &str) -> Result<Self> {
        let mut options = Self::default();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value =
                percent_decoded(value).ok_or_else(|| wrong("has an option that is not percent-encoded UTF-8"))?;
            match name {
                "prefix" => options.prefix = Some(value),
                "volatile" => {
                    let volatile = value.parse();
                    let volatile = volatile.map_err(|_| wrong("has a `volatile` that is not refuse, warn or allow"))?;
                    options.volatile = Some(volatile);
                }
                "timeout" => options.timeout = Some(seconds(&value)?),
                _ => {
                    // A long or strange name may be a part of a password.
                    let is_name =
                        name.len() <= 24 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                    let name = if is_name { format!(" `{name}`") } else { String::new() };
                    let message =
                        format!("has an unknown option{name}: the known ones are prefix, volatile and timeout");
                    return Err(wrong(&message));
                }
            }
        }
        Ok(options)
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| wrong("has a `timeout` that is not a number of seconds, such as 10 or 0.5"))
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the URL of a redis cache {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address> {
        Address::parse(url, false)
    }

    #[test]
    fn urls_are_read() -> Result<()> {
        let one = parse("redis://user:p%40ss@cache.example:6380/3?prefix=a%3A&volatile=warn&timeout=2.5")?;
        assert_eq!(one.to_string(), "cache.example:6380");
        let login = one.servers[0].redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("user"), Some("p@ss"), 3));
        let options = UrlOptions {
            prefix: Some("a:".into()),
            volatile: Some(Volatile::Warn),
            timeout: Some(Duration::from_millis(2500)),
        };
        assert_eq!(one.options, options);
        assert!(!one.is_cluster && !one.has_tls);

        let cluster = parse("rediss+cluster://:secret@a:1,b,[::1]:3")?;
        assert!(cluster.is_cluster && cluster.has_tls && cluster.servers.len() == 3);
        assert!(cluster.servers.iter().all(|server| server.redis_settings().password() == Some("secret")));
        assert!(!format!("{cluster:?}").contains("secret"));
        assert_eq!(parse("valkey://localhost")?.to_string(), "localhost:6379");
        assert!(Address::parse("redis://localhost", true)?.is_cluster);
        Ok(())
    }

    #[test]
    fn wrong_urls_are_named_without_their_password() {
        for (url, says) in [
            ("localhost:6379", "no scheme"),
            ("http://:planted@localhost", "redis+cluster"),
            ("redis://:planted@", "no host"),
            ("redis://:planted@:6379", "no host"),
            ("redis://:planted@a,b", "several hosts"),
            ("redis://:planted@a:port", "cannot be read"),
            ("redis://:planted@a/name", "number of a database"),
            ("redis://:planted/more@a", "%2F"),
            ("redis://:1?planted@a", "%3F"),
            ("redis://:planted@a#insecure", "after #"),
            ("redis://:planted@a?prefx=b", "`prefx`: the known ones are prefix, volatile and timeout"),
            ("redis://a?Planted%7E", "unknown option:"),
            ("redis://a?volatile=never", "refuse, warn or allow"),
            ("redis://a?timeout=soon", "number of seconds"),
            ("redis://a?timeout=-1", "number of seconds"),
            ("redis://a?prefix=%f", "percent-encoded"),
        ] {
            let error = parse(url).map(|_| ()).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error:?} {error}").to_lowercase().contains("planted"), "{url}: {error}");
        }
    }
}
