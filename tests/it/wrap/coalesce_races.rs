//! `Coalesce` when callers come, leave, fail and are late at random: each gets what is its own, and the bill adds up.

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use docvector_embed::{
    BadText, BadTextReason, Batch, Charges, Embedder, Embeddings, Error, ErrorKind, InputKind, Limits, Partial, Payee,
    Result, Space, Tier, Usage, async_trait, provider::Fake, wrap::Coalesce,
};
use fastrand::Rng;
use tokio::time::Instant;

/// The most texts of a caller, and of a group.
const OF_CALLER: usize = 3;
const OF_GROUP: usize = 8;
const CALLERS: usize = 40;
const WINDOW: Duration = Duration::from_millis(4);
/// Longer than anything takes here.
const FOR_EVER: Duration = Duration::from_secs(60);

/// Fails, is slow, and gives up at random. It names each bad text, and keeps an account.
#[derive(Clone)]
struct Moody(Arc<Moods>);

struct Moods {
    fake: Fake,
    random: Mutex<Rng>,
    fails: bool,
    account: Mutex<Account>,
}

#[derive(Default)]
struct Account {
    charged: Charges,
    sizes: Vec<usize>,
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

impl fmt::Debug for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

fn is_bad(text: &str) -> bool {
    text.starts_with("bad")
}

fn payee(name: &str) -> Payee {
    Payee::new("test", name, Tier::Standard)
}

/// A call under way, which costs something even if it is dropped.
struct UnderWay<'m>(&'m Moody, Charges);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.account.lock().expect("not poisoned").charged += &self.1;
    }
}

impl Moody {
    fn new(seed: u64, fails: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut limits = Limits::none();
        if random.bool() {
            limits = limits.with_texts(random.usize(OF_CALLER + 1..=OF_GROUP)).with_bytes(60);
        }
        let fake = Fake::builder().with_dimensions(3).with_limits(limits).without_log().build().expect("valid");
        Self(Arc::new(Moods { fake, random: Mutex::new(random), fails, account: Mutex::default() }))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.0.random.lock().expect("not poisoned"))
    }

    fn rows(&self, batch: &Batch<'_>, places: &[usize], charges: Charges) -> Embeddings {
        let vectors = places.iter().flat_map(|&at| self.0.fake.vector_of(batch.kind(), batch.texts()[at]));
        Embeddings::new(places.len(), &self.spaces()[0], vectors.collect(), charges).expect("valid")
    }

    /// Returns an error with rows of some texts that are not bad.
    fn fail(&self, batch: &Batch<'_>, error: Error) -> Error {
        let some: Vec<usize> =
            (0..batch.len()).filter(|&at| !is_bad(batch.texts()[at]) && self.draw(Rng::bool)).collect();
        let (own, of_rows) = self.draw(|random| (random.u64(..50), random.u64(..50)));
        let error = error.with_charges(&Charges::of(&payee("failed"), Usage::of_request(Some(own))));
        if some.is_empty() {
            return error;
        }
        let rows = self.rows(batch, &some, Charges::of(&payee("rows"), Usage::of_request(Some(of_rows))));
        error.with_partial(Partial::new(some, rows).expect("ascending"))
    }

    fn answer(&self, batch: &Batch<'_>) -> Result<Embeddings> {
        let bad: Vec<usize> = (0..batch.len()).filter(|&at| is_bad(batch.texts()[at])).collect();
        // More texts than a caller has are those of several: such a call may fail for one of them, and names none.
        let is_merged = batch.len() > OF_CALLER;
        let error = match self.draw(|random| random.u8(..12)) {
            0 if self.0.fails => Some(Error::new(ErrorKind::Unavailable, "as scripted")),
            1 if self.0.fails => Some(Error::new(ErrorKind::QuotaExhausted, "as scripted")),
            2 if self.0.fails => panic!("as scripted"),
            3 | 4 if self.0.fails && is_merged => Some(Error::new(ErrorKind::InvalidInput, "as scripted")),
            5 if self.0.fails && is_merged => Some(Error::new(ErrorKind::DeadlinePassed, "as scripted")),
            // Some embedders name one bad text at a time.
            6 => bad.first().map(|&at| Error::invalid_texts(vec![BadText::new(at, BadTextReason::Rejected)])),
            _ => None,
        };
        let all = || bad.iter().map(|&at| BadText::new(at, BadTextReason::Rejected)).collect();
        let error = error.or_else(|| (!bad.is_empty()).then(|| Error::invalid_texts(all())));
        match error {
            Some(error) => Err(self.fail(batch, error)),
            None => {
                let tokens = self.draw(|random| random.u64(..100));
                let usage = self.draw(|random| Usage::of_request((random.u8(..4) > 0).then_some(tokens)));
                Ok(self.rows(batch, &(0..batch.len()).collect::<Vec<_>>(), Charges::of(&payee("all"), usage)))
            }
        }
    }
}

