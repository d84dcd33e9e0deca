//! A forked process: it has the loaded model, but not its threads.

use std::{env, fs, os::unix::fs::chroot, process::Command};

use docvector_embed::{EmbedderExt, ErrorKind, provider::Onnx};

use crate::support::golden;

/// Stands in for a function of libc that nothing here uses, and that safe code can call. `fork` forks: the child goes
/// on, and the parent gets 1,000 and the child's exit code as its error. `exit N` ends the child at once. A child that
/// hangs is ended by a signal.
const CHROOT: &str = r#"
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int chroot(const char *path) {
    if (strncmp(path, "exit ", 5) == 0) _exit(path[5] - '0');
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        return 0;
    }
    int status = 0;
    waitpid(child, &status, 0);
    errno = WIFEXITED(status) ? 1000 + WEXITSTATUS(status) : 2000;
    return -1;
}
"#;

/// Runs the test again in a process of its own, with this `chroot`.
fn run_with_chroot(inside: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, library) = (folder.path().join("chroot.c"), folder.path().join("chroot.so"));
    fs::write(&source, CHROOT).expect("written");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output();
    let built = built.expect("a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = env::current_exe().expect("this program");
    let name = "onnx::fork::a_fork_gets_an_error_and_does_not_hang";
    let mut child = Command::new(program);
    let child = child.args(["--exact", name, "--test-threads", "1", "--nocapture"]);
    let child = child.env(inside, "1").env("LD_PRELOAD", library).output().expect("runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn a_fork_gets_an_error_and_does_not_hang() {
    const INSIDE: &str = "DOCVECTOR_EMBED_TEST_FORK";
    if env::var_os(INSIDE).is_none() {
        return run_with_chroot(INSIDE);
    }
    let embedder = Onnx::builder(golden("tiny/bert-cls")).with_threads(1).build().expect("loads");
    let embed = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(embedder.embed_query("a text"))
    };
    embed().expect("embeds before");
    match chroot("fork") {
        Ok(()) => {
            let error = embed().expect_err("there are no threads");
            let right =
                error.kind() == ErrorKind::Config && error.to_string().contains("load the model in this process");
            // Waits for no thread either.
            drop(embedder);
            let _ = chroot(if right { "exit 7" } else { "exit 8" });
            panic!("the child goes on");
        }
        Err(ended) => {
            let code = ended.raw_os_error();
            assert_eq!(code, Some(1007), "1008: the child had another error; 2000: it hung, or was ended by a signal");
        }
    }
    embed().expect("embeds after");
}
