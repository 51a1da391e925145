//! Epochs: no table that is new is taken for old.
//!
//! A revision is the bucket's epoch and the store's sequence. A store that is replaced by an older copy
//! stands at sequences that were given out already, for other things; those who have a table from then
//! would refuse what is new, or mix both. So whoever is seen with a newer table than the store knows
//! of leads to a record, whose own sequence shows which of the two it is: the store has gone back, and
//! a new epoch begins with that record, or this coordinator only had not heard of all. Every coordinator
//! finds the same by the same record.

use super::Engine;
use crate::record::{EpochRecord, Key, Record};
use mesh_core::revision::{Revision, Timestamp};

/// How far a table may come from the future, in milliseconds: clocks differ. What is further is no
/// table of this mesh.
const FUTURE_MS: u64 = 24 * 60 * 60 * 1_000;

impl Engine {
    /// The revision of what the store is known to hold.
    #[must_use]
    pub fn latest(&self) -> Revision {
        Revision {
            epoch: self.epoch.max(self.registry.begun()),
            sequence: self.registry.applied,
        }
    }

    /// Somebody has a table.
    pub(super) fn table_seen(&mut self, table: Revision, now: Timestamp) {
        if table <= self.seen {
            return;
        }
        if table.epoch > now.0.saturating_add(FUTURE_MS) {
            self.warn(format!(
                "somebody has a table of revision {table}, which lies in the future: it is ignored"
            ));
            return;
        }
        self.seen = table;
        self.mark([Key::Epoch]);
    }

    /// Whether this coordinator itself has published what the store does not know of.
    pub(super) fn has_gone_back(&self) -> bool {
        self.latest() < self.revision()
    }

    /// The record that is due while somebody has a newer table than the store knows of.
    pub(super) fn epoch_shall(&self) -> Option<Record> {
        let (latest, seen) = (self.latest(), self.seen.max(self.revision()));
        (latest < seen).then_some(Record::Epoch(EpochRecord {
            before: latest.epoch,
            seen,
        }))
    }

    /// The record was stored; the epoch was `before`.
    pub(super) fn epoch_stored(&mut self, before: u64, now: Timestamp) {
        if self.latest().epoch > before && !self.is_waiting_for_return() {
            // Who was recorded since the copy was made is not in it.
            self.wait_for_return(None, now);
        }
    }
}
