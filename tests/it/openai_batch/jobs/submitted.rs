//! What a job is made of: slices and streams of texts, none, bad ones, long ones, and the files that it leaves.

use std::fs;

use docvector_embed::{
    BadTextReason, Batch, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Limits, OwnedOptions, Prompts,
    TokenCount, Truncation,
    provider::{JobState, OpenAi},
    testing::{Fault, LineFate, Route},
};
use futures_util::stream;
use std::sync::Arc;

use crate::{
    openai_batch::support::{MODEL, Quarters, SHARD, Scene, WIDTH, builder, left_in, refs, submit, until, within},
    support::numbered,
};

fn documents() -> OwnedOptions {
    OwnedOptions::new(InputKind::Document)
}

#[tokio::test]
async fn a_stream_of_texts_is_a_job() {
    let scene = Scene::new();
    let (batch, texts) = (scene.batch(), numbered(10 * SHARD + 3));
    let submitted = batch.submit_stream(stream::iter(texts.clone()), documents());
    let job = within("a job is submitted", submitted).await.expect("it is planned");
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 11);
}

#[tokio::test]
async fn a_job_without_texts_ends_at_once_and_sends_nothing() {
    let scene = Scene::new();
    let batch = scene.batch();
    let none: [&str; 0] = [];
    let streamed = batch.submit_stream(stream::iter(none), documents()).await.expect("it is planned");
    for job in [submit(&batch, &none).await, streamed] {
        let report = within("it ends", job.wait()).await.expect("it has nothing to do");
        assert_eq!((report.state, report.texts, report.answered), (JobState::Completed, 0, 0));
        assert!(job.embeddings().await.expect("there are none").is_empty());
        assert!(report.charges.is_none());
    }
    let rows = batch.embed(Batch::documents(&none)).await.expect("there are none");
    assert!(rows.is_empty() && rows.usage().requests == 0);
    assert_eq!(scene.simulator.counts().requests, 0);
}

fn named(error: &Error) -> Vec<(usize, &str)> {
    error.bad_texts().iter().map(|bad| (bad.index, bad.reason.as_str())).collect()
}

#[tokio::test]
async fn bad_texts_are_all_named_before_anything_is_sent_or_kept() {
    let scene = Scene::new();
    let limits = Limits::none().with_tokens_per_text(40).with_tokens(TokenCount::Exact(Arc::new(Quarters)));
    let openai = OpenAi::builder(MODEL).with_base_url(scene.simulator.base_url()).with_dimensions(WIDTH);
    let openai = openai.with_limits(limits).build().expect("valid");
    let batch = builder(openai, scene.folder.path()).build().expect("valid");
    let mut texts = numbered(3 * SHARD);
    let long = texts.len() - 1;
    texts[3].clear();
    texts[50].clear();
    texts[long] = "x".repeat(161);
    let wanted = [(3, "empty"), (50, "empty"), (long, "too_long")];
    let given = refs(&texts);
    let submitted = batch.submit(Batch::documents(&given)).await.expect_err("three texts are bad");
    let streamed = batch.submit_stream(stream::iter(&texts), documents()).await.expect_err("three texts are bad");
    let embedded = batch.embed(Batch::documents(&given)).await.expect_err("three texts are bad");
    for error in [submitted, streamed, embedded] {
        assert_eq!((error.kind(), named(&error)), (ErrorKind::InvalidInput, wanted.to_vec()));
        assert!(matches!(error.bad_texts()[2].reason, BadTextReason::TooLong { limit: 40, .. }));
    }
    assert_eq!(scene.simulator.counts().requests, 0);
    assert!(batch.list().await.expect("they are read").is_empty());
    assert_eq!(left_in(scene.folder.path()), [""; 0], "nothing is left");
}

#[tokio::test]
async fn a_job_in_another_space_is_refused_before_anything_is_sent() {
    let scene = Scene::new();
    let batch = scene.batch();
    let other = docvector_embed::Space::builder("another model", WIDTH).build().expect("valid");
    let error = batch.submit(Batch::documents(&["a text"]).with_space(other.id())).await.expect_err("another space");
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    assert_eq!(scene.simulator.counts().requests, 0);
}

