//! Stresses the core: random stacks over a member that misbehaves, with callers that come, leave and are late.
//!
//! One seed decides a round: its stacks, member, stores and callers, and when callers leave. A round on the clock that
//! jumps is the same each time. A round on four threads is as similar as threads allow.
//!
//! | variable | meaning |
//! |---|---|
//! | `DOCVECTOR_EMBED_STRESS_SEED=n` | plays this round alone, and shows what it is |
//! | `DOCVECTOR_EMBED_STRESS_SECONDS=n` | how long all take together: 100, or 1,800 with `DOCVECTOR_EMBED_FULL=1` |
//! | `DOCVECTOR_EMBED_STRESS_FROM=n` | begins with a later seed |
//! | `DOCVECTOR_EMBED_STRESS_CHECKS=rows,hang` | looks at these promises alone, see `checks.rs` |
//! | `DOCVECTOR_EMBED_STRESS_FORMS=gate,each` | plays rounds of these forms alone, see `forms.rs` |
//! | `DOCVECTOR_EMBED_STRESS_SURVEY=1` | does not stop at a broken promise, and tells at the end what was broken |

mod answers;
mod api;
mod callers;
mod checks;
mod directed;
mod draw;
mod ears;
mod fails;
mod forms;
mod hand;
mod ledger;
mod member;
mod members;
mod merges;
mod plan;
mod report;
mod round;
mod saboteur;
mod shape;
mod splits;
mod stacks;
mod store;
mod takes;
mod texts;

