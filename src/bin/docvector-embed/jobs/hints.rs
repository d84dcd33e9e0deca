//! Says which command goes on: [`Hints`].

use crate::cli::jobs::JobsArgs;

/// The commands that messages advise, as they would have to be written.
#[derive(Clone, Debug)]
pub(crate) struct Hints {
    /// `--jobs`, if it was given.
    jobs: String,
    /// `--base-url`, if the job is at another server.
    server: String,
    /// Whether the command is `embed`, which goes on if it is started again.
    is_embed: bool,
}

impl Hints {
    /// Returns the hints of the commands of `batch`.
    pub(crate) fn of_batch(jobs: &JobsArgs) -> Self {
        Self { jobs: jobs.as_option(), server: String::new(), is_embed: false }
    }

    /// Returns the hints of `embed`.
    pub(crate) fn of_embed(jobs: &JobsArgs) -> Self {
        Self { jobs: jobs.as_option(), server: String::new(), is_embed: true }
    }

    /// Adds the server that a job was submitted to: it is not in the job. A URL with a password is left out.
    pub(crate) fn at(mut self, base_url: Option<&str>) -> Self {
        if let Some(url) = base_url.filter(|url| !url.contains('@')) {
            self.server = format!(" --base-url {url}");
        }
        self
    }

    /// Names what goes on with a job.
    pub(crate) fn go_on(&self, id: &str) -> String {
        if self.is_embed { "the same command".to_owned() } else { self.command("wait", id) }
    }

    /// Names the command that lists the jobs.
    pub(crate) fn list(&self) -> String {
        format!("`docvector-embed batch list{}`", self.jobs)
    }

    /// Names a command of `batch` for a job.
    pub(crate) fn command(&self, command: &str, id: &str) -> String {
        let server = if command == "remove" { "" } else { &self.server };
        format!("`docvector-embed batch {command} {id}{}{server}`", self.jobs)
    }
}
