//! The coordinator, played: it hears what agents know of their instances, and publishes tables.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_node::embedded::EmbeddedInstance;
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::state::{InstanceState, Phase};
use mesh_core::table::{InstanceRoute, NodeRoute, SpecId, Table, TableUpdate};
use router::TableStore;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::millis;
use super::world::World;

/// One node, as its agent told it.
#[derive(Debug)]
struct Known {
    generation: Generation,
    instances: Vec<EmbeddedInstance>,
}

#[derive(Debug, Default)]
pub(super) struct Coordinator {
    nodes: Mutex<BTreeMap<NodeId, Known>>,
    newest: Arc<Newest>,
}

/// The newest table, and those who wait for it: told in order, unlike those who follow a `watch`.
#[derive(Debug, Default)]
struct Newest {
    table: Mutex<Arc<TableUpdate>>,
    changed: Notify,
}

/// The tables of one router.
#[derive(Debug)]
pub(super) struct Tables {
    store: TableStore,
    watch: watch::Receiver<Arc<Table>>,
    late_until: Mutex<Option<Instant>>,
    gone: Mutex<BTreeMap<InstanceId, Instant>>,
}

impl Default for Tables {
    fn default() -> Self {
        let (store, watch, _) = TableStore::open(None).unwrap();
        Self {
            store,
            watch,
            late_until: Mutex::default(),
            gone: Mutex::default(),
        }
    }
}

impl Tables {
    fn apply(&self, update: &TableUpdate) {
        let before = self.store.table();
        // The same one again is refused as old.
        if self.store.apply(update).is_err() {
            return;
        }
        let after = self.store.table();
        let mut gone = self.gone.lock().unwrap();
        for route in before.to_snapshot().instances {
            if after.instance(route.instance).is_none() {
                gone.insert(route.instance, Instant::now());
            }
        }
        gone.retain(|instance, _| after.instance(*instance).is_none());
    }

    /// How long an instance has been gone from the table.
    pub(super) fn gone_for(&self, instance: InstanceId) -> Duration {
        let gone = self.gone.lock().unwrap();
        gone.get(&instance).map_or(Duration::ZERO, Instant::elapsed)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Table>> {
        self.watch.clone()
    }

    pub(super) fn late_until(&self, until: Instant) {
        *self.late_until.lock().unwrap() = Some(until);
    }
}

impl Coordinator {
    /// An agent has told of its node.
    pub(super) fn told(
        &self,
        node: &NodeId,
        generation: Generation,
        instances: Vec<EmbeddedInstance>,
    ) {
        let mut nodes = self.nodes.lock().unwrap();
        if nodes
            .get(node)
            .is_some_and(|known| known.generation > generation)
        {
            return;
        }
        let known = Known {
            generation,
            instances,
        };
        nodes.insert(node.clone(), known);
        self.publish(&nodes);
    }

    /// A node's lease has run out.
    pub(super) fn evict(&self, node: &NodeId, generation: Generation) {
        let mut nodes = self.nodes.lock().unwrap();
        if nodes
            .get(node)
            .is_some_and(|known| known.generation == generation)
        {
            nodes.remove(node);
            self.publish(&nodes);
        }
    }

    fn publish(&self, nodes: &BTreeMap<NodeId, Known>) {
        let sequence = self.newest.table.lock().unwrap().to.sequence + 1;
        let mut update = TableUpdate {
            to: Revision { epoch: 1, sequence },
            ..TableUpdate::default()
        };
        for (node, known) in nodes {
            update.nodes.push(NodeRoute {
                node: node.clone(),
                generation: known.generation,
                zone: String::new(),
                labels: BTreeMap::new(),
                software: String::new(),
            });
            for one in &known.instances {
                let spec = SpecId::of(&one.manifest);
                if !update.specs.iter().any(|(known, _)| *known == spec) {
                    update.specs.push((spec.clone(), one.manifest.clone()));
                }
                update.instances.push(InstanceRoute {
                    instance: one.instance,
                    spec,
                    node: node.clone(),
                    generation: known.generation,
                    state: match one.phase {
                        Phase::Starting => InstanceState::Discovered,
                        Phase::Loaded => InstanceState::Loaded,
                        Phase::Ready => InstanceState::Active,
                        Phase::Unhealthy => InstanceState::Degraded,
                        Phase::Draining => InstanceState::Draining,
                        Phase::Failed => InstanceState::Failed,
                    },
                    reason: String::new(),
                    since: Timestamp(0),
                    concurrency: one.concurrency,
                });
            }
        }
        *self.newest.table.lock().unwrap() = Arc::new(update);
        self.newest.changed.notify_waiters();
    }

    /// Brings tables to a router: each a little later, some left out, never an older one.
    pub(super) fn serve(&self, world: &Arc<World>, tables: Arc<Tables>) {
        let newest = self.newest.clone();
        let mut rng = world.rng();
        let slow = rng.u64(1..=60);
        world.spawn("tables", async move {
            loop {
                sleep(millis(&mut rng, 0..=slow)).await;
                let late = *tables.late_until.lock().unwrap();
                if let Some(late) = late {
                    sleep_until(late).await;
                }
                let update = newest.table.lock().unwrap().clone();
                tables.apply(&update);
                // One thread: nothing changes between the look and the wait.
                newest.changed.notified().await;
            }
        });
    }
}

/// How long an agent's word takes to the coordinator.
pub(super) fn report_delay(rng: &mut fastrand::Rng) -> Duration {
    millis(rng, 0..=30)
}
