//! What nodes tell of themselves, as far as a doctor needs it, and asking all of them.
//!
//! Each node names all nodes of its deployment, so those that were not asked for are asked too.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::http;

/// A node as it tells of itself; what this build does not know is passed over.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Told {
    pub(super) deployment: String,
    pub(super) datacenter: String,
    pub(super) node: String,
    pub(super) version: String,
    #[serde(default)]
    pub(super) epoch: u64,
    #[serde(default)]
    pub(super) settling: u64,
    pub(super) unbegun: Option<Unbegun>,
    #[serde(default)]
    pub(super) used_memory_bytes: u64,
    #[serde(default)]
    pub(super) max_memory_bytes: u64,
    pub(super) can_lose: Option<u64>,
    pub(super) control: Option<Control>,
    #[serde(default)]
    pub(super) topology: Topology,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) chains: Vec<Chain>,
    #[serde(default)]
    pub(super) links: Vec<Link>,
    #[serde(default)]
    pub(super) lag: Vec<Lag>,
    #[serde(default)]
    pub(super) nodes: Vec<Place>,
    #[serde(default)]
    pub(super) outbox: Outbox,
    #[serde(default)]
    pub(super) quarantine: Vec<Quarantine>,
}

/// What a node has put aside when its datacenter had lapsed.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Quarantine {
    pub(super) number: u16,
    pub(super) folder: String,
    #[serde(default)]
    pub(super) newest: Vec<u16>,
    #[serde(default)]
    pub(super) is_replayed: bool,
}

/// Why shards of a node do not begin.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Unbegun {
    pub(super) why: String,
    pub(super) is_lost: bool,
    pub(super) waits_for: Vec<String>,
}

/// What a node keeps for other datacenters.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Outbox {
    pub(super) bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) oldest_ms: u64,
    pub(super) full_in_seconds: Option<u64>,
    pub(super) held_up_by: Option<String>,
    #[serde(default)]
    pub(super) peers: Vec<PeerBehind>,
}

/// How far another datacenter is behind.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct PeerBehind {
    pub(super) datacenter: String,
    pub(super) behind_ms: u64,
}

/// The agreement as a node sees it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Control {
    pub(super) reachable: bool,
    pub(super) outage: Option<String>,
    pub(super) waits: Option<String>,
    pub(super) lease_ms: u64,
}

/// A node's log.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Log {
    #[serde(default)]
    pub(super) disk_full: bool,
    pub(super) disk: Option<Disk>,
}

/// The disk of a log.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Disk {
    pub(super) folder: String,
    pub(super) free_bytes: u64,
    pub(super) reserve_bytes: u64,
}

/// A chain of the node's datacenter.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Chain {
    pub(super) serving: Vec<String>,
    #[serde(default)]
    pub(super) syncing: Vec<String>,
    #[serde(default)]
    pub(super) last_serving: Vec<String>,
    #[serde(default)]
    pub(super) offline: Vec<String>,
}

/// The datacenters of the deployment, as a node knows them.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Topology {
    #[serde(default)]
    pub(super) is_gone: bool,
    #[serde(default)]
    pub(super) is_lapsed: bool,
    pub(super) comes_back: Option<String>,
    pub(super) change: Option<String>,
    #[serde(default)]
    pub(super) waits: Vec<String>,
    pub(super) outage: Option<String>,
    pub(super) waits_to_begin: Option<String>,
}

/// A link to another node.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Link {
    pub(super) node: String,
    pub(super) datacenter: String,
    #[serde(default)]
    pub(super) address: String,
    pub(super) connected: bool,
    #[serde(default)]
    pub(super) cut: bool,
}

/// How far behind another datacenter this one is.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Lag {
    pub(super) datacenter: String,
    pub(super) lag_ms: u64,
}

/// Where a node of the deployment is.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Place {
    pub(super) node: String,
    pub(super) datacenter: String,
    pub(super) admin: Option<String>,
    #[serde(default)]
    pub(super) is_member: bool,
}

/// What was heard of a deployment.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// By admin port; none where nobody answered.
    pub(super) by_admin: BTreeMap<String, Option<Told>>,
}

impl Heard {
    /// Asks these admin ports, and those of all nodes that they name.
    ///
    /// # Errors
    /// When a question dies.
    pub(super) async fn of(admins: &[String]) -> anyhow::Result<Self> {
        let mut heard = Self::default();
        let mut next: Vec<String> = admins.to_vec();
        while !next.is_empty() {
            let mut questions = JoinSet::new();
            for admin in next.drain(..) {
                if heard.by_admin.insert(admin.clone(), None).is_none() {
                    questions.spawn(async move { (ask(&admin).await.ok(), admin) });
                }
            }
            while let Some(answered) = questions.join_next().await {
                let (told, admin) = answered.context("a question to an admin port died")?;
                heard.by_admin.insert(admin, told);
            }
            let named = heard.told().flat_map(|told| &told.nodes);
            let named = named.filter_map(|place| place.admin.clone());
            next = named.filter(|admin| !heard.knows(admin)).collect();
        }
        Ok(heard)
    }

    /// Whether an admin port was asked, under this name or another one of it.
    fn knows(&self, admin: &str) -> bool {
        let bare = |text: &str| text.trim_start_matches("http://").trim_end_matches('/').to_owned();
        self.by_admin.keys().any(|known| bare(known) == bare(admin))
    }

    /// The nodes that answered.
    pub(super) fn told(&self) -> impl Iterator<Item = &Told> {
        self.by_admin.values().flatten()
    }

    /// A node that answered.
    pub(super) fn node(&self, node: &str) -> Option<&Told> {
        self.told().find(|told| told.node == node)
    }

    /// All nodes that anybody names, in order.
    pub(super) fn places(&self) -> BTreeMap<&str, &Place> {
        let all = self.told().flat_map(|told| &told.nodes);
        all.map(|place| (place.node.as_str(), place)).collect()
    }

    /// Of each datacenter the node that knows its newest configuration.
    pub(super) fn newest(&self) -> BTreeMap<&str, &Told> {
        let mut newest: BTreeMap<&str, &Told> = BTreeMap::new();
        for told in self.told() {
            let known = newest.entry(&told.datacenter).or_insert(told);
            if known.epoch < told.epoch {
                *known = told;
            }
        }
        newest
    }

    /// Whether a node that answered has a link to this one: its process runs.
    pub(super) fn is_linked(&self, node: &str) -> bool {
        let mut links = self.told().flat_map(|told| &told.links);
        links.any(|link| link.node == node && link.connected)
    }
}

async fn ask(admin: &str) -> anyhow::Result<Told> {
    let body = http::get(admin, "/v1/status").await?;
    serde_json::from_str(&body)
        .with_context(|| format!("{admin} answered something else than a status"))
}
