//! Journals that are damaged, of another version, or in places where nothing can be written.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use docvector_embed::{ErrorKind, provider::JobState};

use crate::{
    openai_batch::support::{HOUR, LINE, SHARD, Scene, builder, submit, ten_minutes, within},
    support::numbered,
};

/// A job whose batch runs, without a process that works on it.
async fn left_behind(scene: &Scene, texts: &[String]) -> (String, PathBuf) {
    let batch = scene.batch();
    let before = scene.creates();
    let job = submit(&batch, texts).await;
    scene.created(before + 1).await;
    scene.polled().await;
    let id = job.id().to_owned();
    let journal = scene.folder.path().join(&id).join("journal.jsonl");
    (id, journal)
}

/// Fails unless the job cannot be taken up, in words that name the file, and nothing was sent or changed.
async fn assert_refused(scene: &Scene, id: &str, file: &Path, what: &str) -> String {
    let (before, bytes) = (scene.simulator.counts().requests, fs::read(file).ok());
    let batch = scene.batch();
    let error = within("it is refused", batch.resume(id)).await;
    let error = match error {
        Err(error) => error,
        Ok(job) => panic!("{what}: {job:?} was taken up"),
    };
    assert!(matches!(error.kind(), ErrorKind::Cache | ErrorKind::Config), "{what}: {error}");
    let told = error.to_string();
    assert!(told.contains(&file.display().to_string()) && !told.contains("text number"), "{what}: {told}");
    assert_eq!((scene.simulator.counts().requests, fs::read(file).ok()), (before, bytes), "{what}");
    told
}

#[tokio::test]
async fn a_record_that_was_cut_off_is_forgotten() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(SHARD);
    let (id, journal) = left_behind(&scene, &texts).await;
    let whole = fs::read(&journal).expect("read");
    let last = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').expect("there are several") + 1;
    // As a machine leaves it that loses its power while it writes.
    let mut file = fs::OpenOptions::new().append(true).open(&journal).expect("opened");
    file.write_all(&whole[last..last + 10]).expect("written");
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is there");
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

#[tokio::test]
async fn a_damaged_journal_is_refused_and_the_others_are_not_disturbed() {
    let scene = Scene::planned(ten_minutes());
    let (texts, others) = (numbered(SHARD), (0..LINE).map(|i| format!("another text {i}")).collect::<Vec<_>>());
    let (id, journal) = left_behind(&scene, &texts).await;
    let (other, _) = left_behind(&scene, &others).await;
    let whole = fs::read(&journal).expect("read");
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    assert!(lines.len() > 3, "{}", lines.len());
    // A bit is wrong, in each record but the last; a record is missing; a record comes twice; two change their places.
    let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
    let mut start = 0;
    for (number, line) in lines[..lines.len() - 1].iter().enumerate() {
        let mut bytes = whole.clone();
        bytes[start + line.len() / 2] ^= 1;
        start += line.len();
        damaged.push((format!("a bit of record {number} is wrong"), bytes));
    }
    damaged.push(("the first record is missing".into(), lines[1..].concat()));
    damaged.push(("a record in the middle is missing".into(), [&lines[..1], &lines[2..]].concat().concat()));
    damaged.push(("the journal is empty".into(), Vec::new()));
    damaged.push(("the journal is no text".into(), vec![0xff; 4096]));
    for (what, bytes) in damaged {
        fs::write(&journal, bytes).expect("written");
        assert_refused(&scene, &id, &journal, &what).await;
        let batch = scene.batch();
        let listed = batch.list().await.expect("one damaged job does not hide the others");
        assert!(listed.iter().any(|job| job.id == other), "{what}: {listed:?}");
    }
    scene.advance(HOUR);
    let batch = scene.batch();
    let job = batch.resume(&other).await.expect("it is there");
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!(report.answered, LINE as u64);
    fs::write(&journal, whole).expect("written");
    let job = batch.resume(&id).await.expect("it is whole again");
    let report = within("the job ends", job.wait()).await.expect("it does not pause");
    assert_eq!((report.state, report.answered), (JobState::Completed, SHARD as u64));
    assert_eq!(scene.creates(), 2);
    assert_eq!(scene.simulator.bills().most_per_text, 1);
}