#[tokio::test]
async fn a_stream_that_breaks_off_leaves_nothing() {
    let scene = Scene::new();
    let batch = scene.batch();
    {
        let endless = stream::unfold(0_u64, |number| async move {
            if number == 1_000 {
                std::future::pending::<()>().await;
            }
            Some((format!("text number {number}"), number + 1))
        });
        let submitted = batch.submit_stream(endless, documents());
        tokio::time::timeout(std::time::Duration::from_millis(300), submitted).await.expect_err("it never ends");
    }
    assert!(batch.list().await.expect("they are read").is_empty());
    assert_eq!(scene.simulator.counts().requests, 0);
    // The handle is as good as before.
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    batch.remove(job.id()).await.expect("it has ended");
    until("what the broken stream left is removed", || left_in(scene.folder.path()).is_empty()).await;
}

/// The same beginning is embedded, and the same places are named, as by a call that is answered at once.
#[tokio::test]
async fn over_long_texts_are_truncated_as_in_a_synchronous_call() {
    let scene = Scene::new();
    let limits = Limits::none().with_tokens_per_text(10).with_tokens(TokenCount::Exact(Arc::new(Quarters)));
    let openai = OpenAi::builder(MODEL).with_base_url(scene.simulator.base_url()).with_dimensions(WIDTH);
    let openai = openai.with_api_key("sk-test").with_limits(limits).build().expect("valid");
    let batch = builder(openai.clone(), scene.folder.path()).build().expect("valid");
    let mut texts = numbered(SHARD + 5);
    let long = [0, 17, SHARD + 4];
    for place in long {
        texts[place] = format!("text {place} {}é", "and so on, ".repeat(10));
    }
    let given = refs(&texts);
    let wanted = Batch::documents(&given).with_truncation(Truncation::Truncate);
    let rows = within("it is embedded", batch.embed(wanted)).await.expect("they are truncated");
    let at_once = openai.embed_all(wanted).await.expect("they are truncated");
    assert_eq!(rows.truncated(), long);
    assert_eq!((rows.truncated(), rows.as_slice()), (at_once.truncated(), at_once.as_slice()));

    let job = batch.submit(wanted).await.expect("it is planned");
    within("it ends", job.wait()).await.expect("it does not pause");
    let again = job.embeddings().await.expect("all are there");
    assert_eq!((again.truncated(), again.as_slice()), (rows.truncated(), rows.as_slice()));
}

/// A line with every kind of character has to come through JSON as it is.
#[tokio::test]
async fn texts_of_any_characters_come_through() {
    let scene = Scene::new();
    let mut texts: Vec<String> =
        ["\"", "\\", "\n", "\r\n", "\t", "\u{0}", "\u{7f}", "\u{2028}", "é", "𝄞", "日本語", " "]
            .map(|odd| format!("a text with {odd} in it"))
            .to_vec();
    texts.push("\u{feff}a byte order mark".into());
    texts.push("{\"custom_id\": \"0-0\"}".into());
    texts.push(" ".into());
    let batch = scene.batch();
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
}

#[tokio::test]
async fn a_text_that_occurs_often_has_a_row_at_each_place() {
    let scene = Scene::new();
    let texts: Vec<String> = (0..SHARD).map(|i| format!("text {}", i % 3)).collect();
    let batch = scene.batch();
    let job = submit(&batch, &texts).await;
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!(report.answered, SHARD as u64);
    let rows = job.embeddings().await.expect("all are there");
    scene.check_rows(&texts, &(0..SHARD).collect::<Vec<_>>(), &rows);
    assert_eq!(report.charges.usage().tokens, scene.simulator.bills().batch_tokens);
}

