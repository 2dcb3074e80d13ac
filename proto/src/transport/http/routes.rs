//! HTTP routes of every service.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use common::run::telemetry::Control;

use crate::transport::health::Health;
use crate::transport::metrics::{self, Metrics};

/// `/metrics`, `/health` and `/log-level`; a service merges its own.
/// `serve` checks access and reads bodies.
pub fn standard(metrics: Metrics, health: Health, log: Control) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text).with_state(metrics))
        .route("/health", get(state).with_state(health))
        .route("/log-level", get(level).put(set_level).with_state(log))
}

async fn state(State(health): State<Health>) -> Response {
    match health.check() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn metrics_text(State(metrics): State<Metrics>) -> Response {
    // Reading system files is quick, but may block.
    let text = tokio::task::spawn_blocking(move || metrics.text()).await;
    match text {
        Ok(Ok(text)) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn level(State(log): State<Control>) -> String {
    log.level() + "\n"
}

async fn set_level(State(log): State<Control>, body: Bytes) -> Response {
    let level = String::from_utf8_lossy(&body);
    match log.set_level(&level) {
        Ok(()) => (StatusCode::OK, log.level() + "\n").into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
