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

#[cfg(test)]
mod tests {
    use crate::{
        EmbedderExt,
        provider::onnx::{
            Onnx,
            tiny_file::{OUTPUT, VECTORS, folder, model, node},
        },
    };

    /// The two short texts must fit into the shape that a file requires.
    #[tokio::test]
    async fn a_file_of_a_fixed_shape_is_placed() {
        for shape in [[Some(1), None], [Some(3), None], [None, Some(4)], [Some(1), Some(3)], [None, None]] {
            let nodes = vec![node("Mul", &[VECTORS, VECTORS], &[OUTPUT], Vec::new())];
            let folder = folder(&model(nodes, Vec::new(), shape));
            let builder = Onnx::builder(folder.path()).with_threads(1);
            let builder = if let Some(tokens) = shape[1] { builder.with_max_tokens(tokens) } else { builder };
            let embedder = builder.build().unwrap_or_else(|error| panic!("{shape:?}: {error}"));
            let shares = embedder.placement().unwrap_or_else(|error| panic!("{shape:?}: {error}"));
            assert!(shares.iter().any(|share| share.nodes >= 2), "{shape:?}: {shares:?}");
            let rows = embedder.embed_documents(&["a", "b", "c", "d"]).await.expect("embeds");
            assert_eq!(rows.len(), 4, "{shape:?}");
        }
    }
}
