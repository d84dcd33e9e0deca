//! Keeps what the sinks are told, and compares it with what callers are told and what servers bill: [`reconcile`].

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
};

use docvector_embed::{
    Charges, ErrorKind,
    wrap::{CallRecord, MetricsSink},
};

use super::{calls::Ended, members::NAMES};
use crate::support::server_process::Billed;

/// What the sinks of both members were told, by call.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<HashMap<u64, Known>>>);

/// What the sinks were told of one call.
#[derive(Clone, Debug, Default)]
struct Known {
    charges: Charges,
    by_server: [OfServer; 2],
}

/// What a sink was told of one call at one server.
#[derive(Clone, Debug, Default)]
struct OfServer {
    /// The tokens of each request that was answered; `None` where the reply did not tell.
    answered: Vec<Option<u64>>,
    /// The requests without an answer, as far as they may have been begun.
    unanswered: usize,
    /// The requests that could not be sent, because nobody listened.
    unsent: usize,
}

impl Ledger {
    /// Returns the sink of a server's member.
    pub(super) fn sink(&self, server: usize) -> impl MetricsSink + use<> {
        let ledger = self.clone();
        move |record: &CallRecord<'_>| {
            // Probes have no tenant.
            if let Some(call) = record.options.tenant {
                ledger.add(server, call.parse().expect("the number of a call"), record);
            }
        }
    }

    fn add(&self, server: usize, call: u64, record: &CallRecord<'_>) {
        let mut ledger = self.0.lock().expect("nobody panicked");
        let known = ledger.entry(call).or_default();
        known.charges += record.charges;
        let known = &mut known.by_server[server];
        let usage = record.usage;
        assert!(usage.requests <= 1 && usage.unanswered <= 1, "one request: {usage:?}");
        if usage.requests > usage.unanswered {
            known.answered.push((usage.unreported == 0).then_some(usage.tokens));
        }
        known.unanswered += usage.unanswered as usize;
        known.unsent += usize::from(usage.requests + usage.unanswered == 0);
    }

    fn of(&self, call: u64) -> Known {
        self.0.lock().expect("nobody panicked").get(&call).cloned().unwrap_or_default()
    }
}

impl OfServer {
    /// Whether the member was asked at all.
    const fn was_asked(&self) -> bool {
        self.answered.len() + self.unanswered + self.unsent > 0
    }

    /// Fails unless each answered request is on the bill with the same tokens, and each other request on the bill is one
    /// that is known to have got no answer. Adds the tokens to the figures.
    fn check(&self, bill: &[Billed], figures: &mut Figures) {
        let mut left: Vec<u64> = bill.iter().map(|billed| billed.tokens).collect();
        let mut take = |is_it: &dyn Fn(u64) -> bool| {
            let at = left.iter().position(|&tokens| is_it(tokens));
            left.swap_remove(at.unwrap_or_else(|| panic!("a reply that is not on the bill: {self:?}, {bill:?}")))
        };
        figures.known += self.answered.iter().flatten().map(|&told| take(&|tokens| tokens == told)).sum::<u64>();
        // A reply that does not tell its tokens was billed.
        let untold = self.answered.iter().filter(|told| told.is_none());
        figures.unreported += untold.map(|_| take(&|tokens| tokens > 0)).sum::<u64>();
        assert!(left.len() <= self.unanswered, "a request that nobody knows of: {self:?}, {bill:?}");
        figures.uncertain += left.iter().sum::<u64>();
        figures.answered += self.answered.len();
        figures.unanswered += self.unanswered;
    }

    /// Fails unless the error of a call that this member was not asked says so.
    fn check_reason(&self, name: &str, ended: &Ended) {
        let Some(error) = ended.failed.as_ref().filter(|error| error.kind() != ErrorKind::DeadlinePassed) else {
            return;
        };
        let words = [&format!("{name} was not asked"), "another call has failed there"];
        let says = words.into_iter().all(|words| error.message().contains(words));
        assert!(self.was_asked() || says, "{name} was not asked, and nobody says why: {error}");
    }
}

