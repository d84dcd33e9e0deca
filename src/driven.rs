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
/// polled. Dropping it ends it, on a runtime with its next turn. A panic of the future comes to whoever waits.
///
/// Gives `None` where the runtime ended before the future did.
#[derive(Debug)]
pub(crate) struct Driven<T>(Kind<T>);

enum Kind<T> {
    Task(JoinHandle<T>),
    Polled(BoxFuture<'static, T>),
}

impl<T: Send + 'static> Driven<T> {
    /// Begins at once, where there is a runtime.
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(match Handle::try_current() {
            // What it logs belongs to whoever began it.
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
                Err(_) => None,
            }),
        }
    }
}

impl<T> Drop for Driven<T> {
    fn drop(&mut self) {
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
