//! Lists the entries at a server, or at each primary of a cluster: [`CacheScan`] for [`Redis`].

use ::redis::Value;
use async_trait::async_trait;

use super::{
    check::{infos_of, text_of},
    command::command,
    connection::{Commands, Request},
    store::Redis,
};
use crate::{
    Error, ErrorKind, Result, SpaceId,
    cache::{CacheScan, CacheStore, Key, ScanPlace, ScanSink},
};

/// How often one call asks for keys. Most keys at the server may be of other programs.
const MAX_STEPS: usize = 16;

/// The keys that `contains` asks for at a time.
const CONTAINS_KEYS: usize = 1024;

const WHAT: &str = "the entries could not be listed";

/// Returns a number for the run id of a server.
fn run_of(run_id: &str) -> u64 {
    blake3::hash(run_id.as_bytes()).as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A place in a scan: a server, and the cursor that it gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// The cursor of `SCAN`; 0 at the beginning.
    cursor: u64,
    /// The hash of the run id of the server. A server that restarted, or took the place of another, cannot use the
    /// cursor: it orders its keys again.
    run: u64,
    /// The address of the server in a cluster; empty without one.
    server: String,
}

impl Cursor {
    fn to_place(&self) -> ScanPlace {
        let (cursor, run) = (self.cursor.to_be_bytes(), self.run.to_be_bytes());
        ScanPlace::from_bytes(&[cursor.as_slice(), &run, self.server.as_bytes()].concat())
    }

    fn of_place(place: &ScanPlace) -> Option<Self> {
        let (cursor, rest) = place.as_bytes().split_first_chunk()?;
        let (run, server) = rest.split_first_chunk()?;
        let server = str::from_utf8(server).ok()?.to_owned();
        Some(Self { cursor: u64::from_be_bytes(*cursor), run: u64::from_be_bytes(*run), server })
    }

    /// Returns the cursor from which a scan goes on, given the servers in order of their addresses. If the server of a
    /// place is gone, entries may have moved to any other, so the scan begins again.
    fn resume(after: Option<Self>, servers: &[(String, u64)]) -> Option<Self> {
        let beginning = |(server, run): &(String, u64)| Self { cursor: 0, run: *run, server: server.clone() };
        let at = after.as_ref().and_then(|after| servers.iter().find(|(server, _)| *server == after.server));
        match (after, at) {
            (Some(after), Some((_, run))) if after.run == *run => Some(after),
            // The server has restarted: its part begins again.
            (Some(_), Some(server)) => Some(beginning(server)),
            _ => servers.first().map(beginning),
        }
    }

    /// Returns the beginning of the next server; nothing after the last.
    fn next(&self, servers: &[(String, u64)]) -> Option<Self> {
        let (server, run) = servers.iter().find(|(server, _)| *server > self.server)?;
        Some(Self { cursor: 0, run: *run, server: server.clone() })
    }
}

impl Redis {
    /// Returns the servers that hold entries, ordered by address, each with the hash of its run id.
    async fn servers(&self) -> Result<Vec<(String, u64)>> {
        let reply = self.pool().send(&Request::Servers(command(&["INFO", "server"])), WHAT).await;
        let infos = match reply {
            Ok(reply) => infos_of(reply),
            // A user may be forbidden to ask. In a cluster, the addresses are needed.
            Err(error) if self.pool().address.is_cluster => return Err(error),
            Err(_) => Vec::new(),
        };
        let mut servers: Vec<(String, u64)> =
            infos.into_iter().map(|(server, info)| (server, run_of(&info.run_id))).collect();
        if servers.is_empty() {
            servers.push((String::new(), run_of("")));
        }
        servers.sort();
        Ok(servers)
    }

    /// Takes one step of `SCAN`: adds the keys of entries and returns the next cursor, which is 0 at the end.
    async fn scan_step(&self, at: &Cursor, count: usize, found: &mut Vec<Key>) -> Result<u64> {
        let names = &self.pool().names;
        let reply = self.pool().send(&Request::At(names.scan(at.cursor, count), &at.server), WHAT).await?;
        let unexpected = || self.pool().unexpected(WHAT);
        let Value::Array(reply) = reply else { return Err(unexpected()) };
        let mut reply = reply.into_iter();
        let (Some(cursor), Some(Value::Array(keys))) = (reply.next(), reply.next()) else { return Err(unexpected()) };
        let key = |name: &Value| if let Value::BulkString(name) = name { names.key_of(name) } else { None };
        found.extend(keys.iter().filter_map(key));
        let cursor = text_of(cursor).and_then(|cursor| cursor.parse().ok());
        cursor.ok_or_else(unexpected)
    }
}

