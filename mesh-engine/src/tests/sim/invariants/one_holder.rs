//! No two coordinators hold the office at once, and none decides after another has taken it.

use crate::record::LeaseRecord;
use crate::tests::sim::world::World;
use mesh_core::id::NodeId;

#[derive(Default)]
pub struct OneHolder {
    /// The newest term, and whose it is.
    term: u64,
    holder: Option<(NodeId, u64)>,
}

impl OneHolder {
    pub fn stored(&mut self, record: &LeaseRecord) -> Result<(), String> {
        let holder = Some((record.holder.clone(), record.run));
        let late = record.term < self.term || (record.term == self.term && holder != self.holder);
        if late {
            return Err(format!(
                "{} wrote in term {} though term {} has begun",
                record.holder, record.term, self.term
            ));
        }
        (self.term, self.holder) = (record.term, holder);
        Ok(())
    }
}

impl World {
    pub fn look_at_holders(&mut self) {
        let holding = self
            .coordinators
            .iter()
            .filter(|it| it.holds_office(self.now));
        let names: Vec<&str> = holding.map(|it| it.name.as_str()).collect();
        if names.len() > 1 {
            let broken = Err(format!("{} hold the office at once", names.join(" and ")));
            self.check(broken);
        }
    }
}
