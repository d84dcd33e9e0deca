//! Runs `embed`: a thread reads windows, the embedder works on some of them, a thread writes the rows in order.
//!
//! At most these windows are in memory: one being read, two that wait for the embedder, two being embedded (eight at
//! OpenAI), one that waits to be written, and one being written. On this machine, the windows being embedded are cut into
//! small calls, so that rows are written, and progress is shown, all the time. Reading, embedding and writing wait for each
//! other only at these limits.
//! A cache adds a copy of the windows being embedded, and the bounded memory that its file needs.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use docvector_embed::{Embedder, EmbedderExt, Space, wrap::Cached};
use tokio::sync::mpsc;

use crate::{
    cache_warning::CacheWithWarning,
    cli::{embed::EmbedOptions, model_choice::ModelChoice},
    dry_run, embed_job,
    embed_model::EmbedModel,
    failure::Failure,
    first_look,
    input::Input,
    output::Output,
    progress::Progress,
    run_summary::RunSummary,
    runtime::runtime,
    signals::interrupted,
    threads::{join, spawn},
    window::{Rows, Window},
    window_embedder::WindowEmbedder,
    wording::{Counted, place_of},
};

/// Windows that are read ahead.
const READ_AHEAD: usize = 2;
/// Windows waiting to be written.
const WRITE_BEHIND: usize = 1;

/// Embeds the file, and prints a summary on stderr.
pub(crate) fn run(options: &EmbedOptions) -> Result<(), Failure> {
    match &options.model {
        _ if options.dry_run => dry_run::run(options),
        ModelChoice::OpenAiBatch(model) => embed_job::run(options, model),
        _ => run_in_windows(options),
    }
}

/// Embeds the file window by window.
fn run_in_windows(options: &EmbedOptions) -> Result<(), Failure> {
    // Open the files first, so that an error in them shows before the model is loaded.
    let output = Output::create(&options.output, options.format)?;
    let unwritten =
        if output.is_file() { format!("; nothing was written to {}", output.name()) } else { String::new() };
    first_look::refuse_bad_lines(options, &unwritten)?;
    let input = Input::open(&options.input, &options.input_options)?;
    let store = options.cache.as_ref().map(CacheWithWarning::open).transpose()?;
    let model = EmbedModel::load(&options.model, &options.load, &options.openai)?;
    let space = model.embedder.space()?.clone();
    options.check_space(&space)?;
    let keeps = store.as_ref().is_some_and(|store| !store.is_read_only());
    // A file of queries is kept, too: a run that was ended early goes on where it was.
    let cached = |store| Cached::builder(model.embedder.clone(), store).with_stored_queries(true).build();
    let cached = store.map(cached).transpose()?;
    let embedder: &dyn Embedder = match &cached {
        Some(cached) => cached,
        None => &model.embedder,
    };
    let left = || format!("{unwritten}{}", stored_in_cache(options, cached.as_ref().filter(|_| keeps)));

    let progress = Progress::new(input.size(), "texts", options.shows_progress());
    let embedder = WindowEmbedder::new(embedder, options, model.calls, input.is_live());
    let Finished { mut summary, output, time } = read_embed_write(&embedder, input, output, progress, left)?;
    if !summary.bad_lines.is_empty() {
        drop(output);
        // If stderr is closed, the exit status still shows the failure.
        let _ = summary.bad_lines.print(&mut io::stderr().lock());
        let count = Counted(summary.bad_lines.count, "line");
        return Err(Failure::new(format!("{count} of {} cannot be embedded{}", summary.lines, left())));
    }
    output.finish(&space)?;
    summary.cache = cached.as_ref().map(Cached::counts);
    print_summary(options, &summary, &model, &space, time);
    summary.outcome()
}

/// Says how many vectors a failed run stored in the cache.
fn stored_in_cache(options: &EmbedOptions, cached: Option<&Cached<Arc<dyn Embedder>>>) -> String {
    match (cached, &options.cache) {
        (Some(cached), Some(store)) if cached.counts().failures == 0 => {
            let stored = Counted(cached.counts().stored, "new vector");
            format!("; {stored} went into the cache {}", place_of(store))
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
            signal = interrupted() => Err(Failure::signal(signal, left())),
        }
    });
    // The writer may be stuck at a pipe that nobody reads. Its temporary file is removed at the end.
    let embedded = match embedded {
        Err(signal @ Failure::Signal(..)) => return Err(signal),
        embedded => embedded,
    };
    let time = progress.elapsed();
    drop(progress);

    // Wait for the writer even if embedding failed: it has a temporary file to remove.
    let written = join(writer);
    let summary = embedded?;
    let output = written??;
    // If all windows have arrived, the reader has ended: joining it only shows whether it panicked. Otherwise it may wait
    // for a line that does not come.
    if summary.bad_lines.is_empty() {
        join(reader)?;
    }
    Ok(Finished { summary, output, time })
}

/// Prints the summary of a successful run. A closed stderr is no failure.
fn print_summary(options: &EmbedOptions, summary: &RunSummary, model: &EmbedModel, space: &Space, time: Duration) {
    let mut stderr = io::stderr().lock();
    if !options.quiet {
        let line = summary.summary(space.dimensions(), model.max_tokens, time);
        let _ = writeln!(stderr, "{line}{}; space {}", model.note, space.id());
        return;
    }
    for note in summary.notes(model.max_tokens) {
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
fn write(mut output: Output, rows_to_come: &mut mpsc::Receiver<Rows>) -> Result<Output, Failure> {
    while let Some(rows) = rows_to_come.blocking_recv() {
        output.write(&rows)?;
        // Nothing else waits, so somebody may wait for this.
        if rows_to_come.is_empty() {
            output.flush()?;
        }
    }
    Ok(output)
}
