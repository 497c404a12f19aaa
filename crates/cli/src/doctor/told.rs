//! What nodes tell of themselves, as far as people need it to mend them, and asking all of them.
//!
//! Each node names all nodes of its deployment, so those that were not asked for are asked too.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::http;

/// A node as it tells of itself; what this build does not know is passed over.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Told {
    pub(crate) deployment: String,
    pub(crate) datacenter: String,
    pub(crate) node: String,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) epoch: u64,
    #[serde(default)]
    pub(crate) settling: u64,
    pub(crate) unbegun: Option<Unbegun>,
    #[serde(default)]
    pub(crate) used_memory_bytes: u64,
    #[serde(default)]
    pub(crate) max_memory_bytes: u64,
    pub(crate) can_lose: Option<u64>,
    pub(crate) control: Option<Control>,
    #[serde(default)]
    pub(crate) topology: Topology,
    #[serde(default)]
    pub(crate) log: Log,
    #[serde(default)]
    pub(crate) chains: Vec<Chain>,
    #[serde(default)]
    pub(crate) remains: Vec<Remains>,
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    #[serde(default)]
    pub(crate) lag: Vec<Lag>,
    #[serde(default)]
    pub(crate) nodes: Vec<Place>,
    #[serde(default)]
    pub(crate) outbox: Outbox,
    #[serde(default)]
    pub(crate) quarantine: Vec<Quarantine>,
}

/// What a node has put aside when its datacenter had lapsed.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Quarantine {
    pub(crate) number: u16,
    pub(crate) folder: String,
    #[serde(default)]
    pub(crate) newest: Vec<u16>,
    #[serde(default)]
    pub(crate) is_replayed: bool,
}

/// Why shards of a node do not begin.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Unbegun {
    pub(crate) why: String,
    pub(crate) is_lost: bool,
    pub(crate) waits_for: Vec<String>,
}

/// What a node keeps for other datacenters.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Outbox {
    pub(crate) bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) oldest_ms: u64,
    pub(crate) full_in_seconds: Option<u64>,
    pub(crate) held_up_by: Option<String>,
    #[serde(default)]
    pub(crate) peers: Vec<PeerBehind>,
}

/// How far another datacenter is behind.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PeerBehind {
    pub(crate) datacenter: String,
    pub(crate) behind_ms: u64,
}

/// The agreement as a node sees it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Control {
    pub(crate) reachable: bool,
    pub(crate) outage: Option<String>,
    pub(crate) waits: Option<String>,
    pub(crate) lease_ms: u64,
}

/// A node's log.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Log {
    #[serde(default)]
    pub(crate) disk_full: bool,
    pub(crate) disk: Option<Disk>,
}

/// The disk of a log.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Disk {
    pub(crate) folder: String,
    pub(crate) free_bytes: u64,
    pub(crate) reserve_bytes: u64,
}

/// A chain of the node's datacenter.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Chain {
    #[serde(default)]
    pub(crate) shard: u16,
    pub(crate) serving: Vec<String>,
    #[serde(default)]
    pub(crate) syncing: Vec<String>,
    #[serde(default)]
    pub(crate) last_serving: Vec<String>,
    #[serde(default)]
    pub(crate) offline: Vec<String>,
}

impl Chain {
    /// Whether nobody serves it, and nobody is known to hold what it held.
    pub(crate) const fn is_lost(&self) -> bool {
        self.serving.is_empty() && self.last_serving.is_empty()
    }

    /// The nodes that have a replica of it and may hold something.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &String> {
        self.syncing.iter().chain(&self.offline)
    }
}

/// What a node holds of a shard that has lost its data.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Remains {
    pub(crate) shard: u16,
    pub(crate) epoch: u64,
    pub(crate) position: u64,
    pub(crate) is_whole: bool,
}

/// The datacenters of the deployment, as a node knows them.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Topology {
    #[serde(default)]
    pub(crate) is_gone: bool,
    #[serde(default)]
    pub(crate) is_lapsed: bool,
    pub(crate) comes_back: Option<String>,
    pub(crate) change: Option<String>,
    #[serde(default)]
    pub(crate) waits: Vec<String>,
    pub(crate) outage: Option<String>,
    pub(crate) waits_to_begin: Option<String>,
}

/// A link to another node.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Link {
    pub(crate) node: String,
    pub(crate) datacenter: String,
    #[serde(default)]
    pub(crate) address: String,
    pub(crate) connected: bool,
    #[serde(default)]
    pub(crate) through: Option<String>,
    #[serde(default)]
    pub(crate) cut: bool,
}

/// How far behind another datacenter this one is.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Lag {
    pub(crate) datacenter: String,
    pub(crate) lag_ms: u64,
}

/// Where a node of the deployment is.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) datacenter: String,
    pub(crate) admin: Option<String>,
    #[serde(default)]
    pub(crate) is_member: bool,
}

/// What was heard of a deployment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// By admin port; none where nobody answered.
    pub(crate) by_admin: BTreeMap<String, Option<Told>>,
}

impl Heard {
    /// Asks these admin ports, and those of all nodes that they name.
    ///
    /// # Errors
    /// When a question dies.
    pub(crate) async fn of(admins: &[String]) -> anyhow::Result<Self> {
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
    pub(crate) fn told(&self) -> impl Iterator<Item = &Told> {
        self.by_admin.values().flatten()
    }

    /// A node that answered.
    pub(crate) fn node(&self, node: &str) -> Option<&Told> {
        self.told().find(|told| told.node == node)
    }

    /// All nodes that anybody names, in order.
    pub(crate) fn places(&self) -> BTreeMap<&str, &Place> {
        let all = self.told().flat_map(|told| &told.nodes);
        all.map(|place| (place.node.as_str(), place)).collect()
    }

    /// Of each datacenter the node that knows its newest configuration.
    pub(crate) fn newest(&self) -> BTreeMap<&str, &Told> {
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
    pub(crate) fn is_linked(&self, node: &str) -> bool {
        let mut links = self.told().flat_map(|told| &told.links);
        links.any(|link| link.node == node && link.connected)
    }
}

async fn ask(admin: &str) -> anyhow::Result<Told> {
    let body = http::get(admin, "/v1/status").await?;
    serde_json::from_str(&body)
        .with_context(|| format!("{admin} answered something else than a status"))
}
