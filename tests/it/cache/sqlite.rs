//! The SQLite store: what it promises when it is shared, killed, damaged, or out of space.
#![cfg(feature = "sqlite")]

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use docvector_embed::{
    EmbedderExt, Embeddings, ErrorKind, InputKind, Result, SpaceId,
    cache::{CacheStore, Entry, Key, Memory, Sqlite, Tiered},
    conformance,
    provider::Fake,
};
use futures_util::{FutureExt, StreamExt, stream};

use crate::support::processes::{self, Running, inner};
#[cfg(target_os = "linux")]
use {crate::support::processes::INNER, std::process::Command};

/// A key as `Cached` has them: a hash.
fn key(of: &str) -> Key {
    Key::from_bytes(*blake3::hash(of.as_bytes()).as_bytes())
}

fn keys(name: &str, range: Range<usize>) -> Vec<Key> {
    range.map(|i| key(&format!("{name} {i}"))).collect()
}

/// The value of a key, which follows from the key, so that it can be checked. 256 to 2,806 bytes.
fn value(key: &Key) -> Vec<u8> {
    let mut bytes = vec![0; 256 + 10 * usize::from(key.as_bytes()[0])];
    blake3::Hasher::new().update(key.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

async fn put(store: &Sqlite, keys: &[Key]) -> Result<()> {
    let values: Vec<Vec<u8>> = keys.iter().map(value).collect();
    let entries: Vec<Entry<'_>> = keys.iter().zip(&values).map(|(&key, value)| Entry::new(key, value)).collect();
    store.put(&entries).await
}

async fn get(store: &Sqlite, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut found = vec![None; keys.len()];
    let mut sink = |place: usize, value: &[u8]| assert_eq!(found[place].replace(value.to_vec()), None, "given twice");
    store.get(keys, &mut sink).await?;
    Ok(found)
}

/// Asserts that all entries are there, each with its value.
async fn assert_all(store: &Sqlite, keys: &[Key]) {
    let found = get(store, keys).await.expect("it reads");
    for (place, (key, found)) in keys.iter().zip(found).enumerate() {
        assert!(found.is_some(), "key {place} of {} is missing", keys.len());
        assert!(found == Some(value(key)), "key {place} has other bytes");
    }
}

/// The entries as a store takes them.
fn borrowed(entries: &[(Key, Vec<u8>)]) -> Vec<Entry<'_>> {
    entries.iter().map(|(key, value)| Entry::new(*key, value)).collect()
}

fn texts(about: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{about} {number}")).collect()
}

/// Asserts that each row is that of its text.
fn assert_own(fake: &Fake, texts: &[String], rows: &Embeddings) {
    assert_eq!(rows.len(), texts.len());
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert!(row == fake.vector_of(InputKind::Document, text), "the row of '{text}' is not its own");
    }
}

fn assert_sound(path: &Path) {
    let connection = rusqlite::Connection::open(path).expect("it opens");
    let verdict: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be checked");
    assert_eq!(verdict, "ok");
}

