//! Begins, publishes, removes and loses jobs, in this process and in others that are killed.

use tempfile::tempdir;

use super::*;
use crate::provider::openai_batch::test_process::{TestProcess, inner, tell};

fn begun(jobs: &Jobs) -> NewJob {
    let new = jobs.begin().expect("begun");
    fs::write(new.folder().journal(), "a journal").expect("written");
    new
}

fn published(jobs: &Jobs) -> String {
    let new = begun(jobs);
    let id = new.id().to_owned();
    new.publish().expect("published");
    id
}

/// Returns all names in a folder, sorted, without the locks of all jobs.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("read").map(|entry| entry.expect("read").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
    names.retain(|name| name != LOCK && name != HIDDEN_LOCK);
    names.sort();
    names
}

fn refused(jobs: &Jobs, id: &str) -> String {
    let error = jobs.job(id).expect_err("there is no such job");
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Config, false));
    error.to_string()
}

#[test]
fn a_job_is_seen_when_it_is_published() {
    let folder = tempdir().expect("a folder");
    let jobs = Jobs::open(folder.path()).expect("it opens");
    let new = begun(&jobs);
    let (id, hidden) = (new.id().to_owned(), new.folder().clone());
    assert!(is_like_ours(&id) && hidden.path.ends_with(format!(".{id}.new")), "{id} {hidden:?}");
    assert!(jobs.ids().expect("read").is_empty());
    assert!(refused(&jobs, &id).contains("it has none"));
    fs::write(hidden.shard(1), "lines").expect("written");
    let job = new.publish().expect("published");
    assert_eq!(jobs.ids().expect("read"), [&*id]);
    assert_eq!(jobs.job(&id).expect("it is there"), job);
    assert_eq!(fs::read_to_string(job.shard(1)).expect("it moved"), "lines");
    assert!(!hidden.journal().exists());
    assert_eq!(names(folder.path()), [&*id]);
    assert_eq!(names(&folder.path().join(&id)), ["journal.jsonl", "shard-00001.jsonl"]);
    job.remove().expect("removed");
    assert!(names(folder.path()).is_empty());
    assert!(job.remove().expect_err("it is gone").message().contains("it is missing"));
}

#[test]
fn what_lies_in_a_job_has_names() {
    let job = JobFolder { path: "jobs/a".into() };
    assert_eq!(job.journal(), Path::new("jobs/a/journal.jsonl"));
    assert_eq!(job.shard(7), Path::new("jobs/a/shard-00007.jsonl"));
    assert_eq!(job.index(123_456), Path::new("jobs/a/shard-123456.index"));
    assert_eq!(job.rows(), Path::new("jobs/a/rows.f32"));
}

#[test]
fn a_job_that_is_dropped_leaves_nothing() {
    let folder = tempdir().expect("a folder");
    let jobs = Jobs::open(folder.path()).expect("it opens");
    drop(begun(&jobs));
    assert!(names(folder.path()).is_empty());
    // The same if it cannot be published.
    let new = begun(&jobs);
    fs::create_dir(folder.path().join(new.id())).expect("made");
    fs::write(folder.path().join(new.id()).join("journal.jsonl"), "of another").expect("written");
    let (id, error) = (new.id().to_owned(), new.publish().expect_err("its place is taken"));
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(names(folder.path()), [&*id]);
    assert_eq!(fs::read_to_string(jobs.job(&id).expect("it is there").journal()).expect("read"), "of another");
}

#[test]
fn ids_are_listed_oldest_first() {
    let folder = tempdir().expect("a folder");
    let jobs = Jobs::open(&folder.path().join("a/b")).expect("it makes the folder");
    let mut ids: Vec<String> = (0..12)
        .map(|_| {
            // The ids of the same 245 microseconds are in no order.
            std::thread::sleep(std::time::Duration::from_millis(1));
            published(&jobs)
        })
        .collect();
    assert_eq!(jobs.ids().expect("read"), ids);
    // Other things that may be there.
    for other in ["lost+found", ".hidden"] {
        fs::create_dir(jobs.path.join(other)).expect("made");
    }
    fs::write(jobs.path.join(".hidden/journal.jsonl"), "").expect("written");
    fs::write(jobs.path.join("batch"), "").expect("written");
    // A job may have the name that somebody gave it.
    fs::rename(jobs.path.join(&ids[3]), jobs.path.join("my job")).expect("renamed");
    ids.remove(3);
    ids.push("my job".into());
    assert_eq!(jobs.ids().expect("read"), ids);
    let told = refused(&jobs, &"x".repeat(400));
    let known = [11, 10, 9, 8, 7].map(|i| &*ids[i]).join(", ");
    assert!(told.contains(&format!("it has {known}, and 7 older ones")) && told.len() < 500, "{told}");
    jobs.job("my job").expect("it is there").remove().expect("removed");
    assert_eq!(jobs.ids().expect("read").len(), 11);
}

#[test]
fn only_plain_names_are_jobs() {
    let folder = tempdir().expect("a folder");
    let jobs = Jobs::open(&folder.path().join("jobs")).expect("it opens");
    let id = published(&jobs);
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("journal.jsonl"), "").expect("written");
    let absolute = outside.display().to_string();
    for wrong in ["", ".", "..", "../outside", &absolute, LOCK, "a\nb", &format!("{id}/"), &format!("./{id}")] {
        let told = refused(&jobs, wrong);
        assert!(told.contains(&format!("it has {id}")) && !told.contains('\n'), "{told}");
    }
}

