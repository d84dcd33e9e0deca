//! Answers one call of a [`Cached`](super::Cached): [`Work`].
//!
//! ```text
//!  texts ── hash ──► keys
//!                     │
//!  1  look up         │  VectorStore::look_up ──► Rows ─────────────── all rows are there ──┐
//!                     │ missing                                                             │
//!  2  share or begin  │  Work::enter: a call that another caller has under way in the       │
//!                     │  InFlightTable, or a NewCall                                        │
//!  3  store           │  NewCall::run asks the inner embedder, and stores what it answers   │
//!  4  take results    │  Work::take: place the rows, keep the bill, attribute the error     │
//!                     │                                                                     │
//!                     ├── a call of another caller failed for reasons of that one: 1        │
//!                     ▼                                                                     │
//!  5  answer             Work::answer: the rows, or an error with those that are there ◄────┘
//! ```

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, atomic::Ordering},
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    in_flight::{Answer, InFlightCall, Progress, Slot},
    inner::Inner,
    new_call::NewCall,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Usage,
    cache::{HashOfKey, Key},
    counted::Counted,
    deadline::until,
    observer::EventKind,
    packed::PackedTexts,
    planner::{self, yield_once},
    shared_call::SharedCall,
    stored_vectors::{Keys, Rows},
};

/// Texts and bytes that are hashed before other tasks have their turn: about a millisecond of work.
const HASHED_TEXTS_PER_TURN: usize = 1024;
const HASHED_BYTES_PER_TURN: usize = 512 << 10;

/// After so many calls of other callers failed for reasons other than a text, the text gets a call of its own.
const MAX_FAILED_JOINS: usize = 3;

/// One call: its texts, and the rows that are there so far. A text that occurs several times has several places.
pub(super) struct Work<'b, 'a, E> {
    inner: &'b Arc<Inner<E>>,
    batch: Batch<'a>,
    /// One key per place.
    keys: Vec<Key>,
    rows: Rows,
    /// The shared calls that gave rows or an error. One of their callers is told what each of them cost.
    bills: Vec<Bill>,
    /// How many calls were asked of the inner embedder and dropped before they answered.
    unanswered: u64,
    error: Option<Error>,
    /// The number of damaged entries that were found.
    damaged: u64,
    /// Chains the places of each distinct missing text: the next place of the same text.
    next_same: Vec<Option<usize>>,
    /// The counted tokens of each text, by the inner embedder's limits.
    counted: Option<Vec<u32>>,
    /// The value of [`Inner::stored`] when this call looked into the store, plus its own calls that have stored since.
    stored_seen: u64,
    /// The calls of other callers that failed a text for reasons of those callers.
    failed_joins: HashMap<Key, Vec<u64>, HashOfKey>,
}

/// A row of a shared call, and the first place of the text that it is for.
type RowOf = (usize, usize);

/// The part that this caller has in a shared call.
struct Part {
    progress: Arc<Progress>,
    rows_of: Vec<RowOf>,
    is_own: bool,
}

/// The share that this caller took from a shared call: rows for so many texts, at so many places.
struct Bill {
    answer: Arc<Answer>,
    texts: u64,
    places: u64,
}

impl<'b, 'a, E: Embedder> Work<'b, 'a, E> {
    /// Hashes the texts.
    pub(super) async fn new(inner: &'b Arc<Inner<E>>, batch: Batch<'a>, limits: &Limits) -> Self {
        let space = &inner.spaces[0];
        let hasher = Keys::new(space.id(), batch.kind(), batch.truncation(), limits.tokens_of_one_text());
        let mut keys = Vec::with_capacity(batch.len());
        for (turn, texts) in turns(batch.texts()).enumerate() {
            if turn > 0 {
                yield_once().await;
            }
            keys.extend(texts.iter().map(|text| hasher.key(text)));
        }
        Self {
            inner,
            batch,
            keys,
            rows: Rows::new(batch.len(), space.dimensions()),
            bills: Vec::new(),
            unanswered: 0,
            error: None,
            damaged: 0,
            next_same: Vec::new(),
            counted: None,
            stored_seen: 0,
            failed_joins: HashMap::default(),
        }
    }

    /// Looks up all texts, and makes or shares calls for the missing ones until all rows are there or something fails.
    pub(super) async fn run(mut self, limits: &Limits) -> Result<Embeddings> {
        self.look_up().await;
        while self.error.is_none() && self.rows.left() > 0 {
            let calls = self.split_missing(limits).await;
            self.share_or_begin(calls, limits).await;
            if !self.failed_joins.is_empty() {
                // Another caller may have stored meanwhile what a failed call was for.
                self.look_up().await;
                self.forget_settled_error();
            }
        }
        self.answer()
    }

