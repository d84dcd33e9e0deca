//! Runs a future whether or not somebody polls for its result: [`Driven`].

use std::{
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::Instrument;

/// A future under way. On a tokio runtime it is a task, which goes on by itself; elsewhere it goes on only while it is
/// polled. Dropping it ends it; a task ends at its next `await`. A panic of the future goes on in the caller that waits
/// for it.
///
/// It returns `None` if the runtime ended before the future did.
///
/// A call under way holds places in gates and rate limits, and has a time limit. If it stopped because its consumer is
/// busy, it would keep those places and run out of time. The consumer may even wait for one of those places: then both
/// would wait forever.
#[derive(Debug)]
pub(crate) struct Driven<T>(Kind<T>);

enum Kind<T> {
    Task(JoinHandle<T>),
    Polled(BoxFuture<'static, T>),
}

impl<T: Send + 'static> Driven<T> {
    /// Begins the future: on a tokio runtime at once, elsewhere with the first poll.
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(match Handle::try_current() {
            // A new task has no span: without this, its log lines would not belong to the caller's span.
            Ok(runtime) => Kind::Task(runtime.spawn(future.in_current_span())),
            Err(_) => Kind::Polled(Box::pin(future)),
        })
    }
}

impl<T> Future for Driven<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::Polled(future) => future.as_mut().poll(context).map(Some),
            Kind::Task(task) => Pin::new(task).poll(context).map(|ended| match ended {
                Ok(value) => Some(value),
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The task was aborted. `drop` aborts it too, but then nobody polls it: so the runtime has ended.
                Err(_) => None,
            }),
        }
    }
}

impl<T> Drop for Driven<T> {
    fn drop(&mut self) {
        // Dropping a `JoinHandle` does not end its task: it would go on, and be paid for, without a reader.
        if let Kind::Task(task) = &self.0 {
            task.abort();
        }
    }
}

impl<T> std::fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Task(_) => "Task",
            Self::Polled(_) => "Polled",
        })
    }
}
