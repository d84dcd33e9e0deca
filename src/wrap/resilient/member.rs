//! Sends calls to one member, and lets its breaker hear how they end: [`Member`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    breaker::{Admission, Breaker, BreakerPolicy, Outcome, Permit, Transition, outcome_of},
    ends::{Ends, Waited},
    proof::Proof,
    turns::Turns,
};
use crate::{
    Batch, BreakerState, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space,
    all::{embed_all, embed_within},
    observer::{EventKind, SkipReason},
    sync::Mutex,
    telemetry,
};

/// A call that ended at its deadline counts as a failure of the member if the member answered nobody meanwhile, and has
/// been asked for at least this time since it last answered. One caller that is in a hurry says nothing about a member; a
/// member that is silent for so long hangs.
const SILENCE: Duration = Duration::from_secs(1);

/// One of the embedders that a call can go to.
pub(super) struct Member {
    pub(super) label: Box<str>,
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) space: Space,
    /// Its limits when it was built in.
    pub(super) limits: Limits,
    /// Whether all members have these limits.
    pub(super) alike: bool,
    pub(super) proof: Mutex<Proof>,
    /// The turn of the call that proves it.
    pub(super) proving: Turns,
    breaker: Mutex<Breaker>,
    /// The first open time: no probe keeps its place for longer, and no proof its turn.
    pub(super) open_for: Duration,
    /// The ends of probes.
    probes: Ends,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Member {
    pub(super) fn new(
        label: String,
        embedder: Arc<dyn Embedder>,
        space: Space,
        policy: &BreakerPolicy,
        proof: Proof,
    ) -> Self {
        Self {
            label: label.into(),
            limits: embedder.limits(),
            alike: false,
            embedder,
            space,
            proof: Mutex::new(proof),
            proving: Turns::default(),
            breaker: Mutex::new(Breaker::new(policy.clone())),
            open_for: policy.open_for(),
            probes: Ends::default(),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Lets a call go to the member, unless its breaker is open.
    pub(super) fn admit<'m>(&'m self, call: &Call<'m>) -> Result<Going<'m>, SkipReason> {
        let now = Instant::now();
        let (admission, transition) = self.breaker.with(|breaker| breaker.admit(now));
        call.tell_transition(self, transition);
        match admission {
            Admission::Yes(permit) => Ok(Going::new(self, *call, permit, now)),
            Admission::No { until: None, .. } => Err(SkipReason::Probing),
            Admission::No { .. } => Err(SkipReason::BreakerOpen),
        }
    }

    /// Lets a call go to the member although its breaker is open, because nobody else is left. Such calls go one at a
    /// time. A call that comes meanwhile waits for the end of that one: if it fails, the member has failed both, and the
    /// error is that of the other call. There is none if the deadline comes first.
    pub(super) async fn admit_last<'m>(&'m self, call: &Call<'m>) -> Result<Going<'m>, Option<Error>> {
        // Before the question for a place: a probe that ends in between is seen.
        let mut probes = self.probes.wait();
        loop {
            let now = Instant::now();
            if let Some(permit) = self.breaker.with(|breaker| breaker.early_probe(now)) {
                return Ok(Going::new(self, *call, permit, now));
            }
            // A probe whose future is not polled any more loses its place after the open time, and nobody tells.
            match probes.next(call.batch.deadline(), self.open_for).await {
                Waited::Failed(error) => return Err(Some(error)),
                Waited::Late => return Err(None),
                Waited::Ended => {}
            }
        }
    }

    /// Returns what is known about its vectors.
    pub(super) fn proof(&self) -> Proof {
        self.proof.with(|proof| *proof)
    }

    /// Returns the state of the breaker, and for how long it stays open.
    pub(super) fn breaker(&self) -> (BreakerState, Option<Duration>) {
        self.breaker.with(|breaker| breaker.state(Instant::now()))
    }

    /// Takes note of a call without an answer. Returns whether the member has answered nobody since the call began, and
    /// was asked for at least this time since it last answered.
    fn is_silent(&self, began: Instant, at_least: Duration) -> bool {
        let silence = self.breaker.with(|breaker| breaker.note_silence(began, Instant::now()));
        silence.is_some_and(|silence| silence >= at_least)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("embedder", &self.embedder).finish_non_exhaustive()
    }
}

/// The call that is on its way, and the wrapper that tells of it.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) batch: Batch<'a>,
    pub(super) teller: &'a (dyn fmt::Display + Sync),
}

impl Call<'_> {
    pub(super) fn tell(&self, kind: EventKind<'_>) {
        self.batch.tell(&self.teller, kind);
    }

    /// Tells that a breaker has changed its state. That a member gets no calls is worth a warning.
    fn tell_transition(&self, member: &Member, transition: Option<Transition>) {
        let (state, open_for) = match transition {
            None => return,
            Some(Transition::Opened { open_for, failures, calls: _ }) => {
                tracing::warn!(
                    { telemetry::EMBEDDER } = %member.embedder,
                    { telemetry::FAILURES } = failures,
                    { telemetry::PAUSE } = ?open_for,
                    "a member fails: no calls go to it for a while"
                );
                (BreakerState::Open, Some(open_for))
            }
            Some(Transition::HalfOpened) => (BreakerState::HalfOpen, None),
            Some(Transition::Closed) => {
                tracing::info!({ telemetry::EMBEDDER } = %member.embedder, "a member is well again: calls go to it");
                (BreakerState::Closed, None)
            }
        };
        self.tell(EventKind::Breaker { member: &member.label, state, open_for });
    }
}

