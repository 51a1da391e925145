//! A whole mesh of real processes: broker, coordinator, agents, gateway, plugins.

mod role;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::nats::Nats;
use crate::netns::Namespace;
use crate::{http_client, process, wait};

pub use role::Role;

/// How long anything of a mesh may take to come up on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a mesh is to be made of.
#[derive(Default)]
pub struct Plan {
    agents: Vec<(String, Vec<Launch>)>,
    otlp: Option<String>,
    quiet: bool,
    nats_program: Option<PathBuf>,
    nats_nodes: usize,
    more_gateways: usize,
    more_coordinators: usize,
    apart: Option<Namespace>,
    extra_agent: String,
    extra_gateway: String,
    extra_coordinator: String,
}

struct Launch {
    name: String,
    command: Vec<String>,
    env: Vec<(String, String)>,
    instances: usize,
}

impl Plan {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more node.
    #[must_use]
    pub fn agent(mut self, node: &str) -> Self {
        self.agents.push((node.to_owned(), Vec::new()));
        self
    }

    /// One more plugin on the last node; the binary has the plugin's name.
    #[must_use]
    pub fn plugin(self, name: &str) -> Self {
        self.plugin_as(name, &[name], &[])
    }

    /// One more plugin on the last node, with arguments and environment.
    #[must_use]
    pub fn plugin_as(mut self, name: &str, command: &[&str], env: &[(&str, &str)]) -> Self {
        let (_, plugins) = self.agents.last_mut().expect("an agent first");
        let mut command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        command[0] = process::binary(&command[0]).display().to_string();
        plugins.push(Launch {
            name: name.to_owned(),
            command,
            env: env
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            instances: 1,
        });
        self
    }

    /// How many processes of the last plugin run.
    #[must_use]
    pub fn instances(mut self, count: usize) -> Self {
        let (_, plugins) = self.agents.last_mut().expect("an agent first");
        plugins.last_mut().expect("a plugin first").instances = count;
        self
    }

    #[must_use]
    pub fn otlp(mut self, endpoint: &str) -> Self {
        self.otlp = Some(endpoint.to_owned());
        self
    }

    /// Logs as in production instead of everything that may explain a failure.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    #[must_use]
    pub fn nats_program(mut self, program: PathBuf) -> Self {
        self.nats_program = Some(program);
        self
    }

    /// A NATS cluster of so many nodes instead of one server.
    #[must_use]
    pub fn nats_cluster(mut self, nodes: usize) -> Self {
        self.nats_nodes = nodes;
        self
    }

    /// So many gateways beside the first one.
    #[must_use]
    pub fn more_gateways(mut self, count: usize) -> Self {
        self.more_gateways = count;
        self
    }

    /// So many coordinators beside the first one; agents and gateways know all of them.
    #[must_use]
    pub fn more_coordinators(mut self, count: usize) -> Self {
        self.more_coordinators = count;
        self
    }

    /// The last coordinator runs in a network of its own, which can be cut off.
    #[must_use]
    pub fn last_coordinator_in(mut self, network: Namespace) -> Self {
        self.apart = Some(network);
        self
    }

    /// More lines for each `[coordinator]` section.
    #[must_use]
    pub fn coordinator_lines(mut self, lines: &str) -> Self {
        self.extra_coordinator = lines.to_owned();
        self
    }

    /// More lines for each `[agent]` section.
    #[must_use]
    pub fn agent_lines(mut self, lines: &str) -> Self {
        self.extra_agent = lines.to_owned();
        self
    }

    /// More lines for the `[gateway]` section.
    #[must_use]
    pub fn gateway_lines(mut self, lines: &str) -> Self {
        self.extra_gateway = lines.to_owned();
        self
    }

