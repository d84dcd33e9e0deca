//! Runs `cache export`, `import`, `copy`, `merge` and `salvage`: moves entries between stores and files.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use docvector_embed::{
    SpaceId,
    cache::{CacheSpec, Key},
    cache_tools::{
        ArrowSource, ArrowTarget, EntrySource, EntryTarget, ScanSource, SqlitePages, StoreTarget, Transfer,
        TransferReport, census,
    },
};

use super::open::{existing, for_writing};
use crate::{
    cli::cache::{CopyArgs, ExportArgs, ImportArgs, MergeArgs, SalvageArgs},
    failure::Failure,
    paths::{has_extension, is_same_file, is_standard},
    progress::Progress,
    report::Report,
    runtime::runtime,
    signals::interrupted,
    wording::place_of,
};

/// The most damaged entries whose keys are printed.
const KEYS_SHOWN: usize = 5;

/// Writes a store to an Arrow file.
pub(super) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let is_arrow = args.file.extension().is_none() || has_extension(&args.file, &["arrow", "feather", "ipc"]);
    if is_standard(&args.file) || !is_arrow {
        return Err(Failure::new("an export is an Arrow file: name one that ends in .arrow"));
    }
    run(async {
        let store = existing(&args.store).await?;
        let mut target = ArrowTarget::create(&args.file, &source_name(&args.store, &args.space))?;
        let before = target.rows();
        if before > 0 {
            let _ = writeln!(io::stderr().lock(), "goes on after {before} entries of an earlier export");
        }
        let mut source = ScanSource::new(&*store).after(target.place());
        let moved = moved(&mut source, &mut target, &args.space).await?;
        moved.print(&args.file.display().to_string(), before)
    })
}

/// Reads an Arrow file into a store.
pub(super) fn import(args: &ImportArgs) -> Result<(), Failure> {
    run(async {
        let mut source = ArrowSource::open(&args.file)?;
        let store = for_writing(&args.store).await?;
        let moved = moved(&mut source, &mut StoreTarget::new(&*store), &args.space).await?;
        moved.print(&place_of(&args.store), 0)
    })
}

/// Copies a store into another.
pub(super) fn copy(args: &CopyArgs) -> Result<(), Failure> {
    refuse_same(&args.from, &args.to)?;
    run(async {
        let from = existing(&args.from).await?;
        let to = for_writing(&args.to).await?;
        let moved = moved(&mut ScanSource::new(&*from), &mut StoreTarget::new(&*to), &args.space).await?;
        moved.print(&place_of(&args.to), 0)
    })
}

/// Copies several stores into one.
pub(super) fn merge(args: &MergeArgs) -> Result<(), Failure> {
    args.from.iter().try_for_each(|from| refuse_same(from, &args.into))?;
    run(async {
        // All are opened first: a wrong name shows before anything is copied.
        let mut stores = Vec::new();
        for from in &args.from {
            stores.push(existing(from).await?);
        }
        let into = for_writing(&args.into).await?;
        let mut all = Moved::default();
        for (store, spec) in stores.iter().zip(&args.from) {
            let one = moved(&mut ScanSource::new(&**store), &mut StoreTarget::new(&*into), &args.space).await?;
            let _ = writeln!(io::stderr().lock(), "{}: {} new entries", place_of(spec), one.report.copied);
            all.add(one);
        }
        all.print(&place_of(&args.into), 0)
    })
}

/// Saves the sound entries of a damaged file.
pub(super) fn salvage(args: &SalvageArgs) -> Result<(), Failure> {
    refuse_same(&CacheSpec::Sqlite(args.file.clone()), &args.into)?;
    if args.file.to_string_lossy().contains("://") {
        return Err(Failure::new("salvage reads a damaged file, and not a server: `cache copy` reads a server"));
    }
    run(async {
        let name = args.file.display();
        // Before the target is made.
        let mut pages = SqlitePages::open(&args.file)?;
        if census(&mut pages, &mut |_| {}).await?.entries == 0 {
            return Err(Failure::new(format!("no entry of a cache was found in {name}: nothing was saved")));
        }
        let into = for_writing(&args.into).await?;
        pages.rewind();
        let moved = moved(&mut pages, &mut StoreTarget::new(&*into), &[]).await?;
        let printed = moved.print(&place_of(&args.into), 0);
        let _ = writeln!(
            io::stderr().lock(),
            "Entries on pages that are missing or damaged are lost; keep {name} until you have looked. Entries that were \
             removed before may be back: `cache prune` removes them."
        );
        printed
    })
}

/// The work of a transfer, and the first damaged entries.
#[derive(Default)]
struct Moved {
    report: TransferReport,
    damaged: Vec<Key>,
}

