//! `docvector-embed embed --cache`, and `docvector-embed cache`.

use std::{
    ffi::OsStr,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Output,
};

use docvector_embed::{
    EmbedderExt, Space,
    cache::{Key, Sqlite},
    provider::Fake,
    wrap::{Cached, VectorEncoding},
};
use tempfile::TempDir;

use super::{embed, files, program, rows, run, stderr, stdout, vector};
use crate::support::{distance, golden};

/// Makes an empty folder, and returns it with the path of a cache file in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cache.sqlite");
    (folder, file)
}

/// Runs `cache stats` or `cache verify`.
fn cache(command: &str, file: &Path, more: &[&str]) -> Output {
    run(program().args(["cache", command]).arg(file).args(more), b"")
}

/// Embeds lines with a tiny model through a cache.
fn through(file: &Path, lines: &str, more: &[&str]) -> Output {
    let mut command = program();
    command.arg("embed").arg("--model").arg(golden("tiny/bert-cls")).arg("--cache").arg(file).args(more);
    run(&mut command, lines.as_bytes())
}

fn lines(range: Range<usize>) -> String {
    range.map(|i| format!("text {i}\n")).collect()
}

/// Asserts that a run succeeded, and printed this on stderr.
fn says(done: &Output, what: &str) {
    let said = stderr(done);
    assert!(done.status.success() && said.contains(what), "{what:?} is not in: {said}{}", stdout(done));
}

/// Asserts that a run failed with an error that says why.
fn fails(done: &Output, why: &str) {
    let said = stderr(done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains(why), "{why:?} is not in: {said}{}", stdout(done));
}

fn vectors(done: &Output) -> Vec<Vec<f32>> {
    rows(&stdout(done)).iter().map(vector).collect()
}

/// Asserts that two runs gave the same vectors, up to the last digits, which depend on the batch.
fn assert_alike(one: &Output, other: &Output) {
    let (one, other) = (vectors(one), vectors(other));
    assert_eq!(one.len(), other.len());
    let found = distance(one.iter().map(Vec::as_slice), other.iter().map(Vec::as_slice));
    assert!(found.difference_max <= 1e-5, "{found:?}");
}

/// Asserts that a report has these lines, in columns.
fn has(done: &Output, lines: &[(&str, &str)]) {
    let report = stdout(done);
    for (what, value) in lines {
        let line = format!("{what:19}{value}");
        assert!(report.lines().any(|own| own == line), "{line:?} is not in:\n{report}");
    }
}

/// Asserts that a table in a report has this row.
fn has_row(done: &Output, cells: &[&str]) {
    let report = stdout(done);
    assert!(report.lines().any(|line| line.split_whitespace().eq(cells.iter().copied())), "{cells:?}:\n{report}");
}

fn sql(file: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(file).expect("it opens")
}

