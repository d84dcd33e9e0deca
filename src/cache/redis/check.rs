//! Checks a server at each new connection: whether it keeps entries for ever, and whether it still has them:
//! [`Checks`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::redis::{RedisError, RedisResult, Value};

use super::{
    command::{Names, command},
    connection::{Connection, Request},
    failure::Fate,
    info::Info,
    volatile::Volatile,
};
use crate::{Error, ErrorKind, sync::Mutex, telemetry};

/// The knowledge of a store about its server, over all its connections.
pub(super) struct Checks {
    /// The hosts and ports, for messages.
    at: String,
    volatile: Volatile,
    has_warned: AtomicBool,
    /// The mark that the server had last.
    mark: Mutex<Option<String>>,
    losses: AtomicU64,
}

/// Why a new connection is not used.
pub(super) enum Rejection {
    Failed(RedisError),
    Refused(Error),
}

impl From<RedisError> for Rejection {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

impl Checks {
    pub(super) const fn new(at: String, volatile: Volatile) -> Self {
        let mark = Mutex::new(None);
        Self { at, volatile, has_warned: AtomicBool::new(false), mark, losses: AtomicU64::new(0) }
    }

    /// Returns how often the server was found without the entries that it had before.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Checks the server of a new connection. Returns whether it takes writes.
    pub(super) async fn check(&self, connection: &mut Connection, names: &Names) -> Result<bool, Rejection> {
        let infos = match infos(connection).await {
            Ok(infos) => infos,
            // A user may be allowed to do everything but this.
            Err(error) if Fate::of(&error) == Fate::Refused && is_about_info(&error) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if infos.iter().any(|(_, info)| info.is_loading) {
            let message = format!(
                "redis at {}: the server is loading its data: try again when it has ended, which takes seconds to \
                 minutes",
                self.at
            );
            return Err(Rejection::Refused(Error::new(ErrorKind::Cache, message)));
        }
        self.judge(&infos).map_err(Rejection::Refused)?;
        let is_replica = infos.iter().any(|(_, info)| info.is_replica);
        self.compare_mark(connection, names, is_replica).await?;
        Ok(!is_replica)
    }

    /// Refuses servers that may forget entries, or warns of them, as the caller chose.
    fn judge(&self, infos: &[(String, Info)]) -> Result<(), Error> {
        if self.volatile == Volatile::Allow {
            return Ok(());
        }
        let weakness = infos.iter().find_map(|(server, info)| Some((server, info.weakness()?)));
        let Some((server, why)) = weakness else {
            if infos.is_empty() || infos.iter().any(|(_, info)| !info.is_complete()) {
                self.warn("it does not tell whether it evicts entries or keeps an append-only file");
            }
            return Ok(());
        };
        let server = if server.is_empty() { &self.at } else { server };
        if self.volatile == Volatile::Warn {
            self.warn(&format!("at {server}, {why}"));
            return Ok(());
        }
        let message = format!(
            "redis at {server} does not keep entries for ever: {why}; or accept that entries are lost and paid for \
             again, by `with_volatile(Volatile::Warn)` or `?volatile=warn` at the end of the URL"
        );
        Err(Error::new(ErrorKind::Cache, message))
    }

    fn warn(&self, why: &str) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            { telemetry::STORE } = "redis",
            { telemetry::SERVER_ADDRESS } = %self.at,
            { telemetry::WHY } = %why,
            "the cache server may forget entries, which are paid for again then"
        );
    }

    /// Compares the mark at the server with the one that it had last, and writes one if it has none.
    async fn compare_mark(&self, connection: &mut Connection, names: &Names, is_replica: bool) -> RedisResult<()> {
        if !is_replica {
            let new = format!("{:032x}", fastrand::u128(..));
            // A server without room or rights for it can still be read.
            tolerated(connection.send(&Request::One(names.write_mark(&new))).await)?;
        }
        let Some(found) = tolerated(connection.send(&Request::One(names.read_mark())).await)? else { return Ok(()) };
        let found = text_of(found);
        let has_lost = self.mark.with(|mark| {
            let before = std::mem::replace(mark, found);
            before.is_some() && before != *mark
        });
        if has_lost {
            self.losses.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                { telemetry::STORE } = "redis",
                { telemetry::SERVER_ADDRESS } = %self.at,
                "the cache server has lost its entries, or is another server: they are paid for again"
            );
        }
        Ok(())
    }
}

/// Asks each server what it says about itself.
async fn infos(connection: &mut Connection) -> RedisResult<Vec<(String, Info)>> {
    Ok(infos_of(connection.send(&Request::Servers(command(&["INFO"]))).await?))
}

/// Reads the reply to `INFO` of each server, with its address, which is empty without a cluster.
pub(super) fn infos_of(reply: Value) -> Vec<(String, Info)> {
    let Value::Map(replies) = reply else { return Vec::new() };
    let read = |(server, info)| (text_of(server).unwrap_or_default(), Info::parse(&text_of(info).unwrap_or_default()));
    replies.into_iter().map(read).collect()
}

/// Returns the text of a reply; nothing if it is not one.
pub(super) fn text_of(reply: Value) -> Option<String> {
    match reply {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// Returns `true` if the server forbids `INFO` or does not know it; `false` if it forbids everything.
fn is_about_info(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.detail().is_some_and(|words| words.contains("unknown command"))
}

/// Returns a reply, or nothing if the server refused the command.
fn tolerated(reply: RedisResult<Value>) -> RedisResult<Option<Value>> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(error) => match Fate::of(&error) {
            Fate::Refused | Fate::ReadOnly => Ok(None),
            Fate::Broken | Fate::Late => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Vec<(String, Info)> {
        vec![(String::new(), Info::parse(text))]
    }

    #[test]
    fn a_server_that_forgets_is_refused_unless_that_is_allowed() {
        let weak = info("maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n");
        let judge = |volatile| Checks::new("host:6379".into(), volatile).judge(&weak);
        let error = judge(Volatile::Refuse).expect_err("entries would be lost").to_string();
        for part in ["host:6379", "allkeys-lru", "maxmemory-policy noeviction", "appendonly yes", "with_volatile"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(judge(Volatile::Warn).is_ok() && judge(Volatile::Allow).is_ok());
    }

    #[test]
    fn a_server_that_does_not_tell_is_warned_of() {
        for infos in [Vec::new(), info("role:master\r\n")] {
            let checks = Checks::new("host:6379".into(), Volatile::Refuse);
            assert!(checks.judge(&infos).is_ok());
            assert!(checks.has_warned.load(Ordering::Relaxed));
        }
        let sound = info("maxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n");
        let checks = Checks::new("host:6379".into(), Volatile::Refuse);
        assert!(checks.judge(&sound).is_ok() && !checks.has_warned.load(Ordering::Relaxed));
    }
}
