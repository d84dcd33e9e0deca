//! Tools for caches that are kept for ever: copies between stores, Arrow files, removal by space or age, and what can be
//! saved of a damaged file.
//!
//! ```
//! use docvector_embed::{
//!     EmbedderExt,
//!     cache::Memory,
//!     cache_tools::{ScanSource, StoreTarget, Transfer, census},
//!     provider::Fake,
//! };
//! # fn main() -> docvector_embed::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let (old, new) = (Memory::new(64 << 20), Memory::new(64 << 20));
//! Fake::new(8).cached(old.clone())?.embed_documents(&["one", "two"]).await?;
//!
//! // Each entry is checked on the way. Entries of the new store are skipped, so a copy can be run again.
//! let copied = Transfer::new().run(&mut ScanSource::new(&old), &mut StoreTarget::new(&new)).await?;
//! assert_eq!((copied.copied, copied.damaged), (2, 0));
//! let counted = census(&mut ScanSource::new(&new), &mut |_| {}).await?;
//! assert_eq!((counted.entries, counted.spaces.len()), (2, 1));
//! # Ok(()) }) }
//! ```
//!
//! [`Cached`](crate::wrap::Cached) does not need any of this. The command has each tool: `docvector-embed cache --help`.

#[cfg(feature = "arrow")]
mod arrow;
mod census;
mod prune;
#[cfg(feature = "sqlite")]
mod salvage;
mod source;
mod target;
mod transfer;

#[cfg(feature = "arrow")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "arrow")))]
pub use self::arrow::{ArrowSource, ArrowTarget};
#[cfg(feature = "sqlite")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "sqlite")))]
pub use self::salvage::SqlitePages;
pub use self::{
    census::{Census, SpaceCensus, census},
    prune::{PruneReport, prune},
    source::{EntrySource, ScanSource},
    target::{EntryTarget, StoreTarget, Taken},
    transfer::{Transfer, TransferReport},
};
