//! Sections that several services share.

use std::path::PathBuf;

use mesh_core::id::MeshName;
use mesh_core::select::Near;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mistake;
use super::units::{ByteSize, HumanDuration};

/// `[mesh]`: which mesh this process belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MeshSection {
    /// The mesh. Nothing crosses from one to another, even on the same broker.
    #[schemars(schema_with = "super::schema::name")]
    pub name: MeshName,
}

/// `[nats]`: the broker that carries everything between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSection {
    /// Addresses of the servers, separated by commas.
    #[schemars(
        title = "one or more addresses of NATS servers",
        regex(pattern = r"^\s*(nats|tls)://[^\s,]+(\s*,\s*(nats|tls)://[^\s,]+)*\s*$"),
        example = "nats://127.0.0.1:4222"
    )]
    pub url: String,
    /// File with the credentials that the server wants.
    pub credentials: Option<PathBuf>,
}

impl Default for NatsSection {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            credentials: None,
        }
    }
}

/// What makes an instance preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// It runs on the caller's own node.
    Node,
    /// Its node is in the caller's zone.
    Zone,
}

impl From<Preference> for Near {
    fn from(preference: Preference) -> Self {
        match preference {
            Preference::Node => Self::Node,
            Preference::Zone => Self::Zone,
        }
    }
}

/// `[router]`: which instance gets a call, in gateways and agents alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouterSection {
    /// Which instances go before others, the most preferred first; empty: none. One that is at its
    /// limit or fails calls gives way.
    #[schemars(length(max = 2))]
    pub prefer: Vec<Preference>,
    /// For how long a call is kept, within its own time, when the broker or all its instances are gone:
    /// they may be about to come back.
    pub patience: HumanDuration,
    /// Largest payload of a call, and largest result, from 256KiB to 64MiB. Equal everywhere in a mesh;
    /// where it is not, the smaller one holds.
    pub max_payload: ByteSize,
}

impl Default for RouterSection {
    fn default() -> Self {
        Self {
            prefer: vec![Preference::Node, Preference::Zone],
            patience: HumanDuration::from_secs(3),
            max_payload: ByteSize::from_mib(64),
        }
    }
}

impl RouterSection {
    /// The preferences, as selection takes them.
    #[must_use]
    pub fn near(&self) -> Vec<Near> {
        self.prefer.iter().copied().map(Near::from).collect()
    }

    /// All mistakes that the schema can't see.
    #[must_use]
    pub fn validate(&self) -> Vec<Mistake> {
        let range = ByteSize::from_kib(256).get()..=ByteSize::from_mib(64).get();
        if range.contains(&self.max_payload.get()) {
            return Vec::new();
        }
        let (problem, remedy) = ("is out of range", "give 256KiB to 64MiB");
        vec![Mistake::new("router.max_payload", problem, remedy)]
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// `[telemetry]`: logs and traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// What is logged: error, warn, info, debug, trace, or pairs such as "info,gateway=debug".
    #[schemars(schema_with = "super::schema::log_filter")]
    pub log_level: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Where spans are sent by OTLP over gRPC, such as `http://127.0.0.1:4317`; nothing is sent when
    /// neither this nor OTEL_EXPORTER_OTLP_ENDPOINT is set.
    #[schemars(
        title = "the address of a collector",
        extend("pattern" = "^http://[^/\\s]+", "examples" = ["http://127.0.0.1:4317"])
    )]
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        }
    }
}
