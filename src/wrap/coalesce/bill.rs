//! Keeps the cost of a merged call that ended without an answer: [`Bill`].

use std::sync::Arc;

use super::counts::Counts;
use crate::{Charges, sync::Mutex};

/// The cost of a merged call that was dropped with its last caller. If that caller's time was up, the caller is still
/// there, and takes the bill. Otherwise the cost goes to [`Counts::unclaimed`].
pub(super) struct Bill {
    charges: Mutex<Charges>,
    counts: Arc<Counts>,
}

impl Bill {
    pub(super) const fn new(counts: Arc<Counts>) -> Self {
        Self { charges: Mutex::new(Charges::NONE), counts }
    }

    pub(super) fn add(&self, charges: Charges) {
        self.charges.with(|sum| *sum += charges);
    }

    /// Takes the cost, to tell it to a caller.
    pub(super) fn take(&self) -> Charges {
        self.charges.with(std::mem::take)
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        self.counts.leave_unclaimed(self.take());
    }
}
