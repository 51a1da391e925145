//! Who takes part: agent-nodes and coordinators as operators are shown them, with what is known and
//! since when.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use crate::record::{Holder, NodeRecord, Parting};
use mesh_core::id::NodeId;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::table::NodeRoute;

/// Leases without a renewal after which a coordinator counts as silent; after three it is dead.
const SILENT: u64 = 2;

/// How a node is in touch with the coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStanding {
    /// It has a session with one of them.
    Connected,
    /// It took leave.
    Left,
    /// Its connection broke while it was heard: its process has ended, most likely.
    Broken,
    /// It fell silent: its machine is down, cut off, or stands still.
    Silent,
    /// It looks for a coordinator, or nobody knows how its session ended.
    Between,
    /// The coordinator that has its session has fallen silent itself.
    Unknown,
}

/// One agent-node as this coordinator sees it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The node.
    pub route: NodeRoute,
    /// Its session is open, here.
    pub connected: bool,
    /// How it is in touch with any coordinator.
    pub standing: NodeStanding,
    /// The coordinator that has its session.
    pub coordinator: Option<NodeId>,
    /// Since when that is so.
    pub since: Timestamp,
    /// What is known of it and what follows, for a person; empty where all is well.
    pub note: String,
    /// How many instances it has.
    pub instances: usize,
    /// The revision of the table that it has acknowledged.
    pub acknowledged: Option<Revision>,
}

/// One coordinator as this one sees it.
#[derive(Debug, Clone)]
pub struct CoordinatorView {
    /// Its name.
    pub name: NodeId,
    /// It is the one that answers.
    pub here: bool,
    /// When it was started, where that is known.
    pub started: Option<Timestamp>,
    /// When it was heard of last by the store, by this coordinator's clock; of this one: now.
    pub heard: Option<Timestamp>,
    /// It has let two leases pass without a sign.
    pub silent: bool,
    /// Nodes whose session it has.
    pub nodes: usize,
    /// It is the one that may evict nodes: since when, and in which term.
    pub office: Option<(Timestamp, u64)>,
}

impl Engine {
    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let nodes = self.registry.nodes.values();
        nodes
            .map(|stored| self.node_view(&stored.record, stored.at))
            .collect()
    }

    fn node_view(&self, record: &NodeRecord, stored: Timestamp) -> NodeView {
        let route = &record.route;
        let session = self.sessions.of_node(&route.node);
        let members = self.registry.by_node.get(&route.node);
        let mut view = NodeView {
            connected: session.is_some(),
            standing: NodeStanding::Connected,
            coordinator: None,
            since: session.map_or(stored, |session| session.opened),
            note: String::new(),
            instances: members.map_or(0, BTreeSet::len),
            acknowledged: session.and_then(|session| session.acknowledged),
            route: route.clone(),
        };
        if session.is_some() {
            view.coordinator = Some(self.config.name.clone());
            return view;
        }
        let lease = self.lease_ms() / 1_000;
        let goes = format!("its plugins are taken out of the table after {lease} s without it");
        // One that is closed here, which the store may not know of yet.
        let holder = record.holder.as_ref().filter(|it| !self.is_mine(it));
        let parting = self.leases.partings.get(&route.node).copied();
        if let Some(since) = self
            .leases
            .absent
            .get(&route.node)
            .filter(|_| parting.is_some())
        {
            view.since = *since;
        }
        (view.standing, view.note) = match (holder, parting.or(record.parting)) {
            (Some(holder), _) => {
                view.coordinator = Some(holder.coordinator.clone());
                self.held_elsewhere(holder)
            }
            (None, Some(Parting::Left)) => (NodeStanding::Left, format!("it took leave; {goes}")),
            (None, Some(Parting::Broken)) => (
                NodeStanding::Broken,
                format!("its connection broke, so its process has ended or was cut off; {goes}"),
            ),
            (None, Some(Parting::Silent)) => (
                NodeStanding::Silent,
                format!(
                    "it fell silent: its machine is down, cut off or stands still, and its plugins may \
                     run; {goes}"
                ),
            ),
            (None, Some(Parting::SentOn) | None) => (
                NodeStanding::Between,
                format!("its coordinator ended its session, and it has not come back; {goes}"),
            ),
        };
        view
    }

    /// A node whose session another coordinator has, or an earlier run of this one.
    fn held_elsewhere(&self, holder: &Holder) -> (NodeStanding, String) {
        let name = &holder.coordinator;
        if *name == self.config.name {
            let text =
                format!("coordinator {name} was started anew, and the node has not come back");
            return (NodeStanding::Between, text);
        }
        if !self.is_silent(name) {
            return (NodeStanding::Connected, String::new());
        }
        let text = format!(
            "coordinator {name} has its session and has fallen silent: nobody knows of the node until \
             it joins another one"
        );
        (NodeStanding::Unknown, text)
    }

    fn is_silent(&self, coordinator: &NodeId) -> bool {
        let heard = self.leases.others.renewed.get(coordinator);
        let silent = |at: &Timestamp| {
            self.leases.last_tick.millis_since(*at) > SILENT.saturating_mul(self.lease_ms())
        };
        heard.is_some_and(silent)
    }

    /// The coordinators that have made themselves known, by name, and this one. They do so while nodes
    /// have sessions with more than one of them.
    #[must_use]
    pub fn coordinators(&self) -> Vec<CoordinatorView> {
        let own = &self.config.name;
        let mut nodes: BTreeMap<&NodeId, usize> = BTreeMap::new();
        let holders = self.registry.nodes.values();
        for holder in holders.filter_map(|stored| stored.record.holder.as_ref()) {
            *nodes.entry(&holder.coordinator).or_default() += 1;
        }
        let known = self.registry.coordinators.keys();
        let names: BTreeSet<&NodeId> = known.chain(nodes.keys().copied()).chain([own]).collect();
        let office = self.office();
        let view = |name: &NodeId| {
            let here = name == own;
            let record = self.registry.coordinators.get(name);
            let run = if here {
                Some(self.config.run)
            } else {
                record.map(|stored| stored.record.run)
            };
            let heard = self.leases.others.renewed.get(name).copied();
            CoordinatorView {
                name: name.clone(),
                here,
                started: run.map(Timestamp),
                heard: if here {
                    Some(self.leases.last_tick)
                } else {
                    heard
                },
                silent: !here && self.is_silent(name),
                nodes: nodes.get(name).copied().unwrap_or_default(),
                office: office
                    .filter(|record| record.holder == *name && Some(record.run) == run)
                    .map(|record| (record.since, record.term)),
            }
        };
        names.into_iter().map(view).collect()
    }
}