#[test]
fn the_folder_must_be_one_that_can_be_written() {
    let folder = tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    for wrong in [file.clone(), file.join("jobs"), PathBuf::new()] {
        let error = Jobs::open(&wrong).expect_err("it is no folder");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Config, false));
        assert!(error.message().contains("name ") && !error.message().contains("check its disk"), "{error}");
    }
    // Root can write everywhere but there.
    if cfg!(target_os = "linux") {
        let error = Jobs::open(Path::new("/proc/self/task")).expect_err("nothing can be made there");
        assert!(error.message().contains("/proc/self/task/.trial cannot be made"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn others_cannot_look_into_it() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("a/jobs");
    let jobs = Jobs::open(&path).expect("it opens");
    let job = begun(&jobs).publish().expect("published");
    let all = jobs.lock().expect("locked");
    assert_eq!([&*path, &job.path].map(mode), [0o700; 2]);
    assert_eq!([LOCK, HIDDEN_LOCK].map(|name| mode(&path.join(name))), [0o600; 2]);
    drop(all);
    // A folder that is there stays as its owner made it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("changed");
    Jobs::open(&path).expect("it opens");
    assert_eq!(mode(&path), 0o750);
}

#[test]
fn what_dead_processes_left_is_removed_and_nothing_else() {
    let folder = tempdir().expect("a folder");
    let jobs = Jobs::open(folder.path()).expect("it opens");
    let id = published(&jobs);
    let planned = begun(&jobs);
    // Killed before it had the lock, with the lock, and while it removed a job.
    for (name, has_lock) in
        [(new_name(&new_id(SystemTime::now())), false), (new_name(&new_id(SystemTime::now())), true)]
    {
        let path = folder.path().join(name);
        fs::create_dir_all(path.join("more")).expect("made");
        fs::write(path.join("more/rows.f32"), "0000").expect("written");
        if has_lock {
            fs::write(path.join(LOCK), "").expect("written");
        }
    }
    fs::create_dir(folder.path().join(old_name(&new_id(SystemTime::now())))).expect("made");
    // The names of others.
    let others = [".mine.new", ".mine.old", "mine.old", ".batch-2026.new"];
    for name in others {
        fs::create_dir(folder.path().join(name)).expect("made");
    }
    fs::write(folder.path().join(".a.new"), "").expect("written");
    Jobs::open(folder.path()).expect("it opens");
    let planned_name = new_name(planned.id());
    let mut left = [&others[..], &[".a.new", &planned_name, &id]].concat();
    left.sort_unstable();
    assert_eq!(names(folder.path()), left);
    planned.publish().expect("published");
}

#[test]
fn a_process_that_plans_keeps_its_job_until_it_is_killed() {
    const NAME: &str = "a_process_that_plans_keeps_its_job_until_it_is_killed";
    if let Some(path) = inner() {
        let jobs = Jobs::open(Path::new(&path)).expect("it opens");
        let (first, second) = (begun(&jobs), begun(&jobs));
        tell(first.id());
        first.publish().expect("published");
        tell(second.id());
        return;
    }
    let folder = tempdir().expect("a folder");
    let mut other = TestProcess::start(module_path!(), NAME, &folder.path().display().to_string());
    let first = other.next();
    let jobs = Jobs::open(folder.path()).expect("it opens");
    let hidden: Vec<String> = names(folder.path());
    assert!(hidden.len() == 2 && hidden.contains(&new_name(&first)), "{hidden:?}");
    other.go_on();
    let second = other.next();
    assert_eq!(jobs.ids().expect("read"), [&*first]);
    Jobs::open(folder.path()).expect("it opens");
    assert_eq!(names(folder.path()), [&*new_name(&second), &*first]);
    drop(other);
    Jobs::open(folder.path()).expect("it opens");
    assert_eq!(names(folder.path()), [&*first]);
}

#[test]
fn one_process_at_a_time_has_the_lock_of_all_jobs() {
    const NAME: &str = "one_process_at_a_time_has_the_lock_of_all_jobs";
    if let Some(path) = inner() {
        let jobs = Jobs::open(Path::new(&path)).expect("it opens");
        let lock = jobs.lock().expect("locked");
        tell("locked");
        if jobs.ids().expect("read").is_empty() {
            published(&jobs);
        }
        drop(lock);
        tell("unlocked");
        return;
    }
    let folder = tempdir().expect("a folder");
    let jobs = Jobs::open(folder.path()).expect("it opens");
    let mut other = TestProcess::start(module_path!(), NAME, &folder.path().display().to_string());
    assert_eq!(other.next(), "locked");
    let found = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let _lock = jobs.lock().expect("it gets it");
            jobs.ids().expect("read")
        });
        other.go_on();
        waiting.join().expect("it ends")
    });
    assert_eq!(found.len(), 1, "it waited for the other process");
    assert_eq!(other.next(), "unlocked");
    // Its death unlocks, too.
    let mut other = TestProcess::start(module_path!(), NAME, &folder.path().display().to_string());
    assert_eq!(other.next(), "locked");
    drop(other);
    drop(jobs.lock().expect("locked"));
    // Jobs can be begun under it.
    let _lock = jobs.lock().expect("locked");
    published(&jobs);
}

#[test]
fn many_who_begin_and_open_at_once_lose_no_job() {
    let folder = tempdir().expect("a folder");
    let jobs = Jobs::open(folder.path()).expect("it opens");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut ids = Vec::new();
                    for _ in 0..8 {
                        let new = begun(&Jobs::open(folder.path()).expect("it opens"));
                        Jobs::open(folder.path()).expect("it opens");
                        ids.push(new.id().to_owned());
                        new.publish().expect("nobody removed it");
                        drop(begun(&jobs));
                    }
                    ids
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it ends well")).collect()
    });
    let mut sorted = ids;
    sorted.sort_unstable();
    assert_eq!(jobs.ids().expect("read"), sorted);
    assert_eq!(names(folder.path()), sorted);
}
