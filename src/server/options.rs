//! Defines the settings of a server: [`ServerLimits`] and, for the other files, [`ServerOptions`].

use std::{sync::Arc, time::Duration};

use super::{state::DrainOptions, vocabulary::Vocabulary};
use crate::{Error, ErrorKind, Lane, Result};

/// What a server takes at most. Each limit has a default that suits a machine of one model.
///
/// ```
/// use docvector_embed::server::ServerLimits;
/// let mut limits = ServerLimits::default();
/// limits.bulk_tokens = 4_000_000;
/// assert_eq!(limits.interactive_tokens, 131_072);
/// ```
///
/// Tokens of requests are estimated as a quarter of the bytes of each text, up to the most that the model takes of one
/// text: nothing is tokenized twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The most tokens of interactive requests that wait or are worked on. The default is 131,072. A request of more
    /// gets 413; one for which there is no room now gets 429.
    pub interactive_tokens: usize,
    /// The same for bulk requests. The default is 1,048,576.
    pub bulk_tokens: usize,
    /// The most texts of one request. The default is 65,536.
    pub texts: usize,
    /// The most bytes of one request's body. The default is 64 MiB.
    pub body_bytes: usize,
    /// The most bytes that all requests together hold: bodies, texts and rows. The default is 1 GiB. A request for
    /// which there is no room now gets 429. Small ones have a sixteenth more. Besides, a connection has buffers of up to
    /// 256 KiB, and the model has its own memory.
    pub memory_bytes: usize,
    /// The most connections. The default is 16,384. A connection above is only good for probes: other requests get 503,
    /// and it is closed.
    pub connections: usize,
    /// The most time for the head of a request, from its first byte. The default is 10 s.
    pub head_time: Duration,
    /// The most time for the body of a request, and one second more for each 128 KiB of it. The default is 60 s. Later,
    /// the request gets 408.
    pub body_time: Duration,
    /// The most time for the vectors of a request, the wait in the queue included. The default is 10 minutes. Later, the
    /// request gets 504. A request may ask for less, by `request-timeout-ms`.
    pub request_time: Duration,
    /// How long a client may take less than 1 KiB per second of its reply. The default is 30 s. Then the connection is
    /// closed.
    pub stall_time: Duration,
    /// How long a connection stays open without a request. The default is 90 s.
    pub idle_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            interactive_tokens: 131_072,
            bulk_tokens: 1 << 20,
            texts: 65_536,
            body_bytes: 64 << 20,
            memory_bytes: 1 << 30,
            connections: 16_384,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            request_time: Duration::from_secs(600),
            stall_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(90),
        }
    }
}

impl ServerLimits {
    /// Refuses limits with which no request could be served.
    pub(super) fn check(&self) -> Result<()> {
        let numbers = [
            ("interactive_tokens", self.interactive_tokens),
            ("bulk_tokens", self.bulk_tokens),
            ("texts", self.texts),
            ("body_bytes", self.body_bytes),
            ("memory_bytes", self.memory_bytes),
            ("connections", self.connections),
        ];
        let times = [
            ("head_time", self.head_time),
            ("body_time", self.body_time),
            ("request_time", self.request_time),
            ("stall_time", self.stall_time),
            ("idle_time", self.idle_time),
        ];
        let zero = numbers.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name);
        let zero = zero.or_else(|| times.into_iter().find(|(_, time)| time.is_zero()).map(|(name, _)| name));
        if let Some(name) = zero {
            return Err(config(format!("the limit `{name}` is 0, so no request could be served: set it above 0")));
        }
        if self.memory_bytes < self.body_bytes {
            let (memory, body) = (self.memory_bytes, self.body_bytes);
            let message = format!(
                "`memory_bytes` is {memory}, below `body_bytes`, which is {body}: no request of that size could be read"
            );
            return Err(config(message));
        }
        Ok(())
    }

    /// Returns the most tokens in the queue of a lane.
    pub(super) const fn tokens(&self, lane: Lane) -> usize {
        match lane {
            Lane::Interactive => self.interactive_tokens,
            Lane::Bulk => self.bulk_tokens,
        }
    }
}

/// Everything that a server was built with.
#[derive(Debug)]
pub(super) struct ServerOptions {
    pub(super) limits: ServerLimits,
    pub(super) drain: DrainOptions,
    pub(super) has_page: bool,
    /// The vocabulary of token ids in requests; `None` refuses them.
    pub(super) token_ids: Option<TokenIds>,
}

/// The vocabulary of token ids that requests may send in place of texts.
#[derive(Clone, Debug)]
pub(super) enum TokenIds {
    /// That of the model.
    Model,
    /// Another one.
    Of(Arc<dyn Vocabulary>),
}

pub(super) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_with_which_nothing_could_be_served_are_refused() {
        let refused = |change: fn(&mut ServerLimits)| {
            let mut limits = ServerLimits::default();
            change(&mut limits);
            limits.check().expect_err("refused").message().to_owned()
        };
        assert!(ServerLimits::default().check().is_ok());
        assert!(refused(|limits| limits.bulk_tokens = 0).contains("`bulk_tokens` is 0"));
        assert!(refused(|limits| limits.stall_time = Duration::ZERO).contains("`stall_time` is 0"));
        assert!(refused(|limits| limits.memory_bytes = 1).contains("`memory_bytes` is 1"));
    }
}
