//! The routing table: revisions, routes and updates.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::id::Generation;
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::split::{Group, Split};
use mesh_core::state::{InstanceState, Phase};
use mesh_core::table::{InstanceRoute, NodeRoute, SpecId, Table, TableUpdate};

use super::{WireError, each, parsed, required};
use crate::control;

impl From<Revision> for control::Revision {
    fn from(own: Revision) -> Self {
        Self {
            epoch: own.epoch,
            sequence: own.sequence,
        }
    }
}

impl From<control::Revision> for Revision {
    fn from(wire: control::Revision) -> Self {
        Self {
            epoch: wire.epoch,
            sequence: wire.sequence,
        }
    }
}

/// Pairs each domain value with its wire value.
macro_rules! enum_pairs {
    ($own:ident, $wire:ident, $what:literal: $($variant:ident),+) => {
        impl From<$own> for control::$wire {
            fn from(own: $own) -> Self {
                match own { $($own::$variant => Self::$variant,)+ }
            }
        }

        impl TryFrom<control::$wire> for $own {
            type Error = WireError;
            fn try_from(wire: control::$wire) -> Result<Self, WireError> {
                match wire {
                    $(control::$wire::$variant => Ok(Self::$variant),)+
                    control::$wire::Unspecified => Err(WireError::new($what, "is not given")),
                }
            }
        }
    };
}

enum_pairs!(InstanceState, InstanceState, "state":
    Discovered, Loaded, Initialized, Active, Blocked, Degraded, Draining, Unloaded, Failed);
enum_pairs!(Phase, InstancePhase, "phase":
    Starting, Loaded, Ready, Draining, Failed, Unhealthy);

/// Reads the state of a wire enum's number.
///
/// # Errors
/// [`WireError`] when the number has no meaning here.
pub fn instance_state(number: i32) -> Result<InstanceState, WireError> {
    control::InstanceState::try_from(number)
        .map_err(|_| WireError::new("state", format_args!("{number} is not known")))?
        .try_into()
}

/// Reads the phase of a wire enum's number.
///
/// # Errors
/// [`WireError`] when the number has no meaning here.
pub fn instance_phase(number: i32) -> Result<Phase, WireError> {
    control::InstancePhase::try_from(number)
        .map_err(|_| WireError::new("phase", format_args!("{number} is not known")))?
        .try_into()
}

impl From<InstanceRoute> for control::InstanceRoute {
    fn from(own: InstanceRoute) -> Self {
        Self {
            instance: own.instance.to_string(),
            spec: own.spec.to_string(),
            node: own.node.to_string(),
            generation: own.generation.0,
            state: control::InstanceState::from(own.state).into(),
            reason: own.reason,
            since_ms: own.since.0,
            concurrency: own.concurrency,
        }
    }
}

impl TryFrom<control::InstanceRoute> for InstanceRoute {
    type Error = WireError;
    fn try_from(wire: control::InstanceRoute) -> Result<Self, WireError> {
        Ok(Self {
            instance: parsed("instance", &wire.instance)?,
            spec: spec_id("spec", &wire.spec)?,
            node: parsed("node", &wire.node)?,
            generation: Generation(wire.generation),
            state: instance_state(wire.state)?,
            reason: wire.reason,
            since: Timestamp(wire.since_ms),
            concurrency: wire.concurrency,
        })
    }
}

fn spec_id(field: &str, text: &str) -> Result<SpecId, WireError> {
    let id = SpecId::from(Arc::<str>::from(text));
    match id.plugin() {
        Some(_) => Ok(id),
        None => Err(WireError::new(field, "is not written name@version#hash")),
    }
}

impl From<NodeRoute> for control::NodeRoute {
    fn from(own: NodeRoute) -> Self {
        Self {
            node: own.node.to_string(),
            generation: own.generation.0,
            zone: own.zone,
            labels: own.labels.into_iter().collect(),
            software: own.software,
        }
    }
}

impl TryFrom<control::NodeRoute> for NodeRoute {
    type Error = WireError;
    fn try_from(wire: control::NodeRoute) -> Result<Self, WireError> {
        Ok(Self {
            node: parsed("node", &wire.node)?,
            generation: Generation(wire.generation),
            zone: wire.zone,
            labels: wire.labels.into_iter().collect(),
            software: wire.software,
        })
    }
}

impl From<Group> for control::TestGroup {
    fn from(own: Group) -> Self {
        Self {
            header: own.header,
            value: own.value,
            version: own.version.to_string(),
        }
    }
}

