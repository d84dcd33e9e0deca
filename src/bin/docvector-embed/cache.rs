//! Shows what is in the file that `embed --cache` keeps, and checks it.

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

/// Damaged entries that are named.
const KEYS_SHOWN: usize = 5;

/// Lines of what SQLite finds wrong that are shown.
const PROBLEMS_SHOWN: usize = 10;

/// Damaged entries that are removed in one go: their keys are kept in memory, 32 bytes each.
const MAX_REMOVED: usize = 1 << 20;

/// Damaged entries that are in memory at a time.
const REMOVED_AT_ONCE: usize = 256;

/// Entries between two changes of the bar.
const PROGRESS_STEP: u64 = 1_000;

/// What to do about a file that is damaged where no entry is.
const HOW_TO_REPLACE: &str = "move it away and begin a new one; what it had is embedded again";

/// Prints what is in the file.
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

/// Checks all entries and the file, and prints what was found. Anything damaged is a failure, unless it was removed.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let store = open(&args.path)?;
    let runtime = runtime()?;
    let shown = io::stderr().is_terminal();
    // A bar wants to know how many there are; why they cannot be counted is told below.
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
    // A file that is damaged itself is not written to.
    refuse_damaged_file(args, read, problems)?;
    if findings.damaged == 0 {
        return Ok(());
    }
    if !args.remove {
        let are = if findings.damaged == 1 { "is" } else { "are" };
        return Err(Failure::new(format!(
            "{} of {} entries {are} damaged: --remove removes what is, so that such texts are embedded anew",
            findings.damaged,
            findings.entries(),
        )));
    }
    let removed = runtime.block_on(remove(&store, &findings.keys))?;
    report.text("")?;
    report.line("removed", removed)?;
    match findings.damaged - findings.keys.len() as u64 {
        0 => Ok(()),
        left => Err(Failure::new(format!("{left} damaged entries are left: do it again"))),
    }
}

/// Prints what SQLite found wrong with the file; `None` if it could not look.
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

/// Fails if the file cannot be read as a whole, or SQLite found it damaged.
fn refuse_damaged_file(
    args: &VerifyArgs,
    read: docvector_embed::Result<()>,
    problems: docvector_embed::Result<Vec<String>>,
) -> Result<(), Failure> {
    let (file, untouched) = (args.path.display(), if args.remove { ", and nothing was removed from it" } else { "" });
    if let Err(error) = read {
        let message = format!("{file} cannot be read as a whole{untouched}: if this stays so, {HOW_TO_REPLACE}");
        return Err(Failure::with_cause(message, error));
    }
    if problems?.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{file} is damaged{untouched}: {HOW_TO_REPLACE}")))
}

/// Opens a cache that is there: who looks at one does not make one.
fn open(path: &Path) -> Result<Sqlite, Failure> {
    let name = path.display();
    match fs::metadata(path) {
        // A single byte is an empty file to SQLite, too.
        Ok(about) if about.is_file() && about.len() <= 1 => {
            Err(Failure::new(format!("{name} is empty: there is no cache in it")))
        }
        Ok(_) => Ok(Sqlite::open(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{name} is not there: `docvector-embed embed --cache {name}` makes it")))
        }
        Err(error) => Err(Failure::with_cause(format!("{name} cannot be read"), error)),
    }
}

/// What a look at all entries found.
#[derive(Debug, Default)]
struct Findings {
    /// Sound entries, and those of them whose text was truncated, by dimensions and whether a component has 16 bits.
    sound: BTreeMap<(usize, bool), (u64, u64)>,
    damaged: u64,
    /// Keys of the damaged ones, the first so many.
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
        let mut rows = vec![["dimensions", "stored as", "sound entries", "cut texts"].map(str::to_owned)];
        rows.extend(self.sound.iter().map(|(&(dimensions, half_precision), (entries, truncated))| {
            let precision = if half_precision { "f16" } else { "f32" };
            [dimensions.to_string(), precision.to_owned(), entries.to_string(), truncated.to_string()]
        }));
        report.table(&rows)
    }
}

/// Reads all entries, and says how that ended.
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

/// Removes the entries of these keys that are still damaged: others may have been at them meanwhile. Says how many.
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
