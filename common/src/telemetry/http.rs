//! `/livez`, `/readyz`, `/metrics`, `/status` and a page at `/`.

use std::fmt;
use std::net::SocketAddr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;

use super::{Health, Status};
use crate::shutdown::Shutdown;

/// A bound address that does not serve yet, so that a taken port is an error at start.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
}

#[derive(Debug)]
pub struct HttpError(String);

impl fmt::Display for HttpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for HttpError {}

impl Http {
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: &str) -> Result<Self, HttpError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| HttpError(format!("http.listen: cannot listen on {address}: {error}")))?;
        Ok(Self { listener })
    }

    /// The address, with the port the system chose for port 0.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn address(&self) -> Result<SocketAddr, HttpError> {
        self.listener.local_addr().map_err(|error| HttpError(error.to_string()))
    }

    /// Serves until shutdown.
    pub async fn serve(self, health: Health, registry: Registry, status: Status, shutdown: Shutdown) {
        let page_of = status.clone();
        let router = Router::new()
            .route("/", get(async move || page(&page_of)))
            .route("/status", get(async move || status_json(&status)))
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(async move || readiness(&health)))
            .route("/metrics", get(async move || metrics(&registry)));
        let ended = async move { shutdown.wait().await };
        if let Err(error) = axum::serve(self.listener, router).with_graceful_shutdown(ended).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    }
}

fn readiness(health: &Health) -> (StatusCode, String) {
    let problems = health.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let lines = problems.iter().map(|(component, reason)| format!("{component}: {reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

fn metrics(registry: &Registry) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn page(status: &Status) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // Were something foreign ever not escaped, it could still load and run nothing.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, status.page()).into_response()
}

fn status_json(status: &Status) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, format!("{}\n", status.json())).into_response()
}
