//! Decides which requests join the queue: [`Admission`], and [`Admitted`], the place of one request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::drain_rate::DrainRate;
use crate::{Lane, sync::Mutex};

/// The shortest and the longest wait that a refusal names.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The wait that a refusal names before any work is done, so that nothing is known of the speed.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);
/// The speed is measured while at least so many tokens are in the queue, or this part of its limit: with less, a model
/// waits for requests, and the figure would be that of the clients.
const LOADED_TOKENS: usize = 2048;
const LOADED_PART: usize = 8;

/// The requests that wait or are worked on, one queue per lane.
///
/// A request is admitted as a whole or not at all, so no client can block itself halfway. Nobody keeps a place for a request
/// that was refused: one that is nearly as large as the queue may find it too full again.
#[derive(Debug)]
pub(super) struct Admission {
    lanes: [Mutex<Queue>; 2],
    limits: [usize; 2],
}

#[derive(Debug, Default)]
struct Queue {
    load: Load,
    rate: DrainRate,
    /// The tokens of those who were refused and told when to come back, and the moment of that number. They come one after
    /// the other, and not all at once.
    promised: Option<(f64, Instant)>,
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) requests: usize,
    pub(super) texts: usize,
    pub(super) tokens: usize,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NotAdmitted {
    /// It has more tokens than the whole queue takes.
    NeverFits { limit: usize },
    /// There is no room now.
    Full { wait: Duration, queued: usize, limit: usize },
}

/// The place of a request in a queue. Dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Arc<Admission>,
    lane: Lane,
    texts: usize,
    tokens: usize,
    since: Instant,
    /// Whether its work is done, so that its tokens count for the speed.
    is_done: bool,
}

impl Admission {
    /// Makes queues of so many tokens each.
    pub(super) fn new(interactive: usize, bulk: usize) -> Self {
        Self { lanes: Default::default(), limits: [interactive, bulk] }
    }

    /// Admits a request as a whole, or not at all.
    pub(super) fn admit(self: &Arc<Self>, lane: Lane, texts: usize, tokens: usize) -> Result<Admitted, NotAdmitted> {
        let limit = self.limit(lane);
        if tokens > limit {
            return Err(NotAdmitted::NeverFits { limit });
        }
        self.lanes[lane as usize].with(|queue| {
            let (queued, now) = (queue.load.tokens, Instant::now());
            let promised = queue.promised_now(now);
            if queued + tokens > limit {
                // Room comes when a whole request ends, so no earlier than after one of the usual size.
                let usual = queued / queue.load.requests.max(1);
                let until = (queued + tokens - limit).max(usual);
                let wait = queue.time_for(until.saturating_add(promised as usize)).unwrap_or(UNKNOWN_WAIT);
                // Many never come back, so no more than a whole queue is kept in mind.
                queue.promised = Some(((promised + tokens as f64).min(limit as f64), now));
                return Err(NotAdmitted::Full { wait: wait.clamp(SHORTEST_WAIT, LONGEST_WAIT), queued, limit });
            }
            queue.promised = Some(((promised - tokens as f64).max(0.0), now));
            queue.load.requests += 1;
            queue.load.texts += texts;
            queue.load.tokens += tokens;
            if queue.load.tokens >= loaded(limit) {
                queue.rate.begin(now);
            }
            Ok(Admitted { admission: self.clone(), lane, texts, tokens, since: now, is_done: false })
        })
    }

    /// Returns the most tokens in the queue of a lane.
    pub(super) const fn limit(&self, lane: Lane) -> usize {
        self.limits[lane as usize]
    }

    /// Returns what is in the queue of a lane.
    pub(super) fn load(&self, lane: Lane) -> Load {
        self.lanes[lane as usize].with(|queue| queue.load)
    }

    /// Returns how long a new request of a lane would wait for those before it; `None` if the speed is not known.
    pub(super) fn wait(&self, lane: Lane) -> Option<Duration> {
        self.lanes[lane as usize].with(|queue| match queue.load.tokens {
            0 => Some(Duration::ZERO),
            tokens => queue.time_for(tokens),
        })
    }

    /// Returns the tokens per second that a lane drains at while it has work.
    pub(super) fn tokens_per_second(&self, lane: Lane) -> Option<f64> {
        self.lanes[lane as usize].with(|queue| queue.rate.per_second())
    }
}

/// Returns the tokens from which on a queue counts as loaded.
fn loaded(limit: usize) -> usize {
    (limit / LOADED_PART).clamp(1, LOADED_TOKENS)
}