#[async_trait]
impl CacheScan for Redis {
    async fn scan(&self, after: Option<&ScanPlace>, sink: &mut ScanSink<'_>) -> Result<Option<ScanPlace>> {
        let wrong = || {
            let message = "the place in a scan is not one of a redis cache: begin again, without a place";
            Error::new(ErrorKind::Config, message)
        };
        let after = after.map(|place| Cursor::of_place(place).ok_or_else(wrong)).transpose()?;
        let servers = self.servers().await?;
        let Some(mut at) = Cursor::resume(after, &servers) else { return Ok(None) };
        let (count, mut keys) = (self.keys_per_part(), Vec::new());
        let mut next = None;
        for _ in 0..MAX_STEPS {
            at.cursor = self.scan_step(&at, count, &mut keys).await?;
            next = if at.cursor == 0 { at.next(&servers) } else { Some(at.clone()) };
            match &next {
                Some(next) if keys.len() < count => at = next.clone(),
                _ => break,
            }
        }
        // A step may return a key twice, and entries that are discarded meanwhile are not found.
        self.get(&keys, &mut |place, value| sink(keys[place], value)).await?;
        Ok(next.map(|next| next.to_place()))
    }

    async fn contains(&self, keys: &[Key]) -> Result<Vec<bool>> {
        let mut found = Vec::with_capacity(keys.len());
        for part in keys.chunks(CONTAINS_KEYS) {
            let make = |at: usize| self.pool().names.exists(&part[at]);
            let commands = Commands { count: part.len(), key_at: 1, make: &make };
            let what = "entries could not be looked for";
            let reply = self.pool().send(&Request::Each(commands), what).await?;
            let Value::Array(replies) = reply else { return Err(self.pool().unexpected(what)) };
            if replies.len() != part.len() {
                return Err(self.pool().unexpected(what));
            }
            found.extend(replies.iter().map(|reply| matches!(reply, Value::Int(1..))));
        }
        Ok(found)
    }

    /// Counts all keys of the database, those of other programs too.
    async fn estimated_len(&self) -> Result<u64> {
        self.count_keys("the entries could not be counted").await
    }

    async fn notes(&self) -> Result<Vec<(SpaceId, String)>> {
        let what = "the notes could not be read";
        let fields = match self.pool().send(&Request::One(self.pool().names.notes()), what).await? {
            Value::Map(fields) => fields,
            Value::Array(words) => {
                let (mut words, mut fields) = (words.into_iter(), Vec::new());
                while let (Some(name), Some(about)) = (words.next(), words.next()) {
                    fields.push((name, about));
                }
                fields
            }
            _ => return Err(self.pool().unexpected(what)),
        };
        let note = |(name, about)| Some((text_of(name)?.parse().ok()?, text_of(about)?));
        let mut notes: Vec<(SpaceId, String)> = fields.into_iter().filter_map(note).collect();
        notes.sort();
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(cursor: u64, run: u64, server: &str) -> Cursor {
        Cursor { cursor, run, server: server.into() }
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for place in [Cursor::default(), cursor(u64::MAX, 7, "[::1]:6379")] {
            assert_eq!(Cursor::of_place(&place.to_place()), Some(place));
        }
        for bytes in [&[][..], &[0; 15], &[0xff; 17]] {
            assert_eq!(Cursor::of_place(&ScanPlace::from_bytes(bytes)), None);
        }
    }

    #[test]
    fn a_scan_goes_on_at_its_server_and_begins_anew_if_that_is_gone() {
        let servers = [("a:1".to_owned(), 1), ("b:1".to_owned(), 2)];
        assert_eq!(Cursor::resume(None, &servers), Some(cursor(0, 1, "a:1")));
        let resume = |after| Cursor::resume(Some(after), &servers);
        assert_eq!(resume(cursor(9, 2, "b:1")), Some(cursor(9, 2, "b:1")));
        assert_eq!(resume(cursor(9, 3, "b:1")), Some(cursor(0, 2, "b:1")));
        assert_eq!(resume(cursor(9, 3, "c:1")), Some(cursor(0, 1, "a:1")));
        assert_eq!(cursor(0, 1, "a:1").next(&servers), Some(cursor(0, 2, "b:1")));
        assert_eq!(cursor(0, 2, "b:1").next(&servers), None);
        assert_eq!(Cursor::resume(None, &[]), None);
    }
}
