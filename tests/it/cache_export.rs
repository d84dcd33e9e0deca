//! The Arrow file of a cache in the hands of other programs: pyarrow and polars read an export, and what they write is
//! imported. Files that are no exports are refused, whatever they hold.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use docvector_embed::{
    Batch, Embedder, ErrorKind, InputKind, Limits, Result, SpaceId, Truncation, async_trait,
    cache::{CacheStore, Entry, Key, Memory, ScanSink},
    cache_tools::{
        ArrowSource, ArrowTarget, EntrySource, EntryTarget, ScanSource, StoreTarget, Transfer, TransferReport,
    },
    provider::Fake,
    wrap::{Cached, EntryInfo, VectorEncoding},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::support::{clients_python, numbered, root};

/// The texts of each space, and how many entries a batch of the export has at most.
const TEXTS: usize = 30;
const ENTRIES_PER_BATCH: usize = 16;

/// What a program finds in a file.
#[derive(Deserialize)]
struct Told {
    columns: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
    rows: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
struct Row {
    space: Option<String>,
    day: Option<u32>,
    truncated: bool,
    half: bool,
    vector: Vec<f32>,
}

#[tokio::test]
async fn other_programs_read_an_export() {
    #[derive(Deserialize)]
    struct Read {
        batches: usize,
        found: BTreeMap<String, Told>,
    }

    let folder = folder();
    let (store, export) = exported(folder.path()).await;
    let (entries, notes) = (entries(&store).await, store.notes());
    let read: Read = python("read", &[&export]);
    assert_eq!(read.batches, entries.len().div_ceil(ENTRIES_PER_BATCH));
    let programs: Vec<&str> = read.found.keys().map(String::as_str).collect();
    let expected = ["polars.read_ipc", "polars.scan_ipc", "pyarrow.feather", "pyarrow.ipc"];
    assert_eq!(programs, expected);
    for (program, told) in &read.found {
        assert_same(program, told, &entries);
        let is_pyarrow = program.starts_with("pyarrow");
        assert_eq!(told.columns, columns(if is_pyarrow { &PYARROW_TYPES } else { &POLARS_TYPES }), "{program}");
        if is_pyarrow {
            assert_eq!(told.metadata["docvector_embed.cache"], "1");
            assert_eq!(told.metadata.len(), 1 + notes.len());
            for (space, about) in &notes {
                assert_eq!(told.metadata[&format!("space.{space}")], *about, "{program}");
            }
        }
    }
}

/// The types of the columns as pyarrow and polars say them.
const PYARROW_TYPES: [&str; 6] = [
    "fixed_size_binary[32] not null",
    "string",
    "date32[day]",
    "bool not null",
    "bool not null",
    "list<item: float not null> not null",
];
const POLARS_TYPES: [&str; 6] = ["Binary", "String", "Date", "Boolean", "Boolean", "List(Float32)"];

fn columns(types: &[&str; 6]) -> BTreeMap<String, String> {
    let names = ["key", "space", "day", "truncated", "half", "vector"];
    names.into_iter().zip(types).map(|(name, kind)| (name.to_owned(), (*kind).to_owned())).collect()
}

fn assert_same(program: &str, told: &Told, entries: &BTreeMap<Key, Vec<u8>>) {
    assert_eq!(told.rows.len(), entries.len(), "{program}");
    for (key, value) in entries {
        let mut vector = Vec::new();
        let info = EntryInfo::read(key, value, &mut vector).expect("an entry");
        let row = told.rows.get(&key.to_string()).unwrap_or_else(|| panic!("{program} has no {key}"));
        assert_eq!(row.space, info.space.map(|space| space.to_string()), "{program}: {key}");
        assert_eq!(row.day, info.day, "{program}: {key}");
        assert_eq!((row.truncated, row.half), (info.truncated, info.half_precision), "{program}: {key}");
        assert_eq!(bits(&row.vector), bits(&vector), "{program}: {key}");
    }
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|number| number.to_bits()).collect()
}

/// Whatever the order of the columns and the sizes of the batches.
#[tokio::test]
async fn what_other_programs_write_is_imported() {
    let folder = folder();
    let (store, export) = exported(folder.path()).await;
    let (all, notes) = (entries(&store).await, store.notes());
    let written: BTreeMap<String, Vec<String>> = python("write", &[&export, folder.path()]);
    assert_eq!(written.len(), 6);
    for (file, keys) in &written {
        let (imported, report) = import(&folder.path().join(file)).await.expect(file);
        assert_eq!((report.read, report.damaged), (keys.len() as u64, 0), "{file}");
        let found = entries(&imported).await;
        assert!(found.keys().map(Key::to_string).eq(sorted(keys)), "{file}");
        for (key, value) in &found {
            assert_eq!(*value, all[key], "{file}: {key}");
        }
        assert_eq!(imported.notes(), if file == "plain.arrow" { Vec::new() } else { notes.clone() }, "{file}");
    }
    assert_eq!(written["feather.arrow"].len(), all.len());
    assert!(written["polars.arrow"].len() > 10 && written["none.arrow"].is_empty());
}

