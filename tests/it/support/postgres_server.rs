//! Runs PostgreSQL servers for tests: [`PostgresServer`], which a test may stop, and [`Schema`], a place at a shared one.

use std::{
    env, fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::server_child::{PATIENCE, ServerChild, find_program, free_port, last_words, unique_name};

/// The variable that names a running server, which the tests use and do not stop.
const RUNNING: &str = "DOCVECTOR_EMBED_TEST_POSTGRES";

/// The role that needs its password; no other does.
pub(crate) const GUARDED: &str = "guarded";

/// Who may log in, and how.
const LOGINS: &str = "host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";

/// A PostgreSQL server on a free loopback port, with a folder of its own. Dropping it ends it.
pub(crate) struct PostgresServer {
    child: Option<ServerChild>,
    port: u16,
    options: Vec<String>,
    owner: Option<Owner>,
    folder: TempDir,
}

impl PostgresServer {
    /// Starts a server for a test that stops, breaks or fills it. What it confirmed is on the disk.
    ///
    /// Returns `None`, and prints so, if the tests are to use a running server.
    pub(crate) fn own(options: &[&str]) -> Option<Self> {
        if env::var_os(RUNNING).is_some() {
            println!("not tested: the running server of {RUNNING} must not be stopped or changed");
            return None;
        }
        Some(Self::start_with(options))
    }

    /// Makes a database and starts a server with these settings (`fsync=off`), and waits until it answers.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let owner = Owner::of_servers();
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(owner) = &owner {
            owner.give(folder.path());
        }
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { child: None, port: 0, options, owner, folder };
        server.make();
        // Another process may take the port after it was chosen, so several are tried.
        for _ in 0..5 {
            server.port = free_port();
            if server.attempt() {
                return server;
            }
        }
        panic!("postgres ended by itself, five times: {}", last_words(server.folder.path()));
    }

    /// Makes the files of a new server.
    fn make(&self) {
        let mut command = self.program("initdb");
        // What is made here is lost with the machine, so nothing needs to be written through.
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        let made = command.arg("--pgdata").arg(self.data()).output().expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(self.data().join("pg_hba.conf"), LOGINS).expect("it writes");
    }

    /// A program of the server's, run by its user.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        if let Some(owner) = &self.owner {
            command.uid(owner.user).gid(owner.group);
        }
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the process, and waits until it answers; false if it ended instead.
    fn attempt(&mut self) -> bool {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        command.args(["-c", "max_connections=200", "-c", "shared_buffers=32MB"]);
        for option in &self.options {
            command.args(["-c", option]);
        }
        let child = self.child.insert(ServerChild::start(&mut command, "QUIT", self.folder.path()));
        let give_up = Instant::now() + PATIENCE;
        let url = url_of(self.port);
        while child.is_running() {
            if psql(&url, "SELECT 1").is_ok_and(|one| one == "1") {
                return child.is_running();
            }
            assert!(Instant::now() < give_up, "postgres does not answer: {}", last_words(self.folder.path()));
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        url_of(self.port)
    }

    /// The URL through a proxy on this port.
    pub(crate) fn url_at(&self, port: u16) -> String {
        url_of(port)
    }

    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs statements, and returns what they select: one line per row.
    pub(crate) fn sql(&self, statements: &str) -> String {
        psql(&self.url(), statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Kills the server at once: its processes end as they notice.
    pub(crate) fn kill(&mut self) {
        self.child.take().expect("it runs").kill();
    }

    /// Stops the server in good order: clients are sent away.
    pub(crate) fn stop_fast(&mut self) {
        self.child.take().expect("it runs").end_by("INT");
    }

    /// Starts the server again, on the same port, with what is on its disk.
    pub(crate) fn restart(&mut self) {
        self.child = None;
        let give_up = Instant::now() + PATIENCE;
        // After a kill, it refuses to start while a process of the old server is left.
        while !self.attempt() {
            assert!(Instant::now() < give_up, "postgres does not start again: {}", last_words(self.folder.path()));
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes a folder in which the server can keep a tablespace.
    pub(crate) fn folder_within(&self, place: &Path) -> PathBuf {
        let folder = place.join("tablespace");
        fs::create_dir(&folder).expect("a folder");
        if let Some(owner) = &self.owner {
            owner.give(&folder);
        }
        folder
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if child.is_running() && !thread::panicking() {
            // Its processes must be gone before its folder is.
            child.end_by("QUIT");
        }
    }
}

fn url_of(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// A schema of its own at a server that tests share, dropped with this. The server ends with the last of them.
pub(crate) struct Schema {
    url: String,
    name: String,
    /// Kept alive by this; `None` for a running server of others.
    _server: Option<Arc<PostgresServer>>,
}

impl Schema {
    pub(crate) fn new() -> Self {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let name = unique_name();
        let (url, server) = match env::var(RUNNING) {
            Ok(running) => (running, None),
            Err(_) => {
                let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
                // Nothing is killed here, so nothing needs to be on the disk: the tests are faster.
                let server = shared.upgrade().unwrap_or_else(|| Arc::new(PostgresServer::start_with(&["fsync=off"])));
                *shared = Arc::downgrade(&server);
                (server.url(), Some(server))
            }
        };
        let schema = Self { url, name, _server: server };
        schema.sql(&format!("CREATE SCHEMA {}", schema.name));
        schema
    }

    /// The URL of a store in this schema.
    pub(crate) fn url(&self) -> String {
        let sign = if self.url.contains('?') { '&' } else { '?' };
        // Many tests at once share the server's connections.
        format!("{}{sign}schema={}&connections=3", self.url, self.name)
    }

    /// The URL of another store: each has a table of its own in this schema.
    pub(crate) fn url_of(&self, table: &str) -> String {
        format!("{}&table={table}", self.url())
    }

    /// Runs statements without the code under test; names without a schema are of this one.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let statements = format!("SET search_path = {}; {statements}", self.name);
        psql(&self.url, &statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let quiet = "SET client_min_messages = error;";
        if let Err(error) = psql(&self.url, &format!("{quiet} DROP SCHEMA {} CASCADE", self.name)) {
            println!("the schema {} is left behind: {error}", self.name);
        }
    }
}

/// Runs statements through PostgreSQL's own client.
fn psql(url: &str, statements: &str) -> Result<String, String> {
    let mut command = Command::new(program("psql"));
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statements]);
    // Settings of the user's are for other servers.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    let output = command.output().expect("psql starts");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The user by whom servers are run if the tests are run by root, whom PostgreSQL refuses.
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of_servers() -> Option<Self> {
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let of = |name| Some(Self { user: id(&["-u", name])?, group: id(&["-g", name])? });
        let owner = ["postgres", "nobody"].into_iter().find_map(of);
        Some(owner.expect("PostgreSQL refuses root, and neither postgres nor nobody is a user here"))
    }

    fn give(&self, folder: &Path) {
        chown(folder, Some(self.user), Some(self.group)).expect("root may give folders away");
    }
}

fn id(words: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(words).output().expect("id is there");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|_| output.status.success())
}

/// Returns the path of a program of PostgreSQL's.
fn program(name: &str) -> PathBuf {
    let named = env::var_os("DOCVECTOR_EMBED_POSTGRES_BIN").map(|folder| PathBuf::from(folder).join(name));
    find_program(&[name], named, &debian_folders())
}

/// Where Debian keeps the programs of each version, the newest first.
fn debian_folders() -> Vec<PathBuf> {
    let version = |folder: &PathBuf| folder.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(version(folder)));
    folders
}
