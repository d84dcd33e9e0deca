//! Finds and loads ONNX Runtime's shared library, once per process.

use std::{
    env, fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

use super::trusted_place;
use crate::{Error, ErrorKind, Result, assets};

/// The oldest ONNX Runtime that is accepted: its interface is the one that `ort` is built for here. 1.23.2 to 1.32.0
/// were tried; 1.22.0 aborts the process when it makes a session.
pub(super) const OLDEST: &str = "1.23";

/// How many folders are searched for `assets/onnxruntime`: that of the program (`target/release/deps`) or of the
/// package, and those above it.
const LEVELS: usize = 4;

/// The place in which the library was found. See [`OnnxLibrary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnnxLibrarySource {
    /// [`with_library`](super::OnnxBuilder::with_library).
    Path,
    /// The variable `ORT_DYLIB_PATH`.
    Variable,
    /// The folder that `docvector-embed setup` or `scripts/fetch-assets` fills, or the one that
    /// `DOCVECTOR_EMBED_ASSETS` names.
    Assets,
    /// The Python package `onnxruntime`.
    Python,
}

impl fmt::Display for OnnxLibrarySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "the path given",
            Self::Variable => "ORT_DYLIB_PATH",
            Self::Assets => "the asset folder",
            Self::Python => "the Python package onnxruntime",
        })
    }
}

/// The loaded library.
///
/// ```no_run
/// use docvector_embed::provider::Onnx;
/// # fn main() -> docvector_embed::Result<()> {
/// let library = Onnx::load_library(None)?;
/// println!("ONNX Runtime {} in {}, from {}", library.version, library.path.display(), library.source);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OnnxLibrary {
    /// The library's file.
    pub path: PathBuf,
    /// How the file was found.
    pub source: OnnxLibrarySource,
    /// The library's version, for example `1.32.0`.
    pub version: String,
}

/// The library and environment of this process: ONNX Runtime allows one of each.
static LOADED: Mutex<Option<(OnnxLibrary, Environment)>> = Mutex::new(None);

/// Loads the library, or returns the one that is loaded.
pub(super) fn load(explicit: Option<&Path>) -> Result<(OnnxLibrary, Environment)> {
    // The lock is held during the search: of several threads that load, one searches and the others wait.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((library, environment)) = &*loaded {
        check_same(library, explicit)?;
        return Ok((library.clone(), environment.clone()));
    }
    let mut tried = Vec::new();
    for (source, place) in places(explicit) {
        if let Some(found) = open_first(source, place, &mut tried) {
            *loaded = Some(found.clone());
            return Ok(found);
        }
        // A place that the user named is the only one to use: no other library replaces it.
        if matches!(source, OnnxLibrarySource::Path | OnnxLibrarySource::Variable) {
            break;
        }
    }
    let advice = if explicit.is_some() {
        "Correct the path, or leave out `--library` (`OnnxBuilder::with_library`): then other places are searched"
    } else {
        "Run `docvector-embed setup` (in a clone: scripts/fetch-assets, and set DOCVECTOR_EMBED_ASSETS to the folder that \
         it fills), or give the library's file by `--library` (`OnnxBuilder::with_library`) or ORT_DYLIB_PATH, or install \
         the Python package onnxruntime. A library beside a model is never loaded: a model is data"
    };
    let message = format!("no usable ONNX Runtime library ({OLDEST} or newer). Tried: {}. {advice}", tried.join("; "));
    Err(Error::new(ErrorKind::Config, message))
}

/// Refuses another library than the one that is loaded.
fn check_same(library: &OnnxLibrary, explicit: Option<&Path>) -> Result<()> {
    let loaded = canonical(&library.path);
    let same = |path: &Path| {
        let files = if path.is_dir() { in_folder(path) } else { vec![path.to_owned()] };
        files.iter().any(|file| canonical(file) == loaded)
    };
    if explicit.is_none_or(same) {
        return Ok(());
    }
    let message = format!(
        "ONNX Runtime is already loaded from {}, and a process cannot load another library",
        library.path.display()
    );
    Err(Error::new(ErrorKind::Config, message))
}

/// Loads the first usable library of a place, and adds each failure to `tried`.
fn open_first(source: OnnxLibrarySource, place: Place, tried: &mut Vec<String>) -> Option<(OnnxLibrary, Environment)> {
    let unnamed = matches!(place, Place::Unnamed(_));
    let candidates = match place {
        Place::File(path) => vec![path],
        Place::Folder(folder) | Place::Unnamed(folder) => {
            let found = in_folder(&folder);
            if found.is_empty() {
                tried.push(format!("{} ({source}): no library there", folder.display()));
            }
            found
        }
        Place::Nowhere(why) => {
            tried.push(format!("{source}: {why}"));
            Vec::new()
        }
    };
    for path in candidates {
        // The path that is checked is the one that is opened.
        let path = if unnamed { canonical(&path) } else { path };
        if let Some(fault) = unnamed.then(|| trusted_place::fault(&path)).flatten() {
            tried.push(format!(
                "{} ({source}): passed over, because {fault}; take the right away (chmod go-w) or, if you trust the \
                 place, name the folder in DOCVECTOR_EMBED_ASSETS",
                path.display()
            ));
            continue;
        }
        match open(&path) {
            Ok((version, environment)) => return Some((OnnxLibrary { path, source, version }, environment)),
            Err(why) => tried.push(format!("{} ({source}): {why}", path.display())),
        }
    }
    None
}

