//! The admin port: health, metrics, status, topology, and faults where they are enabled. HTTP and JSON.
//!
//! Invariant: nothing outside this folder knows HTTP or JSON.

use std::sync::{Arc, Weak};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::net::TcpListener;
use tracing::warn;

use crate::control::{agreement::Agreement, deployment::Deployment};
use crate::node::Node;
use crate::peer::LinkShaper;

/// What of a datacenter's writes is applied.
mod applied;
/// Chains and the agreement.
mod chains;
/// Delays and cuts on request.
mod faults;
/// Which nodes hold what.
mod nodes;
/// What is kept for other datacenters.
mod outbox;
/// What a node tells of itself.
mod status;
/// Which datacenters there are.
mod topology;
pub use applied::{AppliedShard, AppliedStatus, KeysAsked, VersionsFound};
pub use chains::{ChainStatus, ControlStatus, RemainsStatus};
pub use nodes::{NodeHolding, Nodes};
pub use outbox::{OutboxStatus, PeerBehind};
pub use status::{
    ColdStatus, DatacenterLag, DiskStatus, LinkStatus, LogStatus, NodePlace, Status, UnbegunStatus,
};
pub(crate) use status::{cold_of, metrics_of, status_of};
pub use topology::{Topology, TopologyGone, TopologyKept, TopologyMember, TopologyStatus};

/// What every request can reach.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    node: Arc<Node>,
    shaper: LinkShaper,
    /// The agreement on datacenters, where there is one.
    deployment: Option<Arc<Deployment>>,
    /// The agreement of the datacenter, where there is one and the node is not stopping.
    agreement: Weak<Agreement>,
}

/// Answers requests until its task is ended.
pub(crate) fn serve(
    node: Arc<Node>,
    shaper: LinkShaper,
    agreement: Option<&Arc<Agreement>>,
    listener: TcpListener,
) -> impl Future<Output = ()> + use<> {
    let id = node.id;
    let deployment = agreement.and_then(|all| all.deployment.clone());
    let agreement = agreement.map(Arc::downgrade).unwrap_or_default();
    let router = router(Admin { node: Arc::clone(&node), shaper, deployment, agreement });
    let router = router.into_make_service_with_connect_info::<topology::Ends>();
    let stopped = async move { node.stopped().await };
    async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            warn!(node = %id, %error, "the admin port has ended");
        }
    }
}

fn router(admin: Admin) -> Router {
    let has_faults = admin.node.config.has_faults;
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/nodes", get(nodes::show).post(nodes::apply))
        .route("/v1/nodes/plan", post(nodes::plan))
        .route("/v1/nodes/relight", post(nodes::relight))
        .route("/v1/topology", get(topology::show).post(topology::apply))
        .route("/v1/topology/plan", post(topology::plan));
    let router = applied::add(router);
    let router = if has_faults { faults::add(router) } else { router };
    router.with_state(admin)
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