#[async_trait]
impl Embedder for Moody {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits())?;
        let mut call = UnderWay(self, Usage::of_given_up().into());
        self.0.account.lock().expect("not poisoned").sizes.push(batch.len());
        for _ in 0..self.draw(|random| random.u8(..3)) {
            let millis = self.draw(|random| random.u64(..3));
            tokio::time::sleep(Duration::from_millis(millis)).await;
            tokio::task::yield_now().await;
        }
        let result = self.answer(&batch);
        call.1 = match &result {
            Ok(rows) => rows.charges().clone(),
            Err(error) => error.total_charges(),
        };
        result
    }

    fn spaces(&self) -> &[Space] {
        self.0.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.fake.limits()
    }
}

/// What one of many callers does.
struct Caller {
    texts: Vec<String>,
    kind: InputKind,
    key: Option<&'static str>,
    begins: Duration,
    /// After how many polls it leaves.
    polls: usize,
    /// After which time it leaves.
    stays: Duration,
    deadline: Option<Duration>,
}

impl Caller {
    fn random(random: &mut Rng) -> Self {
        let text = |random: &mut Rng| {
            let name = if random.u8(..12) == 0 { "bad" } else { "text" };
            format!("{name} {}", random.u8(..50))
        };
        let texts = (0..random.usize(1..=OF_CALLER)).map(|_| text(random)).collect();
        let millis = |from: u64, to: u64, random: &mut Rng| Duration::from_micros(random.u64(from * 1_000..to * 1_000));
        Self {
            texts,
            kind: if random.bool() { InputKind::Document } else { InputKind::Query },
            key: [None, None, Some("key")][random.usize(..3)],
            begins: millis(0, 20, random),
            polls: if random.u8(..6) == 0 { random.usize(1..12) } else { usize::MAX },
            stays: if random.u8(..6) == 0 { millis(0, 15, random) } else { FOR_EVER },
            deadline: (random.u8(..4) == 0).then(|| millis(6, 15, random)),
        }
    }
}

/// Polls a future so often at most, then drops it.
async fn at_most<F: Future<Output: Send> + Send>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let poll = future.as_mut().poll(context).map(Some);
        if left == 0 {
            context.waker().wake_by_ref();
        }
        poll
    })
    .await
}

/// Fails unless the result is this caller's own. Returns what the caller is told of the cost.
fn check(moody: &Moody, caller: &Caller, result: &Result<Embeddings>) -> Charges {
    let fake = &moody.0.fake;
    let is_own = |at: usize, row: &[f32]| row == fake.vector_of(caller.kind, &caller.texts[at]);
    let bad: Vec<usize> = (0..caller.texts.len()).filter(|&at| is_bad(&caller.texts[at])).collect();
    let error = match result {
        Ok(rows) => {
            assert!(bad.is_empty() && rows.len() == caller.texts.len());
            rows.rows().enumerate().for_each(|(at, row)| assert!(is_own(at, row), "row {at}"));
            return rows.charges().clone();
        }
        Err(error) => error,
    };
    for partial in error.partials() {
        let rows = partial.indices().iter().zip(partial.embeddings().rows());
        rows.for_each(|(&at, row)| assert!(is_own(at, row), "finished row {at}"));
    }
    let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
    assert!(named.iter().all(|at| bad.contains(at)), "{named:?} of {bad:?}: {error}");
    match error.kind() {
        ErrorKind::InvalidInput => assert!(!named.is_empty(), "a caller fails by another's texts: {error}"),
        ErrorKind::DeadlinePassed => assert!(caller.deadline.is_some(), "a caller fails by another's deadline"),
        kind => assert!(moody.0.fails, "{kind:?} was not scripted: {error}"),
    }
    error.total_charges()
}

