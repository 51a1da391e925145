//! The table itself: applied updates, and the index from capabilities to those who provide them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::chunks::ChunkMap;
use super::{InstanceRoute, NodeRoute, SpecId, TableUpdate};
use crate::capability::{Capability, CapabilityEntry};
use crate::hash::{Fnv1a, spread};
use crate::id::{InstanceId, NodeId, PluginName};
use crate::manifest::Manifest;
use crate::revision::Revision;
use crate::split::{Group, Split};

/// One immutable state of the table. Cloning it and applying a small update to it are cheap, however
/// large it is.
///
/// An instance whose manifest is not in the table is listed, and provides nothing until the manifest
/// comes.
#[derive(Debug, Clone, Default)]
pub struct Table {
    revision: Revision,
    /// The sum of the hashes of all rows.
    digest: u64,
    specs: ChunkMap<SpecId, Arc<Manifest>>,
    instances: ChunkMap<InstanceId, Arc<InstanceRoute>>,
    nodes: ChunkMap<NodeId, Arc<NodeRoute>>,
    plugins: ChunkMap<PluginName, Arc<Vec<InstanceId>>>,
    providers: ChunkMap<Capability, Arc<Providers>>,
    splits: ChunkMap<PluginName, Arc<Split>>,
    /// The test groups of all splits, each once.
    groups: Arc<[Group]>,
}

/// Who provides one capability: the two lists run side by side, by instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Providers {
    ids: Vec<InstanceId>,
    pub rows: Vec<Provider>,
    /// All rows have one manifest, as they nearly always do: then there is no version to choose.
    pub alike: bool,
}

impl Providers {
    fn insert(&mut self, at: usize, instance: InstanceId, row: Provider) {
        let of_all = |first: &Provider| self.alike && Arc::ptr_eq(&first.manifest, &row.manifest);
        self.alike = self.rows.first().is_none_or(of_all);
        self.ids.insert(at, instance);
        self.rows.insert(at, row);
    }

    fn remove(&mut self, at: usize) {
        self.ids.remove(at);
        self.rows.remove(at);
        if !self.alike
            && let Some(first) = self.rows.first()
        {
            let mut rows = self.rows.iter();
            self.alike = rows.all(|row| Arc::ptr_eq(&first.manifest, &row.manifest));
        }
    }
}

/// All that choosing an instance needs, so that a call costs one look-up.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub route: Arc<InstanceRoute>,
    pub manifest: Arc<Manifest>,
    /// The zone of its node; empty while the node is not in the table.
    pub zone: Arc<str>,
    /// Place of the capability in the manifest's list.
    place: usize,
}

impl Provider {
    pub fn entry(&self) -> Option<&CapabilityEntry> {
        self.manifest.capabilities.get(self.place)
    }
}

/// Why an update can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It leads to a state that is older than the one at hand, or to the same by another way.
    #[error("the update leads to revision {given}, but {have} is applied already")]
    Older {
        /// The revision at hand.
        have: Revision,
        /// The revision that the update leads to.
        given: Revision,
    },
    /// Updates between the state at hand and this one are missing: ask for a snapshot.
    #[error("the update continues revision {needs}, but {have} is at hand: ask for a snapshot")]
    Gap {
        /// The revision at hand.
        have: Revision,
        /// The revision that the update continues.
        needs: Revision,
    },
}

