//! Everything about a mesh that is decided before it is started: addresses, folders, files.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mesh_runtime::config::{Sources, env_name, load_with};
use serde_json::{Map, Value, json};

use super::args::DevArgs;
use super::nats::Server;
use super::plugins::{AGENTS, Launch};
use super::ports::Ports;
use crate::config::{Config, Section, refused};
use crate::exit::Failure;

/// Longest path of a Unix socket that every system takes, in bytes.
const SOCKET_PATH: usize = 99;

/// What is started, and where.
#[derive(Debug)]
pub struct Plan {
    /// The folder of it all.
    pub data: PathBuf,
    /// The broker's program.
    pub server: Server,
    /// Where the broker listens.
    pub nats: SocketAddr,
    /// Where the coordinator listens.
    pub coordinator: SocketAddr,
    /// The coordinator's admin endpoints.
    pub coordinator_admin: SocketAddr,
    /// The agents.
    pub agents: Vec<AgentPlan>,
    /// Where the gateway listens.
    pub gateway: SocketAddr,
    /// The plugins.
    pub plugins: Vec<Launch>,
    telemetry: Value,
}

/// One agent.
#[derive(Debug)]
pub struct AgentPlan {
    /// Its name, and its folder's.
    pub name: String,
    /// Where plugins attach by TCP.
    pub attach_tcp: SocketAddr,
    /// The socket that plugins attach to.
    pub attach_unix: PathBuf,
    /// Its admin endpoints.
    pub admin: SocketAddr,
}

impl Plan {
    /// Decides. Ports that were asked for are looked at, free ones are chosen.
    ///
    /// # Errors
    /// When a port is taken, naming the flag.
    pub fn make(
        args: &DevArgs,
        data: &Path,
        server: Server,
        plugins: Vec<Launch>,
    ) -> Result<Self, Failure> {
        let mut ports = Ports::default();
        let gateway = ports.take(args.listen, "gateway", "--listen")?;
        let coordinator = ports.take(
            args.coordinator_listen,
            "coordinator",
            "--coordinator-listen",
        )?;
        let first = ports.take(args.attach_listen, "agent-a", "--attach-listen")?;
        let second = ports.after(first, args.attach_listen, "agent-b")?;
        let mut agents = Vec::new();
        for (name, attach_tcp) in AGENTS.into_iter().zip([first, second]) {
            agents.push(AgentPlan {
                name: name.to_owned(),
                attach_tcp,
                attach_unix: socket(data, name)?,
                admin: ports.any(name)?,
            });
        }
        Ok(Self {
            data: data.to_owned(),
            server,
            nats: ports.any("nats-server")?,
            coordinator,
            coordinator_admin: ports.any("coordinator")?,
            agents,
            gateway,
            plugins,
            telemetry: json!({
                "log_level": args.log_level,
                "log_format": args.log_format,
                "otlp_endpoint": args.otlp_endpoint,
            }),
        })
    }

    /// The MCP address.
    pub fn mcp(&self) -> String {
        format!("http://{}/mcp", reached(self.gateway))
    }

    /// The coordinator's address as agents, gateways and operators take it.
    pub fn coordinator_url(&self) -> String {
        format!("http://{}", reached(self.coordinator))
    }

    /// The configuration file of a process.
    pub fn file(&self, process: &str) -> PathBuf {
        match process {
            "nats-server" => self.data.join("nats-server.conf"),
            role => self.data.join(role).join("plugmesh.toml"),
        }
    }

