//! Embeds a file: a thread reads windows, the embedder works on two of them, a thread writes the rows in order.
//!
//! In memory are at most: a window being read, two that are waiting, two being embedded, one waiting to be written and
//! one being written. Reading, embedding and writing never wait for each other otherwise. A cache adds a copy of the
//! windows being embedded, and what its file needs, which is bounded.

use std::{
    io::{self, Write},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, InputKind, Lane, Truncation,
    provider::{Onnx, TuningSource},
    wrap::Cached,
};
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use crate::{
    cache::Watched,
    cli::embed::{Job, OnError},
    failure::Failure,
    input::{Fault, Input, Item, Window},
    output::{Output, Rows},
    progress::Progress,
    runtime::runtime,
    tally::{Counted, Tally},
};

/// Windows that are read ahead.
const READ_AHEAD: usize = 2;
/// Windows being embedded: so the embedder has work while the rows of one are handed on.
const IN_FLIGHT: usize = 2;
/// Windows waiting to be written.
const WRITE_BEHIND: usize = 1;

/// Does the job, and says on stderr what it came to.
pub(crate) fn run(job: &Job) -> Result<(), Failure> {
    // What can be found wrong without the model is found before it is loaded.
    let input = Input::open(&job.input, job.jsonl)?;
    let output = Output::create(&job.output, job.format)?;
    let unwritten =
        if output.is_file() { format!("; nothing was written to {}", output.name()) } else { String::new() };
    let store = job.cache.as_deref().map(Watched::open).transpose()?;
    let model = job.load.builder(&job.model).build()?;
    let dimensions = model.dimensions()?;
    let cached = store.map(|store| Cached::new(model.clone(), store)).transpose()?;
    let embedder: &dyn Embedder = match &cached {
        Some(cached) => cached,
        None => &model,
    };
    // What is left of a run that came to nothing.
    let left = || match (&cached, &job.cache) {
        (Some(cached), Some(path)) if cached.counts().failures == 0 => {
            let stored = Counted(cached.counts().stored, "new vector");
            format!("{unwritten}; {stored} went into the cache {}", path.display())
        }
        _ => unwritten.clone(),
    };

    let progress = Progress::new(input.size(), "texts", job.shows_progress());
    let run = Run {
        embedder,
        kind: job.kind,
        too_long: job.too_long,
        on_error: job.on_error,
        failing: AtomicBool::new(false),
    };
    let (reading, windows) = mpsc::channel(READ_AHEAD);
    let (rows, mut writing) = mpsc::channel(WRITE_BEHIND);
    let reader = spawn("reader", move || read(input, &reading))?;
    let writer = spawn("writer", move || write(output, &mut writing))?;
    let embedded = runtime()?.block_on(async {
        // Dropped, the run lets go of the writer, which then removes what it has written so far.
        tokio::select! {
            embedded = run.embed(windows, rows, &progress) => embedded,
            signal = interrupted() => Err(Failure::new(format!("{signal}{}", left()))),
        }
    });
    let time = progress.elapsed();
    drop(progress);

    // The writer is waited for also where the run failed: it has a temporary file to remove.
    let written = join(writer);
    let mut tally = embedded?;
    let output = written??;
    // All windows came, or the writer would have failed; so the reader has nothing left but to say how it ended.
    join(reader)?;
    if !tally.faults.is_empty() {
        drop(output);
        // With stderr gone, the exit status says what is left to say.
        let _ = tally.faults.print(&mut io::stderr().lock());
        let count = Counted(tally.faults.count, "line");
        return Err(Failure::new(format!("{count} of {} cannot be embedded{}", tally.lines, left())));
    }
    output.finish(dimensions)?;
    tally.cache = cached.as_ref().map(Cached::counts);
    say(job, &tally, &model, dimensions, time);
    Ok(())
}

/// Waits for somebody to end the program.
async fn interrupted() -> &'static str {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            return tokio::select! {
                _ = tokio::signal::ctrl_c() => "interrupted",
                _ = terminated.recv() => "terminated",
            };
        }
    }
    let _ = tokio::signal::ctrl_c().await;
    "interrupted"
}

/// Ends a run that went well. That stderr is gone does not make it a failure.
fn say(job: &Job, tally: &Tally, model: &Onnx, dimensions: usize, time: Duration) {
    let (max_tokens, settings) = (model.info().max_tokens, &model.info().tuning_source);
    let mut stderr = io::stderr().lock();
    if !job.quiet {
        let settings = match settings {
            TuningSource::Defaults => String::new(),
            others => format!("; settings: {others}"),
        };
        let _ = writeln!(stderr, "{}{settings}", tally.summary(dimensions, max_tokens, time));
        return;
    }
    for note in tally.notes(max_tokens) {
        let _ = writeln!(stderr, "warning: {note}");
    }
}

/// What the reading thread does. Ends early when nobody wants more.
fn read(input: Input, windows: &mpsc::Sender<Result<Window, Failure>>) {
    for window in input {
        if windows.blocking_send(window).is_err() {
            break;
        }
    }
}

/// What the writing thread does: gives the output back when all rows are in it.
fn write(mut output: Output, rows: &mut mpsc::Receiver<Rows>) -> Result<Output, Failure> {
    while let Some(rows) = rows.blocking_recv() {
        output.write(&rows)?;
    }
    Ok(output)
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Failure> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Failure::because(format!("the {name} thread cannot be started"), error))
}

/// Waits for a thread. One that panicked has not done its work, however it looks from outside.
fn join<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new("a thread panicked: this is a bug"))
}

