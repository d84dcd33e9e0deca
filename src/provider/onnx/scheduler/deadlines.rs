//! Says which call's deadline passes next: [`Deadlines`].

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{call::EmbedCall, turns::address};

/// The calls with a deadline, the earliest first. Each step takes logarithmic time.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeMap<(Instant, usize), Arc<EmbedCall>>);

impl Deadlines {
    /// Adds a call, if it has a deadline.
    pub(super) fn push(&mut self, call: &Arc<EmbedCall>) {
        if let Some(deadline) = call.deadline {
            self.0.insert((deadline, address(call)), Arc::clone(call));
        }
    }

    pub(super) fn remove(&mut self, call: &Arc<EmbedCall>) {
        if let Some(deadline) = call.deadline {
            self.0.remove(&(deadline, address(call)));
        }
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first_key_value().map(|(&(deadline, _), _)| deadline)
    }

    /// Takes a call whose deadline has passed.
    pub(super) fn pop_passed(&mut self) -> Option<Arc<EmbedCall>> {
        let first = self.0.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }
}
