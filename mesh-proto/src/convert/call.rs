//! Callers, trace contexts and log levels. Calls themselves stay wire types on the hot path.

use mesh_core::call::{Caller, TraceContext};

use crate::common;

impl From<TraceContext> for common::TraceContext {
    fn from(own: TraceContext) -> Self {
        Self {
            traceparent: own.traceparent,
            tracestate: own.tracestate,
        }
    }
}

impl From<common::TraceContext> for TraceContext {
    fn from(wire: common::TraceContext) -> Self {
        Self {
            traceparent: wire.traceparent,
            tracestate: wire.tracestate,
        }
    }
}

impl From<Caller> for common::Caller {
    fn from(own: Caller) -> Self {
        Self {
            plugin: own.plugin,
            instance: own.instance,
            node: own.node,
        }
    }
}

impl From<common::Caller> for Caller {
    fn from(wire: common::Caller) -> Self {
        Self {
            plugin: wire.plugin,
            instance: wire.instance,
            node: wire.node,
        }
    }
}
