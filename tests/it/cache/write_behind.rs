//! Puts that are written in the background: the laws, what is bounded, what is lost and when.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, Result, SpaceId, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink, Tiered, WriteBehind},
    conformance,
    provider::Fake,
};
use tokio::sync::Semaphore;

/// A store in memory that can be held up and made to fail.
#[derive(Clone, Debug)]
struct Slow {
    inner: Memory,
    turns: Arc<Semaphore>,
    fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    puts: Arc<AtomicUsize>,
}

impl Slow {
    fn new(turns: usize) -> Self {
        Self {
            inner: Memory::unbounded(),
            turns: Arc::new(Semaphore::new(turns)),
            fails: Arc::default(),
            panics: Arc::default(),
            puts: Arc::default(),
        }
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slow")
    }
}

#[async_trait]
impl CacheStore for Slow {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.inner.get(keys, sink).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.turns.acquire().await.expect("open").forget();
        self.puts.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "told to");
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Cache, "told to"));
        }
        self.inner.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.inner.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.inner.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }
}

fn key(number: u8) -> Key {
    Key::from_bytes([number; 32])
}

async fn value_of(store: &impl CacheStore, number: u8) -> Option<Vec<u8>> {
    let mut found = None;
    store.get(&[key(number)], &mut |_, value| found = Some(value.to_vec())).await.expect("found");
    found
}

