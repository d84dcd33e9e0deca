//! Builds a stack of wrappers as it is drawn: [`Layer`], [`Stack`].

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Embedder, EmbedderExt,
    cache::{CacheStore, Memory, Tiered},
    wrap::{
        AbSplit, BreakerPolicy, Cached, Concurrency, Gate, Hedging, RateLimiter, Resilient, Retry, RetryBudget,
        RetryPolicy, Totals,
    },
};

use super::{
    ears::{Ears, Parts},
    member::Member,
    saboteur::{Sabotage, Saboteur},
    store::{Moods, Moody},
};

/// Any embedder.
pub(super) type AnyEmbedder = Arc<dyn Embedder>;

/// One wrapper.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    /// Over the store of this number.
    Cached(usize),
    Dedup,
    Retry {
        attempts: u32,
        first: Duration,
        longest: Duration,
        seed: u64,
        budget: bool,
    },
    /// A limiter of its own, or the one that the stacks share.
    RateLimit {
        shared: bool,
        pace: Pace,
    },
    /// A gate of its own with so many places.
    Concurrency(usize),
    /// The gate that the stacks share.
    SharedGate,
    Timeout(Duration),
    Metered,
    /// With an observer that panics at one event in so many; 0 means never.
    Observed(u8),
    /// A `Resilient` with the fall-backs of this number. Its primary is the stack inside.
    Resilient(usize),
    /// A split with the arms of this number. Its first arm is the stack inside.
    AbSplit(usize),
    Coalesce {
        window: Duration,
        texts: Option<usize>,
    },
    /// The first stack, in the place of the member.
    First,
    /// Breaks a promise on purpose.
    Sabotage(Sabotage),
}

/// The layers around one member, the outermost first.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) layers: Vec<Layer>,
    /// The number of the member.
    pub(super) member: usize,
}

/// The fall-backs of a `Resilient`, and its rules.
#[derive(Clone, Debug)]
pub(super) struct Fallbacks {
    pub(super) lines: Vec<Line>,
    pub(super) breaker: BreakerPolicy,
    pub(super) hedging: Option<Hedging>,
    /// Whether members are taken at their word. Otherwise a caller proves them.
    pub(super) trusted: bool,
}

/// The arms of an `AbSplit` after the first one, and its shares.
#[derive(Clone, Debug)]
pub(super) struct Arms {
    pub(super) lines: Vec<Line>,
    /// Those of all arms.
    pub(super) shares: Vec<u32>,
    /// The number of the arm for calls without a key.
    pub(super) keyless: Option<usize>,
}

impl Arms {
    /// Returns the label of an arm.
    pub(super) fn label(number: usize) -> String {
        format!("arm {number}")
    }
}

/// The rates of a limiter, per minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) requests: Option<u64>,
    pub(super) tokens: Option<u64>,
}

impl Pace {
    pub(super) fn limiter(self) -> RateLimiter {
        let limiter = RateLimiter::new();
        let limiter = self.requests.map_or(limiter.clone(), |requests| limiter.with_requests_per_minute(requests));
        self.tokens.map_or(limiter.clone(), |tokens| limiter.with_tokens_per_minute(tokens))
    }
}

/// One store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keeps {
    Memory,
    Tiers,
    Moody(Moods),
    /// A store with moods behind memory.
    MoodyTiers(Moods),
    Sqlite,
}

/// The stores of a round.
pub(super) struct Stores {
    pub(super) all: Vec<Arc<dyn CacheStore>>,
    pub(super) moody: Vec<Moody>,
    #[cfg(feature = "sqlite")]
    folders: Vec<tempfile::TempDir>,
}

impl Stores {
    pub(super) fn new(seed: u64, drawn: &[Keeps]) -> Self {
        let mut stores = Self {
            all: Vec::new(),
            moody: Vec::new(),
            #[cfg(feature = "sqlite")]
            folders: Vec::new(),
        };
        for (number, keeps) in drawn.iter().enumerate() {
            let store = stores.make(seed ^ number as u64, *keeps);
            stores.all.push(store);
        }
        stores
    }

    /// Returns how often a look-up has panicked, and how often a write.
    pub(super) fn panics(&self) -> (u64, u64) {
        let all = self.moody.iter().map(Moody::panics);
        all.fold((0, 0), |(get, put), (more, and_more)| (get + more, put + and_more))
    }

    fn make(&mut self, seed: u64, keeps: Keeps) -> Arc<dyn CacheStore> {
        match keeps {
            Keeps::Memory => Arc::new(Memory::unbounded()),
            Keeps::Tiers => Arc::new(Tiered::new(Memory::unbounded(), Memory::unbounded())),
            Keeps::Moody(moods) => Arc::new(self.moody(seed, moods)),
            Keeps::MoodyTiers(moods) => Arc::new(Tiered::new(Memory::unbounded(), self.moody(seed, moods))),
            Keeps::Sqlite => self.sqlite(),
        }
    }

    fn moody(&mut self, seed: u64, moods: Moods) -> Moody {
        let store = Moody::new(seed, moods);
        self.moody.push(store.clone());
        store
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(&mut self) -> Arc<dyn CacheStore> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = docvector_embed::cache::Sqlite::open(folder.path().join("cache.db")).expect("opens");
        self.folders.push(folder);
        Arc::new(store)
    }

    /// Without the feature, a store in memory takes its place.
    #[cfg(not(feature = "sqlite"))]
    fn sqlite(&mut self) -> Arc<dyn CacheStore> {
        Arc::new(Memory::unbounded())
    }
}

