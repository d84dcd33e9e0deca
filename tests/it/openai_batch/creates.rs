//! The one call that costs money: creates whose answer is lost, that are refused, and that find no room.

use std::time::Duration;

use docvector_embed::{
    ErrorKind,
    provider::JobState,
    testing::{BatchPlan, BatchState, Fault, Route},
};

use super::support::{DAY, HOUR, SHARD, Scene, submit, ten_minutes, until, until_status, within};
use crate::support::{numbered, stand_in::tokens};

/// Longer than any test looks at lists.
const PATIENT: Duration = Duration::from_secs(600);
/// So short that a create is soon taken as not made.
const IMPATIENT: Duration = Duration::from_millis(300);

/// Returns the tokens of texts as they count against the limit of enqueued tokens, a little more than that.
fn enqueued(texts: &[String]) -> u64 {
    texts.iter().map(|text| tokens(text)).sum()
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_found_in_the_list_which_lags() {
    for fault in [Fault::lost_answer(), Fault::held_answer()] {
        let scene = Scene::new();
        scene.simulator.plan_next(BatchPlan::instant().with_unlisted_requests(3));
        scene.simulator.fail_next(Route::CreateBatch, 1, fault.clone());
        let batch = scene.builder().with_list_patience(PATIENT).build().expect("valid");
        let texts = numbered(SHARD);
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        let counts = scene.simulator.counts();
        assert_eq!((counts.creates, counts.uploads), (1, 1), "{fault:?}");
        assert!(counts.lists > 3, "{} lists", counts.lists);
    }
}

#[tokio::test]
async fn lists_that_fail_do_not_say_that_a_batch_is_not_there() {
    let scene = Scene::new();
    scene.simulator.fail_next(Route::CreateBatch, 1, Fault::lost_answer());
    for fault in
        [Fault::html(502), Fault::cut(), Fault::error(401, "invalid_api_key", "Who?"), Fault::answer(200, "{}")]
    {
        scene.simulator.fail_next(Route::ListBatches, 15, fault);
    }
    // Most of the patience is over when the list can be read at last.
    let batch = scene.builder().with_list_patience(IMPATIENT).build().expect("valid");
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

/// The batch is on the second page, behind batches that others have created since.
#[tokio::test]
async fn a_batch_is_found_behind_many_others() {
    let scene = Scene::new();
    scene.simulator.plan_next(BatchPlan::instant().with_list_lag(HOUR));
    scene.simulator.fail_next(Route::CreateBatch, 1, Fault::lost_answer());
    let batch = scene.builder().with_list_patience(PATIENT).build().expect("valid");
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    let client = scene.other_client();
    let file = client.upload(b"{}\n");
    for _ in 0..230 {
        client.create(&file);
    }
    let lists = scene.simulator.counts().lists;
    until("the list is read without it", || scene.simulator.counts().lists > lists + 3).await;
    assert_eq!(job.status().answered, 0);
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 231);
}

#[tokio::test]
async fn a_create_that_was_not_made_is_made_once_when_the_patience_is_over() {
    let faults = [
        Fault::cut(),
        Fault::hang(),
        Fault::html(502),
        Fault::error(500, "server_error", "It broke."),
        Fault::answer(200, "<html>a login page</html>"),
        Fault::answer(200, "{}"),
    ];
    for fault in faults {
        let scene = Scene::new();
        scene.simulator.fail_next(Route::CreateBatch, 1, fault.clone());
        let batch = scene.builder().with_list_patience(IMPATIENT).build().expect("valid");
        let texts = numbered(SHARD);
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        let counts = scene.simulator.counts();
        assert_eq!((counts.creates, counts.uploads), (1, 1), "{fault:?}");
        assert!(counts.lists > 0, "nobody looked into the list after {fault:?}");
    }
}

/// A second job of the same texts, whose create was not made, must not take the batch of the first one for its own: that
/// would be two jobs for the price of one, and two owners of one batch.
#[tokio::test]
async fn the_batch_of_an_identical_job_is_not_ones_own() {
    let scene = Scene::new();
    let batch = scene.builder().with_list_patience(IMPATIENT).build().expect("valid");
    let texts = numbered(SHARD);
    let first = submit(&batch, &texts).await;
    within("the first job ends", first.wait()).await.expect("it does not pause");
    scene.simulator.fail_next(Route::CreateBatch, 1, Fault::cut());
    let second = submit(&batch, &texts).await;
    within("the second job ends", second.wait()).await.expect("it does not pause");
    let batches = scene.simulator.batches();
    assert_eq!(batches.len(), 2);
    let jobs: Vec<&str> = batches.iter().map(|batch| batch.metadata["docvector_job"].as_str()).collect();
    assert_eq!(jobs, [first.id(), second.id()]);
    assert_ne!(first.id(), second.id());
}

#[tokio::test]
async fn a_refused_create_waits_as_long_as_it_is_told_and_is_made_again() {
    let scene = Scene::new();
    let busy = Fault::error(429, "rate_limit_exceeded", "Too many requests.").with_header("retry-after", "1");
    scene.simulator.fail_next(Route::CreateBatch, 1, busy);
    let batch = scene.builder().with_list_patience(PATIENT).build().expect("valid");
    let texts = numbered(SHARD);
    let began = std::time::Instant::now();
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    let counts = scene.simulator.counts();
    assert_eq!((counts.creates, counts.uploads), (1, 1));
    // A lower bound alone: a busy machine makes it longer, never shorter.
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_create_that_is_refused_for_good_pauses_the_job_with_the_code() {
    let scene = Scene::new();
    let refused = Fault::error(400, "invalid_endpoint", "Not for embeddings.");
    scene.simulator.fail_next(Route::CreateBatch, 1_000, refused);
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("it is refused");
    let told = format!("{error} {:?}", error.provider_code());
    assert_eq!((error.kind(), job.status().state), (ErrorKind::Config, JobState::Paused), "{told}");
    assert!(told.contains("invalid_endpoint"), "{told}");
    assert_eq!(scene.creates(), 0);
    scene.simulator.clear_faults();
    job.resume().await.expect("it goes on");
    scene.ends_well(&job, &texts).await;
    assert_eq!((scene.creates(), scene.simulator.counts().uploads), (1, 1), "the file is there");
}

#[tokio::test]
async fn without_room_a_batch_waits_and_is_created_again_of_the_same_file() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(2 * SHARD);
    scene.simulator.set_enqueued_tokens(Some(enqueued(&texts[..SHARD]) * 3 / 2));
    let batch = scene.batch();
    let job = submit(&batch, &texts).await;
    let failed = |scene: &Scene| {
        let batches = scene.simulator.batches();
        batches.into_iter().filter(|batch| batch.state == BatchState::Failed).collect::<Vec<_>>()
    };
    until("there is no room", || !failed(&scene).is_empty()).await;
    assert_eq!(job.status().answered, 0);
    scene.advance(HOUR);
    // The first batch has ended; the second one finds room.
    until("the second batch runs", || {
        scene.simulator.batches().iter().filter(|batch| batch.state != BatchState::Failed).count() == 2
    })
    .await;
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.simulator.counts().uploads, 2, "one file per shard");
    let second = scene.simulator.batches().last().expect("there are some").input_file_id.clone();
    assert!(failed(&scene).iter().all(|batch| batch.input_file_id == second));
}

