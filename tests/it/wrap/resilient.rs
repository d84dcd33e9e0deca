//! `Resilient` keeps the laws, refuses members of another space, and asks the next member when one fails.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use docvector_embed::{
    Batch, BreakerState, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Lane, Limits, Space, Truncation,
    cache::Memory,
    conformance::{self, Suite},
    plan,
    provider::Fake,
    wrap::{BreakerPolicy, Hedging, Proof, Resilient, RetryPolicy, Totals},
};

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "as scripted")
}

fn other(width: usize) -> Fake {
    Fake::builder().with_model("other").with_dimensions(width).build().expect("valid")
}

/// Both members are the same fake, so that its account is that of all members.
fn twice(fake: Fake) -> Resilient {
    Resilient::builder(fake.clone()).with_fallback(fake).with_trusted_spaces().build().expect("one space")
}

#[tokio::test(start_paused = true)]
async fn keeps_the_laws() {
    conformance::wrapper(|fake| Resilient::builder(fake).build().expect("one space")).await.expect("alone");
    conformance::wrapper(twice).await.expect("with a fall-back");
    let hedged = |fake: Fake| {
        let builder = Resilient::builder(fake.clone()).with_fallback(fake).with_trusted_spaces();
        builder.with_hedging(Hedging::default().with_min_samples(1)).build().expect("one space")
    };
    conformance::wrapper(hedged).await.expect("hedged");
    conformance::wrapper(|fake| twice(fake).cached(Memory::new(1 << 20)).expect("one space")).await.expect("cached");
    conformance::wrapper(|fake| {
        let member = |fake: Fake| fake.timeout(Duration::from_secs(5)).retry(RetryPolicy::default().with_attempts(2));
        Resilient::builder(member(fake.clone()))
            .with_fallback(member(fake))
            .with_trusted_spaces()
            .build()
            .expect("one space")
    })
    .await
    .expect("stacks as members");
}

#[tokio::test(start_paused = true)]
async fn members_of_other_limits_keep_the_laws_together() {
    let fake = |limits| Fake::builder().with_dimensions(8).with_limits(limits).build().expect("valid");
    let large = fake(Limits::none().with_texts(9).with_tokens_per_text(40).with_in_flight(8));
    let small = fake(Limits::none().with_texts(4).with_tokens_per_text(24).with_in_flight(1));
    for members in [[&large, &small], [&small, &large]] {
        let builder = Resilient::builder(members[0].clone()).with_fallback(members[1].clone());
        let both = builder.with_trusted_spaces().build().expect("one space");
        assert_eq!((both.limits().texts, both.limits().tokens_per_text), (Some(4), Some(24)));
        assert_eq!(both.limits().in_flight, members[0].limits().in_flight);
        Suite::new(&both).run().await.expect("keeps the laws");
        // A truncated text has the same vector, whichever member answers, and the result names it.
        let long = "word ".repeat(60);
        let texts = ["short", &long];
        let batch = Batch::documents(&texts).with_truncation(Truncation::Truncate);
        let first = both.embed(batch).await.expect("answers");
        members[0].fail_next(down());
        let second = both.embed(batch).await.expect("the other answers");
        assert_eq!((first.truncated(), second.truncated()), (&[1][..], &[1][..]));
        assert_eq!(first.as_slice(), second.as_slice());
        members[0].fail_next(down());
        members[1].fail_next(down());
        both.embed(batch).await.expect_err("nobody answers");
    }
}

#[tokio::test]
async fn members_of_other_spaces_are_refused_by_name() {
    for width in [8, 16] {
        let error = Resilient::builder(Fake::new(8)).with_fallback(other(width)).build().expect_err("another space");
        assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
        let text = error.to_string();
        assert!(text.contains("fake (8d, ") && text.contains(&format!("other ({width}d, ")), "{text}");
        assert_eq!(text.contains("though they have the same width"), width == 8, "{text}");
    }
    let both = Resilient::builder(Fake::new(8)).with_fallback_in_another_space(other(8)).build().expect("asked for");
    let error = both.clone().cached(Memory::new(1 << 20)).expect_err("two spaces");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("lies in 2 spaces: cache each of its parts"), "{error}");
    let error = Resilient::builder(both).build().expect_err("a member of two spaces");
    assert_eq!(error.kind(), ErrorKind::Config);
    for cosine in [0.0, -1.0, 1.5, f32::NAN] {
        let error = Resilient::builder(Fake::new(8)).with_min_cosine(cosine).build().expect_err("no cosine");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

/// States the space of another model, and gives vectors of its own.
#[derive(Debug)]
struct Liar(Fake, Space);

impl std::fmt::Display for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("liar")
    }
}

