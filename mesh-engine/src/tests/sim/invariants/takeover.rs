//! Who takes the office decides nothing for one lease.

use crate::record::LeaseRecord;
use crate::tests::sim::world::LEASE;

#[derive(Default)]
pub struct Takeover {
    term: u64,
    began: u64,
}

impl Takeover {
    pub fn stored(
        &mut self,
        before: Option<&LeaseRecord>,
        record: &LeaseRecord,
        now: u64,
    ) -> Result<(), String> {
        if record.term != self.term {
            (self.term, self.began) = (record.term, now);
        }
        let known = before.map(|before| &before.evicted);
        let decided = known != Some(&record.evicted) && !record.evicted.is_empty();
        let waited = now - self.began;
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
