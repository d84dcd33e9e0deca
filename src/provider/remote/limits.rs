//! Knows what one call to the service may hold: what the caller set, what the service told, or a default: [`CallLimits`].

use crate::{Limits, TokenCount, sync::Mutex};

/// The limits of one call.
pub(super) struct CallLimits {
    /// The limits that the caller set.
    given: Limits,
    /// The texts per call until the service has told its limits.
    texts: usize,
    /// Whether errors and results name over-long texts even if nobody here can count tokens.
    names_over_long: bool,
    /// The limits that the service told.
    told: Mutex<Option<Limits>>,
}

impl CallLimits {
    pub(super) const fn new(given: Limits, texts: usize, names_over_long: bool) -> Self {
        Self { given, texts, names_over_long, told: Mutex::new(None) }
    }

    /// Keeps to what the service told.
    pub(super) fn learn(&self, told: Limits) {
        self.told.with(|known| *known = Some(told));
    }

    /// Returns the limits as far as they are known. A limit that the caller set goes before the service's own.
    pub(super) fn get(&self) -> Limits {
        let told = self.told.with(|told| told.clone()).unwrap_or_else(|| Limits::none().with_texts(self.texts));
        // Every field by name: a new one cannot be forgotten here.
        let Limits { texts, bytes, tokens_per_text, tokens_per_call, in_flight, tokens } = self.given.clone();
        let names_over_long = self.names_over_long || matches!(tokens, TokenCount::Exact(_));
        let tokens = if matches!(tokens, TokenCount::Unknown) { told.tokens.clone() } else { tokens };
        Limits {
            texts: texts.or(told.texts),
            bytes: bytes.or(told.bytes),
            tokens_per_text: tokens_per_text.or(told.tokens_per_text.filter(|_| names_over_long)),
            tokens_per_call: tokens_per_call.or(told.tokens_per_call.filter(|_| names_over_long)),
            in_flight: in_flight.or(told.in_flight),
            tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_limits_go_before_told_ones_and_those_before_defaults() {
        let limits = CallLimits::new(Limits::none().with_bytes(9), 32, true);
        assert_eq!(limits.get(), Limits::none().with_texts(32).with_bytes(9));
        limits.learn(Limits::none().with_bytes(7).with_tokens_per_text(5));
        assert_eq!(limits.get(), Limits::none().with_bytes(9).with_tokens_per_text(5));
        let limits = CallLimits::new(Limits::none(), 32, false);
        limits.learn(Limits::none().with_texts(3).with_tokens_per_text(5));
        assert_eq!(limits.get(), Limits::none().with_texts(3), "nobody could name the texts that are too long");
    }
}
