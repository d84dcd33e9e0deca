//! Ends the program by signals: [`watch`] begins, [`interrupted`] waits for one, [`Signals`] misses none between two.

#[cfg(unix)]
use std::{fs, io, thread, time::Duration};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
#[cfg(unix)]
use tokio::sync::watch;

#[cfg(unix)]
use crate::ending;

/// How long a command may take to say what is left, before the signal ends it whatever it does.
#[cfg(unix)]
const GRACE: Duration = Duration::from_secs(5);

/// The signal that came first.
#[cfg(unix)]
static FIRST: std::sync::LazyLock<watch::Sender<Option<Signal>>> =
    std::sync::LazyLock::new(|| watch::Sender::new(None));

/// A signal that ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal(pub(crate) i32);

impl Signal {
    /// Returns what the signal did, as a message begins.
    pub(crate) const fn what_it_did(self) -> &'static str {
        #[cfg(unix)]
        return match self.0 {
            SIGTERM => "terminated",
            SIGHUP => "ended with its terminal",
            _ => "interrupted",
        };
        #[cfg(not(unix))]
        "interrupted"
    }
}

/// Begins to watch for signals, on a thread of its own.
///
/// A signal ends the program at once, and no unfinished file stays. Only where a command waits in [`interrupted`], it is
/// told and has some seconds to say what is left. A second signal ends it at once, too. So nothing that blocks, such as a
/// pipe that nobody reads, can keep the program.
#[cfg(unix)]
pub(crate) fn watch() -> io::Result<()> {
    // `nohup` and shells that start something in the background have a signal ignored, and mean it. Only Linux tells which.
    // Elsewhere SIGHUP, which `nohup` ignores, is left as it is.
    let wanted: Vec<i32> = match ignored() {
        Some(ignored) => {
            [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect()
        }
        None => vec![SIGINT, SIGTERM],
    };
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let watching = move || {
        let mut is_first = true;
        for signal in signals.forever() {
            if !is_first || FIRST.receiver_count() == 0 {
                ending::by_signal(signal);
            }
            is_first = false;
            FIRST.send_replace(Some(Signal(signal)));
            let last = thread::Builder::new().spawn(move || {
                thread::sleep(GRACE);
                ending::by_signal(signal)
            });
            if last.is_err() {
                ending::by_signal(signal);
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watching)?;
    Ok(())
}

/// Begins to watch for signals. Here the system ends a program that does not wait for one.
#[cfg(not(unix))]
pub(crate) fn watch() -> std::io::Result<()> {
    Ok(())
}

/// Returns the signals that were ignored when the program was started, one bit for each, if the system tells.
#[cfg(unix)]
fn ignored() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Waits for the signal that ends the command. After it, the command has some seconds.
#[cfg(unix)]
pub(crate) async fn interrupted() -> Signal {
    let mut first = FIRST.subscribe();
    match first.wait_for(Option::is_some).await.map(|signal| *signal) {
        Ok(Some(signal)) => signal,
        // The sender is never dropped.
        _ => std::future::pending().await,
    }
}

/// Waits for the signal that ends the command.
#[cfg(not(unix))]
pub(crate) async fn interrupted() -> Signal {
    let _ = tokio::signal::ctrl_c().await;
    Signal(2)
}

/// The signals that end a service, from its making on.
pub(crate) struct Signals {
    #[cfg(unix)]
    streams: Option<[tokio::signal::unix::Signal; 2]>,
}

impl Signals {
    /// Begins to listen. Needs a runtime.
    pub(crate) fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let streams = signal(SignalKind::interrupt()).and_then(|one| Ok([one, signal(SignalKind::terminate())?]));
            Self { streams: streams.ok() }
        }
        #[cfg(not(unix))]
        Self {}
    }

    /// Waits for the next signal, and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        if let Some([interrupt, terminate]) = &mut self.streams {
            return tokio::select! {
                _ = interrupt.recv() => "interrupted",
                _ = terminate.recv() => "terminated",
            };
        }
        let _ = tokio::signal::ctrl_c().await;
        "interrupted"
    }
}
