//! No call is routed to an instance that is known to be gone.
//!
//! Known is what the store held at the revision of the caller's table. It is counted here record by
//! record, without the engine; the choice is that of the router. What a table says of a bucket that was
//! replaced can't be judged.

use std::collections::BTreeMap;

use crate::record::{Key, Record};
use crate::tests::sim::store::Bucket;
use crate::tests::sim::world::Peer;
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_core::revision::Revision;
use mesh_core::select::{Origin, Signal, Target, Wish, select};
use mesh_core::split::Groups;
use mesh_core::table::Table;

/// What all can call.
const CALLED: [&str; 2] = ["service:base.get", "tool:m"];

#[derive(Default)]
pub struct Routes {
    /// Where each instance runs, by its record.
    places: BTreeMap<InstanceId, (NodeId, Generation)>,
    nodes: BTreeMap<NodeId, Generation>,
    /// Whether each instance is here, from which sequence on.
    here: BTreeMap<InstanceId, Vec<(u64, bool)>>,
    /// The revisions that this bucket has given out so far.
    epoch: u64,
    begun: u64,
    last: u64,
    /// Tables of this epoch and older ones may be of a bucket that was replaced.
    replaced: u64,
    pub counted: u64,
}

impl Routes {
    /// Another bucket, or an older copy: of what is in it, it is not known since when.
    pub fn store_replaced(&mut self, store: &Bucket) {
        *self = Self {
            counted: self.counted,
            replaced: self.epoch.max(self.replaced),
            ..Self::default()
        };
        for key in store.keys() {
            match (store.record(&key), key) {
                (Some(Record::Node(it)), Key::Node(node)) => {
                    self.nodes.insert(node, it.route.generation);
                }
                (Some(Record::Instance(it)), Key::Instance(id)) => {
                    let place = (it.facts.node, it.facts.generation);
                    self.places.insert(id, place);
                }
                _ => {}
            }
        }
    }

    /// A record was written in an epoch.
    pub fn stored(&mut self, key: &Key, record: Option<&Record>, revision: Revision) {
        let Revision { epoch, sequence } = revision;
        if self.epoch != epoch {
            (self.epoch, self.begun) = (epoch, sequence);
        }
        self.last = sequence;
        match (key, record) {
            (Key::Instance(id), Some(Record::Instance(it))) => {
                let place = (it.facts.node.clone(), it.facts.generation);
                self.places.insert(*id, place);
                self.note(*id, sequence);
            }
            (Key::Instance(id), _) => {
                self.places.remove(id);
                self.note(*id, sequence);
            }
            (Key::Node(node), record) => {
                match record {
                    Some(Record::Node(it)) => {
                        self.nodes.insert(node.clone(), it.route.generation);
                    }
                    _ => drop(self.nodes.remove(node)),
                }
                let places = self.places.iter();
                let there = places.filter(|(_, (place, _))| place == node);
                let there: Vec<InstanceId> = there.map(|(id, _)| *id).collect();
                for id in there {
                    self.note(id, sequence);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, id: InstanceId, sequence: u64) {
        let place = self.places.get(&id);
        let here = place.is_some_and(|(node, life)| self.nodes.get(node) == Some(life));
        self.here.entry(id).or_default().push((sequence, here));
    }

    fn is_gone(&self, id: InstanceId, at: Revision) -> bool {
        let judged = at.epoch == self.epoch
            && at.epoch > self.replaced
            && (self.begun..=self.last).contains(&at.sequence);
        let mut told = self.here.get(&id).into_iter().flatten();
        let newest = told.rfind(|(sequence, _)| *sequence <= at.sequence);
        judged && newest.is_some_and(|(_, here)| !here)
    }

    /// Calls by a table.
    pub fn called(&mut self, by: Peer, table: &Table, seed: u64) -> Result<(), String> {
        let node = "elsewhere".parse().expect("a name");
        let groups = Groups::default();
        for capability in CALLED {
            let capability = capability.parse().expect("a capability");
            let wish = Wish {
                target: Target {
                    plugin: None,
                    capability: &capability,
                    requirement: None,
                },
                avoid: &[],
                origin: Origin {
                    node: &node,
                    zone: "",
                    prefer: &[],
                },
                key: None,
                groups: &groups,
                stopping: false,
                seed,
            };
            let Ok(chosen) = select(table, &wish, &|_| Signal::default()) else {
                continue;
            };
            self.counted += 1;
            let at = table.revision();
            if self.is_gone(chosen.instance, at) {
                return Err(format!(
                    "{by:?} calls {}, which is gone by revision {at}",
                    chosen.instance
                ));
            }
            let known = table.node(&chosen.node).map(|node| node.generation);
            if known != Some(chosen.generation) {
                return Err(format!(
                    "{by:?} calls generation {} of {}, and knows of {known:?}",
                    chosen.generation, chosen.node
                ));
            }
        }
        Ok(())
    }
}
