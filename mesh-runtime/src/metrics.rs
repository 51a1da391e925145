//! Metrics: one registry of a process, shown in the text format of OpenMetrics.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Media type of what [`Metrics::render`] gives (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("plugmesh"))),
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
}
