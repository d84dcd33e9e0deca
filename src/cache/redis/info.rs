//! Reads what a server says about itself in the reply to `INFO`: [`Info`].

/// The facts of `INFO` that matter here. A fact is missing if the server does not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) version: String,
    pub(super) is_valkey: bool,
    /// A random id of the server's process.
    pub(super) run_id: String,
    pub(super) used_memory: u64,
    pub(super) max_memory: Option<u64>,
    pub(super) policy: Option<String>,
    pub(super) has_aof: Option<bool>,
    pub(super) is_replica: bool,
    /// Whether the server still loads its data, and refuses commands meanwhile.
    pub(super) is_loading: bool,
}

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            match name {
                // Valkey also reports the version of Redis that it is compatible with.
                "redis_version" if !info.is_valkey => info.version = value.to_owned(),
                "valkey_version" => {
                    info.is_valkey = true;
                    info.version = value.to_owned();
                }
                "run_id" => info.run_id = value.to_owned(),
                "used_memory" => info.used_memory = value.parse().unwrap_or_default(),
                "maxmemory" => info.max_memory = value.parse().ok(),
                "maxmemory_policy" => info.policy = Some(value.to_owned()),
                "aof_enabled" => info.has_aof = Some(value != "0"),
                "role" => info.is_replica = value == "slave" || value == "replica",
                "loading" => info.is_loading = value != "0" && !value.is_empty(),
                _ => {}
            }
        }
        info
    }

    /// Says why entries do not stay for ever, and what to set; nothing if they stay.
    pub(super) fn weakness(&self) -> Option<String> {
        let evicts = self.max_memory.is_some_and(|bytes| bytes > 0)
            && self.policy.as_deref().is_some_and(|policy| policy.starts_with("allkeys-"));
        let eviction = evicts.then(|| {
            let (bytes, policy) = (self.max_memory.unwrap_or_default(), self.policy.as_deref().unwrap_or_default());
            format!(
                "it evicts entries when it holds more than {bytes} bytes (maxmemory-policy is {policy}): set \
                 `maxmemory-policy noeviction`"
            )
        });
        let crash = (self.has_aof == Some(false)).then(|| {
            "a crash loses the entries since its last snapshot (appendonly is no): set `appendonly yes`".into()
        });
        match (eviction, crash) {
            (Some(eviction), Some(crash)) => Some(format!("{eviction}; {crash}")),
            (one, other) => one.or(other),
        }
    }

    /// Returns `true` if the server says all that [`weakness`](Self::weakness) needs.
    pub(super) fn is_complete(&self) -> bool {
        let evicts_never = self.max_memory == Some(0);
        self.has_aof.is_some() && (evicts_never || self.max_memory.is_some() && self.policy.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:0a1b\r\n\r\n# Memory\r\nused_memory:1048576\r\n\
                         used_memory_human:1.00M\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\
                         # Persistence\r\nloading:0\r\naof_enabled:1\r\n# Replication\r\nrole:master\r\n";

    #[test]
    fn facts_are_read() {
        let info = Info::parse(SOUND);
        assert_eq!((info.version.as_str(), info.is_valkey, info.run_id.as_str()), ("7.0.15", false, "0a1b"));
        assert_eq!((info.used_memory, info.max_memory, info.has_aof), (1 << 20, Some(0), Some(true)));
        assert!(!info.is_replica && !info.is_loading && info.is_complete());
        assert_eq!(info.weakness(), None);
        let valkey = Info::parse("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nrole:slave\r\n");
        assert_eq!((valkey.version.as_str(), valkey.is_valkey, valkey.is_replica), ("8.1.1", true, true));
        assert!(!valkey.is_complete());
        assert_eq!(Info::parse(""), Info::default());
    }

    #[test]
    fn eviction_of_any_key_and_missing_logs_are_weaknesses() {
        let with = |from: &str, to: &str| Info::parse(&SOUND.replace(from, to));
        assert!(with("aof_enabled:1", "aof_enabled:0").weakness().is_some_and(|why| why.contains("appendonly yes")));
        let limited = SOUND.replace("maxmemory:0", "maxmemory:1000");
        let policy = |policy: &str| Info::parse(&limited.replace("noeviction", policy)).weakness();
        assert_eq!(policy("noeviction"), None);
        // Such a policy evicts only keys with a time to live. Entries have none.
        assert_eq!(policy("volatile-lru"), None);
        for name in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
            assert!(policy(name).is_some_and(|why| why.contains(name) && why.contains("noeviction")));
        }
        // Without a limit, nothing is evicted.
        assert_eq!(with("noeviction", "allkeys-lru").weakness(), None);
    }
}
