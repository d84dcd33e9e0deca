//! Runs the thread on which all jobs of an embedder go on: [`Worker`].

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    context::Context,
    course::{Course, busy, open_journal, present_of},
    folder::JobFolder,
    handle::{Handle, JobRows, Order, TextsHash},
    journal::Journal,
    outcome::snapshot_of,
    pace::Pace,
    present::Present,
    record::Record,
    state::State,
    status::JobState,
};
use crate::{Error, ErrorKind, Result, Space, sync::Mutex};

/// How often a job that another process works on is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A request to the thread.
enum Message {
    /// Opens a job, or returns it if it is open.
    Open(String, oneshot::Sender<Result<Handle>>),
    /// Returns the jobs that are open.
    Handles(oneshot::Sender<Vec<Handle>>),
    /// Closes a job that has ended.
    Forget(String, oneshot::Sender<()>),
}

/// The thread. It ends when this is dropped: what was sent is in the journals.
pub(super) struct Worker {
    messages: Option<mpsc::UnboundedSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(context: Arc<Context>) -> Result<Self> {
        let (messages, received) = mpsc::unbounded_channel();
        let failed = |error: std::io::Error| {
            let message = format!("this machine gives no thread for batch jobs: {error}");
            Error::new(ErrorKind::Config, message).with_source(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let work = move || {
            runtime.block_on(serve(context, received));
            // A look-up of a host's name may still run, and is not waited for.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("docvector-batch".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { messages: Some(messages), thread: Some(thread) })
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let sent = self.messages.as_ref().is_some_and(|messages| messages.send(message(reply)).is_ok());
        let ended =
            || Error::new(ErrorKind::Unavailable, "the thread of the batch jobs has ended: build the embedder again");
        if sent { answer.await.map_err(|_| ended()) } else { Err(ended()) }
    }

    pub(super) async fn open(&self, id: String) -> Result<Handle> {
        self.ask(|reply| Message::Open(id, reply)).await?
    }

    pub(super) async fn handles(&self) -> Result<Vec<Handle>> {
        self.ask(Message::Handles).await
    }

    pub(super) async fn forget(&self, id: String) -> Result<()> {
        self.ask(|reply| Message::Forget(id, reply)).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.messages = None;
        // The thread itself may be the last to hold the embedder.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            _ = thread.join();
        }
    }
}

/// A job that is open, and the task that works on it.
struct OpenJob {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(context: Arc<Context>, mut messages: mpsc::UnboundedReceiver<Message>) {
    let mut jobs: HashMap<String, OpenJob> = HashMap::new();
    while let Some(message) = messages.recv().await {
        // A job that has ended and that no caller holds is closed.
        jobs.retain(|_, job| Arc::strong_count(&job.handle.id) > 1 || job.handle.snapshot.borrow().report.is_none());
        // Nobody is left to be told if a reply cannot be sent.
        match message {
            Message::Open(id, reply) => {
                let known = jobs.get(&id).filter(|job| !job.task.is_finished()).map(|job| job.handle.clone());
                let opened = match known {
                    Some(handle) => Ok(handle),
                    None => open(&context, &id).map(|job| {
                        let handle = job.handle.clone();
                        jobs.insert(id, job);
                        handle
                    }),
                };
                _ = reply.send(opened);
            }
            Message::Handles(reply) => _ = reply.send(jobs.values().map(|job| job.handle.clone()).collect()),
            Message::Forget(id, reply) => {
                if let Some(job) = jobs.remove(&id) {
                    job.task.abort();
                    _ = job.task.await;
                }
                _ = reply.send(());
            }
        }
    }
}

/// Opens a job and lets it go on.
fn open(context: &Arc<Context>, id: &str) -> Result<OpenJob> {
    let folder = context.jobs.job(id)?;
    let locked = open_journal(&folder)?;
    let (journal, state) = match locked {
        Some((journal, state)) => (Some(journal), state),
        None => (None, read(&folder)?),
    };
    check(context, &state)?;
    let pace = Pace::new(context.settings.shortest_poll, context.settings.longest_poll);
    let (snapshot, watched) = watch::channel(snapshot_of(&state, &pace, None, None, false));
    let (sender, orders) = mpsc::unbounded_channel();
    let shared = Arc::new(JobRows {
        path: folder.rows(),
        space: context.endpoint.space.clone(),
        // Another process may remove files that it is done with. Its rows are known when it has ended.
        present: Mutex::new(if journal.is_some() { present_of(&state, &folder)? } else { Present::none() }),
        truncated: state.plan.truncated.clone(),
    });
    let (kind, truncation) = (state.plan.kind(), state.plan.truncation());
    let texts = Arc::new(TextsHash { hash: state.plan.texts_hash.clone(), kind, truncation });
    let handle = Handle { id: id.into(), orders: sender, snapshot: watched, rows: shared.clone(), texts };
    let is_elsewhere = journal.is_none();
    let context = context.clone();
    let cancelled = HashSet::new();
    let course = Course {
        context,
        folder,
        journal,
        state,
        rows: None,
        shared,
        snapshot,
        orders,
        pace,
        cancelled,
        delete_tries: 0,
        odd: HashMap::new(),
        trouble: None,
    };
    let work = async move {
        let course = if is_elsewhere { wait_for_lock(course).await } else { Some(course) };
        if let Some(course) = course {
            course.run().await;
        }
    };
    Ok(OpenJob { handle, task: tokio::spawn(work) })
}

/// Reads a job's state without its lock.
pub(super) fn read(folder: &JobFolder) -> Result<State> {
    let path = folder.journal();
    State::of(Journal::read::<Record>(&path)?, &path)
}

/// Shows how far another process is, until it has ended or the job has.
async fn wait_for_lock(mut course: Course) -> Option<Course> {
    loop {
        match open_journal(&course.folder) {
            Ok(Some((journal, state))) => {
                let present = present_of(&state, &course.folder);
                course.journal = Some(journal);
                course.state = state;
                match present {
                    Ok(present) => course.shared.present.with(|own| *own = present),
                    Err(error) => tracing::warn!(
                        job = %course.state.plan.id,
                        error = %error,
                        "the rows of a batch job are not known: put back a copy of its folder"
                    ),
                }
                return Some(course);
            }
            Ok(None) => course.trouble = None,
            Err(error) if !course.folder.journal().exists() => {
                let mut gone = snapshot_of(&course.state, &course.pace, None, Some(error.clone()), false);
                gone.status.state = JobState::Paused;
                (gone.status.trouble, gone.report) = (Some(error.to_string()), None);
                course.snapshot.send_replace(gone);
                return None;
            }
            Err(error) => course.trouble = Some(error.to_string()),
        }
        if let Ok(state) = read(&course.folder) {
            let has_more = state.shards_ended != course.state.shards_ended;
            course.state = state;
            // If a file was removed meanwhile, the next look finds the newer state.
            if let (true, Ok(present)) = (has_more, present_of(&course.state, &course.folder)) {
                course.shared.present.with(|own| *own = present);
            }
        }
        let mut shown = snapshot_of(&course.state, &course.pace, course.trouble.clone(), None, false);
        if shown.status.state == JobState::Paused {
            let trouble = shown.status.trouble.take().unwrap_or_default();
            shown.status.trouble = Some(format!("in another process, which has to resume it or to end: {trouble}"));
        } else {
            shown.status.state = JobState::Elsewhere;
        }
        shown.report = None;
        course.snapshot.send_if_modified(|snapshot| {
            let is_new = snapshot.status != shown.status;
            *snapshot = shown;
            is_new
        });
        match tokio::time::timeout(LOOK, course.orders.recv()).await {
            Ok(Some(order)) => refuse(order, &course.state),
            Ok(None) => return None,
            Err(_) => {}
        }
    }
}

/// Answers an order while another process works on the job.
fn refuse(order: Order, state: &State) {
    let id = &state.plan.id;
    // A caller who has gone wants no answer.
    match order {
        Order::Cancel(reply) => _ = reply.send(Err(busy(id))),
        Order::Tell(reply) => _ = reply.send(Err(busy(id))),
        Order::Resume(reply) if state.paused.is_some() => _ = reply.send(Err(busy(id))),
        // It goes on already.
        Order::Resume(reply) => _ = reply.send(Ok(())),
    }
}

/// Refuses a job of another model or provider: its rows would be of no use, or its batches not found.
fn check(context: &Context, state: &State) -> Result<()> {
    let (plan, endpoint) = (&state.plan, &context.endpoint);
    let wrong = |what: &str, has: &str, own: &str| {
        let message =
            format!("job {} was submitted for {what} {has}, and this embedder has {own}: build it as then", plan.id);
        Err(Error::new(ErrorKind::Config, message))
    };
    let space = plan.space.parse::<Space>().map(|space| space.id());
    if space != Ok(endpoint.space.id()) {
        return wrong("the space", &plan.space, &endpoint.space.to_text());
    }
    let server = endpoint.url.origin().ascii_serialization();
    // A job that has ended needs no server.
    if plan.server != server && state.done.is_none() {
        return wrong("the server", &plan.server, &server);
    }
    if plan.model != endpoint.model && state.done.is_none() {
        let name = |model: &Option<String>| model.clone().unwrap_or_default();
        return wrong("the model", &name(&plan.model), &name(&endpoint.model));
    }
    Ok(())
}
