//! Who takes the office decides nothing for one lease.

use crate::record::LeaseRecord;
use crate::tests::sim::world::LEASE;
use mesh_core::id::NodeId;

/// A term, and whose it is.
type Term = (u64, NodeId, u64);

fn term(record: &LeaseRecord) -> Term {
    (record.term, record.holder.clone(), record.run)
}

#[derive(Default)]
pub struct Takeover {
    /// The newest term, and when it began.
    newest: Option<(Term, u64)>,
    /// That of a copy of the store, which may go on.
    copied: Option<(Term, u64)>,
}

impl Takeover {
    /// A copy took the store's place, in which this is the newest term.
    pub fn store_replaced(&mut self, lease: Option<&LeaseRecord>) {
        let known = [self.newest.take(), self.copied.take()];
        let mut known = known.into_iter().flatten();
        // Of an earlier term it is only known that it began before the newest one.
        self.copied = lease.map(|record| {
            let found = known.find(|(known, _)| *known == term(record));
            found.unwrap_or((term(record), 0))
        });
    }

    pub fn stored(
        &mut self,
        before: Option<&LeaseRecord>,
        record: &LeaseRecord,
        now: u64,
    ) -> Result<(), String> {
        let term = term(record);
        let known = [self.newest.take(), self.copied.take()];
        let mut known = known.into_iter().flatten();
        let found = known.find(|(known, _)| *known == term);
        let (_, began) = self.newest.insert(found.unwrap_or((term, now)));
        let known = before.map(|before| &before.evicted);
        let decided = known != Some(&record.evicted) && !record.evicted.is_empty();
        let waited = now - *began;
        // Clocks differ by less than this.
        if decided && waited < LEASE * 98 / 100 {
            return Err(format!(
                "{} decided {waited} ms after its term began",
                record.holder
            ));
        }
        Ok(())
    }
}
