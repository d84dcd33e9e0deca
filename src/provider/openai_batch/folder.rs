//! Knows the folder of all jobs, and the names of what lies in it: [`Jobs`], [`JobFolder`].
//!
//! A job that is being planned has a hidden folder, `.ID.new`, and a lock in it. It gets its name when it is complete. A
//! job that is being removed has a hidden folder, too, `.….old`. Those that a process left when it died are removed by
//! the next one that opens the folder of all jobs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    disk::{failed, make_folder, make_folders, private_file, sync_folder},
    job_id::{is_like_ours, is_plain, new_id},
    locked_file::LockedFile,
};
use crate::{Error, ErrorKind, Result, telemetry};

#[cfg(test)]
mod tests;

/// The name of the lock of all jobs in their folder, and of that of a job that is being planned in its own.
const LOCK: &str = "lock";
/// The name of the lock under which hidden folders come and go.
const HIDDEN_LOCK: &str = ".hidden-lock";
/// The name of the file that shows whether files can be made.
const TRIAL: &str = ".trial";
/// The most jobs that an error names.
const NAMED_JOBS: usize = 5;
/// The most characters of an id that an error shows.
const SHOWN_CHARS: usize = 64;

/// The folder of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobFolder {
    path: PathBuf,
}

impl JobFolder {
    /// Returns the path of the journal.
    pub(super) fn journal(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// Returns the path of a shard's input file.
    pub(super) fn shard(&self, number: u32) -> PathBuf {
        self.path.join(format!("shard-{number:05}.jsonl"))
    }

    /// Returns the path of the file that says what the lines of a shard hold.
    pub(super) fn index(&self, number: u32) -> PathBuf {
        self.path.join(format!("shard-{number:05}.index"))
    }

    /// Returns the path of the file with the rows.
    pub(super) fn rows(&self) -> PathBuf {
        self.path.join("rows.f32")
    }

    /// Removes the job with all its files. It is gone as a whole, whenever this process dies. The caller has the
    /// journal open, so that nobody works on the job.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it cannot be removed.
    pub(super) fn remove(&self) -> Result<()> {
        let failed = |error| failed(&self.path, "removed", error);
        let Some(all) = self.path.parent() else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        // A name that nobody has: the folder's own may be one that somebody else gave it.
        let hidden = all.join(old_name(&new_id(SystemTime::now())));
        fs::rename(&self.path, &hidden).and_then(|()| sync_folder(all)).map_err(failed)?;
        remove_all(&hidden).map_err(failed)
    }
}

/// The folder of all jobs.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    path: PathBuf,
}

/// The lock of all jobs, as long as it lives.
#[derive(Debug)]
#[must_use = "it is unlocked when this is dropped"]
pub(super) struct JobsLock {
    _file: LockedFile,
}

