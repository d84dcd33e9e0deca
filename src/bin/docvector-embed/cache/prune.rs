//! Runs `cache prune`: removes entries by space or age.

use std::io::{self, IsTerminal};

use docvector_embed::{
    cache::CacheSpec,
    cache_tools::{PruneReport, prune},
    wrap::EntryInfo,
};

use super::open::{existing, writable};
use crate::{
    cli::cache::PruneArgs,
    day::Day,
    failure::Failure,
    progress::Progress,
    report::Report,
    runtime::runtime,
    signals::interrupted,
    wording::{Bytes, place_of},
};

/// Removes the entries that the arguments describe, or counts them.
pub(super) fn run(args: &PruneArgs) -> Result<(), Failure> {
    let report = runtime()?.block_on(async {
        tokio::select! {
            done = remove(args) => done,
            signal = interrupted() => {
                let rest = if args.remove { "; what was removed is gone, and the rest is there" } else { "" };
                Err(Failure::signal(signal, rest))
            }
        }
    })?;
    let mut out = Report::new(io::stdout().lock());
    out.line("store", place_of(&args.store))?;
    out.line("entries read", report.read)?;
    let what = if args.remove { "removed" } else { "would be removed" };
    out.line(what, format_args!("{} ({} of values)", report.removed, Bytes(report.removed_bytes)))?;
    out.line("without a space", report.unstamped)?;
    out.line("damaged", report.damaged)?;
    if report.unstamped > 0 && args.selects_stamped() && !args.unstamped {
        out.text(
            "\nEntries without a space do not say which model made them, or when: --space and the days select none of \
             them, and --unstamped all of them.",
        )?;
    }
    if args.remove && report.removed > 0 && matches!(args.store, CacheSpec::Sqlite(_)) {
        out.text(
            "\nThe file keeps its size and uses the room again. `cache copy` into a new file makes a smaller one.",
        )?;
    }
    if !args.remove && report.removed > 0 {
        out.text("\nNothing was removed: --remove does it. Their texts would be embedded, and paid for, again.")?;
    }
    Ok(())
}

async fn remove(args: &PruneArgs) -> Result<PruneReport, Failure> {
    let store = existing(&args.store).await?;
    let store = if args.remove { writable(&args.store, store)? } else { store };
    let shown = io::stderr().is_terminal();
    let total = if shown { store.estimated_len().await.ok() } else { None };
    let progress = Progress::new(total, "entries", shown);
    let before = args.before.or_else(|| args.older_than.map(|days| Day(Day::today().0.saturating_sub(days))));
    let mut goes = |info: &EntryInfo| {
        let of_space = args.space.is_empty() || info.space.is_some_and(|space| args.space.contains(&space));
        let is_old = before.is_none_or(|before| info.day.is_some_and(|day| day < before.0));
        let unstamped = args.unstamped && info.space.is_none();
        unstamped || (args.selects_stamped() && of_space && is_old)
    };
    let mut seen = 0;
    let mut moved = |report: &PruneReport| {
        progress.advance(report.read - seen, report.read);
        seen = report.read;
    };
    Ok(prune(&*store, &mut goes, !args.remove, &mut moved).await?)
}
