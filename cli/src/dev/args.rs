//! The flags of `dev`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

/// Where `dev` keeps everything, relative to the working folder.
pub const DEFAULT_DATA: &str = ".plugmesh/dev";

/// `dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Folder for all that the mesh keeps; a second start finds it again
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Where MCP clients connect; a port alone means 127.0.0.1, port 0 any free one
    #[arg(
        long,
        visible_alias = "port",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8087",
        value_parser = address
    )]
    pub listen: SocketAddr,
    /// Where operators connect; port 0 means any free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:7400",
        value_parser = address
    )]
    pub coordinator_listen: SocketAddr,
    /// Where own plugins attach to agent-a; agent-b takes the port after it; port 0 means any free
    /// ones
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:7410",
        value_parser = address
    )]
    pub attach_listen: SocketAddr,
    /// Folder of the example plugins (default: that of this program)
    #[arg(long, value_name = "DIR")]
    pub plugins_dir: Option<PathBuf>,
    /// Start without the example plugins
    #[arg(long)]
    pub no_plugins: bool,
    /// One more plugin: AGENT=COMMAND or AGENT/NAME=COMMAND (the program's name otherwise), with
    /// agent-a or agent-b; may be given several times
    #[arg(long, value_name = "AGENT=COMMAND")]
    pub plugin: Vec<String>,
    /// Show the logs of all processes as they are written
    #[arg(long, short)]
    pub verbose: bool,
    /// What the roles log: error, warn, info, debug, trace, or pairs such as info,gateway=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How the roles' log lines are written: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Where the roles and plugins send spans by OTLP over gRPC
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// `ADDRESS:PORT` or `PORT`.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        "it is not an address with a port; write for example 127.0.0.1:9000 or 9000".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback() {
        assert_eq!(
            address("9000"),
            Ok(SocketAddr::from(([127, 0, 0, 1], 9000)))
        );
        assert_eq!(
            address("0.0.0.0:1"),
            Ok(SocketAddr::from(([0, 0, 0, 0], 1)))
        );
        for bad in ["localhost", "70000", "127.0.0.1", ""] {
            assert!(
                address(bad).is_err_and(|why| why.contains("for example")),
                "{bad}"
            );
        }
    }
}
