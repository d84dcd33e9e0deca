//! Turns errors of a server or a connection into errors that say what failed, where, and what to do: [`Failure`].

use std::time::Duration;

use ::redis::{ErrorKind as Kind, RedisError};

use crate::{Error, ErrorKind};

/// The consequence of an error for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The server has refused. The connection is sound.
    Refused,
    /// The connection is broken. A new one may serve.
    Broken,
    /// There was no reply in time. The connection may be broken.
    Late,
    /// The server takes no writes. If it took some before, another server is the primary now.
    ReadOnly,
}

impl Fate {
    pub(super) fn of(error: &RedisError) -> Self {
        if error.is_timeout() {
            return Self::Late;
        }
        match error.kind() {
            Kind::Io | Kind::Parse | Kind::ClusterConnectionNotFound => Self::Broken,
            _ if says(error, "READONLY") => Self::ReadOnly,
            _ => Self::Refused,
        }
    }
}

/// The place and the occasion of an error.
pub(super) struct Failure<'a> {
    /// The hosts and ports.
    pub(super) at: &'a str,
    /// The act, as in "entries could not be ...".
    pub(super) what: &'a str,
    pub(super) timeout: Duration,
    pub(super) has_tls: bool,
}

impl Failure<'_> {
    /// Returns an error that says what failed and what to do.
    pub(super) fn error(&self, error: RedisError) -> Error {
        let why = self.refusal(&error).or_else(|| self.break_off(&error));
        let Self { at, what, .. } = self;
        let why = why.unwrap_or_else(|| match error.code() {
            Some(code) if code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                format!("the server refused with {code}: see its log")
            }
            _ => "the server or the connection failed: see the log of the server".into(),
        });
        let told = Error::new(ErrorKind::Cache, format!("redis at {at}: {what}: {why}"));
        match Fate::of(&error) {
            Fate::Refused | Fate::ReadOnly => match error.detail().map(str::to_owned) {
                // A server may repeat the words of a command, so these are not shown.
                Some(words) => told.with_provider_message(words),
                None => told,
            },
            Fate::Broken | Fate::Late => told.with_source(error),
        }
    }

    /// Says what a refusal of the server means.
    fn refusal(&self, error: &RedisError) -> Option<String> {
        let code = |code: &str| says(error, code);
        let advice = if code("WRONGPASS") || error.kind() == Kind::AuthenticationFailed || code("AuthenticationFailed")
        {
            "the user or password is wrong: correct the URL"
        } else if code("NOAUTH") {
            "the server asks for a password: name it in the URL, as in redis://:PASSWORD@HOST"
        } else if code("READONLY") {
            "this server is a read-only replica: name the primary in the URL; look-ups work here"
        } else if code("OOM") {
            "the memory of the server is full: raise its `maxmemory`, or move to a larger server; entries stored \
             before are intact"
        } else if code("MISCONF") {
            "the server cannot write its disk, and takes no entries until then: free some space there, and see its log"
        } else if code("LOADING") || code("is loading") {
            "the server is loading its data: try again when it has ended, which takes seconds to minutes"
        } else if code("NOPERM") {
            "this user may not do that: allow it the commands mget, set, get, eval, exists, hsetnx, hgetall, scan, \
             dbsize, info and ping, on all keys with the prefix"
        } else if code("cluster support disabled") {
            "this server is not in a cluster: write redis:// or rediss:// in the URL"
        } else if code("MOVED") || code("ASK") || code("CROSSSLOT") {
            "this server is in a cluster: write redis+cluster:// or rediss+cluster:// in the URL"
        } else if code("CLUSTERDOWN") || code("MASTERDOWN") || code("TRYAGAIN") {
            "a part of the cluster is down or moving: try again when it is whole"
        } else if code("NOREPLICAS") {
            "the server has too few replicas to take entries: start them, or lower its `min-replicas-to-write`"
        } else if code("max number of clients") {
            "the server has too many clients: raise its `maxclients`, or lower `with_connections`"
        } else if code("switch database") || code("DB index") || code("SELECT is not allowed") {
            "the server has no such database: correct the number in the URL; a cluster has only 0"
        } else if code("unknown command") {
            "the server does not know the command: it must be Redis 5 or newer, or Valkey, with no command renamed"
        } else if code("WRONGTYPE") {
            "another program has stored something else under a name of this store: set another `with_prefix`"
        } else {
            return None;
        };
        Some(advice.into())
    }

    /// Says what a broken connection, or none, may come from.
    fn break_off(&self, error: &RedisError) -> Option<String> {
        let timeout = self.timeout;
        match Fate::of(error) {
            Fate::Late => Some(format!(
                "there was no answer within {timeout:?}: check the server and the network, or set a longer timeout"
            )),
            _ if self.has_tls && (says(error, "certificate") || error.kind() == Kind::Client) => Some(
                "no TLS connection could be made: check the name and the certificate of the server, and that this \
                 system trusts its authority (or name its file in SSL_CERT_FILE)"
                    .into(),
            ),
            Fate::Broken if error.kind() == Kind::Parse => Some(
                "the reply is not one of Redis: check the port, and whether the server expects TLS (rediss://)".into(),
            ),
            Fate::Broken if error.is_connection_refusal() => {
                Some("nothing listens there: start the server, or correct the host and port".into())
            }
            Fate::Broken => {
                let tls = if self.has_tls { "does not expect TLS (redis://)" } else { "expects TLS (rediss://)" };
                Some(format!(
                    "the connection failed: check the host and port, that the server runs, and whether it {tls}"
                ))
            }
            _ => None,
        }
    }
}

