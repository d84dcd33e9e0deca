//! Disks without room: each step of a job meets one, and nothing is lost or bought twice.
#![cfg(target_os = "linux")]

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use docvector_embed::{
    Batch,
    provider::{JobState, OpenAi},
    testing::{LineFate, Simulator},
};

use crate::{
    openai_batch::support::{
        HOUR, MODEL, SHARD, Scene, WIDTH, builder, left_in, openai, refs, submit, ten_minutes, within,
    },
    support::{
        numbered,
        processes::{INNER, alone, inner},
    },
};

/// Runs one of these tests again, below a shell's words.
fn run(test: &str, mut command: Command) {
    let output = command.args(alone(module_path!(), test)).output().expect("it starts");
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains(" 1 passed"), "{told}\n{warned}");
    println!("{told}");
}

/// A shell that starts this program such that a file beyond its limit is an error and no signal. Its words are the
/// folder of the scene, and the URL of its simulator, whose own files have no limit.
fn shell(scene: &Scene) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(env::current_exe().expect("this program"));
    command.env(INNER, format!("{}\n{}", scene.folder.path().display(), scene.simulator.base_url()));
    command
}

/// Lets no file of this process grow beyond so many bytes.
fn limit_files(bytes: Option<u64>) {
    let process = std::process::id().to_string();
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let status = Command::new("prlimit").args(["--pid", &process, &format!("--fsize={limit}:")]).status();
    assert!(status.expect("util-linux is there").success());
}

#[tokio::test]
async fn a_job_that_finds_no_room_when_it_is_submitted_sends_nothing() {
    const NAME: &str = "a_job_that_finds_no_room_when_it_is_submitted_sends_nothing";
    let Some(words) = inner() else {
        let scene = Scene::new();
        run(NAME, shell(&scene));
        assert_eq!((scene.creates(), scene.simulator.bills().texts), (1, SHARD as u64));
        return;
    };
    let folder = PathBuf::from(&words[0]);
    let builder = builder(openai(&words[1]), &folder).with_batch_texts(50_000);
    let batch = builder.build().expect("valid");
    let many = numbered(5_000);
    limit_files(Some(16 << 10));
    let given = refs(&many);
    let error = match within("it is refused", batch.submit(Batch::documents(&given))).await {
        Err(error) => error,
        Ok(job) => panic!("{job:?} had no room"),
    };
    assert!(error.to_string().contains(&words[0]) && !error.to_string().contains('\n'), "{error}");
    assert!(batch.list().await.expect("they are read").is_empty());
    // A job that has room is not disturbed, nor is anything left.
    let job = submit(&batch, &numbered(SHARD)).await;
    within("the job ends", job.wait()).await.expect("it does not pause");
    batch.remove(job.id()).await.expect("it has ended");
    assert_eq!(left_in(&folder), [""; 0]);
}

fn texts_of(run: &str) -> Vec<String> {
    (0..SHARD).map(|i| format!("text {i} of run {run}")).collect()
}

