//! Accepts connections and serves them until the server has drained: [`serve`].

use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    connection_io::{Activity, ConnectionIo},
    dialect::Dialect,
    inner::Inner,
    refusal::Refusal,
    state::ServerState,
};
use crate::ErrorKind;

/// The wait after a connection that could not be accepted: all descriptors may be in use.
const AFTER_FAILURE: Duration = Duration::from_millis(10);
/// The wait of a request over a connection above the limit.
const AFTER_TOO_MANY: Duration = Duration::from_secs(1);
/// The most bytes of the head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// The most bytes of a connection's buffer, in each direction.
const BUFFER_BYTES: usize = 128 << 10;
/// How long replies that are complete may take to leave, once the server has drained.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// Connections above the limit that are served all the same, as far as probes go.
const FOR_PROBES: usize = 64;
/// The routes that connections above the limit may ask.
const PROBES: [&str; 6] = ["/livez", "/readyz", "/startupz", "/health", "/ping", "/metrics"];

/// The reply to a connection above all limits.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves connections. Returns when the server has drained and its connections are closed.
pub(super) async fn serve(server: Arc<Inner>, router: Router, listener: TcpListener) -> io::Result<()> {
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut drained = std::pin::pin!(drained(&server));
    loop {
        tokio::select! {
            biased;
            () = &mut drained => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => begin(&server, &router, stream, &closed, &mut connections),
                Err(error) => {
                if server.log_limit.may_log() {
                    tracing::warn!(%error, "a connection cannot be accepted: are there too few file descriptors?");
                }
                sleep(AFTER_FAILURE).await;
            }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    closing.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(LAST_BYTES, all_ended).await.is_err() {
        let open = connections.len();
        tracing::warn!(open, "connections were cut: their clients did not take what was sent, or still sent");
        connections.abort_all();
    }
    Ok(())
}

/// Begins to serve a connection, in a task of its own.
fn begin(
    server: &Arc<Inner>,
    router: &Router,
    stream: TcpStream,
    closed: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let limits = server.options.limits;
    let open = server.connections.fetch_add(1, Ordering::Relaxed);
    if open >= limits.connections.saturating_add(FOR_PROBES) {
        server.connections.fetch_sub(1, Ordering::Relaxed);
        // A client that cannot take these bytes at once gets none.
        let _ = stream.try_write(TOO_MANY);
        return;
    }
    // A reply is one write or a few large ones: a delay to gather more would gain nothing.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let io = ConnectionIo::new(stream, activity.clone(), limits.head_time, limits.stall_time);
    let (router, is_above) = (TowerToHyperService::new(router.clone()), open >= limits.connections);
    let service = Answers { server: server.clone(), router, activity, is_above };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_time)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let (counted, mut closed) = (Counted(server.clone()), closed.clone());
    connections.spawn(async move {
        let _counted = counted;
        let mut connection = std::pin::pin!(connection);
        // An error ends this connection alone.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = closed.wait_for(|&closed| closed) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    });
}

/// An open connection. Dropping it counts it as closed.
struct Counted(Arc<Inner>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers the requests of a connection.
struct Answers {
    server: Arc<Inner>,
    router: TowerToHyperService<Router>,
    activity: Arc<Activity>,
    /// Whether the connection is above the limit.
    is_above: bool,
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.begin();
        let (server, activity, is_above) = (self.server.clone(), self.activity.clone(), self.is_above);
        let is_refused = is_above && !PROBES.contains(&request.uri().path());
        let reply = (!is_refused).then(|| self.router.call(request));
        Box::pin(async move {
            let reply = match reply {
                Some(reply) => reply.await,
                None => Ok(no_connection(server.options.limits.connections)),
            };
            activity.end();
            reply.map(|mut reply| {
                // A client that comes again should find another server, or a connection within the limit.
                if is_above || server.lifecycle.state() == ServerState::Draining {
                    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                reply
            })
        })
    }
}

/// The reply to a request over a connection above the limit.
fn no_connection(limit: usize) -> Response<Body> {
    let message = format!("the server has {limit} connections, which is the most: try again soon");
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Overloaded, message);
    refusal.with_wait(AFTER_TOO_MANY).into_reply(Dialect::Native, None)
}

/// Waits until the server drains and nothing is under way, or its time is over.
async fn drained(server: &Inner) {
    server.lifecycle.refusing().await;
    let idle = async {
        // The sender lives in the server.
        let _ = server.under_way.subscribe().wait_for(|&calls| calls == 0).await;
    };
    tokio::select! {
        () = idle => {}
        () = server.lifecycle.ended() => {}
    }
}
