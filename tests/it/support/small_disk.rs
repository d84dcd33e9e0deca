//! Runs a test again, alone, where a folder is a small disk of its own: [`on_small_disk`].

use std::{
    env,
    path::Path,
    process::{Command, Output},
};

use super::processes::INNER;

/// Runs this program with these arguments, of [`alone`](super::processes::alone), in a namespace in which the folder is a
/// disk of so many MiB. The disk ends with the process. The inner test gets the folder as its only word.
///
/// Returns false, and prints why, where such a disk cannot be mounted. Fails if the inner test does.
pub(crate) fn on_small_disk(folder: &Path, mebibytes: usize, arguments: &[String]) -> bool {
    let Some(unshare) = namespaces().into_iter().find(|unshare| {
        let mounted = mounted(unshare, folder, mebibytes, &["true".into()]);
        mounted.is_some_and(|output| output.status.success())
    }) else {
        println!("not tested: a small disk cannot be mounted here");
        return false;
    };
    let program = env::current_exe().expect("this program").display().to_string();
    let command = [&[program], arguments].concat();
    let output = mounted(unshare, folder, mebibytes, &command).expect("it starts");
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains(" 1 passed"), "{told}\n{warned}");
    true
}

/// Ways to a namespace with mounts of its own, in which a server can still be another user than root: that of root, and
/// that of others.
fn namespaces() -> [&'static [&'static str]; 2] {
    [&["--mount"], &["--map-current-user", "--keep-caps", "--mount"]]
}

fn mounted(unshare: &[&str], folder: &Path, mebibytes: usize, program: &[String]) -> Option<Output> {
    let mount = format!("mount -t tmpfs -o size={mebibytes}m,mode=1777 tmpfs \"$0\" && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", &mount]).arg(folder).args(program);
    command.env(INNER, folder).output().ok()
}
