//! Describes a round: a [`Plan`], all of it drawn from one seed, with the promises that hold in it.

use std::{fmt, time::Duration};

use docvector_embed::Truncation;

use super::{
    callers::{Caller, How, Leaves},
    forms::{self, Form},
    member::{Habits, Trick},
    stacks::{Keeps, Layer, Pace},
    texts,
};

/// The way that callers are polled, and the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A runtime of one thread, whose clock jumps.
    OneThread,
    /// The round itself, in a random order, on a clock that jumps.
    ByHand,
    /// A runtime of four threads, in real time.
    FourThreads,
}

impl Mode {
    /// The mode of a seed's round.
    pub(super) const fn of(seed: u64) -> Self {
        match seed % 3 {
            0 => Self::OneThread,
            1 => Self::ByHand,
            _ => Self::FourThreads,
        }
    }
}

/// One round.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) mode: Mode,
    pub(super) form: Form,
    pub(super) member: Habits,
    pub(super) stores: Vec<Keeps>,
    /// Places of the gate that the stacks share.
    pub(super) gate: usize,
    /// The pace of the limiter that the stacks share.
    pub(super) pace: Pace,
    /// The layers of each stack, the outermost first.
    pub(super) stacks: Vec<Vec<Layer>>,
    pub(super) callers: Vec<Caller>,
    /// Whether all calls go through the limiter that the stacks share, next to the member.
    pub(super) keeps_pace: bool,
    /// Whether a time limit may pass.
    pub(super) times_out: bool,
}

impl Plan {
    /// Draws the round of this seed.
    pub(super) fn draw(seed: u64) -> Self {
        forms::draw(seed, Mode::of(seed))
    }

    /// Whether nothing fails: no member, no text.
    pub(super) fn is_calm(&self) -> bool {
        let tricks = &self.member.tricks;
        tricks.iter().all(|trick| *trick == Trick::Absurd)
            && self.callers.iter().all(|caller| self.good_texts(caller).len() == caller.texts.len())
    }

    /// The texts of a caller that the member takes.
    pub(super) fn good_texts<'c>(&self, caller: &'c Caller) -> Vec<&'c str> {
        let limits = &self.member.limits;
        let is_good = |text: &&str| {
            !text.is_empty()
                && limits.bytes.is_none_or(|limit| text.len() <= limit)
                && (caller.truncation == Truncation::Truncate || !texts::is_over(text, limits.tokens_of_one_text()))
        };
        caller.texts.iter().map(String::as_str).filter(is_good).collect()
    }

    /// Whether each stack has a cache.
    pub(super) fn is_cached(&self) -> bool {
        let caches = |layers: &[Layer]| layers.iter().any(|layer| matches!(layer, Layer::Cached(_)));
        self.stacks.iter().all(|layers| {
            let is_on_first = matches!(layers.last(), Some(Layer::First));
            caches(layers) || is_on_first && caches(&self.stacks[0])
        })
    }

    /// Whether the stores keep what they are given.
    pub(super) fn keeps(&self) -> bool {
        self.stores.iter().all(|keeps| match keeps {
            Keeps::Moody(moods) | Keeps::MoodyTiers(moods) => {
                moods.fails == 0 && moods.panics_in_get == 0 && moods.panics_in_put == 0
            }
            Keeps::Memory | Keeps::Tiers | Keeps::Sqlite => true,
        })
    }

    pub(super) fn has_leavers(&self) -> bool {
        self.callers.iter().any(|caller| caller.leaves != Leaves::Never)
    }

    pub(super) fn has_deadlines(&self) -> bool {
        self.callers.iter().any(|caller| caller.deadline.is_some())
    }

    pub(super) const fn may_time_out(&self) -> bool {
        self.times_out
    }

    /// Returns the latest time of a caller's answer. It is known if a cache is outermost, which keeps to the deadline,
    /// and the clock is exact.
    pub(super) fn ends_by(&self, caller: &Caller) -> Option<Duration> {
        let cached = matches!(self.stacks[caller.stack].first(), Some(Layer::Cached(_)));
        let is_one_call = matches!(caller.how, How::Embed | How::All);
        let keeps = cached && is_one_call && self.mode != Mode::FourThreads;
        caller.deadline.filter(|_| keeps).map(|deadline| deadline + Duration::from_millis(10))
    }

    /// Returns whether caches count all costs that leaving callers are not told. They do if a cache is outermost and
    /// each leaving caller waits for one call of it.
    pub(super) fn counts_those_who_left(&self) -> bool {
        let outermost = self.stacks.iter().all(|layers| matches!(layers.first(), Some(Layer::Cached(_))));
        let plain = self.callers.iter().all(|caller| {
            let goes = caller.leaves != Leaves::Never || caller.deadline.is_some();
            !goes || matches!(caller.how, How::Embed | How::All)
        });
        self.is_calm() && self.keeps() && !self.times_out && outermost && plain
    }

    /// Returns the most calls that can be at the member at once, if a gate limits them.
    pub(super) fn places(&self) -> Option<usize> {
        let of = |layer: &Layer| match layer {
            Layer::Concurrency(places) => Some(*places),
            Layer::SharedGate => Some(self.gate),
            _ => None,
        };
        // A cache makes several calls of one, so that a gate around it does not count them.
        let inside = |layers: &'_ Vec<Layer>| {
            let caches = layers.iter().rposition(|layer| matches!(layer, Layer::Cached(_)));
            layers[caches.map_or(0, |last| last + 1)..].to_vec()
        };
        let is_apart = |layers: &&Vec<Layer>| !matches!(layers.last(), Some(Layer::First));
        let stacks: Vec<Vec<Layer>> = self.stacks.iter().filter(is_apart).map(inside).collect();
        let all_share = |layers: &Vec<Layer>| layers.iter().any(|layer| matches!(layer, Layer::SharedGate));
        match &stacks[..] {
            [layers] => layers.iter().filter_map(of).min(),
            stacks if stacks.iter().all(all_share) => Some(self.gate),
            _ => None,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}, {:?}", self.seed, self.form, self.mode)?;
        writeln!(f, "  member: {:?}", self.member)?;
        writeln!(f, "  stores: {:?}", self.stores)?;
        for (number, layers) in self.stacks.iter().enumerate() {
            writeln!(f, "  stack {number}: {layers:?}")?;
        }
        writeln!(f, "  shared: gate of {}, {:?}", self.gate, self.pace)?;
        for (number, caller) in self.callers.iter().enumerate() {
            writeln!(f, "  caller {number}: {caller:?}")?;
        }
        Ok(())
    }
}