fn sorted(keys: &[String]) -> Vec<String> {
    let mut keys = keys.to_vec();
    keys.sort();
    keys
}

/// The message says what is wrong, and where.
#[tokio::test]
async fn files_of_another_form_are_refused() {
    #[derive(Deserialize)]
    struct Wrong {
        damaged: Vec<String>,
    }

    let cases = [
        ("renamed", "has no column \"vector\": it is not an export of a cache"),
        ("fewer", "has no column \"half\""),
        ("key-width", "has the column \"key\" of type FixedSizeBinary(16), and not FixedSizeBinary(32)"),
        ("key-type", "has the column \"key\" of type Binary, and not FixedSizeBinary(32)"),
        ("doubles", "has the column \"vector\" of type List"),
        ("large-list", "has the column \"vector\" of type LargeList"),
        ("polars-own", "has the column \"key\" of type BinaryView, and not FixedSizeBinary(32)"),
        ("newer", "has the version 2 of the form, and the newest known here is 1: update"),
        ("no-key", "row 20 has no key"),
        ("lz4", "is compressed, which is not supported: write it uncompressed"),
        ("zstd", "is compressed"),
        ("feather-default", "is compressed"),
        ("stream", "is damaged, or not a whole Arrow file"),
        ("empty", "is damaged, or not a whole Arrow file"),
        ("text", "is damaged, or not a whole Arrow file"),
        ("missing", "cannot be read"),
    ];
    let folder = folder();
    let (store, export) = exported(folder.path()).await;
    let wrong: Wrong = python("wrong", &[&export, folder.path()]);
    for (name, why) in cases {
        let path = folder.path().join(format!("{name}.arrow"));
        let error = import(&path).await.map(|(_, report)| report).expect_err(name);
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Cache, "{message}");
        assert!(message.contains(why) && message.contains(&path.display().to_string()), "{name}: {message}");
    }
    let path = folder.path().join("damaged.arrow");
    let (imported, report) = import(&path).await.expect("the other rows");
    let mut sound = entries(&store).await;
    sound.retain(|key, _| !wrong.damaged.contains(&key.to_string()));
    assert_eq!(entries(&imported).await, sound);
    assert_eq!((report.damaged, report.copied), (wrong.damaged.len() as u64, sound.len() as u64));
    assert_eq!(damaged_keys(&path).await, wrong.damaged);
}

async fn damaged_keys(path: &Path) -> Vec<String> {
    let (mut damaged, store) = (Vec::new(), Memory::unbounded());
    let transfer = Transfer::new().with_damaged(|key| damaged.push(key.to_string()));
    let mut source = ArrowSource::open(path).expect("a file");
    transfer.run(&mut source, &mut StoreTarget::new(&store)).await.expect("the other rows");
    damaged
}

