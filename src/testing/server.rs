//! Serves HTTP on loopback in a thread of its own: [`Server`].

use std::{
    future::pending,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{Request, body::Incoming, header::AUTHORIZATION, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::oneshot, time::sleep};

use super::{
    account::Account,
    api_error::ApiError,
    control,
    fault::{Fault, Kind, Route},
    reply::{self, Reply, add_header},
    routes::{self, Cut, route_of},
    upload::{NoUpload, drain},
};

/// The wait after a connection that could not be accepted.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A running server. Dropping it closes all connections and ends the thread.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// The runtime is its own: the test's may be busy, blocked, or not there.
    pub(super) fn start(account: Arc<Account>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::spawn(accept(listener, account));
                // An error says that the server was dropped too.
                let _ = stopped.await;
            });
        };
        let thread = thread::Builder::new().name("openai-simulator".to_owned()).spawn(serve)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, account: Arc<Account>) {
    loop {
        // A connection that cannot be accepted is the client's to open again. Where all descriptors are in use, the next
        // try fails as well, at once.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(AFTER_FAILURE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let account = account.clone();
        let service = service_fn(move |request| {
            let account = account.clone();
            async move { handle(&account, request).await }
        });
        tokio::spawn(async move {
            // An error ends this connection alone, and a cut is one.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Answers one request, unless a fault keeps it from that.
async fn handle(account: &Account, request: Request<Incoming>) -> Result<Reply, Cut> {
    if request.uri().path().starts_with(control::PREFIX) {
        return match control::answer(account, request).await {
            Ok(reply) => Ok(reply),
            Err(NoUpload::Refused(error)) => Ok(reply::refusal(&error)),
            Err(NoUpload::Cut) => Err(Cut),
        };
    }
    let route = route_of(request.method(), request.uri().path());
    let (number, fault) = account.with(|state| {
        state.counts.requests += 1;
        (state.counts.requests, route.as_ref().and_then(|(route, _)| state.take_fault(*route)))
    });
    let fault = fault.map(|Fault(kind)| kind);
    let mut cut_upload = None;
    match &fault {
        Some(Kind::Cut) => return Err(Cut),
        Some(Kind::Hang) => pending::<()>().await,
        Some(Kind::Reply { status, content_type, headers, body }) => {
            drain(&mut request.into_body()).await;
            let mut reply = reply::answer(*status, content_type, body.clone().into_bytes());
            headers.iter().for_each(|(name, value)| add_header(&mut reply, name, value));
            return Ok(reply);
        }
        Some(Kind::Delay(by)) => sleep(*by).await,
        Some(Kind::CutUpload(after)) => match &route {
            Some((Route::CreateFile, _)) => cut_upload = Some(*after),
            _ => return Err(Cut),
        },
        _ => {}
    }
    let mut reply = answer(account, route, request, cut_upload).await?;
    add_header(&mut reply, "x-request-id", &format!("req_simulated_{number}"));
    match fault {
        Some(Kind::LostAnswer) => return Err(Cut),
        Some(Kind::HeldAnswer) => pending::<()>().await,
        Some(Kind::CutAnswer(after)) => reply.body_mut().cut_after(after),
        Some(Kind::SlowAnswer { bytes, pause }) => reply.body_mut().slow_down(bytes, pause),
        _ => {}
    }
    Ok(reply)
}

/// Answers a request that no fault has met.
async fn answer(
    account: &Account,
    route: Option<(Route, String)>,
    mut request: Request<Incoming>,
    cut_upload: Option<u64>,
) -> Result<Reply, Cut> {
    let refused = if !is_authorized(account, &request) {
        let message = "Incorrect API key provided. You can find your API key in your account's settings.";
        ApiError::new(401, message).with_code("invalid_api_key")
    } else if let Some((route, id)) = route {
        return routes::answer(account, route, &id, request, cut_upload).await;
    } else {
        ApiError::new(404, format!("Invalid URL ({} {})", request.method(), request.uri().path()))
    };
    drain(request.body_mut()).await;
    Ok(routes::refused(account, &refused))
}

/// Returns whether a request brings the account's key; any key will do if the account has none.
fn is_authorized(account: &Account, request: &Request<Incoming>) -> bool {
    let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    account.settings.api_key.as_deref().map_or(!given.is_empty(), |key| key == given)
}
