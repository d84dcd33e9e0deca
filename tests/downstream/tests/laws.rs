//! The laws hold for what others write, and the suite is theirs to run.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use docvector_embed::{
    Embedder, EmbedderExt, ErrorKind,
    cache::{CacheStore, Entry, Key},
    conformance,
};
use downstream::{Folder, Hashing, Screened, embed_what_can_be};

/// A place for stores that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", process::id())))
    }

    /// The store of this name, opened anew.
    fn open(&self, name: &str) -> Folder {
        Folder::open(self.0.join(name)).expect("it opens")
    }

    /// A store that nobody has used.
    fn new_store(&self) -> Folder {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        self.open(&NUMBER.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn an_embedder_of_ones_own() {
    for texts in [1, 3, 7, 1000] {
        let hashing = Hashing::new(texts, 64).expect("valid");
        conformance::Suite::new(&hashing).run().await.expect("Hashing keeps the laws");
        conformance::Suite::new(&hashing.dedup()).run().await.expect("Dedup(Hashing) keeps the laws");
    }
}

#[tokio::test]
async fn a_wrapper_of_ones_own() {
    conformance::wrapper(|inner| Screened::new(inner, "forbidden")).await.expect("Screened keeps the laws");
    conformance::wrapper(|inner| Screened::new(inner, "forbidden").dedup()).await.expect("a stack keeps the laws");
}

#[tokio::test]
async fn a_stack_behind_a_pointer() {
    let screened = Screened::new(Hashing::new(2, 64).expect("valid"), "forbidden");
    let stack: Box<dyn Embedder> = Box::new(screened.dedup());
    assert_eq!(stack.to_string(), "Dedup(Screened(hashing))");
    let error = stack.embed_documents(&["fine", "forbidden word", "fine", "forbidden word"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let texts = ["a", "", "b", "forbidden", "c"];
    assert_eq!(embed_what_can_be(&*stack, &texts).await, (3, vec![1, 3]));
}

#[tokio::test]
async fn a_store_of_ones_own() {
    let scratch = Scratch::new("laws");
    conformance::store(|| scratch.open("store")).await.expect("Folder keeps the laws");
}

#[tokio::test]
async fn a_cache_over_a_store_of_ones_own() {
    let scratch = Scratch::new("cache");
    for texts in [3, 1000] {
        let cached = Hashing::new(texts, 64).expect("valid").cached(scratch.new_store()).expect("one space");
        conformance::Suite::new(&cached).run().await.expect("Cached(hashing) keeps the laws");
    }
    let wrapped = conformance::wrapper(|inner| inner.cached(scratch.new_store()).expect("one space"));
    wrapped.await.expect("Cached over Folder keeps the laws");
}

#[tokio::test]
async fn a_folder_is_opened_again_and_what_is_damaged_in_it_is_mended() {
    let scratch = Scratch::new("again");
    let texts = ["the first text", "another", "and a third one"];
    let plain = Hashing::new(1000, 64).expect("valid").embed_documents(&texts).await.expect("embeds");
    // How many come from the cache and how many are damaged, each time by a new handle.
    let embed = async |texts: &[&str]| {
        let cached = Hashing::new(1000, 64).expect("valid").cached(scratch.open("store")).expect("one space");
        let rows = cached.embed_documents(texts).await.expect("embeds");
        assert!((0..texts.len()).all(|row| rows.row(row) == plain.row(row)), "each has its own row");
        (rows.usage().cached, cached.counts().damaged)
    };
    assert_eq!(embed(&texts[..2]).await, (0, 0));
    assert_eq!(embed(&texts).await, (2, 0));
    for file in fs::read_dir(scratch.0.join("store").join("entries")).expect("a folder") {
        let file = file.expect("a file").path();
        let mut bytes = fs::read(&file).expect("it reads");
        bytes[100] ^= 1;
        fs::write(&file, bytes).expect("it writes");
    }
    assert_eq!(embed(&texts).await, (0, 3));
    assert_eq!(embed(&texts).await, (3, 0));
}

/// The suite makes its calls on one thread; this store does its work on others, through as many handles as one likes.
#[tokio::test]
async fn handles_that_write_at_once_agree_on_who_was_first() {
    let scratch = Scratch::new("handles");
    let keys: Vec<Key> = (0..60_u8).map(|number| Key::from_bytes([number; 32])).collect();
    // What is found of each key when one has discarded a value, where there is any, and put its own.
    let write = async |number: u8, instead_of: Option<&[u8]>| {
        let (store, value) = (scratch.open("store"), [number; 500]);
        let mut all = Vec::new();
        for (place, &key) in keys.iter().enumerate() {
            if let Some(damaged) = instead_of {
                store.discard(&[Entry::new(key, &[damaged[place]; 500])]).await.expect("it discards");
            }
            store.put(&[Entry::new(key, &value)]).await.expect("it stores");
            // At once: who is not the first must not come after this.
            let mut sink = |_: usize, value: &[u8]| {
                assert_eq!(value, [value[0]; 500], "a value that nobody put");
                all.push(value[0]);
            };
            store.get(&[key], &mut sink).await.expect("it reads");
        }
        all
    };
    let (first, second, third) = tokio::join!(write(1, None), write(2, None), write(3, None));
    assert!(first == second && second == third, "all see the same");
    assert!(first.len() == keys.len() && first.iter().all(|number| (1..=3).contains(number)));
    // A value that took the place of a discarded one is not discarded by those who come late.
    let instead_of = Some(&first[..]);
    let (fourth, fifth, sixth) = tokio::join!(write(4, instead_of), write(5, instead_of), write(6, instead_of));
    assert!(fourth == fifth && fifth == sixth, "all see the same");
    assert!(fourth.len() == keys.len() && fourth.iter().all(|number| (4..=6).contains(number)));
}
