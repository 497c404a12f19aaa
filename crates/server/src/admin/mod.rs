//! The admin port: health, metrics, status, and faults where they are enabled. HTTP and JSON.
//!
//! Invariant: nothing outside this folder knows HTTP or JSON.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tracing::warn;

use crate::node::Node;
use crate::peer::LinkShaper;

/// Chains and the agreement.
mod chains;
/// Delays and cuts on request.
mod faults;
/// What a node tells of itself.
mod status;
pub use chains::{ChainStatus, ControlStatus};
pub use status::{ColdStatus, DatacenterLag, DiskStatus, LinkStatus, LogStatus, NodePlace, Status};
pub(crate) use status::{cold_of, metrics_of, status_of};

/// What every request can reach.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    node: Arc<Node>,
    shaper: LinkShaper,
}

/// Answers requests until its task is ended.
pub(crate) async fn serve(node: Arc<Node>, shaper: LinkShaper, listener: TcpListener) {
    let id = node.id;
    let router = router(Arc::clone(&node), shaper);
    let stopped = async move { node.stopped().await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
        warn!(node = %id, %error, "the admin port has ended");
    }
}

fn router(node: Arc<Node>, shaper: LinkShaper) -> Router {
    let has_faults = node.config.has_faults;
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status));
    let router = if has_faults { faults::add(router) } else { router };
    router.with_state(Admin { node, shaper })
}

async fn healthy() -> &'static str {
    "ok\n"
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.node.why_not_ready() {
        None => "ready\n".into_response(),
        Some(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response()
        }
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics_of(&admin.node)).into_response()
}

async fn status(State(admin): State<Admin>) -> Json<Status> {
    Json(status_of(&admin.node))
}
