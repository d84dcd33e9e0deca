//! The stores that many machines share keep the laws: alone, in tiers, under `Cached`, and with many writers at once.
#![cfg(all(unix, any(feature = "redis", feature = "postgres")))]

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use docvector_embed::{
    EmbedderExt,
    cache::{CacheScan, CacheStore, Entry, Guarded, Key, Memory, Tiered},
    conformance,
};

use super::stores::{find, find_one, key, put_one};
use crate::support::processes::{Running, alone, inner};

/// How many processes write at once.
const PROCESSES: usize = 8;

/// The keys that all of them write, and how many of these each puts at a time.
const CONTESTED: u64 = 500;
const KEYS_PER_PUT: usize = 25;

/// The key by which all processes begin at once.
const GO: u64 = 1_000_000;

/// Longer than anything takes on a busy machine.
const MINUTES: Duration = Duration::from_secs(300);

fn memory() -> Memory {
    Memory::new(64 << 20)
}

/// The suites of stores, over new stores and over one that is kept.
async fn keeps_the_laws<S: CacheScan + Clone>(fresh: impl Fn() -> S + Send + Sync) {
    conformance::store(&fresh).await.unwrap_or_else(|violation| panic!("new: {violation}"));
    let kept = fresh();
    conformance::store(|| kept.clone()).await.unwrap_or_else(|violation| panic!("kept: {violation}"));
    conformance::scan(&fresh).await.unwrap_or_else(|violation| panic!("listed: {violation}"));
}

/// The suite of stores, over tiers and a guard.
async fn keeps_the_laws_in_tiers<S: CacheStore + Clone>(fresh: impl Fn() -> S + Send + Sync) {
    conformance::store(|| Tiered::new(memory(), fresh())).await.expect("behind memory");
    conformance::store(|| Tiered::new(Memory::new(20_000), fresh())).await.expect("behind a small memory");
    let kept = fresh();
    conformance::store(|| Tiered::new(memory(), kept.clone())).await.expect("behind many memories");
    let guarded = || Guarded::new(fresh()).with_read_limit(MINUTES).with_write_limit(MINUTES);
    conformance::store(guarded).await.expect("guarded");
}

/// The suite of wrappers, over `Cached`.
async fn cannot_be_told_from_what_it_wraps<S: CacheStore>(fresh: impl Fn() -> S + Send + Sync) {
    conformance::wrapper(|fake| fake.cached(fresh()).expect("one space")).await.expect("over the store");
    conformance::wrapper(|fake| fake.cached(Tiered::new(memory(), fresh())).expect("one space"))
        .await
        .expect("over memory before the store");
}

/// Counts, to give each store a name of its own.
fn numbers() -> impl Fn() -> String + Send + Sync {
    let made = AtomicUsize::new(0);
    move || format!("s{}", made.fetch_add(1, Ordering::Relaxed))
}

/// Many tasks on several threads put and get keys that they share with others.
async fn is_shared_by_threads(store: impl CacheScan + Clone) {
    let tasks: Vec<_> = (0..100_u64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mine: Vec<Key> = (task * 5..task * 5 + 10).map(key).collect();
                // Neighbours share half of their keys, and disagree about the values.
                let values: Vec<Vec<u8>> =
                    mine.iter().map(|key| [key.as_bytes(), &task.to_le_bytes()[..]].concat()).collect();
                let entries = mine.iter().zip(&values).map(|(&key, value)| Entry::new(key, value));
                store.put(&entries.collect::<Vec<_>>()).await.expect("it stores");
                let found = find(&store, &mine).await;
                mine.into_iter().zip(found.into_iter().map(|value| value.expect("it was put"))).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut seen = HashMap::new();
    for task in tasks {
        for (key, value) in task.await.expect("no task fails") {
            assert!(value.starts_with(key.as_bytes()), "the value of another key");
            assert_eq!(*seen.entry(key).or_insert_with(|| value.clone()), value, "two tasks saw different values");
        }
    }
    assert_eq!(seen.len(), 505);
    let keys: Vec<Key> = seen.keys().copied().collect();
    let last = find(&store, &keys).await;
    assert!(keys.iter().zip(last).all(|(key, last)| last.as_ref() == Some(&seen[key])), "a value was replaced");
    assert!(store.contains(&keys).await.expect("it tells").into_iter().all(|there| there));
}

/// A handle is used on one runtime after another, each of which ends.
fn outlives_a_runtime(open: impl AsyncFn() -> Box<dyn CacheStore>) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = runtime().block_on(open());
    for number in 0..3 {
        let next = runtime();
        next.block_on(put_one(&store, key(number), b"a value"));
        for number in 0..=number {
            assert!(next.block_on(find_one(&store, key(number))).is_some(), "key {number}");
        }
    }
}

