//! What a coordinator hands to those who follow its table, as the coordinator's own feed does.

use mesh_core::revision::Revision;
use mesh_core::table::{Table, TableUpdate};

/// The table that a follower has.
#[derive(Debug, Clone, Copy)]
pub struct Have {
    pub revision: Revision,
    /// `None`: it comes from this very coordinator.
    pub digest: Option<u64>,
}

impl Have {
    pub fn of(table: &Table) -> Option<Self> {
        let (revision, digest) = (table.revision(), Some(table.digest()));
        (revision != Revision::default()).then_some(Self { revision, digest })
    }

    fn is_the_same(self, digest: u64) -> bool {
        self.digest.is_none_or(|own| own == digest)
    }
}

#[derive(Default)]
pub struct Feed {
    pub table: Table,
    /// Each continues the one before it; with the digest of the table that it continues.
    deltas: Vec<(u64, TableUpdate)>,
}

impl Feed {
    pub fn publish(&mut self, update: TableUpdate) -> Result<(), String> {
        let (from, digest) = (self.table.revision(), self.table.digest());
        self.table = self.table.apply(&update).map_err(|it| it.to_string())?;
        if from.epoch == update.to.epoch {
            self.deltas.push((digest, update));
        } else {
            self.deltas.clear();
        }
        Ok(())
    }

    /// What brings a follower on, if there is anything newer: all changes as one, or the whole table.
    pub fn after(&self, have: Option<Have>) -> Option<TableUpdate> {
        let now = self.table.revision();
        let newest = |have: Have| {
            let same = have.is_the_same(self.table.digest());
            have.revision > now || (have.revision == now && same)
        };
        if now == Revision::default() || have.is_some_and(newest) {
            return None;
        }
        let deltas = have.and_then(|have| {
            let from = |(_, update): &(u64, TableUpdate)| update.from;
            let place = self.deltas.binary_search_by_key(&Some(have.revision), from);
            let deltas = self.deltas.get(place.ok()?..)?;
            deltas
                .first()
                .filter(|(digest, _)| have.is_the_same(*digest))?;
            let updates = deltas.iter().map(|(_, update)| update.clone());
            updates.reduce(TableUpdate::and)
        });
        Some(deltas.unwrap_or_else(|| self.table.to_snapshot()))
    }
}
