//! Nobody's table goes back, and two tables of one revision are the same.

use std::collections::BTreeMap;

use crate::tests::sim::world::Peer;
use mesh_core::revision::Revision;
use mesh_core::table::{ApplyError, Table};

#[derive(Default)]
pub struct Forward {
    tables: BTreeMap<Revision, Table>,
    applied: BTreeMap<Peer, Revision>,
}

pub fn is_same(one: &Table, other: &Table) -> bool {
    let ids = |table: &Table| {
        table
            .manifests()
            .map(|(id, _)| id.clone())
            .collect::<Vec<_>>()
    };
    one.revision() == other.revision()
        && one.digest() == other.digest()
        && one.instances().eq(other.instances())
        && one.nodes().eq(other.nodes())
        && one.splits().eq(other.splits())
        && ids(one) == ids(other)
}

impl Forward {
    /// A coordinator has published a table. When the store went back, revisions of one epoch may name
    /// two things until the new epoch begins.
    pub fn published(&mut self, table: &Table, went_back: bool) -> Result<(), String> {
        let revision = table.revision();
        let known = self.tables.entry(revision).or_insert_with(|| table.clone());
        if is_same(known, table) || went_back {
            Ok(())
        } else {
            Err(format!("two tables have revision {revision}"))
        }
    }

    /// A follower begins anew, with what it has on disk.
    pub fn started(&mut self, peer: Peer, revision: Revision) {
        self.applied.insert(peer, revision);
    }

    /// A follower has taken an update, or not.
    pub fn applied(
        &mut self,
        peer: Peer,
        before: &Table,
        after: &Result<Table, ApplyError>,
        went_back: bool,
    ) -> Result<(), String> {
        let after = match after {
            Ok(after) => after,
            Err(error) => return Err(format!("{peer:?} was given what it refuses: {error}")),
        };
        let newest = self.applied.entry(peer).or_default();
        // The whole table of the same revision comes only where something else was there.
        let again = after.revision() == before.revision() && after.digest() != before.digest();
        if (after.revision() <= before.revision() && !again) || after.revision() < *newest {
            return Err(format!("the table of {peer:?} did not go forward"));
        }
        *newest = after.revision();
        match self.tables.get(&after.revision()) {
            Some(known) if !is_same(known, after) && !went_back => Err(format!(
                "{peer:?} has something else as revision {}",
                after.revision()
            )),
            Some(_) => Ok(()),
            None => Err(format!(
                "{peer:?} has revision {}, which nobody published",
                after.revision()
            )),
        }
    }
}
