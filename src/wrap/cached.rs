//! Embeds each text once, ever: [`Cached`], over any [`CacheStore`].
//!
//! ```
//! use docvector_embed::{EmbedderExt, cache::Memory, provider::Fake};
//! # fn main() -> docvector_embed::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let fake = Fake::new(8);
//! let embedder = fake.clone().cached(Memory::new(64 << 20))?;
//! let first = embedder.embed_documents(&["one", "two", "one"]).await?;
//! let again = embedder.embed_documents(&["two", "three"]).await?;
//! assert_eq!(first.row(1), again.row(0));
//! assert_eq!(again.usage().cached, 1);
//! // The provider has seen each text once.
//! let asked: Vec<String> = fake.calls().into_iter().flat_map(|call| call.texts).collect();
//! assert_eq!(asked, ["one", "two", "three"]);
//! # Ok(()) }) }
//! ```
//!
//! # Semantics
//! A text's key is the blake3 hash of its space, kind, truncation and bytes; nothing is trimmed or folded. What the store
//! has is taken from there and costs nothing; the rest goes to the inner embedder in calls within its limits, and each
//! call's rows are stored as soon as they arrive, before they are handed out. Rows come in the caller's order, whatever
//! the mix. Whether a text was cut is stored with its vector.
//!
//! Concurrent calls that miss the same text share one inner call ("single flight"). It goes on as long as anybody waits
//! for it: a caller that leaves does not take it from the others. Its cost is told to one of them.
//!
//! An entry that is damaged (another length, a wrong checksum, another key's) is counted, said in the log, never
//! returned, and discarded: where no tier has a sound one, the text is embedded anew and stored. A store that fails,
//! reading or writing, costs a warning, and never a vector.
//!
//! # Space
//! One cache holds any number of spaces without mixing them. Around an embedder with several spaces it is an error: cache
//! each of them. A model that was changed behind its name is caught by [`open`](Cached::open), which embeds a probe text
//! and compares it with the one that is stored.
//!
//! # Errors
//! Those of the inner embedder, with the caller's indices. All rows that are there, from the store and from finished
//! calls, are in the error. [`Config`](crate::ErrorKind::Config) when building, where there is more than one space.
//!
//! # Cancellation
//! Dropping the future leaves the calls that others wait for, and drops the rest. What had arrived is stored.
//!
//! # Stacking
//! Outside everything that costs or waits: `Cached(Retry(... provider))`. It makes [`Dedup`](crate::wrap::Dedup)
//! superfluous. Clones share the calls in flight.
//!
//! # Cost
//! One hash of each text and one look into the store a call; a hit is a checksum and a copy into the result.

mod entry;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Shared, WeakShared},
    stream::FuturesUnordered,
};

use self::entry::Keys;
#[cfg(fuzzing)]
pub use self::entry::fuzz;
pub use self::entry::{EntryInfo, Storage, inspect};
use crate::{
    Batch, Embedder, Embeddings, Error, ErrorKind, InputKind, Lane, Limits, Partial, Result, Space, SpaceId, TooLong,
    Usage,
    cache::{CacheStore, Entry, HashOfKey, Key},
    ext::embed_checked,
    plan,
};

/// The text by which a model is recognised. Any would do that is never changed.
const PROBE: &str = "The quick brown fox jumps over the lazy dog; 0123456789, ÄÖÜ and 中文.";

/// How alike the probe's vectors have to be. Repeats of hosted models differ by 3e-4 at most (Cohere's embed-v4).
const ALIKE: f32 = 0.999;

/// Calls at once, and texts a call, where the inner embedder does not say: what has arrived is stored, so that a run that
/// ends early has not worked for nothing.
const IN_FLIGHT: usize = 4;
const TEXTS: usize = 1024;

/// Embeds each text once, ever. See the [module](self).
pub struct Cached<E>(Arc<Inner<E>>);

struct Inner<E> {
    embedder: E,
    store: Arc<dyn CacheStore>,
    storage: Storage,
    spaces: [Space; 1],
    /// The calls under way, by the texts they are for.
    flights: Mutex<HashMap<Key, Seat, HashOfKey>>,
    counts: Counts,
    noted: AtomicBool,
}

