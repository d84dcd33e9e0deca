//! Runs servers of other projects as children: [`ServerChild`]. None outlives this process, however it ends.

use std::{
    collections::HashSet,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

/// What may take a while on a busy machine is given up after this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until its input ends, which happens when this process does. Then it ends the server, and removes the folder.
const WATCH: &str = "trap '' INT TERM HUP; read -r _; kill -s \"$1\" \"$0\" 2>/dev/null; \
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 \"$0\" 2>/dev/null || break; sleep 0.2; done; rm -rf \"$2\"";

/// A server that runs as a child. Dropping it kills it.
pub(crate) struct ServerChild {
    process: Child,
    watcher: Child,
}

impl ServerChild {
    /// Starts a server. `end` is the signal that ends it and all its own children at once; `folder` is what it leaves.
    pub(crate) fn start(command: &mut Command, end: &str, folder: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(log_of(folder)).expect("a log");
        let twice = log.try_clone().expect("a handle");
        let process = command.stdin(Stdio::null()).stdout(log).stderr(twice).spawn();
        let process = process.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut watcher = Command::new("sh");
        watcher.args(["-c", WATCH, &process.id().to_string(), end]).arg(folder);
        let watcher = watcher.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { process, watcher: watcher.expect("sh is there") }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("its state").is_none()
    }

    /// Sends a signal (`TERM`, `INT`, ...) and waits until the server has ended.
    pub(crate) fn end_by(&mut self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("kill is there").success(), "the server is not running");
        until("the server ends", || !self.is_running());
    }

    /// Kills the server, and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for ServerChild {
    fn drop(&mut self) {
        // First, so that it never signals an id that another process has by then.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        self.kill();
    }
}

/// What a server says goes here.
pub(crate) fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// The end of what a server said.
pub(crate) fn last_words(folder: &Path) -> String {
    let said = fs::read(log_of(folder)).unwrap_or_default();
    String::from_utf8_lossy(&said[said.len().saturating_sub(2_000)..]).into_owned()
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "in vain: waiting until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns a loopback port that nobody listens on.
///
/// It lies below those that systems give to connections, so that a server which is started again finds its port free.
/// This process gives out each port once.
pub(crate) fn free_port() -> u16 {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    for _ in 0..1_000 {
        let port = fastrand::u16(15_000..32_000);
        let is_new = GIVEN.lock().expect("nobody panicked").insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between 15000 and 32000");
}

/// Finds a program in a variable's folder or path, in PATH, or in further folders.
pub(crate) fn find_program(names: &[&str], named: Option<PathBuf>, folders: &[PathBuf]) -> PathBuf {
    if let Some(named) = named {
        assert!(named.is_file(), "{} is missing: run scripts/fetch-servers", named.display());
        return named;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(folders.iter().cloned()).collect();
    let mut programs = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    programs
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{names:?} are missing: run scripts/fetch-servers"))
}

/// Returns a name that no other test has, in this process or another.
pub(crate) fn unique_name() -> String {
    format!("t{:x}_{:08x}", std::process::id(), fastrand::u32(..))
}
