//! Runs `setup`: fetches ONNX Runtime and a small model into the asset folder, by the script that a clone has for it.

use std::{
    ffi::OsStr,
    io::{self, Write},
    path::{self, Path, PathBuf},
    pin::pin,
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use docvector_embed::{config::asset_folder, provider::Onnx};
use futures_util::FutureExt;

use crate::{
    cli::setup::SetupArgs,
    failure::Failure,
    python,
    report::Report,
    runtime::runtime,
    signals::{Signal, interrupted},
};

/// The script, carried along: an installed program has no clone.
const SCRIPT: &str = include_str!("../../../scripts/fetch-assets");

/// Reads the script from standard input and runs it under the name of this command. So no file has to be made for it,
/// and nothing is imported from the current folder, in which anything may lie. Nobody else gets the right to write to
/// what it makes: otherwise the library would be passed over.
const RUN_SCRIPT: &str = "import sys; \
                          sys.path[:] = [path for path in sys.path if path]; \
                          import os; \
                          os.umask(os.umask(0) | 0o022); \
                          script = compile(sys.stdin.buffer.read(), 'setup', 'exec'); \
                          exec(script, {'__name__': '__main__', '__file__': 'setup'})";

const LIBRARY: &str = "onnxruntime";
const MODEL: &str = "all-MiniLM-L6-v2";

/// How long after a signal Python may take to end pip and to clear away. A second later, the signal ends this program.
const GRACE: Duration = Duration::from_secs(4);

/// The pause between two looks at whether Python has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Fetches what is missing, loads the library, and says how to go on.
pub(crate) fn run(args: &SetupArgs) -> Result<(), Failure> {
    let mut report = Report::new(io::stdout());
    let assets = folder(args)?;
    let python = python::find(args.python.as_deref())?;
    report.line("asset folder", assets.display())?;
    report.line("Python", python.display())?;
    fetch(&python, &assets)?;
    let is_searched = is_searched(&assets);
    // In a folder that other commands search, the library must be one that they accept.
    let place = (!is_searched).then(|| assets.join(LIBRARY));
    let library = Onnx::load_library(place.as_deref())?;
    report.line("ONNX Runtime", format_args!("{}, loaded from {}", library.version, library.path.display()))?;
    if !is_searched {
        let assets = assets.display();
        report.text(format_args!("\nSet DOCVECTOR_EMBED_ASSETS to {assets}, or other commands do not search it."))?;
    }
    report.text(format_args!(
        "\nTry:\n  docvector-embed doctor --model {MODEL}\n  \
         echo 'who owns a value?' | docvector-embed embed --model {MODEL}"
    ))
}

/// Returns the absolute path of the folder to fetch into: the given one, else the user's.
fn folder(args: &SetupArgs) -> Result<PathBuf, Failure> {
    let folder = match &args.assets {
        Some(folder) => folder.clone(),
        None => asset_folder()?,
    };
    path::absolute(&folder)
        .map_err(|error| Failure::with_cause(format!("{} cannot be made an absolute path", folder.display()), error))
}

/// Returns whether a folder is the one that is searched for the library and for models.
fn is_searched(assets: &Path) -> bool {
    asset_folder().is_ok_and(|searched| path::absolute(searched).is_ok_and(|searched| searched == assets))
}

/// Runs the script, which prints a line for each part, and says on standard error what is wrong.
fn fetch(python: &OsStr, assets: &Path) -> Result<(), Failure> {
    let status = runtime()?.block_on(run_script(python, assets))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "not all is in {}: the lines above say why ({status} of {}). Run `docvector-embed setup` again when that is \
         mended; --python names another Python. To do without, name a library by ORT_DYLIB_PATH and the folder of a \
         model by --model",
        assets.display(),
        python.display()
    )))
}