/// Where a text's row will be.
struct Seat {
    flight: WeakShared<BoxFuture<'static, Arc<Landed>>>,
    row: usize,
    /// Whose seat it is: a later flight of the same text is not to be forgotten by an earlier one.
    id: u64,
}

type Flight = Shared<BoxFuture<'static, Arc<Landed>>>;

/// What a flight came to.
struct Landed {
    result: Result<Embeddings>,
    /// Whether somebody was told what it cost.
    billed: AtomicBool,
}

impl Landed {
    fn bill(&self) -> bool {
        !self.billed.swap(true, Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    joined: AtomicU64,
    damaged: AtomicU64,
    failures: AtomicU64,
    flights: AtomicU64,
}

/// What a [`Cached`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Texts that the store had.
    pub hits: u64,
    /// Distinct texts a call that went to the inner embedder.
    pub misses: u64,
    /// Texts that another call was already asking for.
    pub joined: u64,
    /// Entries that were damaged.
    pub damaged: u64,
    /// Reads and writes of the store that failed.
    pub failures: u64,
}

impl<E> Clone for Cached<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Embedder> Cached<E> {
    /// Caches what `embedder` gives in `store`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) where the embedder has more than one space.
    pub fn new(embedder: E, store: impl CacheStore) -> Result<Self> {
        Self::with_storage(embedder, store, Storage::Exact)
    }

    /// Does the same, and says how vectors are written.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn with_storage(embedder: E, store: impl CacheStore, storage: Storage) -> Result<Self> {
        let space = match embedder.spaces() {
            [space] => space.clone(),
            spaces => {
                let message = format!("{embedder} lies in {} spaces: cache each of its parts", spaces.len());
                return Err(Error::new(ErrorKind::Config, message));
            }
        };
        Ok(Self(Arc::new(Inner {
            embedder,
            store: Arc::new(store),
            storage,
            spaces: [space],
            flights: Mutex::default(),
            counts: Counts::default(),
            noted: AtomicBool::new(false),
        })))
    }

    /// Does the same as [`new`](Self::new), and checks that the model is the one whose vectors are stored: embeds a probe
    /// text and compares it with the stored one, or stores it.
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) where the vectors differ; those of [`new`](Self::new), of the
    /// embedder, and of the store.
    pub async fn open(embedder: E, store: impl CacheStore) -> Result<Self> {
        let cached = Self::new(embedder, store)?;
        cached.check_model().await?;
        Ok(cached)
    }

    /// Embeds a probe text and compares it with the stored one, or stores it. Costs one call of some 30 tokens.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub async fn check_model(&self) -> Result<()> {
        let inner = &*self.0;
        let space = &inner.spaces[0];
        let key = Keys::of_probe(space.id()).key(PROBE);
        let fresh = embed_checked(&inner.embedder, Batch::documents(&[PROBE])).await?;
        let mut stored = vec![0.0; space.dimensions()];
        let (mut found, mut damaged) = (false, None);
        let mut sink = |_: usize, value: &[u8]| {
            found = entry::read(value, &key, &mut stored).is_some();
            damaged = (!found).then(|| value.to_vec());
        };
        inner.store.get(&[key], &mut sink).await?;
        if let Some(damaged) = damaged {
            inner.store.discard(&[Entry::new(key, &damaged)]).await?;
        }
        if !found {
            let mut value = Vec::new();
            entry::write(&mut value, &key, fresh.row(0), false, Storage::Exact);
            inner.store.put(&[Entry::new(key, &value)]).await?;
            return inner.note().await;
        }
        let alike = cosine(&stored, fresh.row(0));
        if alike >= ALIKE {
            return Ok(());
        }
        let message = format!(
            "the model behind {space} is not the one whose vectors the cache holds: the cosine of its probe text is {alike:.4}, \
             at least {ALIKE} is the same; give the space another revision, or empty the cache"
        );
        Err(Error::new(ErrorKind::SpaceMismatch, message).with_embedder(self))
    }
}

