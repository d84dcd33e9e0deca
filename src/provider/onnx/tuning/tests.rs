//! The file of settings: what is kept, what is found, and what is left alone.

use super::*;

/// A folder of its own, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("docvector-embed-tuning-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("tuning.json")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(cores: usize, space: u8) -> TuningKey {
    let space = SpaceId::from_bytes([space; 16]);
    TuningKey::new("x86_64", Some("a processor".to_owned()), cores, "1.32.0", "cpu", space, "safetensors")
}

fn stored(file: &Path, key: &TuningKey, tuning: Tuning) {
    store_in(file, key, Some("a model"), &tuning, 1234.5).expect("stored");
}

fn unreadable(file: &Path) -> String {
    match find_in(file.to_owned(), &key(2, 1)) {
        StoredTuning::Unreadable(of, why) if of == file => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_stored_is_found_for_its_key_alone() {
    let scratch = Scratch::new("keys");
    // In a folder that is not there yet.
    let file = scratch.0.join("a/b/tuning.json");
    assert_eq!(find_in(file.clone(), &key(2, 1)), StoredTuning::Nothing);
    stored(&file, &key(2, 1), Tuning::new(2, 256));
    stored(&file, &key(4, 1), Tuning::new(4, 512));
    stored(&file, &key(2, 2), Tuning::new(1, 64));
    let found = |key: &TuningKey| find_in(file.clone(), key);
    assert_eq!(found(&key(2, 1)), StoredTuning::Tuned(Tuning::new(2, 256), file.clone()));
    assert_eq!(found(&key(4, 1)), StoredTuning::Tuned(Tuning::new(4, 512), file.clone()));
    assert_eq!(found(&key(2, 2)), StoredTuning::Tuned(Tuning::new(1, 64), file.clone()));
    assert_eq!(found(&key(4, 2)), StoredTuning::Nothing);
    let space = SpaceId::from_bytes([1; 16]);
    for other in [
        TuningKey::new("aarch64", Some("a processor".to_owned()), 2, "1.32.0", "cpu", space, "safetensors"),
        TuningKey::new("x86_64", None, 2, "1.32.0", "cpu", space, "safetensors"),
        TuningKey::new("x86_64", Some("a processor".to_owned()), 2, "1.33.0", "cpu", space, "safetensors"),
        TuningKey::new("x86_64", Some("a processor".to_owned()), 2, "1.32.0", "cuda:0", space, "safetensors"),
        TuningKey::new("x86_64", Some("a processor".to_owned()), 2, "1.32.0", "cpu", space, "onnx"),
    ] {
        assert_eq!(found(&other), StoredTuning::Nothing, "{other:?}");
    }
    let left = fs::read_dir(scratch.0.join("a/b")).expect("a folder").flatten();
    let mut left: Vec<OsString> = left.map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["tuning.json", "tuning.json.lock"]);
}

/// Each of many programs reads the file, adds its entry, and writes the file: all entries are there in the end.
#[test]
fn no_entry_of_many_writers_is_lost() {
    const WRITERS: usize = 8;
    const ENTRIES: usize = 10;
    let scratch = Scratch::new("writers");
    let file = scratch.file();
    let begin = std::sync::Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (file, begin) = (&file, &begin);
            scope.spawn(move || {
                begin.wait();
                (0..ENTRIES).for_each(|entry| stored(file, &key(1 + writer * ENTRIES + entry, 1), Tuning::new(2, 256)));
            });
        }
    });
    assert_eq!(read(&file).expect("readable").len(), WRITERS * ENTRIES);
    for cores in 1..=WRITERS * ENTRIES {
        assert!(matches!(find_in(file.clone(), &key(cores, 1)), StoredTuning::Tuned(..)), "{cores} is lost");
    }
}

/// The lock is one between processes: a second opening of the lock file waits for it as another process does.
#[test]
fn an_entry_waits_for_the_other_program() {
    let scratch = Scratch::new("locked");
    let file = scratch.file();
    stored(&file, &key(2, 1), Tuning::new(2, 256));
    let other = lock(&target(&file).expect("a file")).expect("locked");
    let try_again = File::open(scratch.0.join("tuning.json.lock")).expect("there");
    assert!(matches!(try_again.try_lock(), Err(fs::TryLockError::WouldBlock)), "others could write now");
    drop(other);
    stored(&file, &key(4, 1), Tuning::new(4, 256));
    assert_eq!(read(&file).expect("readable").len(), 2);
}

