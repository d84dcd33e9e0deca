//! `embed_each` over a service that fails for as long as some text is in the call, and over one that just fails.

use std::sync::atomic::{AtomicUsize, Ordering};

use docvector_embed::{
    BadText, BadTextReason, Batch, Each, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits,
    Result, Space, Usage, async_trait, provider::Fake,
};

use crate::support::numbered;

/// Which calls fail.
#[derive(Debug)]
enum Fails {
    /// Those with one of these texts.
    With(Vec<String>),
    /// All, after so many.
    After(usize),
    /// So many, and then none.
    First(usize),
}

/// Fails calls with an error that names no text.
#[derive(Debug)]
struct Failing {
    fake: Fake,
    fails: Fails,
    error: Error,
    /// After so many calls, all fail.
    answers: usize,
    calls: AtomicUsize,
}

impl Failing {
    fn new(texts_a_call: usize, fails: Fails, kind: ErrorKind, status: Option<u16>) -> Self {
        let limits = Limits::none().with_texts(texts_a_call).with_in_flight(1);
        let fake = Fake::builder().with_limits(limits).build().expect("valid");
        let error = Error::new(kind, "as scripted").with_usage(Usage::of_request(Some(0)));
        let error = status.into_iter().fold(error, Error::with_status);
        Self { fake, fails, error, answers: usize::MAX, calls: AtomicUsize::new(0) }
    }