impl<E> Cached<E> {
    /// What it has done so far; clones count together.
    pub fn counts(&self) -> CacheCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.0.counts;
        CacheCounts {
            hits: read(&counts.hits),
            misses: read(&counts.misses),
            joined: read(&counts.joined),
            damaged: read(&counts.damaged),
            failures: read(&counts.failures),
        }
    }

    /// The wrapped embedder.
    pub fn get_ref(&self) -> &E {
        &self.0.embedder
    }

    /// The store.
    pub fn store(&self) -> &dyn CacheStore {
        &*self.0.store
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}

impl<E: fmt::Display> fmt::Display for Cached<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cached({})", self.0.embedder)
    }
}

impl<E: fmt::Debug> fmt::Debug for Cached<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("inner", &self.0.embedder)
            .field("store", &self.0.store)
            .field("storage", &self.0.storage)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Cached<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let inner = &self.0;
        batch.check_space(&inner.spaces).map_err(|error| error.with_embedder(self))?;
        let limits = inner.embedder.limits();
        let bad = batch.bad_texts(&limits);
        if !bad.is_empty() {
            return Err(Error::invalid_texts(bad).with_embedder(self));
        }
        let limits = if limits.texts.is_some() { limits } else { limits.with_texts(TEXTS) };
        let mut work = Work::new(inner, batch);
        work.look_up().await;
        // A flight of another caller's may end for reasons of its own: then the texts are asked for again, alone.
        while work.error.is_none() && work.missing() > 0 {
            let plan = work.plan(&limits).await;
            work.fly(plan, limits.in_flight.unwrap_or(IN_FLIGHT).max(1)).await;
        }
        work.finish()
    }

    fn spaces(&self) -> &[Space] {
        &self.0.spaces
    }

    /// No limits for a call, which is split here; the inner embedder's for a text.
    fn limits(&self) -> Limits {
        let inner = self.0.embedder.limits();
        let mut limits = Limits::none().with_tokens(inner.tokens.clone());
        limits.tokens_per_text = inner.tokens_of_one_text();
        limits
    }
}

/// One call: what it asks for, and what of that is there.
struct Work<'b, 'a, E> {
    inner: &'b Arc<Inner<E>>,
    batch: Batch<'a>,
    keys: Vec<Key>,
    rows: Vec<f32>,
    done: Vec<bool>,
    truncated: Vec<usize>,
    usage: Usage,
    error: Option<Error>,
    /// For each text, the next one that is the same: a chain for each distinct text that is missing.
    next: Vec<Option<usize>>,
    /// What was counted of the texts, by the inner embedder's limits.
    counted: Option<Vec<u32>>,
    /// Whether the next flights are to be this call's own: another's has failed it.
    alone: bool,
}

/// A row of another's flight, and the first place of its text.
type Taken = (usize, usize);

/// The flights that a call waits for, and which of its texts, by their first places, are in which rows of them.
#[derive(Default)]
struct Flights {
    own: Vec<(Flight, Vec<usize>)>,
    joined: Vec<(Flight, Vec<Taken>)>,
}

impl<'b, 'a, E: Embedder> Work<'b, 'a, E> {
    fn new(inner: &'b Arc<Inner<E>>, batch: Batch<'a>) -> Self {
        let keys = Keys::new(inner.spaces[0].id(), batch.kind(), batch.too_long());
        Self {
            inner,
            batch,
            keys: batch.texts().iter().map(|text| keys.key(text)).collect(),
            rows: Vec::with_capacity(batch.len() * inner.spaces[0].dimensions()),
            done: vec![false; batch.len()],
            truncated: Vec::new(),
            usage: Usage::ZERO,
            error: None,
            next: Vec::new(),
            counted: None,
            alone: false,
        }
    }

    fn missing(&self) -> usize {
        self.done.iter().filter(|done| !**done).count()
    }

    /// Takes what the store has.
    async fn look_up(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let damaged = self.look_up_some(None).await;
        if damaged.is_empty() {
            return;
        }
        let (inner, count) = (self.inner, damaged.len() as u64);
        inner.counts.damaged.fetch_add(count, Ordering::Relaxed);
        tracing::warn!(store = %inner.store, damaged = count, "damaged entries are discarded");
        let entries: Vec<Entry<'_>> =
            damaged.iter().map(|(place, value)| Entry::new(self.keys[*place], value)).collect();
        if let Err(error) = inner.store.discard(&entries).await {
            inner.failed(&error, "could not discard damaged entries: their texts will be embedded again another time");
            return;
        }
        // A store of several tiers may have another one that is sound.
        let places: Vec<usize> = damaged.into_iter().map(|(place, _)| place).collect();
        self.look_up_some(Some(&places)).await;
    }

