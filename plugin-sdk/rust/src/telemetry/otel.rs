//! OpenTelemetry: the exporter, spans with remote parents, W3C context.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use crate::calls::TraceContext;
use crate::check::kind_name;
use crate::wire::common;

pub(super) fn endpoint_is_set() -> bool {
    [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ]
    .iter()
    .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Sends spans away, until it is shut down.
pub(crate) struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Makes the exporter; the endpoint and all else come from OpenTelemetry's environment variables.
    /// The error is for a person.
    pub(crate) fn start(service: &str, version: &str) -> Result<Self, String> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder()
            .with_service_name(service.to_owned())
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                version.to_owned(),
            ))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self { provider })
    }

    /// Sends what is left. Blocks: the runtime that the exporter was made on must go on meanwhile.
    pub(crate) fn shutdown(self) {
        // There is nobody left to tell.
        let _ = self.provider.shutdown();
    }
}

/// The layer that makes spans of `tracing` into spans of the exporter.
pub(crate) fn layer<S>(exporter: &Exporter) -> OpenTelemetryLayer<S, SdkTracer>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let tracer = exporter.provider.tracer("plugmesh-sdk");
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
}

pub(super) fn server_span(
    plugin: &str,
    capability: &common::Capability,
    parent: &TraceContext,
) -> Span {
    let capability = format!("{}:{}", kind_name(capability.kind), capability.name);
    // Names and attributes of the semantic conventions for RPC.
    let span = tracing::info_span!(
        "call",
        otel.name = format!("{plugin}/{capability}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        rpc.system = "plugmesh",
        rpc.service = plugin,
        rpc.method = capability,
    );
    if !parent.traceparent.is_empty() {
        let carrier = HashMap::from([
            ("traceparent".to_owned(), parent.traceparent.clone()),
            ("tracestate".to_owned(), parent.tracestate.clone()),
        ]);
        let context = TraceContextPropagator::new().extract(&carrier);
        // It fails when no layer of OpenTelemetry is there: then there is no span to place.
        let _ = span.set_parent(context);
    }
    span
}

/// The context of the current span; `None` when there is none.
pub(super) fn current() -> Option<TraceContext> {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    Some(TraceContext {
        traceparent: carrier.remove("traceparent")?,
        tracestate: carrier.remove("tracestate").unwrap_or_default(),
    })
}
