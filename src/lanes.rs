//! Keeps the two lanes apart and says which goes first: [`PerLane`], [`HeadStart`] and [`BULK_PATIENCE`].
//!
//! Interactive work goes first, and bulk work never starves. There are two rules, because a turn costs either work or
//! time. If a turn is a piece of work (a place in a [`Gate`](crate::wrap::Gate), a batch of a model), pieces are
//! counted: [`HeadStart`]. If a turn costs time that nobody can shorten (a rate limit), the wait is measured:
//! [`BULK_PATIENCE`].

use std::time::Duration;

use crate::Lane;

/// The most interactive turns in a row that may pass waiting bulk work.
const PASSES: u32 = 8;

/// The longest time for which interactive calls may pass a bulk call that is the first of its lane.
pub(crate) const BULK_PATIENCE: Duration = Duration::from_secs(10);

/// One value for each lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct PerLane<T> {
    pub(crate) interactive: T,
    pub(crate) bulk: T,
}

impl<T> PerLane<T> {
    /// Returns the value of this lane.
    pub(crate) const fn of(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Returns both values, the interactive one first.
    pub(crate) const fn both(&self) -> [&T; 2] {
        [&self.interactive, &self.bulk]
    }

    /// Returns both values, the interactive one first.
    pub(crate) const fn both_mut(&mut self) -> [&mut T; 2] {
        [&mut self.interactive, &mut self.bulk]
    }
}

/// Counts the interactive turns that have passed waiting bulk work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadStart(u32);

impl HeadStart {
    /// Returns the lanes in the order in which they are asked for work now.
    pub(crate) const fn order(self) -> [Lane; 2] {
        if self.0 < PASSES { [Lane::Interactive, Lane::Bulk] } else { [Lane::Bulk, Lane::Interactive] }
    }

    /// Notes that this lane had a turn while bulk work waited, or may have waited.
    pub(crate) const fn took(&mut self, lane: Lane) {
        self.0 = match lane {
            Lane::Interactive => self.0.saturating_add(1),
            Lane::Bulk => 0,
        };
    }

    /// Notes that no bulk work waits, so that no earlier turn has delayed any.
    pub(crate) const fn passes_nobody(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_work_goes_first_after_eight_interactive_turns_and_then_waits_again() {
        let mut head_start = HeadStart::default();
        for _ in 0..PASSES {
            assert_eq!(head_start.order(), [Lane::Interactive, Lane::Bulk]);
            head_start.took(Lane::Interactive);
        }
        assert_eq!(head_start.order(), [Lane::Bulk, Lane::Interactive]);
        // If no bulk work comes first, interactive work still gets a turn.
        head_start.took(Lane::Interactive);
        assert_eq!(head_start.order(), [Lane::Bulk, Lane::Interactive]);
        head_start.took(Lane::Bulk);
        assert_eq!(head_start.order(), [Lane::Interactive, Lane::Bulk]);
    }

    #[test]
    fn turns_that_pass_nobody_do_not_count() {
        let mut head_start = HeadStart::default();
        for _ in 0..3 * PASSES {
            head_start.took(Lane::Interactive);
            head_start.passes_nobody();
        }
        assert_eq!(head_start.order(), [Lane::Interactive, Lane::Bulk]);
    }
}
