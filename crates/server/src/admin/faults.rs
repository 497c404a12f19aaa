//! Delays and cuts of this node's links, on request; only where `faults.enabled` is set.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::peer::LinkShape;

/// How one direction between two datacenters is shaped.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PathShape {
    /// Name of the sending datacenter.
    from: String,
    /// Name of the receiving one.
    to: String,
    /// One way, in milliseconds.
    #[serde(default)]
    delay_ms: f64,
    /// At most so much more.
    #[serde(default)]
    jitter_ms: f64,
    /// Everything is dropped.
    #[serde(default)]
    cut: bool,
}

pub(super) fn add(router: Router<Admin>) -> Router<Admin> {
    router.route("/v1/faults", get(list).put(set)).route("/v1/faults/heal", post(heal))
}

async fn list(State(admin): State<Admin>) -> Json<Vec<PathShape>> {
    let shapes = admin.shaper.shapes().into_iter().map(|(from, to, shape)| PathShape {
        from,
        to,
        delay_ms: shape.delay.as_secs_f64() * 1e3,
        jitter_ms: shape.jitter.as_secs_f64() * 1e3,
        cut: shape.is_cut,
    });
    Json(shapes.collect())
}

async fn set(
    State(admin): State<Admin>,
    Json(wanted): Json<PathShape>,
) -> Result<StatusCode, (StatusCode, String)> {
    let configuration = admin.node.configuration();
    for name in [&wanted.from, &wanted.to] {
        let known = |id| admin.node.name_of(id) == *name;
        // One that comes back under another number is no member for a while.
        let is_set = admin.node.config.datacenters.iter().any(|there| there.name == *name);
        if !is_set && !configuration.datacenters.keys().copied().any(known) {
            let words = format!("there is no datacenter {name}\n");
            return Err((StatusCode::NOT_FOUND, words));
        }
    }
    let duration = |millis: f64| {
        Duration::try_from_secs_f64(millis / 1e3)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("{millis} ms: {error}\n")))
    };
    let shape = LinkShape {
        delay: duration(wanted.delay_ms)?,
        jitter: duration(wanted.jitter_ms)?,
        is_cut: wanted.cut,
    };
    admin.shaper.set(&wanted.from, &wanted.to, shape);
    Ok(StatusCode::NO_CONTENT)
}

async fn heal(State(admin): State<Admin>) -> StatusCode {
    admin.shaper.heal();
    StatusCode::NO_CONTENT
}