/// The simulator refuses a line with more texts, tokens or bytes, and a file with more lines or texts.
#[tokio::test]
async fn lines_and_batches_keep_the_limits_of_the_provider() {
    let scene = Scene::new();
    let many = numbered(5_000);
    let long: Vec<String> = (0..100).map(|i| format!("{i} {}", "x".repeat(30_000))).collect();
    for (texts, line_texts) in [(&many, 1_000_000), (&long, 64)] {
        let batch = scene.builder().with_line_texts(line_texts).with_batch_texts(50_000).build().expect("valid");
        let job = submit(&batch, texts).await;
        let report = within("the job ends", job.wait()).await.expect("it does not pause");
        assert_eq!((report.answered, report.failed.len()), (texts.len() as u64, 0));
    }
    let lines: Vec<usize> = scene.simulator.batches().iter().map(|batch| batch.lines).collect();
    assert_eq!((lines, scene.simulator.bills().most_per_text), (vec![3, 3], 1));
}

#[tokio::test]
async fn prompts_are_put_before_the_texts_once() {
    let scene = Scene::new();
    let prompts = Prompts::new("passage: ", "query: ");
    let openai = OpenAi::builder(MODEL).with_base_url(scene.simulator.base_url()).with_dimensions(WIDTH);
    let openai = openai.with_api_key("sk-test").with_prompts(prompts).build().expect("valid");
    let batch = builder(openai, scene.folder.path()).build().expect("valid");
    let texts = numbered(SHARD);
    let documents = within("they are embedded", batch.embed_documents(&texts)).await.expect("no text fails");
    let queries = within("they are embedded", batch.embed_queries(&texts)).await.expect("no text fails");
    for (rows, prompt) in [(documents, "passage: "), (queries, "query: ")] {
        let sent: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}")).collect();
        scene.check_rows(&sent, &(0..SHARD).collect::<Vec<_>>(), &rows);
    }
    assert_eq!((scene.simulator.bills().texts, scene.creates()), (2 * SHARD as u64, 2));
}

#[tokio::test]
async fn files_are_deleted_if_that_is_asked_for() {
    for deletes in [false, true] {
        let scene = Scene::new();
        // An error file, too, and a batch that fails.
        scene.simulator.script_lines(LineFate::status(500, "server_error", "Again."), Some(2), |_| true);
        let batch = scene.builder().with_files_deleted(deletes).build().expect("valid");
        let texts = numbered(SHARD);
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
        let client = scene.other_client();
        let left = || client.get_json("/v1/files")["data"].as_array().map_or(0, Vec::len);
        // Two input files, two output files, one file of errors.
        if deletes {
            until("the files are deleted", || left() == 0).await;
            assert_eq!(scene.simulator.counts().deletes, 5);
        } else {
            assert_eq!((left(), scene.simulator.counts().deletes), (5, 0));
        }
    }
}

/// A file that stays costs nothing, and expires.
#[tokio::test]
async fn a_delete_that_fails_is_no_reason_to_fail() {
    for fault in [Fault::html(502), Fault::error(404, "not_found", "No such file."), Fault::cut()] {
        let scene = Scene::new();
        scene.simulator.fail_next(Route::DeleteFile, 1, fault);
        let batch = scene.builder().with_files_deleted(true).build().expect("valid");
        let texts = numbered(SHARD);
        let job = submit(&batch, &texts).await;
        scene.ends_well(&job, &texts).await;
    }
}

/// The key goes to the server alone.
#[tokio::test]
async fn neither_a_key_nor_a_text_is_in_what_is_shown() {
    let scene = Scene::new();
    scene.simulator.set_credit(Some(0));
    let batch = scene.batch();
    let texts = ["a secret text", "another secret text"];
    let job = submit(&batch, &texts).await;
    let error = within("the job pauses", job.wait()).await.expect_err("there is no money");
    let status = job.status();
    let listed = batch.list().await.expect("they are read");
    let shown = format!("{batch} {batch:?} {job:?} {status} {status:?} {error} {error:?} {listed:?}");
    assert!(!shown.contains("secret") && !shown.contains("sk-test"), "{shown}");
    // The input file has the texts, as it must. No file has the key.
    let mut folders = vec![scene.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("read");
                assert!(!bytes.windows(7).any(|part| part == b"sk-test"), "{}", path.display());
            }
        }
    }
}
