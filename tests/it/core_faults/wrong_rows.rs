//! Each row is its text's own, and nobody is blamed for another's text, whatever an error names.

use std::sync::atomic::{AtomicBool, Ordering};

use docvector_embed::{
    BadText, BadTextReason, Batch, Each, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits,
    Result, StreamOptions, Usage,
    cache::Memory,
    provider::Fake,
    wrap::{Cached, Retry},
};
use futures_util::{StreamExt, stream};

use super::{MINUTE, SECOND, Scripted, Step, fake, finished, paid, patient, request_of, sound};

/// Says that the texts at these places are refused.
fn refused(places: &[usize]) -> Error {
    Error::invalid_texts(places.iter().map(|&place| BadText::new(place, BadTextReason::Rejected)).collect())
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "as scripted").with_retry_after(SECOND)
}

fn named(error: &Error) -> Vec<usize> {
    error.bad_texts().iter().map(|bad| bad.index).collect()
}

/// An embedder whose first call names its first text as bad and gives the rows of the first two.
fn contradicts_itself(fake: &Fake) -> Scripted {
    let inner = fake.clone();
    Scripted::new(fake, move |number, batch| match number {
        0 => Step::fails(refused(&[0]).with_partial(finished(&inner, batch.texts(), &[0, 1], request_of(2)))),
        _ => Step::answers(),
    })
}

/// Fails unless each text has a row, and that row is its own.
fn assert_each_its_own(fake: &Fake, texts: &[&str], each: &Each) {
    for (text, result) in texts.iter().zip(each.iter()) {
        if let Ok(row) = result {
            let whose = texts.iter().find(|of| row == fake.vector_of(InputKind::Document, of));
            assert_eq!(whose, Some(text), "whose row {text} was given");
        }
    }
    let errors: Vec<_> = each.errors().map(|(index, error)| (texts[index], error)).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(each.embeddings().expect("rows").len(), texts.len());
}

// A text with a row is not a bad text

/// A row proves that its text is good. So the row stays, and the blame goes.
#[test]
fn a_text_that_has_a_row_is_never_named_bad() {
    let fake = fake(Limits::none());
    let partial = finished(&fake, &["a", "b", "c"], &[0, 1], Usage::ZERO);
    let error = refused(&[0, 2]).with_partial(partial);
    assert_eq!(named(&error), [2]);
    assert_eq!(error.partial().expect("two rows").indices(), [0, 1]);
}

/// The same if two inner texts are one text of the caller.
#[test]
fn mapped_indices_that_meet_leave_the_row_and_not_the_blame() {
    let fake = fake(Limits::none());
    let partial = finished(&fake, &["a", "b"], &[1], Usage::ZERO);
    let error = refused(&[0]).with_partial(partial).map_indices(|_| [5]);
    assert_eq!(named(&error), [0; 0]);
    assert_eq!(error.partial().expect("a row").indices(), [5]);
}

/// `Each` gives a text its own row, also behind a text that an error names although it has a row.
#[tokio::test(start_paused = true)]
async fn each_text_gets_its_own_row_where_an_error_names_a_finished_one() {
    let fake = fake(Limits::none());
    let embedder = contradicts_itself(&fake);
    let texts = ["a", "b", "c"];
    assert_each_its_own(&fake, &texts, &embedder.embed_each(Batch::documents(&texts)).await);
}

#[tokio::test(start_paused = true)]
async fn no_text_with_a_row_is_named_by_embed_all() {
    let fake = fake(Limits::none().with_texts(2).with_in_flight(1));
    let inner = fake.clone();
    let embedder = Scripted::new(&fake, move |number, batch| match number {
        1 => Step::fails(refused(&[0, 1]).with_partial(finished(&inner, batch.texts(), &[0], request_of(2)))),
        _ => Step::answers(),
    });
    let texts = ["a", "b", "c", "d", "e"];
    let result = embedder.embed_all(Batch::documents(&texts)).await;
    assert_eq!(sound(&fake, &texts, &result), [0, 1, 2]);
    assert_eq!(named(&result.expect_err("refused")), [3]);
}