    /// Takes what the store has at these places, or at all; gives those whose entry is damaged, with what was there.
    async fn look_up_some(&mut self, only: Option<&[usize]>) -> Vec<(usize, Vec<u8>)> {
        let width = self.inner.spaces[0].dimensions();
        let (mut hits, mut damaged) = (0, Vec::new());
        let Self { keys, rows, done, truncated, .. } = self;
        let picked: Option<Vec<Key>> = only.map(|places| places.iter().map(|&place| keys[place]).collect());
        let mut sink = |asked: usize, value: &[u8]| {
            let place = only.map_or(Some(asked), |places| places.get(asked).copied());
            let Some(place) = place.filter(|&place| place < keys.len()) else { return };
            let (start, end) = (place * width, (place + 1) * width);
            let read = if rows.len() == start {
                entry::append(value, &keys[place], rows, width)
            } else {
                // Room is made as it is needed, and goes through the processor's caches once.
                rows.resize(rows.len().max(end), 0.0);
                entry::read(value, &keys[place], &mut rows[start..end])
            };
            match read {
                Some(cut) if !done[place] => {
                    done[place] = true;
                    hits += 1;
                    truncated.extend(cut.then_some(place));
                }
                Some(_) => {}
                None => damaged.push((place, value.to_vec())),
            }
        };
        let result = self.inner.store.get(picked.as_deref().unwrap_or(keys), &mut sink).await;
        self.inner.counts.hits.fetch_add(hits, Ordering::Relaxed);
        if let Err(error) = result {
            self.inner.failed(&error, "could not be read: all texts it did not give are embedded");
        }
        self.usage = self.usage.with_cached(hits);
        damaged
    }

