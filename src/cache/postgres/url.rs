//! Reads connection strings: [`Settings`].

use std::time::Duration;

use tokio_postgres::Config;

use super::names::DEFAULT_TABLE;
use crate::{Error, ErrorKind, Result};

/// Our own parameters of a URL.
const OURS: &str = "`table`, `schema`, `connections` and `timeout`";

/// The parameters that the client knows.
const THEIRS: &str = "`user`, `password`, `dbname`, `host`, `hostaddr`, `port`, `options`, `application_name`, \
                      `sslmode`, `sslnegotiation`, `channel_binding`, `connect_timeout`, `tcp_user_timeout`, \
                      `keepalives`, `keepalives_idle`, `keepalives_interval`, `keepalives_retries`, \
                      `target_session_attrs` and `load_balance_hosts`";

/// The default of the client, which is that of most systems: too long to notice that a connection is cut.
const DEFAULT_KEEPALIVES_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a connection may be silent until the system asks whether the other end is there, how often it asks, and how
/// long sent bytes may stay unconfirmed.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_RETRIES: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// The parts of a connection string.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Its `Debug` shows no password.
    pub(super) config: Config,
    pub(super) table: String,
    pub(super) schema: Option<String>,
    pub(super) connections: Option<usize>,
    pub(super) timeout: Option<Duration>,
}

impl Settings {
    /// Reads a connection string: a URL, which may have our own parameters, or pairs of keys and values.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut settings = Self {
            config: Config::new(),
            table: DEFAULT_TABLE.to_owned(),
            schema: None,
            connections: None,
            timeout: None,
        };
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        let theirs = if is_url { settings.take_ours(text)? } else { text.to_owned() };
        settings.config = theirs.parse().map_err(|error| unreadable(is_url, error))?;
        if settings.config.get_hosts().is_empty() && settings.config.get_hostaddrs().is_empty() {
            return Err(wrong("the connection string names no host: write `postgres://user:password@host/database`"));
        }
        settings.set_defaults();
        Ok(settings)
    }

    /// Takes our parameters out of a URL, and returns the rest for the client.
    fn take_ours(&mut self, url: &str) -> Result<String> {
        // The client takes everything before the first `@` for the user and the password. A password with an `@` would
        // reach messages, as a part of the host.
        if url.matches('@').count() > 1 {
            return Err(wrong("the connection string has more than one `@`: write `%40` for those in the password"));
        }
        let host_at = url.find('@').unwrap_or(0);
        let Some(query_at) = url[host_at..].find('?').map(|at| host_at + at) else { return Ok(url.to_owned()) };
        let mut rest = Vec::new();
        for pair in url[query_at + 1..].split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "table" => self.table = decoded(value)?,
                "schema" => self.schema = Some(decoded(value)?),
                "connections" => {
                    let number = value.parse().map_err(|_| wrong("`connections` in the URL must be a number"))?;
                    self.connections = Some(number);
                }
                "timeout" => self.timeout = Some(duration(value)?),
                // The client always verifies the certificate and its host, and knows no other word for it.
                "sslmode" if matches!(value, "verify-full" | "verify-ca") => rest.push("sslmode=require"),
                _ => rest.push(pair),
            }
        }
        let before = &url[..query_at];
        Ok(if rest.is_empty() { before.to_owned() } else { format!("{before}?{}", rest.join("&")) })
    }

    fn set_defaults(&mut self) {
        let config = &mut self.config;
        if config.get_application_name().is_none() {
            config.application_name(env!("CARGO_PKG_NAME"));
        }
        if config.get_keepalives_idle() == DEFAULT_KEEPALIVES_IDLE {
            config.keepalives_idle(KEEPALIVES_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVES_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVES_RETRIES);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
    }
}

