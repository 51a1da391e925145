//! The configuration of every role, in one file: `plugmesh.toml`.

use std::path::{Path, PathBuf};

use clap::Args;
use mesh_bus::{BusConfig, BusError};
use mesh_runtime::config::{ConfigErrors, Mistake, Sources, Validate, load_with};
use mesh_runtime::{MeshSection, NatsSection, RouterSection, TelemetryConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::exit::{self, Failure};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "plugmesh.toml";

/// All settings. A role reads its own section and the shared ones.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which mesh this process belongs to.
    pub mesh: MeshSection,
    /// The broker that carries everything between nodes.
    pub nats: NatsSection,
    /// Which instance gets a call, in gateways and agents alike.
    pub router: RouterSection,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// The coordinator: registry, graph, routing table.
    pub coordinator: coordinator::Config,
    /// The agent-node: hosts the plugins of one machine.
    pub agent: agent_node::Config,
    /// The gateway: the front door for MCP clients.
    pub gateway: gateway::Config,
}

/// Whose rules are checked. The schema of the whole file always is; but that a folder can be written
/// is of interest only to who writes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The coordinator's.
    Coordinator,
    /// The agent's.
    Agent,
    /// The gateway's.
    Gateway,
    /// Everybody's.
    All,
}

impl Section {
    /// The section's name in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Agent => "agent",
            Self::Gateway => "gateway",
            Self::All => "",
        }
    }

    /// All mistakes that the schema can't see.
    pub fn rules(self, config: &Config) -> Vec<Mistake> {
        let mut mistakes = nats_mistakes(config);
        mistakes.extend(config.router.validate());
        if matches!(self, Self::Coordinator | Self::All) {
            mistakes.extend(config.coordinator.validate());
        }
        if matches!(self, Self::Agent | Self::All) {
            mistakes.extend(config.agent().validate());
        }
        if matches!(self, Self::Gateway | Self::All) {
            mistakes.extend(config.gateway.validate());
        }
        mistakes
    }
}

/// What every role would refuse of the section `nats` when it starts.
fn nats_mistakes(config: &Config) -> Vec<Mistake> {
    let bus = BusConfig {
        urls: config.nats.url.clone(),
        credentials: config.nats.credentials.clone(),
        client_name: String::new(),
        mesh: config.mesh.name.clone(),
    };
    let mistake = |error| match error {
        BusError::Url { why, .. } => {
            let remedy = "write for example nats://127.0.0.1:4222";
            Some(Mistake::new(
                "nats.url",
                format!("is not valid: {why}"),
                remedy,
            ))
        }
        BusError::Credentials { path, why } => {
            let problem = format!("{} is of no use: {why}", path.display());
            let remedy = "give a .creds file that this user can read";
            Some(Mistake::new("nats.credentials", problem, remedy))
        }
        BusError::Closed => None,
    };
    bus.check().into_iter().filter_map(mistake).collect()
}

impl Config {
    /// What a coordinator needs of it.
    pub fn coordinator(&self) -> coordinator::RunConfig {
        coordinator::RunConfig {
            mesh: self.mesh.clone(),
            nats: self.nats.clone(),
            coordinator: self.coordinator.clone(),
        }
    }

    /// What an agent needs of it.
    pub fn agent(&self) -> agent_node::RunConfig {
        agent_node::RunConfig {
            mesh: self.mesh.clone(),
            nats: self.nats.clone(),
            router: self.router.clone(),
            agent: self.agent.clone(),
        }
    }

    /// What a gateway needs of it.
    pub fn gateway(&self) -> gateway::RunConfig {
        gateway::RunConfig {
            mesh: self.mesh.clone(),
            nats: self.nats.clone(),
            router: self.router.clone(),
            gateway: self.gateway.clone(),
        }
    }
}

/// Flags that every role and `config` take.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonFlags {
    /// Configuration file (default: ./plugmesh.toml if it is there)
    #[arg(long, value_name = "FILE", env = "PLUGMESH_CONFIG")]
    pub config: Option<PathBuf>,
    /// The mesh's name
    #[arg(long, value_name = "NAME")]
    pub mesh: Option<String>,
    /// Addresses of the NATS servers, separated by commas
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or pairs such as info,gateway=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How log lines are written: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Where spans are sent by OTLP over gRPC, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl CommonFlags {
    /// The file that is named, or the default one if it is there.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        let default = Path::new(DEFAULT_FILE);
        self.config
            .clone()
            .or_else(|| default.exists().then(|| default.to_owned()))
    }

    fn values(&self) -> Value {
        json!({
            "mesh": { "name": self.mesh },
            "nats": { "url": self.nats },
            "telemetry": {
                "log_level": self.log_level,
                "log_format": self.log_format,
                "otlp_endpoint": self.otlp_endpoint,
            },
        })
    }

    /// Loads the configuration: defaults, file, environment, these flags and those of the role,
    /// which are the section's.
    ///
    /// # Errors
    /// [`exit::CONFIG`] with a line for each mistake; [`exit::USAGE`] when all are in flags.
    pub fn load(&self, section: Section, flags: Value) -> Result<Config, Failure> {
        let mut values = self.values();
        if let Value::Object(all) = &mut values
            && section != Section::All
        {
            all.insert(section.name().to_owned(), flags);
        }
        let sources = Sources {
            file: self.file(),
            flags: values,
            flag_names: vec![
                ("mesh.name", "mesh"),
                ("nats.url", "nats"),
                ("agent.labels", "label"),
            ],
            ..Sources::default()
        };
        load_with(&sources.with_env(), |config| section.rules(config)).map_err(refused)
    }
}

/// The mistakes of a configuration as a failure.
pub fn refused(errors: ConfigErrors) -> Failure {
    let flags_only = errors
        .0
        .iter()
        .all(|found| found.source.starts_with("flag "));
    let code = if flags_only {
        exit::USAGE
    } else {
        exit::CONFIG
    };
    Failure::new(code, errors.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_refuses_a_broker_that_it_could_not_connect_to() {
        let mut config = Config::default();
        config.agent.data_dir = std::env::temp_dir();
        let fields = |section: Section, config: &Config| -> Vec<String> {
            let found = section.rules(config).into_iter();
            found.map(|mistake| mistake.field).collect()
        };
        let sections = [
            Section::Coordinator,
            Section::Agent,
            Section::Gateway,
            Section::All,
        ];
        for section in sections {
            assert!(fields(section, &config).is_empty(), "{section:?}");
        }
        config.nats.url = "nats://[".to_owned();
        config.nats.credentials = Some("/nonexistent/x.creds".into());
        for section in sections {
            let found = fields(section, &config);
            assert_eq!(found, ["nats.url", "nats.credentials"], "{section:?}");
        }
    }
}