/// Returns the error of opening: of the kind `Cache`, about this file.
fn refused(path: &Path) -> String {
    let error = Sqlite::open(path).expect_err("it is no store");
    assert_eq!(error.kind(), ErrorKind::Cache);
    let told = error.to_string();
    assert!(told.contains(&path.display().to_string()), "{told}");
    told
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Stores in files of their own, with pages of this size.
fn new_files(folder: &Path, page_size: u32) -> impl Fn() -> Sqlite + Send + Sync {
    let made = AtomicUsize::new(0);
    move || {
        let path = folder.join(format!("{page_size} {}", made.fetch_add(1, Ordering::Relaxed)));
        Sqlite::builder(path).with_page_size(page_size).build().expect("it opens")
    }
}

#[tokio::test]
async fn new_files_keep_the_laws() {
    let folder = folder();
    for size in [4_096, 16_384] {
        let made = conformance::store(new_files(folder.path(), size)).await;
        made.unwrap_or_else(|violation| panic!("pages of {size} bytes: {violation}"));
    }
}

#[tokio::test]
async fn a_file_that_is_kept_keeps_the_laws() {
    let folder = folder();
    for size in [4_096, 16_384] {
        let path = folder.path().join(size.to_string());
        let open = || Sqlite::builder(&path).with_page_size(size).build().expect("it opens");
        // Opened again for each check, twice, and then kept open.
        conformance::store(open).await.unwrap_or_else(|violation| panic!("made: {violation}"));
        conformance::store(open).await.unwrap_or_else(|violation| panic!("found: {violation}"));
        let kept = open();
        conformance::store(|| kept.clone()).await.unwrap_or_else(|violation| panic!("kept: {violation}"));
        drop(kept);
        assert_sound(&path);
    }
}

#[tokio::test]
async fn tiers_over_files_keep_the_laws() {
    let folder = folder();
    let (small, large) = (new_files(folder.path(), 4_096), new_files(folder.path(), 16_384));
    let memory = || Memory::new(64 << 20);
    conformance::store(|| Tiered::new(memory(), small())).await.expect("pages of 4 KiB");
    conformance::store(|| Tiered::new(memory(), large())).await.expect("pages of 16 KiB");
    conformance::store(|| Tiered::new(Memory::new(20_000), small())).await.expect("the fast one is small");
    let kept = small();
    conformance::store(|| Tiered::new(memory(), kept.clone())).await.expect("one file behind many memories");
}

#[tokio::test]
async fn what_was_put_is_found_at_each_of_its_places() {
    let folder = folder();
    let store = Sqlite::open(folder.path().join("store")).expect("it opens");
    let (stored, unknown) = (keys("stored", 0..100), keys("unknown", 0..50));
    put(&store, &stored).await.expect("it stores");
    assert_all(&store, &stored).await;
    let mixed = [stored[3], unknown[0], stored[99], stored[3], unknown[0], stored[0], stored[3]];
    let found = get(&store, &mixed).await.expect("it reads");
    let there: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(there, [true, false, true, true, false, true, true]);
    assert!(found[0] == Some(value(&stored[3])) && found[0] == found[3] && found[0] == found[6]);
    assert_eq!(get(&store, &unknown).await.expect("it reads"), vec![None; 50]);
    assert_eq!(get(&store, &[]).await.expect("nothing to do"), [] as [Option<Vec<u8>>; 0]);
    store.put(&[]).await.expect("nothing to do");
    store.flush().await.expect("nothing to wait for");
}

#[tokio::test]
async fn the_first_value_of_a_key_stays() {
    let folder = folder();
    let path = folder.path().join("store");
    let (one, other) = (Sqlite::open(&path).expect("it opens"), Sqlite::open(&path).expect("it opens twice"));
    let (a, b) = (key("a"), key("b"));
    // Within a call, across calls, and across handles.
    one.put(&[Entry::new(a, b"first"), Entry::new(b, b""), Entry::new(a, b"second")]).await.expect("it stores");
    one.put(&[Entry::new(a, b"third")]).await.expect("no error");
    other.put(&[Entry::new(b, b"not empty"), Entry::new(a, b"fourth")]).await.expect("no error");
    for store in [&one, &other] {
        let found = get(store, &[a, b]).await.expect("it reads");
        assert_eq!(found, [Some(b"first".to_vec()), Some(Vec::new())]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_put_and_get_at_once() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Sqlite::builder(&path).with_readers(3).build().expect("it opens");
    let tasks: Vec<_> = (0..200)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                // Neighbours share half of their keys.
                let mine = keys("many", caller * 5..caller * 5 + 10);
                put(&store, &mine).await.expect("it stores");
                assert_all(&store, &mine).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no caller fails");
    }
    assert_eq!(store.stats().await.expect("it counts").entries, 1005);
    drop(store);
    assert_sound(&path);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_takes_the_place_of_the_discarded_stays() {
    const TASKS: usize = 8;
    /// What is there at first, and is discarded where the key is a damaged one's.
    fn old(key: &Key) -> Vec<u8> {
        value(key)[..100].to_vec()
    }
    /// What one of the tasks puts in its place.
    fn new(key: &Key, task: usize) -> Vec<u8> {
        [value(key), vec![task as u8]].concat()
    }
    let folder = folder();
    let path = folder.path().join("store");
    // Two writers, each with a queue of its own.
    let handles = [(); 2].map(|()| Sqlite::open(&path).expect("it opens"));
    let (damaged, sound) = (keys("damaged", 0..400), keys("sound", 0..400));
    let first: Vec<(Key, Vec<u8>)> = damaged.iter().map(|key| (*key, old(key))).collect();
    handles[0].put(&borrowed(&first)).await.expect("it stores");
    put(&handles[1], &sound).await.expect("it stores");
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, damaged, sound) = (handles[task % 2].clone(), damaged.clone(), sound.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for (damaged, sound) in damaged.chunks(10).zip(sound.chunks(10)) {
                    // Of the sound ones it is another value than theirs.
                    let useless: Vec<(Key, Vec<u8>)> =
                        damaged.iter().chain(sound).map(|key| (*key, old(key))).collect();
                    let fresh: Vec<(Key, Vec<u8>)> = damaged.iter().map(|key| (*key, new(key, task))).collect();
                    store.discard(&borrowed(&useless)).await.expect("it discards");
                    store.put(&borrowed(&fresh)).await.expect("it stores");
                    for (key, found) in damaged.iter().zip(get(&store, damaged).await.expect("it reads")) {
                        let found = found.expect("one was put in its place");
                        assert!((0..TASKS).any(|task| found == new(key, task)), "it is not what was put in its place");
                        seen.push(found);
                    }
                    // One that comes late, on the way as the next ones do their work.
                    let _ = store.discard(&borrowed(&useless)).now_or_never();
                }
                seen
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.expect("no task fails"));
    }
    for store in &handles {
        store.flush().await.expect("it flushes");
    }
    for store in &handles {
        let last = get(store, &damaged).await.expect("it reads");
        for (task, seen) in seen.iter().enumerate() {
            let same = seen.iter().zip(&last).filter(|(seen, last)| last.as_deref() == Some(seen.as_slice())).count();
            assert_eq!(same, damaged.len(), "task {task} saw values that did not stay");
        }
        assert_all(store, &sound).await;
    }
    assert_eq!(handles[0].stats().await.expect("it counts").entries, 800);
    drop(handles);
    assert_sound(&path);
}

#[tokio::test]
async fn look_ups_of_any_size_go_in_parts() {
    let folder = folder();
    let store = Sqlite::open(folder.path().join("store")).expect("it opens");
    // Thirty megabytes and one value of twenty megabytes; a part holds eight.
    let (large, small) = (keys("large", 0..30), keys("small", 0..20_000));
    let of = |key: &Key, length: usize| vec![key.as_bytes()[0]; length];
    for key in &large {
        store.put(&[Entry::new(*key, &of(key, 1 << 20))]).await.expect("it stores");
    }
    store.put(&[Entry::new(key("giant"), &of(&key("giant"), 20 << 20))]).await.expect("it stores");
    let values: Vec<Vec<u8>> = small.iter().map(|key| of(key, 1)).collect();
    let entries: Vec<Entry<'_>> = small.iter().zip(&values).map(|(&key, value)| Entry::new(key, value)).collect();
    store.put(&entries).await.expect("it stores");
    let asked: Vec<Key> = small
        .iter()
        .chain(&large)
        .chain([&key("giant")])
        .chain(&keys("unknown", 0..20_000))
        .chain(&large)
        .copied()
        .collect();
    let mut places = HashSet::new();
    let mut sink = |place: usize, value: &[u8]| {
        assert!(value.iter().all(|byte| *byte == asked[place].as_bytes()[0]));
        assert!(places.insert(place));
    };
    store.get(&asked, &mut sink).await.expect("it reads");
    assert_eq!(places.len(), 20_000 + 30 + 1 + 30);
    // The whole file, too.
    let mut seen = HashSet::new();
    store.for_each(|key, value| assert!(value[0] == key.as_bytes()[0] && seen.insert(key))).await.expect("it reads");
    assert_eq!(seen.len(), 20_031);
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let folder = folder();
    let path = folder.path().join("a name with spaces, and ä.sqlite");
    let stored = keys("stored", 0..500);
    let spaces = [SpaceId::from_bytes([1; 16]), SpaceId::from_bytes([0; 16])];
    let store = Sqlite::open(&path).expect("it opens");
    put(&store, &stored).await.expect("it stores");
    for (about, space) in [("a model", spaces[0]), ("another", spaces[1]), ("a later name", spaces[0])] {
        store.note(space, about).await.expect("it notes");
    }
    let stats = store.stats().await.expect("it counts");
    drop(store);
    // No other file is left.
    let files: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file").path()).collect();
    assert_eq!(files, std::slice::from_ref(&path));
    let store = Sqlite::open(&path).expect("it opens again");
    assert_all(&store, &stored).await;
    let again = store.stats().await.expect("it counts");
    assert_eq!((again.entries, again.value_bytes, &again.spaces), (stats.entries, stats.value_bytes, &stats.spaces));
    assert_eq!((again.entries, again.value_bytes), (500, stored.iter().map(|key| value(key).len() as u64).sum()));
    assert_eq!(again.spaces, [(spaces[1], "another".into()), (spaces[0], "a model".into())]);
    assert!(again.file_bytes > again.value_bytes);
    let mut seen = HashSet::new();
    store.for_each(|key, bytes| assert!(bytes == value(&key) && seen.insert(key))).await.expect("it reads");
    assert_eq!(seen, stored.iter().copied().collect());
    assert_sound(&path);
}

#[tokio::test]
async fn dropped_puts_that_were_accepted_are_finished() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Sqlite::open(&path).expect("it opens");
    let stored = keys("stored", 0..300);
    for part in stored.chunks(3) {
        // Accepted at the first poll; then no caller waits for it.
        let _ = put(&store, part).now_or_never();
    }
    drop(store);
    let store = Sqlite::open(&path).expect("it opens");
    assert_all(&store, &stored).await;
}

