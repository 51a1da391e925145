//! What a coordinator hands to those who follow its table, as the coordinator's own feed does.

use mesh_core::revision::Revision;
use mesh_core::table::{Table, TableUpdate};

#[derive(Default)]
pub struct Feed {
    pub table: Table,
    /// Each continues the one before it.
    deltas: Vec<TableUpdate>,
}

impl Feed {
    pub fn publish(&mut self, update: TableUpdate) -> Result<(), String> {
        let from = self.table.revision();
        self.table = self.table.apply(&update).map_err(|it| it.to_string())?;
        if from.epoch == update.to.epoch {
            self.deltas.push(update);
        } else {
            self.deltas.clear();
        }
        Ok(())
    }

    /// What brings a follower on, if there is anything newer.
    pub fn after(&self, have: Option<Revision>) -> Option<TableUpdate> {
        let now = self.table.revision();
        if now == Revision::default() || have.is_some_and(|have| have >= now) {
            return None;
        }
        let delta = have.and_then(|have| {
            let place = self.deltas.binary_search_by_key(&Some(have), |it| it.from);
            self.deltas.get(place.ok()?)
        });
        Some(delta.cloned().unwrap_or_else(|| self.table.to_snapshot()))
    }
}
