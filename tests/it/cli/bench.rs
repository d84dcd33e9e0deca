//! `docvector-embed bench`.

use std::{fs, process::Output};

use super::{files, program, run, stderr, stdout};
use crate::support::{golden, minilm_int8};

/// Runs `bench` on a tiny model, for about a second.
fn bench(arguments: &[&str], input: &[u8]) -> Output {
    let model = golden("tiny/bert-cls");
    run(program().args(["bench", "--seconds", "1", "--model"]).arg(model).args(arguments), input)
}

/// Returns the rows of the table whose header begins with this word.
pub(super) fn table(said: &str, header: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines = said.lines().skip_while(|line| !line.trim_start().starts_with(header) || !line.starts_with("  "));
    lines.skip(1).take_while(|line| !line.is_empty()).map(cells).collect()
}

/// Fails if anything is on standard error but the line that a slow machine gets: how long all of it takes.
pub(super) fn assert_quiet(done: &Output) {
    let said = stderr(done);
    let is_about_time = |line: &str| line.starts_with("this takes about ") && line.contains(" s, and not 1: ");
    assert!(said.lines().count() <= 1 && said.lines().all(is_about_time), "{said}");
}

#[test]
fn a_row_for_each_budget() {
    let done = bench(&["--budgets", "8,32,8", "--rounds", "2", "--threads", "1"], b"");
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    assert_quiet(&done);
    let rows = table(&said, "budget ");
    let budgets: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(budgets, ["8", "32", "256"], "{said}");
    let number = |cell: &str| cell.parse::<f64>().unwrap_or_else(|_| panic!("{cell:?} is no number in {said}"));
    for row in &rows {
        assert!(number(&row[1]) > 0.0 && number(&row[2]) > 0.0 && number(&row[3]) > 0.0, "{said}");
        // Padding, then four stages: each is a number and a percent sign.
        let percents: Vec<f64> = [4, 6, 8, 10, 12].map(|at| number(&row[at])).to_vec();
        assert!((99.0..=101.0).contains(&percents[1..].iter().sum()), "{said}");
        assert!(number(&row[14]) > 0.0, "{said}");
    }
    assert_eq!(rows[2][3], "1.00", "{said}");
    // A batch of 8 tokens holds texts of one length, or a single text, so that it has less padding than larger ones.
    assert!(number(&rows[0][4]) < number(&rows[2][4]), "{said}");
    for part in [
        "threads            1\n",
        " from this crate's documentation, ",
        ", as documents\n",
        "ONNX Runtime       1.",
        "rounds             2, ",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn texts_of_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lines, objects) = (folder.path().join("lines.txt"), folder.path().join("chunks.jsonl"));
    fs::write(&lines, "one\n\ntwo words\n").expect("written");
    fs::write(&objects, "{\"text\": \"one\"}\nno object\n").expect("written");
    for (file, kind, texts) in
        [(&lines, "query", "which has 2, as queries"), (&objects, "document", "which has 1, as documents")]
    {
        let done = bench(&["--budgets", "64", "--kind", kind, "--input", file.to_str().expect("UTF-8")], b"");
        let said = stdout(&done);
        assert!(done.status.success(), "{said}{}", stderr(&done));
        assert!(said.contains(texts) && said.contains("lines left out   1\n"), "{said}");
        assert!(!said.contains("two words") && !said.contains("no object"), "a text is in {said}");
    }
    let done = bench(&["--budgets", "64", "--input", "-"], b"from standard input\n");
    assert!(done.status.success() && stdout(&done).contains("which has 1"), "{}{}", stdout(&done), stderr(&done));
}

