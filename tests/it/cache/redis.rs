//! The Redis store: what it says and does where a server refuses, forgets, is full, or is a replica.
#![cfg(all(feature = "redis", unix))]

use std::path::Path;

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, SpaceId,
    cache::{CacheScan, CacheStore, Entry, Key, Redis, Volatile},
    provider::Fake,
};

use super::{
    shared_faults::{assert_all, entries_of, goes_on_without_room, put_all, until, until_it_works},
    stores::{find_one, key, put_one, try_find},
};
use crate::support::{
    numbered,
    processes::{alone, inner},
    redis_cluster::RedisCluster,
    redis_server::{Prefix, RedisServer},
    small_disk::on_small_disk,
    warnings::warnings_of,
};

fn keys(count: u64) -> Vec<Key> {
    (0..count).map(key).collect()
}

async fn open(url: &str) -> Redis {
    Redis::connect(url).await.expect("it connects")
}

/// Returns the error of connecting, which names the server and not the password.
async fn refused(server: &RedisServer, url: &str) -> Error {
    let error = Redis::connect(url).await.map(|_| ()).expect_err("it is refused");
    let told = format!("{error} {error:?}");
    assert!(told.contains(&format!("127.0.0.1:{}", server.port())), "{told}");
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
async fn a_wrong_password_is_named_and_not_shown() {
    let Some(server) = RedisServer::own(&["--requirepass", "planted-secret"]) else { return };
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}/", server.port());
    assert_says(&refused(&server, &url("")).await, &["password"]);
    assert_says(&refused(&server, &url(":planted-wrong@")).await, &["password is wrong"]);
    assert_says(&refused(&server, &url("planted-user:planted-wrong@")).await, &["password is wrong"]);
    let store = open(&url(":planted-secret@")).await;
    put_one(&store, key(1), b"a value").await;
    assert_eq!(find_one(&store, key(1)).await.as_deref(), Some(&b"a value"[..]));
    assert!(!format!("{store:?} {store}").contains("planted"));
}

#[tokio::test]
async fn databases_are_apart_and_an_unknown_one_is_an_error() {
    let Some(server) = RedisServer::own(&[]) else { return };
    assert_says(&refused(&server, &format!("{}99", server.url())).await, &["database"]);
    let (one, other) = (open(&format!("{}1", server.url())).await, open(&format!("{}2", server.url())).await);
    put_one(&one, key(1), b"a value").await;
    assert_eq!(find_one(&other, key(1)).await, None);
}

#[tokio::test]
async fn a_server_that_is_down_stops_no_program() {
    let Some(mut server) = RedisServer::own(&[]) else { return };
    server.kill();
    assert_says(&refused(&server, &server.url()).await, &["start the server"]);
    let store = Redis::builder(&server.url()).build_lazy().expect("it needs no server");
    for _ in 0..3 {
        let error = try_find(&store, &[key(1)]).await.expect_err("there is no server");
        assert_eq!(error.kind(), ErrorKind::Cache);
        assert!(error.to_string().contains(&server.port().to_string()), "{error}");
    }
    let cached = Fake::new(8).cached(store.clone()).expect("one space");
    assert_eq!(cached.embed_documents(&numbered(10)).await.expect("it embeds").len(), 10);
    server.restart();
    until_it_works(&store).await;
    put_one(&store, key(1), b"a value").await;
    cached.embed_documents(&numbered(10)).await.expect("it embeds");
    assert_eq!(cached.counts().stored, 10);
    assert_eq!(store.losses(), 0);
}

#[tokio::test]
async fn a_replica_can_only_be_read() {
    let Some(primary) = RedisServer::own(&[]) else { return };
    let writer = open(&primary.url()).await;
    put_all(&writer, &keys(50)).await.expect("it stores");
    let server = primary.replica();
    let reader = open(&server.url()).await;
    let arrived = async || try_find(&reader, &keys(50)).await.expect("it reads").iter().all(Option::is_some);
    until("the entries arrive", arrived).await;
    assert_all(&reader, &keys(50), "at the replica").await;
    assert_eq!(entries_of(&reader).await, 50);
    let error = reader.put(&[Entry::new(key(99), b"a value")]).await.expect_err("a replica takes none");
    assert_says(&error, &["read-only replica", "primary", &server.port().to_string()]);
    reader
        .discard(&[Entry::new(key(1), b"a value")])
        .await
        .map_or_else(|error| assert_says(&error, &["replica"]), drop);
    assert_all(&reader, &keys(50), "after a put that failed").await;
    // A cache over it has hits, and embeds the rest.
    Fake::new(8).cached(writer).expect("one space").embed_documents(&numbered(10)).await.expect("it embeds");
    let fake = Fake::new(8);
    let cached = fake.clone().cached(reader.clone()).expect("one space");
    until("the vectors arrive", async || entries_of(&reader).await == 60).await;
    let rows = cached.embed_documents(&numbered(15)).await.expect("it embeds");
    assert!(rows.usage().cached == 10 && cached.counts().failures > 0, "{:?}", cached.counts());
}

