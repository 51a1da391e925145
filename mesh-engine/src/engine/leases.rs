//! Leases: how long a node may be out of reach before it is evicted.
//!
//! "I cannot see it" never means "it is dead". A node is evicted when its stream is down, nobody
//! holds its session, and one whole lease has passed since then, since the store was last found to be
//! current and since this process last stood still. A node whose session another coordinator holds
//! stays, unless that one is dead (`others`). Of those who see it so one decides (`office`).

use std::collections::BTreeMap;

use super::Engine;
use super::office::Office;
use super::others::{DEAD, Others};
use crate::record::{Holder, Parting};
use mesh_core::id::NodeId;
use mesh_core::revision::Timestamp;

#[derive(Debug)]
pub(super) struct Leases {
    /// Since when this engine can judge at all.
    pub judging_since: Timestamp,
    pub last_tick: Timestamp,
    /// Nodes that have no session here, since when.
    pub absent: BTreeMap<NodeId, Timestamp>,
    /// How the sessions of nodes ended here, until that is recorded.
    pub partings: BTreeMap<NodeId, Parting>,
    /// Other runs under this coordinator's name that were seen to write, and when last.
    pub twins: BTreeMap<u64, Timestamp>,
    pub others: Others,
    pub office: Office,
}

impl Leases {
    pub fn new(now: Timestamp) -> Self {
        Self {
            judging_since: now,
            last_tick: now,
            absent: BTreeMap::new(),
            partings: BTreeMap::new(),
            twins: BTreeMap::new(),
            others: Others::default(),
            office: Office::default(),
        }
    }

    /// The node has a session here.
    pub fn present(&mut self, node: &NodeId) {
        self.absent.remove(node);
        self.partings.remove(node);
    }

    /// The node has no session here, and something happened to it just now.
    pub fn out_of_sight(&mut self, node: &NodeId, now: Timestamp) {
        self.absent.insert(node.clone(), now);
    }
}

impl Engine {
    pub(super) fn lease_ms(&self) -> u64 {
        u64::try_from(self.config.lease.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn leases_resynchronised(&mut self, now: Timestamp) {
        self.leases.judging_since = now;
        let nodes = self.registry.nodes.keys().cloned();
        let absent = nodes.filter(|node| self.sessions.of_node(node).is_none());
        self.leases.absent = absent.map(|node| (node, now)).collect();
        self.others_resynchronised(now);
        self.leases.office.resynchronised(now);
    }

    pub(super) fn leases_lost(&mut self, now: Timestamp) {
        self.others_lost(now);
    }

    /// Whether a holder is this very coordinator process.
    pub(super) fn is_mine(&self, holder: &Holder) -> bool {
        holder.coordinator == self.config.name && holder.run == self.config.run
    }

    /// A node's record changed while it has no session here.
    pub(super) fn absent_node_stored(&mut self, node: &NodeId, now: Timestamp) {
        let Some(stored) = self.registry.nodes.get(node) else {
            self.leases.absent.remove(node);
            self.leases.partings.remove(node);
            return;
        };
        let holder = stored.record.holder.clone();
        self.leases.out_of_sight(node, now);
        if let Some(holder) = holder
            && holder.coordinator == self.config.name
        {
            self.run_seen(holder.run, now);
        }
    }

    /// A run under this coordinator's name was seen to write. Older runs of this coordinator are dead, but
    /// what one wrote last may be stored late; one that goes on to write is another process.
    pub(super) fn run_seen(&mut self, run: u64, now: Timestamp) {
        if run == self.config.run || self.leases.twins.insert(run, now).is_some() {
            return;
        }
        self.warn(format!(
            "two coordinators are called {}: give each its own name (coordinator.name); right after a \
             restart it may be but a late write",
            self.config.name
        ));
    }

    /// Whether a node that is out of sight has nobody who holds its session; a holder that has let so
    /// many leases pass is nobody.
    fn is_left_alone(&self, node: &NodeId, absent: Timestamp, leases: u64, now: Timestamp) -> bool {
        let Some(stored) = self.registry.nodes.get(node) else {
            return false;
        };
        match &stored.record.holder {
            None => true,
            // That it is closed is written first.
            Some(holder) if self.is_mine(holder) => false,
            Some(holder) if holder.coordinator == self.config.name => {
                let silent = |seen: &Timestamp| now.millis_since(*seen) > leases * self.lease_ms();
                self.leases.twins.get(&holder.run).is_none_or(silent)
            }
            Some(holder) => self.is_dead(&holder.coordinator, absent, leases, now),
        }
    }

    /// Whether there may soon be a node to evict.
    pub(super) fn is_judge_needed(&self, now: Timestamp) -> bool {
        let mut absent = self.leases.absent.iter();
        absent.any(|(node, since)| self.is_left_alone(node, *since, DEAD - 1, now))
    }

    /// The nodes that are due to be evicted, each with the sequence of its record.
    pub(super) fn nodes_to_evict(&self, now: Timestamp) -> BTreeMap<NodeId, u64> {
        let lease = self.lease_to_wait();
        let over = |since: Timestamp| now.millis_since(since) > lease;
        if !over(self.leases.judging_since) {
            return BTreeMap::new();
        }
        let absent = self.leases.absent.iter();
        let due = absent
            .filter(|(node, since)| over(**since) && self.is_left_alone(node, **since, DEAD, now));
        due.filter_map(|(node, _)| Some((node.clone(), self.registry.nodes.get(node)?.sequence)))
            .collect()
    }

    pub(super) fn tick_leases(&mut self, now: Timestamp) {
        // A process that stood still heard nobody: all leases begin anew.
        if now.millis_since(self.leases.last_tick) > self.lease_ms() / 2 {
            self.leases.judging_since = now;
        }
        self.leases.last_tick = now;
        self.tick_others(now);
        self.tick_office(now);
    }
}
