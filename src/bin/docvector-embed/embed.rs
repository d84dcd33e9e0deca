//! Runs `embed`: a thread reads windows, the embedder works on two of them, a thread writes the rows in order.
//!
//! At most these windows are in memory: one being read, two that wait for the embedder, two being embedded, one that
//! waits to be written, and one being written. Reading, embedding and writing wait for each other only at these limits.
//! A cache adds a copy of the windows being embedded, and the bounded memory that its file needs.

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

/// Embeds the file, and prints a summary on stderr.
pub(crate) fn run(options: &EmbedOptions) -> Result<(), Failure> {
    // Open the files first, so that an error in them shows before the model is loaded.
    let input = Input::open(&options.input, options.jsonl)?;
    let output = Output::create(&options.output, options.format)?;
    let unwritten =
        if output.is_file() { format!("; nothing was written to {}", output.name()) } else { String::new() };
    let store = options.cache.as_deref().map(CacheWithWarning::open).transpose()?;
    let model = options.load.builder(&options.model).build()?;
    if let Some(assumed) = &model.info().assumed {
        // A failed warning does not change the exit status.
        let _ = writeln!(io::stderr().lock(), "warning: {assumed}: --pooling and --normalize state it");
    }
    let dimensions = model.dimensions()?;
    let keeps = store.as_ref().is_some_and(|store| !store.is_read_only());
    // A file of queries is kept, too: a run that was ended early goes on where it was.
    let cached = |store| Cached::builder(model.clone(), store).with_stored_queries(true).build();
    let cached = store.map(cached).transpose()?;
    let embedder: &dyn Embedder = match &cached {
        Some(cached) => cached,
        None => &model,
    };
    let left = || format!("{unwritten}{}", stored_in_cache(options, cached.as_ref().filter(|_| keeps)));

    let progress = Progress::new(input.size(), "texts", options.shows_progress());
    let embedder = WindowEmbedder::new(embedder, options.kind, options.too_long, options.on_error);
    let Finished { mut summary, output, time } = read_embed_write(&embedder, input, output, progress, left)?;
    if !summary.bad_lines.is_empty() {
        drop(output);
        // If stderr is closed, the exit status still shows the failure.
        let _ = summary.bad_lines.print(&mut io::stderr().lock());
        let count = Counted(summary.bad_lines.count, "line");
        return Err(Failure::new(format!("{count} of {} cannot be embedded{}", summary.lines, left())));
    }
    output.finish(dimensions)?;
    summary.cache = cached.as_ref().map(Cached::counts);
    print_summary(options, &summary, &model, dimensions, time);
    Ok(())
}

/// Says how many vectors a failed run stored in the cache.
fn stored_in_cache(options: &EmbedOptions, cached: Option<&Cached<Onnx>>) -> String {
    match (cached, &options.cache) {
        (Some(cached), Some(path)) if cached.counts().failures == 0 => {
            let stored = Counted(cached.counts().stored, "new vector");
            format!("; {stored} went into the cache {}", path.display())
        }
        _ => String::new(),
    }
}

/// The results of the three threads.
struct Finished {
    summary: RunSummary,
    /// The output with all rows, unless there were bad lines.
    output: Output,
    /// The time that reading and embedding took.
    time: Duration,
}

/// Reads on one thread, writes on another and embeds on this one, until the input ends, something fails, or a signal
/// interrupts the program. The error of an interrupted run ends with what `left` says.
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
        // Dropping the future closes the writer's channel; the writer then removes its temporary file.
        tokio::select! {
            embedded = embedder.embed(windows, rows, &progress) => embedded,
            signal = interrupted() => Err(Failure::new(format!("{signal}{}", left()))),
        }
    });
    let time = progress.elapsed();
    drop(progress);

    // Wait for the writer even if embedding failed: it has a temporary file to remove.
    let written = join(writer);
    let summary = embedded?;
    let output = written??;
    // The reader has ended, because all windows have arrived: joining it only shows whether it panicked.
    join(reader)?;
    Ok(Finished { summary, output, time })
}

/// Waits for a signal to end the program, and returns its name.
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

/// Prints the summary of a successful run. A closed stderr is no failure.
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

/// Reads windows and sends them on. Ends early when the receiver is gone.
fn read(input: Input, windows: &mpsc::Sender<Result<Window, Failure>>) {
    for window in input {
        if windows.blocking_send(window).is_err() {
            break;
        }
    }
}

/// Writes rows as they arrive, and returns the output with all of them.
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

/// Waits for a thread and returns its result. A panic in it is an error.
fn join<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new("a thread panicked: this is a bug"))
}
