//! Makes the calls, and checks what each brings: [`make_calls`].

use std::{
    collections::BTreeMap,
    ops::RangeFrom,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use docvector_embed::{Batch, Charges, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Result};
use tokio::task::JoinSet;

use super::{
    members::{MODEL, NAMES},
    saboteur::Outage,
};
use crate::support::server_process::{random, text_of, vector};

/// Calls in flight.
const AT_ONCE: usize = 32;

/// A net: calls that take longer hang.
const FOR_EVER: Duration = Duration::from_secs(600);

/// The outcome of one call, as its caller saw it.
pub(super) struct Ended {
    /// What the caller was told of the cost; `None` if it left.
    pub(super) told: Option<Charges>,
    /// `None` if it was answered, or if the caller left.
    pub(super) failed: Option<Error>,
    /// Whether both servers were down from its begin to its end.
    pub(super) in_outage: bool,
}

impl Ended {
    /// Shows how the call ended, in a few words that many calls share.
    pub(super) fn show(&self) -> String {
        match (&self.failed, self.answered_by()) {
            (Some(error), _) => format!("failed: {}", error.kind()),
            (None, None) => "the caller left".to_owned(),
            (None, Some(payees)) => format!("answered, paid for at {}", payees.join(" and ")),
        }
    }

    /// Returns who is paid for the answer, if there is one.
    fn answered_by(&self) -> Option<Vec<&str>> {
        let told = self.told.as_ref().filter(|_| self.failed.is_none())?;
        let paid = told.iter().filter(|charge| charge.usage.tokens > 0).map(|charge| charge.payee.provider());
        // In the order of the names, not of the charges.
        let paid: Vec<&str> = paid.collect();
        Some(NAMES.into_iter().filter(|name| paid.contains(name)).collect())
    }
}

/// One call, as its number and the seed decide it.
#[derive(Debug)]
struct Call {
    number: u64,
    texts: Vec<String>,
    kind: InputKind,
    deadline: Option<Duration>,
    /// The caller leaves after this time.
    leaves: Option<Duration>,
}

impl Call {
    fn draw(seed: u64, number: u64) -> Self {
        let mut random = random(&[seed, number]);
        let text = |at: usize, random: &mut fastrand::Rng| text_of(number, at, &"x".repeat(random.usize(..60)));
        let mut texts: Vec<String> = (0..random.usize(1..9)).map(|at| text(at, &mut random)).collect();
        if random.u32(..10) == 0 {
            texts.push(texts[0].clone());
        }
        let kind = if random.bool() { InputKind::Query } else { InputKind::Document };
        let mut some =
            |of: u32, millis: u64| (random.u32(..of) == 0).then(|| Duration::from_micros(random.u64(..millis * 1_000)));
        Self { number, texts, kind, deadline: some(20, 60), leaves: some(30, 20) }
    }

    async fn make(&self, embedder: &impl Embedder, outage: &Outage) -> Ended {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let tenant = self.number.to_string();
        let mut batch = Batch::new(self.kind, &texts).with_tenant(&tenant);
        if let Some(deadline) = self.deadline {
            batch = batch.with_deadline(Instant::now() + deadline);
        }
        let before = outage.number();
        let result = match self.leaves {
            None => Some(embedder.embed_all(batch).await),
            Some(time) => tokio::time::timeout(time, embedder.embed_all(batch)).await.ok(),
        };
        let in_outage = before.is_some() && before == outage.number();
        let Some(result) = result else { return Ended { told: None, failed: None, in_outage } };
        self.check(&result);
        assert!(!(in_outage && result.is_ok()), "call {} was answered with both servers down", self.number);
        let (told, failed) = match result {
            Ok(rows) => (rows.charges().clone(), None),
            Err(error) => (error.total_charges(), Some(error)),
        };
        Ended { told: Some(told), failed, in_outage }
    }

    /// Fails unless each row is its text's own, and the error is one of those that the servers give cause for.
    fn check(&self, result: &Result<Embeddings>) {
        match result {
            Ok(rows) => self.check_rows(&(0..self.texts.len()).collect::<Vec<_>>(), rows),
            Err(error) => {
                self.check_error(error);
                error.partials().for_each(|partial| self.check_rows(partial.indices(), partial.embeddings()));
            }
        }
    }

    fn check_rows(&self, places: &[usize], rows: &Embeddings) {
        assert_eq!(rows.len(), places.len(), "call {}: one row per text", self.number);
        for (&place, row) in places.iter().zip(rows.rows()) {
            assert_eq!(row, vector(MODEL, &self.texts[place]), "call {}: row {place}", self.number);
        }
    }

    fn check_error(&self, error: &Error) {
        // The wrapper would have lost them: a server that leaves rows out is told so in other words.
        assert!(!error.message().contains("no part had them"), "call {}: {error}", self.number);
        match error.kind() {
            ErrorKind::DeadlinePassed => assert!(self.deadline.is_some(), "call {}: {error}", self.number),
            ErrorKind::Protocol | ErrorKind::RateLimited | ErrorKind::Timeout | ErrorKind::Unavailable => {
                let says = |name| {
                    [": ", " was not asked: "].iter().any(|rest| error.message().contains(&format!("{name}{rest}")))
                };
                assert!(NAMES.into_iter().all(says), "call {} does not say of each member why: {error}", self.number);
            }
            _ => panic!("call {}: {error}", self.number),
        }
    }
}

/// Makes all calls, so many at once, and returns how they ended.
pub(super) async fn make_calls(
    embedder: Arc<impl Embedder>,
    seed: u64,
    calls: u64,
    outage: &Arc<Outage>,
) -> Vec<Ended> {
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (embedder, next, outage) = (embedder.clone(), next.clone(), outage.clone());
        callers.spawn(async move {
            let mut ended = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return ended;
                }
                ended.push((number, Call::draw(seed, number).make(&embedder, &outage).await));
            }
        });
    }
    let all = async { callers.join_all().await.into_iter().flatten().collect() };
    let all: BTreeMap<u64, Ended> = tokio::time::timeout(FOR_EVER, all).await.expect("nothing hangs");
    all.into_values().collect()
}

/// Makes calls of these numbers on until the primary answers one alone, as it must once all servers are well.
pub(super) async fn until_well(
    embedder: &impl Embedder,
    seed: u64,
    numbers: RangeFrom<u64>,
    outage: &Outage,
) -> Vec<Ended> {
    let began = Instant::now();
    let mut ended = Vec::new();
    for number in numbers {
        let call = Call::draw(seed, number).make(embedder, outage).await;
        let is_well = call.answered_by() == Some(vec![NAMES[0]]);
        ended.push(call);
        if is_well {
            break;
        }
        assert!(began.elapsed() < FOR_EVER, "the primary is well again, and is not asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ended
}
