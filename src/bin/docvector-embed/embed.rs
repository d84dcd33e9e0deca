//! Embeds a file: a thread reads windows, the embedder works on two of them, a thread writes the rows in order.
//!
//! In memory are at most: a window being read, two that are waiting, two being embedded, one waiting to be written and
//! one being written. Reading, embedding and writing never wait for each other otherwise. A cache adds a copy of the
//! windows being embedded, and what its file needs, which is bounded.

use std::{
    io::{self, Write},
    thread::{self, JoinHandle},
    time::Duration,
};

use docvector_embed::{
    Embedder, EmbedderExt,
    provider::{Onnx, TuningSource},
    wrap::Cached,
};
use tokio::sync::mpsc;

use crate::{
    cache_warning::CacheWithWarning,
    cli::embed::EmbedOptions,
    failure::Failure,
    input::Input,
    output::Output,
    progress::Progress,
    run_summary::RunSummary,
    runtime::runtime,
    window::{Rows, Window},
    window_embedder::WindowEmbedder,
    wording::Counted,
};

/// Windows that are read ahead.
const READ_AHEAD: usize = 2;
/// Windows waiting to be written.
const WRITE_BEHIND: usize = 1;

/// Embeds the file, and says on stderr what it came to.
pub(crate) fn run(options: &EmbedOptions) -> Result<(), Failure> {
    // What can be found wrong without the model is found before it is loaded.
    let input = Input::open(&options.input, options.jsonl)?;
    let output = Output::create(&options.output, options.format)?;
    let unwritten =
        if output.is_file() { format!("; nothing was written to {}", output.name()) } else { String::new() };
    let store = options.cache.as_deref().map(CacheWithWarning::open).transpose()?;
    let model = options.load.builder(&options.model).build()?;
    let dimensions = model.dimensions()?;
    let cached = store.map(|store| Cached::new(model.clone(), store)).transpose()?;
    let embedder: &dyn Embedder = match &cached {
        Some(cached) => cached,
        None => &model,
    };
    let left = || format!("{unwritten}{}", stored_in_cache(options, cached.as_ref()));

    let progress = Progress::new(input.size(), "texts", options.shows_progress());
    let embedder = WindowEmbedder::new(embedder, options.kind, options.too_long, options.on_error);
    let Finished { mut summary, output, time } = read_embed_write(&embedder, input, output, progress, left)?;
    if !summary.bad_lines.is_empty() {
        drop(output);
        // With stderr gone, the exit status says what is left to say.
        let _ = summary.bad_lines.print(&mut io::stderr().lock());
        let count = Counted(summary.bad_lines.count, "line");
        return Err(Failure::new(format!("{count} of {} cannot be embedded{}", summary.lines, left())));
    }
    output.finish(dimensions)?;
    summary.cache = cached.as_ref().map(Cached::counts);
    print_summary(options, &summary, &model, dimensions, time);
    Ok(())
}

/// What went into the cache in a run that came to nothing.
fn stored_in_cache(options: &EmbedOptions, cached: Option<&Cached<Onnx>>) -> String {
    match (cached, &options.cache) {
        (Some(cached), Some(path)) if cached.counts().failures == 0 => {
            let stored = Counted(cached.counts().stored, "new vector");
            format!("; {stored} went into the cache {}", path.display())
        }
        _ => String::new(),
    }
}

/// What the three threads came to.
struct Finished {
    summary: RunSummary,
    /// All rows are in it, unless there were bad lines.
    output: Output,
    /// The time of reading and embedding.
    time: Duration,
}

/// Reads and writes on a thread each, and embeds on this one, until the input ends, something fails, or somebody ends
/// the program; `left` then says what is left.
fn read_embed_write(
    embedder: &WindowEmbedder<'_>,
    input: Input,
    output: Output,
    progress: Progress,
    left: impl Fn() -> String,
) -> Result<Finished, Failure> {
    let (reading, windows) = mpsc::channel(READ_AHEAD);
    let (rows, mut writing) = mpsc::channel(WRITE_BEHIND);
    let reader = spawn("reader", move || read(input, &reading))?;
    let writer = spawn("writer", move || write(output, &mut writing))?;
    let embedded = runtime()?.block_on(async {
        // Dropped, the run lets go of the writer, which then removes what it has written so far.
        tokio::select! {
            embedded = embedder.embed(windows, rows, &progress) => embedded,
            signal = interrupted() => Err(Failure::new(format!("{signal}{}", left()))),
        }
    });
    let time = progress.elapsed();
    drop(progress);

    // The writer is waited for also where the run failed: it has a temporary file to remove.
    let written = join(writer);
    let summary = embedded?;
    let output = written??;
    // All windows came, or the writer would have failed; so the reader has nothing left but to say how it ended.
    join(reader)?;
    Ok(Finished { summary, output, time })
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
fn print_summary(options: &EmbedOptions, summary: &RunSummary, model: &Onnx, dimensions: usize, time: Duration) {
    let (max_tokens, settings) = (model.info().max_tokens, &model.info().tuning_source);
    let mut stderr = io::stderr().lock();
    if !options.quiet {
        let settings = match settings {
            TuningSource::Defaults => String::new(),
            others => format!("; settings: {others}"),
        };
        let _ = writeln!(stderr, "{}{settings}", summary.summary(dimensions, max_tokens, time));
        return;
    }
    for note in summary.notes(max_tokens) {
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
        .map_err(|error| Failure::with_cause(format!("the {name} thread cannot be started"), error))
}

/// Waits for a thread. One that panicked has not done its work, however it looks from outside.
fn join<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new("a thread panicked: this is a bug"))
}