impl From<Split> for control::TrafficSplit {
    fn from(own: Split) -> Self {
        let share = |(version, weight): (semver::Version, u32)| control::VersionShare {
            version: version.to_string(),
            weight,
        };
        Self {
            plugin: own.plugin.to_string(),
            shares: own.shares.into_iter().map(share).collect(),
            groups: own.groups.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<control::TrafficSplit> for Split {
    type Error = WireError;
    fn try_from(wire: control::TrafficSplit) -> Result<Self, WireError> {
        let share =
            |share: control::VersionShare| Ok((parsed("version", &share.version)?, share.weight));
        let group = |group: control::TestGroup| {
            Ok(Group {
                version: parsed("version", &group.version)?,
                header: group.header,
                value: group.value,
            })
        };
        let shares: Vec<(semver::Version, u32)> = each("shares", wire.shares, share)?;
        let mut split = Self {
            plugin: parsed("plugin", &wire.plugin)?,
            shares: BTreeMap::new(),
            groups: each("groups", wire.groups, group)?,
        };
        for (place, (version, weight)) in shares.into_iter().enumerate() {
            if split.shares.contains_key(&version) {
                let text = format!("names version {version} a second time");
                return Err(WireError::new(format!("shares[{place}]"), text));
            }
            split.shares.insert(version, weight);
        }
        Ok(split)
    }
}

impl From<TableUpdate> for control::TableUpdate {
    fn from(own: TableUpdate) -> Self {
        let spec = |(id, manifest): (SpecId, Arc<Manifest>)| control::PluginSpec {
            id: id.to_string(),
            manifest: Some((&*manifest).into()),
        };
        Self {
            from: own.from.map(Into::into),
            to: Some(own.to.into()),
            specs: own.specs.into_iter().map(spec).collect(),
            instances: own.instances.into_iter().map(Into::into).collect(),
            nodes: own.nodes.into_iter().map(Into::into).collect(),
            removed_specs: own.removed_specs.iter().map(ToString::to_string).collect(),
            removed_instances: own
                .removed_instances
                .iter()
                .map(ToString::to_string)
                .collect(),
            removed_nodes: own.removed_nodes.iter().map(ToString::to_string).collect(),
            splits: own.splits.into_iter().map(Into::into).collect(),
            removed_splits: own.removed_splits.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<control::TableUpdate> for TableUpdate {
    type Error = WireError;
    fn try_from(wire: control::TableUpdate) -> Result<Self, WireError> {
        table_update(wire, &Table::default())
    }
}

/// Reads an update for somebody who has a table already: manifests that stand in it under the same
/// id are not checked again, which makes the snapshot after a reconnect cheap.
///
/// # Errors
/// [`WireError`] that names the first field which is wrong.
pub fn table_update(wire: control::TableUpdate, known: &Table) -> Result<TableUpdate, WireError> {
    let spec = |spec: control::PluginSpec| {
        let id = spec_id("id", &spec.id)?;
        if let Some(manifest) = known.manifest(&id) {
            return Ok((id, Arc::clone(manifest)));
        }
        let manifest = Manifest::try_from(required("manifest", spec.manifest)?)?;
        if id.plugin().as_ref() != Some(&manifest.name) {
            return Err(WireError::new("id", "does not name the manifest's plugin"));
        }
        Ok((id, Arc::new(manifest)))
    };
    Ok(TableUpdate {
        from: wire.from.map(Into::into),
        to: required("to", wire.to)?.into(),
        specs: each("specs", wire.specs, spec)?,
        instances: each("instances", wire.instances, InstanceRoute::try_from)?,
        nodes: each("nodes", wire.nodes, NodeRoute::try_from)?,
        removed_specs: texts("removed_specs", &wire.removed_specs, spec_id)?,
        removed_instances: texts("removed_instances", &wire.removed_instances, parsed)?,
        removed_nodes: texts("removed_nodes", &wire.removed_nodes, parsed)?,
        splits: each("splits", wire.splits, Split::try_from)?,
        removed_splits: texts("removed_splits", &wire.removed_splits, parsed)?,
    })
}

/// Parses a list of plain texts, which have no fields of their own to name.
fn texts<T>(
    field: &str,
    texts: &[String],
    parse: impl Fn(&str, &str) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let place = |(place, text): (usize, &String)| parse(&format!("{field}[{place}]"), text);
    texts.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use mesh_core::id::{InstanceId, NodeId};
    use mesh_core::manifest::ManifestDraft;

    use super::*;

    fn split() -> Split {
        let version = semver::Version::new(2, 0, 0);
        Split {
            plugin: "time".parse().unwrap(),
            shares: [(semver::Version::new(1, 4, 0), 90), (version.clone(), 10)].into(),
            groups: vec![Group {
                header: "x-test-group".into(),
                value: "beta".into(),
                version,
            }],
        }
    }

    fn update() -> TableUpdate {
        let draft = ManifestDraft {
            name: "time".into(),
            version: "1.0.0".into(),
            ..ManifestDraft::default()
        };
        let manifest = Arc::new(draft.check().unwrap());
        let spec = SpecId::of(&manifest);
        let node = NodeId::new("a").unwrap();
        TableUpdate {
            from: Some(Revision::default()),
            to: Revision {
                epoch: 7,
                sequence: 9,
            },
            specs: vec![(spec.clone(), manifest)],
            instances: vec![InstanceRoute {
                instance: InstanceId::new(1, [1; 10]),
                spec: spec.clone(),
                node: node.clone(),
                generation: Generation(3),
                state: InstanceState::Blocked,
                reason: "needs x".into(),
                since: Timestamp(5),
                concurrency: 2,
            }],
            nodes: vec![NodeRoute {
                node: node.clone(),
                generation: Generation(3),
                zone: "z".into(),
                labels: [("k".to_owned(), "v".to_owned())].into(),
                software: "0.1.0".into(),
            }],
            removed_specs: vec![spec],
            removed_instances: vec![InstanceId::new(2, [2; 10])],
            removed_nodes: vec![node],
            splits: vec![split()],
            removed_splits: vec!["old".parse().unwrap()],
        }
    }

    #[test]
    fn an_update_goes_there_and_back() {
        let own = update();
        let back = TableUpdate::try_from(control::TableUpdate::from(own.clone())).unwrap();
        assert_eq!((back.from, back.to), (own.from, own.to));
        assert_eq!(back.specs, own.specs);
        assert_eq!(back.instances, own.instances);
        assert_eq!(back.nodes, own.nodes);
        assert_eq!(back.removed_specs, own.removed_specs);
        assert_eq!(back.removed_instances, own.removed_instances);
        assert_eq!(back.removed_nodes, own.removed_nodes);
        assert_eq!(back.splits, own.splits);
        assert_eq!(back.removed_splits, own.removed_splits);
    }

    #[test]
    fn a_manifest_that_is_known_is_shared_and_not_read_again() {
        let own = TableUpdate {
            removed_specs: Vec::new(),
            ..update()
        };
        let known = Table::default().apply(&own).unwrap();
        let mut wire = control::TableUpdate::from(own.clone());
        wire.specs[0].manifest = None;
        let back = table_update(wire, &known).unwrap();
        assert!(Arc::ptr_eq(&back.specs[0].1, &own.specs[0].1));
    }

    /// Breaks one thing in an update.
    type Break = fn(&mut control::TableUpdate);

    #[test]
    fn a_mistake_names_its_field() {
        let cases: [(Break, &str); 10] = [
            (|wire| wire.to = None, "to: is missing"),
            (
                |wire| wire.specs[0].manifest = None,
                "specs[0].manifest: is missing",
            ),
            (
                |wire| wire.specs[0].id = "other@1.0.0#0".into(),
                "specs[0].id: does not name the manifest's plugin",
            ),
            (
                |wire| wire.specs[0].manifest.as_mut().unwrap().version = "x".into(),
                "specs[0].manifest: version: \"x\" is not valid: unexpected character 'x' while parsing \
                 major version number; write a semantic version such as \"1.0.0\"",
            ),
            (
                |wire| wire.instances[0].state = 0,
                "instances[0].state: is not given",
            ),
            (
                |wire| wire.instances[0].state = 77,
                "instances[0].state: 77 is not known",
            ),
            (
                |wire| wire.nodes[0].node = "A".into(),
                "nodes[0].node: node name \"A\" is not valid: use 1 to 63 lowercase letters, digits and \
                 hyphens, with no hyphen at either end",
            ),
            (
                |wire| wire.removed_instances[0] = "x".into(),
                "removed_instances[0]: instance id \"x\" is not valid: it is a UUID",
            ),
            (
                |wire| wire.splits[0].shares[1].version = "two".into(),
                "splits[0].shares[1].version: unexpected character 't' while parsing major version \
                 number",
            ),
            (
                |wire| wire.splits[0].shares[1].version = "1.4.0".into(),
                "splits[0].shares[1]: names version 1.4.0 a second time",
            ),
        ];
        for (break_it, line) in cases {
            let mut wire = control::TableUpdate::from(update());
            break_it(&mut wire);
            let error = TableUpdate::try_from(wire).expect_err(line);
            assert_eq!(error.to_string(), line);
        }
    }

    #[test]
    fn every_state_and_phase_goes_there_and_back() {
        for state in InstanceState::ALL {
            let number = control::InstanceState::from(state).into();
            assert_eq!(instance_state(number), Ok(state));
        }
        for phase in [
            Phase::Starting,
            Phase::Loaded,
            Phase::Ready,
            Phase::Unhealthy,
        ] {
            let number = control::InstancePhase::from(phase).into();
            assert_eq!(instance_phase(number), Ok(phase));
        }
    }
}