/// Submits a job whose hook is called at each gap between an effect and its record, and waits until it ends. Where it
/// pauses, there is room again, and it is resumed. Returns how often that was.
async fn run_job(words: &[String], name: &str, hook: impl Fn(&'static str, &Path) + Send + Sync + 'static) -> usize {
    let folder = Path::new(&words[0]).join(name);
    fs::create_dir(&folder).expect("a folder");
    let place = folder.clone();
    let hook: Arc<dyn Fn(&'static str) + Send + Sync> = Arc::new(move |step| hook(step, &place));
    let batch = builder(openai(&words[1]), &folder).with_step_hook(hook).build().expect("valid");
    let texts = texts_of(name);
    let job = submit(&batch, &texts).await;
    let mut pauses = 0;
    let report = loop {
        let error = match within(format!("{name}: the job ends or pauses"), job.wait()).await {
            Ok(report) => break report,
            Err(error) => error,
        };
        assert_eq!(job.status().state, JobState::Paused, "{name}: {error}");
        assert!(error.to_string().contains(&folder.display().to_string()), "{name}: {error}");
        pauses += 1;
        assert!(pauses < 4, "{name}: {error}");
        limit_files(None);
        job.resume().await.expect("it goes on");
    };
    limit_files(None);
    assert_eq!((report.answered, report.failed.len()), (SHARD as u64, 0), "{name}");
    // Another one, which has the same vectors.
    let vectors = Simulator::start().expect("starts");
    let rows = within("all rows are read", job.embeddings()).await.expect("no text failed");
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert_eq!(row, vectors.vector(MODEL, WIDTH, text), "{name}");
    }
    pauses
}

/// The journal's next record finds no room for more than its first bytes.
fn limit_journal(folder: &Path, bytes: u64) {
    let jobs = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let sizes = jobs.filter_map(|job| Some(fs::metadata(job.join("journal.jsonl")).ok()?.len()));
    limit_files(Some(sizes.max().unwrap_or(0) + bytes));
}

#[tokio::test]
async fn a_record_that_finds_no_room_pauses_the_job_at_any_step() {
    const NAME: &str = "a_record_that_finds_no_room_pauses_the_job_at_any_step";
    let Some(words) = inner() else {
        let scene = Scene::new();
        // In each run a line comes again, so that there is a second shard.
        let seen = Mutex::new(HashSet::new());
        let again = LineFate::status(500, "server_error", "Again.");
        scene.simulator.script_lines(again, None, move |line| {
            line.number == 2 && seen.lock().expect("nobody panicked").insert(line.texts[0].clone())
        });
        run(NAME, shell(&scene));
        let (bills, runs) = (scene.simulator.bills(), scene.simulator.bills().texts / SHARD as u64);
        assert_eq!((bills.most_per_text, bills.distinct_texts), (1, runs * SHARD as u64));
        assert_eq!(scene.creates(), 2 * runs);
        return;
    };
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    run_job(&words, "all", move |step, _| seen.lock().expect("nobody panicked").push(step)).await;
    let steps = steps.lock().expect("nobody panicked").clone();
    let mut pauses = 0;
    for number in 0..steps.len() {
        // Of the record, nothing is written, or a part.
        for bytes in [0, 9] {
            let count = Mutex::new(0);
            let hook = move |_: &'static str, folder: &Path| {
                let mut count = count.lock().expect("nobody panicked");
                if *count == number {
                    limit_journal(folder, bytes);
                }
                *count += 1;
            };
            pauses += run_job(&words, &format!("{number} {bytes}"), hook).await;
        }
    }
    println!("{pauses} pauses at {} steps: {steps:?}", steps.len());
    assert!(pauses >= steps.len(), "{pauses} pauses at {} steps: {steps:?}", steps.len());
}

/// A disk of its own, which is really full.
#[tokio::test]
async fn a_full_disk_pauses_the_job_and_it_goes_on_when_there_is_room() {
    const NAME: &str = "a_full_disk_pauses_the_job_and_it_goes_on_when_there_is_room";
    let Some(words) = inner() else {
        let folder = tempfile::tempdir().expect("a folder");
        let on_disk = || {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c"]);
            command.args(["mount -t tmpfs -o size=1m tmpfs \"$0\" && exec \"$@\""]).arg(folder.path());
            command.env(INNER, folder.path());
            command
        };
        if !on_disk().arg("true").output().is_ok_and(|output| output.status.success()) {
            println!("not tested: a small disk cannot be mounted here");
            return;
        }
        let mut command = on_disk();
        command.arg(env::current_exe().expect("this program"));
        return run(NAME, command);
    };
    let folder = PathBuf::from(&words[0]);
    let ballast = folder.join("ballast");
    let scene = Scene::planned(ten_minutes());
    let jobs = folder.join("jobs");
    // Wide, so that the rows need more room than a page.
    let openai = OpenAi::builder(MODEL)
        .with_base_url(scene.simulator.base_url())
        .with_api_key("sk-test")
        .with_dimensions(512)
        .build()
        .expect("valid");
    let batch = builder(openai, &jobs).build().expect("valid");
    let texts = numbered(SHARD);
    let job = submit(&batch, &texts).await;
    scene.created(1).await;
    scene.polled().await;
    let mut file = fs::File::create(&ballast).expect("a name takes no room");
    while std::io::Write::write_all(&mut file, &[1; 512]).is_ok() {}
    scene.advance(HOUR);
    let error = within("the job pauses", job.wait()).await.expect_err("there is no room");
    assert_eq!(job.status().state, JobState::Paused);
    let told = error.to_string();
    assert!(told.contains(&jobs.display().to_string()) && told.contains("is full"), "{told}");
    drop(file);
    fs::remove_file(&ballast).expect("it was there");
    job.resume().await.expect("it goes on");
    within("the job ends", job.wait()).await.expect("it does not pause");
    scene.check_answered(&job, &texts, &[]).await;
    assert_eq!(scene.creates(), 1);
}
