//! Faults of the core that a stress found, each a test by its own name: no wrong row, no hang, nothing paid twice.

mod fairness;
mod hangs;
mod money;
mod openai;
mod streams;
mod wrong_rows;

use std::{
    fmt,
    future::poll_fn,
    ops::DerefMut,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, Embeddings, Error, InputKind, Limits, Partial, Result, Space, Usage, async_trait, provider::Fake,
    wrap::RetryPolicy,
};
use futures_util::FutureExt;

use crate::support::own;

const SECOND: Duration = Duration::from_secs(1);
/// A caller that has no answer after this time hangs: nothing here takes that long.
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Returns the usage of one request that took this many tokens.
fn request_of(tokens: u64) -> Usage {
    Usage::of_request(Some(tokens))
}

/// Returns the usage of one request whose reply did not report its tokens.
fn silent_request() -> Usage {
    Usage::of_request(None)
}

/// Returns the tokens and requests that are paid.
fn paid(usage: Usage) -> (u64, u64) {
    (usage.tokens, usage.requests)
}

/// Returns the cost that a call reports to its caller.
fn told(result: &Result<Embeddings>) -> Usage {
    result.as_ref().map_or_else(Error::total_usage, Embeddings::usage)
}

fn fake(limits: Limits) -> Fake {
    Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid")
}

/// Returns a policy that waits as long as the server asks, and at most a millisecond more.
fn patient() -> RetryPolicy {
    RetryPolicy::default().with_backoff(Duration::from_millis(1), Duration::from_millis(1)).without_budget()
}

/// Makes texts with numbers.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("text {i}")).collect()
}

/// Polls a future that nobody wakes.
fn poll<P: DerefMut<Target: Future>>(future: &mut Pin<P>) -> Option<<P::Target as Future>::Output> {
    future.as_mut().now_or_never()
}

/// Counts the polls that a future takes.
async fn polls_of<F: Future<Output: Send> + Send>(future: F) -> (F::Output, usize) {
    let mut future = pin!(future);
    let mut polls = 0;
    let output = poll_fn(|context| {
        polls += 1;
        future.as_mut().poll(context)
    })
    .await;
    (output, polls)
}

/// Fails if a row that came back, also with an error, is not its text's own, or if a text is both named as bad and
/// finished. Returns the places that have a row.
fn sound(fake: &Fake, texts: &[impl AsRef<str>], result: &Result<Embeddings>) -> Vec<usize> {
    let places = own(fake, texts, result);
    for bad in result.as_ref().err().iter().flat_map(|error| error.bad_texts()) {
        assert!(bad.index < texts.len(), "text {} of {} is named bad", bad.index, texts.len());
        assert!(!places.contains(&bad.index), "text {} is named bad, and its row is there", bad.index);
    }
    places
}

/// Makes a partial result: the rows of the documents at these places.
fn finished(fake: &Fake, texts: &[&str], places: &[usize], usage: Usage) -> Partial {
    let vectors = places.iter().flat_map(|&place| {
        let text = texts.get(place).copied().unwrap_or("of nobody");
        fake.vector_of(InputKind::Document, text)
    });
    let rows = Embeddings::new(places.len(), &fake.spaces()[0], vectors.collect(), usage).expect("a row a place");
    Partial::new(places.to_vec(), rows).expect("ascending")
}

/// The behavior of a [`Scripted`] in one call.
struct Step {
    /// Takes these steps one after the other, each with at least one poll of its own.
    waits: Vec<Duration>,
    then: Then,
}

enum Then {
    Answers,
    Gives(Usage),
    Fails(Error),
    Panics,
}

impl Step {
    /// Answers correctly.
    const fn answers() -> Self {
        Self { waits: Vec::new(), then: Then::Answers }
    }

    /// Answers with the right rows, and claims that they cost this.
    const fn gives(usage: Usage) -> Self {
        Self { waits: Vec::new(), then: Then::Gives(usage) }
    }

    const fn fails(error: Error) -> Self {
        Self { waits: Vec::new(), then: Then::Fails(error) }
    }

    const fn panics() -> Self {
        Self { waits: Vec::new(), then: Then::Panics }
    }

    /// Does the step after this time, which adds to other waits.
    fn after(mut self, wait: Duration) -> Self {
        self.waits.push(wait);
        self
    }
}

type Script = dyn Fn(usize, &Batch<'_>) -> Step + Send + Sync;

/// An embedder whose test says what it does in each call, numbered from 0. As a server does, it ignores deadlines while
/// it waits. Clones share the script and the log.
#[derive(Clone)]
struct Scripted {
    fake: Fake,
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Scripted {
    fn new(fake: &Fake, script: impl Fn(usize, &Batch<'_>) -> Step + Send + Sync + 'static) -> Self {
        Self { fake: fake.clone(), script: Arc::new(script), asked: Arc::default() }
    }

    /// The texts of each call that has begun.
    fn asked(&self) -> Vec<Vec<String>> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scripted")
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").finish_non_exhaustive()
    }
}

#[async_trait]
impl Embedder for Scripted {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let number = {
            let mut asked = self.asked.lock().expect("not poisoned");
            asked.push(batch.texts().iter().map(ToString::to_string).collect());
            asked.len() - 1
        };
        let Step { waits, then } = (self.script)(number, &batch);
        for wait in waits {
            tokio::time::sleep(wait).await;
        }
        match then {
            Then::Answers => self.fake.embed(batch).await,
            Then::Gives(usage) => {
                let rows = self.fake.embed(batch).await?;
                Embeddings::new(rows.len(), rows.space(), rows.as_slice().to_vec(), usage)
            }
            Then::Fails(error) => Err(error),
            Then::Panics => panic!("as scripted"),
        }
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}