/// Fails unless what callers, sinks and bills say fits together, call by call. Returns the figures.
pub(super) fn reconcile(ended: &[Ended], ledger: &Ledger, bills: &[Vec<Billed>; 2]) -> Figures {
    let mut of_calls: HashMap<(u64, usize), Vec<Billed>> = HashMap::new();
    for (server, bill) in bills.iter().enumerate() {
        for &billed in bill {
            // The others are probes.
            if let Some(call) = billed.call {
                of_calls.entry((call, server)).or_default().push(billed);
            }
        }
    }
    let mut figures = Figures::default();
    for (call, ended) in (0..).zip(ended) {
        let known = ledger.of(call);
        if let Some(told) = &ended.told {
            assert_eq!(*told, known.charges, "call {call}: its caller and the sinks were told the same");
            figures.told += told.usage().tokens;
        }
        for (server, known) in known.by_server.iter().enumerate() {
            known.check(&of_calls.remove(&(call, server)).unwrap_or_default(), &mut figures);
            known.check_reason(NAMES[server], ended);
        }
        *figures.ends.entry(ended.show()).or_default() += 1;
        figures.in_outages += usize::from(ended.in_outage);
    }
    assert!(of_calls.is_empty(), "on the bill, but no call: {of_calls:?}");
    let billed: u64 = bills.iter().flatten().filter(|billed| billed.call.is_some()).map(|billed| billed.tokens).sum();
    assert_eq!(billed, figures.known + figures.unreported + figures.uncertain, "each line of the bill is of a call");
    figures
}

/// The figures of a run, for its reader.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Calls by how they ended.
    ends: BTreeMap<String, usize>,
    /// Calls that had no server from their begin to their end.
    in_outages: usize,
    /// Requests that were answered, if only with a refusal, and requests that may have been begun and were not.
    answered: usize,
    unanswered: usize,
    /// Tokens on the bill: of replies that told them, of replies that did not, of requests without an answer.
    known: u64,
    unreported: u64,
    uncertain: u64,
    /// The known tokens, without those of callers who left.
    told: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ends, in_outages, answered, unanswered, known, unreported, uncertain, told } = self;
        ends.iter().try_for_each(|(end, calls)| writeln!(f, "  {calls} {end}"))?;
        writeln!(f, "  {in_outages} of them while both servers were down")?;
        writeln!(f, "  {answered} requests answered, {unanswered} perhaps begun and not answered")?;
        let billed = known + unreported + uncertain;
        write!(f, "  {billed} tokens billed: {known} known, {unreported} not reported, {uncertain} uncertain")?;
        write!(f, "; callers who stayed were told of {told}")
    }
}

mod tests {
    use super::*;

    fn check(answered: &[Option<u64>], unanswered: usize, bill: &[u64]) -> Figures {
        let bill: Vec<Billed> = bill.iter().map(|&tokens| Billed { call: Some(0), tokens }).collect();
        let mut figures = Figures::default();
        OfServer { answered: answered.to_vec(), unanswered, unsent: 0 }.check(&bill, &mut figures);
        figures
    }

    #[test]
    fn what_was_answered_is_told_apart_from_what_was_not() {
        let tokens = |figures: Figures| (figures.known, figures.unreported, figures.uncertain);
        assert_eq!(tokens(check(&[Some(0), None, Some(5)], 1, &[5, 7, 0])), (5, 7, 0));
        assert_eq!(tokens(check(&[Some(5)], 2, &[9, 5])), (5, 0, 9));
    }

    #[test]
    #[should_panic(expected = "a reply that is not on the bill")]
    fn tokens_that_nobody_billed_are_found() {
        check(&[Some(5)], 1, &[4]);
    }

    #[test]
    #[should_panic(expected = "a request that nobody knows of")]
    fn a_request_that_nobody_knows_of_is_found() {
        check(&[Some(5)], 0, &[5, 0]);
    }
}
