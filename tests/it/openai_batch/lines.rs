//! What becomes of single lines: refused, failed, without money, unusable.

use std::sync::Arc;

use docvector_embed::{
    ErrorKind,
    provider::{JobReport, JobState},
    testing::{Fault, LineFate, Route, Simulator},
};
use serde_json::{Value, json};

use super::support::{LINE, MODEL, SHARD, Scene, WIDTH, answer, lines_of, submit, within};
use crate::support::{numbered, stand_in::tokens};

fn failed(report: &JobReport) -> Vec<(usize, ErrorKind)> {
    report.failed.iter().map(|text| (text.index as usize, text.kind)).collect()
}

/// Lets each line with a text that says "bad" be refused.
fn refuse_bad(simulator: &Simulator, fate: LineFate) {
    simulator.script_lines(fate, None, |line| line.texts.iter().any(|text| text.contains("bad")));
}

#[tokio::test]
async fn a_bad_text_is_found_among_its_neighbours_which_are_answered() {
    for bad in [vec![13], vec![0, SHARD - 1], vec![8, 9, 10], vec![8, 9, 10, 11], vec![20]] {
        let scene = Scene::new();
        refuse_bad(&scene.simulator, LineFate::status(400, "invalid_value", "Not this text."));
        let mut texts = numbered(SHARD + 1);
        bad.iter().for_each(|&place| texts[place].push_str(", a bad one"));
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        let report = scene.ends_without(&job, &texts, &bad).await;
        let wanted: Vec<_> = bad.iter().map(|&place| (place, ErrorKind::InvalidInput)).collect();
        assert_eq!(failed(&report), wanted);

        let error = within("the rows are read", job.embeddings()).await.expect_err("texts are bad");
        let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
        assert_eq!((error.kind(), &named), (ErrorKind::InvalidInput, &bad));
        assert!(!error.to_string().contains("a bad one"), "an error quotes no text: {error}");
        let (places, rows) = error.into_partial().expect("the others").into_parts();
        assert_eq!(places.len(), texts.len() - bad.len());
        scene.check_rows(&texts, &places, &rows);
        // Two batches of two shards, and one with the texts of the refused lines alone.
        assert!(scene.creates() <= 4, "{}", scene.creates());
    }
}

#[tokio::test]
async fn a_bad_text_that_is_alone_in_its_line_is_not_sent_twice() {
    let scene = Scene::new();
    refuse_bad(&scene.simulator, LineFate::status(400, "invalid_value", "Not this text."));
    let texts = ["good", "a bad one", "also good"];
    let batch = scene.builder().with_line_texts(1).build().expect("valid");
    let job = submit(&batch, &texts).await;
    let report = scene.ends_without(&job, &texts, &[1]).await;
    assert_eq!((failed(&report), scene.creates()), (vec![(1, ErrorKind::InvalidInput)], 1));
}

#[tokio::test]
async fn lines_that_failed_by_chance_come_again() {
    let fates = [
        LineFate::status(500, "server_error", "It broke."),
        LineFate::status(503, "overloaded", "Slow down."),
        LineFate::status(429, "rate_limit_exceeded", "Too many requests."),
        LineFate::status(408, "timeout", "Too slow."),
        LineFate::status(0, "", ""),
        LineFate::error("server_error", "It broke."),
        LineFate::error("batch_expired", "Too late."),
        LineFate::error("a_code_that_nobody_knows", "Hm."),
        LineFate::missing(),
    ];
    for fate in fates {
        let scene = Scene::new();
        // Three lines fail in the first batch, and the same three in the second one. But of a batch that says that it has
        // finished lines and has none, nobody knows what became of them: that is another test.
        let times = if format!("{fate:?}").contains("Missing") { 3 } else { 6 };
        scene.simulator.script_lines(fate.clone(), Some(times), |line| line.number < 3);
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        let lines: Vec<usize> = scene.simulator.batches().iter().map(|batch| batch.lines).collect();
        // In the third round, each text has a line of its own, unless the batch did not come to the line.
        let is_begun = !format!("{fate:?}").contains("batch_expired");
        let wanted = [SHARD / LINE, 3, if is_begun { 3 * LINE } else { 3 }];
        assert_eq!(lines, wanted[..times / 3 + 1], "{fate:?}");
    }
}

#[tokio::test]
async fn a_line_that_never_succeeds_is_given_up_after_five_rounds() {
    let scene = Scene::new();
    let broken = LineFate::status(500, "server_error", "It broke.");
    scene.simulator.script_lines(broken, None, |line| line.texts.iter().any(|text| text.contains("cursed")));
    let mut texts = numbered(SHARD);
    texts[17].push_str(", cursed");
    let batch = scene.builder().with_line_texts(1).build().expect("valid");
    let job = submit(&batch, &texts).await;
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.state, report.answered), (JobState::Completed, SHARD as u64 - 1));
    scene.check_answered(&job, &texts, &[17]).await;
    assert_eq!((scene.creates(), failed(&report)), (5, vec![(17, ErrorKind::Unavailable)]));
    let error = job.embeddings().await.expect_err("one text has no row");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "waiting may help: {error}");
    assert_eq!(error.partial().map(|partial| partial.indices().len()), Some(SHARD - 1));
}