#[tokio::test]
async fn flush_waits_for_what_nobody_waits_for() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Sqlite::open(&path).expect("it opens");
    let stored = keys("stored", 0..300);
    stored.chunks(3).for_each(|part| drop(put(&store, part).now_or_never()));
    store.flush().await.expect("it flushes");
    assert_all(&Sqlite::open(&path).expect("it opens"), &stored).await;
}

#[tokio::test]
async fn a_group_waits_for_rows_or_for_a_flush() {
    let folder = folder();
    // The wait has no end: if nothing else ended it, the test would hang.
    let store = Sqlite::builder(folder.path().join("store")).with_group(6, Duration::MAX).build().expect("it opens");
    let stored = keys("stored", 0..6);
    let puts = stream::iter(stored.chunks(2)).map(|part| put(&store, part)).buffer_unordered(3).collect::<Vec<_>>();
    puts.await.into_iter().for_each(|stored| stored.expect("it stores"));
    assert_all(&store, &stored).await;
    let lone = keys("lone", 0..1);
    let (stored, flushed) = tokio::join!(put(&store, &lone), store.flush());
    stored.and(flushed).expect("it stores");
    assert_all(&store, &lone).await;
    // Closing ends the wait, too.
    let last = keys("last", 0..2);
    assert!(put(&store, &last).now_or_never().is_none(), "there was nobody to wait for");
    let path = store.path().to_owned();
    drop(store);
    assert_all(&Sqlite::open(&path).expect("it opens"), &last).await;
}

#[tokio::test]
async fn closing_waits_for_the_queue_and_leaves_one_file() {
    let folder = folder();
    let store = Sqlite::open(folder.path().join("store")).expect("it opens");
    let path = store.path().to_owned();
    let (stored, left) = (keys("stored", 0..20), keys("left", 0..20));
    put(&store, &stored).await.expect("it stores");
    assert_all(&store, &stored).await;
    assert!(put(&store, &left).now_or_never().is_none(), "it is in the queue");
    // Another clone keeps the file open, and works.
    store.clone().close().await.expect("it closes");
    assert_all(&store, &left).await;
    assert!(folder.path().join("store-wal").exists());
    let last = keys("last", 0..20);
    assert!(put(&store, &last).now_or_never().is_none(), "it is in the queue");
    store.close().await.expect("it closes");
    let files: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file").path()).collect();
    assert_eq!(files, [path.as_path()], "the WAL is in the file");
    let store = Sqlite::open(&path).expect("it opens");
    for keys in [&stored, &left, &last] {
        assert_all(&store, keys).await;
    }
}

#[test]
fn closing_without_a_runtime_is_an_error_and_loses_nothing() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Sqlite::open(&path).expect("it opens");
    let stored = keys("stored", 0..20);
    assert!(put(&store, &stored).now_or_never().is_none(), "it is in the queue");
    let mut closing = pin!(store.close());
    let error = loop {
        match closing.as_mut().now_or_never() {
            Some(closed) => break closed.expect_err("there is no runtime"),
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Cache);
    assert!(error.to_string().contains("tokio runtime"), "{error}");
    runtime().block_on(async { assert_all(&Sqlite::open(&path).expect("it opens"), &stored).await });
}

#[tokio::test]
async fn dropped_gets_leave_the_readers_to_others() {
    let folder = folder();
    let store = Sqlite::builder(folder.path().join("store")).with_readers(1).build().expect("it opens");
    let stored = keys("stored", 0..200);
    put(&store, &stored).await.expect("it stores");
    for round in 0..50 {
        // Dropped before, during and after its work.
        let _ = tokio::time::timeout(Duration::from_micros(round * 20), get(&store, &stored)).await;
    }
    assert_all(&store, &stored).await;
}

#[tokio::test]
async fn a_lock_that_is_not_given_back_is_an_error_for_writers_alone() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Sqlite::builder(&path).with_busy_timeout(Duration::from_millis(50)).build().expect("it opens");
    let (before, after) = (keys("before", 0..10), keys("after", 0..10));
    put(&store, &before).await.expect("it stores");
    let lock = rusqlite::Connection::open(&path).expect("it opens");
    lock.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let error = put(&store, &after).await.expect_err("it is locked");
    assert!(error.kind() == ErrorKind::Cache && error.to_string().contains("locked by another process"), "{error}");
    assert_all(&store, &before).await;
    // A reader can open it, too.
    assert_all(&Sqlite::open(&path).expect("it opens"), &before).await;
    assert!(get(&store, &after).await.expect("it reads").iter().all(Option::is_none));
    lock.execute_batch("ROLLBACK").expect("the lock is given back");
    put(&store, &after).await.expect("it stores");
    assert_all(&store, &after).await;
}

#[tokio::test]
async fn one_that_is_too_large_does_not_spoil_the_rest() {
    let folder = folder();
    let store = Sqlite::open(folder.path().join("store")).expect("it opens");
    // The pages are never touched, so they take no memory.
    let giant = vec![0; (512 << 20) + 1];
    let (a, b) = (keys("a", 0..3), keys("b", 0..1));
    let entries = [Entry::new(b[0], &giant)];
    let (refused, stored) = tokio::join!(store.put(&entries), put(&store, &a));
    assert_eq!(refused.expect_err("too large").kind(), ErrorKind::Cache);
    stored.expect("it stores");
    assert_all(&store, &a).await;
}

#[test]
fn pages_have_the_size_that_the_file_began_with() {
    let folder = folder();
    let in_file = |path: &Path| {
        let bytes = fs::read(path).expect("a file");
        match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65_536,
            size => u32::from(size),
        }
    };
    for size in [512, 4_096, 65_536] {
        let path = folder.path().join(size.to_string());
        let store = Sqlite::builder(&path).with_page_size(size).build().expect("it opens");
        let stored = keys("stored", 0..50);
        runtime().block_on(put(&store, &stored)).expect("it stores");
        drop(store);
        assert_eq!(in_file(&path), size);
        let store = Sqlite::builder(&path).with_page_size(1_024).build().expect("it opens as it is");
        runtime().block_on(assert_all(&store, &stored));
        drop(store);
        assert_eq!(in_file(&path), size);
    }
    let path = folder.path().join("default");
    drop(Sqlite::open(&path).expect("it opens"));
    assert_eq!(in_file(&path), 16_384);
    for size in [0, 1, 256, 511, 1_000, 65_535, 65_537, 131_072, u32::MAX] {
        let error =
            Sqlite::builder(folder.path().join("never")).with_page_size(size).build().expect_err("no page size");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    assert!(!folder.path().join("never").exists());
}

