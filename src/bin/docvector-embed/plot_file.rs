//! Writes the file of a plot, which appears when it is complete.

use std::{io::Write, path::Path};

use crate::{
    failure::Failure,
    link::{Destination, follow},
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
        debug_assert!(!is_standard(path), "the command line refuses it");
        let cannot = |error| Failure::writing(&name, error);
        let about = existing(path).map_err(cannot)?;
        match follow(path).map_err(cannot)? {
            Destination::Path(path) if about.is_none_or(|about| about.is_file()) => {
                let file = UnfinishedFile::create(&path).map_err(cannot)?;
                Ok(Self { file, name })
            }
            _ => Err(Failure::new(format!("{name} is not a regular file, and a plot needs one: name another file"))),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn finish(mut self, svg: &str) -> Result<(), Failure> {
        let written = self.file.write_all(svg.as_bytes()).and_then(|()| self.file.persist());
        written.map_err(|error| Failure::writing(&self.name, error))
    }
}
