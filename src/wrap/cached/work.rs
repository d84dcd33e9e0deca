//! Answers one call of a [`Cached`](super::Cached): looks up, plans what is missing, asks for it, collects the rows.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, atomic::Ordering},
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    in_flight::{Answer, InFlightCall, Progress, Slot},
    inner::Inner,
    key::Keys,
    new_call::NewCall,
    rows::Rows,
    shared::SharedCall,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Usage,
    batch::Counted,
    cache::{HashOfKey, Key},
    packed::PackedTexts,
    plan::{self, yield_once},
};

/// Texts and bytes that are hashed before other tasks have their turn: a millisecond's work.
const TURN_TEXTS: usize = 1024;
const TURN_BYTES: usize = 512 << 10;

/// How often a caller joins calls of others for a text that fail for reasons which are not the text's.
const PATIENCE: usize = 3;

/// One call: what it asks for, and what of that is there.
pub(super) struct Work<'b, 'a, E> {
    inner: &'b Arc<Inner<E>>,
    batch: Batch<'a>,
    keys: Vec<Key>,
    there: Rows,
    /// Calls that it has taken rows or errors of, whose bill may be its own in the end.
    taken: Vec<Bill>,
    /// Calls of which nobody will ever know the answer.
    unanswered: u64,
    error: Option<Error>,
    /// For each text, the next one that is the same: a chain for each distinct text that is missing.
    next: Vec<Option<usize>>,
    /// What was counted of the texts, by the inner embedder's limits.
    counted: Option<Vec<u32>>,
    /// How many calls had stored what they came to before it looked into the store, and its own since.
    seen: u64,
    /// For the texts of calls of others that failed for reasons of their own: which ones did.
    failed: HashMap<Key, Vec<u64>, HashOfKey>,
}

/// A row of a call, and the first place of its text.
type RowOf = (usize, usize);

/// What this caller has in a call.
struct Part {
    progress: Arc<Progress>,
    rows_of: Vec<RowOf>,
    is_own: bool,
}

/// A call that was taken, and for how many texts and places it gave rows.
struct Bill {
    answer: Arc<Answer>,
    texts: u64,
    places: u64,
}

impl<'b, 'a, E: Embedder> Work<'b, 'a, E> {
    pub(super) async fn new(inner: &'b Arc<Inner<E>>, batch: Batch<'a>, limits: &Limits) -> Self {
        let space = &inner.spaces[0];
        let of = Keys::new(space.id(), batch.kind(), batch.truncation(), limits.tokens_of_one_text());
        let mut keys = Vec::with_capacity(batch.len());
        for (turn, texts) in turns(batch.texts()).enumerate() {
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
            taken: Vec::new(),
            unanswered: 0,
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
            self.ask(calls, limits).await;
            if !self.failed.is_empty() {
                // Others may have what a failed call was for.
                self.look_up().await;
                self.reconsider();
            }
        }
        self.finish()
    }