/// Returns `true` if the code or the words of an error contain this.
fn says(error: &RedisError, words: &str) -> bool {
    // A server that repeats the words of a command says so first, so its keys and values cannot be taken for a code.
    let has = |text: &str| text.split("with args").next().is_some_and(|text| text.contains(words));
    error.code() == Some(words) || error.detail().is_some_and(has) || has(&error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io;

    use ::redis::{Value, parse_redis_value};

    use super::*;

    fn told(error: RedisError) -> Error {
        let failure = Failure {
            at: "host:6379",
            what: "entries were not stored",
            timeout: Duration::from_secs(10),
            has_tls: true,
        };
        failure.error(error)
    }

    fn refused(reply: &str) -> RedisError {
        match parse_redis_value(format!("-{reply}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (reply, says) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
            ("READONLY You can't write against a read only replica.", "primary"),
            ("ERR Error running script: -READONLY You can't write against a read only replica.", "primary"),
            ("MOVED 3999 127.0.0.1:6381", "redis+cluster://"),
            ("CLUSTERDOWN The cluster is down", "whole"),
            ("LOADING Redis is loading the dataset in memory", "loading"),
            ("NOAUTH Authentication required.", "asks for a password"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "password is wrong"),
            ("NOPERM this user has no permissions to run the 'eval' command", "allow it"),
            ("MISCONF Redis is configured to save RDB snapshots", "disk"),
            ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
            ("ERR max number of clients reached", "maxclients"),
            ("ERR This instance has cluster support disabled", "not in a cluster"),
            ("STRANGE what", "STRANGE"),
        ] {
            let error = told(refused(reply));
            assert_eq!(error.kind(), ErrorKind::Cache);
            let text = error.to_string();
            assert!(text.contains(says) && text.contains("host:6379"), "{reply}: {text}");
        }
    }

    #[test]
    fn words_of_a_command_are_not_shown() {
        let error = told(refused("ERR unknown command 'EVAL', with args beginning with: 'planted OOM'"));
        assert!(error.to_string().contains("does not know the command"));
        assert!(!format!("{error} {error:?}").contains("planted"));
    }

    #[test]
    fn broken_connections_are_told_from_refusals() {
        let io = |kind: io::ErrorKind| RedisError::from(io::Error::from(kind));
        assert_eq!(Fate::of(&io(io::ErrorKind::BrokenPipe)), Fate::Broken);
        assert_eq!(Fate::of(&io(io::ErrorKind::TimedOut)), Fate::Late);
        assert_eq!(Fate::of(&refused("OOM full")), Fate::Refused);
        assert_eq!(Fate::of(&refused("READONLY no")), Fate::ReadOnly);
        assert!(told(io(io::ErrorKind::TimedOut)).to_string().contains("10s"));
        assert!(told(io(io::ErrorKind::ConnectionRefused)).to_string().contains("nothing listens"));
    }
}
