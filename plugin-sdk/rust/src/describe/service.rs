//! Describes a service: a method that other plugins call.

use serde_json::{Map, Value};

use super::entry;
use crate::check::Report;
use crate::wire::common::{CapabilityEntry, CapabilityKind};

/// Describes a service, a method that other plugins call by `service.method`.
///
/// ```
/// use plugmesh_sdk::{Json, Plugin, Service};
/// let length = Service::new("text.length").description("Counts characters").read_only();
/// let plugin = Plugin::new("text", "1.0.0")
///     .service(length, async |Json(text): Json<String>, _| Ok(Json(text.chars().count())));
/// assert!(plugin.check().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    fields: Map<String, Value>,
    idempotent: bool,
    read_only: bool,
}

impl Service {
    /// A service of this name, such as `embedding.embed`: 1 to 256 bytes.
    ///
    /// ```
    /// let service = plugmesh_sdk::Service::new("embedding.embed");
    /// # let _ = service;
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            fields: Map::new(),
            idempotent: false,
            read_only: false,
        }
    }

    /// What the service does.
    ///
    /// ```
    /// let service = plugmesh_sdk::Service::new("embedding.embed").description("Embeds a text");
    /// # let _ = service;
    /// ```
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.field("description", text.into())
    }

    /// Repeating a call has no further effect: the mesh may send a call again whose outcome is
    /// unknown.
    ///
    /// ```
    /// let service = plugmesh_sdk::Service::new("index.add").idempotent();
    /// # let _ = service;
    /// ```
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// A call changes nothing: the mesh may send a call again whose outcome is unknown.
    ///
    /// ```
    /// let service = plugmesh_sdk::Service::new("index.find").read_only();
    /// # let _ = service;
    /// ```
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Sets a field of the description object, such as `inputSchema`; callers can look it up.
    ///
    /// ```
    /// let service = plugmesh_sdk::Service::new("index.find").field("owner", "search team");
    /// # let _ = service;
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn build(
        self,
        streaming: bool,
        client_streaming: bool,
        report: &mut Report<'_>,
    ) -> CapabilityEntry {
        let kind = CapabilityKind::Service;
        self.build_as(kind, streaming, client_streaming, report)
    }

    pub(super) fn build_as(
        self,
        kind: CapabilityKind,
        streaming: bool,
        client_streaming: bool,
        report: &mut Report<'_>,
    ) -> CapabilityEntry {
        let named = (1..=256).contains(&self.name.len())
            && !self
                .name
                .chars()
                .any(|c| c.is_control() || c.is_whitespace());
        if !named {
            report.add(
                "name",
                format!(
                    "{:?} is not valid: use 1 to 256 bytes without spaces, such as \
                     embedding.embed",
                    self.name
                ),
            );
        }
        let fields = (!self.fields.is_empty()).then_some(self.fields);
        CapabilityEntry {
            idempotent: self.idempotent,
            read_only: self.read_only,
            streaming,
            client_streaming,
            ..entry(kind, &self.name, fields)
        }
    }
}

impl From<&str> for Service {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}
