//! Says from the layers alone what a stack does to the calls that come in: [`Shape`].

use super::{
    draw::AGES,
    plan::Plan,
    stacks::{Arms, Fallbacks, Layer},
};

/// The promises of a stack that follow from its layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The most calls of members at once for one call that comes in; `None` for any number.
    at_once: Option<usize>,
    /// The most calls of members at once, if gates limit them.
    pub(super) most: Option<usize>,
    /// The same, if all calls go through the gate that the stacks share.
    pub(super) most_of_all: Option<usize>,
    /// Whether all calls of members are asked for by a cache.
    pub(super) is_cached: bool,
    /// Whether a panic of a member is an error further out.
    pub(super) catches: bool,
    /// Whether a call that comes in makes at most one call of a member.
    pub(super) is_one: bool,
    /// Whether limits change while calls are made, so that routers split calls.
    moves: bool,
    /// Whether each call that is given up, because it takes too long or another one is faster, makes at most one call of
    /// a member. Then no known cost is given up with it.
    pub(super) gives_up_one: bool,
}

impl Shape {
    const MEMBER: Self = Self {
        at_once: Some(1),
        most: None,
        most_of_all: None,
        is_cached: false,
        catches: false,
        is_one: true,
        moves: false,
        gives_up_one: true,
    };

    /// Returns the shape of layers around a member, or around the first stack of the plan.
    pub(super) fn of(layers: &[Layer], plan: &Plan) -> Self {
        layers.iter().rev().fold(Self::MEMBER, |shape, layer| shape.inside(*layer, plan))
    }

    fn inside(self, layer: Layer, plan: &Plan) -> Self {
        let through = |gate: usize| self.at_once.map(|calls| calls * gate);
        match layer {
            Layer::Cached(_) => Self { at_once: None, is_cached: true, catches: true, is_one: false, ..self },
            Layer::Retry { .. } => Self { is_one: false, ..self },
            Layer::Concurrency(places) => Self { most: least(self.most, through(places)), ..self },
            Layer::SharedGate => {
                Self { most: least(self.most, through(plan.gate)), most_of_all: through(plan.gate), ..self }
            }
            Layer::RateLimit { shared, pace } => {
                let pace = if shared { plan.pace } else { pace };
                Self { moves: self.moves || pace.tokens.is_some(), ..self }
            }
            // A caller that leaves takes no bill with it, so giving it up loses no more than giving up a call inside.
            Layer::Coalesce { .. } => self.joined([], false),
            Layer::Timeout(limit) => Self { gives_up_one: self.gives_up_one && (self.is_one || limit == AGES), ..self },
            Layer::Resilient(number) => self.with_fallbacks(&plan.fallbacks[number], plan),
            Layer::AbSplit(number) => self.with_arms(&plan.arms[number], plan),
            Layer::First => Self::of(&plan.stacks[0], plan),
            Layer::Dedup | Layer::Metered | Layer::Observed(_) | Layer::Sabotage(_) => self,
        }
    }

    /// Returns the shape of all members together: each is asked after the one before it has failed, or beside it.
    fn with_fallbacks(self, fallbacks: &Fallbacks, plan: &Plan) -> Self {
        let hedges = fallbacks.hedging.is_some();
        let all = self.joined(fallbacks.lines.iter().map(|line| Self::of(&line.layers, plan)), hedges);
        Self { catches: true, is_one: false, gives_up_one: all.gives_up_one && (all.is_one || !hedges), ..all }
            .proved(fallbacks.trusted)
    }

    /// Returns the shape of all arms together: each call goes to one of them.
    fn with_arms(self, arms: &Arms, plan: &Plan) -> Self {
        self.joined(arms.lines.iter().map(|line| Self::of(&line.layers, plan)), false)
    }

    /// Returns the shape of several stacks of which a call asks one, or several `at_once`.
    fn joined(self, others: impl IntoIterator<Item = Self>, at_once: bool) -> Self {
        let members: Vec<Self> = std::iter::once(self).chain(others).collect();
        let all = |of: fn(&Self) -> Option<usize>| members.iter().map(of).collect::<Option<Vec<_>>>();
        let largest = |numbers: Vec<usize>| numbers.into_iter().max();
        let moves = members.iter().any(|member| member.moves);
        let calls = all(|member| member.at_once).filter(|_| !moves);
        Self {
            at_once: calls.and_then(|calls| if at_once { Some(calls.iter().sum()) } else { largest(calls) }),
            most: all(|member| member.most).map(|most| most.iter().sum()),
            most_of_all: all(|member| member.most_of_all).and_then(largest),
            is_cached: members.len() == 1 && self.is_cached,
            catches: members.iter().all(|member| member.catches),
            is_one: members.iter().all(|member| member.is_one) && !moves,
            moves,
            gives_up_one: members.iter().all(|member| member.gives_up_one),
        }
    }

    /// Proofs ask the members at any time, all at once.
    fn proved(self, trusted: bool) -> Self {
        if trusted { self } else { Self { at_once: None, most: None, most_of_all: None, gives_up_one: false, ..self } }
    }
}

/// Returns the smaller of two limits; `None` is no limit.
fn least(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a.into_iter().chain(b).min()
}
