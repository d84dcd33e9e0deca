//! Runs `cache verify`: checks all entries of a store, and a file itself.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use docvector_embed::{
    cache::{CacheScan, CacheSpec, Entry, Key},
    wrap::EntryInfo,
};

use super::open;
use crate::{
    cli::cache::VerifyArgs,
    failure::Failure,
    progress::Progress,
    report::Report,
    runtime::runtime,
    wording::{place_of, without_controls},
};

/// The most damaged entries whose keys are printed.
const KEYS_SHOWN: usize = 5;

/// The most lines of SQLite's findings that are printed.
const PROBLEMS_SHOWN: usize = 10;

/// The most damaged entries that one run removes: their keys are kept in memory, 32 bytes each.
const MAX_REMOVED: usize = 1 << 20;

/// The most damaged entries in memory at a time.
const REMOVED_AT_ONCE: usize = 256;

/// Entries between two updates of the progress bar.
const PROGRESS_STEP: u64 = 1_000;

/// The advice about a file that is damaged outside its entries.
const HOW_TO_REPLACE: &str = "`docvector-embed cache salvage` saves its sound entries into a new file";

/// Checks all entries, and a file itself, and prints the findings. Damage is a failure, unless it was removed.
pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let runtime = runtime()?;
    let shown = io::stderr().is_terminal();
    let file = match &args.store {
        CacheSpec::Sqlite(path) => Some(open::file(path)?),
        _ => None,
    };
    let store: Arc<dyn CacheScan> = match &file {
        Some(file) => Arc::new(file.clone()),
        None => runtime.block_on(open::existing(&args.store))?,
    };
    // The progress bar needs the number of entries. If they cannot be counted, the check below says why.
    let total = if shown { runtime.block_on(store.estimated_len()).ok() } else { None };
    let progress = Progress::new(total, "entries", shown);
    let (findings, read) = runtime.block_on(inspect_entries(&*store, &progress));
    drop(progress);

    let mut report = Report::new(io::stdout().lock());
    if let Some(file) = &file {
        let progress = Progress::waiting("SQLite checks the file", shown);
        let problems = runtime.block_on(file.check_file());
        drop(progress);
        report.line("file", file.path().display())?;
        print_file_check(&mut report, problems.as_deref().ok())?;
        findings.print(&mut report, read.is_ok())?;
        // Never write to a file that is damaged outside its entries.
        refuse_damaged_file(args, read, problems)?;
    } else {
        report.line("store", place_of(&args.store))?;
        findings.print(&mut report, read.is_ok())?;
        read?;
    }
    if findings.damaged == 0 {
        return Ok(());
    }
    if !args.remove {
        let are = if findings.damaged == 1 { "is" } else { "are" };
        return Err(Failure::new(format!(
            "{} of {} entries {are} damaged: --remove removes them, and their texts are embedded again",
            findings.damaged,
            findings.entries(),
        )));
    }
    let removed = runtime.block_on(remove(&*store, &findings.keys))?;
    report.text("")?;
    report.line("removed", removed)?;
    match findings.damaged - findings.keys.len() as u64 {
        0 => Ok(()),
        left => Err(Failure::new(format!("{left} damaged entries are left: run this again to remove them"))),
    }
}

/// Prints the damage that SQLite found in the file; `None` if its check failed.
fn print_file_check(report: &mut Report<impl Write>, problems: Option<&[String]>) -> Result<(), Failure> {
    match problems {
        Some([]) => report.line("  SQLite's check", "ok"),
        Some(problems) => {
            report.line("  SQLite's check", "damaged")?;
            let lines = problems.iter().flat_map(|problem| problem.lines());
            lines.take(PROBLEMS_SHOWN).try_for_each(|line| report.line("", without_controls(line)))
        }
        None => report.line("  SQLite's check", "failed"),
    }
}

/// Fails if not all of the file can be read, or SQLite found damage.
fn refuse_damaged_file(
    args: &VerifyArgs,
    read: docvector_embed::Result<()>,
    problems: docvector_embed::Result<Vec<String>>,
) -> Result<(), Failure> {
    let (file, untouched) = (place_of(&args.store), if args.remove { ", and nothing was removed from it" } else { "" });
    if let Err(error) = read {
        let message = format!("not all of {file} can be read{untouched}: if this happens again, {HOW_TO_REPLACE}");
        return Err(Failure::with_cause(message, error));
    }
    if problems?.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{file} is damaged{untouched}: {HOW_TO_REPLACE}")))
}