    /// Embeds the texts, and checks what holds for every failure: each row is its text's, and the costs add up.
    async fn each(&self, texts: &[String]) -> Each {
        let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let each = self.embed_each(Batch::documents(&refs)).await;
        assert_eq!(each.len(), texts.len());
        for (row, text) in each.iter().zip(texts) {
            if let Ok(row) = row {
                assert_eq!(row, self.fake.vector_of(InputKind::Document, text));
            }
        }
        assert_eq!(each.usage().requests as usize, self.calls(), "every call is on the bill");
        assert_eq!(each.usage().tokens, self.fake.charged().tokens);
        each
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait]
impl Embedder for Failing {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let fails = match &self.fails {
            Fails::With(poison) => batch.texts().iter().any(|text| poison.iter().any(|bad| bad == text)),
            Fails::After(calls) => number >= *calls,
            Fails::First(calls) => number < *calls,
        };
        if fails || number >= self.answers {
            self.fake.fail_next(self.error.clone());
        }
        self.fake.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

fn with(texts: &[String], bad: &[usize]) -> Fails {
    Fails::With(bad.iter().map(|&index| texts[index].clone()).collect())
}

fn failed(each: &Each) -> Vec<usize> {
    each.errors().map(|(index, _)| index).collect()
}

/// Returns the texts that are blamed.
fn blamed(each: &Each) -> Vec<usize> {
    each.errors().filter(|(_, error)| !error.bad_texts().is_empty()).map(|(index, _)| index).collect()
}

#[tokio::test]
async fn one_failing_text_costs_no_other_its_row() {
    let texts = numbered(64);
    for (kind, status) in [(ErrorKind::Unavailable, 500), (ErrorKind::Unavailable, 502), (ErrorKind::Protocol, 200)] {
        for bad in [0, 5, 31, 32, 63] {
            let service = Failing::new(64, with(&texts, &[bad]), kind, Some(status));
            let each = service.each(&texts).await;
            assert_eq!(failed(&each), [bad], "{kind} {status}");
            let error = each.result(bad).expect_err("it fails");
            assert_eq!((error.kind(), error.status()), (kind, Some(status)));
            assert_eq!(error.bad_texts(), [BadText::new(bad, BadTextReason::Rejected)]);
            // The whole, two halves at each of six steps, the text once more, and a proof that the service answers.
            assert_eq!(service.calls(), 1 + 2 * 6 + 2, "{kind} {status} {bad}");
        }
    }
}

/// All sets of one and two texts, in calls of all sizes.
#[tokio::test]
async fn every_pair_of_failing_texts_is_found() {
    for count in 1..=9 {
        let texts = numbered(count);
        for size in [1, 2, 3, count] {
            for (first, second) in (0..count).flat_map(|first| (first..count).map(move |second| (first, second))) {
                let bad = if first == second { vec![first] } else { vec![first, second] };
                let service = Failing::new(size, with(&texts, &bad), ErrorKind::Unavailable, Some(500));
                let each = service.each(&texts).await;
                assert_eq!(failed(&each), bad, "{count} texts, {size} per call");
                // No text is blamed before the service has answered for another one.
                let is_proven = |index: &usize| (0..count).any(|i| !bad.contains(&i) && i / size <= index / size);
                let proven: Vec<usize> = bad.iter().copied().filter(is_proven).collect();
                assert_eq!(blamed(&each), proven, "{count} texts, {size} per call, {bad:?} fail");
            }
        }
    }
}

#[tokio::test]
async fn a_failure_that_passes_costs_no_text_its_row() {
    let texts = numbered(64);
    for failures in 1..=5 {
        let service = Failing::new(64, Fails::First(failures), ErrorKind::Unavailable, Some(500));
        assert_eq!(failed(&service.each(&texts).await), [0_usize; 0], "{failures} failures");
    }
}

#[tokio::test]
async fn a_service_that_is_down_gets_few_requests_and_blames_no_text() {
    let texts = numbered(6400);
    let service = Failing::new(64, Fails::After(0), ErrorKind::Unavailable, Some(500));
    let each = service.each(&texts).await;
    assert_eq!((failed(&each).len(), blamed(&each).len()), (6400, 0));
    // The first call, its halves and three texts alone; then two calls that are not searched.
    assert_eq!(service.calls(), 1 + 2 + 3 + 2);
}

#[tokio::test]
async fn a_service_that_dies_half_way_gets_few_requests_and_blames_no_text() {
    let texts = numbered(640);
    for answers in 1..=9 {
        let service = Failing::new(64, Fails::After(answers), ErrorKind::Unavailable, Some(500));
        let each = service.each(&texts).await;
        assert_eq!((failed(&each).len(), blamed(&each).len()), (640 - 64 * answers, 0), "{answers} answers");
        assert!(service.calls() <= answers + 4 + 2 * 2, "{answers} answers: {} calls", service.calls());
    }
}

/// A service may also die while the cause of a failure is looked for.
#[tokio::test]
async fn a_service_that_dies_in_a_search_blames_no_text() {
    let texts = numbered(64);
    for answers in 1..=14 {
        let service = Failing::new(64, with(&texts, &[37]), ErrorKind::Unavailable, Some(500));
        let service = Failing { answers, ..service };
        let each = service.each(&texts).await;
        assert_eq!(blamed(&each), [0_usize; 0], "{answers} answers");
        assert!(failed(&each).contains(&37));
        assert!(service.calls() <= answers + 8, "{answers} answers: {} calls", service.calls());
    }
}

/// Without an answer, or if the service says that it is too busy, halves would only add to its trouble.
#[tokio::test]
async fn failures_of_the_whole_service_are_not_searched() {
    let texts = numbered(8);
    for (kind, status) in [
        (ErrorKind::Unavailable, None),
        (ErrorKind::Unavailable, Some(503)),
        (ErrorKind::Unavailable, Some(504)),
        (ErrorKind::Unavailable, Some(522)),
        (ErrorKind::Unavailable, Some(524)),
        (ErrorKind::Unavailable, Some(529)),
        (ErrorKind::Timeout, None),
        (ErrorKind::RateLimited, Some(429)),
        (ErrorKind::QuotaExhausted, Some(402)),
        (ErrorKind::Auth, Some(401)),
    ] {
        let service = Failing::new(8, with(&texts, &[3]), kind, status);
        let each = service.each(&texts).await;
        assert_eq!((failed(&each).len(), blamed(&each).len(), service.calls()), (8, 0, 1), "{kind} {status:?}");
    }
}

#[tokio::test]
async fn a_search_has_a_bound() {
    let texts = numbered(1024);
    let bad: Vec<usize> = (0..1024).filter(|index| index % 3 == 0).collect();
    let service = Failing::new(1024, with(&texts, &bad), ErrorKind::Unavailable, Some(500));
    let each = service.each(&texts).await;
    assert!(bad.iter().all(|&index| each.result(index).is_err()));
    assert!((100..=140).contains(&service.calls()), "{} calls", service.calls());
}