#[tokio::test(start_paused = true)]
async fn no_text_with_a_row_is_named_by_dedup() {
    let fake = fake(Limits::none());
    let texts = ["a", "b", "a", "c"];
    let result = contradicts_itself(&fake).dedup().embed(Batch::documents(&texts)).await;
    assert_eq!(sound(&fake, &texts, &result), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn no_text_with_a_row_is_named_by_retry() {
    let fake = fake(Limits::none());
    let inner = fake.clone();
    let embedder = Scripted::new(&fake, move |number, batch| match number {
        0 => Step::fails(unavailable().with_partial(finished(&inner, batch.texts(), &[1], request_of(1)))),
        _ => Step::fails(refused(&[0, 1]).with_partial(finished(&inner, batch.texts(), &[1], request_of(1)))),
    });
    let texts = ["a", "b", "c"];
    let result = embedder.retry(patient()).embed(Batch::documents(&texts)).await;
    // The second attempt is asked for "a" and "c", and has "c".
    assert_eq!(sound(&fake, &texts, &result), [1, 2]);
    assert_eq!(named(&result.expect_err("refused")), [0]);
}

#[tokio::test(start_paused = true)]
async fn no_text_with_a_row_is_named_by_a_stream() {
    let fake = fake(Limits::none());
    let inner = fake.clone();
    let embedder = Scripted::new(&fake, move |_, batch| match batch.texts()[0] {
        "c" => Step::fails(refused(&[0, 1]).with_partial(finished(&inner, batch.texts(), &[1], request_of(1)))),
        _ => Step::answers(),
    });
    let texts = ["a", "b", "c", "d", "e", "f"].map(str::to_owned);
    let options = StreamOptions::new(InputKind::Document).with_window_texts(2).with_window_bytes(1 << 20);
    let windows: Vec<_> = embedder.embed_stream(stream::iter(texts.clone()), options).collect().await;
    let last = windows.last().expect("an error");
    // The row of the failed window, and that of the window begun after it.
    assert_eq!(sound(&fake, &texts, last), [3, 4, 5]);
    assert_eq!(named(last.as_ref().expect_err("refused")), [2]);
}

#[tokio::test(start_paused = true)]
async fn no_text_with_a_row_is_named_by_a_cache() {
    let fake = fake(Limits::none());
    let cached = contradicts_itself(&fake).cached(Memory::unbounded()).expect("one space");
    let texts = ["a", "b", "c"];
    let result = cached.embed(Batch::documents(&texts)).await;
    sound(&fake, &texts, &result);
}

/// A provider that refuses calls with "bad" in it after three seconds, and "x" once, after one.
fn refuses_x_once(fake: &Fake) -> Cached<Scripted> {
    let refuses = AtomicBool::new(true);
    let embedder = Scripted::new(fake, move |_, batch| {
        let place = |text: &str| batch.texts().iter().position(|&of| of == text);
        if let Some(place) = place("bad") {
            return Step::fails(refused(&[place])).after(3 * SECOND);
        }
        match place("x") {
            Some(place) if refuses.swap(false, Ordering::Relaxed) => Step::fails(refused(&[place])).after(SECOND),
            _ => Step::answers(),
        }
    });
    embedder.cached(Memory::unbounded()).expect("one space")
}

/// The calls of two other callers: one shares "y" with a text that is refused, one gets the "x" that was refused
/// before.
async fn others_of(cached: &Cached<Scripted>) {
    let first = async {
        let error = cached.embed_documents(&["bad", "y"]).await.expect_err("refused");
        assert_eq!(named(&error), [0]);
    };
    let third = async {
        tokio::time::sleep(2 * SECOND).await;
        cached.embed_documents(&["x"]).await.expect("it is taken now");
    };
    tokio::join!(first, third);
}

/// A provider refuses a text once and accepts it later, while a second call waits for a third: the cache has the row by
/// then.
#[tokio::test(start_paused = true)]
async fn a_cache_never_names_a_text_whose_row_it_has() {
    let fake = fake(Limits::none());
    let cached = refuses_x_once(&fake);
    let texts = ["x", "y", "z"];
    let second = async {
        tokio::time::sleep(SECOND / 10).await;
        let result = cached.embed(Batch::documents(&texts)).await;
        sound(&fake, &texts, &result);
    };
    let all = async { tokio::join!(others_of(&cached), second) };
    tokio::time::timeout(MINUTE, all).await.expect("nobody hangs");
}

/// The same through `embed_each`, which must not hand out the row of "x" for "y", and that of "y" for "z".
#[tokio::test(start_paused = true)]
async fn each_text_gets_its_own_row_where_a_provider_refuses_once_and_takes_later() {
    let fake = fake(Limits::none());
    let cached = refuses_x_once(&fake);
    let texts = ["x", "y", "z"];
    let second = async {
        tokio::time::sleep(SECOND / 10).await;
        assert_each_its_own(&fake, &texts, &cached.embed_each(Batch::documents(&texts)).await);
    };
    let all = async { tokio::join!(others_of(&cached), second) };
    tokio::time::timeout(MINUTE, all).await.expect("nobody hangs");
}

// Indices of texts that the batch does not have

/// Wrong answers: each names a text that the call does not have, and costs 7 tokens.
const ELSEWHERE: [usize; 3] = [2, 5, usize::MAX];
const COST: u64 = 7;

/// Makes an error that names a text that does not exist.
fn names(index: usize) -> Error {
    refused(&[index]).with_usage(request_of(COST))
}

/// Makes an error with a row of a text that does not exist, beside one that does. Its kind would be retried.
fn finishes(fake: &Fake, texts: &[&str], index: usize) -> Error {
    unavailable().with_partial(finished(fake, texts, &[0, index], request_of(COST)))
}

/// The same embedder with each of those errors, for its first call.
fn strays(fake: &Fake) -> Vec<(String, Scripted)> {
    let mut all = Vec::new();
    for index in ELSEWHERE {
        let namer = Scripted::new(fake, move |number, _| match number {
            0 => Step::fails(names(index)),
            _ => Step::answers(),
        });
        all.push((format!("names text {index}"), namer));
        let inner = fake.clone();
        let finisher = Scripted::new(fake, move |number, batch| match number {
            0 => Step::fails(finishes(&inner, batch.texts(), index)),
            _ => Step::answers(),
        });
        all.push((format!("has a row of text {index}"), finisher));
    }
    all
}

/// Fails unless the answer counts as malformed, no text is blamed, and the cost is told.
fn assert_unusable(what: &str, error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
    assert_eq!(named(error), [0; 0], "{what}: {error}");
    assert_eq!(paid(error.total_usage()), (COST, 1), "{what}: {error}");
}

fn assert_unusable_answer(what: &str, result: Result<Embeddings>) {
    assert_unusable(what, &result.expect_err(what));
}

#[tokio::test(start_paused = true)]
async fn embed_all_blames_no_text_that_there_is_not() {
    let fake = fake(Limits::none());
    for (what, embedder) in strays(&fake) {
        assert_unusable_answer(&what, embedder.embed_all(Batch::documents(&["a", "b"])).await);
    }
}

/// No text of another call is blamed, either. If a batch is many calls, index 1 of the second call is text 3, and index
/// 2 is no text at all.
#[tokio::test(start_paused = true)]
async fn embed_all_blames_no_text_of_another_call() {
    let fake = fake(Limits::none().with_texts(2).with_in_flight(1));
    for index in ELSEWHERE {
        let embedder = Scripted::new(&fake, move |number, _| match number {
            1 => Step::fails(names(index)),
            _ => Step::answers(),
        });
        let texts = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let result = embedder.embed_all(Batch::documents(&texts)).await;
        assert_eq!(sound(&fake, &texts, &result), [0, 1], "index {index}");
        let error = result.expect_err("unusable");
        assert_eq!((error.kind(), named(&error)), (ErrorKind::Protocol, vec![]), "index {index}: {error}");
        assert_eq!(paid(error.total_usage()), (COST + 2, 2), "index {index}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn embed_each_blames_no_text_that_there_is_not() {
    let fake = fake(Limits::none());
    for (what, embedder) in strays(&fake) {
        let each = embedder.embed_each(Batch::documents(&["a", "b"])).await;
        for result in each.iter() {
            if let Err(error) = result {
                assert_eq!((error.kind(), named(error)), (ErrorKind::Protocol, vec![]), "{what}: {error}");
            }
        }
        assert!(each.errors().count() > 0, "{what}: it was believed");
        assert_eq!(paid(each.usage()), (COST, 1), "{what}");
    }
}

/// A single text is not blamed if the answer is about another text.
#[tokio::test(start_paused = true)]
async fn a_single_text_is_not_blamed_for_an_answer_about_another() {
    let fake = fake(Limits::none());
    for index in [1, 5, usize::MAX] {
        let what = format!("names text {index} of one");
        let embedder = Scripted::new(&fake, move |_, _| Step::fails(names(index)));
        assert_unusable_answer(&what, embedder.embed_all(Batch::documents(&["a"])).await);
        let each = embedder.embed_each(Batch::documents(&["a"])).await;
        let error = each.result(0).expect_err(&what);
        assert_eq!((error.kind(), named(error)), (ErrorKind::Protocol, vec![]), "{what}: {error}");
        assert_eq!(paid(each.usage()), (COST, 1), "{what}");
        assert_eq!(embedder.asked().len(), 2, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn dedup_blames_no_text_that_there_is_not() {
    let fake = fake(Limits::none());
    for (what, embedder) in strays(&fake) {
        // The inner call has two texts.
        assert_unusable_answer(&what, embedder.dedup().embed(Batch::documents(&["a", "a", "b"])).await);
    }
    for (what, embedder) in strays(&fake) {
        assert_unusable_answer(&what, embedder.dedup().embed_all(Batch::documents(&["a", "b"])).await);
    }
}

/// A malformed reply is not requested again, either.
#[tokio::test(start_paused = true)]
async fn retry_blames_no_text_that_there_is_not() {
    let fake = fake(Limits::none());
    for (what, embedder) in strays(&fake) {
        let retry = Retry::new(embedder.clone(), patient());
        assert_unusable_answer(&what, retry.embed(Batch::documents(&["a", "b"])).await);
        assert_eq!(embedder.asked().len(), 1, "{what}");
    }
    // The same for the rest that a second attempt asks for.
    let inner = fake.clone();
    let embedder = Scripted::new(&fake, move |number, batch| match number {
        0 => Step::fails(unavailable().with_partial(finished(&inner, batch.texts(), &[0], Usage::ZERO))),
        _ => Step::fails(names(1)),
    });
    let texts = ["a", "b"];
    let result = embedder.retry(patient()).embed(Batch::documents(&texts)).await;
    assert_eq!(sound(&fake, &texts, &result), [0]);
    assert_unusable_answer("the second attempt", result);
}

#[tokio::test(start_paused = true)]
async fn a_cache_blames_no_text_that_there_is_not() {
    let fake = fake(Limits::none());
    for (what, embedder) in strays(&fake) {
        let cached = embedder.cached(Memory::unbounded()).expect("one space");
        assert_unusable_answer(&what, cached.embed(Batch::documents(&["a", "b"])).await);
    }
}

/// The third window, whose first text is number 4 of the stream.
#[tokio::test(start_paused = true)]
async fn a_stream_blames_no_text_that_there_is_not() {
    let fake = fake(Limits::none());
    for index in ELSEWHERE {
        let embedder = Scripted::new(&fake, move |_, batch| match batch.texts()[0] {
            "text 4" => Step::fails(names(index)),
            _ => Step::answers(),
        });
        let texts: Vec<String> = super::numbered(6);
        let options = StreamOptions::new(InputKind::Document).with_window_texts(2).with_window_bytes(1 << 20);
        let windows: Vec<_> = embedder.embed_stream(stream::iter(texts), options).collect().await;
        assert_eq!(windows.len(), 3);
        let error = windows[2].as_ref().expect_err("unusable");
        assert_unusable(&format!("names text {index}"), error);
    }
}

/// An unusable vector costs only its own text the row, also over a cache that makes many calls of one. The error of
/// that text has no bill: the bill belongs to all texts together.
#[tokio::test(start_paused = true)]
async fn one_unusable_vector_sinks_no_other_text() {
    let fake = fake(Limits::none().with_texts(2).with_in_flight(1));
    let inner = fake.clone();
    let provider = Scripted::new(&fake, move |number, batch| match number {
        0 => {
            let bad = vec![BadText::new(0, BadTextReason::Unusable)];
            let error = Error::new(ErrorKind::Protocol, "as scripted").with_bad_texts(bad).with_usage(request_of(3));
            Step::fails(error.with_partial(finished(&inner, batch.texts(), &[1], request_of(2))))
        }
        _ => Step::answers(),
    });
    let cached = provider.cached(Memory::unbounded()).expect("one space");
    let texts = ["zeros", "one", "two", "three", "four", "five", "six"];
    let each = cached.embed_each(Batch::documents(&texts)).await;
    let failed: Vec<usize> = each.errors().map(|(index, _)| index).collect();
    assert_eq!(failed, [0], "{:?}", each.errors().last());
    for (text, row) in texts.iter().zip(each.iter()).skip(1) {
        assert_eq!(row.expect("a row"), fake.vector_of(InputKind::Document, text));
    }
    let error = each.result(0).expect_err("unusable");
    assert_eq!((named(error), error.total_usage()), (vec![0], Usage::ZERO), "{error}");
    let others = fake.charged();
    assert_eq!(paid(each.usage()), (others.tokens + 5, others.requests + 2));
}

/// An error that ends a run names no text of the call that it came from. It has no bill: the bill belongs to all texts
/// together.
#[tokio::test(start_paused = true)]
async fn an_error_that_is_spread_over_texts_names_none_and_has_no_bill() {
    let fake = fake(Limits::none().with_texts(3).with_in_flight(1));
    fake.fail_next(Error::new(ErrorKind::Protocol, "as scripted").with_usage(request_of(500)));
    let texts = ["a", "b", "c", "d"];
    let each = fake.embed_each(Batch::documents(&texts)).await;
    assert_eq!(each.errors().count(), 3);
    for (index, error) in each.errors() {
        assert!(error.bad_texts().is_empty() && error.total_usage() == Usage::ZERO, "{index}: {error:?}");
    }
    assert_eq!(each.usage().tokens, 500 + fake.charged().tokens);
}
