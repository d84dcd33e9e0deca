//! Two handles, two processes and two machines: one works on a job, the other waits for it or takes it over.

use std::{
    fs,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use docvector_embed::{
    EmbedderExt,
    provider::{JobState, OpenAiBatch},
};
use futures_util::future::join_all;

use crate::{
    openai_batch::support::{HOUR, SHARD, Scene, builder, openai, submit, ten_minutes, until, until_status, within},
    support::{
        numbered,
        processes::{Running, alone, inner},
    },
};

/// The task of a child: works on a job of its own until it ends. Its words are the URL, the folder, and the task.
async fn work(words: &[String]) {
    let batch = builder(openai(&words[0]), Path::new(&words[1])).build().expect("valid");
    let texts = numbered(SHARD);
    println!();
    match words[2].as_str() {
        "submit" => {
            let job = submit(&batch, &texts).await;
            println!("job {}", job.id());
            within("the job ends", job.wait()).await.expect("it does not pause");
        }
        "embed" => {
            println!("job");
            within("it is embedded", batch.embed_documents(&texts)).await.expect("it does not pause");
        }
        other => panic!("no task {other}"),
    }
    println!("ended");
}

struct Child {
    process: Running,
    told: mpsc::Receiver<(usize, String)>,
}

impl Child {
    fn start(scene: &Scene, test: &str, task: &str) -> Self {
        let (lines, told) = mpsc::channel();
        let (url, folder) = (scene.simulator.base_url(), scene.folder.path().to_str().expect("UTF-8"));
        Self { process: Running::start(alone(module_path!(), test), &[&url, folder, task], 0, lines), told }
    }

    /// Waits for the line that begins so, and returns the rest of it.
    fn told(&self, beginning: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let (_, line) = self.told.recv_timeout(left).unwrap_or_else(|_| panic!("it never says {beginning:?}"));
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }
}

#[tokio::test]
async fn of_two_handles_on_one_folder_one_works_and_the_other_waits() {
    let scene = Scene::planned(ten_minutes());
    let (first, second) = (scene.batch(), scene.batch());
    let texts = numbered(SHARD);
    let job = submit(&first, &texts).await;
    scene.created(1).await;
    let listed = within("it is listed", second.list()).await.expect("they are read");
    assert_eq!(listed.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), [job.id()]);
    let same = within("it is taken up", second.resume(job.id())).await.expect("it is there");
    until_status(&same, "another one works on it", |status| status.state == JobState::Elsewhere).await;
    same.cancel().await.expect_err("only the one that works can cancel it");
    scene.polled().await;
    scene.advance(HOUR);
    let (one, other) = tokio::join!(within("the job ends", job.wait()), within("the job ends", same.wait()));
    assert_eq!(one.expect("it does not pause").answered, SHARD as u64);
    assert_eq!(other.expect("it does not pause").answered, SHARD as u64);
    scene.check_answered(&job, &texts, &[]).await;
    scene.check_answered(&same, &texts, &[]).await;
    let counts = scene.simulator.counts();
    assert_eq!((counts.creates, counts.uploads, counts.downloads), (1, 1, 1));
}