    /// Starts everything and waits until each role is ready.
    pub async fn start(mut self) -> Mesh {
        let folder = tempfile::Builder::new()
            .prefix("pm-")
            .tempdir()
            .expect("a temporary folder");
        let mut nats_peers = Vec::new();
        let nats = match &self.nats_program {
            Some(program) => Nats::start_program(folder.path(), program).await,
            None if self.nats_nodes > 1 => {
                let host = self.apart.as_ref().map_or("127.0.0.1", |_| "0.0.0.0");
                nats_peers = Nats::start_cluster_on(folder.path(), self.nats_nodes, host).await;
                nats_peers.remove(0)
            }
            None => Nats::start(folder.path()).await,
        };
        let mut mesh = Mesh {
            coordinator: Role::new(folder.path(), "coordinator", "coordinator"),
            more_coordinators: (2..)
                .take(self.more_coordinators)
                .map(|number| {
                    Role::new(
                        folder.path(),
                        "coordinator",
                        &format!("coordinator-{number}"),
                    )
                })
                .collect(),
            agents: Vec::new(),
            gateway: Role::new(folder.path(), "gateway", "gateway"),
            more_gateways: (2..)
                .take(self.more_gateways)
                .map(|number| Role::new(folder.path(), "gateway", &format!("gateway-{number}")))
                .collect(),
            nats,
            nats_peers,
            folder,
            apart: self.apart.take(),
        };
        let common = mesh.common(&self, "127.0.0.1");
        mesh.start_coordinators(&self, &common);
        for (number, (node, plugins)) in self.agents.iter().enumerate() {
            let agent = Role::new(mesh.folder.path(), "agent", node);
            let coordinators = mesh.coordinator_list(number);
            let lines = format!("coordinators = {coordinators}\n{}", self.extra_agent);
            agent.write_config(&mesh.agent_config(&common, &agent, plugins, &lines));
            mesh.agents.push(agent);
        }
        for agent in &mut mesh.agents {
            agent.start();
        }
        let lists: Vec<String> = (0..=self.more_gateways)
            .map(|number| mesh.coordinator_list(number))
            .collect();
        for (gateway, coordinators) in mesh.gateways_mut().zip(lists) {
            gateway.write_config(&format!(
                "{common}[gateway]\nname = \"{}\"\nlisten = \"127.0.0.1:{}\"\ncoordinators = {coordinators}\n\
                 data_dir = {:?}\n{}\n",
                gateway.name,
                gateway.port,
                gateway.data,
                self.extra_gateway
            ));
            gateway.admin_port = gateway.port;
            gateway.start();
        }
        for coordinator in mesh.coordinators() {
            coordinator.wait_ready().await;
        }
        for agent in &mesh.agents {
            agent.wait_ready().await;
        }
        for gateway in mesh.gateways_mut() {
            gateway.wait_ready().await;
        }
        mesh
    }
}

/// A running mesh; dropping it ends all its processes.
pub struct Mesh {
    pub gateway: Role,
    pub more_gateways: Vec<Role>,
    pub agents: Vec<Role>,
    pub coordinator: Role,
    pub more_coordinators: Vec<Role>,
    pub nats: Nats,
    /// The other nodes of its cluster.
    pub nats_peers: Vec<Nats>,
    pub folder: TempDir,
    /// Where the last coordinator runs, when it can be cut off.
    pub apart: Option<Namespace>,
}

impl Mesh {
    /// All gateways, the first one first.
    pub fn gateways_mut(&mut self) -> impl Iterator<Item = &mut Role> {
        std::iter::once(&mut self.gateway).chain(&mut self.more_gateways)
    }

    /// All coordinators, the first one first.
    pub fn coordinators(&self) -> impl Iterator<Item = &Role> {
        std::iter::once(&self.coordinator).chain(&self.more_coordinators)
    }

    /// All coordinators, the first one first.
    pub fn coordinators_mut(&mut self) -> impl Iterator<Item = &mut Role> {
        std::iter::once(&mut self.coordinator).chain(&mut self.more_coordinators)
    }

    /// All brokers, the first one first.
    pub fn brokers_mut(&mut self) -> impl Iterator<Item = &mut Nats> {
        std::iter::once(&mut self.nats).chain(&mut self.nats_peers)
    }

