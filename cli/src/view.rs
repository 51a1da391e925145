//! What a coordinator tells of plugins, as domain types and in words for a person.

use mesh_core::capability::CapabilityKind;
use mesh_core::id::PluginName;
use mesh_core::manifest::Manifest;
use mesh_core::state::InstanceState;
use mesh_core::table::InstanceRoute;
use mesh_proto::admin;
use mesh_proto::convert::WireError;
use semver::Version;
use serde::Serialize;

use crate::exit::Failure;
use crate::output::count;

/// One version of a plugin.
#[derive(Debug, Clone, Serialize)]
pub struct PluginView {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// The best state of its instances; "disabled" and "unloaded" are operators' wishes.
    pub state: String,
    /// Why, for a person.
    pub reason: String,
    /// Operators have disabled it.
    pub disabled: bool,
    /// Operators have unloaded it.
    pub unloaded: bool,
    /// Its instances.
    pub instances: Vec<InstanceRoute>,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// What another version of the mesh may send.
fn not_understood(error: &WireError) -> Failure {
    Failure::failed(format!(
        "the coordinator's answer is not understood: {error}; use the plugmesh of its version"
    ))
}

impl PluginView {
    /// Reads what came over the wire.
    ///
    /// # Errors
    /// When the coordinator speaks a newer version.
    pub fn read(wire: admin::PluginView) -> Result<Self, Failure> {
        let manifest = wire.manifest.unwrap_or_default();
        let manifest = Manifest::try_from(manifest).map_err(|error| not_understood(&error))?;
        let mut instances = Vec::new();
        for instance in wire.instances {
            let route = InstanceRoute::try_from(instance);
            instances.push(route.map_err(|error| not_understood(&error))?);
        }
        let best = instances
            .iter()
            .min_by_key(|instance| instance.state.rank());
        let (state, reason) = match best {
            _ if wire.unloaded => ("unloaded".to_owned(), String::new()),
            Some(best) if wire.disabled => ("disabled".to_owned(), best.reason.clone()),
            Some(best) => (best.state.to_string(), best.reason.clone()),
            None => ("absent".to_owned(), "no instance is running".to_owned()),
        };
        Ok(Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            state,
            reason,
            disabled: wire.disabled,
            unloaded: wire.unloaded,
            instances,
            manifest,
        })
    }

    /// The nodes of its instances, each once.
    pub fn nodes(&self) -> Vec<String> {
        let mut nodes: Vec<String> = self
            .instances
            .iter()
            .map(|instance| instance.node.to_string())
            .collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    /// Why it is in its state, unless all is as it should be.
    pub fn trouble(&self) -> &str {
        if self.state == InstanceState::Active.as_str() {
            return "";
        }
        &self.reason
    }

    /// Whether an instance takes calls.
    pub fn is_active(&self) -> bool {
        self.instances
            .iter()
            .any(|instance| instance.state == InstanceState::Active)
    }

    /// Such as "4 tools, 1 resource".
    pub fn provides(&self) -> String {
        let parts: Vec<String> = CapabilityKind::ALL
            .into_iter()
            .filter_map(|kind| {
                let number = self.names(kind).len();
                let what = kind.as_str().replace('_', " ");
                (number > 0).then(|| count(number, &what))
            })
            .collect();
        parts.join(", ")
    }

    /// The names of what it provides of a kind.
    pub fn names(&self, kind: CapabilityKind) -> Vec<&str> {
        self.manifest
            .capabilities
            .iter()
            .filter(|entry| entry.capability.kind == kind)
            .map(|entry| &*entry.capability.name)
            .collect()
    }
}
