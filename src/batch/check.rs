//! Checks a batch before any work: [`Batch::check`].

use super::Batch;
use crate::{
    BadText, BadTextReason, Error, ErrorKind, Limits, Result, Space,
    counting::{CallTokens, Counting},
};

impl Batch<'_> {
    /// Checks everything that can be checked before any work. Every `embed` begins with this check.
    ///
    /// # Errors
    /// - [`SpaceMismatch`](ErrorKind::SpaceMismatch): the wanted space is not among `spaces`.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): some texts are empty or fit into no call, and the error names all
    ///   of them at once; or the batch has more texts or bytes than a call holds. If tokens can be
    ///   [counted](crate::TokenCount::Exact), the tokens of the call are checked too and, if over-long texts are an error,
    ///   those of each text. If tokens can only be bounded, they are not checked.
    pub fn check(&self, spaces: &[Space], limits: &Limits) -> Result<()> {
        self.check_space(spaces)?;
        self.check_counted(&mut Counting::new(self, limits))
    }

    /// Checks the texts by the limits of `counting`, which counts what is left open. The caller checks the space.
    pub(crate) fn check_counted(&self, counting: &mut Counting<'_>) -> Result<()> {
        let limits = counting.limits;
        let mut bad = self.bad_texts(limits);
        if counting.finds_long(self) {
            bad.extend((0..self.len()).filter_map(|index| counting.too_long(self, index)));
        }
        if !bad.is_empty() {
            return Err(Error::invalid_texts(bad));
        }
        let over = |what: &str, have: usize, limit: usize| {
            let message = format!("the batch has {have} {what}, a call holds at most {limit}: `embed_all` splits it");
            Err(Error::new(ErrorKind::InvalidInput, message))
        };
        if let Some(limit) = limits.texts.filter(|&limit| self.len() > limit) {
            return over("texts", self.len(), limit);
        }
        if let Some(limit) = limits.bytes {
            let bytes = self.texts.iter().map(|text| text.len()).sum();
            if bytes > limit {
                return over("bytes", bytes, limit);
            }
        }
        if let Some(mut tokens) = CallTokens::new(self, counting) {
            while tokens.count_next(self, counting).is_some() {}
            if let Some((have, limit)) = tokens.excess() {
                return over("tokens", have, limit);
            }
        }
        Ok(())
    }

    /// Checks that the wanted space, if there is one, is among `spaces`.
    pub(crate) fn check_space(&self, spaces: &[Space]) -> Result<()> {
        match self.options.space {
            Some(wanted) if spaces.iter().all(|space| space.id() != wanted) => {
                let have: Vec<String> = spaces.iter().map(Space::to_string).collect();
                let have = have.join(", ");
                let message =
                    format!("the batch wants space {wanted}, this embedder has {have}: use the embedder of that space");
                Err(Error::new(ErrorKind::SpaceMismatch, message))
            }
            _ => Ok(()),
        }
    }

    /// Returns the texts that no call can hold, whatever the model: empty ones, and those of more bytes than a call
    /// holds.
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
