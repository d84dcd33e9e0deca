//! Stores, with the feature `serde`, the parts of a [`TotalsSnapshot`](super::TotalsSnapshot) that need a form of their
//! own.

/// Stores a time as whole nanoseconds.
pub(super) mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

/// Stores counts by kind as a map from the kind's name.
pub(super) mod by_kind {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::ErrorKind;

    pub(in super::super) fn serialize<S: Serializer>(
        counts: &[(ErrorKind, u64)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(counts.iter().map(|(kind, count)| (kind.as_str(), count)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(ErrorKind, u64)>, D::Error> {
        // Ascending by name: the snapshot's search for a kind relies on this order.
        let counts = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let read = |(name, count): (String, u64)| Ok((name.parse().map_err(serde::de::Error::custom)?, count));
        counts.into_iter().map(read).collect()
    }
}
