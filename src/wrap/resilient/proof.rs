//! Says what is known about a member's vectors: [`Proof`].

use crate::named::named;

/// The reason why a member's vectors count as those of the space that it states, or why they do not.
///
/// Part of a [`MemberStatus`](crate::wrap::MemberStatus).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proof {
    /// It is taken at its word: the primary, a member in a space of its own, or with
    /// [`with_trusted_spaces`](crate::wrap::ResilientBuilder::with_trusted_spaces) any member.
    Stated,
    /// Nothing is known yet. It gets no calls.
    Missing,
    /// Its vectors of the probe texts are those of the primary.
    Verified,
    /// Its vectors of the probe texts are not those of the primary. It gets no calls.
    Refuted,
}

impl Proof {
    /// Returns whether the member may get calls.
    pub(super) const fn is_sound(self) -> bool {
        matches!(self, Self::Stated | Self::Verified)
    }
}

named! {
    /// Returns the name: `stated`, `missing`, `verified` or `refuted`.
    Proof, "the proof of a member",
    Stated = "stated",
    Missing = "missing",
    Verified = "verified",
    Refuted = "refuted",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        crate::named::check_names(Proof::ALL);
    }
}
