//! Runs a Redis cluster of three primaries for tests: [`RedisCluster`].

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{
    redis_server::{RedisServer, may_start},
    server_child::{free_port, unique_name, until},
};

/// The number of slots that the primaries share.
const SLOTS: usize = 16_384;

/// Three primaries, each with a third of the slots.
pub(crate) struct RedisCluster(Vec<RedisServer>);

impl RedisCluster {
    /// Starts a cluster for a test that stops a part of it; `None` if the tests are to use a running server.
    pub(crate) fn own() -> Option<Self> {
        may_start().then(Self::start)
    }

    /// Starts a cluster, and waits until each primary knows all of it.
    fn start() -> Self {
        let nodes: Vec<(RedisServer, u16)> = (0..3).map(|_| node()).collect();
        for (number, (server, _)) in nodes.iter().enumerate() {
            let (first, end) = (number * SLOTS / nodes.len(), (number + 1) * SLOTS / nodes.len());
            let added = server.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            assert_eq!(added, "OK");
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        let (met, others) = nodes.split_first().expect("three nodes");
        let (port, bus) = (met.0.port().to_string(), met.1.to_string());
        for (server, _) in others {
            assert_eq!(server.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
        }
        let servers: Vec<RedisServer> = nodes.into_iter().map(|(server, _)| server).collect();
        for server in &servers {
            until("the cluster is complete", || {
                let info = server.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
        Self(servers)
    }

    /// Returns the cluster that tests share, which ends with the last of them; `None` if they are to use a running server.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<RedisCluster>> = Mutex::new(Weak::new());
        if !may_start() {
            return None;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = shared.upgrade().unwrap_or_else(|| Arc::new(Self::start()));
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// The URL of a new store, with a prefix of its own.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.0.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis+cluster://{}/?prefix={}:&volatile=allow", hosts.join(","), unique_name())
    }

    /// The number of keys at each primary.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let size = |server: &RedisServer| server.command(&["DBSIZE"]).parse().expect("a number");
        self.0.iter().map(size).collect()
    }

    /// Kills one primary and starts it again.
    pub(crate) fn restart(&mut self, number: usize) {
        self.0[number].kill();
        self.0[number].restart();
        let servers = &self.0;
        until("the cluster is complete again", || {
            servers.iter().all(|server| server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        });
    }
}

/// Starts a primary, and returns its port of the cluster's bus.
fn node() -> (RedisServer, u16) {
    let bus = free_port();
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus.to_string()];
    let options = [&["--appendonly", "yes", "--appendfsync", "no"], &options[..]].concat();
    (RedisServer::start_with(&options), bus)
}
