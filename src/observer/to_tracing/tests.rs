//! Checks that each event is written once, at its level, with names of the table and without what nobody may see.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{Level, Subscriber, field::Visit};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

use super::*;
use crate::observer::samples;

/// Keeps the level and the fields of each event of this crate.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<(Level, Fields)>>>);

/// The names and values of one event.
#[derive(Clone, Default)]
struct Fields(Vec<(String, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }
}

impl<S: Subscriber> Layer<S> for Written {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        assert_eq!(event.metadata().target(), telemetry::OBSERVER_TARGET);
        self.0.lock().expect("no panic").push((*event.metadata().level(), fields));
    }
}

fn level_of(kind: &EventKind<'_>) -> Level {
    match kind {
        EventKind::Breaker { state: BreakerState::Open, .. } | EventKind::Verified { same: false, .. } => Level::WARN,
        EventKind::Breaker { .. } | EventKind::FellBack { .. } | EventKind::Hedged { .. } => Level::INFO,
        _ => Level::DEBUG,
    }
}

#[test]
fn each_kind_is_written_once_at_its_level_with_known_names_and_nothing_secret() {
    let written = Written::default();
    let subscriber = tracing_subscriber::registry().with(written.clone());
    tracing::subscriber::with_default(subscriber, || {
        samples::each(|event| {
            ToTracing::new().observe(event);
            let events = std::mem::take(&mut *written.0.lock().expect("no panic"));
            let [(level, Fields(fields))] = &events[..] else { panic!("{} events for {event:?}", events.len()) };
            assert_eq!(*level, level_of(&event.kind), "{event:?}");
            for (name, value) in fields {
                let is_known = name == "message" || telemetry::FIELDS.iter().any(|(known, _)| known == name);
                assert!(is_known, "{name} is not in the table");
                assert!(!value.contains(samples::SECRET), "{name}={value}");
            }
            let of = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
            assert_eq!(of(telemetry::BATCH_SIZE), Some("3"));
            assert!(of(telemetry::EMBEDDER).is_some_and(|name| name.contains("openai/")), "{fields:?}");
            if let EventKind::Call(CallRecord { outcome: CallOutcome::Done, .. }) = event.kind {
                assert_eq!(of(telemetry::SPACE), Some("abababab"));
                assert_eq!((of(telemetry::CALL_LATENCY_MS), of(telemetry::ERROR_TYPE)), (Some("1500.0"), None));
            }
        });
    });
}
