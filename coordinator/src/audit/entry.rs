//! The audit: what a change of the registry means for a person, with who did it and why.
//!
//! Entries follow from the registry's records and nothing else, so all coordinators that see a change
//! make the same entry of it, and whoever stores it first has stored it for all: none is stored that the
//! newest one of the same subject covers ([`is_covered`]). What nobody saw happen (the registry was read
//! anew) is found by comparing.

use serde::{Deserialize, Serialize};

use mesh_core::id::{InstanceId, MeshName, NodeId, PluginName};
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::subject::{AuditOf, Subject, audit_entry};

/// The format that is written.
const FORMAT: u32 = 1;

/// Longest text of an entry, in bytes; what is longer is cut.
pub(crate) const LONGEST: usize = 2_048;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuditKind {
    /// An instance came, went or changed its state.
    Instance,
    /// Operators want something of a plugin.
    Wish,
    /// Operators share out a plugin's calls among its versions.
    Split,
    /// A plugin goes over to a new version, or back.
    Rollout,
    /// A node came, went, was reached again or not any more.
    Node,
    /// A coordinator took the office.
    Office,
    /// A coordinator came or went.
    Coordinator,
    /// A new incarnation of the table began.
    Table,
}

impl AuditKind {
    /// The kind as written in subjects, tables and JSON.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Wish => "wish",
            Self::Split => "split",
            Self::Rollout => "rollout",
            Self::Node => "node",
            Self::Office => "office",
            Self::Coordinator => "coordinator",
            Self::Table => "table",
        }
    }
}

/// Who did it, with what is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub(crate) enum Actor {
    /// An operator: their own word and address, as far as is known.
    Operator(String),
    /// The agent of a node.
    Agent(NodeId),
    /// A coordinator.
    Coordinator(NodeId),
    /// Nobody in particular: it follows from the graph of dependencies.
    Graph,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditEntry {
    /// The change of the registry that it follows from; for what nobody saw happen, the revision by
    /// which it was found.
    pub(crate) revision: Revision,
    /// When, by the store's clock.
    pub(crate) at: Timestamp,
    /// What it is about.
    pub(crate) kind: AuditKind,
    /// The plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plugin: Option<PluginName>,
    /// Its version; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) version: String,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<NodeId>,
    /// The instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<InstanceId>,
    /// How it was; empty: there was no such one.
    pub(crate) from: String,
    /// How it is.
    pub(crate) to: String,
    /// Who did it.
    pub(crate) by: Actor,
    /// Why, for a person.
    pub(crate) reason: String,
    /// The key of the record whose change led to it; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) cause: String,
    /// Nobody saw it happen: it was found when the registry was read anew, and may be known already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) found: bool,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u32,
    entry: AuditEntry,
}

impl AuditEntry {
    /// The entry as it is stored.
    ///
    /// # Errors
    /// When it has no JSON form, which none is known to do.
    pub(crate) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut entry = self.clone();
        for text in [&mut entry.reason, &mut entry.from, &mut entry.to] {
            text.truncate(text.floor_char_boundary(LONGEST));
        }
        serde_json::to_vec(&Envelope {
            format: FORMAT,
            entry,
        })
    }

    /// Reads an entry; one of a newer format is read as far as it is known.
    ///
    /// # Errors
    /// When it is no entry.
    pub(crate) fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes).map(|envelope: Envelope| envelope.entry)
    }

    /// Whom it is about.
    #[must_use]
    pub(crate) fn of(&self) -> AuditOf {
        AuditOf {
            plugin: self.plugin.clone(),
            node: self.node.clone(),
            instance: self.instance,
        }
    }

    /// Where it is stored.
    #[must_use]
    pub(crate) fn subject(&self, mesh: &MeshName) -> Subject {
        audit_entry(mesh, self.kind.as_str(), &self.of())
    }
}

/// Whether the newest stored entry of a subject says already what a new one says, or is newer.
/// Both as they are stored; what can't be read covers nothing.
#[must_use]
pub(crate) fn is_covered(newest: &[u8], new: &[u8]) -> bool {
    let (Ok(newest), Ok(new)) = (AuditEntry::decode(newest), AuditEntry::decode(new)) else {
        return false;
    };
    let says_the_same = newest.to == new.to
        // What an instance's agent says of one and the same state may differ.
        && (new.kind == AuditKind::Instance || newest.reason == new.reason);
    newest.revision >= new.revision || (new.found && says_the_same)
}
