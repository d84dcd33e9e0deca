//! Checks a wrapper from inside: over fakes whose log shows what it did.

use super::{
    COSTS, Suite, Verdict, Violation, distance,
    inside::{
        Inside, Script, blames_nobody, conserved, embed_documents, expect, lost_options, marked_options, observer,
        own_results, own_rows, some_refused, texts, unless_panics, violation,
    },
};
use crate::{
    BadText, BadTextReason, Batch, Charges, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Limits, SpaceId, Usage,
    checked::cost_of,
    provider::{Fake, FakeCall, FakeOutcome},
};

/// The most tokens per text that the fakes take: more than the checks' short texts have.
const TOKENS: usize = 32;

/// Checks that a wrapper cannot be told from the embedder that it wraps. This runs the [`Suite`] over it, and then
/// compares its results with the log of the fake inside: with the calls, the charges and the finished rows. All this
/// runs with no inner limit, and with inner limits of 1, 3 and 7 texts per call.
///
/// `wrap` makes a fresh wrapper, with nothing remembered, each time.
///
/// # Errors
/// The first violation found.
pub async fn wrapper<E: Embedder>(wrap: impl Fn(Fake) -> E + Send + Sync) -> Verdict {
    for texts in [None, Some(1), Some(3), Some(7)] {
        let check = Check { wrap: &wrap, texts };
        let (fake, wrapped) = check.make()?;
        Suite::new(&wrapped).run().await?;
        drop((fake, wrapped));
        check.refuses_before_any_work().await?;
        check.forwards_the_batch().await?;
        check.conserves_usage().await?;
        check.gives_finished_rows_back().await?;
        check.names_the_callers_texts().await?;
        check.believes_in_no_other_texts().await?;
        check.keeps_rows_beside_refused_texts().await?;
        check.conserves_usage_of_failures().await?;
        check.lets_go().await?;
    }
    Ok(())
}

struct Check<'a, F> {
    wrap: &'a F,
    /// The most texts per call that the fake takes.
    texts: Option<usize>,
}

