//! The admin endpoints that every process has: `/health`, `/ready`, `/metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

pub use crate::http_server::{HttpLimits, serve_http};
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::readiness::Readiness;

/// `/health` (200 while the process answers), `/ready` (200 or 503, with the parts as JSON) and
/// `/metrics` (OpenMetrics). Other paths get 404; a service that merges these routes into its own
/// keeps its own fallback.
pub fn admin_routes(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", get(render).with_state(metrics))
}

/// The routes of a port that has only these: [`admin_routes`] with a 404 that says which there are.
pub fn admin_only(readiness: Readiness, metrics: Metrics) -> Router {
    admin_routes(readiness, metrics).fallback(unknown)
}

async fn health() -> Response {
    body(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let report = readiness.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    body(status, &json!(report))
}

async fn render(State(metrics): State<Metrics>) -> Response {
    let content_type = HeaderValue::from_static(CONTENT_TYPE);
    ([(header::CONTENT_TYPE, content_type)], metrics.render()).into_response()
}

async fn unknown(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    let error = format!("there is no {path} here; there are /health, /ready and /metrics");
    body(StatusCode::NOT_FOUND, &json!({ "error": error }))
}

fn body(status: StatusCode, value: &Value) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    let no_store = HeaderValue::from_static("no-store");
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, no_store),
    ];
    (status, headers, format!("{value}\n")).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use crate::Tasks;
    use crate::net::bind_tcp;
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get_text(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// A running server, with what stops it.
    fn start(readiness: &Readiness, limits: HttpLimits) -> (SocketAddr, Tasks) {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), "test.listen").unwrap();
        let address = listener.local_addr().unwrap();
        let router = admin_only(readiness.clone(), Metrics::new());
        let tasks = Tasks::new();
        let (inner, stop) = (tasks.clone(), tasks.token());
        tasks.spawn("http", async move {
            serve_http(listener, router, &inner, stop, limits).await;
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn the_endpoints_answer_with_their_status_and_media_type() {
        let readiness = Readiness::new();
        let latch = readiness.latch("bus");
        let (address, tasks) = start(&readiness, HttpLimits::default());
        let health = get_text(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
        let ready = get_text(address, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
        let body = r#"{"ready":false,"checks":[{"name":"bus","ready":false,"detail":"starting"}]}"#;
        assert!(ready.trim_end().ends_with(body), "{ready}");
        latch.set_ready();
        assert!(
            get_text(address, "/ready")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        let metrics = get_text(address, "/metrics").await;
        assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        let unknown = get_text(address, "/nothing").await;
        assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
        assert!(unknown.contains("there are /health, /ready and /metrics"));
        tasks.cancel();
        assert!(tasks.join(Duration::from_secs(5)).await.is_clean());
    }

    #[tokio::test]
    async fn a_client_that_sends_nothing_is_sent_away_and_one_that_stays_does_not_hold_the_end() {
        let limits = HttpLimits {
            header_timeout: Duration::from_millis(100),
            grace: Duration::from_millis(100),
            ..HttpLimits::default()
        };
        let (address, tasks) = start(&Readiness::new(), limits);
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let mut rest = Vec::new();
        let begun = Instant::now();
        silent.read_to_end(&mut rest).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
        let _stays = TcpStream::connect(address).await.unwrap();
        tasks.cancel();
        let report = tasks.join(Duration::from_secs(5)).await;
        assert!(report.panicked.is_empty(), "{report:?}");
    }
}
