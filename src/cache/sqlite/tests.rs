//! Tests of what cannot be seen from outside: how connections are set, and the size of the WAL.

use std::{fs, thread, time::Duration};

use rusqlite::Connection;

use super::{Sqlite, beside::wal_of, builder::DEFAULT_PAGE_BYTES, open::check_library};
use crate::{
    ErrorKind,
    cache::{CacheStore, Entry, Key},
};

#[test]
fn old_libraries_are_refused_by_their_numbers() {
    for version in [3_053_000, 3_051_003, 4_000_000] {
        check_library(version).expect("new enough");
    }
    for version in [3_051_002, 3_050_004, 3_007_000] {
        assert_eq!(check_library(version).expect_err("too old").kind(), ErrorKind::Cache);
    }
    let shown = check_library(3_050_004).expect_err("too old").to_string();
    assert!(shown.contains("SQLite 3.50.4") && shown.contains("3.51.3 or newer"), "{shown}");
}

#[test]
fn connections_are_set_so_that_what_is_committed_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let store = Sqlite::open(&path).expect("it opens");
    let (writer, page_size) = Sqlite::builder(&path).file_options().open_for_writing(&path).expect("it opens");
    let is = |connection: &Connection, name: &str, expected: &str| {
        let value: rusqlite::types::Value =
            connection.pragma_query_value(None, name, |row| row.get(0)).expect("it can be read");
        assert_eq!(format!("{value:?}"), expected, "{name}");
    };
    for connection in [&writer, &store.0.reader(None).expect("it opens")] {
        is(connection, "journal_mode", "Text(\"wal\")");
        is(connection, "synchronous", "Integer(2)");
        is(connection, "fullfsync", "Integer(1)");
        is(connection, "mmap_size", "Integer(0)");
        is(connection, "cell_size_check", "Integer(1)");
        is(connection, "trusted_schema", "Integer(0)");
    }
    assert_eq!(page_size, DEFAULT_PAGE_BYTES);
    is(&writer, "wal_autocheckpoint", "Integer(4096)");
    is(&writer, "journal_size_limit", "Integer(67108864)");
}

/// If readers overlap, the WAL can start over only if the writer waits for it.
#[test]
fn the_wal_stays_small_beside_readers() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let mut builder = Sqlite::builder(&path);
    builder.wal_bytes = 256 << 10;
    let store = builder.build().expect("it opens");
    let (put, longest) = (20 << 20, 256 << 10 << 4);
    let stop = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut seen = 0;
    thread::scope(|scope| {
        for reader in 0..4 {
            let (connection, stop) = (store.0.reader(None).expect("it opens"), &stop);
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(reader));
                while !stop.load(Ordering::Relaxed) {
                    let transaction = connection.unchecked_transaction().expect("it begins");
                    let count: i64 =
                        transaction.query_row("SELECT count(*) FROM spaces", [], |row| row.get(0)).expect("it reads");
                    assert_eq!(count, 0);
                    thread::sleep(Duration::from_millis(4));
                    transaction.commit().expect("it ends");
                }
            });
        }
        let value = vec![7; 64 << 10];
        for number in 0..put / value.len() as u64 {
            let key = Key::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let result = runtime.block_on(store.put(&[Entry::new(key, &value)]));
            seen = seen.max(fs::metadata(wal_of(&path)).map_or(0, |wal| wal.len()));
            if result.is_err() || seen > longest {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(seen > 512 << 10, "the readers did not keep it from starting over: {seen}");
    assert!(seen <= longest, "a WAL of {seen} bytes for a file of {put}");
}

#[cfg(target_os = "linux")]
#[test]
fn network_file_systems_are_told_from_local_ones() {
    use super::open::network_file_system;

    for (kind, name) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x0bd0_0bd0, "Lustre"), (0x0102_1997, "9p")] {
        assert_eq!(network_file_system(kind), Some(name));
    }
    // ext4, XFS, Btrfs, ZFS, tmpfs, overlayfs, and FUSE, of which nothing can be said.
    for kind in [0xef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630, 0x6573_5546] {
        assert_eq!(network_file_system(kind), None);
    }
}