/// How windows are embedded.
struct Run<'a> {
    embedder: &'a dyn Embedder,
    kind: InputKind,
    too_long: Truncation,
    on_error: OnError,
    /// A bad line was found: nothing more is embedded, the rest is only checked.
    failing: AtomicBool,
}

/// What became of a window: its rows, or its bad lines.
struct Outcome {
    lines: usize,
    bytes: u64,
    result: Result<Rows, Vec<Fault>>,
}

impl Run<'_> {
    /// Embeds windows as they come, and hands the rows on in order.
    async fn embed(
        &self,
        windows: mpsc::Receiver<Result<Window, Failure>>,
        rows: mpsc::Sender<Rows>,
        progress: &Progress,
    ) -> Result<Tally, Failure> {
        let windows =
            stream::unfold(windows, |mut windows| async move { windows.recv().await.map(|window| (window, windows)) });
        let mut outcomes = pin!(windows.map(|window| self.window(window)).buffered(IN_FLIGHT));
        let mut tally = Tally::default();
        while let Some(outcome) = outcomes.next().await {
            let Outcome { lines, bytes, result } = outcome?;
            tally.lines += lines as u64;
            progress.advance(bytes, tally.lines);
            match result {
                Ok(done) if tally.faults.is_empty() => {
                    tally.add(&done);
                    // Then the writer has failed, and says why itself.
                    if rows.send(done).await.is_err() {
                        break;
                    }
                }
                Ok(_) => {}
                Err(faults) => tally.faults.extend(faults),
            }
        }
        Ok(tally)
    }

    async fn window(&self, window: Result<Window, Failure>) -> Result<Outcome, Failure> {
        let window = window?;
        if let Some(record) = window.records().next().filter(|record| record.looks_like_json()) {
            let line = record.line;
            // The exit status does not depend on whether it can be said.
            let _ = writeln!(
                io::stderr().lock(),
                "warning: line {line} looks like a JSON line, and is embedded as it stands: is --jsonl meant?"
            );
        }
        let (lines, bytes) = (window.items.len(), window.bytes);
        let result = match self.on_error {
            OnError::Record => Ok(self.record(window).await?),
            OnError::Fail => self.all_or_none(window).await?,
        };
        Ok(Outcome { lines, bytes, result })
    }

    /// Embeds a window, or finds all its bad lines. Once there was one, no window is embedded.
    async fn all_or_none(&self, window: Window) -> Result<Result<Rows, Vec<Fault>>, Failure> {
        if window.faults().next().is_some() {
            self.failing.store(true, Ordering::Relaxed);
        }
        if self.failing.load(Ordering::Relaxed) {
            return Ok(Err(self.check(&window)));
        }
        let texts: Vec<&str> = window.records().map(|record| record.text.as_str()).collect();
        match self.embedder.embed_all(self.batch(&texts)).await {
            Ok(embeddings) => {
                let usage = embeddings.usage();
                Ok(Ok(Rows { items: window.items, embeddings: Some(embeddings), usage }))
            }
            Err(error) if error.bad_texts().is_empty() => Err(error.into()),
            Err(error) => {
                self.failing.store(true, Ordering::Relaxed);
                Ok(Err(blamed(&window, &error)))
            }
        }
    }

    /// All bad lines of a window, found without embedding it.
    fn check(&self, window: &Window) -> Vec<Fault> {
        let texts: Vec<&str> = window.records().map(|record| record.text.as_str()).collect();
        let checked = self.batch(&texts).check(self.embedder.spaces(), &self.embedder.limits());
        let mut faults = checked.err().map(|error| blamed(window, &error)).unwrap_or_default();
        faults.extend(window.faults().map(|fault| Fault { line: fault.line, why: fault.why.clone(), object: None }));
        faults.sort_by_key(|fault| fault.line);
        faults
    }

    /// Embeds what can be embedded of a window; the other lines become faults.
    async fn record(&self, mut window: Window) -> Result<Rows, Failure> {
        let texts: Vec<&str> = window.records().map(|record| record.text.as_str()).collect();
        let each = self.embedder.embed_each(self.batch(&texts)).await;
        // Where no text is to blame, the embedder failed, and other texts would fare no better.
        if let Some((_, error)) = each.errors().find(|(_, error)| error.bad_texts().is_empty()) {
            return Err(error.clone().into());
        }
        let mut results = each.iter();
        for item in &mut window.items {
            let Item::Text(record) = item else { continue };
            if let Some(Err(error)) = results.next() {
                let why = error.bad_texts().first().map(|bad| format!("the text {}", bad.reason)).unwrap_or_default();
                *item = Item::Bad(Fault { line: record.line, why, object: record.object.take() });
            }
        }
        drop(results);
        let usage = each.usage();
        Ok(Rows { items: window.items, embeddings: each.into_embeddings(), usage })
    }

    fn batch<'a>(&self, texts: &'a [&'a str]) -> Batch<'a> {
        // Queries of a file are bulk work, too.
        Batch::new(self.kind, texts).with_truncation(self.too_long).with_lane(Lane::Bulk)
    }
}

/// The lines of the texts that an error blames.
fn blamed(window: &Window, error: &docvector_embed::Error) -> Vec<Fault> {
    let lines: Vec<u64> = window.records().map(|record| record.line).collect();
    let fault = |bad: &docvector_embed::BadText| {
        let line = *lines.get(bad.index)?;
        Some(Fault { line, why: format!("the text {}", bad.reason), object: None })
    };
    error.bad_texts().iter().filter_map(fault).collect()
}
