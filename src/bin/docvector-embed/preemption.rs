//! Asks a cloud whether it takes the machine away: [`Cloud`].
//!
//! Each cloud answers at an address of its own that only its machines reach: AWS's documentation of Spot instance
//! interruption notices, Azure's of Scheduled Events, and Google's of preemption detection, as of 2026-11.

use std::{env, time::Duration};

use clap::ValueEnum;
use docvector_embed::{Error, ErrorKind};
use serde_json::Value;
use tokio::time::sleep;

/// Another address than the cloud's, for tests.
const ADDRESS_VARIABLE: &str = "DOCVECTOR_EMBED_METADATA_URL";
/// How often a cloud is asked that cannot tell by itself.
const PERIOD: Duration = Duration::from_secs(2);
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

impl Cloud {
    /// Waits until the cloud says that it takes the machine away. What cannot be asked is asked again, and the log has one
    /// warning.
    pub(crate) async fn notice(self) {
        // This build of reqwest has no cryptography of its own. The program names it, though nothing here is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Ok(client) = reqwest::Client::builder().no_proxy().timeout(LONG_POLL + PERIOD).build() else { return };
        let mut warned = false;
        loop {
            match self.ask(&client).await {
                Ok(Answer::GoesAway) => return,
                Ok(Answer::Stays) => warned = false,
                Err(error) => {
                    if !warned {
                        tracing::warn!(%error, "the cloud cannot be asked whether it takes the machine away");
                    }
                    warned = true;
                }
            }
            sleep(PERIOD).await;
        }
    }

    async fn ask(self, client: &reqwest::Client) -> Result<Answer, Error> {
        match self {
            Self::Gcp => {
                let path = format!(
                    "computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec={}",
                    LONG_POLL.as_secs()
                );
                let request = client.get(self.url(&path)).header("metadata-flavor", "Google");
                let words = text(request.send().await).await?;
                Ok(if words.trim() == "TRUE" { Answer::GoesAway } else { Answer::Stays })
            }
            Self::Aws => {
                let token =
                    client.put(self.url("latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
                let token = text(token.send().await).await?;
                let request = client.get(self.url("latest/meta-data/spot/instance-action"));
                let reply = request.header("x-aws-ec2-metadata-token", token).send().await.map_err(unreachable)?;
                // Without a notice, there is nothing at this address.
                Ok(if reply.status().is_success() { Answer::GoesAway } else { Answer::Stays })
            }
            Self::Azure => {
                let request = client.get(self.url("metadata/scheduledevents?api-version=2020-07-01"));
                let words = text(request.header("metadata", "true").send().await).await?;
                let events: Value = serde_json::from_str(&words).unwrap_or_default();
                let mut events = events["Events"].as_array().into_iter().flatten();
                let goes = events.any(|event| event["EventType"] == "Preempt" || event["EventType"] == "Terminate");
                Ok(if goes { Answer::GoesAway } else { Answer::Stays })
            }
        }
    }

    fn url(self, path: &str) -> String {
        let own = match self {
            Self::Gcp => "http://metadata.google.internal",
            Self::Aws | Self::Azure => "http://169.254.169.254",
        };
        let base = env::var(ADDRESS_VARIABLE).unwrap_or_else(|_| own.to_owned());
        format!("{base}/{path}")
    }
}

async fn text(reply: reqwest::Result<reqwest::Response>) -> Result<String, Error> {
    let reply = reply.and_then(reqwest::Response::error_for_status).map_err(unreachable)?;
    reply.text().await.map_err(unreachable)
}

fn unreachable(error: reqwest::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no answer from the cloud's metadata").with_source(error.without_url())
}
