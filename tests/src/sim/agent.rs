//! The agents: each a real data path that is started, lost and started anew.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_node::embedded::{EmbeddedAgent, EmbeddedConfig};
use mesh_bus::Bus;
use mesh_bus::memory::Line;
use mesh_core::id::{Generation, MeshName, NodeId};
use mesh_runtime::Tasks;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::coordinator::{Tables, report_delay};
use super::pipe::Gate;
use super::plan::millis;
use super::world::{World, limits, router_config};

/// One run of an agent.
pub(super) struct AgentUp {
    pub(super) agent: EmbeddedAgent,
    pub(super) bus: Bus,
    pub(super) line: Line,
    pub(super) gate: Gate,
    pub(super) tables: Arc<Tables>,
    pub(super) generation: Generation,
    tasks: Tasks,
    ends: Notify,
}

/// One node.
pub(super) struct AgentSlot {
    pub(super) number: usize,
    pub(super) node: NodeId,
    up: Mutex<Option<Arc<AgentUp>>>,
    /// Told in order, unlike those who follow a `watch`, who are woken as chance has it.
    changed: Notify,
    /// How long it stays away after its end.
    away: Mutex<Duration>,
}

impl AgentSlot {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            node: NodeId::new(&format!("node-{number}")).unwrap(),
            up: Mutex::default(),
            changed: Notify::new(),
            away: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Option<Arc<AgentUp>> {
        self.up.lock().unwrap().clone()
    }

    fn set(&self, up: Option<Arc<AgentUp>>) {
        *self.up.lock().unwrap() = up;
        self.changed.notify_waiters();
    }

    /// The agent, once it is there.
    pub(super) async fn wait(&self) -> Arc<AgentUp> {
        loop {
            // One thread: nothing changes between the look and the wait.
            if let Some(up) = self.now() {
                return up;
            }
            self.changed.notified().await;
        }
    }

    /// The process is gone, at once, and what it had not sent with it.
    pub(super) fn crash(&self, away: Duration) {
        *self.away.lock().unwrap() = away;
        if let Some(up) = self.now() {
            up.line.kill();
            up.tasks.cancel();
            up.ends.notify_one();
        }
    }

    /// The agent leaves in order.
    pub(super) async fn drain(&self, away: Duration) {
        if let Some(up) = self.now() {
            up.agent.drain("the agent stops").await;
            *self.away.lock().unwrap() = away;
            up.tasks.cancel();
            up.ends.notify_one();
        }
    }

    /// The end of the run.
    pub(super) fn stop(&self) {
        if let Some(up) = self.now() {
            up.tasks.cancel();
        }
    }

    /// Starts it, and starts it anew when it has ended.
    pub(super) async fn live(self: Arc<Self>, world: Arc<World>) {
        let mut rng = world.rng();
        for generation in (1..).map(Generation) {
            let up = Arc::new(self.start(&world, generation).await);
            world.say(&format!("agent {} starts, {generation}", self.number));
            world.coordinator.serve(&world, up.tables.clone());
            self.report(&world, &up, &mut rng);
            self.set(Some(up.clone()));
            up.ends.notified().await;
            world.say(&format!("agent {} is gone", self.number));
            self.set(None);
            let (node, lease, late) = (self.node.clone(), world.plan.lease, world.clone());
            world.spawn("lease", async move {
                sleep(lease).await;
                late.coordinator.evict(&node, generation);
            });
            let away = *self.away.lock().unwrap();
            sleep(away).await;
        }
    }

    async fn start(&self, world: &World, generation: Generation) -> AgentUp {
        let connected = world.broker.connect(MeshName::default(), limits(world));
        let (bus, driver, line) = connected.await.unwrap();
        let tasks = world.tasks.child();
        tasks.spawn("bus", driver.run(tasks.token().cancelled_owned()));
        let tables = Arc::new(Tables::default());
        let config = EmbeddedConfig {
            mesh: MeshName::default(),
            node: self.node.clone(),
            generation,
            max_in_flight: world.plan.max_in_flight,
            max_per_instance: world.plan.concurrency,
            grace: Duration::from_secs(3),
            beacon_interval: Duration::from_millis(250),
            router: router_config(&world.plan, self.node.clone()),
        };
        let agent = EmbeddedAgent::start(config, bus.clone(), tables.watch(), &tasks);
        AgentUp {
            agent,
            bus,
            line,
            gate: Gate::default(),
            tables,
            generation,
            tasks,
            ends: Notify::new(),
        }
    }

    /// Tells the coordinator what the agent knows, a little late.
    fn report(&self, world: &Arc<World>, up: &Arc<AgentUp>, rng: &mut fastrand::Rng) {
        let mut roster = up.agent.follow();
        let (world, node) = (world.clone(), self.node.clone());
        let (generation, gate, stop) = (up.generation, up.gate.clone(), up.tasks.token());
        let mut rng = rng.fork();
        world.clone().spawn("report", async move {
            loop {
                tokio::time::sleep_until(gate.opens(Instant::now() + report_delay(&mut rng))).await;
                if stop.is_cancelled() {
                    return;
                }
                let instances = roster.instances();
                world.coordinator.told(&node, generation, instances);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    there = roster.changed() => if !there {
                        return;
                    },
                }
            }
        });
    }

    /// Evicts a node that is there, and takes it back.
    pub(super) async fn lose(&self, world: &World, away: Duration) {
        let Some(up) = self.now() else {
            return;
        };
        world.coordinator.evict(&self.node, up.generation);
        sleep(away).await;
        if self
            .now()
            .is_some_and(|now| now.generation == up.generation)
        {
            let instances = up.agent.follow().instances();
            world.coordinator.told(&self.node, up.generation, instances);
        }
    }

    pub(super) fn away(rng: &mut fastrand::Rng) -> Duration {
        millis(rng, 20..=2_000)
    }
}
