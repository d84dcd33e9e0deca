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
