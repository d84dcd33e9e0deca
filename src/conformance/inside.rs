//! Shared by the checks from inside: scripts that make fakes fail, and comparisons of their account with what callers
//! get.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{Verdict, Violation, distance};
use crate::{
    BadText, BadTextReason, Batch, Charges, Each, Embedder, Embeddings, Error, ErrorKind, InputKind, Lane, Options,
    Partial, Result, Space, Truncation, Usage,
    checked::PANICKED,
    observer::{Event, Observer},
    provider::{Fake, FakeCall},
};

pub(super) fn violation(law: u8, embedder: &dyn Embedder, what: String) -> Violation {
    Violation { law, embedder: embedder.to_string(), what }
}

pub(super) fn expect(holds: bool, law: u8, embedder: &dyn Embedder, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(violation(law, embedder, what())) }
}

/// Numbers of texts in an order with repetitions. Neither half holds all of them, and neither do the even or the odd
/// places. So if a call held all texts, it was made from all places or from the distinct texts, and the checks know
/// that its error has to cover every place.
const NUMBERS: [usize; 7] = [1, 0, 1, 0, 2, 3, 2];

/// Makes `count` texts with repetitions. Their numbers decide about [`is_refused`] and [`is_left`].
pub(super) fn texts(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{name} {}", i / NUMBERS.len() * 4 + NUMBERS[i % NUMBERS.len()])).collect()
}