#[tokio::test]
async fn without_money_in_the_middle_the_job_pauses_and_no_text_is_condemned() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    // Enough for three lines and a half.
    let paid: u64 = texts[..3 * LINE + LINE / 2].iter().map(|text| tokens(text)).sum();
    scene.simulator.set_credit(Some(paid));
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("there is no money");
    assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{error}");
    let status = job.status();
    assert_eq!((status.state, status.answered, status.failed), (JobState::Paused, 3 * LINE as u64, 0));
    // What was paid for is there.
    let partial = job.rows(0..SHARD as u64).await.expect("they can be read");
    scene.check_rows(&texts, partial.indices(), partial.embeddings());
    assert_eq!(partial.indices().len(), 3 * LINE);

    scene.simulator.set_credit(None);
    job.resume().await.expect("it goes on");
    scene.ends_well(&job, &texts).await;
    assert_eq!((scene.creates(), scene.simulator.batches()[1].lines), (2, SHARD / LINE - 3));
}

#[tokio::test]
async fn a_job_that_paused_is_resumed_by_another_handle() {
    let scene = Scene::new();
    let texts = numbered(SHARD);
    scene.simulator.set_credit(Some(0));
    let id = {
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        let error = within("the job pauses", job.wait()).await.expect_err("there is no money");
        assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{error}");
        job.id().to_owned()
    };
    scene.simulator.set_credit(None);
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is there");
    scene.ends_well(&job, &texts).await;
}

#[tokio::test]
async fn an_account_that_is_refused_pauses_the_job_before_anything_is_billed() {
    let faults = [
        (Fault::error(429, "insufficient_quota", "Pay."), ErrorKind::QuotaExhausted),
        (Fault::error(401, "invalid_api_key", "Who are you?"), ErrorKind::Auth),
        (Fault::error(403, "unsupported_country_region_territory", "Not there."), ErrorKind::Auth),
    ];
    for route in [Route::CreateFile, Route::CreateBatch] {
        for (fault, kind) in &faults {
            let scene = Scene::new();
            scene.simulator.fail_next(route, 1_000, fault.clone());
            let (batch, texts) = (scene.batch(), numbered(SHARD));
            let job = submit(&batch, &texts).await;
            let error = within("the job pauses", job.wait()).await.expect_err("it is refused");
            assert_eq!((error.kind(), job.status().state), (*kind, JobState::Paused), "{route:?}: {error}");
            assert_eq!(scene.creates(), 0);
            scene.simulator.clear_faults();
            job.resume().await.expect("it goes on");
            scene.ends_well(&job, &texts).await;
            assert_eq!((scene.creates(), scene.simulator.counts().uploads), (1, 1), "{route:?}");
        }
    }
}

/// Makes the result of a line of its id, its texts and their vectors.
type Make = dyn Fn(&str, &[String], &[Vec<f32>]) -> Value + Sync;

/// A scene in which the third line has this result.
async fn with_third_line(make: &Make) -> (Scene, Vec<String>) {
    let (scene, texts) = (Scene::new(), numbered(SHARD));
    let lines = lines_of(&texts).await;
    let (id, of_line) = &lines[2];
    let vectors: Vec<Vec<f32>> = of_line.iter().map(|text| scene.simulator.vector(MODEL, WIDTH, text)).collect();
    let line = make(id, of_line, &vectors).to_string();
    let wanted = Arc::new(id.clone());
    scene.simulator.script_lines(LineFate::raw(line), None, move |line| line.custom_id == *wanted);
    (scene, texts)
}

