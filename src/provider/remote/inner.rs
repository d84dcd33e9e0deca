//! Holds what the clones of an embedder share: [`Inner`].

use reqwest::header::HeaderMap;

use super::{dialect::RemoteDialect, endpoint::Endpoint, limits::CallLimits, probe::Probe};
use crate::{Limits, Payee, Space, http::Http};

/// The settings of an embedder, and the state of its endpoints.
pub(super) struct Inner {
    /// The text of `Display`: `remote/all-MiniLM-L6-v2`.
    pub(super) name: String,
    pub(super) payee: Payee,
    pub(super) space: Space,
    pub(super) dialect: RemoteDialect,
    pub(super) limits: CallLimits,
    /// At least one.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) http: Http,
    /// The headers of every request, the key among them.
    pub(super) headers: HeaderMap,
    /// `None` if servers that do not state their space are taken at their word.
    pub(super) probe: Option<Probe>,
}

impl Inner {
    /// Returns what one call may hold.
    pub(super) fn limits(&self) -> Limits {
        #[cfg(feature = "openai")]
        if self.dialect == RemoteDialect::OpenAi {
            let openai = self.endpoints.iter().filter_map(|endpoint| endpoint.openai.as_ref());
            let all = openai.map(crate::Embedder::limits).reduce(|all, one| all.combine(&one));
            return all.unwrap_or_default();
        }
        self.limits.get()
    }
}
