//! Other coordinators: whether the one that holds a node's session still lives.
//!
//! While there are several, each renews a record about once per lease. A coordinator is dead when no
//! renewal of it was seen for three leases of this engine's clock. That counts only while this engine
//! sees its own renewals come back, which shows that it hears the store. One that has lost the store
//! can't renew: it sends its agents to the others before they may take it for dead.

use std::collections::BTreeMap;

use super::{Engine, StoreState};
use crate::record::{CoordinatorRecord, Holder, Key};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::NodeId;
use mesh_core::revision::Timestamp;

/// Leases without a renewal after which a coordinator is dead.
pub(super) const DEAD: u64 = 3;

/// What is known of coordinators, by this engine's clock.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// When the record of each of the others was seen last to be written.
    pub renewed: BTreeMap<NodeId, Timestamp>,
    /// When this coordinator's own was, and its number.
    own: Option<(u64, Timestamp)>,
    /// Since when the store is lost, where there are others who can take the agents.
    leaving: Option<Timestamp>,
}

impl Engine {
    /// A coordinator's record changed.
    pub(super) fn coordinator_stored(&mut self, name: &NodeId, now: Timestamp) {
        let stored = self.registry.coordinators.get(name);
        let others = &mut self.leases.others;
        if *name == self.config.name {
            // What another process of this name writes over it is not answered before its time.
            let own = stored.filter(|stored| stored.record.run == self.config.run);
            if let Some(renewals) = own.map(|stored| stored.record.renewals) {
                // What is told again was not written again.
                let known = others.own.filter(|(number, _)| *number == renewals);
                others.own = Some(known.unwrap_or((renewals, now)));
            }
        } else if stored.is_some() {
            others.renewed.insert(name.clone(), now);
        }
    }

    /// The record of this coordinator's name changed: another run may have written it.
    pub(super) fn twin_stored(&mut self, name: &NodeId, now: Timestamp) {
        let stored = self.registry.coordinators.get(name);
        if let Some(stored) = stored.filter(|_| *name == self.config.name) {
            self.run_seen(stored.record.run, now);
        }
    }

    /// The store was told from the start: nobody is dead yet.
    pub(super) fn others_resynchronised(&mut self, now: Timestamp) {
        self.leases.others = Others {
            own: self.leases.others.own,
            ..Others::default()
        };
        let names: Vec<NodeId> = self.registry.coordinators.keys().cloned().collect();
        for name in names {
            self.coordinator_stored(&name, now);
        }
    }

    pub(super) fn others_lost(&mut self, now: Timestamp) {
        self.leases.others.leaving = self.has_others().then_some(now);
    }

    /// Whether another coordinator was ever here. Where this one has a record, there was; and others may
    /// judge it by that record, even those of which it does not know yet.
    fn has_others(&self) -> bool {
        let own = &self.config.name;
        let held = |holder: &Holder| holder.coordinator != *own;
        let mut nodes = self.registry.nodes.values();
        !self.registry.coordinators.is_empty()
            || !self.leases.twins.is_empty()
            || nodes.any(|node| node.record.holder.as_ref().is_some_and(held))
    }

    /// What this coordinator's record shall be, when that is due.
    pub(super) fn renewal(&self, name: &NodeId, now: Timestamp) -> Option<CoordinatorRecord> {
        let own = self.leases.others.own;
        let fresh = own.is_some_and(|(_, own)| now.millis_since(own) < self.lease_ms());
        if *name != self.config.name || fresh || !self.has_others() {
            return None;
        }
        let stored = self.registry.coordinators.get(name);
        Some(CoordinatorRecord {
            run: self.config.run,
            renewals: stored.map_or(0, |stored| stored.record.renewals) + 1,
            lease_ms: self.lease_ms(),
        })
    }

    /// Renews what is due; sends agents on from where nothing can be renewed.
    pub(super) fn tick_others(&mut self, now: Timestamp) {
        let own = self.config.name.clone();
        match self.store {
            StoreState::Current => {
                if self.renewal(&own, now).is_some() {
                    self.mark([Key::Coordinator(own)]);
                }
                if self.has_others() {
                    // Writes that don't arrive are as bad as a lost store.
                    self.end_sessions(&unrecorded(), !self.is_mute(now), now);
                }
            }
            StoreState::Starting => {}
            StoreState::Lost => {
                let since = self.leases.others.leaving;
                let patience = self.lease_ms() / 2;
                if since.is_some_and(|since| now.millis_since(since) > patience) {
                    self.end_sessions(&lost(), false, now);
                } else if since.is_some() {
                    // Others see nobody hold these, and wait for no more than one lease.
                    self.end_sessions(&lost(), true, now);
                }
            }
        }
    }

    /// Whether its own renewals have failed for so long that others will soon take it for dead.
    fn is_mute(&self, now: Timestamp) -> bool {
        let lease = self.lease_ms();
        let own = self.leases.others.own;
        now.millis_since(self.leases.judging_since) > lease / 4
            && own.is_some_and(|(_, own)| now.millis_since(own) > 2 * lease)
    }

    /// Whether the holder of a node that is out of sight since `absent` has let so many leases pass.
    pub(super) fn is_dead(
        &self,
        holder: &NodeId,
        absent: Timestamp,
        leases: u64,
        now: Timestamp,
    ) -> bool {
        let Some(record) = self.registry.coordinators.get(holder) else {
            // It knows of no others, and would keep its agents without the store.
            return false;
        };
        let (others, lease) = (&self.leases.others, self.lease_ms());
        // Leases are the same everywhere, but for a while after they were changed.
        let longest = lease.max(record.record.lease_ms);
        let silent = |since: Timestamp| now.millis_since(since) > longest.saturating_mul(leases);
        let hears = |(_, own): (u64, Timestamp)| now.millis_since(own) <= 2 * lease;
        let renewed = others.renewed.get(holder);
        others.own.is_some_and(hears)
            && silent(self.leases.judging_since)
            && silent(absent)
            && renewed.is_some_and(|at| silent(*at))
    }
}

fn unrecorded() -> MeshError {
    MeshError::new(
        ErrorCode::Disconnected,
        "this coordinator can read the registry's store in NATS, but what it writes does not get there: join \
         another one",
    )
}

fn lost() -> MeshError {
    MeshError::new(
        ErrorCode::Disconnected,
        "this coordinator has lost the registry's store in NATS for half a lease: join another one",
    )
}
