//! Cuts, damages, locks and fills the disk of journals: what comes back is always the first of the records.

use std::{fs, process::Command, thread};

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::provider::openai_batch::test_process::{TestProcess, alone, assert_passes, inner, say, tell};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Planned { shard: u32, name: String },
    Seen(Vec<u64>),
    Done,
}

/// A record of a newer version.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Newer {
    Archived { secret: &'static str },
}

fn seen(number: u64) -> Record {
    Record::Seen(vec![number; 3])
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("journal.jsonl");
    (folder, path)
}

/// Makes a journal of these records.
fn written(path: &Path, records: &[Record]) {
    let mut journal = Journal::create(path, &records[0]).expect("made");
    for record in &records[1..] {
        journal.append(record).expect("appended");
    }
}

/// Writes the same file without syncing it, which takes most of the time.
fn written_fast(path: &Path, records: &[Record]) {
    let (mut bytes, mut seed) = (HEADER.as_bytes().to_vec(), End::of_header().checksum);
    for record in records {
        let (line, checksum) = line(record, seed).expect("JSON");
        bytes.extend(line);
        seed = checksum;
    }
    fs::write(path, bytes).expect("written");
}

fn opened(path: &Path) -> (Journal, Vec<Record>) {
    Journal::open(path).expect("it opens").expect("nobody has it")
}

/// Returns the error of a journal that cannot be read, which is the same if it is opened.
fn refused(path: &Path) -> String {
    let before = fs::read(path).ok();
    let read = Journal::read::<Record>(path).expect_err("it is refused");
    let opened = Journal::open::<Record>(path).expect_err("it is refused");
    assert_eq!(read.to_string(), opened.to_string());
    assert_eq!((opened.kind(), opened.is_retryable()), (ErrorKind::Config, false));
    assert!(opened.message().contains(&path.display().to_string()), "{opened}");
    assert_eq!(before, fs::read(path).ok(), "a file that is refused stays as it is");
    opened.to_string()
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (any::<u32>(), ".{0,12}").prop_map(|(shard, name)| Record::Planned { shard, name }),
        prop::collection::vec(any::<u64>(), 0..4).prop_map(Record::Seen),
        Just(Record::Done),
    ]
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(any_record(), 1..7)
}

proptest! {
    #[test]
    fn a_journal_that_is_cut_anywhere_has_the_first_records(
        records in any_records(),
        at in any::<prop::sample::Index>(),
        next in any_record(),
    ) {
        let (_folder, path) = folder();
        written_fast(&path, &records);
        let whole = fs::read(&path).expect("read");
        let cut = at.index(whole.len() + 1);
        fs::write(&path, &whole[..cut]).expect("written");
        if cut < HEADER.len() {
            let told = refused(&path);
            prop_assert!(told.contains("is empty") || told.contains("damaged in line 1"), "{}", told);
            return Ok(());
        }
        let breaks = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        let mut left = records[..breaks - 1].to_vec();
        prop_assert_eq!(&Journal::read::<Record>(&path).expect("read"), &left);
        prop_assert_eq!(fs::read(&path).expect("read").len(), cut, "reading changes nothing");
        let (mut journal, found) = opened(&path);
        prop_assert_eq!(&found, &left);
        // It goes on from there.
        journal.append(&next).expect("appended");
        left.push(next);
        drop(journal);
        prop_assert_eq!(opened(&path).1, left);
    }

    #[test]
    fn damage_never_makes_other_records(
        records in any_records(),
        at in any::<prop::sample::Index>(),
        flipped in 1..=255_u8,
    ) {
        let (_folder, path) = folder();
        written_fast(&path, &records);
        let mut bytes = fs::read(&path).expect("read");
        let at = at.index(bytes.len());
        bytes[at] ^= flipped;
        fs::write(&path, bytes).expect("written");
        match Journal::open::<Record>(&path) {
            Err(error) => prop_assert!(error.to_string().contains("damaged") || error.to_string().contains("version")),
            Ok(opened) => {
                let (_, found) = opened.expect("nobody has it");
                // Only what looks like the end of a write is cut off: a lost line break, or a zero.
                prop_assert!(found.len() < records.len() && found[..] == records[..found.len()], "{:?}", found);
            }
        }
    }

    #[test]
    fn a_line_that_is_lost_doubled_or_moved_is_noticed(
        records in prop::collection::vec(any_record(), 3..7),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        how in 0..3,
    ) {
        let (_folder, path) = folder();
        written_fast(&path, &records);
        let text = fs::read_to_string(&path).expect("read");
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        // Never the header, and a line that is lost has one behind it: an end that is lost is not seen.
        let line = 1 + from.index(records.len() - 1);
        match how {
            0 => drop(lines.remove(line)),
            1 => lines.insert(line, lines[line]),
            _ => lines.swap(line, 1 + (line + to.index(records.len() - 1)) % records.len()),
        }
        fs::write(&path, lines.concat()).expect("written");
        prop_assert!(refused(&path).contains("is damaged"));
    }
}

