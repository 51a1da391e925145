//! Capabilities: what plugins provide and others ask for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The sort of thing that a plugin provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapabilityKind {
    /// A tool in the sense of MCP.
    Tool,
    /// A resource in the sense of MCP; its name is its URI.
    Resource,
    /// A resource template in the sense of MCP; its name is its URI template (RFC 6570, level 1).
    ResourceTemplate,
    /// A prompt in the sense of MCP.
    Prompt,
    /// A request/response or streaming method, named "service.method".
    Service,
    /// A long-running, streaming, cancellable task.
    Orchestrator,
    /// An extension point that others run through.
    Hook,
    /// An HTTP path.
    Route,
}

impl CapabilityKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::Tool,
        Self::Resource,
        Self::ResourceTemplate,
        Self::Prompt,
        Self::Service,
        Self::Orchestrator,
        Self::Hook,
        Self::Route,
    ];

    /// The kind as written in manifests and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Resource => "resource",
            Self::ResourceTemplate => "resource_template",
            Self::Prompt => "prompt",
            Self::Service => "service",
            Self::Orchestrator => "orchestrator",
            Self::Hook => "hook",
            Self::Route => "route",
        }
    }
}

impl fmt::Display for CapabilityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("capability {given:?} is not valid: {rule}")]
pub struct CapabilityError {
    /// The text that was given, shortened to 80 characters.
    pub given: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl FromStr for CapabilityKind {
    type Err = CapabilityError;
    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        // The reference systems write kinds in the plural, so both are taken.
        let singular = text.strip_suffix('s').unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == singular)
            .ok_or_else(|| CapabilityError {
                given: text.chars().take(80).collect(),
                rule: "the kinds are tool, resource, resource_template, prompt, service, \
                       orchestrator, hook and route",
            })
    }
}

/// Names one thing that is provided, written `kind:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability {
    /// The kind.
    pub kind: CapabilityKind,
    /// The name within the kind, as the plugin gave it; 1 to 256 bytes, no control characters.
    pub name: Arc<str>,
}

impl Capability {
    /// Longest name, in bytes.
    pub const MAX_NAME_BYTES: usize = 256;

    /// Checks a name.
    ///
    /// # Errors
    /// [`CapabilityError`] with the rule that the name breaks.
    pub fn new(kind: CapabilityKind, name: &str) -> Result<Self, CapabilityError> {
        let rule = if name.is_empty() {
            "the name after the kind is empty"
        } else if name.len() > Self::MAX_NAME_BYTES {
            "the name is at most 256 bytes long"
        } else if name.chars().any(char::is_control) {
            "the name has no control characters"
        } else {
            return Ok(Self {
                kind,
                name: name.into(),
            });
        };
        Err(CapabilityError {
            given: name.chars().take(80).collect(),
            rule,
        })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;
    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let (kind, name) = text.split_once(':').ok_or_else(|| CapabilityError {
            given: text.chars().take(80).collect(),
            rule: "write kind:name, such as tool:add or service:embedding.embed",
        })?;
        Self::new(kind.parse()?, name)
    }
}

impl Serialize for Capability {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A capability with all that the plugin said of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CapabilityEntry {
    /// Which capability this is.
    pub capability: Capability,
    /// The MCP entry (or description object) exactly as the plugin gave it; a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Arc<RawValue>>,
    /// Repeating a call has no further effect.
    #[serde(default)]
    pub idempotent: bool,
    /// A call changes nothing.
    #[serde(default)]
    pub read_only: bool,
    /// The call may answer in several chunks before its result.
    #[serde(default)]
    pub streaming: bool,
    /// The caller may send messages after the payload. Left out when false: ids of manifests hold the
    /// text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client_streaming: bool,
}

impl CapabilityEntry {
    /// Whether a call whose outcome is unknown may be sent again.
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        self.idempotent || self.read_only
    }

    fn flags(&self) -> [bool; 4] {
        [
            self.idempotent,
            self.read_only,
            self.streaming,
            self.client_streaming,
        ]
    }
}

impl PartialEq for CapabilityEntry {
    fn eq(&self, other: &Self) -> bool {
        let raw = |entry: &Self| entry.entry.as_ref().map(|raw| raw.get().to_owned());
        self.capability == other.capability
            && self.flags() == other.flags()
            && raw(self) == raw(other)
    }
}

impl Eq for CapabilityEntry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_written_kind_colon_name() {
        let parsed: Capability = "resource:time://current".parse().expect("valid");
        assert_eq!(parsed.kind, CapabilityKind::Resource);
        assert_eq!(&*parsed.name, "time://current");
        assert_eq!(parsed.to_string(), "resource:time://current");
        for bad in ["add", "tool:", "gadget:x", "tool:a\nb"] {
            assert!(bad.parse::<Capability>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_may_be_written_in_the_plural() {
        assert_eq!("tools".parse(), Ok(CapabilityKind::Tool));
        assert_eq!(
            "resource_templates".parse(),
            Ok(CapabilityKind::ResourceTemplate)
        );
    }
}
