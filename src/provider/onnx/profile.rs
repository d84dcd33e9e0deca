//! Counts in the profile of a run how many of a model's nodes each of ONNX Runtime's providers ran.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use crate::{Error, ErrorKind, Result};

/// How many of a model's nodes ran on a provider of ONNX Runtime. See
/// [`Onnx::placement`](crate::provider::Onnx::placement).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct NodeShare {
    /// The provider, by ONNX Runtime's name: `CPUExecutionProvider`, `CUDAExecutionProvider`.
    pub provider: String,
    /// Nodes of the graph that ran there, after ONNX Runtime's optimizations.
    pub nodes: usize,
}

/// Counts the nodes of each provider in a profile; `None` if it is not a profile.
pub(super) fn node_shares(profile: &[u8]) -> Option<Vec<NodeShare>> {
    let events: serde_json::Value = serde_json::from_slice(profile).ok()?;
    let mut nodes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in events.as_array()?.iter().filter(|event| event["cat"] == "Node") {
        let (Some(name), Some(provider)) = (event["name"].as_str(), event["args"]["provider"].as_str()) else {
            continue;
        };
        if let Some(name) = name.strip_suffix("_kernel_time") {
            nodes.entry(provider).or_default().insert(name);
        }
    }
    let share =
        |(provider, names): (&str, BTreeSet<&str>)| NodeShare { provider: provider.to_owned(), nodes: names.len() };
    Some(nodes.into_iter().map(share).collect())
}

/// A temporary folder for a profile. Dropping it removes the folder.
pub(super) struct ProfileFolder(pub(super) PathBuf);

impl ProfileFolder {
    pub(super) fn new() -> Result<Self> {
        let name = format!("docvector-embed-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).map_err(|error| {
            let message = format!("the folder {} for a profile cannot be made", folder.display());
            Error::new(ErrorKind::Config, message).with_source(error)
        })?;
        Ok(Self(folder))
    }
}

impl Drop for ProfileFolder {
    fn drop(&mut self) {
        // It lies among other temporary files, so a folder that cannot be removed does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_shares_out_of_a_profile() {
        let event = |name: &str, category: &str, provider: &str| {
            format!(r#"{{"cat":"{category}","name":"{name}","args":{{"provider":"{provider}"}}}}"#)
        };
        let events = [
            event("a_kernel_time", "Node", "CPUExecutionProvider"),
            event("a_kernel_time", "Node", "CPUExecutionProvider"),
            event("a_fence_before", "Node", "CPUExecutionProvider"),
            event("b_kernel_time", "Node", "CUDAExecutionProvider"),
            event("c_kernel_time", "Node", "CPUExecutionProvider"),
            event("model_run", "Session", ""),
        ];
        let shares = node_shares(format!("[{}]", events.join(",")).as_bytes()).expect("a profile");
        let shares: Vec<_> = shares.iter().map(|share| (share.provider.as_str(), share.nodes)).collect();
        assert_eq!(shares, [("CPUExecutionProvider", 2), ("CUDAExecutionProvider", 1)]);
        assert_eq!(super::node_shares(b"{"), None);
    }
}
