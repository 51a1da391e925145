//! The agent's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh_core::id::{NodeId, PluginName};
use mesh_runtime::config::{Mistake, Validate};
use mesh_runtime::{ByteSize, HumanDuration, MeshSection, NatsSection, RouterSection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest path of a Unix socket, in bytes. Systems differ (104 to 108, with a final zero).
pub(crate) const MAX_SOCKET_PATH: usize = 99;

/// Some frames of the largest size.
const MIN_BYTES_IN_FLIGHT: ByteSize = ByteSize::from_mib(1);

/// What an agent-node needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Which mesh this agent belongs to.
    pub mesh: MeshSection,
    /// The broker between nodes.
    pub nats: NatsSection,
    /// Which instance gets a plugin's call.
    pub router: RouterSection,
    /// The agent.
    pub agent: Config,
}

/// `[agent]`: the plugins of one machine.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name of this node; each node of a mesh has its own.
    #[schemars(schema_with = "mesh_runtime::config::schema::name")]
    pub node: NodeId,
    /// The zone that the node is in, such as a data centre; free form.
    pub zone: String,
    /// Labels of the node; free form.
    pub labels: BTreeMap<String, String>,
    /// Coordinators, in the order in which they are tried; a name stands for all addresses that it has.
    #[schemars(inner(regex(pattern = r"^https?://[^\s/]+/?$")))]
    pub coordinators: Vec<String>,
    /// Folder for the table's snapshot and the socket.
    pub data_dir: PathBuf,
    /// Where plugins attach by TCP; absent or empty: nowhere.
    #[schemars(schema_with = "mesh_runtime::config::schema::optional_socket_addr")]
    pub attach_tcp: Option<SocketAddr>,
    /// The Unix socket that plugins attach to; absent: `attach.sock` in `data_dir`.
    pub attach_unix: Option<PathBuf>,
    /// Where `/health`, `/ready` and `/metrics` are served.
    #[schemars(schema_with = "mesh_runtime::config::schema::socket_addr")]
    pub admin_listen: SocketAddr,
    /// Calls in flight on this node; further ones are shed.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: u32,
    /// Calls in flight to one instance, where its manifest allows no fewer.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight_per_instance: u32,
    /// Bytes of calls that are held on this node for plugins and callers that do not take them as fast as
    /// they come; with more, new calls are shed.
    pub max_bytes_in_flight: ByteSize,
    /// Bytes of calls that wait for one instance; with more, new calls to it are shed.
    pub max_bytes_in_flight_per_instance: ByteSize,
    /// Time between two messages that tell the mesh how busy the plugins are and that this node is alive.
    /// Over 250ms callers ask the node more often, and notice its loss later.
    pub beacon_interval: HumanDuration,
    /// Time that running calls and plugins get to end when the agent stops or a plugin is unloaded.
    pub drain_grace: HumanDuration,
    /// What stands before each plugin's command: ties children to the agent's life.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub launcher: Vec<String>,
    /// Plugins that this agent starts and watches.
    pub plugins: Vec<PluginLaunch>,
    /// Configurations of plugins that attach by themselves, by plugin.
    #[schemars(with = "BTreeMap<String, BTreeMap<String, Value>>")]
    pub plugin_config: BTreeMap<PluginName, Map<String, Value>>,
}

/// A plugin that the agent starts and watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginLaunch {
    /// The plugin's name, as in its manifest.
    #[schemars(schema_with = "mesh_runtime::config::schema::name")]
    pub name: PluginName,
    /// The program and its arguments.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// Variables that are set in its environment, beside the agent's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The folder that it runs in; absent: the agent's own.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// How many processes of it run.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000))]
    pub instances: u32,
    /// Its configuration, checked against the schema in its manifest.
    #[serde(default)]
    pub config: Map<String, Value>,
}

fn one() -> u32 {
    1
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: default_node(),
            zone: String::new(),
            labels: BTreeMap::new(),
            coordinators: vec!["http://127.0.0.1:7400".to_owned()],
            data_dir: PathBuf::from(".plugmesh/agent"),
            attach_tcp: Some(SocketAddr::from(([127, 0, 0, 1], 7410))),
            attach_unix: None,
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7411)),
            max_in_flight: 4096,
            max_in_flight_per_instance: 1024,
            max_bytes_in_flight: ByteSize::from_mib(256),
            max_bytes_in_flight_per_instance: ByteSize::from_mib(16),
            beacon_interval: HumanDuration::from_millis(250),
            drain_grace: HumanDuration::from_secs(10),
            launcher: Vec::new(),
            plugins: Vec::new(),
            plugin_config: BTreeMap::new(),
        }
    }
}

