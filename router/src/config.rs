//! How a router works.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::call::TraceContext;
use mesh_core::id::NodeId;

/// Ties the router's spans into traces. The router knows nothing of OpenTelemetry; whoever exports
/// spans gives it one of these.
pub trait SpanLink: Send + Sync {
    /// Makes `parent` the parent of a new span and returns the context to send along, so that what
    /// the callee does becomes the span's child.
    fn link(&self, span: &tracing::Span, parent: &TraceContext) -> TraceContext;
}

/// How a router works.
#[derive(Clone)]
pub struct RouterConfig {
    /// The node or gateway that calls enter by; instances on the node of this name are preferred
    /// and called without the bus when there is a local host.
    pub name: NodeId,
    /// The time that a call has when it names none.
    pub default_timeout: Duration,
    /// How many instances are tried for one call, at least 1.
    pub max_attempts: u32,
    /// Spans are exported through this; `None`: no spans are made, at the cost of one branch.
    pub tracing: Option<Arc<dyn SpanLink>>,
}

impl RouterConfig {
    /// The defaults: 30 s, 3 attempts, no spans.
    #[must_use]
    pub fn new(name: NodeId) -> Self {
        Self {
            name,
            default_timeout: Duration::from_secs(30),
            max_attempts: 3,
            tracing: None,
        }
    }
}

impl fmt::Debug for RouterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterConfig")
            .field("name", &self.name)
            .field("default_timeout", &self.default_timeout)
            .field("max_attempts", &self.max_attempts)
            .field("tracing", &self.tracing.is_some())
            .finish()
    }
}