    /// Takes what the store has, as long as there is time.
    async fn look_up(&mut self) {
        self.seen = self.inner.stored.load(Ordering::Acquire);
        let looking = self.inner.vectors.look_up(&self.keys, &mut self.there);
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
        let distinct = self.batch.pick(&firsts);
        let plan = plan::plan(&distinct.batch(), limits).await;
        self.counted = plan.counted(&distinct.batch()).map(|counted| counted.scatter(&firsts, self.keys.len()));
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

    /// Makes the calls, or joins those that others make for the same texts, and takes their rows. What is entered is
    /// polled from that moment on: see [`in_flight`](super::in_flight).
    async fn ask(&mut self, calls: Vec<Vec<usize>>, limits: &Limits) {
        let in_flight = limits.in_flight.unwrap_or(1).max(1);
        let deadline = self.batch.deadline();
        let mut waiting = VecDeque::from(calls);
        let mut under_way = FuturesUnordered::new();
        let mut parts: Vec<Option<Part>> = Vec::new();
        // Those of others are under way whether this caller joins or not.
        let mut own = 0;
        loop {
            while self.error.is_none() && own < in_flight {
                let Some(mut call) = waiting.pop_front() else { break };
                let now = self.inner.embedder.limits();
                if plan::is_outdated(limits, &now) {
                    let counted = self.counted.as_ref().map(|tokens| Counted::by(limits, tokens));
                    let batch = counted.map_or(self.batch, |counted| self.batch.with_counted(counted));
                    let picked = batch.pick(&call);
                    call = plan::again(&picked.batch(), &now, &mut waiting, |part| call[part].to_vec()).await;
                }
                for (answer, part) in self.enter(call, now) {
                    own += usize::from(part.is_own);
                    let number = parts.len();
                    parts.push(Some(part));
                    under_way.push(async move { (number, answer.await) });
                }
            }
            let next = match deadline {
                None => Ok(under_way.next().await),
                Some(deadline) => tokio::time::timeout_at(deadline.into(), under_way.next()).await,
            };
            match next {
                Ok(Some((number, answer))) => {
                    let Some(part) = parts[number].take() else { continue };
                    if part.is_own {
                        own -= 1;
                        // What it stored is of no interest to the calls that are to come.
                        self.seen += 1;
                    }
                    // Where storing or its log panicked, the answer is there all the same.
                    let answer = answer.or_else(|| part.progress.arrived().cloned());
                    self.take(answer, part);
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
        // What has arrived and is still being stored is as good as the rest.
        let (arrived, late_parts): (Vec<_>, Vec<_>) =
            parts.into_iter().flatten().partition(|part| part.progress.arrived().is_some());
        for part in arrived {
            self.inner.vectors.failed(&late("while it was being written"), "was too slow for a caller's deadline");
            let answer = part.progress.arrived().cloned();
            self.take(answer, part);
        }
        drop(under_way);
        let abandoned = late_parts.iter().filter(|part| part.progress.claim_abandoned(&self.inner.counts));
        self.unanswered += abandoned.count() as u64;
        if self.there.left() > 0 {
            self.error.get_or_insert_with(|| late("before all rows were there"));
        }
    }

    /// Finds a call for each of these texts: those of others first, which are under way, and a new one for the rest.
    /// `limits` are the inner embedder's, which is asked nothing under the lock.
    fn enter(&self, firsts: Vec<usize>, limits: Limits) -> Vec<(SharedCall<Arc<Answer>>, Part)> {
        let mut joined: Vec<(InFlightCall, Vec<RowOf>)> = Vec::new();
        let mut by_id: HashMap<u64, usize> = HashMap::new();
        let (mut own_firsts, mut keys) = (Vec::with_capacity(firsts.len()), Vec::with_capacity(firsts.len()));
        // Dropped after the lock is: what is dropped may take it itself.
        let mut held = Vec::new();
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
                        held.push(call);
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
            let overtaken = self.inner.stored.load(Ordering::Acquire) != self.seen;
            let texts = PackedTexts::copy(own_firsts.iter().map(|&first| self.batch.texts()[first]));
            let tokens = self.counted.as_ref().map(|counted| own_firsts.iter().map(|&first| counted[first]).collect());
            Some(NewCall::new(self.inner, &self.batch, limits, texts, tokens, keys, overtaken).enter(table))
        });
        drop(held);
        let own = own.map(|call| (call, own_firsts.into_iter().enumerate().collect(), true));
        let joined = joined.into_iter().map(|(call, rows_of)| (call, rows_of, false));
        let part = |(call, rows_of, is_own): (InFlightCall, Vec<RowOf>, bool)| {
            (call.answer, Part { progress: call.progress, rows_of, is_own })
        };
        joined.chain(own).map(part).collect()
    }

    /// Whether a call of another caller may be waited for: one that has failed this text may not be asked twice, and in
    /// the end none.
    fn may_join(&self, key: &Key, slot: &Slot) -> bool {
        self.failed.get(key).is_none_or(|failed| failed.len() < PATIENCE && !failed.contains(&slot.id))
    }

    /// Takes the rows of a call, and its error.
    fn take(&mut self, answer: Option<Arc<Answer>>, part: Part) {
        let Some(answer) = answer else {
            // Only code around the inner embedder is left to panic: that of its name, or of a clock.
            self.error.get_or_insert_with(|| Error::new(ErrorKind::Inference, "a shared call panicked"));
            return;
        };
        self.place(&answer, &part);
        if let Err(error) = &answer.result {
            self.judge(error.clone().without_partial().without_charges(), answer.id, part);
        }
    }

    /// Places the rows that a call gave, and keeps its bill.
    fn place(&mut self, answer: &Arc<Answer>, part: &Part) {
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
                self.there.place(place, rows, row);
                next = self.next[place];
            }
        }
        if !part.is_own {
            self.inner.counts.joined.fetch_add(texts, Ordering::Relaxed);
        }
        self.taken.push(Bill { answer: answer.clone(), texts, places });
    }

