//! Faults of the control plane: coordinators, the store that they share, and the network between.
//!
//! Nothing here harms the way of a call, so none may fail, except where a broker is killed that carried
//! it. What is measured is how long a change takes to reach every gateway: a new plugin attaches to each
//! node in the moment of the fault.

mod arrivals;
mod evictions;
mod proof;
pub mod rounds;

use std::time::Duration;

use anyhow::Context as _;
use mesh_core::id::MeshName;
use mesh_core::subject;
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::sleep;

use super::world::World;
use crate::mesh::Role;

/// How long one coordinator, or one broker, is away. It is longer than a lease.
const AWAY: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlFault {
    CoordinatorKill,
    CoordinatorStop,
    CoordinatorCut,
    StoreLeaderKill,
    StoreLeaderStop,
    AllCoordinators,
}

impl ControlFault {
    pub const ALL: [Self; 6] = [
        Self::CoordinatorKill,
        Self::CoordinatorStop,
        Self::CoordinatorCut,
        Self::StoreLeaderKill,
        Self::StoreLeaderStop,
        Self::AllCoordinators,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::CoordinatorKill => "coordinator-kill",
            Self::CoordinatorStop => "coordinator-stop",
            Self::CoordinatorCut => "coordinator-cut",
            Self::StoreLeaderKill => "store-leader-kill",
            Self::StoreLeaderStop => "store-leader-stop",
            Self::AllCoordinators => "all-coordinators",
        }
    }

    /// A broker is harmed, which carries calls, too.
    pub fn harms_calls(self) -> bool {
        matches!(self, Self::StoreLeaderKill | Self::StoreLeaderStop)
    }

    /// No change can arrive before it is mended.
    pub fn stops_changes(self) -> bool {
        self == Self::AllCoordinators
    }

    /// Does it to the victim of this turn and returns when it is mended; `down`: how long all coordinators
    /// are away at once.
    async fn strike(self, world: &mut World, turn: usize, down: Duration) {
        let mesh = &mut world.mesh;
        let victim = turn % mesh.coordinators().count();
        match self {
            Self::CoordinatorKill => {
                let role = mesh.coordinators_mut().nth(victim).expect("a coordinator");
                role.kill();
                sleep(AWAY).await;
                role.start();
            }
            Self::CoordinatorStop => {
                let role = mesh.coordinators_mut().nth(victim).expect("a coordinator");
                role.process().signal(Signal::STOP);
                sleep(AWAY).await;
                role.process().signal(Signal::CONT);
            }
            Self::CoordinatorCut => {
                let cable = mesh.apart.as_ref().expect("a network that can be cut");
                cable.set(false).expect("the cable is cut");
                sleep(AWAY).await;
                cable.set(true).expect("the cable is mended");
            }
            Self::StoreLeaderKill | Self::StoreLeaderStop => {
                let leader = store_leader(&mesh.nats.url()).await;
                let leader = leader.expect("the store has a leader");
                let mut brokers = mesh.brokers_mut();
                let broker = brokers.find(|it| it.name() == leader).expect("a broker");
                if self == Self::StoreLeaderKill {
                    broker.process.kill();
                    sleep(AWAY).await;
                    broker.restart().await;
                } else {
                    broker.process.signal(Signal::STOP);
                    sleep(AWAY).await;
                    broker.process.signal(Signal::CONT);
                }
            }
            Self::AllCoordinators => {
                mesh.coordinators_mut().for_each(Role::kill);
                sleep(down).await;
                mesh.coordinators_mut().for_each(Role::start);
            }
        }
    }
}

/// The broker that leads the stream of the registry.
async fn store_leader(url: &str) -> anyhow::Result<String> {
    let client = async_nats::connect(url).await?;
    let bucket = format!("KV_{}", subject::registry_bucket(&MeshName::default()));
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(&bucket).await?;
    let cluster = stream.cached_info().cluster.clone().context("no cluster")?;
    cluster.leader.context("no leader")
}
