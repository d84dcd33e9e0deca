//! Keeps calls in the order of their turns, and lets any of them go: [`Turns`].

use std::{collections::BTreeMap, sync::Arc};

use super::call::EmbedCall;

/// Calls in the order of their turns, each at most once. Each step takes logarithmic time: a hundred thousand callers
/// may leave at once, under the lock that all threads need.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The calls by turn.
    calls: BTreeMap<u64, Arc<EmbedCall>>,
    /// The turns by the calls' addresses.
    turns: BTreeMap<usize, u64>,
    next: u64,
    /// The calls that were looked at so far.
    #[cfg(test)]
    pub(super) looked_at: std::cell::Cell<usize>,
}

/// Returns the address of a call, which is its own as long as the call is somewhere.
pub(super) fn address(call: &Arc<EmbedCall>) -> usize {
    Arc::as_ptr(call).addr()
}

impl Turns {
    /// Adds a call behind all others. If it is here already, it keeps its turn.
    pub(super) fn push(&mut self, call: &Arc<EmbedCall>) {
        if self.turns.contains_key(&address(call)) {
            return;
        }
        self.turns.insert(address(call), self.next);
        self.calls.insert(self.next, Arc::clone(call));
        self.next += 1;
        self.looks_at(1);
    }

    /// Takes the call whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Arc<EmbedCall>> {
        let (_, call) = self.calls.pop_first()?;
        self.turns.remove(&address(&call));
        self.looks_at(1);
        Some(call)
    }

    /// Takes a call out, wherever it is.
    pub(super) fn remove(&mut self, call: &Arc<EmbedCall>) {
        if let Some(turn) = self.turns.remove(&address(call)) {
            self.calls.remove(&turn);
            self.looks_at(1);
        }
    }

    /// Iterates over the calls in the order of their turns.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<EmbedCall>> {
        self.calls.values().inspect(|_| self.looks_at(1))
    }

    /// Returns whether no call waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Counts calls that were looked at, for tests.
    fn looks_at(&self, calls: usize) {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + calls);
        #[cfg(not(test))]
        let _ = calls;
    }
}