fn number(text: &str) -> usize {
    text.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Returns whether a [`Script`] names this text as bad.
pub(super) fn is_refused(text: &str) -> bool {
    number(text) % 4 == 1
}

/// Returns whether a [`Script`] neither names this text nor gives its row.
fn is_left(text: &str) -> bool {
    number(text) % 4 == 3
}

/// Makes a fake fail, and keeps an account of its errors: their cost and their rows. Clones share the account.
///
/// The fake itself charges only for the calls that it answers with rows. The two accounts together are what callers
/// must be told.
#[derive(Clone, Default)]
pub(super) struct Script(Arc<Mutex<Account>>);

#[derive(Default)]
struct Account {
    charged: Usage,
    /// The texts whose rows came with an error.
    finished: Vec<String>,
    /// The texts of the calls that failed.
    failed: Vec<Vec<String>>,
}

impl Script {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, batch: &Batch<'_>, error: Error) -> Error {
        let mut account = self.account();
        account.charged += error.total_usage();
        account.failed.push(batch.texts().iter().map(ToString::to_string).collect());
        error
    }

    /// Returns the cost of its errors.
    pub(super) fn charged(&self) -> Usage {
        self.account().charged
    }

    /// Returns the texts whose rows came with its errors.
    pub(super) fn finished(&self) -> Vec<String> {
        self.account().finished.clone()
    }

    /// Returns the texts of each call that it made fail.
    pub(super) fn failed(&self) -> Vec<Vec<String>> {
        self.account().failed.clone()
    }

    /// Makes the next call fail with an error about an index that the call does not have: 0 in `past` is the first one
    /// after its last text. The index is that of a bad text, or with `row` that of a finished row.
    pub(super) fn about_no_text(&self, fake: &Fake, past: usize, row: bool, usage: Usage) {
        self.once(fake, move |fake, batch| {
            let index = batch.len().saturating_add(past);
            let error = if row {
                let rows = rows_of(fake, batch.kind(), &["nobody's text"])?;
                let error = Error::new(ErrorKind::InvalidInput, "scripted, with a row of no text");
                error.with_partial(Partial::new(vec![index], rows).ok()?)
            } else {
                Error::invalid_texts(vec![BadText::new(index, BadTextReason::Rejected)])
            };
            Some(error.with_usage(usage))
        });
    }

    /// Makes the next call fail with an error of this kind that names no text. With `rows`, finished rows of some texts
    /// come with it.
    pub(super) fn fails(&self, fake: &Fake, kind: ErrorKind, rows: bool, usage: Usage) {
        let script = self.clone();
        self.once(fake, move |fake, batch| {
            let error = Error::new(kind, "scripted").with_usage(usage);
            Some(if rows { script.with_rows(fake, batch, error) } else { error })
        });
    }

    /// Makes every call fail from now on, or none.
    pub(super) fn is_down(&self, fake: &Fake, is_down: bool) {
        let script = self.clone();
        // Marked, so that no `Retry` inside the embedder under test tries it again.
        let error = Error::new(ErrorKind::Unavailable, "scripted").mark_exhausted();
        fake.refuse_by(move |_, batch| is_down.then(|| script.note(batch, error.clone())));
    }

    /// Makes the next call fail with this error. A closure on the fake is used and not its script, because the error
    /// depends on the texts of the call.
    fn once(&self, fake: &Fake, error: impl Fn(&Fake, &Batch<'_>) -> Option<Error> + Send + Sync + 'static) {
        let (script, done) = (self.clone(), AtomicBool::new(false));
        fake.refuse_by(move |fake, batch| {
            if done.swap(true, Ordering::Relaxed) {
                return None;
            }
            error(fake, batch).map(|error| script.note(batch, error))
        });
    }

    /// Makes every call fail that has a text that [is refused](is_refused). The error names those texts. It has the
    /// rows of the others, except those that [are left](is_left).
    pub(super) fn refuses_some(&self, fake: &Fake, usage: Usage) {
        let script = self.clone();
        fake.refuse_by(move |fake, batch| {
            let bad: Vec<BadText> = (0..batch.len())
                .filter(|&index| is_refused(batch.texts()[index]))
                .map(|index| BadText::new(index, BadTextReason::Rejected))
                .collect();
            if bad.is_empty() {
                return None;
            }
            let error = script.with_rows(fake, batch, Error::invalid_texts(bad).with_usage(usage));
            Some(script.note(batch, error))
        });
    }

    fn with_rows(&self, fake: &Fake, batch: &Batch<'_>, error: Error) -> Error {
        let is_done = |text: &str| !is_refused(text) && !is_left(text);
        let done: Vec<usize> = (0..batch.len()).filter(|&index| is_done(batch.texts()[index])).collect();
        let texts: Vec<&str> = done.iter().map(|&index| batch.texts()[index]).collect();
        let partial = rows_of(fake, batch.kind(), &texts).and_then(|rows| Partial::new(done, rows).ok());
        let Some(partial) = partial.filter(|partial| !partial.indices().is_empty()) else { return error };
        self.account().finished.extend(texts.iter().map(ToString::to_string));
        error.with_partial(partial)
    }
}

/// Makes the rows of these texts, as another request to the fake would return them.
fn rows_of(fake: &Fake, kind: InputKind, texts: &[&str]) -> Option<Embeddings> {
    let components = texts.iter().flat_map(|text| fake.vector_of(kind, text)).collect();
    let charges = Charges::of(fake.payee(), Usage::of_request(Some(3)));
    Embeddings::new(texts.len(), &fake.spaces()[0], components, charges).ok()
}

/// The fakes inside an embedder, each with the script that makes it fail.
pub(super) type Inside = [(Fake, Script)];

/// Returns how far a row is from its text's vector in the row's space: infinitely far if no fake has this space.
fn off(inside: &Inside, kind: InputKind, text: &str, space: &Space, row: &[f32]) -> f32 {
    let fake = inside.iter().find(|(fake, _)| fake.spaces()[0] == *space);
    fake.map_or(f32::INFINITY, |(fake, _)| distance(row, &fake.vector_of(kind, text)))
}

/// Checks that each row belongs to its text: the rows of a result, and those that were finished before an error.
pub(super) fn own_rows(
    inside: &Inside,
    embedder: &dyn Embedder,
    kind: InputKind,
    texts: &[String],
    result: &Result<Embeddings>,
) -> Verdict {
    let error = match result {
        Ok(rows) => {
            let count = rows.len();
            expect(count == texts.len(), 1, embedder, || format!("{} texts gave {count} rows", texts.len()))?;
            return texts.iter().enumerate().try_for_each(|(at, text)| {
                let far = off(inside, kind, text, rows.space(), rows.row(at));
                expect(far < 1e-6, 2, embedder, || format!("row {at} is {far:e} from its text's vector"))
            });
        }
        Err(error) => error,
    };
    for partial in error.partials() {
        let rows = partial.embeddings();
        for (row, &at) in rows.rows().zip(partial.indices()) {
            let far = texts.get(at).map_or(f32::INFINITY, |text| off(inside, kind, text, rows.space(), row));
            expect(far < 1e-6, 4, embedder, || format!("the finished row of text {at} is {far:e} off"))?;
            let named = error.bad_texts().iter().any(|bad| bad.index == at);
            expect(!named, 6, embedder, || format!("text {at} has a row and is named as bad"))?;
        }
    }
    let beyond = error.bad_texts().iter().find(|bad| bad.index >= texts.len());
    beyond.map_or(Ok(()), |bad| {
        Err(violation(6, embedder, format!("an error about {} texts names text {}", texts.len(), bad.index)))
    })
}

/// Checks the error of a call after [`Script::refuses_some`]: it names the refused texts, and all finished rows come
/// with it.
pub(super) fn some_refused(
    inside: &Inside,
    embedder: &dyn Embedder,
    texts: &[String],
    result: &Result<Embeddings>,
) -> Verdict {
    let failed: Vec<Vec<String>> = inside.iter().flat_map(|(_, script)| script.failed()).collect();
    let error = match result {
        Err(error) => error,
        Ok(_) if failed.is_empty() => return Ok(()),
        Ok(_) => return Err(violation(6, embedder, "a refusal inside was not reported".into())),
    };
    let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
    let right = !named.is_empty() && named.iter().all(|&at| texts.get(at).is_some_and(|text| is_refused(text)));
    let refused: Vec<usize> = (0..texts.len()).filter(|&at| is_refused(&texts[at])).collect();
    // If the inside had all texts in one call, every place must be named or have its row. Otherwise the wrapper may
    // have stopped after the first failed call, before the others.
    let whole = failed.iter().any(|call| texts.iter().all(|text| call.contains(text)));
    expect(right && (!whole || named == refused), 6, embedder, || {
        format!(
            "beside finished rows, texts {refused:?} are refused by the inner embedder, and {named:?} are named: name a \
             text that occurs twice in each of its places (Error::map_indices)"
        )
    })?;
    let given: Vec<usize> = error.partials().flat_map(|partial| partial.indices().iter().copied()).collect();
    for text in inside.iter().flat_map(|(_, script)| script.finished()) {
        let mut places = (0..texts.len()).filter(|&at| texts[at] == text);
        let back = if whole { places.all(|at| given.contains(&at)) } else { places.any(|at| given.contains(&at)) };
        expect(back, 4, embedder, || {
            format!("beside refused texts, a finished row is lost: the rows of texts {given:?} are given")
        })?;
    }
    Ok(())
}

/// Checks that each text has its own row or, if it was refused, its own error.
pub(super) fn own_results(
    inside: &Inside,
    embedder: &dyn Embedder,
    kind: InputKind,
    texts: &[String],
    each: &Each,
) -> Verdict {
    expect(each.len() == texts.len(), 1, embedder, || format!("{} texts gave {} results", texts.len(), each.len()))?;
    let space = each.embeddings().map(Embeddings::space);
    for (at, text) in texts.iter().enumerate() {
        match each.result(at) {
            Ok(row) => {
                let far = space.map_or(f32::INFINITY, |space| off(inside, kind, text, space, row));
                expect(far < 1e-6, 2, embedder, || format!("with a result for each text, row {at} is {far:e} off"))?;
                expect(!is_refused(text), 6, embedder, || format!("text {at} is refused inside and has a row"))?;
            }
            Err(error) => {
                let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
                expect(is_refused(text) && named == [at], 6, embedder, || {
                    format!("with a result for each text, text {at} has another's error: {error}")
                })?;
            }
        }
    }
    Ok(())
}

/// Checks that no text is blamed if the inside's error is about a text that it was not given.
pub(super) fn blames_nobody(embedder: &dyn Embedder, result: &Result<Embeddings>) -> Verdict {
    let named = result.as_ref().err().and_then(|error| error.bad_texts().first());
    named.map_or(Ok(()), |bad| {
        let index = bad.index;
        let what =
            format!("the inside was wrong about a text that it was not given, and the error blames text {index}");
        Err(violation(6, embedder, what))
    })
}

/// Returns options that all differ from the default ones, except the space.
pub(super) fn marked_options() -> Options<'static> {
    let mut options = Options::new(InputKind::Query);
    options.key = Some("key");
    options.tenant = Some("tenant");
    options.trace = Some("00-trace-01");
    options.lane = Lane::Bulk;
    options.truncation = Truncation::Truncate;
    options.deadline = Some(Instant::now() + Duration::from_secs(3600));
    options
}

