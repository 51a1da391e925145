//! `plugmesh agent`.

use agent_node::AgentError;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::config::{CommonFlags, Section};
use crate::exit::{self, Failure};
use crate::{role, tied};

/// `agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    common: CommonFlags,
    /// This node's name in the mesh
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The zone that this node is in
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// A label of this node; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Coordinators, separated by commas, in the order in which they are tried
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    coordinators: Option<Vec<String>>,
    /// Folder for what this node keeps
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where plugins attach by TCP
    #[arg(long, value_name = "ADDRESS:PORT")]
    attach_tcp: Option<String>,
    /// Where plugins attach by a Unix socket
    #[arg(long, value_name = "PATH")]
    attach_unix: Option<String>,
    /// Where /health, /ready and /metrics are
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
    /// Calls in flight that this node takes
    #[arg(long, value_name = "NUMBER")]
    max_in_flight: Option<u32>,
}

/// Runs an agent until a signal comes.
///
/// # Errors
/// A wrong configuration, or what the agent failed with.
pub fn run(args: &AgentArgs) -> Result<(), Failure> {
    let flags = json!({
        "node": args.node,
        "zone": args.zone,
        "labels": labels(&args.label)?,
        "coordinators": args.coordinators,
        "data_dir": args.data_dir,
        "attach_tcp": args.attach_tcp,
        "attach_unix": args.attach_unix,
        "admin_listen": args.admin_listen,
        "max_in_flight": args.max_in_flight,
    });
    let mut config = args.common.load(Section::Agent, flags)?;
    if config.agent.launcher.is_empty() {
        config.agent.launcher = tied::prefix()?;
    }
    let name = config.agent.node.to_string();
    let run = config.agent();
    role::run(&config.telemetry, "agent", &name, async |context| {
        let ran = agent_node::run(run, context).await;
        ran.map_err(|error| Failure::new(code(&error), error.to_string()))
    })
}

fn code(error: &AgentError) -> u8 {
    match error {
        AgentError::Bind(_) | AgentError::SocketTaken { .. } => exit::UNAVAILABLE,
        AgentError::DataDir { .. }
        | AgentError::NotASocket { .. }
        | AgentError::Socket { .. }
        | AgentError::Table(_) => exit::CANT_CREATE,
        AgentError::Bus(_) => exit::CONFIG,
        AgentError::Descriptor(_) | AgentError::Thread(_) | AgentError::Server { .. } => {
            exit::FAILED
        }
    }
}

/// `key=value` pairs as an object; null when there are none, so that the file's stay.
fn labels(pairs: &[String]) -> Result<Value, Failure> {
    let mut labels = Map::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            let message =
                format!("--label: {pair:?} is not key=value; write for example --label disk=ssd");
            return Err(Failure::new(exit::USAGE, message));
        };
        labels.insert(key.to_owned(), value.into());
    }
    Ok(if labels.is_empty() {
        Value::Null
    } else {
        Value::Object(labels)
    })
}
