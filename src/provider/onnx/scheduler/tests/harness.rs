//! A tokenizer and a model that stand in for real ones: they write down what they are asked to do, and wait at gates.

use std::{
    ops::Range,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use futures_util::future::{MaybeDone, maybe_done};

use super::super::*;
use crate::{
    InputKind, Lane, Truncation,
    provider::onnx::{
        scheduler::pieces::{PIECE_BYTES, TEXT_BYTES},
        stages::{BatchFailure, ReadSoFar, Stretch, TokenRow, TokenizedText, TooManyTokens},
        truncation::{Fit, fit},
    },
    tokenizer::{Reading, SplitPoints},
};

/// Components of a vector: the text's tokens, the sum of its ids, its tokens that do not take part in pooling.
pub(super) const WIDTH: usize = 3;
/// The most tokens of a text; a text that is too long is marked so.
pub(super) const LIMIT: usize = 1000;
/// The bytes of a text that is a piece of its own, and not long, with one or two characters more too.
pub(super) const LARGE: usize = PIECE_BYTES - TEXT_BYTES;
/// A call that takes longer is taken not to end.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Says that a text is too long; if it may be truncated, this is its last character.
pub(super) const OVER: char = '!';
/// Makes the tokenizer fail.
pub(super) const UNKNOWN: char = '?';
/// Makes the tokenizer panic.
pub(super) const CONFUSING: char = '~';
/// Makes the tokenizer wait until its gate is opened.
pub(super) const SLOW: char = '#';
/// Makes the model fail on every batch that it is in.
pub(super) const POISON: char = 'X';
/// Makes the model panic on every batch that it is in.
pub(super) const SHOCK: char = 'P';

/// A log of the threads' work, and the gates that hold them up.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) events: Vec<Event>,
    /// How many may still pass, if not any number: slow texts through the tokenizer, batches through the model.
    pub(super) texts: Option<usize>,
    pub(super) batches: Option<usize>,
}

/// Something that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Text(String),
    /// A later stretch of a long text, which begins at this place.
    Stretch(usize),
    Batch(Vec<Vec<u32>>),
}

impl Log {
    /// Writes down what is begun, and waits for the gate.
    pub(super) fn begin(&self, event: Event, gate: Option<fn(&mut State) -> &mut Option<usize>>) {
        let mut state = lock(&self.state);
        state.events.push(event);
        self.changed.notify_all();
        let Some(gate) = gate else { return };
        state = self.changed.wait_while(state, |state| *gate(state) == Some(0)).expect("no test has panicked here");
        if let Some(left) = gate(&mut state) {
            *left -= 1;
        }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    /// Lets no batch pass.
    pub(super) fn close(&self) {
        self.set(|state| state.batches = Some(0));
    }

    pub(super) fn open(&self) {
        self.set(|state| (state.texts, state.batches) = (None, None));
    }

    pub(super) fn wait_until(&self, condition: impl Fn(&State) -> bool) {
        let state = lock(&self.state);
        let waited = self.changed.wait_timeout_while(state, TEST_TIMEOUT, |state| !condition(state));
        assert!(!waited.expect("nobody panicked under the lock").1.timed_out(), "it never came to it");
    }

    pub(super) fn events(&self) -> Vec<Event> {
        lock(&self.state).events.clone()
    }

    pub(super) fn batches(&self) -> Vec<Vec<Vec<u32>>> {
        lock(&self.state).batches()
    }
}

impl State {
    pub(super) fn batches(&self) -> Vec<Vec<Vec<u32>>> {
        let batch = |event: &Event| if let Event::Batch(rows) = event { Some(rows.clone()) } else { None };
        self.events.iter().filter_map(batch).collect()
    }

