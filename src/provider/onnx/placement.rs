//! Runs a model once to see which of ONNX Runtime's providers runs its nodes.

use std::{fs, sync::Arc};

use ort::environment::Environment;

use super::{
    device::Device,
    model::Model,
    profile::{NodeShare, ProfileFolder, node_shares},
    runner::Runner,
    runtime_messages::failed,
};
use crate::{Error, ErrorKind, Result};

/// Runs two short texts, and returns how many of the graph's nodes each of ONNX Runtime's providers ran.
pub(super) fn placement(model: &Arc<Model>, environment: &Environment, device: Device) -> Result<Vec<NodeShare>> {
    let profile = ProfileFolder::new()?;
    let session = model.source.session(environment, device, Some(&profile.0.join("run")))?;
    let mut runner = Runner::new(Arc::clone(model), session, device)?;
    runner.warm_up().map_err(|failure| failure.error)?;
    let file = runner.session.end_profiling().map_err(failed("the profile cannot be written"))?;
    let unread = |why: String| Error::new(ErrorKind::Inference, format!("the profile {file} {why}"));
    let bytes = fs::read(&file).map_err(|error| unread("cannot be read".into()).with_source(error))?;
    node_shares(&bytes).ok_or_else(|| unread("has a form that is not known here".into()))
}