enum Place {
    File(PathBuf),
    Folder(PathBuf),
    /// A folder that the user did not name: nobody else may be able to put code into it.
    Unnamed(PathBuf),
    Nowhere(String),
}

/// Returns the places to search, in order. The Python package is last, because finding it starts Python.
fn places(explicit: Option<&Path>) -> impl Iterator<Item = (OnnxLibrarySource, Place)> {
    let named = |path: PathBuf| if path.is_dir() { Place::Folder(path) } else { Place::File(path) };
    let explicit = explicit.map(|path| (OnnxLibrarySource::Path, named(path.to_owned())));
    let variable = env::var_os("ORT_DYLIB_PATH")
        .filter(|value| !value.is_empty())
        .map(|value| (OnnxLibrarySource::Variable, named(value.into())));
    let assets = asset_places().into_iter().map(|place| (OnnxLibrarySource::Assets, place));
    let python = std::iter::once_with(|| {
        let place = python_package().map_or_else(Place::Nowhere, |folder| Place::Folder(folder.join("capi")));
        (OnnxLibrarySource::Python, place)
    });
    explicit.into_iter().chain(variable).chain(assets).chain(python)
}

/// Returns the folders that may hold the library that `docvector-embed setup` or `scripts/fetch-assets` fetched: only that
/// of the folder which `DOCVECTOR_EMBED_ASSETS` names; without it, those near the program, then that in the user's data
/// folder. A model's folder is none of them: it is data.
fn asset_places() -> Vec<Place> {
    if let Some(folder) = assets::named() {
        return vec![Place::Folder(folder.join("onnxruntime"))];
    }
    let mut places: Vec<Place> = near_program().into_iter().map(Place::Unnamed).collect();
    if places.is_empty() {
        places.push(Place::Nowhere("no folder assets/onnxruntime near the program".into()));
    }
    places.push(match assets::of_user() {
        Some(folder) => Place::Unnamed(folder.join("onnxruntime")),
        None => Place::Nowhere("the user has no data folder, because there is no home directory".into()),
    });
    places
}

/// Returns the folders `assets/onnxruntime` in the folder of the package that cargo runs, of the program, or a few levels
/// above either.
fn near_program() -> Vec<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let program = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let mut folders = Vec::new();
    for start in package.iter().chain(&program) {
        for level in start.ancestors().take(LEVELS) {
            let folder = level.join("assets/onnxruntime");
            if folder.is_dir() && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    folders
}

/// Returns the library files in a folder: the plain name first, then from the newest version on.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let is_library = |name: &str| match env::consts::OS {
        "windows" => name == "onnxruntime.dll",
        "macos" => name.starts_with("libonnxruntime.") && name.ends_with(".dylib"),
        _ => name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so."),
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_library)).map(|entry| entry.path()).collect();
    let numbers = |path: &PathBuf| -> Vec<u32> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').filter_map(|part| part.parse().ok()).collect()
    };
    found.sort_by_key(|path| {
        let numbers = numbers(path);
        (!numbers.is_empty(), std::cmp::Reverse(numbers))
    });
    found
}

/// Asks Python for its package's folder, without importing the package.
fn python_package() -> Result<PathBuf, String> {
    // Not a package that happens to lie in the current folder.
    const ASK: &str = "import sys; sys.path[:] = [p for p in sys.path if p]; import importlib.util as u; s = u.find_spec('onnxruntime'); \
                       print(next(iter(s.submodule_search_locations)) if s else '')";
    let mut problem = "no Python found".to_owned();
    for python in ["python3", "python"] {
        let asked = Command::new(python).args(["-c", ASK]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let Ok(answer) = asked else { continue };
        let folder = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        if answer.status.success() && !folder.is_empty() {
            return Ok(folder.into());
        }
        problem = format!("{python} has no package onnxruntime");
    }
    Err(problem)
}

/// Loads one file. If it is not ONNX Runtime or is too old, the error is the reason in words; nothing panics.
fn open(path: &Path) -> Result<(String, Environment), String> {
    if !path.is_file() {
        return Err("no such file".into());
    }
    // The loader would look for a relative path beside the program.
    let path = canonical(path);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let builder = ort::init_from(&path).map_err(|error| error.to_string())?;
        let environment = builder.with_name("docvector-embed").with_telemetry(false).build();
        environment.map_err(|error| error.to_string())
    }));
    let environment = opened.unwrap_or_else(|_| Err("is not a usable ONNX Runtime".into()))?;
    // Failures come back as errors, so ONNX Runtime need not print them too.
    environment.set_log_level(LogLevel::Fatal);
    Ok((version(&path), environment))
}

/// Returns the library's version: from its file name (`1.32.0`), else from its interface (`1.32`).
fn version(path: &Path) -> String {
    let probed = ort::util::probe(path).map_or_else(|| "unknown".to_owned(), |minor| format!("1.{minor}"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.find(&format!("{probed}.")) {
        Some(at) => name[at..].trim_end_matches(".dylib").to_owned(),
        None => probed,
    }
}

fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