#[test]
fn options_that_are_none_are_errors() {
    let folder = folder();
    let path = folder.path().join("store");
    for (readers, rows, says) in [(0, 1, "0 readers"), (257, 1, "257 readers"), (1, 0, "0 rows")] {
        let builder = Sqlite::builder(&path).with_readers(readers).with_group(rows, Duration::ZERO);
        let error = builder.build().expect_err("no store can have these");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(!path.exists());
}

#[test]
fn options_may_be_the_least_or_enormous() {
    let folder = folder();
    let path = folder.path().join("store");
    let none = Sqlite::builder(&path).with_readers(1).with_group(1, Duration::ZERO).with_busy_timeout(Duration::ZERO);
    let enormous = Sqlite::builder(&path)
        .with_readers(256)
        .with_group(usize::MAX, Duration::ZERO)
        .with_busy_timeout(Duration::MAX);
    for (name, builder) in [("least", none), ("enormous", enormous)] {
        let store = builder.build().expect("it opens");
        let stored = keys(name, 0..10);
        runtime().block_on(async {
            put(&store, &stored).await.expect("it stores");
            assert_all(&store, &stored).await;
        });
        assert_eq!(store.to_string(), "sqlite");
        assert!(format!("{store:?}").contains("store"), "{store:?}");
    }
}

#[test]
fn reading_without_a_runtime_is_an_error() {
    let folder = folder();
    let store = Sqlite::open(folder.path().join("store")).expect("it opens");
    let error = get(&store, &keys("any", 0..1)).now_or_never().expect("at once").expect_err("there is no runtime");
    assert!(error.kind() == ErrorKind::Cache && error.to_string().contains("tokio runtime"), "{error}");
}

#[test]
fn what_names_no_file_is_refused() {
    let folder = folder();
    let missing = folder.path().join("missing").join("store");
    assert!(refused(&missing).contains("folder is missing"));
    assert!(!missing.exists() && !folder.path().join("missing").exists());
    assert!(refused(folder.path()).contains("is a folder"));
    for path in ["", ":memory:"] {
        let error = Sqlite::open(path).expect_err("no file");
        assert!(error.to_string().contains("the path names no file"), "{error}");
    }
    // Names with which SQLite would open something else.
    let odd = folder.path().join("file:odd?mode=memory");
    drop(Sqlite::open(&odd).expect("it opens"));
    assert!(odd.exists());
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let folder = folder();
    let path = folder.path().join("store");
    fs::write(&path, "").expect("it writes");
    let store = Sqlite::open(&path).expect("it opens");
    let stored = keys("stored", 0..10);
    put(&store, &stored).await.expect("it stores");
    assert_all(&store, &stored).await;
}

#[test]
fn files_of_others_are_refused_and_left_as_they_are() {
    let folder = folder();
    let path = folder.path().join("other");
    let sqlite = |sql: &str| {
        let _ = fs::remove_file(&path);
        rusqlite::Connection::open(&path).expect("it opens").execute_batch(sql).expect("it is made");
    };
    let still_refused = |why: &str| {
        let before = fs::read(&path).expect("a file");
        let told = refused(&path);
        assert!(told.contains(why), "{told}");
        assert!(fs::read(&path).expect("a file") == before, "it was written to: {why}");
    };
    // (SQLite takes a file of one byte as an empty one.)
    for text in ["no", "not a database", &"a long text about something else\n".repeat(1_000)] {
        fs::write(&path, text).expect("it writes");
        still_refused("not an SQLite file");
    }
    sqlite("CREATE TABLE entries (key, value)");
    still_refused("of another program");
    sqlite("PRAGMA application_id = 7");
    still_refused("of another program");
    sqlite("PRAGMA user_version = 1");
    still_refused("of another program");
    // A file of ours, with a version that this program does not know.
    fs::remove_file(&path).expect("it was there");
    drop(Sqlite::open(&path).expect("it opens"));
    rusqlite::Connection::open(&path).expect("it opens").execute_batch("PRAGMA user_version = 2").expect("it is set");
    still_refused("newer version");
    rusqlite::Connection::open(&path).expect("it opens").execute_batch("PRAGMA user_version = 0").expect("it is set");
    still_refused("damaged");
}

/// Makes a store of 300 entries, closes it, and returns the bytes of its file.
fn made(path: &Path) -> (Vec<u8>, Vec<Key>) {
    let stored = keys("stored", 0..300);
    let store = Sqlite::builder(path).with_page_size(4_096).build().expect("it opens");
    runtime().block_on(put(&store, &stored)).expect("it stores");
    drop(store);
    (fs::read(path).expect("a file"), stored)
}

#[test]
fn a_file_that_was_cut_is_an_error() {
    let folder = folder();
    let path = folder.path().join("store");
    let (whole, _) = made(&path);
    let half = whole.len() / 2;
    for length in [2, 15, 16, 50, 99, 100, 511, 512, 4_095, 4_096, 4_097, half, whole.len() - 4_096] {
        fs::write(&path, &whole[..length]).expect("it writes");
        let told = refused(&path);
        assert!(told.contains("damaged"), "{length}: {told}");
    }
    // (Within the last page, missing bytes are zeros to SQLite: what guards values is their checksum, not the store.)
}

#[test]
fn damaged_pages_are_errors_and_never_panics() {
    let folder = folder();
    let path = folder.path().join("store");
    let (whole, stored) = made(&path);
    let mut random = fastrand::Rng::with_seed(4);
    let mut failed = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        let page = random.usize(0..whole.len() / 4_096) * 4_096;
        match round % 3 {
            0 => bytes[page..page + 4_096].fill(0),
            1 => random.fill(&mut bytes[page..page + 4_096]),
            _ => (0..4).for_each(|_| bytes[page + random.usize(0..100)] ^= 1 << random.u8(0..8)),
        }
        fs::write(&path, &bytes).expect("it writes");
        let outcome = Sqlite::open(&path).and_then(|store| {
            runtime().block_on(async {
                let new = keys("new", 0..20);
                // One after another: each has its own chance to fail.
                let read = get(&store, &stored).await.map(drop);
                let walked = store.for_each(|_, _| ()).await;
                let counted = store.stats().await.map(drop);
                let stored = put(&store, &new).await;
                read.and(walked).and(counted).and(stored)
            })
        });
        if let Err(error) = outcome {
            failed += 1;
            assert_eq!(error.kind(), ErrorKind::Cache);
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        for beside in ["store-wal", "store-shm"] {
            let _ = fs::remove_file(folder.path().join(beside));
        }
    }
    assert!(failed > 20, "of 60 kinds of damage, {failed} were noticed");
}

/// If the order of rows is damaged, a walk that continues after the last row it saw might never end.
#[test]
fn rows_out_of_order_end_a_walk() {
    let folder = folder();
    let path = folder.path().join("store");
    let (mut bytes, mut stored) = made(&path);
    // Ids are given in the order of keys. Before the key lie the id, 300 in two bytes, and five that say what follows.
    stored.sort_unstable();
    let last = stored[299];
    let row = [&last.as_bytes()[..], &value(&last)[..32]].concat();
    let at = bytes.windows(row.len()).position(|bytes| bytes == row).expect("rows are small enough to be in one piece");
    assert_eq!(bytes[at - 7..at - 5], [0x82, 0x2c]);
    bytes[at - 7..at - 5].copy_from_slice(&[0x80, 0x03]);
    fs::write(&path, &bytes).expect("it writes");
    let store = Sqlite::open(&path).expect("it opens");
    runtime().block_on(async {
        let mut seen = HashSet::new();
        let walk = store.for_each(|key, bytes| {
            assert!(bytes == value(&key) && seen.insert(key), "an entry is shown again");
        });
        let error = walk.await.expect_err("it does not end as others do");
        assert!(error.kind() == ErrorKind::Cache && error.to_string().contains("damaged"), "{error}");
        // It must end; how fast does not matter here.
        let counted = tokio::time::timeout(Duration::from_secs(120), store.stats()).await.expect("it ends");
        let error = counted.expect_err("it does not end as others do");
        assert!(error.kind() == ErrorKind::Cache && error.to_string().contains("damaged"), "{error}");
        assert!(!store.check_file().await.expect("it is checked").is_empty());
    });
}

#[test]
fn rows_from_damaged_files_are_their_texts_own() {
    let folder = folder();
    let path = folder.path().join("store");
    let runtime = runtime();
    let fake = Fake::builder().with_dimensions(200).without_log().build().expect("valid");
    let cached = |store: Sqlite| fake.clone().cached(store).expect("one space");
    let texts = texts("text", 24);
    // Small pages: many of each kind, and values that continue on others.
    let store = Sqlite::builder(&path).with_page_size(512).build().expect("it opens");
    let mut keys = Vec::new();
    runtime.block_on(async {
        cached(store.clone()).embed_documents(&texts).await.expect("it embeds");
        store.for_each(|key, _| keys.push(key)).await.expect("it reads");
    });
    drop(store);
    assert_eq!(keys.len(), texts.len());
    let whole = fs::read(&path).expect("a file");
    let mut random = fastrand::Rng::with_seed(5);
    let (mut refused, mut failed, mut damaged) = (0, 0, 0);
    for (round, place) in (0..whole.len()).step_by(97).enumerate() {
        let mut bytes = whole.clone();
        if round % 2 == 0 {
            bytes[place] ^= random.u8(1..);
        } else {
            random.fill(&mut bytes[place..whole.len().min(place + 16)]);
        }
        fs::write(&path, &bytes).expect("it writes");
        match Sqlite::open(&path) {
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::Cache, "byte {place}: {error}");
            }
            Ok(store) => {
                let cached = cached(store.clone());
                runtime.block_on(async {
                    // The second time includes the entries that could be stored again.
                    for _ in 0..2 {
                        let rows = cached.embed_documents(&texts).await;
                        assert_own(&fake, &texts, &rows.expect("a damaged store costs no row"));
                    }
                    // A panic of the threads that read and write would be no more than a warning above.
                    store.flush().await.expect("who writes lives on");
                    let mut shown = 0;
                    let read = get(&store, &keys).await.map(drop);
                    let walked = store.for_each(|_, _| {
                        shown += 1;
                        assert!(shown < 1_000, "byte {place}: a walk does not end");
                    });
                    for error in [read, walked.await].into_iter().filter_map(Result::err) {
                        assert_eq!(error.kind(), ErrorKind::Cache, "byte {place}: {error}");
                        assert!(!error.to_string().contains("panic"), "byte {place}: {error}");
                    }
                });
                let counts = cached.counts();
                failed += counts.failures;
                damaged += counts.damaged;
            }
        }
        for beside in ["store-wal", "store-shm"] {
            let _ = fs::remove_file(folder.path().join(beside));
        }
    }
    let told = format!("{refused} were refused, {failed} calls of stores failed, {damaged} entries were damaged");
    assert!(refused > 0 && failed > 0 && damaged > 20, "{told}");
}

