//! Shows a space in few characters, for logs and metrics: [`ShortSpace`].

use std::fmt;

use crate::SpaceId;

/// Displays the first 8 hex digits of a space's id. They tell the few spaces of one program apart.
pub(super) struct ShortSpace(pub(super) SpaceId);

impl fmt::Display for ShortSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_bytes()[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
