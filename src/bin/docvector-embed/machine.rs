//! Describes the machine and the model that a report is about.

use std::{env, io::Write, path::Path, thread};

use docvector_embed::provider::OnnxInfo;

use crate::{failure::Failure, report::Report, wording::without_controls};

/// Returns the number of cores that this process may use, or `unknown`.
pub(crate) fn cores() -> String {
    thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string())
}

/// Returns the devices that a model runs on.
pub(crate) fn devices(info: &OnnxInfo) -> String {
    info.devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Prints the model, the library, the machine and the device.
pub(crate) fn describe(report: &mut Report<impl Write>, folder: &Path, info: &OnnxInfo) -> Result<(), Failure> {
    report.line("model", folder.display())?;
    report.line("  file", info.model.strip_prefix(folder).unwrap_or(&info.model).display())?;
    report.line("ONNX Runtime", &info.library.version)?;
    let cpu = info.cpu.as_deref().map(|cpu| format!(", {}", without_controls(cpu))).unwrap_or_default();
    let (arch, os) = (env::consts::ARCH, env::consts::OS);
    report.line("machine", format!("{arch} {os}, {} cores{cpu}", cores()))?;
    report.line("device", devices(info))
}
