//! Keeps what `docvector-embed tune` found on this machine, in a file that loading looks into.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Result, SpaceId};

/// Names the file, in place of the one in the user's cache folder.
const VARIABLE: &str = "DOCVECTOR_EMBED_TUNING";

/// What the file says of itself.
const FORMAT: &str = "docvector-embed tuning";
const VERSION: u64 = 1;

/// What a file may hold: more is not read, and what is oldest is not kept.
const MOST_ENTRIES: usize = 100;
const MOST_BYTES: u64 = 1 << 20;

/// What a setting may be. Beyond it, nobody has measured anything.
const THREADS: RangeInclusive<usize> = 1..=1024;
const BATCH_TOKENS: RangeInclusive<usize> = 1..=1 << 24;

/// The settings that a machine runs a model fastest with.
///
/// `docvector-embed tune` measures them and keeps them with [`Onnx::store_tuning`](super::Onnx::store_tuning), in a file
/// that loading looks into: the one that `DOCVECTOR_EMBED_TUNING` names (none where it is empty), else
/// `docvector-embed/tuning.json` in the user's cache folder. They hold for the same machine, ONNX Runtime, device, kind of
/// file and [`Space`](crate::Space), which the length of texts is part of.
///
/// ```no_run
/// use docvector_embed::provider::{Onnx, Tuning};
/// # fn main() -> docvector_embed::Result<()> {
/// let embedder = Onnx::load("all-MiniLM-L6-v2")?;
/// // Measured by other means: threads, padded tokens of a batch, and tokens a second with them.
/// let file = embedder.store_tuning(&Tuning::new(4, 512), 25_000.0)?;
/// println!("{}: the next load uses it", file.display());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tuning {
    /// Threads, each with a session.
    pub threads: usize,
    /// Padded tokens of a batch.
    pub batch_tokens: usize,
}

impl Tuning {
    /// So many threads, and padded tokens of a batch.
    pub const fn new(threads: usize, batch_tokens: usize) -> Self {
        Self { threads, batch_tokens }
    }

    /// What is wrong with them, if anything is.
    fn fault(&self) -> Option<String> {
        [("threads", self.threads, THREADS), ("batch_tokens", self.batch_tokens, BATCH_TOKENS)]
            .into_iter()
            .find(|(_, value, range)| !range.contains(value))
            .map(|(name, value, range)| format!("{name} is {value}, not {} to {}", range.start(), range.end()))
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.threads == 1 { "" } else { "s" };
        write!(f, "{} thread{s}, {} padded tokens a batch", self.threads, self.batch_tokens)
    }
}

/// Where the threads and the size of batches of an [`Onnx`](super::Onnx) are from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TuningSource {
    /// The defaults: nothing was measured for this model on this machine, or it was not to be used.
    Defaults,
    /// What [`Tuning`] this file holds.
    Tuned(PathBuf),
    /// What the builder was given.
    Given,
    /// The defaults, because this file cannot be used.
    Unusable(PathBuf, String),
}

impl fmt::Display for TuningSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("defaults"),
            Self::Tuned(file) => write!(f, "tuned, from {}", file.display()),
            Self::Given => f.write_str("given; what was tuned is not used"),
            Self::Unusable(file, why) => write!(f, "defaults, because {} {why}", file.display()),
        }
    }
}

/// What settings were measured for: a machine and a model. Kept in words, and compared as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key([(&'static str, Value); 7]);