/// Makes the error of a string that the client cannot read.
fn unreadable(is_url: bool, error: tokio_postgres::Error) -> Error {
    if !is_url {
        // Its error may repeat a part of a password that has a blank.
        return wrong(format!(
            "the connection string cannot be read: write `postgres://user:password@host/database`, or pairs such as \
             `host=localhost user=me`, of {THEIRS}"
        ));
    }
    // The client's error may repeat a name that is a part of a password with an unescaped `&`.
    drop(error);
    wrong(format!(
        "the connection string cannot be read: write `postgres://user:password@host/database`, special characters in a user \
         or password as %XX; the parameters are {OURS}, and {THEIRS}"
    ))
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Reads a time such as `30s`, `500ms`, `2m` or `30`, which is in seconds.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let millis = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    let total = number.zip(millis).and_then(|(number, millis)| number.checked_mul(millis));
    total
        .map(Duration::from_millis)
        .ok_or_else(|| wrong("`timeout` in the URL must be a time such as `30s` or `500ms`"))
}

/// Decodes a value in which `%` and two hex digits stand for a byte.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let two = digit().zip(digit());
        let (high, low) = two.ok_or_else(|| wrong("a `%` in the URL must stand before two hex digits"))?;
        bytes.push((high << 4 | low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong("a parameter in the URL is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    #[test]
    fn our_parameters_are_taken_out_and_theirs_are_kept() {
        let url =
            "postgresql://me:p%40ss@db:7/vectors?table=my%20table&sslmode=require&connections=3&schema=s&timeout=2m";
        let settings = Settings::parse(url).expect("it is valid");
        assert_eq!((settings.table.as_str(), settings.schema.as_deref()), ("my table", Some("s")));
        assert_eq!((settings.connections, settings.timeout), (Some(3), Some(Duration::from_secs(120))));
        assert_eq!(settings.config.get_password(), Some(b"p@ss".as_slice()));
        assert_eq!(settings.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(settings.config.get_dbname(), Some("vectors"));
        assert!(!format!("{settings:?}").contains("ss@") && !format!("{settings:?}").contains("p@ss"));
    }

    #[test]
    fn strings_without_our_parameters_work_as_they_are() {
        for text in ["postgres://db", "postgres://u:p?q@db/x", "host=db user=u password='p w'", "postgres://a:1,b:2/x"]
        {
            let settings = Settings::parse(text).expect("it is valid");
            assert_eq!(settings.table, DEFAULT_TABLE);
            assert_eq!(settings.config.get_application_name(), Some("docvector-embed"));
            assert_eq!(settings.config.get_keepalives_idle(), KEEPALIVES_IDLE);
        }
    }

    #[test]
    fn settings_of_the_url_win_over_our_defaults() {
        let settings = Settings::parse("postgres://db/x?keepalives_idle=99&application_name=mine&sslmode=verify-full");
        let config = settings.expect("it is valid").config;
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(99));
        assert_eq!(config.get_application_name(), Some("mine"));
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn wrong_strings_are_refused_without_their_password() {
        for (text, named) in [
            ("postgres://u:secret@db/x?tabel=t", "`table`, `schema`"),
            ("postgres://u:secret@db/x?connections=many", "`connections`"),
            ("postgres://u:secret@db/x?timeout=soon", "`timeout`"),
            ("postgres://u:secret@db/x?timeout=99999999999999999m", "`timeout`"),
            ("postgres://u:secret@db/x?table=%zz", "hex digits"),
            ("postgres://u:secret@db/x?table=%f", "hex digits"),
            ("postgres://u:secret@db/x?table=%ff", "UTF-8"),
            ("postgres://u:sec@secret@db/x", "`%40`"),
            ("postgres://u:secret@/x", "names no host"),
            ("postgres://u:secret@db:port/x", "port"),
            ("host=db password=a secret=b", "cannot be read"),
            ("mysql://u:secret@db", "cannot be read"),
            ("", "names no host"),
        ] {
            let error = Settings::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config);
            let shown = format!("{error} {error:?}");
            assert!(error.message().contains(named) && !shown.contains("secret"), "{text}: {shown}");
        }
    }
}
