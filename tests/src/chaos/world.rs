//! The mesh that is harmed: a broker (or three), a coordinator (or three), three or four agents with a
//! ledger plugin each, and two or more gateways.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::client::CALL_TIMEOUT;
use super::{ledger, plugin};
use crate::mesh::{Mesh, PATIENCE, Plan};
use crate::netns::Namespace;
use crate::{process, wait};

pub const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// One more, where the control plane is harmed.
const FOUR: [&str; 4] = ["node-a", "node-b", "node-c", "node-d"];

pub struct World {
    pub mesh: Mesh,
    nodes: &'static [&'static str],
    /// Where the plugins write; it outlives the mesh.
    ledger: tempfile::TempDir,
}

impl World {
    /// Starts a mesh with so many gateways and brokers and waits until all of it takes calls.
    pub async fn start(gateways: usize, brokers: usize) -> Self {
        let plan = Plan::new().quiet().nats_cluster(brokers);
        let plan = plan.coordinator_lines(&format!("replicas = {brokers}"));
        Self::start_plan(plan, &NODES, gateways).await
    }

    /// Starts a mesh whose control plane can lose any one of its parts. With a network of its own the
    /// last coordinator can be cut off.
    pub async fn start_plural(apart: Option<Namespace>) -> Self {
        // A lease that is short enough to run out while somebody is away.
        let lines = "replicas = 3\nlease = \"6s\"\nheartbeat = \"2s\"";
        let mut plan = Plan::new().quiet().nats_cluster(3);
        plan = plan.more_coordinators(2).coordinator_lines(lines);
        if let Some(network) = apart {
            plan = plan.last_coordinator_in(network);
        }
        Self::start_plan(plan, &FOUR, 2).await
    }

    async fn start_plan(plan: Plan, nodes: &'static [&'static str], gateways: usize) -> Self {
        let ledger = tempfile::Builder::new()
            .prefix("pm-ledger-")
            .tempdir()
            .expect("a temporary folder");
        let folder = ledger.path().display().to_string();
        let mut plan = plan
            .more_gateways(gateways - 1)
            .gateway_lines(&format!("call_timeout = \"{}s\"", CALL_TIMEOUT.as_secs()));
        for &node in nodes {
            let env = [(plugin::FOLDER, folder.as_str()), (plugin::NODE, node)];
            plan = plan
                .agent(node)
                .plugin_as("ledger", &["chaos", "plugin"], &env);
        }
        let mut mesh = plan.start().await;
        mesh.wait_tool("ledger_once").await;
        let ports: Vec<u16> = mesh.gateways_mut().map(|gateway| gateway.port).collect();
        let world = Self {
            mesh,
            nodes,
            ledger,
        };
        for port in ports {
            let url = format!("http://127.0.0.1:{port}/mcp");
            wait::until("each gateway has the tools", PATIENCE, || async {
                let list = serde_json::json!({});
                let answer = crate::mesh::mcp_request(&url, "tools/list", list).await?;
                let text = answer.to_string();
                ensure!(text.contains("ledger_once"), "{text}");
                anyhow::Ok(())
            })
            .await;
        }
        world.wait_well().await;
        world
    }

    pub fn ledger(&self) -> &Path {
        self.ledger.path()
    }

    pub fn gateways(&mut self) -> Vec<u16> {
        self.mesh.gateways_mut().map(|one| one.port).collect()
    }

    /// The process of the plugin on a node, if it runs. Only a child of that node's agent counts, so
    /// that no stranger is ever harmed.
    pub fn plugin(&self, node: usize) -> Option<u32> {
        let agent = self.mesh.agents[node].pid();
        let prefix = format!("{}.", self.nodes[node]);
        let files = std::fs::read_dir(self.ledger()).ok()?.flatten();
        files
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let pid = name.strip_prefix(&prefix)?.strip_suffix(".ledger")?;
                pid.parse().ok()
            })
            .find(|&pid| process::parent(pid) == Some(agent))
    }

    /// Sends a signal to the plugin of a node.
    pub fn signal_plugin(&self, node: usize, signal: Signal) {
        let pid = self.plugin(node).expect("the plugin runs");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
        kill_process(pid.expect("a process id"), signal).expect("a signal to the plugin");
    }

    /// How the plugin of a node behaves from now on; `None`: well.
    pub fn behave(&self, node: usize, mode: Option<&str>) {
        let file = self.ledger().join(format!("{}.mode", self.nodes[node]));
        match mode {
            Some(mode) => std::fs::write(file, mode).expect("the mode"),
            None => std::fs::remove_file(file).expect("the mode"),
        }
    }

    /// Waits until every plugin runs and the coordinator has it as active.
    pub async fn wait_well(&self) {
        wait::until("all plugins are back", PATIENCE * 2, || async {
            self.well()?;
            anyhow::Ok(())
        })
        .await;
    }

    fn well(&self) -> anyhow::Result<()> {
        for (node, name) in self.nodes.iter().enumerate() {
            self.plugin(node)
                .with_context(|| format!("no plugin on {name}"))?;
        }
        let plugins = self.mesh.plugins()?;
        let list = plugins["plugins"].as_array().into_iter().flatten();
        let instances = list
            .filter(|one| one["name"] == "ledger")
            .flat_map(|one| one["instances"].as_array().into_iter().flatten());
        let active = instances.filter(|one| one["state"] == "active").count();
        ensure!(active == self.nodes.len(), "{active} are active: {plugins}");
        Ok(())
    }

    /// Waits until no plugin writes any more.
    pub async fn wait_quiet(&self) {
        let mut last = (ledger::size(self.ledger()), std::time::Instant::now());
        wait::until("the plugins are quiet", PATIENCE, || {
            let now = ledger::size(self.ledger());
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            let quiet = last.1.elapsed() > Duration::from_millis(500);
            let seen = quiet.then_some(()).context("the ledger still grows");
            async { seen }
        })
        .await;
    }

    /// Keeps logs and ledgers where they can be read later.
    pub fn keep(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for source in [self.mesh.folder.path(), self.ledger()] {
            let files = std::fs::read_dir(source)?.flatten().map(|one| one.path());
            let wanted = |path: &PathBuf| {
                let end = path.extension().and_then(|end| end.to_str());
                matches!(end, Some("log" | "ledger"))
            };
            for path in files.filter(wanted) {
                let name = path.file_name().unwrap_or_default();
                std::fs::copy(&path, folder.join(name))?;
            }
        }
        Ok(())
    }
}
