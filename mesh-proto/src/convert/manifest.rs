//! Manifests and capabilities.
//!
//! A manifest from outside becomes a draft, whose check in mesh-core finds all mistakes at once.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::capability::{Capability, CapabilityEntry, CapabilityKind};
use mesh_core::manifest::{
    CapabilityDraft, Hook, HookDraft, Limits, Manifest, ManifestDraft, Mistakes, Need, NeedDraft,
    Permissions, Subscription,
};

use super::WireError;
use crate::common;

impl From<CapabilityKind> for common::CapabilityKind {
    fn from(own: CapabilityKind) -> Self {
        match own {
            CapabilityKind::Tool => Self::Tool,
            CapabilityKind::Resource => Self::Resource,
            CapabilityKind::ResourceTemplate => Self::ResourceTemplate,
            CapabilityKind::Prompt => Self::Prompt,
            CapabilityKind::Service => Self::Service,
            CapabilityKind::Orchestrator => Self::Orchestrator,
            CapabilityKind::Hook => Self::Hook,
            CapabilityKind::Route => Self::Route,
        }
    }
}

impl TryFrom<common::CapabilityKind> for CapabilityKind {
    type Error = WireError;
    fn try_from(wire: common::CapabilityKind) -> Result<Self, WireError> {
        Ok(match wire {
            common::CapabilityKind::Tool => Self::Tool,
            common::CapabilityKind::Resource => Self::Resource,
            common::CapabilityKind::ResourceTemplate => Self::ResourceTemplate,
            common::CapabilityKind::Prompt => Self::Prompt,
            common::CapabilityKind::Service => Self::Service,
            common::CapabilityKind::Orchestrator => Self::Orchestrator,
            common::CapabilityKind::Hook => Self::Hook,
            common::CapabilityKind::Route => Self::Route,
            common::CapabilityKind::Unspecified => {
                return Err(WireError::new("kind", "is not given"));
            }
        })
    }
}

/// Reads the kind of a wire enum's number.
fn kind(number: i32) -> Result<CapabilityKind, WireError> {
    common::CapabilityKind::try_from(number)
        .map_err(|_| WireError::new("kind", format_args!("{number} is not known")))?
        .try_into()
}

impl From<&Capability> for common::Capability {
    fn from(own: &Capability) -> Self {
        Self {
            kind: common::CapabilityKind::from(own.kind).into(),
            // Not by its Display, which costs more than the copy: each call has one.
            name: String::from(&*own.name),
        }
    }
}

impl TryFrom<&common::Capability> for Capability {
    type Error = WireError;
    fn try_from(wire: &common::Capability) -> Result<Self, WireError> {
        Self::new(kind(wire.kind)?, &wire.name).map_err(|error| WireError::new("name", error))
    }
}

impl TryFrom<common::Capability> for Capability {
    type Error = WireError;
    fn try_from(wire: common::Capability) -> Result<Self, WireError> {
        Self::try_from(&wire)
    }
}

impl From<&CapabilityEntry> for common::CapabilityEntry {
    fn from(own: &CapabilityEntry) -> Self {
        let entry = own.entry.as_ref().map(|raw| raw.get().to_owned());
        Self {
            capability: Some((&own.capability).into()),
            entry: entry.unwrap_or_default().into(),
            idempotent: own.idempotent,
            read_only: own.read_only,
            streaming: own.streaming,
            client_streaming: own.client_streaming,
        }
    }
}

fn capability_draft(place: usize, wire: common::CapabilityEntry) -> CapabilityDraft {
    let capability = wire.capability.unwrap_or_default();
    CapabilityDraft {
        field: format!("capabilities[{place}]"),
        // What is not known stays as the number, and the check refuses it by its name.
        kind: kind(capability.kind).map_or_else(
            |_| capability.kind.to_string(),
            |kind| kind.as_str().to_owned(),
        ),
        name: capability.name,
        entry: wire.entry.into(),
        idempotent: wire.idempotent,
        read_only: wire.read_only,
        streaming: wire.streaming,
        client_streaming: wire.client_streaming,
    }
}

/// Checks a list of capabilities by itself, as a `CapabilityChange` brings it.
///
/// # Errors
/// All [`Mistakes`], each with a field such as `capabilities[3].entry`.
pub fn capability_entries(
    wire: Vec<common::CapabilityEntry>,
) -> Result<Vec<CapabilityEntry>, Mistakes> {
    let drafts = wire
        .into_iter()
        .enumerate()
        .map(|(place, entry)| capability_draft(place, entry))
        .collect();
    CapabilityDraft::check_all(drafts)
}

/// The draft of a manifest from the wire; its check finds all mistakes at once.
#[must_use]
pub fn draft(wire: common::Manifest) -> ManifestDraft {
    let limits = wire.limits.unwrap_or_default();
    let permissions = wire.permissions.unwrap_or_default();
    ManifestDraft {
        name: wire.name,
        version: wire.version,
        description: wire.description,
        authors: wire.authors,
        license: wire.license,
        homepage: wire.homepage,
        tags: wire.tags,
        dependencies: wire
            .dependencies
            .into_iter()
            .map(|need| NeedDraft {
                what: need.plugin,
                requirement: need.requirement,
                optional: need.optional,
            })
            .collect(),
        requires: wire
            .requires
            .into_iter()
            .map(|need| NeedDraft {
                what: need.capability,
                requirement: need.requirement,
                optional: need.optional,
            })
            .collect(),
        hooks: wire
            .hooks
            .into_iter()
            .map(|hook| HookDraft {
                point: hook.point,
                priority: hook.priority,
                timeout_ms: hook.timeout_ms,
                abort_on_error: hook.abort_on_error,
            })
            .collect(),
        subscriptions: wire
            .subscriptions
            .into_iter()
            .map(|wish| Subscription {
                topic: wish.topic,
                at_least_once: wish.at_least_once,
                broadcast: wish.broadcast,
            })
            .collect(),
        config_schema: wire.config_schema.into(),
        permissions: Permissions {
            publish: permissions.publish,
            call: permissions.call,
            network: permissions.network,
        },
        limits: Limits {
            memory_bytes: limits.memory_bytes,
            cpu_millis: limits.cpu_millis,
            concurrency: limits.concurrency,
        },
        capabilities: wire
            .capabilities
            .into_iter()
            .enumerate()
            .map(|(place, entry)| capability_draft(place, entry))
            .collect(),
    }
}

