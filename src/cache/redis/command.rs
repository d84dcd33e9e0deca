//! Makes the commands that are sent, and names the keys at the server: [`Names`].

use ::redis::Cmd;

use crate::cache::{Entry, Key};

/// Removes a key if it still has the given value.
const DISCARD: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

/// The bytes of a key of an entry, after the prefix.
const KEY_BYTES: usize = 32;

/// Names what lies at the server under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the name of the hash of notes.
    fn spaces(&self) -> String {
        format!("{}spaces", self.prefix)
    }

    /// Returns the name of the mark by which the store is known again.
    fn mark(&self) -> String {
        format!("{}store", self.prefix)
    }

    /// Appends the name of an entry, without an allocation for most prefixes.
    fn add(&self, command: &mut Cmd, key: &Key) {
        let mut name = [0; 128];
        let (prefix, length) = (self.prefix.as_bytes(), self.prefix.len() + KEY_BYTES);
        if let Some(name) = name.get_mut(..length) {
            name[..prefix.len()].copy_from_slice(prefix);
            name[prefix.len()..].copy_from_slice(key.as_bytes());
            command.arg(&*name);
        } else {
            command.arg([prefix, key.as_bytes()].concat());
        }
    }

    /// Returns the key of an entry by its name; nothing if the name is another one.
    pub(super) fn key_of(&self, name: &[u8]) -> Option<Key> {
        let key = name.strip_prefix(self.prefix.as_bytes())?;
        Some(Key::from_bytes(key.try_into().ok()?))
    }

    /// Returns the glob pattern that matches all names.
    fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.prefix.len() + 1);
        for character in self.prefix.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push('*');
        pattern
    }

    pub(super) fn look_up(&self, keys: &[Key]) -> Cmd {
        let mut command = Cmd::with_capacity(1 + keys.len(), 4 + keys.len() * (self.prefix.len() + KEY_BYTES));
        command.arg("MGET");
        keys.iter().for_each(|key| self.add(&mut command, key));
        command
    }

    pub(super) fn put(&self, entry: &Entry<'_>) -> Cmd {
        let mut command = Cmd::with_capacity(4, 5 + self.prefix.len() + KEY_BYTES + entry.value.len());
        command.arg("SET");
        self.add(&mut command, &entry.key);
        command.arg(entry.value).arg("NX");
        command
    }

    pub(super) fn discard(&self, entry: &Entry<'_>) -> Cmd {
        let bytes = DISCARD.len() + 5 + self.prefix.len() + KEY_BYTES + entry.value.len();
        let mut command = Cmd::with_capacity(5, bytes);
        command.arg("EVAL").arg(DISCARD).arg("1");
        self.add(&mut command, &entry.key);
        command.arg(entry.value);
        command
    }

    pub(super) fn exists(&self, key: &Key) -> Cmd {
        let mut command = Cmd::with_capacity(2, 6 + self.prefix.len() + KEY_BYTES);
        command.arg("EXISTS");
        self.add(&mut command, key);
        command
    }

    pub(super) fn scan(&self, cursor: u64, count: usize) -> Cmd {
        let mut command = command(&["SCAN", &cursor.to_string(), "MATCH"]);
        command.arg(self.pattern()).arg("COUNT").arg(count);
        command
    }

    pub(super) fn note(&self, space: &str, about: &str) -> Cmd {
        command(&["HSETNX", &self.spaces(), space, about])
    }

    pub(super) fn notes(&self) -> Cmd {
        command(&["HGETALL", &self.spaces()])
    }

    /// Writes the mark if there is none.
    pub(super) fn write_mark(&self, mark: &str) -> Cmd {
        command(&["SET", &self.mark(), mark, "NX"])
    }

    pub(super) fn read_mark(&self) -> Cmd {
        command(&["GET", &self.mark()])
    }
}

/// Makes a command of its words.
pub(super) fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::with_capacity(words.len(), words.iter().map(|word| word.len()).sum());
    words.iter().for_each(|word| {
        command.arg(*word);
    });
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_no_wildcards() {
        assert_eq!(Names::new("dve:".into()).pattern(), "dve:*");
        assert_eq!(Names::new("a*b?[c]\\".into()).pattern(), "a\\*b\\?\\[c\\]\\\\*");
        assert_eq!(Names::new(String::new()).pattern(), "*");
    }

    #[test]
    fn only_names_of_entries_have_a_key() {
        let names = Names::new("dve:".into());
        let name = [b"dve:".as_slice(), &[7; 32]].concat();
        assert_eq!(names.key_of(&name), Some(Key::from_bytes([7; 32])));
        for other in [b"dve:spaces".as_slice(), b"dve:store", &name[..35], &[name.as_slice(), b"x"].concat(), &[7; 36]]
        {
            assert_eq!(names.key_of(other), None);
        }
    }

    #[test]
    fn commands_are_written_as_the_server_reads_them() {
        for prefix in ["dve:".to_owned(), "x".repeat(200)] {
            let names = Names::new(prefix.clone());
            let packed = names.put(&Entry::new(Key::from_bytes([7; 32]), b"value")).get_packed_command();
            let beginning = format!("*4\r\n$3\r\nSET\r\n${}\r\n{prefix}", prefix.len() + 32);
            let expected = [beginning.as_bytes(), &[7; 32], b"\r\n$5\r\nvalue\r\n$2\r\nNX\r\n"];
            assert_eq!(packed, expected.concat());
        }
    }
}