    /// Splits what is missing, each text once, into calls within the limits of the inner embedder: the first places of
    /// their texts.
    async fn plan(&mut self, limits: &Limits) -> Vec<Vec<usize>> {
        let missing = self.missing();
        let mut last = HashMap::with_capacity_and_hasher(missing, HashOfKey::default());
        let mut firsts = Vec::with_capacity(missing);
        self.next = vec![None; self.keys.len()];
        for index in (0..self.keys.len()).filter(|&index| !self.done[index]) {
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
    async fn fly(&mut self, calls: Vec<Vec<usize>>, in_flight: usize) {
        let deadline = self.batch.deadline();
        let flights = self.board(calls);
        let mut waiting = flights.own.into_iter();
        let mut under_way = FuturesUnordered::new();
        for (flight, seats) in flights.joined {
            under_way.push(land(flight, Seats::OfAnother(seats)));
        }
        let mut own = 0;
        loop {
            while self.error.is_none() && own < in_flight {
                let Some((flight, seats)) = waiting.next() else { break };
                own += 1;
                under_way.push(land(flight, Seats::Own(seats)));
            }
            let next = match deadline {
                None => under_way.next().await,
                Some(deadline) => match tokio::time::timeout_at(deadline.into(), under_way.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        let late = Error::new(ErrorKind::DeadlinePassed, "before all rows were there");
                        self.error.get_or_insert(late);
                        return;
                    }
                },
            };
            let Some((landed, seats)) = next else { break };
            own -= usize::from(matches!(seats, Seats::Own(_)));
            self.take(&landed, seats);
        }
    }

    /// Finds or makes a flight for each text.
    fn board(&mut self, calls: Vec<Vec<usize>>) -> Flights {
        let mut flights = Flights::default();
        // Flights that came to nothing are dropped after the lock is: they take it themselves.
        let mut held = Vec::new();
        let mut map = self.inner.flights();
        for call in calls {
            let (mut own, mut own_keys) = (Vec::with_capacity(call.len()), Vec::with_capacity(call.len()));
            for first in call {
                let key = self.keys[first];
                let seat = map.get(&key).filter(|_| !self.alone);
                let joined = seat.and_then(|seat| Some((seat.flight.upgrade()?, seat.row)));
                let Some((flight, row)) = joined else {
                    own.push(first);
                    own_keys.push(key);
                    continue;
                };
                let same = flights.joined.iter_mut().find(|(other, _)| other.ptr_eq(&flight));
                match same {
                    Some((_, seats)) => {
                        seats.push((row, first));
                        held.push(flight);
                    }
                    None => flights.joined.push((flight, vec![(row, first)])),
                }
            }
            if own.is_empty() {
                continue;
            }
            let id = self.inner.counts.flights.fetch_add(1, Ordering::Relaxed);
            let texts = Texts::copy(own.iter().map(|&first| self.batch.texts()[first]));
            let tokens = self.counted.as_ref().map(|counted| own.iter().map(|&first| counted[first]).collect());
            let ticket = Ticket::new(self.inner, &self.batch, texts, tokens, own_keys.clone(), id);
            let flight = ticket.fly().boxed().shared();
            for (row, &key) in own_keys.iter().enumerate() {
                if let Some(weak) = flight.downgrade() {
                    map.insert(key, Seat { flight: weak, row, id });
                }
            }
            self.inner.counts.misses.fetch_add(own.len() as u64, Ordering::Relaxed);
            flights.own.push((flight, own));
        }
        drop(map);
        drop(held);
        flights
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
            for (seat, first) in &rows_of {
                let row = match indices {
                    None => Some(*seat),
                    Some(indices) => indices.binary_search(seat).ok(),
                };
                let Some(row) = row.filter(|&row| row < rows.len()) else { continue };
                given += 1;
                self.place(rows, row, *first);
            }
            // A text costs once: its other places, and the callers that joined, have it for nothing.
            let copies: usize = rows_of.iter().map(|(_, first)| self.places(*first).count()).sum::<usize>();
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
            self.alone = true;
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

    fn place(&mut self, rows: &Embeddings, row: usize, first: usize) {
        let width = rows.dimensions();
        let cut = rows.truncated().binary_search(&row).is_ok();
        let mut next = Some(first);
        while let Some(place) = next {
            next = self.next[place];
            let (start, end) = (place * width, (place + 1) * width);
            if self.rows.len() == start {
                self.rows.extend_from_slice(rows.row(row));
            } else {
                self.rows.resize(self.rows.len().max(end), 0.0);
                self.rows[start..end].copy_from_slice(rows.row(row));
            }
            self.done[place] = true;
            self.truncated.extend(cut.then_some(place));
        }
    }

    fn finish(mut self) -> Result<Embeddings> {
        // Where something failed, the last rows may be missing.
        self.rows.resize(self.done.len() * self.inner.spaces[0].dimensions(), 0.0);
        let all = Embeddings::of_finite(self.done.len(), &self.inner.spaces[0], self.rows, self.usage)?;
        let all = all.with_truncated(self.truncated);
        let Some(error) = self.error else { return Ok(all) };
        let indices: Vec<usize> = (0..self.done.len()).filter(|&index| self.done[index]).collect();
        if indices.is_empty() {
            let usage = error.usage() + self.usage;
            return Err(error.with_usage(usage));
        }
        let rows = all.select(&indices);
        Err(error.with_partial(Partial::new(indices, rows)?))
    }
}

/// Which of a call's texts have which rows of a flight.
enum Seats {
    /// Row by row, the first place of each.
    Own(Vec<usize>),
    OfAnother(Vec<Taken>),
}

async fn land(flight: Flight, seats: Seats) -> (Arc<Landed>, Seats) {
    (flight.await, seats)
}

impl<E> Inner<E> {
    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Seat, HashOfKey>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &Error, what: &str) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(store = %self.store, %error, "the cache {what}");
    }
}

impl<E: Embedder> Inner<E> {
    /// Says in the store what the space is, once.
    async fn note(&self) -> Result<()> {
        if self.noted.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let space = &self.spaces[0];
        self.store
            .note(space.id(), &space.to_string())
            .await
            .inspect_err(|_| self.noted.store(false, Ordering::Relaxed))
    }

