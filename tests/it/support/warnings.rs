//! Collects the warnings that a test causes: [`warnings_of`].

use std::{
    io,
    sync::{Arc, Mutex},
};

/// Keeps what is written to it.
#[derive(Clone, Default)]
pub(crate) struct Capture(pub(crate) Arc<Mutex<Vec<u8>>>);

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs this on one thread, and returns its output with the warnings and errors that were logged, one per line.
pub(crate) async fn warnings_of<T>(run: impl Future<Output = T>) -> (T, Vec<String>) {
    let capture = Capture::default();
    let writer = capture.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let output = run.await;
    drop(guard);
    let logged = std::mem::take(&mut *capture.0.lock().expect("nobody panicked"));
    (output, String::from_utf8_lossy(&logged).lines().map(str::to_owned).collect())
}
