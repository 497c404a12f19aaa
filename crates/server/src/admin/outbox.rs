//! What a node tells of what it keeps for other datacenters.

use std::time::Duration;

use serde::Serialize;

use super::status::float;
use crate::clock;
use crate::node::Node;

/// A limit that will be reached within this time is worth a word.
const FULL_SOON: Duration = Duration::from_secs(3_600);

/// What a node keeps for other datacenters.
#[derive(Clone, Debug, Serialize)]
pub struct OutboxStatus {
    /// Bytes, about.
    pub bytes: u64,
    /// The limit; 0: none.
    pub max_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// How old the oldest is, in milliseconds.
    pub oldest_ms: u64,
    /// By how many bytes a second it grows.
    pub growth_bytes: u64,
    /// In how many seconds the limit is reached at that rate; absent where it is not.
    pub full_in_seconds: Option<u64>,
    /// The name of the datacenter that holds writes up; absent while they are taken.
    pub held_up_by: Option<String>,
    /// How far the other datacenters are behind this one.
    pub peers: Vec<PeerBehind>,
}

/// How far another datacenter is behind this one.
#[derive(Clone, Debug, Serialize)]
pub struct PeerBehind {
    /// Its name.
    pub datacenter: String,
    /// How old what it has not applied of this datacenter's writes is, in milliseconds.
    pub behind_ms: u64,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn outbox_of(node: &Node) -> OutboxStatus {
    let now = clock::now();
    let peer =
        |(peer, behind)| PeerBehind { datacenter: node.name_of(peer), behind_ms: millis(behind) };
    let peers = node.peers_behind(now).into_iter().map(peer).collect();
    let oldest_ms = millis(node.oldest_kept(now));
    node.outbox.look(|bound| {
        let kept = bound.kept();
        OutboxStatus {
            bytes: kept.bytes,
            max_bytes: bound.bytes_max(),
            entries: kept.entries,
            oldest_ms,
            growth_bytes: bound.growth(),
            full_in_seconds: bound.full_in().map(|left| left.as_secs()),
            held_up_by: bound.held_up_by().map(|behind| node.name_of(behind.datacenter)),
            peers,
        }
    })
}

impl OutboxStatus {
    /// What is wrong: writes are refused, or will be soon.
    pub(super) fn trouble(&self) -> Option<String> {
        let (mib, max_mib) = (self.bytes >> 20, self.max_bytes >> 20);
        if let Some(behind) = &self.held_up_by {
            return Some(format!(
                "writes are refused: {mib} of {max_mib} MiB are kept for datacenter {behind}, which \
                 is behind by {} s",
                self.oldest_ms / 1_000
            ));
        }
        let seconds = self.full_in_seconds?;
        if FULL_SOON.as_secs() < seconds || self.bytes < self.max_bytes / 4 {
            return None;
        }
        let furthest = self.peers.iter().max_by_key(|peer| peer.behind_ms)?;
        Some(format!(
            "{mib} of {max_mib} MiB are kept for datacenter {}, which is behind by {} s; at this rate \
             writes are refused in {seconds} s",
            furthest.datacenter,
            furthest.behind_ms / 1_000
        ))
    }
}

/// Sets the gauges.
pub(super) fn set_outbox(node: &Node, outbox: &OutboxStatus) {
    let telemetry = &node.telemetry;
    let set = |name: &'static str, value| telemetry.set(name, None, float(value));
    set("antecede_outbox_bytes", outbox.bytes);
    set("antecede_outbox_max_bytes", outbox.max_bytes);
    set("antecede_outbox_entries", outbox.entries);
    set("antecede_outbox_growth_bytes", outbox.growth_bytes);
    set("antecede_outbox_full", u64::from(outbox.held_up_by.is_some()));
    for peer in &outbox.peers {
        let to = Some(peer.datacenter.clone());
        telemetry.set("antecede_peer_behind_milliseconds", to, float(peer.behind_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(bytes: u64, full_in_seconds: Option<u64>, held_up_by: Option<&str>) -> OutboxStatus {
        let peer = |name: &str, behind_ms| PeerBehind { datacenter: name.to_owned(), behind_ms };
        OutboxStatus {
            bytes,
            max_bytes: 100 << 20,
            entries: 1,
            oldest_ms: 7_000,
            growth_bytes: 1,
            full_in_seconds,
            held_up_by: held_up_by.map(str::to_owned),
            peers: vec![peer("eu", 10), peer("ap", 6_500)],
        }
    }

    #[test]
    fn a_full_outbox_or_one_that_is_full_soon_is_trouble() {
        assert_eq!(outbox(99 << 20, None, None).trouble(), None);
        assert_eq!(outbox(99 << 20, Some(5_000), None).trouble(), None);
        assert_eq!(outbox(5 << 20, Some(10), None).trouble(), None, "a burst");
        let soon = outbox(50 << 20, Some(600), None).trouble().unwrap_or_default();
        assert!(soon.contains("datacenter ap, which is behind by 6 s"), "{soon}");
        assert!(soon.contains("refused in 600 s"), "{soon}");
        let full = outbox(100 << 20, Some(0), Some("ap")).trouble().unwrap_or_default();
        assert!(full.starts_with("writes are refused: 100 of 100 MiB are kept"), "{full}");
    }
}
