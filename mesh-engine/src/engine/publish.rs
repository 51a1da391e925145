//! Publication: what changed since the last table, as an update with its revision.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::registry::{Changes, Registry};
use super::{Command, Engine, StoreState};
use mesh_core::id::{InstanceId, NodeId};
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::table::{InstanceRoute, NodeRoute, SpecId, TableUpdate};

#[derive(Debug, Default)]
pub(super) struct Publisher {
    published: Revision,
    /// What changed since.
    changed: Changes,
    /// The store was replaced: the table waits for those who were in the old one.
    returning: Option<Returning>,
}

/// Nodes that were known before the store was replaced.
#[derive(Debug)]
struct Returning {
    /// `None`: not known.
    nodes: Option<BTreeSet<NodeId>>,
    /// Then the table is published without them.
    until: Timestamp,
}

impl Publisher {
    pub fn published(&self) -> Revision {
        self.published
    }

    pub fn note(&mut self, changes: &Changes) {
        self.changed.instances.extend(&changes.instances);
        self.changed.specs.extend(changes.specs.iter().cloned());
        self.changed.nodes.extend(changes.nodes.iter().cloned());
        self.changed.splits.extend(changes.splits.iter().cloned());
    }

    /// Notes all in which two registries differ.
    pub fn resynchronised(&mut self, before: &Registry, after: &Registry) {
        fn route<'a>(registry: &'a Registry, id: &InstanceId) -> Option<&'a InstanceRoute> {
            let derived = registry.instances.get(id)?.derived.as_ref();
            derived.map(|derived| &derived.route)
        }
        fn node<'a>(registry: &'a Registry, name: &NodeId) -> Option<&'a NodeRoute> {
            let stored = registry.nodes.get(name);
            stored.map(|stored| &stored.record.route)
        }
        let ids = before.instances.keys().chain(after.instances.keys());
        let changed = ids.filter(|id| route(before, id) != route(after, id));
        self.changed.instances.extend(changed);
        let specs = before.specs.keys().chain(after.specs.keys());
        let here = |registry: &Registry, spec: &SpecId| registry.specs.contains_key(spec);
        let changed = specs.filter(|spec| here(before, spec) != here(after, spec));
        self.changed.specs.extend(changed.cloned());
        let names = before.nodes.keys().chain(after.nodes.keys());
        let changed = names.filter(|name| node(before, name) != node(after, name));
        self.changed.nodes.extend(changed.cloned());
        let splits = before.all_splits().chain(after.all_splits());
        let changed = splits.map(|split| split.plugin);
        let changed = changed.filter(|plugin| before.split(plugin) != after.split(plugin));
        self.changed.splits.extend(changed);
    }
}

impl Engine {
    /// What is stored is another bucket's, or an older copy. That says nothing of those who run: the
    /// table goes on as it is until they have come back, or for one lease. `None`: it is not known who
    /// they are.
    pub(super) fn wait_for_return(&mut self, nodes: Option<BTreeSet<NodeId>>, now: Timestamp) {
        self.publisher.returning = Some(Returning {
            nodes,
            until: Timestamp(now.0.saturating_add(self.lease_ms())),
        });
        self.warn(
            "the registry's store is a new one or an older copy: the nodes' instances are recorded \
             again",
        );
    }

    pub(super) fn is_waiting_for_return(&self) -> bool {
        self.publisher.returning.is_some()
    }

    /// Whether there is nobody to wait for any more.
    fn all_returned(&self, returning: &mut Returning, now: Timestamp) -> bool {
        let returned = |node: &NodeId| {
            let Some(session) = self.sessions.of_node(node) else {
                return false;
            };
            let here = |id| {
                let slot = self.registry.instances.get(id);
                slot.is_some_and(|slot| slot.derived.is_some())
            };
            session.announced && session.reported.keys().all(here)
        };
        if let Some(nodes) = &mut returning.nodes {
            // Who has come back is not looked at again.
            while nodes.first().is_some_and(returned) {
                nodes.pop_first();
            }
        }
        let nodes = returning.nodes.as_ref();
        now >= returning.until || nodes.is_some_and(BTreeSet::is_empty)
    }

    pub(super) fn publish(&mut self, now: Timestamp) {
        let from = self.publisher.published;
        let to = self.latest();
        if self.store == StoreState::Starting || to <= from {
            return;
        }
        if let Some(mut returning) = self.publisher.returning.take()
            && !self.all_returned(&mut returning, now)
        {
            self.publisher.returning = Some(returning);
            return;
        }
        let mut update = TableUpdate {
            from: Some(from),
            to,
            ..TableUpdate::default()
        };
        let changed = std::mem::take(&mut self.publisher.changed);
        for id in changed.instances {
            let slot = self.registry.instances.get(&id);
            match slot.and_then(|slot| slot.derived.as_ref()) {
                Some(derived) => update.instances.push(derived.route.clone()),
                None => update.removed_instances.push(id),
            }
        }
        for spec in changed.specs {
            match self.registry.specs.get(&spec) {
                Some(state) => update.specs.push((spec, Arc::clone(&state.manifest))),
                None => update.removed_specs.push(spec),
            }
        }
        for node in changed.nodes {
            match self.registry.nodes.get(&node) {
                Some(stored) => update.nodes.push(stored.record.route.clone()),
                None => update.removed_nodes.push(node),
            }
        }
        for plugin in changed.splits {
            match self.registry.split(&plugin) {
                Some(split) => update.splits.push(split),
                None => update.removed_splits.push(plugin),
            }
        }
        self.publisher.published = to;
        self.out.push(Command::Publish(update));
    }
}