/// The part of one of the processes: puts the contested keys, each with a value of its own, and prints what it found.
async fn write_beside_others(store: &dyn CacheStore, who: usize) {
    // The line before was begun by the harness.
    println!("\nready");
    while find_one(store, key(GO)).await.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all: Vec<Key> = (0..CONTESTED).map(key).collect();
    for part in all.chunks(KEYS_PER_PUT) {
        let values: Vec<String> = part.iter().map(|key| format!("{key:?} of {who}")).collect();
        let mut entries: Vec<Entry<'_>> =
            part.iter().zip(&values).map(|(&key, value)| Entry::new(key, value.as_bytes())).collect();
        // Stores that lock entries one by one must not deadlock.
        if who % 2 == 1 {
            entries.reverse();
        }
        store.put(&entries).await.expect("it stores");
        assert!(find(store, part).await.iter().all(Option::is_some), "what was put is there");
    }
    println!("saw {}", digest(&find(store, &all).await));
}

fn digest(found: &[Option<Vec<u8>>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for value in found {
        hasher.update(value.as_ref().expect("it was put")).update(b"\n");
    }
    hasher.finalize().to_string()
}

/// Starts the processes over a store at this URL, and checks that all of them found the same values.
async fn one_value_each(test: &str, url: &str, store: &dyn CacheStore) {
    let (lines, told) = mpsc::channel();
    let who: Vec<String> = (0..PROCESSES).map(|number| number.to_string()).collect();
    let start =
        |number: usize| Running::start(alone(module_path!(), test), &[url, &who[number]], number, lines.clone());
    let running: Vec<Running> = (0..PROCESSES).map(start).collect();
    drop(lines);
    let (mut ready, mut seen) = (0, Vec::new());
    for (_, line) in told {
        if line == "ready" {
            ready += 1;
            if ready == PROCESSES {
                put_one(store, key(GO), b"go").await;
            }
        } else if let Some(digest) = line.strip_prefix("saw ") {
            seen.push(digest.to_owned());
        }
    }
    for mut running in running {
        assert!(running.ended(), "a process failed");
    }
    let all: Vec<Key> = (0..CONTESTED).map(key).collect();
    let last = find(store, &all).await;
    assert_eq!(seen, vec![digest(&last); PROCESSES], "the processes saw different values");
    for (key, value) in all.iter().zip(last) {
        let value = String::from_utf8(value.expect("it was put")).expect("text");
        let writer = value.strip_prefix(&format!("{key:?} of ")).and_then(|who| who.parse::<usize>().ok());
        assert!(writer.is_some_and(|who| who < PROCESSES), "a value that nobody put");
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

#[cfg(feature = "redis")]
mod redis {
    use docvector_embed::cache::Redis;

    use super::*;
    use crate::support::{redis_cluster::RedisCluster, redis_server::Prefix};

    fn lazy(url: &str) -> Redis {
        Redis::builder(url).build_lazy().expect("a valid URL")
    }

    async fn connected(url: &str) -> Redis {
        Redis::connect(url).await.expect("it connects")
    }

    #[tokio::test]
    async fn one_server() {
        let (prefix, name) = (Prefix::new(), numbers());
        keeps_the_laws(|| lazy(&prefix.url_of(&name()))).await;
    }

    #[tokio::test]
    async fn tiers() {
        let (prefix, name) = (Prefix::new(), numbers());
        keeps_the_laws_in_tiers(|| lazy(&prefix.url_of(&name()))).await;
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_file_before_a_server() {
        use docvector_embed::cache::Sqlite;
        let (prefix, name, folder) = (Prefix::new(), numbers(), tempfile::tempdir().expect("a folder"));
        let make = || {
            let name = name();
            let file = Sqlite::open(folder.path().join(&name)).expect("it opens");
            Tiered::new(file, lazy(&prefix.url_of(&name)))
        };
        conformance::store(make).await.expect("a file before a server");
    }

    #[tokio::test]
    async fn cached() {
        let (prefix, name) = (Prefix::new(), numbers());
        cannot_be_told_from_what_it_wraps(|| lazy(&prefix.url_of(&name()))).await;
    }

    #[tokio::test]
    async fn a_cluster() {
        let Some(cluster) = RedisCluster::shared() else { return };
        keeps_the_laws(|| lazy(&cluster.url())).await;
    }

    #[tokio::test]
    async fn tiers_before_a_cluster() {
        let Some(cluster) = RedisCluster::shared() else { return };
        keeps_the_laws_in_tiers(|| lazy(&cluster.url())).await;
        cannot_be_told_from_what_it_wraps(|| lazy(&cluster.url())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn threads() {
        let prefix = Prefix::new();
        is_shared_by_threads(connected(&prefix.url()).await).await;
        if let Some(cluster) = RedisCluster::shared() {
            is_shared_by_threads(connected(&cluster.url()).await).await;
        }
    }

    #[test]
    fn runtimes_one_after_another() {
        let prefix = Prefix::new();
        outlives_a_runtime(async || Box::new(connected(&prefix.url()).await) as Box<dyn CacheStore>);
    }

    #[tokio::test]
    async fn eight_processes() {
        const NAME: &str = "redis::eight_processes";
        if let Some(words) = inner() {
            return write_beside_others(&connected(&words[0]).await, number(&words[1])).await;
        }
        let prefix = Prefix::new();
        one_value_each(NAME, &prefix.url(), &connected(&prefix.url()).await).await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use docvector_embed::cache::Postgres;

    use super::*;
    use crate::support::postgres_server::Schema;

    fn lazy(url: &str) -> Postgres {
        Postgres::builder(url).build_lazy().expect("a valid URL")
    }

    async fn connected(url: &str) -> Postgres {
        Postgres::connect(url).await.expect("it connects")
    }

    #[tokio::test]
    async fn one_server() {
        let (schema, name) = (Schema::new(), numbers());
        keeps_the_laws(|| lazy(&schema.url_of(&name()))).await;
    }

    #[tokio::test]
    async fn tiers() {
        let (schema, name) = (Schema::new(), numbers());
        keeps_the_laws_in_tiers(|| lazy(&schema.url_of(&name()))).await;
    }

    #[tokio::test]
    async fn cached() {
        let (schema, name) = (Schema::new(), numbers());
        cannot_be_told_from_what_it_wraps(|| lazy(&schema.url_of(&name()))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn threads() {
        let schema = Schema::new();
        is_shared_by_threads(connected(&schema.url()).await).await;
    }

    #[test]
    fn runtimes_one_after_another() {
        let schema = Schema::new();
        outlives_a_runtime(async || Box::new(connected(&schema.url()).await) as Box<dyn CacheStore>);
    }

    /// All of them find no table, and make it.
    #[tokio::test]
    async fn eight_processes() {
        const NAME: &str = "postgres::eight_processes";
        if let Some(words) = inner() {
            return write_beside_others(&connected(&words[0]).await, number(&words[1])).await;
        }
        let schema = Schema::new();
        one_value_each(NAME, &schema.url(), &lazy(&schema.url())).await;
    }
}