impl Key {
    /// A model on this machine: the version of ONNX Runtime, the device or devices, the space, and what kind of file the
    /// model is, because a graph built from weights and one from a file need not run alike.
    pub(super) fn here(runtime: &str, devices: &str, space: SpaceId, kind: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self::new(env::consts::ARCH, cpu(), cores, runtime, devices, space, kind)
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

/// What the processor calls itself, where the system tells without being asked by a program.
pub(super) fn cpu() -> Option<String> {
    // Read up to the first such line: making up all of them takes the kernel a while on a machine of many cores.
    let lines = BufReader::new(File::open("/proc/cpuinfo").ok()?).lines().map_while(io::Result::ok);
    name(lines)
}

/// The name in the first processor's lines; of an ARM one, its maker's and its own number.
fn name(lines: impl Iterator<Item = String>) -> Option<String> {
    let (mut maker, mut part) = (None, None);
    for line in lines {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim().to_owned();
        match field.trim() {
            "model name" if !value.is_empty() => return Some(value),
            "CPU implementer" => maker = maker.or(Some(value)),
            "CPU part" => part = part.or(Some(value)),
            _ => {}
        }
        if let (Some(maker), Some(part)) = (&maker, &part) {
            return Some(format!("implementer {maker} part {part}"));
        }
    }
    None
}

/// What was found for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Tuned(Tuning, PathBuf),
    /// The file, and what is wrong with it, as in `FILE is not JSON`.
    Unreadable(PathBuf, String),
}

/// Looks for what was measured. Whatever is in the file, or is not, is no error.
pub(super) fn find(key: &Key) -> Found {
    place().map_or(Found::Nothing, |file| find_in(file, key))
}

fn find_in(file: PathBuf, key: &Key) -> Found {
    let entries = match read(&file) {
        Ok(entries) => entries,
        Err(why) => return Found::Unreadable(file, why),
    };
    // The newest is the last.
    let Some(entry) = entries.iter().rfind(|entry| key.fits(entry)) else { return Found::Nothing };
    let number = |name: &str| entry.get(name)?.as_u64().and_then(|number| usize::try_from(number).ok());
    let (Some(threads), Some(batch_tokens)) = (number("threads"), number("batch_tokens")) else {
        let why = "has an entry for this model without whole numbers as threads and batch_tokens";
        return Found::Unreadable(file, why.to_owned());
    };
    let tuning = Tuning::new(threads, batch_tokens);
    match tuning.fault() {
        None => Found::Tuned(tuning, file),
        Some(fault) => Found::Unreadable(file, format!("has an entry for this model whose {fault}")),
    }
}

/// Keeps what was measured, in the place of what was kept for the same key, and says where.
pub(super) fn store(key: &Key, label: Option<&str>, tuning: &Tuning, tokens_per_second: f64) -> Result<PathBuf> {
    let file = file()?;
    store_in(&file, key, label, tuning, tokens_per_second)?;
    Ok(file)
}

/// The file, or what to do so that there is one that more can be kept in.
pub(super) fn file() -> Result<PathBuf> {
    let file = place().ok_or_else(|| {
        wrong(format!(
            "there is no file to keep settings in: set {VARIABLE} to one (it is empty, or there is no home folder)"
        ))
    })?;
    entries(&file)?;
    writable(&file).map_err(|error| unwritable(&file, error))?;
    Ok(file)
}

/// Finds out whether a file can be made beside this one.
fn writable(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let trial = folder.join(format!(".{:016x}.partial", fastrand::u64(..)));
    OpenOptions::new().write(true).create_new(true).open(&trial)?;
    fs::remove_file(trial)
}

fn unwritable(file: &Path, error: io::Error) -> Error {
    wrong(format!("{} cannot be written: set {VARIABLE} to a file that can be", file.display())).with_source(error)
}

/// The entries of a file that more are to be added to. What cannot be read may be somebody's, or a newer version's.
fn entries(file: &Path) -> Result<Vec<Value>> {
    read(file)
        .map_err(|why| wrong(format!("{} {why}: move it away, or set {VARIABLE} to another file", file.display())))
}

fn store_in(file: &Path, key: &Key, label: Option<&str>, tuning: &Tuning, tokens_per_second: f64) -> Result<()> {
    if let Some(fault) = tuning.fault() {
        return Err(wrong(format!("such settings cannot be kept: {fault}")));
    }
    let mut entries = entries(file)?;
    entries.retain(|entry| !key.fits(entry));
    let mut entry: Map<String, Value> = key.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let measured = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    for (name, value) in [
        ("model", label.map_or(Value::Null, Value::from)),
        ("threads", tuning.threads.into()),
        ("batch_tokens", tuning.batch_tokens.into()),
        // More digits were not measured. What is no number becomes null.
        ("tokens_per_second", tokens_per_second.round().into()),
        ("measured", measured.into()),
    ] {
        entry.insert(name.to_owned(), value);
    }
    entries.push(entry.into());
    entries.drain(..entries.len().saturating_sub(MOST_ENTRIES));
    let contents = serde_json::json!({ "format": FORMAT, "version": VERSION, "entries": entries });
    replace(file, format!("{contents:#}\n").as_bytes()).map_err(|error| unwritable(file, error))
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// The entries of a file, none where there is no file, or what is wrong with it.
fn read(file: &Path) -> Result<Vec<Value>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    match fs::metadata(file) {
        Ok(about) if about.is_file() => {}
        // Opening a pipe would wait for somebody to write.
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
        Some(version) => return Err(format!("is of version {version}, and version {VERSION} is what is known here")),
        None => return Err("does not say of which version it is".to_owned()),
    }
    match contents.get_mut("entries").map(Value::take) {
        Some(Value::Array(entries)) => Ok(entries),
        _ => Err("has no list of entries".to_owned()),
    }
}

/// Writes a file in one step: whoever reads it meanwhile reads the old one or the new one.
fn replace(file: &Path, contents: &[u8]) -> io::Result<()> {
    // What a link points to is replaced, not the link.
    let target = match fs::canonicalize(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        resolved => resolved?,
    };
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{:016x}.partial", fastrand::u64(..)));
    let partial = target.with_file_name(name);
    let written = (|| {
        // What is there already is somebody's, a link to another file perhaps.
        let mut out = OpenOptions::new().write(true).create_new(true).open(&partial)?;
        out.write_all(contents)?;
        out.sync_all()?;
        drop(out);
        fs::rename(&partial, &target)
    })();
    if written.is_err() {
        // What failed is worth more than what is left of it.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// The file of this process.
fn place() -> Option<PathBuf> {
    place_of(env::consts::OS, env::home_dir(), |name| env::var_os(name))
}

fn place_of(os: &str, home: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(file) = variable(VARIABLE) {
        return (!file.is_empty()).then(|| file.into());
    }
    // A relative path is to be ignored, says who defined XDG_CACHE_HOME: it would mean another folder in each folder.
    let named = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.has_root());
    let home = home.filter(|path| path.has_root());
    let folder = match os {
        "windows" => named("LOCALAPPDATA"),
        "macos" | "ios" => home.map(|home| home.join("Library/Caches")),
        _ => named("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache"))),
    };
    folder.map(|folder| folder.join("docvector-embed").join("tuning.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed in the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(format!("docvector-embed-tuning-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).expect("a folder");
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("tuning.json")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key(cores: usize, space: u8) -> Key {
        let space = SpaceId::from_bytes([space; 16]);
        Key::new("x86_64", Some("a processor".to_owned()), cores, "1.32.0", "cpu", space, "safetensors")
    }

    fn stored(file: &Path, key: &Key, tuning: Tuning) {
        store_in(file, key, Some("a model"), &tuning, 1234.5).expect("stored");
    }

    fn unreadable(file: &Path) -> String {
        match find_in(file.to_owned(), &key(2, 1)) {
            Found::Unreadable(of, why) if of == file => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_stored_is_found_for_its_key_alone() {
        let scratch = Scratch::new("keys");
        // In a folder that is not there yet.
        let file = scratch.0.join("a/b/tuning.json");
        assert_eq!(find_in(file.clone(), &key(2, 1)), Found::Nothing);
        stored(&file, &key(2, 1), Tuning::new(2, 256));
        stored(&file, &key(4, 1), Tuning::new(4, 512));
        stored(&file, &key(2, 2), Tuning::new(1, 64));
        let found = |key: &Key| find_in(file.clone(), key);
        assert_eq!(found(&key(2, 1)), Found::Tuned(Tuning::new(2, 256), file.clone()));
        assert_eq!(found(&key(4, 1)), Found::Tuned(Tuning::new(4, 512), file.clone()));
        assert_eq!(found(&key(2, 2)), Found::Tuned(Tuning::new(1, 64), file.clone()));
        assert_eq!(found(&key(4, 2)), Found::Nothing);
        let space = SpaceId::from_bytes([1; 16]);
        for other in [
            Key::new("aarch64", Some("a processor".to_owned()), 2, "1.32.0", "cpu", space, "safetensors"),
            Key::new("x86_64", None, 2, "1.32.0", "cpu", space, "safetensors"),
            Key::new("x86_64", Some("a processor".to_owned()), 2, "1.33.0", "cpu", space, "safetensors"),
            Key::new("x86_64", Some("a processor".to_owned()), 2, "1.32.0", "cuda:0", space, "safetensors"),
            Key::new("x86_64", Some("a processor".to_owned()), 2, "1.32.0", "cpu", space, "onnx"),
        ] {
            assert_eq!(found(&other), Found::Nothing, "{other:?}");
        }
        let left: Vec<_> = fs::read_dir(scratch.0.join("a/b")).expect("a folder").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn the_last_measurement_replaces_the_one_before() {
        let scratch = Scratch::new("replaced");
        let file = scratch.file();
        for tokens in [64, 128, 256] {
            stored(&file, &key(2, 1), Tuning::new(2, tokens));
            stored(&file, &key(2, 2), Tuning::new(1, tokens));
        }
        assert_eq!(find_in(file.clone(), &key(2, 1)), Found::Tuned(Tuning::new(2, 256), file.clone()));
        let entries = read(&file).expect("readable");
        assert_eq!(entries.len(), 2);
        assert_eq!((&entries[0]["model"], &entries[0]["cpu"]), (&"a model".into(), &"a processor".into()));
        assert!(entries[0]["measured"].as_u64().is_some_and(|time| time > 1_700_000_000), "{}", entries[0]);
    }

    #[test]
    fn the_oldest_entries_go() {
        let scratch = Scratch::new("bounded");
        let file = scratch.file();
        for cores in 1..=MOST_ENTRIES + 2 {
            stored(&file, &key(cores, 1), Tuning::new(2, 256));
        }
        assert_eq!(read(&file).expect("readable").len(), MOST_ENTRIES);
        assert_eq!(find_in(file.clone(), &key(2, 1)), Found::Nothing);
        assert!(matches!(find_in(file, &key(3, 1)), Found::Tuned(..)));
    }

    #[test]
    fn what_others_wrote_into_an_entry_stays() {
        let scratch = Scratch::new("foreign");
        let file = scratch.file();
        let entries = r#"[7, {"note": "by hand"}, {"arch": "x86_64"}]"#;
        fs::write(&file, format!(r#"{{"format": "{FORMAT}", "version": 1, "entries": {entries}}}"#)).expect("written");
        assert_eq!(find_in(file.clone(), &key(2, 1)), Found::Nothing);
        stored(&file, &key(2, 1), Tuning::new(2, 256));
        let kept = read(&file).expect("readable");
        assert_eq!((kept.len(), &kept[1]["note"]), (4, &"by hand".into()));
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let scratch = Scratch::new("damaged");
        let file = scratch.file();
        let long = " ".repeat(MOST_BYTES as usize + 1);
        let newer = format!(r#"{{"format": "{FORMAT}", "version": 2, "entries": []}}"#);
        let nothing = format!(r#"{{"format": "{FORMAT}", "version": 1}}"#);
        let unversioned = format!(r#"{{"format": "{FORMAT}", "version": "1", "entries": []}}"#);
        for (contents, why) in [
            ("", "is not JSON"),
            ("{\"entries\": [", "is not JSON"),
            ("\u{0}\u{1}", "is not JSON"),
            ("[]", "is not a file of"),
            ("{\"format\": 1, \"version\": 1, \"entries\": []}", "is not a file of"),
            (&newer, "is of version 2"),
            (&unversioned, "of which version"),
            (&nothing, "no list of entries"),
            (&long, "is longer than"),
        ] {
            fs::write(&file, contents).expect("written");
            assert!(unreadable(&file).contains(why), "{why:?} is not in {:?}", unreadable(&file));
            let error = store_in(&file, &key(2, 1), None, &Tuning::new(2, 256), 1.0).expect_err("refused");
            let said = error.to_string();
            assert!(error.kind() == ErrorKind::Config && said.contains(why) && said.contains(VARIABLE), "{said}");
            assert!(said.contains(&file.display().to_string()), "{said}");
            assert_eq!(fs::read_to_string(&file).expect("still there"), contents);
        }
        assert!(unreadable(&scratch.0).contains("not a regular file"));
    }

    #[test]
    fn settings_beyond_reason_are_not_used() {
        let scratch = Scratch::new("bounds");
        let file = scratch.file();
        for (threads, tokens, why) in [
            ("0", "256", "threads is 0"),
            ("1025", "256", "threads is 1025"),
            ("2", "0", "batch_tokens is 0"),
            ("2", "16777217", "batch_tokens is 16777217"),
            ("-1", "256", "whole numbers"),
            ("2.5", "256", "whole numbers"),
            ("\"2\"", "256", "whole numbers"),
            ("1e300", "256", "whole numbers"),
        ] {
            stored(&file, &key(2, 1), Tuning::new(7, 77));
            let written = fs::read_to_string(&file).expect("there");
            let changed = written
                .replace("\"threads\": 7,", &format!("\"threads\": {threads},"))
                .replace("\"batch_tokens\": 77,", &format!("\"batch_tokens\": {tokens},"));
            fs::write(&file, changed).expect("written");
            assert!(unreadable(&file).contains(why), "{why:?} is not in {:?}", unreadable(&file));
            // It is one entry, and measuring anew mends it.
            stored(&file, &key(2, 1), Tuning::new(1, 64));
            assert_eq!(find_in(file.clone(), &key(2, 1)), Found::Tuned(Tuning::new(1, 64), file.clone()));
        }
        for tuning in [Tuning::new(0, 1), Tuning::new(1, 0), Tuning::new(1025, 1), Tuning::new(1, (1 << 24) + 1)] {
            assert!(store_in(&file, &key(2, 1), None, &tuning, 1.0).is_err(), "{tuning:?}");
        }
    }

    #[test]
    fn a_speed_that_is_no_number_does_no_harm() {
        let scratch = Scratch::new("speed");
        for speed in [f64::NAN, f64::INFINITY] {
            store_in(&scratch.file(), &key(2, 1), None, &Tuning::new(2, 256), speed).expect("stored");
            assert!(matches!(find_in(scratch.file(), &key(2, 1)), Found::Tuned(..)));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let scratch = Scratch::new("link");
        let link = scratch.0.join("link.json");
        stored(&scratch.file(), &key(2, 1), Tuning::new(2, 256));
        std::os::unix::fs::symlink(scratch.file(), &link).expect("linked");
        stored(&link, &key(2, 1), Tuning::new(2, 512));
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(find_in(scratch.file(), &key(2, 1)), Found::Tuned(Tuning::new(2, 512), scratch.file()));
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error() {
        let scratch = Scratch::new("unwritable");
        fs::write(scratch.0.join("file"), "").expect("written");
        let error = store_in(&scratch.0.join("file/tuning.json"), &key(2, 1), None, &Tuning::new(2, 256), 1.0);
        let error = error.expect_err("a file is no folder");
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("tuning.json"), "{error}");
    }

    #[test]
    fn the_file_is_where_the_system_keeps_such_things() {
        let home = || Some(PathBuf::from("/home/x"));
        let place = |os: &str, home: Option<PathBuf>, set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value));
            place_of(os, home, variable).map(|path| path.to_string_lossy().replace('\\', "/"))
        };
        for (os, home, set, want) in [
            ("linux", home(), &[][..], Some("/home/x/.cache/docvector-embed/tuning.json")),
            ("linux", home(), &[("XDG_CACHE_HOME", "/c")], Some("/c/docvector-embed/tuning.json")),
            ("linux", home(), &[("XDG_CACHE_HOME", "")], Some("/home/x/.cache/docvector-embed/tuning.json")),
            ("linux", home(), &[("XDG_CACHE_HOME", "c")], Some("/home/x/.cache/docvector-embed/tuning.json")),
            ("linux", None, &[], None),
            ("linux", Some(PathBuf::new()), &[], None),
            ("macos", home(), &[("XDG_CACHE_HOME", "/c")], Some("/home/x/Library/Caches/docvector-embed/tuning.json")),
            ("windows", home(), &[("LOCALAPPDATA", "/c")], Some("/c/docvector-embed/tuning.json")),
            ("windows", home(), &[], None),
            ("linux", home(), &[(VARIABLE, "t.json"), ("XDG_CACHE_HOME", "/c")], Some("t.json")),
            ("linux", home(), &[(VARIABLE, ""), ("XDG_CACHE_HOME", "/c")], None),
        ] {
            assert_eq!(place(os, home, set).as_deref(), want, "{os} {set:?}");
        }
    }

    #[test]
    fn a_processor_has_a_name() {
        let name = |text: &str| name(text.lines().map(str::to_owned));
        assert_eq!(
            name("processor\t: 0\nmodel name\t: Some CPU @ 2.10GHz\nmodel name: other").as_deref(),
            Some("Some CPU @ 2.10GHz")
        );
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\n";
        assert_eq!(name(arm).as_deref(), Some("implementer 0x41 part 0xd0c"));
        assert_eq!(name("processor: 0\nnonsense\n"), None);
        assert_eq!(name(""), None);
    }

    #[test]
    fn settings_say_where_they_are_from() {
        let file = PathBuf::from("t.json");
        assert_eq!(TuningSource::Defaults.to_string(), "defaults");
        assert_eq!(TuningSource::Given.to_string(), "given; what was tuned is not used");
        assert_eq!(TuningSource::Tuned(file.clone()).to_string(), "tuned, from t.json");
        let unusable = TuningSource::Unusable(file, "is not JSON".to_owned());
        assert_eq!(unusable.to_string(), "defaults, because t.json is not JSON");
        assert_eq!(Tuning::new(1, 64).to_string(), "1 thread, 64 padded tokens a batch");
    }
}
