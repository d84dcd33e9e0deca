//! Jobs with a cache, and with an embedder that takes what is late.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, Limits, Payee, Prompts, Result, SpaceId, Tier, TokenCount, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink},
    provider::{Fake, JobState, OpenAi},
    testing::BatchPlan,
};

use crate::{
    openai_batch::support::{
        HOUR, LINE, MODEL, Quarters, SHARD, Scene, WIDTH, builder, submit, ten_minutes, until, until_status, within,
    },
    support::{numbered, stand_in::tokens},
};

fn all(texts: &[String]) -> Vec<usize> {
    (0..texts.len()).collect()
}

#[tokio::test]
async fn a_later_synchronous_run_finds_the_rows_in_the_cache() {
    let scene = Scene::new();
    let store = Memory::unbounded();
    let batch = scene.builder().with_cache(store.clone()).build().expect("valid");
    let texts = numbered(SHARD + 5);
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;

    let cached = scene.openai().cached(store).expect("one space");
    let rows = cached.embed_documents(&texts).await.expect("they are there");
    scene.check_rows(&texts, &all(&texts), &rows);
    assert_eq!(scene.simulator.counts().embeddings, 0, "nothing is sent");
    assert_eq!(cached.counts().hits, texts.len() as u64);
    scene.check_billed(&texts, &[]);
}

#[tokio::test]
async fn texts_that_the_cache_has_are_not_submitted() {
    let scene = Scene::new();
    let store = Memory::unbounded();
    let cached = scene.openai().cached(store.clone()).expect("one space");
    let texts = numbered(SHARD);
    let known: Vec<String> = texts.iter().step_by(3).cloned().collect();
    cached.embed_documents(&known).await.expect("they are embedded");
    let standard = scene.simulator.bills().standard_tokens;

    let batch = scene.builder().with_cache(store).build().expect("valid");
    let job = submit(&batch, &texts).await;
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.answered, report.cached), (SHARD as u64, known.len() as u64));
    scene.check_answered(&job, &texts, &[]).await;
    let bills = scene.simulator.bills();
    assert_eq!((bills.standard_tokens, report.charges.usage().tokens), (standard, bills.batch_tokens));

    // A job whose texts are all known sends nothing.
    let requests = scene.simulator.counts().requests;
    let job = submit(&batch, &texts).await;
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.answered, report.cached), (SHARD as u64, SHARD as u64));
    scene.check_answered(&job, &texts, &[]).await;
    assert_eq!((scene.simulator.counts().requests, report.charges.usage().tokens), (requests, 0));
}

#[tokio::test]
async fn rows_are_in_the_cache_before_the_job_ends() {
    let scene = Scene::new();
    scene.simulator.plan_next(ten_minutes());
    let store = Memory::unbounded();
    let batch = scene.builder().with_cache(store.clone()).build().expect("valid");
    let texts = numbered(2 * SHARD);
    let job = submit(&batch, &texts).await;
    // The second batch ends at once, the first one runs.
    until_status(&job, "half is answered", |status| status.answered == SHARD as u64).await;
    assert_eq!(store.len(), SHARD);
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    assert_eq!(store.len(), 2 * SHARD);
}

/// A store that fails as often as it is told to.
#[derive(Debug)]
struct Failing {
    inner: Memory,
    puts: AtomicU64,
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait]
impl CacheStore for Failing {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.inner.get(keys, sink).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        let fails = self.puts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails {
            return Err(Error::new(ErrorKind::Cache, "the test says so"));
        }
        self.inner.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.inner.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.inner.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }
}

