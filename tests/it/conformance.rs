//! The suite passes what keeps the laws, and fails what breaks one, by that law.

mod router;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use docvector_embed::{
    BadText, BadTextReason, Batch, Charges, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits,
    Partial, Prompts, Result, Space, SpaceId, Truncation, Usage, async_trait,
    conformance::{self, Suite},
    provider::Fake,
    wrap::Dedup,
};

/// Limits that make every law apply.
fn limits() -> Limits {
    Limits::none().with_texts(7).with_tokens_per_text(40)
}

fn fake() -> Fake {
    Fake::builder().with_dimensions(16).with_limits(limits()).build().expect("valid")
}

#[tokio::test]
async fn fakes_pass_with_every_limit() {
    for limits in [
        Limits::none(),
        limits(),
        Limits::none().with_texts(1),
        Limits::none().with_texts(3).with_tokens_per_text(40),
        Limits::none().with_bytes(100),
        Limits::none().with_tokens_per_call(20),
        Limits::none().with_tokens_per_call(100).with_tokens_per_text(40).with_in_flight(1),
    ] {
        let fake = Fake::builder().with_dimensions(16).with_limits(limits.clone()).build().expect("valid");
        Suite::new(&fake).run().await.unwrap_or_else(|violation| panic!("{limits:?}: {violation}"));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_fakes_pass() {
    let fake = Fake::builder().with_latency(std::time::Duration::from_secs(1)).build().expect("valid");
    Suite::new(&fake).run().await.expect("keeps the laws");
}

#[tokio::test]
async fn pointers_pass() {
    conformance::wrapper(Arc::new).await.expect("Arc keeps the laws");
    conformance::wrapper(|fake| Box::new(fake) as Box<dyn Embedder>).await.expect("Box keeps the laws");
}

#[tokio::test]
async fn dedup_passes() {
    conformance::wrapper(Dedup::new).await.expect("Dedup keeps the laws");
    conformance::wrapper(|fake| Arc::new(fake).dedup().dedup()).await.expect("a stack keeps the laws");
}

/// How an embedder is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    WrongOrder,
    ShiftedRows,
    DropsARow,
    WorksForNothing,
    OtherSpace,
    IgnoresWantedSpace,
    SpacesChange,
    NotANumber,
    DependsOnNeighbours,
    DependsOnPlace,
    KindForgotten,
    WrongIndices,
    OneIndexOnly,
    NamesTextsBeyond,
    EmbedsEmpty,
    EmbedsOverLong,
    TruncationNotNamed,
    WrongTextNamed,
    LosesUsage,
    DoublesUsage,
    SavesWithoutNeed,
    BreaksWhenDropped,
    ForgetsTheKey,
    LosesPartial,
    ShiftsPartial,
}

/// A wrapper that breaks one law.
#[derive(Debug)]
struct Broken {
    inner: Fake,
    fault: Fault,
    calls: AtomicU64,
    stuck: AtomicBool,
    spaces: [Vec<Space>; 2],
}

impl Broken {
    fn new(inner: Fake, fault: Fault) -> Self {
        let other = Space::builder("other", 16).build().expect("valid");
        let spaces = [inner.spaces().to_vec(), vec![other]];
        Self { inner, fault, calls: AtomicU64::new(0), stuck: AtomicBool::new(false), spaces }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The result with other components.
    fn rebuild(rows: &Embeddings, space: &Space, components: Vec<f32>) -> Result<Embeddings> {
        let count = components.len() / space.dimensions();
        Ok(Embeddings::new(count, space, components, rows.usage())?.with_truncated(rows.truncated().to_vec()))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.fault, self.inner)
    }
}

/// Marks its embedder as stuck if the call is dropped.
struct Stuck<'a>(&'a AtomicBool);

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Embedder for Broken {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.stuck.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Inference, "stuck"));
        }
        let stuck = self.is(Fault::BreaksWhenDropped).then(|| Stuck(&self.stuck));
        if stuck.is_some() && !batch.is_empty() {
            tokio::task::yield_now().await;
        }
        std::mem::forget(stuck);
        let mut inner = batch;
        if self.is(Fault::IgnoresWantedSpace) {
            inner = inner.with_space(self.spaces[0][0].id());
        }
        if self.is(Fault::KindForgotten) {
            let alone = batch.len() == 1;
            inner = Batch::new(if alone { batch.kind() } else { InputKind::Document }, batch.texts());
            inner = batch.space().map_or(inner, |space| inner.with_space(space)).with_truncation(batch.truncation());
        }
        if self.is(Fault::ForgetsTheKey) {
            inner = Batch::new(batch.kind(), batch.texts()).with_truncation(batch.truncation()).with_lane(batch.lane());
            inner = batch.space().map_or(inner, |space| inner.with_space(space));
            inner = batch.deadline().map_or(inner, |deadline| inner.with_deadline(deadline));
        }
        if self.is(Fault::EmbedsOverLong) {
            inner = inner.with_truncation(Truncation::Truncate);
        }
        let filled: Vec<&str> =
            batch.texts().iter().map(|&text| if text.is_empty() { "nothing" } else { text }).collect();
        if self.is(Fault::EmbedsEmpty) {
            inner = inner.with_texts(&filled);
        }
        let rows = self.inner.embed(inner).await.map_err(|error| match self.fault {
            Fault::WrongIndices => error.map_indices(|index| [index + 1]),
            Fault::NamesTextsBeyond if error.bad_texts().is_empty() && error.kind() == ErrorKind::InvalidInput => {
                Error::invalid_texts(vec![BadText::new(batch.len(), BadTextReason::Rejected)])
            }
            Fault::OneIndexOnly => match error.bad_texts() {
                [first, _, ..] => Error::invalid_texts(vec![first.clone()]),
                _ => error,
            },
            _ => error,
        })?;
        let (space, width) = (rows.space().clone(), rows.dimensions());
        let all = rows.as_slice();
        match self.fault {
            Fault::WrongOrder => Self::rebuild(&rows, &space, rows.rows().rev().flatten().copied().collect()),
            Fault::ShiftedRows if rows.len() > 1 => {
                Self::rebuild(&rows, &space, [&all[width..], &all[..width]].concat())
            }
            Fault::DropsARow if rows.len() > 1 => Self::rebuild(&rows, &space, all[width..].to_vec()),
            Fault::WorksForNothing if rows.is_empty() => Ok(rows.with_usage(Usage::of_request(Some(0)))),
            Fault::OtherSpace => Self::rebuild(&rows, &self.spaces[1][0], all.to_vec()),
            Fault::NotANumber => Self::rebuild(&rows, &space, vec![f32::NAN; all.len()]),
            Fault::DependsOnNeighbours => {
                let bent = all.iter().map(|value| value * (1.0 + 1e-4 * (rows.len() as f32 - 1.0)));
                Self::rebuild(&rows, &space, bent.collect())
            }
            Fault::DependsOnPlace => {
                let bent = all.iter().enumerate().map(|(i, value)| value + 1e-4 * (i / width) as f32);
                Self::rebuild(&rows, &space, bent.collect())
            }
            Fault::TruncationNotNamed => {
                Self::rebuild(&rows, &space, all.to_vec()).map(|rows| rows.with_truncated(vec![]))
            }
            Fault::WrongTextNamed => {
                let named: Vec<usize> = rows.truncated().iter().map(|index| (index + 1) % rows.len()).collect();
                Ok(rows.with_truncated(named))
            }
            Fault::LosesUsage => {
                let cut = rows.truncated().to_vec();
                Ok(Embeddings::new(rows.len(), &space, all.to_vec(), Usage::ZERO)?.with_truncated(cut))
            }
            Fault::DoublesUsage => {
                let usage = rows.usage();
                Ok(rows.with_usage(usage))
            }
            Fault::SavesWithoutNeed => Ok(rows.with_usage(Usage::ZERO.with_cached(1))),
            _ => Ok(rows),
        }
    }

    fn spaces(&self) -> &[Space] {
        let changed = self.is(Fault::SpacesChange) && self.calls.load(Ordering::Relaxed) % 2 == 1;
        &self.spaces[usize::from(changed)]
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

/// Puts the prompts of its space before each text, or the one of documents before all.
#[derive(Debug)]
struct Prompting {
    inner: Fake,
    space: Space,
    ignores_kind: bool,
}

impl Prompting {
    fn new(document: &str, query: &str, ignores_kind: bool) -> Self {
        let prompts = Prompts::new(document, query);
        let space = Space::builder("prompted", 16).with_prompts(prompts).build().expect("valid");
        Self { inner: fake(), space, ignores_kind }
    }
}

impl fmt::Display for Prompting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("prompting")
    }
}

