//! Checks a batch before any work: [`Batch::check`].

use super::Batch;
use crate::{BadText, BadTextReason, Error, ErrorKind, Limits, Result, Space, TokenCount, counting::Counting};

impl Batch<'_> {
    /// Checks all that can be checked before any work: what every `embed` begins with.
    ///
    /// # Errors
    /// - [`SpaceMismatch`](ErrorKind::SpaceMismatch): the wanted space is not among `spaces`.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): empty texts, or texts that no call can hold, all of them at once;
    ///   more texts or bytes than a call holds. Tokens are checked where they can be [counted](TokenCount::Exact) and
    ///   over-long texts are an error; a batch whose tokens can only be bounded passes.
    pub fn check(&self, spaces: &[Space], limits: &Limits) -> Result<()> {
        self.check_space(spaces)?;
        let mut bad = self.bad_texts(limits);
        let mut counting = Counting::new(self, limits);
        bad.extend((0..self.len()).filter_map(|index| counting.too_long(self, index)));
        if !bad.is_empty() {
            return Err(Error::invalid_texts(bad));
        }
        let over = |what: &str, have: usize, limit: usize| {
            let message = format!("a call of {have} {what}, the limit is {limit}: use EmbedderExt, which splits");
            Err(Error::new(ErrorKind::InvalidInput, message))
        };
        if let Some(limit) = limits.texts.filter(|&limit| self.len() > limit) {
            return over("texts", self.len(), limit);
        }
        let bytes = self.texts.iter().map(|text| text.len()).sum();
        if let Some(limit) = limits.bytes.filter(|&limit| bytes > limit) {
            return over("bytes", bytes, limit);
        }
        if let (TokenCount::Exact(_), Some(limit)) = (&limits.tokens, limits.tokens_per_call) {
            // 128 bits: the sum of any bounds fits.
            let mut tokens: u128 = (0..self.len()).map(|index| counting.at_most(self, index) as u128).sum();
            let mut next = 0..self.len();
            while tokens > limit as u128 {
                let Some(index) = next.next() else {
                    return over("tokens", usize::try_from(tokens).unwrap_or(usize::MAX), limit);
                };
                tokens -= counting.at_most(self, index) as u128;
                tokens += counting.exact(self, index) as u128;
            }
        }
        Ok(())
    }

    pub(crate) fn check_space(&self, spaces: &[Space]) -> Result<()> {
        match self.options.space {
            Some(wanted) if spaces.iter().all(|space| space.id() != wanted) => {
                let have: Vec<String> = spaces.iter().map(Space::to_string).collect();
                let have = have.join(", ");
                let message = format!("space {wanted} was asked for, here is {have}: use the embedder of that space");
                Err(Error::new(ErrorKind::SpaceMismatch, message))
            }
            _ => Ok(()),
        }
    }

    /// The texts that no call can hold, whatever the model.
    pub(crate) fn bad_texts(&self, limits: &Limits) -> Vec<BadText> {
        let reason = |text: &str| match limits.bytes {
            _ if text.is_empty() => Some(BadTextReason::Empty),
            Some(limit) if text.len() > limit => Some(BadTextReason::TooLarge { bytes: text.len(), limit }),
            _ => None,
        };
        self.texts
            .iter()
            .enumerate()
            .filter_map(|(index, text)| reason(text).map(|reason| BadText::new(index, reason)))
            .collect()
    }
}
