//! Makes one call of the inner embedder for all callers that miss the same texts: [`Ticket`], on the [`Board`].

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use super::{Inner, rows::Rows};
use crate::{
    Batch, Embedder, Embeddings, Error, ErrorKind, InputKind, Lane, Limits, Result, SpaceId, TooLong, Usage, batch,
    cache::{HashOfKey, Key},
    ext::embed_checked,
};

/// The calls under way, by the texts they are for.
pub(super) type Board = HashMap<Key, Seat, HashOfKey>;

/// Where a text's row will be.
pub(super) struct Seat {
    future: WeakShared<BoxFuture<'static, Arc<Landed>>>,
    arrived: Arrived,
    pub(super) row: usize,
    /// Whose seat it is: a later flight of the same text is not to be forgotten by an earlier one.
    pub(super) id: u64,
}

impl Seat {
    /// The flight, unless all who waited for it have gone.
    pub(super) fn flight(&self) -> Option<Flight> {
        Some(Flight { future: self.future.upgrade()?, arrived: self.arrived.clone() })
    }
}

/// What a flight came to, before it was stored.
pub(super) type Arrived = Arc<OnceLock<Arc<Landed>>>;

/// A call that any number of callers wait for. It goes on while one of them does.
pub(super) struct Flight {
    pub(super) future: Shared<BoxFuture<'static, Arc<Landed>>>,
    pub(super) arrived: Arrived,
}

/// What a flight came to.
pub(super) struct Landed {
    pub(super) result: Result<Embeddings>,
    pub(super) id: u64,
    /// Whether somebody was told what it cost.
    billed: AtomicBool,
}

impl Landed {
    pub(super) fn bill(&self) -> bool {
        !self.billed.swap(true, Ordering::Relaxed)
    }
}

/// Texts that outlive the call they came with, in one piece of memory.
pub(super) struct Texts {
    all: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Texts {
    pub(super) fn copy<'t>(texts: impl ExactSizeIterator<Item = &'t str> + Clone) -> Self {
        let mut all = String::with_capacity(texts.clone().map(str::len).sum());
        let mut ends = Vec::with_capacity(texts.len());
        for text in texts {
            all.push_str(text);
            ends.push(all.len());
        }
        Self { all, ends }
    }

    fn get(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.all[start..self.ends[at]]
    }
}

/// A flight before it begins.
pub(super) struct Ticket<E> {
    leaves: Leaves<E>,
    texts: Texts,
    tokens: Option<Vec<u32>>,
    /// Whether others have landed since these texts were looked up: what they stored may be among them.
    overtaken: bool,
    kind: InputKind,
    too_long: TooLong,
    lane: Lane,
    key: Option<String>,
    space: Option<SpaceId>,
    deadline: Option<Instant>,
    limits: Limits,
}

impl<E: Embedder> Ticket<E> {
    pub(super) fn new(
        inner: &Arc<Inner<E>>,
        batch: &Batch<'_>,
        texts: Texts,
        tokens: Option<Vec<u32>>,
        keys: Vec<Key>,
        overtaken: bool,
    ) -> Self {
        let id = inner.counts.flights.fetch_add(1, Ordering::Relaxed);
        Self {
            leaves: Leaves { inner: inner.clone(), keys, id },
            texts,
            tokens,
            overtaken,
            kind: batch.kind(),
            too_long: batch.too_long(),
            lane: batch.lane(),
            key: batch.key().map(str::to_owned),
            space: batch.space(),
            deadline: batch.deadline(),
            limits: inner.embedder.limits(),
        }
    }

    /// Puts its texts on the board, which is the inner's.
    pub(super) fn board(self, board: &mut Board) -> Flight {
        let (id, keys) = (self.leaves.id, self.leaves.keys.clone());
        let arrived = Arrived::default();
        let future = self.fly(arrived.clone()).boxed().shared();
        for (row, key) in keys.into_iter().enumerate() {
            if let Some(future) = future.downgrade() {
                board.insert(key, Seat { future, arrived: arrived.clone(), row, id });
            }
        }
        Flight { future, arrived }
    }