    /// Takes the missing rows that the store has. At the deadline, those that have come stay.
    async fn look_up(&mut self) {
        // Read before the store is: calls that store later count as not seen, and their texts are looked up again.
        self.stored_seen = self.inner.stored.load(Ordering::Acquire);
        let looking = self.inner.vectors.look_up(&self.keys, &mut self.rows);
        match until(self.batch.deadline(), looking).await {
            Some(damaged) => self.damaged += damaged,
            None => _ = self.error.get_or_insert_with(|| late("while the cache was being read")),
        }
    }

    /// Splits the missing texts into calls within the inner embedder's limits. Each distinct text is in one call, as
    /// its first place.
    async fn split_missing(&mut self, limits: &Limits) -> Vec<Vec<usize>> {
        let missing = self.rows.left();
        let mut last = HashMap::with_capacity_and_hasher(missing, HashOfKey::default());
        let mut firsts = Vec::with_capacity(missing);
        self.next_same = vec![None; self.keys.len()];
        for index in self.rows.missing() {
            match last.insert(self.keys[index], index) {
                Some(before) => self.next_same[before] = Some(index),
                None => firsts.push(index),
            }
        }
        let distinct = self.batch.pick(&firsts);
        let plan = planner::plan(&distinct.batch(), limits).await;
        self.counted =
            plan.counting.counted(&distinct.batch()).map(|counted| counted.scatter(&firsts, self.keys.len()));
        match plan.calls {
            Ok(calls) => calls.into_iter().map(|call| firsts[call].to_vec()).collect(),
            Err(error) => {
                let places = |inner: usize| firsts.get(inner).map(|&first| self.places(first).collect::<Vec<_>>());
                self.error = Some(error.map_indices(|inner| places(inner).unwrap_or_default()));
                Vec::new()
            }
        }
    }