    pub(super) fn texts(&self) -> Vec<String> {
        let text = |event: &Event| if let Event::Text(text) = event { Some(text.clone()) } else { None };
        self.events.iter().filter_map(text).collect()
    }
}

/// Takes a text's characters for its ids. A long text can be split before spaces.
pub(super) struct Characters(Arc<Log>);

/// The ids of a text, unless it is bad.
pub(super) fn ids_of(text: &str, truncation: Truncation) -> Option<Vec<u32>> {
    let over = text.find(OVER);
    if text.contains([UNKNOWN, CONFUSING]) || (over.is_some() && truncation == Truncation::Error) {
        return None;
    }
    let end = over.map_or(text.len(), |at| at + OVER.len_utf8());
    Some(text[..end].chars().map(u32::from).collect())
}

pub(super) fn unpooled_of(kind: InputKind) -> usize {
    match kind {
        InputKind::Document => 1,
        InputKind::Query => 4,
    }
}

impl Characters {
    fn stretch(&self, text: &str, part: Range<usize>) -> Result<Vec<u32>> {
        let event = if part.start == 0 { Event::Text(text.to_owned()) } else { Event::Stretch(part.start) };
        let slow = text[part.clone()].contains(SLOW);
        self.0.begin(event, if slow { Some(|state| &mut state.texts) } else { None });
        if text[part.clone()].contains(CONFUSING) {
            // Without the hook, which would print.
            resume_unwind(Box::new("confused"));
        }
        if text[part.clone()].contains(UNKNOWN) {
            return Err(Error::new(ErrorKind::Inference, "an unknown character"));
        }
        Ok(text[part].chars().map(u32::from).collect())
    }
}

impl Tokenize for Characters {
    fn tokenize(
        &self,
        _: InputKind,
        text: &str,
        truncation: Truncation,
        so_far: &mut ReadSoFar,
        go_on: &mut dyn FnMut(Stretch) -> bool,
    ) -> Option<Result<Result<TokenizedText, TooManyTokens>>> {
        let tokenize = |part: Range<usize>| self.stretch(text, part);
        let reading = Reading { text, split_points: SplitPoints::BeforeSpace, tokenize };
        let mut ids = match fit(&reading, usize::MAX, false, truncation, so_far, go_on).transpose()? {
            Ok(Fit::Whole(ids)) => ids,
            Ok(fit) => panic!("{fit:?} though there is room for all"),
            Err(error) => return Some(Err(error)),
        };
        let over = ids.iter().position(|&id| id == u32::from(OVER));
        Some(Ok(match over {
            Some(_) if truncation == Truncation::Error => Err(TooManyTokens(ids.len())),
            _ => {
                ids.truncate(over.map_or(usize::MAX, |at| at + 1));
                Ok(TokenizedText { ids, truncated: over.is_some() })
            }
        }))
    }

    fn unpooled(&self, kind: InputKind) -> usize {
        unpooled_of(kind)
    }

    fn limit(&self) -> usize {
        LIMIT
    }
}

/// Takes batches of so many padded tokens.
pub(super) struct Sums {
    pub(super) log: Arc<Log>,
    pub(super) room: usize,
}

pub(super) fn vector(ids: &[u32], unpooled: usize) -> [f32; WIDTH] {
    let sum: u64 = ids.iter().map(|&id| u64::from(id)).sum();
    [ids.len() as f32, sum as f32, unpooled as f32]
}

impl RunBatch for Sums {
    fn run_batch(&mut self, rows: &[TokenRow<'_>], place: &mut dyn FnMut(&[f32])) -> Result<(), BatchFailure> {
        let ids: Vec<Vec<u32>> = rows.iter().map(|row| row.ids.to_vec()).collect();
        let has = |character| ids.iter().flatten().any(|&id| id == u32::from(character));
        let padded = padded(&ids);
        let (poison, shock) = (has(POISON), has(SHOCK));
        self.log.begin(Event::Batch(ids), Some(|state| &mut state.batches));
        if padded > self.room {
            return Err(BatchFailure { error: Error::new(ErrorKind::Inference, "no room"), out_of_memory: true });
        }
        if poison {
            return Err(Error::new(ErrorKind::Inference, "poisoned").into());
        }
        if shock {
            resume_unwind(Box::new("shocked"));
        }
        place(&rows.iter().flat_map(|row| vector(row.ids, row.unpooled)).collect::<Vec<f32>>());
        Ok(())
    }
}

pub(super) fn padded(batch: &[Vec<u32>]) -> usize {
    batch.len() * batch.iter().map(Vec::len).max().unwrap_or(0)
}

/// A scheduler, and what it does.
pub(super) struct Harness {
    pub(super) log: Arc<Log>,
    /// Dropped before the scheduler, which waits for its threads.
    pub(super) opens: Opens,
    pub(super) scheduler: Arc<Scheduler>,
}

pub(super) struct Opens(Arc<Log>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Harness {
    pub(super) fn start(roles: impl IntoIterator<Item = WorkerRole>) -> Self {
        Self::with_room(roles, usize::MAX)
    }

    pub(super) fn with_room(roles: impl IntoIterator<Item = WorkerRole>, room: usize) -> Self {
        let log = Arc::new(Log::default());
        let worker = |(number, role): (usize, WorkerRole)| {
            let runner =
                role.packing.is_some().then(|| Box::new(Sums { log: Arc::clone(&log), room }) as Box<dyn RunBatch>);
            Worker { name: format!("worker {number}"), role, runner }
        };
        let workers = roles.into_iter().enumerate().map(worker).collect();
        let tokens = Arc::new(Characters(Arc::clone(&log)));
        let scheduler = Arc::new(Scheduler::start(tokens, WIDTH, workers).expect("starts"));
        Self { opens: Opens(Arc::clone(&log)), log, scheduler }
    }

    /// Hands a call over, now.
    pub(super) fn ask(&self, ask: &Ask) -> Asked {
        let mut answer = Box::pin(maybe_done(answer(&self.scheduler, ask)));
        let _ = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Asked { ask: ask.clone(), answer }
    }

    /// Asks for one text; its batch then waits at the closed gate.
    pub(super) fn plug(&self) -> Asked {
        self.log.close();
        let before = self.log.batches().len();
        let plug = self.ask(&Ask::documents(["plug"]));
        self.log.wait_until(|state| state.batches().len() > before);
        plug
    }

    /// How often the queue holds a call.
    pub(super) fn queued(&self) -> usize {
        format!("{:?}", lock(&self.scheduler.shared.queue)).matches("EmbedCall {").count()
    }

    pub(super) fn wait_until_drained(&self) {
        patiently(|| self.queued() == 0);
    }
}

/// Waits for what is certain to come soon.
pub(super) fn patiently(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < TEST_TIMEOUT, "it never came to it");
        thread::yield_now();
    }
}

pub(super) fn both(packing: &Packing) -> WorkerRole {
    WorkerRole { tokenizes: true, packing: Some(packing.clone()) }
}

/// The roles of the threads for a device, and of those beside them.
pub(super) fn apart(packing: &Packing, tokenize: usize, embed: usize) -> Vec<WorkerRole> {
    let tokenizes = WorkerRole { tokenizes: true, packing: None };
    let embeds = WorkerRole { tokenizes: false, packing: Some(packing.clone()) };
    [vec![tokenizes; tokenize], vec![embeds; embed]].concat()
}

/// One text per batch.
pub(super) fn one_by_one() -> Packing {
    Packing::new(1000, 1000, Some(1))
}

/// A call.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) texts: Vec<String>,
    pub(super) kind: InputKind,
    pub(super) lane: Lane,
    pub(super) truncation: Truncation,
    pub(super) deadline: Option<Instant>,
    pub(super) bad: Vec<BadText>,
}

