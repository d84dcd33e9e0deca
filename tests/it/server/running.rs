//! A server on a free port of loopback, in a thread of its own: [`Running`].

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use docvector_embed::{
    Embedder,
    server::{ServedModel, Server, ServerBuilder, ServerLimits},
};

use super::Client;

pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<bool>>>,
}

impl Running {
    /// Serves an embedder with the default settings.
    pub(crate) fn of(embedder: impl Embedder) -> Self {
        Self::with(Server::builder(), embedder)
    }

    /// Serves an embedder with limits.
    pub(crate) fn limited(embedder: impl Embedder, change: impl FnOnce(&mut ServerLimits)) -> Self {
        let mut limits = ServerLimits::default();
        change(&mut limits);
        Self::with(Server::builder().with_limits(limits), embedder)
    }

    /// Serves an embedder with other settings.
    pub(crate) fn with(builder: ServerBuilder, embedder: impl Embedder) -> Self {
        let running = Self::loading(builder);
        running.server.open(ServedModel::new(Arc::new(embedder))).expect("opens");
        running
    }

    /// Serves without a model.
    pub(crate) fn loading(builder: ServerBuilder) -> Self {
        Self::loading_at(builder, ([127, 0, 0, 1], 0).into())
    }

    /// Serves an embedder at an address where another server was before.
    #[cfg(feature = "remote")]
    pub(crate) fn at(address: SocketAddr, embedder: impl Embedder) -> Self {
        let running = Self::loading_at(Server::builder(), address);
        running.server.open(ServedModel::new(Arc::new(embedder))).expect("opens");
        running
    }

    fn loading_at(builder: ServerBuilder, address: SocketAddr) -> Self {
        let server = builder.build_loading().expect("valid settings");
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = server.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    ended = serving.serve(listener) => ended.map(|()| true),
                    _ = stopped => Ok(false),
                }
            })
        });
        Self { server, address, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    #[cfg(any(feature = "remote", all(feature = "onnx", feature = "openai", unix)))]
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the server has drained, and returns how long that took.
    pub(crate) fn ended(mut self) -> Duration {
        let started = Instant::now();
        let stop = self.stop.take();
        let ended = self.thread.take().expect("running").join().expect("no panic").expect("serves");
        assert!(ended, "the server ended by itself");
        drop(stop);
        started.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the server panicked");
        }
    }
}

/// Waits until something is so.
pub(super) fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns whether less time has passed than probes and users may wait: 100 ms on a machine of one's own, where the long
/// tests run. Elsewhere a busy machine decides the time.
pub(crate) fn is_at_once(since: Instant) -> bool {
    let is_full = std::env::var_os("DOCVECTOR_EMBED_FULL").is_some();
    since.elapsed() < Duration::from_millis(if is_full { 100 } else { 5_000 })
}
