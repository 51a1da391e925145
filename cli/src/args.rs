//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use mesh_runtime::HumanDuration;

use crate::commands::{agent::AgentArgs, coordinator::CoordinatorArgs, gateway::GatewayArgs};
use crate::config::CommonFlags;
use crate::dev::DevArgs;
use crate::exit;
use crate::output::Output;

/// A distributed plugin mesh: plugins on many machines, used as one provider.
#[derive(Debug, Parser)]
#[command(
    name = "plugmesh",
    version,
    about,
    after_help = exit::HELP,
    max_term_width = 100,
    args_override_self = true
)]
pub struct Cli {
    /// How results are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: Output,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole mesh on this machine; Ctrl-C stops it
    Dev(Box<DevArgs>),
    /// Run a coordinator: registry, graph, routing table
    Coordinator(CoordinatorArgs),
    /// Run an agent-node: hosts the plugins of this machine
    Agent(AgentArgs),
    /// Run a gateway: the front door for MCP clients
    Gateway(GatewayArgs),
    /// List the plugins
    Plugins(PluginsArgs),
    /// Show one plugin: versions, instances, what it provides and needs
    Plugin(PluginArgs),
    /// Let a plugin take calls again, and start it again after an unload
    Enable(ChangeArgs),
    /// Take a plugin out of routing; its processes go on
    Disable(ChangeArgs),
    /// Drain a plugin and end its processes
    Unload(UnloadArgs),
    /// Share out a plugin's calls among its versions, or show how they are
    Split(SplitArgs),
    /// Bring a plugin to a new version step by step, and back when that fails
    Rollout(RolloutArgs),
    /// Show what would follow from a change or a loss; nothing is done
    Impact(ImpactArgs),
    /// List the agent-nodes
    Nodes(CoordinatorFlags),
    /// List the coordinators, and which of them may evict nodes
    Coordinators(CoordinatorFlags),
    /// Show what needs what
    Graph(GraphArgs),
    /// Show everything as it happens: who did what, and why
    Watch(WatchArgs),
    /// Read back what happened: who did what, and why
    History(HistoryArgs),
    /// Export what operators want as a file, or import it
    Registry(RegistryArgs),
    /// List the tools that the gateway serves
    Tools(ToolsArgs),
    /// Call a tool
    Call(CallArgs),
    /// Make a new plugin in ./NAME
    New(NewArgs),
    /// Say what is wrong, and how to mend it
    Doctor(DoctorArgs),
    /// Check, show or describe the configuration
    Config(ConfigArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Become a command that ends with this process's parent
    #[command(name = crate::tied::COMMAND, hide = true)]
    ExecTied(ExecTiedArgs),
}

/// The coordinator that is asked unless another one is named: that of `plugmesh dev`.
pub const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7400";

/// The gateway that is asked unless another one is named.
pub const DEFAULT_GATEWAY: &str = "http://127.0.0.1:8087/mcp";

/// Which coordinator to ask.
#[derive(Debug, Clone, Args)]
pub struct CoordinatorFlags {
    /// The coordinator to ask
    #[arg(
        long,
        value_name = "URL",
        env = "PLUGMESH_COORDINATOR",
        default_value = DEFAULT_COORDINATOR
    )]
    pub coordinator: String,
}

/// Which gateway to ask.
#[derive(Debug, Clone, Args)]
pub struct GatewayFlags {
    /// The gateway's MCP address
    #[arg(
        long,
        value_name = "URL",
        env = "PLUGMESH_GATEWAY",
        default_value = DEFAULT_GATEWAY
    )]
    pub gateway: String,
}

/// `plugins`.
#[derive(Debug, Args)]
pub struct PluginsArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// Only those that provide this kind (tool, resource, …) or this capability (tool:add)
    #[arg(
        long,
        value_name = "KIND[:NAME]",
        default_value = "",
        hide_default_value = true
    )]
    pub capability: String,
    /// Only those with an instance in this state (active, blocked, …)
    #[arg(
        long,
        value_name = "STATE",
        default_value = "",
        hide_default_value = true
    )]
    pub status: String,
}

/// `plugin`.
#[derive(Debug, Args)]
pub struct PluginArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// The plugin
    pub name: String,
}

/// `enable` and `disable`.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// The plugin
    pub name: String,
    /// Why; kept and shown
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
}

/// `unload`.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Unload those that depend on it, too
    #[arg(long)]
    pub cascade: bool,
}

/// `split`.
#[derive(Debug, Args)]
pub struct SplitArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// The plugin (default: show the splits of all)
    pub name: Option<String>,
    /// What each version gets, in relation to the others, such as 1.4.0=90 2.0.0=10
    #[arg(value_name = "VERSION=WEIGHT")]
    pub shares: Vec<String>,
    /// Requests with this header prefer a version, such as x-test-group=beta:2.0.0; may be repeated
    #[arg(long, value_name = "NAME=VALUE:VERSION", requires = "shares")]
    pub header: Vec<String>,
    /// Give all calls to the newest version again
    #[arg(long, requires = "name", conflicts_with = "shares")]
    pub clear: bool,
    /// Why; kept and shown
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
}

/// `rollout`.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// What to do
    #[command(subcommand)]
    pub what: RolloutCommand,
}

/// What `rollout` does.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Begin; it waits until an instance of the new version is active
    Start(RolloutStartArgs),
    /// Show where rollouts stand, those that are over, too
    Status {
        #[command(flatten)]
        ask: CoordinatorFlags,
        /// The plugin (default: all)
        name: Option<String>,
    },
    /// Give all calls back to the old versions
    Abort {
        #[command(flatten)]
        ask: CoordinatorFlags,
        /// The plugin
        name: String,
        /// Why; kept and shown
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        reason: String,
    },
}

