//! `embed` is submit and wait, and attaches to a job that is there already: nothing around it costs a second batch.

use std::time::{Duration, Instant};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, ErrorKind, Tier,
    provider::{JobState, OpenAiBatch},
    testing::LineFate,
    wrap::RetryPolicy,
};

use crate::{
    openai_batch::support::{HOUR, LINE, SHARD, Scene, refs, submit, ten_minutes, until, within},
    support::numbered,
};

async fn embed(batch: &OpenAiBatch, texts: &[String]) -> Embeddings {
    within("the texts are embedded", batch.embed_documents(texts)).await.expect("no text fails")
}

fn all(texts: &[String]) -> Vec<usize> {
    (0..texts.len()).collect()
}

#[tokio::test]
async fn embed_is_one_job() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(SHARD + 1));
    assert_eq!(batch.to_string(), "openai-batch/text-embedding-3-small");
    let rows = embed(&batch, &texts).await;
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!(rows.usage().exact_tokens(), Some(scene.simulator.bills().batch_tokens));
    assert!(rows.charges().iter().all(|charge| charge.payee.tier() == Tier::Batch), "{:?}", rows.charges());
    let jobs = batch.list().await.expect("they are read");
    assert_eq!(jobs.iter().map(|job| (job.texts, job.state)).collect::<Vec<_>>(), [(41, JobState::Completed)]);
}

/// Drops a call as soon as its batch is there.
async fn drop_a_call(scene: &Scene, batch: &OpenAiBatch, texts: &[String]) {
    let before = scene.creates();
    tokio::select! {
        _ = batch.embed_documents(texts) => panic!("it cannot have ended"),
        () = scene.created(before + 1) => {}
    }
}

#[tokio::test]
async fn a_call_after_a_dropped_one_attaches_to_its_job() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    for _ in 0..3 {
        let texts = refs(&texts);
        tokio::select! {
            _ = batch.embed(Batch::documents(&texts)) => panic!("it cannot have ended"),
            () = scene.created(1) => {}
        }
        scene.polled().await;
    }
    let (rows, ()) = tokio::join!(embed(&batch, &texts), async {
        scene.polled().await;
        scene.advance(HOUR);
    });
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!(scene.creates(), 1);
    assert_eq!(rows.usage().tokens, scene.simulator.bills().batch_tokens, "the cost is told to whoever gets the rows");
}

#[tokio::test]
async fn a_job_that_ended_while_nobody_waited_is_handed_to_the_next_caller() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    drop_a_call(&scene, &batch, &texts).await;
    scene.advance(HOUR);
    until("the result is downloaded", || scene.simulator.counts().downloads > 0).await;
    let rows = embed(&batch, &texts).await;
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!((scene.creates(), rows.usage().tokens), (1, scene.simulator.bills().batch_tokens));
}

#[tokio::test]
async fn a_call_of_the_next_process_attaches_too() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(SHARD);
    let first = scene.batch();
    drop_a_call(&scene, &first, &texts).await;
    drop(first);
    let second = scene.batch();
    let (rows, ()) = tokio::join!(embed(&second, &texts), async {
        scene.polled().await;
        scene.advance(HOUR);
    });
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!(scene.creates(), 1);
}

/// A call that has its rows is over: the next one pays for its own, as with any provider. A cache is for the rest.
#[tokio::test]
async fn a_call_after_one_that_was_answered_is_a_job_of_its_own() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(LINE));
    embed(&batch, &texts).await;
    for (number, batch) in [batch, scene.batch()].into_iter().enumerate() {
        let rows = embed(&batch, &texts).await;
        scene.check_rows(&texts, &all(&texts), &rows);
        let usage = rows.usage();
        assert!(usage.tokens > 0 && usage.cached + usage.deduplicated == 0, "{usage:?}");
        assert_eq!(scene.simulator.billed(&texts[0]), number as u64 + 2);
    }
    assert_eq!(scene.creates(), 3);
}

#[tokio::test]
async fn calls_for_other_texts_or_in_another_order_do_not_attach() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    drop_a_call(&scene, &batch, &texts).await;
    let backward: Vec<String> = texts.iter().rev().cloned().collect();
    let (rows, ()) = tokio::join!(embed(&batch, &backward), async {
        scene.created(2).await;
        scene.advance(HOUR);
    });
    scene.check_rows(&backward, &all(&backward), &rows);
}