/// The room is taken by batches of others, for hours.
#[tokio::test]
async fn a_full_account_is_waited_for_and_the_file_is_uploaded_once() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(SHARD);
    let other: Vec<String> = (0..SHARD).map(|i| format!("another text {i}")).collect();
    scene.simulator.set_enqueued_tokens(Some(enqueued(&other) + 1));
    let batch = scene.batch();
    let (first, second);
    {
        first = submit(&batch, &other).await;
        scene.created(1).await;
        let folder = tempfile::tempdir().expect("a folder");
        let stranger = super::support::builder(scene.openai(), folder.path()).build().expect("valid");
        second = submit(&stranger, &texts).await;
        until_status(&second, "it waits for room", |status| status.state == JobState::Waiting).await;
        // It asks again now and then, and not in every moment.
        scene.created(3).await;
        scene.advance(HOUR);
        within("the first job ends", first.wait()).await.expect("it does not pause");
        until("the second batch runs", || scene.simulator.counts().live_batches == 1).await;
        scene.advance(HOUR);
        within("the second job ends", second.wait()).await.expect("it does not pause");
    }
    let counts = scene.simulator.counts();
    assert_eq!((counts.uploads, scene.simulator.bills().most_per_text), (2, 1));
    assert_eq!(scene.simulator.bills().texts, 2 * SHARD as u64);
}

