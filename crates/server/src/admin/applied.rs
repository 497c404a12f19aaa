//! What of a datacenter's writes is applied here, and what a write of a key would find: for those who
//! look for writes that were never sent.

use antecede_model::ids::DatacenterId;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::clock;

/// The most keys that are asked for at once.
const KEYS_MAX: usize = 1_024;

/// What of a datacenter's writes is applied and persisted in the chains of a node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AppliedStatus {
    /// The deployment.
    pub deployment: String,
    /// How many shards the deployment has.
    pub shard_count: u32,
    /// Whether the datacenter is gone: nothing of it is still under way.
    pub is_gone: bool,
    /// The shards that the node knows.
    pub shards: Vec<AppliedShard>,
}

/// What of a datacenter's writes is applied in a shard.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AppliedShard {
    /// The shard.
    pub shard: u16,
    /// All up to this stamp.
    pub to: u64,
    /// Single ones above it.
    pub above: Vec<u64>,
}

/// Keys, in hexadecimal digits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeysAsked {
    /// Which.
    pub keys: Vec<String>,
}

/// The versions that a write of a key would find.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct VersionsFound {
    /// Datacenter and stamp of each; absent where this node is not the head of the key's chain.
    pub versions: Option<Vec<(u16, u64)>>,
}

pub(super) fn add(router: Router<Admin>) -> Router<Admin> {
    router.route("/v1/applied/{datacenter}", get(applied)).route("/v1/versions", post(versions))
}

async fn applied(State(admin): State<Admin>, Path(datacenter): Path<u16>) -> Json<AppliedStatus> {
    let node = &admin.node;
    let origin = DatacenterId(datacenter);
    let configuration = node.configuration();
    let one = |shard| {
        let set = node.look(shard, |replica| replica.applied_of(origin))??;
        let above = set.above().map(|stamp| stamp.0).collect();
        Some(AppliedShard { shard: shard.0, to: set.watermark().0, above })
    };
    Json(AppliedStatus {
        deployment: configuration.deployment.to_string(),
        shard_count: configuration.shard_count.count().into(),
        is_gone: configuration.membership.is_gone(origin),
        shards: node.shards().filter_map(one).collect(),
    })
}

async fn versions(
    State(admin): State<Admin>,
    Json(asked): Json<KeysAsked>,
) -> Result<Json<Vec<VersionsFound>>, (StatusCode, String)> {
    let refuse = |words: &str| (StatusCode::BAD_REQUEST, format!("{words}\n"));
    if KEYS_MAX < asked.keys.len() {
        return Err(refuse("too many keys at once"));
    }
    let node = &admin.node;
    let here = node.here(clock::now());
    let count = node.configuration().shard_count;
    let mut found = Vec::with_capacity(asked.keys.len());
    for digits in &asked.keys {
        let key = bytes_of(digits).ok_or_else(|| refuse("keys are hexadecimal digits"))?;
        let versions =
            node.look(count.shard_of(&key), |replica| replica.newest_versions(&here, &key));
        let versions = versions.flatten().map(|seen| {
            seen.iter().map(|version| (version.origin.0, version.timestamp.0)).collect()
        });
        found.push(VersionsFound { versions });
    }
    Ok(Json(found))
}

/// The bytes that hexadecimal digits stand for.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_for_bytes() {
        assert_eq!(bytes_of("00ff6b"), Some(vec![0, 255, b'k']));
        assert_eq!(bytes_of(""), Some(Vec::new()));
        assert_eq!((bytes_of("0"), bytes_of("zz"), bytes_of("\u{e4}")), (None, None, None));
    }
}
