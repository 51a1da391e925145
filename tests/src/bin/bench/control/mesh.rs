//! A coordinator's process over a real broker, with simulated agents, beside a bare gRPC server that
//! sends as many bytes to as many streams.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use harness::http_client;
use harness::mesh::{Mesh, Plan};
use harness::process::{cpu_nanos, resident_bytes};
use mesh_proto::control::{InstancePhase, InstanceReport, InstanceState};

use super::agents::{Agent, Seen};
use super::{Measured, fanout, graph};
use crate::report::Figure;

/// How long all may take to be registered, and everything else that concerns all.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long one change may take to be everywhere.
const ARRIVAL: Duration = Duration::from_secs(20);
/// Changes of one instance that are followed to everywhere.
pub const CHANGES: usize = 100;
/// From one change's arrival to the next change.
pub const PAUSE: Duration = Duration::from_millis(100);
/// Agents that join at the same time.
pub const JOINING: usize = 64;

struct World {
    mesh: Mesh,
    pid: u32,
}

impl World {
    /// A number from the coordinator's metrics.
    async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let body = http_client::get(&self.mesh.coordinator.page_url("metrics"))
            .await?
            .body;
        let mut lines = body.lines();
        let line = lines.find(|line| line.starts_with(name));
        // What was not counted yet is not named.
        let value = line.map_or(Some("0"), |line| Some(line.rsplit_once(' ')?.1));
        let value = value.and_then(|value| value.parse().ok());
        value.with_context(|| format!("{name} is no number in {body}"))
    }

    async fn revision(&self) -> anyhow::Result<u64> {
        self.metric("plugmesh_coordinator_revision ").await
    }

    /// Waits until so many instances are active, and gives the sequence by then.
    async fn active(&self, count: u64, seen: &Seen) -> anyhow::Result<u64> {
        let begin = Instant::now();
        loop {
            seen.are_here()?;
            let name = "plugmesh_coordinator_instances{state=\"active\"}";
            let active = self.metric(name).await?;
            if active == count {
                return self.revision().await;
            }
            if begin.elapsed() > PATIENCE {
                bail!("{active} of {count} instances are active after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the coordinator has written at least so much, writes nothing more, and all know what
    /// it wrote.
    async fn rest(&self, least: usize, seen: &Seen) -> anyhow::Result<()> {
        let name = "plugmesh_coordinator_writes_total{outcome=\"stored\"}";
        let begin = Instant::now();
        let mut before = 0;
        loop {
            seen.are_here()?;
            let now = self.metric(name).await?;
            // It renews its own record now and then.
            if now >= least as u64 && now <= before + 2 {
                return seen.have(self.revision().await?, PATIENCE).await;
            }
            if begin.elapsed() > PATIENCE {
                bail!("the coordinator has written {now} records after {PATIENCE:?}, and goes on");
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn cpu(&self) -> f64 {
        cpu_nanos(self.pid) as f64 / 1e9
    }

    fn resident(&self) -> f64 {
        resident_bytes(self.pid) as f64 / 1024.0
    }
}

/// What each node announces.
fn announced(plugins: usize, nodes: usize) -> Vec<Vec<InstanceReport>> {
    let mut said: Vec<Vec<InstanceReport>> = (0..nodes).map(|_| Vec::new()).collect();
    for plugin in 0..plugins {
        for number in 0..graph::INSTANCES {
            let report = graph::wire_report(plugin, number, InstancePhase::Ready);
            said[graph::node(plugin, number, nodes)].push(report);
        }
    }
    said
}

pub async fn measure(plugins: usize, folder: &Path) -> anyhow::Result<Measured> {
    let nodes = plugins / graph::PLUGINS_A_NODE;
    let mut mesh = Plan::new().quiet().start().await;
    // It would make a catalog of all that, on the same processors.
    mesh.gateway.kill();
    let (url, pid) = (mesh.coordinator_url(), mesh.coordinator.pid());
    let world = World { mesh, pid };
    let idle = world.resident();

    let seen = Seen::new(nodes);
    let begin = Instant::now();
    let join = |number| Agent::join(&url, number, (&seen, number));
    let joining = futures::stream::iter(0..nodes).map(join);
    let agents: Vec<Agent> = joining.buffered(JOINING).try_collect().await?;
    let joined = begin.elapsed();
    for agent in &agents {
        agent.announce(Vec::new()).await?;
    }
    world.rest(nodes, &seen).await?;
    let with_agents = world.resident();

    let (said, instances) = (announced(plugins, nodes), plugins * graph::INSTANCES);
    let (cpu, bytes) = (world.cpu(), seen.bytes.get());
    let begin = Instant::now();
    for (agent, said) in agents.iter().zip(said) {
        agent.announce(said).await?;
    }
    let sequence = world
        .active((plugins * graph::INSTANCES) as u64, &seen)
        .await?;
    let registered = begin.elapsed();
    seen.have(sequence, PATIENCE).await?;
    let arrived = begin.elapsed();
    world.rest(instances, &seen).await?;
    let registering = world.cpu() - cpu;
    let told = (seen.bytes.get() - bytes) as f64 / nodes as f64;
    let with_plugins = world.resident();

    let mut times = harness::load::histogram();
    let cpu = world.cpu();
    for change in 0..CHANGES {
        // Each second change makes well what the one before has made ill.
        let plugin = fastrand::Rng::with_seed(change as u64 / 2).usize(..plugins);
        let (phase, state) = match change % 2 {
            0 => (InstancePhase::Unhealthy, InstanceState::Degraded),
            _ => (InstancePhase::Ready, InstanceState::Active),
        };
        seen.watch(graph::instance(plugin, 0).to_string(), state);
        let report = graph::wire_report(plugin, 0, phase);
        agents[graph::node(plugin, 0, nodes)].report(report).await?;
        let took = seen.arrived(ARRIVAL).await?;
        times.saturating_record(u64::try_from(took.as_nanos())?);
        tokio::time::sleep(PAUSE).await;
    }
    let changing = (world.cpu() - cpu) * 1e3 / CHANGES as f64;
    let delta = seen.deltas.borrow().value_at_quantile(0.5);

    let fresh = Seen::new(1);
    let late = Agent::join(&url, nodes, (&fresh, 0)).await?;
    fresh.have(sequence, PATIENCE).await?;
    drop((late, agents, world));
    let bare = fanout::measure(folder, nodes, usize::try_from(delta)?).await?;

    let ms = |times: &hdrhistogram::Histogram<u64>, quantile| {
        times.value_at_quantile(quantile) as f64 / 1e6
    };
    let beside =
        |metric, quantile| Figure::beside(metric, "ms", ms(&times, quantile), ms(&bare, quantile));
    let per = |kib: f64, count: usize| kib.max(1.0) / count as f64;
    Ok(vec![
        Figure::own("all agents join", "s", joined.as_secs_f64()),
        Figure::own("register all", "s", registered.as_secs_f64()),
        Figure::own("all agents know all", "s", arrived.as_secs_f64()),
        Figure::own("CPU of registering", "s", registering),
        beside("one change everywhere p50", 0.5),
        beside("one change everywhere p99", 0.99),
        Figure::own(
            "one change at an agent p50",
            "ms",
            ms(&seen.times.borrow(), 0.5),
        ),
        Figure::own("CPU of one change", "ms", changing),
        Figure::own("one change", "bytes", delta as f64),
        Figure::own("told to an agent", "KiB", told / 1024.0),
        Figure::own("whole table", "KiB", fresh.largest.get() as f64 / 1024.0),
        Figure::own("memory per agent", "KiB", per(with_agents - idle, nodes)),
        Figure::own(
            "memory per plugin",
            "KiB",
            per(with_plugins - with_agents, plugins),
        ),
    ])
}
