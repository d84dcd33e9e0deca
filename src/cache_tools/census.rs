//! Counts entries by space: [`census`].

use std::collections::{BTreeMap, BTreeSet};

use super::EntrySource;
use crate::{Result, SpaceId, stored_vectors::EntryInfo};

/// The entries of one space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceCensus {
    /// The line that was noted about the space.
    pub about: Option<String>,
    /// The number of entries.
    pub entries: u64,
    /// The bytes of their values.
    pub bytes: u64,
    /// How many of them have components of 16 bits.
    pub halves: u64,
    /// How many of them are of truncated texts.
    pub truncated: u64,
    /// The widths of the vectors.
    pub dimensions: BTreeSet<usize>,
    /// The first and the last day on which one was written, as days since 1970-01-01 UTC.
    pub days: Option<(u32, u32)>,
}

/// The entries of a store or a file, counted: see the [module](crate::cache_tools) for an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// The number of sound entries.
    pub entries: u64,
    /// The bytes of their values.
    pub bytes: u64,
    /// The number of damaged entries.
    pub damaged: u64,
    /// The entries by space. Old entries do not say their space; they are under `None`.
    pub spaces: BTreeMap<Option<SpaceId>, SpaceCensus>,
}

/// Reads all entries, and counts them by space. An entry that comes twice counts twice, as a server that grows meanwhile
/// may hand it over.
///
/// # Errors
/// Those of the source.
pub async fn census(
    source: &mut (dyn EntrySource + '_),
    progress: &mut (dyn FnMut(&Census) + Send + '_),
) -> Result<Census> {
    let mut census = Census::default();
    for (space, about) in source.notes().await? {
        census.spaces.entry(Some(space)).or_default().about = Some(about);
    }
    let mut goes_on = true;
    while goes_on {
        let mut sink = |key, value: &[u8]| census.add(EntryInfo::inspect(&key, value), value.len() as u64);
        goes_on = source.next(&mut sink).await?;
        progress(&census);
    }
    Ok(census)
}

impl Census {
    fn add(&mut self, info: Option<EntryInfo>, bytes: u64) {
        let Some(info) = info else {
            self.damaged += 1;
            return;
        };
        self.entries += 1;
        self.bytes += bytes;
        let space = self.spaces.entry(info.space).or_default();
        space.entries += 1;
        space.bytes += bytes;
        space.halves += u64::from(info.half_precision);
        space.truncated += u64::from(info.truncated);
        space.dimensions.insert(info.dimensions);
        if let Some(day) = info.day {
            let (first, last) = space.days.unwrap_or((day, day));
            space.days = Some((first.min(day), last.max(day)));
        }
    }
}