    /// Decides what a call's error means for this caller's texts in it.
    fn judge(&mut self, error: Error, id: u64, part: Part) {
        let named = !error.bad_texts().is_empty();
        let error = error.map_indices(|asked| {
            let first = part.rows_of.iter().find(|(row, _)| *row == asked).map(|&(_, first)| first);
            first.map(|first| self.places(first).collect::<Vec<_>>()).unwrap_or_default()
        });
        // Another's texts or deadline are no reasons for these texts to fail: they are asked for again.
        let of_others = match error.kind() {
            ErrorKind::DeadlinePassed => true,
            _ if named => error.bad_texts().is_empty(),
            kind => kind == ErrorKind::InvalidInput,
        };
        if of_others && !part.is_own {
            for (_, first) in part.rows_of {
                self.failed.entry(self.keys[first]).or_default().push(id);
            }
            return;
        }
        self.error = Some(match self.error.take() {
            Some(first) if !first.bad_texts().is_empty() => first.with_more_bad_texts(error.bad_texts()),
            Some(first) => first,
            None => error,
        });
    }

    /// Forgets an error that only named texts whose rows came another way: the rest is asked for again.
    fn reconsider(&mut self) {
        self.error.take_if(|error| {
            let bad = error.bad_texts();
            !bad.is_empty() && bad.iter().all(|bad| !self.there.is_missing(bad.index))
        });
    }

    fn finish(self) -> Result<Embeddings> {
        let space = &self.inner.spaces[0];
        self.inner.counts.hits.fetch_add(self.there.hits, Ordering::Relaxed);
        // From here to the end nothing is waited for: who takes the bills gives them to its caller.
        let mut of_rows = Charges::from(Usage::ZERO.with_cached(self.there.hits));
        let mut of_errors = Charges::from(Usage { unanswered: self.unanswered, ..Usage::ZERO });
        for Bill { answer, texts, places } in &self.taken {
            let is_told = answer.bill();
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
            // A text costs once: its other places, and the callers that are not told, have it for nothing.
            of_rows += Usage::ZERO.with_deduplicated(if is_told { places - texts } else { *places });
        }
        let Some(error) = self.error.filter(|_| self.there.left() > 0) else {
            of_rows += of_errors;
            return self.there.into_embeddings(space, of_rows);
        };
        let error = error.with_charges(&of_errors);
        Err(match self.there.into_partial(space, of_rows.clone())? {
            Some(partial) => error.with_partial(partial),
            None => error.with_charges(&of_rows),
        })
    }
}

/// Divides texts into turns: as many as can be hashed before other tasks have their turn, and one at least.
fn turns<'t, 'a>(mut texts: &'t [&'a str]) -> impl Iterator<Item = &'t [&'a str]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |text: &&&str| {
            let before = bytes;
            bytes += text.len();
            before < TURN_BYTES
        };
        let count = texts.iter().take(TURN_TEXTS).take_while(fits).count();
        texts.split_off(..count).filter(|turn| !turn.is_empty())
    })
}

fn late(what: &str) -> Error {
    Error::new(ErrorKind::DeadlinePassed, what)
}
