//! Removes entries by what they say of themselves: [`prune`].

use crate::{
    Result,
    cache::{CacheScan, Entry, owned_entries::OwnedEntries},
    stored_vectors::EntryInfo,
};

/// The counts of [`prune`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PruneReport {
    /// Entries that were looked at.
    pub read: u64,
    /// Entries that were removed, or would be.
    pub removed: u64,
    /// The bytes of their values.
    pub removed_bytes: u64,
    /// Entries that do not say their space and day, because they are older than 2026-12.
    pub unstamped: u64,
    /// Damaged entries. They stay: `cache verify --remove` removes them.
    pub damaged: u64,
}

/// Removes the entries for which `goes` returns `true`, or counts them alone if `dry_run` says so.
///
/// ```
/// use docvector_embed::{EmbedderExt, cache::Memory, cache_tools::prune, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Memory::new(64 << 20);
/// let old = Fake::new(8).cached(store.clone())?.embed_documents(&["one", "two"]).await?;
/// Fake::new(16).cached(store.clone())?.embed_documents(&["one"]).await?;
/// // The model of 8 dimensions is not used any more.
/// let space = old.space().id();
/// let report = prune(&store, &mut |info| info.space == Some(space), false, &mut |_| {}).await?;
/// assert_eq!((report.read, report.removed, store.len()), (3, 2, 1));
/// # Ok(()) }) }
/// ```
///
/// # Errors
/// Those of the store. Entries that were removed until then are gone; it can be run again.
pub async fn prune(
    store: &dyn CacheScan,
    goes: &mut (dyn FnMut(&EntryInfo) -> bool + Send + '_),
    dry_run: bool,
    progress: &mut (dyn FnMut(&PruneReport) + Send + '_),
) -> Result<PruneReport> {
    let (mut report, mut place) = (PruneReport::default(), None);
    loop {
        let mut gone = OwnedEntries::default();
        let mut sink = |key, value: &[u8]| {
            report.read += 1;
            match EntryInfo::inspect(&key, value) {
                None => report.damaged += 1,
                Some(info) => {
                    report.unstamped += u64::from(info.space.is_none());
                    if goes(&info) {
                        report.removed += 1;
                        report.removed_bytes += value.len() as u64;
                        gone.push(key, value);
                    }
                }
            }
        };
        place = store.scan(place.as_ref(), &mut sink).await?;
        if !dry_run && !gone.is_empty() {
            store.discard(&gone.iter().collect::<Vec<Entry<'_>>>()).await?;
        }
        progress(&report);
        if place.is_none() {
            return Ok(report);
        }
    }
}
