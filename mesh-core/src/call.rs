//! What travels with a call beside its payload: who calls, and in which trace.

use serde::{Deserialize, Serialize};

/// W3C Trace Context; empty texts mean that there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: String,
    /// The `tracestate` header.
    pub tracestate: String,
}

impl TraceContext {
    /// Whether there is no trace.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.traceparent.is_empty()
    }
}

/// On whose behalf a call is made; empty texts are unknown or do not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Caller {
    /// The calling plugin; empty: a client of a gateway.
    pub plugin: String,
    /// The calling plugin's instance.
    pub instance: String,
    /// The node or gateway that the call entered by.
    pub node: String,
}
