//! Keeps the settings that `docvector-embed tune` found on this machine, in a file that loading reads.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use super::cpu;
use crate::{
    Error, ErrorKind, Result, SpaceId,
    user_folder::{Places, user_folder},
};

/// The variable that names the file, in place of the one in the user's cache folder.
const VARIABLE: &str = "DOCVECTOR_EMBED_TUNING";

/// The places for what a program can make again.
const PLACES: Places = Places { xdg: "XDG_CACHE_HOME", below_home: ".cache", below_home_on_macos: "Library/Caches" };

/// The format and version that the file states.
const FORMAT: &str = "docvector-embed tuning";
const VERSION: u64 = 1;

/// The most that a file may hold: more bytes are not read, and the oldest entries are not kept.
const MOST_ENTRIES: usize = 100;
const MOST_BYTES: u64 = 1 << 20;

/// The range of the setting. Nothing beyond it was measured.
const BATCH_TOKEN_RANGE: RangeInclusive<usize> = 1..=1 << 24;

/// The settings with which a machine runs a model fastest.
///
/// `docvector-embed tune` measures them and keeps them with [`Onnx::store_tuning`](super::Onnx::store_tuning) in a file
/// that loading reads. `DOCVECTOR_EMBED_TUNING` names the file; if the variable is empty, there is none; if it is not
/// set, the file is `docvector-embed/tuning.json` in the user's cache folder. The settings hold for the same machine,
/// ONNX Runtime, device, kind of file and [`Space`](crate::Space). The maximal length of texts is a part of the space.
/// Several programs may keep settings at the same time: they take turns by a lock on a file beside it,
/// `tuning.json.lock`.
///
/// ```no_run
/// use docvector_embed::provider::{Onnx, Tuning};
/// # fn main() -> docvector_embed::Result<()> {
/// let embedder = Onnx::load("all-MiniLM-L6-v2")?;
/// // Measured by other means: threads, padded tokens per batch, and the tokens per second that they reach.
/// let file = embedder.store_tuning(&Tuning::new(4, 512), 25_000.0)?;
/// println!("{}: the next load uses it", file.display());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tuning {
    /// Threads, each with a session.
    pub threads: usize,
    /// Padded tokens per batch.
    pub batch_tokens: usize,
}

impl Tuning {
    /// Returns settings of so many threads, and padded tokens per batch.
    pub const fn new(threads: usize, batch_tokens: usize) -> Self {
        Self { threads, batch_tokens }
    }

    /// Returns what is wrong with the settings, if anything is.
    fn fault(&self) -> Option<String> {
        [("threads", self.threads, 1..=cpu::most_threads()), ("batch_tokens", self.batch_tokens, BATCH_TOKEN_RANGE)]
            .into_iter()
            .find(|(_, value, range)| !range.contains(value))
            .map(|(name, value, range)| format!("{name} is {value}, not {} to {}", range.start(), range.end()))
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.threads == 1 { "" } else { "s" };
        write!(f, "{} thread{s}, {} padded tokens per batch", self.threads, self.batch_tokens)
    }
}

/// The source of the threads and the batch size of an [`Onnx`](super::Onnx):
/// [`OnnxInfo::tuning_source`](super::OnnxInfo::tuning_source).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TuningSource {
    /// The defaults: nothing was measured for this model on this machine, or measured settings are turned off.
    Defaults,
    /// The [`Tuning`] in this file.
    Tuned(PathBuf),
    /// The numbers that the builder was given.
    Given,
    /// The defaults, because this file cannot be used, for this reason.
    Unusable(PathBuf, String),
}

impl fmt::Display for TuningSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("defaults"),
            Self::Tuned(file) => write!(f, "tuned, from {}", file.display()),
            Self::Given => f.write_str("given"),
            Self::Unusable(file, why) => write!(f, "defaults, because {} {why}", file.display()),
        }
    }
}

/// The subject of a measurement: a machine and a model. It is kept in words, and compared as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TuningKey([(&'static str, Value); 7]);

