//! `docvector-embed cache export`, `import`, `copy`, `merge`, `prune` and `salvage`, and stores at servers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use docvector_embed::{EmbedderExt, cache::Sqlite, provider::Fake};
use tempfile::TempDir;

use super::{program, run, stderr, stdout};
use crate::support::{
    golden, numbered,
    postgres_server::{GUARDED, PostgresServer, Schema},
    redis_server::Prefix,
};

fn cache(arguments: &[&str]) -> Output {
    run(program().arg("cache").args(arguments), b"")
}

/// Asserts that a run succeeded, and returns what it printed.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// Asserts that a run failed with this status, and says this.
fn fails(output: &Output, status: i32, why: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(why), "{why:?} is not in: {said}");
}

/// Returns the value that a report has beside this label.
fn value<'r>(report: &'r str, label: &str) -> &'r str {
    let line = report.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_else(|| panic!("{label}:\n{report}"));
    line.trim()
}

/// Makes a file with entries of two spaces.
async fn made(folder: &TempDir, name: &str, texts: usize) -> PathBuf {
    let file = folder.path().join(name);
    let store = Sqlite::open(&file).expect("opened");
    for width in [8, 16] {
        let texts = numbered(texts);
        Fake::new(width).cached(store.clone()).expect("one space").embed_documents(&texts).await.expect("embedded");
    }
    store.close().await.expect("closed");
    file
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn entries_go_from_store_to_store() {
    let (folder, redis, postgres) = (tempfile::tempdir().expect("a folder"), Prefix::new(), Schema::new());
    let file = made(&folder, "a.sqlite", 50).await;
    let (redis, postgres) = (redis.url_of("cli"), postgres.url_of("cli"));
    let arrow = folder.path().join("a.arrow");
    let back = folder.path().join("back.sqlite");
    for (arguments, new, present) in [
        (["copy", text(&file), &redis], "100", "0"),
        (["copy", &redis, &postgres], "100", "0"),
        (["copy", &redis, &postgres], "0", "100"),
        (["export", &postgres, text(&arrow)], "100", "0"),
        (["import", text(&arrow), text(&back)], "100", "0"),
    ] {
        let report = done(&cache(&arguments));
        assert_eq!((value(&report, "new"), value(&report, "there already")), (new, present), "{arguments:?}");
    }
    for store in [text(&file), &redis, &postgres, text(&back)] {
        let report = done(&cache(&["stats", store, "--by-space"]));
        assert_eq!((value(&report, "entries"), value(&report, "damaged")), ("100", "0"), "{store}");
        assert_eq!(report.lines().filter(|line| line.trim().starts_with("50 ")).count(), 2, "{report}");
        assert!(report.contains("(16d"), "{report}");
        let report = done(&cache(&["verify", store]));
        assert_eq!(value(&report, "  sound"), "100", "{store}");
        assert!(!report.contains("***@") || !report.contains("planted"), "{report}");
    }
    let report = done(&cache(&["stats", &redis]));
    assert_eq!(value(&report, "spaces"), "2");

    // Only one space, and several stores into one.
    let id = value(&done(&cache(&["stats", text(&file)])), "  ").split(' ').next().expect("an id").to_owned();
    let one = folder.path().join("one.sqlite");
    let report = done(&cache(&["copy", text(&file), text(&one), "--space", &id]));
    assert_eq!((value(&report, "new"), value(&report, "of other spaces")), ("50", "50, or of none that is stated"));
    let merged = folder.path().join("merged.sqlite");
    let report = done(&cache(&["merge", text(&one), &redis, &postgres, "--into", text(&merged)]));
    assert_eq!((value(&report, "new"), value(&report, "there already")), ("100", "150"));

    // Removal, first without and then with it.
    let report = done(&cache(&["prune", text(&merged), "--space", &id]));
    assert!(value(&report, "would be removed").starts_with("50 (") && report.contains("--remove does it"), "{report}");
    let report = done(&cache(&["prune", text(&merged), "--space", &id, "--remove"]));
    assert!(value(&report, "removed").starts_with("50 ("), "{report}");
    let report = done(&cache(&["prune", text(&merged), "--older-than", "1", "--remove"]));
    assert!(value(&report, "removed").starts_with("0 ("), "{report}");
    let report = done(&cache(&["prune", text(&merged), "--before", "2999-12-31", "--remove"]));
    assert!(value(&report, "removed").starts_with("50 ("), "{report}");
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = made(&folder, "a.sqlite", 5).await;
    let (file, none) = (text(&file), folder.path().join("none.sqlite"));
    let new = folder.path().join("new.sqlite");
    let taken = folder.path().join("taken.arrow");
    fs::write(&taken, "").expect("written");
    for (arguments, status, why) in [
        (&["copy", text(&none), text(&new)][..], 1, "does not exist"),
        (&["copy", file, file], 1, "both the source and the target"),
        (&["copy", "memory:1MB", text(&new)], 1, "a cache in memory is empty"),
        (&["copy", file, "memory:1MB"], 1, "a cache in memory is gone"),
        (&["copy", file, "-"], 2, "a file or a server"),
        (&["copy", file, "mysql://host"], 2, "must be redis, rediss, postgres"),
        (&["copy", file, "redis://:planted@127.0.0.1:1"], 1, "127.0.0.1:1"),
        (&["copy", file, "postgres://me:planted@127.0.0.1:1/x"], 1, "127.0.0.1:1"),
        (&["stats", "postgres://me:planted@127.0.0.1:1/x"], 1, "127.0.0.1:1"),
        (&["import", file, text(&new)], 1, "not a whole Arrow file"),
        (&["export", file, file], 1, "an export is an Arrow file"),
        (&["export", file, text(&taken)], 1, "exists already"),
        (&["prune", file], 2, "--space"),
        (&["prune", file, "--space", "xyz"], 2, "xyz"),
        (&["prune", file, "--before", "2026-13-01"], 2, "2026-11-28"),
        (&["salvage", text(&none), text(&new)], 1, "cannot be read"),
        (&["salvage", "redis://:planted@h", text(&new)], 1, "not a server"),
        (&["copy", file, "localhost:6379"], 2, "looks like a server"),
        (&["export", file, "-"], 1, "name one that ends in .arrow"),
        (&["export", file, "/nonexistent/x.arrow"], 1, "its folder is missing"),
        (&["merge", file, "--into", file], 1, "both the source and the target"),
    ] {
        let output = cache(arguments);
        fails(&output, status, why);
        assert!(!stderr(&output).contains("planted"), "{}", stderr(&output));
        assert!(!none.exists(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = made(&folder, "a.sqlite", 400).await;
    let mut bytes = fs::read(&file).expect("read");
    let page = 16_384;
    bytes[page..3 * page].fill(0x55);
    fs::write(&file, bytes).expect("written");
    let saved = folder.path().join("saved.sqlite");
    let report = stdout(&cache(&["salvage", text(&file), text(&saved)]));
    let new: usize = value(&report, "new").parse().expect("a number");
    assert!(new > 300, "{report}");
    let report = done(&cache(&["verify", text(&saved)]));
    assert_eq!((value(&report, "  sound"), value(&report, "  damaged")), (new.to_string().as_str(), "0"));
}

/// Kills an export and copies in the middle, again and again; the same command goes on.
#[tokio::test]
async fn a_kill_in_the_middle_and_the_same_command_again() {
    let (folder, redis) = (tempfile::tempdir().expect("a folder"), Prefix::new());
    let file = folder.path().join("large.sqlite");
    let store = Sqlite::open(&file).expect("opened");
    let texts = numbered(20_000);
    Fake::new(1_024).cached(store.clone()).expect("one space").embed_documents(&texts).await.expect("embedded");
    store.close().await.expect("closed");
    let arrow = folder.path().join("large.arrow");
    let (partial, copy) = (folder.path().join("large.arrow.progress"), folder.path().join("copy.sqlite"));
    let target = redis.url_of("killed");
    for (arguments, has_begun) in [
        (["export", text(&file), text(&arrow)], &partial as &Path),
        (["copy", text(&file), text(&copy)], &copy),
        (["copy", text(&file), &target], Path::new("/")),
    ] {
        for after in [0, 40, 120] {
            let mut child = program();
            child.arg("cache").args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = child.spawn().expect("the program starts");
            let end = Instant::now() + Duration::from_secs(60);
            while !has_begun.exists() && child.try_wait().expect("a process").is_none() {
                assert!(Instant::now() < end);
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(after));
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
        if !arrow.exists() || arguments[0] == "copy" {
            let report = done(&cache(&arguments));
            let sum: usize =
                ["new", "there already"].map(|label| value(&report, label).parse().expect(label)).iter().sum();
            let before = report.lines().find_map(|line| line.strip_prefix("written before"));
            let before: usize = before.map_or(0, |before| before.trim().parse().expect("a number"));
            assert_eq!(sum + before, 20_000, "{report}");
        }
    }
    let imported = folder.path().join("imported.sqlite");
    done(&cache(&["import", text(&arrow), text(&imported)]));
    for store in [text(&copy), &target, text(&imported)] {
        let report = done(&cache(&["stats", store, "--by-space"]));
        assert_eq!((value(&report, "entries"), value(&report, "damaged")), ("20000", "0"), "{store}");
    }
}

/// Embeds lines with a tiny model through a store.
fn through(store: &str, lines: &str) -> Output {
    let mut command = program();
    command.arg("embed").arg("--model").arg(golden("tiny/bert-cls")).args(["--cache", store]);
    run(&mut command, lines.as_bytes())
}

#[test]
fn a_run_keeps_its_vectors_at_a_server() {
    let (redis, postgres) = (Prefix::new(), Schema::new());
    let lines: String = (0..40).map(|number| format!("text {number}\n")).collect();
    for store in [redis.url_of("embed"), postgres.url_of("embed")] {
        let first = through(&store, &lines);
        let rows = done(&first);
        assert!(stderr(&first).contains("0 of 40 texts from the cache"), "{}", stderr(&first));
        let again = through(&store, &lines);
        assert_eq!(done(&again), rows);
        assert!(stderr(&again).contains("40 of 40 texts from the cache"), "{}", stderr(&again));
    }
    // A server that is not there is an error before the work begins; one with a wrong password names no password.
    let output = through("redis://127.0.0.1:1", &lines);
    fails(&output, 1, "127.0.0.1:1");
    if let Some(server) = PostgresServer::own(&[]) {
        let url = server.url_as(GUARDED, "planted");
        let output = through(&url, &lines);
        fails(&output, 1, "password");
        assert!(!stderr(&output).contains("planted"), "{}", stderr(&output));
    }
}
