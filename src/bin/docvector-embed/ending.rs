//! Ends the process at once: [`exit`].

/// The status of a command that did its work.
pub(crate) const DONE: i32 = 0;

/// The status of a command that failed.
pub(crate) const FAILED: i32 = 1;

/// Ends the process with this status, and leaves out what libraries have registered for the end.
///
/// Threads may still be at work, such as one that loads a model for which nobody waits after a signal. A usual exit
/// destroys the global objects of ONNX Runtime, and such a thread then crashes the process.
pub(crate) fn exit(status: i32) -> ! {
    signal_hook::low_level::exit(status)
}