    async fn fly(self, arrived: Arrived) -> Arc<Landed> {
        let (inner, keys) = (&*self.leaves.inner, &self.leaves.keys);
        let result = self.answer().await;
        let landed = Arc::new(Landed { result, id: self.leaves.id, billed: AtomicBool::new(false) });
        // Told before it is stored: who runs out of time meanwhile has it all the same.
        let _ = arrived.set(landed.clone());
        match &landed.result {
            Ok(rows) => inner.keep(keys, rows).await,
            Err(error) => {
                if let Some(partial) = error.partial() {
                    let finished: Vec<Key> = partial.indices().iter().map(|&index| keys[index]).collect();
                    inner.keep(&finished, partial.embeddings()).await;
                }
            }
        }
        // Before it leaves the board: whoever does not find it there any more sees that somebody has landed.
        inner.landed.fetch_add(1, Ordering::Release);
        landed
    }

    /// The rows of all its texts, from the inner embedder or, where others were faster, from the store.
    async fn answer(&self) -> Result<Embeddings> {
        let (inner, keys) = (&*self.leaves.inner, &self.leaves.keys);
        let space = &inner.spaces[0];
        let mut there = Rows::new(keys.len(), space.dimensions());
        if self.overtaken {
            inner.look_up(keys, &mut there).await;
        }
        let hits = there.hits;
        inner.counts.hits.fetch_add(hits, Ordering::Relaxed);
        inner.counts.misses.fetch_add(keys.len() as u64 - hits, Ordering::Relaxed);
        if hits == 0 {
            return self.call(None).await;
        }
        let rest: Vec<usize> = there.missing().collect();
        if rest.is_empty() {
            return there.into_embeddings(space, Usage::ZERO.with_cached(hits));
        }
        match self.call(Some(&rest)).await {
            Ok(rows) => {
                rest.iter().enumerate().for_each(|(row, &place)| there.place(place, &rows, row));
                there.into_embeddings(space, rows.usage().with_cached(hits))
            }
            Err(error) => {
                let mut usage = Usage::ZERO.with_cached(hits);
                if let Some(partial) = error.partial() {
                    usage += partial.embeddings().usage();
                    for (row, &index) in partial.indices().iter().enumerate() {
                        there.place(rest[index], partial.embeddings(), row);
                    }
                }
                let error = error.without_partial().map_indices(|index| rest.get(index).copied());
                Err(match there.into_partial(space, usage)? {
                    Some(partial) => error.with_partial(partial),
                    None => error,
                })
            }
        }
    }

    /// Calls the inner embedder, for all texts or for those at these places.
    async fn call(&self, only: Option<&[usize]>) -> Result<Embeddings> {
        let embedder = &self.leaves.inner.embedder;
        let all: Vec<usize>;
        let places = match only {
            Some(places) => places,
            None => {
                all = (0..self.leaves.keys.len()).collect();
                &all
            }
        };
        let texts: Vec<&str> = places.iter().map(|&place| self.texts.get(place)).collect();
        let mut batch = Batch::new(self.kind, &texts).with_too_long(self.too_long).with_lane(self.lane);
        batch = self.key.as_deref().map_or(batch, |key| batch.with_key(key));
        batch = self.space.map_or(batch, |space| batch.with_space(space));
        batch = self.deadline.map_or(batch, |deadline| batch.with_deadline(deadline));
        let tokens: Option<Vec<u32>> =
            self.tokens.as_ref().map(|tokens| places.iter().map(|&place| tokens[place]).collect());
        let counted = tokens.as_deref().map(|tokens| batch::Counted::by(&self.limits, tokens));
        batch = counted.map_or(batch, |counted| batch.with_counted(counted));
        // A panic would take the flight from those who did not cause it, and leave them waiting.
        let called = AssertUnwindSafe(embed_checked(embedder, batch)).catch_unwind().await;
        called
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Inference, "the embedder panicked").with_embedder(embedder)))
    }
}

/// Takes a flight's texts off the board, whether it lands, is dropped, or never begins.
struct Leaves<E> {
    inner: Arc<Inner<E>>,
    keys: Vec<Key>,
    id: u64,
}

impl<E> Drop for Leaves<E> {
    fn drop(&mut self) {
        let mut board = self.inner.board();
        for key in &self.keys {
            if board.get(key).is_some_and(|seat| seat.id == self.id) {
                board.remove(key);
            }
        }
    }
}
