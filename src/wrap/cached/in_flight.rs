//! Makes one call of the inner embedder for all callers that miss the same texts: [`InFlightCall`], in the [`InFlightTable`].
//!
//! # The life of a call
//! 1. **Entered.** A caller finds texts in nobody's hands and enters a call for them, in the moment in which it begins to
//!    poll it. A caller never enters what it does not poll yet: another one that joined and left would leave the call
//!    half-way, with a place in a gate below that nobody gives back.
//! 2. **Driven.** Every caller that has joined polls it. It goes on as long as one of them is there, and is dropped with
//!    the last.
//! 3. **Arrived.** The inner embedder has answered. From here on the rows are safe: who runs out of time has them, and
//!    where the store takes its time, a task of the runtime joins as one more caller, which never leaves.
//! 4. **Stored**, taken off the table, and handed out.
//!
//! # Who is told what it cost
//! The first caller that has its whole answer after the call arrived, and no other. Until then the bill lies with the
//! call, so that a caller which leaves takes none with it. Where all leave, it goes to [`Counts::unclaimed`].

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{
    Counts, Inner,
    rows::Rows,
    shared::{SharedCall, WeakCall},
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Lane, Limits, OwnedOptions, Result, Usage, batch,
    cache::{HashOfKey, Key},
    checked::{cost_of, embed_checked},
};

/// The calls under way, by the texts they are for: one table per lane, so that a bulk call for a text is found again when
/// an interactive one has come and gone.
#[derive(Default)]
pub(super) struct InFlightTable {
    interactive: HashMap<Key, Slot, HashOfKey>,
    bulk: HashMap<Key, Slot, HashOfKey>,
}

impl InFlightTable {
    /// The calls for a text that are as quick as one of this lane, the quickest first.
    pub(super) fn slots(&self, key: &Key, lane: Lane) -> impl Iterator<Item = &Slot> {
        let bulk = Lane::Bulk.serves(lane).then(|| self.bulk.get(key)).flatten();
        self.interactive.get(key).into_iter().chain(bulk)
    }

    const fn of(&mut self, lane: Lane) -> &mut HashMap<Key, Slot, HashOfKey> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

/// Where a text's row will be.
pub(super) struct Slot {
    progress: Arc<Progress>,
    pub(super) row: usize,
    /// Whose slot it is: a later call for the same text is not to be forgotten by an earlier one.
    pub(super) id: u64,
}

impl Slot {
    /// The call, unless all who waited for it have gone.
    pub(super) fn join(&self) -> Option<InFlightCall> {
        Some(InFlightCall { answer: self.progress.join()?, progress: self.progress.clone() })
    }
}

/// How far a call is.
#[derive(Default)]
pub(super) struct Progress {
    call: OnceLock<WeakCall<Arc<Answer>>>,
    /// The inner embedder was asked.
    asked: AtomicBool,
    /// What it came to, before that was stored.
    arrived: OnceLock<Arc<Answer>>,
    /// It was dropped before that, and its cost is unknown and [unclaimed](Counts::unclaimed).
    abandoned: AtomicBool,
}

impl Progress {
    fn join(&self) -> Option<SharedCall<Arc<Answer>>> {
        self.call.get()?.upgrade()
    }

    /// What the call came to, stored or not.
    pub(super) fn arrived(&self) -> Option<&Arc<Answer>> {
        self.arrived.get()
    }