#[tokio::test]
async fn when_the_handle_that_works_is_gone_the_one_that_waits_goes_on() {
    let scene = Scene::planned(ten_minutes());
    let (first, second) = (scene.batch(), scene.batch());
    let texts = numbered(SHARD);
    let job = submit(&first, &texts).await;
    scene.created(1).await;
    let same = second.resume(job.id()).await.expect("it is there");
    drop((job, first));
    scene.advance(HOUR);
    let report = within("the job ends", same.wait()).await.expect("it does not pause");
    assert_eq!((report.state, report.answered), (JobState::Completed, SHARD as u64));
    scene.check_answered(&same, &texts, &[]).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn a_call_attaches_to_the_job_of_another_handle() {
    let scene = Scene::planned(ten_minutes());
    let (first, second) = (scene.batch(), scene.batch());
    let texts = numbered(SHARD);
    let (one, other, ()) = within("both are embedded", async {
        tokio::join!(
            first.embed_documents(&texts),
            async {
                scene.created(1).await;
                second.embed_documents(&texts).await
            },
            async {
                scene.created(1).await;
                scene.polled().await;
                scene.advance(HOUR);
            }
        )
    })
    .await;
    let all: Vec<usize> = (0..SHARD).collect();
    scene.check_rows(&texts, &all, &one.expect("no text fails"));
    scene.check_rows(&texts, &all, &other.expect("no text fails"));
    scene.check_billed(&texts, &[]);
    assert_eq!(scene.creates(), 1);
}

/// All callers hear of the end in the same moment, and each wants to note that it was told the cost.
#[tokio::test]
async fn handles_that_are_told_at_the_same_time_all_get_their_rows() {
    for round in 0..10 {
        let scene = Scene::planned(ten_minutes());
        let handles: Vec<OpenAiBatch> = (0..4).map(|_| scene.batch()).collect();
        let texts = numbered(SHARD);
        let calls = join_all(handles.iter().map(|batch| batch.embed_documents(&texts)));
        let (calls, ()) = within("all are embedded", async {
            tokio::join!(calls, async {
                scene.created(1).await;
                scene.polled().await;
                scene.advance(HOUR);
            })
        })
        .await;
        let mut told = 0;
        for rows in calls {
            let rows = rows.unwrap_or_else(|error| panic!("round {round}: {error}"));
            scene.check_rows(&texts, &(0..SHARD).collect::<Vec<_>>(), &rows);
            told += rows.usage().tokens;
        }
        scene.check_billed(&texts, &[]);
        assert_eq!((told, scene.creates()), (scene.simulator.bills().batch_tokens, 1));
    }
}

#[tokio::test]
async fn a_job_of_another_process_is_waited_for() {
    const NAME: &str = "a_job_of_another_process_is_waited_for";
    if let Some(words) = inner() {
        return work(&words).await;
    }
    let scene = Scene::planned(ten_minutes());
    let child = Child::start(&scene, NAME, "submit");
    let id = child.told("job");
    scene.created(1).await;
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is there");
    until_status(&job, "another one works on it", |status| status.state == JobState::Elsewhere).await;
    scene.polled().await;
    scene.advance(HOUR);
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.state, report.answered), (JobState::Completed, SHARD as u64));
    child.told("ended");
    scene.check_answered(&job, &numbered(SHARD), &[]).await;
    let counts = scene.simulator.counts();
    assert_eq!((counts.creates, counts.uploads, counts.downloads), (1, 1, 1));
}

#[tokio::test]
async fn the_job_of_a_process_that_is_killed_is_taken_over() {
    const NAME: &str = "the_job_of_a_process_that_is_killed_is_taken_over";
    if let Some(words) = inner() {
        return work(&words).await;
    }
    let scene = Scene::planned(ten_minutes());
    let mut child = Child::start(&scene, NAME, "submit");
    let id = child.told("job");
    scene.created(1).await;
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is there");
    until_status(&job, "another one works on it", |status| status.state == JobState::Elsewhere).await;
    child.process.kill();
    scene.advance(HOUR);
    let texts = numbered(SHARD);
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

/// A process that was told to cancel the job dies before it is done.
#[tokio::test]
async fn a_cancel_that_was_begun_is_finished_by_the_next_process() {
    let scene = Scene::planned(ten_minutes().with_cancelling(HOUR));
    let texts = numbered(SHARD);
    let id = {
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        scene.created(1).await;
        scene.advance(HOUR / 12);
        job.cancel().await.expect("it is asked for");
        job.id().to_owned()
    };
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is there");
    until("the cancel comes", || scene.simulator.counts().cancels > 0).await;
    scene.advance(HOUR);
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.state, report.answered), (JobState::Cancelled, SHARD as u64 / 2));
    scene.check_answered(&job, &texts, &(SHARD / 2..SHARD).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_call_goes_on_with_what_a_killed_process_began() {
    const NAME: &str = "a_call_goes_on_with_what_a_killed_process_began";
    if let Some(words) = inner() {
        return work(&words).await;
    }
    let scene = Scene::planned(ten_minutes());
    let mut child = Child::start(&scene, NAME, "embed");
    scene.created(1).await;
    child.process.kill();
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    scene.advance(HOUR);
    let rows = within("it is embedded", batch.embed_documents(&texts)).await.expect("no text fails");
    scene.check_rows(&texts, &(0..SHARD).collect::<Vec<_>>(), &rows);
    scene.check_billed(&texts, &[]);
    assert_eq!((scene.creates(), rows.usage().tokens), (1, scene.simulator.bills().batch_tokens));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// As on another machine: the folder has another path, and no lock of the first one holds there.
#[tokio::test]
async fn a_journal_that_was_copied_is_resumed_elsewhere() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(3 * SHARD);
    let id = {
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        scene.created(3).await;
        scene.polled().await;
        job.id().to_owned()
    };
    let other = tempfile::tempdir().expect("a folder");
    copy(&scene.folder.path().join(&id), &other.path().join("deep/er").join(&id));
    fs::remove_dir_all(scene.folder.path().join(&id)).expect("it is gone");
    let batch: OpenAiBatch = builder(scene.openai(), &other.path().join("deep/er")).build().expect("valid");
    scene.advance(HOUR);
    let job = batch.resume(&id).await.expect("it is there");
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.state, report.answered), (JobState::Completed, 3 * SHARD as u64));
    scene.check_answered(&job, &texts, &[]).await;
    let counts = scene.simulator.counts();
    assert_eq!((counts.creates, counts.uploads), (3, 3));
}
