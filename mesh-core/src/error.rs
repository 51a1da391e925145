//! Error codes: what went wrong, whether the call was processed, and how each protocol says it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether a call that ended with an error may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Processed {
    /// It had none: the call may be sent to another instance.
    No,
    /// It may have had one: only an idempotent call may be sent again.
    Unknown,
    /// The plugin worked on it: sending it again would be a second run.
    Yes,
}

/// All that the protocols need to know of a code.
struct Facts {
    name: &'static str,
    slug: &'static str,
    processed: Processed,
    grpc: i32,
    http: u16,
    json_rpc: i64,
}

/// Declares the codes, so that no property of one can be forgotten.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $slug:literal,
       $processed:ident, $grpc:literal, $http:literal, $json_rpc:literal;)*) => {
        /// What went wrong. Each code has a page in `docs/errors/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(i32)]
        pub enum ErrorCode { $($(#[$doc])* $variant = $number,)* }

        impl ErrorCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn facts(self) -> Facts {
                match self { $(Self::$variant => Facts {
                    name: $name,
                    slug: $slug,
                    processed: Processed::$processed,
                    grpc: $grpc,
                    http: $http,
                    json_rpc: $json_rpc,
                },)* }
            }

            /// The code of a number on the wire; unknown numbers are [`ErrorCode::Internal`].
            #[must_use]
            pub fn from_number(number: i32) -> Self {
                match number { $($number => Self::$variant,)* _ => Self::Internal }
            }
        }
    };
}

// variant = number on the wire, name, page, processed?, gRPC status, HTTP status, JSON-RPC code.
// JSON-RPC codes from -32000 to -32099 are the implementation's; MCP names -32002 and -32602.
codes! {
    /// The arguments, frame or message break a rule.
    InvalidArgument = 1, "invalid_argument", "invalid-argument", No, 3, 400, -32602;
    /// No plugin, instance, node or item of that name.
    NotFound = 2, "not_found", "not-found", No, 5, 404, -32602;
    /// No plugin provides the capability.
    NoProvider = 3, "no_provider", "no-provider", No, 5, 404, -32602;
    /// Providers exist, but none may take calls now.
    Unavailable = 4, "unavailable", "unavailable", No, 14, 503, -32010;
    /// The instance or its agent is at its limit and shed the call.
    Overloaded = 5, "overloaded", "overloaded", No, 8, 429, -32011;
    /// The instance is draining and takes no new calls.
    Draining = 6, "draining", "draining", No, 14, 503, -32010;
    /// The instance was gone before the call reached it.
    InstanceGone = 7, "instance_gone", "instance-gone", No, 14, 503, -32010;
    /// The instance, its node or the connection was lost after the call was delivered.
    OutcomeUnknown = 8, "outcome_unknown", "outcome-unknown", Unknown, 2, 502, -32012;
    /// The deadline passed before a result arrived.
    DeadlineExceeded = 9, "deadline_exceeded", "deadline-exceeded", Unknown, 4, 504, -32013;
    /// The deadline had passed before the call reached the plugin.
    Expired = 10, "expired", "expired", No, 4, 504, -32013;
    /// The caller cancelled the call.
    Cancelled = 11, "cancelled", "cancelled", Unknown, 1, 499, -32014;
    /// The payload or frame is over the limit.
    TooLarge = 12, "too_large", "too-large", No, 8, 413, -32602;
    /// A frame could not be decoded.
    MalformedFrame = 13, "malformed_frame", "malformed-frame", No, 3, 400, -32700;
    /// The peer does not know this message, or does not carry it out.
    Unsupported = 14, "unsupported", "unsupported", No, 12, 501, -32601;
    /// A frame came out of order for its id.
    ProtocolViolation = 15, "protocol_violation", "protocol-violation", No, 9, 400, -32600;
    /// The manifest breaks rules.
    InvalidManifest = 16, "invalid_manifest", "invalid-manifest", No, 3, 400, -32602;
    /// The manifest would close a cycle of dependencies.
    DependencyCycle = 17, "dependency_cycle", "dependency-cycle", No, 9, 409, -32015;
    /// Others depend on what was to be unloaded.
    StillRequired = 18, "still_required", "still-required", No, 9, 409, -32015;
    /// A newer generation of the node is known.
    StaleNode = 19, "stale_node", "stale-node", No, 9, 409, -32015;
    /// The caller is not allowed to do this.
    PermissionDenied = 20, "permission_denied", "permission-denied", No, 7, 403, -32016;
    /// The plugin's own code failed while it worked on the call.
    PluginFailed = 21, "plugin_failed", "plugin-failed", Yes, 2, 502, -32017;
    /// The broker is not reachable; the call was not sent.
    Disconnected = 22, "disconnected", "disconnected", No, 14, 503, -32010;
    /// No coordinator is reachable.
    NoCoordinator = 23, "no_coordinator", "no-coordinator", No, 14, 503, -32010;
    /// A bug in the mesh.
    Internal = 24, "internal", "internal", Unknown, 13, 500, -32603;
    /// The configuration breaks rules.
    InvalidConfig = 25, "invalid_config", "invalid-config", No, 3, 400, -32602;
}

impl ErrorCode {
    /// The code as written in logs, metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The name of the code's page in `docs/errors/`, without `.md`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.facts().slug
    }

    /// The number on the wire (`plugmesh.common.v1.ErrorCode`).
    #[must_use]
    pub fn number(self) -> i32 {
        self as i32
    }

    /// Whether the call may have had an effect.
    #[must_use]
    pub fn processed(self) -> Processed {
        self.facts().processed
    }

    /// The gRPC status code (0 to 16).
    #[must_use]
    pub fn grpc_status(self) -> i32 {
        self.facts().grpc
    }

    /// The HTTP status code.
    #[must_use]
    pub fn http_status(self) -> u16 {
        self.facts().http
    }

    /// The JSON-RPC 2.0 error code.
    #[must_use]
    pub fn json_rpc(self) -> i64 {
        self.facts().json_rpc
    }

    /// Whether a call that ended with this code may be sent to another instance, given whether its
    /// capability may be repeated.
    #[must_use]
    pub fn may_retry(self, may_repeat: bool) -> bool {
        match self {
            // These would fail in the same way anywhere, or end the caller's wish.
            Self::InvalidArgument
            | Self::NotFound
            | Self::NoProvider
            | Self::TooLarge
            | Self::Unsupported
            | Self::PermissionDenied
            | Self::Expired
            | Self::DeadlineExceeded
            | Self::Cancelled
            | Self::Disconnected => false,
            _ => match self.processed() {
                Processed::No => true,
                Processed::Unknown => may_repeat,
                Processed::Yes => false,
            },
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An error of the mesh: what failed, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshError {
    /// What went wrong.
    pub code: ErrorCode,
    /// One line for a person: what failed and what to do.
    pub message: String,
    /// Where it failed, as far as is known; boxed, so that results stay small on the hot path.
    #[serde(default)]
    pub place: Box<Place>,
    /// For [`ErrorCode::Overloaded`]: how long to wait before trying again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// More for programs: a JSON value as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

/// Where something failed; empty texts are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The plugin.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Its instance.
    pub instance: String,
    /// The node.
    pub node: String,
}

impl Place {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl MeshError {
    /// An error with no place yet.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: Box::default(),
            retry_after: None,
            details: None,
        }
    }

    /// Says where it failed, unless that is known already.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        if self.place.is_unknown() {
            *self.place = place;
        }
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl fmt::Display for MeshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        let Place {
            plugin,
            version,
            instance,
            node,
        } = &*self.place;
        let mut parts = Vec::new();
        match (plugin.is_empty(), version.is_empty()) {
            (false, false) => parts.push(format!("plugin {plugin}@{version}")),
            (false, true) => parts.push(format!("plugin {plugin}")),
            _ => {}
        }
        if !instance.is_empty() {
            parts.push(format!("instance {instance}"));
        }
        if !node.is_empty() {
            parts.push(format!("node {node}"));
        }
        if parts.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", parts.join(", "))
    }
}

