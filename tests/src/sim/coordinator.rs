//! The coordinator, played: it hears what agents know of their instances, and publishes tables.

use std::collections::{BTreeMap, BTreeSet};
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

use super::plan::{Planted, millis};
use super::world::World;

/// One node, as its agent told it.
#[derive(Debug)]
struct Known {
    generation: Generation,
    instances: Vec<EmbeddedInstance>,
}

#[derive(Debug, Default)]
pub(super) struct Coordinator {
    planted: Planted,
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
    told: Mutex<Told>,
}

/// What was brought to the router, whatever it makes of it.
#[derive(Debug, Default)]
struct Told {
    there: BTreeSet<InstanceId>,
    gone: BTreeMap<InstanceId, Instant>,
}

impl Default for Tables {
    fn default() -> Self {
        let (store, watch, _) = TableStore::open(None).unwrap();
        Self {
            store,
            watch,
            late_until: Mutex::default(),
            told: Mutex::default(),
        }
    }
}

impl Tables {
    fn apply(&self, update: &TableUpdate) {
        // The same one again is refused as old.
        if self.store.apply(update).is_err() {
            return;
        }
        let now = Instant::now();
        let there: BTreeSet<_> = update.instances.iter().map(|one| one.instance).collect();
        let mut told = self.told.lock().unwrap();
        let before = std::mem::take(&mut told.there);
        let gone = before.difference(&there).map(|instance| (*instance, now));
        told.gone.extend(gone);
        told.gone.retain(|instance, _| !there.contains(instance));
        told.there = there;
    }

    /// For how long the router has been told that an instance is gone.
    pub(super) fn gone_for(&self, instance: InstanceId) -> Option<Duration> {
        let told = self.told.lock().unwrap();
        told.gone.get(&instance).map(Instant::elapsed)
    }

    /// The tables, so much later.
    pub(super) fn late(&self, world: &World, late: Duration) -> watch::Receiver<Arc<Table>> {
        let mut tables = self.watch();
        let (sender, receiver) = watch::channel(tables.borrow_and_update().clone());
        world.spawn("late tables", async move {
            while tables.changed().await.is_ok() {
                sleep(late).await;
                let table = tables.borrow_and_update().clone();
                sender.send_replace(table);
            }
        });
        receiver
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Table>> {
        self.watch.clone()
    }

    pub(super) fn late_until(&self, until: Instant) {
        *self.late_until.lock().unwrap() = Some(until);
    }
}

impl Coordinator {
    pub(super) fn new(planted: Planted) -> Self {
        Self {
            planted,
            ..Self::default()
        }
    }

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
                let mut manifest = one.manifest.clone();
                if self.planted == Planted::RepeatsUnknown {
                    for entry in &mut Arc::make_mut(&mut manifest).capabilities {
                        entry.idempotent = true;
                    }
                }
                let spec = SpecId::of(&manifest);
                if !update.specs.iter().any(|(known, _)| *known == spec) {
                    update.specs.push((spec.clone(), manifest));
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