impl<F: Fn(Fake) -> E + Send + Sync, E: Embedder> Check<'_, F> {
    fn make(&self) -> Result<(Fake, E), Violation> {
        // One call at a time, so that the script meets the calls in a known order.
        let mut limits = Limits::none().with_tokens_per_text(TOKENS).with_in_flight(1);
        limits.texts = self.texts;
        let fake = Fake::builder().with_dimensions(16).with_limits(limits).build();
        let unusable = |error: Error| Violation { law: 0, embedder: "fake".into(), what: error.to_string() };
        let fake = fake.map_err(unusable)?;
        let wrapped = (self.wrap)(fake.clone());
        Ok((fake, wrapped))
    }

    /// Checks that empty texts and unknown spaces are refused before any work, and that an empty batch costs nothing.
    async fn refuses_before_any_work(&self) -> Verdict {
        let (fake, wrapped) = self.make()?;
        let texts = ["one", "two", "", "four"];
        let other = SpaceId::from_bytes([0xab; 16]);
        let asked = &texts[..self.texts.unwrap_or(4).min(2)];
        let unknown = wrapped.embed(Batch::documents(asked).with_space(other)).await;
        let refused = [wrapped.embed_documents(&texts).await.is_err(), unknown.is_err()];
        expect(refused == [true, true], 6, &wrapped, || "an empty text or an unknown space was accepted".into())?;
        let nothing = wrapped.embed(Batch::documents(&[])).await;
        expect(nothing.is_ok_and(|rows| rows.is_empty()), 1, &wrapped, || {
            "an empty batch is not answered with no rows".into()
        })?;
        let worked = fake.charged().requests;
        expect(worked == 0, 6, &wrapped, || format!("{worked} calls were paid before an empty text was refused"))
    }

    /// Makes the same, and a script that keeps an account.
    fn make_with_script(&self) -> Result<([(Fake, Script); 1], E), Violation> {
        let (fake, wrapped) = self.make()?;
        Ok(([(fake, Script::default())], wrapped))
    }

    /// Makes texts with repetitions: as many as the fake takes in one call, and as many as need several calls.
    fn batches(&self, name: &str) -> [Vec<String>; 2] {
        [self.texts.unwrap_or(7).min(7), 25].map(|count| texts(name, count))
    }

    /// Checks that key, tenant, trace, kind, lane, truncation policy, deadline and observer reach the inside.
    async fn forwards_the_batch(&self) -> Verdict {
        let (fake, wrapped) = self.make()?;
        let (texts, options) = (["a text to forward"], marked_options());
        let observer = observer();
        let result = wrapped.embed(Batch::with_options(&texts, options).with_observer(&observer)).await;
        result.map_err(|error| violation(3, &wrapped, error.to_string()))?;
        let calls = fake.calls();
        let inner = calls.iter().find(|call| call.texts == texts);
        let inner = inner.ok_or_else(|| violation(3, &wrapped, "the text did not reach the inside".into()))?;
        let lost = lost_options(inner, options);
        expect(lost.is_empty(), 3, &wrapped, || {
            format!("the batch's options did not reach the inside: {} got lost or changed", lost.join(", "))
        })
    }

    /// Checks that callers are told exactly what the inside charged.
    async fn conserves_usage(&self) -> Verdict {
        let (inside, wrapped) = self.make_with_script()?;
        let mut sum = Charges::NONE;
        for round in 0..3 {
            // Some texts come again, in the same batch and in a later one.
            let texts: Vec<String> = (0..10).map(|i| format!("round {} text {}", round % 2, i % 7)).collect();
            let rows = wrapped.embed_documents(&texts).await;
            let rows = rows.map_err(|error| violation(9, &wrapped, error.to_string()))?;
            sum += rows.charges();
            own_rows(&inside, &wrapped, InputKind::Document, &texts, &Ok(rows))?;
        }
        conserved(&inside, &wrapped, &sum)
    }

    /// Checks that a failure half-way loses no finished row.
    async fn gives_finished_rows_back(&self) -> Verdict {
        let (fake, wrapped) = self.make()?;
        fake.succeed_next();
        fake.succeed_next();
        // `InvalidInput`, because no wrapper may try it again or ask another provider.
        fake.fail_next(Error::new(ErrorKind::InvalidInput, "scripted"));
        let texts: Vec<String> = (0..25).map(|i| format!("half-way {i}")).collect();
        let result = wrapped.embed_documents(&texts).await;
        let calls = fake.calls();
        let failed = calls.iter().any(|call| call.outcome == FakeOutcome::Failed);
        let error = match result {
            Ok(_) if !failed => return Ok(()),
            Ok(_) => return Err(violation(4, &wrapped, "a failure inside was not reported".into())),
            Err(error) => error,
        };
        expect(error.kind() == ErrorKind::InvalidInput, 4, &wrapped, || format!("a failure became another: {error}"))?;
        let finished = calls.iter().filter(|call| call.outcome == FakeOutcome::Done).flat_map(|call| &call.texts);
        let partial = error.partial();
        let given = partial.map_or(&[][..], |partial| partial.indices());
        for text in finished {
            let at = texts.iter().position(|caller| caller == text);
            expect(at.is_some_and(|at| given.contains(&at)), 4, &wrapped, || {
                let lost = at.map_or("a text that no caller has".into(), |at| format!("text {at}"));
                format!("a finished row is lost: {lost} is not among {given:?}")
            })?;
        }
        for (row, &at) in given.iter().enumerate() {
            let have = partial.map_or(&[][..], |partial| partial.embeddings().row(row));
            let far =
                texts.get(at).map_or(f32::INFINITY, |text| distance(have, &fake.vector_of(InputKind::Document, text)));
            expect(far < 1e-6, 4, &wrapped, || format!("the finished row of text {at} is {far:e} off"))?;
        }
        if let Some(partial) = partial {
            let (told, charged) = (partial.embeddings().usage(), fake.charged());
            expect(told.tokens == charged.tokens && told.requests == charged.requests, 9, &wrapped, || {
                format!("with the error, callers are told {told:?}, the inside charged {charged:?}")
            })?;
        }
        Ok(())
    }

    /// Checks that a text refused inside is named by the caller's indices, all of them.
    async fn names_the_callers_texts(&self) -> Verdict {
        let (fake, wrapped) = self.make()?;
        if self.texts.is_some() {
            fake.succeed_next();
        }
        fake.fail_next(Error::invalid_texts(vec![BadText::new(0, BadTextReason::Rejected)]));
        let texts: Vec<String> = (0..12).map(|i| format!("refused {}", i / 2 % 4)).collect();
        let result = wrapped.embed_documents(&texts).await;
        let calls = fake.calls();
        let error = match result {
            Err(error) => error,
            Ok(_) if calls.iter().all(|call| call.outcome != FakeOutcome::Failed) => return Ok(()),
            Ok(_) => return Err(violation(6, &wrapped, "a refusal inside was not reported".into())),
        };
        let refused = calls.iter().find(|call| call.outcome == FakeOutcome::Failed).and_then(|call| call.texts.first());
        let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
        let right = !named.is_empty() && named.iter().all(|&at| texts.get(at) == refused);
        // All places must be named if the refused call had each text once, as after `Dedup`, and was the only call. If
        // the wrapper passes repetitions on, the script names only the first of them.
        let seen_once =
            |call: &FakeCall| refused.is_some_and(|text| call.texts.iter().filter(|seen| *seen == text).count() == 1);
        let whole = self.texts.is_none() && calls.last().is_some_and(seen_once);
        let places = texts.iter().filter(|text| Some(*text) == refused).count();
        let right = right && (!whole || named.len() == places);
        expect(right, 6, &wrapped, || {
            format!(
                "the inner embedder refused {:?}, and texts {named:?} are named: name a text that occurs twice in each \
                 of its places (Error::map_indices)",
                refused.map_or("", String::as_str)
            )
        })
    }

    /// Checks that an answer about a text that the call does not have blames no text of the caller, and gives none a
    /// row.
    async fn believes_in_no_other_texts(&self) -> Verdict {
        for (past, row) in [0, 2, usize::MAX].into_iter().flat_map(|past| [(past, false), (past, true)]) {
            for texts in self.batches("of another call") {
                let (inside, wrapped) = self.make_with_script()?;
                let [(fake, script)] = &inside;
                script.about_no_text(fake, past, row, Usage::of_request(Some(11)));
                let law = if row { 4 } else { 6 };
                let result = unless_panics(&wrapped, law, embed_documents(&wrapped, &texts)).await?;
                own_rows(&inside, &wrapped, InputKind::Document, &texts, &result)?;
                blames_nobody(&wrapped, &result)?;
                // Nothing of that answer may be kept for later, either.
                self.goes_on(&inside, &wrapped, &texts, cost_of(&result)).await?;
            }
        }
        Ok(())
    }

    /// Checks that each text gets its own row or error if an inner error names some texts and has finished rows of
    /// others.
    async fn keeps_rows_beside_refused_texts(&self) -> Verdict {
        for (cost, texts) in COSTS.into_iter().flat_map(|cost| self.batches("refused").map(|texts| (cost, texts))) {
            let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
            for before in [true, false] {
                let (inside, wrapped) = self.make_with_script()?;
                let [(fake, script)] = &inside;
                script.refuses_some(fake, cost);
                let mut sum = Charges::NONE;
                if before {
                    let result = embed_documents(&wrapped, &texts).await;
                    own_rows(&inside, &wrapped, InputKind::Document, &texts, &result)?;
                    some_refused(&inside, &wrapped, &texts, &result)?;
                    sum += cost_of(&result);
                }
                let each = wrapped.embed_each(Batch::documents(&refs)).await;
                own_results(&inside, &wrapped, InputKind::Document, &texts, &each)?;
                sum += each.charges();
                conserved(&inside, &wrapped, &sum)?;
            }
        }
        Ok(())
    }

    /// Checks that callers are told the cost of a failed call, also if its amount is not known.
    async fn conserves_usage_of_failures(&self) -> Verdict {
        let passing = (ErrorKind::Unavailable, true, Usage::of_request(None));
        let kinds = COSTS.into_iter().flat_map(|cost| [true, false].map(|rows| (ErrorKind::Inference, rows, cost)));
        for (kind, rows, cost) in kinds.chain([passing]) {
            for texts in self.batches("failed") {
                let (inside, wrapped) = self.make_with_script()?;
                let [(fake, script)] = &inside;
                script.fails(fake, kind, rows, cost);
                let result = embed_documents(&wrapped, &texts).await;
                own_rows(&inside, &wrapped, InputKind::Document, &texts, &result)?;
                self.goes_on(&inside, &wrapped, &texts, cost_of(&result)).await?;
            }
        }
        Ok(())
    }

    /// Checks that after a failure inside, the same texts get their rows, and that the bill of both calls is right.
    async fn goes_on(&self, inside: &Inside, wrapped: &E, texts: &[String], mut sum: Charges) -> Verdict {
        let again = embed_documents(wrapped, texts).await;
        own_rows(inside, wrapped, InputKind::Document, texts, &again)?;
        if let Err(error) = &again {
            return Err(violation(4, wrapped, format!("after one failure inside, good texts fail: {error}")));
        }
        sum += cost_of(&again);
        conserved(inside, wrapped, &sum)
    }

    /// Checks that a dropped call leaves everything usable, also while the inside works on it.
    async fn lets_go(&self) -> Verdict {
        let (fake, wrapped) = self.make()?;
        let hold = fake.hold();
        {
            let mut call = std::pin::pin!(wrapped.embed_query("dropped"));
            for _ in 0..4 {
                let poll = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
                expect(poll.is_pending(), 8, &wrapped, || "answers before the inside does".into())?;
                crate::planner::yield_once().await;
            }
        }
        drop(hold);
        let after = wrapped.embed_query("after").await.map_err(|error| violation(8, &wrapped, error.to_string()))?;
        let far = distance(&after, &fake.vector_of(InputKind::Query, "after"));
        expect(far < 1e-6, 8, &wrapped, || format!("after a dropped call, a vector is {far:e} off"))
    }
}
