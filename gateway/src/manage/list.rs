//! `list_plugins`, and what all of these tools say of a version of a plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::capability::{Capability, CapabilityKind};
use mesh_core::manifest::Manifest;
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId, Table};
use rmcp::model::ErrorData;
use serde_json::{Value, json};

use super::arguments::Arguments;

/// Which plugins are wanted.
#[derive(Debug, Default)]
pub struct Filter {
    capability: Option<Wanted>,
    status: Option<InstanceState>,
}

#[derive(Debug)]
enum Wanted {
    Kind(CapabilityKind),
    One(Capability),
}

impl Filter {
    pub fn read(arguments: &mut Arguments<'_>) -> Result<Self, ErrorData> {
        let mut filter = Self::default();
        if let Some(text) = arguments
            .text("capability")?
            .filter(|text| !text.is_empty())
        {
            let read = if text.contains(':') {
                text.parse().map(Wanted::One)
            } else {
                text.parse().map(Wanted::Kind)
            };
            filter.capability = Some(read.map_err(|error| arguments.wrong("capability", error))?);
        }
        if let Some(text) = arguments.text("status")?.filter(|text| !text.is_empty()) {
            let read = text.parse();
            filter.status = Some(read.map_err(|error| arguments.wrong("status", error))?);
        }
        Ok(filter)
    }

    fn wants(&self, version: &VersionView<'_>) -> bool {
        let entries = || {
            version
                .manifest
                .iter()
                .flat_map(|manifest| &manifest.capabilities)
        };
        let provides = match &self.capability {
            None => true,
            Some(Wanted::Kind(kind)) => entries().any(|entry| entry.capability.kind == *kind),
            Some(Wanted::One(capability)) => entries().any(|entry| entry.capability == *capability),
        };
        let is = |state| {
            version
                .instances
                .iter()
                .any(|instance| instance.state == state)
        };
        provides && self.status.is_none_or(is)
    }
}

/// One version of a plugin with its instances.
pub struct VersionView<'a> {
    pub spec: &'a SpecId,
    /// Absent while the manifest is on its way.
    pub manifest: Option<&'a Arc<Manifest>>,
    pub instances: Vec<&'a InstanceRoute>,
}

impl VersionView<'_> {
    /// The state of the instance that is best off.
    pub fn best(&self) -> Option<&InstanceRoute> {
        self.instances
            .iter()
            .copied()
            .min_by_key(|instance| instance.state.rank())
    }

    /// The kinds that it provides, in the plural.
    pub fn kinds(&self) -> BTreeSet<String> {
        let entries = self
            .manifest
            .iter()
            .flat_map(|manifest| &manifest.capabilities);
        entries
            .map(|entry| format!("{}s", entry.capability.kind))
            .collect()
    }
}

/// All versions of all plugins that have an instance, by plugin and version.
pub fn versions(table: &Table) -> Vec<VersionView<'_>> {
    let mut by_spec: BTreeMap<&SpecId, VersionView<'_>> = BTreeMap::new();
    for instance in table.instances() {
        by_spec
            .entry(&instance.spec)
            .or_insert_with(|| VersionView {
                spec: &instance.spec,
                manifest: table.manifest(&instance.spec),
                instances: Vec::new(),
            })
            .instances
            .push(instance);
    }
    let mut all: Vec<VersionView<'_>> = by_spec.into_values().collect();
    all.sort_by(|a, b| {
        let order = |view: &VersionView<'_>| {
            let version = view.manifest.map(|manifest| manifest.version.clone());
            (view.spec.plugin(), std::cmp::Reverse(version))
        };
        order(a).cmp(&order(b))
    });
    all
}

pub fn plugins(table: &Table, filter: &Filter) -> Value {
    let plugins: Vec<Value> = versions(table)
        .iter()
        .filter(|version| filter.wants(version))
        .map(summary)
        .collect();
    json!({
        "plugins": plugins,
        "count": plugins.len(),
        "revision": table.revision().to_string(),
    })
}

/// What a list says of a version.
fn summary(version: &VersionView<'_>) -> Value {
    let best = version.best();
    let nodes: BTreeSet<&str> = version
        .instances
        .iter()
        .map(|instance| instance.node.as_str())
        .collect();
    json!({
        "name": version.spec.plugin(),
        "version": version.manifest.map(|manifest| manifest.version.to_string()),
        "description": version.manifest.map(|manifest| &manifest.description),
        "status": best.map(|best| best.state.as_str()),
        "reason": best.map(|best| &best.reason),
        "capabilities": version.kinds(),
        "instances": version.instances.len(),
        "nodes": nodes,
    })
}