    fn start_coordinators(&mut self, plan: &Plan, common: &str) {
        let apart = self.apart.as_ref();
        let apart = apart.map(|it| (it.prefix(), it.inside(), self.common(plan, &it.outside())));
        let last = self.more_coordinators.len();
        for (number, coordinator) in self.coordinators_mut().enumerate() {
            let (mut listen, mut common) = ("127.0.0.1", common);
            if let Some((prefix, inside, from_inside)) = apart.as_ref().filter(|_| number == last) {
                (listen, common) = ("0.0.0.0", from_inside);
                coordinator.prefix.clone_from(prefix);
                coordinator.host.clone_from(inside);
            }
            coordinator.write_config(&format!(
                "{common}[coordinator]\nname = \"{}\"\nlisten = \"{listen}:{}\"\n\
                 admin_listen = \"{listen}:{}\"\n{}\n",
                coordinator.name, coordinator.port, coordinator.admin_port, plan.extra_coordinator
            ));
            coordinator.start();
        }
    }

    /// All coordinators for a configuration; not all begin with the same one.
    fn coordinator_list(&self, first: usize) -> String {
        let mut urls: Vec<String> = self.coordinators().map(Role::url).collect();
        let count = urls.len();
        urls.rotate_left(first % count);
        format!("{urls:?}")
    }

    fn common(&self, plan: &Plan, broker: &str) -> String {
        let level = if plan.quiet { "info" } else { "debug" };
        let otlp = plan.otlp.iter();
        let otlp: String = otlp
            .map(|endpoint| format!("otlp_endpoint = \"{endpoint}\"\n"))
            .collect();
        let servers = std::iter::once(&self.nats).chain(&self.nats_peers);
        let urls: Vec<String> = servers.map(|server| server.url_at(broker)).collect();
        format!(
            "[nats]\nurl = \"{}\"\n[telemetry]\nlog_level = \"{level}\"\n{otlp}",
            urls.join(",")
        )
    }

    fn agent_config(&self, common: &str, agent: &Role, plugins: &[Launch], extra: &str) -> String {
        let mut text = format!(
            "{common}[agent]\nnode = \"{}\"\ndata_dir = {:?}\n\
             attach_tcp = \"127.0.0.1:{}\"\nadmin_listen = \"127.0.0.1:{}\"\n{extra}\n",
            agent.name, agent.data, agent.port, agent.admin_port
        );
        for plugin in plugins {
            text += &format!(
                "[[agent.plugins]]\nname = \"{}\"\ncommand = {:?}\ninstances = {}\n\
                 [agent.plugins.env]\n",
                plugin.name, plugin.command, plugin.instances
            );
            for (key, value) in &plugin.env {
                text += &format!("{key} = {value:?}\n");
            }
        }
        text
    }

    pub fn coordinator_url(&self) -> String {
        self.coordinator.url()
    }

