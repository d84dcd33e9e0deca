//! Counts the kills by their places, and chooses the next: [`Table`], [`Way`].

use std::{collections::BTreeMap, fmt, io::Write, time::Duration};

use docvector_embed::testing::{Bills, Counts, Route};
use fastrand::Rng;

/// A route of few requests.
const SELDOM: Route = Route::CancelBatch;

/// The routes whose answers are held.
const HELD: [Route; 4] = [SELDOM, Route::CreateBatch, Route::CreateFile, Route::FileContent];

/// How many kills are enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enough {
    pub(super) kills: usize,
    pub(super) per_gap: usize,
    pub(super) held: usize,
    pub(super) at_random: usize,
}

/// How a process ends.
pub(super) enum Way {
    /// By itself.
    Through,
    /// It is killed in one of these gaps, when it comes to one of them for the so-manieth time.
    At(Vec<String>, usize),
    /// It is killed while it waits for the answer of this route, after so many other requests of the route.
    Held(Route, usize),
    /// It is killed after this time.
    After(Duration),
}

/// The place of a kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Gap(String),
    Held(Route),
    Random,
}

/// How often a gap was reached, and how often somebody was killed there.
#[derive(Clone, Copy, Debug, Default)]
struct Gap {
    reached: usize,
    kills: usize,
}

/// All kills so far.
#[derive(Debug)]
pub(super) struct Table {
    seed: u64,
    enough: Enough,
    gaps: BTreeMap<String, Gap>,
    held: [usize; HELD.len()],
    at_random: usize,
    pub(super) rounds: usize,
    pub(super) processes: usize,
    /// Of rounds that have ended.
    pub(super) requests: u64,
    creates: u64,
    texts: u64,
    /// How long a process takes that nobody kills.
    pub(super) usual: Duration,
}

impl Table {
    pub(super) fn new(seed: u64, enough: Enough) -> Self {
        Self {
            seed,
            enough,
            gaps: BTreeMap::new(),
            held: Default::default(),
            at_random: 0,
            rounds: 0,
            processes: 0,
            requests: 0,
            creates: 0,
            texts: 0,
            usual: Duration::ZERO,
        }
    }

    pub(super) fn reached(&mut self, gap: &str) {
        self.gaps.entry(gap.to_owned()).or_default().reached += 1;
    }

    pub(super) fn killed(&mut self, place: Place) {
        match place {
            Place::Gap(gap) => self.gaps.entry(gap).or_default().kills += 1,
            Place::Held(route) => {
                HELD.iter().zip(&mut self.held).filter(|(held, _)| **held == route).for_each(|(_, kills)| *kills += 1)
            }
            Place::Random => self.at_random += 1,
        }
    }

    pub(super) fn ended(&mut self, counts: Counts, bills: Bills) {
        self.rounds += 1;
        self.requests += counts.requests;
        self.creates += counts.creates;
        self.texts += bills.texts;
    }

    fn kills(&self) -> usize {
        self.gaps.values().map(|gap| gap.kills).sum::<usize>() + self.held.iter().sum::<usize>() + self.at_random
    }

    /// Returns the gaps that need more kills.
    fn missing(&self) -> Vec<String> {
        let missing = self.gaps.iter().filter(|(_, gap)| gap.kills < self.enough.per_gap);
        missing.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn is_enough(&self) -> bool {
        let held = self.held.iter().sum::<usize>();
        self.kills() >= self.enough.kills
            && held >= self.enough.held
            && self.at_random >= self.enough.at_random
            && self.missing().is_empty()
    }

    /// Chooses how the next process ends. The first one of a round comes to gaps that others do not come to.
    pub(super) fn next_way(&self, is_first: bool, random: &mut Rng) -> Way {
        let mut gaps = self.missing();
        if gaps.is_empty() {
            gaps.extend(random.choice(self.gaps.keys()).cloned());
        }
        let least = |of: &[Route]| {
            let kills = |route: &&Route| self.held[HELD.iter().position(|held| held == *route).unwrap_or_default()];
            of.iter().min_by_key(kills).copied().expect("there are routes")
        };
        match random.u8(..10) {
            _ if is_first && least(&HELD) == SELDOM => Way::Held(SELDOM, 0),
            _ if is_first => Way::At(gaps, 1),
            0 | 1 if !self.usual.is_zero() => Way::After(self.usual.mul_f64(random.f64())),
            2 | 3 => Way::Held(least(&HELD[1..]), random.usize(..2)),
            _ => Way::At(gaps, random.usize(1..3)),
        }
    }

    /// Shows the table, whether or not the test's output is shown.
    pub(super) fn show(&self) {
        // A log that is closed wants no table.
        let _ = writeln!(std::io::stderr(), "{self}");
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:40} {:>7} {:>5}", format!("kills at seed {}", self.seed), "reached", "kills")?;
        for (name, gap) in &self.gaps {
            writeln!(f, "{name:40} {:>7} {:>5}", gap.reached, gap.kills)?;
        }
        for (route, kills) in HELD.iter().zip(self.held) {
            writeln!(f, "{:40} {:>7} {kills:>5}", format!("the answer of {route:?} is held"), "")?;
        }
        writeln!(f, "{:40} {:>7} {:>5}", "at random", "", self.at_random)?;
        write!(
            f,
            "{} kills of {} processes in {} rounds: {} requests, {} batches, {} texts billed, each once",
            self.kills(),
            self.processes,
            self.rounds,
            self.requests,
            self.creates,
            self.texts
        )
    }
}
