//! The PostgreSQL store: what it says and does where a server refuses, is full, or can only be read.
#![cfg(all(feature = "postgres", unix))]

use std::path::Path;

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, SpaceId,
    cache::{CacheScan, CacheStore, Entry, Key, Postgres},
    provider::Fake,
};

use super::{
    shared_faults::{assert_all, entries_of, goes_on_without_room, put_all, until_it_works},
    stores::{find, find_one, key, put_one, try_find},
};
use crate::support::{
    numbered,
    postgres_server::{GUARDED, PostgresServer, Schema},
    processes::{alone, inner},
    small_disk::on_small_disk,
    warnings::warnings_of,
};

fn keys(count: u64) -> Vec<Key> {
    (0..count).map(key).collect()
}

async fn open(url: &str) -> Postgres {
    Postgres::connect(url).await.expect("it connects")
}

/// Returns the error of connecting, which does not show the password.
async fn refused(url: &str) -> Error {
    let error = Postgres::connect(url).await.map(|_| ()).expect_err("it is refused");
    let told = format!("{error} {error:?}");
    assert!(!told.contains("planted"), "{told}");
    error
}

fn assert_says(error: &Error, words: &[&str]) {
    assert!(matches!(error.kind(), ErrorKind::Cache | ErrorKind::Config), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "'{word}' is missing: {error}");
    }
}

#[tokio::test]
async fn a_wrong_password_or_database_is_named_and_not_shown() {
    let Some(server) = PostgresServer::own(&["fsync=off"]) else { return };
    server.sql(&format!("CREATE ROLE {GUARDED} LOGIN PASSWORD 'planted'; GRANT CREATE ON SCHEMA public TO {GUARDED}"));
    let port = server.port().to_string();
    let error = refused(&server.url_as(GUARDED, "planted-wrong")).await;
    assert_says(&error, &["password", "127.0.0.1", &port]);
    assert_says(&refused(&server.url_as("nobody_here", "planted")).await, &["user", &port]);
    let nowhere = format!("postgres://postgres@127.0.0.1:{port}/nowhere");
    assert_says(&refused(&nowhere).await, &["no such database", "nowhere", &port]);
    let store = open(&server.url_as(GUARDED, "planted")).await;
    put_one(&store, key(1), b"a value").await;
    assert!(!format!("{store:?} {store}").contains("planted"));
    assert_eq!(store.to_string(), "postgres");
}

#[tokio::test]
async fn a_server_that_is_down_stops_no_program() {
    let Some(mut server) = PostgresServer::own(&["fsync=off"]) else { return };
    server.stop_fast();
    assert_says(&refused(&server.url()).await, &["cannot be reached", &server.port().to_string()]);
    let store = Postgres::builder(server.url()).build_lazy().expect("it needs no server");
    for _ in 0..3 {
        let error = try_find(&store, &[key(1)]).await.expect_err("there is no server");
        assert_eq!(error.kind(), ErrorKind::Cache);
        assert!(error.to_string().contains(&server.port().to_string()), "{error}");
    }
    let cached = Fake::new(8).cached(store.clone()).expect("one space");
    assert_eq!(cached.embed_documents(&numbered(10)).await.expect("it embeds").len(), 10);
    server.restart();
    until_it_works(&store).await;
    cached.embed_documents(&numbered(10)).await.expect("it embeds");
    assert_eq!(cached.counts().stored, 10);
}

