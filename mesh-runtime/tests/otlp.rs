//! Spans reach a collector, as children of the caller's span, with the resource of their process.
//! Telemetry is set up once per process, so this is a test program of its own.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]

use std::sync::{Arc, Mutex};

use mesh_core::call::TraceContext;
use mesh_runtime::trace::{context_of, set_parent};
use mesh_runtime::{Telemetry, TelemetryConfig};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn one_trace_goes_from_the_caller_through_this_process_to_whom_it_calls() {
    let collector = Collector::default();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );

    let config = TelemetryConfig {
        log_format: mesh_runtime::config::LogFormat::Json,
        otlp_endpoint: Some(format!("http://{address}")),
        ..TelemetryConfig::default()
    };
    let guard = Telemetry::init(&config, "gateway", "g-1").unwrap();
    assert!(guard.telemetry().is_exporting());
    assert!(Telemetry::init(&config, "gateway", "g-1").is_err());

    let caller = TraceContext {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        tracestate: "vendor=1".to_owned(),
    };
    let outer = tracing::info_span!(target: "plugmesh::rpc", "tools/call", otel.kind = "server");
    set_parent(&outer, &caller);
    let inner = outer.in_scope(|| {
        tracing::info!("a line with a trace id");
        tracing::info_span!(target: "plugmesh::rpc", "call", otel.kind = "client")
    });
    let sent = context_of(&inner, &caller);
    assert!(
        sent.traceparent
            .starts_with("00-0af7651916cd43dd8448eb211c80319c-")
    );
    assert_ne!(sent.traceparent, caller.traceparent);
    assert_eq!(sent.tracestate, "vendor=1");
    // What others say at their own targets is theirs.
    let foreign = tracing::info_span!(target: "h2", "frame");
    assert_eq!(context_of(&foreign, &caller), caller);
    drop((inner, outer, foreign));
    guard.shutdown().await;

    let requests = collector.0.lock().unwrap().clone();
    let resource = &requests[0].resource_spans[0];
    let mut spans: Vec<_> = requests
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| scope.spans.clone())
        .collect();
    spans.sort_by_key(|span| span.start_time_unix_nano);
    let [outer, inner] = spans.as_slice() else {
        panic!("two spans are awaited: {spans:?}");
    };
    assert_eq!(outer.name, "tools/call");
    assert_eq!(hex(&outer.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&outer.parent_span_id), "b7ad6b7169203331");
    assert_eq!(inner.parent_span_id, outer.span_id);
    assert_eq!(
        sent.traceparent,
        format!("00-{}-{}-01", hex(&inner.trace_id), hex(&inner.span_id))
    );
    let attributes: Vec<String> = resource
        .resource
        .as_ref()
        .unwrap()
        .attributes
        .iter()
        .map(|attribute| format!("{}={:?}", attribute.key, attribute.value))
        .collect();
    for part in [
        "service.name=",
        "plugmesh-gateway",
        "service.instance.id=",
        "g-1",
        "service.version=",
    ] {
        assert!(attributes.join(" ").contains(part), "{part} {attributes:?}");
    }
}