#[test]
fn what_cannot_be_measured_is_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let (empty, blank) = (folder.path().join("empty.txt"), folder.path().join("blank.txt"));
    fs::write(&empty, "").expect("written");
    fs::write(&blank, "\n\n").expect("written");
    let missing = folder.path().join("missing.txt");
    for (file, why) in [
        (&empty, "there is no text to measure with in "),
        (&blank, ": line 1: the text is empty"),
        (&missing, "cannot be read"),
    ] {
        let done = bench(&["--input", file.to_str().expect("UTF-8")], b"");
        assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
        let said = stderr(&done);
        assert!(said.contains(why) && said.contains(file.to_str().expect("UTF-8")), "{why:?} is not in {said}");
    }
    let done = run(program().args(["bench", "--model", "no-such-folder"]), b"");
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    assert!(stderr(&done).contains("no-such-folder"), "{}", stderr(&done));
    for arguments in [&["--budgets", "64,0"][..], &["--rounds", "0"], &["--seconds", "x"], &["--plot", "-"]] {
        assert_eq!(bench(arguments, b"").status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_plot_is_drawn_where_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("speed.svg");
    fs::write(&file, "what was there").expect("written");
    let done = bench(&["--budgets", "16,64", "--plot", file.to_str().expect("UTF-8")], b"");
    assert!(done.status.success(), "{}{}", stdout(&done), stderr(&done));
    assert!(stdout(&done).contains(&format!("plotted in {}", file.display())), "{}", stdout(&done));
    let svg = fs::read_to_string(&file).expect("written");
    assert_eq!(elements(&svg, "circle"), 3, "{svg}");
    for label in ["bert-cls", "padded tokens of a batch", "tokens/s", ">16<", ">64<", ">256<"] {
        assert!(svg.contains(label), "{label:?} is not in {svg}");
    }
    assert_eq!(files(folder.path()), ["speed.svg"]);

    // A plot that cannot be written is an error before the measurement, and leaves the old file as it is.
    let model = folder.path().join("no model");
    for place in [folder.path().join("missing/speed.svg"), folder.path().to_owned()] {
        let done = run(program().args(["bench", "--model"]).arg(&model).arg("--plot").arg(&place), b"");
        assert_eq!(done.status.code(), Some(1));
        assert!(stderr(&done).contains(place.to_str().expect("UTF-8")), "{}", stderr(&done));
    }
    let done = run(program().args(["bench", "--model"]).arg(&model).arg("--plot").arg(&file), b"");
    assert!(stderr(&done).contains("no model"), "{}", stderr(&done));
    assert_eq!(fs::read_to_string(&file).expect("still there"), svg);
    assert_eq!(files(folder.path()), ["speed.svg"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_measurement_leaves_no_plot() {
    use std::{os::unix::process::ExitStatusExt, process::Stdio, thread, time::Duration};

    use super::{
        endings::{ended, signal},
        until, with_default_signals,
    };

    // While the model is loaded, and while it is measured.
    for after in [0, 1000] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = program();
        command.args(["bench", "--seconds", "600", "--model"]).arg(golden("tiny/bert-cls"));
        command.arg("--plot").arg(folder.path().join("speed.svg"));
        let mut command = with_default_signals(&command);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        until("an unfinished plot", || !files(folder.path()).is_empty());
        thread::sleep(Duration::from_millis(after));
        signal(&child, "INT");
        assert_eq!(ended(&mut child).signal(), Some(2), "after {after} ms");
        assert_eq!(files(folder.path()), [""; 0], "after {after} ms");
    }
}

/// Fails unless a command refuses its arguments with this status, and names what is wrong in words for people.
fn assert_refused(arguments: &[&str], status: i32, wrong: &str) {
    let done = run(program().args(arguments), b"");
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(said.contains(wrong), "{wrong:?} is not in {said}");
    for word in ["non-zero", "NonZero", "usize", "u32", "ParseInt", "Os {", ".partial"] {
        assert!(!said.contains(word), "{word:?} is in {said}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_in_plain_words() {
    for command in ["bench", "embed", "doctor", "serve"] {
        for [option, value] in [["--threads", "0"], ["--max-tokens", "0"], ["--device", "tpu"]] {
            let arguments = [command, "--model", "no/such/model", option, value];
            assert_refused(&arguments, 2, &format!("'{value}' for '{option} "));
        }
    }
    let model = golden("tiny/bert-cls").display().to_string();
    assert_refused(&["bench", "--model", &model, "--plot", "x.png"], 2, "--plot x.png");
    assert_refused(&["bench", "--model", &model, "--plot", "/nope/x.svg"], 1, "/nope/x.svg cannot be written");
}

/// Each session of a file has its own weights. With one text per batch, nothing is padded.
#[test]
fn a_model_from_a_file() {
    let model = minilm_int8();
    let arguments = ["--seconds", "1", "--rounds", "1", "--budgets", "256", "--kind", "query"];
    let done = run(program().args(["bench", "--model"]).arg(model).args(arguments), b"");
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    assert_eq!(table(&said, "budget ").len(), 1, "{said}");
}

/// Counts the elements of a name in XML, and asserts that it is well-formed: each opened element is closed, in order.
fn elements(xml: &str, name: &str) -> usize {
    let (mut open, mut found, mut rest) = (Vec::new(), 0, xml);
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        assert!(!text.contains('>'), "{text:?} has an unescaped `>`");
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "in {xml}");
            continue;
        }
        assert!(tag.matches('"').count().is_multiple_of(2), "{tag:?}");
        let own = tag.split([' ', '/']).next().unwrap_or_default();
        found += usize::from(own == name);
        if !tag.ends_with('/') {
            open.push(own);
        }
        assert!(!open.is_empty(), "more than one root in {xml}");
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    found
}