impl Queue {
    /// Returns the promised tokens that have not come back, but for those whose time is over.
    fn promised_now(&self, now: Instant) -> f64 {
        let Some((tokens, then)) = self.promised else { return 0.0 };
        let passed = now.saturating_duration_since(then).as_secs_f64();
        (tokens - passed * self.rate.per_second().unwrap_or(f64::INFINITY).max(1.0)).max(0.0)
    }

    /// Returns how long the work on so many tokens takes.
    fn time_for(&self, tokens: usize) -> Option<Duration> {
        let seconds = tokens as f64 / self.rate.per_second()?;
        // A day is longer than any sensible wait, and far below the maximum of a `Duration`.
        Some(Duration::from_secs_f64(seconds.min(86_400.0)))
    }
}

impl Admitted {
    /// Leaves the queue because the work is done. Work that a cache spared tells nothing of the speed.
    pub(super) fn done(mut self, was_work: bool) {
        self.is_done = was_work;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.lanes[self.lane as usize].with(|queue| {
            queue.load.requests -= 1;
            queue.load.texts -= self.texts;
            queue.load.tokens -= self.tokens;
            let (done, now) = (if self.is_done { self.tokens } else { 0 }, Instant::now());
            let time = now.saturating_duration_since(self.since);
            queue.rate.done(done, time, now, queue.load.tokens < loaded(self.admission.limit(self.lane)));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_request_is_admitted_as_a_whole_or_not_at_all() {
        let admission = Arc::new(Admission::new(100, 1000));
        let one = admission.admit(Lane::Interactive, 2, 60).expect("room");
        let two = admission.admit(Lane::Interactive, 1, 40).expect("room");
        let full = admission.admit(Lane::Interactive, 1, 1).expect_err("full");
        assert_eq!(full, NotAdmitted::Full { wait: UNKNOWN_WAIT, queued: 100, limit: 100 });
        assert_eq!(admission.load(Lane::Interactive), Load { requests: 2, texts: 3, tokens: 100 });
        // The other lane has room of its own.
        let other = admission.admit(Lane::Bulk, 1, 1000).expect("room");
        let never = admission.admit(Lane::Interactive, 1, 101).expect_err("too much");
        assert_eq!(never, NotAdmitted::NeverFits { limit: 100 });
        drop((one, other));
        assert!(admission.admit(Lane::Interactive, 1, 60).is_ok());
        two.done(true);
        assert_eq!(admission.load(Lane::Interactive), Load::default());
        assert_eq!(admission.load(Lane::Bulk), Load::default());
    }

    #[test]
    fn the_wait_is_what_the_excess_takes_at_the_measured_speed() {
        let admission = Arc::new(Admission::new(100, 1000));
        assert_eq!(admission.wait(Lane::Bulk), Some(Duration::ZERO));
        let work = admission.admit(Lane::Bulk, 1, 1000).expect("room");
        thread::sleep(Duration::from_millis(50));
        work.done(true);
        let speed = admission.tokens_per_second(Lane::Bulk).expect("measured");
        assert!(speed > 1.0 && speed < 20_001.0, "{speed}");
        // Small requests, one after the other, tell nothing of the speed.
        for _ in 0..20 {
            let small = admission.admit(Lane::Bulk, 1, 2).expect("room");
            thread::sleep(Duration::from_millis(1));
            small.done(true);
        }
        assert_eq!(admission.tokens_per_second(Lane::Bulk), Some(speed));
        // A request that leaves before it is done tells nothing of the speed of work, but time has passed.
        let _queued = admission.admit(Lane::Bulk, 1, 800).expect("room");
        let Err(NotAdmitted::Full { wait, queued: 800, limit: 1000 }) = admission.admit(Lane::Bulk, 1, 700) else {
            panic!("there is no room")
        };
        // The excess is 500 tokens, but the queued request of 800 ends as a whole.
        let expected = (800.0 / speed).clamp(0.1, 600.0);
        assert!((wait.as_secs_f64() - expected).abs() < 1e-6, "{wait:?}, {expected}");
        let all = admission.wait(Lane::Bulk).expect("known").as_secs_f64();
        assert!((all - 800.0 / speed).abs() < 1e-6, "{all}");
    }

    #[test]
    fn many_threads_never_exceed_the_limit() {
        let admission = Arc::new(Admission::new(50, 50));
        let work = |seed: u64| {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..5_000 {
                if let Ok(admitted) = admission.admit(Lane::Bulk, 1, random.usize(0..30)) {
                    assert!(admission.load(Lane::Bulk).tokens <= 50);
                    if random.bool() { admitted.done(true) } else { drop(admitted) }
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|seed| _ = scope.spawn(move || work(seed))));
        assert_eq!(admission.load(Lane::Bulk), Load::default());
    }
}
