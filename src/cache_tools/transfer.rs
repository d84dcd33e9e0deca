//! Copies entries from a source to a target, and checks each on the way: [`Transfer`].

use std::fmt;

use super::{EntrySource, EntryTarget};
use crate::{
    Result,
    cache::{Entry, Key, owned_entries::OwnedEntries},
    stored_vectors::EntryInfo,
};

/// The counts of a [`Transfer`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TransferReport {
    /// Entries that the source had, each time that it handed them over.
    pub read: u64,
    /// Entries that are new in the target.
    pub copied: u64,
    /// Entries whose keys the target had already.
    pub present: u64,
    /// Entries that the filter left out.
    pub left_out: u64,
    /// Entries that are damaged, and were left out.
    pub damaged: u64,
}

type Filter<'f> = dyn FnMut(&EntryInfo) -> bool + Send + 'f;
type Progress<'f> = dyn FnMut(&TransferReport) + Send + 'f;
type Damaged<'f> = dyn FnMut(Key) + Send + 'f;

/// A copy of entries from one place to another: see the [module](crate::cache_tools) for an example.
///
/// # Semantics
/// Entries are read part by part, so memory does not grow with the number of entries. Each is checked as
/// [`Cached`](crate::wrap::Cached) checks it; damaged ones are left out and named. Sound ones are copied byte for byte.
/// The first value of a key stays: what the target has already is not replaced.
///
/// # Errors
/// Those of the source and the target. Entries that were copied until then stay, and the same transfer can be run again.
///
/// # Cancellation
/// A dropped transfer leaves the target with whole entries, and can be run again.
#[derive(Default)]
pub struct Transfer<'f> {
    filter: Option<Box<Filter<'f>>>,
    progress: Option<Box<Progress<'f>>>,
    damaged: Option<Box<Damaged<'f>>>,
}

impl<'f> Transfer<'f> {
    /// Makes a transfer of all sound entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies only the entries for which this returns `true`.
    #[must_use]
    pub fn with_filter(mut self, filter: impl FnMut(&EntryInfo) -> bool + Send + 'f) -> Self {
        self.filter = Some(Box::new(filter));
        self
    }

    /// Calls this after each part.
    #[must_use]
    pub fn with_progress(mut self, progress: impl FnMut(&TransferReport) + Send + 'f) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Calls this with the key of each damaged entry.
    #[must_use]
    pub fn with_damaged(mut self, damaged: impl FnMut(Key) + Send + 'f) -> Self {
        self.damaged = Some(Box::new(damaged));
        self
    }

    /// Copies everything.
    ///
    /// # Errors
    /// As described under [errors](Self#errors).
    pub async fn run(
        mut self,
        source: &mut (dyn EntrySource + '_),
        target: &mut (dyn EntryTarget + '_),
    ) -> Result<TransferReport> {
        let mut report = TransferReport::default();
        target.note(&source.notes().await?).await?;
        let mut goes_on = true;
        while goes_on {
            let mut part = OwnedEntries::default();
            let mut sink = |key: Key, value: &[u8]| self.sort(&mut report, &mut part, key, value);
            goes_on = source.next(&mut sink).await?;
            let place = source.place().filter(|_| goes_on);
            let entries: Vec<Entry<'_>> = part.iter().collect();
            if !entries.is_empty() {
                let taken = target.take(&entries, place.as_ref()).await?;
                report.copied += taken.copied;
                report.present += taken.present;
            }
            if let Some(progress) = &mut self.progress {
                progress(&report);
            }
        }
        target.finish().await?;
        Ok(report)
    }

    /// Takes an entry into the part, or leaves it out.
    fn sort(&mut self, report: &mut TransferReport, part: &mut OwnedEntries, key: Key, value: &[u8]) {
        report.read += 1;
        match EntryInfo::inspect(&key, value) {
            None => {
                report.damaged += 1;
                if let Some(damaged) = &mut self.damaged {
                    damaged(key);
                }
            }
            Some(info) if self.filter.as_mut().is_some_and(|keeps| !keeps(&info)) => report.left_out += 1,
            Some(_) => part.push(key, value),
        }
    }
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("has_filter", &self.filter.is_some()).finish_non_exhaustive()
    }
}
