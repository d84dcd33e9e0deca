//! Answers one call of a [`Cached`](super::Cached): looks up, plans what is missing, boards flights, collects the rows.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, atomic::Ordering},
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    Inner,
    entry::Keys,
    flight::{Flight, Landed, Texts, Ticket},
    rows::Rows,
};
use crate::{
    Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Usage,
    cache::{HashOfKey, Key},
    plan::{self, yield_once},
};

/// Texts that are hashed before other tasks have their turn.
const TURN: usize = 1024;

/// How often a call joins flights of a text that fail for reasons that are not its own.
const PATIENCE: usize = 3;

/// One call: what it asks for, and what of that is there.
pub(super) struct Work<'b, 'a, E> {
    inner: &'b Arc<Inner<E>>,
    batch: Batch<'a>,
    keys: Vec<Key>,
    there: Rows,
    usage: Usage,
    error: Option<Error>,
    /// For each text, the next one that is the same: a chain for each distinct text that is missing.
    next: Vec<Option<usize>>,
    /// What was counted of the texts, by the inner embedder's limits.
    counted: Option<Vec<u32>>,
    /// How many flights had landed before it looked into the store.
    seen: u64,
    /// For the texts of flights of others that failed for reasons of their own: how many did, and the last.
    failed: HashMap<Key, (usize, u64), HashOfKey>,
}

/// A row of another's flight, and the first place of its text.
type Taken = (usize, usize);

/// Which of a call's texts have which rows of a flight.
enum Seats {
    /// Row by row, the first place of each.
    Own(Vec<usize>),
    OfAnother(Vec<Taken>),
}

impl<'b, 'a, E: Embedder> Work<'b, 'a, E> {
    pub(super) async fn new(inner: &'b Arc<Inner<E>>, batch: Batch<'a>, limits: &Limits) -> Self {
        let space = &inner.spaces[0];
        let of = Keys::new(space.id(), batch.kind(), batch.too_long(), limits.tokens_of_one_text());
        let mut keys = Vec::with_capacity(batch.len());
        for (turn, texts) in batch.texts().chunks(TURN).enumerate() {
            if turn > 0 {
                yield_once().await;
            }
            keys.extend(texts.iter().map(|text| of.key(text)));
        }
        Self {
            inner,
            batch,
            keys,
            there: Rows::new(batch.len(), space.dimensions()),
            usage: Usage::ZERO,
            error: None,
            next: Vec::new(),
            counted: None,
            seen: 0,
            failed: HashMap::default(),
        }
    }

    /// Looks into the store, and asks for what is missing until all is there or something fails.
    pub(super) async fn run(mut self, limits: &Limits) -> Result<Embeddings> {
        self.look_up().await;
        while self.error.is_none() && self.there.left() > 0 {
            let calls = self.plan(limits).await;
            self.fly(calls, limits).await;
            if !self.failed.is_empty() {
                // Others may have what a failed flight was for.
                self.look_up().await;
            }
        }
        self.finish()
    }

    /// Takes what the store has, as long as there is time.
    async fn look_up(&mut self) {
        self.seen = self.inner.landed.load(Ordering::Acquire);
        let looking = self.inner.look_up(&self.keys, &mut self.there);
        let in_time = match self.batch.deadline() {
            None => {
                looking.await;
                true
            }
            Some(deadline) => tokio::time::timeout_at(deadline.into(), looking).await.is_ok(),
        };
        if !in_time {
            self.error.get_or_insert_with(|| late("while the cache was being read"));
        }
    }

