//! Ends the process at once: [`exit`] with a status, [`by_signal`] as a signal does.

use crate::unfinished_file;

/// The status of a command that did its work.
pub(crate) const DONE: i32 = 0;

/// The status of a command that failed.
pub(crate) const FAILED: i32 = 1;

/// The status of a run that wrote an error in place of some vectors.
pub(crate) const RECORDED: i32 = 3;

/// Ends the process with this status, and leaves out what libraries have registered for the end.
///
/// Threads may still be at work, such as one that loads a model for which nobody waits after a signal. A usual exit
/// destroys the global objects of ONNX Runtime, and such a thread then crashes the process.
pub(crate) fn exit(status: i32) -> ! {
    unfinished_file::remove_all();
    signal_hook::low_level::exit(status)
}

/// Ends the process as this signal does. A shell then sees the signal and ends its loop, which an exit status would not
/// make it do.
pub(crate) fn by_signal(signal: i32) -> ! {
    unfinished_file::remove_all();
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    // The status that shells show for a signal, if there is nothing to emulate.
    signal_hook::low_level::exit(128 + signal)
}
