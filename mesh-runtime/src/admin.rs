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
