//! Describes an orchestrator: a long-running task that other plugins begin and follow.

use serde_json::Value;

use super::Service;
use crate::check::Report;
use crate::wire::common::{CapabilityEntry, CapabilityKind};

/// Describes an orchestrator: a long-running task that tells what it does, line by line, and can be
/// cancelled.
///
/// ```
/// use plugmesh_sdk::{ChunkSender, Json, Orchestrator, Plugin};
/// let migrate = Orchestrator::new("db.migrate").description("Moves all tables");
/// let plugin = Plugin::new("db", "1.0.0").orchestrator(
///     migrate,
///     async |Json(tables): Json<Vec<String>>, mut lines: ChunkSender, _| {
///         for table in tables {
///             lines.send(format!("moved {table}")).await?;
///         }
///         Ok(())
///     },
/// );
/// assert!(plugin.check().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Orchestrator(Service);

impl Orchestrator {
    /// An orchestrator of this name, such as `db.migrate`: 1 to 256 bytes.
    ///
    /// ```
    /// let orchestrator = plugmesh_sdk::Orchestrator::new("db.migrate");
    /// # let _ = orchestrator;
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(Service::new(name))
    }

    /// What it does.
    ///
    /// ```
    /// let orchestrator = plugmesh_sdk::Orchestrator::new("db.migrate").description("Moves all tables");
    /// # let _ = orchestrator;
    /// ```
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        Self(self.0.description(text))
    }

    /// Repeating a run has no further effect: the mesh may begin one again whose outcome is unknown.
    ///
    /// ```
    /// let orchestrator = plugmesh_sdk::Orchestrator::new("db.check").idempotent();
    /// # let _ = orchestrator;
    /// ```
    #[must_use]
    pub fn idempotent(self) -> Self {
        Self(self.0.idempotent())
    }

    /// Sets a field of the description object, such as `inputSchema`; callers can look it up.
    ///
    /// ```
    /// let orchestrator = plugmesh_sdk::Orchestrator::new("db.migrate").field("owner", "storage team");
    /// # let _ = orchestrator;
    /// ```
    #[must_use]
    pub fn field(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self(self.0.field(name, value))
    }

    pub(crate) fn name(&self) -> &str {
        self.0.name()
    }

    pub(crate) fn build(self, client_streaming: bool, report: &mut Report<'_>) -> CapabilityEntry {
        let kind = CapabilityKind::Orchestrator;
        self.0.build_as(kind, true, client_streaming, report)
    }
}

impl From<&str> for Orchestrator {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}
