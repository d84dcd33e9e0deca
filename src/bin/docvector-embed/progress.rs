//! Draws how far a run has come, on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TICK: Duration = Duration::from_millis(200);

/// A bar where it is known how much there is to do, else a counter. Clears itself when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// What is counted.
    noun: &'static str,
    started: Instant,
}

impl Progress {
    /// Counts `noun`, of which there are so many or of so many bytes.
    pub(crate) fn new(size: Option<u64>, noun: &'static str, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(size, target);
        let template = match size {
            Some(_) => "{bar:30} {percent:>3}%, {eta} left, {msg}",
            None => "{spinner} {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(format!("0 {noun}"));
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, noun, started: Instant::now() }
    }

    /// Says that something is under way of which nothing can be counted.
    pub(crate) fn waiting(message: &'static str, shown: bool) -> Self {
        let progress = Self::new(None, "", shown);
        progress.bar.set_message(message);
        progress
    }

    /// So much more of the size is done with, which makes so many in all.
    pub(crate) fn advance(&self, done: u64, count: u64) {
        let rate = count as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let noun = self.noun;
        self.bar.set_message(format!("{count} {noun}, {rate:.0} {noun}/s"));
        self.bar.inc(done);
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
