//! Load beacons: how busy every instance is, several times a second, and that the agent is alive.

use std::collections::HashMap;
use std::time::Duration;

use mesh_bus::Bus;
use mesh_core::id::{Generation, InstanceId};
use mesh_core::state::Phase;
use mesh_proto::control::LoadBeacon;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::data::Plane;
use crate::launch::LaunchBook;
use crate::metrics::AgentMetrics;
use crate::roster::{Instances, Roster};
use crate::supervisor::{Usage, UsageMeter};

/// How often it is looked what the processes use; that costs more than all else of a beacon.
const LOOK: Duration = Duration::from_secs(1);

/// What beacons are made of.
#[derive(Debug)]
pub(crate) struct Beacons {
    /// The data path, which counts.
    pub(crate) plane: Plane,
    /// Where they are published.
    pub(crate) bus: Bus,
    /// Time between two of them.
    pub(crate) interval: Duration,
    /// This generation of the node.
    pub(crate) generation: Generation,
    /// The processes.
    pub(crate) book: LaunchBook,
    /// The instances.
    pub(crate) roster: Roster,
    /// The gauge of instances.
    pub(crate) metrics: AgentMetrics,
}

impl Beacons {
    /// Publishes beacons until `stop` is cancelled, and keeps the gauge of instances.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut meter = UsageMeter::default();
        let mut used = HashMap::new();
        let mut look_at = Instant::now();
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.metrics.plugins(&by_phase(&self.roster.now()));
            let now = Instant::now();
            if now >= look_at {
                look_at = now + LOOK;
                used = meter.look(&self.book.processes(), now);
            }
            self.publish(&used);
        }
    }

    fn publish(&self, used: &HashMap<InstanceId, Usage>) {
        let mut instances = self.plane.loads();
        for load in &mut instances {
            let instance = InstanceId::from_bytes(&load.instance).ok();
            if let Some(usage) = instance.and_then(|instance| used.get(&instance)) {
                load.memory_bytes = usage.memory_bytes;
                load.cpu_millis = usage.cpu_millis;
            }
        }
        let beacon = LoadBeacon {
            node: self.plane.node().to_string(),
            generation: self.generation.0,
            instances,
            interval_ms: u32::try_from(self.interval.as_millis()).unwrap_or(0),
        };
        self.bus
            .publish_load(self.plane.node(), self.generation, &beacon);
    }
}

/// How many instances are in each phase.
fn by_phase(instances: &Instances) -> Vec<(&'static str, i64)> {
    [
        (Phase::Starting, "starting"),
        (Phase::Loaded, "loaded"),
        (Phase::Ready, "ready"),
        (Phase::Unhealthy, "unhealthy"),
        (Phase::Draining, "draining"),
        (Phase::Failed, "failed"),
    ]
    .into_iter()
    .map(|(phase, name)| {
        let found = instances.known.values().filter(|fact| fact.phase == phase);
        (name, i64::try_from(found.count()).unwrap_or(i64::MAX))
    })
    .collect()
}