/// The machine's name as far as it is a valid node name, else "node".
fn default_node() -> NodeId {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().to_ascii_lowercase();
    let label = name.split('.').next().unwrap_or_default().to_owned();
    [label.as_str(), "node"]
        .iter()
        .find_map(|name| NodeId::new(name).ok())
        .unwrap_or_else(fallback_node)
}

/// "node" is a valid name, which the type can't know.
#[allow(clippy::expect_used, reason = "a constant that a test checks")]
fn fallback_node() -> NodeId {
    NodeId::new("node").expect("a valid constant")
}

impl Config {
    /// The Unix socket that plugins attach to.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.attach_unix
            .clone()
            .unwrap_or_else(|| self.data_dir.join("attach.sock"))
    }
}

impl Validate for RunConfig {
    fn validate(&self) -> Vec<Mistake> {
        self.agent.mistakes("agent")
    }
}

impl Config {
    /// Every rule that the schema can't state; `section` is where this stands in the file.
    fn mistakes(&self, section: &str) -> Vec<Mistake> {
        let mut found = Vec::new();
        let mut mistake = |field: &str, problem: String, remedy: &str| {
            found.push(Mistake::new(format!("{section}.{field}"), problem, remedy));
        };
        self.check_sockets(&mut mistake);
        for (index, address) in self.coordinators.iter().enumerate() {
            if tonic::transport::Endpoint::from_shared(address.clone()).is_err() {
                let problem = format!("{address:?} is no address");
                let remedy = "write for example http://127.0.0.1:7400";
                mistake(&format!("coordinators[{index}]"), problem, remedy);
            }
        }
        if self.coordinators.is_empty() {
            let problem = "it is empty, so the agent would join no mesh".to_owned();
            mistake("coordinators", problem, "give the address of a coordinator");
        }
        let interval = self.beacon_interval.get().as_millis();
        if !(50..=10_000).contains(&interval) {
            let problem = format!("it is {interval} ms");
            mistake("beacon_interval", problem, "give from 50ms to 10s");
        }
        if let Err(why) = writable(&self.data_dir) {
            let remedy = "give a folder that this user can write";
            mistake("data_dir", why, remedy);
        }
        for (field, value) in [
            ("max_in_flight", self.max_in_flight),
            (
                "max_in_flight_per_instance",
                self.max_in_flight_per_instance,
            ),
        ] {
            if value == 0 {
                mistake(
                    field,
                    "it is 0, so no call would be taken".into(),
                    "give at least 1",
                );
            }
        }
        for (field, value) in [
            ("max_bytes_in_flight", self.max_bytes_in_flight),
            (
                "max_bytes_in_flight_per_instance",
                self.max_bytes_in_flight_per_instance,
            ),
        ] {
            if value < MIN_BYTES_IN_FLIGHT {
                let problem = format!("{value} is less than the frames of a few calls");
                let remedy = format!("give at least {MIN_BYTES_IN_FLIGHT}");
                mistake(field, problem, &remedy);
            }
        }
        for (index, plugin) in self.plugins.iter().enumerate() {
            self.check_plugin(index, plugin, &mut mistake);
        }
        for name in self.plugin_config.keys() {
            if self.plugins.iter().any(|plugin| plugin.name == *name) {
                let problem = "this agent starts the plugin, whose configuration stands with it";
                let remedy = "move it to the config of the plugin in agent.plugins";
                mistake(&format!("plugin_config.{name}"), problem.into(), remedy);
            }
        }
        found
    }

    fn check_sockets(&self, mistake: &mut impl FnMut(&str, String, &str)) {
        let path = self.socket_path();
        let bytes = path.as_os_str().len();
        if bytes > MAX_SOCKET_PATH {
            let field = match self.attach_unix {
                Some(_) => "attach_unix",
                None => "data_dir",
            };
            let problem = format!(
                "the socket's path {} has {bytes} bytes, {MAX_SOCKET_PATH} are allowed",
                path.display()
            );
            let remedy = "give a shorter path in agent.attach_unix";
            mistake(field, problem, remedy);
        }
        if self
            .attach_tcp
            .is_some_and(|tcp| tcp.port() != 0 && tcp == self.admin_listen)
        {
            let problem = format!("{} is agent.attach_tcp, too", self.admin_listen);
            mistake("admin_listen", problem, "give another port");
        }
    }