    /// The log of a process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.data.join("logs").join(format!("{process}.log"))
    }

    /// Writes the configuration files and checks that each role takes its own.
    ///
    /// # Errors
    /// When one can't be written; every mistake that flags and environment bring in.
    pub fn write(&self) -> Result<(), Failure> {
        let store = self.data.join("nats");
        let text = self.server.config(self.nats, &store);
        save(&self.file("nats-server"), &text)?;
        let agents = self.agents.iter().map(|agent| agent.name.as_str());
        for role in ["coordinator"].into_iter().chain(agents).chain(["gateway"]) {
            let config = self.config(role);
            let text = toml::to_string(&config).map_err(|error| {
                Failure::failed(format!(
                    "the configuration of {role} can't be written: {error}"
                ))
            })?;
            let head = "# Written by `plugmesh dev` at each start.\n";
            save(&self.file(role), &format!("{head}{text}"))?;
            self.check(role)?;
        }
        Ok(())
    }

    /// What dev decides for a role.
    fn config(&self, role: &str) -> Value {
        let mut all = json!({ "nats": { "url": format!("nats://{}", self.nats) } });
        let mut telemetry = self.telemetry.clone();
        if let Value::Object(given) = &mut telemetry {
            given.retain(|_, value| !value.is_null());
            if !given.is_empty() {
                put(&mut all, "telemetry", telemetry);
            }
        }
        let folder = self.data.join(role);
        match role {
            "coordinator" => {
                let section = json!({
                    "listen": self.coordinator,
                    "admin_listen": self.coordinator_admin,
                });
                put(&mut all, "coordinator", section);
            }
            "gateway" => {
                let section = json!({
                    "listen": self.gateway,
                    "coordinators": [self.coordinator_url()],
                    "data_dir": folder,
                });
                put(&mut all, "gateway", section);
                self.allow_own_address(&mut all);
            }
            name => {
                let agent = self.agents.iter().find(|agent| agent.name == name);
                if let Some(agent) = agent {
                    put(&mut all, "agent", self.agent_config(agent, &folder));
                }
            }
        }
        all
    }

    /// Who has the gateway listen on an address of the network wants to reach it by that.
    fn allow_own_address(&self, all: &mut Value) {
        let ip = self.gateway.ip();
        let own_wish = std::env::var_os(env_name("gateway.allowed_hosts")).is_some();
        if ip.is_loopback() || ip.is_unspecified() || own_wish {
            return;
        }
        let mut hosts = gateway::Config::default().allowed_hosts;
        hosts.push(match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        if let Some(section) = all.get_mut("gateway") {
            put(section, "allowed_hosts", json!(hosts));
        }
    }

    fn agent_config(&self, agent: &AgentPlan, folder: &Path) -> Value {
        let plugins: Vec<Value> = self
            .plugins
            .iter()
            .filter(|launch| launch.agent == agent.name)
            .map(Launch::as_json)
            .collect();
        json!({
            "node": agent.name,
            "coordinators": [self.coordinator_url()],
            "data_dir": folder,
            "attach_tcp": agent.attach_tcp,
            "attach_unix": agent.attach_unix,
            "admin_listen": agent.admin,
            "plugins": plugins,
        })
    }

    /// Variables that a role must not see: they would win over what dev decides.
    pub fn hidden_variables(&self, role: &str) -> Vec<String> {
        let mut found = vec!["PLUGMESH_CONFIG".to_owned()];
        settings(&self.config(role), "", &mut found);
        found
    }

    /// Loads a role's configuration as the role will.
    fn check(&self, role: &str) -> Result<(), Failure> {
        let section = match role {
            "coordinator" => Section::Coordinator,
            "gateway" => Section::Gateway,
            _ => Section::Agent,
        };
        let mut sources = Sources {
            file: Some(self.file(role)),
            // Told again, so that a mistake in them names the flag.
            flags: json!({ "telemetry": self.telemetry }),
            ..Sources::default()
        }
        .with_env();
        let hidden = self.hidden_variables(role);
        sources.env.retain(|(name, _)| !hidden.contains(name));
        load_with(&sources, |config: &Config| section.rules(config))
            .map(drop)
            .map_err(refused)
    }
}

/// The address by which this machine reaches what listens on all its addresses.
pub fn reached(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn put(all: &mut Value, key: &str, value: Value) {
    if let Value::Object(all) = all {
        all.insert(key.to_owned(), value);
    }
}

/// The variables of all settings in a configuration.
fn settings(value: &Value, path: &str, found: &mut Vec<String>) {
    let empty = Map::new();
    for (key, value) in value.as_object().unwrap_or(&empty) {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match value {
            Value::Object(_) => settings(value, &path, found),
            _ => found.push(env_name(&path)),
        }
    }
}

fn save(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| {
        Failure::cant_create(format!(
            "{} can't be written: {error}; choose another folder with --data",
            path.display()
        ))
    })
}

/// The socket in the agent's folder; under a deep folder one with a short path elsewhere.
fn socket(data: &Path, agent: &str) -> Result<PathBuf, Failure> {
    let own = data.join(agent).join("attach.sock");
    if own.as_os_str().len() <= SOCKET_PATH {
        return Ok(own);
    }
    let folder = short_folder(data);
    let made = private_folder(&folder);
    made.map_err(|error| {
        Failure::cant_create(format!(
            "the folder {} for sockets can't be made: {error}; choose a shorter folder with --data",
            folder.display()
        ))
    })?;
    Ok(folder.join(format!("{agent}.sock")))
}

/// Where the sockets are when the folder of the mesh has too long a path.
fn short_folder(data: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    std::env::temp_dir().join(format!("plugmesh-{:016x}", hasher.finish()))
}

/// Leaves nothing outside the folder of a mesh that has ended.
pub fn forget_sockets(data: &Path) {
    // Mostly there is none; and none is taken away that holds anything.
    let _ = fs::remove_dir(short_folder(data));
}

/// A folder in a place that others may write to must be this user's own and closed to them.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    if let Err(error) = made
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let found = fs::symlink_metadata(folder)?;
    let own = found.uid() == rustix::process::getuid().as_raw();
    if !found.is_dir() || !own || found.permissions().mode() & 0o077 != 0 {
        return Err(std::io::Error::other(
            "it is there already, and open to others",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dev_decides_is_hidden_from_the_environment_and_the_rest_is_not() {
        let mut found = Vec::new();
        let config =
            json!({ "gateway": { "listen": "x", "coordinators": ["y"] }, "nats": { "url": "z" } });
        settings(&config, "", &mut found);
        assert_eq!(
            found,
            [
                "PLUGMESH_GATEWAY__LISTEN",
                "PLUGMESH_GATEWAY__COORDINATORS",
                "PLUGMESH_NATS__URL"
            ]
        );
    }

    #[test]
    fn a_socket_under_a_deep_folder_gets_a_short_path() {
        let deep = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let path = socket(&deep, "agent-a").unwrap_or_default();
        assert!(path.as_os_str().len() <= SOCKET_PATH, "{path:?}");
        if let Some(folder) = path.parent() {
            let _ = fs::remove_dir(folder);
        }
    }
}