#[tokio::test]
async fn a_vector_that_is_unusable_fails_its_text_alone_and_is_not_bought_again() {
    for broken in [0.0, f32::NAN, f32::INFINITY] {
        let (scene, texts) = with_third_line(&move |id, texts, vectors| {
            let mut vectors = vectors.to_vec();
            vectors[1].fill(broken);
            answer(id, texts, &vectors)
        })
        .await;
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        let report = within("the job ends", job.wait()).await.expect("it does not pause");
        assert_eq!(failed(&report), [(2 * LINE + 1, ErrorKind::Protocol)], "{broken}");
        assert_eq!((report.answered, scene.creates()), (SHARD as u64 - 1, 1));
        let partial = job.rows(0..SHARD as u64).await.expect("they can be read");
        scene.check_rows(&texts, partial.indices(), partial.embeddings());
        // It was billed, and the report says so.
        assert_eq!(report.charges.usage().tokens, scene.simulator.bills().batch_tokens);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_its_line_fails_these_texts_alone_and_is_not_bought_again() {
    fn shorter(vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
        vectors.iter().map(|vector| vector[1..].to_vec()).collect()
    }
    let makes: [&Make; 6] = [
        &|id, texts, vectors| answer(id, texts, &vectors[1..]),
        &|id, texts, vectors| answer(id, texts, &[vectors, vectors].concat()),
        &|id, texts, vectors| answer(id, texts, &shorter(vectors)),
        &|id, texts, vectors| {
            let mut line = answer(id, texts, vectors);
            line["response"]["body"]["data"][1]["index"] = json!(0);
            line
        },
        &|id, texts, vectors| {
            let mut line = answer(id, texts, vectors);
            line["response"]["body"]["data"] = Value::Null;
            line
        },
        &|id, texts, vectors| {
            let mut line = answer(id, texts, vectors);
            line["response"]["body"]["data"][0]["embedding"] = json!("no base64!");
            line
        },
    ];
    for (number, make) in makes.into_iter().enumerate() {
        let (scene, texts) = with_third_line(make).await;
        let batch = scene.batch();
        let job = submit(&batch, &texts).await;
        let report = within("the job ends", job.wait()).await.expect("it does not pause");
        let failed: Vec<usize> = failed(&report).into_iter().map(|(index, _)| index).collect();
        let line: Vec<usize> = (2 * LINE..3 * LINE).collect();
        assert!(!failed.is_empty() && failed.iter().all(|place| line.contains(place)), "answer {number}: {failed:?}");
        let partial = job.rows(0..SHARD as u64).await.expect("they can be read");
        scene.check_rows(&texts, partial.indices(), partial.embeddings());
        assert_eq!(partial.indices().len() + failed.len(), SHARD);
        assert_eq!((scene.creates(), scene.simulator.bills().most_per_text), (1, 1), "answer {number}");
    }
}

/// A line that cannot be read may be that of any line that no other line answers. It was billed, so nothing is bought
/// again: its texts fail, and the report says so.
#[tokio::test]
async fn lines_that_cannot_be_read_fail_the_texts_that_have_no_other() {
    let strange = [
        json!({"custom_id": null, "response": {"status_code": 200}}).to_string(),
        "[]".into(),
        "{".into(),
        "<html>no JSON</html>".into(),
        "\u{0}".into(),
    ];
    for line in strange {
        let scene = Scene::new();
        scene.simulator.script_lines(LineFate::raw(line.clone()), Some(1), |line| line.number == 4);
        let (batch, texts) = (scene.batch(), numbered(SHARD));
        let job = submit(&batch, &texts).await;
        let report = within("the job ends", job.wait()).await.expect("it does not pause");
        let of_line: Vec<_> = (4 * LINE..5 * LINE).map(|place| (place, ErrorKind::Protocol)).collect();
        assert_eq!(failed(&report), of_line, "{line}");
        let partial = job.rows(0..SHARD as u64).await.expect("they can be read");
        scene.check_rows(&texts, partial.indices(), partial.embeddings());
        assert_eq!((partial.indices().len(), scene.creates()), (SHARD - LINE, 1));
        // Nobody knows the tokens of that line.
        assert_eq!(report.charges.usage().unreported, 1, "{:?}", report.charges);
    }
}

/// A line with the id of no line belongs to nothing. The line that it stands for was billed, and is not there.
#[tokio::test]
async fn lines_of_nobody_are_left_alone() {
    let scene = Scene::new();
    let stranger = json!({"custom_id": "999999-0123456789abcdef", "response": null, "error": null}).to_string();
    scene.simulator.script_lines(LineFate::raw(stranger), Some(1), |line| line.number == 4);
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.answered, report.failed.len()), (SHARD as u64, 0));
    let rows = job.embeddings().await.expect("all are there");
    scene.check_rows(&texts, &(0..SHARD).collect::<Vec<_>>(), &rows);
}

/// The rows of one line under the id of another would be wrong without any error: the id has a hash of the texts.
#[tokio::test]
async fn rows_under_the_id_of_another_batchs_line_are_not_taken() {
    let (one, other) = (numbered(SHARD), (0..SHARD).map(|i| format!("another text {i}")).collect::<Vec<_>>());
    let (ids, strangers) = (lines_of(&one).await, lines_of(&other).await);
    let scene = Scene::new();
    for ((id, _), (strange, of_line)) in ids.iter().zip(&strangers) {
        assert_ne!(id, strange, "lines of other texts have other ids");
        let vectors: Vec<_> = of_line.iter().map(|text| scene.simulator.vector(MODEL, WIDTH, text)).collect();
        let (wanted, line) = (id.clone(), answer(strange, of_line, &vectors).to_string());
        scene.simulator.script_lines(LineFate::raw(line), Some(1), move |line| line.custom_id == wanted);
    }
    let batch = scene.batch();
    let job = submit(&batch, &one).await;
    within("the job ends", job.wait()).await.expect("it does not pause");
    let rows = job.embeddings().await.expect("all are there");
    scene.check_rows(&one, &(0..SHARD).collect::<Vec<_>>(), &rows);
}