#[async_trait]
impl Embedder for Prompting {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits())?;
        let kind = if self.ignores_kind { InputKind::Document } else { batch.kind() };
        let prompt = self.space.prompts().of(kind).unwrap_or_default();
        // The fake tells kinds apart by itself: it is always given documents here.
        let rows =
            batch.texts().iter().flat_map(|text| self.inner.vector_of(InputKind::Document, &format!("{prompt}{text}")));
        let usage = if batch.is_empty() { Usage::ZERO } else { Usage::of_request(None) };
        Embeddings::new(batch.len(), &self.space, rows.collect(), usage)
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.space)
    }

    fn limits(&self) -> Limits {
        Limits::none().with_texts(7)
    }
}

#[tokio::test]
async fn a_kind_that_is_ignored_is_found_where_prompts_differ() {
    for (document, query) in [("passage: ", "query: "), ("", "query: "), ("passage: ", "")] {
        Suite::new(&Prompting::new(document, query, false)).run().await.expect("keeps the laws");
        let violation = Suite::new(&Prompting::new(document, query, true)).run().await.expect_err("passed");
        assert_eq!(violation.law, 3);
        assert!(violation.what.contains("the vectors of both kinds are the same"), "{violation}");
    }
    // With equal prompts, or none, both kinds may have the same vectors.
    for prompt in ["", "text: "] {
        Suite::new(&Prompting::new(prompt, prompt, true)).run().await.expect("keeps the laws");
    }
}

