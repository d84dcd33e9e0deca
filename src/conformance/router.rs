//! Checks a router across several spaces from inside: over two fakes whose logs show which of them was asked for what.

use std::{future::poll_fn, pin::pin, task::Poll};

use super::{
    COSTS, Suite, Verdict, Violation,
    inside::{
        Script, blames_nobody, conserved, expect, lost_options, marked_options, observer, own_results, own_rows,
        some_refused, texts, unless_panics, violation,
    },
};
use crate::{
    Batch, Charges, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Lane, Limits, OwnedOptions, Result,
    Space, SpaceId, Truncation,
    checked::cost_of,
    planner,
    provider::{Fake, FakeCall, FakeOutcome, Hold},
};

/// The number of routing keys that are tried.
const KEYS: usize = 24;

/// The most tokens per text that the two fakes take. They differ, so the router has to combine limits.
const TOKENS: [usize; 2] = [32, 48];

/// Checks a router, an embedder with several spaces: it must keep each text's space, and in all else behave as the
/// embedders that it routes to. `make` makes a fresh router over two fakes with different models, widths and limits
/// each time. Two routers that it makes must agree.
///
/// ```
/// use docvector_embed::{
///     Batch, Embedder, Embeddings, Limits, Result, Space, async_trait, conformance, provider::Fake,
/// };
///
/// /// Keys of even length go to the first arm, others to the second. Batches without a key go to the first.
/// #[derive(Debug)]
/// struct ByLength {
///     arms: Vec<Fake>,
///     spaces: Vec<Space>,
///     limits: Limits,
/// }
///
/// impl std::fmt::Display for ByLength {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "ByLength({}, {})", self.arms[0], self.arms[1])
///     }
/// }
///
/// #[async_trait]
/// impl Embedder for ByLength {
///     async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
///         batch.check(self.spaces(), &self.limits())?;
///         let of = |wanted| self.spaces.iter().position(|space| space.id() == wanted);
///         let by_key = batch.key().map_or(0, |key| key.len() % 2);
///         self.arms[batch.space().and_then(of).unwrap_or(by_key)].embed(batch).await
///     }
///     fn spaces(&self) -> &[Space] {
///         &self.spaces
///     }
///     fn limits(&self) -> Limits {
///         self.limits.clone()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), conformance::Violation> {
/// conformance::router(|arms| {
///     let spaces = arms.iter().flat_map(|arm| arm.spaces().to_vec()).collect();
///     let limits = arms[0].limits().combine(&arms[1].limits());
///     ByLength { arms, spaces, limits }
/// })
/// .await
/// # }
/// ```
///
/// This runs the [`Suite`], too, with a key for each arm. The rules for routers, about the space in which a batch is
/// answered, count as law 5. A refused batch within the router's own limits counts as law 1, as in the suite.
///
/// # Errors
/// The first violation found.
pub async fn router<E: Embedder>(make: impl Fn(Vec<Fake>) -> E + Send + Sync) -> Verdict {
    let check = Check { make: &make };
    check.lists_its_spaces()?;
    check.takes_what_its_limits_say().await?;
    check.answers_in_the_wanted_space().await?;
    check.refuses_before_any_work().await?;
    let keyless = check.has_fixed_arms().await?;
    check.forwards_the_batch().await?;
    check.keeps_what_its_arms_say().await?;
    check.gives_finished_rows_back().await?;
    check.lets_go().await?;
    check.suites(keyless).await
}

struct Check<'a, F> {
    make: &'a F,
}

type Arms = [(Fake, Script); 2];