#[tokio::test]
async fn a_timeout_around_it_costs_nothing() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let impatient = batch.clone().timeout(Duration::from_secs(1));
    let error = impatient.embed_documents(&texts).await.expect_err("it takes ten minutes");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // However slow this machine is: the job goes on.
    scene.created(1).await;
    scene.advance(HOUR);
    let rows = embed(&batch, &texts).await;
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn retries_around_it_cost_nothing() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let policy =
        RetryPolicy::default().with_attempts(10_000).with_backoff(Duration::from_millis(1), Duration::from_millis(2));
    let stack = batch.clone().timeout(Duration::from_millis(150)).retry(policy.without_budget());
    let (rows, ()) = within("it is embedded", async {
        tokio::join!(stack.embed_documents(&texts), async {
            scene.created(1).await;
            scene.polled().await;
            tokio::time::sleep(Duration::from_millis(400)).await;
            scene.advance(HOUR);
        })
    })
    .await;
    let rows = rows.expect("in the end");
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!((scene.creates(), rows.usage().tokens), (1, scene.simulator.bills().batch_tokens));
}

/// A text that the provider fails at is an error that may pass, beside the rows of the others. The next attempt asks for
/// this text alone.
#[tokio::test]
async fn a_retry_pays_for_what_is_missing_alone() {
    let scene = Scene::new();
    let broken = LineFate::status(500, "server_error", "It broke.");
    scene.simulator.script_lines(broken, Some(5), |line| line.texts.iter().any(|text| text.contains("cursed")));
    let mut texts = numbered(SHARD);
    texts[17].push_str(", cursed for five rounds");
    let policy = RetryPolicy::default().with_backoff(Duration::from_millis(1), Duration::from_millis(2));
    let stack = scene.batch().retry(policy.without_budget());
    let rows = within("it is embedded", stack.embed_documents(&texts)).await.expect("in the end");
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!(rows.usage().tokens, scene.simulator.bills().batch_tokens);
}

#[tokio::test]
async fn a_deadline_that_passes_costs_nothing() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let given = refs(&texts);
    let late = |left| Batch::documents(&given).with_deadline(Instant::now() + left);
    let error = batch.embed(late(Duration::ZERO)).await.expect_err("it has passed");
    assert_eq!((error.kind(), scene.simulator.counts().requests), (ErrorKind::DeadlinePassed, 0));
    assert!(batch.list().await.expect("they are read").is_empty());
    let error = batch.embed(late(Duration::from_secs(1))).await.expect_err("it takes ten minutes");
    assert_eq!(error.kind(), ErrorKind::DeadlinePassed);
    scene.created(1).await;
    scene.advance(HOUR);
    let rows = embed(&batch, &texts).await;
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!((scene.creates(), rows.usage().tokens), (1, scene.simulator.bills().batch_tokens));
}

#[tokio::test]
async fn callers_at_the_same_time_pay_once_and_are_told_once() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let (one, two, three, ()) =
        tokio::join!(embed(&batch, &texts), embed(&batch, &texts), embed(&batch, &texts), async {
            scene.created(1).await;
            scene.polled().await;
            scene.advance(HOUR);
        });
    for rows in [&one, &two, &three] {
        scene.check_rows(&texts, &all(&texts), rows);
    }
    scene.check_billed(&texts, &[]);
    let told: u64 = [&one, &two, &three].iter().map(|rows| rows.usage().tokens).sum();
    let shared: u64 = [one, two, three].iter().map(|rows| rows.usage().deduplicated).sum();
    assert_eq!(shared, 2 * SHARD as u64, "the texts of two of them");
    assert_eq!((told, scene.creates()), (scene.simulator.bills().batch_tokens, 1));
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_take_the_job_from_another() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let (rows, ()) = tokio::join!(embed(&batch, &texts), async {
        scene.created(1).await;
        drop(tokio::time::timeout(Duration::from_millis(50), batch.embed_documents(&texts)).await);
        scene.advance(HOUR);
    });
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!((scene.creates(), rows.usage().tokens), (1, scene.simulator.bills().batch_tokens));
}

/// A job that was submitted on purpose is its owner's: but the same texts need not be paid twice while it is open.
#[tokio::test]
async fn a_call_attaches_to_a_job_that_was_submitted() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    let (rows, ()) = tokio::join!(embed(&batch, &texts), async {
        scene.polled().await;
        scene.advance(HOUR);
    });
    scene.check_rows(&texts, &all(&texts), &rows);
    within("the job ends", job.wait()).await.expect("it does not pause");
    scene.check_answered(&job, &texts, &[]).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn a_call_is_told_why_its_job_paused_and_the_next_one_goes_on() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    scene.simulator.set_credit(Some(0));
    let error = within("the call ends", batch.embed_documents(&texts)).await.expect_err("there is no money");
    assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{error}");
    scene.simulator.set_credit(None);
    let rows = embed(&batch, &texts).await;
    scene.check_rows(&texts, &all(&texts), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!(batch.list().await.expect("they are read").len(), 1);
}
