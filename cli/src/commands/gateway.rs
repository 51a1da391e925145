//! `plugmesh gateway`.

use clap::Args;
use gateway::RunError;
use serde_json::json;

use crate::config::{CommonFlags, Section};
use crate::exit::{self, Failure};
use crate::role;

/// `gateway`.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    #[command(flatten)]
    common: CommonFlags,
    /// Where MCP clients connect: http://ADDRESS:PORT/mcp
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Coordinators, separated by commas, in the order in which they are tried
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    coordinators: Option<Vec<String>>,
    /// Folder for the last routing table
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The gateway's name in the mesh
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// When the plugin's name stands before the names of its tools: always, on_collision or never
    #[arg(long, value_name = "POLICY")]
    prefix: Option<String>,
    /// Threads that serve clients
    #[arg(long, value_name = "NUMBER")]
    shards: Option<u16>,
    /// Time that a call may take
    #[arg(long, value_name = "DURATION")]
    call_timeout: Option<String>,
}

/// Runs a gateway until a signal comes.
///
/// # Errors
/// A wrong configuration, or what the gateway failed with.
pub fn run(args: &GatewayArgs) -> Result<(), Failure> {
    let flags = json!({
        "listen": args.listen,
        "coordinators": args.coordinators,
        "data_dir": args.data_dir,
        "name": args.name,
        "prefix": args.prefix,
        "shards": args.shards,
        "call_timeout": args.call_timeout,
    });
    let config = args.common.load(Section::Gateway, flags)?;
    let name = config.gateway.name.to_string();
    let run = config.gateway();
    role::run(&config.telemetry, "gateway", &name, async |context| {
        let ran = gateway::run(run, context).await;
        ran.map_err(|error| Failure::new(code(&error), error.to_string()))
    })
}

fn code(error: &RunError) -> u8 {
    match error {
        RunError::Bind(_) => exit::UNAVAILABLE,
        RunError::DataDir { .. } | RunError::Table(_) => exit::CANT_CREATE,
        RunError::Bus(_) => exit::CONFIG,
        RunError::Listener(_) | RunError::Thread(_) | RunError::Ended => exit::FAILED,
    }
}
