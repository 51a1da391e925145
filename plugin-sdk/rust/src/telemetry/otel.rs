//! OpenTelemetry: the exporter, spans with remote parents, W3C context.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use crate::calls::TraceContext;
use crate::check::kind_name;
use crate::telemetry::Served;

pub(super) fn endpoint_is_set() -> bool {
    [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ]
    .iter()
    .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Time for the spans that are left when the plugin ends.
const FAREWELL: Duration = Duration::from_secs(3);

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
        let _ = self.provider.shutdown_with_timeout(FAREWELL);
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

pub(super) fn server_span(served: &Served<'_>) -> Span {
    let parent = &served.parent;
    let capability = served.capability;
    let method = format!("{}:{}", kind_name(capability.kind), capability.name);
    // Names and attributes of the semantic conventions for RPC; what they do not name begins with
    // `plugmesh.`, as in the mesh's own spans.
    let span = tracing::info_span!(
        parent: None,
        "serve",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        rpc.response.status_code = Empty,
        rpc.system.name = "plugmesh",
        rpc.method = method,
        plugmesh.plugin = served.plugin,
        plugmesh.version = served.version,
        plugmesh.instance = served.instance,
        plugmesh.node = served.node,
        plugmesh.caller = Some(served.caller).filter(|caller| !caller.is_empty()),
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

#[cfg(test)]
mod tests {
    //! Spans as they would be exported.

    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{SpanKind, Status};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SpanData, SpanExporter};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::{Telemetry, record_end};
    use crate::wire::common::{self, CapabilityKind};

    /// Keeps what it gets.
    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if let Ok(mut kept) = self.0.lock() {
                kept.extend(batch);
            }
            Ok(())
        }
    }

    fn served<'a>(capability: &'a common::Capability, parent: &'a TraceContext) -> Served<'a> {
        Served {
            plugin: "calculator",
            version: "1.0.0",
            instance: "i",
            node: "n",
            caller: "",
            capability,
            parent: parent.clone(),
        }
    }

    #[test]
    fn a_call_is_a_span_below_its_callers_and_what_it_calls_is_below_it() {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(kept.clone())
            .build();
        let exporter = Exporter { provider };
        let subscriber = tracing_subscriber::registry().with(layer(&exporter));
        let parent = TraceContext {
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            tracestate: "vendor=1".to_owned(),
        };
        let add = common::Capability {
            kind: CapabilityKind::Tool.into(),
            name: "add".to_owned(),
        };
        let telemetry = Telemetry { exporting: true };
        let inside = tracing::subscriber::with_default(subscriber, || {
            let span = telemetry.span(|| served(&add, &parent))?;
            let inside = span.in_scope(|| telemetry.current(parent.clone()));
            record_end(&span, Some("plugin_failed"));
            Some(inside)
        });
        let spans = kept.0.lock().map(|kept| kept.clone()).unwrap_or_default();
        let [span] = spans.as_slice() else {
            panic!("{spans:?}");
        };
        assert_eq!(span.name, "tool:add");
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(matches!(span.status, Status::Error { .. }));
        let (trace, own) = (span.span_context.trace_id(), span.span_context.span_id());
        assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        let expected = TraceContext {
            traceparent: format!("00-{trace}-{own}-01"),
            tracestate: "vendor=1".to_owned(),
        };
        assert_eq!(inside, Some(expected));
    }

    #[test]
    fn without_an_exporter_the_callers_context_is_handed_on_untouched() {
        let parent = TraceContext {
            traceparent: "00-x".to_owned(),
            tracestate: "y".to_owned(),
        };
        let telemetry = Telemetry { exporting: false };
        let nothing = common::Capability::default();
        assert!(telemetry.span(|| served(&nothing, &parent)).is_none());
        assert_eq!(telemetry.current(parent.clone()), parent);
        // Nor is anything lost when spans are made, but no layer takes them.
        assert_eq!(
            Telemetry { exporting: true }.current(parent.clone()),
            parent
        );
    }
}
