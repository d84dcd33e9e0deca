//! Runs `cache stats` and `cache verify`: shows and checks the file that `embed --cache` keeps.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
};

use docvector_embed::{
    cache::{CacheStore, Entry, Key, Sqlite},
    wrap::EntryInfo,
};

use crate::{
    cli::cache::{StatsArgs, VerifyArgs},
    failure::Failure,
    progress::Progress,
    report::Report,
    runtime::runtime,
    wording::{Bytes, without_controls},
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
const HOW_TO_REPLACE: &str = "move it away and start a new one; its texts are then embedded again";

/// Prints the number and size of the entries, and their spaces.
pub(crate) fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let store = open(&args.path)?;
    let stats = runtime()?.block_on(store.stats())?;
    let mut report = Report::new(io::stdout().lock());
    report.line("file", store.path().display())?;
    report.line("entries", stats.entries)?;
    report.line("bytes of values", Bytes(stats.value_bytes))?;
    let ratio = stats.file_bytes as f64 / stats.value_bytes as f64;
    let times = if stats.value_bytes > 0 { format!(" ({ratio:.2} x the values)") } else { String::new() };
    report.line("bytes on disk", format_args!("{}{times}", Bytes(stats.file_bytes)))?;
    report.line("spaces", stats.spaces.len())?;
    stats.spaces.iter().try_for_each(|(id, about)| report.text(format_args!("  {id}  {}", without_controls(about))))
}

/// Checks all entries and the file, and prints the findings. Damage is a failure, unless it was removed.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let store = open(&args.path)?;
    let runtime = runtime()?;
    let shown = io::stderr().is_terminal();
    // The progress bar needs the number of entries. If they cannot be counted, the check below says why.
    let total = if shown { runtime.block_on(store.stats()).ok().map(|stats| stats.entries) } else { None };
    let progress = Progress::new(total, "entries", shown);
    let (findings, read) = runtime.block_on(inspect_entries(&store, &progress));
    drop(progress);
    let progress = Progress::waiting("SQLite checks the file", shown);
    let problems = runtime.block_on(store.check_file());
    drop(progress);

    let mut report = Report::new(io::stdout().lock());
    report.line("file", store.path().display())?;
    print_file_check(&mut report, problems.as_deref().ok())?;
    findings.print(&mut report, read.is_ok())?;
    // Never write to a file that is damaged outside its entries.
    refuse_damaged_file(args, read, problems)?;
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
    let removed = runtime.block_on(remove(&store, &findings.keys))?;
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
    let (file, untouched) = (args.path.display(), if args.remove { ", and nothing was removed from it" } else { "" });
    if let Err(error) = read {
        let message = format!("not all of {file} can be read{untouched}: if this happens again, {HOW_TO_REPLACE}");
        return Err(Failure::with_cause(message, error));
    }
    if problems?.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{file} is damaged{untouched}: {HOW_TO_REPLACE}")))
}

/// Opens a cache that exists. Looking at a cache never creates one.
fn open(path: &Path) -> Result<Sqlite, Failure> {
    let name = path.display();
    match fs::metadata(path) {
        // SQLite also takes a file of one byte for an empty one.
        Ok(about) if about.is_file() && about.len() <= 1 => {
            Err(Failure::new(format!("{name} is empty: there is no cache in it")))
        }
        Ok(_) => Ok(Sqlite::open(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{name} does not exist: `docvector-embed embed --cache {name}` creates it")))
        }
        Err(error) => Err(Failure::with_cause(format!("{name} cannot be read"), error)),
    }
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
async fn inspect_entries(store: &Sqlite, progress: &Progress) -> (Findings, docvector_embed::Result<()>) {
    let (mut findings, mut seen) = (Findings::default(), 0_u64);
    let read = store
        .for_each(|key, value| {
            findings.add(key, value);
            seen += 1;
            if seen.is_multiple_of(PROGRESS_STEP) {
                progress.advance(PROGRESS_STEP, seen);
            }
        })
        .await;
    (findings, read)
}

/// Removes the entries of these keys that are still damaged, and returns how many: another process may have replaced
/// some meanwhile.
async fn remove(store: &Sqlite, keys: &[Key]) -> Result<u64, Failure> {
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