#[tokio::test]
async fn a_limit_that_is_smaller_than_a_shard_is_learned_and_kept() {
    let scene = Scene::new();
    let texts = numbered(200);
    let limit = enqueued(&texts) / 5;
    scene.simulator.set_enqueued_tokens(Some(limit));
    let batch = scene.builder().with_batch_texts(100).build().expect("valid");
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    let batches = scene.simulator.batches();
    let failed = batches.iter().filter(|batch| batch.state == BatchState::Failed).count();
    // The two shards that were planned before the limit was known.
    assert!((1..=2).contains(&failed), "{failed} of {} failed", batches.len());
    assert!(batches.len() - failed >= 5);
}

#[tokio::test]
async fn a_limit_that_is_smaller_than_a_line_takes_lines_apart() {
    let scene = Scene::new();
    let texts = numbered(24);
    // Two texts and a bit.
    scene.simulator.set_enqueued_tokens(Some(enqueued(&texts[..2]) + 2));
    let batch = scene.builder().with_line_texts(8).with_batch_texts(8).build().expect("valid");
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
}

#[tokio::test]
async fn a_text_that_alone_exceeds_the_limit_pauses_the_job() {
    let scene = Scene::new();
    scene.simulator.set_enqueued_tokens(Some(20));
    let texts = ["short".to_owned(), "x".repeat(200)];
    let batch = scene.builder().with_line_texts(1).build().expect("valid");
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("there is never room");
    assert_eq!((error.kind(), job.status().state), (ErrorKind::Config, JobState::Paused), "{error}");
    scene.simulator.set_enqueued_tokens(None);
    job.resume().await.expect("it goes on");
    scene.ends_well(&job, &texts).await;
}

#[tokio::test]
async fn a_limit_that_is_known_beforehand_is_never_exceeded() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(200);
    let limit = enqueued(&texts) / 4;
    scene.simulator.set_enqueued_tokens(Some(limit));
    let batch = scene.builder().with_enqueued_tokens(limit).with_batch_texts(100).build().expect("valid");
    let job = submit(&batch, &texts).await;
    let end = within("the job ends", async {
        let ticks = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                scene.advance(HOUR / 20);
            }
        };
        tokio::select! { report = job.wait() => report, () = ticks => unreachable!("it ticks for ever") }
    });
    end.await.expect("it does not pause");
    scene.ends_well(&job, &texts).await;
    let failed = scene.simulator.batches().iter().filter(|batch| batch.state == BatchState::Failed).count();
    assert_eq!(failed, 0);
}

/// While a job waits for its batch, a day may pass and more: OpenAI keeps the input file for 30 days.
#[tokio::test]
async fn an_input_file_that_is_gone_is_uploaded_again() {
    let scene = Scene::new();
    let busy = Fault::error(429, "rate_limit_exceeded", "Too many requests.").with_header("retry-after", "1");
    scene.simulator.fail_next(Route::CreateBatch, 1, busy);
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    until("the create is refused", || scene.simulator.counts().faults == 1).await;
    scene.advance(DAY * 31);
    within("the job ends or pauses", async {
        while job.wait().await.is_err() {
            job.resume().await.expect("it goes on");
        }
    })
    .await;
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}