/// A call that goes to a member. However it ends, the breaker hears of it once.
pub(super) struct Going<'m> {
    member: &'m Member,
    call: Call<'m>,
    permit: Option<Permit>,
    began: Instant,
    /// If the call is dropped, and the member answered nobody meanwhile and was asked for at least this time since it last
    /// answered, the member has failed it, provided that the flag says that another member won. Without it, a dropped call
    /// says nothing about the member.
    patience: Option<(Duration, Arc<AtomicBool>)>,
}

impl<'m> Going<'m> {
    fn new(member: &'m Member, call: Call<'m>, permit: Permit, began: Instant) -> Self {
        Self { member, call, permit: Some(permit), began, patience: None }
    }

    /// Sets after what time of silence the member has failed a call that is dropped.
    pub(super) fn with_patience(mut self, patience: Duration, lost: Arc<AtomicBool>) -> Self {
        self.patience = Some((patience, lost));
        self
    }

    /// Ends the call with the error of what had to be done before it.
    pub(super) fn fail(mut self, error: &Error) {
        self.end(self.outcome_of(error), Some(error));
    }

    /// Returns what an error says about the member.
    fn outcome_of(&self, error: &Error) -> Outcome {
        match error.kind() {
            ErrorKind::DeadlinePassed => self.given_up(SILENCE),
            _ => outcome_of(error),
        }
    }

    /// Begins the call's time again, after what had to be done before it.
    pub(super) fn begins_now(mut self) -> Self {
        self.began = Instant::now();
        self
    }

    /// Asks the member.
    pub(super) async fn ask(mut self, batch: Batch<'_>) -> Result<Embeddings> {
        let Member { embedder, limits, alike, .. } = self.member;
        let result = if *alike {
            embed_within(&**embedder, limits, batch).await
        } else {
            // The limits of a member may be narrower than those of all members together, if they count differently.
            Box::pin(embed_all(&**embedder, batch)).await
        };
        let outcome = result.as_ref().err().map_or(Outcome::Success, |error| self.outcome_of(error));
        let count = if result.is_ok() { &self.member.answered } else { &self.member.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.end(outcome, result.as_ref().err());
        result
    }

    /// Returns what a call without an answer says about the member.
    fn given_up(&self, patience: Duration) -> Outcome {
        if self.member.is_silent(self.began, patience) { Outcome::Failure } else { Outcome::Neutral }
    }

    fn end(&mut self, outcome: Outcome, error: Option<&Error>) {
        let Some(permit) = self.permit.take() else { return };
        let is_probe = permit.is_probe();
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        let transition = self.member.breaker.with(|breaker| breaker.end(permit, outcome, now, took));
        if is_probe {
            self.member.probes.tell(error.filter(|_| outcome == Outcome::Failure));
        }
        self.call.tell_transition(self.member, transition);
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if self.permit.is_some() {
            let outcome = match &self.patience {
                Some((patience, lost)) if lost.load(Ordering::Relaxed) => self.given_up(*patience),
                _ => Outcome::Neutral,
            };
            self.end(outcome, None);
        }
    }
}
