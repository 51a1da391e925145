//! What the gateway counts.

use std::time::Duration;

use mesh_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::composite::Catalog;

/// Upper bounds of the time that a call takes, in seconds.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The gateway's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<MethodLabel, Histogram, fn() -> Histogram>,
    /// Sessions that are open (2025-11-25 and older).
    pub sessions: Gauge,
    /// Subscriptions that are open (2026-07-28).
    pub subscriptions: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Bytes of requests and answers that are held.
    pub bytes_in_flight: Gauge,
    /// Notifications that were left out because their client took none.
    pub notifications_dropped: Counter,
    revision: Gauge,
    entries: Family<KindLabel, Gauge>,
    collisions: Family<ReasonLabel, Gauge>,
}

impl GatewayMetrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let own = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            sessions: Gauge::default(),
            subscriptions: Gauge::default(),
            connections: Gauge::default(),
            bytes_in_flight: Gauge::default(),
            notifications_dropped: Counter::default(),
            revision: Gauge::default(),
            entries: Family::default(),
            collisions: Family::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("gateway");
            let all = own.clone();
            registry.register(
                "requests",
                "MCP requests by method and outcome",
                all.requests,
            );
            registry.register(
                "call_seconds",
                "Time of MCP requests in seconds",
                all.seconds,
            );
            registry.register("sessions", "Sessions that are open", all.sessions);
            registry.register(
                "subscriptions",
                "Subscriptions that are open",
                all.subscriptions,
            );
            registry.register("connections", "Connections that are open", all.connections);
            registry.register(
                "bytes_in_flight",
                "Bytes of requests and answers that are held",
                all.bytes_in_flight,
            );
            registry.register(
                "notifications_dropped",
                "Notifications left out because their client took none",
                all.notifications_dropped,
            );
            registry.register(
                "table_revision",
                "Sequence of the routing table",
                all.revision,
            );
            registry.register(
                "catalog_entries",
                "Entries that clients can list",
                all.entries,
            );
            registry.register(
                "name_collisions",
                "Entries that are not in the catalog as their plugins gave them",
                all.collisions,
            );
        });
        own
    }

    /// Counts a request that has ended.
    pub fn request(&self, method: &'static str, outcome: &'static str, took: Duration) {
        self.requests
            .get_or_create(&RequestLabels { method, outcome })
            .inc();
        self.seconds
            .get_or_create(&MethodLabel { method })
            .observe(took.as_secs_f64());
    }

    /// Counts a request that was refused before it reached the MCP server.
    pub fn refused(&self, outcome: &'static str) {
        let labels = RequestLabels {
            method: "refused",
            outcome,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Shows the table's revision.
    pub fn table(&self, sequence: u64) {
        self.revision
            .set(i64::try_from(sequence).unwrap_or(i64::MAX));
    }

    /// Shows what a catalog holds.
    pub fn catalog(&self, catalog: &Catalog) {
        let entries = [
            ("tool", catalog.tools.items().len()),
            ("resource", catalog.resources.items().len()),
            ("resource_template", catalog.templates.items().len()),
            ("prompt", catalog.prompts.items().len()),
        ];
        for (kind, count) in entries {
            let gauge = self.entries.get_or_create(&KindLabel { kind });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for reason in ["renamed", "collision", "invalid_entry"] {
            let found = |problem: &&_| word(problem) == reason;
            let count = catalog.problems.iter().filter(found).count();
            let gauge = self.collisions.get_or_create(&ReasonLabel { reason });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn word(problem: &crate::composite::Problem) -> &'static str {
    problem.reason.word()
}