impl TuningKey {
    /// Describes a model on this machine: the version of ONNX Runtime, the devices, the space, and the kind of the
    /// model's file, because a graph built from weights and a graph from a file may need other settings.
    pub(super) fn here(runtime: &str, devices: &str, space: SpaceId, kind: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self::new(env::consts::ARCH, cpu::cpu(), cores, runtime, devices, space, kind)
    }

    fn new(
        arch: &str,
        cpu: Option<String>,
        cores: usize,
        runtime: &str,
        devices: &str,
        space: SpaceId,
        kind: &str,
    ) -> Self {
        Self([
            ("arch", arch.into()),
            ("cpu", cpu.map_or(Value::Null, Value::from)),
            ("cores", cores.into()),
            ("runtime", runtime.into()),
            ("devices", devices.into()),
            ("space", space.to_string().into()),
            ("kind", kind.into()),
        ])
    }

    fn fits(&self, entry: &Value) -> bool {
        self.0.iter().all(|(name, value)| entry.get(name) == Some(value))
    }
}

/// The settings that were found for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredTuning {
    Nothing,
    Tuned(Tuning, PathBuf),
    /// The file, and what is wrong with it, as in `FILE is not JSON`.
    Unreadable(PathBuf, String),
}

/// Looks for measured settings. A file that is missing or damaged is no error.
pub(super) fn find(key: &TuningKey) -> StoredTuning {
    place().map_or(StoredTuning::Nothing, |file| find_in(file, key))
}

fn find_in(file: PathBuf, key: &TuningKey) -> StoredTuning {
    let entries = match read(&file) {
        Ok(entries) => entries,
        Err(why) => return StoredTuning::Unreadable(file, why),
    };
    // The last entry is the newest.
    let Some(entry) = entries.iter().rfind(|entry| key.fits(entry)) else { return StoredTuning::Nothing };
    let number = |name: &str| entry.get(name)?.as_u64().and_then(|number| usize::try_from(number).ok());
    let (Some(threads), Some(batch_tokens)) = (number("threads"), number("batch_tokens")) else {
        let why = "has an entry for this model without whole numbers as threads and batch_tokens";
        return StoredTuning::Unreadable(file, why.to_owned());
    };
    let tuning = Tuning::new(threads, batch_tokens);
    match tuning.fault() {
        None => StoredTuning::Tuned(tuning, file),
        Some(fault) => StoredTuning::Unreadable(file, format!("has an entry for this model whose {fault}")),
    }
}

/// Keeps measured settings in place of those for the same key, and returns the file.
pub(super) fn store(key: &TuningKey, label: Option<&str>, tuning: &Tuning, tokens_per_second: f64) -> Result<PathBuf> {
    let file = file()?;
    store_in(&file, key, label, tuning, tokens_per_second)?;
    Ok(file)
}

/// Returns the file, after checking that settings can be kept in it. The error says what to do.
pub(super) fn file() -> Result<PathBuf> {
    let file = place().ok_or_else(|| {
        wrong(format!(
            "no place for tuning settings: {VARIABLE} is empty, or there is no home directory; set {VARIABLE} to a file"
        ))
    })?;
    entries(&file)?;
    writable(&file).map_err(|error| unwritable(&file, error))?;
    Ok(file)
}

/// Checks that a file can be made beside this one.
fn writable(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let trial = folder.join(format!(".{:016x}.partial", fastrand::u64(..)));
    OpenOptions::new().write(true).create_new(true).open(&trial)?;
    fs::remove_file(trial)
}

fn unwritable(file: &Path, error: io::Error) -> Error {
    wrong(format!("{} cannot be written: set {VARIABLE} to a writable file", file.display())).with_source(error)
}

/// Reads the entries of a file that an entry is to be added to. A file that cannot be read may belong to another
/// program or to a newer version, so it stays as it is.
fn entries(file: &Path) -> Result<Vec<Value>> {
    read(file)
        .map_err(|why| wrong(format!("{} {why}: move it away, or set {VARIABLE} to another file", file.display())))
}

