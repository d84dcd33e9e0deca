//! Looks at a batch, and downloads, that fail: none of them is the end of the batch.

use std::time::Duration;

use docvector_embed::{
    ErrorKind,
    provider::JobState,
    testing::{BatchPlan, Fault, FileIdForm, LineFate, Route},
};

use super::support::{HOUR, LINE, SHARD, Scene, submit, ten_minutes, until, until_status, within};
use crate::support::numbered;

#[tokio::test]
async fn an_hour_of_validation_with_every_kind_of_failed_poll_in_between() {
    let scene = Scene::planned(BatchPlan::instant().with_validating(HOUR));
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    let faults = [
        (3, Fault::html(502)),
        (2, Fault::error(401, "invalid_api_key", "Who are you?")),
        (2, Fault::cut()),
        (1, Fault::hang()),
        (2, Fault::error(404, "not_found", "No batch found.")),
        (2, Fault::error(429, "rate_limit_exceeded", "Slow down.").with_header("retry-after", "0")),
        (1, Fault::cut_answer(100)),
        (1, Fault::answer(200, "")),
        (1, Fault::answer(200, "null")),
        (1, Fault::answer(200, "{}")),
        (1, Fault::answer(200, r#"{"id": "batch_other", "object": "batch", "status": "completed"}"#)),
        (1, Fault::answer(200, r#"{"id": null, "object": "error", "status": "failed"}"#)),
        (1, Fault::answer(200, "<html>a login page</html>").with_header("content-type", "text/html")),
    ];
    for (times, fault) in faults {
        let before = scene.simulator.counts().faults;
        scene.simulator.fail_next(Route::GetBatch, times, fault.clone());
        until(format!("{fault:?} is met"), || scene.simulator.counts().faults >= before + times as u64).await;
        scene.advance(HOUR / 30);
        scene.polled().await;
        let status = job.status();
        assert_eq!((status.state, status.answered), (JobState::Running, 0), "after {fault:?}");
    }
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    let counts = scene.simulator.counts();
    assert_eq!((counts.creates, counts.uploads), (1, 1));
}

#[tokio::test]
async fn trouble_is_shown_while_it_lasts() {
    let scene = Scene::planned(BatchPlan::instant().with_validating(HOUR));
    let (batch, texts) = (scene.batch(), numbered(LINE));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    assert_eq!(job.status().trouble, None);
    scene.simulator.fail_next(Route::GetBatch, 10_000, Fault::html(502));
    until_status(&job, "the trouble is shown", |status| status.trouble.is_some()).await;
    let status = job.status();
    assert_eq!(status.state, JobState::Running);
    let trouble = status.trouble.expect("it is shown");
    assert!(trouble.contains("502") && !trouble.contains('\n'), "{trouble}");
    scene.simulator.clear_faults();
    until_status(&job, "the trouble is over", |status| status.trouble.is_none()).await;
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
}

/// Downloads a file of results three times with this fault, and with no fault then.
async fn download(fault: Fault) {
    let scene = Scene::new();
    // A few lines are in the error file.
    scene.simulator.script_lines(LineFate::status(500, "server_error", "Again."), Some(2), |_| true);
    scene.simulator.fail_next(Route::FileContent, 3, fault.clone());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 2, "{fault:?}");
}

#[tokio::test]
async fn a_download_that_fails_is_made_again_and_nothing_is_bought_twice() {
    let faults = [
        Fault::html(502),
        Fault::cut(),
        Fault::cut_answer(0),
        Fault::cut_answer(700),
        Fault::lost_answer(),
        Fault::error(429, "rate_limit_exceeded", "Slow down."),
        Fault::slow_answer(200, Duration::from_millis(1)),
    ];
    for fault in faults {
        download(fault).await;
    }
}

/// A page of a gateway in place of the file, with a status of success. What was paid for is still at the provider.
#[tokio::test]
async fn a_page_in_place_of_the_file_is_not_the_file() {
    download(Fault::answer(200, "<html>a login page</html>").with_header("content-type", "text/html")).await;
}

#[tokio::test]
async fn nothing_in_place_of_the_file_is_not_the_file() {
    download(Fault::answer(200, "")).await;
}

/// Whoever has taken the key back has to give another one. Nothing is lost until then.
#[tokio::test]
async fn a_download_that_is_not_permitted_pauses_the_job() {
    let scene = Scene::new();
    let refused = Fault::error(401, "invalid_api_key", "Who are you?");
    scene.simulator.fail_next(Route::FileContent, 1_000, refused);
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("it is refused");
    assert_eq!((error.kind(), job.status().state), (ErrorKind::Auth, JobState::Paused), "{error}");
    scene.simulator.clear_faults();
    job.resume().await.expect("it goes on");
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn an_upload_that_fails_is_made_again() {
    let faults = [
        Fault::html(502),
        Fault::cut(),
        Fault::cut_upload(100),
        Fault::lost_answer(),
        Fault::hang(),
        Fault::error(429, "rate_limit_exceeded", "Slow down."),
    ];
    for fault in faults {
        let scene = Scene::new();
        scene.simulator.fail_next(Route::CreateFile, 1, fault.clone());
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        assert_eq!(scene.creates(), 1, "{fault:?}");
    }
}

/// Something answers in the provider's place, perhaps for good.
#[tokio::test]
async fn an_upload_that_is_answered_by_something_else_pauses_the_job() {
    for answer in ["{}", "<html>a login page</html>", ""] {
        let scene = Scene::new();
        scene.simulator.fail_next(Route::CreateFile, 1_000, Fault::answer(200, answer));
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        let error = within("the job pauses", job.wait()).await.expect_err("that is no file");
        assert_eq!((error.kind(), job.status().state), (ErrorKind::Protocol, JobState::Paused), "{error}");
        scene.simulator.clear_faults();
        job.resume().await.expect("it goes on");
        scene.ends_well(&job, &texts).await;
        assert_eq!(scene.creates(), 1);
    }
}

/// Results are kept for as long as the account says. Texts whose rows were paid for and are gone are not bought again
/// without a word: the job pauses, and whoever cancels it has the rows of the others.
#[tokio::test]
async fn results_that_are_gone_pause_the_job() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(2 * SHARD));
    // The second batch ends later, and its results are there.
    scene.simulator.plan_next(BatchPlan::instant());
    scene.simulator.plan_next(ten_minutes());
    scene.simulator.fail_next(Route::FileContent, 1_000, Fault::error(404, "not_found", "No such File object."));
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("the file is gone");
    assert_eq!(job.status().state, JobState::Paused, "{error}");
    assert_eq!((error.status(), scene.simulator.bills().texts), (Some(404), SHARD as u64));
    scene.created(1).await;
    job.cancel().await.expect("it is asked for");
    let report = within("the job ends", job.wait()).await.expect("it was cancelled");
    assert_eq!((report.state, report.answered), (JobState::Cancelled, 0));
    let billed: u64 = texts.iter().map(|text| scene.simulator.billed(text)).sum();
    assert_eq!(billed, SHARD as u64, "nothing was bought again");
}

#[tokio::test]
async fn ids_of_files_that_are_null_empty_or_missing_are_no_files() {
    for form in [FileIdForm::Usual, FileIdForm::EmptyIfNone, FileIdForm::AbsentIfNone] {
        let scene = Scene::planned(BatchPlan::instant().with_output_file_id(form).with_error_file_id(form));
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        let counts = scene.simulator.counts();
        assert_eq!((counts.creates, counts.downloads, counts.refused), (1, 1, 0), "{form:?}");
    }
}
