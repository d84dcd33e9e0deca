//! Serves an embedder over HTTP: [`Server`].

use std::{fmt, io, net::TcpListener, sync::Arc};

use super::{
    connections,
    inner::Inner,
    model::ServedModel,
    options::{TokenIds, config},
    routes::router,
    state::ServerState,
};
use crate::Result;

/// Serves an embedder over HTTP, to clients of three dialects. Cheap to clone; clones are one server.
///
/// See the [module](super) for an example, the routes, and what is promised under load.
#[derive(Clone)]
pub struct Server(pub(super) Arc<Inner>);

impl Server {
    /// Brings the model of a server that was built [loading](super::ServerBuilder::build_loading), and makes it ready.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if there is a model already, if the server failed or drains, if the embedder
    /// has no space, or if token ids of the model are accepted and its vocabulary is not known.
    pub fn open(&self, model: ServedModel) -> Result<()> {
        if model.embedder.spaces().is_empty() {
            return Err(config(format!("{} has no space, so nothing can be served", model.embedder)));
        }
        if matches!(self.0.options.token_ids, Some(TokenIds::Model)) && model.vocabulary.is_none() {
            let message = format!("token ids of {} cannot be accepted: its vocabulary is not known", model.name());
            return Err(config(message));
        }
        self.0.model.set(model).map_err(|_| config("the server has a model already"))?;
        match self.0.lifecycle.move_to(ServerState::Ready) {
            true => Ok(()),
            false => Err(config(format!("the server cannot be opened any more: it is {}", self.state()))),
        }
    }

    /// Says that the model could not be loaded. The server goes on to answer probes, which say so.
    pub fn fail(&self) {
        self.0.lifecycle.move_to(ServerState::Failed);
    }

    /// Begins to go away: the server is not ready from this moment on, refuses new work, and finishes what it has
    /// accepted, each as [set](super::ServerBuilder::with_drain). [`serve`](Self::serve) returns when all is done. A
    /// second call changes nothing.
    pub fn drain(&self) {
        self.0.lifecycle.move_to(ServerState::Draining);
    }

    /// Goes away at once: [drains](Self::drain), and ends requests under way with 503 before they are finished.
    pub fn end(&self) {
        self.drain();
        self.0.lifecycle.end_now();
    }

    /// Returns how far the server is.
    pub fn state(&self) -> ServerState {
        self.0.lifecycle.state()
    }

    /// Returns the requests for vectors that are not answered yet.
    pub fn requests_under_way(&self) -> usize {
        *self.0.under_way.borrow()
    }

    /// Returns all routes, to be part of a larger service. The caller then accepts the connections, with its own limits
    /// of them and of the time of a head; all other limits hold as here.
    pub fn router(&self) -> axum::Router {
        router(self.0.clone())
    }

    /// Accepts connections until the server was [drained](Self::drain). Needs a tokio runtime with its clock and its
    /// sockets.
    ///
    /// # Errors
    /// If the listener cannot be used.
    ///
    /// # Cancellation
    /// Dropping the future closes the listener and all connections at once.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        connections::serve(self.0.clone(), self.router(), listener).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("state", &self.state())
            .field("keys", &self.0.keys)
            .field("options", &self.0.options)
            .field("model", &self.0.model.get())
            .finish_non_exhaustive()
    }
}