impl Jobs {
    /// Opens the folder, which is made if it is missing, and checks that files can be made in it. Removes what jobs left
    /// there that were being planned, or removed, by a process that died.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the folder cannot be made or written, or its disk has no locks.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // The current folder of the process may change.
        let path = std::path::absolute(path).map_err(|error| {
            let message = format!("{path:?} is not the path of a folder: name one for the jobs");
            Error::new(ErrorKind::Config, message).with_source(error)
        })?;
        make_folders(&path).map_err(|error| failed(&path, "made", error))?;
        let trial = path.join(TRIAL);
        let made = private_file().create(true).truncate(false).open(&trial);
        made.map_err(|error| failed(&trial, "made", error))?;
        // Another process may have been faster.
        let _ = fs::remove_file(trial);
        let jobs = Self { path };
        jobs.tidy()?;
        Ok(jobs)
    }

    /// Names the folder, to read what lies in it.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Begins a job, whose folder nobody else sees before it is [published](NewJob::publish).
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if its folder cannot be made.
    pub(super) fn begin(&self) -> Result<NewJob> {
        // A folder that is not yet locked looks like one of a process that died.
        let _hidden = LockedFile::wait(&self.path.join(HIDDEN_LOCK))?;
        loop {
            let id = new_id(SystemTime::now());
            let (place, path) = (self.path.join(&id), self.path.join(new_name(&id)));
            if place.symlink_metadata().is_ok() {
                continue;
            }
            match make_folder(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(|error| failed(&path, "made", error))?,
            }
            let lock = LockedFile::wait(&path.join(LOCK)).inspect_err(|_| {
                let _ = remove_all(&path);
            })?;
            return Ok(NewJob { id, place, folder: JobFolder { path }, is_published: false, _lock: lock });
        }
    }

    /// Returns the folder of a job.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if there is no such job; the error names the newest ones that there are.
    pub(super) fn job(&self, id: &str) -> Result<JobFolder> {
        if is_plain(id) {
            let folder = JobFolder { path: self.path.join(id) };
            let journal = folder.journal();
            match fs::metadata(&journal) {
                Ok(_) => return Ok(folder),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(failed(&journal, "opened", error)),
            }
        }
        let shown: String = id.chars().take(SHOWN_CHARS).collect();
        let ids = self.ids()?;
        let newest: Vec<&str> = ids.iter().rev().take(NAMED_JOBS).map(String::as_str).collect();
        let known = match (newest.as_slice(), ids.len() - newest.len()) {
            ([], _) => "it has none".to_owned(),
            (newest, 0) => format!("it has {}", newest.join(", ")),
            (newest, more) => format!("it has {}, and {more} older ones", newest.join(", ")),
        };
        let message = format!("there is no job {shown:?} in {}: {known}", self.path.display());
        Err(Error::new(ErrorKind::Config, message))
    }

    /// Returns the ids of all jobs, oldest first.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the folder cannot be read.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let mut ids = self.names()?;
        ids.retain(|id| is_plain(id) && JobFolder { path: self.path.join(id) }.journal().is_file());
        ids.sort_unstable();
        Ok(ids)
    }

    /// Locks all jobs, for a process that looks for one and begins one if there is none. This blocks the thread until no
    /// other process has the lock. [`begin`](Self::begin) does not need it, and can be called under it.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the lock's file cannot be made or locked.
    pub(super) fn lock(&self) -> Result<JobsLock> {
        Ok(JobsLock { _file: LockedFile::wait(&self.path.join(LOCK))? })
    }

    /// Returns all names in the folder that are text.
    fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| failed(&self.path, "read", error))?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Removes the hidden folders of processes that died. One that cannot be removed does no harm, and stays.
    fn tidy(&self) -> Result<()> {
        let mut removed = Vec::new();
        {
            let _hidden = LockedFile::wait(&self.path.join(HIDDEN_LOCK))?;
            for name in self.names()? {
                let path = self.path.join(&name);
                if is_hidden(&name, ".old") {
                    removed.push(path);
                } else if is_hidden(&name, ".new") && !is_being_planned(&path) {
                    // Large files take a while: others need not wait for it.
                    let old = self.path.join(old_name(&new_id(SystemTime::now())));
                    if fs::rename(&path, &old).is_ok() {
                        removed.push(old);
                    }
                }
            }
        }
        for path in removed {
            if let Err(error) = remove_all(&path) {
                let path = path.display();
                tracing::warn!({ telemetry::FILE } = %path, { telemetry::ERROR } = %error, "an old job stays on the disk");
            }
        }
        Ok(())
    }
}

/// A job that is being planned. Dropping it removes it.
#[derive(Debug)]
pub(super) struct NewJob {
    id: String,
    /// The path that it gets when it is published.
    place: PathBuf,
    folder: JobFolder,
    is_published: bool,
    _lock: LockedFile,
}

impl NewJob {
    /// Returns the id that the job has, and keeps.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the folder to plan the job in. It is another one when the job is published.
    pub(super) fn folder(&self) -> &JobFolder {
        &self.folder
    }

    /// Gives the folder its name, after which all processes see the job. Files that are open stay open. The name is on
    /// the disk when this returns; the files must be before it is called.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if that cannot be done; then the job is removed.
    pub(super) fn publish(mut self) -> Result<JobFolder> {
        let (from, to) = (&self.folder.path, &self.place);
        sync_folder(from).and_then(|()| fs::rename(from, to)).map_err(|error| failed(to, "made", error))?;
        if let Err(error) = to.parent().map_or(Ok(()), sync_folder) {
            // Nobody else can have seen it for long. If this fails, too, the job stays, and nobody has begun it.
            let _ = fs::rename(to, from);
            return Err(failed(to, "made", error));
        }
        self.is_published = true;
        // It must be there until the folder has its name: without it, the folder looks like one of a process that died.
        let _ = fs::remove_file(to.join(LOCK));
        Ok(JobFolder { path: to.clone() })
    }
}

impl Drop for NewJob {
    fn drop(&mut self) {
        if !self.is_published {
            // The rest is removed when the folder of all jobs is opened the next time.
            let _ = remove_all(&self.folder.path);
        }
    }
}

fn new_name(id: &str) -> String {
    format!(".{id}.new")
}

fn old_name(id: &str) -> String {
    format!(".{id}.old")
}

/// Returns whether a name is one of ours for a hidden folder. Those of others are not removed.
fn is_hidden(name: &str, end: &str) -> bool {
    name.strip_prefix('.').and_then(|name| name.strip_suffix(end)).is_some_and(is_like_ours)
}

/// Returns whether a process is planning the job of a hidden folder, as far as this process may know.
fn is_being_planned(folder: &Path) -> bool {
    let path = folder.join(LOCK);
    match private_file().open(&path) {
        Err(error) => !is_absent(&error),
        Ok(file) => !matches!(LockedFile::try_new(file, &path), Ok(Some(_))),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// Removes a folder, also if another process removes it at the same time.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
