//! Defines the arguments of `doctor`.

use std::path::PathBuf;

use clap::{Args, builder::TypedValueParser};

use super::{model::LoadArgs, model_choice::local_model};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Folder of a model to load and check, or its name in the asset folder, which `setup` fills
    #[arg(long, value_name = "DIR", value_parser = clap::builder::OsStringValueParser::new().try_map(local_model))]
    pub(crate) model: Option<PathBuf>,
    /// Compare with the vectors of all-MiniLM-L6-v2 whatever the model is called
    #[arg(long, requires = "model")]
    pub(crate) reference: bool,
    /// Check the laws of embedders too, such as order and independence of the other texts; takes some seconds
    #[arg(long, requires = "model")]
    pub(crate) laws: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}
