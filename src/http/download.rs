//! Downloads a body of any size, piece by piece: [`Download`].

use std::time::Duration;

use reqwest::{
    Response, StatusCode, Url, Version,
    header::{CONTENT_ENCODING, HeaderMap, TRANSFER_ENCODING},
};
use tokio::time::Instant;

use super::{Http, MAX_ERROR_BYTES, Reply, of_reply, too_late, transport_error};
use crate::{Error, ErrorKind, Result, deadline::until};

/// A body on its way. Its pieces are handed over as they arrive, and none is kept. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Download {
    response: Response,
    timeout: Duration,
}

impl Http {
    /// Begins to get a body, or returns the reply if its status is not 200.
    ///
    /// The whole may take any time: the time limit is that of each wait for bytes.
    ///
    /// # Errors
    /// Those of a request, and that of a reply whose end could not be told from a lost connection.
    pub(crate) async fn download(
        &self,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<std::result::Result<Download, Reply>> {
        let timeout = self.options.timeout;
        let request = self.client.get(url.clone()).headers(headers.clone());
        let sent = until(end_of(timeout), request.send()).await.ok_or_else(|| late(timeout))?;
        let response = sent.map_err(|error| transport_error(error, url))?;
        if response.status() != StatusCode::OK {
            return self.read(response, MAX_ERROR_BYTES, end_of(timeout), || late(timeout)).await.map(Err);
        }
        check_form(&response).map_err(|error| of_reply(error, StatusCode::OK, response.headers()))?;
        Ok(Ok(Download { response, timeout }))
    }
}

impl Download {
    /// Waits for the next piece; `None` at the end of the body.
    ///
    /// # Errors
    /// If the connection ends before the body does, or if no bytes come within the time limit.
    pub(crate) async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + Send + use<>>> {
        let error = match until(end_of(self.timeout), self.response.chunk()).await {
            Some(Ok(piece)) => return Ok(piece),
            Some(Err(error)) => transport_error(error, self.response.url()),
            None => late(self.timeout),
        };
        Err(of_reply(error, StatusCode::OK, self.response.headers()))
    }
}

/// Returns the end of a wait that begins now.
fn end_of(timeout: Duration) -> Option<std::time::Instant> {
    Instant::now().checked_add(timeout).map(Instant::into_std)
}

fn late(timeout: Duration) -> Error {
    too_late("no more bytes of the reply", timeout)
}

/// Refuses a body that is compressed, and one that ends when the connection does.
fn check_form(response: &Response) -> Result<()> {
    let headers = response.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.is_empty() && encoding != "identity") {
        let message = "the reply has a compression that the request did not ask for";
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    let is_framed = response.content_length().is_some()
        || headers.contains_key(TRANSFER_ENCODING)
        || response.version() > Version::HTTP_11;
    if is_framed {
        return Ok(());
    }
    let message =
        "the reply does not say where it ends, so a lost end would not be noticed: check the proxies on the way";
    Err(Error::new(ErrorKind::Protocol, message))
}
