//! Notes over which connections replies came: [`Connections`]. A server that was restarted answers over new ones.

use std::net::SocketAddr;

use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::Response;

use crate::sync::Mutex;

/// The connections of some replies, each by the address of this machine's end.
#[derive(Default)]
pub(crate) struct Connections(Mutex<Vec<SocketAddr>>);

impl Connections {
    /// Notes a connection, unless it is noted already.
    pub(crate) fn note(&self, connection: Option<SocketAddr>) {
        self.0.with(|noted| match connection {
            Some(connection) if !noted.contains(&connection) => noted.push(connection),
            _ => {}
        });
    }

    /// Returns the connections that were noted.
    #[cfg_attr(not(feature = "remote"), allow(dead_code, reason = "`Remote` alone looks at them"))]
    pub(crate) fn noted(&self) -> Vec<SocketAddr> {
        self.0.with(|noted| noted.clone())
    }
}

/// Returns the connection that a reply comes over, if the transport says so.
pub(super) fn connection_of(response: &Response) -> Option<SocketAddr> {
    response.extensions().get::<HttpInfo>().map(HttpInfo::local_addr)
}
