//! Server spans of calls to plugins; made only while spans are exported.
//!
//! Names of attributes follow OpenTelemetry's semantic conventions for RPC and messaging; what they
//! do not name begins with `plugmesh.`.

use mesh_core::call::TraceContext;
use mesh_core::capability::CapabilityKind;
use mesh_core::error::{ErrorCode, Place};
use mesh_proto::common;
use mesh_runtime::trace::{RPC_TARGET, context_of, set_parent};
use router::SpanLink;
use tracing::{Span, field};

use crate::session::End;

/// Begins the span of a call, as a child of the caller's. Gives the context that the plugin shall get, so
/// that what it does becomes the span's child.
pub(crate) fn begin(
    call: &common::Call,
    place: &Place,
    over_bus: bool,
) -> (Span, common::TraceContext) {
    let (kind, name) = call.capability.as_ref().map_or(("", ""), |capability| {
        let kind = CapabilityKind::try_from(capability.kind()).map_or("", CapabilityKind::as_str);
        (kind, capability.name.as_str())
    });
    let span = tracing::info_span!(
        target: RPC_TARGET,
        parent: None,
        "invoke",
        otel.name = format_args!("{kind}:{name}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        rpc.response.status_code = field::Empty,
        rpc.system.name = "plugmesh",
        rpc.method = format_args!("{kind}:{name}"),
        messaging.system = over_bus.then_some("nats"),
        messaging.operation.type = over_bus.then_some("process"),
        plugmesh.plugin = place.plugin,
        plugmesh.version = place.version,
        plugmesh.instance = place.instance,
        plugmesh.node = place.node,
        plugmesh.caller = call.caller.as_ref().map(|caller| caller.plugin.as_str()),
    );
    let parent = call.trace.clone().unwrap_or_default().into();
    set_parent(&span, &parent);
    let context = context_of(&span, &parent).into();
    (span, context)
}

/// The call of a span ended; the span is closed when it is dropped.
pub(crate) fn ended(span: &Span, end: &End) {
    if let Err(error) = end {
        let code = ErrorCode::from_number(error.code).name();
        span.record("otel.status_code", "ERROR");
        span.record("error.type", code);
        span.record("rpc.response.status_code", code);
    }
}

/// Ties the spans of the router's calls into traces.
#[derive(Debug)]
pub(crate) struct Link;

impl SpanLink for Link {
    fn link(&self, span: &Span, parent: &TraceContext) -> TraceContext {
        set_parent(span, parent);
        context_of(span, parent)
    }
}
