//! Breaks promises on purpose, to show that the checks find it: [`Sabotage`], a layer of a stack.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use docvector_embed::{
    BadText, BadTextReason, Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space, Usage, async_trait,
};

use super::{
    checks::Check,
    stacks::{AnyEmbedder, Layer},
};

/// The promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// The rows of two texts change places.
    SwapsRows,
    /// Truncated texts are not marked.
    HidesCuts,
    /// A good text is blamed.
    Blames,
    /// One call in four waits for ever.
    Hangs,
    /// A call takes hours.
    Dawdles,
    /// From the fifth call on, everything fails.
    Breaks,
    Panics,
    /// Payments are not told.
    HidesBills,
    /// Payments are told twice.
    TellsTwice,
    /// Every call is made twice, and both are told.
    AsksTwice,
    /// One call in four fails, whoever could answer it.
    Fails,
    /// What happens further in is told to nobody.
    Mutes,
}

impl Sabotage {
    pub(super) const ALL: [Self; 12] = [
        Self::SwapsRows,
        Self::HidesCuts,
        Self::Blames,
        Self::Hangs,
        Self::Dawdles,
        Self::Breaks,
        Self::Panics,
        Self::HidesBills,
        Self::TellsTwice,
        Self::AsksTwice,
        Self::Fails,
        Self::Mutes,
    ];

    /// Puts itself into a stack, at the place where it does harm.
    pub(super) fn join(self, layers: &mut Vec<Layer>) {
        let observed = layers.iter().position(|layer| matches!(layer, Layer::Observed(_)));
        let at = match self {
            Self::AsksTwice => layers.len(),
            Self::Mutes => observed.map_or(0, |observed| observed + 1),
            _ => 0,
        };
        layers.insert(at, Layer::Sabotage(self));
    }

    /// Returns the check that must find it.
    pub(super) const fn breaks(self) -> Check {
        match self {
            Self::SwapsRows => Check::Rows,
            Self::HidesCuts => Check::Marks,
            Self::Blames => Check::Blame,
            Self::Hangs => Check::Hang,
            Self::Dawdles => Check::Slow,
            Self::Breaks => Check::Stuck,
            Self::Panics => Check::Panic,
            Self::HidesBills => Check::Told,
            Self::TellsTwice => Check::Twice,
            Self::AsksTwice => Check::Paid,
            Self::Fails => Check::Lost,
            Self::Mutes => Check::Heard,
        }
    }
}

/// A wrapper that breaks a promise.
pub(super) struct Saboteur {
    inner: AnyEmbedder,
    sabotage: Sabotage,
    calls: AtomicU32,
}

impl Saboteur {
    pub(super) const fn new(inner: AnyEmbedder, sabotage: Sabotage) -> Self {
        Self { inner, sabotage, calls: AtomicU32::new(0) }
    }
}

/// Returns the same rows with another bill.
fn retold(rows: &Embeddings, usage: Usage) -> Result<Embeddings> {
    let told = Embeddings::new(rows.len(), rows.space(), rows.as_slice().to_vec(), usage)?;
    Ok(told.with_truncated(rows.truncated().to_vec()))
}

impl fmt::Display for Saboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.sabotage, self.inner)
    }
}

impl fmt::Debug for Saboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl Embedder for Saboteur {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.sabotage {
            Sabotage::Hangs if call % 4 == 3 => std::future::pending().await,
            Sabotage::Dawdles => tokio::time::sleep(Duration::from_secs(30_000)).await,
            Sabotage::Breaks if call >= 4 => return Err(Error::new(ErrorKind::Unavailable, "broken")),
            Sabotage::Fails if call % 4 == 3 => return Err(Error::new(ErrorKind::Unavailable, "broken")),
            Sabotage::Panics => std::panic::resume_unwind(Box::new("sabotage")),
            Sabotage::Blames => return Err(Error::invalid_texts(vec![BadText::new(0, BadTextReason::Rejected)])),
            _ => {}
        }
        let batch = match self.sabotage {
            Sabotage::Mutes => Batch::with_options(batch.texts(), batch.options()),
            _ => batch,
        };
        let rows = self.inner.embed(batch).await?;
        let usage = rows.usage();
        let other = match self.sabotage {
            Sabotage::AsksTwice => self.inner.embed(batch).await?.usage(),
            _ => usage,
        };
        Ok(match self.sabotage {
            Sabotage::SwapsRows if rows.len() > 1 => {
                let mut order: Vec<usize> = (0..rows.len()).collect();
                order.swap(0, 1);
                rows.select(&order)
            }
            Sabotage::HidesCuts => rows.with_truncated(Vec::new()),
            Sabotage::HidesBills => retold(&rows, Usage::ZERO)?,
            Sabotage::TellsTwice | Sabotage::AsksTwice => retold(&rows, usage + other)?,
            _ => rows,
        })
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}