    /// Splits what is missing, each text once, into calls within the limits of the inner embedder: the first places of
    /// their texts.
    async fn plan(&mut self, limits: &Limits) -> Vec<Vec<usize>> {
        let missing = self.there.left();
        let mut last = HashMap::with_capacity_and_hasher(missing, HashOfKey::default());
        let mut firsts = Vec::with_capacity(missing);
        self.next = vec![None; self.keys.len()];
        for index in self.there.missing() {
            match last.insert(self.keys[index], index) {
                Some(before) => self.next[before] = Some(index),
                None => firsts.push(index),
            }
        }
        let texts: Vec<&str> = firsts.iter().map(|&first| self.batch.texts()[first]).collect();
        let counted = self.batch.picked(firsts.iter().copied());
        let distinct = self.batch.with_picked(&texts, counted.as_deref());
        let plan = plan::plan(&distinct, limits).await;
        self.counted = plan.counted(&distinct).map(|counted| counted.scatter(&firsts, self.keys.len()));
        match plan.calls {
            Ok(calls) => calls.into_iter().map(|call| firsts[call].to_vec()).collect(),
            Err(error) => {
                let places = |inner: usize| firsts.get(inner).map(|&first| self.places(first).collect::<Vec<_>>());
                self.error = Some(error.map_indices(|inner| places(inner).unwrap_or_default()));
                Vec::new()
            }
        }
    }

