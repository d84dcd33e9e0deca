//! Plays a member by a script, with a log and an exact bill: [`Scripted`].

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Partial, Result, Space, Usage, async_trait, provider::Fake,
};
use tokio::time::Instant;

/// What a call meets. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Answer(u64),
    Fail(u64, ErrorKind),
    /// Finishes every second row, from the first on, and fails.
    Rows(u64, ErrorKind),
    Panic(u64),
    /// Answers with vectors of other texts, as another model would.
    Lie(u64),
    Hang,
}

/// A call that asks the script what it meets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The time since the member was made, in milliseconds.
    pub(super) at: u64,
    /// The calls before it.
    pub(super) number: usize,
    pub(super) texts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Running,
    Answered,
    Failed(ErrorKind),
    Dropped,
}

/// One call in the log.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    /// Who called: the batch's tenant.
    pub(super) tenant: Option<String>,
    pub(super) texts: Vec<String>,
    /// In milliseconds, as the end.
    pub(super) begin: u64,
    pub(super) end: Option<u64>,
    pub(super) how: How,
    /// What its caller has to hear of.
    pub(super) bill: Usage,
}

/// A member whose behaviour is a function of the time. Clones are the same member.
#[derive(Clone)]
pub(super) struct Scripted(Arc<Shared>);

struct Shared {
    name: &'static str,
    fake: Fake,
    start: Instant,
    script: Box<dyn Fn(Asked) -> Act + Send + Sync>,
    keeps_deadlines: bool,
    log: Mutex<Vec<Logged>>,
}

impl Scripted {
    pub(super) fn new(name: &'static str, script: impl Fn(Asked) -> Act + Send + Sync + 'static) -> Self {
        Self::made(name, true, script)
    }

    /// Does not look at the deadlines of its calls.
    pub(super) fn without_deadlines(name: &'static str, script: impl Fn(Asked) -> Act + Send + Sync + 'static) -> Self {
        Self::made(name, false, script)
    }

    fn made(name: &'static str, keeps_deadlines: bool, script: impl Fn(Asked) -> Act + Send + Sync + 'static) -> Self {
        let fake = Fake::builder().with_dimensions(8).without_log().build().expect("valid");
        let log = Mutex::default();
        Self(Arc::new(Shared { name, fake, start: Instant::now(), script: Box::new(script), keeps_deadlines, log }))
    }

    pub(super) fn fake(&self) -> &Fake {
        &self.0.fake
    }

    pub(super) fn log(&self) -> Vec<Logged> {
        self.locked().clone()
    }

    /// The times at which calls began.
    pub(super) fn begins(&self) -> Vec<u64> {
        self.locked().iter().map(|call| call.begin).collect()
    }

    /// What the callers have to hear of, together.
    pub(super) fn bill(&self) -> Usage {
        self.locked().iter().map(|call| call.bill).sum()
    }

    /// What this caller has to hear of.
    pub(super) fn bill_of<'t>(&self, tenant: impl Into<Option<&'t str>>) -> Usage {
        let (log, tenant) = (self.locked(), tenant.into());
        log.iter().filter(|call| call.tenant.as_deref() == tenant).map(|call| call.bill).sum()
    }

    /// Whether a call failed here within this time, or was dropped after so long a time. In milliseconds.
    pub(super) fn failed_between(&self, from: u64, to: u64, limit: u64) -> bool {
        self.locked().iter().any(|call| {
            let fails = match (call.how, call.end) {
                (How::Failed(_), _) => true,
                (How::Dropped, Some(end)) => end - call.begin >= limit,
                _ => false,
            };
            fails && call.end.is_some_and(|end| (from..=to).contains(&end))
        })
    }

    /// The milliseconds since it was made.
    pub(super) fn now(&self) -> u64 {
        self.0.start.elapsed().as_millis() as u64
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Logged>> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, batch: &Batch<'_>) -> (UnderWay<'_>, Act) {
        let asked = Asked { at: self.now(), number: self.locked().len(), texts: batch.len() };
        let call = Logged {
            tenant: batch.tenant().map(str::to_owned),
            texts: batch.texts().iter().map(ToString::to_string).collect(),
            begin: asked.at,
            end: None,
            how: How::Running,
            bill: Usage::ZERO,
        };
        let mut log = self.locked();
        log.push(call);
        (UnderWay { member: self, place: log.len() - 1 }, (self.0.script)(asked))
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, "as scripted").with_embedder(self).with_usage(Usage::of_unanswered())
    }

    async fn act(&self, act: Act, batch: Batch<'_>) -> Result<Embeddings> {
        let wait = |time| tokio::time::sleep(Duration::from_millis(time));
        match act {
            Act::Answer(time) => {
                wait(time).await;
                self.0.fake.embed(batch).await
            }
            Act::Fail(time, kind) => {
                wait(time).await;
                Err(self.error(kind))
            }
            Act::Rows(time, kind) => {
                wait(time).await;
                let places: Vec<usize> = (0..batch.len()).step_by(2).collect();
                let texts: Vec<&str> = places.iter().map(|&place| batch.texts()[place]).collect();
                let rows = self.0.fake.embed(batch.with_texts(&texts)).await?;
                Err(self.error(kind).with_partial(Partial::new(places, rows)?))
            }
            Act::Panic(time) => {
                wait(time).await;
                // A panic that nobody shows.
                std::panic::resume_unwind(Box::new("as scripted"))
            }
            Act::Lie(time) => {
                wait(time).await;
                let others: Vec<String> = batch.texts().iter().map(|text| format!("not {text}")).collect();
                let others: Vec<&str> = others.iter().map(String::as_str).collect();
                self.0.fake.embed(batch.with_texts(&others)).await
            }
            Act::Hang => std::future::pending().await,
        }
    }
}

/// Notes the end of a call, however it ends.
struct UnderWay<'m> {
    member: &'m Scripted,
    place: usize,
}

impl UnderWay<'_> {
    fn end(&self, how: How, bill: Usage) {
        let now = self.member.now();
        let call = &mut self.member.locked()[self.place];
        if call.how == How::Running {
            (call.end, call.how, call.bill) = (Some(now), how, bill);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let how = if std::thread::panicking() { How::Failed(ErrorKind::Inference) } else { How::Dropped };
        self.end(how, Usage::of_given_up());
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

#[async_trait]
impl Embedder for Scripted {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits())?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&self.spaces()[0]));
        }
        let (call, act) = self.begin(&batch);
        let deadline = batch.deadline().filter(|_| self.0.keeps_deadlines);
        let result = match deadline {
            None => self.act(act, batch).await,
            Some(deadline) => {
                let late = |_| Err(self.error(ErrorKind::DeadlinePassed));
                tokio::time::timeout_at(deadline.into(), self.act(act, batch)).await.unwrap_or_else(late)
            }
        };
        match &result {
            Ok(rows) => call.end(How::Answered, rows.usage()),
            Err(error) => call.end(How::Failed(error.kind()), error.total_usage()),
        }
        result
    }

    fn spaces(&self) -> &[Space] {
        self.0.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.fake.limits()
    }
}
