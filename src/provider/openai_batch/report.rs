//! Sums up a job that has ended: [`JobReport`].

use std::fmt;

use super::{record, state::State, status::JobState};
use crate::{
    Charges, ErrorKind, Payee, Tier,
    price::{self, PicoDollars},
};

/// A text of a job that got no row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedText {
    /// The text's index in the job.
    pub index: u64,
    /// The kind of failure: [`InvalidInput`](ErrorKind::InvalidInput) if the provider refuses the text,
    /// [`Protocol`](ErrorKind::Protocol) if its result is unusable or could not be read, [`Unavailable`](ErrorKind::Unavailable) if the
    /// provider failed at it again and again.
    pub kind: ErrorKind,
    /// The provider's code.
    pub code: Option<String>,
}

/// The results of a job: returned by [`Job::wait`](super::Job::wait).
///
/// `Display` is a few aligned lines for people.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobReport {
    /// The job's id.
    pub id: String,
    /// How it ended.
    pub state: JobState,
    /// All texts of the job.
    pub texts: u64,
    /// The texts that have a row, those of the cache included.
    pub answered: u64,
    /// The texts that the cache answered.
    pub cached: u64,
    /// The texts that got no row, ascending. After a cancellation, some texts are neither here nor answered.
    pub failed: Vec<FailedText>,
    /// The batches that were made.
    pub batches: u32,
    /// The charges, by payee.
    pub charges: Charges,
    /// Their cost, if all prices and tokens are known.
    pub cost: Option<PicoDollars>,
    /// The cost of the same tokens in requests that are answered at once, if that is known.
    pub standard_cost: Option<PicoDollars>,
}

impl JobReport {
    pub(super) fn of(state: &State) -> Self {
        let failed = |text: &record::FailedText| FailedText {
            index: text.index,
            // A kind of a later version.
            kind: text.kind.parse().unwrap_or(ErrorKind::Unavailable),
            code: text.code.clone(),
        };
        let mut failed: Vec<FailedText> = state.failed.iter().map(failed).collect();
        failed.sort_unstable_by_key(|text| text.index);
        Self {
            id: state.plan.id.clone(),
            state: if state.done == Some(true) { JobState::Cancelled } else { JobState::Completed },
            texts: state.plan.texts,
            answered: state.answered,
            cached: state.plan.cached,
            failed,
            batches: state.shards,
            charges: state.charges.clone(),
            cost: cost_of(&state.charges, |payee| payee.clone()),
            standard_cost: cost_of(&state.charges, |payee| {
                let tier = if payee.tier() == Tier::Local { Tier::Local } else { Tier::Standard };
                Payee::new(payee.provider(), payee.model(), tier)
            }),
        }
    }
}

/// Returns what charges cost if they were owed to another payee.
fn cost_of(charges: &Charges, payee: impl Fn(&Payee) -> Payee) -> Option<PicoDollars> {
    charges.iter().try_fold(PicoDollars::ZERO, |sum, charge| {
        let mut charge = charge.clone();
        charge.payee = payee(&charge.payee);
        sum.checked_add(price::cost_of(&charge, &[])?)
    })
}

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = |cost: Option<PicoDollars>| cost.map_or("unknown".to_owned(), |cost| cost.to_string());
        let usage = self.charges.usage();
        writeln!(f, "job       {}", self.id)?;
        writeln!(f, "state     {}", self.state)?;
        write!(f, "texts     {} of {}", self.answered, self.texts)?;
        if self.cached > 0 {
            write!(f, ", {} from the cache", self.cached)?;
        }
        writeln!(f)?;
        if let Some(first) = self.failed.first() {
            writeln!(f, "failed    {}, the first is text {} ({})", self.failed.len(), first.index, first.kind)?;
        }
        writeln!(f, "batches   {}", self.batches)?;
        match usage.exact_tokens() {
            Some(tokens) => writeln!(f, "tokens    {tokens}")?,
            None => writeln!(f, "tokens    {} and those of {} lines that tell none", usage.tokens, usage.unreported)?,
        }
        write!(f, "cost      {} (answered at once: {})", cost(self.cost), cost(self.standard_cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Usage, provider::openai_batch::record::Plan};

    fn state(usage: Usage, model: &str) -> State {
        let mut state = State::new(Plan { id: "b".into(), texts: 10, cached: 2, ..Plan::default() });
        state.charges = Charges::of(&Payee::new("openai", model, Tier::Batch), usage);
        state.done = Some(false);
        state
    }

    #[test]
    fn a_report_is_a_few_lines_for_people() {
        let mut state = state(Usage::of_request(Some(1_000_000)), "text-embedding-3-small");
        let failed = |index, kind: &str| record::FailedText { index, kind: kind.into(), code: None };
        state.failed = vec![failed(7, "a kind of a later version"), failed(3, "invalid_input")];
        let report = JobReport::of(&state);
        let kinds: Vec<_> = report.failed.iter().map(|text| (text.index, text.kind)).collect();
        assert_eq!(kinds, [(3, ErrorKind::InvalidInput), (7, ErrorKind::Unavailable)]);
        let shown = report.to_string();
        let texts = "texts     2 of 10, 2 from the cache\nfailed    2, the first is text 3 (invalid input)\n";
        assert!(shown.contains(texts), "{shown}");
        assert!(shown.ends_with("cost      $0.01 (answered at once: $0.02)"), "{shown}");
    }

    #[test]
    fn unknown_costs_are_not_free() {
        let shown = JobReport::of(&state(Usage::of_request(Some(7)), "a model without a price")).to_string();
        assert!(shown.ends_with("cost      unknown (answered at once: unknown)"), "{shown}");
        let usage = Usage::of_request(Some(7)) + Usage::of_request(None);
        let shown = JobReport::of(&state(usage, "text-embedding-3-small")).to_string();
        assert!(shown.contains("tokens    7 and those of 1 lines that tell none\ncost      unknown"), "{shown}");
    }
}
