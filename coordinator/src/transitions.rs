//! What a change of the table means for a person: which instance went from where to where, and why.

use mesh_core::id::{InstanceId, NodeId};
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId, Table};

/// One instance came, went, or stands elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) plugin: String,
    pub(crate) version: String,
    pub(crate) instance: InstanceId,
    pub(crate) node: NodeId,
    pub(crate) from: Option<InstanceState>,
    pub(crate) to: Option<InstanceState>,
    pub(crate) reason: String,
}

/// What happened to those of `changed`.
pub(crate) fn between(before: &Table, after: &Table, changed: &[InstanceId]) -> Vec<Transition> {
    let changed = changed.iter();
    changed
        .filter_map(|instance| transition(before, after, *instance))
        .collect()
}

/// Logs them.
pub(crate) fn log(transitions: &[Transition]) {
    for transition in transitions {
        tracing::info!(
            plugin = transition.plugin,
            version = transition.version,
            instance = %transition.instance,
            node = %transition.node,
            from = transition.from.map_or("none", InstanceState::as_str),
            to = transition.to.map_or("gone", InstanceState::as_str),
            reason = transition.reason,
            "an instance changed its state"
        );
    }
}

fn transition(before: &Table, after: &Table, instance: InstanceId) -> Option<Transition> {
    let (was, is) = (before.instance(instance), after.instance(instance));
    let state = |route: Option<&InstanceRoute>| route.map(|route| route.state);
    if state(was) == state(is) {
        return None;
    }
    let route = is.or(was)?;
    let described = |spec: &SpecId| after.manifest(spec).or_else(|| before.manifest(spec));
    let (plugin, version) = described(&route.spec).map_or_else(
        || (route.spec.to_string(), String::new()),
        |manifest| (manifest.name.to_string(), manifest.version.to_string()),
    );
    let reason = match is {
        Some(route) => route.reason.clone(),
        None if after.node(&route.node).is_none() => "its node is gone".to_owned(),
        None => "it ended, or its agent no longer knows it".to_owned(),
    };
    Some(Transition {
        plugin,
        version,
        instance,
        node: route.node.clone(),
        from: state(was),
        to: state(is),
        reason,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use std::sync::Arc;

    use mesh_core::id::Generation;
    use mesh_core::revision::{Revision, Timestamp};
    use mesh_core::table::TableUpdate;
    use mesh_proto::{common, convert::draft};

    fn id() -> InstanceId {
        "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
    }

    /// A table in which the one instance stands so.
    fn table(state: Option<(InstanceState, &str)>) -> Table {
        let manifest = draft(common::Manifest {
            name: "time".into(),
            version: "1.0.0".into(),
            ..common::Manifest::default()
        });
        let manifest = Arc::new(manifest.check().unwrap());
        let spec = SpecId::of(&manifest);
        let mut update = TableUpdate {
            to: Revision {
                epoch: 1,
                sequence: 1,
            },
            ..TableUpdate::default()
        };
        if let Some((state, reason)) = state {
            update.specs.push((spec.clone(), manifest));
            update.instances.push(InstanceRoute {
                instance: id(),
                spec,
                node: "a".parse().unwrap(),
                generation: Generation(1),
                state,
                reason: reason.to_owned(),
                since: Timestamp::default(),
                concurrency: 0,
            });
        }
        Table::default().apply(&update).unwrap()
    }

    #[test]
    fn each_change_of_a_state_is_told_with_plugin_instance_node_both_states_and_the_reason() {
        let none = table(None);
        let blocked = table(Some((InstanceState::Blocked, "it needs b")));
        let active = table(Some((InstanceState::Active, "it takes calls")));
        for (before, after, from, to, reason) in [
            (
                &none,
                &blocked,
                None,
                Some(InstanceState::Blocked),
                "it needs b",
            ),
            (
                &blocked,
                &active,
                Some(InstanceState::Blocked),
                Some(InstanceState::Active),
                "it takes calls",
            ),
            (
                &active,
                &none,
                Some(InstanceState::Active),
                None,
                "its node is gone",
            ),
        ] {
            let told = transition(before, after, id()).unwrap();
            let expected = Transition {
                plugin: "time".to_owned(),
                version: "1.0.0".to_owned(),
                instance: id(),
                node: "a".parse().unwrap(),
                from,
                to,
                reason: reason.to_owned(),
            };
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn another_reason_for_the_same_state_is_no_change() {
        let before = table(Some((InstanceState::Blocked, "it needs b")));
        let after = table(Some((InstanceState::Blocked, "it needs c")));
        assert_eq!(transition(&before, &after, id()), None);
    }
}