impl std::error::Error for MeshError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), *code);
        }
        assert_eq!(ErrorCode::from_number(9999), ErrorCode::Internal);
    }

    #[test]
    fn only_what_was_not_processed_or_may_be_repeated_is_sent_again() {
        for code in ErrorCode::ALL {
            if code.may_retry(false) {
                assert_eq!(code.processed(), Processed::No, "{code}");
            }
            if code.processed() == Processed::Yes {
                assert!(!code.may_retry(true), "{code}");
            }
        }
        assert!(ErrorCode::OutcomeUnknown.may_retry(true));
        assert!(!ErrorCode::OutcomeUnknown.may_retry(false));
        assert!(ErrorCode::Overloaded.may_retry(false));
    }

    #[test]
    fn a_line_names_code_plugin_version_instance_and_node() {
        let error = MeshError::new(ErrorCode::Draining, "it is stopping; try another").at(Place {
            plugin: "time".into(),
            version: "1.0.0".into(),
            instance: "i".into(),
            node: "a".into(),
        });
        assert_eq!(
            error.to_string(),
            "draining: it is stopping; try another (plugin time@1.0.0, instance i, node a)"
        );
    }

    #[test]
    fn the_page_of_each_code_has_its_numbers() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let read = |name: &str| std::fs::read_to_string(format!("{pages}/{name}.md"));
        let index = read("README").expect("an index");
        for code in ErrorCode::ALL {
            let page = read(code.slug()).unwrap_or_else(|error| panic!("{code}: {error}"));
            let (grpc, http, rpc) = (code.grpc_status(), code.http_status(), code.json_rpc());
            let name = code.name().to_uppercase();
            assert!(page.starts_with(&format!("# {name}\n")), "{code}");
            let numbers = format!("| {} | {grpc} ", code.number());
            assert!(page.contains(&numbers), "{code}: {numbers}");
            assert!(page.contains(&format!(" | {http} | {rpc} |")), "{code}");
            let processed = match code.processed() {
                Processed::No => ("No", "no"),
                Processed::Unknown => ("Unknown", "unknown"),
                Processed::Yes => ("Yes", "yes"),
            };
            let line = format!("**Was the call processed?** {}", processed.0);
            assert!(page.contains(&line), "{code}: {line}");
            let row = format!(" | {} | {grpc} | {http} | {rpc} |", processed.1);
            let link = format!("| [{name}]({}.md) | ", code.slug());
            let found = index.lines().find(|line| line.starts_with(&link));
            assert!(
                found.is_some_and(|line| line.ends_with(&row)),
                "{code} in the index"
            );
        }
    }
}