/// Flips a bit in the value of an entry, and returns its key.
pub(super) fn damage(file: &Path, entry: usize) -> Key {
    let connection = sql(file);
    let select = "SELECT id, key, value FROM entries ORDER BY id LIMIT 1 OFFSET ?1";
    let (id, key, mut value): (i64, [u8; 32], Vec<u8>) = connection
        .query_row(select, [entry as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("an entry");
    *value.last_mut().expect("not empty") ^= 1;
    connection.execute("UPDATE entries SET value = ?1 WHERE id = ?2", rusqlite::params![value, id]).expect("it writes");
    Key::from_bytes(key)
}

/// Overwrites the page with which every look-up begins.
fn damage_the_index(file: &Path) {
    let number = |query: &str| {
        let number: i64 = sql(file).query_row(query, [], |row| row.get(0)).expect("a number");
        usize::try_from(number).expect("not negative")
    };
    let page = number("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_entries_1'");
    let size = number("PRAGMA page_size");
    let mut bytes = fs::read(file).expect("read");
    bytes[(page - 1) * size..page * size].fill(0);
    fs::write(file, bytes).expect("written");
}

/// Makes a cache of two spaces without a model: 300 entries of 8 components, and 7 of 16 at half precision.
async fn made(file: &Path) -> [Space; 2] {
    let texts: Vec<String> = (0..300).map(|i| format!("text {i}")).collect();
    let store = Sqlite::open(file).expect("it opens");
    let whole = Cached::new(Fake::new(8), store.clone()).expect("one space");
    whole.embed_documents(&texts).await.expect("embedded");
    let halves =
        Cached::builder(Fake::new(16), store).with_vector_encoding(VectorEncoding::Half).build().expect("one space");
    halves.embed_documents(&texts[..7]).await.expect("embedded");
    [whole.space().expect("one").clone(), halves.space().expect("one").clone()]
}

#[test]
fn a_second_run_takes_everything_from_the_cache_and_gives_the_same_bytes() {
    let (folder, file) = place();
    let file = file.to_str().expect("UTF-8");
    // The last text is truncated, and stays marked.
    let input = format!("{}{}\n", lines(0..39), "long ".repeat(300));
    let first = embed(&["--cache", file], input.as_bytes());
    says(&first, "; 0 of 40 texts from the cache; 1 text was truncated to 256 tokens");
    let again = embed(&["--cache", file], input.as_bytes());
    says(&again, "; 40 of 40 texts from the cache; 1 text was truncated to 256 tokens");
    assert_eq!(stdout(&again), stdout(&first));
    let first = rows(&stdout(&first));
    assert!(first.len() == 40 && first[39]["truncated"] == true);
    // Nothing is left beside the file.
    assert_eq!(files(folder.path()), ["cache.sqlite"]);

    // Every other line is new.
    let mixed: String = (0..20).map(|i| lines(i..i + 1) + &lines(100 + i..101 + i)).collect();
    let done = embed(&["--cache", file], mixed.as_bytes());
    says(&done, "; 20 of 40 texts from the cache");
    let have = rows(&stdout(&done));
    let texts: String = have.iter().map(|row| row["text"].as_str().expect("a text").to_owned() + "\n").collect();
    assert_eq!(texts, mixed);
    for (row, first) in first[..20].iter().enumerate() {
        assert!(have[2 * row] == *first, "row {} is not what it was", 2 * row);
    }
    assert_alike(&done, &embed(&[], mixed.as_bytes()));

    // Queries are stored apart from documents, even if a model embeds them alike. An entry of a truncated text does not
    // serve a run that refuses long texts.
    says(&embed(&["--cache", file, "--kind", "query"], lines(0..5).as_bytes()), "; 0 of 5 texts from the cache");
    let done = embed(&["--cache", file, "--too-long", "error"], input.as_bytes());
    fails(&done, "line 40: the text has ");
}

#[test]
fn another_model_shares_the_file_and_no_vectors() {
    let (_folder, file) = place();
    let other = |lines: &str| {
        let mut command = program();
        command.arg("embed").arg("--model").arg(golden("tiny/bert-lower")).arg("--cache").arg(&file);
        run(&mut command, lines.as_bytes())
    };
    says(&through(&file, &lines(0..20), &[]), "; 0 of 20 texts from the cache");
    says(&other(&lines(0..20)), "; 0 of 20 texts from the cache");
    says(&through(&file, &lines(0..20), &[]), "; 20 of 20 texts from the cache");
    // The same model with another limit of tokens shares no vectors, either.
    says(&through(&file, &lines(0..20), &["--max-tokens", "8"]), "; 0 of 20 texts from the cache");
    let done = cache("stats", &file, &[]);
    has(&done, &[("entries", "60"), ("spaces", "3")]);
}

#[test]
fn the_text_of_a_damaged_entry_is_embedded_again_and_replaces_it() {
    let (_folder, file) = place();
    let first = through(&file, &lines(0..40), &[]);
    says(&first, "; 0 of 40 texts from the cache");
    damage(&file, 3);
    let done = through(&file, &lines(0..40), &[]);
    says(&done, "; 39 of 40 texts from the cache; 1 cache entry was damaged, and its text was embedded again");
    assert_alike(&done, &first);
    says(&through(&file, &lines(0..40), &[]), "; 40 of 40 texts from the cache; space ");
    let done = cache("verify", &file, &[]);
    says(&done, "");
    has(&done, &[("entries", "40"), ("  damaged", "0")]);
}

#[test]
fn a_cache_that_fails_costs_a_warning() {
    let (_folder, file) = place();
    let first = through(&file, &lines(0..40), &[]);
    says(&first, "; 0 of 40 texts from the cache");
    damage_the_index(&file);
    let done = through(&file, &lines(0..40), &["--quiet"]);
    says(&done, "warning: the cache fails, and the run goes on; new vectors may not be stored: ");
    says(&done, "warning: the cache failed");
    assert_eq!(stderr(&done).matches("the run goes on").count(), 1, "{}", stderr(&done));
    assert_alike(&done, &first);
}

#[test]
fn a_cache_that_cannot_be_used_is_an_error_before_the_model_is_loaded() {
    let (folder, file) = place();
    let texts = folder.path().join("texts");
    fs::write(&texts, lines(0..100)).expect("written");
    for (file, why) in [
        (folder.path().join("missing/cache"), "its folder is missing"),
        (folder.path().to_owned(), "is a folder"),
        (texts.clone(), "not an SQLite file"),
    ] {
        let done = run(program().args(["embed", "--model", "no/such/model", "--cache"]).arg(&file), b"a\n");
        fails(&done, why);
        assert!(stderr(&done).contains(&file.display().to_string()), "{}", stderr(&done));
        assert!(!stderr(&done).contains("no/such/model"), "{}", stderr(&done));
    }
    assert_eq!(fs::read_to_string(&texts).expect("there"), lines(0..100));

    let done = through(&file, "a\n", &["--output", file.to_str().expect("UTF-8")]);
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("--cache and --output name the same file"), "{}", stderr(&done));
    assert_eq!(files(folder.path()), ["texts"]);
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let (folder, file) = place();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let output = elsewhere.path().join("out.jsonl");
    let more = [OsStr::new("--cache"), file.as_os_str()];
    let (mut child, writer) = embed::run_without_end(elsewhere.path(), &output, &more);
    child.kill().expect("killed");
    child.wait().expect("ended");
    writer.join().expect("written");
    let done = cache("verify", &file, &[]);
    says(&done, "");
    has(&done, &[("  SQLite's check", "ok"), ("  damaged", "0")]);

    // Rows were being written, so those of the first call at least are in the cache.
    let input: String = (0..1500).map(embed::endless).collect();
    let done = embed(&["--cache", file.to_str().expect("UTF-8")], input.as_bytes());
    says(&done, " of 1500 texts from the cache");
    let said = stderr(&done);
    let before = said.split(" of 1500 texts from the cache").next().expect("a beginning");
    let taken: usize = before.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(taken >= 1, "{said}");
    assert_alike(&done, &embed(&[], input.as_bytes()));
    assert_eq!(files(folder.path()), ["cache.sqlite"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_that_its_work_is_in_the_cache() {
    let (folder, file) = place();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let output = elsewhere.path().join("out.jsonl");
    let more = [OsStr::new("--cache"), file.as_os_str()];
    let (child, writer) = embed::run_without_end(elsewhere.path(), &output, &more);
    let said = embed::interrupted(child);
    writer.join().expect("written");
    assert!(said.contains("interrupted; nothing was written to"), "{said}");
    assert!(said.contains(&format!(" went into the cache {}", file.display())), "{said}");
    let before = said.split(" new vector").next().expect("a beginning");
    let stored: usize = before.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(stored >= 1, "{said}");
    assert_eq!((files(elsewhere.path()), files(folder.path())), (vec![], vec!["cache.sqlite".to_owned()]));
    // Calls end in any order, so that a text of the first ones may be missing, but not that of the first row.
    let report = stdout(&cache("stats", &file, &[]));
    let entries = report.lines().find_map(|line| line.strip_prefix("entries")?.trim().parse::<usize>().ok());
    assert!(entries.is_some_and(|entries| entries >= stored), "{stored} vectors were stored:\n{report}");
    let done = embed(&["--cache", file.to_str().expect("UTF-8")], embed::endless(0).as_bytes());
    says(&done, "; 1 of 1 text from the cache");
}

#[tokio::test]
async fn stats_show_what_is_in_the_file() {
    let (folder, file) = place();
    let spaces = made(&file).await;
    let done = cache("stats", &file, &[]);
    says(&done, "");
    let path = file.display().to_string();
    has(&done, &[("file", path.as_str()), ("entries", "307"), ("bytes of values", "20.4 KiB"), ("spaces", "2")]);
    let report = stdout(&done);
    let disk = report.lines().find_map(|line| line.strip_prefix("bytes on disk")).expect("a line");
    let size = fs::metadata(&file).expect("a file").len();
    assert_eq!(disk.trim(), format!("{:.1} KiB ({:.2} x the values)", size as f64 / 1024.0, size as f64 / 20876.0));
    for space in spaces {
        let (id, about) = (space.id(), space.to_string());
        let line = format!("  {id}  {}", about.replace(&format!(", {id})"), ")"));
        assert!(report.lines().any(|own| own == line), "{line:?} is not in:\n{report}");
    }
    assert_eq!(files(folder.path()), ["cache.sqlite"]);

    // An empty one has no ratio.
    let none = folder.path().join("none");
    drop(Sqlite::open(&none).expect("it opens"));
    let done = cache("stats", &none, &[]);
    has(&done, &[("entries", "0"), ("bytes of values", "0 B"), ("spaces", "0")]);
    assert!(!stdout(&done).contains('('), "{}", stdout(&done));
}

#[tokio::test]
async fn verify_counts_what_is_sound() {
    let (folder, file) = place();
    made(&file).await;
    // Two more entries, one of a truncated text.
    let done = through(&file, &format!("short\n{}\n", "long ".repeat(300)), &[]);
    says(&done, "; 0 of 2 texts from the cache; 1 text was truncated");
    let width = vectors(&done)[0].len().to_string();
    let done = cache("verify", &file, &[]);
    says(&done, "");
    assert!(stderr(&done).is_empty(), "{}", stderr(&done));
    has(&done, &[("  SQLite's check", "ok"), ("entries", "309"), ("  sound", "309"), ("  damaged", "0")]);
    has_row(&done, &["8", "f32", "300", "0"]);
    has_row(&done, &["16", "f16", "7", "0"]);
    has_row(&done, &[width.as_str(), "f32", "2", "1"]);
    assert_eq!(files(folder.path()), ["cache.sqlite"]);
}

#[tokio::test]
async fn verify_finds_damaged_entries_and_removes_them_where_asked() {
    let (_folder, file) = place();
    made(&file).await;
    let keys: Vec<Key> = (0..7).map(|i| damage(&file, 40 * i)).collect();
    for _ in 0..2 {
        let done = cache("verify", &file, &[]);
        fails(&done, "7 of 307 entries are damaged");
        assert!(stderr(&done).contains("--remove"), "{}", stderr(&done));
        has(&done, &[("  SQLite's check", "ok"), ("  sound", "300"), ("  damaged", "7"), ("", "and 2 more")]);
        keys[..5].iter().for_each(|key| has(&done, &[("    key", key.to_string().as_str())]));
    }
    let done = cache("verify", &file, &["--remove"]);
    says(&done, "");
    has(&done, &[("  damaged", "7"), ("removed", "7")]);
    let done = cache("verify", &file, &[]);
    says(&done, "");
    has(&done, &[("entries", "300"), ("  damaged", "0")]);
    // If there is nothing to remove, the report does not mention it.
    let done = cache("verify", &file, &["--remove"]);
    says(&done, "");
    assert!(!stdout(&done).contains("removed"), "{}", stdout(&done));

    // Only the texts of removed entries are embedded again.
    let fake = Fake::new(8);
    let again = Cached::new(fake.clone(), Sqlite::open(&file).expect("it opens")).expect("one space");
    let texts: Vec<String> = (0..300).map(|i| format!("text {i}")).collect();
    let have = again.embed_documents(&texts).await.expect("embedded");
    let asked: Vec<String> = fake.calls().into_iter().flat_map(|call| call.texts).collect();
    assert_eq!(asked.len(), 7, "{asked:?}");
    assert_eq!(have.vectors(), fake.embed_documents(&texts).await.expect("embedded").vectors());
}

#[tokio::test]
async fn a_file_that_is_damaged_itself_is_not_written_to() {
    let (_folder, file) = place();
    made(&file).await;
    damage(&file, 7);
    damage_the_index(&file);
    for _ in 0..2 {
        let done = cache("verify", &file, &["--remove"]);
        fails(&done, "is damaged, and nothing was removed from it: `docvector-embed cache salvage`");
        has(&done, &[("  SQLite's check", "damaged"), ("entries", "307"), ("  damaged", "1")]);
    }
}

#[tokio::test]
async fn a_row_without_a_key_is_reported() {
    let (_folder, file) = place();
    made(&file).await;
    sql(&file).execute("UPDATE entries SET key = x'00' WHERE id = 7", []).expect("it writes");
    let done = cache("verify", &file, &[]);
    fails(&done, "not all of ");
    assert!(stderr(&done).contains("row 7, and possibly others, has no valid key"), "{}", stderr(&done));
    // All other entries were checked.
    has(&done, &[("entries read", "306"), ("  sound", "306")]);
}

#[test]
fn stats_and_verify_never_create_a_cache() {
    let (folder, file) = place();
    for command in ["stats", "verify"] {
        let done = cache(command, &file, &[]);
        fails(&done, &format!("{} does not exist", file.display()));
        fails(&cache(command, folder.path(), &[]), "is a folder");
        assert_eq!(files(folder.path()), [""; 0]);
        for (bytes, why) in [("", "is empty"), (&*lines(0..100), "not an SQLite file")] {
            fs::write(&file, bytes).expect("written");
            fails(&cache(command, &file, &[]), why);
            assert_eq!(fs::read_to_string(&file).expect("there"), bytes);
            assert_eq!(files(folder.path()), ["cache.sqlite"]);
        }
        fs::remove_file(&file).expect("removed");
    }
}

/// Runs the command as a user who can write nothing in the file's folder: the superuser could.
#[cfg(unix)]
fn as_reader(program: &Path, arguments: &[&str], file: &Path, more: &[&str]) -> Output {
    use std::os::unix::{fs::MetadataExt, process::CommandExt};

    const NOBODY: u32 = 65_534;
    let mut command = std::process::Command::new(program);
    if fs::metadata(file).expect("it exists").uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    run(command.args(arguments).arg(file).args(more), b"")
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_cannot_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt;

    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is set");
    let (folder, file) = place();
    made(&file).await;
    // Where another user can run it.
    let program = folder.path().join("program");
    fs::copy(env!("CARGO_BIN_EXE_docvector-embed"), &program).expect("copied");
    allow(&program, 0o755);
    let before = files(folder.path());
    // The file, only its folder, or only the file cannot be written. A reader leaves no files of its own beside it.
    for (mode, of_folder) in [(0o444, 0o555), (0o666, 0o555), (0o444, 0o777)] {
        allow(&file, mode);
        allow(folder.path(), of_folder);
        let stats = as_reader(&program, &["cache", "stats"], &file, &[]);
        let verified = as_reader(&program, &["cache", "verify"], &file, &[]);
        let embed = ["embed", "--model", "no-model", "--cache"];
        let embedded = as_reader(&program, &embed, &file, &["--input", "/dev/null"]);
        allow(folder.path(), 0o755);
        assert!(stats.status.success() && verified.status.success(), "{}{}", stderr(&stats), stderr(&verified));
        has(&stats, &[("entries", "307")]);
        has(&verified, &[("  SQLite's check", "ok"), ("  sound", "307")]);
        let said = stderr(&embedded);
        let warning = format!("warning: {} cannot be written: new vectors are not stored", file.display());
        assert_eq!(said.matches(&warning).count(), 1, "{said}");
        assert_eq!(files(folder.path()), before);
    }
}
