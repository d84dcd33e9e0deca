//! Jobs in their folder: listed, taken up again, removed, and their progress.

use std::{fs, time::Duration};

use docvector_embed::{
    Batch, EmbedderExt, ErrorKind,
    provider::{JobState, JobStatus},
};
use futures_util::{StreamExt, stream};

use crate::{
    openai_batch::support::{HOUR, LINE, SHARD, Scene, left_in, refs, submit, ten_minutes, within},
    support::numbered,
};

#[tokio::test]
async fn the_same_texts_submitted_twice_are_two_jobs() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let (one, two) = (submit(&batch, &texts).await, submit(&batch, &texts).await);
    assert_ne!(one.id(), two.id());
    for job in [&one, &two] {
        let report = within("the job ends", job.wait()).await.expect("it does not pause");
        assert_eq!(report.answered, SHARD as u64);
        let rows = job.embeddings().await.expect("all are there");
        scene.check_rows(&texts, &(0..SHARD).collect::<Vec<_>>(), &rows);
    }
    assert_eq!((scene.creates(), scene.simulator.bills().texts), (2, 2 * SHARD as u64));
    assert_eq!(scene.simulator.bills().most_per_text, 2);
}

#[tokio::test]
async fn jobs_are_listed_the_oldest_first_and_nothing_is_sent() {
    let scene = Scene::planned(ten_minutes());
    let batch = scene.batch();
    assert!(batch.list().await.expect("an empty folder").is_empty());
    let mut ids = Vec::new();
    for count in 1..=3 {
        let job = submit(&batch, &numbered(count * LINE)).await;
        scene.created(count as u64).await;
        ids.push(job.id().to_owned());
    }
    // A new handle works on no job that it was not asked for. What the old one has sent comes to its end.
    drop(batch);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let batch = scene.batch();
    let requests = scene.simulator.counts().requests;
    let listed = within("they are listed", batch.list()).await.expect("they are read");
    assert_eq!(scene.simulator.counts().requests, requests);
    assert_eq!(listed.iter().map(|job| job.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(listed.iter().map(|job| job.texts).collect::<Vec<_>>(), [4, 8, 12]);
    assert!(listed.is_sorted_by_key(|job| job.created));
    assert!(listed.iter().all(|job| !job.to_string().contains('\n') && job.to_string().contains(&job.id)));

    for id in &ids {
        batch.resume(id).await.expect("it is there");
    }
    scene.advance(HOUR);
    for id in &ids {
        let job = batch.resume(id).await.expect("it is there");
        within("it ends", job.wait()).await.expect("it does not pause");
    }
    let listed = batch.list().await.expect("they are read");
    assert!(listed.iter().all(|job| job.state == JobState::Completed && job.answered == job.texts), "{listed:?}");
    assert_eq!(scene.simulator.bills().texts, 24);
}

#[tokio::test]
async fn a_job_that_has_ended_can_be_read_again_later() {
    let scene = Scene::new();
    let texts = numbered(SHARD);
    let (id, report) = {
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        let report = scene.ends_well(&job, &texts).await;
        (job.id().to_owned(), report)
    };
    let requests = scene.simulator.counts().requests;
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is there");
    assert_eq!(job.status().state, JobState::Completed);
    let again = within("it has ended", job.wait()).await.expect("it ended well");
    assert_eq!((again.answered, again.charges), (report.answered, report.charges));
    let some = job.rows(7..9).await.expect("they can be read");
    scene.check_rows(&texts, some.indices(), some.embeddings());
    assert_eq!(some.indices().len(), 2);
    let rows = job.embeddings().await.expect("all are there");
    scene.check_rows(&texts, &(0..SHARD).collect::<Vec<_>>(), &rows);
    assert_eq!(scene.simulator.counts().requests, requests, "nothing is sent for a job that has ended");
}

#[tokio::test]
async fn rows_can_be_read_while_the_job_runs() {
    let scene = Scene::new();
    scene.simulator.plan_next(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(2 * SHARD));
    let job = submit(&batch, &texts).await;
    // The second batch ends at once, the first one runs.
    scene.created(2).await;
    crate::openai_batch::support::until_status(&job, "half is answered", |status| status.answered == SHARD as u64)
        .await;
    let partial = job.rows(0..2 * SHARD as u64).await.expect("they can be read");
    assert_eq!(partial.indices().len(), SHARD);
    scene.check_rows(&texts, partial.indices(), partial.embeddings());
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    // A range that goes beyond the end, or is none.
    assert_eq!(job.rows(70..1_000).await.expect("they can be read").indices().len(), 10);
    assert_eq!(job.rows(500..u64::MAX).await.expect("there are none").indices().len(), 0);
}

#[tokio::test]
async fn a_job_that_runs_is_not_removed_and_one_that_has_ended_is() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    let error = batch.remove(job.id()).await.expect_err("it runs");
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains(job.id()), "{error}");
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    batch.remove(job.id()).await.expect("it has ended");
    assert!(batch.list().await.expect("they are read").is_empty());
    batch.resume(job.id()).await.expect_err("it is gone");
    batch.remove(job.id()).await.expect_err("it is gone");
    assert_eq!(left_in(scene.folder.path()), [""; 0], "nothing is left");
    // The handle of a job that is gone fails, and does not panic.
    let _ = job.status();
    job.rows(0..4).await.expect_err("its rows are gone");
}