fn store_in(file: &Path, key: &TuningKey, label: Option<&str>, tuning: &Tuning, tokens_per_second: f64) -> Result<()> {
    if let Some(fault) = tuning.fault() {
        return Err(wrong(format!("these settings cannot be kept: {fault}")));
    }
    // A file that cannot be used stays alone: no lock file is made beside it.
    entries(file)?;
    let unwritable = |error| unwritable(file, error);
    let target = target(file).map_err(unwritable)?;
    // Two programs that add an entry at the same time would each write the file without the other's entry.
    let lock = lock(&target).map_err(unwritable)?;
    let mut entries = entries(file)?;
    entries.retain(|entry| !key.fits(entry));
    let mut entry: Map<String, Value> = key.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let measured = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    for (name, value) in [
        ("model", label.map_or(Value::Null, Value::from)),
        ("threads", tuning.threads.into()),
        ("batch_tokens", tuning.batch_tokens.into()),
        // The measurement is not more exact than that. JSON has no NaN: it becomes null.
        ("tokens_per_second", tokens_per_second.round().into()),
        ("measured", measured.into()),
    ] {
        entry.insert(name.to_owned(), value);
    }
    entries.push(entry.into());
    entries.drain(..entries.len().saturating_sub(MOST_ENTRIES));
    let contents = serde_json::json!({ "format": FORMAT, "version": VERSION, "entries": entries });
    let replaced = replace(&target, format!("{contents:#}\n").as_bytes()).map_err(unwritable);
    drop(lock);
    replaced
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Reads the entries of a file; there are none if there is no file. The error says what is wrong with the file.
fn read(file: &Path) -> Result<Vec<Value>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    match fs::metadata(file) {
        Ok(about) if about.is_file() => {}
        // Opening a pipe would wait until another program writes.
        Ok(_) => return Err("is not a regular file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    }
    let mut bytes = Vec::new();
    File::open(file).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("is longer than {MOST_BYTES} bytes"));
    }
    let mut contents: Value = serde_json::from_slice(&bytes).map_err(|error| format!("is not JSON: {error}"))?;
    if contents.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err("is not a file of docvector-embed's settings".to_owned());
    }
    match contents.get("version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(version) => return Err(format!("is of version {version}, but only version {VERSION} is known here")),
        None => return Err("does not say of which version it is".to_owned()),
    }
    match contents.get_mut("entries").map(Value::take) {
        Some(Value::Array(entries)) => Ok(entries),
        _ => Err("has no list of entries".to_owned()),
    }
}

/// Returns the file to write, and makes its folder: if `file` is a link, its target is replaced, and not the link.
fn target(file: &Path) -> io::Result<PathBuf> {
    let target = match fs::canonicalize(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        resolved => resolved?,
    };
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(target)
}

/// Waits until no other program changes the file, and keeps all others waiting until the lock is dropped. The lock is
/// on a file beside it, because the file itself is replaced. That file stays: a program may wait for it.
fn lock(target: &Path) -> io::Result<File> {
    let mut name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(target.with_file_name(name))?;
    match lock.lock() {
        // Some network drives have no locks. An entry that is lost there costs a measurement, and no vector.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        locked => locked?,
    }
    Ok(lock)
}

/// Writes a file in one step: a program that reads it meanwhile reads the old file or the new one.
fn replace(target: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{:016x}.partial", fastrand::u64(..)));
    let partial = target.with_file_name(name);
    let written = (|| {
        // A file that exists belongs to another program, and may be a link to another file.
        let mut out = OpenOptions::new().write(true).create_new(true).open(&partial)?;
        out.write_all(contents)?;
        out.sync_all()?;
        drop(out);
        fs::rename(&partial, target)
    })();
    if written.is_err() {
        // The first error is returned, whatever becomes of the partial file.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Returns the file that this process uses.
fn place() -> Option<PathBuf> {
    place_of(env::consts::OS, env::home_dir(), |name| env::var_os(name))
}

fn place_of(os: &str, home: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(file) = variable(VARIABLE) {
        return (!file.is_empty()).then(|| file.into());
    }
    user_folder(&PLACES, os, home, variable).map(|folder| folder.join("tuning.json"))
}

#[cfg(test)]
mod tests;