// Other processes: these tests run themselves again.

/// Returns the arguments that run one test of this file alone.
fn alone(test: &str) -> [String; 5] {
    processes::alone(module_path!(), test)
}

fn start(test: &str, words: &[&str], number: usize, lines: mpsc::Sender<(usize, String)>) -> Running {
    Running::start(alone(test), words, number, lines)
}

/// The batches that one process acknowledged.
fn acknowledged(line: &str) -> Option<usize> {
    line.strip_prefix("acknowledged ")?.parse().ok()
}

/// The keys of a batch of one process.
fn of_batch(who: &str, batch: usize) -> Vec<Key> {
    keys(who, batch * 20..batch * 20 + 20)
}

/// Keys that all processes put, each with the same value.
fn of_all(batch: usize) -> Vec<Key> {
    keys("all", batch * 5..batch * 5 + 5)
}

/// A key that the one of two processes which tidies puts and discards again, before it acknowledges the batch.
fn passing(who: &str, batch: usize) -> Key {
    key(&format!("passing {who} {batch}"))
}

/// The space that it notes with that.
fn passing_space(key: &Key) -> SpaceId {
    SpaceId::from_bytes(*key.as_bytes().first_chunk().expect("32 bytes are more than 16"))
}

#[test]
fn killed_in_the_middle_of_writing_nothing_acknowledged_is_lost() {
    const NAME: &str = "killed_in_the_middle_of_writing_nothing_acknowledged_is_lost";
    if let Some(words) = inner() {
        let store = Sqlite::open(&words[0]).expect("it opens");
        println!();
        let write = async |batch| {
            let all = [of_batch(&words[1], batch), of_all(batch)].concat();
            if words[2] == "tidies" {
                let passing = passing(&words[1], batch);
                put(&store, &[passing]).await.expect("it stores");
                // Of what is stored, what is on its way and what is nowhere, another value: that removes nothing.
                let others = [of_batch(&words[1], batch.saturating_sub(8)), all.clone(), vec![key("nowhere")]].concat();
                let mut useless: Vec<(Key, Vec<u8>)> =
                    others.into_iter().map(|key| (key, b"another value".to_vec())).collect();
                useless.push((passing, value(&passing)));
                let useless = borrowed(&useless);
                let (stored, discarded, noted) = tokio::join!(
                    put(&store, &all),
                    store.discard(&useless),
                    store.note(passing_space(&passing), "a space"),
                );
                stored.and(discarded).and(noted).expect("it writes");
            } else {
                put(&store, &all).await.expect("it stores");
            }
            println!("acknowledged {batch}");
        };
        // Runs until it is killed, with an end in case it is not.
        runtime().block_on(stream::iter(0..5_000).map(write).buffer_unordered(4).collect::<()>());
        return;
    }
    let rounds = if env::var_os("DOCVECTOR_EMBED_FULL").is_some_and(|full| full == "1") { 200 } else { 20 };
    let (mut all, mut tidied) = (0, 0);
    let mut folder = folder();
    for round in 0..rounds {
        // Some begin with a new file, to be killed while it is created; others continue with the file that was left.
        if round % 5 == 0 {
            folder = self::folder();
        }
        let path = folder.path().join("store");
        let who = [format!("{round} left"), format!("{round} right")];
        let (lines, told) = mpsc::channel();
        let start = |number: usize, does: &str| {
            start(NAME, &[&path.display().to_string(), &who[number], does], number, lines.clone())
        };
        let mut running = [start(0, "writes"), start(1, "tidies")];
        drop(lines);
        let mut batches = [Vec::new(), Vec::new()];
        let mut hear =
            |(number, line): (usize, String)| acknowledged(&line).map(|batch| batches[number].push(batch)).is_some();
        let mut wanted = fastrand::usize(0..40);
        while wanted > 0 {
            let heard = told.recv_timeout(Duration::from_secs(120)).expect("they write");
            wanted -= usize::from(hear(heard));
        }
        thread::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
        running.iter_mut().for_each(Running::kill);
        told.iter().for_each(|line| _ = hear(line));
        all += batches.iter().map(Vec::len).sum::<usize>();
        tidied += batches[1].len();

        let store = Sqlite::open(&path).expect("it opens after a kill");
        runtime().block_on(async {
            let mut there = HashSet::new();
            let walk = store.for_each(|key, bytes| {
                assert!(bytes == value(&key), "round {round}: an entry is damaged");
                there.insert(key);
            });
            walk.await.expect("it reads");
            for (who, batches) in who.iter().zip(&batches) {
                for &batch in batches {
                    assert_all(&store, &of_batch(who, batch)).await;
                    assert_all(&store, &of_all(batch)).await;
                }
                // A batch under way may or may not be there.
                for batch in 0..batches.len() + 8 {
                    let found = of_batch(who, batch).iter().filter(|key| there.contains(key)).count();
                    assert!(found == 0 || found == 20, "round {round}: {found} of a put's 20 entries");
                }
            }
            let spaces = store.stats().await.expect("it counts").spaces;
            let noted: HashSet<SpaceId> = spaces.into_iter().map(|(space, _)| space).collect();
            for &batch in &batches[1] {
                let passing = passing(&who[1], batch);
                assert!(!there.contains(&passing), "round {round}: an entry is there that was discarded");
                assert!(noted.contains(&passing_space(&passing)), "round {round}: a note is lost");
            }
        });
        drop(store);
        assert_sound(&path);
    }
    assert!(all > rounds, "in {rounds} rounds, {all} puts were acknowledged before the kill");
    assert!(tidied > 0, "in {rounds} rounds, nothing was tidied before the kill");
}

