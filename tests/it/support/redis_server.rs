//! Runs Redis servers for tests: [`RedisServer`], which a test may stop, and [`Prefix`], a place at one that is shared.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    redis_client::{self, Address},
    server_child::{PATIENCE, ServerChild, find_program, free_port, last_words, unique_name, until},
};

/// The variable that names a running server, which the tests use and do not stop.
const RUNNING: &str = "DOCVECTOR_EMBED_TEST_REDIS";

/// A Redis server on a free loopback port, with a folder of its own. Dropping it ends it.
pub(crate) struct RedisServer {
    child: Option<ServerChild>,
    port: u16,
    options: Vec<String>,
    /// Where its files are.
    data: PathBuf,
    _folder: Option<TempDir>,
}

impl RedisServer {
    /// Starts a server for a test that stops, breaks or fills it. What it confirmed is on the disk.
    ///
    /// Returns `None`, and prints so, if the tests are to use a running server.
    pub(crate) fn own(options: &[&str]) -> Option<Self> {
        may_start().then(|| Self::start_with(&[&["--appendonly", "yes", "--appendfsync", "always"], options].concat()))
    }

    /// Starts a server with these options, of which the later ones count, and waits until it answers.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_owned();
        Self::start_in(data, Some(folder), options)
    }

    /// Starts a server whose files are in this folder, such as a small disk.
    pub(crate) fn start_at(folder: &Path, options: &[&str]) -> Self {
        Self::start_in(folder.to_owned(), None, options)
    }

    fn start_in(data: PathBuf, folder: Option<TempDir>, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { child: None, port: 0, options, data, _folder: folder };
        // Another process may take the port after it was chosen, so several are tried.
        for _ in 0..5 {
            server.port = free_port();
            if server.attempt() {
                return server;
            }
        }
        panic!("redis-server ended by itself, five times: {}", last_words(&server.data));
    }

    /// Starts the process, and waits until it answers; false if it ended instead.
    fn attempt(&mut self) -> bool {
        let mut command = Command::new(program());
        let port = self.port.to_string();
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--daemonize", "no"]);
        // A replica is served at once, not together with others that may come.
        command.args(["--repl-diskless-sync-delay", "0"]).arg("--dir").arg(&self.data).args(&self.options);
        let child = self.child.insert(ServerChild::start(&mut command, "KILL", &self.data));
        let give_up = Instant::now() + PATIENCE;
        while child.is_running() {
            if redis_client::command(&Address::local(self.port), &["PING"]).is_ok_and(|reply| is_up(&reply)) {
                return child.is_running();
            }
            assert!(Instant::now() < give_up, "redis-server does not answer: {}", last_words(&self.data));
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The URL through a proxy on this port.
    pub(crate) fn url_at(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}/")
    }

    /// Sends a command, and returns the reply.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let reply = redis_client::command(&Address::local(self.port), words);
        reply.unwrap_or_else(|error| panic!("{words:?}: {error}; {}", last_words(&self.data)))
    }

    /// Kills the server at once.
    pub(crate) fn kill(&mut self) {
        self.child.take().expect("it runs").kill();
    }

    /// Stops the server in good order.
    pub(crate) fn terminate(&mut self) {
        self.child.take().expect("it runs").end_by("TERM");
    }

    /// Starts the server again, on the same port, with what is on its disk.
    pub(crate) fn restart(&mut self) {
        self.child = None;
        let give_up = Instant::now() + PATIENCE;
        while !self.attempt() {
            assert!(Instant::now() < give_up, "redis-server does not start again: {}", last_words(&self.data));
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Puts a server without any entries in its place.
    pub(crate) fn restart_empty(&mut self) {
        self.child = None;
        for file in fs::read_dir(&self.data).expect("a folder").flatten() {
            let removed: io::Result<()> =
                if file.path().is_dir() { fs::remove_dir_all(file.path()) } else { fs::remove_file(file.path()) };
            removed.expect("it can be removed");
        }
        self.restart();
        assert_eq!(self.command(&["DBSIZE"]), "0");
    }

    /// Starts a read-only replica of this server, and waits until it has all that this one has.
    pub(crate) fn replica(&self) -> Self {
        let primary = format!("127.0.0.1 {}", self.port);
        let replica = Self::start_with(&["--appendonly", "yes", "--replicaof", &primary]);
        until("the replica is in step", || replica.command(&["INFO", "replication"]).contains("link_status:up"));
        replica
    }
}

/// Whether tests may start servers of their own. Prints so if they are to use a running one.
pub(super) fn may_start() -> bool {
    let may = env::var_os(RUNNING).is_none();
    if !may {
        println!("not tested: the running server of {RUNNING} must not be stopped or changed");
    }
    may
}

/// A server that demands a password answers, too.
fn is_up(reply: &str) -> bool {
    reply == "PONG" || reply.starts_with("-NOAUTH")
}

/// A prefix of its own at a server that tests share. The server ends with the last of them.
pub(crate) struct Prefix {
    url: String,
    /// Kept alive by this; `None` for a running server of others.
    server: Option<Arc<RedisServer>>,
    name: String,
}

impl Prefix {
    pub(crate) fn new() -> Self {
        static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        let name = unique_name();
        if let Ok(running) = env::var(RUNNING) {
            return Self { url: running, server: None, name };
        }
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| {
            // Nothing is killed here, so nothing needs to be on the disk: the tests are faster.
            Arc::new(RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "no"]))
        });
        *shared = Arc::downgrade(&server);
        Self { url: server.url(), server: Some(server), name }
    }

    /// The URL of a store whose keys begin with this prefix.
    pub(crate) fn url(&self) -> String {
        self.url_of("")
    }

    /// The URL of another store: each has a name within this prefix.
    pub(crate) fn url_of(&self, store: &str) -> String {
        format!("{}?prefix={}:{store}:&volatile=allow", self.url, self.name)
    }

    /// Connects without the code under test.
    fn address(&self) -> Address {
        Address::of_url(&self.url)
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        if self.server.is_some() {
            return;
        }
        let script =
            "local keys = redis.call('KEYS', ARGV[1]) for _, key in ipairs(keys) do redis.call('DEL', key) end";
        let removed = redis_client::command(&self.address(), &["EVAL", script, "0", &format!("{}:*", self.name)]);
        if !removed.as_ref().is_ok_and(|reply| !reply.starts_with('-')) {
            println!("the keys {}:* are left behind at the running server: {removed:?}", self.name);
        }
    }
}

/// Returns the path of redis-server, or of Valkey's server.
fn program() -> PathBuf {
    let named = env::var_os("DOCVECTOR_EMBED_REDIS_SERVER").map(PathBuf::from);
    find_program(&["redis-server", "valkey-server"], named, &[])
}