#[tokio::test]
async fn a_violation_names_texts_by_plain_numbers() {
    let broken = Broken::new(fake(), Fault::ShiftedRows);
    let violation = Suite::new(&broken).order().await.expect_err("passed");
    assert!(violation.what.ends_with("row 0 is the vector of text 1"), "{violation}");
    let broken = Broken::new(fake(), Fault::NamesTextsBeyond);
    let violation = Suite::new(&broken).bad_texts().await.expect_err("passed");
    assert!(violation.what.contains("an error about text 8: "), "{violation}");
}

#[tokio::test]
async fn broken_embedders_fail_the_law_they_break() {
    for (fault, law) in [
        (Fault::WrongOrder, 2),
        (Fault::ShiftedRows, 2),
        (Fault::DropsARow, 1),
        (Fault::WorksForNothing, 1),
        (Fault::NotANumber, 1),
        (Fault::DependsOnNeighbours, 3),
        (Fault::DependsOnPlace, 3),
        (Fault::KindForgotten, 3),
        (Fault::EmbedsEmpty, 4),
        (Fault::OtherSpace, 5),
        (Fault::IgnoresWantedSpace, 5),
        (Fault::SpacesChange, 5),
        (Fault::WrongIndices, 6),
        (Fault::OneIndexOnly, 6),
        (Fault::NamesTextsBeyond, 6),
        (Fault::EmbedsOverLong, 7),
        (Fault::TruncationNotNamed, 7),
        (Fault::WrongTextNamed, 7),
        (Fault::BreaksWhenDropped, 8),
        (Fault::LosesUsage, 9),
        (Fault::DoublesUsage, 9),
        (Fault::SavesWithoutNeed, 9),
    ] {
        let broken = Broken::new(fake(), fault);
        let violation = Suite::new(&broken).run().await.expect_err(&format!("{fault:?} passed"));
        assert_eq!(violation.law, law, "{violation}");
        assert!(violation.to_string().starts_with(&format!("{fault:?}(fake) breaks law {law}: ")), "{violation}");
    }
}

