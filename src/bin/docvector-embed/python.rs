//! Finds a Python to run a script with, [`find`], and runs code in it, [`command`].

use std::{
    ffi::{OsStr, OsString},
    io,
    process::{Command, Stdio},
};

use crate::failure::Failure;

/// The oldest version that will do.
const OLDEST: (u32, u32) = (3, 9);

/// The programs that are tried, in order. On Windows the launcher comes first: `python3` may be a link to a shop there.
const NAMES: &[&str] = if cfg!(windows) { &["py", "python", "python3"] } else { &["python3", "python"] };

const ASK_VERSION: &str = "import sys; print('%d.%d' % sys.version_info[:2])";

/// Returns the named Python, or else the first that will do.
pub(crate) fn find(named: Option<&OsStr>) -> Result<OsString, Failure> {
    let names: Vec<&OsStr> = named.map_or_else(|| NAMES.iter().map(OsStr::new).collect(), |name| vec![name]);
    let mut faults = Vec::new();
    for name in names {
        match fault(name) {
            None => return Ok(name.to_owned()),
            Some(fault) => faults.push(format!("{} {fault}", name.display())),
        }
    }
    Err(Failure::new(format!(
        "Python {}.{} or newer is needed for its pip, which fetches the files: {}. Install it with pip (Debian, \
         Ubuntu: python3 and python3-pip), or name another one by --python. To do without, name a library by \
         ORT_DYLIB_PATH and the folder of a model by --model",
        OLDEST.0,
        OLDEST.1,
        faults.join("; ")
    )))
}

/// Makes a command that runs this code, and imports nothing from the current folder, in which anything may lie.
///
/// Python before 3.11 does not know the variable. So the code may import `sys`, which is built in, and must take that
/// folder out of `sys.path` before it imports more. Python 3.13 needs the variable: it imports modules before it runs
/// the code.
pub(crate) fn command(python: &OsStr, code: &str) -> Command {
    let mut command = Command::new(python);
    command.env("PYTHONSAFEPATH", "1").args(["-c", code]);
    command
}

/// Returns why a program is no Python that will do, if it is not.
fn fault(python: &OsStr) -> Option<String> {
    match command(python, ASK_VERSION).stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(answer) if answer.status.success() => fault_of_version(&String::from_utf8_lossy(&answer.stdout)),
        Ok(answer) => Some(format!("is no Python that runs ({})", answer.status)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is not there".to_owned()),
        Err(error) => Some(format!("cannot be started ({error})")),
    }
}

/// The same for a Python that has said its version.
fn fault_of_version(answer: &str) -> Option<String> {
    let answer = answer.trim();
    let version: Option<(u32, u32)> =
        answer.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match version {
        Some(version) if version >= OLDEST => None,
        Some((major, minor)) => Some(format!("is Python {major}.{minor}")),
        None => Some("does not say its version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_is_new_enough_or_the_fault_says_why_not() {
        for (answer, fault) in [
            ("3.9\n", None),
            ("3.14\r\n", None),
            ("4.0", None),
            ("3.8\n", Some("is Python 3.8")),
            ("2.7\n", Some("is Python 2.7")),
            ("", Some("does not say its version")),
            ("no.version\n", Some("does not say its version")),
        ] {
            assert_eq!(fault_of_version(answer).as_deref(), fault, "{answer:?}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let Err(Failure::Error(error)) = find(Some(OsStr::new("no-such-python"))) else {
            panic!("there is no such program")
        };
        for part in ["Python 3.9", "no-such-python is not there", "--python"] {
            assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
        }
    }
}