/// A process that opens a file twice holds locks on it. If the second opening dropped those of the first, another process
/// would take itself for the only one when it closes the file, and remove the WAL that the first goes on writing.
#[test]
fn a_file_that_is_opened_twice_keeps_its_locks() {
    const NAME: &str = "a_file_that_is_opened_twice_keeps_its_locks";
    if let Some(words) = inner() {
        let store = Sqlite::open(&words[0]).expect("it opens");
        println!();
        runtime().block_on(put(&store, &keys("other", 0..5))).expect("it stores");
        runtime().block_on(store.close()).expect("it closes");
        return;
    }
    let folder = folder();
    let path = folder.path().join("store");
    let (first, last) = (keys("first", 0..5), keys("last", 0..5));
    let store = Sqlite::open(&path).expect("it opens");
    runtime().block_on(put(&store, &first)).expect("it stores");
    let again = Sqlite::open(&path).expect("it opens again");
    let (lines, _told) = mpsc::channel();
    let mut other = start(NAME, &[&path.display().to_string()], 0, lines);
    assert!(other.ended());
    assert!(wal_of(&path).exists(), "the other process took itself for the only one");
    runtime().block_on(put(&store, &last)).expect("it stores");
    drop((store, again));
    let store = Sqlite::open(&path).expect("it opens");
    let all: Vec<Key> = [first, keys("other", 0..5), last].concat();
    runtime().block_on(assert_all(&store, &all));
}

#[test]
fn two_processes_write_while_a_third_reads() {
    const NAME: &str = "two_processes_write_while_a_third_reads";
    const BATCHES: usize = 60;
    let contested = |batch: usize| key(&format!("contested {batch}"));
    if let Some(words) = inner() {
        let store = Sqlite::open(&words[0]).expect("it opens");
        println!();
        runtime().block_on(async {
            for batch in 0..BATCHES {
                put(&store, &of_batch(&words[1], batch)).await.expect("it stores");
                store.put(&[Entry::new(contested(batch), words[1].as_bytes())]).await.expect("it stores");
                let first = get(&store, &[contested(batch)]).await.expect("it reads").remove(0).expect("it was put");
                println!("first {batch} {}", String::from_utf8(first).expect("a name"));
                println!("acknowledged {batch}");
            }
        });
        return;
    }
    let folder = folder();
    let path = folder.path().join("store");
    let (lines, told) = mpsc::channel();
    let who = ["left", "right"];
    // Both create the file, or one finds it.
    let running = [0, 1].map(|number| start(NAME, &[&path.display().to_string(), who[number]], number, lines.clone()));
    drop(lines);
    let store = Sqlite::open(&path).expect("it opens while others do");
    let mut firsts: HashMap<usize, String> = HashMap::new();
    let mut heard = 0;
    runtime().block_on(async {
        for (number, line) in &told {
            if let Some(batch) = acknowledged(&line) {
                heard += 1;
                // Other processes find the batches that one has acknowledged.
                assert_all(&store, &of_batch(who[number], batch)).await;
            } else if let Some((batch, first)) = line.strip_prefix("first ").and_then(|line| line.split_once(' ')) {
                let batch = batch.parse().expect("a number");
                let known = firsts.entry(batch).or_insert_with(|| first.to_owned());
                assert_eq!(known, first, "both think that they were the first");
                let found = get(&store, &[contested(batch)]).await.expect("readers are never locked out");
                assert_eq!(found[0].as_deref(), Some(first.as_bytes()));
            }
        }
    });
    assert_eq!((heard, firsts.len()), (2 * BATCHES, BATCHES));
    for mut running in running {
        assert!(running.ended());
    }
    assert_eq!(runtime().block_on(store.stats()).expect("it counts").entries as usize, 2 * BATCHES * 20 + BATCHES);
    drop(store);
    assert_sound(&path);
}

