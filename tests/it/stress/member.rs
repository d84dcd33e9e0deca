//! Stands in for providers that misbehave as they are told to: [`Member`], with an exact [`Ledger`] of what all charged.

use std::{
    fmt,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    BadText, BadTextReason, Batch, Embedder, Embeddings, Error, ErrorKind, InputKind, Limits, Partial, RateLimitStatus,
    RateLimitWindow, Result, Space, Truncation, Usage, async_trait,
};
use fastrand::Rng;
use tokio::time::Instant;

use super::{
    ledger::{Ending, Ledger},
    takes::{Takes, Waits},
    texts,
};

/// A behavior of a member in place of a plain answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trick {
    /// Fails in a way that may pass.
    FailsForNow,
    /// Fails with any kind of error.
    Fails,
    /// Fails, with the rows of some of the texts.
    FailsWithRows,
    /// Refuses one text, which it takes the next time.
    RefusesOnce,
    /// Does the same, with the rows of some other texts.
    RefusesOnceWithRows,
    /// Refuses the call and names no text.
    RefusesUnnamed,
    /// Names a text as bad and gives its row all the same.
    NamesFinished,
    /// Names a text that the call does not have.
    NamesOther,
    /// Gives finished rows of a text that the call does not have.
    FinishesOther,
    /// Gives finished rows of another space.
    FinishesInOtherSpace,
    PanicsFirst,
    /// Panics when it has charged.
    PanicsLast,
    FewerRows,
    MoreRows,
    OtherSpace,
    /// Claims a billion tokens.
    Absurd,
}

/// The behavior of a member.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    pub(super) limits: Limits,
    /// The number of its space.
    pub(super) space: usize,
    /// Its possible tricks; empty if it always answers right.
    pub(super) tricks: Vec<Trick>,
    /// One call in so many is a trick.
    pub(super) every: u8,
    /// The most tricks that there may be.
    pub(super) budget: u32,
    /// The first so many calls are tricks, within the budget.
    pub(super) first: u32,
    /// One answer in so many has no count of tokens.
    pub(super) omits: Option<u8>,
    pub(super) takes: Vec<Takes>,
    /// Whether the calls take these times in turn, with the last one for all later calls. Otherwise each takes any of
    /// them.
    pub(super) in_turn: bool,
    pub(super) waits: Waits,
    /// Whether it ends at a batch's deadline.
    pub(super) punctual: bool,
    /// The time within which its answer must be read before it gives the connection up.
    pub(super) read_within: Option<Duration>,
    /// Whether it says what it still allows.
    pub(super) allows: bool,
}

/// A provider of the stress. Clones share everything, and all members of a round share the books.
#[derive(Clone)]
pub(super) struct Member(Arc<Shared>);

struct Shared {
    number: usize,
    habits: Habits,
    space: Space,
    other: Space,
    state: Mutex<State>,
    books: Arc<Books>,
}

struct State {
    random: Rng,
    calls: u32,
    budget: u32,
}

/// The parts that all members of a round have in common.
struct Books {
    ledger: Mutex<Ledger>,
    behaves: AtomicBool,
    running: AtomicUsize,
    most: AtomicUsize,
    /// The most tokens that a text may have, for any stack.
    limit: Option<usize>,
}

