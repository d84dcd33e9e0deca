//! Keeps which rows of a job are there: [`Present`].

/// One bit per text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Present {
    bits: Vec<u64>,
    texts: u64,
}

impl Present {
    /// Begins with all rows.
    pub(super) fn all(texts: u64) -> Self {
        Self { bits: vec![u64::MAX; usize::try_from(texts.div_ceil(64)).unwrap_or(usize::MAX)], texts }
    }

    /// Begins with no row of no text.
    pub(super) const fn none() -> Self {
        Self { bits: Vec::new(), texts: 0 }
    }

    /// Returns the number of texts.
    pub(super) const fn texts(&self) -> u64 {
        self.texts
    }

    /// Sets whether a row is there. An index that no text has changes nothing.
    pub(super) fn set(&mut self, index: u64, is_there: bool) {
        let Some(word) = self.bits.get_mut((index / 64) as usize) else { return };
        let bit = 1 << (index % 64);
        if is_there { *word |= bit } else { *word &= !bit }
    }

    /// Whether a row is there.
    pub(super) fn has(&self, index: u64) -> bool {
        index < self.texts && self.bits.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_there_until_they_are_not() {
        let mut present = Present::all(130);
        present.set(64, false);
        present.set(129, false);
        present.set(129, true);
        present.set(4000, true);
        let there: Vec<u64> = (0..200).filter(|&index| present.has(index)).collect();
        assert_eq!(there, (0..130).filter(|index| *index != 64).collect::<Vec<_>>());
        assert_eq!(present.texts(), 130);
    }
}