/// The parts that the stacks of a round share.
pub(super) struct Commons<'a> {
    pub(super) members: &'a [Member],
    pub(super) stores: &'a Stores,
    pub(super) fallbacks: &'a [Fallbacks],
    pub(super) arms: &'a [Arms],
    pub(super) gate: Gate,
    pub(super) limiter: RateLimiter,
    /// Whether events come in the order in which things happen.
    pub(super) in_order: bool,
}

/// A stack, and its parts that the checks look at.
#[derive(Clone)]
pub(super) struct Stack {
    pub(super) embedder: AnyEmbedder,
    pub(super) parts: Parts,
}

impl Stack {
    /// Builds stacks from their layers, the outermost first.
    pub(super) fn build_all(stacks: &[Vec<Layer>], commons: &Commons<'_>) -> Vec<Self> {
        let mut built: Vec<Self> = Vec::new();
        for layers in stacks {
            let stack = Self::build(layers, 0, commons, built.first());
            built.push(stack);
        }
        built
    }

    /// Builds the layers around a member, or around the first stack if the innermost layer stands for it.
    fn build(layers: &[Layer], member: usize, commons: &Commons<'_>, first: Option<&Self>) -> Self {
        let mut stack = Self { embedder: Arc::new(commons.members[member].clone()), parts: Parts::default() };
        for layer in layers.iter().rev() {
            stack = stack.inside(*layer, commons, first);
        }
        stack
    }

    /// Puts one more layer around the stack.
    fn inside(self, layer: Layer, commons: &Commons<'_>, first: Option<&Self>) -> Self {
        let Self { embedder, mut parts } = self;
        let embedder: AnyEmbedder = match layer {
            Layer::Cached(store) => {
                let store = commons.stores.all[store].clone();
                let cached = Cached::builder(embedder, store).with_stored_queries(true).build().expect("one space");
                parts.caches.push(cached.clone());
                Arc::new(cached)
            }
            Layer::Dedup => Arc::new(embedder.dedup()),
            Layer::Retry { attempts, first, longest, seed, budget } => {
                let policy =
                    RetryPolicy::default().with_attempts(attempts).with_backoff(first, longest).with_seed(seed);
                let policy =
                    if budget { policy.with_budget(RetryBudget::new(0.5, 1.0)) } else { policy.without_budget() };
                Arc::new(Retry::new(embedder, policy))
            }
            Layer::RateLimit { shared, pace } => {
                Arc::new(embedder.rate_limit(if shared { commons.limiter.clone() } else { pace.limiter() }))
            }
            Layer::Concurrency(places) => Arc::new(behind(Gate::new(places), embedder, &mut parts)),
            Layer::SharedGate => Arc::new(behind(commons.gate.clone(), embedder, &mut parts)),
            Layer::Timeout(limit) => Arc::new(embedder.timeout(limit)),
            Layer::Metered => {
                let totals = Totals::new();
                parts.meters.push(totals.clone());
                Arc::new(embedder.metered(totals))
            }
            Layer::Observed(panics) => {
                let ears = Ears::new(parts.clone(), panics, commons.in_order);
                parts.ears.push(ears.clone());
                Arc::new(embedder.observed(ears))
            }
            Layer::Resilient(number) => {
                let resilient = resilient(embedder, &commons.fallbacks[number], commons, &mut parts);
                parts.resilients.push(resilient.clone());
                Arc::new(resilient)
            }
            Layer::AbSplit(number) => {
                let split = split(embedder, &commons.arms[number], commons, &mut parts);
                parts.splits.push(split.clone());
                Arc::new(split)
            }
            Layer::Coalesce { window, texts } => {
                let coalesce = embedder.coalesce(window);
                let coalesce = texts.map_or(coalesce.clone(), |texts| coalesce.with_max_texts(texts));
                parts.coalescers.push(coalesce.clone());
                Arc::new(coalesce)
            }
            Layer::First => {
                parts.is_whole &= first.is_none();
                first.map_or(embedder, |first| first.embedder.clone())
            }
            Layer::Sabotage(sabotage) => Arc::new(Saboteur::new(embedder, sabotage)),
        };
        Self { embedder, parts }
    }
}

fn behind(gate: Gate, embedder: AnyEmbedder, parts: &mut Parts) -> Concurrency<AnyEmbedder> {
    parts.gates.push(gate.clone());
    Concurrency::with_gate(embedder, gate)
}

fn resilient(primary: AnyEmbedder, fallbacks: &Fallbacks, commons: &Commons<'_>, parts: &mut Parts) -> Resilient {
    let mut builder = Resilient::builder(primary).with_breaker(fallbacks.breaker.clone());
    for line in &fallbacks.lines {
        let stack = Stack::build(&line.layers, line.member, commons, None);
        builder = builder.with_fallback(stack.embedder);
        parts.add(stack.parts);
    }
    if let Some(hedging) = &fallbacks.hedging {
        builder = builder.with_hedging(hedging.clone());
    }
    if fallbacks.trusted {
        builder = builder.with_trusted_spaces();
    } else {
        // Proofs are not told to an observer further out.
        parts.is_whole = false;
    }
    builder.build().expect("one space")
}

fn split(first: AnyEmbedder, arms: &Arms, commons: &Commons<'_>, parts: &mut Parts) -> AbSplit {
    let mut builder = AbSplit::builder("stress").with_arm(Arms::label(0), arms.shares[0], first);
    for (number, (line, share)) in arms.lines.iter().zip(&arms.shares[1..]).enumerate() {
        let stack = Stack::build(&line.layers, line.member, commons, None);
        builder = builder.with_arm(Arms::label(number + 1), *share, stack.embedder);
        parts.add(stack.parts);
    }
    if let Some(keyless) = arms.keyless {
        builder = builder.with_keyless_arm(Arms::label(keyless));
    }
    builder.build().expect("two arms of one space each")
}
