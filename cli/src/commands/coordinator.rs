//! `plugmesh coordinator`.

use clap::Args;
use coordinator::RunError;
use serde_json::json;

use crate::config::{CommonFlags, Section};
use crate::exit::{self, Failure};
use crate::role;

/// `coordinator`.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    #[command(flatten)]
    common: CommonFlags,
    /// The coordinator's name; it keeps it when it is restarted
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where agents, gateways and operators connect by gRPC
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where /health, /ready and /metrics are
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
}

/// Runs a coordinator until a signal comes.
///
/// # Errors
/// A wrong configuration, or what the coordinator failed with.
pub fn run(args: &CoordinatorArgs) -> Result<(), Failure> {
    let flags = json!({
        "name": args.name,
        "listen": args.listen,
        "admin_listen": args.admin_listen,
    });
    let config = args.common.load(Section::Coordinator, flags)?;
    let name = config.coordinator.name.to_string();
    let run = config.coordinator();
    role::run(&config.telemetry, "coordinator", &name, async |context| {
        let ran = coordinator::run(run, context).await;
        ran.map_err(|error| Failure::new(code(&error), error.to_string()))
    })
}

fn code(error: &RunError) -> u8 {
    match error {
        RunError::Bind(_) => exit::UNAVAILABLE,
        RunError::Bus(_) => exit::CONFIG,
        RunError::Descriptor(_) | RunError::Ended => exit::FAILED,
    }
}
