//! The export of spans: a batch of them now and then, on a thread of its own, so that an endpoint
//! that is slow or gone holds nobody. What does not fit its queue is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
};

use super::TelemetryError;
use crate::Tasks;
use crate::config::TelemetryConfig;

/// Spans leave after this time at the latest, unless OTEL_BSP_SCHEDULE_DELAY says otherwise.
const DELAY: Duration = Duration::from_secs(1);

/// How long one batch may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Where to send spans: the configuration's endpoint, else the environment's.
pub(super) fn endpoint(config: &TelemetryConfig) -> Option<String> {
    let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let off = env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || env("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if off {
        return None;
    }
    config
        .otlp_endpoint
        .clone()
        .filter(|endpoint| !endpoint.is_empty())
        .or_else(|| env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
        .or_else(|| env("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

/// A running export.
#[derive(Debug)]
pub(super) struct Exporter {
    endpoint: Arc<str>,
    provider: SdkTracerProvider,
    /// Owns the thread that does the network's work.
    tasks: Tasks,
}

impl Exporter {
    pub(super) fn start(endpoint: &str, role: &str, name: &str) -> Result<Self, TelemetryError> {
        let refused = |why: String| TelemetryError::Endpoint {
            given: endpoint.to_owned(),
            why,
        };
        // The library would only say so with the first batch.
        if !endpoint.starts_with("http://") {
            return Err(refused("only http:// is supported".to_owned()));
        }
        let tasks = Tasks::new();
        let (send, built) = std::sync::mpsc::sync_channel(1);
        let given = endpoint.to_owned();
        // The connection belongs to the runtime in which it is made: one of its own, so that a
        // blocked main thread can't hold the last flush.
        drop(tasks.spawn_thread("otlp", move |tasks| async move {
            let exporter = OtlpExporter::builder()
                .with_tonic()
                .with_endpoint(given)
                .with_timeout(TIMEOUT)
                .build();
            // The receiver is gone only when the start was given up.
            let _ = send.send(exporter);
            tasks.token().cancelled().await;
        }));
        let exporter = built
            .recv()
            .map_err(|_| refused("its thread did not start".to_owned()))?
            .map_err(|error| refused(error.to_string()))?;
        let endpoint: Arc<str> = endpoint.into();
        let quiet = Quiet {
            inner: exporter,
            endpoint: Arc::clone(&endpoint),
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        };
        let mut batches = BatchConfigBuilder::default();
        if std::env::var_os("OTEL_BSP_SCHEDULE_DELAY").is_none() {
            batches = batches.with_scheduled_delay(DELAY);
        }
        let processor = BatchSpanProcessor::builder(quiet)
            .with_batch_config(batches.build())
            .build();
        // The sampler is the library's: the parent's decision, else OTEL_TRACES_SAMPLER, else all.
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource(role, name))
            .build();
        Ok(Self {
            endpoint,
            provider,
            tasks,
        })
    }

    pub(super) fn endpoint(&self) -> Arc<str> {
        Arc::clone(&self.endpoint)
    }

    pub(super) fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }

    /// Sends what is left, at most for `limit`, and ends the thread.
    pub(super) async fn stop(self, limit: Duration) {
        let provider = self.provider.clone();
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        match tokio::time::timeout(limit + Duration::from_millis(500), flush).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!(endpoint = %self.endpoint, "the last spans were not exported"),
        }
        self.tasks.cancel();
        self.tasks.join(Duration::from_secs(1)).await;
    }
}

/// Names of the OpenTelemetry semantic conventions for resources.
fn resource(role: &str, name: &str) -> Resource {
    Resource::builder()
        .with_service_name(format!("plugmesh-{role}"))
        .with_attributes([
            KeyValue::new("service.namespace", "plugmesh"),
            KeyValue::new("service.instance.id", name.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}

/// Logs when an endpoint begins to fail and when it is back, and not each batch between.
#[derive(Debug)]
struct Quiet<E> {
    inner: E,
    endpoint: Arc<str>,
    failing: AtomicBool,
    lost: AtomicU64,
}

impl<E> Quiet<E> {
    fn note(&self, result: &OTelSdkResult, spans: u64) {
        match result {
            Err(error) => {
                self.lost.fetch_add(spans, Ordering::Relaxed);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        endpoint = %self.endpoint,
                        %error,
                        "spans can't be exported and are dropped until the endpoint takes them; \
                         check telemetry.otlp_endpoint"
                    );
                }
            }
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    let lost = self.lost.swap(0, Ordering::Relaxed);
                    tracing::info!(endpoint = %self.endpoint, lost, "spans are exported again");
                }
            }
        }
    }
}

impl<E: SpanExporter> SpanExporter for Quiet<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.inner.export(batch).await;
        self.note(&result, spans);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use opentelemetry::trace::{Span, Tracer, TracerProvider};
    use std::time::Instant;

    #[test]
    fn an_endpoint_that_is_no_http_address_is_refused_with_the_field_and_an_example() {
        for bad in [
            "localhost:4317",
            "https://collector:4317",
            "http://",
            "http://a b",
        ] {
            let error = Exporter::start(bad, "gateway", "g")
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("telemetry.otlp_endpoint: "), "{error}");
            assert!(error.contains("such as http://127.0.0.1:4317"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_nobody_listens_on_holds_the_end_only_for_the_bound() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", unused.local_addr().unwrap());
        drop(unused);
        let exporter = Exporter::start(&endpoint, "gateway", "g").unwrap();
        exporter.provider().tracer("test").start("lost").end();
        let begun = Instant::now();
        exporter.stop(Duration::from_millis(500)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
    }
}
