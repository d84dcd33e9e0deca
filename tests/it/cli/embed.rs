//! `docvector-embed embed`.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    path::Path,
    process::{Child, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use docvector_embed::{Batch, EmbedderExt, Truncation, provider::Onnx};

use super::{embed, files, program, rows, run, stderr, stdout, vector, with_default_signals};
use crate::support::{distance, golden, minilm, npy, texts};

#[tokio::test]
async fn rows_come_in_order_and_match_the_library() {
    // Several windows, lines of all lengths.
    let lines: Vec<String> = (0..2500_usize).map(|i| format!("line {i} {}", "more ".repeat(i % 13))).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.txt"), folder.path().join("out.npy"));
    fs::write(&input, lines.join("\n")).expect("written");
    let done = embed(&["--input", input.to_str().expect("UTF-8"), "--output", output.to_str().expect("UTF-8")], b"");
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stderr(&done).contains("2500 texts, 384 dimensions"), "{}", stderr(&done));
    let have = npy(&output);
    let embedder = Onnx::load(minilm()).expect("loads");
    let want = embedder.embed_documents(&lines).await.expect("embeds");
    assert_eq!(have.shape(), [2500, 384]);
    let found = distance(have.rows().into_iter().map(|row| row.to_slice().expect("row-major")), want.rows());
    assert!(found.difference_max <= 1e-5, "{found:?}");
    assert_eq!(files(folder.path()), ["in.txt", "out.npy", "out.npy.space"]);
}

#[tokio::test]
async fn golden_texts_as_json_lines() {
    let file = golden("all-MiniLM-L6-v2/texts.jsonl");
    let done = embed(&["--input", file.to_str().expect("UTF-8")], b"");
    assert!(done.status.success(), "{}", stderr(&done));
    let have = rows(&stdout(&done));
    let ids: Vec<&str> = have.iter().map(|row| row["id"].as_str().expect("passed through")).collect();
    let texts = texts(&file);
    assert_eq!(ids, texts.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
    let vectors: Vec<Vec<f32>> = have.iter().map(vector).collect();
    let want = npy(&golden("all-MiniLM-L6-v2/vectors.npy"));
    let want = want.rows().into_iter().map(|row| row.to_slice().expect("row-major"));
    let found = distance(vectors.iter().map(Vec::as_slice), want);
    assert!(found.cosine_min >= 0.99999 && found.difference_max <= 1e-4, "{found:?}");
    // Truncated texts are marked, and counted on stderr.
    let embedder = Onnx::load(minilm()).expect("loads");
    let refs: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
    let truncated =
        embedder.embed_all(Batch::documents(&refs).with_truncation(Truncation::Truncate)).await.expect("embeds");
    let marked: Vec<usize> = (0..have.len()).filter(|&i| have[i]["truncated"] == true).collect();
    assert_eq!(marked, truncated.truncated());
    assert!(!marked.is_empty());
    let says = format!("{} texts were truncated to 256 tokens", marked.len());
    assert!(stderr(&done).contains(&says), "{says:?} is not in {}", stderr(&done));
}

#[test]
fn bad_lines_are_listed_all_at_once_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("out.jsonl"), "what was there").expect("written");
    let listed = |input: &[u8]| {
        fs::write(at("in.jsonl"), input).expect("written");
        let done = embed(&["--too-long", "error", "--input", &at("in.jsonl"), "--output", &at("out.jsonl")], b"");
        assert_eq!(done.status.code(), Some(1));
        let said = stderr(&done);
        assert!(!said.contains("long long") && !said.contains("filler"), "a text is on stderr: {said}");
        assert_eq!(fs::read_to_string(at("out.jsonl")).expect("still there"), "what was there");
        assert_eq!(files(folder.path()), ["in.jsonl", "out.jsonl"]);
        said
    };
    // Two windows, and texts over the limit before and behind them.
    let long = format!("{{\"text\":\"{}\"}}\n", "long ".repeat(300)).into_bytes();
    let filler: Vec<u8> = (0..2100).flat_map(|i| format!("{{\"text\":\"filler {i}\"}}\n").into_bytes()).collect();
    let mut input = b"{\"text\":\"good\"}\n{\"text\":\"\"}\nnot json\n[1]\n{\"txt\":1}\n{\"text\":7}\n".to_vec();
    input.extend_from_slice(b"{\"text\":\"\xff\"}\n{\"text\":\"x\",\"embedding\":1}\n");
    let said = listed(&[&input[..], &filler[..], &long[..]].concat());
    assert!(said.contains("line 2: the text is empty"), "{said}");
    for line in 3..=8 {
        assert!(said.contains(&format!("line {line}: ")), "line {line} is not in: {said}");
    }
    assert!(said.contains("error: 7 lines of 2109 cannot be embedded"), "{said}");

    // Where all lines can be read, the model is asked.
    let said = listed(&[&long[..], &filler[..], &long[..]].concat());
    for line in [1, 2102] {
        let says = format!("line {line}: the text has at least 302 tokens, the limit is 256");
        assert!(said.contains(&says), "{says:?} is not in: {said}");
    }
    assert!(said.contains("error: 2 lines of 2102 cannot be embedded"), "{said}");
}