    /// Takes the account of a call that was dropped with this caller, to tell it; `false` where there is none.
    pub(super) fn claim_abandoned(&self, counts: &Counts) -> bool {
        let claimed = self.abandoned.swap(false, Ordering::AcqRel);
        if claimed {
            counts.unclaimed.with(|unclaimed| unclaimed.take_unattributed(Usage::of_given_up()));
        }
        claimed
    }
}

/// One caller's part in a call that any number of callers wait for.
pub(super) struct InFlightCall {
    pub(super) answer: SharedCall<Arc<Answer>>,
    pub(super) progress: Arc<Progress>,
}

/// What a call came to.
pub(super) struct Answer {
    pub(super) result: Result<Embeddings>,
    pub(super) id: u64,
    /// Whether somebody was told what it cost.
    billed: AtomicBool,
    counts: Arc<Counts>,
}

impl Answer {
    /// Takes the bill; `false` where another caller has it.
    pub(super) fn bill(&self) -> bool {
        !self.billed.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.bill() {
            self.counts.leave_unclaimed(cost_of(&self.result));
        }
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

/// A call before it is entered.
pub(super) struct NewCall<E> {
    entered: Entered<E>,
    texts: Texts,
    tokens: Option<Vec<u32>>,
    /// Whether calls of others have been stored since these texts were looked up: their rows may be among them.
    overtaken: bool,
    options: OwnedOptions,
    limits: Limits,
}

impl<E: Embedder> NewCall<E> {
    pub(super) fn new(
        inner: &Arc<Inner<E>>,
        batch: &Batch<'_>,
        limits: Limits,
        texts: Texts,
        tokens: Option<Vec<u32>>,
        keys: Vec<Key>,
        overtaken: bool,
    ) -> Self {
        let id = inner.calls.fetch_add(1, Ordering::Relaxed);
        Self {
            entered: Entered {
                inner: inner.clone(),
                keys: keys.into(),
                id,
                lane: batch.lane(),
                progress: Arc::default(),
            },
            texts,
            tokens,
            overtaken,
            options: batch.options().to_owned(),
            limits,
        }
    }

    /// Puts its texts on the table, which is the inner's.
    pub(super) fn enter(self, table: &mut InFlightTable) -> InFlightCall {
        let (id, keys, lane) = (self.entered.id, self.entered.keys.clone(), self.entered.lane);
        let progress = self.entered.progress.clone();
        let answer = SharedCall::new(self.run());
        let _ = progress.call.set(answer.downgrade());
        let table = table.of(lane);
        for (row, &key) in keys.iter().enumerate() {
            table.insert(key, Slot { progress: progress.clone(), row, id });
        }
        InFlightCall { answer, progress }
    }

    async fn run(self) -> Arc<Answer> {
        let progress = self.entered.progress.clone();
        let result = self.answer().await;
        let (inner, keys) = (&*self.entered.inner, &*self.entered.keys);
        let (billed, counts) = (AtomicBool::new(false), inner.counts.clone());
        let answer = Arc::new(Answer { result, id: self.entered.id, billed, counts });
        // Told before it is stored: who runs out of time meanwhile has it all the same.
        let _ = progress.arrived.set(answer.clone());
        {
            let mut storing = pin!(keep(inner, keys, &answer.result));
            // Memory answers at once, and then a task would cost more than the work.
            if storing.as_mut().now_or_never().is_none() {
                // Paid rows are not to be lost with the last caller. Without a runtime they go the way of their callers.
                if let (Ok(runtime), Some(call)) = (Handle::try_current(), progress.join()) {
                    runtime.spawn(async move { _ = call.await });
                }
                storing.await;
            }
        }
        // Before it leaves the table: whoever does not find it there any more sees that somebody has stored.
        inner.stored.fetch_add(1, Ordering::Release);
        answer
    }

    /// The rows of all its texts, from the inner embedder or, where others were faster, from the store.
    async fn answer(&self) -> Result<Embeddings> {
        let (inner, keys) = (&*self.entered.inner, &self.entered.keys);
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
                let mut charges = rows.charges().clone();
                charges += Usage::ZERO.with_cached(hits);
                there.into_embeddings(space, charges)
            }
            Err(error) => {
                let mut charges = Charges::from(Usage::ZERO.with_cached(hits));
                if let Some(partial) = error.partial() {
                    charges += partial.embeddings().charges();
                    for (row, &index) in partial.indices().iter().enumerate() {
                        there.place(rest[index], partial.embeddings(), row);
                    }
                }
                let error = error.without_partial().map_indices(|index| rest.get(index).copied());
                Err(match there.into_partial(space, charges)? {
                    Some(partial) => error.with_partial(partial),
                    None => error,
                })
            }
        }
    }

    /// Calls the inner embedder, for all texts or for those at these places.
    async fn call(&self, only: Option<&[usize]>) -> Result<Embeddings> {
        let embedder = &self.entered.inner.embedder;
        let all: Vec<usize>;
        let places = match only {
            Some(places) => places,
            None => {
                all = (0..self.entered.keys.len()).collect();
                &all
            }
        };
        let texts: Vec<&str> = places.iter().map(|&place| self.texts.get(place)).collect();
        let mut batch = Batch::with_options(&texts, self.options.borrow());
        let tokens: Option<Vec<u32>> =
            self.tokens.as_ref().map(|tokens| places.iter().map(|&place| tokens[place]).collect());
        let counted = tokens.as_deref().map(|tokens| batch::Counted::by(&self.limits, tokens));
        batch = counted.map_or(batch, |counted| batch.with_counted(counted));
        self.entered.progress.asked.store(true, Ordering::Release);
        embed_checked(embedder, batch).await
    }
}

/// Stores what a call came to.
async fn keep<E: Embedder>(inner: &Inner<E>, keys: &[Key], result: &Result<Embeddings>) {
    match result {
        Ok(rows) => inner.keep(keys, rows).await,
        Err(error) => {
            if let Some(partial) = error.partial() {
                let finished: Vec<Key> = partial.indices().iter().map(|&index| keys[index]).collect();
                inner.keep(&finished, partial.embeddings()).await;
            }
        }
    }
}

/// Takes a call's texts off the table, whether it ends, is dropped, or never begins; and keeps the account of a call that
/// was dropped before its answer came.
struct Entered<E> {
    inner: Arc<Inner<E>>,
    keys: Arc<[Key]>,
    id: u64,
    lane: Lane,
    progress: Arc<Progress>,
}

impl<E> Drop for Entered<E> {
    fn drop(&mut self) {
        if self.progress.asked.load(Ordering::Acquire) && self.progress.arrived().is_none() {
            self.inner.counts.leave_unclaimed(Usage::of_given_up());
            self.progress.abandoned.store(true, Ordering::Release);
        }
        self.inner.in_flight.with(|table| {
            let table = table.of(self.lane);
            for key in &*self.keys {
                if table.get(key).is_some_and(|slot| slot.id == self.id) {
                    table.remove(key);
                }
            }
        });
    }
}