#[tokio::test]
async fn a_job_that_is_not_there_is_an_error_and_an_id_is_no_path() {
    let scene = Scene::new();
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("journal.jsonl"), "precious\n").expect("written");
    let batch = scene.batch();
    let ids =
        ["unknown".to_owned(), String::new(), ".".into(), "..".into(), "a/b".into(), "\0".into(), "x".repeat(5000)];
    let climbing = format!("../{}", outside.path().file_name().expect("a name").to_string_lossy());
    let absolute = outside.path().display().to_string();
    for id in ids.into_iter().chain([climbing, absolute]) {
        let error = batch.resume(&id).await.expect_err("there is no such job");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().len() < 1_000 && !error.to_string().contains(['\n', '\0']), "{error}");
        batch.remove(&id).await.expect_err("there is no such job");
    }
    assert!(outside.path().join("journal.jsonl").exists() && scene.folder.path().exists());
    assert_eq!(scene.simulator.counts().requests, 0);
}

#[tokio::test]
async fn progress_goes_forward_and_ends() {
    let scene = Scene::planned(ten_minutes());
    scene.simulator.set_speed(4_000.0);
    let (batch, texts) = (scene.batch(), numbered(5 * SHARD));
    let job = submit(&batch, &texts).await;
    let (one, two) = (job.progress(), job.clone().progress());
    let (one, two): (Vec<JobStatus>, Vec<JobStatus>) =
        within("both end", async { tokio::join!(one.collect(), two.collect()) }).await;
    for seen in [&one, &two] {
        assert!(seen.is_sorted_by_key(|status| status.answered), "{seen:?}");
        assert!(seen.is_sorted_by_key(|status| status.batches_ended), "{seen:?}");
        assert!(seen.iter().all(|status| status.texts == texts.len() as u64 && status.answered <= status.texts));
        let last = seen.last().expect("at least the end");
        assert_eq!((last.state, last.answered, last.batches_ended), (JobState::Completed, 5 * SHARD as u64, 5));
        assert_eq!(last.tokens, scene.simulator.bills().batch_tokens);
    }
    // Of a job that has ended, it is the end alone.
    let after: Vec<JobStatus> = within("it ends", job.progress().collect()).await;
    assert_eq!(after.iter().map(|status| status.state).collect::<Vec<_>>(), [JobState::Completed]);
    scene.simulator.set_speed(0.0);
    scene.ends_well(&job, &texts).await;
}

