//! Checks that each event is measured, each metric is described, money is exact, and no label holds what nobody may see.

use std::collections::{BTreeMap, BTreeSet};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use super::*;
use crate::{Charges, InputKind, Options, Payee, observer::samples};

/// Shows `name{label=value}` and the value of all metrics that `act` makes.
fn measured(act: impl FnOnce()) -> BTreeMap<String, String> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, act);
    let shown = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, about, value)| {
        let key = key.key();
        assert!(about.is_some_and(|about| !about.is_empty()), "{} is described, and by its kind", key.name());
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count.to_string(),
            DebugValue::Gauge(value) => format!("{value}"),
            DebugValue::Histogram(values) => format!("{values:?}"),
        };
        (format!("{}{{{}}}", key.name(), labels.join(",")), value)
    });
    shown.collect()
}

#[test]
fn each_kind_is_measured_under_known_names_and_nothing_secret() {
    let mut names = BTreeSet::new();
    samples::each(|event| {
        let seen = measured(|| ToMetrics::new().observe(event));
        assert!(!seen.is_empty(), "{event:?} is not measured");
        let shown = format!("{seen:?}");
        assert!(!shown.contains(samples::SECRET), "{shown}");
        names.extend(seen.keys().filter_map(|key| key.split('{').next().map(str::to_owned)));
    });
    let all: BTreeSet<String> = telemetry::METRICS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, all, "all metrics of the table are measured, and no others");
}

#[test]
fn labels_are_in_the_tables() {
    let known: BTreeSet<&str> =
        [telemetry::FIELDS, telemetry::ATTRIBUTES].concat().into_iter().map(|(name, _)| name).collect();
    let seen = measured(|| {
        let metrics = ToMetrics::new();
        samples::each(|event| metrics.observe(event));
    });
    for key in seen.keys() {
        let labels = key.split_once('{').and_then(|(_, labels)| labels.strip_suffix('}')).expect("braces");
        for label in labels.split(',').filter_map(|label| label.split('=').next()) {
            assert!(known.contains(label), "{label} of {key}");
        }
    }
}

#[test]
fn a_breaker_is_a_number_and_begins_closed() {
    let hear = |metrics: &ToMetrics, kind| {
        let options = Options::new(InputKind::Query);
        metrics.observe(&Event { embedder: &"Resilient(a)", options, texts: 1, kind });
    };
    let (member, open_for) = ("a", None);
    for (states, value, openings) in [
        (&[][..], "0", "0"),
        (&[BreakerState::Open], "2", "1"),
        (&[BreakerState::Open, BreakerState::HalfOpen], "1", "1"),
        (&[BreakerState::Open, BreakerState::HalfOpen, BreakerState::Open], "2", "2"),
        (&[BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed], "0", "1"),
    ] {
        let seen = measured(|| {
            let metrics = ToMetrics::new();
            states.iter().for_each(|&state| hear(&metrics, EventKind::Breaker { member, state, open_for }));
            hear(&metrics, EventKind::Answered { member, place: 0 });
        });
        assert_eq!(seen["embed.breaker.state{member=a}"], value, "{states:?}");
        assert_eq!(seen["embed.breaker.openings{member=a}"], openings, "{states:?}");
    }
}

/// Shows the cost, and the requests of unknown cost, of one call with these charges.
fn cost_of(metrics: impl Fn() -> ToMetrics, charges: &Charges) -> (Option<String>, Option<String>) {
    let options = Options::new(InputKind::Document);
    let call = CallRecord {
        embedder: "openai/some",
        options,
        space: None,
        texts: 1,
        bytes: 1,
        usage: charges.usage(),
        charges,
        latency: std::time::Duration::ZERO,
        outcome: CallOutcome::Done,
        error: None,
    };
    let event = Event { embedder: &"Metered(openai/some)", options, texts: 1, kind: EventKind::Call(&call) };
    let seen = measured(|| metrics().observe(&event));
    let find = |name: &str| seen.iter().find(|(key, _)| key.starts_with(name)).map(|(_, value)| value.clone());
    (find("embed.cost{"), find("embed.cost.unknown{"))
}

#[test]
fn what_has_no_price_is_not_free() {
    let payee = |model: &str, tier| Payee::new("openai", model, tier);
    let million = Usage::of_request(Some(1_000_000));
    let small = payee("text-embedding-3-small", Tier::Standard);
    let some = |cost: &str, unknown: &str| (Some(cost.to_owned()), Some(unknown.to_owned()));
    let unknown = |requests: &str| (None, Some(requests.to_owned()));
    for (charges, expected) in [
        (Charges::of(&small, million), some("0.02", "0")),
        (Charges::of(&payee("text-embedding-3-small", Tier::Batch), million), some("0.01", "0")),
        (Charges::of(&payee("text-embedding-ada-002", Tier::Batch), million), unknown("1")),
        (Charges::of(&payee("no-such-model", Tier::Standard), million), unknown("1")),
        (Charges::of(&small, million + Usage::of_request(None)), unknown("2")),
        (Charges::of(&small, million + Usage::of_unanswered()), some("0.02", "1")),
        (Charges::of(&payee("any", Tier::Local), million + Usage::of_unanswered()), some("0", "0")),
        (Charges::from(million), unknown("1")),
        (Charges::from(Usage::of_given_up()), unknown("1")),
        (Charges::from(Usage::ZERO.with_cached(5)), (None, None)),
    ] {
        assert_eq!(cost_of(ToMetrics::new, &charges), expected, "{charges:?}");
    }
}

#[test]
fn a_price_of_your_own_goes_first() {
    let price = |dollars: &str| Price::per_million("openai", "text-embedding-3-small", dollars).expect("a price");
    let payee = Payee::new("openai", "text-embedding-3-small", Tier::Standard);
    let charges = Charges::of(&payee, Usage::of_request(Some(1_000_000)));
    let metrics = || ToMetrics::new().with_price(price("3")).with_price(price("0.5"));
    assert_eq!(cost_of(metrics, &charges).0.as_deref(), Some("0.5"));
}