#[tokio::test]
async fn full_memory_is_a_clear_error() {
    let Some(server) = RedisServer::own(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]) else { return };
    let store = open(&server.url()).await;
    let make_room = || assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "64mb"]), "OK");
    goes_on_without_room(&store, "memory of the server is full", make_room).await;
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error() {
    const NAME: &str = "a_full_disk_is_a_clear_error";
    if let Some(words) = inner() {
        let disk = Path::new(&words[0]);
        let ballast = disk.join("ballast");
        std::fs::write(&ballast, vec![1; 2 << 20]).expect("there is room for that");
        // With `always`, the server would end by itself. A rewrite of the file would make room at any moment.
        let options = ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"];
        let server = RedisServer::start_at(disk, &options);
        let make_room = || std::fs::remove_file(&ballast).expect("it was there");
        return goes_on_without_room(&open(&server.url()).await, "cannot write its disk", make_room).await;
    }
    if RedisServer::own(&[]).is_some() {
        let folder = tempfile::tempdir().expect("a folder");
        on_small_disk(folder.path(), 16, &alone(module_path!(), NAME));
    }
}

#[tokio::test]
async fn a_server_that_lost_its_entries_is_noticed_and_they_are_paid_for_again() {
    let Some(mut server) = RedisServer::own(&[]) else { return };
    let store = open(&server.url()).await;
    let fake = Fake::new(8);
    let cached = fake.clone().cached(store.clone()).expect("one space");
    let texts = numbered(100);
    let embed = async || {
        let rows = cached.embed_documents(&texts).await.expect("it embeds");
        for (text, row) in texts.iter().zip(rows.rows()) {
            assert_eq!(row, fake.vector_of(docvector_embed::InputKind::Document, text));
        }
        rows.usage().cached
    };
    assert_eq!((embed().await, embed().await), (0, 100));
    // Its entries are there after that.
    server.kill();
    server.restart();
    assert_eq!((embed().await, store.losses()), (100, 0));
    // A failover to an empty server.
    server.kill();
    server.restart_empty();
    let (cached, logged) = warnings_of(embed()).await;
    assert_eq!((cached, store.losses()), (0, 1));
    assert_eq!(logged.iter().filter(|line| line.contains("lost its entries")).count(), 1, "{logged:?}");
    assert_eq!((embed().await, store.losses()), (100, 1));
    assert_eq!(store.stats().await.expect("it counts").losses, 1);
    // A store that comes now knows of no loss.
    assert_eq!(open(&server.url()).await.losses(), 0);
}

#[tokio::test]
async fn servers_that_evict_are_refused_unless_the_caller_allows_it() {
    let options = ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"];
    let Some(server) = RedisServer::own(&options) else { return };
    let error = refused(&server, &server.url()).await;
    assert_says(&error, &["maxmemory-policy noeviction", "allkeys-lru", "with_volatile"]);
    // One that connects later says so at the first call.
    let lazy = Redis::builder(&server.url()).build_lazy().expect("it needs no server");
    let error = lazy.put(&[Entry::new(key(1), b"a value")]).await.expect_err("it is refused");
    assert_says(&error, &["maxmemory-policy noeviction"]);
    is_warned_of(&server, "maxmemory-policy").await;
    // What evicts only keys that expire keeps ours. It is seen at a new connection.
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]), "OK");
    open(&server.url()).await;
    // So is a policy that does not apply.
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    open(&server.url()).await;
}

#[tokio::test]
async fn servers_without_a_file_are_refused_unless_the_caller_allows_it() {
    let Some(server) = RedisServer::own(&["--appendonly", "no"]) else { return };
    let error = refused(&server, &server.url()).await;
    assert_says(&error, &["appendonly yes", "with_volatile"]);
    is_warned_of(&server, "appendonly").await;
    assert_eq!(server.command(&["CONFIG", "SET", "appendonly", "yes"]), "OK");
    open(&server.url()).await;
}