#[tokio::test]
async fn progress_ends_when_the_job_pauses() {
    let scene = Scene::new();
    scene.simulator.set_credit(Some(0));
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    let seen: Vec<JobStatus> = within("it ends", job.progress().collect()).await;
    assert_eq!(seen.last().map(|status| status.state), Some(JobState::Paused));
}

#[tokio::test]
async fn a_report_says_what_was_saved() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    let report = scene.ends_well(&job, &texts).await;
    let cost = report.cost.expect("the model has a price").as_picos();
    let standard = report.standard_cost.expect("the model has a price").as_picos();
    let tokens = u128::from(scene.simulator.bills().batch_tokens);
    // A cent, and two cents, per million tokens.
    assert_eq!((cost, standard), (tokens * 10_000, tokens * 20_000));
    let shown = report.to_string();
    assert!(shown.lines().count() > 1 && shown.contains(job.id()), "{shown}");
    assert!(!shown.contains("text number"), "{shown}");
}

/// A server that embeds all day long must not run out of files and memory.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn jobs_that_have_ended_keep_no_files_open() {
    let scene = Scene::new();
    let batch = scene.batch();
    for round in 0..5 {
        let texts = [format!("a text of round {round}")];
        within("it is embedded", batch.embed_documents(&texts)).await.expect("no text fails");
    }
    let open = || {
        let files =
            fs::read_dir("/proc/self/fd").expect("it is there").filter_map(|entry| entry.ok()?.path().read_link().ok());
        files.filter(|file| file.starts_with(scene.folder.path())).collect::<Vec<_>>()
    };
    crate::openai_batch::support::until("files are closed", || open().is_empty()).await;
}

#[tokio::test]
async fn many_jobs_run_at_the_same_time() {
    let scene = Scene::planned(ten_minutes());
    let batch = scene.batch();
    let texts: Vec<Vec<String>> =
        (0..12).map(|job| (0..LINE).map(|i| format!("text {i} of job {job}")).collect()).collect();
    let jobs: Vec<_> = stream::iter(&texts).then(|texts| submit(&batch, texts)).collect().await;
    scene.created(12).await;
    scene.advance(HOUR);
    for (job, texts) in jobs.iter().zip(&texts) {
        let report = within("the job ends", job.wait()).await.expect("it does not pause");
        assert_eq!(report.answered, LINE as u64);
        let rows = job.embeddings().await.expect("all are there");
        scene.check_rows(texts, &(0..LINE).collect::<Vec<_>>(), &rows);
    }
    scene.check_billed(&texts.concat(), &[]);
}

/// A job belongs to a model and its width: a handle of another one would put its rows into another space.
#[tokio::test]
async fn a_job_of_another_space_is_not_resumed() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(SHARD);
    let id = {
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        scene.created(1).await;
        job.id().to_owned()
    };
    let base_url = scene.simulator.base_url();
    let wider = docvector_embed::provider::OpenAi::builder("text-embedding-3-small")
        .with_base_url(base_url)
        .with_api_key("sk-test")
        .with_dimensions(16)
        .build()
        .expect("valid");
    let other = crate::openai_batch::support::builder(wider, scene.folder.path()).build().expect("valid");
    let error = other.resume(&id).await.expect_err("it is another space");
    assert!(matches!(error.kind(), ErrorKind::SpaceMismatch | ErrorKind::Config), "{error}");
    // A call for the same texts in that space is a job of its own.
    let wanted = refs(&texts);
    let job = other.submit(Batch::documents(&wanted)).await.expect("it is planned");
    scene.created(2).await;
    scene.advance(HOUR);
    within("the job ends", job.wait()).await.expect("it does not pause");
    let rows = job.embeddings().await.expect("all are there");
    assert_eq!(rows.dimensions(), 16);
    scene.check_rows(&texts, &(0..SHARD).collect::<Vec<_>>(), &rows);
}