#[tokio::test]
async fn the_laws_hold() {
    conformance::store(|| WriteBehind::new(Memory::new(128 << 20), 16 << 20)).await.expect("the laws");
    // With a queue that is always full.
    conformance::store(|| WriteBehind::new(Memory::new(128 << 20), 1)).await.expect("the laws");
    conformance::store(|| Tiered::new(Memory::new(64 << 20), WriteBehind::new(Memory::unbounded(), 1 << 20)))
        .await
        .expect("the laws");
    conformance::wrapper(|fake| fake.cached(WriteBehind::new(Memory::new(128 << 20), 1 << 20)).expect("one space"))
        .await
        .expect("the laws");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_laws_hold_on_several_threads() {
    conformance::store(|| WriteBehind::new(Memory::new(128 << 20), 1 << 20)).await.expect("the laws");
}

#[tokio::test]
async fn a_put_does_not_wait_for_the_store_and_is_found_at_once() {
    let slow = Slow::new(0);
    let store = WriteBehind::new(slow.clone(), 1 << 20);
    store.put(&[Entry::new(key(1), b"one"), Entry::new(key(2), b"two")]).await.expect("accepted");
    store.put(&[Entry::new(key(1), b"later")]).await.expect("accepted");
    assert_eq!((value_of(&store, 1).await, slow.inner.len()), (Some(b"one".to_vec()), 0));
    assert_eq!((store.counts().waiting, store.counts().written), (2, 0));
    slow.turns.add_permits(10);
    store.flush().await.expect("written");
    assert_eq!((store.counts().waiting, store.counts().written, slow.inner.len()), (0, 2, 2));
    // The inner store's value was first.
    slow.inner.put(&[Entry::new(key(3), b"theirs")]).await.expect("put");
    store.put(&[Entry::new(key(3), b"ours")]).await.expect("accepted");
    assert_eq!(value_of(&store, 3).await, Some(b"theirs".to_vec()));
}

#[tokio::test]
async fn memory_is_bounded() {
    let slow = Slow::new(0);
    let store = WriteBehind::new(slow.clone(), 1 << 20);
    let value = vec![7; 400 << 10];
    store.put(&[Entry::new(key(1), &value)]).await.expect("room");
    store.put(&[Entry::new(key(2), &value)]).await.expect("room");
    let third = [Entry::new(key(3), &value)];
    let mut waiting = Box::pin(store.put(&third));
    let wait = Duration::from_millis(50);
    assert!(tokio::time::timeout(wait, &mut waiting).await.is_err(), "there is no room");
    assert_eq!(store.counts().waiting, 2);
    slow.turns.add_permits(1_000);
    waiting.await.expect("room");
    // One that is larger than the queue goes alone.
    let large = vec![7; 5 << 20];
    store.put(&[Entry::new(key(4), &large)]).await.expect("room");
    store.flush().await.expect("written");
    assert_eq!(slow.inner.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_tried_again_and_then_given_up() {
    let slow = Slow::new(1_000);
    slow.fails.store(true, Ordering::SeqCst);
    let store = WriteBehind::new(slow.clone(), 1 << 20).with_patience(Duration::from_secs(20));
    store.put(&[Entry::new(key(1), b"one")]).await.expect("accepted");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(slow.puts.load(Ordering::SeqCst) > 3);
    slow.fails.store(false, Ordering::SeqCst);
    store.flush().await.expect("written");
    assert_eq!((store.counts().written, store.counts().lost), (1, 0));

    slow.panics.store(true, Ordering::SeqCst);
    store.put(&[Entry::new(key(2), b"two"), Entry::new(key(3), b"three")]).await.expect("accepted");
    let error = store.flush().await.expect_err("lost");
    assert!(error.message().contains("2 entries were not written") && error.message().contains("20s"), "{error}");
    assert_eq!((store.counts().lost, store.counts().waiting, value_of(&store, 2).await), (2, 0, None));
    slow.panics.store(false, Ordering::SeqCst);
    // It is told once, and the store goes on.
    store.put(&[Entry::new(key(2), b"two")]).await.expect("accepted");
    store.flush().await.expect("written");
    assert_eq!(value_of(&slow, 2).await, Some(b"two".to_vec()));
}

/// The runtime ends in the middle of a batch, as at the end of a program that has several.
#[test]
fn what_waits_is_written_on_the_next_runtime() {
    [false, true].into_iter().for_each(written_on_the_next_runtime);
}

fn written_on_the_next_runtime(has_begun: bool) {
    let slow = Slow::new(0);
    let store = WriteBehind::new(slow.clone(), 1 << 20);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let first = runtime();
    first.block_on(async {
        store.put(&[Entry::new(key(1), b"one")]).await.expect("accepted");
        if has_begun {
            tokio::task::yield_now().await;
        }
    });
    drop(first);
    slow.turns.add_permits(10);
    runtime().block_on(async {
        assert_eq!(value_of(&store, 1).await, Some(b"one".to_vec()));
        store.put(&[Entry::new(key(2), b"two")]).await.expect("accepted");
        store.flush().await.expect("written");
    });
    assert_eq!((slow.inner.len(), store.counts().written), (2, 2));
}

/// The patience is that of the store, and not of each batch.
#[tokio::test(start_paused = true)]
async fn a_dead_store_is_not_waited_for_again_and_again() {
    let slow = Slow::new(1_000);
    slow.fails.store(true, Ordering::SeqCst);
    let store = WriteBehind::new(slow.clone(), 64 << 20).with_patience(Duration::from_secs(60));
    let value = vec![7; 1 << 20];
    for number in 0..60 {
        store.put(&[Entry::new(key(number), &value)]).await.expect("accepted");
    }
    let began = tokio::time::Instant::now();
    store.flush().await.expect_err("lost");
    assert_eq!((store.counts().lost, began.elapsed().as_secs() / 70), (60, 0), "{:?}", began.elapsed());
    // A store that hangs is one that fails.
    slow.fails.store(false, Ordering::SeqCst);
    slow.turns.forget_permits(10_000);
    store.put(&[Entry::new(key(100), &value)]).await.expect("accepted");
    let error = store.flush().await.expect_err("lost");
    assert!(error.message().contains("1 entries were not written"), "{error}");
}

#[tokio::test]
async fn rows_are_right_while_the_store_is_behind() {
    let slow = Slow::new(3);
    let fake = Fake::new(16);
    let embedder = fake.clone().cached(WriteBehind::new(slow.clone(), 64 << 10)).expect("one space");
    let texts: Vec<String> = (0..500).map(|number| format!("text {number}")).collect();
    let (first, ()) = tokio::join!(embedder.embed_documents(&texts), async {
        for _ in 0..200 {
            slow.turns.add_permits(1);
            tokio::task::yield_now().await;
        }
        slow.turns.add_permits(10_000);
    });
    let again = embedder.embed_documents(&texts).await.expect("rows");
    assert_eq!(first.expect("rows").as_slice(), again.as_slice());
    assert_eq!((again.usage().cached, fake.calls().iter().map(|call| call.texts.len()).sum::<usize>()), (500, 500));
}