/// Returns an observer for [`lost_options`], which hears nothing.
pub(super) fn observer() -> Arc<dyn Observer> {
    Arc::new(|_: &Event<'_>| {})
}

/// Returns the names of the options with which the fake inside was not asked, and `observer` if it has none. Its deadline
/// may be earlier.
pub(super) fn lost_options(call: &FakeCall, options: Options<'_>) -> Vec<&'static str> {
    // Every field by name, so that a new one cannot be forgotten here.
    let Options { kind, key, tenant, trace, space: _, truncation, lane, deadline } = options;
    let in_time = call.deadline.is_some_and(|inner| deadline.is_some_and(|deadline| inner <= deadline));
    let kept = [
        ("kind", call.kind == kind),
        ("key", call.key.as_deref() == key),
        ("tenant", call.tenant.as_deref() == tenant),
        ("trace", call.trace.as_deref() == trace),
        ("truncation", call.truncation == truncation),
        ("lane", call.lane == lane),
        ("deadline", in_time),
        ("observer", call.observed),
    ];
    kept.into_iter().filter(|(_, kept)| !kept).map(|(name, _)| name).collect()
}

/// Checks that callers are told what the inside charged, and to which payees.
pub(super) fn conserved(inside: &Inside, embedder: &dyn Embedder, told: &Charges) -> Verdict {
    let of = |(fake, script): &(Fake, Script)| fake.charged() + script.charged();
    let charged: Usage = inside.iter().map(of).sum();
    let usage = told.usage().billable();
    expect(usage == charged, 9, embedder, || format!("callers are told {usage:?}, the inside charged {charged:?}"))?;
    for one in inside {
        let payee = one.0.payee();
        let paid = told.iter().find(|charge| charge.payee == *payee).map_or(Usage::ZERO, |charge| charge.usage);
        expect(paid == of(one), 9, embedder, || {
            format!("callers are told that {payee} is paid for {paid:?}, it charged {:?}", of(one))
        })?;
    }
    Ok(())
}

/// Returns the result of a call whose inside is wrong about a text. If the embedder believes the inside, it may panic:
/// that is a violation.
pub(super) async fn unless_panics(
    embedder: &dyn Embedder,
    law: u8,
    call: impl Future<Output = Result<Embeddings>>,
) -> Result<Result<Embeddings>, Violation> {
    let result = AssertUnwindSafe(call).catch_unwind().await;
    match result {
        // `embed_all` makes an error of a panic.
        Ok(Err(error)) if error.kind() == ErrorKind::Inference && error.message() == PANICKED => {}
        Ok(result) => return Ok(result),
        Err(_) => {}
    }
    Err(violation(law, embedder, "panics where the inside is wrong about a text".into()))
}

/// Embeds any number of texts as documents.
pub(super) async fn embed_documents(embedder: &dyn Embedder, texts: &[String]) -> Result<Embeddings> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    crate::EmbedderExt::embed_all(embedder, Batch::documents(&texts)).await
}