#[test]
fn the_last_measurement_replaces_the_one_before() {
    let scratch = Scratch::new("replaced");
    let file = scratch.file();
    for tokens in [64, 128, 256] {
        stored(&file, &key(2, 1), Tuning::new(2, tokens));
        stored(&file, &key(2, 2), Tuning::new(1, tokens));
    }
    assert_eq!(find_in(file.clone(), &key(2, 1)), StoredTuning::Tuned(Tuning::new(2, 256), file.clone()));
    let entries = read(&file).expect("readable");
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["model"], &entries[0]["cpu"]), (&"a model".into(), &"a processor".into()));
    assert!(entries[0]["measured"].as_u64().is_some_and(|time| time > 1_700_000_000), "{}", entries[0]);
}

#[test]
fn the_oldest_entries_go() {
    let scratch = Scratch::new("bounded");
    let file = scratch.file();
    for cores in 1..=MOST_ENTRIES + 2 {
        stored(&file, &key(cores, 1), Tuning::new(2, 256));
    }
    assert_eq!(read(&file).expect("readable").len(), MOST_ENTRIES);
    assert_eq!(find_in(file.clone(), &key(2, 1)), StoredTuning::Nothing);
    assert!(matches!(find_in(file, &key(3, 1)), StoredTuning::Tuned(..)));
}

