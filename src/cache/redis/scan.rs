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

/// A place in a scan: a server, and the cursor that it gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// The cursor of `SCAN`; 0 at the beginning.
    cursor: u64,
    /// The hash of all servers and their run ids. If one restarted, it orders its keys in another way, and the cursor is
    /// of no use. If one took the place of another, or was added, keys may have moved to a server that was passed.
    servers: u64,
    /// The address of the server in a cluster; empty without one.
    server: String,
}

/// The servers that hold entries.
#[derive(Debug, PartialEq, Eq)]
struct Servers {
    /// Their addresses, in order.
    addresses: Vec<String>,
    /// A hash of the addresses and run ids.
    hash: u64,
}

impl Servers {
    fn new(mut servers: Vec<(String, String)>) -> Self {
        servers.sort();
        let mut hasher = blake3::Hasher::new();
        for word in servers.iter().flat_map(|(address, run_id)| [address, run_id]) {
            hasher.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
        }
        let hash = hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self { addresses: servers.into_iter().map(|(address, _)| address).collect(), hash }
    }

    /// Returns the beginning of the scan.
    fn first(&self) -> Option<Cursor> {
        let server = self.addresses.first()?.clone();
        Some(Cursor { cursor: 0, servers: self.hash, server })
    }

    /// Returns the cursor from which a scan goes on: from the beginning if the servers are not those of the place.
    fn resume(&self, after: Option<Cursor>) -> Option<Cursor> {
        after.filter(|after| after.servers == self.hash).or_else(|| self.first())
    }

    /// Returns the beginning of the server behind this one; nothing after the last.
    fn next(&self, at: &Cursor) -> Option<Cursor> {
        let server = self.addresses.iter().find(|address| **address > at.server)?.clone();
        Some(Cursor { cursor: 0, servers: self.hash, server })
    }
}

impl Cursor {
    fn to_place(&self) -> ScanPlace {
        let (cursor, servers) = (self.cursor.to_be_bytes(), self.servers.to_be_bytes());
        ScanPlace::from_bytes(&[cursor.as_slice(), &servers, self.server.as_bytes()].concat())
    }

    fn of_place(place: &ScanPlace) -> Option<Self> {
        let (cursor, rest) = place.as_bytes().split_first_chunk()?;
        let (servers, server) = rest.split_first_chunk()?;
        let server = str::from_utf8(server).ok()?.to_owned();
        Some(Self { cursor: u64::from_be_bytes(*cursor), servers: u64::from_be_bytes(*servers), server })
    }
}

impl Redis {
    /// Asks which servers hold entries.
    async fn servers(&self) -> Result<Servers> {
        let reply = self.pool().send(&Request::Servers(command(&["INFO", "server"])), WHAT).await;
        let infos = match reply {
            Ok(reply) => infos_of(reply),
            // A user may be forbidden to ask. In a cluster, the addresses are needed.
            Err(error) if self.pool().address.is_cluster => return Err(error),
            Err(_) => Vec::new(),
        };
        let mut servers: Vec<(String, String)> =
            infos.into_iter().map(|(server, info)| (server, info.run_id)).collect();
        if servers.is_empty() {
            servers.push(Default::default());
        }
        Ok(Servers::new(servers))
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
        let Some(mut at) = servers.resume(after) else { return Ok(None) };
        let (count, mut keys) = (self.keys_per_part(), Vec::new());
        let mut next = None;
        for _ in 0..MAX_STEPS {
            at.cursor = self.scan_step(&at, count, &mut keys).await?;
            next = if at.cursor == 0 { servers.next(&at) } else { Some(at.clone()) };
            match &next {
                Some(next) if keys.len() < count => at = next.clone(),
                _ => break,
            }
        }
        // A step may return a key twice, and entries that are discarded meanwhile are not found.
        self.get(&keys, &mut |place, value| sink(keys[place], value)).await?;
        // A server that restarted in the middle of this has answered with another order of its keys.
        let now = self.servers().await?;
        let next = if now == servers { next } else { now.first() };
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

    fn cursor(cursor: u64, servers: u64, server: &str) -> Cursor {
        Cursor { cursor, servers, server: server.into() }
    }

    fn servers(all: &[(&str, &str)]) -> Servers {
        Servers::new(all.iter().map(|(address, run)| ((*address).to_owned(), (*run).to_owned())).collect())
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
    fn a_scan_goes_on_at_its_server_and_begins_again_if_any_server_is_another() {
        let both = servers(&[("b:1", "y"), ("a:1", "x")]);
        assert_eq!(both, servers(&[("a:1", "x"), ("b:1", "y")]));
        let first = cursor(0, both.hash, "a:1");
        assert_eq!(both.resume(None), Some(first.clone()));
        let middle = cursor(9, both.hash, "b:1");
        assert_eq!(both.resume(Some(middle.clone())), Some(middle.clone()));
        assert_eq!(both.next(&first), Some(cursor(0, both.hash, "b:1")));
        assert_eq!(both.next(&middle), None);
        for others in [
            servers(&[("a:1", "x"), ("b:1", "restarted")]),
            servers(&[("a:1", "restarted"), ("b:1", "y")]),
            servers(&[("a:1", "x"), ("A:1", "y")]),
            servers(&[("a:1", "x"), ("b:1", "y"), ("c:1", "z")]),
        ] {
            assert_eq!(others.resume(Some(middle.clone())), others.first());
        }
        assert_eq!(servers(&[]).resume(None), None);
    }
}
