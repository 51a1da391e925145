//! Spans of calls, and the trace context that goes from one call to the next.
//!
//! With the feature `otel` and an endpoint in the environment, each call that the plugin works on is a
//! span below its caller's, and is exported by OTLP. Otherwise no span is made, and the context of a
//! call is handed on untouched, so that traces of others pass through.

#[cfg(feature = "otel")]
mod otel;

use tracing::Span;

use crate::calls::TraceContext;
use crate::wire::common;

/// A call, for its span.
#[cfg_attr(
    not(feature = "otel"),
    allow(dead_code, reason = "no span is made of it")
)]
pub(crate) struct Served<'a> {
    pub plugin: &'a str,
    pub version: &'a str,
    pub instance: &'a str,
    pub node: &'a str,
    /// The calling plugin, if it is one.
    pub caller: &'a str,
    pub capability: &'a common::Capability,
    /// The trace context that the call came with.
    pub parent: TraceContext,
}

/// Whether spans are made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Telemetry {
    #[cfg_attr(
        not(feature = "otel"),
        allow(dead_code, reason = "nothing is exported")
    )]
    exporting: bool,
}

#[cfg(feature = "otel")]
pub(crate) use otel::{Exporter, layer};

impl Telemetry {
    /// Spans are made when an endpoint is set.
    pub(crate) fn from_environment() -> Self {
        #[cfg(feature = "otel")]
        return Self {
            exporting: otel::endpoint_is_set(),
        };
        #[cfg(not(feature = "otel"))]
        Self::default()
    }

    #[cfg(feature = "otel")]
    pub(crate) fn is_exporting(self) -> bool {
        self.exporting
    }

    /// The span of a call that the plugin works on; `None` when none is made.
    pub(crate) fn span<'a>(self, served: impl FnOnce() -> Served<'a>) -> Option<Span> {
        #[cfg(feature = "otel")]
        if self.exporting {
            return Some(otel::server_span(&served()));
        }
        let _ = served;
        None
    }

    /// The context for what is done now: that of the current span, else the call's own.
    pub(crate) fn current(self, parent: TraceContext) -> TraceContext {
        #[cfg(feature = "otel")]
        if self.exporting {
            return otel::current().unwrap_or(parent);
        }
        parent
    }
}

/// Notes on the current span how the call ended.
pub(crate) fn record_end(span: &Span, code: Option<&str>) {
    if let Some(code) = code {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", code);
        span.record("rpc.response.status_code", code);
    }
}
