//! The faults: each does its harm, and mends what does not mend itself, as an operator's init system
//! would.

use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use tokio::time::sleep;

use super::world::{NODES, World};
use super::{flood, plugin};

/// How long an init system takes to start a process again.
const RESTART: Duration = Duration::from_millis(300);

/// How long a process stands still, in turn: at the longest, its calls are given up long before it goes on
/// with what it had and what was written to it.
const STOPS: [u64; 4] = [200, 1_000, 3_000, 6_000];

/// How long the only broker is gone, in turn.
const DOWN: [u64; 5] = [0, 200, 500, 1_000, 2_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    PluginKill,
    AgentKill,
    GatewayKill,
    PluginStop,
    AgentStop,
    NatsRestart,
    NatsNode,
    SlowPlugin,
    FloodingPlugin,
}

impl Fault {
    pub const ALL: [Self; 9] = [
        Self::PluginKill,
        Self::AgentKill,
        Self::GatewayKill,
        Self::PluginStop,
        Self::AgentStop,
        Self::NatsRestart,
        Self::NatsNode,
        Self::SlowPlugin,
        Self::FloodingPlugin,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::PluginKill => "plugin-kill",
            Self::AgentKill => "agent-kill",
            Self::GatewayKill => "gateway-kill",
            Self::PluginStop => "plugin-stop",
            Self::AgentStop => "agent-stop",
            Self::NatsRestart => "nats-restart",
            Self::NatsNode => "nats-node",
            Self::SlowPlugin => "slow-plugin",
            Self::FloodingPlugin => "flooding-plugin",
        }
    }

    /// How many brokers it needs.
    pub fn brokers(self) -> usize {
        if self == Self::NatsNode { 3 } else { 1 }
    }

    /// Does it to the victim of this turn and returns when what was broken is mended. Plugins are
    /// started again by their agents.
    pub async fn strike(self, world: &mut World, turn: usize) {
        let victim = turn % NODES.len();
        match self {
            Self::GatewayKill => {
                let count = world.gateways().len();
                kill_gateway(world, turn % count).await;
            }
            Self::NatsRestart => {
                world.mesh.nats.process.kill();
                sleep(Duration::from_millis(DOWN[turn % DOWN.len()])).await;
                world.mesh.nats.restart().await;
            }
            Self::NatsNode => {
                let mesh = &mut world.mesh;
                let node = mesh.brokers_mut().nth(victim).expect("three brokers");
                node.process.kill();
                sleep(Duration::from_secs(1)).await;
                node.restart().await;
            }
            _ => self.strike_node(world, victim, turn).await,
        }
    }

    /// The faults of a node, on one that is chosen.
    pub async fn strike_node(self, world: &mut World, victim: usize, turn: usize) {
        let stop = Duration::from_millis(STOPS[turn % STOPS.len()]);
        match self {
            Self::PluginKill => world.signal_plugin(victim, Signal::KILL),
            Self::AgentKill => {
                let agent = &mut world.mesh.agents[victim];
                agent.kill();
                sleep(RESTART).await;
                agent.start();
            }
            Self::PluginStop => {
                world.signal_plugin(victim, Signal::STOP);
                sleep(stop).await;
                world.signal_plugin(victim, Signal::CONT);
            }
            Self::AgentStop => {
                let agent = world.mesh.agents[victim].process();
                agent.signal(Signal::STOP);
                sleep(stop).await;
                agent.signal(Signal::CONT);
            }
            Self::SlowPlugin => {
                world.behave(victim, Some(plugin::SLOW));
                sleep(Duration::from_secs(2)).await;
                world.behave(victim, None);
            }
            Self::FloodingPlugin => {
                let other = (victim + 1) % NODES.len();
                world.behave(other, Some(plugin::FLOOD));
                flood::from(world, victim, Duration::from_secs(2)).await;
                world.behave(other, None);
            }
            Self::GatewayKill | Self::NatsRestart | Self::NatsNode => {
                panic!("{} is no fault of a node", self.name())
            }
        }
    }
}

/// Kills a gateway and starts it again.
pub async fn kill_gateway(world: &mut World, index: usize) {
    let gateway = world.mesh.gateways_mut().nth(index).expect("a gateway");
    gateway.kill();
    sleep(RESTART).await;
    gateway.start();
    gateway.wait_ready().await;
}
