//! What must hold at every moment, one file for each.

mod converged;
mod evictions;
mod forward;
mod one_holder;
mod rollouts;
mod routes;
mod takeover;

use super::store::Bucket;
use crate::record::LeaseRecord;
use evictions::Evictions;
use forward::Forward;
use one_holder::OneHolder;
use rollouts::Rollouts;
use routes::Routes;
use takeover::Takeover;

#[derive(Default)]
pub struct Invariants {
    one_holder: OneHolder,
    takeover: Takeover,
    evictions: Evictions,
    pub forward: Forward,
    pub routes: Routes,
    pub rollouts: Rollouts,
}

impl Invariants {
    /// The record of the office was stored.
    pub fn stored_lease(
        &mut self,
        before: Option<LeaseRecord>,
        stored: Option<LeaseRecord>,
        now: u64,
    ) -> Result<(), String> {
        let Some(stored) = stored else {
            return Err("the record of the office is gone".to_owned());
        };
        self.one_holder.stored(&stored)?;
        self.takeover.stored(before.as_ref(), &stored, now)
    }

    /// The store is another one. What was told of the office, and is not in it, is forgotten.
    pub fn store_replaced(&mut self, store: &Bucket) {
        self.one_holder = OneHolder::default();
        self.takeover.store_replaced(store.lease().as_ref());
        self.routes.store_replaced(store);
    }

    /// Terms are counted anew.
    pub fn office_deleted(&mut self) {
        self.one_holder = OneHolder::default();
        self.takeover = Takeover::default();
    }

    pub fn evictions(&self) -> u64 {
        self.evictions.counted
    }
}