/// Checks that a server that may forget is used with one warning, or with none, as the caller chooses.
async fn is_warned_of(server: &RedisServer, why: &str) {
    let use_it = async |volatile| {
        let store = Redis::builder(&server.url()).with_volatile(volatile).build().await.expect("it is allowed");
        put_one(&store, key(1), b"a value").await;
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(find_one(&store, key(1)).await.as_deref(), Some(&b"a value"[..]));
    };
    let ((), logged) = warnings_of(use_it(Volatile::Warn)).await;
    let about: Vec<&String> = logged.iter().filter(|line| line.contains(why)).collect();
    assert_eq!(about.len(), 1, "{logged:?}");
    assert!(about[0].contains(&server.port().to_string()), "{about:?}");
    let ((), logged) = warnings_of(use_it(Volatile::Allow)).await;
    assert!(!logged.iter().any(|line| line.contains(why)), "{logged:?}");
    // The URL can say the same.
    open(&format!("{}?volatile=allow", server.url())).await;
}

#[tokio::test]
async fn closed_connections_cost_no_error() {
    let Some(server) = RedisServer::own(&[]) else { return };
    let store = open(&server.url()).await;
    for number in 0..20 {
        put_one(&store, key(number), b"a value").await;
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert!(find_one(&store, key(number)).await.is_some());
    }
    assert_eq!(store.losses(), 0);
}

#[tokio::test]
async fn keys_of_others_are_left_alone_and_not_listed() {
    let Some(server) = RedisServer::own(&[]) else { return };
    let url = |prefix: &str| format!("{}?prefix={prefix}", server.url());
    // Prefixes with the signs of patterns, one of which is the beginning of another.
    let stores = [open(&url("a[b]*")).await, open(&url("a[b]*?")).await, open(&url("ab")).await, open(&url("")).await];
    for (number, store) in (0..).zip(&stores) {
        for place in 0..=number {
            put_one(store, key(100 * number + place), &number.to_le_bytes()).await;
        }
        store.note(SpaceId::from_bytes([7; 16]), "a space").await.expect("it is noted");
    }
    for words in [["SET", "a[b]*other", "x"], ["SET", "abc", "x"], ["SET", "other", "x"]] {
        assert_eq!(server.command(&words), "OK");
    }
    for (number, store) in (0..).zip(&stores) {
        assert_eq!(entries_of(store).await as u64, number + 1, "store {number}");
        assert_eq!(store.notes().await.expect("it lists").len(), 1);
        assert!(store.contains(&[key(100 * number)]).await.expect("it tells")[0]);
        assert!(!store.contains(&[key(100 * number + 50)]).await.expect("it tells")[0]);
    }
    assert_eq!(server.command(&["GET", "other"]), "x");
}

#[tokio::test]
async fn a_store_tells_of_its_server() {
    let prefix = Prefix::new();
    let store = open(&prefix.url()).await;
    put_all(&store, &keys(20)).await.expect("it stores");
    let stats = store.stats().await.expect("it counts");
    assert!(stats.entries >= 20 && stats.used_memory > 20 * 4096 && !stats.version.is_empty(), "{stats:?}");
    assert!(store.estimated_len().await.expect("it counts") >= 20);
    assert_eq!(store.to_string(), "redis");
}

#[tokio::test]
async fn a_cluster_spreads_entries_and_survives_a_restart_of_a_part() {
    let Some(mut cluster) = RedisCluster::own() else { return };
    let store = open(&cluster.url()).await;
    put_all(&store, &keys(300)).await.expect("it stores");
    let sizes = cluster.sizes();
    assert!(sizes.iter().all(|&size| size > 0) && sizes.iter().sum::<usize>() >= 300, "{sizes:?}");
    assert_eq!(entries_of(&store).await, 300);
    cluster.restart(1);
    until("the cluster answers again", async || try_find(&store, &keys(300)).await.is_ok()).await;
    assert_all(&store, &keys(300), "after the restart").await;
    let more: Vec<Key> = (1_000..1_300).map(key).collect();
    until("the cluster stores again", async || put_all(&store, &more).await.is_ok()).await;
    assert_all(&store, &more, "after the restart").await;
    assert_eq!(entries_of(&store).await, 600);
}

#[tokio::test]
async fn a_cluster_that_is_none_is_an_error() {
    let Some(server) = RedisServer::own(&[]) else { return };
    let url = server.url().replace("redis://", "redis+cluster://");
    let error = Redis::connect(&url).await.map(|_| ()).expect_err("it is no cluster");
    assert_says(&error, &["not in a cluster"]);
}