#[test]
fn what_others_wrote_into_an_entry_stays() {
    let scratch = Scratch::new("foreign");
    let file = scratch.file();
    let entries = r#"[7, {"note": "by hand"}, {"arch": "x86_64"}]"#;
    fs::write(&file, format!(r#"{{"format": "{FORMAT}", "version": 1, "entries": {entries}}}"#)).expect("written");
    assert_eq!(find_in(file.clone(), &key(2, 1)), StoredTuning::Nothing);
    stored(&file, &key(2, 1), Tuning::new(2, 256));
    let kept = read(&file).expect("readable");
    assert_eq!((kept.len(), &kept[1]["note"]), (4, &"by hand".into()));
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let scratch = Scratch::new("damaged");
    let file = scratch.file();
    let long = " ".repeat(MOST_BYTES as usize + 1);
    let newer = format!(r#"{{"format": "{FORMAT}", "version": 2, "entries": []}}"#);
    let nothing = format!(r#"{{"format": "{FORMAT}", "version": 1}}"#);
    let unversioned = format!(r#"{{"format": "{FORMAT}", "version": "1", "entries": []}}"#);
    for (contents, why) in [
        ("", "is not JSON"),
        ("{\"entries\": [", "is not JSON"),
        ("\u{0}\u{1}", "is not JSON"),
        ("[]", "is not a file of"),
        ("{\"format\": 1, \"version\": 1, \"entries\": []}", "is not a file of"),
        (&newer, "is of version 2"),
        (&unversioned, "of which version"),
        (&nothing, "no list of entries"),
        (&long, "is longer than"),
    ] {
        fs::write(&file, contents).expect("written");
        assert!(unreadable(&file).contains(why), "{why:?} is not in {:?}", unreadable(&file));
        let error = store_in(&file, &key(2, 1), None, &Tuning::new(2, 256), 1.0).expect_err("refused");
        let said = error.to_string();
        assert!(error.kind() == ErrorKind::Config && said.contains(why) && said.contains(VARIABLE), "{said}");
        assert!(said.contains(&file.display().to_string()), "{said}");
        assert_eq!(fs::read_to_string(&file).expect("still there"), contents);
    }
    assert!(unreadable(&scratch.0).contains("not a regular file"));
}

#[test]
fn settings_beyond_reason_are_not_used() {
    let scratch = Scratch::new("bounds");
    let file = scratch.file();
    for (threads, tokens, why) in [
        ("0", "256", "threads is 0"),
        ("1025", "256", "threads is 1025"),
        ("2", "0", "batch_tokens is 0"),
        ("2", "16777217", "batch_tokens is 16777217"),
        ("-1", "256", "whole numbers"),
        ("2.5", "256", "whole numbers"),
        ("\"2\"", "256", "whole numbers"),
        ("1e300", "256", "whole numbers"),
    ] {
        stored(&file, &key(2, 1), Tuning::new(7, 77));
        let written = fs::read_to_string(&file).expect("there");
        let changed = written
            .replace("\"threads\": 7,", &format!("\"threads\": {threads},"))
            .replace("\"batch_tokens\": 77,", &format!("\"batch_tokens\": {tokens},"));
        fs::write(&file, changed).expect("written");
        assert!(unreadable(&file).contains(why), "{why:?} is not in {:?}", unreadable(&file));
        // It is one entry, and measuring again replaces it.
        stored(&file, &key(2, 1), Tuning::new(1, 64));
        assert_eq!(find_in(file.clone(), &key(2, 1)), StoredTuning::Tuned(Tuning::new(1, 64), file.clone()));
    }
    for tuning in [Tuning::new(0, 1), Tuning::new(1, 0), Tuning::new(1025, 1), Tuning::new(1, (1 << 24) + 1)] {
        assert!(store_in(&file, &key(2, 1), None, &tuning, 1.0).is_err(), "{tuning:?}");
    }
}

#[test]
fn a_speed_that_is_no_number_does_no_harm() {
    let scratch = Scratch::new("speed");
    for speed in [f64::NAN, f64::INFINITY] {
        store_in(&scratch.file(), &key(2, 1), None, &Tuning::new(2, 256), speed).expect("stored");
        assert!(matches!(find_in(scratch.file(), &key(2, 1)), StoredTuning::Tuned(..)));
    }
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let scratch = Scratch::new("link");
    let link = scratch.0.join("link.json");
    stored(&scratch.file(), &key(2, 1), Tuning::new(2, 256));
    std::os::unix::fs::symlink(scratch.file(), &link).expect("linked");
    stored(&link, &key(2, 1), Tuning::new(2, 512));
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(find_in(scratch.file(), &key(2, 1)), StoredTuning::Tuned(Tuning::new(2, 512), scratch.file()));
}

#[test]
fn a_file_that_cannot_be_made_is_an_error() {
    let scratch = Scratch::new("unwritable");
    fs::write(scratch.0.join("file"), "").expect("written");
    let error = store_in(&scratch.0.join("file/tuning.json"), &key(2, 1), None, &Tuning::new(2, 256), 1.0);
    let error = error.expect_err("a file is no folder");
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("tuning.json"), "{error}");
}

#[test]
fn the_file_is_where_the_system_keeps_such_things() {
    let home = || Some(PathBuf::from("/home/x"));
    let place = |os: &str, home: Option<PathBuf>, set: &[(&str, &str)]| {
        let variable = |name: &str| set.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value));
        place_of(os, home, variable).map(|path| path.to_string_lossy().replace('\\', "/"))
    };
    for (os, home, set, want) in [
        ("linux", home(), &[][..], Some("/home/x/.cache/docvector-embed/tuning.json")),
        ("linux", home(), &[("XDG_CACHE_HOME", "/c")], Some("/c/docvector-embed/tuning.json")),
        ("linux", home(), &[("XDG_CACHE_HOME", "")], Some("/home/x/.cache/docvector-embed/tuning.json")),
        ("linux", home(), &[("XDG_CACHE_HOME", "c")], Some("/home/x/.cache/docvector-embed/tuning.json")),
        ("linux", None, &[], None),
        ("linux", Some(PathBuf::new()), &[], None),
        ("macos", home(), &[("XDG_CACHE_HOME", "/c")], Some("/home/x/Library/Caches/docvector-embed/tuning.json")),
        ("windows", home(), &[("LOCALAPPDATA", "/c")], Some("/c/docvector-embed/tuning.json")),
        ("windows", home(), &[], None),
        ("linux", home(), &[(VARIABLE, "t.json"), ("XDG_CACHE_HOME", "/c")], Some("t.json")),
        ("linux", home(), &[(VARIABLE, ""), ("XDG_CACHE_HOME", "/c")], None),
    ] {
        assert_eq!(place(os, home, set).as_deref(), want, "{os} {set:?}");
    }
}

#[test]
fn settings_say_where_they_are_from() {
    let file = PathBuf::from("t.json");
    assert_eq!(TuningSource::Defaults.to_string(), "defaults");
    assert_eq!(TuningSource::Given.to_string(), "given");
    assert_eq!(TuningSource::Tuned(file.clone()).to_string(), "tuned, from t.json");
    let unusable = TuningSource::Unusable(file, "is not JSON".to_owned());
    assert_eq!(unusable.to_string(), "defaults, because t.json is not JSON");
    assert_eq!(Tuning::new(1, 64).to_string(), "1 thread, 64 padded tokens per batch");
}
