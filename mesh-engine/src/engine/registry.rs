//! What the store holds, and what follows from it: who may run, where everybody stands.
//!
//! A pure function of the stored records. It is kept up to date record by record, and only those are
//! judged anew who can be affected: the changed one and, when it came, went or began or ceased to be
//! ready, all that need it directly or through others. It knows no sessions and no time.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::derive::{Derived, Hold};
use crate::record::{
    CoordinatorRecord, EpochRecord, InstanceRecord, Key, LeaseRecord, NodeRecord, Record,
    RecordError, RolloutRecord, SplitRecord, Wish, WishRecord,
};
use mesh_core::id::{Generation, InstanceId, NodeId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;
use mesh_core::state::InstanceState;
use mesh_core::table::SpecId;
use mesh_graph::{Graph, label};

/// A record with its place in the store.
#[derive(Debug, Clone)]
pub(super) struct Stored<T> {
    pub record: T,
    pub sequence: u64,
    /// When it was stored, by the store's clock.
    pub at: Timestamp,
}

impl<T> Stored<T> {
    fn of(record: T, (sequence, at): (u64, Timestamp)) -> Self {
        Self {
            record,
            sequence,
            at,
        }
    }
}

/// One instance: what is stored and what follows. `derived` is `None` while its node is not here in
/// the same generation; then nobody is told of it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub stored: Stored<InstanceRecord>,
    pub spec: SpecId,
    pub derived: Option<Derived>,
}

/// What dependents want to know of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summary {
    /// Sequence of the first record of its oldest instance.
    first: u64,
    /// One of its instances could take calls, were its needs met.
    ready: bool,
}

/// One description that instances here announce.
#[derive(Debug, Clone)]
pub(super) struct SpecState {
    pub manifest: Arc<Manifest>,
    pub instances: BTreeSet<InstanceId>,
    summary: Option<Summary>,
    /// One of its instances is Active.
    pub active: bool,
    /// All needs that block are met by active ones.
    pub met: bool,
    /// Which are not, for a person.
    pub unmet: String,
    /// It is the latest of a ring: the way around, for a person.
    pub ring: Option<String>,
}

/// What changed for those who see the table.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    pub instances: BTreeSet<InstanceId>,
    pub specs: BTreeSet<SpecId>,
    pub nodes: BTreeSet<NodeId>,
    /// Plugins whose calls are shared out otherwise.
    pub splits: BTreeSet<PluginName>,
}

/// What must be judged anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Work {
    specs: BTreeSet<SpecId>,
    instances: BTreeSet<InstanceId>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    /// Sequence of the last change that was applied.
    pub applied: u64,
    pub nodes: BTreeMap<NodeId, Stored<NodeRecord>>,
    pub instances: BTreeMap<InstanceId, Slot>,
    pub wishes: BTreeMap<PluginName, Stored<WishRecord>>,
    pub splits: BTreeMap<PluginName, Stored<SplitRecord>>,
    pub rollouts: BTreeMap<PluginName, Stored<RolloutRecord>>,
    pub coordinators: BTreeMap<NodeId, Stored<CoordinatorRecord>>,
    pub epoch: Option<Stored<EpochRecord>>,
    pub lease: Option<Stored<LeaseRecord>>,
    pub by_node: BTreeMap<NodeId, BTreeSet<InstanceId>>,
    pub specs: BTreeMap<SpecId, SpecState>,
    pub graph: Graph,
    /// How many instances stand where.
    pub states: BTreeMap<InstanceState, usize>,
    /// Records that can't be read.
    pub unreadable: BTreeMap<Key, Unreadable>,
    /// Plugins that are to be unloaded.
    unloaded: BTreeSet<PluginName>,
    /// While all is read from the start, nobody is judged: once is enough, when all are here.
    deferred: Option<Work>,
    /// How often an instance or a description was judged.
    #[cfg(test)]
    pub judged: usize,
}

/// A record that can't be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unreadable {
    pub sequence: u64,
    /// A newer coordinator wrote it: it must not be overwritten.
    pub newer: bool,
}

impl Registry {
    /// An empty one, of a store that stands at this sequence. What it is filled with is judged by
    /// [`Registry::resolve`].
    pub fn at(applied: u64) -> Self {
        Self {
            applied,
            deferred: Some(Work::default()),
            ..Self::default()
        }
    }

