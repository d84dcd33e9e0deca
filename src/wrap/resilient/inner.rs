//! Holds the members that all clones of a [`Resilient`](super::Resilient) share: [`Inner`].

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use super::{hedging::Hedger, member::Member, reference::Reference};
use crate::{Batch, Charges, Limits, Space, observer::Observer, sync::Mutex};

pub(super) struct Inner {
    /// The primary first, then the fall-backs in their order.
    pub(super) members: Vec<Member>,
    /// The distinct spaces of the members, that of the primary first.
    pub(super) spaces: Vec<Space>,
    /// The limits that fit all members.
    pub(super) limits: Limits,
    /// Whether all members have these limits. Then each checks a batch as any other would.
    pub(super) alike: bool,
    /// The latencies of the members that are asked first, and the budget of extra calls.
    pub(super) hedging: Option<Mutex<Hedger>>,
    pub(super) min_cosine: f32,
    /// The vectors of the probe texts that the primary gave when it was first asked.
    pub(super) reference: Mutex<Option<Reference>>,
    /// The cost of verifications that nobody was told of.
    pub(super) unclaimed: Mutex<Charges>,
    /// Hears of proofs that no call has asked for.
    pub(super) observer: Option<Arc<dyn Observer>>,
    /// Whether the log has said that a member gets no calls without a proof.
    pub(super) warned: AtomicBool,
}

impl Inner {
    /// Returns whether a member states the space of the primary.
    pub(super) fn is_comparable(&self, member: &Member) -> bool {
        member.space == self.members[0].space
    }

    /// Returns whether a member may answer a batch: in the wanted space or, without one, in any. A batch with a routing key
    /// belongs to a collection, which lies in the primary's space.
    pub(super) fn may_answer(&self, member: &Member, batch: &Batch<'_>) -> bool {
        match (batch.space(), batch.key()) {
            (Some(wanted), _) => member.space.id() == wanted,
            (None, Some(_)) => self.is_comparable(member),
            (None, None) => true,
        }
    }

    /// Returns whether there are vectors to compare a member with.
    pub(super) fn knows_primary(&self) -> bool {
        self.reference.with(|reference| reference.is_some())
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resilient(")?;
        for (at, member) in self.members.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, member.embedder)?;
        }
        f.write_str(")")
    }
}