/// It neither panics nor hangs, and what is imported has the form of an entry.
#[tokio::test]
async fn shortened_and_changed_files_do_no_harm() {
    let folder = folder();
    let (store, export) = exported(folder.path()).await;
    let (whole, all) = (fs::read(&export).expect("a file"), entries(&store).await);
    let path = folder.path().join("changed.arrow");
    for length in (0..whole.len()).step_by(61).chain(whole.len() - 20..whole.len()) {
        fs::write(&path, &whole[..length]).expect("written");
        let error = import(&path).await.map(|(_, report)| report).expect_err("shortened");
        assert!(error.to_string().contains("is damaged"), "{length}: {error}");
    }
    let mut refused = 0;
    for at in (0..whole.len()).step_by(11).chain((whole.len() - 2000..whole.len()).step_by(2)) {
        let mut changed = whole.clone();
        changed[at] ^= [0x01, 0x80, 0xff][at % 3];
        fs::write(&path, &changed).expect("written");
        match import(&path).await {
            Ok((imported, report)) => {
                // A vector has no checksum in the file, so another number is another vector.
                assert!(report.read <= all.len() as u64, "{at}");
                assert!(entries(&imported).await.iter().all(|(key, value)| EntryInfo::inspect(key, value).is_some()));
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::Cache, "{at}: {error}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Other programs may write everything as one batch.
#[tokio::test]
async fn a_large_batch_is_handed_over_in_parts() {
    let folder = folder();
    let (store, path) = (Memory::unbounded(), folder.path().join("large.arrow"));
    fill(&store, 8, VectorEncoding::Exact).await;
    let (key, value) = entries(&store).await.into_iter().next().expect("an entry");
    let info = EntryInfo::inspect(&key, &value).expect("an entry");
    let large: BTreeMap<Key, Vec<u8>> = (0..3000_u32)
        .map(|number| {
            let key = Key::from_bytes(std::array::from_fn(|at| number.to_be_bytes()[at % 4]));
            (key, info.entry_of(&key, &[number as f32; 2048]))
        })
        .collect();
    let batch: Vec<Entry<'_>> = large.iter().map(|(key, value)| Entry::new(*key, value)).collect();
    let mut target = ArrowTarget::create(&path, "a test").expect("a new file");
    target.take(&batch, None).await.expect("written");
    target.finish().await.expect("finished");

    let mut source = ArrowSource::open(&path).expect("a file");
    let (mut found, mut parts) = (BTreeMap::new(), 0);
    loop {
        let mut bytes = 0;
        let mut sink = |key: Key, value: &[u8]| {
            bytes += value.len();
            assert_eq!(found.insert(key, value.to_vec()), None, "{key} comes twice");
        };
        if !source.next(&mut sink).await.expect("a part") {
            break;
        }
        assert!(bytes < 9 << 20, "{bytes}");
        parts += 1;
    }
    assert!(found == large && source.rows() == 3000);
    assert_eq!(parts, 3);
}

// ---- what the tests share --------------------------------------------------------------------------------------------

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Makes a store with entries of all kinds, and its export.
async fn exported(folder: &Path) -> (Memory, PathBuf) {
    let (store, path) = (Memory::unbounded(), folder.join("export.arrow"));
    fill(&store, 8, VectorEncoding::Exact).await;
    fill(&store, 16, VectorEncoding::Half).await;
    add_old_entry(&store).await;
    let mut source = SmallParts { entries: entries(&store).await.into_iter().collect(), notes: store.notes() };
    let mut target = ArrowTarget::create(&path, "memory").expect("a new file");
    let report = Transfer::new().run(&mut source, &mut target).await.expect("it is written");
    assert_eq!((report.copied, report.damaged), (2 * TEXTS as u64 + 1, 0));
    (store, path)
}

/// Every third text is truncated.
async fn fill(store: &Memory, dimensions: usize, encoding: VectorEncoding) {
    let limits = Limits::default().with_tokens_per_text(5);
    let fake = Fake::builder().with_model(format!("fake-{dimensions}")).with_dimensions(dimensions);
    let fake = fake.with_limits(limits).build().expect("a model");
    let cached = Cached::builder(fake, store.clone()).with_vector_encoding(encoding).build().expect("one space");
    let texts: Vec<String> = numbered(TEXTS)
        .into_iter()
        .enumerate()
        .map(|(at, text)| if at % 3 == 0 { format!("{text} and more than five tokens") } else { text })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let batch = Batch::new(InputKind::Document, &texts).with_truncation(Truncation::Truncate);
    let rows = cached.embed(batch).await.expect("rows");
    assert_eq!(rows.truncated().len(), TEXTS.div_ceil(3));
}

/// Puts an entry as they were before they had a space and a day.
async fn add_old_entry(store: &Memory) {
    let all = entries(store).await;
    let (other, value) = all.iter().next().expect("an entry");
    let mut row = Vec::new();
    let mut info = EntryInfo::read(other, value, &mut row).expect("an entry");
    (info.space, info.day) = (None, None);
    let key = Key::from_bytes([0xfe; 32]);
    store.put(&[Entry::new(key, &info.entry_of(&key, &row))]).await.expect("it is put");
}

async fn entries(store: &Memory) -> BTreeMap<Key, Vec<u8>> {
    let mut entries = BTreeMap::new();
    let mut source = ScanSource::new(store);
    while source.next(&mut |key, value| _ = entries.insert(key, value.to_vec())).await.expect("a part") {}
    entries
}

/// Imports a file into a new store.
async fn import(path: &Path) -> Result<(Memory, TransferReport)> {
    let store = Memory::unbounded();
    let report = Transfer::new().run(&mut ArrowSource::open(path)?, &mut StoreTarget::new(&store)).await?;
    Ok((store, report))
}

/// Entries in so small parts that the file has many batches.
struct SmallParts {
    entries: VecDeque<(Key, Vec<u8>)>,
    notes: Vec<(SpaceId, String)>,
}

#[async_trait]
impl EntrySource for SmallParts {
    async fn next(&mut self, sink: &mut ScanSink<'_>) -> Result<bool> {
        let part = self.entries.len().min(ENTRIES_PER_BATCH);
        self.entries.drain(..part).for_each(|(key, value)| sink(key, &value));
        Ok(!self.entries.is_empty())
    }

    async fn notes(&mut self) -> Result<Vec<(SpaceId, String)>> {
        Ok(self.notes.clone())
    }
}

/// Runs a case of cache_export.py, and returns what it tells.
fn python<T: DeserializeOwned>(case: &str, paths: &[&Path]) -> T {
    let script = root().join("tests/it/cache_export.py");
    let output = Command::new(clients_python()).arg(script).arg(case).args(paths).output().expect("Python starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{case}: {out}{error}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).expect(case)
}
