//! Kills servers while calls run, and starts them again: [`Saboteur`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::server_process::{Mood, ServerProcess, random};

/// Counts the times when both servers are down.
#[derive(Debug, Default)]
pub(super) struct Outage(AtomicU64);

impl Outage {
    /// Begins one or ends it.
    fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of the outage that there is now.
    pub(super) fn number(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|number| number % 2 == 1)
    }
}

/// Kills and starts the servers in a thread of its own until it is dropped.
pub(super) struct Saboteur {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Sabotaged>>,
}

/// The servers after the sabotage.
pub(super) struct Sabotaged {
    pub(super) servers: [ServerProcess; 2],
    strikes: usize,
    pub(super) kills: usize,
}

impl Saboteur {
    pub(super) fn begin(servers: [ServerProcess; 2], seed: u64, outage: Arc<Outage>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_over, mut sabotaged) = (stop.clone(), Sabotaged { servers, strikes: 0, kills: 0 });
        let thread = thread::spawn(move || {
            let mut random = random(&[seed, u64::MAX]);
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(random.u64(30..200)));
                sabotaged.strike(&mut random, &outage);
            }
            sabotaged
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends the sabotage, and returns the servers.
    pub(super) fn end(mut self) -> Sabotaged {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it ends once").join().expect("the servers start")
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The servers end with the thread. A second panic would abort a test that already fails.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

impl Sabotaged {
    /// Kills one server or both, and starts them again after a while.
    fn strike(&mut self, random: &mut fastrand::Rng, outage: &Outage) {
        let hit: &[usize] = match self.strikes % 8 {
            7 => &[0, 1],
            _ => [&[0], &[1]][random.usize(..2)],
        };
        self.strikes += 1;
        hit.iter().for_each(|&server| self.servers[server].kill());
        self.kills += hit.len();
        if hit.len() > 1 {
            outage.turn();
        }
        thread::sleep(Duration::from_millis(random.u64(..30)));
        if hit.len() > 1 {
            outage.turn();
        }
        for &server in hit {
            self.start(server, random);
        }
        hit.iter().for_each(|&server| self.servers[server].until_ready());
    }

    fn start(&mut self, server: usize, random: &mut fastrand::Rng) {
        let mood = match random.u32(..10) {
            0..3 => Mood::Honest,
            // At most one of them is of no use at all.
            8 if self.servers[1 - server].mood().is_useful() => Mood::Busy,
            9 if self.servers[1 - server].mood().is_useful() => Mood::Silent,
            _ => Mood::Faulty,
        };
        self.servers[server].start(mood, random.u64(..));
    }
}