impl Moved {
    fn add(&mut self, other: Self) {
        let (sum, one) = (&mut self.report, &other.report);
        sum.read += one.read;
        sum.copied += one.copied;
        sum.present += one.present;
        sum.left_out += one.left_out;
        sum.damaged += one.damaged;
        self.damaged.extend(other.damaged);
    }

    /// Prints what became of the entries. Damage is a failure.
    fn print(&self, target: &str, before: u64) -> Result<(), Failure> {
        let mut out = Report::new(io::stdout().lock());
        out.line("to", target)?;
        out.line("entries read", self.report.read)?;
        if before > 0 {
            out.line("written before", before)?;
        }
        out.line("new", self.report.copied)?;
        out.line("there already", self.report.present)?;
        if self.report.left_out > 0 {
            out.line("of other spaces", format_args!("{}, or of none that is stated", self.report.left_out))?;
        }
        out.line("damaged, left out", self.report.damaged)?;
        self.damaged.iter().take(KEYS_SHOWN).try_for_each(|key| out.line("  key", key))?;
        match self.report.damaged {
            0 => Ok(()),
            damaged => {
                let are = if damaged == 1 { "entry is" } else { "entries are" };
                let message = format!("{damaged} {are} damaged and left out: their texts are embedded again");
                Err(Failure::new(message))
            }
        }
    }
}

/// Moves all entries, or those of these spaces.
async fn moved(
    source: &mut dyn EntrySource,
    target: &mut dyn EntryTarget,
    spaces: &[SpaceId],
) -> Result<Moved, Failure> {
    let shown = io::stderr().is_terminal();
    let total = if shown { source.estimated_len().await.ok().flatten() } else { None };
    let progress = Progress::new(total, "entries", shown);
    let (mut seen, mut damaged) = (0, Vec::new());
    let mut transfer = Transfer::new()
        .with_progress(|report| {
            progress.advance(report.read - seen, report.read);
            seen = report.read;
        })
        .with_damaged(|key| {
            if damaged.len() < KEYS_SHOWN {
                damaged.push(key);
            }
        });
    if !spaces.is_empty() {
        transfer = transfer.with_filter(|info| info.space.is_some_and(|space| spaces.contains(&space)));
    }
    let report = transfer.run(source, target).await?;
    if report.read == 0 {
        // No failure: a store may be empty. A server has no name that would be wrong, so a mistyped one is empty, too.
        let _ = writeln!(io::stderr().lock(), "warning: there is no entry in the source: is its name right?");
    }
    if report.left_out > 0 && report.left_out + report.damaged == report.read {
        let message = "no entry states one of these spaces: `cache stats --by-space` shows those that there are";
        return Err(Failure::new(message));
    }
    Ok(Moved { report, damaged })
}

/// Runs a transfer until it ends or a signal comes.
fn run(transfer: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        tokio::select! {
            done = transfer => done,
            signal = interrupted() => {
                Err(Failure::signal(signal, ": what was copied stays, and the same command goes on from there"))
            }
        }
    })
}

/// Names the source of an export, by which an unfinished file is recognized: without a password, and with all that tells
/// one store from another.
fn source_name(spec: &CacheSpec, spaces: &[SpaceId]) -> String {
    let mut name = match spec {
        CacheSpec::Sqlite(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            // A file that took the place of another has another number.
            format!("sqlite:{} {}", path.display(), number_of(&path))
        }
        CacheSpec::Redis(url) | CacheSpec::Postgres(url) => format!("{url} {}", url.fingerprint()),
        other => other.to_string(),
    };
    if !spaces.is_empty() {
        let spaces: Vec<String> = spaces.iter().map(SpaceId::to_string).collect();
        name += &format!(" spaces {}", spaces.join(" "));
    }
    name
}

/// Returns the number of a file on its disk.
fn number_of(path: &Path) -> u64 {
    #[cfg(unix)]
    let number = std::fs::metadata(path).map_or(0, |about| std::os::unix::fs::MetadataExt::ino(&about));
    #[cfg(not(unix))]
    let number = std::fs::metadata(path).map_or(0, |_| 0);
    number
}

fn refuse_same(from: &CacheSpec, to: &CacheSpec) -> Result<(), Failure> {
    let is_same = match (from, to) {
        (CacheSpec::Sqlite(from), CacheSpec::Sqlite(to)) => is_same_file(from, to),
        (from, to) => from == to,
    };
    if is_same {
        return Err(Failure::new(format!("{} is both the source and the target: name another target", place_of(to))));
    }
    Ok(())
}
