//! Revisions: the order of all states of a registry and its table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Orders states: the epoch first, then the sequence. Receivers refuse what is older than what
/// they have.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Revision {
    /// Which life of the registry's bucket: its creation time in milliseconds since 1970.
    pub epoch: u64,
    /// Sequence of the last applied change in the bucket's stream.
    pub sequence: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// A point in time: milliseconds since 1970. The core never reads a clock; it is given these.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