#[test]
fn the_format_stays_as_it_is() {
    // Files of earlier versions look like this: add a version, and change nothing here.
    assert_eq!(HEADER, format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}\n"));
    let (_folder, path) = folder();
    let records = [Record::Planned { shard: 1, name: "a\nb".into() }, Record::Done];
    written(&path, &records);
    let text = fs::read_to_string(&path).expect("read");
    assert_eq!(
        text,
        "{\"format\":\"docvector-embed batch journal\",\"version\":1}\n\
         a7c765db2e914951 {\"planned\":{\"shard\":1,\"name\":\"a\\nb\"}}\n\
         d83bdad4a23dc78f \"done\"\n"
    );
    written_fast(&path, &records);
    assert_eq!(fs::read_to_string(&path).expect("read"), text);
}

#[test]
fn files_that_are_no_journals_of_this_version_say_what_they_are() {
    let (folder, path) = folder();
    assert!(refused(&path).contains("it is missing"));
    let cases = [
        ("", "is empty: put back a copy"),
        ("\n", "damaged in line 1, or no journal"),
        (HEADER.trim_end(), "damaged in line 1, or no journal"),
        ("{\"format\":\"docvector-embed batch journal\",\"version\":\"1\"}\n", "damaged in line 1"),
        ("{\"format\":\"another journal\",\"version\":2}\n", "damaged in line 1, or no journal"),
        (
            "{\"format\":\"docvector-embed batch journal\",\"version\":2,\"more\":[]}\nno matter what",
            "is of version 2, but only version 1 is known here: use the version of docvector-embed that wrote it",
        ),
    ];
    for (text, told) in cases {
        fs::write(&path, text).expect("written");
        let refused = refused(&path);
        assert!(refused.contains(told), "{text:?}: {refused}");
    }
    // A file without lines is not read to its end.
    fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
    assert!(refused(&path).contains("no journal of a batch job"));
    assert!(Journal::open::<Record>(folder.path()).is_err());
    // Nothing is overwritten.
    let error = Journal::create(&path, &Record::Done).expect_err("it is there");
    assert!(error.message().contains("something else is there"), "{error}");
    assert_eq!(fs::metadata(&path).expect("it is there").len(), 1 << 20);
}

#[test]
fn a_record_of_a_newer_version_is_told_without_its_words() {
    let (_folder, path) = folder();
    written(&path, &[seen(1)]);
    let (mut journal, _) = opened(&path);
    journal.append(&Newer::Archived { secret: "a text" }).expect("appended");
    drop(journal);
    let told = refused(&path);
    assert!(told.contains("line 3 of ") && told.contains("a newer version of docvector-embed wrote it"), "{told}");
    let error = Journal::read::<Record>(&path).expect_err("it is refused");
    assert!(!format!("{error:?}").contains("a text") && !format!("{error:?}").contains("archived"), "{error:?}");
}

#[test]
fn a_last_line_that_was_whole_is_not_cut_off() {
    let (_folder, path) = folder();
    written(&path, &[seen(1), seen(2)]);
    let whole = fs::read(&path).expect("read");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&path, bytes).expect("written");
    };
    // One digit of what it holds is another: a disk that loses its power does not do that, and the record was acted on.
    with(&|bytes| *bytes.iter_mut().rev().find(|byte| **byte == b'2').expect("it is there") = b'7');
    let told = refused(&path);
    assert!(told.contains("line 3 of ") && told.contains("if the machine lost its power, remove that last"), "{told}");
    // The same before the last line: then it is no power loss.
    with(&|bytes| *bytes.iter_mut().find(|byte| **byte == b'[').expect("it is there") = b'{');
    let told = refused(&path);
    assert!(told.contains("line 2 of ") && !told.contains("power"), "{told}");
    // Parts of the disk that were not written before the power was lost are zeros.
    let last = whole.len() - 9;
    for zeros in [last..whole.len() - 1, last..whole.len()] {
        with(&|bytes| bytes[zeros.clone()].fill(0));
        assert_eq!(Journal::read::<Record>(&path).expect("read"), [seen(1)]);
        assert_eq!(opened(&path).1, [seen(1)]);
        assert!(!fs::read(&path).expect("read").contains(&0));
    }
}