#[tokio::test]
async fn who_may_only_read_reads() {
    let Some(server) = PostgresServer::own(&["fsync=off"]) else { return };
    let owner = open(&server.url()).await;
    put_all(&owner, &keys(50)).await.expect("it stores");
    let fake = Fake::new(8);
    let embedded = fake.clone().cached(owner.clone()).expect("one space").embed_documents(&numbered(10)).await;
    embedded.expect("it embeds");
    server.sql(
        "CREATE ROLE reader LOGIN; GRANT SELECT ON docvector_cache, docvector_cache_spaces, docvector_cache_meta TO reader;
         CREATE ROLE standing_by LOGIN SUPERUSER; ALTER ROLE standing_by SET default_transaction_read_only = on",
    );
    let (store, logged) = warnings_of(open(&server.url_as("reader", "none"))).await;
    assert!(store.is_read_only() && !logged.is_empty(), "{logged:?}");
    is_only_read(&store, &fake).await;
    // A standby takes no writes now. It says so with each, and takes them when it is the primary.
    let (store, logged) = warnings_of(open(&server.url_as("standing_by", "none"))).await;
    assert!(!store.is_read_only() && logged.iter().any(|line| line.contains("takes no entries now")), "{logged:?}");
    let error = store.put(&[Entry::new(key(99), b"a value")]).await.expect_err("it takes no writes");
    assert_says(&error, &["takes no writes"]);
    assert_all(&store, &keys(50), "at a standby").await;
    server.sql("ALTER ROLE standing_by SET default_transaction_read_only = off");
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'standing_by'");
    store.put(&[Entry::new(key(99), b"a value")]).await.expect("it takes writes by now");
    store.discard(&[Entry::new(key(99), b"a value")]).await.expect("it takes writes by now");
    let (store, logged) = warnings_of(Postgres::builder(server.url()).read_only().build()).await;
    let store = store.expect("it opens");
    assert!(!logged.iter().any(|line| line.contains("only read")), "it was asked for: {logged:?}");
    is_only_read(&store, &fake).await;
    assert!(!owner.is_read_only());
    assert_eq!(owner.stats().await.expect("it counts").entries, 60);
}

/// Checks that a store with 50 entries and 10 vectors can be read, and that nothing comes in or goes out.
async fn is_only_read(store: &Postgres, fake: &Fake) {
    assert_all(store, &keys(50), "only read").await;
    let before = store.skipped();
    store.put(&[Entry::new(key(99), b"a value")]).await.expect("it is skipped");
    assert_eq!((store.skipped(), find_one(store, key(99)).await), (before + 1, None));
    let error = store.discard(&[Entry::new(key(1), b"a value")]).await.expect_err("nothing can be removed");
    assert_eq!(error.kind(), ErrorKind::Cache);
    store.note(SpaceId::from_bytes([7; 16]), "a space").await.expect("it is skipped");
    store.flush().await.expect("there is nothing to wait for");
    let cached = fake.clone().cached(store.clone()).expect("one space");
    let rows = cached.embed_documents(&numbered(15)).await.expect("it embeds");
    assert_eq!((rows.usage().cached, cached.counts().failures), (10, 0));
}

