//! Describes a round: a [`Plan`], all of it drawn from one seed, with the promises that hold in it.

use std::{fmt, time::Duration};

use docvector_embed::Truncation;

use super::{
    callers::{Caller, How, Leaves},
    forms::{self, Form},
    member::{Habits, Trick},
    shape::Shape,
    stacks::{Arms, Fallbacks, Keeps, Layer, Pace},
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
    /// The first member, which is in each stack.
    pub(super) member: Habits,
    /// The other members, for fall-backs and arms.
    pub(super) others: Vec<Habits>,
    pub(super) fallbacks: Vec<Fallbacks>,
    pub(super) arms: Vec<Arms>,
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
    /// Whether each stack has a member that always answers, so that no other member's failure reaches a caller.
    pub(super) answers: bool,
    /// Whether a caller fails only if each member fails meanwhile.
    pub(super) asks_all: bool,
    /// Whether a caller can fail for its own texts alone.
    pub(super) spares: bool,
}

impl Plan {
    /// Draws the round of this seed.
    pub(super) fn draw(seed: u64) -> Self {
        forms::draw(seed, Mode::of(seed))
    }

    /// Returns the habits of all members.
    pub(super) fn members(&self) -> impl Iterator<Item = &Habits> {
        std::iter::once(&self.member).chain(&self.others)
    }

    /// Returns the shape of each stack that has members of its own, and not those of the first one.
    fn shapes(&self) -> impl Iterator<Item = Shape> {
        let is_apart = |layers: &&Vec<Layer>| !matches!(layers.last(), Some(Layer::First));
        self.stacks.iter().filter(is_apart).map(|layers| Shape::of(layers, self))
    }

    /// Whether nothing fails: no member, no text.
    pub(super) fn is_calm(&self) -> bool {
        let mut tricks = self.members().flat_map(|member| &member.tricks);
        tricks.all(|trick| *trick == Trick::Absurd)
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

    /// Whether each stack has a cache outside of all members.
    pub(super) fn is_cached(&self) -> bool {
        self.stacks.iter().all(|layers| Shape::of(layers, self).is_cached)
    }

    /// Whether no panic of a member reaches a caller.
    pub(super) fn catches(&self) -> bool {
        self.stacks.iter().all(|layers| Shape::of(layers, self).catches)
    }

    /// Returns the layers of all stacks, fall-backs and arms.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Layer> {
        let fallbacks = self.fallbacks.iter().flat_map(|fallbacks| &fallbacks.lines);
        let arms = self.arms.iter().flat_map(|arms| &arms.lines);
        self.stacks.iter().flatten().chain(fallbacks.chain(arms).flat_map(|line| &line.layers))
    }

    /// Whether a text may be paid for twice although no member fails. A member that is late is given up for another one,
    /// and may have had a part of the rows. And the call of a group goes on without a caller that leaves, or that a time
    /// limit ends, whose rows nobody stores.
    pub(super) fn may_pay_twice(&self) -> bool {
        let merges = self.layers().any(|layer| matches!(layer, Layer::Coalesce { .. }));
        let may_leave_a_group = !self.all_stay() || self.times_out;
        !self.fallbacks.is_empty() && !self.gives_up_none() || merges && may_leave_a_group
    }

    /// Whether a second member may be asked beside one that is late.
    fn hedges(&self) -> bool {
        self.fallbacks.iter().any(|fallbacks| fallbacks.hedging.is_some())
    }

    /// Whether members are proved by calls of their own.
    fn proves(&self) -> bool {
        self.fallbacks.iter().any(|fallbacks| !fallbacks.trusted)
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

    /// Whether all callers stay to the end.
    pub(super) fn all_stay(&self) -> bool {
        !self.has_leavers() && !self.has_deadlines()
    }

    /// Whether no wrapper gives up a call.
    pub(super) fn gives_up_none(&self) -> bool {
        !self.times_out && !self.hedges()
    }

    /// Whether wrappers give up calls of which nothing is known yet, and no others.
    pub(super) fn gives_up_one(&self) -> bool {
        self.stacks.iter().all(|layers| Shape::of(layers, self).gives_up_one)
    }

    /// Returns the latest time of a caller's answer. It is known if a cache is outermost, which keeps to the deadline,
    /// the clock is exact, and the caller polls.
    pub(super) fn ends_by(&self, caller: &Caller) -> Option<Duration> {
        let cached = matches!(self.stacks[caller.stack].first(), Some(Layer::Cached(_)));
        let is_one_call = matches!(caller.how, How::Embed | How::All);
        let keeps = cached && is_one_call && caller.rests.is_none() && self.mode != Mode::FourThreads;
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
        self.is_calm() && self.keeps() && !self.times_out && !self.proves() && outermost && plain
    }

    /// Returns whether a `Coalesce` around single calls of members accounts for all costs that callers are not told. Those
    /// who may leave wait for one call of it.
    pub(super) fn merges_all(&self) -> bool {
        let merges = |layers: &Vec<Layer>| {
            let at = layers.iter().position(|layer| !matches!(layer, Layer::Observed(_) | Layer::Metered));
            let Some((Layer::Coalesce { .. }, inside)) = at.and_then(|at| layers[at..].split_first()) else {
                return false;
            };
            let shape = Shape::of(inside, self);
            shape.is_one && shape.gives_up_one
        };
        let is_one_call = self.callers.iter().all(|caller| caller.how == How::Embed);
        is_one_call && self.stacks.iter().all(merges)
    }

    /// Returns the most calls that can be at the members at once, if gates limit them.
    pub(super) fn places(&self) -> Option<usize> {
        // Other members around the first stack are not behind its gates.
        let has_more = |layers: &Vec<Layer>| {
            let of = |wanted: fn(&Layer) -> bool| layers.iter().any(wanted);
            let others = of(|layer| matches!(layer, Layer::Resilient(_) | Layer::AbSplit(_)));
            others && of(|layer| matches!(layer, Layer::First))
        };
        if self.stacks.iter().any(has_more) {
            return None;
        }
        let of_all = self.shapes().map(|shape| shape.most_of_all).collect::<Option<Vec<_>>>();
        let each = self.shapes().map(|shape| shape.most).collect::<Option<Vec<_>>>();
        let sum = each.map(|each| each.iter().sum());
        of_all.and_then(|of_all| of_all.into_iter().max()).into_iter().chain(sum).min()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}, {:?}", self.seed, self.form, self.mode)?;
        for (number, member) in self.members().enumerate() {
            writeln!(f, "  member {number}: {member:?}")?;
        }
        writeln!(f, "  stores: {:?}", self.stores)?;
        for (number, layers) in self.stacks.iter().enumerate() {
            writeln!(f, "  stack {number}: {layers:?}")?;
        }
        for (number, fallbacks) in self.fallbacks.iter().enumerate() {
            writeln!(f, "  fall-backs {number}: {fallbacks:?}")?;
        }
        for (number, arms) in self.arms.iter().enumerate() {
            writeln!(f, "  arms {number}: {arms:?}")?;
        }
        writeln!(f, "  shared: gate of {}, {:?}", self.gate, self.pace)?;
        for (number, caller) in self.callers.iter().enumerate() {
            writeln!(f, "  caller {number}: {caller:?}")?;
        }
        Ok(())
    }
}
