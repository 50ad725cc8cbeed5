//! `/livez`, `/readyz` and `/metrics`.

use std::fmt;
use std::net::SocketAddr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;

use super::Health;
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
    pub async fn serve(self, health: Health, registry: Registry, shutdown: Shutdown) {
        let router = Router::new()
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

fn metrics(registry: &Registry) -> axum::response::Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
