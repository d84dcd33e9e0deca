//! Takes one call from member to member until one of them answers: [`Course`].
//!
//! ```text
//!  for each member, the primary first
//!     breaker open?  ── go on to the next
//!     proof missing? ── verify it now, if the primary's vectors are known, or wait for the call that does
//!     ask it ────────── rows: done          an error that is the caller's own: done
//!                       another error: keep its finished rows and its cost, go on
//!  nobody has answered
//!     for each member whose breaker was open: ask it all the same, one call at a time
//!  nobody: one error that says of each member why
//! ```

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::{
    ends::Waited,
    inner::Inner,
    member::{Call, Going, Member},
    proof::Proof,
};
use crate::{
    Batch, BreakerState, Charges, Embeddings, Error, ErrorKind, Lane, Result, Usage,
    deadline::until,
    explanation::plural,
    finished::Finished,
    observer::{EventKind, SkipReason},
    planner,
    sync::Mutex,
    telemetry,
};

/// One call on its way from member to member.
pub(super) struct Course<'a> {
    inner: &'a Inner,
    call: Call<'a>,
    finished: Finished,
    /// The cost of the calls that failed, without that of their finished rows.
    spent: Charges,
    /// The members that have not answered, in the order in which they were asked or skipped.
    problems: Vec<(&'a Member, Problem)>,
    /// The member that was asked last.
    last: Option<&'a Member>,
}

/// The reason why a member has not answered.
enum Problem {
    Failed(Error),
    /// It could not be proved.
    Unproved(Error),
    Skipped(SkipReason),
    /// It was about to be asked although its breaker is open, and the call that went before failed in this way.
    ProbeFailed(Error),
}

impl Problem {
    /// Returns the member's error, be it that of another call.
    const fn error(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) | Self::Unproved(error) | Self::ProbeFailed(error) => Some(error),
            Self::Skipped(_) => None,
        }
    }
}

/// The answer to the caller, or nothing if another member has to be asked.
type Done = Option<Result<Embeddings>>;

impl<'a> Course<'a> {
    pub(super) fn new(inner: &'a Inner, batch: Batch<'a>) -> Self {
        let call = Call { batch, teller: inner };
        Self { inner, call, finished: Finished::default(), spent: Charges::NONE, problems: Vec::new(), last: None }
    }

    /// Asks one member after the other.
    pub(super) async fn run(mut self) -> Result<Embeddings> {
        let inner = self.inner;
        let batch = self.call.batch;
        for member in inner.members.iter().filter(|member| inner.may_answer(member, &batch)) {
            if self.problems.iter().any(|(tried, _)| std::ptr::eq(*tried, member)) {
                continue;
            }
            let done = match self.admit(member) {
                Ok(going) => self.ask(member, going).await,
                Err(reason) => {
                    self.skip(member, reason);
                    None
                }
            };
            if let Some(done) = done {
                return done;
            }
        }
        let skipped = |(member, problem): &(&'a Member, Problem)| match problem {
            Problem::Skipped(SkipReason::BreakerOpen | SkipReason::Probing) => Some(*member),
            _ => None,
        };
        for member in self.problems.iter().filter_map(skipped).collect::<Vec<_>>() {
            if let Some(done) = Box::pin(self.ask_last(member)).await {
                return done;
            }
        }
        Err(self.nobody())
    }

    /// Lets the call go to a member, if it is proved to be of its space, or can be, and its breaker allows it.
    fn admit(&self, member: &'a Member) -> Result<Going<'a>, SkipReason> {
        match member.proof() {
            Proof::Missing if !self.inner.knows_primary() => Err(SkipReason::Unverified),
            Proof::Refuted => Err(SkipReason::OtherModel),
            Proof::Missing | Proof::Stated | Proof::Verified => member.admit(&self.call),
        }
    }

    /// Proves a member for a call that is about to go there, or waits for the call that does so. An error is the reason why
    /// the member may not be asked.
    async fn prove(&mut self, member: &'a Member, going: Going<'a>) -> Result<Going<'a>, Problem> {
        // Before the question for the turn: a proof that ends in between is heard.
        let mut others = member.proving.ends.wait();
        let mut failed = None;
        loop {
            match member.proof() {
                Proof::Refuted => return Err(Problem::Skipped(SkipReason::OtherModel)),
                Proof::Stated | Proof::Verified => return Ok(going),
                Proof::Missing => failed.take().map_or(Ok(()), |error| Err(Problem::Unproved(error)))?,
            }
            if let Some(turn) = member.proving.take(member.open_for) {
                let ledger = Mutex::new(Charges::NONE);
                failed = self.inner.verify_member(member, &self.call, &ledger).await;
                self.spent += ledger.with(std::mem::take);
                let Some(error) = &failed else { continue };
                // The deadline of this call is not that of those who wait.
                if error.kind() != ErrorKind::DeadlinePassed {
                    turn.fail(error);
                }
                if error.kind() != ErrorKind::SpaceMismatch {
                    going.fail(error);
                    return Err(Problem::Unproved(error.clone()));
                }
            } else {
                match others.next(self.call.batch.deadline(), member.open_for).await {
                    Waited::Failed(error) => failed = Some(error),
                    Waited::Ended => {}
                    Waited::Late => {
                        let late = "while another call compared it with the primary";
                        return Err(Problem::Unproved(Error::new(ErrorKind::DeadlinePassed, late)));
                    }
                }
            }
        }
    }

