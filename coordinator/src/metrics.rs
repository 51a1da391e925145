//! What a coordinator counts.

use std::time::Duration;

use mesh_core::revision::Revision;
use mesh_core::state::InstanceState;
use mesh_engine::engine::Counts;
use mesh_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the time that a step takes, in seconds.
const SECONDS: [f64; 10] = [
    0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The coordinator's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CoordinatorMetrics {
    sessions: Gauge,
    followers: Gauge,
    instances: Family<StateLabel, Gauge>,
    revision: Gauge,
    writes: Family<OutcomeLabel, Counter>,
    steps: Histogram,
    office: Gauge,
    current: Gauge,
    lost: Counter,
}

impl CoordinatorMetrics {
    /// Registers all of them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self {
            sessions: Gauge::default(),
            followers: Gauge::default(),
            instances: Family::default(),
            revision: Gauge::default(),
            writes: Family::default(),
            steps: Histogram::new(SECONDS),
            office: Gauge::default(),
            current: Gauge::default(),
            lost: Counter::default(),
        };
        let all = own.clone();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("coordinator");
            registry.register("sessions", "Agents' sessions that are open", all.sessions);
            registry.register("followers", "Streams that follow the table", all.followers);
            registry.register("instances", "Instances by state", all.instances);
            registry.register("revision", "Sequence of the published table", all.revision);
            registry.register("writes", "Writes to the registry by outcome", all.writes);
            registry.register(
                "step_seconds",
                "Time that the engine takes per event",
                all.steps,
            );
            registry.register(
                "office",
                "1: this coordinator is the one that may evict nodes",
                all.office,
            );
            registry.register(
                "registry_current",
                "1: it is proven that the registry here is what the store holds",
                all.current,
            );
            registry.register(
                "registry_lost",
                "How often that could not be proven any more",
                all.lost,
            );
        });
        own
    }

    /// Counts a stream that follows the table, until it is dropped.
    pub(crate) fn following(&self) -> Following {
        self.followers.inc();
        Following(self.followers.clone())
    }

    /// How one write went.
    pub(crate) fn wrote(&self, outcome: &'static str) {
        self.writes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// What one step took.
    pub(crate) fn stepped(&self, took: Duration) {
        self.steps.observe(took.as_secs_f64());
    }

    /// Whether the registry is what the store holds.
    pub(crate) fn current(&self, current: bool) {
        if self.current.set(current.into()) == 1 && !current {
            self.lost.inc();
        }
    }

    /// Whether this coordinator may evict nodes.
    pub(crate) fn office(&self, held: bool) {
        self.office.set(held.into());
    }

    /// How it stands now.
    pub(crate) fn set(&self, counts: &Counts, revision: Revision) {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.sessions.set(signed(counts.sessions));
        self.revision
            .set(i64::try_from(revision.sequence).unwrap_or(i64::MAX));
        for state in InstanceState::ALL {
            let count = counts.instances.get(&state).copied().unwrap_or_default();
            let label = StateLabel {
                state: state.as_str(),
            };
            self.instances.get_or_create(&label).set(signed(count));
        }
    }
}

/// One stream that follows the table.
#[derive(Debug)]
pub(crate) struct Following(Gauge);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.dec();
    }
}
