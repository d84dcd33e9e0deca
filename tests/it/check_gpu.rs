//! `scripts/check-gpu` says so where there is no GPU. Its checks run on a GPU, or by hand with `--device cpu --small`.
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use crate::support::root;

/// Runs it with a stand-in for NVIDIA's program.
fn check(nvidia_smi: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("nvidia-smi");
    fs::write(&program, nvidia_smi).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let old = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&old));
    let mut command = Command::new("python3");
    command.arg(root().join("scripts/check-gpu")).arg("run").args(arguments).arg("--work").arg(folder.path());
    command.env("PATH", std::env::join_paths(paths).expect("a path")).output().expect("Python runs")
}

#[test]
fn without_a_gpu_it_says_so() {
    for nvidia_smi in ["#!/bin/sh\necho 'no devices were found' >&2\nexit 6\n", "#!/bin/sh\nexit 0\n"] {
        let done = check(nvidia_smi, &[]);
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(done.status.code(), Some(3), "{said}{}", String::from_utf8_lossy(&done.stderr));
        assert!(said.contains("there is no NVIDIA GPU here"), "{said}");
    }
}

#[test]
fn with_one_it_goes_on_and_names_what_is_missing() {
    let done = check("#!/bin/sh\necho 'NVIDIA H100, 580.1, 81559 MiB'\n", &["--program", "/nowhere/docvector-embed"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("/nowhere/docvector-embed does not exist"), "{said}");
}

/// Runs lines of Python that have the script as `script`, and `run` with nothing but what `Run.check` needs.
fn python(lines: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let head = "
import importlib.machinery, importlib.util, pathlib, subprocess, struct, sys, time, types
scripts, work = map(pathlib.Path, sys.argv[1:])
sys.dont_write_bytecode = True
sys.path.insert(0, str(scripts))
loader = importlib.machinery.SourceFileLoader('script', str(scripts / 'check-gpu'))
script = importlib.util.module_from_spec(importlib.util.spec_from_loader('script', loader))
loader.exec_module(script)
run = object.__new__(script.Run)
run.out, run.work, run.end, run.results = work / 'out.json', work, time.monotonic() + 600, {'checks': {}}
";
    let mut command = Command::new("python3");
    command.arg("-c").arg(format!("{head}{lines}")).arg(root().join("scripts")).arg(folder.path());
    let done = command.output().expect("Python runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_check_that_fails_in_any_way_ends_no_run() {
    python(
        "
def table(): script.read_table('no table')
def rows(): struct.unpack('<4f', b'')
def missing(): [][0]
for action in (table, rows, missing):
    run.check(action.__name__, action)
    assert run.results['checks'][action.__name__]['outcome'] == 'failed', run.results
run.check('sound', lambda: {})
assert run.results['checks']['sound']['outcome'] == 'passed', run.results
",
    );
}

#[test]
fn the_second_of_two_processes_ends_with_the_first() {
    python(
        "
processes, commands = [], [['sh', '-c', 'exit 7'], ['sleep', '600']]
run.options, run.environment = types.SimpleNamespace(small=True, device='cpu'), None
run.model = run.texts = run.rows = lambda *_: None
run.command = lambda *_: commands.pop(0)
class Recorded(subprocess.Popen):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        processes.append(self)
subprocess.Popen = Recorded
try:
    script.two_processes(run)
except script.Failed as failure:
    assert 'exit status 7' in str(failure), failure
else:
    raise AssertionError('the bad exit is lost')
running = [process for process in processes if process.poll() is None]
for process in running: process.kill()
assert len(processes) == 2 and not running, running
",
    );
}