/// A pipe may stay open for ever.
#[cfg(unix)]
#[test]
fn a_bad_line_of_a_pipe_is_told_before_the_pipe_ends() {
    let mut command = program();
    command.args(["embed", "--model"]).arg(minilm()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"one\n\n").expect("written");
    assert_eq!(super::endings::ended(&mut child).code(), Some(1));
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    assert!(said.contains("line 2: the text is empty\n"), "{said}");
}

#[test]
fn bad_lines_are_recorded_in_their_place_where_asked() {
    let done = embed(
        &["--jsonl", "--on-error", "record"],
        b"{\"text\":\"one\",\"n\":1}\nbroken\n{\"text\":\"\",\"n\":3}\n{\"text\":\"four\"}\n",
    );
    assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
    assert!(stderr(&done).contains("2 lines of 4 have no embedding, but an error in its place"), "{}", stderr(&done));
    let rows = rows(&stdout(&done));
    assert_eq!(rows.len(), 4);
    assert_eq!((vector(&rows[0]).len(), rows[0]["n"].as_u64()), (384, Some(1)));
    assert_eq!(rows[1]["line"], 2);
    assert_eq!((rows[2]["error"].as_str(), rows[2]["n"].as_u64()), (Some("the text is empty"), Some(3)));
    assert_eq!(vector(&rows[3]).len(), 384);
}

#[test]
fn no_texts_give_no_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("none.npy");
    let done = embed(&["--output", output.to_str().expect("UTF-8")], b"");
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(npy(&output).shape(), [0, 384]);
    let done = embed(&[], b"");
    assert!(done.status.success() && done.stdout.is_empty());
}

#[test]
fn kinds_and_lengths_are_passed_on() {
    let folder = golden("tiny/bert-prompts");
    let texts = texts(&folder.join("texts.jsonl"));
    let input = folder.join("texts.jsonl");
    for (kind, file) in [("document", "documents.npy"), ("query", "queries.npy")] {
        let done =
            run(program().arg("embed").arg("--model").arg(&folder).args(["--kind", kind, "--input"]).arg(&input), b"");
        assert!(done.status.success(), "{}", stderr(&done));
        let vectors: Vec<Vec<f32>> = rows(&stdout(&done)).iter().map(vector).collect();
        assert_eq!(vectors.len(), texts.len());
        let want = npy(&folder.join(file));
        let want = want.rows().into_iter().map(|row| row.to_slice().expect("row-major"));
        let found = distance(vectors.iter().map(Vec::as_slice), want);
        assert!(found.difference_max <= 2e-5, "{kind}: {found:?}");
    }
}

