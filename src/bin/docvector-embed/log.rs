//! Writes the log of the library: [`log_warnings`], [`with_warnings`].

use std::io;

use tracing_subscriber::fmt::MakeWriter;

/// Writes warnings of the library to stderr, from now on.
pub(crate) fn log_warnings() {
    // A program has one log, and this is its beginning.
    let _ = tracing::subscriber::set_global_default(warnings(io::stderr));
}

/// Writes the warnings of this work alone to stderr.
pub(crate) fn with_warnings<T>(work: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(warnings(io::stderr), work)
}

fn warnings<W: for<'w> MakeWriter<'w> + Send + Sync + 'static>(writer: W) -> impl tracing::Subscriber + Send + Sync {
    // Without colours, on a terminal too: they are a feature that is left out.
    let format = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_target(false);
    format.with_writer(writer).finish()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Colours are not built in, and asking for them panics.
    #[test]
    fn warnings_are_lines_without_colours() {
        let kept = Kept::default();
        let writer = kept.clone();
        tracing::subscriber::with_default(warnings(move || writer.clone()), || {
            tracing::warn!(store = "redis", "entries are evicted");
            tracing::info!("nobody reads this");
        });
        let text = String::from_utf8(kept.0.lock().expect("no panic").clone()).expect("UTF-8");
        assert!(text.contains("WARN") && text.trim_end().ends_with("entries are evicted store=\"redis\""), "{text:?}");
        assert!(!text.contains('\u{1b}') && text.lines().count() == 1, "{text:?}");
    }
}