/// A wrapper that makes many calls of one, as a cache does, and is broken in how it fails.
#[derive(Debug)]
struct Splits {
    inner: Fake,
    fault: Option<Fault>,
}

impl fmt::Display for Splits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Splits({})", self.inner)
    }
}

#[async_trait]
impl Embedder for Splits {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        if batch.is_empty() {
            return self.inner.embed(batch).await;
        }
        let result = self.inner.embed_all(batch).await;
        result.map_err(|error| match self.fault {
            Some(Fault::LosesPartial) => error.without_partial(),
            Some(Fault::ShiftsPartial) => error.map_indices(|index| [index + 1]),
            _ => error,
        })
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        let mut limits = self.inner.limits();
        limits.texts = None;
        limits
    }
}

#[tokio::test]
async fn a_wrapper_that_splits_passes_unless_it_loses_rows() {
    conformance::wrapper(|inner| Splits { inner, fault: None }).await.expect("keeps the laws");
    for (fault, law) in [(Fault::LosesPartial, 4), (Fault::ShiftsPartial, 6)] {
        let violation = conformance::wrapper(|inner| Splits { inner, fault: Some(fault) }).await;
        assert_eq!(violation.expect_err("passed").law, law);
    }
}

#[tokio::test]
async fn broken_wrappers_fail_from_inside() {
    let violation = conformance::wrapper(|inner| Broken::new(inner, Fault::ForgetsTheKey)).await;
    let violation = violation.expect_err("passed");
    assert!(violation.law == 3 && violation.what.contains("options did not reach the inside"), "{violation}");
}

/// How a wrapper is broken that passes everything on but what a failure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    BlamesTheLastTextForAnother,
    PanicsAtAnother,
    GivesTheLastTextTheRowOfAnother,
    NamesOnePlace,
    LosesRowsBesideNames,
    MixesRowsBesideNames,
    MixesRowsAfterNames,
    LosesTheCost,
    HidesTheUnreported,
    HidesTheUnanswered,
    LosesThePayeeOfRows,
    LosesThePayeeOfErrors,
    ForgetsTheTenant,
    ForgetsTheTrace,
    ForgetsTheObserver,
}

#[derive(Debug)]
struct Fails {
    inner: Fake,
    fault: Failing,
    named: AtomicBool,
}

impl Fails {
    fn new(inner: Fake, fault: Failing) -> Self {
        Self { inner, fault, named: AtomicBool::new(false) }
    }

    /// The same error with another cost and payee.
    fn charged(error: &Error, charges: impl Into<Charges>) -> Error {
        let plain = match error.bad_texts() {
            [] => Error::new(error.kind(), error.message()),
            named => Error::invalid_texts(named.to_vec()),
        };
        let plain = plain.with_charges(&charges.into());
        error.partial().cloned().into_iter().fold(plain, Error::with_partial)
    }

    fn fail(&self, error: Error, texts: usize) -> Error {
        let both = error.partial().is_some() && !error.bad_texts().is_empty();
        let with_rows = |indices: &[usize], order: &[usize]| {
            let rows = error.partial().expect("there are rows").embeddings().select(order);
            error.clone().with_partial(Partial::new(indices.to_vec(), rows).expect("ascending"))
        };
        let mut usage = error.usage();
        match (self.fault, error.partial()) {
            (Failing::BlamesTheLastTextForAnother, None) => error.map_indices(|index| [index.min(texts - 1)]),
            (Failing::PanicsAtAnother, _) => {
                let places: Vec<usize> = (0..texts).collect();
                error.map_indices(|index| [places[index]])
            }
            (Failing::GivesTheLastTextTheRowOfAnother, Some(partial)) if partial.indices()[0] >= texts => {
                with_rows(&[texts - 1], &[0])
            }
            (Failing::NamesOnePlace, Some(partial)) if both => Error::invalid_texts(vec![error.bad_texts()[0].clone()])
                .with_charges(error.charges())
                .with_partial(partial.clone()),
            (Failing::LosesRowsBesideNames, _) if both => error.without_rows(),
            (Failing::MixesRowsBesideNames, Some(partial)) if both => {
                let order: Vec<usize> = (0..partial.indices().len()).rev().collect();
                with_rows(partial.indices(), &order)
            }
            (Failing::LosesTheCost, _) => Self::charged(&error, Charges::NONE),
            (Failing::HidesTheUnreported, _) => {
                usage.unreported = 0;
                Self::charged(&error, usage)
            }
            (Failing::HidesTheUnanswered, _) => {
                usage.unanswered = 0;
                Self::charged(&error, usage)
            }
            (Failing::LosesThePayeeOfErrors, _) => Self::charged(&error, usage),
            _ => error,
        }
    }
}