    /// Iterates over all places of the text whose first place this is.
    fn places(&self, first: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(first), |&place| self.next_same[place])
    }

    /// Makes the calls, or joins those that other callers make for the same texts, and takes their results until the
    /// deadline. A call is entered in the moment in which it begins to be polled: see [`in_flight`](super::in_flight).
    async fn share_or_begin(&mut self, calls: Vec<Vec<usize>>, limits: &Limits) {
        let in_flight = limits.in_flight.unwrap_or(1).max(1);
        let deadline = self.batch.deadline();
        let mut waiting = VecDeque::from(calls);
        let mut under_way = FuturesUnordered::new();
        let mut parts: Vec<Option<Part>> = Vec::new();
        // Calls of other callers do not count: they are under way whether this caller joins or not.
        let mut own = 0;
        loop {
            while self.error.is_none() && own < in_flight {
                let Some(mut call) = waiting.pop_front() else { break };
                let now = self.inner.embedder.limits();
                if planner::is_outdated(limits, &now) {
                    call = self.split_again(call, limits, &now, &mut waiting).await;
                }
                for (answer, part) in self.enter(call, now) {
                    own += usize::from(part.is_own);
                    let number = parts.len();
                    parts.push(Some(part));
                    under_way.push(async move { (number, answer.await) });
                }
            }
            match until(deadline, under_way.next()).await {
                Some(Some((number, answer))) => {
                    let Some(part) = parts[number].take() else { continue };
                    if part.is_own {
                        own -= 1;
                        // Later calls are for other texts: they need not look for what this one stored.
                        self.stored_seen += 1;
                    }
                    // If storing panicked, or its log did, the answer is there all the same.
                    let answer = answer.or_else(|| part.progress.arrived().cloned());
                    self.take(answer, part);
                }
                Some(None) => return,
                None => break,
            }
        }
        let late_parts = self.take_arrived(parts);
        // Dropping the calls abandons those that nobody else waits for; only then can their cost be claimed.
        drop(under_way);
        let abandoned = late_parts.iter().filter(|part| part.progress.claim_abandoned(&self.inner.counts));
        self.unanswered += abandoned.count() as u64;
        if self.rows.left() > 0 {
            self.error.get_or_insert_with(|| late("before all rows were there"));
        }
    }

    /// Splits a call again because the inner embedder's limits have changed. The other parts go to the front of those
    /// that wait.
    async fn split_again(
        &self,
        call: Vec<usize>,
        planned: &Limits,
        now: &Limits,
        waiting: &mut VecDeque<Vec<usize>>,
    ) -> Vec<usize> {
        let counted = self.counted.as_ref().map(|tokens| Counted::by(planned, tokens));
        let batch = self.batch.with_counted(counted);
        let picked = batch.pick(&call);
        planner::again(&picked.batch(), now, waiting, |part| call[part].to_vec()).await
    }

    /// Takes the results, at the deadline, of calls that have arrived and are still being stored: their rows are as
    /// good as the others. Returns the parts in calls that have not arrived.
    fn take_arrived(&mut self, parts: Vec<Option<Part>>) -> Vec<Part> {
        let (arrived, late_parts): (Vec<_>, Vec<_>) =
            parts.into_iter().flatten().partition(|part| part.progress.arrived().is_some());
        for part in arrived {
            self.inner.vectors.failed(&late("while it was being written"), "was too slow for a caller's deadline");
            let answer = part.progress.arrived().cloned();
            self.take(answer, part);
        }
        late_parts
    }

    /// Finds a call for each of these texts: the calls of other callers that are under way, and one new call for the
    /// rest. The caller gives the inner embedder's limits, because the embedder must not be asked under the table's
    /// lock.
    fn enter(&self, firsts: Vec<usize>, limits: Limits) -> Vec<(SharedCall<Arc<Answer>>, Part)> {
        let mut joined: Vec<(InFlightCall, Vec<RowOf>)> = Vec::new();
        let mut by_id: HashMap<u64, usize> = HashMap::new();
        let (mut own_firsts, mut keys) = (Vec::with_capacity(firsts.len()), Vec::with_capacity(firsts.len()));
        // Handles of calls that are joined already. Dropped after the lock: the last handle of a call drops the call,
        // which takes itself off the table, under the same lock.
        let mut surplus = Vec::new();
        let own = self.inner.in_flight.with(|table| {
            for first in firsts {
                let key = self.keys[first];
                let mut slots = table.slots(&key, self.batch.lane()).filter(|slot| self.may_join(&key, slot));
                let joined_call = slots.find_map(|slot| Some((slot.id, slot.row, slot.join()?)));
                let Some((id, row, call)) = joined_call else {
                    own_firsts.push(first);
                    keys.push(key);
                    continue;
                };
                match by_id.entry(id) {
                    Entry::Occupied(at) => {
                        joined[*at.get()].1.push((row, first));
                        surplus.push(call);
                    }
                    Entry::Vacant(at) => {
                        at.insert(joined.len());
                        joined.push((call, vec![(row, first)]));
                    }
                }
            }
            if own_firsts.is_empty() {
                return None;
            }
            let overtaken = self.inner.stored.load(Ordering::Acquire) != self.stored_seen;
            let texts = PackedTexts::copy(own_firsts.iter().map(|&first| self.batch.texts()[first]));
            let tokens = self.counted.as_ref().map(|counted| own_firsts.iter().map(|&first| counted[first]).collect());
            Some(NewCall::new(self.inner, &self.batch, limits, texts, tokens, keys, overtaken).enter(table))
        });
        drop(surplus);
        let own = own.map(|call| (call, own_firsts.into_iter().enumerate().collect(), true));
        let joined = joined.into_iter().map(|(call, rows_of)| (call, rows_of, false));
        let part = |(call, rows_of, is_own): (InFlightCall, Vec<RowOf>, bool)| {
            (call.answer, Part { progress: call.progress, rows_of, is_own })
        };
        joined.chain(own).map(part).collect()
    }

    /// Whether this caller may wait for a call of another caller. It does not join a call twice that failed this text,
    /// and after [`MAX_FAILED_JOINS`] it joins none.
    fn may_join(&self, key: &Key, slot: &Slot) -> bool {
        let failed = self.failed_joins.get(key);
        failed.is_none_or(|failed| failed.len() < MAX_FAILED_JOINS && !failed.contains(&slot.id))
    }

    /// Takes the result of a call: its rows, its bill, and its error.
    fn take(&mut self, answer: Option<Arc<Answer>>, part: Part) {
        let Some(answer) = answer else {
            // Only code around the inner embedder is left to panic: its name, or a clock.
            self.error.get_or_insert_with(|| Error::new(ErrorKind::Inference, "a shared call panicked"));
            return;
        };
        let (texts, places) = self.place_rows(&answer, &part);
        if let Err(error) = &answer.result {
            self.attribute_error(error.clone().without_partial().without_charges(), answer.id, part);
        }
        self.bills.push(Bill { answer, texts, places });
    }

    /// Places the rows that a call gave; returns for how many texts, and at how many places.
    fn place_rows(&mut self, answer: &Answer, part: &Part) -> (u64, u64) {
        let (rows, indices) = match &answer.result {
            Ok(rows) => (Some(rows), None),
            Err(error) => error.partial().map(|partial| (partial.embeddings(), partial.indices())).unzip(),
        };
        let (mut texts, mut places) = (0, 0);
        for &(asked, first) in part.rows_of.iter().filter(|_| rows.is_some()) {
            let row = indices.map_or(Some(asked), |indices| indices.binary_search(&asked).ok());
            let Some((rows, row)) = rows.zip(row).filter(|(rows, row)| *row < rows.len()) else { continue };
            texts += 1;
            let mut next = Some(first);
            while let Some(place) = next {
                places += 1;
                self.rows.place(place, rows, row);
                next = self.next_same[place];
            }
        }
        if !part.is_own {
            self.inner.counts.joined.fetch_add(texts, Ordering::Relaxed);
        }
        (texts, places)
    }

    /// Decides what the error of a call means for this caller: it fails with it, or asks again for its texts in that
    /// call.
    fn attribute_error(&mut self, error: Error, id: u64, part: Part) {
        if part.is_own {
            let firsts: Vec<usize> = part.rows_of.iter().map(|&(_, first)| first).collect();
            let call = self.batch.pick(&firsts);
            if planner::split_refused(&error, &call.batch(), &self.inner.embedder.limits()).is_some() {
                // The texts have no rows yet, so they are asked for again, in smaller calls.
                return;
            }
        }
        let named = !error.bad_texts().is_empty();
        let error = error.map_indices(|asked| {
            let first = part.rows_of.iter().find(|(row, _)| *row == asked).map(|&(_, first)| first);
            first.map(|first| self.places(first).collect::<Vec<_>>()).unwrap_or_default()
        });
        let names_own = named.then(|| !error.bad_texts().is_empty());
        if !part.is_own && error.kind().may_be_fault_of_another(names_own) {
            for (_, first) in part.rows_of {
                self.failed_joins.entry(self.keys[first]).or_default().push(id);
            }
            return;
        }
        self.error = Some(match self.error.take() {
            Some(first) if !first.bad_texts().is_empty() => first.with_more_bad_texts(error.bad_texts()),
            Some(first) => first,
            None => error,
        });
    }

    /// Forgets an error that names only texts whose rows came another way, so that the rest is asked for again.
    fn forget_settled_error(&mut self) {
        self.error.take_if(|error| {
            let bad = error.bad_texts();
            !bad.is_empty() && bad.iter().all(|bad| !self.rows.is_missing(bad.index))
        });
    }

    /// Tells the observer what was found in this cache's own store, and for how many texts calls of others were shared.
    fn tell(&self, deduplicated: u64) {
        let tell = |kind| self.batch.tell(&format_args!("Cached({})", self.inner.embedder), kind);
        let hits = self.rows.hits;
        let misses = (self.keys.len() as u64).saturating_sub(hits);
        tell(EventKind::CacheLookUp { hits, misses, damaged: self.damaged });
        if deduplicated > 0 {
            tell(EventKind::Deduplicated { texts: deduplicated });
        }
    }

    /// Gives the caller its rows or its error, with what it is told of the cost.
    fn answer(self) -> Result<Embeddings> {
        let space = &self.inner.spaces[0];
        self.inner.counts.hits.fetch_add(self.rows.hits, Ordering::Relaxed);
        // Nothing is awaited from here to the end, so a caller that takes a bill is always told of it.
        let mut of_rows = Charges::from(Usage::ZERO.with_cached(self.rows.hits));
        let mut of_errors = Charges::from(Usage { unanswered: self.unanswered, ..Usage::ZERO });
        let mut deduplicated = 0;
        for Bill { answer, texts, places } in &self.bills {
            let is_told = answer.take_bill();
            if is_told {
                match &answer.result {
                    Ok(rows) => of_rows += rows.charges(),
                    Err(error) => {
                        of_errors += error.charges();
                        if let Some(partial) = error.partial() {
                            of_rows += partial.embeddings().charges();
                        }
                    }
                }
            }
            // A text costs once: its other places cost nothing, nor does it cost a caller that is not told of the bill.
            deduplicated += if is_told { places - texts } else { *places };
        }
        // A cache or `Dedup` further in tells of its own texts itself.
        self.tell(deduplicated);
        of_rows += Usage::ZERO.with_deduplicated(deduplicated);
        let Some(error) = self.error.filter(|_| self.rows.left() > 0) else {
            of_rows += of_errors;
            return self.rows.into_embeddings(space, of_rows);
        };
        Err(self.rows.fail(error.with_charges(&of_errors), space, of_rows))
    }
}

/// Divides texts into turns, of one text or more, after each of which other tasks have their turn.
fn turns<'t, 'a>(mut texts: &'t [&'a str]) -> impl Iterator<Item = &'t [&'a str]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |text: &&&str| {
            let before = bytes;
            bytes += text.len();
            before < HASHED_BYTES_PER_TURN
        };
        let count = texts.iter().take(HASHED_TEXTS_PER_TURN).take_while(fits).count();
        texts.split_off(..count).filter(|turn| !turn.is_empty())
    })
}

fn late(what: &str) -> Error {
    Error::new(ErrorKind::DeadlinePassed, what)
}
