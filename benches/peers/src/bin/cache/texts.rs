//! Real chunks of documentation, as far as this machine has them.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use peers::{
    Result,
    text::{Kind, chunks},
};

/// Texts whose tokens are counted for the report.
const COUNTED: usize = 2_000;

const OF_CRATES: &[Kind] = &[Kind::Markdown, Kind::RustDoc];
const OF_PYTHON: &[Kind] = &[Kind::Markdown, Kind::Python];

/// Reads the wanted number of distinct chunks of the files below the folders, or of this machine's documentation if
/// there are none, and prints their sizes. If that is too little, chunks are repeated with another ending.
pub fn read(folders: &[String], wanted: usize) -> Result<Vec<String>> {
    let sources = match folders {
        [] => of_this_machine(),
        folders => folders.iter().map(|folder| (PathBuf::from(folder), Kind::ALL)).collect(),
    };
    let (mut texts, mut seen) = (Vec::new(), HashSet::new());
    for (folder, kinds) in sources {
        walk(&folder, kinds, &mut |chunk: &str| {
            if texts.len() < wanted && seen.insert(*blake3::hash(chunk.as_bytes()).as_bytes()) {
                texts.push(chunk.to_owned());
            }
            texts.len() < wanted
        });
    }
    let real = texts.len();
    if real == 0 {
        return Err("no documentation found: name folders with some".into());
    }
    for copy in real..wanted {
        texts.push(format!("{}\n({})", texts[copy % real], copy / real));
    }
    describe(&texts, real)?;
    Ok(texts)
}

fn describe(texts: &[String], real: usize) -> Result<()> {
    let tiktoken = tiktoken_rs::cl100k_base()?;
    let counted: Vec<&String> = texts.iter().step_by(texts.len().div_ceil(COUNTED)).collect();
    let tokens: usize = counted.iter().map(|text| tiktoken.encode_ordinary(text).len()).sum();
    let bytes: usize = texts.iter().map(String::len).sum();
    print!(
        "{} distinct chunks of documentation, {:.0} bytes and about {:.0} tokens per chunk",
        texts.len(),
        bytes as f64 / texts.len() as f64,
        tokens as f64 / counted.len() as f64
    );
    if real < texts.len() {
        print!(", {} of them repeated with another ending", texts.len() - real);
    }
    println!(".\n");
    Ok(())
}

/// Returns folders and which of their files are read. Missing ones are left out.
fn of_this_machine() -> Vec<(PathBuf, &'static [Kind])> {
    let mut sources: Vec<(PathBuf, &'static [Kind])> = Vec::new();
    let named = |name: &str| env::var_os(name).map(PathBuf::from);
    let cargo = named("CARGO_HOME").or_else(|| named("HOME").map(|home| home.join(".cargo")));
    sources.extend(cargo.map(|cargo| (cargo.join("registry/src"), OF_CRATES)));
    let stdlib = "import sysconfig; print(sysconfig.get_paths()['stdlib'])";
    let output = Command::new("python3").args(["-c", stdlib]).output().ok().filter(|output| output.status.success());
    let library = output.and_then(|output| String::from_utf8(output.stdout).ok());
    sources.extend(library.map(|path| (PathBuf::from(path.trim()), OF_PYTHON)));
    sources
}

/// Passes on the chunks of the files below a folder as long as more are wanted. Unreadable files are left out.
fn walk(folder: &Path, kinds: &[Kind], give: &mut impl FnMut(&str) -> bool) -> bool {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if !walk(&path, kinds, give) {
                return false;
            }
            continue;
        }
        let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else { continue };
        for kind in kinds.iter().filter(|kind| kind.extensions().contains(&extension)) {
            let Ok(file) = fs::read_to_string(&path) else { break };
            let mut more = true;
            if let Some(text) = kind.text_of(&file) {
                chunks::cut(&text, |chunk| more = give(chunk));
            }
            if !more {
                return false;
            }
        }
    }
    true
}
