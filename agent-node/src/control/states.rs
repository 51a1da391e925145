//! Tells plugins where their instances stand in the mesh, as far as it changed.

use std::collections::HashMap;

use mesh_core::id::{InstanceId, NodeId};
use mesh_core::state::InstanceState;
use mesh_core::table::Table;

/// What plugins of this node were told.
#[derive(Debug, Default)]
pub(super) struct States {
    told: HashMap<InstanceId, (InstanceState, String)>,
}

impl States {
    /// What is to be told after a change of the table.
    pub(super) fn changes(
        &mut self,
        table: &Table,
        node: &NodeId,
    ) -> Vec<(InstanceId, InstanceState, String)> {
        let mut changes = Vec::new();
        let mut now = HashMap::new();
        for route in table.instances().filter(|route| route.node == *node) {
            let state = (route.state, route.reason.clone());
            if self.told.get(&route.instance) != Some(&state) {
                changes.push((route.instance, route.state, route.reason.clone()));
            }
            now.insert(route.instance, state);
        }
        self.told = now;
        changes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use crate::roster::new_instance;
    use mesh_core::id::Generation;
    use mesh_core::manifest::ManifestDraft;
    use mesh_core::revision::{Revision, Timestamp};
    use mesh_core::table::{InstanceRoute, NodeRoute, SpecId, TableUpdate};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn a_plugin_is_told_its_own_state_once() {
        let draft = ManifestDraft {
            name: "time".to_owned(),
            version: "1.0.0".to_owned(),
            ..ManifestDraft::default()
        };
        let manifest = Arc::new(draft.check().unwrap());
        let spec = SpecId::of(&manifest);
        let (here, there): (NodeId, NodeId) = ("here".parse().unwrap(), "there".parse().unwrap());
        let route = |node: &NodeId, state| InstanceRoute {
            instance: new_instance(),
            spec: spec.clone(),
            node: node.clone(),
            generation: Generation(1),
            state,
            reason: String::new(),
            since: Timestamp(1),
            concurrency: 0,
        };
        let node = |node: &NodeId| NodeRoute {
            node: node.clone(),
            generation: Generation(1),
            zone: String::new(),
            labels: BTreeMap::new(),
            software: String::new(),
        };
        let own = route(&here, InstanceState::Active);
        let table = Table::default()
            .apply(&TableUpdate {
                to: Revision {
                    epoch: 1,
                    sequence: 1,
                },
                specs: vec![(spec.clone(), manifest)],
                instances: vec![own.clone(), route(&there, InstanceState::Active)],
                nodes: vec![node(&here), node(&there)],
                ..TableUpdate::default()
            })
            .unwrap();
        let mut states = States::default();
        let changes = states.changes(&table, &here);
        assert_eq!(
            changes,
            [(own.instance, InstanceState::Active, String::new())]
        );
        assert!(states.changes(&table, &here).is_empty());
        assert!(states.changes(&Table::default(), &here).is_empty());
        assert_eq!(states.changes(&table, &here).len(), 1);
    }
}
