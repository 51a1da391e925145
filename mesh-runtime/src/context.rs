//! What a service gets from its process.

use crate::{Metrics, Readiness, Shutdown, Tasks, Telemetry};

/// The handles that every service's `run(config, context)` takes. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Spawns and joins.
    pub tasks: Tasks,
    /// Tells when to stop.
    pub shutdown: Shutdown,
    /// Tells others when the service can work.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Metrics,
    /// Whether spans are exported.
    pub telemetry: Telemetry,
}

impl Context {
    /// A context with nothing in it yet; counts of the task tracker are registered.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        let shutdown = Shutdown::new();
        tasks.register(&metrics);
        Self {
            tasks,
            readiness: Readiness::until(shutdown.token()),
            shutdown,
            metrics,
            telemetry,
        }
    }
}

impl Default for Context {
    /// A context that exports no spans; for tests.
    fn default() -> Self {
        Self::new(Telemetry::off())
    }
}
