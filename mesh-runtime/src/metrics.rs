//! Metrics: one registry of a process, shown in the text format of OpenMetrics.

mod readings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

pub use readings::Reading;
use readings::{Group, Kind};

/// Media type of what [`Metrics::render`] gives (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    groups: Arc<Mutex<HashMap<(&'static str, Kind), Group>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("plugmesh"))),
            groups: Arc::default(),
        }
    }
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers metrics. The registry puts `plugmesh_` before each name, and `_total` behind each
    /// counter's: give names without.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows counters that are kept elsewhere, named `plugmesh_<group>_<name>_total`. `read` is called
    /// whenever the metrics are shown; what several sources of a group give under one name is added
    /// up.
    pub fn counters<F>(&self, group: &'static str, read: F)
    where
        F: Fn() -> Vec<Reading> + Send + Sync + 'static,
    {
        self.group(group, Kind::Counters).add(Box::new(read));
    }

    /// As [`Metrics::counters`], for numbers that go up and down.
    pub fn gauges<F>(&self, group: &'static str, read: F)
    where
        F: Fn() -> Vec<Reading> + Send + Sync + 'static,
    {
        self.group(group, Kind::Gauges).add(Box::new(read));
    }

    fn group(&self, name: &'static str, kind: Kind) -> Group {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.entry((name, kind)).or_insert_with(|| {
            let group = Group::new(kind);
            let collector = Box::new(group.clone());
            self.register(|registry| {
                registry
                    .sub_registry_with_prefix(name)
                    .register_collector(collector);
            });
            group
        });
        group.clone()
    }

    /// All metrics in the text format of OpenMetrics; see [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            // Writing to a String fails only when a collector refuses to be encoded.
            tracing::error!("a metric could not be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn names_begin_with_plugmesh() {
        let metrics = Metrics::new();
        let calls = Counter::<u64>::default();
        metrics.register(|registry| registry.register("calls", "Calls begun", calls.clone()));
        calls.inc();
        assert_eq!(
            metrics.render(),
            "# HELP plugmesh_calls Calls begun.\n# TYPE plugmesh_calls counter\n\
             plugmesh_calls_total 1\n# EOF\n"
        );
    }

    #[test]
    fn numbers_of_others_are_read_when_shown_and_added_up() {
        let metrics = Metrics::new();
        let sent = Arc::new(AtomicU64::new(0));
        for factor in [1, 10] {
            let sent = Arc::clone(&sent);
            let read = move || vec![("sent", "Frames sent", factor * sent.load(Ordering::Relaxed))];
            metrics.counters("bus", read);
        }
        metrics.gauges("bus", || vec![("open", "Calls that are open", 3)]);
        sent.store(2, Ordering::Relaxed);
        assert_eq!(
            metrics.render(),
            "# HELP plugmesh_bus_sent Frames sent.\n# TYPE plugmesh_bus_sent counter\n\
             plugmesh_bus_sent_total 22\n\
             # HELP plugmesh_bus_open Calls that are open.\n# TYPE plugmesh_bus_open gauge\n\
             plugmesh_bus_open 3\n# EOF\n"
        );
    }
}
