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
        let (result, _expired) = self.state.with(|state| {
            state.settle();
            let result = change(state);
            (result, state.take_expired())
        });
        result
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::testing::{files::Content, input_file::InputReader};

    #[test]
    fn a_file_that_expires_is_removed_from_the_disk_and_from_memory() {
        let account = Account::new(Settings::default(), None).expect("a folder");
        let left = || account.folder().read_dir().expect("the folder").count();
        let input = Arc::new(InputReader::new(account.settings.clone()).finish());
        let path = NamedTempFile::new_in(account.folder()).expect("a file").into_temp_path();
        let content = Content::Uploaded(Arc::new(path), input.clone());
        let hour = Duration::from_secs(3600);
        account.with(|state| state.add_upload("a.jsonl".to_owned(), content, Some(hour)));
        account.with(|state| state.advance(hour - Duration::from_secs(1)));
        account.with(|state| assert_eq!(state.files().count(), 1));
        assert_eq!((left(), Arc::strong_count(&input)), (1, 2));

        account.with(|state| state.advance(Duration::from_secs(1)));
        assert_eq!((left(), Arc::strong_count(&input)), (0, 1));
        account.with(|state| assert_eq!(state.files().count(), 0));
    }
}