/// Runs the script to its end. A signal ends it, too: it would go on without this program.
async fn run_script(python: &OsStr, assets: &Path) -> Result<ExitStatus, Failure> {
    let not_run = |error: io::Error| Failure::with_cause(format!("{} cannot be run", python.display()), error);
    let mut signal = pin!(interrupted());
    // From here on, a signal is told instead of ending this program at once. Python starts only then.
    if let Some(signal) = signal.as_mut().now_or_never() {
        return Err(ended(signal));
    }
    let mut running = start(python, assets).map_err(not_run)?;
    tokio::select! {
        // A terminal's interrupt reaches Python, too: the signal is the reason then, and not its status.
        biased;
        signal = signal => Err(stop(&mut running, signal).await),
        status = end_of(&mut running) => status.map_err(not_run),
    }
}

/// Starts Python and hands it the script.
fn start(python: &OsStr, assets: &Path) -> io::Result<Child> {
    let mut command = python::command(python, RUN_SCRIPT);
    // A damaged file of the right size is found by its hash alone.
    command.args(["--verify", "--part", LIBRARY, "--part", MODEL, "--dir"]).arg(assets);
    let mut running = command.stdin(Stdio::piped()).spawn()?;
    if let Some(mut script) = running.stdin.take() {
        // If Python ends before it has read all, its status and its words say more than this error.
        let _ = script.write_all(SCRIPT.as_bytes());
    }
    Ok(running)
}

/// Waits for the end of a process. No thread waits: it would own the process, which then could not be killed.
async fn end_of(running: &mut Child) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = running.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Ends Python after a signal, and returns the failure to end with.
async fn stop(running: &mut Child, signal: Signal) -> Failure {
    terminate(running);
    if tokio::time::timeout(GRACE, end_of(running)).await.is_ok() {
        return ended(signal);
    }
    // It may have ended just now.
    let _ = running.kill();
    Failure::signal(signal, "; the next `docvector-embed setup` removes what is half-made")
}

fn ended(signal: Signal) -> Failure {
    Failure::signal(signal, "; nothing half-made stays: run `docvector-embed setup` again")
}

/// Asks Python to end. The script then ends pip and removes its temporary folder.
fn terminate(python: &Child) {
    // Its end was not seen yet, so its number is not that of another process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(python), rustix::process::Signal::TERM);
    #[cfg(all(unix, not(target_os = "linux")))]
    let _ = std::process::Command::new("/bin/kill").arg("-TERM").arg(python.id().to_string()).status();
    // On Windows, the console has told Python as well.
    #[cfg(not(unix))]
    let _ = python;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_knows_the_parts_and_options() {
        for known in [LIBRARY, MODEL].map(|part| format!("Part(\"{part}\"")) {
            assert!(SCRIPT.contains(&known), "{known}");
        }
        for option in ["\"--verify\"", "\"--part\"", "\"--dir\""] {
            assert!(SCRIPT.contains(option), "{option}");
        }
    }

    #[test]
    fn the_given_folder_becomes_absolute() {
        let args = SetupArgs { assets: Some("some/folder".into()), python: None };
        let folder = folder(&args).expect("a path");
        assert!(folder.is_absolute() && folder.ends_with("some/folder"), "{}", folder.display());
        assert!(!is_searched(&folder));
    }

    /// A Python that does not end. The clock jumps.
    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_process_that_does_not_end_is_killed() {
        use std::{io::Read, os::unix::process::ExitStatusExt, process::Command};
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' TERM; echo; exec sleep 60"]).stdout(Stdio::piped());
        let mut running = shell.spawn().expect("it starts");
        // From this line on, it ignores the signal.
        running.stdout.take().expect("piped").read_exact(&mut [0]).expect("a line");
        let Failure::Signal(Signal(15), left) = stop(&mut running, Signal(15)).await else {
            panic!("it is the failure of the signal")
        };
        assert!(left.starts_with("terminated; the next"), "{left}");
        assert_eq!(running.wait().expect("it ended").signal(), Some(9));
    }
}