impl Table {
    /// The revision that this is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A digest of all rows: tables of one revision that differ in it are not the same. A store that was
    /// replaced by an older copy gives out revisions a second time, and only this tells.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// All instances, by id, in every state.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceRoute> {
        self.instances.values().map(|route| &**route)
    }

    /// How many instances there are.
    #[must_use]
    pub fn instance_count(&self) -> usize {
        self.instances.len()
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, instance: InstanceId) -> Option<&InstanceRoute> {
        self.instances.get(&instance).map(|route| &**route)
    }

    /// All manifests, by id.
    pub fn manifests(&self) -> impl Iterator<Item = (&SpecId, &Arc<Manifest>)> {
        self.specs.iter()
    }

    /// One manifest.
    #[must_use]
    pub fn manifest(&self, spec: &SpecId) -> Option<&Arc<Manifest>> {
        self.specs.get(spec)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRoute> {
        self.nodes.values().map(|node| &**node)
    }

    /// One node.
    #[must_use]
    pub fn node(&self, node: &NodeId) -> Option<&NodeRoute> {
        self.nodes.get(node).map(|node| &**node)
    }

    /// The names of all plugins that have an instance.
    pub fn plugins(&self) -> impl Iterator<Item = &PluginName> {
        self.plugins.iter().map(|(name, _)| name)
    }

    /// The instances of a plugin, of every version, in every state.
    pub fn instances_of(&self, plugin: &PluginName) -> impl Iterator<Item = &InstanceRoute> {
        let ids = self.plugins.get(plugin).map_or(&[][..], |ids| ids);
        ids.iter().filter_map(|id| self.instance(*id))
    }

    /// All capabilities that an instance provides, in their order, with those who provide them.
    pub fn capabilities(&self) -> impl Iterator<Item = (&Capability, &[InstanceId])> {
        self.providers
            .iter()
            .map(|(capability, found)| (capability, found.ids.as_slice()))
    }

    /// The instances that provide a capability, by id, in every state.
    #[must_use]
    pub fn providers(&self, capability: &Capability) -> &[InstanceId] {
        self.providers
            .get(capability)
            .map_or(&[], |found| &found.ids)
    }

    pub(crate) fn providing(&self, capability: &Capability) -> Option<&Providers> {
        self.providers.get(capability).map(|found| &**found)
    }

    /// The traffic split of a plugin.
    #[must_use]
    pub fn split(&self, plugin: &PluginName) -> Option<&Split> {
        self.splits.get(plugin).map(|split| &**split)
    }

    /// All traffic splits, by plugin.
    pub fn splits(&self) -> impl Iterator<Item = &Split> {
        self.splits.values().map(|split| &**split)
    }

    /// The test groups that some split names, each header and value once.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The whole as an update that makes the same table from any older one.
    #[must_use]
    pub fn to_snapshot(&self) -> TableUpdate {
        TableUpdate {
            from: None,
            to: self.revision,
            specs: self
                .specs
                .iter()
                .map(|(id, manifest)| (id.clone(), Arc::clone(manifest)))
                .collect(),
            instances: self.instances().cloned().collect(),
            nodes: self.nodes().cloned().collect(),
            splits: self.splits().cloned().collect(),
            ..TableUpdate::default()
        }
    }

    /// The table after an update; this one stays as it is.
    ///
    /// # Errors
    /// [`ApplyError`] when the update leads back or does not continue this revision.
    pub fn apply(&self, update: &TableUpdate) -> Result<Self, ApplyError> {
        let (have, given) = (self.revision, update.to);
        let older = Err(ApplyError::Older { have, given });
        let mut next = match update.from {
            None if given < have => return older,
            None => Self::default(),
            Some(from) if from == have && given == have && update.is_empty() => {
                return Ok(self.clone());
            }
            Some(_) if given <= have => return older,
            Some(from) if from != have => return Err(ApplyError::Gap { have, needs: from }),
            Some(_) => self.clone(),
        };
        next.revision = given;
        next.change(update);
        Ok(next)
    }

    /// Takes out of the index what changes, changes it, and puts it back into the index.
    fn change(&mut self, update: &TableUpdate) {
        let mut touched: BTreeSet<InstanceId> = update.removed_instances.iter().copied().collect();
        touched.extend(update.instances.iter().map(|route| route.instance));
        let specs = update.specs.iter().map(|(id, _)| id);
        for spec in specs.chain(&update.removed_specs) {
            let Some(plugin) = spec.plugin() else {
                continue;
            };
            let users = self.instances_of(&plugin).filter(|user| user.spec == *spec);
            touched.extend(users.map(|user| user.instance));
        }
        let moved = self.moved_nodes(update);
        if !moved.is_empty() {
            let there = self
                .instances()
                .filter(|route| moved.contains(&&route.node));
            touched.extend(there.map(|route| route.instance));
        }
        for instance in &touched {
            self.leave_index(*instance);
        }
        for spec in &update.removed_specs {
            let gone = self.specs.remove(spec).map(|_| spec);
            self.turn(gone, None);
        }
        for (id, manifest) in &update.specs {
            // An id names one content.
            let before = self.specs.insert(id.clone(), Arc::clone(manifest));
            self.turn(before.map(|_| id), Some(id));
        }
        for instance in &update.removed_instances {
            let gone = self.instances.remove(instance);
            self.turn(gone.as_deref(), None);
        }
        for route in &update.instances {
            let before = self
                .instances
                .insert(route.instance, Arc::new(route.clone()));
            self.turn(before.as_deref(), Some(route));
        }
        for node in &update.removed_nodes {
            let gone = self.nodes.remove(node);
            self.turn(gone.as_deref(), None);
        }
        for node in &update.nodes {
            let before = self.nodes.insert(node.node.clone(), Arc::new(node.clone()));
            self.turn(before.as_deref(), Some(node));
        }
        for instance in touched {
            self.enter_index(instance);
        }
        self.change_splits(update);
    }

    fn change_splits(&mut self, update: &TableUpdate) {
        if update.splits.is_empty() && update.removed_splits.is_empty() {
            return;
        }
        for plugin in &update.removed_splits {
            let gone = self.splits.remove(plugin);
            self.turn(gone.as_deref(), None);
        }
        for split in &update.splits {
            let before = self
                .splits
                .insert(split.plugin.clone(), Arc::new(split.clone()));
            self.turn(before.as_deref(), Some(split));
        }
        let mut groups: Vec<Group> = Vec::new();
        for group in self.splits().flat_map(|split| &split.groups) {
            let is_same =
                |known: &Group| (&known.header, &known.value) == (&group.header, &group.value);
            if !groups.iter().any(is_same) {
                groups.push(group.clone());
            }
        }
        self.groups = groups.into();
    }

    /// One row takes another's place in the digest.
    fn turn<T: Serialize>(&mut self, before: Option<&T>, after: Option<&T>) {
        let hash = |row: &T| {
            let mut hash = Fnv1a::default();
            hash.add_json(row);
            spread(hash.value())
        };
        self.digest = self
            .digest
            .wrapping_sub(before.map_or(0, hash))
            .wrapping_add(after.map_or(0, hash));
    }

    /// The nodes whose zone an update changes.
    fn moved_nodes<'a>(&self, update: &'a TableUpdate) -> Vec<&'a NodeId> {
        let zone = |node| self.node(node).map_or("", |known| &*known.zone);
        let named = update.nodes.iter().map(|node| (&node.node, &*node.zone));
        let gone = update.removed_nodes.iter().map(|node| (node, ""));
        named
            .chain(gone)
            .filter(|(node, now)| zone(node) != *now)
            .map(|(node, _)| node)
            .collect()
    }

    fn leave_index(&mut self, instance: InstanceId) {
        let Some(route) = self.instances.get(&instance).cloned() else {
            return;
        };
        if let Some(plugin) = route.spec.plugin() {
            remove_id(&mut self.plugins, &plugin, instance);
        }
        let Some(manifest) = self.specs.get(&route.spec).cloned() else {
            return;
        };
        for entry in &manifest.capabilities {
            let Some(mut found) = self.providers.get(&entry.capability).cloned() else {
                continue;
            };
            let Ok(at) = found.ids.binary_search(&instance) else {
                continue;
            };
            let lists = Arc::make_mut(&mut found);
            lists.remove(at);
            if lists.ids.is_empty() {
                self.providers.remove(&entry.capability);
            } else {
                self.providers.insert(entry.capability.clone(), found);
            }
        }
    }

    fn enter_index(&mut self, instance: InstanceId) {
        let Some(route) = self.instances.get(&instance).cloned() else {
            return;
        };
        if let Some(plugin) = route.spec.plugin() {
            add_id(&mut self.plugins, plugin, instance);
        }
        let Some(manifest) = self.specs.get(&route.spec).cloned() else {
            return;
        };
        let zone = self.node(&route.node).map_or("", |node| &node.zone);
        let zone: Arc<str> = zone.into();
        for (place, entry) in manifest.capabilities.iter().enumerate() {
            let mut found = self.providers.remove(&entry.capability).unwrap_or_default();
            let lists = Arc::make_mut(&mut found);
            if let Err(at) = lists.ids.binary_search(&instance) {
                let row = Provider {
                    route: Arc::clone(&route),
                    manifest: Arc::clone(&manifest),
                    zone: Arc::clone(&zone),
                    place,
                };
                lists.insert(at, instance, row);
            }
            self.providers.insert(entry.capability.clone(), found);
        }
    }
}

fn add_id<K: Ord + Clone>(index: &mut ChunkMap<K, Arc<Vec<InstanceId>>>, key: K, id: InstanceId) {
    let mut ids = index.remove(&key).unwrap_or_default();
    if let Err(at) = ids.binary_search(&id) {
        Arc::make_mut(&mut ids).insert(at, id);
    }
    index.insert(key, ids);
}

fn remove_id<K: Ord + Clone>(
    index: &mut ChunkMap<K, Arc<Vec<InstanceId>>>,
    key: &K,
    id: InstanceId,
) {
    let Some(mut ids) = index.remove(key) else {
        return;
    };
    if let Ok(at) = ids.binary_search(&id) {
        Arc::make_mut(&mut ids).remove(at);
    }
    if !ids.is_empty() {
        index.insert(key.clone(), ids);
    }
}