    /// All places of the text whose first one this is.
    fn places(&self, first: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(first), |&place| self.next[place])
    }

    /// Makes the calls, or joins those that others make for the same texts, and takes their rows.
    async fn fly(&mut self, calls: Vec<Vec<usize>>, limits: &Limits) {
        let in_flight = limits.in_flight.unwrap_or(1).max(1);
        let deadline = self.batch.deadline();
        let mut waiting = self.board(calls).into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut taken_off = Vec::new();
        loop {
            while self.error.is_none() && under_way.len() < in_flight {
                let Some((flight, seats)) = waiting.next() else { break };
                let (number, future) = (taken_off.len(), flight.future);
                taken_off.push(Some((flight.arrived, seats)));
                under_way.push(async move { (number, future.await) });
            }
            let next = match deadline {
                None => Ok(under_way.next().await),
                Some(deadline) => tokio::time::timeout_at(deadline.into(), under_way.next()).await,
            };
            match next {
                Ok(Some((number, landed))) => {
                    if let Some((_, seats)) = taken_off[number].take() {
                        self.take(&landed, seats);
                    }
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
        // What has arrived and is still being stored is as good as the rest.
        for (arrived, seats) in taken_off.into_iter().flatten() {
            if let Some(landed) = arrived.get() {
                self.inner.failed(&late("while it was being written"), "was too slow for a caller's deadline");
                self.take(landed, seats);
            }
        }
        if self.there.left() > 0 {
            self.error.get_or_insert_with(|| late("before all rows were there"));
        }
    }

    /// Finds or makes a flight for each text: those of others first, which are under way.
    fn board(&mut self, calls: Vec<Vec<usize>>) -> Vec<(Flight, Seats)> {
        let mut own: Vec<(Flight, Seats)> = Vec::new();
        let mut joined: Vec<(Flight, Vec<Taken>)> = Vec::new();
        let mut by_id: HashMap<u64, usize> = HashMap::new();
        for call in calls {
            let (mut firsts, mut keys) = (Vec::with_capacity(call.len()), Vec::with_capacity(call.len()));
            // Dropped after the lock is: what is dropped may take it itself.
            let mut held = Vec::new();
            let mut board = self.inner.board();
            for first in call {
                let key = self.keys[first];
                let seat = board.get(&key).filter(|seat| self.may_join(&key, seat.id));
                let Some((id, row, flight)) = seat.and_then(|seat| Some((seat.id, seat.row, seat.flight()?))) else {
                    firsts.push(first);
                    keys.push(key);
                    continue;
                };
                match by_id.entry(id) {
                    Entry::Occupied(at) => {
                        joined[*at.get()].1.push((row, first));
                        held.push(flight);
                    }
                    Entry::Vacant(at) => {
                        at.insert(joined.len());
                        joined.push((flight, vec![(row, first)]));
                    }
                }
            }
            if !firsts.is_empty() {
                let overtaken = self.inner.landed.load(Ordering::Acquire) != self.seen;
                let texts = Texts::copy(firsts.iter().map(|&first| self.batch.texts()[first]));
                let tokens = self.counted.as_ref().map(|counted| firsts.iter().map(|&first| counted[first]).collect());
                let ticket = Ticket::new(self.inner, &self.batch, texts, tokens, keys, overtaken);
                own.push((ticket.board(&mut board), Seats::Own(firsts)));
            }
            drop(board);
        }
        let joined = joined.into_iter().map(|(flight, seats)| (flight, Seats::OfAnother(seats)));
        joined.chain(own).collect()
    }

    /// Whether a flight of another's may be waited for: one that has failed this text may not, and in the end none.
    fn may_join(&self, key: &Key, id: u64) -> bool {
        self.failed.get(key).is_none_or(|&(failures, last)| failures < PATIENCE && id > last)
    }

    /// Takes the rows of a flight, or its error.
    fn take(&mut self, landed: &Landed, seats: Seats) {
        let bills = landed.bill();
        let (rows_of, is_own): (Vec<Taken>, bool) = match seats {
            Seats::Own(firsts) => (firsts.into_iter().enumerate().collect(), true),
            Seats::OfAnother(seats) => (seats, false),
        };
        let (rows, error) = match &landed.result {
            Ok(rows) => (Some((None, rows)), None),
            Err(error) => (error.partial().map(|partial| (Some(partial.indices()), partial.embeddings())), Some(error)),
        };
        let mut given = 0;
        if let Some((indices, rows)) = rows {
            if bills {
                self.usage += rows.usage();
            }
            for &(seat, first) in &rows_of {
                let row = match indices {
                    None => Some(seat),
                    Some(indices) => indices.binary_search(&seat).ok(),
                };
                let Some(row) = row.filter(|&row| row < rows.len()) else { continue };
                given += 1;
                let mut next = Some(first);
                while let Some(place) = next {
                    self.there.place(place, rows, row);
                    next = self.next[place];
                }
            }
            // A text costs once: its other places, and the callers that joined, have it for nothing.
            let copies: usize = rows_of.iter().map(|&(_, first)| self.places(first).count()).sum();
            let free = if is_own { copies - rows_of.len() } else { copies };
            self.usage = self.usage.with_deduplicated(if error.is_none() { free as u64 } else { 0 });
        }
        if !is_own {
            self.inner.counts.joined.fetch_add(given, Ordering::Relaxed);
        }
        let Some(error) = error else { return };
        let usage = if bills { error.usage() } else { Usage::ZERO };
        let error = error.clone().without_partial().with_usage(Usage::ZERO);
        let place = |seat: usize| {
            let first = rows_of.iter().find(|(of, _)| *of == seat).map(|&(_, first)| first);
            first.map(|first| self.places(first).collect::<Vec<_>>()).unwrap_or_default()
        };
        let named = !error.bad_texts().is_empty();
        let error = error.map_indices(place);
        // Another's texts or deadline are no reasons for these texts to fail: they are asked for again.
        let others = match error.kind() {
            ErrorKind::DeadlinePassed => true,
            ErrorKind::InvalidInput => !named || error.bad_texts().is_empty(),
            _ => false,
        };
        if !is_own && others {
            for (_, first) in rows_of {
                let (failures, last) = self.failed.entry(self.keys[first]).or_default();
                (*failures, *last) = (*failures + 1, landed.id.max(*last));
            }
            self.usage += usage;
            return;
        }
        let more = |first: Error| {
            let usage = first.usage() + usage;
            let first = if first.bad_texts().is_empty() { first } else { first.with_more_bad_texts(error.bad_texts()) };
            first.with_usage(usage)
        };
        self.error = Some(match self.error.take() {
            Some(first) => more(first),
            None => error.clone().with_usage(usage),
        });
    }

    fn finish(self) -> Result<Embeddings> {
        let space = &self.inner.spaces[0];
        self.inner.counts.hits.fetch_add(self.there.hits, Ordering::Relaxed);
        let usage = self.usage.with_cached(self.there.hits);
        let Some(error) = self.error else { return self.there.into_embeddings(space, usage) };
        match self.there.into_partial(space, usage)? {
            Some(partial) => Err(error.with_partial(partial)),
            None => {
                let usage = error.usage() + usage;
                Err(error.with_usage(usage))
            }
        }
    }
}

fn late(what: &str) -> Error {
    Error::new(ErrorKind::DeadlinePassed, what)
}