    /// Applies one change as it came from the store.
    ///
    /// # Errors
    /// [`RecordError`] when it can't be read; then it counts as a record that is not there.
    pub fn apply_stored(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        stored: (u64, Timestamp),
        changes: &mut Changes,
    ) -> Result<Key, RecordError> {
        let sequence = stored.0;
        self.applied = self.applied.max(sequence);
        let key: Key = key.parse()?;
        self.unreadable.remove(&key);
        let decoded = value.map(|bytes| Record::decode(&key, bytes)).transpose();
        let (record, error) = match decoded {
            Ok(record) => (record, None),
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = &error {
            let newer = matches!(error, RecordError::Newer { .. });
            self.unreadable
                .insert(key.clone(), Unreadable { sequence, newer });
        }
        self.apply(&key, record, stored, changes);
        error.map_or(Ok(key), Err)
    }

    /// The epoch that was begun in this bucket; 0: none but the bucket's own.
    pub fn begun(&self) -> u64 {
        let epoch = |stored: &Stored<EpochRecord>| stored.record.epoch(stored.sequence);
        self.epoch.as_ref().map_or(0, epoch)
    }

    /// The sequence that a key has in the store; 0: there is no such key.
    pub fn sequence_of(&self, key: &Key) -> u64 {
        let stored = match key {
            Key::Node(node) => self.nodes.get(node).map(|stored| stored.sequence),
            Key::Instance(id) => self.instances.get(id).map(|slot| slot.stored.sequence),
            Key::Wish(plugin) => self.wishes.get(plugin).map(|stored| stored.sequence),
            Key::Split(plugin) => self.splits.get(plugin).map(|stored| stored.sequence),
            Key::Rollout(plugin) => self.rollouts.get(plugin).map(|stored| stored.sequence),
            Key::Coordinator(name) => self.coordinators.get(name).map(|stored| stored.sequence),
            Key::Epoch => self.epoch.as_ref().map(|stored| stored.sequence),
            Key::Lease => self.lease.as_ref().map(|stored| stored.sequence),
        };
        let unreadable = || self.unreadable.get(key).map(|it| it.sequence);
        stored.or_else(unreadable).unwrap_or(0)
    }

    /// Applies one change. `None`: the record is gone, or can't be read.
    pub fn apply(
        &mut self,
        key: &Key,
        value: Option<Record>,
        stored: (u64, Timestamp),
        changes: &mut Changes,
    ) {
        self.applied = self.applied.max(stored.0);
        let mut work = Work::default();
        match (key, value) {
            (Key::Node(node), value) => {
                let record = match value {
                    Some(Record::Node(record)) => Some(Stored::of(record, stored)),
                    _ => None,
                };
                self.apply_node(node, record, &mut work, changes);
            }
            (Key::Instance(id), value) => {
                let record = match value {
                    Some(Record::Instance(record)) => Some(Stored::of(record, stored)),
                    _ => None,
                };
                self.apply_instance(*id, record, &mut work, changes);
            }
            (Key::Wish(plugin), value) => {
                self.wishes.remove(plugin);
                self.unloaded.remove(plugin);
                if let Some(Record::Wish(record)) = value {
                    if record.wish == Wish::Unloaded {
                        self.unloaded.insert(plugin.clone());
                    }
                    self.wishes
                        .insert(plugin.clone(), Stored::of(record, stored));
                }
                self.touch_plugin(plugin, &mut work);
            }
            (Key::Split(plugin), value) => {
                let before = self.shares(plugin);
                self.splits.remove(plugin);
                if let Some(Record::Split(record)) = value {
                    self.splits
                        .insert(plugin.clone(), Stored::of(record, stored));
                }
                self.shares_changed(plugin, &before, &mut work, changes);
            }
            (Key::Rollout(plugin), value) => {
                let before = self.shares(plugin);
                self.rollouts.remove(plugin);
                if let Some(Record::Rollout(record)) = value {
                    self.rollouts
                        .insert(plugin.clone(), Stored::of(*record, stored));
                }
                self.shares_changed(plugin, &before, &mut work, changes);
            }
            // Nobody's state follows from it.
            (Key::Coordinator(name), value) => {
                self.coordinators.remove(name);
                if let Some(Record::Coordinator(record)) = value {
                    self.coordinators
                        .insert(name.clone(), Stored::of(record, stored));
                }
                return;
            }
            (Key::Epoch, value) => {
                self.epoch = match value {
                    Some(Record::Epoch(record)) => Some(Stored::of(record, stored)),
                    _ => None,
                };
                return;
            }
            (Key::Lease, value) => {
                self.lease = match value {
                    Some(Record::Lease(record)) => Some(Stored::of(record, stored)),
                    _ => None,
                };
                return;
            }
        }
        match &mut self.deferred {
            Some(deferred) => {
                deferred.specs.extend(work.specs);
                deferred.instances.extend(work.instances);
            }
            None => self.judge(work, changes),
        }
    }

    /// Judges all that was read from the start.
    pub fn resolve(&mut self) {
        if let Some(work) = self.deferred.take() {
            self.judge(work, &mut Changes::default());
        }
    }

    pub fn generation(&self, node: &NodeId) -> Option<Generation> {
        self.nodes.get(node).map(|it| it.record.route.generation)
    }

    fn apply_node(
        &mut self,
        node: &NodeId,
        record: Option<Stored<NodeRecord>>,
        work: &mut Work,
        changes: &mut Changes,
    ) {
        let before = self.nodes.get(node).map(|stored| &stored.record.route);
        let after = record.as_ref().map(|stored| &stored.record.route);
        let same_life = before.map(|route| route.generation) == after.map(|route| route.generation);
        if before != after {
            changes.nodes.insert(node.clone());
        }
        let members = match self.by_node.get(node) {
            Some(members) if !same_life => members.clone(),
            _ => BTreeSet::new(),
        };
        for id in &members {
            self.leave(*id, work);
        }
        match record {
            Some(record) => drop(self.nodes.insert(node.clone(), record)),
            None => drop(self.nodes.remove(node)),
        }
        for id in &members {
            self.enter(*id, work, changes);
        }
    }

    fn apply_instance(
        &mut self,
        id: InstanceId,
        record: Option<Stored<InstanceRecord>>,
        work: &mut Work,
        changes: &mut Changes,
    ) {
        self.leave(id, work);
        let before = self.instances.remove(&id);
        if let Some(before) = &before {
            let node = &before.stored.record.facts.node;
            if let Some(members) = self.by_node.get_mut(node) {
                members.remove(&id);
                if members.is_empty() {
                    self.by_node.remove(node);
                }
            }
        }
        let before = before.and_then(|before| before.derived);
        let Some(stored) = record else {
            if let Some(before) = before {
                self.count(before.route.state, None);
                changes.instances.insert(id);
            }
            return;
        };
        let node = stored.record.facts.node.clone();
        self.by_node.entry(node).or_default().insert(id);
        let slot = Slot {
            spec: SpecId::of(&stored.record.manifest),
            stored,
            derived: before,
        };
        self.instances.insert(id, slot);
        self.enter(id, work, changes);
    }

    /// Takes an instance out of the count of its description.
    fn leave(&mut self, id: InstanceId, work: &mut Work) {
        let Some(slot) = self.instances.get(&id) else {
            return;
        };
        let state = self.specs.get_mut(&slot.spec);
        if state.is_some_and(|state| state.instances.remove(&id)) {
            work.specs.insert(slot.spec.clone());
            work.instances.insert(id);
        }
    }

    /// Counts an instance for its description when its node is here in the same generation.
    fn enter(&mut self, id: InstanceId, work: &mut Work, changes: &mut Changes) {
        work.instances.insert(id);
        let Some(slot) = self.instances.get(&id) else {
            return;
        };
        let facts = &slot.stored.record.facts;
        if self.generation(&facts.node) != Some(facts.generation) {
            return;
        }
        let (spec, manifest) = (slot.spec.clone(), Arc::clone(&slot.stored.record.manifest));
        let state = self.specs.entry(spec.clone()).or_insert_with(|| {
            self.graph.add(spec.clone(), Arc::clone(&manifest));
            changes.specs.insert(spec.clone());
            SpecState {
                manifest,
                instances: BTreeSet::new(),
                summary: None,
                active: false,
                met: false,
                unmet: String::new(),
                ring: None,
            }
        });
        state.instances.insert(id);
        if let Some(slot) = self.instances.get_mut(&id) {
            // Many instances, one manifest in memory.
            slot.stored.record.manifest = Arc::clone(&state.manifest);
        }
        work.specs.insert(spec);
    }

    pub(super) fn touch_plugin(&self, plugin: &PluginName, work: &mut Work) {
        for spec in self.graph.specs_of(plugin) {
            let state = self.specs.get(spec);
            work.instances
                .extend(state.into_iter().flat_map(|state| &state.instances));
            work.specs.insert(spec.clone());
        }
    }

    /// What operators want of a plugin.
    pub fn wish(&self, plugin: &PluginName) -> Option<Wish> {
        self.wishes.get(plugin).map(|stored| stored.record.wish)
    }

    /// Whether operators keep a plugin from taking calls. What is to be unloaded goes on until those
    /// who need it, and were told to stop before it, have stopped.
    pub fn hold(&self, plugin: &PluginName) -> Hold<'_> {
        let Some(stored) = self.wishes.get(plugin) else {
            return Hold::None;
        };
        match stored.record.wish {
            Wish::Enabled => Hold::None,
            Wish::Disabled => Hold::Disabled(&stored.record),
            Wish::Unloaded => {
                let awaited = self.stopping_before(plugin, stored.sequence);
                if awaited.is_empty() {
                    Hold::Unloading(&stored.record)
                } else {
                    Hold::Waiting(awaited)
                }
            }
        }
    }

    /// Those who need a plugin, are to be unloaded before it and are still here, as `name@version`.
    fn stopping_before(&self, plugin: &PluginName, sequence: u64) -> BTreeSet<String> {
        let is_here = |spec: &&SpecId| {
            let state = self.specs.get(*spec);
            state.is_some_and(|state| !state.instances.is_empty())
        };
        let stops_before = |other: &PluginName| {
            let wish = self.wishes.get(other);
            let wish = wish.filter(|wish| wish.record.wish == Wish::Unloaded);
            wish.is_some_and(|wish| wish.sequence < sequence)
        };
        let specs = self.graph.specs_of(plugin).filter(is_here);
        let users = specs.flat_map(|spec| self.graph.dependents(spec, true));
        let users = users.filter(|user| is_here(&user));
        users
            .filter_map(|user| self.graph.manifest(&user))
            .filter(|manifest| stops_before(&manifest.name))
            .map(|manifest| label(manifest))
            .collect()
    }
}

impl Slot {
    /// Sequence of its first record.
    pub fn admitted(&self) -> u64 {
        self.stored.record.admitted.unwrap_or(self.stored.sequence)
    }
}
