//! Shows a job's state to its callers: [`snapshot_of`].

use std::{sync::Arc, time::Duration};

use super::{
    handle::Snapshot,
    pace::Pace,
    report::JobReport,
    state::{State, Step},
    status::{JobState, JobStatus},
};
use crate::{Error, Space};

/// Describes a job. `error` is why it was paused.
pub(super) fn snapshot_of(
    state: &State,
    pace: &Pace,
    trouble: Option<String>,
    error: Option<Error>,
    is_waiting: bool,
) -> Snapshot {
    let mut status = status_of(state);
    if is_waiting && status.state == JobState::Running && !state.open.is_empty() {
        status.state = JobState::Waiting;
    }
    let running = state.open.values().filter(|open| matches!(open.step, Step::Running { .. }));
    let done: f64 = running.map(|open| pace.share_done(open.shard.number) * open.shard.texts as f64).sum();
    let ended: u64 =
        state.open.values().filter(|open| matches!(open.step, Step::Ended { .. })).map(|open| open.shard.texts).sum();
    status.processed = (status.answered + status.failed + ended + done as u64).min(status.texts);
    if !status.state.is_ended() && status.state != JobState::Paused {
        status.remaining = remaining(state, pace, status.processed);
        status.trouble = trouble;
    }
    let report = state.done.map(|_| Arc::new(JobReport::of(state)));
    Snapshot { status, error, report }
}

/// Estimates the time for the rest at the pace since the submission; `None` before anything is done.
fn remaining(state: &State, pace: &Pace, processed: u64) -> Option<Duration> {
    let (all, done) = (state.plan.texts.checked_sub(state.plan.cached)?, processed.checked_sub(state.plan.cached)?);
    let elapsed = state.plan.created().elapsed().unwrap_or_default().max(pace.elapsed());
    if done == 0 || done > all || elapsed < Duration::from_secs(1) {
        return None;
    }
    Some(elapsed.mul_f64((all - done) as f64 / done as f64))
}

/// Returns what the journal alone says of a job.
pub(super) fn status_of(state: &State) -> JobStatus {
    let job_state = match (state.done, &state.paused) {
        (Some(true), _) => JobState::Cancelled,
        (Some(false), _) => JobState::Completed,
        (None, Some(_)) => JobState::Paused,
        (None, None) if state.cancelling => JobState::Cancelling,
        (None, None) => JobState::Running,
    };
    let failed = state.failed.len() as u64;
    // A space of a later version may not be read: its text says which model it is.
    let space = state.plan.space.parse::<Space>();
    let model = space.as_ref().map_or_else(|_| state.plan.space.clone(), |space| space.model().to_owned());
    let sent = |step: &Step| matches!(step, Step::Running { .. } | Step::Ended { .. });
    let open_sent = state.open.values().filter(|open| sent(&open.step)).count() as u32;
    JobStatus {
        id: state.plan.id.clone(),
        state: job_state,
        model,
        dimensions: space.map_or(0, |space| space.dimensions()),
        kind: state.plan.kind(),
        texts: state.plan.texts,
        answered: state.answered,
        cached: state.plan.cached,
        failed,
        processed: state.answered + failed,
        tokens: state.charges.usage().tokens,
        batches: state.shards,
        batches_sent: state.shards_ended + open_sent,
        batches_ended: state.shards_ended,
        created: state.plan.created(),
        remaining: None,
        trouble: state.paused.as_ref().filter(|_| state.done.is_none()).map(|(_, message)| message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::provider::openai_batch::record::{Plan, Record, Shard};

    #[test]
    fn a_state_follows_from_the_records() {
        let of = |records: Vec<Record>| {
            let mut state = State::new(Plan::default());
            records.into_iter().for_each(|record| state.apply(record));
            status_of(&state).state
        };
        let paused = || Record::Paused { kind: "quota".into(), message: "no money".into() };
        assert_eq!(of(vec![]), JobState::Running);
        assert_eq!(of(vec![Record::Cancelling, paused()]), JobState::Paused);
        assert_eq!(of(vec![Record::Cancelling, paused(), Record::Resumed]), JobState::Cancelling);
        assert_eq!(of(vec![paused(), Record::Done { cancelled: false }]), JobState::Completed);
        assert_eq!(of(vec![Record::Done { cancelled: true }]), JobState::Cancelled);
    }

    #[test]
    fn the_rest_is_estimated_from_the_pace_so_far() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64;
        let state = State::new(Plan { texts: 100, cached: 20, created_ms: now - 10_000, ..Plan::default() });
        let pace = Pace::new(Duration::from_secs(1), Duration::from_secs(1));
        assert_eq!(remaining(&state, &pace, 20), None);
        assert_eq!(remaining(&state, &pace, 60).map(|rest| rest.as_secs()), Some(10));
    }

    #[test]
    fn a_job_waits_for_room_only_while_something_is_open() {
        let pace = Pace::new(Duration::from_secs(1), Duration::from_secs(1));
        let shard = Shard { number: 1, round: 0, lines: 1, texts: 1, tokens: 1 };
        let mut state = State::new(Plan { texts: 1, shards: vec![shard], ..Plan::default() });
        let trouble = || Some("a gateway".to_owned());
        let shown = snapshot_of(&state, &pace, trouble(), None, true).status;
        assert_eq!((shown.state, shown.trouble), (JobState::Waiting, trouble()));
        state.apply(Record::ended(1, vec![(0, 1)], Vec::new()));
        state.apply(Record::Done { cancelled: true });
        let shown = snapshot_of(&state, &pace, trouble(), None, true);
        assert_eq!((shown.status.state, shown.status.trouble), (JobState::Cancelled, None));
        assert!(shown.report.is_some_and(|report| report.state == JobState::Cancelled));
    }
}
