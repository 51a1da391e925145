//! Leases: how long a node may be out of reach before it is evicted.
//!
//! "I cannot see it" never means "it is dead". A node is evicted when its stream is down, nobody
//! holds its session, and one whole lease has passed since then, since the store was last found to be
//! current and since this process last stood still. A node whose session another coordinator holds
//! is for that one to judge, unless that one is dead (`others`).

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::others::Others;
use crate::record::{Holder, Key};
use mesh_core::id::NodeId;
use mesh_core::revision::Timestamp;

#[derive(Debug)]
pub(super) struct Leases {
    /// Since when this engine can judge at all.
    pub judging_since: Timestamp,
    last_tick: Timestamp,
    /// Nodes that have no session here, since when.
    pub absent: BTreeMap<NodeId, Timestamp>,
    /// Nodes whose record is being deleted.
    pub evicting: BTreeSet<NodeId>,
    /// Other runs under this coordinator's name that were seen to write.
    twins: BTreeSet<u64>,
    pub others: Others,
}

impl Leases {
    pub fn new(now: Timestamp) -> Self {
        Self {
            judging_since: now,
            last_tick: now,
            absent: BTreeMap::new(),
            evicting: BTreeSet::new(),
            twins: BTreeSet::new(),
            others: Others::default(),
        }
    }

    /// The node has a session here.
    pub fn present(&mut self, node: &NodeId) {
        self.absent.remove(node);
        self.evicting.remove(node);
    }

    /// The node has no session here, and something happened to it just now.
    pub fn out_of_sight(&mut self, node: &NodeId, now: Timestamp) {
        self.absent.insert(node.clone(), now);
        self.evicting.remove(node);
    }
}

impl Engine {
    pub(super) fn lease_ms(&self) -> u64 {
        u64::try_from(self.config.lease.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn leases_resynchronised(&mut self, now: Timestamp) {
        self.leases.judging_since = now;
        self.leases.evicting.clear();
        let nodes = self.registry.nodes.keys().cloned();
        let absent = nodes.filter(|node| self.sessions.of_node(node).is_none());
        self.leases.absent = absent.map(|node| (node, now)).collect();
        self.others_resynchronised(now);
    }

    pub(super) fn leases_lost(&mut self, now: Timestamp) {
        self.leases.evicting.clear();
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
            self.leases.evicting.remove(node);
            return;
        };
        let holder = stored.record.holder.clone();
        self.leases.out_of_sight(node, now);
        // Older runs of this coordinator are dead; one that writes is another process.
        if let Some(holder) = holder
            && holder.coordinator == self.config.name
            && holder.run != self.config.run
            && self.leases.twins.insert(holder.run)
        {
            self.warn(format!(
                "two coordinators are called {}: give each its own name (coordinator.name)",
                holder.coordinator
            ));
        }
    }

    /// Whether the judgement on a node that is out of sight is this coordinator's.
    fn is_mine_to_judge(&self, node: &NodeId, absent: Timestamp, now: Timestamp) -> bool {
        let Some(stored) = self.registry.nodes.get(node) else {
            return false;
        };
        match &stored.record.holder {
            None => true,
            // That it is closed is written first.
            Some(holder) if self.is_mine(holder) => false,
            Some(holder) if holder.coordinator == self.config.name => {
                !self.leases.twins.contains(&holder.run)
            }
            Some(holder) => self.is_dead(&holder.coordinator, absent, now),
        }
    }

    pub(super) fn tick_leases(&mut self, now: Timestamp) {
        let lease = self.lease_ms();
        // A process that stood still heard nobody: all leases begin anew.
        if now.millis_since(self.leases.last_tick) > lease / 2 {
            self.leases.judging_since = now;
        }
        self.leases.last_tick = now;
        self.tick_others(now);
        if !self.is_current() || now.millis_since(self.leases.judging_since) <= lease {
            return;
        }
        let over = |since: &Timestamp| now.millis_since(*since) > lease;
        let absent = self.leases.absent.iter();
        let due =
            absent.filter(|(node, since)| over(since) && self.is_mine_to_judge(node, **since, now));
        let due: Vec<NodeId> = due.map(|(node, _)| node.clone()).collect();
        for node in due {
            if self.leases.evicting.insert(node.clone()) {
                self.warn(format!(
                    "node {node} is evicted: its session is closed and its lease of {} ms has run out",
                    lease
                ));
            }
            self.mark([Key::Node(node)]);
        }
    }
}