#[docvector_embed::async_trait]
impl Embedder for Liar {
    async fn embed(&self, batch: Batch<'_>) -> docvector_embed::Result<docvector_embed::Embeddings> {
        let mut options = batch.options();
        options.space = None;
        let rows = self.0.embed(Batch::with_options(batch.texts(), options)).await?;
        docvector_embed::Embeddings::new(rows.len(), &self.1, rows.as_slice().to_vec(), rows.charges().clone())
    }
    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.1)
    }
    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

fn liar() -> Liar {
    Liar(other(8), Fake::new(8).spaces()[0].clone())
}

#[tokio::test]
async fn a_name_that_lies_is_found_by_probes() {
    let builder = || Resilient::builder(Fake::new(8)).with_fallback(Fake::new(8)).with_fallback(liar());
    let error = builder().build_verified().await.expect_err("another model");
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    assert!(error.to_string().contains("liar states fake (8d, ") && error.usage().requests > 0, "{error}");
    let primary = Fake::new(8);
    let resilient = Resilient::builder(primary.clone()).with_fallback(liar()).build().expect("the names are equal");
    let proofs = || resilient.members().iter().map(|member| member.proof).collect::<Vec<_>>();
    assert_eq!(proofs(), [Proof::Stated, Proof::Missing]);
    // Before the proof, the liar gets no calls, and the error says what to do.
    primary.fail_next(down());
    let error = resilient.embed_query("hello").await.expect_err("nobody may answer");
    assert!(error.to_string().contains("`Resilient::verify`"), "{error}");
    resilient.verify().await.expect_err("another model");
    assert_eq!(proofs(), [Proof::Stated, Proof::Refuted]);
    primary.fail_next(down());
    let error = resilient.embed_query("hello").await.expect_err("nobody may answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("liar was not asked: its vectors are those of another model"), "{error}");
}

#[tokio::test]
async fn a_member_that_was_down_is_proved_when_it_is_needed() {
    let (own, twin) = (Fake::new(8), Fake::new(8));
    let resilient = Resilient::builder(own.clone()).with_fallback(twin.clone()).build().expect("one space");
    twin.fail_next(down());
    let error = resilient.verify().await.expect_err("the twin is down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.total_usage(), own.charged());
    let before = own.charged() + twin.charged();
    own.fail_next(down());
    let rows = resilient.embed_documents(&["a text"]).await.expect("the twin answers");
    assert_eq!(rows.row(0), twin.vector_of(InputKind::Document, "a text"));
    // The proof is part of the bill of the call that needed it.
    let spent = own.charged() + twin.charged();
    assert_eq!((rows.usage().tokens, rows.usage().requests), (spent.tokens - before.tokens, 3));
    assert_eq!(resilient.members()[1].proof, Proof::Verified);
    let cost = resilient.verify().await.expect("both are up");
    assert_eq!(cost.usage().requests, 4);
}

#[tokio::test]
async fn a_primary_that_changes_is_shut_out() {
    #[derive(Debug)]
    struct Changes(Fake, Liar, std::sync::atomic::AtomicBool);
    impl std::fmt::Display for Changes {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("changes")
        }
    }
    #[docvector_embed::async_trait]
    impl Embedder for Changes {
        async fn embed(&self, batch: Batch<'_>) -> docvector_embed::Result<docvector_embed::Embeddings> {
            let changed = self.2.load(std::sync::atomic::Ordering::Relaxed);
            if changed { self.1.embed(batch).await } else { self.0.embed(batch).await }
        }
        fn spaces(&self) -> &[Space] {
            self.0.spaces()
        }
        fn limits(&self) -> Limits {
            self.0.limits()
        }
    }
    let twin = Fake::new(8);
    let primary = std::sync::Arc::new(Changes(Fake::new(8), liar(), false.into()));
    let builder = Resilient::builder(primary.clone()).with_fallback(twin.clone());
    let resilient = builder.build_verified().await.expect("the same model");
    primary.2.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = resilient.verify().await.expect_err("the primary has changed");
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    let row = resilient.embed_query("hello").await.expect("the twin answers");
    assert_eq!(row, twin.vector_of(InputKind::Query, "hello"));
    primary.2.store(false, std::sync::atomic::Ordering::Relaxed);
    resilient.verify().await.expect("the same again");
    assert_eq!(resilient.members()[0].proof, Proof::Stated);
}

#[tokio::test]
async fn another_space_is_tagged_and_never_given_where_a_space_is_wanted() {
    let (own, foreign) = (Fake::new(8), other(8));
    let builder = Resilient::builder(own.clone()).with_fallback_in_another_space(foreign.clone());
    let both = builder.build().expect("asked for");
    let space = own.spaces()[0].clone();
    own.fail_next(down());
    let rows = both.embed_documents(&["a text"]).await.expect("the other answers");
    assert_eq!(rows.space(), &foreign.spaces()[0]);
    own.fail_next(down());
    let error = both.embed_query_in(&space, "a text").await.expect_err("its space is down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let query = both.embed_query_in(&foreign.spaces()[0], "a text").await.expect("its space is up");
    assert_eq!(query, foreign.vector_of(InputKind::Query, "a text"));
    let empty = both.embed(Batch::documents(&[]).with_space(foreign.spaces()[0].id())).await.expect("no work");
    assert_eq!(empty.space(), &foreign.spaces()[0]);
    // Rows of the first space come with the error of a call that ends in the second one.
    let partial = docvector_embed::Partial::new(vec![1], own.embed_documents(&["b"]).await.expect("up")).expect("fits");
    own.fail_next(down().with_partial(partial));
    foreign.fail_next(Error::new(ErrorKind::InvalidInput, "as scripted"));
    let error = both.embed_documents(&["a", "b"]).await.expect_err("refused");
    let rows: Vec<_> = error.partials().map(|partial| (partial.indices(), partial.embeddings().space())).collect();
    assert_eq!(rows, [(&[1][..], &space)]);
}

#[tokio::test]
async fn finished_rows_are_kept_and_only_the_rest_is_asked_for() {
    let (own, twin) = (Fake::new(8), Fake::new(8));
    let builder = Resilient::builder(own.clone()).with_fallback(twin.clone());
    let both = builder.with_trusted_spaces().build().expect("one space");
    let done = own.embed_documents(&["b"]).await.expect("up");
    let partial = docvector_embed::Partial::new(vec![1], done).expect("fits");
    own.fail_next(down().with_partial(partial).with_usage(docvector_embed::Usage::of_unanswered()));
    let rows = both.embed_documents(&["a", "b", "c"]).await.expect("the twin answers");
    assert_eq!(twin.calls()[0].texts, ["a", "c"]);
    for (row, text) in ["a", "b", "c"].iter().enumerate() {
        assert_eq!(rows.row(row), own.vector_of(InputKind::Document, text));
    }
    let usage = rows.usage();
    assert_eq!((usage.tokens, usage.requests, usage.unanswered), (3, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_and_closes_as_documented() {
    let (own, twin) = (Fake::new(8), Fake::new(8));
    let builder = Resilient::builder(own.clone()).with_fallback(twin.clone()).with_trusted_spaces();
    let both = builder.with_breaker(BreakerPolicy::default()).build().expect("one space");
    let state = || both.members()[0].breaker;
    for _ in 0..5 {
        assert_eq!(state(), BreakerState::Closed);
        own.fail_next(down());
        both.embed_query("hello").await.expect("the twin answers");
    }
    assert_eq!((state(), both.members()[0].open_for), (BreakerState::Open, Some(Duration::from_secs(30))));
    both.embed_query("hello").await.expect("the twin answers");
    assert_eq!(own.calls().len(), 5, "an open member is passed by");
    tokio::time::advance(Duration::from_secs(30)).await;
    for _ in 0..3 {
        assert_eq!(state(), BreakerState::HalfOpen);
        both.embed_query("hello").await.expect("a probe");
    }
    assert_eq!((state(), own.calls().len()), (BreakerState::Closed, 8));
}

/// The longest time that can be set keeps a member away for good, and nothing adds to it.
#[tokio::test(start_paused = true)]
async fn a_breaker_can_be_open_for_ever() {
    let (own, twin) = (Fake::new(8), Fake::new(8));
    let policy = BreakerPolicy::default().with_consecutive_failures(1);
    let policy = policy.with_max_open(Duration::MAX).with_open_for(Duration::MAX);
    let builder = Resilient::builder(own.clone()).with_fallback(twin.clone()).with_trusted_spaces();
    let both = builder.with_breaker(policy).build().expect("one space");
    own.fail_next(down());
    both.embed_query("hello").await.expect("the twin answers");
    let late = Batch::queries(&["hello"]).with_deadline(tokio::time::Instant::now().into_std());
    let error = both.embed(late).await.expect_err("it is too late");
    assert!(error.message().contains("its breaker is open for 18446744073709551615 more seconds"), "{error}");
    // Two calls that nobody else can take: one is a probe, and the other one waits for it.
    let hold = own.hold();
    (0..2).for_each(|_| twin.fail_next(down()));
    let [first, second] = [(); 2].map(|()| both.embed_query("hello"));
    let (first, second, ()) = tokio::join!(first, second, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(hold);
    });
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_late_call_is_hedged_and_both_are_booked() {
    let (own, twin) = (Fake::new(8), Fake::new(8));
    let hedging = Hedging::default().with_min_samples(10).with_share(0.5);
    let builder = Resilient::builder(own.clone()).with_fallback(twin.clone()).with_trusted_spaces();
    let both = builder.with_hedging(hedging).build().expect("one space");
    for _ in 0..10 {
        both.embed_query("hello").await.expect("answers");
    }
    let hold = own.hold();
    let batch = Batch::queries(&["hello"]);
    let rows = both.embed(batch).await.expect("the twin answers");
    assert_eq!((rows.usage().requests, rows.usage().unanswered), (1, 1));
    // Bulk work is never asked for twice.
    let bulk = tokio::time::timeout(Duration::from_secs(60), both.embed(batch.with_lane(Lane::Bulk))).await;
    bulk.expect_err("waits for the primary");
    assert_eq!(twin.calls().len(), 1);
    drop(hold);
    assert_eq!(both.embed(batch).await.expect("answers").usage().unanswered, 0);
}

/// Is not ready at the next polls, and then answers at once.
#[derive(Clone, Debug)]
struct AfterPolls(Fake, Arc<AtomicUsize>);

impl std::fmt::Display for AfterPolls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AfterPolls({})", self.0)
    }
}

#[docvector_embed::async_trait]
impl Embedder for AfterPolls {
    async fn embed(&self, batch: Batch<'_>) -> docvector_embed::Result<docvector_embed::Embeddings> {
        let less = |polls: usize| polls.checked_sub(1);
        let is_ready = |_: &mut Context<'_>| match self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Poll::Pending,
            Err(_) => Poll::Ready(()),
        };
        poll_fn(is_ready).await;
        self.0.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

/// The answer comes after the decision to ask another member, and before it is asked.
#[tokio::test(start_paused = true)]
async fn an_extra_call_is_booked_only_if_it_began() {
    let (own, totals) = (AfterPolls(Fake::new(8), Arc::default()), Totals::new());
    let builder = Resilient::builder(own.clone().metered(totals.clone()));
    let builder = builder.with_fallback(Fake::new(8).metered(totals.clone())).with_trusted_spaces();
    let hedging = Hedging::default().with_min_samples(1).with_share(1.0);
    let both = builder.with_hedging(hedging).build().expect("one space");
    let batch = Batch::queries(&["hello"]);
    let mut told = both.embed(batch).await.expect("answers").usage();
    // The first poll, and that at the end of the delay.
    own.1.store(2, Ordering::Relaxed);
    told += both.embed(batch).await.expect("answers").usage();
    assert_eq!(told, totals.snapshot().usage);
}

#[tokio::test]
async fn a_dry_run_names_the_members_in_their_order() {
    let both = twice(Fake::new(8));
    let shown = plan::explain(&both, &Batch::documents(&["a text"])).to_string();
    let own = "fake: is asked first; its breaker is closed; taken at its word\n    fake: 1 call";
    assert!(shown.starts_with(&format!("Resilient\n  {own}")), "{shown}");
    assert!(shown.contains("\n  fake #2: is asked if those before fail; "), "{shown}");
}

#[tokio::test]
async fn two_fall_backs_of_a_second_space_are_refused_unless_they_are_taken_at_their_word() {
    let builder = || Resilient::builder(Fake::new(8)).with_fallback_in_another_space(other(8));
    let error = builder().with_fallback_in_another_space(other(8)).build().expect_err("nobody compares them");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`Resilient` of their own"), "{error}");
    builder().with_fallback_in_another_space(other(8)).with_trusted_spaces().build().expect("asked for");
    let nested = Resilient::builder(other(8)).with_fallback(other(8)).build_verified().await.expect("one model");
    Resilient::builder(Fake::new(8)).with_fallback_in_another_space(nested).build().expect("proved inside");
}

#[tokio::test]
async fn a_collection_stays_in_the_primarys_space() {
    let (own, foreign) = (Fake::new(8), other(16));
    let builder = Resilient::builder(own.clone()).with_fallback_in_another_space(foreign.clone());
    let both = builder.build().expect("asked for");
    own.fail_next(down());
    let texts = ["a page"];
    let error = both.embed(Batch::documents(&texts).with_key("library:serde")).await.expect_err("its space is down");
    assert_eq!((error.kind(), foreign.calls().len()), (ErrorKind::Unavailable, 0));
}

/// Embeds no more than the beginning of each text, and says nothing of it.
#[derive(Debug)]
struct Cuts(Fake, usize);

impl std::fmt::Display for Cuts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cuts")
    }
}

#[docvector_embed::async_trait]
impl Embedder for Cuts {
    async fn embed(&self, batch: Batch<'_>) -> docvector_embed::Result<docvector_embed::Embeddings> {
        let texts: Vec<&str> = batch.texts().iter().map(|text| &text[..text.floor_char_boundary(self.1)]).collect();
        self.0.embed(batch.with_texts(&texts)).await
    }
    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }
    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

/// A token is four characters here.
#[tokio::test]
async fn a_server_that_truncates_at_512_tokens_in_silence_is_found_out() {
    for tokens in [128, 256, 512, 1000] {
        let builder = Resilient::builder(Fake::new(8)).with_fallback(Cuts(Fake::new(8), tokens * 4));
        let error = builder.build_verified().await.expect_err("other vectors of long texts");
        assert_eq!(error.kind(), ErrorKind::SpaceMismatch, "{tokens}: {error}");
    }
    let builder = Resilient::builder(Fake::new(8)).with_fallback(Cuts(Fake::new(8), usize::MAX));
    builder.build_verified().await.expect("the same");
}

#[tokio::test]
async fn an_observer_hears_of_proofs_that_no_call_has_asked_for() {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = heard.clone();
    let builder = Resilient::builder(Fake::new(8)).with_fallback(Fake::new(8)).with_label("twin");
    let builder = builder.with_observer(move |event: &docvector_embed::observer::Event<'_>| {
        if let docvector_embed::observer::EventKind::Verified { member, same, .. } = event.kind {
            hears.lock().expect("no panic").push((member.to_owned(), same));
        }
    });
    let resilient = builder.build_verified().await.expect("one model");
    assert_eq!(*heard.lock().expect("no panic"), [("fake".to_owned(), true), ("twin".to_owned(), true)]);
    assert_eq!(resilient.unclaimed().usage().requests, 4, "nobody else is told the cost");
}

#[tokio::test]
async fn bad_texts_are_refused_before_a_proof_or_a_wait() {
    let (own, twin) = (Fake::new(8), Fake::new(8));
    let resilient = Resilient::builder(own.clone()).with_fallback(twin.clone()).build().expect("one space");
    twin.fail_next(down());
    resilient.verify().await.expect_err("the twin is down");
    for _ in 0..5 {
        own.fail_next(down());
        resilient.embed_query("hello").await.ok();
    }
    let asked = own.calls().len() + twin.calls().len();
    let error = resilient.embed_documents(&["", "a"]).await.expect_err("an empty text");
    assert_eq!((error.kind(), error.bad_texts().len()), (ErrorKind::InvalidInput, 1));
    assert_eq!(own.calls().len() + twin.calls().len(), asked);
}
