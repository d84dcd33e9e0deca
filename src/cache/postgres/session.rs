//! Makes connections to the server: [`Connector`].

use std::time::Duration;

use tokio::{runtime::Handle, task::AbortHandle, time::timeout};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::Failure;
use crate::{Error, ErrorKind, Result};

/// The time that the server is given beyond our own time limit of a statement. If both are there, it is the server that ends a
/// statement, and the connection can be used again.
const GRACE: Duration = Duration::from_secs(1);

/// A connection, and the task that moves its bytes.
pub(super) struct Session {
    client: Client,
    task: AbortHandle,
}

impl Session {
    /// Starts the task. Once the session is dropped, the task says goodbye to the server and ends.
    fn start(
        runtime: &Handle,
        client: Client,
        connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    ) -> Self {
        let task = runtime.spawn(async move {
            if let Err(error) = connection.await {
                // The call that uses the connection tells its caller.
                tracing::debug!("a connection to PostgreSQL ended: {error}");
            }
        });
        Self { client, task: task.abort_handle() }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Closes the connection at once, whatever is under way on it.
    pub(super) fn abort(self) {
        self.task.abort();
    }
}

/// Makes connections, all of them alike.
pub(super) struct Connector {
    pub(super) config: Config,
    pub(super) tls: Option<MakeRustlsConnect>,
    /// How long a connection may take until the server takes statements.
    pub(super) connect_timeout: Duration,
    /// How long a statement may take.
    pub(super) timeout: Duration,
    /// The server and its database, for messages.
    pub(super) address: String,
}

impl Connector {
    /// Returns how long to wait for the end of a statement.
    pub(super) const fn limit(&self) -> Duration {
        self.timeout.saturating_add(GRACE)
    }

    pub(super) async fn connect(&self) -> Result<Session> {
        let Ok(runtime) = Handle::try_current() else {
            let message = format!("{} cannot be reached: this needs a tokio runtime around it", self.address);
            return Err(Error::new(ErrorKind::Cache, message));
        };
        match timeout(self.connect_timeout, self.try_connect(&runtime)).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(Failure::Server(error).into_error(&self.address)),
            Err(_) => {
                let (address, limit) = (&self.address, self.connect_timeout);
                let message = format!(
                    "the PostgreSQL server {address} did not take a connection within {limit:?}: check that it runs \
                     and can be reached, or set a longer `PostgresBuilder::with_connect_timeout`"
                );
                Err(Error::new(ErrorKind::Cache, message))
            }
        }
    }

    async fn try_connect(&self, runtime: &Handle) -> Result<Session, tokio_postgres::Error> {
        let session = match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                Session::start(runtime, client, connection)
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                Session::start(runtime, client, connection)
            }
        };
        // Not as an option of the start: poolers refuse options that they do not know.
        let set = format!("SET statement_timeout = {}", self.timeout.as_millis());
        session.client.batch_execute(&set).await?;
        Ok(session)
    }
}