#[test]
fn records_that_would_break_the_lines_are_refused() {
    let (_folder, path) = folder();
    let mut journal = Journal::create(&path, &seen(1)).expect("made");
    let before = fs::read(&path).expect("read");
    let raw = serde_json::value::RawValue::from_string("[1,\n2]".into()).expect("JSON");
    let error = journal.append(&raw).expect_err("it has a line break");
    assert!(error.message().contains("has a line break: this is a bug"), "{error}");
    let keys = std::collections::HashMap::from([(vec![1], 1)]);
    let error = journal.append(&keys).expect_err("keys are strings");
    assert!(error.message().contains("cannot be written as JSON: this is a bug"), "{error}");
    assert_eq!(fs::read(&path).expect("read"), before);
    journal.append(&Record::Done).expect("it goes on");
    drop(journal);
    assert_eq!(opened(&path).1, [seen(1), Record::Done]);
}

#[cfg(unix)]
#[test]
fn others_cannot_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = folder();
    written(&path, &[seen(1)]);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn one_at_a_time_has_it_open_and_all_can_read_it() {
    let (_folder, path) = folder();
    let mut journal = Journal::create(&path, &seen(1)).expect("made");
    for number in 2..5 {
        assert!(Journal::open::<Record>(&path).expect("it is there").is_none());
        assert_eq!(Journal::read::<Record>(&path).expect("read").len() as u64, number - 1);
        journal.append(&seen(number)).expect("appended");
    }
    drop(journal);
    let (journal, records) = opened(&path);
    assert_eq!(records, (1..5).map(seen).collect::<Vec<_>>());
    assert!(Journal::open::<Record>(&path).expect("it is there").is_none());
    drop(journal);
    opened(&path);
}

#[test]
fn another_process_has_it_open_until_it_ends() {
    const NAME: &str = "another_process_has_it_open_until_it_ends";
    if let Some(path) = inner() {
        let _journal = Journal::create(Path::new(&path), &seen(1)).expect("made");
        tell("made");
        return;
    }
    let (_folder, path) = folder();
    let mut other = TestProcess::start(module_path!(), NAME, &path.display().to_string());
    assert_eq!(other.next(), "made");
    assert!(Journal::open::<Record>(&path).expect("it is there").is_none());
    assert_eq!(Journal::read::<Record>(&path).expect("read"), [seen(1)]);
    // It is killed.
    drop(other);
    assert_eq!(opened(&path).1, [seen(1)]);
}

#[test]
fn it_stays_open_when_its_folder_is_renamed() {
    let (folder, _) = folder();
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    fs::create_dir(&before).expect("made");
    let mut journal = Journal::create(&before.join("journal"), &seen(1)).expect("made");
    fs::rename(&before, &after).expect("renamed");
    journal.append(&seen(2)).expect("appended");
    assert!(Journal::open::<Record>(&after.join("journal")).expect("it is there").is_none());
    drop(journal);
    assert_eq!(opened(&after.join("journal")).1, [seen(1), seen(2)]);
}

#[test]
fn whoever_reads_while_records_are_appended_gets_the_first_of_them() {
    let (_folder, path) = folder();
    let mut journal = Journal::create(&path, &seen(0)).expect("made");
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut least = 1;
            while least < 300 {
                let found = Journal::read::<Record>(&path).expect("nothing is damaged");
                assert!(found.len() >= least, "a record was there before");
                least = found.len();
                assert_eq!(found, (0..found.len() as u64).map(seen).collect::<Vec<_>>());
            }
        });
        for number in 1..300 {
            journal.append(&seen(number)).expect("appended");
        }
        reader.join().expect("it ended well");
    });
}

#[test]
fn a_line_that_grows_while_it_is_read_is_no_damage() {
    /// A file at whose end others write: its parts, with an end behind each.
    struct Growing<'a>(Vec<&'a [u8]>);
    impl Read for Growing<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let Some(part) = self.0.first_mut() else {
                return Ok(0);
            };
            let taken = part.read(to)?;
            if taken == 0 {
                self.0.remove(0);
            }
            Ok(taken)
        }
    }
    let (_folder, path) = folder();
    written_fast(&path, &[seen(1), seen(2), seen(3)]);
    let bytes = fs::read(&path).expect("read");
    // The end is reached in the second line, which is whole when the next bytes are read.
    let (first, second) = bytes.split_at(bytes.len() - 50);
    let (records, ..) = read_all::<Record>(Growing(vec![first, second]), &path).expect("no damage");
    assert_eq!(records, [seen(1)]);
}

#[cfg(unix)]
#[test]
fn a_journal_that_was_removed_is_not_opened() {
    let (_folder, path) = folder();
    written(&path, &[seen(1)]);
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("it opens");
    let locked = LockedFile::try_new(file, &path).expect("it locks").expect("nobody has it");
    assert!(locked.is_at(&path).expect("it is there"));
    fs::rename(&path, path.with_extension("old")).expect("renamed");
    assert!(locked.is_at(&path).is_err());
    // Another job of that name.
    written(&path, &[seen(2)]);
    assert!(!locked.is_at(&path).expect("it is there"));
}

