//! Draws the parts of a round at random: [`Draw`].

use std::time::Duration;

use docvector_embed::{InputKind, Lane, Limits, TokenCount, Truncation};
use fastrand::Rng;

use super::{
    callers::{Caller, How, Leaves},
    member::{Habits, Trick},
    plan::Mode,
    stacks::{Keeps, Layer, Pace},
    store::Moods,
    takes::{Takes, Waits},
    texts,
};

/// A time limit that no call here reaches.
pub(super) const AGES: Duration = Duration::from_secs(100_000);

/// Draws at random, and keeps times short if the clock is real.
pub(super) struct Draw {
    pub(super) random: Rng,
    pub(super) mode: Mode,
}

impl Draw {
    pub(super) fn one_in(&mut self, chances: u8) -> bool {
        self.random.u8(..chances) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.usize(..of.len())]
    }

    pub(super) const fn is_real(&self) -> bool {
        matches!(self.mode, Mode::FourThreads)
    }

    /// Draws a time up to this many milliseconds.
    pub(super) fn time(&mut self, most: u64) -> Duration {
        let part = self.random.f64();
        self.scaled(most).mul_f64(part)
    }

    /// Returns this many milliseconds, or a small part of them if the clock is real.
    pub(super) fn scaled(&self, millis: u64) -> Duration {
        let time = Duration::from_millis(millis);
        if self.is_real() { (time / 400).min(Duration::from_millis(5)) } else { time }
    }

    pub(super) fn limits(&mut self) -> Limits {
        let mut limits = Limits::none();
        if !self.one_in(4) {
            limits = limits.with_texts(self.random.usize(1..=5));
        }
        if self.one_in(3) {
            limits = limits.with_in_flight(self.random.usize(1..=4));
        }
        if self.one_in(4) {
            let counter = || TokenCount::Exact(std::sync::Arc::new(texts::Counter));
            let tokens = match self.random.u8(..3) {
                0 => counter(),
                1 => TokenCount::AtMostBytes,
                _ => TokenCount::Unknown,
            };
            limits = limits.with_tokens_per_text(texts::LIMIT).with_tokens(tokens);
        }
        if self.one_in(10) {
            limits = limits.with_bytes(40);
        }
        limits
    }

    pub(super) fn takes(&mut self) -> Vec<Takes> {
        (0..self.random.usize(1..=3))
            .map(|_| match self.random.u8(..6) {
                0 => Takes::NoTime,
                1 | 2 => Takes::Turns(self.random.u32(1..6)),
                _ => Takes::This(self.time(2000)),
            })
            .collect()
    }

    /// Returns a member that always answers right.
    pub(super) fn calm(&mut self) -> Habits {
        Habits {
            limits: self.limits(),
            space: 0,
            tricks: Vec::new(),
            every: 1,
            budget: 0,
            first: 0,
            omits: self.one_in(8).then_some(3),
            takes: self.takes(),
            in_turn: false,
            waits: Waits { longest: self.time(10_000) },
            punctual: self.one_in(3),
            read_within: None,
            allows: !self.is_real() && self.one_in(6),
        }
    }

    /// Draws a member with some of these tricks.
    pub(super) fn tricky(&mut self, tricks: &[Trick]) -> Habits {
        let some: Vec<Trick> = tricks.iter().copied().filter(|_| self.random.bool()).collect();
        let tricks = if some.is_empty() { tricks.to_vec() } else { some };
        let (every, budget) = (self.random.u8(1..=4), self.random.u32(1..=8));
        Habits { tricks, every, budget, ..self.calm() }
    }

    pub(super) fn moods(&mut self) -> Moods {
        let mut takes = || match self.random.u8(..4) {
            0 => Takes::NoTime,
            1 | 2 => Takes::Turns(self.random.u32(1..6)),
            _ => Takes::This(self.time(500)),
        };
        Moods { get: takes(), put: takes(), fails: 0, panics_in_get: 0, panics_in_put: 0 }
    }

    /// Draws a store, which may fail if `faulty` is set.
    pub(super) fn store(&mut self, faulty: bool) -> Keeps {
        let mut moods = self.moods();
        if faulty {
            moods.fails = self.pick(&[0, 2, 5]);
            moods.panics_in_get = self.pick(&[0, 0, 4]);
            moods.panics_in_put = self.pick(&[0, 3]);
        }
        match self.random.u8(..16) {
            0..4 if !faulty => Keeps::Memory,
            4..8 if !faulty => Keeps::Tiers,
            // Its own thread takes real time, which a clock that jumps does not wait for.
            8 if !faulty && self.is_real() && self.one_in(2) => Keeps::Sqlite,
            9..12 => Keeps::MoodyTiers(moods),
            _ => Keeps::Moody(moods),
        }
    }

    pub(super) fn retry(&mut self) -> Layer {
        let (first, longest) = (self.time(2000), self.time(20_000));
        let (attempts, seed, budget) = (self.random.u32(2..=6), self.random.u64(..), self.one_in(4));
        Layer::Retry { attempts, first, longest: longest.max(first), seed, budget }
    }

    /// Draws a pace at which the work of a round takes only minutes.
    pub(super) fn pace(&mut self) -> Pace {
        if self.is_real() {
            return Pace { requests: Some(6_000_000), tokens: Some(600_000_000) };
        }
        let requests = self.pick(&[None, Some(60), Some(600)]);
        Pace { requests, tokens: self.pick(&[None, Some(1000), Some(20_000)]) }
    }

    /// Draws a time limit around all that is inside. It is long, and with `fires` it may be too short.
    pub(super) fn timeout(&mut self, fires: bool) -> Layer {
        Layer::Timeout(if fires { self.time(3000) } else { AGES })
    }

    /// Draws the stack that the documentation advises.
    pub(super) fn advised(&mut self, gate: Layer, fires: bool) -> Vec<Layer> {
        let mut layers = vec![Layer::Cached(0), self.retry()];
        if self.random.bool() {
            layers.push(Layer::RateLimit { shared: self.random.bool(), pace: self.pace() });
        }
        layers.push(gate);
        if fires {
            layers.push(self.timeout(true));
        } else if self.random.bool() {
            layers.push(Layer::Timeout(Duration::from_secs(60)));
        }
        if self.one_in(3) {
            layers.push(Layer::Metered);
        }
        layers
    }

    /// Draws any stack. A shared gate comes only once: a call that has a place there must not wait for another place
    /// there.
    pub(super) fn any_stack(&mut self, stores: usize, fires: bool) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        let (mut caches, mut shared) = (0, false);
        for _ in 0..self.random.usize(1..=7) {
            layers.push(match self.random.u8(..9) {
                0 | 1 if caches < 2 => {
                    caches += 1;
                    Layer::Cached(self.random.usize(..stores))
                }
                2 => Layer::Dedup,
                3 => self.retry(),
                4 => Layer::RateLimit { shared: self.random.bool(), pace: self.pace() },
                5 if !shared => {
                    shared = true;
                    Layer::SharedGate
                }
                6 => Layer::Concurrency(self.random.usize(1..=3)),
                7 => self.timeout(fires),
                _ => Layer::Metered,
            });
        }
        layers
    }

    pub(super) fn how(&mut self) -> How {
        match self.random.u8(..10) {
            0 => How::Embed,
            1..6 => How::All,
            6..8 => How::Each,
            _ => How::Stream {
                window: self.random.usize(1..=4),
                windows: self.random.usize(1..=3),
                busy: self.time(3000),
                embeds: self.one_in(3),
            },
        }
    }

    pub(super) fn leaves(&mut self) -> Leaves {
        match self.random.u8(..4) {
            0 => Leaves::InPoll(self.random.usize(1..=12)),
            1 => Leaves::AfterPolls(self.random.usize(1..=12)),
            2 if self.mode == Mode::ByHand => Leaves::ByHand,
            _ => Leaves::After(self.time(4000)),
        }
    }

    /// Draws from the first few texts, with repetitions.
    pub(super) fn texts(&mut self, pool: usize, most: usize) -> Vec<String> {
        (0..self.random.usize(1..=most)).map(|_| texts::text(self.random.usize(..pool))).collect()
    }

    /// Returns a caller for documents that stays.
    pub(super) fn caller(&mut self, how: How, texts: Vec<String>) -> Caller {
        Caller {
            stack: 0,
            begins: self.time(1500),
            how,
            kind: InputKind::Document,
            lane: None,
            truncation: Truncation::Truncate,
            key: None,
            deadline: None,
            texts,
            leaves: Leaves::Never,
            rests: None,
            patience: None,
            names_space: self.one_in(4),
        }
    }

    pub(super) fn any_lane(&mut self) -> Option<Lane> {
        self.pick(&[None, Some(Lane::Interactive), Some(Lane::Bulk)])
    }
}