#[test]
fn npy_to_a_pipe_is_refused() {
    let done = embed(&["--format", "npy"], b"a\n");
    assert_eq!(done.status.code(), Some(2));
    assert!(
        stderr(&done).contains("npy needs a file, because its header holds the number of rows"),
        "{}",
        stderr(&done)
    );
    let done = embed(&["--output", "x.npy", "--on-error", "record"], b"a\n");
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn what_cannot_be_read_or_written_is_an_error_that_names_it() {
    for (arguments, says) in
        [(&["--input", "no/such/file"][..], "no/such/file"), (&["--output", "no/such/folder/x.npy"], "no/such/folder")]
    {
        let done = embed(arguments, b"a\n");
        assert_eq!(done.status.code(), Some(1));
        assert!(stderr(&done).starts_with("error: ") && stderr(&done).contains(says), "{}", stderr(&done));
    }
    let done = run(program().args(["embed", "--model", "no/such/model"]), b"a\n");
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("no/such/model does not exist"), "{}", stderr(&done));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let done = embed(&["--output", "/dev/full"], b"a\n");
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("/dev/full"), "{}", stderr(&done));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = program();
    let child =
        child.args(["embed", "--model"]).arg(minilm()).arg("--input").arg(golden("all-MiniLM-L6-v2/texts.jsonl"));
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 10]).expect("begins");
    drop(stdout);
    let done = child.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
}

/// Starts a run whose input does not end, and waits until rows are written into the folder, which must be empty. Returns
/// the run, and the thread that feeds it with [`endless`] lines.
pub(super) fn run_without_end(folder: &Path, output: &Path, more: &[&OsStr]) -> (Child, JoinHandle<()>) {
    let mut command = program();
    command.args(["embed", "--model"]).arg(minilm()).arg("--output").arg(output).args(more);
    let mut command = with_default_signals(&command);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let writer = thread::spawn(move || drop((0..).try_for_each(|i| stdin.write_all(endless(i).as_bytes()))));
    let is_written =
        || files(folder).iter().any(|name| fs::metadata(folder.join(name)).is_ok_and(|file| file.len() > 0));
    // A busy machine may take this long.
    for _ in 0..3_600 {
        if is_written() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    if !is_written() {
        child.kill().expect("killed");
        panic!("nothing was written within three minutes");
    }
    (child, writer)
}

/// Returns a line of an endless input. No two are alike.
pub(super) fn endless(line: usize) -> String {
    format!("{line} is one more line of text\n")
}

#[test]
fn a_killed_run_leaves_nothing_under_the_final_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.jsonl");
    let (mut child, writer) = run_without_end(folder.path(), &output, &[]);
    child.kill().expect("killed");
    child.wait().expect("ended");
    writer.join().expect("written");
    assert!(!output.exists());
}

/// Interrupts a run, and returns what it printed on stderr.
#[cfg(unix)]
pub(super) fn interrupted(mut child: Child) -> String {
    let signal =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(signal.success());
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().expect("ended").signal(), Some(2), "{said}");
    said
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.jsonl");
    let (child, writer) = run_without_end(folder.path(), &output, &[]);
    let said = interrupted(child);
    writer.join().expect("written");
    assert!(said.contains("interrupted; nothing was written to"), "{said}");
    assert_eq!(files(folder.path()), [""; 0], "something is left");
}

#[test]
fn json_lines_without_the_option_are_noticed() {
    let done = embed(&[], b"{\"text\":\"hello\"}\n");
    assert!(done.status.success());
    assert!(stderr(&done).contains("line 1 looks like a JSON line"), "{}", stderr(&done));
}

/// A line of 10 MB is a text like any other.
#[test]
fn a_giant_line_is_truncated() {
    let mut input = b"first\n".to_vec();
    input.extend("a giant of a line. ".repeat((10 << 20) / 19).bytes());
    input.extend_from_slice(b"\nlast\n");
    let done = embed(&[], &input);
    assert!(done.status.success(), "{}", stderr(&done));
    let out = stdout(&done);
    assert_eq!(out.lines().count(), 3);
    assert!(stderr(&done).contains("1 text was truncated to 256 tokens"), "{}", stderr(&done));
}
