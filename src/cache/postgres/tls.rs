//! Encrypts connections with rustls: [`connector`].

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::{Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Error, ErrorKind, Result};

/// Returns what encrypts connections with the system's certificates; `None` if the connection string says
/// `sslmode=disable`.
pub(super) fn connector(config: &Config) -> Result<Option<MakeRustlsConnect>> {
    if config.get_ssl_mode() == SslMode::Disable {
        return Ok(None);
    }
    // Named here: the process may have another default, several candidates for it, or none.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map(|builder| builder.with_no_client_auth());
    tls.map(|tls| Some(MakeRustlsConnect::new(tls))).map_err(|error| {
        let message = "the system's certificates cannot be loaded: install them (ca-certificates), or set \
                       `sslmode=disable` if the network to the PostgreSQL server can be trusted";
        Error::new(ErrorKind::Config, message).with_source(error)
    })
}
