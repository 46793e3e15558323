//! The HTTP endpoint: metrics, probes, the status and its page, the schemas of the built-in registry, and commands.

mod access;
pub(crate) mod snapshot;
pub(crate) mod status;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    config,
    failure::{Code, Failure},
    metrics::Metrics,
    schemas::{self, built_in::BuiltIn},
};

pub use crate::snapshot::control::SnapshotControl;

/// What is served.
pub struct Served {
    /// The name of the stream.
    pub name: String,
    /// What `/metrics` and `/readyz` show.
    pub metrics: Arc<Metrics>,
    /// The built-in registry, if there is one.
    pub registry: Option<Arc<BuiltIn>>,
    /// Where commands about copies go.
    pub snapshot: Arc<SnapshotControl>,
}

/// Serves `/metrics`, `/livez` and `/readyz`, `/status` and the page at `/`, commands, and a registry if there is one, until the program ends.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    config: &config::Http,
    served: Served,
    mut stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, Failure> {
    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Failure::new(Code::ConfigInvalid, format!("http.listen: cannot listen on {listen}: {error}"))
    })?;
    tracing::info!(address = %listener.local_addr().unwrap_or(listen), "serving metrics and probes over HTTP");
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        // The process answers: that is all that liveness means. Restarting it would not help against what it waits for.
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readiness))
        .with_state(Arc::clone(&served.metrics))
        .merge(status::router(&served))
        .merge(snapshot::router(served.snapshot, access::Access::new(config)));
    let router = match served.registry {
        Some(registry) => router.merge(schemas::api::router(registry)),
        None => router,
    };
    Ok(tokio::spawn(async move {
        let stopped = async move {
            let _whoever_could_ask_is_gone = stop.wait_for(|asked| *asked).await;
        };
        if let Err(error) = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(stopped)
            .await
        {
            tracing::warn!(%error, "the HTTP endpoint has ended");
        }
    }))
}

async fn metrics_text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn readiness(State(metrics): State<Arc<Metrics>>) -> (StatusCode, String) {
    match metrics.ready() {
        Ok(state) => (StatusCode::OK, format!("{state}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
