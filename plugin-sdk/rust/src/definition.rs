//! A plugin, checked: its manifest and its handlers.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::handler::{ConfigType, Handler};
use crate::uri_template;
use crate::wire::common::{self, CapabilityKind};

/// Handlers by the number of their kind, then by name. They are looked up for every call.
pub(crate) type Handlers = HashMap<i32, HashMap<String, Handler, RandomState>, RandomState>;

pub(crate) struct Definition {
    pub manifest: common::Manifest,
    pub config: Option<ConfigType>,
    pub handlers: Handlers,
}

impl Definition {
    pub(crate) fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The handler of a capability. A resource that is not known by its URI is one of a template.
    pub(crate) fn handler(&self, capability: &common::Capability) -> Option<&Handler> {
        let of_kind = |kind: i32| self.handlers.get(&kind);
        let exact = of_kind(capability.kind)?.get(&capability.name);
        if exact.is_some() {
            return exact;
        }
        self.template_of(capability)
    }

    /// Whether a capability takes messages after the payload.
    pub(crate) fn takes_messages(&self, capability: &common::Capability) -> bool {
        takes_messages(&self.manifest, capability)
    }

    fn template_of(&self, capability: &common::Capability) -> Option<&Handler> {
        if capability.kind != i32::from(CapabilityKind::Resource) {
            return None;
        }
        let templates = self
            .handlers
            .get(&CapabilityKind::ResourceTemplate.into())?;
        templates.iter().find_map(|(template, handler)| {
            uri_template::matches(template, &capability.name).map(|_| handler)
        })
    }

    /// The version requirement that the manifest states for a plugin; empty when there is none.
    pub(crate) fn requirement_on(&self, plugin: &str) -> String {
        let dependencies = &self.manifest.dependencies;
        let stated = dependencies.iter().find(|one| one.plugin == plugin);
        stated.map_or_else(String::new, |one| one.requirement.clone())
    }
}

/// Whether a manifest says that a capability takes messages after the payload.
pub(crate) fn takes_messages(manifest: &common::Manifest, capability: &common::Capability) -> bool {
    let mut entries = manifest.capabilities.iter();
    entries.any(|entry| entry.client_streaming && entry.capability.as_ref() == Some(capability))
}
