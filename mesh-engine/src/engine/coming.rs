//! Descriptions that agents announced and that are not stored yet, so that two that arrive together
//! can't close a ring unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::id::InstanceId;
use mesh_core::manifest::Manifest;
use mesh_core::table::SpecId;
use mesh_graph::Graph;

#[derive(Debug, Default)]
pub(super) struct Coming {
    graph: Graph,
    specs: BTreeMap<InstanceId, SpecId>,
    users: BTreeMap<SpecId, BTreeSet<InstanceId>>,
}

impl Coming {
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn expect(&mut self, id: InstanceId, spec: &SpecId, manifest: &Arc<Manifest>) {
        self.arrived(id);
        self.specs.insert(id, spec.clone());
        self.users.entry(spec.clone()).or_default().insert(id);
        self.graph.add(spec.clone(), Arc::clone(manifest));
    }

    /// The instance is stored, or will not come.
    pub fn arrived(&mut self, id: InstanceId) {
        let Some(spec) = self.specs.remove(&id) else {
            return;
        };
        if let Some(users) = self.users.get_mut(&spec) {
            users.remove(&id);
            if users.is_empty() {
                self.users.remove(&spec);
                self.graph.remove(&spec);
            }
        }
    }
}
