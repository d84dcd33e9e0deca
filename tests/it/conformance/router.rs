//! Routers that keep the laws pass, and a router that breaks a law fails with the law's number.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use docvector_embed::{
    BadText, Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, Limits, Result, RowCollector, Space,
    Truncation, async_trait, conformance, provider::Fake,
};

/// The fault of a broken router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ListsOneSpace,
    IgnoresTheWantedSpace,
    AsksBeforeItRefuses,
    RoutesByText,
    RoutesByKind,
    TakesTurnsWithoutAKey,
    SplitsWhatHasNoKey,
    AgreesWithNoOther,
    FallsAcross,
    StaysAcross,
    StatesTheLargerLimits,
    CutsInSilence,
    ForgetsTheTenant,
    LosesRows,
    ShiftsNames,
    HidesTheCost,
    PaysTwice,
    StaysStuck,
}

/// A router's treatment of a batch that has neither a key nor a wanted space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyless {
    First,
    Refused,
}

#[derive(Debug)]
struct Router {
    arms: Vec<Fake>,
    spaces: Vec<Space>,
    limits: Limits,
    keyless: Keyless,
    fault: Option<Fault>,
    turn: AtomicUsize,
    failed: AtomicBool,
    busy: AtomicBool,
}

impl Router {
    fn new(arms: Vec<Fake>, keyless: Keyless, fault: Option<Fault>) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let mut spaces: Vec<Space> = arms.iter().flat_map(|arm| arm.spaces().to_vec()).collect();
        let mut limits = arms[0].limits().combine(&arms[1].limits());
        match fault {
            Some(Fault::ListsOneSpace) => spaces.truncate(1),
            Some(Fault::StatesTheLargerLimits) => limits = arms[1].limits(),
            _ => {}
        }
        let turn = AtomicUsize::new(MADE.fetch_add(1, Ordering::Relaxed));
        let (failed, busy) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { arms, spaces, limits, keyless, fault, turn, failed, busy }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Returns the arm of a batch.
    fn arm(&self, batch: &Batch<'_>) -> Result<usize> {
        let sum = |text: &str| text.bytes().map(usize::from).sum::<usize>();
        let wanted = batch.space().filter(|_| !self.is(Fault::IgnoresTheWantedSpace));
        let of_space = wanted.and_then(|wanted| self.spaces.iter().position(|space| space.id() == wanted));
        let by_key = match batch.key() {
            _ if self.is(Fault::RoutesByText) => sum(batch.texts()[0]),
            _ if self.is(Fault::RoutesByKind) => batch.kind() as usize,
            Some(_) if self.is(Fault::AgreesWithNoOther) => self.turn.load(Ordering::Relaxed),
            Some(_) if self.is(Fault::StaysAcross) && self.failed.load(Ordering::Relaxed) => 1,
            Some(key) => sum(key),
            None if self.is(Fault::TakesTurnsWithoutAKey) => self.turn.fetch_add(1, Ordering::Relaxed),
            None if self.is(Fault::SplitsWhatHasNoKey) => usize::from(batch.texts()[0].ends_with("for one arm 5")),
            None if self.keyless == Keyless::First || of_space.is_some() => 0,
            None => {
                return Err(Error::new(ErrorKind::SpaceMismatch, "neither a key nor a space says which arm it is"));
            }
        };
        Ok(of_space.unwrap_or(by_key % self.arms.len()))
    }

    fn fail(&self, error: Error, texts: usize) -> Error {
        self.failed.store(true, Ordering::Relaxed);
        match self.fault {
            Some(Fault::LosesRows) => error.without_rows(),
            Some(Fault::ShiftsNames) if !error.bad_texts().is_empty() && texts > 1 => {
                let shifted =
                    error.bad_texts().iter().map(|bad| BadText::new((bad.index + 1) % texts, bad.reason.clone()));
                let shifted = Error::invalid_texts(shifted.collect()).with_charges(error.charges());
                error.partial().cloned().into_iter().fold(shifted, Error::with_partial)
            }
            _ => error,
        }
    }
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({}, {})", self.arms[0], self.arms[1])
    }
}

