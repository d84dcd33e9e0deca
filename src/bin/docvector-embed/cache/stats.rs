//! Runs `cache stats`: shows what a store holds.

use std::io::{self, IsTerminal};

use docvector_embed::{
    SpaceId,
    cache::{CacheScan, CacheSpec},
    cache_tools::{Census, ScanSource, census},
};

use super::open::{existing, file};
use crate::{
    cli::cache::StatsArgs,
    day::Day,
    failure::Failure,
    progress::Progress,
    report::Report,
    runtime::runtime,
    wording::{Bytes, place_of, without_id},
};

/// Prints the number and size of the entries, and their spaces.
pub(super) fn run(args: &StatsArgs) -> Result<(), Failure> {
    let runtime = runtime()?;
    let mut report = Report::new(io::stdout().lock());
    if let CacheSpec::Sqlite(path) = &args.store
        && !args.by_space
    {
        let store = file(path)?;
        let stats = runtime.block_on(store.stats())?;
        report.line("file", store.path().display())?;
        report.line("entries", stats.entries)?;
        report.line("bytes of values", Bytes(stats.value_bytes))?;
        let ratio = stats.file_bytes as f64 / stats.value_bytes as f64;
        let times = if stats.value_bytes > 0 { format!(" ({ratio:.2} x the values)") } else { String::new() };
        report.line("bytes on disk", format_args!("{}{times}", Bytes(stats.file_bytes)))?;
        report.line("spaces", stats.spaces.len())?;
        return print_spaces(&mut report, &stats.spaces);
    }
    let store = runtime.block_on(existing(&args.store))?;
    report.line("store", place_of(&args.store))?;
    if args.by_space {
        let counted = runtime.block_on(count(&*store))?;
        return print_census(&mut report, &counted);
    }
    let (entries, notes) = runtime
        .block_on(async { Ok::<_, docvector_embed::Error>((store.estimated_len().await?, store.notes().await?)) })?;
    report.line("entries, about", entries)?;
    report.line("spaces", notes.len())?;
    print_spaces(&mut report, &notes)
}

fn print_spaces(report: &mut Report<impl io::Write>, spaces: &[(SpaceId, String)]) -> Result<(), Failure> {
    spaces
        .iter()
        .try_for_each(|(id, about)| report.text(format_args!("  {id}  {}", without_id(about, &id.to_string()))))
}

/// Reads all entries.
async fn count(store: &dyn CacheScan) -> Result<Census, Failure> {
    let shown = io::stderr().is_terminal();
    let total = if shown { store.estimated_len().await.ok() } else { None };
    let progress = Progress::new(total, "entries", shown);
    let mut seen = 0;
    let mut counted = |census: &Census| {
        let now = census.entries + census.damaged;
        progress.advance(now - seen, now);
        seen = now;
    };
    Ok(census(&mut ScanSource::new(store), &mut counted).await?)
}

fn print_census(report: &mut Report<impl io::Write>, census: &Census) -> Result<(), Failure> {
    report.line("entries", census.entries)?;
    report.line("bytes of values", Bytes(census.bytes))?;
    report.line("damaged", census.damaged)?;
    let heads = ["entries", "bytes", "f16", "truncated", "width", "written", "space", "what it is"];
    let mut rows = vec![heads.map(str::to_owned)];
    for (space, of) in &census.spaces {
        let widths: Vec<String> = of.dimensions.iter().map(usize::to_string).collect();
        let days = of.days.map(|(first, last)| format!("{} ... {}", Day(first), Day(last)));
        let id = space.map_or_else(|| "not stated".to_owned(), |space| space.to_string());
        let about = of.about.as_deref().map(|about| without_id(about, &id));
        rows.push([
            of.entries.to_string(),
            Bytes(of.bytes).to_string(),
            of.halves.to_string(),
            of.truncated.to_string(),
            widths.join(", "),
            days.unwrap_or_else(|| if of.entries == 0 { "" } else { "not stated" }.to_owned()),
            id,
            about.unwrap_or_default(),
        ]);
    }
    report.table(&rows)
}