/// The rows are in the job's folder in any case, so a store that fails costs no row and no second batch. The job ends,
/// or it pauses and goes on when the store works again.
#[tokio::test]
async fn a_cache_that_fails_costs_no_row() {
    let scene = Scene::new();
    let store = Failing { inner: Memory::unbounded(), puts: AtomicU64::new(2) };
    let batch = scene.builder().with_cache(store).build().expect("valid");
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    while let Err(error) = within("the job ends or pauses", job.wait()).await {
        assert_eq!((error.kind(), job.status().state), (ErrorKind::Cache, JobState::Paused), "{error}");
        job.resume().await.expect("it goes on");
    }
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn what_is_late_goes_to_the_standby_and_each_text_is_billed_once() {
    // Each batch finishes three lines, and then no more for a day.
    let scene = Scene::planned(BatchPlan::instant().with_expiry_after(3));
    let batch = scene.builder().with_standby(scene.openai(), Duration::from_secs(3)).build().expect("valid");
    let texts = numbered(2 * SHARD + 3);
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    let (bills, counts) = (scene.simulator.bills(), scene.simulator.counts());
    assert!(bills.standard_tokens > 0 && counts.embeddings > 0, "{bills:?}");
    assert_eq!((counts.creates, counts.cancels), (3, 2), "the last batch has one line and ends by itself");
    let paid = [&texts[..3 * LINE], &texts[SHARD..SHARD + 3 * LINE], &texts[2 * SHARD..]].concat();
    assert_eq!(bills.batch_tokens, paid.iter().map(|text| tokens(text)).sum::<u64>());
}

#[tokio::test]
async fn a_standby_that_fails_pauses_the_job_and_what_it_did_is_kept() {
    let scene = Scene::planned(ten_minutes());
    let standby = scene.openai();
    let batch = scene.builder().with_standby(standby, Duration::from_millis(200)).build().expect("valid");
    scene.simulator.set_credit(Some(0));
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("there is no money");
    assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{error}");
    scene.simulator.set_credit(None);
    job.resume().await.expect("it goes on");
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.simulator.bills().batch_tokens, 0);
}

/// The input files have the prompts, and the standby has its own.
#[tokio::test]
async fn a_standby_gets_the_texts_without_their_prompts() {
    let scene = Scene::planned(ten_minutes());
    let openai = OpenAi::builder(MODEL).with_base_url(scene.simulator.base_url()).with_dimensions(WIDTH);
    let openai = openai.with_api_key("sk-test").with_prompts(Prompts::new("passage: ", ""));
    let openai = openai.build().expect("valid");
    let batch = builder(openai.clone(), scene.folder.path()).with_standby(openai, Duration::from_millis(200));
    let batch = batch.build().expect("valid");
    let texts = numbered(SHARD);
    let rows = within("they are embedded", batch.embed_documents(&texts)).await.expect("no text fails");
    let sent: Vec<String> = texts.iter().map(|text| format!("passage: {text}")).collect();
    scene.check_rows(&sent, &all(&sent), &rows);
    scene.check_billed(&sent, &[]);
}

/// A call of the standby is several requests here. Those that were answered before the money was used up are kept.
#[tokio::test]
async fn a_standby_that_runs_out_of_money_in_the_middle_is_not_paid_twice() {
    let scene = Scene::planned(ten_minutes());
    let limits = Limits::none().with_texts(LINE).with_tokens(TokenCount::Exact(Arc::new(Quarters)));
    let standby = OpenAi::builder(MODEL).with_base_url(scene.simulator.base_url()).with_dimensions(WIDTH);
    let payee = Payee::new("openai", MODEL, Tier::Standard);
    let standby = standby.with_limits(limits).with_api_key("sk-test").with_payee(payee).build().expect("valid");
    let batch = scene.builder().with_standby(standby, Duration::from_millis(200)).build().expect("valid");
    let texts = numbered(SHARD);
    scene.simulator.set_credit(Some(texts[..5 * LINE].iter().map(|text| tokens(text)).sum()));
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("there is no money");
    assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{error}");
    scene.simulator.set_credit(None);
    job.resume().await.expect("it goes on");
    scene.ends_well(&job, &texts).await;
}

#[tokio::test]
async fn a_standby_is_not_asked_for_what_is_in_time() {
    let scene = Scene::new();
    let batch = scene.builder().with_standby(scene.openai(), Duration::from_secs(600)).build().expect("valid");
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    assert_eq!((scene.simulator.counts().embeddings, scene.simulator.counts().cancels), (0, 0));
}

/// The batch ends while it is to be cancelled: everything that it answered is used.
#[tokio::test]
async fn a_batch_that_ends_before_the_standby_begins_is_used() {
    let scene = Scene::planned(ten_minutes());
    let batch = scene.builder().with_standby(scene.openai(), Duration::from_secs(3)).build().expect("valid");
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    scene.end_unseen();
    until("the cancel is refused", || scene.simulator.counts().refused > 0).await;
    scene.simulator.clear_faults();
    scene.ends_well(&job, &texts).await;
    assert_eq!((scene.simulator.counts().embeddings, scene.creates()), (0, 1));
}

#[test]
fn a_standby_in_another_space_is_refused() {
    let scene = Scene::new();
    let error = scene.builder().with_standby(Fake::new(8), HOUR).build().expect_err("another space");
    assert!(matches!(error.kind(), ErrorKind::SpaceMismatch | ErrorKind::Config), "{error}");
}