/// All mistakes are in the problem, one per line.
impl TryFrom<common::Manifest> for Manifest {
    type Error = WireError;
    fn try_from(wire: common::Manifest) -> Result<Self, WireError> {
        draft(wire)
            .check()
            .map_err(|mistakes| WireError::new("manifest", mistakes))
    }
}

fn needs<K: ToString>(
    own: &std::collections::BTreeMap<K, Need>,
) -> impl Iterator<Item = (String, String, bool)> {
    own.iter().map(|(what, need)| {
        (
            what.to_string(),
            need.requirement.to_string(),
            need.optional,
        )
    })
}

impl From<&Hook> for common::Hook {
    fn from(own: &Hook) -> Self {
        let timeout = own.timeout.unwrap_or(Duration::ZERO).as_millis();
        Self {
            point: own.point.clone(),
            priority: own.priority,
            timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
            abort_on_error: own.abort_on_error,
        }
    }
}

impl From<&Manifest> for common::Manifest {
    fn from(own: &Manifest) -> Self {
        let schema: Option<&Arc<_>> = own.config_schema.as_ref();
        Self {
            name: own.name.to_string(),
            version: own.version.to_string(),
            description: own.description.clone(),
            authors: own.authors.clone(),
            license: own.license.clone(),
            homepage: own.homepage.clone(),
            tags: own.tags.clone(),
            dependencies: needs(&own.dependencies)
                .map(|(plugin, requirement, optional)| common::Dependency {
                    plugin,
                    requirement,
                    optional,
                })
                .collect(),
            requires: needs(&own.requires)
                .map(
                    |(capability, requirement, optional)| common::CapabilityRequirement {
                        capability,
                        requirement,
                        optional,
                    },
                )
                .collect(),
            hooks: own.hooks.iter().map(Into::into).collect(),
            subscriptions: own
                .subscriptions
                .iter()
                .map(|wish| common::Subscription {
                    topic: wish.topic.clone(),
                    at_least_once: wish.at_least_once,
                    broadcast: wish.broadcast,
                })
                .collect(),
            config_schema: schema
                .map(|raw| raw.get().to_owned())
                .unwrap_or_default()
                .into(),
            permissions: Some(common::Permissions {
                publish: own.permissions.publish.clone(),
                call: own.permissions.call.clone(),
                network: own.permissions.network.clone(),
            }),
            limits: Some(common::Limits {
                memory_bytes: own.limits.memory_bytes,
                cpu_millis: own.limits.cpu_millis,
                concurrency: own.limits.concurrency,
            }),
            capabilities: own.capabilities.iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::manifest::ManifestFile;

    use super::*;

    #[test]
    fn a_manifest_goes_there_and_back_with_its_entries_byte_for_byte() {
        let entry = "{ \"inputSchema\":{\"type\":\"object\"},\n \"x\": 1.50, \"name\": \"t\" }";
        let text = "[plugin]\nname = \"a\"\nversion = \"1.0.0-rc.1+b\"\n\
            [dependencies]\nb = { version = \"^2\", optional = true }\n\
            [requires]\n\"service:c.d\" = \">=1\"\n\
            [[hooks]]\npoint = \"p\"\npriority = -3\ntimeout = \"2s\"\n\
            [[subscriptions]]\ntopic = \"x.>\"\n\
            [permissions]\npublish = [\"x.y\"]\n[limits]\nmemory = \"1MiB\"\ncpu = 2\n";
        let mut own = ManifestFile::parse(text).unwrap().manifest;
        let tool = CapabilityDraft {
            field: "capabilities[0]".into(),
            kind: "tool".into(),
            name: "t".into(),
            entry: entry.into(),
            idempotent: true,
            read_only: false,
            streaming: true,
            client_streaming: false,
        };
        own.capabilities = CapabilityDraft::check_all(vec![tool]).unwrap();
        let wire = common::Manifest::from(&own);
        assert_eq!(wire.capabilities[0].entry, entry);
        assert_eq!(Manifest::try_from(wire), Ok(own));
    }

    #[test]
    fn an_unknown_kind_is_refused_by_its_number() {
        let wire = common::CapabilityEntry {
            capability: Some(common::Capability {
                kind: 77,
                name: "x".into(),
            }),
            ..common::CapabilityEntry::default()
        };
        let mistakes = capability_entries(vec![wire.clone()])
            .unwrap_err()
            .to_string();
        assert!(
            mistakes
                .starts_with("capabilities[0].kind: capability \"77\" is not valid: the kinds are"),
            "{mistakes}"
        );
        let error = Capability::try_from(wire.capability.unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "kind: 77 is not known");
    }

    #[test]
    fn every_kind_goes_there_and_back() {
        for own in CapabilityKind::ALL {
            assert_eq!(kind(common::CapabilityKind::from(own).into()), Ok(own));
        }
    }
}