    pub fn mcp_url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.gateway.port)
    }

    /// Where a plugin attaches to a node by TCP.
    pub fn attach_url(&self, agent: usize) -> String {
        format!("http://127.0.0.1:{}", self.agents[agent].port)
    }

    /// Runs an operator's command and gives (exit code, stdout, stderr).
    pub fn cli(&self, args: &[&str]) -> (i32, String, String) {
        let env = [
            ("PLUGMESH_COORDINATOR", self.coordinator_url()),
            ("PLUGMESH_GATEWAY", self.mcp_url()),
        ];
        process::run(&process::binary("plugmesh"), args, &env, self.folder.path())
    }

    /// The plugins as the coordinator lists them.
    pub fn plugins(&self) -> anyhow::Result<Value> {
        let (code, out, err) = self.cli(&["plugins", "--output", "json"]);
        if code != 0 {
            bail!("exit {code}: {err}");
        }
        serde_json::from_str(&out).with_context(|| out.clone())
    }

    /// Waits until a plugin has an instance in a state, and gives its reason.
    pub async fn wait_state(&self, plugin: &str, state: &str) -> String {
        let what = format!("{plugin} is {state}");
        wait::until(&what, PATIENCE, || async {
            let plugins = self.plugins()?;
            let list = plugins["plugins"].as_array().cloned().unwrap_or_default();
            list.iter()
                .filter(|entry| entry["name"] == plugin)
                .flat_map(|entry| entry["instances"].as_array().cloned().unwrap_or_default())
                .find(|instance| instance["state"] == state)
                .map(|instance| instance["reason"].as_str().unwrap_or_default().to_owned())
                .with_context(|| plugins.to_string())
        })
        .await
    }

    /// Waits until so many instances are active, of all plugins together.
    pub async fn wait_instances(&self, count: usize) {
        wait::until("all instances are active", PATIENCE, || async {
            let plugins = self.plugins()?;
            let list = plugins["plugins"].as_array().cloned().unwrap_or_default();
            let active = list
                .iter()
                .flat_map(|entry| entry["instances"].as_array().cloned().unwrap_or_default())
                .filter(|instance| instance["state"] == "active")
                .count();
            if active == count {
                return Ok(());
            }
            bail!("{active} of {count}")
        })
        .await;
    }

    /// Sends one MCP request in the stateless way and gives the JSON-RPC answer.
    pub async fn mcp(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        mcp_request(&self.mcp_url(), method, params).await
    }

    /// Calls a tool and gives the JSON-RPC answer.
    pub async fn call_tool(&self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        self.mcp("tools/call", json!({"name": name, "arguments": arguments}))
            .await
    }

    /// Calls a tool with one more header and gives the text that it answers.
    pub async fn tool_text(
        &self,
        name: &str,
        arguments: Value,
        header: Option<(&str, &str)>,
    ) -> anyhow::Result<String> {
        let params = json!({"name": name, "arguments": arguments});
        let answer = mcp_request_with(&self.mcp_url(), "tools/call", params, header).await?;
        let text = answer["result"]["content"][0]["text"].as_str();
        text.map(str::to_owned).with_context(|| answer.to_string())
    }

    /// The names of all tools, page by page.
    pub async fn tools(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut params = json!({});
        loop {
            let answer = self.mcp("tools/list", params).await?;
            let tools = answer["result"]["tools"].as_array().context("tools")?;
            let page = tools.iter().filter_map(|tool| tool["name"].as_str());
            names.extend(page.map(str::to_owned));
            match &answer["result"]["nextCursor"] {
                Value::Null => return Ok(names),
                cursor => params = json!({"cursor": cursor}),
            }
        }
    }

    /// Waits until the gateway lists a tool.
    pub async fn wait_tool(&self, name: &str) {
        wait::until(&format!("tool {name} is listed"), PATIENCE, || async {
            let tools = self.tools().await?;
            if tools.iter().any(|tool| tool == name) {
                return Ok(());
            }
            bail!("{tools:?}")
        })
        .await;
    }
}

/// One stateless MCP request (protocol of 2026-07-28).
pub async fn mcp_request(url: &str, method: &str, params: Value) -> anyhow::Result<Value> {
    mcp_request_with(url, method, params, None).await
}

/// The same with one more header.
pub async fn mcp_request_with(
    url: &str,
    method: &str,
    mut params: Value,
    header: Option<(&str, &str)>,
) -> anyhow::Result<Value> {
    let version = "2026-07-28";
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": {"name": "plugmesh-tests", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    for (key, value) in meta.as_object().expect("an object") {
        if params["_meta"].get(key).is_none() {
            params["_meta"][key] = value.clone();
        }
    }
    let name = params["name"]
        .as_str()
        .or(params["uri"].as_str())
        .unwrap_or_default()
        .to_owned();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let mut headers = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", version),
        ("mcp-method", method),
    ];
    headers.extend(header);
    if !name.is_empty() {
        headers.push(("mcp-name", &name));
    }
    let answer = http_client::request("POST", url, &headers, body.to_string()).await?;
    Ok(answer.json())
}
