//! Sections that several services share.

use std::path::PathBuf;

use mesh_core::id::MeshName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