#[cfg(unix)]
#[test]
fn a_journal_that_cannot_be_put_back_in_order_takes_no_more_records() {
    let (_folder, path) = folder();
    written(&path, &[seen(1), seen(2)]);
    // It can neither be written nor cut.
    let file = File::open(&path).expect("it opens");
    let (records, end, _) = read_all::<Record>(&file, &path).expect("read");
    assert_eq!(records.len(), 2);
    let file = LockedFile::try_new(file, &path).expect("it locks").expect("nobody has it");
    let mut journal = Journal { file, path: path.clone(), end, is_broken: false };
    let error = journal.append(&seen(3)).expect_err("it is not writable");
    assert!(error.message().contains("cannot be written: check its disk"), "{error}");
    let error = journal.append(&seen(3)).expect_err("it stays so");
    assert!(error.message().contains("since an earlier failure") && error.kind() == ErrorKind::Config, "{error}");
    drop(journal);
    let (mut journal, found) = opened(&path);
    journal.append(&seen(3)).expect("it is opened again");
    assert_eq!(found, records);
}

/// Appends until it is refused, opens the file as others do, and goes on when there is room again.
fn goes_on_after_a_full_disk(path: &Path, told: &str, make_room: impl Fn()) {
    let records = |count: usize| (0..count as u64).map(seen).collect::<Vec<_>>();
    let mut journal = Journal::create(path, &seen(0)).expect("there is room for that");
    let mut count = 1;
    let error = loop {
        match journal.append(&seen(count as u64)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(error.message().contains(told), "{error}");
    assert_eq!((error.kind(), error.is_retryable(), journal.is_broken), (ErrorKind::Config, false, false));
    for _ in 0..3 {
        // A record that is much longer is not written in part.
        journal.append(&Record::Seen(vec![7; 1 << 16])).expect_err("it is still full");
        assert_eq!(fs::metadata(path).expect("it is there").len(), journal.end.bytes);
        assert_eq!(Journal::read::<Record>(path).expect("read"), records(count));
    }
    drop(journal);
    let (mut journal, found) = opened(path);
    assert_eq!(found, records(count));
    make_room();
    journal.append(&seen(count as u64)).expect("there is room");
    drop(journal);
    assert_eq!(opened(path).1, records(count + 1));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_clear_error_and_no_damage() {
    const NAME: &str = "a_full_disk_is_a_clear_error_and_no_damage";
    if let Some(disk) = inner() {
        let ballast = Path::new(&disk).join("ballast");
        fs::write(&ballast, vec![1; 64 << 10]).expect("there is room for that");
        goes_on_after_a_full_disk(&Path::new(&disk).join("journal"), "its disk is full, free some space", || {
            // There is no room for another job either.
            let another = Path::new(&disk).join("another");
            let error = Journal::create(&another, &seen(0)).expect_err("there is no room");
            assert!(error.message().contains("its disk is full"), "{error}");
            fs::remove_file(another).expect("it has its name, but nothing in it");
            fs::remove_file(&ballast).expect("it was there");
        });
        return;
    }
    let folder = tempdir().expect("a folder");
    // A disk of 128 kilobytes, in a namespace of its own, which ends with the process.
    let on_disk = |program: &[String]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command.args(["mount -t tmpfs -o size=128k tmpfs \"$0\" && exec \"$@\""]).arg(folder.path()).args(program);
        command
    };
    if !on_disk(&["true".into()]).status().is_ok_and(|status| status.success()) {
        say("not tested: a small disk cannot be mounted here");
        return;
    }
    assert_passes(&mut on_disk(&alone(module_path!(), NAME)), &folder.path().display().to_string());
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_file_sizes_is_a_clear_error_and_no_damage() {
    const NAME: &str = "a_limit_on_file_sizes_is_a_clear_error_and_no_damage";
    if let Some(path) = inner() {
        goes_on_after_a_full_disk(Path::new(&path), "the limit on the size of files", || {
            let process = std::process::id().to_string();
            let lifted = Command::new("prlimit").args(["--pid", &process, "--fsize=unlimited:"]).status();
            assert!(lifted.expect("util-linux is there").success());
        });
        return;
    }
    let (_folder, path) = folder();
    let mut command = Command::new("bash");
    // A process that goes beyond the limit gets a signal, which is to be an error.
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 5; exec \"$0\" \"$@\""]).args(alone(module_path!(), NAME));
    assert_passes(&mut command, &path.display().to_string());
}