/// Makes a caller's call. Returns what it is told of the cost, and whether it stayed to the end.
async fn ask(coalesce: Coalesce<Moody>, caller: Caller) -> (Charges, bool) {
    tokio::time::sleep(caller.begins).await;
    let texts: Vec<&str> = caller.texts.iter().map(String::as_str).collect();
    let mut batch = Batch::new(caller.kind, &texts);
    if let Some(key) = caller.key {
        batch = batch.with_key(key);
    }
    if let Some(deadline) = caller.deadline {
        batch = batch.with_deadline((Instant::now() + deadline).into_std());
    }
    let call = tokio::time::timeout(caller.stays, at_most(caller.polls, coalesce.embed(batch)));
    match call.await {
        Ok(Some(result)) => (check(coalesce.get_ref(), &caller, &result), true),
        Ok(None) => (Charges::NONE, false),
        Err(_) => {
            assert!(caller.stays < FOR_EVER, "a caller waits for ever");
            (Charges::NONE, false)
        }
    }
}

/// What happened in some races.
#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    left: usize,
    merged: usize,
    alone: u64,
    unclaimed: u64,
}

/// A clock that runs by itself may stop a caller for some milliseconds, so that a short deadline passes before its call
/// begins.
const NO_RACE_WITH_THE_CLOCK: Duration = Duration::from_secs(5);

async fn race(seed: u64, is_real: bool, seen: &mut Seen) {
    let mut random = Rng::with_seed(seed);
    let moody = Moody::new(seed, !seed.is_multiple_of(3));
    let coalesce = Coalesce::new(moody.clone(), WINDOW).with_max_texts(OF_GROUP);
    let tasks: Vec<_> = (0..CALLERS)
        .map(|_| {
            let mut caller = Caller::random(&mut random);
            caller.deadline = caller.deadline.map(|deadline| if is_real { NO_RACE_WITH_THE_CLOCK } else { deadline });
            tokio::spawn(ask(coalesce.clone(), caller))
        })
        .collect();
    let mut told = Charges::NONE;
    for task in tasks {
        let (charges, stayed) = task.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        told += &charges;
        *if stayed { &mut seen.answered } else { &mut seen.left } += 1;
    }
    let unclaimed = coalesce.unclaimed();
    told += &unclaimed;
    let account = moody.0.account.lock().expect("not poisoned");
    assert_eq!(told, account.charged, "seed {seed}: {:?}", coalesce.counts());
    assert!(account.sizes.iter().all(|&size| size <= OF_GROUP), "seed {seed}: {:?}", account.sizes);
    let counts = coalesce.counts();
    assert_eq!(counts.straight, 0, "seed {seed}: such calls would be told otherwise");
    seen.merged += account.sizes.iter().filter(|&&size| size > OF_CALLER).count();
    seen.alone += counts.alone;
    seen.unclaimed += unclaimed.usage().tokens;
}

/// Fails if the races had too little of something to show anything.
fn is_rich(seen: &Seen) {
    println!("{seen:?}");
    let Seen { answered, left, merged, alone, unclaimed } = *seen;
    assert!(answered > 1_000 && left > 200 && merged > 200 && alone > 20 && unclaimed > 500, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn each_gets_its_own_and_every_cost_is_told_once() {
    let mut seen = Seen::default();
    for seed in 0..300 {
        race(seed, false, &mut seen).await;
    }
    is_rich(&seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_several_threads_too() {
    let mut seen = Seen::default();
    for seed in 0..80 {
        race(seed, true, &mut seen).await;
    }
    println!("{seen:?}");
    assert!(seen.answered > 0 && seen.left > 0, "{seen:?}");
}