impl Ask {
    pub(super) fn documents<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self {
            texts: texts.into_iter().map(Into::into).collect(),
            kind: InputKind::Document,
            lane: Lane::Bulk,
            truncation: Truncation::Error,
            deadline: None,
            bad: Vec::new(),
        }
    }

    pub(super) fn queries<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self { kind: InputKind::Query, lane: Lane::Interactive, ..Self::documents(texts) }
    }

    pub(super) fn ids(&self) -> Vec<Vec<u32>> {
        self.texts.iter().map(|text| ids_of(text, self.truncation).expect("a good text")).collect()
    }

    pub(super) fn check(&self, done: &CallRows) {
        let ids = self.ids();
        let rows: Vec<[f32; WIDTH]> = ids.iter().map(|ids| vector(ids, unpooled_of(self.kind))).collect();
        assert_eq!(done.components, rows.concat());
        let truncated: Vec<usize> = (0..self.texts.len()).filter(|&at| self.texts[at].contains(OVER)).collect();
        assert_eq!(done.truncated, truncated);
        assert_eq!(done.tokens, ids.iter().map(|ids| ids.len() as u64).sum::<u64>());
    }
}

pub(super) type Answer = Pin<Box<dyn Future<Output = Result<CallRows>> + Send>>;

pub(super) fn answer(scheduler: &Arc<Scheduler>, ask: &Ask) -> Answer {
    let (scheduler, ask) = (Arc::clone(scheduler), ask.clone());
    Box::pin(async move {
        let texts: Vec<&str> = ask.texts.iter().map(String::as_str).collect();
        let mut batch = Batch::new(ask.kind, &texts).with_lane(ask.lane).with_truncation(ask.truncation);
        if let Some(deadline) = ask.deadline {
            batch = batch.with_deadline(deadline);
        }
        scheduler.submit(&batch, ask.bad).await
    })
}

/// A call that was made.
pub(super) struct Asked {
    pub(super) ask: Ask,
    pub(super) answer: Pin<Box<MaybeDone<Answer>>>,
}

impl Asked {
    pub(super) fn end(mut self) -> Result<CallRows> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = runtime.block_on(async { tokio::time::timeout(TEST_TIMEOUT, self.answer.as_mut()).await });
        ended.expect("the call never ends");
        self.answer.as_mut().take_output().expect("an answer")
    }

    pub(super) fn end_well(self) {
        let ask = self.ask.clone();
        ask.check(&self.end().expect("embeds"));
    }

    pub(super) fn end_badly(self) -> Error {
        self.end().expect_err("a failure")
    }
}

/// A text of so many bytes that can be split everywhere, and that waits at the gate in its first stretch.
pub(super) fn slow_words(bytes: usize) -> String {
    format!("{SLOW} {}", "word ".repeat(bytes / 5))
}

/// A text of so many tokens; those of different salt have different sums.
pub(super) fn text(length: usize, salt: usize) -> String {
    (0..length).map(|at| char::from(b'a' + ((salt + at) % 26) as u8)).collect()
}

pub(super) fn ids(texts: &[&str]) -> Vec<Vec<u32>> {
    texts.iter().map(|text| text.chars().map(u32::from).collect()).collect()
}

pub(super) fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all
}
