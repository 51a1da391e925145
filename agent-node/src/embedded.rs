//! An agent's data path without sockets, processes and a coordinator, for simulations and benchmarks.
//!
//! It is the same code that a real agent runs; only what surrounds it is left to whoever uses this:
//! plugins' streams are given as frames, and what the coordinator would be told can be followed. Its time
//! is tokio's, and what it draws it draws from `fastrand`, so that a run over a paused clock with a seed
//! is repeatable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_bus::Bus;
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId};
use mesh_core::manifest::Manifest;
use mesh_core::state::Phase;
use mesh_core::table::Table;
use mesh_proto::attach::{AttachFrames, PeerInfo};
use mesh_proto::plugin::HostFrame;
use mesh_runtime::{Metrics, Tasks};
use router::{Router, RouterConfig};
use tokio::sync::{Semaphore, watch};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::control::Beacons;
use crate::data::{CHECKS, DataPath, Door, PlaneConfig, Streams, open};
use crate::drain::Drain;
use crate::launch::LaunchBook;
use crate::metrics::AgentMetrics;
use crate::roster::{Instances, Roster};

/// How an embedded agent works.
#[derive(Debug)]
pub struct EmbeddedConfig {
    /// The mesh.
    pub mesh: MeshName,
    /// The node.
    pub node: NodeId,
    /// This start of it.
    pub generation: Generation,
    /// Calls in flight on the node.
    pub max_in_flight: usize,
    /// Calls in flight to one instance.
    pub max_per_instance: u32,
    /// Time that running calls get when it or a plugin leaves.
    pub grace: Duration,
    /// Time between two load beacons.
    pub beacon_interval: Duration,
    /// The router of plugins' own calls; its name is the node's.
    pub router: RouterConfig,
}

/// An agent's data path. When it is dropped its tasks go on: end them with [`EmbeddedAgent::tasks`].
#[derive(Debug)]
pub struct EmbeddedAgent {
    streams: Streams,
    roster: Roster,
    grace: Duration,
}

/// What an agent knows of one instance, and would tell a coordinator.
#[derive(Debug, Clone)]
pub struct EmbeddedInstance {
    /// The instance.
    pub instance: InstanceId,
    /// What it says of itself.
    pub manifest: Arc<Manifest>,
    /// How it is.
    pub phase: Phase,
    /// Calls in flight that the host allows.
    pub concurrency: u32,
}

/// Follows what an agent knows of its instances.
#[derive(Debug)]
pub struct EmbeddedRoster(watch::Receiver<Arc<Instances>>);

impl EmbeddedAgent {
    /// Starts the tasks of the data path, load beacons included.
    #[must_use]
    pub fn start(
        config: EmbeddedConfig,
        bus: Bus,
        tables: watch::Receiver<Arc<Table>>,
        tasks: &Tasks,
    ) -> Self {
        let stop = tasks.token();
        let limits = crate::Config::default();
        let (roster, book) = (Roster::default(), LaunchBook::default());
        let metrics = AgentMetrics::new(&Metrics::new());
        let path = DataPath {
            plane: PlaneConfig {
                mesh: config.mesh,
                node: config.node,
                max_in_flight: config.max_in_flight,
                max_per_instance: config.max_per_instance,
                max_bytes: limits.max_bytes_in_flight.as_usize(),
                max_bytes_per_instance: limits.max_bytes_in_flight_per_instance.as_usize(),
                max_payload: crate::session::limits::MAX_PAYLOAD_BYTES,
                exporting: false,
            },
            router: config.router,
            bus: bus.clone(),
            tables,
            generation: config.generation,
            metrics: metrics.clone(),
            door: Door {
                checks: Arc::new(Semaphore::new(CHECKS)),
                book: book.clone(),
                plugin_config: Arc::new(BTreeMap::new()),
                roster: roster.clone(),
                draw: drawn_instance,
            },
            grace: config.grace,
        };
        let streams = path.start(tasks, &stop);
        let beacons = Beacons {
            plane: streams.plane.clone(),
            bus,
            interval: config.beacon_interval,
            generation: config.generation,
            book,
            roster: roster.clone(),
            metrics,
        };
        tasks.spawn("load beacons", beacons.run(stop));
        Self {
            streams,
            roster,
            grace: config.grace,
        }
    }

    /// Begins a session on a plugin's stream. What is sent to the plugin is taken from the stream that is
    /// given back; to drop it is to lose the connection.
    ///
    /// # Errors
    /// When there are too many, or the agent stops.
    pub fn attach(
        &self,
        frames: AttachFrames,
    ) -> Result<impl Stream<Item = Result<HostFrame, Status>> + Send + Unpin + use<>, Status> {
        let messages = open(&self.streams, &PeerInfo::Unknown, frames)?;
        Ok(messages.map(|message| {
            let frame = message?.into_frame();
            frame.map_err(|error| Status::invalid_argument(error.to_string()))
        }))
    }

