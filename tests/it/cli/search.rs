//! `docvector-embed search`.

use std::{
    fs,
    process::{Command, Output},
};

use super::{embed, files, program, rows, run, stderr, stdout};
use crate::support::{golden, minilm};

const TEXTS: [&str; 3] =
    ["A value has one owner in Rust.", "Sheep are kept for their wool.", "Bread is baked in an oven."];

#[test]
fn the_nearest_rows_come_first_from_both_formats() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let table = TEXTS.iter().enumerate().map(|(id, text)| format!("{id},{text}\n")).collect::<String>();
    fs::write(at("in.csv"), format!("id,body\n{table}")).expect("written");
    for output in ["out.jsonl", "out.npy"] {
        let done = embed(&["--input", &at("in.csv"), "--column", "body", "--output", &at(output)], b"");
        assert!(done.status.success(), "{}", stderr(&done));
    }
    let search = |arguments: &[&str]| {
        let mut command = program();
        run(command.args(["search", "--model"]).arg(minilm()).args(arguments).arg("who owns a value?"), b"")
    };
    let done = search(&["--vectors", &at("out.jsonl"), "--top", "2"]);
    assert!(done.status.success(), "{}", stderr(&done));
    let out = stdout(&done);
    let first = out.lines().next().expect("a row");
    assert!(first.ends_with(&format!("  1  {}", TEXTS[0])) && out.lines().count() == 2, "{out}");

    let done = search(&["--vectors", &at("out.jsonl"), "--json"]);
    let found = rows(&stdout(&done));
    let object = &found[0]["object"];
    assert_eq!((found.len(), object["id"].as_str(), found[0]["row"].as_u64()), (3, Some("0"), Some(1)));
    assert!(found[0]["score"].as_f64() > found[1]["score"].as_f64() && object.get("embedding").is_none());

    let done = search(&["--vectors", &at("out.npy"), "--json", "--top", "1"]);
    assert_eq!(rows(&stdout(&done))[0]["row"], 1, "{}", stderr(&done));

    // Vectors of another model are never compared.
    let mut command = program();
    command.args(["search", "--vectors", &at("out.npy"), "--model"]).arg(golden("tiny/bert-cls")).arg("a question");
    let done = run(&mut command, b"");
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("they cannot be compared"), "{}", stderr(&done));
    // Without the file beside them, their width is all that can be seen.
    fs::remove_file(at("out.npy.space")).expect("removed");
    let done = run(&mut command, b"");
    assert!(stderr(&done).contains("warning: there is no") && done.status.code() == Some(1), "{}", stderr(&done));
    assert!(stderr(&done).contains("the vector has 384 components"), "{}", stderr(&done));
}

#[test]
fn a_file_that_is_missing_or_no_output_is_an_error_before_the_model_is_loaded() {
    let search = |file: &str| run(program().args(["search", "--model", "none", "--vectors", file, "q"]), b"");
    let done = search("no/such/file");
    assert!(stderr(&done).contains("no/such/file cannot be read"), "{}", stderr(&done));
    let done = search(golden("all-MiniLM-L6-v2/vectors.npy").to_str().expect("UTF-8"));
    assert!(stderr(&done).contains("none"), "the model is looked for: {}", stderr(&done));
}

/// Embeds a file with a tiny model.
fn embed_file(model: &str, input: &str) -> Command {
    let mut command = program();
    command.args(["embed", "--model"]).arg(golden(model)).args(["--input", input]);
    command
}

/// Searches a file of vectors with a tiny model.
fn search(model: &str, vectors: &str) -> Output {
    let mut command = program();
    run(command.args(["search", "--vectors", vectors, "--model"]).arg(golden(model)).arg("a question"), b"")
}

#[test]
fn a_row_that_cannot_be_compared_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("chunks.jsonl"), "{\"text\":\"one\"}\n{\"text\":\"two\"}\n").expect("written");
    // 16 components, one of which is too large for 32 bits.
    let row = |first: &str| format!("{{\"text\":\"one\",\"embedding\":[{first}{}]}}\n", ",0.5".repeat(15));
    fs::write(at("large.jsonl"), row("0.5") + &row("1e39")).expect("written");
    let done = run(embed_file("tiny/bert-cls", &at("chunks.jsonl")).args(["--output", &at("out.npy")]), b"");
    assert!(done.status.success(), "{}", stderr(&done));
    let mut matrix = fs::read(at("out.npy")).expect("there");
    let end = matrix.len();
    matrix[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(at("out.npy"), matrix).expect("written");
    for (name, place) in [("chunks.jsonl", 1), ("large.jsonl", 2), ("out.npy", 2)] {
        let done = search("tiny/bert-cls", &at(name));
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{name}: {}{said}", stdout(&done));
        let names = ["line", "row"].map(|what| said.contains(&format!("{}, {what} {place}: ", at(name))));
        assert!(names.contains(&true), "{said}");
    }
}

/// The file beside the vectors is that of a run before, because the shell has written over them.
#[test]
fn vectors_that_were_written_over_are_not_those_of_the_space_beside_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("one.txt"), "one\n").expect("written");
    fs::write(at("two.txt"), "two\nlines\n").expect("written");
    let done = run(embed_file("tiny/bert-cls", &at("one.txt")).args(["--output", &at("e.jsonl")]), b"");
    assert!(done.status.success(), "{}", stderr(&done));
    let bytes = fs::metadata(at("e.jsonl")).expect("there").len();
    let beside = fs::read_to_string(at("e.jsonl.space")).expect("there");
    assert_eq!(beside.lines().nth(1), Some(format!("bytes={bytes}").as_str()));
    assert!(search("tiny/bert-cls", &at("e.jsonl")).status.success());

    let over = fs::File::create(at("e.jsonl")).expect("opened");
    let done = embed_file("tiny/bert-lower", &at("two.txt")).stdout(over).output().expect("the program runs");
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(files(folder.path()), ["e.jsonl", "e.jsonl.space", "one.txt", "two.txt"]);
    for model in ["tiny/bert-cls", "tiny/bert-lower"] {
        let done = search(model, &at("e.jsonl"));
        assert_eq!(done.status.code(), Some(1), "{model}: {}", stdout(&done));
        assert!(stderr(&done).contains("was not written with"), "{model}: {}", stderr(&done));
    }
}

#[test]
fn options_of_other_models_are_refused() {
    for (model, option) in [
        ("no/such/model", ["--dimensions", "8"]),
        ("no/such/model", ["--base-url", "http://127.0.0.1:1/v1"]),
        ("openai:text-embedding-3-small", ["--threads", "2"]),
    ] {
        let done = run(program().args(["search", "--model", model, "--vectors", "none", "q"]).args(option), b"");
        assert_eq!(done.status.code(), Some(2), "{model} {option:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(&format!("{} is for ", option[0])), "{}", stderr(&done));
    }
}
