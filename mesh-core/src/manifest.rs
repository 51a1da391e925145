//! The manifest: what a plugin says of itself, checked.

mod capabilities;
mod check;
mod draft;
mod file;
mod reader;
mod units;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::capabilities::MAX_CAPABILITIES;
pub use self::check::MAX_MANIFEST_BYTES;
pub use self::draft::{CapabilityDraft, HookDraft, ManifestDraft, Mistake, Mistakes, NeedDraft};
pub use self::file::{ManifestFile, RuntimeCommand};
use crate::capability::{Capability, CapabilityEntry};
use crate::id::PluginName;
use crate::version::Requirement;

/// A checked description of one version of one plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The plugin's name.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// One line for a person.
    #[serde(default)]
    pub description: String,
    /// Who made it.
    #[serde(default)]
    pub authors: Vec<String>,
    /// SPDX expression.
    #[serde(default)]
    pub license: String,
    /// An http or https address.
    #[serde(default)]
    pub homepage: String,
    /// Words for searching.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Plugins that this one needs.
    #[serde(default)]
    pub dependencies: BTreeMap<PluginName, Need>,
    /// Capabilities that this one needs, whoever provides them.
    #[serde(default)]
    pub requires: BTreeMap<Capability, Need>,
    /// Hooks that it runs.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Events that it wants.
    #[serde(default)]
    pub subscriptions: Vec<Subscription>,
    /// JSON Schema of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Arc<RawValue>>,
    /// What it may do.
    #[serde(default)]
    pub permissions: Permissions,
    /// Limits that its host keeps for it.
    #[serde(default)]
    pub limits: Limits,
    /// What it provides.
    #[serde(default)]
    pub capabilities: Vec<CapabilityEntry>,
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        // By their JSON, since raw JSON in them compares by its text.
        let json = |manifest: &Self| serde_json::to_string(manifest).ok();
        self.name == other.name && self.version == other.version && json(self) == json(other)
    }
}

/// A requirement and whether it blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Which versions will do.
    pub requirement: Requirement,
    /// Optional ones order starts and stops but block nothing.
    #[serde(default)]
    pub optional: bool,
}

/// An extension point that a plugin runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The point's name: tokens separated by dots.
    pub point: String,
    /// Lower runs first.
    pub priority: i32,
    /// Time that it may take; `None`: the mesh's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether an error ends the chain.
    pub abort_on_error: bool,
}

/// A wish for events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The topic; `*` stands for one token, `>` for the rest.
    pub topic: String,
    /// At least once with acknowledgement, or at most once.
    pub at_least_once: bool,
    /// To each instance, or to one instance of the plugin.
    pub broadcast: bool,
}

/// What a plugin may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Topics that it may publish on.
    pub publish: Vec<String>,
    /// Capabilities that it may call: `kind:name`, `*` at the end for any rest. Empty: all.
    pub call: Vec<String>,
    /// `host:port` pairs that it may reach.
    pub network: Vec<String>,
}

/// Limits on what a plugin uses; 0 means none, or the host's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor time in thousandths of a core.
    pub cpu_millis: u32,
    /// Calls in flight.
    pub concurrency: u32,
}

#[cfg(test)]
mod tests;