use std::{
    env,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use self::{
    checks::{Check, Fault},
    forms::Form,
    plan::{Mode, Plan},
    report::Totals,
    saboteur::Sabotage,
};

/// A caller without an answer after this time on the real clock hangs. A survey meets many of these, so it waits for a
/// shorter time.
const FOR_EVER: Duration = Duration::from_secs(20);
const FOR_A_SURVEY: Duration = Duration::from_secs(3);

/// A round that takes longer than this on the real clock is in an endless loop.
const STUCK: Duration = Duration::from_secs(120);

#[test]
fn one_thread() {
    stress(Mode::OneThread);
}

#[test]
fn by_hand() {
    stress(Mode::ByHand);
}

#[test]
fn four_threads() {
    stress(Mode::FourThreads);
}

/// A round on the clock that jumps can be played again.
#[test]
fn a_seed_is_a_round() {
    for seed in (0..200).filter(|&seed| Mode::of(seed) != Mode::FourThreads) {
        let [first, second] = [(); 2].map(|()| format!("{:?}", round::play(Plan::draw(seed), FOR_EVER)));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// The checks find each broken promise, also if all others are kept.
#[test]
fn the_checks_see_what_is_broken() {
    for sabotage in Sabotage::ALL {
        let seeds = (0..2_000).filter(|&seed| Mode::of(seed) == Mode::OneThread);
        let found = seeds.into_iter().find(|&seed| {
            let mut plan = Plan::draw(seed);
            plan.stacks.iter_mut().for_each(|layers| sabotage.join(layers));
            round::play(plan, FOR_EVER).faults.iter().any(|fault| fault.check == sabotage.breaks())
        });
        let seed = found.unwrap_or_else(|| panic!("{sabotage:?} is not found out"));
        println!("{sabotage:?}: {:?} at seed {seed}", sabotage.breaks());
    }
}

/// The options in the environment variables.
struct Asked {
    seed: Option<u64>,
    from: u64,
    time: Duration,
    checks: Vec<Check>,
    forms: Vec<Form>,
    survey: bool,
}

impl Asked {
    fn read() -> Self {
        let number = |name: &str| {
            let value = env::var(name).ok()?;
            Some(value.parse::<u64>().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
        };
        let is_full = env::var_os("DOCVECTOR_EMBED_FULL").is_some();
        let seconds = number("DOCVECTOR_EMBED_STRESS_SECONDS").unwrap_or(if is_full { 1800 } else { 100 });
        Self {
            seed: number("DOCVECTOR_EMBED_STRESS_SEED"),
            from: number("DOCVECTOR_EMBED_STRESS_FROM").unwrap_or(0),
            // Three tests share the time.
            time: Duration::from_secs(seconds) / 3,
            checks: named("DOCVECTOR_EMBED_STRESS_CHECKS", &Check::ALL),
            forms: named("DOCVECTOR_EMBED_STRESS_FORMS", &Form::ALL),
            survey: env::var_os("DOCVECTOR_EMBED_STRESS_SURVEY").is_some(),
        }
    }

    /// The broken promises that are looked at.
    fn of_interest(&self, faults: &[Fault]) -> Vec<Fault> {
        faults.iter().filter(|fault| self.checks.contains(&fault.check)).cloned().collect()
    }
}

/// Returns the values that a variable names, or all.
fn named<T: Copy + std::fmt::Debug>(variable: &str, all: &[T]) -> Vec<T> {
    let Ok(names) = env::var(variable) else { return all.to_vec() };
    let find = |name: &str| {
        let found = all.iter().find(|one| format!("{one:?}").eq_ignore_ascii_case(name.trim()));
        *found.unwrap_or_else(|| panic!("{variable}: {name} is none of {}", names_of(all)))
    };
    names.split(',').map(find).collect()
}

fn names_of<T: std::fmt::Debug>(all: &[T]) -> String {
    all.iter().map(|one| format!("{one:?}").to_lowercase()).collect::<Vec<_>>().join(", ")
}

/// Plays rounds of a mode until the time is up.
fn stress(mode: Mode) {
    let asked = Asked::read();
    if let Some(seed) = asked.seed {
        if Mode::of(seed) == mode {
            replay(&asked, seed);
        }
        return;
    }
    let began = Instant::now();
    let watch = Watch::begin();
    let mut totals = Totals::new();
    let seeds = (asked.from..).filter(|&seed| Mode::of(seed) == mode);
    for seed in seeds.take_while(|_| began.elapsed() < asked.time) {
        let plan = Plan::draw(seed);
        if !asked.forms.contains(&plan.form) {
            continue;
        }
        watch.look_at(seed);
        let form = plan.form;
        let played = round::play(plan, if asked.survey { FOR_A_SURVEY } else { FOR_EVER });
        let faults = asked.of_interest(&played.faults);
        totals.add(seed, form, &played, &faults);
        assert!(faults.is_empty() || asked.survey, "{}", report::failure(&Plan::draw(seed), &played, &faults));
    }
    // Not a `print`, which tests hold back: the number of rounds is part of the result.
    let _ = write!(std::io::stdout(), "{mode:?}: {totals}");
    let is_whole = asked.forms.len() == Form::ALL.len() && !asked.survey;
    let floor = asked.time.as_secs() * if mode == Mode::FourThreads { 3 } else { 20 };
    assert!(!is_whole || totals.rounds >= floor, "{} rounds are few, {floor} is the least", totals.rounds);
    assert!(!is_whole || totals.rows >= 5 * floor, "{} rows are few", totals.rows);
}

/// Plays one round, and shows it.
fn replay(asked: &Asked, seed: u64) {
    println!("{}", Plan::draw(seed));
    let watch = Watch::begin();
    watch.look_at(seed);
    let played = round::play(Plan::draw(seed), FOR_EVER);
    println!("{}: {} rows, callers {:?}", played.stacks.join(", "), played.rows, played.ends);
    let faults = asked.of_interest(&played.faults);
    assert!(faults.is_empty(), "{}", report::failure(&Plan::draw(seed), &played, &faults));
}

/// Ends the process when a round is in an endless loop: nothing else could.
struct Watch {
    seed: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    fn begin() -> Self {
        let (seed, ended) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicBool::new(false)));
        let (looked_at, over) = (seed.clone(), ended.clone());
        thread::spawn(move || {
            let mut last = (u64::MAX, Instant::now());
            while !over.load(Ordering::Relaxed) {
                let seed = looked_at.load(Ordering::Relaxed);
                if seed != last.0 {
                    last = (seed, Instant::now());
                } else if seed != u64::MAX && last.1.elapsed() > STUCK {
                    // Not a `print`, which tests hold back.
                    let _ = writeln!(std::io::stderr(), "stress: the round of seed {seed} does not end");
                    std::process::abort();
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { seed, ended }
    }

    fn look_at(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