/// Puts until it fails; returns the keys that were stored before, and the text of the error.
#[cfg(target_os = "linux")]
async fn fill(store: &Sqlite) -> (Vec<Key>, String) {
    let mut stored = Vec::new();
    for batch in 0..1_000 {
        let more = of_batch("fill", batch);
        match put(store, &more).await {
            Ok(()) => stored.extend(more),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Cache);
                return (stored, error.to_string());
            }
        }
    }
    panic!("20 MB went where there was no room for them");
}

/// Asserts that a store without space works as it should: old entries are intact, a cache over it returns all rows, and
/// it stores again once there is space.
#[cfg(target_os = "linux")]
async fn goes_on(store: Sqlite, why: &str, make_room: impl FnOnce()) {
    let (stored, told) = fill(&store).await;
    assert!(!stored.is_empty() && told.contains(why), "{} were stored: {told}", stored.len());
    assert!(told.contains(&store.path().display().to_string()) && told.contains("are intact"), "{told}");
    assert_all(&store, &stored).await;
    // The next put gives the same error.
    let (more, told) = fill(&store).await;
    assert!(told.contains(why), "{told}");
    assert_all(&store, &[stored.clone(), more].concat()).await;
    // More than a megabyte in one put, of which nothing can be stored.
    let fake = Fake::new(768);
    let cached = fake.clone().cached(store.clone()).expect("one space");
    let texts = texts("no room", 400);
    for round in 1..=2 {
        let rows = cached.embed_documents(&texts).await.expect("a store without room costs no row");
        assert_own(&fake, &texts, &rows);
        let counts = cached.counts();
        assert!(counts.failures >= round && counts.hits == 0 && counts.misses == 400 * round, "{counts:?}");
    }
    make_room();
    let after = keys("after", 0..50);
    put(&store, &after).await.expect("there is room again");
    let (texts, failures) = (&texts[..20], cached.counts().failures);
    assert_own(&fake, texts, &cached.embed_documents(texts).await.expect("it embeds"));
    let paid = fake.calls().len();
    assert_own(&fake, texts, &cached.embed_documents(texts).await.expect("they are stored"));
    assert_eq!((cached.counts().hits, cached.counts().failures, fake.calls().len()), (20, failures, paid));
    drop(cached);
    let path = store.path().to_owned();
    drop(store);
    assert_sound(&path);
    let store = Sqlite::open(&path).expect("it opens");
    assert_all(&store, &[stored, after].concat()).await;
    let cached = fake.clone().cached(store).expect("one space");
    assert_own(&fake, texts, &cached.embed_documents(texts).await.expect("they are there"));
    assert_eq!((cached.counts().hits, fake.calls().len()), (20, paid));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_clear_error_and_no_damage() {
    const NAME: &str = "a_full_disk_is_a_clear_error_and_no_damage";
    if let Some(words) = inner() {
        let disk = Path::new(&words[0]);
        let ballast = disk.join("ballast");
        fs::write(&ballast, vec![1; 1 << 20]).expect("there is room for that");
        let store = Sqlite::builder(disk.join("store")).with_page_size(4_096).build().expect("it opens");
        runtime().block_on(goes_on(store, "is full", || {
            // A new file cannot be created either.
            let mut left = [fs::File::create(disk.join("rest")).expect("a name takes no room")];
            while std::io::Write::write_all(&mut left[0], &[1; 512]).is_ok() {}
            assert!(refused(&disk.join("another")).contains("is full"));
            fs::remove_file(&ballast).expect("it was there");
        }));
        return;
    }
    let folder = folder();
    // A disk of four megabytes, in a namespace of its own, which ends with the process.
    let on_disk = |program: &[String]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command.args(["mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\""]).arg(folder.path()).args(program);
        command.env(INNER, folder.path()).output()
    };
    if !on_disk(&["true".into()]).is_ok_and(|output| output.status.success()) {
        println!("not tested: a small disk cannot be mounted here");
        return;
    }
    let program = env::current_exe().expect("this program").display().to_string();
    let output = on_disk(&[vec![program], alone(NAME).to_vec()].concat()).expect("it starts");
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains(" 1 passed"), "{told}\n{warned}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_file_sizes_is_a_clear_error_and_no_damage() {
    const NAME: &str = "a_limit_on_file_sizes_is_a_clear_error_and_no_damage";
    if let Some(words) = inner() {
        let store = Sqlite::builder(&words[0]).with_page_size(4_096).build().expect("it opens");
        runtime().block_on(goes_on(store, "could not be written", || {
            let process = std::process::id().to_string();
            let lifted = Command::new("prlimit").args(["--pid", &process, "--fsize=unlimited:"]).status();
            assert!(lifted.expect("util-linux is there").success());
        }));
        return;
    }
    let folder = folder();
    let mut command = Command::new("bash");
    // Whoever goes beyond the limit gets a signal, which is to be an error.
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 1000; exec \"$0\" \"$@\""]);
    command.arg(env::current_exe().expect("this program")).args(alone(NAME)).env(INNER, folder.path().join("store"));
    let output = command.output().expect("it starts");
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains(" 1 passed"), "{told}\n{warned}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Files that are copied, and files that are only read

/// Makes a file as a killed process leaves it: all entries are in the WAL beside it.
async fn left_behind(folder: &Path, page_size: u32, keys: &[Key]) -> PathBuf {
    let (live, left) = (folder.join("live"), folder.join("left behind"));
    let store = Sqlite::builder(&live).with_page_size(page_size).build().expect("it opens");
    put(&store, keys).await.expect("it writes");
    copy_with_wal(&live, &left);
    store.close().await.expect("it closes");
    fs::remove_file(live).expect("removed");
    left
}

fn wal_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

fn copy_with_wal(from: &Path, to: &Path) {
    fs::copy(from, to).expect("copied");
    fs::copy(wal_of(from), wal_of(to)).expect("copied");
}

/// Makes a closed file, which is all there is.
async fn closed(folder: &Path, page_size: u32, keys: &[Key]) -> PathBuf {
    let path = folder.join("closed");
    let store = Sqlite::builder(&path).with_page_size(page_size).build().expect("it opens");
    put(&store, keys).await.expect("it writes");
    store.close().await.expect("it closes");
    path
}

/// Lets a file have the schema cookie that files had before it was random.
fn forget_the_cookie(path: &Path) {
    let connection = rusqlite::Connection::open(path).expect("it opens");
    connection.pragma_update(None, "schema_version", 3).expect("it writes");
}

