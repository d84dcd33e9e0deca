//! Stands between a client and a server, to cut their connections or to let them hang: [`TcpProxy`].

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Passes everything on.
    Open,
    /// Takes connections and closes them at once.
    Cut,
    /// Takes connections and bytes, and passes nothing on.
    Stalled,
    /// The proxy is dropped.
    Ended,
}

struct State {
    mode: Mode,
    /// The streams of all connections that were made: a client's and the server's for each.
    streams: Vec<TcpStream>,
    /// The bytes from the server that still pass before all connections are cut.
    left: Option<usize>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

/// A proxy on a free loopback port, before a server on another one. Dropping it closes all connections.
pub(crate) struct TcpProxy {
    port: u16,
    shared: Arc<Shared>,
}

impl TcpProxy {
    /// Starts a proxy before the server on this loopback port.
    pub(crate) fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let state = State { mode: Mode::Open, streams: Vec::new(), left: None };
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shared = Arc::new(Shared { target, state: Mutex::new(state), changed: Condvar::new() });
        let accepting = shared.clone();
        thread::spawn(move || accepting.accept(&listener));
        Self { port: own, shared }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.enter(Mode::Cut);
    }

    /// Cuts all connections once the server has sent so many more bytes, most likely in the middle of a reply.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.shared.state().left = Some(bytes);
    }

    /// Lets everything hang: what is sent is taken and does not arrive.
    pub(crate) fn stall(&self) {
        self.enter(Mode::Stalled);
    }

    /// Serves as at first. What hung goes on, and nothing is cut later.
    pub(crate) fn restore(&self) {
        self.shared.state().left = None;
        self.enter(Mode::Open);
    }

    fn enter(&self, mode: Mode) {
        let mut state = self.shared.state();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Ended) {
            state.close_streams();
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.enter(Mode::Ended);
        // Wakes the thread that accepts, which then ends.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl State {
    fn close_streams(&mut self) {
        self.left = None;
        for stream in self.streams.drain(..) {
            // The other side may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked")
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            match self.state().mode {
                Mode::Ended => return,
                Mode::Cut => continue,
                Mode::Open | Mode::Stalled => {}
            }
            // Without a server, the client finds its connection closed.
            if let (Ok(client), Ok(server)) = (client, TcpStream::connect(self.target)) {
                self.join(&client, &server);
            }
        }
    }

    /// Passes on what either side sends.
    fn join(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let clone = |stream: &TcpStream| stream.try_clone().expect("a handle");
        for stream in [client, server] {
            let _ = stream.set_nodelay(true);
        }
        {
            let mut state = self.state();
            if matches!(state.mode, Mode::Cut | Mode::Ended) {
                return;
            }
            state.streams.extend([clone(client), clone(server)]);
        }
        for (from, to, is_reply) in [(client, server, false), (server, client, true)] {
            let (shared, from, to) = (self.clone(), clone(from), clone(to));
            thread::spawn(move || shared.copy(from, to, is_reply));
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, is_reply: bool) {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let Some(passes) = self.pass(count, is_reply) else { break };
            let sent = to.write_all(&bytes[..passes]);
            if passes < count {
                self.state().close_streams();
            }
            if sent.is_err() || passes < count {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits while everything hangs, and returns how many of the bytes pass; `None` if none does, ever.
    fn pass(&self, count: usize, is_reply: bool) -> Option<usize> {
        let stalled = |state: &mut State| state.mode == Mode::Stalled;
        let mut state = self.changed.wait_while(self.state(), stalled).expect("nobody panicked");
        if state.mode != Mode::Open {
            return None;
        }
        match &mut state.left {
            // Taken, so that one thread alone cuts: another would cut the connections that are made next.
            Some(left) if is_reply && *left < count => {
                let passes = *left;
                state.left = None;
                Some(passes)
            }
            Some(left) if is_reply => {
                *left -= count;
                Some(count)
            }
            _ => Some(count),
        }
    }
}
