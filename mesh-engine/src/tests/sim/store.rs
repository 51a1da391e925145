//! The bucket, as it is at its leader: a log with compare-and-set and history 1.

use std::collections::BTreeMap;

use crate::engine::WriteError;
use crate::record::{Holder, Key, LeaseRecord, NodeRecord, Record, RolloutRecord};
use mesh_core::id::NodeId;
use mesh_core::revision::Revision;

/// One change.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    pub value: Option<Vec<u8>>,
    pub sequence: u64,
    pub at: u64,
}

#[derive(Debug, Default)]
pub struct Bucket {
    pub epoch: u64,
    pub up: bool,
    pub log: Vec<Entry>,
    /// The sequence of each key's newest change; 0 when that is a deletion.
    newest: BTreeMap<String, u64>,
    /// Who holds the sessions of the nodes.
    holders: BTreeMap<NodeId, Holder>,
}

impl Bucket {
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            up: true,
            ..Self::default()
        }
    }

    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }

    /// Writes if the key's sequence is the expected one; `None`: whatever it is.
    pub fn write(
        &mut self,
        key: &Key,
        value: Option<Vec<u8>>,
        expected: Option<u64>,
        at: u64,
    ) -> Result<&Entry, WriteError> {
        let text = key.to_string();
        let current = self.newest.get(&text).copied().unwrap_or(0);
        if expected.is_some_and(|expected| expected != current) {
            return Err(WriteError::Conflict);
        }
        let sequence = self.last() + 1;
        self.newest
            .insert(text.clone(), if value.is_some() { sequence } else { 0 });
        self.log.push(Entry {
            key: text,
            value,
            sequence,
            at,
        });
        if let Key::Node(node) = key {
            self.note_holder(node);
        }
        Ok(self.log.last().expect("just pushed"))
    }

    /// What a snapshot tells that was taken at a sequence: the newest of each key, in order.
    pub fn snapshot(&self, at: u64) -> Vec<Entry> {
        let mut newest: BTreeMap<&str, &Entry> = BTreeMap::new();
        for entry in self.log.iter().filter(|entry| entry.sequence <= at) {
            newest.insert(&entry.key, entry);
        }
        let mut found: Vec<Entry> = newest.into_values().cloned().collect();
        found.sort_by_key(|entry| entry.sequence);
        found
    }

    /// A copy that was made at an earlier sequence takes its place.
    pub fn go_back(&mut self, to: u64) {
        self.log.retain(|entry| entry.sequence <= to);
        self.newest.clear();
        for entry in &self.log {
            let sequence = entry.value.as_ref().map_or(0, |_| entry.sequence);
            self.newest.insert(entry.key.clone(), sequence);
        }
        let nodes: Vec<NodeId> = self
            .newest
            .keys()
            .filter_map(|key| key.strip_prefix("node.")?.parse().ok())
            .collect();
        for node in nodes {
            self.note_holder(&node);
        }
    }

    /// What its newest change is called.
    pub fn revision(&self) -> Revision {
        let begun = self.newest.get(&Key::Epoch.to_string());
        let begun = begun.and_then(|sequence| match self.record(&Key::Epoch)? {
            Record::Epoch(record) => Some(record.epoch(*sequence)),
            _ => None,
        });
        Revision {
            epoch: self.epoch.max(begun.unwrap_or(0)),
            sequence: self.last(),
        }
    }

    /// The keys that have a value.
    pub fn keys(&self) -> Vec<Key> {
        let here = self.newest.iter().filter(|(_, sequence)| **sequence > 0);
        here.filter_map(|(key, _)| key.parse().ok()).collect()
    }

    pub fn record(&self, key: &Key) -> Option<Record> {
        let sequence = self.newest.get(&key.to_string()).filter(|it| **it > 0)?;
        let entry = self.log.get(usize::try_from(*sequence - 1).ok()?)?;
        Record::decode(key, entry.value.as_ref()?).ok()
    }

    /// The rollout of a key, and when it was stored.
    pub fn rollout(&self, key: &Key) -> Option<(Box<RolloutRecord>, u64)> {
        let sequence = self.newest.get(&key.to_string())?;
        let at = self
            .log
            .get(usize::try_from(*sequence).ok()?.checked_sub(1)?)?
            .at;
        match self.record(key)? {
            Record::Rollout(record) => Some((record, at)),
            _ => None,
        }
    }

    fn note_holder(&mut self, node: &NodeId) {
        match self.record(&Key::Node(node.clone())) {
            Some(Record::Node(NodeRecord {
                holder: Some(holder),
                ..
            })) => drop(self.holders.insert(node.clone(), holder)),
            _ => drop(self.holders.remove(node)),
        }
    }

    pub fn holder(&self, node: &NodeId) -> Option<&Holder> {
        self.holders.get(node)
    }

    pub fn lease(&self) -> Option<LeaseRecord> {
        match self.record(&Key::Lease)? {
            Record::Lease(record) => Some(record),
            _ => None,
        }
    }
}