    /// Checks the batch before work that no member does for it: a proof, or a wait for one.
    async fn check(&self) -> Result<()> {
        let Inner { spaces, limits, .. } = self.inner;
        let checked = planner::check(&self.call.batch, spaces, limits).await;
        checked.map(|_| ()).map_err(|error| error.with_embedder(self.inner))
    }

    fn skip(&mut self, member: &'a Member, why: SkipReason) {
        self.call.tell(EventKind::Skipped { member: &member.label, why });
        if why == SkipReason::Unverified && !self.inner.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                { telemetry::EMBEDDER } = %member.embedder,
                "a fall-back gets no calls, as nothing proves that it is the primary's model: call `Resilient::verify`"
            );
        }
        self.problems.push((member, Problem::Skipped(why)));
    }

    /// Asks a member for the rows that are missing.
    async fn ask(&mut self, member: &'a Member, mut going: Going<'a>) -> Done {
        if !member.proof().is_sound() {
            if let Err(error) = Box::pin(self.check()).await {
                return Some(Err(self.fail(error)));
            }
            // In a box, so that the many calls that need no proof do not make room for it.
            going = match Box::pin(self.prove(member, going)).await {
                Ok(going) => going.begins_now(),
                Err(problem) => return self.unproved(member, problem),
            };
        }
        if let Some(late) = self.late() {
            return Some(Err(self.fail(late)));
        }
        self.tell_fall_back(member);
        let is_first = self.last.is_none();
        if self.last.replace(member).is_some_and(|last| last.space != member.space) {
            self.finished.begin_again();
        }
        if let Some((delay, tokens)) = self.hedging_delay(is_first) {
            return Box::pin(self.race(member, going, delay, tokens)).await;
        }
        let rest = self.finished.rest(&self.call.batch);
        let result = going.ask(rest.batch(&self.call.batch)).await;
        let result = rest.end(&mut self.finished, result);
        self.take(member, result)
    }

    /// Takes note that a member could not be proved.
    fn unproved(&mut self, member: &'a Member, problem: Problem) -> Done {
        match problem {
            Problem::Skipped(why) => self.skip(member, why),
            problem => self.problems.push((member, problem)),
        }
        self.late().map(|late| Err(self.fail(late)))
    }

    /// Asks a member although its breaker is open.
    async fn ask_last(&mut self, member: &'a Member) -> Done {
        if let Err(error) = self.check().await {
            return Some(Err(self.fail(error)));
        }
        match member.admit_last(&self.call).await {
            Ok(going) => {
                self.problems.retain(|(tried, _)| !std::ptr::eq(*tried, member));
                self.ask(member, going).await
            }
            Err(error) => {
                let same = self.problems.iter_mut().find(|(tried, _)| std::ptr::eq(*tried, member));
                if let (Some((_, problem)), Some(error)) = (same, error) {
                    *problem = Problem::ProbeFailed(error);
                }
                self.late().map(|late| Err(self.fail(late)))
            }
        }
    }

    /// Takes what a member has answered. An error that another member may not have is kept, and the call goes on.
    fn take(&mut self, member: &'a Member, result: Result<Embeddings>) -> Done {
        let error = match result {
            Ok(rows) => return Some(Ok(self.answered(member, rows))),
            Err(error) => error,
        };
        if !error.should_fall_back() {
            return Some(Err(self.fail(error)));
        }
        self.spent += error.charges();
        let error = error.without_charges();
        self.finished.keep(self.call.batch.len(), error.clone());
        // Members may have failed, and have finished all rows between them.
        if let Some(rows) = self.finished.whole() {
            return Some(Ok(self.answered(member, rows)));
        }
        self.problems.push((member, Problem::Failed(error.without_partial())));
        None
    }

    /// Tells that a member has answered, and adds the cost of the calls that failed.
    fn answered(&mut self, member: &Member, rows: Embeddings) -> Embeddings {
        let place = self.inner.members.iter().position(|other| std::ptr::eq(other, member)).unwrap_or(0);
        self.call.tell(EventKind::Answered { member: &member.label, place });
        rows.with_charges(&std::mem::take(&mut self.spent))
    }

    /// Returns the delay after which a second member may be asked, and the tokens of the call. Only the first member of
    /// an interactive call is hedged.
    fn hedging_delay(&self, is_first: bool) -> Option<(Duration, u64)> {
        let hedging = self.inner.hedging.as_ref()?;
        if !is_first || self.call.batch.lane() != Lane::Interactive {
            return None;
        }
        let tokens = self.call.batch.guessed_tokens(&self.inner.limits) as u64;
        let delay = hedging.with(|hedger| {
            hedger.deposit(tokens);
            hedger.delay()
        });
        // Without a delay yet, the race is only watched, for its time.
        Some((delay.unwrap_or(Duration::MAX), tokens))
    }

    /// Asks a member, and a second one beside it if it is late. The first success wins.
    async fn race(&mut self, member: &'a Member, going: Going<'a>, delay: Duration, tokens: u64) -> Done {
        let (batch, began) = (self.call.batch, Instant::now());
        let lost = Arc::new(AtomicBool::new(false));
        let mut first = pin!(going.with_patience(delay.saturating_mul(2), lost.clone()).ask(batch));
        let end = began.checked_add(delay).map(Instant::into_std);
        let answer = match until(end, &mut first).await {
            Some(answer) => answer,
            None => match self.second(member, tokens) {
                Some((other, going)) => {
                    let names = EventKind::Hedged { first: &member.label, second: &other.label, after: delay };
                    self.call.tell(names);
                    let second = pin!(going.ask(batch));
                    // The second one is polled before the first one, so that it has begun if it is booked.
                    return match select(second, first).await {
                        Either::Left((answer, first)) => {
                            // The first one took longer than this. Without it, only fast calls would be noted.
                            self.note_latency(&answer, began);
                            lost.store(answer.is_ok(), Ordering::Relaxed);
                            self.settle_race((other, answer), (member, first)).await
                        }
                        Either::Right((answer, second)) => {
                            self.note_latency(&answer, began);
                            self.settle_race((member, answer), (other, second)).await
                        }
                    };
                }
                None => first.await,
            },
        };
        self.note_latency(&answer, began);
        self.take(member, answer)
    }

    /// Takes the answer that came first. If it is one, the other call is dropped, and may be billed all the same. If it
    /// is an error that the other member may not have, the other call is awaited.
    async fn settle_race(
        &mut self,
        (member, answer): (&'a Member, Result<Embeddings>),
        (other, rest): (&'a Member, impl Future<Output = Result<Embeddings>>),
    ) -> Done {
        let goes_on = answer.as_ref().is_err_and(Error::should_fall_back);
        if !goes_on {
            self.spent += Usage::of_given_up();
            return self.take(member, answer);
        }
        // It may have finished all rows.
        if let Some(done) = self.take(member, answer) {
            return Some(done.map(|rows| rows.with_usage(Usage::of_given_up())));
        }
        self.last = Some(other);
        let answer = rest.await.and_then(|rows| {
            // The other member was asked for all texts. Only the cost of the rows that the first one finished is left.
            self.finished.begin_again();
            self.finished.complete(rows)
        });
        self.take(other, answer)
    }

    fn note_latency(&self, answer: &Result<Embeddings>, began: Instant) {
        if let (Some(hedging), Ok(_)) = (&self.inner.hedging, answer) {
            hedging.with(|hedger| hedger.note(began.elapsed()));
        }
    }

    /// Finds a member to ask beside the first one: of the same space, proved, with a closed breaker and within the budget.
    fn second(&self, first: &Member, tokens: u64) -> Option<(&'a Member, Going<'a>)> {
        let hedging = self.inner.hedging.as_ref()?;
        let fits = |member: &&Member| {
            !std::ptr::eq(*member, first) && member.space == first.space && member.proof().is_sound()
        };
        let inner = self.inner;
        // No probe: this call may be dropped at any moment, and would show nothing.
        let is_closed = |member: &&Member| member.breaker().0 == BreakerState::Closed;
        let (member, going) = inner.members.iter().filter(fits).filter(is_closed).find_map(|member| {
            let going = member.admit(&self.call).ok()?;
            Some((member, going))
        })?;
        hedging.with(|hedger| hedger.withdraw(tokens)).then_some((member, going))
    }

    fn tell_fall_back(&self, to: &Member) {
        let failed = self.problems.iter().rev().find_map(|(member, problem)| match problem {
            Problem::Failed(error) => Some((member, error)),
            Problem::Unproved(_) | Problem::Skipped(_) | Problem::ProbeFailed(_) => None,
        });
        if let Some((from, error)) = failed {
            self.call.tell(EventKind::FellBack { from: &from.label, to: &to.label, error });
        }
    }

    /// Returns the error of a call whose deadline has passed before all members were asked.
    fn late(&self) -> Option<Error> {
        if self.problems.is_empty() || !self.call.batch.is_late() {
            return None;
        }
        let message = format!("before any member answered: {}", self.reasons());
        Some(Error::new(ErrorKind::DeadlinePassed, message).with_embedder(self.inner))
    }

    /// Ends the call with an error, to which everything belongs that the call has brought so far.
    fn fail(&mut self, error: Error) -> Error {
        let spent = std::mem::take(&mut self.spent);
        std::mem::take(&mut self.finished).give_back(error.with_charges(&spent))
    }

    /// Returns the error of a call that no member has answered. Its kind is that of the first failure that may pass, or
    /// else of the first failure.
    fn nobody(mut self) -> Error {
        let errors = || self.problems.iter().filter_map(|(_, problem)| problem.error());
        // The deadline of another call is not that of this one.
        let first =
            errors().find(|error| error.is_retryable()).or_else(|| errors().find(|error| error.should_fall_back()));
        let first = first.cloned();
        if let [(_, Problem::Failed(only))] = &self.problems[..] {
            let only = only.clone();
            return self.fail(only);
        }
        // Members that are not proved, or refuted, do not get better by waiting.
        let is_shut_out =
            |problem: &Problem| matches!(problem, Problem::Skipped(SkipReason::Unverified | SkipReason::OtherModel));
        let all_shut_out = self.problems.iter().all(|(_, problem)| is_shut_out(problem));
        let nothing_failed = if all_shut_out { ErrorKind::SpaceMismatch } else { ErrorKind::Unavailable };
        let kind = first.as_ref().map_or(nothing_failed, Error::kind);
        let mut error = Error::new(kind, format!("no member answered: {}", self.reasons())).with_embedder(self.inner);
        let wait = errors().filter_map(Error::asked_wait).min();
        if let Some(wait) = wait {
            error = error.with_retry_after(wait);
        }
        if errors().count() == self.problems.len() && errors().all(Error::is_exhausted) {
            error = error.mark_exhausted();
        }
        if let Some(first) = first {
            error = error.with_source(first);
        }
        self.fail(error)
    }

    /// Says of each member why it has not answered.
    fn reasons(&self) -> String {
        let reason = |(member, problem): &(&Member, Problem)| {
            let label = &member.label;
            match problem {
                Problem::Failed(error) => format!("{label}: {error}"),
                Problem::Unproved(error) => format!("{label} was not asked: its vectors could not be proved: {error}"),
                Problem::Skipped(why) => format!("{label} was not asked: {}", why_skipped(member, *why)),
                Problem::ProbeFailed(error) => {
                    let breaker = breaker_of(member);
                    format!("{label} was not asked: {breaker}, and another call has failed there: {error}")
                }
            }
        };
        self.problems.iter().map(reason).collect::<Vec<_>>().join("; ")
    }
}

fn why_skipped(member: &Member, why: SkipReason) -> String {
    match why {
        SkipReason::BreakerOpen | SkipReason::Probing => breaker_of(member),
        SkipReason::Unverified => {
            "it states the same space, and nothing proves that it is the same model: call `Resilient::verify` while the \
             primary answers, or build with `with_trusted_spaces`"
                .into()
        }
        SkipReason::OtherModel => "its vectors are those of another model than it states".into(),
    }
}

fn breaker_of(member: &Member) -> String {
    match member.breaker() {
        (_, Some(left)) => {
            let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
            format!("its breaker is open for {}", plural(seconds as usize, "more second"))
        }
        (state, None) => format!("its breaker is {}", state.as_str().replace('_', "-")),
    }
}
