//! Trace context between the wire and spans (W3C Trace Context, level 1).
//!
//! When nothing is exported there are no spans, and the context of the caller passes through
//! untouched, so that a trace of others is not cut.

use std::collections::HashMap;

use mesh_core::call::TraceContext;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Target of the spans of the hot path; they are enabled only while spans are exported.
pub const RPC_TARGET: &str = "plugmesh::rpc";

/// Makes the span a child of the caller's. Call it before the span is entered. A context that is
/// empty or can't be read starts a new trace.
pub fn set_parent(span: &Span, parent: &TraceContext) {
    if span.is_disabled() || parent.traceparent.is_empty() {
        return;
    }
    let carrier = HashMap::from([
        ("traceparent".to_owned(), parent.traceparent.clone()),
        ("tracestate".to_owned(), parent.tracestate.clone()),
    ]);
    let context = TraceContextPropagator::new().extract(&carrier);
    // Fails when no exporter is set up: then there is nothing to be a child of.
    let _ = span.set_parent(context);
}

/// The context to send with a call that is made within the span; `fallback` when the span is not
/// recorded.
#[must_use]
pub fn context_of(span: &Span, fallback: &TraceContext) -> TraceContext {
    if span.is_disabled() {
        return fallback.clone();
    }
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return fallback.clone();
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    TraceContext {
        traceparent: carrier.remove("traceparent").unwrap_or_default(),
        tracestate: carrier.remove("tracestate").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_exporter_the_callers_context_passes_untouched() {
        let caller = TraceContext {
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            tracestate: "vendor=1".to_owned(),
        };
        let span = tracing::info_span!(target: RPC_TARGET, "call");
        assert!(span.is_disabled());
        set_parent(&span, &caller);
        assert_eq!(context_of(&span, &caller), caller);
    }
}
