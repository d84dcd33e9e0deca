//! Starts the threads of a command and waits for them.

use std::thread::{self, JoinHandle};

use crate::failure::Failure;

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Failure::with_cause(format!("the {name} thread cannot be started"), error))
}

/// Waits for a thread and returns its result. A panic in it is an error.
pub(crate) fn join<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new("a thread panicked: this is a bug"))
}