    /// The router of plugins' own calls.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.streams.router
    }

    /// Follows what the agent knows of its instances.
    #[must_use]
    pub fn follow(&self) -> EmbeddedRoster {
        EmbeddedRoster(self.roster.follow())
    }

    /// Calls that run on the node.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.streams.plane.in_flight()
    }

    /// What the plane still holds of calls, for a look at leaks: a word for each kind, and how many.
    #[must_use]
    pub fn held(&self) -> Vec<(&'static str, usize)> {
        self.streams.plane.held()
    }

    /// Tells the mesh and refuses new calls, lets end what runs, drains the plugins, closes their streams,
    /// takes no more calls from the bus.
    pub async fn drain(&self, reason: &str) {
        self.roster.drain_all(reason);
        self.streams.plane.drain();
        self.drains(reason).all().await;
        self.streams.plane.leave().await;
    }

    /// Drains one instance and closes its stream; the plugin is asked to attach again.
    pub async fn drain_instance(&self, instance: InstanceId, reason: &str) {
        self.drains(reason).instance(instance, true).await;
    }

    fn drains(&self, reason: &str) -> Drain {
        Drain {
            plane: self.streams.plane.clone(),
            roster: self.roster.clone(),
            grace: self.grace,
            reason: reason.to_owned(),
        }
    }
}

impl EmbeddedRoster {
    /// Waits for a change. False: the agent is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// All instances as they are now.
    #[must_use]
    pub fn instances(&mut self) -> Vec<EmbeddedInstance> {
        let known = &self.0.borrow_and_update().known;
        let instances = known.iter().map(|(instance, fact)| EmbeddedInstance {
            instance: *instance,
            manifest: Arc::clone(&fact.manifest),
            phase: fact.phase,
            concurrency: fact.concurrency,
        });
        instances.collect()
    }
}

/// An instance id that has nothing of the hour in it.
fn drawn_instance() -> InstanceId {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    InstanceId::new(0, random)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]
mod tests {
    use bytes::Bytes;
    use mesh_bus::memory::Broker;
    use mesh_bus::{BusLimits, CallEvent};
    use mesh_core::capability::Capability;
    use mesh_core::error::Processed;
    use mesh_proto::common::Call;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A bus whose driver is one of the tasks.
    async fn bus(broker: &Broker, tasks: &Tasks) -> Bus {
        let connected = broker.connect(MeshName::default(), BusLimits::default());
        let (bus, driver, _) = connected.await.unwrap();
        tasks.spawn("bus", driver.run(tasks.token().cancelled_owned()));
        let mut up = bus.connected();
        up.wait_for(|up| *up).await.unwrap();
        bus
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_hear_late_that_an_agent_leaves_are_told_that_nothing_was_processed() {
        let (broker, rest) = (Broker::new(1), Tasks::new());
        broker.set_delay(Duration::from_millis(20)..=Duration::from_millis(20));
        let passes = broker.clone();
        rest.spawn("broker", async move { passes.run().await });
        let (of_agent, node) = (rest.child(), NodeId::new("node-1").unwrap());
        let config = EmbeddedConfig {
            mesh: MeshName::default(),
            node: node.clone(),
            generation: Generation(1),
            max_in_flight: 100,
            max_per_instance: 100,
            grace: Duration::from_secs(1),
            beacon_interval: Duration::from_millis(250),
            router: RouterConfig::new(node.clone()),
        };
        let own = bus(&broker, &of_agent).await;
        let (_table, tables) = watch::channel(Arc::default());
        let agent = EmbeddedAgent::start(config, own, tables, &of_agent);
        let caller = bus(&broker, &rest).await;
        let begin = || {
            let call = Call {
                capability: Some((&"service:work".parse::<Capability>().unwrap()).into()),
                ..Call::default()
            };
            let now = Instant::now();
            let times = (now, now + Duration::from_secs(5));
            let instance = drawn_instance();
            caller.begin_call(&node, Generation(1), instance, call, Bytes::new(), times)
        };
        sleep(Duration::from_millis(200)).await;
        let leave = async {
            sleep(Duration::from_millis(100)).await;
            agent.drain("the agent stops").await;
            of_agent.cancel();
        };
        let calls = async {
            let mut calls = Vec::new();
            for _ in 0..300 {
                calls.push(begin().unwrap());
                sleep(Duration::from_millis(1)).await;
            }
            calls
        };
        let ((), calls) = tokio::join!(leave, calls);
        for (number, mut call) in calls.into_iter().enumerate() {
            let CallEvent::End(Err(error)) = call.next().await else {
                panic!("call {number} has another end");
            };
            assert_eq!(
                error.code.processed(),
                Processed::No,
                "call {number}: {error}"
            );
        }
    }
}
