//! The records as they are stored, for those who compare them: the audit.

use super::Engine;
use super::registry::Stored;
use crate::record::{Key, Record};

impl Engine {
    /// A record and its sequence; `None`: there is no such record, or it can't be read.
    #[must_use]
    pub fn record(&self, key: &Key) -> Option<(Record, u64)> {
        fn of<T: Clone>(stored: &Stored<T>, record: fn(T) -> Record) -> (Record, u64) {
            (record(stored.record.clone()), stored.sequence)
        }
        let registry = &self.registry;
        match key {
            Key::Node(node) => registry.nodes.get(node).map(|it| of(it, Record::Node)),
            Key::Instance(id) => {
                let slot = registry.instances.get(id);
                slot.map(|it| of(&it.stored, Record::Instance))
            }
            Key::Wish(plugin) => registry.wishes.get(plugin).map(|it| of(it, Record::Wish)),
            Key::Split(plugin) => registry.splits.get(plugin).map(|it| of(it, Record::Split)),
            Key::Rollout(plugin) => {
                let stored = registry.rollouts.get(plugin);
                stored.map(|it| of(it, |record| Record::Rollout(Box::new(record))))
            }
            Key::Coordinator(name) => {
                let stored = registry.coordinators.get(name);
                stored.map(|it| of(it, Record::Coordinator))
            }
            Key::Epoch => registry.epoch.as_ref().map(|it| of(it, Record::Epoch)),
            Key::Lease => registry.lease.as_ref().map(|it| of(it, Record::Lease)),
        }
    }

    /// The keys of all readable records but those of instances and the lease.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let registry = &self.registry;
        let nodes = registry.nodes.keys().cloned().map(Key::Node);
        let wishes = registry.wishes.keys().cloned().map(Key::Wish);
        let splits = registry.splits.keys().cloned().map(Key::Split);
        let rollouts = registry.rollouts.keys().cloned().map(Key::Rollout);
        let coordinators = registry.coordinators.keys().cloned().map(Key::Coordinator);
        let wished = wishes.chain(splits).chain(rollouts);
        nodes.chain(wished).chain(coordinators)
    }
}