impl fmt::Display for Fails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.fault, self.inner)
    }
}

#[async_trait]
impl Embedder for Fails {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let mut options = batch.options();
        match self.fault {
            Failing::ForgetsTheTenant => options.tenant = None,
            Failing::ForgetsTheTrace => options.trace = None,
            _ => {}
        }
        let observer = batch.observer().filter(|_| !matches!(self.fault, Failing::ForgetsTheObserver));
        let inner = Batch::with_options(batch.texts(), options);
        let inner = observer.map_or(inner, |observer| inner.with_observer(observer));
        let rows = match self.inner.embed(inner).await {
            Ok(rows) => rows,
            Err(error) => {
                let both = error.partial().is_some() && !error.bad_texts().is_empty();
                self.named.fetch_or(both, Ordering::Relaxed);
                return Err(self.fail(error, batch.len()));
            }
        };
        match self.fault {
            Failing::MixesRowsAfterNames if self.named.load(Ordering::Relaxed) => {
                Ok(rows.select(&(0..rows.len()).rev().collect::<Vec<_>>()))
            }
            Failing::LosesThePayeeOfRows => {
                Embeddings::new(rows.len(), rows.space(), rows.as_slice().to_vec(), rows.usage())
                    .map(|plain| plain.with_truncated(rows.truncated().to_vec()))
            }
            _ => Ok(rows),
        }
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[tokio::test]
async fn wrappers_that_are_broken_in_failures_fail_from_inside() {
    for (fault, law, what) in [
        (Failing::BlamesTheLastTextForAnother, 6, "was wrong about a text"),
        (Failing::PanicsAtAnother, 6, "panics where the inside is wrong"),
        (Failing::GivesTheLastTextTheRowOfAnother, 4, "the finished row of text"),
        (
            Failing::NamesOnePlace,
            6,
            "beside finished rows, texts [0, 2] are refused by the inner embedder, and [0] are named",
        ),
        (Failing::LosesRowsBesideNames, 4, "beside refused texts, a finished row is lost"),
        (Failing::MixesRowsBesideNames, 4, "the finished row of text"),
        (Failing::MixesRowsAfterNames, 2, "with a result for each text, row"),
        (Failing::LosesTheCost, 9, "callers are told"),
        (Failing::HidesTheUnreported, 9, "unreported: 0"),
        (Failing::HidesTheUnanswered, 9, "unanswered: 0"),
        (Failing::LosesThePayeeOfRows, 9, "callers are told that fake/fake is paid for"),
        (Failing::LosesThePayeeOfErrors, 9, "callers are told that fake/fake is paid for"),
        (Failing::ForgetsTheTenant, 3, "options did not reach the inside: tenant got lost"),
        (Failing::ForgetsTheTrace, 3, "options did not reach the inside: trace got lost"),
        (Failing::ForgetsTheObserver, 3, "options did not reach the inside: observer got lost"),
    ] {
        let violation = conformance::wrapper(|inner| Fails::new(inner, fault)).await;
        let violation = violation.expect_err(&format!("{fault:?} passed"));
        assert_eq!(violation.law, law, "{violation}");
        assert!(violation.what.contains(what), "{violation}");
        assert!(!violation.what.contains("Some("), "{violation}");
    }
}

#[test]
fn an_id_reads_what_it_writes() {
    let id = fake().spaces()[0].id();
    assert_eq!(id.to_string().parse::<SpaceId>().expect("hex"), id);
    assert!("0".repeat(31).parse::<SpaceId>().is_err() && "g".repeat(32).parse::<SpaceId>().is_err());
}
