//! Holds the thread of an embedder and what its jobs share, for the embedder and each of its jobs: [`Inner`].

use std::{fmt, sync::Arc};

use super::{context::Context, worker::Worker};
use crate::Result;

/// The state that clones of an embedder and its jobs share. The thread ends with the last of them.
pub(super) struct Inner {
    /// Before the context, whose last owner it may be.
    pub(super) worker: Worker,
    pub(super) context: Arc<Context>,
    name: String,
}

impl Inner {
    pub(super) fn start(context: Context) -> Result<Self> {
        let model = context.endpoint.model.as_deref().unwrap_or(context.endpoint.space.model());
        let name = format!("openai-batch/{model}");
        let context = Arc::new(context);
        let worker = Worker::start(context.clone())?;
        Ok(Self { worker, context, name })
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