/// The findings of a check of all entries.
#[derive(Debug, Default)]
struct Findings {
    /// The number of sound entries, and how many of them are of truncated texts, by dimensions and whether components
    /// have 16 bits.
    sound: BTreeMap<(usize, bool), (u64, u64)>,
    damaged: u64,
    /// The keys of the damaged entries, at most [`MAX_REMOVED`].
    keys: Vec<Key>,
}

impl Findings {
    fn add(&mut self, key: Key, value: &[u8]) {
        if let Some(about) = EntryInfo::inspect(&key, value) {
            let (entries, truncated) = self.sound.entry((about.dimensions, about.half_precision)).or_default();
            *entries += 1;
            *truncated += u64::from(about.truncated);
        } else {
            self.damaged += 1;
            if self.keys.len() < MAX_REMOVED {
                self.keys.push(key);
            }
        }
    }

    fn sound(&self) -> u64 {
        self.sound.values().map(|(entries, _)| entries).sum()
    }

    fn entries(&self) -> u64 {
        self.sound() + self.damaged
    }

    fn print(&self, report: &mut Report<impl Write>, all: bool) -> Result<(), Failure> {
        report.line(if all { "entries" } else { "entries read" }, self.entries())?;
        report.line("  sound", self.sound())?;
        report.line("  damaged", self.damaged)?;
        self.keys.iter().take(KEYS_SHOWN).try_for_each(|key| report.line("    key", key))?;
        if self.damaged > KEYS_SHOWN as u64 {
            report.line("", format_args!("and {} more", self.damaged - KEYS_SHOWN as u64))?;
        }
        if self.sound.is_empty() {
            return Ok(());
        }
        let mut rows = vec![["dimensions", "stored as", "sound entries", "truncated texts"].map(str::to_owned)];
        rows.extend(self.sound.iter().map(|(&(dimensions, half_precision), (entries, truncated))| {
            let precision = if half_precision { "f16" } else { "f32" };
            [dimensions.to_string(), precision.to_owned(), entries.to_string(), truncated.to_string()]
        }));
        report.table(&rows)
    }
}

/// Checks all entries. Also returns whether all could be read.
async fn inspect_entries(store: &dyn CacheScan, progress: &Progress) -> (Findings, docvector_embed::Result<()>) {
    let (mut findings, mut seen, mut place) = (Findings::default(), 0_u64, None);
    loop {
        let mut sink = |key, value: &[u8]| {
            findings.add(key, value);
            seen += 1;
            if seen.is_multiple_of(PROGRESS_STEP) {
                progress.advance(PROGRESS_STEP, seen);
            }
        };
        match store.scan(place.as_ref(), &mut sink).await {
            Ok(None) => return (findings, Ok(())),
            Ok(next) => place = next,
            Err(error) => return (findings, Err(error)),
        }
    }
}

/// Removes the entries of these keys that are still damaged, and returns how many: another process may have replaced
/// some meanwhile.
async fn remove(store: &dyn CacheScan, keys: &[Key]) -> Result<u64, Failure> {
    let mut removed = 0;
    for keys in keys.chunks(REMOVED_AT_ONCE) {
        let mut damaged: Vec<(Key, Vec<u8>)> = Vec::new();
        let mut sink = |place: usize, value: &[u8]| {
            if EntryInfo::inspect(&keys[place], value).is_none() {
                damaged.push((keys[place], value.to_vec()));
            }
        };
        store.get(keys, &mut sink).await?;
        let entries: Vec<Entry<'_>> = damaged.iter().map(|(key, value)| Entry::new(*key, value)).collect();
        store.discard(&entries).await?;
        removed += entries.len() as u64;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_entries_are_counted_and_the_first_are_named() {
        let mut findings = Findings::default();
        for byte in 0..7 {
            findings.add(Key::from_bytes([byte; 32]), b"no entry");
        }
        assert_eq!((findings.entries(), findings.sound(), findings.damaged), (7, 0, 7));
        let mut out = Vec::new();
        findings.print(&mut Report::new(&mut out), true).expect("a vector takes everything");
        let out = String::from_utf8(out).expect("text");
        assert_eq!(out.lines().filter(|line| line.starts_with("    key ")).count(), KEYS_SHOWN);
        assert!(out.ends_with("\n                   and 2 more\n"), "{out}");
    }
}
