//! Adds up the results of rounds and reports them: [`Totals`], and the report of a failure.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use super::{
    checks::{Check, Fault},
    forms::Form,
    plan::Plan,
    round::Played,
};

/// All rounds of a test.
pub(super) struct Totals {
    began: Instant,
    pub(super) rounds: u64,
    pub(super) calls: u64,
    pub(super) rows: u64,
    pub(super) paid: u64,
    ends: [u64; 4],
    /// For each form: rounds, calls, rows and calls of members.
    forms: BTreeMap<Form, [u64; 4]>,
    /// The number of events that all observers have heard, of each kind.
    events: BTreeMap<String, u64>,
    /// For each promise and form: the number of rounds that broke it, and of the first one the seed, the time and the
    /// fault.
    broken: BTreeMap<(Check, Form), (u64, u64, Duration, String)>,
}

impl Totals {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            rounds: 0,
            calls: 0,
            rows: 0,
            paid: 0,
            ends: [0; 4],
            forms: BTreeMap::new(),
            events: BTreeMap::new(),
            broken: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, seed: u64, form: Form, played: &Played, faults: &[Fault]) {
        self.rounds += 1;
        self.calls += played.calls;
        self.rows += played.rows;
        self.paid += played.paid;
        self.ends.iter_mut().zip(played.ends).for_each(|(sum, ends)| *sum += ends);
        for (kind, number) in played.events.iter().flatten() {
            *self.events.entry(kind.clone()).or_default() += number;
        }
        let more = [1, played.calls, played.rows, played.paid];
        self.forms.entry(form).or_default().iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        let mut checks: Vec<Check> = faults.iter().map(|fault| fault.check).collect();
        checks.sort_unstable();
        checks.dedup();
        for check in checks {
            let after = self.began.elapsed();
            let how =
                faults.iter().find(|fault| fault.check == check).map_or(String::new(), |fault| fault.message.clone());
            self.broken.entry((check, form)).or_insert((0, seed, after, how)).0 += 1;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.began.elapsed().as_secs_f64();
        let [whole, failed, left, panicked] = self.ends;
        writeln!(
            f,
            "{} rounds, {} calls, {} rows checked, {} calls of members, in {seconds:.1} s; callers: {whole} whole, \
             {failed} failed, {left} left, {panicked} panicked",
            self.rounds, self.calls, self.rows, self.paid
        )?;
        for (form, [rounds, calls, rows, paid]) in &self.forms {
            writeln!(f, "  form {form:?}: {rounds} rounds, {calls} calls, {rows} rows, {paid} calls of members")?;
        }
        let events: Vec<String> = self.events.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
        writeln!(f, "  heard: {}", events.join(", "))?;
        for ((check, form), (rounds, seed, after, how)) in &self.broken {
            writeln!(
                f,
                "  {check:?} in {form:?}: {rounds} rounds, first seed {seed} after {:.1} s: {how}",
                after.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

/// Returns the report of a broken promise.
pub(super) fn failure(plan: &Plan, played: &Played, faults: &[Fault]) -> String {
    let faults: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    format!(
        "{}\n{plan}  stacks: {}\n  again: DOCVECTOR_EMBED_STRESS_SEED={} cargo test --test it stress -- --nocapture",
        faults.join("\n"),
        played.stacks.join(", "),
        plan.seed
    )
}