/// Asserts that a file beside the WAL of another one is refused, and is whole again without the WAL.
async fn assert_refused_until_the_wal_is_gone(path: &Path, keys: &[Key]) {
    let before = [path, &wal_of(path)].map(|file| fs::read(file).expect("read"));
    let told = refused(path);
    assert!(told.contains("a write-ahead log of another file") && told.contains("left behind-shm"), "{told}");
    let reading = Sqlite::builder(path).read_only().build().expect_err("it is refused for reading, too");
    assert_eq!(reading.to_string(), told);
    assert!(before == [path, &wal_of(path)].map(|file| fs::read(file).expect("read")), "something was changed");
    fs::remove_file(wal_of(path)).expect("removed");
    let store = Sqlite::open(path).expect("it opens");
    assert_all(&store, keys).await;
    assert_eq!(store.stats().await.expect("counted").entries, keys.len() as u64);
}

#[tokio::test]
async fn a_file_that_was_copied_over_another_ones_wal_is_refused() {
    for page_size in [512, 4_096, 16_384] {
        for (old, new) in [(10, 1_000), (1_000, 10)] {
            let folder = folder();
            let (old, new) = (keys("old", 0..old), keys("new", 0..new));
            let path = left_behind(folder.path(), page_size, &old).await;
            fs::copy(closed(folder.path(), page_size, &new).await, &path).expect("copied");
            assert_refused_until_the_wal_is_gone(&path, &new).await;
        }
    }
}

#[tokio::test]
async fn a_smaller_wal_is_refused_where_cookies_are_equal() {
    let folder = folder();
    let (old, new) = (keys("old", 0..10), keys("new", 0..1_000));
    // Two files of an earlier version, which made no random cookies.
    let live = closed(folder.path(), 4_096, &[]).await;
    forget_the_cookie(&live);
    let path = folder.path().join("left behind");
    let store = Sqlite::open(&live).expect("it opens");
    put(&store, &old).await.expect("it writes");
    copy_with_wal(&live, &path);
    // It is its own.
    assert_all(&Sqlite::open(&path).expect("it opens"), &old).await;

    copy_with_wal(&live, &path);
    put(&store, &new).await.expect("it writes");
    store.close().await.expect("it closes");
    // A later copy of the same file.
    fs::copy(&live, &path).expect("copied");
    let all: Vec<Key> = old.iter().chain(&new).copied().collect();
    assert_refused_until_the_wal_is_gone(&path, &all).await;
}

#[tokio::test]
async fn the_wal_of_a_file_is_read_whatever_is_in_it() {
    for page_size in [512, 16_384] {
        let folder = folder();
        let all = keys("text", 0..600);
        let path = left_behind(folder.path(), page_size, &all).await;
        assert_all(&Sqlite::open(&path).expect("it opens"), &all).await;
    }
    // The file is larger than the pages that are left after `VACUUM`.
    let folder = folder();
    let all = keys("text", 0..600);
    let live = closed(folder.path(), 4_096, &all).await;
    let connection = rusqlite::Connection::open(&live).expect("it opens");
    connection
        .execute_batch("PRAGMA wal_autocheckpoint = 0; DELETE FROM entries WHERE id > 50; VACUUM")
        .expect("it writes");
    let path = folder.path().join("copy");
    copy_with_wal(&live, &path);
    let store = Sqlite::open(&path).expect("it opens");
    assert_eq!(store.stats().await.expect("counted").entries, 50);
}

#[tokio::test]
async fn a_file_that_is_only_read_keeps_what_it_has() {
    let folder = folder();
    let (all, new) = (keys("text", 0..300), keys("new", 0..7));
    let path = closed(folder.path(), 4_096, &all).await;
    let before = fs::read(&path).expect("read");
    let store = Sqlite::builder(&path).read_only().build().expect("it opens");
    assert!(store.is_read_only() && !Sqlite::open(folder.path().join("other")).expect("it opens").is_read_only());
    assert_all(&store, &all).await;
    for puts in 1..=2 {
        put(&store, &new).await.expect("it is skipped");
        assert_eq!(store.skipped(), 7 * puts);
    }
    assert_eq!(get(&store, &new).await.expect("it reads"), vec![None; 7]);
    let damaged = value(&all[0]);
    let error = store.discard(&[Entry::new(all[0], &damaged)]).await.expect_err("nothing can be removed");
    assert!(error.kind() == ErrorKind::Cache && error.to_string().contains("is only read"), "{error}");
    store.note(SpaceId::from_bytes([7; 16]), "a space").await.expect("it is skipped");
    store.flush().await.expect("there is nothing to wait for");
    let stats = store.stats().await.expect("counted");
    assert_eq!((stats.entries, stats.spaces.len()), (300, 0));
    assert_eq!(store.check_file().await.expect("checked"), Vec::<String>::new());
    let mut beside = fs::read_dir(folder.path()).expect("a folder").flatten().map(|file| file.file_name());
    assert!(beside.all(|name| !name.to_string_lossy().starts_with("closed-")), "it made files");
    store.close().await.expect("it closes");
    assert!(fs::read(&path).expect("read") == before, "it wrote");

    // Nothing is made where nothing is.
    let missing = folder.path().join("missing");
    Sqlite::builder(&missing).read_only().build().expect_err("there is none");
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_cache_over_a_file_that_is_only_read_gives_hits_and_embeds_the_rest() {
    let folder = folder();
    let (path, fake) = (folder.path().join("cache"), Fake::new(8));
    let file = Sqlite::open(&path).expect("it opens");
    fake.clone().cached(file.clone()).expect("one space").embed_documents(&["one", "two"]).await.expect("embeds");
    file.close().await.expect("it closes");
    let file = Sqlite::builder(&path).read_only().build().expect("it opens");
    let cached = fake.clone().cached(file.clone()).expect("one space");
    for times in 1..=2 {
        let rows = cached.embed_documents(&["two", "three"]).await.expect("embeds");
        assert_own(&fake, &["two".into(), "three".into()], &rows);
        assert_eq!((rows.usage().cached, rows.usage().requests), (1, 1));
        assert_eq!((file.skipped(), cached.counts().failures), (times, 0));
    }
    cached.check_model().await.expect("what keeps nothing has no wrong vector");
}

#[tokio::test]
async fn a_reader_follows_a_writer() {
    let folder = folder();
    let [first, second, third] = ["first", "second", "third"].map(|name| keys(name, 0..50));
    let path = closed(folder.path(), 4_096, &first).await;
    let reader = Sqlite::builder(&path).read_only().build().expect("it opens");
    assert_all(&reader, &first).await;
    let writer = Sqlite::open(&path).expect("it opens");
    put(&writer, &second).await.expect("it writes");
    assert_all(&reader, &second).await;
    put(&writer, &third).await.expect("it writes");
    assert_all(&reader, &third).await;
    writer.close().await.expect("it closes");
    for keys in [&first, &second, &third] {
        assert_all(&reader, keys).await;
    }
    // Opened while a writer is there.
    let writer = Sqlite::open(&path).expect("it opens");
    put(&writer, &keys("fourth", 0..50)).await.expect("it writes");
    assert_all(&Sqlite::builder(&path).read_only().build().expect("it opens"), &keys("fourth", 0..50)).await;
}
