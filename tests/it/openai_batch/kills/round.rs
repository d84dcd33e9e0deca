//! Plays a round: a simulator with a script, jobs, and processes that are killed while they work on them: [`Round`].

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use docvector_embed::testing::{BatchRecord, BatchState, Fault, Simulator};
#[cfg(feature = "sqlite")]
use docvector_embed::{EmbedderExt, cache::Sqlite, wrap::Cached};
use fastrand::Rng;

#[cfg(feature = "sqlite")]
use super::openai;
use super::{
    CANCELLED, DIMENSIONS, JOBS, MODEL, builder,
    child::{AT, BEGUN, DONE, PAUSED, STEP, Task},
    is_bad, script,
    table::{Place, Table, Way},
    texts,
};
use crate::support::processes::{Running, alone};

/// How often the test looks at the process.
const LOOK: Duration = Duration::from_millis(2);

/// A process that says nothing for so long waits for a batch that is to expire.
const QUIET: Duration = Duration::from_millis(200);

/// The days that may pass in a round. Input files are kept for 30.
const DAYS: usize = 25;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A process that takes so long hangs.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What became of a process.
pub(super) enum Ending {
    /// It did all its work.
    Done,
    Killed(Place),
}

/// A round.
pub(super) struct Round {
    test: &'static str,
    seed: u64,
    simulator: Simulator,
    home: tempfile::TempDir,
    /// How often the journals moved to another folder.
    moves: usize,
    days: usize,
    deletes: bool,
    cache: bool,
}

impl Round {
    /// Starts a simulator with the script of this seed.
    pub(super) fn new(test: &'static str, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let simulator = Simulator::start().expect("starts");
        script::write(&simulator, &mut random);
        let home = tempfile::tempdir().expect("a folder");
        Self { test, seed, simulator, home, moves: 0, days: 0, deletes: random.bool(), cache: random.bool() }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join(format!("jobs {}", self.moves))
    }

