//! Draws stacks with several members, with groups, and with observers in them.

use std::time::Duration;

use docvector_embed::{
    Limits,
    wrap::{BreakerPolicy, Hedging},
};

use super::{
    draw::Draw,
    member::Habits,
    plan::Plan,
    stacks::{Arms, Fallbacks, Layer, Line},
};

/// Stacks within stacks go no deeper.
const DEEPEST: usize = 2;

impl Draw {
    /// Puts fall-backs, arms, groups and observers into some of the stacks. `habits` draws a further member.
    pub(super) fn spice(&mut self, plan: &mut Plan, mut habits: impl FnMut(&mut Self) -> Habits) {
        for number in 0..plan.stacks.len() {
            let mut layers = std::mem::take(&mut plan.stacks[number]);
            if self.one_in(3) {
                self.add_members(plan, &mut layers, &mut habits, 1);
            }
            if self.one_in(4) {
                let at = self.random.usize(..=layers.len());
                layers.insert(at, self.coalesce());
            }
            if self.one_in(3) {
                self.add_observers(&mut layers);
            }
            plan.stacks[number] = layers;
        }
    }

    /// Puts a `Resilient` or an `AbSplit` somewhere into a stack. The layers inside are its first member.
    fn add_members(
        &mut self,
        plan: &mut Plan,
        layers: &mut Vec<Layer>,
        habits: &mut impl FnMut(&mut Self) -> Habits,
        depth: usize,
    ) {
        let at = self.random.usize(..=layers.len());
        // No call waits for a place of the shared gate that it has already.
        let shares = layers[at..].iter().any(|layer| matches!(layer, Layer::SharedGate));
        let mut lines = Vec::new();
        for _ in 0..self.pick(&[1, 1, 2]) {
            let more = Habits { limits: self.other_limits(&plan.member.limits), ..habits(self) };
            plan.others.push(more);
            let member = plan.others.len();
            let mut layers = self.line(plan.stores.len(), plan.times_out, shares);
            if depth < DEEPEST && self.one_in(5) {
                self.add_members(plan, &mut layers, habits, depth + 1);
            }
            lines.push(Line { layers, member });
        }
        let layer = if self.one_in(3) {
            plan.arms.push(self.arms(lines));
            Layer::AbSplit(plan.arms.len() - 1)
        } else {
            plan.fallbacks.push(self.fallbacks(lines));
            Layer::Resilient(plan.fallbacks.len() - 1)
        };
        layers.insert(at, layer);
    }

    /// Draws a split. The first arm has a share, and may be that of calls without a key.
    pub(super) fn arms(&mut self, lines: Vec<Line>) -> Arms {
        let shares = (0..=lines.len()).map(|arm| self.random.u32(u32::from(arm == 0)..=10)).collect();
        Arms { lines, shares, keyless: self.one_in(4).then_some(0) }
    }

    /// Draws a group of concurrent calls.
    pub(super) fn coalesce(&mut self) -> Layer {
        let window = self.time(200).max(Duration::from_millis(1));
        Layer::Coalesce { window, texts: self.one_in(3).then(|| self.random.usize(1..=6)) }
    }

    /// Puts one or two observers somewhere into a stack.
    fn add_observers(&mut self, layers: &mut Vec<Layer>) {
        for _ in 0..self.random.usize(1..=2) {
            let at = self.random.usize(..=layers.len());
            layers.insert(at, self.observed());
        }
    }

    pub(super) fn observed(&mut self) -> Layer {
        Layer::Observed(self.pick(&[0, 0, 1, 3]))
    }

    /// Returns the limits of a member that takes the same texts as another one, and other numbers of them.
    pub(super) fn other_limits(&mut self, limits: &Limits) -> Limits {
        let mut limits = limits.clone();
        if self.random.bool() {
            limits.texts = (!self.one_in(4)).then(|| self.random.usize(1..=5));
            limits.in_flight = self.one_in(3).then(|| self.random.usize(1..=4));
        }
        limits
    }

    /// Draws the few layers of a fall-back.
    fn line(&mut self, stores: usize, fires: bool, shares: bool) -> Vec<Layer> {
        let mut layers = Vec::new();
        if self.one_in(8) {
            layers.push(Layer::Cached(self.random.usize(..stores)));
        }
        for _ in 0..self.random.usize(..=3) {
            layers.push(match self.random.u8(..7) {
                0 => self.retry(),
                1 => Layer::RateLimit { shared: self.random.bool(), pace: self.pace() },
                2 => Layer::Concurrency(self.random.usize(1..=3)),
                3 => self.timeout(fires),
                4 => self.observed(),
                5 => Layer::Dedup,
                _ => Layer::Metered,
            });
        }
        if shares && self.random.bool() {
            layers.push(Layer::SharedGate);
        }
        layers
    }

    pub(super) fn fallbacks(&mut self, lines: Vec<Line>) -> Fallbacks {
        let hedging = self.one_in(4).then(|| self.hedging());
        Fallbacks { lines, breaker: self.breaker(), hedging, trusted: true }
    }

    /// Draws a breaker of small numbers.
    pub(super) fn breaker(&mut self) -> BreakerPolicy {
        let open_for = self.time(10_000).max(Duration::from_millis(1));
        let policy = BreakerPolicy::default()
            .with_window(self.time(30_000).max(Duration::from_millis(1)))
            .with_min_calls(self.random.u32(1..=4))
            .with_failure_share(self.pick(&[0.3, 0.5, 1.0]))
            .with_open_for(open_for)
            .with_max_open(open_for * self.random.u32(1..=8))
            .with_probes(self.random.u32(1..=3));
        let policy = match self.random.u8(..3) {
            0 => policy.without_ejection(),
            _ => policy.with_consecutive_failures(self.random.u32(1..=3)),
        };
        if self.one_in(6) { policy.with_slow_call(self.time(1500)) } else { policy }
    }

    /// Draws hedging that begins after a few calls.
    pub(super) fn hedging(&mut self) -> Hedging {
        Hedging::default()
            .with_quantile(self.pick(&[0.1, 0.5, 0.95]))
            .with_min_samples(self.random.usize(1..=2))
            .with_min_delay(self.time(300))
            .with_share(self.pick(&[0.5, 1.0]))
            .with_burst(self.random.u32(1..=5))
    }
}
