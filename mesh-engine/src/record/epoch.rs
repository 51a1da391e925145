//! The record that begins a new epoch where the store has gone back.

use mesh_core::revision::Revision;
use serde::{Deserialize, Serialize};

/// Somebody was seen who has a newer table than the store knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch until this record.
    pub before: u64,
    /// The newest revision that was seen, before this record was written.
    pub seen: Revision,
}

impl EpochRecord {
    /// The epoch from this record on, which the store gave this sequence.
    ///
    /// A store that only goes forward gives a greater sequence than all that was seen before: then
    /// who wrote the record had but not heard of everything, and nothing changes. Else the store is an
    /// older copy, and its revisions must become greater than all that were given out.
    #[must_use]
    pub fn epoch(&self, sequence: u64) -> u64 {
        let own = Revision {
            epoch: self.before,
            sequence,
        };
        if self.seen >= own {
            self.seen.epoch.saturating_add(1)
        } else {
            self.before
        }
    }
}