    fn check_plugin(
        &self,
        index: usize,
        plugin: &PluginLaunch,
        mistake: &mut impl FnMut(&str, String, &str),
    ) {
        let field = |name: &str| format!("plugins[{index}].{name}");
        let first = self
            .plugins
            .iter()
            .position(|other| other.name == plugin.name);
        if let Some(first) = first.filter(|first| *first < index) {
            let problem = format!("{} is the name of agent.plugins[{first}], too", plugin.name);
            let remedy = "give each plugin once; `instances` starts several of it";
            mistake(&field("name"), problem, remedy);
        }
        if plugin
            .command
            .first()
            .is_none_or(|program| program.is_empty())
        {
            let remedy = "give the program and its arguments, such as [\"./my-plugin\"]";
            mistake(&field("command"), "it names no program".to_owned(), remedy);
        }
        if plugin.instances == 0 {
            let remedy = "give at least 1, or leave the plugin out";
            mistake(&field("instances"), "it is 0".to_owned(), remedy);
        }
        if let Some(dir) = plugin.dir.as_ref().filter(|dir| !dir.is_dir()) {
            let problem = format!("{} is no folder", dir.display());
            mistake(&field("dir"), problem, "make it, or give another");
        }
        for name in plugin.env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                let problem = format!("{name:?} is no name of a variable");
                mistake(
                    &field("env"),
                    problem,
                    "use letters, digits and underscores",
                );
            } else if ["PLUGMESH_AGENT", "PLUGMESH_LAUNCH_TOKEN"].contains(&name.as_str()) {
                let problem = format!("{name} is set by the agent itself");
                mistake(&field("env"), problem, "leave it out");
            }
        }
    }
}

/// Whether a folder, or the nearest one above it that exists, can be written.
fn writable(dir: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
    if dir.as_os_str().is_empty() {
        return Err("it is empty".to_owned());
    }
    let there = dir.ancestors().find(|folder| {
        // The parent of a relative name is the folder that the agent runs in.
        folder.as_os_str().is_empty() || folder.symlink_metadata().is_ok()
    });
    let there = match there {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !there.is_dir() {
        return Err(format!("{} is no folder", there.display()));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("{} can't be written: {error}", there.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        Config {
            data_dir: dir.to_owned(),
            ..Config::default()
        }
    }

    fn plugin(name: &str) -> PluginLaunch {
        PluginLaunch {
            name: name.parse().unwrap(),
            command: vec!["./plugin".to_owned()],
            env: BTreeMap::new(),
            dir: None,
            instances: 1,
            config: Map::new(),
        }
    }

    fn lines(config: &Config) -> Vec<String> {
        let found = config.mistakes("agent");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_in_a_writable_folder_have_no_mistake() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lines(&config(dir.path())), Vec::<String>::new());
        assert_eq!(
            lines(&config(&dir.path().join("not/yet/there"))),
            Vec::<String>::new()
        );
        assert_eq!(fallback_node().as_str(), "node");
    }

    #[test]
    fn every_mistake_is_listed_with_its_field() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.plugins = vec![plugin("time"), plugin("time"), plugin("idle")];
        config.plugins[1].command.clear();
        config.plugins[2].instances = 0;
        config.plugins[2].dir = Some(dir.path().join("missing"));
        config.plugins[2]
            .env
            .insert("PLUGMESH_AGENT".to_owned(), String::new());
        config
            .plugin_config
            .insert("time".parse().unwrap(), Map::new());
        config.attach_unix = Some(PathBuf::from(format!("/tmp/{}", "x".repeat(120))));
        config.admin_listen = config.attach_tcp.unwrap();
        config.coordinators = vec!["not an address".to_owned()];
        config.max_in_flight = 0;
        config.max_bytes_in_flight = ByteSize::from_kib(1);
        let lines = lines(&config);
        for field in [
            "agent.plugins[1].name: time is the name of agent.plugins[0], too",
            "agent.plugins[1].command: it names no program",
            "agent.plugins[2].instances: it is 0",
            "agent.plugins[2].dir: ",
            "agent.plugins[2].env: PLUGMESH_AGENT",
            "agent.plugin_config.time: ",
            "agent.attach_unix: the socket's path",
            "agent.admin_listen: 127.0.0.1:7410 is agent.attach_tcp, too",
            "agent.coordinators[0]: ",
            "agent.max_in_flight: it is 0",
            "agent.max_bytes_in_flight: 1KiB is less",
        ] {
            assert!(
                lines.iter().any(|line| line.starts_with(field)),
                "{field} is missing in {lines:#?}"
            );
        }
        assert_eq!(lines.len(), 11, "{lines:#?}");
    }

    #[test]
    fn a_data_dir_that_is_a_file_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let lines = lines(&config(&file));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("agent.data_dir: "), "{lines:?}");
        assert!(lines[0].contains("is no folder"), "{lines:?}");
    }
}
