//! The routing table: revisions, routes and updates.

use std::sync::Arc;

use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::state::{InstanceState, Phase};
use mesh_core::table::{InstanceRoute, NodeRoute, SpecId, TableUpdate};

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
    let id = SpecId(text.into());
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
        }
    }
}

impl TryFrom<control::TableUpdate> for TableUpdate {
    type Error = WireError;
    fn try_from(wire: control::TableUpdate) -> Result<Self, WireError> {
        let spec = |spec: control::PluginSpec| {
            let id = spec_id("id", &spec.id)?;
            let manifest = Manifest::try_from(required("manifest", spec.manifest)?)
                .map_err(|error| error.within("manifest"))?;
            if id.plugin().as_ref() != Some(&manifest.name) {
                return Err(WireError::new("id", "does not name the manifest's plugin"));
            }
            Ok((id, Arc::new(manifest)))
        };
        // Plain texts have no fields of their own to name.
        let ids = |field: &str, texts: Vec<String>| -> Result<Vec<InstanceId>, WireError> {
            texts.iter().map(|text| parsed(field, text)).collect()
        };
        let names = |field: &str, texts: Vec<String>| -> Result<Vec<NodeId>, WireError> {
            texts.iter().map(|text| parsed(field, text)).collect()
        };
        Ok(Self {
            from: wire.from.map(Into::into),
            to: required("to", wire.to)?.into(),
            specs: each("specs", wire.specs, spec)?,
            instances: each("instances", wire.instances, InstanceRoute::try_from)?,
            nodes: each("nodes", wire.nodes, NodeRoute::try_from)?,
            removed_specs: wire
                .removed_specs
                .iter()
                .map(|text| spec_id("removed_specs", text))
                .collect::<Result<_, _>>()?,
            removed_instances: ids("removed_instances", wire.removed_instances)?,
            removed_nodes: names("removed_nodes", wire.removed_nodes)?,
        })
    }
}