impl Books {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Makes all members of a round. The first one has the smallest limit of tokens.
    pub(super) fn all<'h>(seed: u64, habits: impl IntoIterator<Item = &'h Habits>) -> Vec<Self> {
        let mut habits = habits.into_iter().peekable();
        let books = Arc::new(Books {
            ledger: Mutex::default(),
            behaves: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            limit: habits.peek().and_then(|first| first.limits.tokens_of_one_text()),
        });
        habits.enumerate().map(|(number, habits)| Self::new(seed, number, habits.clone(), books.clone())).collect()
    }

    fn new(seed: u64, number: usize, habits: Habits, books: Arc<Books>) -> Self {
        let budget = habits.budget;
        let state = State { random: Rng::with_seed(seed ^ ((number as u64) << 32)), calls: 0, budget };
        Self(Arc::new(Shared {
            number,
            space: texts::space(habits.space),
            other: texts::space_of("another"),
            habits,
            state: Mutex::new(state),
            books,
        }))
    }

    /// Ends all tricks of all members. From now on, calls take no time.
    pub(super) fn behave(&self) {
        self.0.books.behaves.store(true, Ordering::SeqCst);
    }

    /// Returns a copy of the ledger of all members so far.
    pub(super) fn ledger(&self) -> Ledger {
        self.0.books.ledger().clone()
    }

    /// Returns whether a member has refused a text, as it was sent.
    pub(super) fn has_refused(&self, kind: InputKind, text: &str, truncation: Truncation) -> bool {
        self.0.books.ledger().has_refused(kind, texts::cut(text, self.limit(), truncation))
    }

    /// Returns the most calls that all members together had at once.
    pub(super) fn most(&self) -> usize {
        self.0.books.most.load(Ordering::SeqCst)
    }

    /// Returns the most tokens that a text may have, for any stack.
    pub(super) fn limit(&self) -> Option<usize> {
        self.0.books.limit
    }

    /// Returns the most tokens that a text may have, for this member.
    fn own_limit(&self) -> Option<usize> {
        self.0.habits.limits.tokens_of_one_text()
    }

    /// Notes that texts of a call may be blamed.
    fn refuse(&self, batch: &Batch<'_>, of: &[usize]) {
        let mut ledger = self.0.books.ledger();
        for text in of.iter().map(|&index| batch.texts()[index]) {
            ledger.refuse(batch.kind(), texts::cut(text, self.limit(), batch.truncation()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the behavior of the next call, and its time.
    fn draw(&self) -> (Option<Trick>, Takes) {
        if self.0.books.behaves.load(Ordering::SeqCst) {
            return (None, Takes::NoTime);
        }
        let habits = &self.0.habits;
        let state = &mut *self.state();
        let turn = habits.takes.get(state.calls as usize).or(habits.takes.last());
        let takes = if habits.in_turn { turn } else { state.random.choice(&habits.takes) };
        let takes = *takes.unwrap_or(&Takes::NoTime);
        state.calls += 1;
        let due = state.calls <= habits.first || state.random.u8(..habits.every.max(1)) == 0;
        let trick = state.random.choice(&habits.tricks).copied().filter(|_| state.budget > 0 && due);
        state.budget -= u32::from(trick.is_some());
        (trick, takes)
    }

    fn rows(&self, batch: &Batch<'_>, of: &[usize], space: &Space, usage: Usage) -> Embeddings {
        let limit = self.own_limit();
        let text = |index: usize| texts::cut(batch.texts()[index], limit, batch.truncation());
        let components =
            of.iter().flat_map(|&index| texts::vector(self.0.habits.space, batch.kind(), text(index))).collect();
        let rows = Embeddings::new(of.len(), space, components, usage).expect("finite rows of the space's width");
        let cut = (0..of.len()).filter(|&row| texts::is_over(batch.texts()[of[row]], limit));
        rows.with_truncated(cut.collect())
    }

    fn tokens(&self, batch: &Batch<'_>, of: &[usize]) -> u64 {
        let limit = self.own_limit();
        of.iter().map(|&index| texts::tokens(texts::cut(batch.texts()[index], limit, batch.truncation())) as u64).sum()
    }

    /// Returns the result of the call.
    fn answer(&self, batch: &Batch<'_>, trick: Option<Trick>, call: &mut Open<'_>) -> Result<Embeddings> {
        if matches!(trick, Some(Trick::PanicsFirst | Trick::PanicsLast)) {
            call.ending = Ending::Panicked;
            // No message on the screen: the panic is part of the play.
            resume_unwind(Box::new("as scripted"));
        }
        let state = &mut *self.state();
        let random = &mut state.random;
        let all: Vec<usize> = (0..batch.len()).collect();
        let omits = self.0.habits.omits.is_some_and(|one_in| random.u8(..one_in) == 0);
        let usage = Usage::of_request((!omits).then(|| self.tokens(batch, &all)));
        let Some(trick) = trick else {
            call.ending = Ending::Right;
            let rows = self.rows(batch, &all, &self.0.space, usage);
            let quota = RateLimitWindow::new(600).with_remaining(random.u64(..600)).with_reset(Duration::from_secs(30));
            let rate_limit_status = RateLimitStatus::default().with_requests(quota);
            return Ok(if self.0.habits.allows { rows.with_rate_limit_status(rate_limit_status) } else { rows });
        };
        call.ending = Ending::Failed;
        let refused = random.usize(..batch.len());
        let some: Vec<usize> = all.iter().copied().filter(|&index| index != refused && random.bool()).collect();
        let part = |of: &[usize], space: &Space| {
            let usage = Usage::of_request(Some(self.tokens(batch, of)));
            Partial::new(of.to_vec(), self.rows(batch, of, space, usage)).expect("indices ascend")
        };
        let with_part = |error: Error, of: &[usize]| match of {
            [] => error,
            _ => error.with_partial(part(of, &self.0.space)),
        };
        // No more tokens than the texts can have.
        let spent = random.u64(..=self.tokens(batch, &all));
        let spent = if random.bool() { Usage::of_request(Some(spent)) } else { Usage::ZERO };
        let names = |index: usize| Error::invalid_texts(vec![BadText::new(index, BadTextReason::Rejected)]);
        let error = match trick {
            Trick::FewerRows | Trick::MoreRows | Trick::OtherSpace | Trick::Absurd => {
                let mut of = all;
                let (mut space, mut usage) = (&self.0.space, usage);
                match trick {
                    Trick::FewerRows => of.truncate(of.len() - 1),
                    Trick::MoreRows => of.push(0),
                    Trick::OtherSpace => space = &self.0.other,
                    _ => {
                        usage = Usage::of_request(Some(1_000_000_000));
                        call.ending = Ending::Right;
                    }
                }
                return Ok(self.rows(batch, &of, space, usage));
            }
            Trick::PanicsFirst | Trick::PanicsLast => unreachable!("it has panicked"),
            Trick::FailsForNow => failure(random, true, &self.0.habits.waits),
            Trick::Fails => failure(random, false, &self.0.habits.waits),
            Trick::FailsWithRows => with_part(failure(random, true, &self.0.habits.waits), &some),
            Trick::RefusesOnce | Trick::RefusesOnceWithRows => {
                self.refuse(batch, &[refused]);
                let with_rows = trick == Trick::RefusesOnceWithRows;
                with_part(names(refused), if with_rows { &some } else { &[] })
            }
            Trick::RefusesUnnamed => {
                self.refuse(batch, &all);
                Error::new(ErrorKind::InvalidInput, "one of them, as scripted")
            }
            Trick::NamesFinished => {
                self.refuse(batch, &[refused]);
                with_part(names(refused), &all)
            }
            Trick::NamesOther => names(batch.len() + random.usize(..5)),
            Trick::FinishesOther => {
                let rows = self.rows(batch, &all, &self.0.space, Usage::of_request(Some(self.tokens(batch, &all))));
                let places = all.iter().map(|index| index + 1).collect();
                let part = Partial::new(places, rows).expect("indices ascend");
                failure(random, true, &self.0.habits.waits).with_partial(part)
            }
            Trick::FinishesInOtherSpace => {
                failure(random, true, &self.0.habits.waits).with_partial(part(&all, &self.0.other))
            }
        };
        Err(error.with_usage(spent).with_embedder(self))
    }
}

/// Draws an error of a random kind. Only errors that may pass ask for a wait.
fn failure(random: &mut Rng, for_now: bool, waits: &Waits) -> Error {
    use ErrorKind::{
        Auth, Cache, Config, DeadlinePassed, Inference, Protocol, QuotaExhausted, RateLimited, SpaceMismatch, Timeout,
        Unavailable,
    };
    let passing = [RateLimited, Timeout, Unavailable, Unavailable];
    let all = [Auth, Cache, Config, DeadlinePassed, Inference, Protocol, QuotaExhausted, SpaceMismatch, Unavailable];
    let kind = if for_now { passing[random.usize(..4)] } else { all[random.usize(..9)] };
    let error = Error::new(kind, "as scripted");
    if for_now && random.bool() { error.with_retry_after(waits.draw(random)) } else { error }
}

/// A call under way. Its end goes into the ledger in any case.
struct Open<'a> {
    member: &'a Member,
    number: usize,
    ending: Ending,
    charged: Usage,
}

impl<'a> Open<'a> {
    fn begin(member: &'a Member, batch: &Batch<'_>) -> Self {
        let books = &member.0.books;
        let running = books.running.fetch_add(1, Ordering::SeqCst) + 1;
        books.most.fetch_max(running, Ordering::SeqCst);
        let number = books.ledger().begin(member.0.number, batch, books.limit);
        Self { member, number, ending: Ending::Dropped, charged: Usage::ZERO }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let books = &self.member.0.books;
        books.running.fetch_sub(1, Ordering::SeqCst);
        books.ledger().end(self.number, self.ending, self.charged);
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.number {
            0 => f.write_str("member"),
            number => write!(f, "member {}", number + 1),
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("habits", &self.0.habits).finish_non_exhaustive()
    }
}

#[async_trait]
impl Embedder for Member {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.0.habits.limits).map_err(|error| error.with_embedder(self))?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&self.0.space));
        }
        let limit = self.own_limit();
        let over: Vec<usize> = (0..batch.len()).filter(|&at| texts::is_over(batch.texts()[at], limit)).collect();
        if batch.truncation() == Truncation::Error && !over.is_empty() {
            let bad = |at: usize| BadText::new(at, BadTextReason::TooLong { tokens: 99, limit: limit.unwrap_or(0) });
            return Err(Error::invalid_texts(over.into_iter().map(bad).collect()).with_embedder(self));
        }
        let mut call = Open::begin(self, &batch);
        let (trick, takes) = self.draw();
        if trick != Some(Trick::PanicsFirst) {
            let deadline = batch.deadline().filter(|_| self.0.habits.punctual);
            let began = Instant::now();
            if takes.wait(deadline).await.is_err() {
                call.ending = Ending::Failed;
                return Err(Error::new(ErrorKind::DeadlinePassed, "in the member").with_embedder(self));
            }
            let late = began.elapsed().saturating_sub(takes.at_least());
            if self.0.habits.read_within.is_some_and(|limit| late > limit) {
                (call.ending, call.charged) = (Ending::Unread, Usage::of_unanswered());
                let error = Error::new(ErrorKind::Timeout, "the answer was there and not read").with_embedder(self);
                return Err(error.with_usage(Usage::of_unanswered()));
            }
        }
        let result = self.answer(&batch, trick, &mut call);
        call.charged = match &result {
            Ok(rows) => rows.usage(),
            Err(error) => error.total_usage(),
        };
        result
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.space)
    }

    fn limits(&self) -> Limits {
        self.0.habits.limits.clone()
    }
}