#[tokio::test]
async fn who_may_not_create_tables_uses_those_that_are_there() {
    let Some(server) = PostgresServer::own(&["fsync=off"]) else { return };
    server.sql("CREATE ROLE worker LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = server.url_as("worker", "none");
    assert_says(&refused(&url).await, &["grant"]);
    open(&server.url()).await;
    server.sql(
        "GRANT SELECT, INSERT, DELETE ON docvector_cache, docvector_cache_spaces TO worker;
         GRANT SELECT ON docvector_cache_meta TO worker",
    );
    let store = open(&url).await;
    assert!(!store.is_read_only());
    put_all(&store, &keys(50)).await.expect("it stores");
    assert_all(&store, &keys(50), "by the worker").await;
    store.note(SpaceId::from_bytes([7; 16]), "a space").await.expect("it is noted");
    let value = find_one(&store, key(1)).await.expect("it was put");
    store.discard(&[Entry::new(key(1), &value)]).await.expect("it discards");
    assert_eq!(find_one(&store, key(1)).await, None);
}

#[tokio::test]
async fn tables_of_others_are_refused_and_left_as_they_are() {
    let schema = Schema::new();
    let columns = "SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = 'other'::regclass AND attnum > 0";
    for (definition, has) in
        [("TABLE other (id int)", "id"), ("VIEW other AS SELECT 1 AS key, 2 AS value", "key,value")]
    {
        schema.sql(&format!("CREATE {definition}"));
        let error = refused(&schema.url_of("other")).await;
        assert_says(&error, &["other"]);
        assert_eq!(schema.sql(columns), has);
        let kind = definition.split(' ').next().expect("a word");
        schema.sql(&format!("DROP {kind} other"));
    }
    // A table of ours, with a version that this program does not know.
    open(&schema.url_of("newer")).await;
    schema.sql("UPDATE newer_meta SET value = '2' WHERE name = 'format'");
    assert_says(&refused(&schema.url_of("newer")).await, &["newer"]);
    assert_eq!(schema.sql("SELECT value FROM newer_meta WHERE name = 'format'"), "2");
}

#[tokio::test]
async fn a_schema_that_is_missing_is_named() {
    let schema = Schema::new();
    let url = schema.url();
    let wrong = url.replace("schema=t", "schema=nowhere_t");
    assert_says(&refused(&wrong).await, &["schema"]);
    open(&url).await;
}

#[tokio::test]
async fn a_table_that_was_dropped_is_an_error_until_it_is_opened_again() {
    let schema = Schema::new();
    let store = open(&schema.url_of("gone")).await;
    put_one(&store, key(1), b"a value").await;
    schema.sql("DROP TABLE gone");
    let error = try_find(&store, &[key(1)]).await.expect_err("there is no table");
    assert_says(&error, &["open the store again"]);
    let store = open(&schema.url_of("gone")).await;
    assert_eq!(find_one(&store, key(1)).await, None);
    put_one(&store, key(1), b"another").await;
}

#[tokio::test]
async fn odd_names_are_only_names() {
    let schema = Schema::new();
    let odd = "odd \"name\"; DROP TABLE x; --";
    let name = |name: &str| Postgres::builder(schema.url()).with_table(name).build();
    let store = name(odd).await.expect("it opens");
    put_all(&store, &keys(10)).await.expect("it stores");
    let again = name(odd).await.expect("it opens");
    assert_all(&again, &keys(10), "in a table with an odd name").await;
    assert_eq!(entries_of(&again).await, 10);
}

#[tokio::test]
async fn closed_connections_cost_no_error() {
    let Some(server) = PostgresServer::own(&["fsync=off"]) else { return };
    let store = open(&server.url()).await;
    for number in 0..20 {
        put_one(&store, key(number), b"a value").await;
        server.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
        );
        assert!(find_one(&store, key(number)).await.is_some());
    }
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error() {
    const NAME: &str = "a_full_disk_is_a_clear_error";
    if let Some(words) = inner() {
        let disk = Path::new(&words[0]);
        let server = PostgresServer::start_with(&["fsync=off"]);
        let ballast = disk.join("ballast");
        std::fs::write(&ballast, vec![1; 4 << 20]).expect("there is room for that");
        // The tables are on the small disk; what the server itself needs is not.
        let folder = server.folder_within(disk);
        server.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
        server.sql("ALTER ROLE postgres SET default_tablespace = 'small'");
        let store = open(&server.url()).await;
        let make_room = || std::fs::remove_file(&ballast).expect("it was there");
        goes_on_without_room(&store, "full disk", make_room).await;
        return;
    }
    if std::env::var_os("DOCVECTOR_EMBED_TEST_POSTGRES").is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        on_small_disk(folder.path(), 12, &alone(module_path!(), NAME));
    }
}

#[tokio::test]
async fn a_store_tells_what_it_holds() {
    let schema = Schema::new();
    let store = open(&schema.url()).await;
    put_all(&store, &keys(20)).await.expect("it stores");
    let spaces = [7, 9].map(|byte| SpaceId::from_bytes([byte; 16]));
    for space in spaces.into_iter().rev() {
        store.note(space, &format!("a space {space}")).await.expect("it is noted");
        store.note(space, "another line").await.expect("the first one stays");
    }
    let noted = spaces.map(|space| (space, format!("a space {space}")));
    let stats = store.stats().await.expect("it counts");
    assert_eq!((stats.entries, stats.value_bytes), (20, 20 * 4096));
    assert!(stats.table_bytes > stats.value_bytes);
    assert_eq!((&stats.spaces[..], &store.notes().await.expect("it lists")[..]), (&noted[..], &noted[..]));
    assert_eq!(store.estimated_len().await.expect("it counts"), 20);
    // People find what it is for.
    let comment = schema.sql("SELECT obj_description('docvector_cache'::regclass)");
    assert!(!comment.is_empty());
    // Large values are not compressed, and each has its own bytes.
    assert_eq!(
        schema.sql(
            "SELECT attstorage FROM pg_attribute WHERE attrelid = 'docvector_cache'::regclass AND attname = 'value'"
        ),
        "e"
    );
    let found = find(&store, &[key(3), key(3)]).await;
    assert!(found[0].is_some() && found[0] == found[1]);
}
