//! A manifest as somebody wrote it: all texts, nothing checked yet.

use std::fmt;

use super::{Limits, Permissions, Subscription};
use crate::error::{ErrorCode, MeshError};

/// What a plugin says of itself, unchecked, from a TOML file or from the wire.
#[derive(Debug, Clone, Default)]
pub struct ManifestDraft {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line for a person.
    pub description: String,
    /// Who made it.
    pub authors: Vec<String>,
    /// SPDX expression.
    pub license: String,
    /// An http or https address.
    pub homepage: String,
    /// Words for searching.
    pub tags: Vec<String>,
    /// Plugins that this one needs.
    pub dependencies: Vec<NeedDraft>,
    /// Capabilities that this one needs.
    pub requires: Vec<NeedDraft>,
    /// Hooks that it runs.
    pub hooks: Vec<HookDraft>,
    /// Events that it wants.
    pub subscriptions: Vec<Subscription>,
    /// JSON Schema of its configuration, as JSON; empty: none.
    pub config_schema: Vec<u8>,
    /// What it may do.
    pub permissions: Permissions,
    /// Limits that its host keeps for it.
    pub limits: Limits,
    /// What it provides.
    pub capabilities: Vec<CapabilityDraft>,
}

/// A requirement on a plugin or a capability, unchecked.
#[derive(Debug, Clone, Default)]
pub struct NeedDraft {
    /// The plugin's name, or `kind:name` of a capability.
    pub what: String,
    /// Version requirement; empty: any version.
    pub requirement: String,
    /// Whether it only orders starts and stops.
    pub optional: bool,
}

/// A hook, unchecked.
#[derive(Debug, Clone, Default)]
pub struct HookDraft {
    /// The point's name.
    pub point: String,
    /// Lower runs first.
    pub priority: i32,
    /// Time that it may take, in milliseconds; 0: the mesh's default.
    pub timeout_ms: u32,
    /// Whether an error ends the chain.
    pub abort_on_error: bool,
}

/// A capability, unchecked.
#[derive(Debug, Clone, Default)]
pub struct CapabilityDraft {
    /// Where it stands in what was written, such as `tools[0]`; names it in mistakes.
    pub field: String,
    /// The kind's name.
    pub kind: String,
    /// The name within the kind.
    pub name: String,
    /// The MCP entry or description object as JSON; empty: none.
    pub entry: Vec<u8>,
    /// Repeating a call has no further effect.
    pub idempotent: bool,
    /// A call changes nothing.
    pub read_only: bool,
    /// The call may answer in several chunks.
    pub streaming: bool,
    /// The caller may send messages after the payload.
    pub client_streaming: bool,
}

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where: a path such as `dependencies.utils` or `hooks[0].timeout`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// All mistakes of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    pub(super) fn add(&mut self, field: impl Into<String>, problem: impl fmt::Display) {
        self.0.push(Mistake {
            field: field.into(),
            problem: problem.to_string(),
        });
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, mistake) in self.0.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Most mistakes in one error, which must fit a frame.
const MOST_IN_ERROR: usize = 64;

impl From<Mistakes> for MeshError {
    fn from(mistakes: Mistakes) -> Self {
        let count = mistakes.0.len();
        let shown = mistakes.0.iter().take(MOST_IN_ERROR);
        let mut lines: Vec<String> = shown.map(ToString::to_string).collect();
        if count > MOST_IN_ERROR {
            lines.push(format!("and {} more", count - MOST_IN_ERROR));
        }
        let head = match count {
            1 => "the manifest has a mistake".to_owned(),
            many => format!("the manifest has {many} mistakes"),
        };
        let text = format!("{head}: {}", lines.join("; "));
        Self::new(ErrorCode::InvalidManifest, text)
    }
}