    fn cache_file(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    /// Goes on as another machine does: with a copy of the folder, somewhere else.
    pub(super) fn move_to_another_folder(&mut self) {
        let from = self.folder();
        self.moves += 1;
        if from.exists() {
            copy(&from, &self.folder());
            fs::remove_dir_all(from).expect("it is removed");
        }
    }

    /// Starts a process, and kills it in this way if it does not end before.
    pub(super) fn run(&mut self, way: &Way, table: &mut Table) -> Ending {
        table.processes += 1;
        let (gaps, nth) = match way {
            Way::At(gaps, nth) => (gaps.as_slice(), *nth),
            _ => (&[][..], 1),
        };
        let task = Task {
            base_url: self.simulator.base_url(),
            folder: self.folder(),
            cache: self.cache.then(|| self.cache_file()),
            deletes: self.deletes,
            gaps: gaps.to_vec(),
            nth,
        };
        let (lines, told) = mpsc::channel();
        let held = self.hold(way);
        self.simulator.set_speed(script::SPEED);
        let arguments = alone(module_path!().trim_end_matches("::round"), self.test);
        let mut process = Running::start(arguments, &task.words().each_ref().map(String::as_str), 0, lines);
        let (started, mut begun, mut heard) = (Instant::now(), None, Instant::now());
        let ending = loop {
            match told.recv_timeout(LOOK) {
                Ok((_, line)) => {
                    heard = Instant::now();
                    if let Some(gap) = line.strip_prefix(STEP) {
                        table.reached(gap);
                    } else if let Some(gap) = line.strip_prefix(AT) {
                        break Ending::Killed(Place::Gap(gap.to_owned()));
                    } else if line == BEGUN {
                        begun = Some(heard);
                    } else if line.starts_with(PAUSED) {
                        self.simulator.set_credit(None);
                    } else if line == DONE {
                        break Ending::Done;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the process ended by itself, {}", self.told()),
            }
            match way {
                Way::After(time) if begun.is_some_and(|begun| begun.elapsed() >= *time) => {
                    break Ending::Killed(Place::Random);
                }
                Way::Held(route, _) if held.is_some_and(|held| self.simulator.counts().faults >= held) => {
                    // The request came; its effect may take a moment.
                    std::thread::sleep(Duration::from_millis(fastrand::u64(1..30)));
                    break Ending::Killed(Place::Held(*route));
                }
                _ => {}
            }
            if heard.elapsed() >= QUIET && self.pass_a_day() {
                heard = Instant::now();
            }
            assert!(started.elapsed() < GIVE_UP, "the process does not end, {}", self.told());
        };
        if let (Ending::Done, Way::Through, Some(begun)) = (&ending, way, begun) {
            table.usual = begun.elapsed();
        }
        process.kill();
        // Nothing happens while nobody works.
        self.simulator.set_speed(0.0);
        told.iter()
            .filter_map(|(_, line)| line.strip_prefix(STEP).map(str::to_owned))
            .for_each(|gap| table.reached(&gap));
        if held.is_some() {
            self.simulator.clear_faults();
        }
        ending
    }

    /// Holds the answer of one request, if the way is such. Returns how many faults there are then.
    fn hold(&self, way: &Way) -> Option<u64> {
        let Way::Held(route, before) = way else { return None };
        self.simulator.clear_faults();
        // A delay of nothing counts as a fault.
        self.simulator.fail_next(*route, *before, Fault::delay(Duration::ZERO));
        self.simulator.fail_next(*route, 1, Fault::held_answer());
        Some(self.simulator.counts().faults + *before as u64 + 1)
    }

    /// Lets a day pass if batches wait for its end.
    fn pass_a_day(&mut self) -> bool {
        let passes = self.days < DAYS && self.simulator.counts().live_batches > 0;
        if passes {
            self.days += 1;
            self.simulator.advance(DAY);
        }
        passes
    }

    fn told(&self) -> String {
        let batches: Vec<String> = self.simulator.batches().iter().map(shown).collect();
        format!("in the round of seed {} after {} days. Batches:\n{}", self.seed, self.days, batches.join("\n"))
    }

    // -- at the end --

    /// Fails unless each text has its vector and was billed once, and no batch was created twice.
    pub(super) fn judge(&self, table: &mut Table) {
        let requests = self.simulator.counts().requests;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
        runtime.block_on(self.judge_rows());
        #[cfg(feature = "sqlite")]
        if self.cache {
            runtime.block_on(self.judge_cache());
        }
        let (counts, bills) = (self.simulator.counts(), self.simulator.bills());
        assert_eq!(
            counts.requests,
            requests,
            "rows of jobs that have ended, and of the cache, need no request, {}",
            self.told()
        );
        assert_eq!(bills.most_per_text, 1, "a text was billed more than once, {}", self.told());
        for text in (0..JOBS.len()).filter(|&job| job != CANCELLED).flat_map(texts) {
            let due = u64::from(!is_bad(&text));
            assert_eq!(self.simulator.billed(&text), due, "the bills of '{text}', {}", self.told());
        }
        self.judge_batches();
        table.ended(counts, bills);
    }

    async fn judge_rows(&self) {
        let builder = builder(&self.simulator.base_url(), &self.folder()).expect("valid");
        let provider = builder.build().expect("it opens");
        let known = provider.list().await.expect("it reads");
        assert_eq!(known.len(), JOBS.len(), "each job was submitted once: {known:?}");
        for (number, size) in JOBS.into_iter().enumerate() {
            let texts = texts(number);
            let status = known.iter().find(|status| status.texts == size as u64).expect("it was submitted");
            let job = provider.resume(&status.id).await.expect("it is there");
            let rows = job.rows(0..size as u64).await.expect("it reads");
            for (&index, row) in rows.indices().iter().zip(rows.embeddings().rows()) {
                let text = &texts[index];
                assert_eq!(row, self.simulator.vector(MODEL, DIMENSIONS, text), "the row of '{text}', {}", self.told());
            }
            let there: HashSet<usize> = rows.indices().iter().copied().collect();
            assert_eq!(there.len(), rows.indices().len(), "job {number}: no row comes twice");
            // What was paid for is there, and nothing else: of a cancelled job too.
            let paid = (0..size).filter(|&index| self.simulator.billed(&texts[index]) > 0).collect();
            assert_eq!(there, paid, "job {number}: rows, and texts that were billed, {}", self.told());
        }
        let tokens: u64 = known.iter().map(|status| status.tokens).sum();
        assert_eq!(tokens, self.simulator.bills().batch_tokens, "all that was billed is told, {}", self.told());
    }

    /// Fails if a text was answered and the cache does not have it.
    #[cfg(feature = "sqlite")]
    async fn judge_cache(&self) {
        let cached = Cached::new(
            openai(&self.simulator.base_url()).expect("valid"),
            Sqlite::open(self.cache_file()).expect("it opens"),
        );
        let cached = cached.expect("it is made");
        for job in 0..JOBS.len() {
            let mut texts = texts(job);
            texts.retain(|text| self.simulator.billed(text) > 0);
            let rows = cached.embed_documents(&texts).await.expect("it has them all");
            for (text, row) in texts.iter().zip(rows.rows()) {
                assert_eq!(
                    row,
                    self.simulator.vector(MODEL, DIMENSIONS, text),
                    "the cached row of '{text}', {}",
                    self.told()
                );
            }
        }
    }

    /// Fails if a batch was created once more although the first one did its work.
    fn judge_batches(&self) {
        let batches = self.simulator.batches();
        let mut tokens = HashSet::new();
        let mut files: HashMap<&str, &BatchRecord> = HashMap::new();
        for batch in &batches {
            let token = batch.metadata.get("docvector_token").expect("each batch has one");
            assert!(tokens.insert(token), "two batches of token {token}, {}", self.told());
            let before = files.insert(&batch.input_file_id, batch);
            let has_failed = |before: &BatchRecord| before.state == BatchState::Failed;
            assert!(before.is_none_or(has_failed), "two batches of {}, {}", batch.input_file_id, self.told());
        }
    }
}

fn shown(batch: &BatchRecord) -> String {
    format!(
        "{} {} of {}: {} completed, {} failed of {} lines; {:?}",
        batch.id, batch.state, batch.input_file_id, batch.completed, batch.failed, batch.lines, batch.metadata
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it is made");
    for entry in fs::read_dir(from).expect("it is there") {
        let path = entry.expect("it reads").path();
        let to = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("it copies");
        }
    }
}
