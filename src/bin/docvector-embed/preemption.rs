//! Asks a cloud whether it takes the machine away: [`Cloud`].
//!
//! Each cloud answers at an address of its own that only its machines reach: AWS's documentation of Spot instance
//! interruption notices, Azure's of Scheduled Events, and Google's of preemption detection, as of 2026-11.

use std::{env, time::Duration};

use clap::ValueEnum;
use docvector_embed::{Error, ErrorKind};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

/// Another address than the cloud's, for tests.
const ADDRESS_VARIABLE: &str = "DOCVECTOR_EMBED_METADATA_URL";
/// How often a cloud is asked that cannot tell by itself.
const PERIOD: Duration = Duration::from_secs(2);
/// The most time for an answer that comes at once.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Google answers when something changes, or after this time.
const LONG_POLL: Duration = Duration::from_secs(60);

/// A cloud whose machines may be taken away with notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cloud {
    /// Google Cloud, about 30 seconds before
    Gcp,
    /// Amazon Web Services, 2 minutes before
    Aws,
    /// Microsoft Azure, at least 30 seconds before
    Azure,
}

/// What a cloud says.
enum Answer {
    Stays,
    GoesAway,
}

/// A cloud that is asked, with what it said before.
struct Watch {
    cloud: Cloud,
    client: Client,
    /// Google's mark of what it said last.
    etag: Option<String>,
    /// The name of this machine at Azure, whose events are about others too.
    name: Option<String>,
}

impl Cloud {
    /// Waits until the cloud says that it takes the machine away. A failed question is asked again, and the log has one
    /// warning.
    pub(crate) async fn notice(self) {
        // This build of reqwest has no cryptography of its own. The program names it, though nothing here is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Ok(client) = Client::builder().no_proxy().build() else {
            tracing::warn!("the cloud cannot be asked whether it takes the machine away: no HTTP client can be made");
            return std::future::pending().await;
        };
        let mut watch = Watch { cloud: self, client, etag: None, name: None };
        let mut warned = false;
        loop {
            match watch.ask().await {
                Ok(Answer::GoesAway) => return,
                Ok(Answer::Stays) => warned = false,
                Err(error) => {
                    if !warned {
                        tracing::warn!(%error, "the cloud cannot be asked whether it takes the machine away");
                    }
                    warned = true;
                }
            }
            // Google holds the answer until something changes, unless it did not answer at all.
            if self != Self::Gcp || warned {
                sleep(PERIOD).await;
            }
        }
    }
}

impl Watch {
    async fn ask(&mut self) -> Result<Answer, Error> {
        match self.cloud {
            Cloud::Gcp => self.ask_google().await,
            Cloud::Aws => self.ask_aws().await,
            Cloud::Azure => self.ask_azure().await,
        }
    }

    /// Asks for the present state first, and then for changes of what was said.
    async fn ask_google(&mut self) -> Result<Answer, Error> {
        let path = "computeMetadata/v1/instance/preempted";
        let (path, time) = match &self.etag {
            None => (path.to_owned(), TIMEOUT),
            Some(etag) => {
                let wait = LONG_POLL.as_secs();
                let path = format!("{path}?wait_for_change=true&timeout_sec={wait}&last_etag={etag}");
                (path, LONG_POLL + TIMEOUT)
            }
        };
        let request = self.client.get(self.url(&path)).header("metadata-flavor", "Google");
        let reply = success(request, time).await?;
        let etag = reply.headers().get("etag").and_then(|etag| etag.to_str().ok());
        self.etag = Some(etag.unwrap_or("0").to_owned());
        let words = reply.text().await.map_err(unreachable)?;
        Ok(if words.trim() == "TRUE" { Answer::GoesAway } else { Answer::Stays })
    }

    async fn ask_aws(&self) -> Result<Answer, Error> {
        let token = self.client.put(self.url("latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
        let token = success(token, TIMEOUT).await?.text().await.map_err(unreachable)?;
        let request = self.client.get(self.url("latest/meta-data/spot/instance-action"));
        let reply = request.header("x-aws-ec2-metadata-token", token).timeout(TIMEOUT).send().await;
        let reply = reply.map_err(unreachable)?;
        // Without a notice, there is nothing at this address.
        if reply.status() == StatusCode::NOT_FOUND {
            return Ok(Answer::Stays);
        }
        reply.error_for_status().map(|_| Answer::GoesAway).map_err(unreachable)
    }

    async fn ask_azure(&mut self) -> Result<Answer, Error> {
        if self.name.is_none() {
            let url = self.url("metadata/instance/compute/name?api-version=2021-02-01&format=text");
            let reply = success(self.client.get(url).header("metadata", "true"), TIMEOUT).await?;
            self.name = Some(reply.text().await.map_err(unreachable)?.trim().to_owned());
        }
        let request = self.client.get(self.url("metadata/scheduledevents?api-version=2020-07-01"));
        let words = success(request.header("metadata", "true"), TIMEOUT).await?.text().await.map_err(unreachable)?;
        let events: Value = serde_json::from_str(&words).unwrap_or_default();
        let is_own = |event: &Value| {
            let mut resources = event["Resources"].as_array().into_iter().flatten().filter_map(Value::as_str);
            resources.any(|name| self.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name)))
        };
        let is_end = |event: &Value| event["EventType"] == "Preempt" || event["EventType"] == "Terminate";
        let mut events = events["Events"].as_array().into_iter().flatten();
        Ok(if events.any(|event| is_end(event) && is_own(event)) { Answer::GoesAway } else { Answer::Stays })
    }

    fn url(&self, path: &str) -> String {
        let own = match self.cloud {
            Cloud::Gcp => "http://metadata.google.internal",
            Cloud::Aws | Cloud::Azure => "http://169.254.169.254",
        };
        let base = env::var(ADDRESS_VARIABLE).unwrap_or_else(|_| own.to_owned());
        format!("{base}/{path}")
    }
}

/// Sends a request and returns its reply, if that is one of success.
async fn success(request: RequestBuilder, time: Duration) -> Result<reqwest::Response, Error> {
    let reply = request.timeout(time).send().await;
    reply.and_then(reqwest::Response::error_for_status).map_err(unreachable)
}

fn unreachable(error: reqwest::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no answer from the cloud's metadata").with_source(error.without_url())
}
