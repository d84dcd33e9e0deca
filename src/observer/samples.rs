//! Makes an event of each kind, for the tests of observers: [`each`].

use std::time::Duration;

use super::{Event, EventKind, Queue, SkipReason};
use crate::{
    BreakerState, Charges, Error, ErrorKind, InputKind, Options, Payee, SpaceId, Tier, Usage,
    call_record::{CallOutcome, CallRecord},
};

/// A part of all that no log and no metric may hold.
pub(super) const SECRET: &str = "planted";

/// The number of kinds.
pub(super) const KINDS: usize = 17;

/// The kind's number. Does not compile if a kind is new: give it the next number, raise [`KINDS`], and add a sample.
pub(super) fn number(kind: &EventKind<'_>) -> usize {
    match kind {
        EventKind::Call(_) => 0,
        EventKind::CacheLookUp { .. } => 1,
        EventKind::Deduplicated { .. } => 2,
        EventKind::Retry { .. } => 3,
        EventKind::GaveUp { .. } => 4,
        EventKind::Waited { .. } => 5,
        EventKind::QueueFull { .. } => 6,
        EventKind::TimedOut { .. } => 7,
        EventKind::Answered { .. } => 8,
        EventKind::FellBack { .. } => 9,
        EventKind::Skipped { .. } => 10,
        EventKind::Hedged { .. } => 11,
        EventKind::Breaker { .. } => 12,
        EventKind::Verified { .. } => 13,
        EventKind::Routed { .. } => 14,
        EventKind::Coalesced { .. } => 15,
        EventKind::Other { .. } => 16,
    }
}

/// Lets `hear` hear of one event of each kind at least.
pub(super) fn each(mut hear: impl FnMut(&Event<'_>)) {
    let secret = |what: &str| format!("{SECRET} {what}");
    let error = Error::new(ErrorKind::Unavailable, secret("message"))
        .with_provider_message(secret("words"))
        .with_request_id(secret("request"))
        .with_provider_code(SECRET);
    let (key, tenant, trace) = (secret("key"), secret("tenant"), secret("trace"));
    let mut options = Options::new(InputKind::Document);
    (options.key, options.tenant, options.trace) = (Some(key.as_str()), Some(tenant.as_str()), Some(trace.as_str()));
    let charges =
        Charges::of(&Payee::new("openai", "text-embedding-3-small", Tier::Standard), Usage::of_request(Some(5)));
    let call = CallRecord {
        embedder: "openai/text-embedding-3-small",
        options,
        space: Some(SpaceId::from_bytes([0xab; 16])),
        texts: 3,
        bytes: 20,
        usage: charges.usage(),
        charges: &charges,
        latency: Duration::from_millis(1500),
        outcome: CallOutcome::Done,
        error: None,
    };
    let (lost, none) = (Charges::from(Usage::of_given_up()), Charges::NONE);
    let calls = [
        call,
        CallRecord {
            outcome: CallOutcome::Failed(error.kind()),
            error: Some(&error),
            space: None,
            charges: &none,
            usage: none.usage(),
            ..call
        },
        CallRecord { outcome: CallOutcome::Dropped, space: None, charges: &lost, usage: lost.usage(), ..call },
        CallRecord { embedder: "Retry(openai/text-embedding-3-small)", ..call },
    ];
    let embedder = &"Resilient(openai/text-embedding-3-small)";
    let mut hear = |kind| hear(&Event { embedder, options, texts: 3, kind });
    calls.iter().for_each(|call| hear(EventKind::Call(call)));
    let (second, error) = (Duration::from_secs(1), &error);
    hear(EventKind::CacheLookUp { hits: 1, misses: 2, damaged: 1 });
    hear(EventKind::Deduplicated { texts: 1 });
    hear(EventKind::Retry { attempt: 1, wait: second, error });
    hear(EventKind::GaveUp { attempts: 2, error });
    hear(EventKind::Waited { queue: Queue::RateLimit, time: second, waiting: 4 });
    hear(EventKind::QueueFull { queue: Queue::Concurrency });
    hear(EventKind::TimedOut { limit: second });
    hear(EventKind::Answered { member: "a", place: 0 });
    hear(EventKind::FellBack { from: "a", to: "b", error });
    hear(EventKind::Skipped { member: "a", why: SkipReason::BreakerOpen });
    hear(EventKind::Hedged { first: "a", second: "b", after: second });
    for (state, open_for) in
        [(BreakerState::Open, Some(second)), (BreakerState::HalfOpen, None), (BreakerState::Closed, None)]
    {
        hear(EventKind::Breaker { member: "a", state, open_for });
    }
    hear(EventKind::Verified { member: "a", cosine: 1.0, same: true });
    hear(EventKind::Verified { member: "b", cosine: 0.5, same: false });
    hear(EventKind::Routed { arm: "new" });
    hear(EventKind::Coalesced { calls: 3, texts: 3 });
    hear(EventKind::Other { name: "texts_trimmed", count: 2 });
}

#[test]
fn there_is_a_sample_of_each_kind() {
    let mut kinds = [false; KINDS];
    each(|event| kinds[number(&event.kind)] = true);
    assert_eq!(kinds, [true; KINDS]);
}
