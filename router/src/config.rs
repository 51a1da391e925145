//! How a router works.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::call::TraceContext;
use mesh_core::id::NodeId;
use mesh_core::select::Near;

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
    /// The node or gateway that calls enter by; instances on the node of this name are called without
    /// the bus when there is a local host.
    pub name: NodeId,
    /// The time that a call has when it names none.
    pub default_timeout: Duration,
    /// The zone that calls enter in; empty: none.
    pub zone: String,
    /// Which instances go before others, the most preferred first.
    pub prefer: Vec<Near>,
    /// How many instances are tried for one call, at least 1.
    pub max_attempts: usize,
    /// For how long a call that nobody could be given is kept, within its own time: the broker, or
    /// all instances, may be about to come back.
    pub patience: Duration,
    /// Where the draws of selection begin: equal seeds and equal calls give equal choices.
    pub seed: u64,
    /// Spans are exported through this; `None`: no spans are made, at the cost of one branch.
    pub tracing: Option<Arc<dyn SpanLink>>,
}

impl RouterConfig {
    /// The defaults: 30 s, own node and zone preferred, 3 attempts, 3 s of patience, a seed drawn at
    /// random, no spans.
    #[must_use]
    pub fn new(name: NodeId) -> Self {
        Self {
            name,
            default_timeout: Duration::from_secs(30),
            zone: String::new(),
            prefer: vec![Near::Node, Near::Zone],
            max_attempts: 3,
            patience: Duration::from_secs(3),
            seed: fastrand::u64(..),
            tracing: None,
        }
    }
}

impl fmt::Debug for RouterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterConfig")
            .field("name", &self.name)
            .field("default_timeout", &self.default_timeout)
            .field("zone", &self.zone)
            .field("prefer", &self.prefer)
            .field("max_attempts", &self.max_attempts)
            .field("patience", &self.patience)
            .field("seed", &self.seed)
            .field("tracing", &self.tracing.is_some())
            .finish()
    }
}
