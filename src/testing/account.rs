//! Shares the simulated account between the server and the test: [`Account`].

use std::{path::Path, sync::Arc};

use tempfile::TempDir;

use super::{clock::Clock, settings::Settings, state::State};
use crate::sync::Mutex;

/// The settings, the state under its lock, and the folder of the uploaded files.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) settings: Arc<Settings>,
    state: Mutex<State>,
    folder: TempDir,
}

impl Account {
    pub(super) fn new(settings: Settings, enqueued_tokens: Option<u64>) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("docvector-embed-simulator-").tempdir()?;
        let state = State::new(Clock::new(settings.speed), enqueued_tokens);
        Ok(Self { settings: Arc::new(settings), state: Mutex::new(state), folder })
    }

    /// Runs `change` on the state as it is now: everything that is due has happened.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        self.state.with(|state| {
            state.settle();
            change(state)
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