/// `rollout start`.
#[derive(Debug, Args)]
pub struct RolloutStartArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// The plugin
    pub name: String,
    /// The new version
    #[arg(long, value_name = "VERSION")]
    pub to: String,
    /// What it gets of the calls, step by step, in percent
    #[arg(
        long,
        value_name = "PERCENT,…",
        value_delimiter = ',',
        default_value = "10,50,100"
    )]
    pub steps: Vec<u32>,
    /// How long each step lasts at least
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub interval: HumanDuration,
    /// It gives its calls back when more of them fail
    #[arg(long, value_name = "PERCENT", default_value = "5%")]
    pub max_error_rate: String,
    /// How long it is watched from its first call on; all steps at least
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub within: HumanDuration,
    /// Why; kept and shown
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
}

/// `impact`.
#[derive(Debug, Args)]
pub struct ImpactArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// What might be done or happen
    #[command(subcommand)]
    pub of: ImpactOf,
}

/// What might be done or happen.
#[derive(Debug, Subcommand)]
pub enum ImpactOf {
    /// All versions of a plugin are unloaded
    Unload {
        /// The plugin
        name: String,
    },
    /// A plugin takes no calls; its processes go on
    Disable {
        /// The plugin
        name: String,
    },
    /// A plugin runs in this version and no other
    Upgrade {
        /// The plugin
        name: String,
        /// The version
        version: String,
    },
    /// A node is lost with all that runs there
    Node {
        /// The node
        name: String,
    },
}

/// `graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// Only what this plugin needs and what needs it
    #[arg(default_value = "", hide_default_value = true)]
    pub plugin: String,
}

/// `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// Only what is about this plugin, node or instance
    #[arg(default_value = "", hide_default_value = true)]
    pub name: String,
    /// Show the routing table and every change of it instead
    #[arg(long, conflicts_with = "name")]
    pub table: bool,
}

/// `registry`.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// What to do
    #[command(subcommand)]
    pub what: RegistryCommand,
}

/// What `registry` does.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Write what operators want (disabled, unloaded, splits) as TOML
    Export {
        #[command(flatten)]
        ask: CoordinatorFlags,
        /// Where to (default: stdout)
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show what would change to be as a file says, ask, and do it
    Import {
        #[command(flatten)]
        ask: CoordinatorFlags,
        /// The file
        file: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    pub ask: CoordinatorFlags,
    /// Only what is about this plugin, node or instance
    #[arg(default_value = "", hide_default_value = true)]
    pub name: String,
    /// Only what happened in this time until now, such as 2h
    #[arg(long, value_name = "DURATION")]
    pub since: Option<HumanDuration>,
    /// The last so many entries
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// `tools`.
#[derive(Debug, Args)]
pub struct ToolsArgs {
    #[command(flatten)]
    pub ask: GatewayFlags,
}

/// `call`.
#[derive(Debug, Args)]
pub struct CallArgs {
    #[command(flatten)]
    pub ask: GatewayFlags,
    /// The tool, such as calculator_add
    pub name: String,
    /// Arguments as key=value; a value that is JSON is taken as such unless the tool wants a text
    #[arg(value_name = "KEY=VALUE")]
    pub pairs: Vec<String>,
    /// Arguments as a JSON object
    #[arg(long, value_name = "JSON")]
    pub args: Option<String>,
    /// Time that the call may take
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: HumanDuration,
}

/// `new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The plugin's name: lowercase letters, digits and hyphens
    pub name: String,
    /// Folder of the Rust SDK (default: that of the checkout this program was built in, else a
    /// version)
    #[arg(long, value_name = "PATH")]
    pub sdk: Option<PathBuf>,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub common: CommonFlags,
    /// The coordinator to look at (default: that of the running `dev`, else of the configuration)
    #[arg(long, value_name = "URL", env = "PLUGMESH_COORDINATOR")]
    pub coordinator: Option<String>,
    /// The gateway to look at, by its MCP address
    #[arg(long, value_name = "URL", env = "PLUGMESH_GATEWAY")]
    pub gateway: Option<String>,
    /// Folder of `plugmesh dev`; what runs from it is looked at
    #[arg(long, value_name = "DIR", default_value = crate::dev::DEFAULT_DATA)]
    pub data: PathBuf,
}

/// `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do
    #[command(subcommand)]
    pub what: ConfigCommand,
}

/// What `config` does.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check file, environment and flags; every mistake gets a line
    Check(CommonFlags),
    /// Show the configuration as it takes effect
    Show(CommonFlags),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print the reference of the configuration as Markdown
    #[command(hide = true)]
    Reference,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `exec-tied`.
#[derive(Debug, Args)]
pub struct ExecTiedArgs {
    /// The process that wants it
    #[arg(long, value_name = "PID")]
    pub parent: Option<u32>,
    /// The command
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_last_of_two_equal_flags_counts_and_lists_keep_all() {
        let words = "plugmesh dev --listen 1 --plugin a=b --listen 2 --plugin c=d";
        let cli = Cli::try_parse_from(words.split(' '));
        let Ok(Command::Dev(args)) = cli.map(|cli| cli.command) else {
            panic!("{words} is refused");
        };
        assert_eq!(args.listen.port(), 2);
        assert_eq!(args.plugin, ["a=b", "c=d"]);
    }
}
