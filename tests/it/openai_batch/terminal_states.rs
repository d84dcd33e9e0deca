//! How batches end, and what the job makes of each end.

use docvector_embed::{
    ErrorKind,
    provider::JobState,
    testing::{BatchPlan, BatchState, Fault, FileIdForm, LineFate, LineOrder, Route},
};
use serde_json::{Value, json};

use super::support::{DAY, HOUR, LINE, SHARD, Scene, submit, ten_minutes, until_status, within};
use crate::support::numbered;

#[tokio::test]
async fn lines_and_rows_in_any_order_find_their_texts() {
    for order in [LineOrder::Reversed, LineOrder::Shuffled(1), LineOrder::Shuffled(2)] {
        let scene = Scene::planned(BatchPlan::instant().with_order(order));
        scene.simulator.script_lines(LineFate::reversed_rows(), None, |line| line.number % 3 == 0);
        let (batch, texts) = (scene.batch(), numbered(101));
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        assert_eq!(scene.creates(), 3, "101 texts, at most {SHARD} per batch");
    }
}

#[tokio::test]
async fn a_line_that_comes_twice_counts_once() {
    let scene = Scene::planned(BatchPlan::instant().with_order(LineOrder::Shuffled(3)));
    scene.simulator.script_lines(LineFate::twice(), None, |line| line.number % 2 == 0);
    let (batch, texts) = (scene.batch(), numbered(40));
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn states_that_nobody_knows_are_waited_through() {
    let names = [
        (BatchState::Validating, "queued"),
        (BatchState::InProgress, "paused"),
        (BatchState::Finalizing, "writing_files_v2"),
    ];
    let plan =
        names.into_iter().fold(BatchPlan::default(), |plan, (state, name)| plan.with_state_shown_as(state, name));
    let scene = Scene::planned(plan);
    let (batch, texts) = (scene.batch(), numbered(40));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    // One look at each state, and one after the end.
    for seconds in [1, 12, 600, 9] {
        scene.polled().await;
        assert_eq!(job.status().state, JobState::Running);
        scene.advance(std::time::Duration::from_secs(seconds));
    }
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn fields_that_are_new_missing_or_of_another_type_do_no_harm() {
    let odd = [
        ("new_field", r#"{"a": [1, null, "x"], "b": {"c": 1.5e300}}"#),
        ("request_counts", "null"),
        ("usage", "\"none\""),
        ("metadata", "null"),
        ("model", "17"),
        ("expires_at", "\"tomorrow\""),
        ("in_progress_at", "-1.5"),
        ("completion_window", "null"),
    ];
    let plan = odd.into_iter().fold(BatchPlan::instant(), |plan, (name, value)| plan.with_extra_field(name, value));
    let plan = plan.with_extra_line_field("new_field", r#"[[["deep"]]]"#).with_extra_line_field("retries", "3");
    let scene = Scene::planned(plan);
    let (batch, texts) = (scene.batch(), numbered(40));
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn a_completed_batch_without_an_output_file_is_submitted_again() {
    for form in [FileIdForm::Usual, FileIdForm::EmptyIfNone, FileIdForm::AbsentIfNone] {
        let scene = Scene::new();
        scene.simulator.plan_all(BatchPlan::instant().with_output_file_id(form).with_error_file_id(form));
        scene.simulator.script_lines(LineFate::status(500, "server_error", "Again."), Some(SHARD / LINE), |_| true);
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        // The first batch has no output, the second one no errors.
        scene.ends_well(&job, &texts).await;
        assert_eq!(scene.creates(), 2, "{form:?}");
    }
}

/// Nothing says where the rows are that were paid for. They are not paid for again unless a person says so.
#[tokio::test]
async fn results_that_nothing_names_are_for_a_person_to_look_for() {
    let scene = Scene::new();
    scene.simulator.plan_next(BatchPlan::instant().with_output_file_id(FileIdForm::AlwaysNull));
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    for _ in 0..2 {
        let error = within("the job pauses", job.wait()).await.expect_err("there is no file");
        assert_eq!((error.kind(), job.status().state), (ErrorKind::Protocol, JobState::Paused), "{error}");
        assert!(error.to_string().contains("names no file of results"), "{error}");
        job.resume().await.expect("it looks again");
    }
    job.cancel().await.expect("there is nothing to be found");
    let report = within("the job ends", job.wait()).await.expect("it was cancelled");
    assert_eq!((report.state, report.answered), (JobState::Cancelled, 0));
    assert_eq!((scene.creates(), scene.simulator.bills().most_per_text), (1, 1));
}

#[tokio::test]
async fn an_expired_batch_keeps_what_finished_and_the_rest_comes_again() {
    for finished in [0, 1, 7, SHARD / LINE - 1] {
        let scene = Scene::new();
        let late = BatchPlan::instant().with_expiry_after(finished).with_order(LineOrder::Shuffled(5));
        scene.simulator.plan_next(late);
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        scene.created(1).await;
        scene.polled().await;
        scene.advance(DAY);
        scene.ends_well(&job, &texts).await;
        assert_eq!(scene.creates(), 2, "{finished} lines finished");
        let batches = scene.simulator.batches();
        assert_eq!(batches[0].state, BatchState::Expired);
        assert_eq!(batches[1].lines, SHARD / LINE - finished, "what is left, and nothing else");
    }
}

#[tokio::test]
async fn a_batch_that_expires_while_it_is_validated_has_no_files() {
    let scene = Scene::new();
    scene.simulator.plan_next(BatchPlan::instant().with_validating(DAY * 2));
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    scene.advance(DAY);
    scene.ends_well(&job, &texts).await;
    assert_eq!((scene.creates(), scene.simulator.batches()[0].state), (2, BatchState::Expired));
}

#[tokio::test]
async fn batches_that_expire_again_and_again_come_to_an_end() {
    let scene = Scene::new();
    for _ in 0..3 {
        scene.simulator.plan_next(BatchPlan::instant().with_expiry_after(2));
    }
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    for round in 1..=3 {
        scene.created(round).await;
        scene.advance(DAY);
    }
    scene.ends_well(&job, &texts).await;
    let lines: Vec<usize> = scene.simulator.batches().iter().map(|batch| batch.lines).collect();
    assert_eq!(lines, [10, 8, 6, 4]);
}

/// Errors of the validation, as OpenAI lists them.
fn errors(code: &str, lines: &[Value]) -> String {
    let error = |line| json!({"code": code, "message": "Not so.", "param": "body.input", "line": line});
    json!({"object": "list", "data": lines.iter().map(error).collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn a_line_that_fails_the_validation_is_taken_apart_and_the_others_are_submitted_as_they_are() {
    let scene = Scene::new();
    let failed = BatchPlan::instant().with_failure("invalid_request", "Not so.");
    // Lines are numbered from 1.
    scene.simulator.plan_next(failed.with_extra_field("errors", &errors("invalid_request", &[json!(2), json!(2)])));
    let mut texts = numbered(SHARD);
    texts[LINE + 1] = "a bad text".into();
    let refused = LineFate::status(400, "invalid_value", "Not this text.");
    scene.simulator.script_lines(refused, None, |line| line.texts.iter().any(|text| text.contains("bad")));
    let (batch, bad) = (scene.batch(), LINE + 1);
    let job = submit(&batch, &texts).await;
    let report = scene.ends_without(&job, &texts, &[bad]).await;
    let failed: Vec<_> = report.failed.iter().map(|text| (text.index, text.kind)).collect();
    assert_eq!(failed, [(bad as u64, ErrorKind::InvalidInput)]);
    assert_eq!(scene.simulator.batches()[0].state, BatchState::Failed);
}

/// The validation is of lines, not of texts. A line that fails it again and again fails in the end, and no other.
#[tokio::test]
async fn a_text_whose_line_fails_every_validation_is_named() {
    let scene = Scene::new();
    let failed = |line| {
        let plan = BatchPlan::instant().with_failure("invalid_request", "Not so.");
        plan.with_extra_field("errors", &errors("invalid_request", &[json!(line)]))
    };
    scene.simulator.plan_next(failed(3));
    // The others; then the line alone, four times.
    scene.simulator.plan_next(BatchPlan::instant());
    (0..4).for_each(|_| scene.simulator.plan_next(failed(1)));
    let batch = scene.builder().with_line_texts(1).build().expect("valid");
    let texts = numbered(8);
    let job = submit(&batch, &texts).await;
    let report = scene.ends_without(&job, &texts, &[2]).await;
    let failed: Vec<_> = report.failed.iter().map(|text| (text.index, text.kind)).collect();
    assert_eq!((failed, scene.creates()), (vec![(2, ErrorKind::InvalidInput)], 6));
}

/// A batch that fails is created again, three times in all: its failure may have been OpenAI's. Then a person has to look.
#[tokio::test]
async fn a_batch_that_fails_for_unknown_reasons_pauses_the_job() {
    let plan = || BatchPlan::instant().with_failure("mysterious_failure", "Nobody knows.");
    for plan in [
        plan(),
        plan().with_extra_field("errors", "null"),
        plan().with_extra_field("errors", r#"{"object": "list", "data": []}"#),
        plan().with_extra_field("errors", "\"broken\""),
        plan().with_extra_field(
            "errors",
            &errors("invalid_request", &[json!(99), json!(0), json!(-1), json!("2"), json!(1e30)]),
        ),
    ] {
        let scene = Scene::planned(plan.clone());
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        let error = within("the job pauses", job.wait()).await.expect_err("no batch completes");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_eq!((scene.creates(), job.status().state), (3, JobState::Paused), "{plan:?}");
        assert!(job.status().trouble.is_some());
        // A pause waits for a person: nothing is sent.
        let requests = scene.simulator.counts().requests;
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        assert_eq!(scene.simulator.counts().requests, requests);

        scene.simulator.plan_all(BatchPlan::instant());
        job.resume().await.expect("it goes on");
        scene.ends_well(&job, &texts).await;
        assert_eq!(scene.creates(), 4);
    }
}

/// A validation that fails because of the model or the URL names lines, too: all of them. No text is to blame.
#[tokio::test]
async fn lines_that_fail_the_validation_for_other_reasons_condemn_no_text() {
    for (code, count) in [("model_not_found", SHARD), ("mismatched_model", SHARD), ("url_mismatch", 2 * LINE)] {
        let lines: Vec<Value> = (1..=count.div_ceil(LINE)).map(|line| json!(line)).collect();
        let plan = BatchPlan::instant().with_failure(code, "Not so.");
        let scene = Scene::planned(plan.with_extra_field("errors", &errors(code, &lines)));
        let (batch, texts) = (scene.batch(), numbered(count));
        let job = submit(&batch, &texts).await;
        let error = within("the job pauses", job.wait()).await;
        let error = error.expect_err(&format!("{code}, {count} texts: no batch completes"));
        assert_eq!((error.kind(), job.status().failed), (ErrorKind::Config, 0), "{error}");
        scene.simulator.plan_all(BatchPlan::instant());
        job.resume().await.expect("it goes on");
        scene.ends_well(&job, &texts).await;
    }
}

#[tokio::test]
async fn the_code_of_a_failed_batch_is_told() {
    let scene = Scene::planned(BatchPlan::instant().with_failure("mysterious_failure", "Nobody knows."));
    let (batch, texts) = (scene.batch(), numbered(8));
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("no batch completes");
    let told = format!("{error} {:?}", error.provider_code());
    assert!(told.contains("mysterious_failure"), "{told}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[tokio::test]
async fn a_cancelled_job_keeps_what_was_finished() {
    let scene = Scene::planned(ten_minutes().with_cancelling(std::time::Duration::from_secs(60)));
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    scene.advance(HOUR / 12);
    job.cancel().await.expect("it is asked for");
    until_status(&job, "it is being cancelled", |status| status.state == JobState::Cancelling).await;
    super::support::until("the cancel comes", || scene.simulator.counts().cancels > 0).await;
    scene.polled().await;
    scene.advance(HOUR);

    let report = within("the job ends", job.wait()).await.expect("it was cancelled");
    let half = SHARD as u64 / 2;
    assert_eq!((report.state, report.texts, report.answered), (JobState::Cancelled, SHARD as u64, half));
    let without: Vec<usize> = (SHARD / 2..SHARD).collect();
    scene.check_answered(&job, &texts, &without).await;
    let error = job.embeddings().await.expect_err("half of the rows are not there");
    assert_eq!(error.partial().map(|partial| partial.indices().len()), Some(SHARD / 2));
    assert_eq!((scene.creates(), job.status().state), (1, JobState::Cancelled));
    // It has ended: to resume it changes nothing.
    let again = batch.resume(job.id()).await.expect("it is known");
    assert_eq!(again.wait().await.expect("it has ended").state, JobState::Cancelled);
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn a_cancel_that_is_not_answered_is_sent_again() {
    for fault in [Fault::html(502), Fault::cut(), Fault::lost_answer()] {
        let scene = Scene::planned(ten_minutes());
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        scene.created(1).await;
        scene.simulator.fail_next(Route::CancelBatch, 2, fault);
        job.cancel().await.expect("it is asked for");
        let report = within("the job ends", job.wait()).await.expect("it was cancelled");
        assert_eq!((report.state, report.answered, scene.creates()), (JobState::Cancelled, 0, 1));
    }
}

/// The cancel comes too late: the batch has completed, and the simulator refuses with 409. All rows are kept.
#[tokio::test]
async fn a_batch_that_completes_before_its_cancel_is_used() {
    let scene = Scene::planned(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    scene.end_unseen();
    job.cancel().await.expect("it is asked for");
    super::support::until("the cancel is refused", || scene.simulator.counts().refused > 0).await;
    scene.simulator.clear_faults();
    let report = within("the job ends", job.wait()).await.expect("it ended");
    assert_eq!(report.answered, SHARD as u64);
    scene.check_answered(&job, &texts, &[]).await;
}

#[tokio::test]
async fn a_cancelled_job_creates_no_more_batches() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(3 * SHARD);
    // Room for one batch.
    let bytes: usize = texts[..SHARD].iter().map(String::len).sum();
    let room = bytes as u64 / 4 + SHARD as u64;
    scene.simulator.set_enqueued_tokens(Some(room));
    let batch = scene.builder().with_enqueued_tokens(room).build().expect("valid");
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    job.cancel().await.expect("it is asked for");
    let report = within("the job ends", job.wait()).await.expect("it was cancelled");
    assert_eq!((report.state, report.answered), (JobState::Cancelled, 0));
    assert_eq!((scene.creates(), scene.simulator.bills().texts), (1, 0));
}

/// The batch is there, but its create had no answer: it would be billed for nobody.
#[tokio::test]
async fn a_cancelled_job_cancels_a_batch_whose_create_was_lost() {
    let scene = Scene::new();
    scene.simulator.plan_next(ten_minutes().with_list_lag(std::time::Duration::from_secs(60)));
    scene.simulator.fail_next(Route::CreateBatch, 1, Fault::lost_answer());
    let patience = std::time::Duration::from_secs(600);
    let batch = scene.builder().with_list_patience(patience).build().expect("valid");
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    job.cancel().await.expect("it is asked for");
    scene.advance(HOUR / 60);
    let report = within("the job ends", job.wait()).await.expect("it was cancelled");
    assert_eq!((report.state, scene.simulator.counts().cancels, scene.creates()), (JobState::Cancelled, 1, 1));
    // A minute was enough for one line of ten.
    assert_eq!((report.answered, scene.simulator.bills().texts), (LINE as u64, LINE as u64));
}

#[tokio::test]
async fn a_batch_that_somebody_else_cancels_is_submitted_again() {
    let scene = Scene::new();
    scene.simulator.plan_next(ten_minutes());
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    scene.advance(HOUR / 12);
    let id = &scene.simulator.batches()[0].id;
    let reply = scene.other_client().post(&format!("/v1/batches/{id}/cancel"), &json!({}));
    assert_eq!(reply.status, 200);
    scene.ends_well(&job, &texts).await;
    let batches = scene.simulator.batches();
    assert_eq!((batches[0].state, batches[1].lines, batches.len()), (BatchState::Cancelled, SHARD / LINE / 2, 2));
}

#[tokio::test]
async fn counts_that_lie_are_not_believed() {
    let liars = [
        BatchPlan::instant().with_counts_of_success(),
        BatchPlan::instant().with_extra_field("request_counts", r#"{"total": 0, "completed": 0, "failed": 0}"#),
        BatchPlan::instant().with_extra_field("request_counts", r#"{"total": -1, "completed": 1e99, "failed": "x"}"#),
    ];
    for plan in liars {
        let scene = Scene::planned(plan);
        let fates = [LineFate::status(500, "server_error", "Again."), LineFate::missing(), LineFate::status(0, "", "")];
        for fate in fates {
            scene.simulator.script_lines(fate, Some(2), |_| true);
        }
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        assert_eq!(scene.simulator.batches()[1].lines, 6);
    }
}

#[tokio::test]
async fn a_line_that_is_in_no_file_comes_again() {
    let scene = Scene::new();
    scene.simulator.script_lines(LineFate::missing(), Some(3), |_| true);
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    assert_eq!((scene.creates(), scene.simulator.batches()[1].lines), (2, 3));
}