impl<F: Fn(Vec<Fake>) -> E + Send + Sync, E: Embedder> Check<'_, F> {
    fn make(&self) -> Result<(Arms, E), Violation> {
        let limits = Limits::none().with_in_flight(1);
        let left = limits.clone().with_texts(3).with_tokens_per_text(TOKENS[0]);
        let right = limits.with_texts(5).with_tokens_per_text(TOKENS[1]).with_tokens_per_call(120).with_bytes(1000);
        let fake = |model: &str, width, limits| {
            let fake = Fake::builder().with_model(model).with_dimensions(width).with_limits(limits).build();
            let unusable = |error: Error| Violation { law: 0, embedder: "fake".into(), what: error.to_string() };
            fake.map(|fake| (fake, Script::default())).map_err(unusable)
        };
        let arms = [fake("left", 12, left)?, fake("right", 16, right)?];
        let router = (self.make)(arms.iter().map(|(fake, _)| fake.clone()).collect());
        Ok((arms, router))
    }

    /// Checks that both spaces are announced, and no other.
    fn lists_its_spaces(&self) -> Verdict {
        let (arms, router) = self.make()?;
        let mut have: Vec<SpaceId> = router.spaces().iter().map(Space::id).collect();
        let mut both: Vec<SpaceId> = arms.iter().map(|(fake, _)| fake.spaces()[0].id()).collect();
        have.sort_unstable();
        both.sort_unstable();
        expect(have == both, 5, &router, || format!("its arms have the spaces {both:?}, it announces {have:?}"))
    }

    /// Checks that a batch is answered in its wanted space, whatever its key, and that only this space's arm is asked.
    async fn answers_in_the_wanted_space(&self) -> Verdict {
        for (key, wanted) in [None, Some(0), Some(1), Some(2), Some(3)].into_iter().flat_map(|k| [(k, 0), (k, 1)]) {
            let (arms, router) = self.make()?;
            let before = router.spaces().to_vec();
            let space = arms[wanted].0.spaces()[0].id();
            let options = OwnedOptions { key: key.map(name), space: Some(space), ..documents() };
            for count in [1, 3, 20] {
                let texts = texts("wanted", count);
                let rows = ask(&router, &options, &texts).await;
                let rows = rows.map_err(|error| violation(5, &router, format!("refuses its own space: {error}")))?;
                let have = rows.space().id();
                expect(have == space, 5, &router, || format!("asked for {space}, it gives {have}"))?;
                own_rows(&arms, &router, InputKind::Document, &texts, &Ok(rows))?;
            }
            let others = arms[1 - wanted].0.calls().len();
            expect(others == 0, 5, &router, || format!("for another arm's space, an arm was asked {others} times"))?;
            expect(router.spaces() == before, 5, &router, || "the announced spaces have changed".into())?;
        }
        Ok(())
    }

    /// Checks that an unknown space and an empty text are refused before any work, and that an empty batch does no
    /// work.
    async fn refuses_before_any_work(&self) -> Verdict {
        let (arms, router) = self.make()?;
        let other = SpaceId::from_bytes([0xab; 16]);
        for key in [None, Some(name(0)), Some(name(1))] {
            let options = OwnedOptions { key, ..documents() };
            let unknown = router.embed(Batch::with_options(&["a text"], options.borrow()).with_space(other)).await;
            let refused = unknown.is_err_and(|error| error.kind() == ErrorKind::SpaceMismatch);
            expect(refused, 5, &router, || "a space that is not there is not a mismatch of spaces".into())?;
            self.unasked(&arms, &router, 5, "a space was refused")?;
            for space in [Some(arms[0].0.spaces()[0].id()), None]
                .into_iter()
                .filter(|space| options.key.is_some() || space.is_some())
            {
                let options = OwnedOptions { space, ..options.clone() };
                let bad = router.embed(Batch::with_options(&["a text", "", ""], options.borrow())).await;
                let named = bad.as_ref().err().map_or(&[][..], |error| error.bad_texts());
                let named: Vec<usize> = named.iter().map(|bad| bad.index).collect();
                expect(named == [1, 2], 6, &router, || format!("texts 1 and 2 are empty, named are {named:?}"))?;
                let none = router.embed(Batch::with_options(&[], options.borrow())).await;
                expect(none.is_ok_and(|rows| rows.is_empty()), 1, &router, || {
                    "an empty batch is not answered with no rows".into()
                })?;
                self.unasked(&arms, &router, 6, "an empty text was refused")?;
            }
        }
        Ok(())
    }

    /// Checks that no arm was asked.
    fn unasked(&self, arms: &Arms, router: &E, law: u8, before: &str) -> Verdict {
        let asked: usize = arms.iter().map(|(fake, _)| fake.calls().len()).sum();
        expect(asked == 0, law, router, || format!("{asked} calls were made before {before}"))
    }

    /// Checks that each key has one arm for good. Batches without a key must have one, too, or all be refused. Returns
    /// whether they have one.
    async fn has_fixed_arms(&self) -> Result<bool, Violation> {
        for key in (0..KEYS).map(name) {
            self.has_one_arm(&OwnedOptions { key: Some(key), ..documents() }).await?;
        }
        let (arms, router) = self.make()?;
        match router.embed(Batch::documents(&["without a key"])).await {
            Ok(_) => self.has_one_arm(&documents()).await.map(|()| true),
            Err(error) if error.kind() == ErrorKind::SpaceMismatch => {
                let texts = texts("without a key", 20);
                let all = ask(&router, &documents(), &texts).await;
                let kind = all.err().map(|error| error.kind());
                expect(kind == Some(ErrorKind::SpaceMismatch), 5, &router, || {
                    let many = kind.map_or("rows".into(), |kind| format!("the error {kind}"));
                    format!("one text without a key gives a mismatch of spaces, many give {many}")
                })?;
                self.unasked(&arms, &router, 5, "a batch without a key was refused")?;
                Ok(false)
            }
            Err(error) => Err(violation(
                5,
                &router,
                format!("a batch without a key gives another error than a mismatch of spaces: {error}"),
            )),
        }
    }

    /// Checks that all texts of these options are answered in one space: for all kinds, sizes and lanes, while arms are
    /// down, and after it.
    async fn has_one_arm(&self, options: &OwnedOptions) -> Verdict {
        let key = options.key.as_deref();
        let mut first = None;
        // Two routers, as in two runs of a process: a restart must not send the texts of an index to another arm.
        for _ in 0..2 {
            let (arms, router) = self.make()?;
            let mut sum = Charges::NONE;
            for (count, kind) in
                [(1, InputKind::Document), (2, InputKind::Query), (3, InputKind::Document), (20, InputKind::Document)]
            {
                let lane = if count == 3 { Lane::Interactive } else { Lane::of(kind) };
                let options = OwnedOptions { kind, lane, ..options.clone() };
                let texts = texts(&format!("{count} for one arm"), count);
                let result = ask(&router, &options, &texts).await;
                self.in_one_space(&router, key, &mut first, &texts, &result, false)?;
                own_rows(&arms, &router, kind, &texts, &result)?;
                sum += cost_of(&result);
            }
            conserved(&arms, &router, &sum)?;
            let asked: usize = arms.iter().flat_map(|(fake, _)| fake.calls()).map(|call| call.texts.len()).sum();
            expect(asked <= 26, 9, &router, || format!("for 26 texts, {asked} were embedded"))?;
            // The other arm must not stand in for one that is down, neither then nor later. So each arm is up alone in
            // turn: the texts may fail, but their space may not change.
            for (fake, script) in &arms {
                script.is_down(fake, true);
            }
            let down = texts("while it is down", 3);
            let result = ask(&router, options, &down).await;
            expect(result.is_err(), 4, &router, || "all arms are down, and rows came".into())?;
            for (fake, script) in &arms {
                script.is_down(fake, false);
                let result = ask(&router, options, &down).await;
                self.in_one_space(&router, key, &mut first, &down, &result, true)?;
                script.is_down(fake, true);
            }
            arms.iter().for_each(|(fake, script)| script.is_down(fake, false));
            for count in [1, 20] {
                let after = texts("after it was down", count);
                let result = ask(&router, options, &after).await;
                self.in_one_space(&router, key, &mut first, &after, &result, false)?;
                own_rows(&arms, &router, InputKind::Document, &after, &result)?;
            }
        }
        Ok(())
    }

    /// Checks that the rows lie in the same space as those before.
    fn in_one_space(
        &self,
        router: &E,
        key: Option<&str>,
        first: &mut Option<SpaceId>,
        texts: &[String],
        result: &Result<Embeddings>,
        may_fail: bool,
    ) -> Verdict {
        let rows = match result {
            Ok(rows) => rows,
            Err(error) if may_fail && error.kind() != ErrorKind::SpaceMismatch => return Ok(()),
            Err(error) => {
                return Err(violation(5, router, format!("{} texts of key {key:?} have no arm: {error}", texts.len())));
            }
        };
        let have = rows.space().id();
        let before = *first.get_or_insert(have);
        expect(have == before, 5, router, || format!("texts of key {key:?} lie in {before} and in {have}"))
    }

    /// Checks that each arm takes every batch within the limits that the router states.
    async fn takes_what_its_limits_say(&self) -> Verdict {
        let (arms, router) = self.make()?;
        let limits = router.limits();
        let longest = limits.tokens_of_one_text().unwrap_or(100).min(100);
        for truncation in [Truncation::Error, Truncation::Truncate] {
            let longest = if truncation == Truncation::Truncate { 100 } else { longest };
            // A token is four characters. Numbers of three digits and a space are the first one, and tell the texts
            // apart.
            let lengths = [longest, 1, longest, longest / 2, longest, longest, 2].into_iter().cycle().take(28);
            let all: Vec<String> =
                lengths.enumerate().map(|(i, tokens)| format!("{i:03} {}", "some".repeat(tokens.max(1) - 1))).collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let batch = Batch::documents(&all).with_truncation(truncation);
            let calls = planner::split(&batch, &limits);
            let calls = calls.map_err(|error| violation(7, &router, format!("by its own limits: {error}")))?;
            for (call, (fake, _)) in calls.iter().flat_map(|call| arms.iter().map(move |arm| (call.clone(), arm))) {
                let call = batch.part(call).with_space(fake.spaces()[0].id());
                let rows = router.embed(call).await;
                let rows = rows.map_err(|error| {
                    let law = if error.kind() == ErrorKind::SpaceMismatch { 5 } else { 1 };
                    violation(law, &router, format!("{} texts within its limits are refused: {error}", call.len()))
                })?;
                let tokens = |index: usize| call.texts()[index].len().div_ceil(4);
                let named = |index: &usize| rows.truncated().contains(index);
                // Between the limits of the two arms, an arm may truncate or not.
                let right = (0..call.len()).all(|index| match tokens(index) {
                    few if few <= TOKENS[0].min(longest) => !named(&index),
                    many if many > TOKENS[1] => named(&index),
                    _ => true,
                });
                expect(rows.len() == call.len() && right, 7, &router, || {
                    format!("of {} texts, {:?} are said to be truncated", call.len(), rows.truncated())
                })?;
            }
        }
        Ok(())
    }

    /// Checks that key, tenant, trace, kind, lane, truncation policy and deadline reach the arm.
    async fn forwards_the_batch(&self) -> Verdict {
        let (arms, router) = self.make()?;
        let (texts, options) = (["a text to forward"], marked_options());
        let observer = observer();
        let result = router.embed(Batch::with_options(&texts, options).with_observer(&observer)).await;
        result.map_err(|error| violation(3, &router, error.to_string()))?;
        let calls: Vec<FakeCall> = arms.iter().flat_map(|(fake, _)| fake.calls()).collect();
        let lost: Vec<&str> = calls.iter().flat_map(|call| lost_options(call, options)).collect();
        let kept = lost.is_empty() && calls.iter().all(|call| call.texts == texts);
        expect(kept && calls.len() == 1, 3, &router, || {
            let (calls, lost) = (calls.len(), if lost.is_empty() { "none".into() } else { lost.join(", ") });
            format!("the batch's options did not reach one arm alone (calls: {calls}; lost or changed: {lost})")
        })
    }

    /// Checks that the router passes on what an arm says of a failed call's texts and cost, and adds nothing.
    async fn keeps_what_its_arms_say(&self) -> Verdict {
        for (number, cost) in COSTS.into_iter().enumerate() {
            for count in [3, 20] {
                let texts = texts("refused", count);
                let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
                let (arms, router) = self.make()?;
                let options = OwnedOptions { key: Some(name(number)), ..documents() };
                arms.iter().for_each(|(fake, script)| script.refuses_some(fake, cost));
                let result = ask(&router, &options, &texts).await;
                own_rows(&arms, &router, InputKind::Document, &texts, &result)?;
                some_refused(&arms, &router, &texts, &result)?;
                let mut sum = cost_of(&result);
                let each = router.embed_each(Batch::with_options(&refs, options.borrow())).await;
                own_results(&arms, &router, InputKind::Document, &texts, &each)?;
                sum += each.charges();
                conserved(&arms, &router, &sum)?;
                for row in [false, true] {
                    let (arms, router) = self.make()?;
                    arms.iter().for_each(|(fake, script)| script.about_no_text(fake, number, row, cost));
                    let law = if row { 4 } else { 6 };
                    let result = unless_panics(&router, law, ask(&router, &options, &texts)).await?;
                    own_rows(&arms, &router, InputKind::Document, &texts, &result)?;
                    blames_nobody(&router, &result)?;
                    conserved(&arms, &router, &cost_of(&result))?;
                }
            }
        }
        Ok(())
    }

    /// Checks that a failure half-way loses no finished row of any space.
    async fn gives_finished_rows_back(&self) -> Verdict {
        for key in (0..4).map(name) {
            let (arms, router) = self.make()?;
            for (fake, _) in &arms {
                fake.succeed_next();
                fake.succeed_next();
                fake.fail_next(Error::new(ErrorKind::InvalidInput, "scripted"));
            }
            let texts: Vec<String> = (0..20).map(|i| format!("half-way {i}")).collect();
            let result = ask(&router, &OwnedOptions { key: Some(key), ..documents() }, &texts).await;
            own_rows(&arms, &router, InputKind::Document, &texts, &result)?;
            let calls: Vec<FakeCall> = arms.iter().flat_map(|(fake, _)| fake.calls()).collect();
            let Err(error) = &result else {
                let failed = calls.iter().any(|call| call.outcome == FakeOutcome::Failed);
                expect(!failed, 4, &router, || "a failure of an arm was not reported".into())?;
                continue;
            };
            let done = calls.iter().filter(|call| call.outcome == FakeOutcome::Done).flat_map(|call| &call.texts);
            let given: Vec<usize> = error.partials().flat_map(|partial| partial.indices().iter().copied()).collect();
            for text in done {
                expect(given.iter().any(|&at| texts[at] == *text), 4, &router, || {
                    format!("a finished row is lost: {text:?} is not among the rows of {given:?}")
                })?;
            }
            conserved(&arms, &router, &cost_of(&result))?;
        }
        Ok(())
    }

    /// Checks that a dropped call leaves everything usable, also while an arm works on it.
    async fn lets_go(&self) -> Verdict {
        for key in (0..4).map(name) {
            let (arms, router) = self.make()?;
            let options = OwnedOptions { key: Some(key), ..documents() };
            let holds: Vec<Hold> = arms.iter().map(|(fake, _)| fake.hold()).collect();
            let texts = texts("dropped", 3);
            {
                let mut call = pin!(ask(&router, &options, &texts));
                for _ in 0..4 {
                    let poll = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
                    expect(poll.is_pending(), 8, &router, || "answers before an arm does".into())?;
                    planner::yield_once().await;
                }
            }
            drop(holds);
            let after = ask(&router, &options, &texts).await;
            own_rows(&arms, &router, InputKind::Document, &texts, &after)?;
            after.map_err(|error| violation(8, &router, format!("after a dropped call, good texts fail: {error}")))?;
        }
        Ok(())
    }

    /// Runs the checks from outside, through each arm.
    async fn suites(&self, keyless: bool) -> Verdict {
        let (arms, router) = self.make()?;
        let mut reached: Vec<SpaceId> = Vec::new();
        for key in (0..KEYS).map(name) {
            let batch = Batch::documents(&["which arm?"]).with_key(&key);
            let space =
                router.embed(batch).await.map_err(|error| violation(5, &router, error.to_string()))?.space().id();
            if reached.contains(&space) {
                continue;
            }
            reached.push(space);
            Suite::new(&router).with_key(&key).run().await?;
            if reached.len() == arms.len() {
                break;
            }
        }
        if keyless { Suite::new(&router).run().await } else { Ok(()) }
    }
}

fn name(key: usize) -> std::sync::Arc<str> {
    format!("key:{key}").into()
}

const fn documents() -> OwnedOptions {
    OwnedOptions::new(InputKind::Document)
}

async fn ask<E: Embedder>(router: &E, options: &OwnedOptions, texts: &[String]) -> Result<Embeddings> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    router.embed_all(Batch::with_options(&texts, options.borrow())).await
}