#[tokio::test]
async fn a_journal_of_another_version_is_refused_and_names_it() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(SHARD);
    let (id, journal) = left_behind(&scene, &texts).await;
    let whole = fs::read_to_string(&journal).expect("read");
    let (first, rest) = whole.split_once('\n').expect("a first line");
    let of_version = |version: &str| format!("{}\n{rest}", first.replace("\"version\":1", version));
    assert_ne!(of_version("\"version\":2"), whole);
    for version in ["\"version\":2", "\"version\":1000000,\"more\":[]"] {
        fs::write(&journal, of_version(version)).expect("written");
        let told = assert_refused(&scene, &id, &journal, version).await;
        assert!(told.contains("version"), "{told}");
    }
    // A record that only a newer version knows.
    let seed = whole.lines().last().and_then(|line| u64::from_str_radix(&line[..16], 16).ok()).expect("a checksum");
    let json = "{\"of_next_year\":{\"shard\":1}}";
    let checksum = xxhash_rust::xxh3::xxh3_64_with_seed(json.as_bytes(), seed);
    fs::write(&journal, format!("{whole}{checksum:016x} {json}\n")).expect("written");
    let told = assert_refused(&scene, &id, &journal, "a new record").await;
    assert!(told.contains("version"), "{told}");

    fs::write(&journal, whole).expect("written");
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is as it was");
    scene.advance(HOUR);
    scene.ends_well(&job, &texts).await;
    assert_eq!(scene.creates(), 1);
}

/// The other files of a job, lost or damaged while its batch runs.
#[tokio::test]
async fn files_that_are_missing_are_named() {
    let scene = Scene::planned(ten_minutes());
    let texts = numbered(SHARD);
    let (id, journal) = left_behind(&scene, &texts).await;
    let folder = journal.parent().expect("a folder").to_owned();
    scene.advance(HOUR);
    let index = folder.join("shard-00001.index");
    let whole = fs::read(&index).expect("read");
    let mut wrong = whole.clone();
    wrong[whole.len() / 2] ^= 1;
    for (what, bytes) in
        [("gone", None), ("damaged", Some(wrong)), ("too short", Some(whole[..whole.len() / 2].to_vec()))]
    {
        match bytes {
            None => fs::remove_file(&index).expect("it was there"),
            Some(bytes) => fs::write(&index, bytes).expect("written"),
        }
        let batch = scene.batch();
        let told = match batch.resume(&id).await {
            Err(error) => error.to_string(),
            Ok(job) => {
                let error = within("the job pauses", job.wait()).await;
                let Err(error) = error else { panic!("{what}: the index was not needed") };
                assert_eq!(job.status().state, JobState::Paused);
                error.to_string()
            }
        };
        assert!(told.contains("shard-00001.index"), "{what}: {told}");
        assert_eq!(scene.creates(), 1, "{what}");
    }
    fs::write(&index, whole).expect("written");
    let batch = scene.batch();
    let job = batch.resume(&id).await.expect("it is there");
    if job.status().state == JobState::Paused {
        job.resume().await.expect("it goes on");
    }
    scene.ends_well(&job, &texts).await;
}

#[tokio::test]
async fn folders_in_which_nothing_can_be_written_are_named() {
    let scene = Scene::new();
    let file = scene.folder.path().join("a file");
    fs::write(&file, "not a folder").expect("written");
    // Nobody may write to the last one, not even root.
    for folder in [file.clone(), file.join("below"), PathBuf::from("/proc/docvector-embed")] {
        let told = match builder(scene.openai(), &folder).build() {
            Err(error) => error,
            Ok(batch) => {
                let texts = numbered(LINE);
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let submitted = within("it is refused", batch.submit(docvector_embed::Batch::documents(&texts))).await;
                submitted.expect_err("nothing can be written there")
            }
        };
        assert!(told.to_string().contains(&folder.display().to_string()), "{told}");
    }
    assert_eq!(scene.simulator.counts().requests, 0);
    assert_eq!(fs::read_to_string(&file).expect("read"), "not a folder");
}

/// What does not belong to a job is not touched, and does no harm.
#[tokio::test]
async fn other_files_in_the_folder_are_left_alone() {
    let scene = Scene::new();
    let folder = scene.folder.path();
    fs::write(folder.join("notes.txt"), "mine").expect("written");
    fs::create_dir(folder.join("empty")).expect("a folder");
    fs::create_dir_all(folder.join("photos/2026")).expect("a folder");
    let (batch, texts) = (scene.batch(), numbered(SHARD));
    let job = submit(&batch, &texts).await;
    scene.ends_well(&job, &texts).await;
    let listed = batch.list().await.expect("they are read");
    assert_eq!(listed.iter().map(|listed| listed.id.as_str()).collect::<Vec<_>>(), [job.id()]);
    batch.remove("photos").await.expect_err("it is no job");
    assert!(folder.join("notes.txt").exists() && folder.join("photos/2026").exists() && folder.join("empty").exists());
}