    /// Stores rows under keys; a failure costs a warning.
    async fn keep(&self, keys: &[Key], rows: &Embeddings) {
        let width = rows.dimensions();
        let mut bytes = Vec::with_capacity(keys.len() * (width * 4 + 16));
        let mut ends = Vec::with_capacity(keys.len());
        for (row, key) in keys.iter().enumerate() {
            let cut = rows.truncated().binary_search(&row).is_ok();
            entry::write(&mut bytes, key, rows.row(row), cut, self.storage);
            ends.push(bytes.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let entries: Vec<Entry<'_>> =
            starts.zip(&ends).zip(keys).map(|((start, &end), &key)| Entry::new(key, &bytes[start..end])).collect();
        if let Err(error) = self.store.put(&entries).await {
            self.failed(&error, "could not be written: its texts will be embedded again another time");
        } else if let Err(error) = self.note().await {
            self.failed(&error, "could not note the space");
        }
    }
}

/// Texts that outlive the call they came with, in one piece of memory.
struct Texts {
    all: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Texts {
    fn copy<'t>(texts: impl ExactSizeIterator<Item = &'t str> + Clone) -> Self {
        let mut all = String::with_capacity(texts.clone().map(str::len).sum());
        let mut ends = Vec::with_capacity(texts.len());
        for text in texts {
            all.push_str(text);
            ends.push(all.len());
        }
        Self { all, ends }
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.all[std::mem::replace(&mut start, end)..end])
    }
}

/// A call of the inner embedder on behalf of all who wait for its texts.
struct Ticket<E> {
    inner: Arc<Inner<E>>,
    texts: Texts,
    tokens: Option<Vec<u32>>,
    keys: Vec<Key>,
    id: u64,
    kind: InputKind,
    too_long: TooLong,
    lane: Lane,
    key: Option<String>,
    space: Option<SpaceId>,
    deadline: Option<Instant>,
    limits: Limits,
}

impl<E: Embedder> Ticket<E> {
    fn new(
        inner: &Arc<Inner<E>>,
        batch: &Batch<'_>,
        texts: Texts,
        tokens: Option<Vec<u32>>,
        keys: Vec<Key>,
        id: u64,
    ) -> Self {
        Self {
            inner: inner.clone(),
            texts,
            tokens,
            keys,
            id,
            kind: batch.kind(),
            too_long: batch.too_long(),
            lane: batch.lane(),
            key: batch.key().map(str::to_owned),
            space: batch.space(),
            deadline: batch.deadline(),
            limits: inner.embedder.limits(),
        }
    }

    async fn fly(self) -> Arc<Landed> {
        // Whether it lands or is dropped, nobody is to wait for it afterwards.
        let leaves = Leaves { inner: self.inner.clone(), keys: self.keys.clone(), id: self.id };
        let texts: Vec<&str> = self.texts.iter().collect();
        let mut batch = Batch::new(self.kind, &texts).with_too_long(self.too_long).with_lane(self.lane);
        batch = self.key.as_deref().map_or(batch, |key| batch.with_key(key));
        batch = self.space.map_or(batch, |space| batch.with_space(space));
        batch = self.deadline.map_or(batch, |deadline| batch.with_deadline(deadline));
        let counted = self.tokens.as_deref().map(|tokens| crate::batch::Counted::by(&self.limits, tokens));
        batch = counted.map_or(batch, |counted| batch.with_counted(counted));
        let result = embed_checked(&self.inner.embedder, batch).await;
        match &result {
            Ok(rows) => self.inner.keep(&self.keys, rows).await,
            Err(error) => {
                if let Some(partial) = error.partial() {
                    let keys: Vec<Key> =
                        partial.indices().iter().filter_map(|&index| self.keys.get(index)).copied().collect();
                    if keys.len() == partial.embeddings().len() {
                        self.inner.keep(&keys, partial.embeddings()).await;
                    }
                }
            }
        }
        drop(leaves);
        Arc::new(Landed { result, billed: AtomicBool::new(false) })
    }
}

/// Takes a flight's texts off the board.
struct Leaves<E> {
    inner: Arc<Inner<E>>,
    keys: Vec<Key>,
    id: u64,
}

impl<E> Drop for Leaves<E> {
    fn drop(&mut self) {
        let mut map = self.inner.flights();
        for key in &self.keys {
            if map.get(key).is_some_and(|seat| seat.id == self.id) {
                map.remove(key);
            }
        }
    }
}
