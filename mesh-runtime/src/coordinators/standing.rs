//! Whether the routing table of a process is kept current by a coordinator, as `/ready`, the log and
//! the metrics say it.

use mesh_core::revision::Revision;
use prometheus_client::metrics::gauge::Gauge;

use crate::{Metrics, ReadyLatch};

/// How it stands with the table of this process.
#[derive(Debug)]
pub struct TableStanding {
    ready: ReadyLatch,
    addresses: String,
    followed: Gauge,
    from_disk: Gauge,
}

impl TableStanding {
    /// At the start, with the table that was on disk; `addresses`: where coordinators may be.
    #[must_use]
    pub fn new(
        ready: ReadyLatch,
        metrics: &Metrics,
        addresses: &[String],
        table: Revision,
    ) -> Self {
        let standing = Self {
            ready,
            addresses: addresses.join(", "),
            followed: Gauge::default(),
            from_disk: Gauge::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("table");
            registry.register(
                "followed",
                "1: a coordinator keeps the routing table current; 0: none, it may be old",
                standing.followed.clone(),
            );
            registry.register(
                "from_disk",
                "1: the routing table is still the one that was on disk at the start",
                standing.from_disk.clone(),
            );
        });
        if table != Revision::default() {
            standing.from_disk.set(1);
            tracing::info!(revision = %table, "starting from the routing table on disk");
        }
        standing.alone(table, "no coordinator has answered yet");
        standing
    }

    /// No coordinator keeps it current, and why.
    pub fn alone(&self, table: Revision, why: &str) {
        self.followed.set(0);
        if table == Revision::default() {
            self.ready.set_not_ready(format!(
                "there is no table yet: no coordinator answers at {} ({why}), and none is on disk",
                self.addresses
            ));
            return;
        }
        let from = match self.from_disk.get() {
            0 => "",
            _ => ", as it was on disk at the start",
        };
        self.ready.set_ready_with(format!(
            "serving from the table at revision {table}{from}, which may be old: {why}"
        ));
    }

    /// A coordinator keeps it current.
    pub fn followed(&self) {
        self.followed.set(1);
        self.from_disk.set(0);
        self.ready.set_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Readiness;

    #[test]
    fn ready_and_metrics_say_whether_the_table_may_be_old() {
        let on_disk = Revision {
            epoch: 1,
            sequence: 7,
        };
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let addresses = ["http://a:1".to_owned()];
        let ready = readiness.latch("table");
        let standing = TableStanding::new(ready, &metrics, &addresses, on_disk);
        let detail = || {
            let checks = readiness.report().checks;
            checks.first().map(|check| check.detail.clone())
        };
        let shows = |line: &str| metrics.render().lines().any(|shown| shown == line);
        assert!(readiness.is_ready());
        let text = "serving from the table at revision 1.7, as it was on disk at the start, which may be \
                    old: no coordinator has answered yet";
        assert_eq!(detail().as_deref(), Some(text));
        assert!(shows("plugmesh_table_from_disk 1") && shows("plugmesh_table_followed 0"));
        standing.followed();
        assert_eq!(detail().as_deref(), Some(""));
        assert!(shows("plugmesh_table_from_disk 0") && shows("plugmesh_table_followed 1"));
        standing.alone(on_disk, "it is gone");
        let text = "serving from the table at revision 1.7, which may be old: it is gone";
        assert_eq!(detail().as_deref(), Some(text));
    }

    #[test]
    fn without_any_table_it_is_not_ready_and_names_the_addresses() {
        let readiness = Readiness::new();
        let addresses = ["http://a:1".to_owned(), "http://b:2".to_owned()];
        let ready = readiness.latch("table");
        let _ = TableStanding::new(ready, &Metrics::new(), &addresses, Revision::default());
        let checks = readiness.report().checks;
        assert!(!readiness.is_ready());
        let named =
            |check: &crate::readiness::Check| check.detail.contains("http://a:1, http://b:2");
        assert!(checks.iter().all(named), "{checks:?}");
    }
}
