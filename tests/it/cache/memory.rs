//! `Memory`: its bound, which entries are evicted, and which value is first when threads write at once.

use docvector_embed::{
    SpaceId,
    cache::{CacheStore, Entry, Key, Memory},
};
use futures_util::{FutureExt, future::join_all};
use proptest::prelude::*;

use super::stores::{find, find_one, key, put_one};

/// The bytes that an entry with a value of so many bytes counts.
fn counted(bytes: usize) -> u64 {
    32 + bytes as u64 + Memory::OVERHEAD
}

proptest! {
    #[test]
    fn the_bound_is_kept_and_so_is_the_first_value(
        bound in 0_u64..40_000,
        steps in prop::collection::vec((0_u64..60, prop::option::of(0_usize..5_000)), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let memory = Memory::new(bound);
            for (step, &(number, put)) in steps.iter().enumerate() {
                let before = find_one(&memory, key(number)).await;
                let Some(bytes) = put else { continue };
                let value = vec![step as u8; bytes];
                put_one(&memory, key(number), &value).await;
                prop_assert!(memory.bytes() <= bound, "{:?}", memory);
                match (before, find_one(&memory, key(number)).await) {
                    (Some(first), after) => prop_assert_eq!(after, Some(first)),
                    (None, Some(after)) => prop_assert_eq!(after, value),
                    (None, None) => {}
                }
            }
            // The bytes are those of the entries that are there.
            let keys: Vec<Key> = (0..60).map(key).collect();
            let found = find(&memory, &keys).await;
            prop_assert_eq!(found.iter().flatten().count(), memory.len());
            prop_assert_eq!(found.iter().flatten().map(|value| counted(value.len())).sum::<u64>(), memory.bytes());
            prop_assert_eq!(memory.is_empty(), memory.bytes() == 0);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn what_fits_is_kept() {
    let memory = Memory::new(100 * counted(1_000));
    for number in 0..100 {
        put_one(&memory, key(number), &[1; 1_000]).await;
    }
    assert_eq!((memory.len(), memory.bytes()), (100, 100 * counted(1_000)));
}

#[tokio::test]
async fn what_is_too_large_is_not_kept_and_pushes_nothing_out() {
    let memory = Memory::new(10_000);
    put_one(&memory, key(1), &[1; 1_000]).await;
    for bytes in [9_600, 9_900, 10_000, 1 << 20] {
        put_one(&memory, key(2), &vec![2; bytes]).await;
        assert_eq!(find(&memory, &[key(1), key(2)]).await, [Some(vec![1; 1_000]), None]);
    }
    assert_eq!(memory.len(), 1);
    // So the next value that fits is the first.
    put_one(&memory, key(2), b"small").await;
    assert_eq!(find_one(&memory, key(2)).await.as_deref(), Some(&b"small"[..]));
}

#[tokio::test]
async fn what_is_asked_for_again_survives_a_run_over_much_more() {
    let memory = Memory::new(1_000 * counted(1_000));
    let run = |from: u64, to: u64| {
        let memory = memory.clone();
        async move {
            for number in from..to {
                assert_eq!(find_one(&memory, key(number)).await, None);
                put_one(&memory, key(number), &[0; 1_000]).await;
            }
        }
    };
    run(1_000, 5_000).await;
    for number in 0..50 {
        put_one(&memory, key(number), &[1; 1_000]).await;
        for _ in 0..2 {
            assert!(find_one(&memory, key(number)).await.is_some(), "{number} has just come");
        }
    }
    run(5_000, 25_000).await;
    assert!(memory.len() > 950, "{memory:?}");
    let hot: Vec<Key> = (0..50).map(key).collect();
    let lost = find(&memory, &hot).await.iter().filter(|found| found.is_none()).count();
    assert_eq!(lost, 0, "were let go for entries that nobody asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_agree_on_who_was_first() {
    for _ in 0..20 {
        let memory = Memory::unbounded();
        let keys: Vec<Key> = (0..100).map(key).collect();
        let writers = (0..8_u8).map(|writer| {
            let (memory, mut keys) = (memory.clone(), keys.clone());
            tokio::spawn(async move {
                let value = [writer; 50];
                if writer % 2 == 1 {
                    keys.reverse();
                }
                let entries: Vec<Entry<'_>> = keys.iter().map(|&key| Entry::new(key, &value)).collect();
                memory.put(&entries).await.expect("memory does not fail");
                if writer % 2 == 1 {
                    keys.reverse();
                }
                find(&memory, &keys).await
            })
        });
        let seen = join_all(writers).await;
        let last = find(&memory, &keys).await;
        assert!(last.iter().all(Option::is_some));
        for seen in seen {
            assert_eq!(seen.expect("no task panicked"), last);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_keep_the_bound() {
    let bound = 200_000;
    let memory = Memory::new(bound);
    let tasks = (0..4_u64).map(|task| {
        let memory = memory.clone();
        tokio::spawn(async move {
            for number in 0..2_000 {
                put_one(&memory, key(task * 2_000 + number), &vec![0; number as usize]).await;
                assert!(memory.bytes() <= bound, "{memory:?}");
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("the bound was kept");
    }
    assert!(memory.bytes() > bound / 2, "{memory:?}");
}

#[tokio::test]
async fn long_calls_let_others_have_their_turn() {
    let memory = Memory::unbounded();
    let keys: Vec<Key> = (0..1_025).map(key).collect();
    let entries: Vec<Entry<'_>> = keys.iter().map(|&key| Entry::new(key, b"value")).collect();
    assert!(memory.put(&entries[..1_024]).now_or_never().is_some());
    assert!(memory.put(&entries).now_or_never().is_none());
    let mut count = 0;
    assert!(memory.get(&keys[..1_024], &mut |_: usize, _: &[u8]| count += 1).now_or_never().is_some());
    assert_eq!(count, 1_024);
    assert!(memory.get(&keys, &mut |_: usize, _: &[u8]| {}).now_or_never().is_none());
}

#[tokio::test]
async fn clones_share_and_notes_stay_as_they_were_first() {
    let memory = Memory::new(1 << 20);
    let clone = memory.clone();
    put_one(&clone, key(1), b"value").await;
    assert_eq!(find_one(&memory, key(1)).await.as_deref(), Some(&b"value"[..]));
    let spaces = [SpaceId::from_bytes([1; 16]), SpaceId::from_bytes([2; 16])];
    for (space, about) in [(spaces[1], "two"), (spaces[0], "one"), (spaces[1], "another")] {
        clone.note(space, about).await.expect("memory does not fail");
    }
    assert_eq!(memory.notes(), [(spaces[0], "one".to_owned()), (spaces[1], "two".to_owned())]);
}

#[tokio::test]
async fn shows_its_size_and_nothing_that_is_in_it() {
    let memory = Memory::new(5_000);
    put_one(&memory, key(1), b"planted").await;
    assert_eq!(memory.to_string(), "memory");
    assert_eq!(format!("{memory:?}"), "Memory { bound: Some(5000), bytes: 167, len: 1, .. }");
    assert_eq!((memory.bound(), Memory::unbounded().bound()), (Some(5_000), None));
}
