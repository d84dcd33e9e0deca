//! Hands over entries to a transfer: [`EntrySource`], and a store as one.

use async_trait::async_trait;

use crate::{
    Result, SpaceId,
    cache::{CacheScan, ScanPlace, ScanSink},
};

/// Hands over entries, part by part: a store, a file, or a source of your own. See the [module](crate::cache_tools) for an
/// example.
///
/// An entry may come more than once. Entries are not checked by their source: who takes them does that.
#[async_trait]
pub trait EntrySource: Send {
    /// Hands over the next part, of a few megabytes; returns `false` at the end.
    async fn next(&mut self, sink: &mut ScanSink<'_>) -> Result<bool>;

    /// Returns the place behind what was handed over so far, if another source can go on from there later.
    fn place(&self) -> Option<ScanPlace> {
        None
    }

    /// Returns about how many entries there are, if that is known.
    async fn estimated_len(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Returns the noted spaces and the lines about them.
    async fn notes(&mut self) -> Result<Vec<(SpaceId, String)>>;
}

/// All entries of a store: see the [module](crate::cache_tools) for an example.
#[derive(Debug)]
pub struct ScanSource<'s> {
    store: &'s dyn CacheScan,
    place: Option<ScanPlace>,
    is_done: bool,
}

impl<'s> ScanSource<'s> {
    /// Begins with the first entry.
    pub const fn new(store: &'s dyn CacheScan) -> Self {
        Self { store, place: None, is_done: false }
    }

    /// Goes on from a place.
    #[must_use]
    pub fn after(mut self, place: Option<ScanPlace>) -> Self {
        self.place = place;
        self
    }
}

#[async_trait]
impl EntrySource for ScanSource<'_> {
    async fn next(&mut self, sink: &mut ScanSink<'_>) -> Result<bool> {
        if self.is_done {
            return Ok(false);
        }
        // The place stays if this fails, so that it can be tried again.
        match self.store.scan(self.place.as_ref(), sink).await? {
            Some(place) => self.place = Some(place),
            None => self.is_done = true,
        }
        Ok(!self.is_done)
    }

    fn place(&self) -> Option<ScanPlace> {
        self.place.clone()
    }

    async fn estimated_len(&mut self) -> Result<Option<u64>> {
        self.store.estimated_len().await.map(Some)
    }

    async fn notes(&mut self) -> Result<Vec<(SpaceId, String)>> {
        self.store.notes().await
    }
}