#[async_trait]
impl Embedder for Router {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        if self.is(Fault::AsksBeforeItRefuses) {
            let other = Batch::new(batch.kind(), batch.texts()).with_key("any").with_truncation(Truncation::Truncate);
            if batch.space().is_some_and(|wanted| self.spaces.iter().all(|space| space.id() != wanted)) {
                self.arms[0].embed(other).await?;
            }
        }
        batch.check(self.spaces(), &self.limits)?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&self.spaces[0]));
        }
        let arm = self.arm(&batch)?;
        if self.is(Fault::StaysStuck) && self.busy.swap(true, Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Overloaded, "the one place is taken").mark_exhausted());
        }
        let mut options = batch.options();
        if self.is(Fault::ForgetsTheTenant) {
            options.tenant = None;
        }
        let inner = Batch::with_options(batch.texts(), options);
        let inner = batch.observer().map_or(inner, |observer| inner.with_observer(observer));
        let mut result = self.arms[arm].embed(inner).await;
        self.busy.store(false, Ordering::Relaxed);
        if self.is(Fault::FallsAcross) && result.as_ref().is_err_and(|error| error.should_fall_back()) {
            result = self.arms[1 - arm].embed(inner).await;
        }
        if self.is(Fault::PaysTwice) && result.is_ok() {
            let again = self.arms[arm].embed(inner).await?;
            result = result.map(|rows| rows.with_charges(again.charges()));
        }
        let rows = result.map_err(|error| self.fail(error, batch.len()))?;
        match self.fault {
            Some(Fault::CutsInSilence) => Ok(rows.with_truncated(Vec::new())),
            Some(Fault::HidesTheCost) => {
                let plain = Embeddings::new(rows.len(), rows.space(), rows.as_slice().to_vec(), rows.usage())?;
                Ok(plain.with_truncated(rows.truncated().to_vec()))
            }
            _ => Ok(rows),
        }
    }

    fn spaces(&self) -> &[Space] {
        &self.spaces
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }
}

#[tokio::test]
async fn routers_that_keep_an_arm_pass() {
    for keyless in [Keyless::First, Keyless::Refused] {
        let checked = conformance::router(|arms| Router::new(arms, keyless, None)).await;
        checked.unwrap_or_else(|violation| panic!("{keyless:?}: {violation}"));
        let checked = conformance::router(|arms| Router::new(arms, keyless, None).dedup()).await;
        checked.unwrap_or_else(|violation| panic!("a stack, {keyless:?}: {violation}"));
    }
}

/// A router that takes batches of any size, and splits them into calls itself.
#[derive(Debug)]
struct Whole(Router);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Whole({})", self.0)
    }
}

#[async_trait]
impl Embedder for Whole {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits())?;
        if batch.is_empty() {
            return self.0.embed(batch).await;
        }
        let arm = &self.0.arms[self.0.arm(&batch)?];
        let mut rows = RowCollector::new(batch.len());
        let (first, second) = batch.texts().split_at(batch.len() / 2);
        for (start, texts) in [(0, first), (first.len(), second)] {
            let put = match arm.embed_all(batch.with_texts(texts)).await {
                Ok(part) => rows.put(&part, |row| start + row),
                Err(error) => Err(error.map_indices(|index| [start + index])),
            };
            if let Err(error) = put {
                return Err(rows.fail(error));
            }
        }
        rows.finish()
    }

    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }

    fn limits(&self) -> Limits {
        let mut limits = self.0.limits();
        (limits.texts, limits.bytes, limits.tokens_per_call) = (None, None, None);
        limits
    }
}

#[tokio::test]
async fn a_router_that_makes_several_calls_of_one_passes() {
    let checked = conformance::router(|arms| Whole(Router::new(arms, Keyless::First, None))).await;
    checked.expect("keeps the laws");
}

#[tokio::test]
async fn broken_routers_fail_the_law_they_break() {
    for (fault, law, what) in [
        (Fault::ListsOneSpace, 5, "it announces"),
        (Fault::IgnoresTheWantedSpace, 5, "vector spaces differ"),
        (Fault::AsksBeforeItRefuses, 5, "1 calls were made before a space was refused"),
        (Fault::RoutesByText, 5, "lie in"),
        (Fault::RoutesByKind, 5, "lie in"),
        (Fault::TakesTurnsWithoutAKey, 5, "texts of key None lie in"),
        (Fault::SplitsWhatHasNoKey, 5, "20 texts of key None have no arm"),
        (Fault::AgreesWithNoOther, 5, "lie in"),
        (Fault::FallsAcross, 5, "lie in"),
        (Fault::StaysAcross, 5, "lie in"),
        (Fault::StatesTheLargerLimits, 1, "texts within its limits are refused"),
        (Fault::CutsInSilence, 7, "are said to be truncated"),
        (Fault::ForgetsTheTenant, 3, "options did not reach one arm alone (calls: 1; lost or changed: tenant)"),
        (Fault::LosesRows, 4, "a finished row is lost"),
        (Fault::ShiftsNames, 6, "are refused by the inner embedder"),
        (Fault::HidesTheCost, 9, "is paid for"),
        (Fault::PaysTwice, 9, "were embedded"),
        (Fault::StaysStuck, 8, "after a dropped call"),
    ] {
        let violation = conformance::router(|arms| Router::new(arms, Keyless::First, Some(fault))).await;
        let violation = violation.expect_err(&format!("{fault:?} passed"));
        assert!(violation.law == law && violation.what.contains(what), "{fault:?}: {violation}");
    }
}
