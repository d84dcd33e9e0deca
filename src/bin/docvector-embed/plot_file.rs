//! Writes the file of a plot, which appears when it is complete.

use std::{io::Write, path::Path};

use crate::{
    failure::Failure,
    paths::is_standard,
    unfinished_file::{UnfinishedFile, existing},
};

/// The file of a plot. It gets its name only when the plot is written.
pub(crate) struct PlotFile {
    file: UnfinishedFile,
    name: String,
}

impl PlotFile {
    /// Creates it before any work, so that errors show early.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let existing = existing(path).map_err(|error| Failure::writing(&name, error))?;
        if existing.as_ref().is_some_and(|about| !about.is_file()) {
            return Err(Failure::new(format!("{name} is not a regular file, and a plot needs one: name another file")));
        }
        debug_assert!(!is_standard(path), "the command line refuses it");
        let file = UnfinishedFile::create(path, existing.is_some()).map_err(|error| Failure::writing(&name, error))?;
        Ok(Self { file, name })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn finish(mut self, svg: &str) -> Result<(), Failure> {
        let written = self.file.write_all(svg.as_bytes()).and_then(|()| self.file.persist());
        written.map_err(|error| Failure::writing(&self.name, error))
    }
}
