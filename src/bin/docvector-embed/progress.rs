//! Shows the progress of a run on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TICK: Duration = Duration::from_millis(200);

/// A bar if the size of the work is known, else a counter. Dropping it clears it.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The noun for the things that are counted, in the plural.
    noun: &'static str,
    started: Instant,
}

impl Progress {
    /// Starts to count `noun`. `size` is that of all work, in things or in bytes.
    pub(crate) fn new(size: Option<u64>, noun: &'static str, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(size, target);
        // No estimate before anything is done.
        bar.set_style(style(if size.is_some() { "{bar:30} {percent:>3}%, {msg}" } else { "{spinner} {msg}" }));
        bar.set_message(format!("0 {noun}"));
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, noun, started: Instant::now() }
    }

    /// Shows how many of so many parts are done on a terminal, with a message of its own.
    pub(crate) fn of_parts(parts: u64) -> Self {
        let progress = Self::new(Some(parts), "", true);
        progress.bar.set_message("");
        progress
    }

    /// Shows that `done` parts are done, and a message.
    pub(crate) fn show(&self, done: u64, message: String) {
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    /// Shows a message while nothing can be counted.
    pub(crate) fn waiting(message: &'static str, shown: bool) -> Self {
        let progress = Self::new(None, "", shown);
        progress.bar.set_message(message);
        progress
    }

    /// Adds `done` to the part of the size that is done. `count` things are done in all.
    pub(crate) fn advance(&self, done: u64, count: u64) {
        let rate = count as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let noun = self.noun;
        if self.bar.position() == 0 && self.bar.length().is_some() {
            self.bar.set_style(style("{bar:30} {percent:>3}%, {eta} left, {msg}"));
        }
        self.bar.set_message(format!("{count} {noun}, {rate:.0} {noun}/s"));
        self.bar.inc(done);
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
