//! The routing table: what every agent and gateway knows of the mesh, as one immutable snapshot.

mod chunks;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::snapshot::Provider;
pub use self::snapshot::{ApplyError, Table};
use crate::hash::Fnv1a;
use crate::id::{Generation, InstanceId, NodeId, PluginName};
use crate::manifest::Manifest;
use crate::revision::{Revision, Timestamp};
use crate::split::Split;
use crate::state::InstanceState;

/// Names one manifest by its content: `name@version#hash`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Arc<str>", into = "Arc<str>")]
pub struct SpecId {
    /// How the text starts. It stands here so that most comparisons, of which a search in a map is made,
    /// need not go to where the text is; the order is the text's.
    start: u128,
    text: Arc<str>,
}

impl From<Arc<str>> for SpecId {
    fn from(text: Arc<str>) -> Self {
        let mut start = [0; size_of::<u128>()];
        for (place, byte) in start.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Self {
            start: u128::from_be_bytes(start),
            text,
        }
    }
}

impl From<SpecId> for Arc<str> {
    fn from(id: SpecId) -> Self {
        id.text
    }
}

impl SpecId {
    /// The id of a manifest: equal manifests have equal ids on every machine.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let mut hash = Fnv1a::default();
        hash.add_json(manifest);
        let (name, version) = (&manifest.name, &manifest.version);
        let text = format!("{name}@{version}#{:016x}", hash.value());
        Self::from(Arc::<str>::from(text))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The plugin that the id names.
    #[must_use]
    pub fn plugin(&self) -> Option<PluginName> {
        PluginName::new(self.text.split_once('@')?.0).ok()
    }
}

impl fmt::Debug for SpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpecId").field(&self.text).finish()
    }
}

impl fmt::Display for SpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// One running plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRoute {
    /// The instance.
    pub instance: InstanceId,
    /// The manifest that it announces.
    pub spec: SpecId,
    /// The node that it runs on.
    pub node: NodeId,
    /// The generation of that node.
    pub generation: Generation,
    /// Where it stands.
    pub state: InstanceState,
    /// Why, for a person.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Calls in flight that its host allows; 0: the router's default.
    pub concurrency: u32,
}

/// One agent-node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoute {
    /// Its name.
    pub node: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// The zone that it is in; may be empty.
    #[serde(default)]
    pub zone: String,
    /// Labels, free form.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version of its software.
    #[serde(default)]
    pub software: String,
}

/// What changes between two revisions; `from: None` is a snapshot of the whole.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TableUpdate {
    /// The revision that the receiver must have.
    pub from: Option<Revision>,
    /// The revision after the update.
    pub to: Revision,
    /// Manifests, new or changed.
    pub specs: Vec<(SpecId, Arc<Manifest>)>,
    /// Instances, new or changed.
    pub instances: Vec<InstanceRoute>,
    /// Nodes, new or changed.
    pub nodes: Vec<NodeRoute>,
    /// Traffic splits, new or changed.
    #[serde(default)]
    pub splits: Vec<Split>,
    /// Manifests that nothing uses any more.
    pub removed_specs: Vec<SpecId>,
    /// Instances that are gone.
    pub removed_instances: Vec<InstanceId>,
    /// Nodes that are gone.
    pub removed_nodes: Vec<NodeId>,
    /// Plugins that have no split any more.
    #[serde(default)]
    pub removed_splits: Vec<PluginName>,
}

impl TableUpdate {
    /// Whether the update changes nothing but the revision.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
            && self.instances.is_empty()
            && self.nodes.is_empty()
            && self.removed_specs.is_empty()
            && self.removed_instances.is_empty()
            && self.removed_nodes.is_empty()
            && self.splits.is_empty()
            && self.removed_splits.is_empty()
    }

    /// This update and the one that continues it, as one.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        Self {
            from: self.from,
            to: next.to,
            specs: later(self.specs, next.specs, &next.removed_specs, |(id, _)| id),
            instances: later(
                self.instances,
                next.instances,
                &next.removed_instances,
                |route| &route.instance,
            ),
            nodes: later(self.nodes, next.nodes, &next.removed_nodes, |node| {
                &node.node
            }),
            splits: later(self.splits, next.splits, &next.removed_splits, |split| {
                &split.plugin
            }),
            removed_specs: union(self.removed_specs, next.removed_specs),
            removed_instances: union(self.removed_instances, next.removed_instances),
            removed_nodes: union(self.removed_nodes, next.removed_nodes),
            removed_splits: union(self.removed_splits, next.removed_splits),
        }
    }
}

/// The newest row of each key that is left. What is put in after it was taken out stays: updates are
/// applied with what is taken out first.
fn later<T, K: Ord>(before: Vec<T>, after: Vec<T>, gone: &[K], key: impl Fn(&T) -> &K) -> Vec<T> {
    let mut rows = before;
    let newer: BTreeSet<&K> = after.iter().map(&key).chain(gone).collect();
    rows.retain(|row| !newer.contains(key(row)));
    rows.extend(after);
    rows
}

fn union<K: Ord>(before: Vec<K>, after: Vec<K>) -> Vec<K> {
    let all: BTreeSet<K> = before.into_iter().chain(after).collect();
    all.into_iter().collect()
}

#[cfg(test)]
pub(crate) mod tests;
