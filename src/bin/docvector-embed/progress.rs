//! Draws how far a run has come, on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TICK: Duration = Duration::from_millis(200);

/// A bar by bytes where the size of the input is known, else a counter. Clears itself when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(size: Option<u64>, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(size, target);
        let template = match size {
            Some(_) => "{bar:30} {percent:>3}%, {eta} left, {msg}",
            None => "{spinner} {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message("0 texts");
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, started: Instant::now() }
    }

    /// So many bytes of input are done with, which makes so many texts in all.
    pub(crate) fn advance(&self, bytes: u64, texts: u64) {
        let rate = texts as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{texts} texts, {rate:.0} texts/s"));
        self.bar.inc(bytes);
    }

    /// The time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
