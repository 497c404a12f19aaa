//! What a node tells of itself: one picture for people and programs, and the gauges among metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use antecede_model::ids::NodeId;
use serde::Serialize;

use super::chains::{
    ChainStatus, ControlStatus, Counts, RemainsStatus, can_lose, chains_of, control_of, remains_of,
    trouble_of,
};
use super::outbox::{OutboxStatus, outbox_of, set_outbox};
use super::topology::{STANDINGS, TopologyStatus, topology_here};
use crate::aside::{Quarantine, now_called, quarantines};
use crate::clock;
use crate::config::NodeAddresses;
use crate::node::{Node, free::Free, met::Unbegun};

/// A node, as of now.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// `healthy`, or `degraded: ` and why.
    pub verdict: String,
    /// What is wrong in the datacenter as a whole, worst first.
    pub datacenter_trouble: Vec<String>,
    /// What is wrong with this node.
    pub trouble: Vec<String>,
    /// How many more nodes the datacenter can lose; absent where nobody decides who serves.
    pub can_lose: Option<u64>,
    /// The agreement on who serves, where there is one.
    pub control: Option<ControlStatus>,
    /// The datacenters of the deployment.
    pub topology: TopologyStatus,
    /// The version of this build.
    pub version: &'static str,
    /// The deployment's id.
    pub deployment: String,
    /// The datacenter's name.
    pub datacenter: String,
    /// The node, as datacenter and number.
    pub node: String,
    /// This run of it.
    pub boot: u64,
    /// The epoch of the datacenter's chains.
    pub epoch: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Shards whose head is here.
    pub heads: usize,
    /// Shards whose tail is here.
    pub tails: usize,
    /// Shards that are here.
    pub shards: usize,
    /// Shards that are settling with their neighbours.
    pub settling: u64,
    /// Why shards of this node do not begin; absent if none waits.
    pub unbegun: Option<UnbegunStatus>,
    /// Keys in shards that are here.
    pub keys: usize,
    /// Client connections.
    pub connections: usize,
    /// Bytes of memory in use.
    pub used_memory_bytes: u64,
    /// The limit; 0: none.
    pub max_memory_bytes: u64,
    /// Values that are on disk only.
    pub cold: ColdStatus,
    /// The log.
    pub log: LogStatus,
    /// The datacenter's chains.
    pub chains: Vec<ChainStatus>,
    /// What this node still holds of shards that have lost their data, and that a person must let
    /// begin again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<RemainsStatus>,
    /// All nodes of the deployment that the settings name.
    pub nodes: Vec<NodePlace>,
    /// Links to other nodes.
    pub links: Vec<LinkStatus>,
    /// How far behind other datacenters this one is.
    pub lag: Vec<DatacenterLag>,
    /// What is kept for other datacenters.
    pub outbox: OutboxStatus,
    /// What was put aside when its datacenter had lapsed.
    pub quarantine: Vec<Quarantine>,
}

/// Why shards of a node do not begin.
#[derive(Clone, Debug, Serialize)]
pub struct UnbegunStatus {
    /// In words.
    pub why: String,
    /// Whether it has had data in another folder; else it waits for what others say.
    pub is_lost: bool,
    /// The other nodes that have not answered.
    pub waits_for: Vec<String>,
}

/// Values of a node that are on disk only.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ColdStatus {
    /// How many there are.
    pub values: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Requests that wait for one.
    pub parked: usize,
    /// Values that were taken out of memory since the node started.
    pub evicted: u64,
    /// Values that were read back since then.
    pub loads: u64,
    /// Values that could not be read, since the checkpoint is damaged.
    pub failed_loads: u64,
}

/// Adds up over all replicas.
pub(crate) fn cold_of(node: &Node) -> ColdStatus {
    let look = |replica: &antecede_protocol::chain::Shard| {
        let keys = replica.keys();
        (keys.away_count(), keys.away_bytes(), replica.parked_count())
    };
    let all = node.shards().filter_map(|shard| node.look(shard, look));
    let (values, bytes, parked) =
        all.fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
    let tally = &node.cold.tally;
    ColdStatus {
        values,
        bytes,
        parked,
        evicted: count_of(&tally.evicted),
        loads: count_of(&tally.loads),
        failed_loads: count_of(&tally.failed_loads),
    }
}

/// A node's log.
#[derive(Clone, Debug, Serialize)]
pub struct LogStatus {
    /// Whether it is kept nowhere.
    pub in_memory: bool,
    /// Whether writes are refused for want of room.
    pub disk_full: bool,
    /// The disk that it is on; absent in memory.
    pub disk: Option<DiskStatus>,
    /// The last record.
    pub appended_to: u64,
    /// The last that the operating system has.
    pub written_to: u64,
    /// The last that survives a power loss.
    pub synced_to: u64,
    /// Bytes that are not written yet, about.
    pub pending_bytes: u64,
    /// Records up to here were cut off since the node started.
    pub cut_to: u64,
    /// Checkpoints since the node started.
    pub checkpoints: u64,
    /// Keys that they wrote.
    pub checkpoint_keys: u64,
    /// How long the last one took, in milliseconds.
    pub checkpoint_ms: u64,
}

/// The disk of a node's log.
#[derive(Clone, Debug, Serialize)]
pub struct DiskStatus {
    /// The data folder.
    pub folder: String,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// With fewer free bytes than these, writes are refused.
    pub reserve_bytes: u64,
}

/// Where a node of the deployment is.
#[derive(Clone, Debug, Serialize)]
pub struct NodePlace {
    /// The node.
    pub node: String,
    /// Its datacenter's name.
    pub datacenter: String,
    /// Where clients reach it.
    pub client: String,
    /// Where its admin port is, if it has one.
    pub admin: Option<String>,
    /// Whether it is a member of the agreement of the datacenter that tells this.
    pub is_member: bool,
}

/// A link to another node.
#[derive(Clone, Debug, Serialize)]
pub struct LinkStatus {
    /// The other node.
    pub node: String,
    /// Its datacenter's name.
    pub datacenter: String,
    /// Where it is dialled.
    pub address: String,
    /// Whether the connection stands.
    pub connected: bool,
    /// For how long, in seconds.
    pub connected_seconds: Option<u64>,
    /// The node of a third datacenter that passes on what is sent, since the node is not reached.
    pub through: Option<String>,
    /// Its run, as of the last connection.
    pub boot: u64,
    /// Bytes that wait.
    pub queued_bytes: usize,
    /// One-way delay that was set, in milliseconds.
    pub delay_ms: f64,
    /// Whether it was cut on purpose.
    pub cut: bool,
}

/// How far behind another datacenter this one is.
#[derive(Clone, Debug, Serialize)]
pub struct DatacenterLag {
    /// The other datacenter's name.
    pub datacenter: String,
    /// How old what is applied here of it is, in milliseconds; 0 while nothing is under way.
    pub lag_ms: u64,
    /// Everything of it up to this stamp is applied here.
    pub applied_to: u64,
    /// Everything of it up to this stamp is applied everywhere.
    pub stable_to: u64,
}

pub(crate) fn status_of(node: &Node) -> Status {
    let here = node.id.datacenter;
    let configuration = &node.configuration();
    let now = clock::now();
    let positions = node.log.positions();
    let shards: Vec<_> = configuration.shards_of(node.id).collect();
    let count = |is_mine: &dyn Fn(antecede_model::ids::ShardId) -> bool| {
        shards.iter().filter(|shard| is_mine(**shard)).count()
    };
    let links = links_of(node);
    let part = configuration.datacenter(here);
    let control = control_of(node);
    let datacenter_trouble = part.map(trouble_of).unwrap_or_default();
    let trouble = trouble_here(node, control.as_ref(), &links);
    Status {
        verdict: verdict(datacenter_trouble.iter().chain(&trouble)),
        datacenter_trouble,
        trouble,
        can_lose: part.and_then(|part| can_lose(node, part)),
        control,
        topology: topology_here(node),
        chains: chains_of(node, configuration),
        remains: remains_of(node, configuration),
        version: env!("CARGO_PKG_VERSION"),
        deployment: configuration.deployment.to_string(),
        datacenter: node.name_of(here),
        node: node.id.to_string(),
        boot: node.boot.0,
        epoch: configuration.epoch(here).0,
        uptime_seconds: now.steady.0.saturating_sub(node.started.steady.0).as_secs(),
        heads: count(&|shard| configuration.head(here, shard) == Some(node.id)),
        tails: count(&|shard| configuration.tail(here, shard) == Some(node.id)),
        shards: shards.len(),
        settling: node.unsettled(),
        unbegun: unbegun_of(node),
        keys: shards
            .iter()
            .filter_map(|shard| node.look(*shard, |replica| replica.keys().live_count()))
            .sum(),
        connections: node.registry.count(),
        used_memory_bytes: node.memory.used(),
        max_memory_bytes: node.memory.limit(),
        cold: cold_of(node),
        log: LogStatus {
            in_memory: node.log.is_in_memory(),
            disk_full: node.log.is_short(),
            disk: disk_of(node),
            appended_to: positions.appended_to.get(),
            written_to: positions.written_to.get(),
            synced_to: positions.synced_to.get(),
            pending_bytes: node.log.pending_bytes(),
            cut_to: count_of(&node.checkpoints.tally.cut_to),
            checkpoints: count_of(&node.checkpoints.tally.completed),
            checkpoint_keys: count_of(&node.checkpoints.tally.keys),
            checkpoint_ms: count_of(&node.checkpoints.tally.last_millis),
        },
        nodes: nodes_of(node),
        links,
        lag: lag_of(node),
        outbox: outbox_of(node),
        quarantine: quarantines(&node.config),
    }
}

fn unbegun_of(node: &Node) -> Option<UnbegunStatus> {
    let unbegun = node.unbegun()?;
    let why = unbegun.to_string();
    let (is_lost, waits_for) = match unbegun {
        Unbegun::Lost(_) => (true, Vec::new()),
        Unbegun::Waits(missing) => (false, missing.iter().map(ToString::to_string).collect()),
    };
    Some(UnbegunStatus { why, is_lost, waits_for })
}

fn count_of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn disk_of(node: &Node) -> Option<DiskStatus> {
    let folder = node.config.storage.folder.as_deref()?;
    let Free { free_bytes, total_bytes } = node.log.free.known();
    let reserve_bytes = node.log.free.reserve_bytes();
    let folder = folder.display().to_string();
    Some(DiskStatus { folder, free_bytes, total_bytes, reserve_bytes })
}

fn nodes_of(node: &Node) -> Vec<NodePlace> {
    let members = node.config.control_members();
    let configuration = node.configuration();
    // Settings may name datacenters that are gone, or not there yet, or are back by another number.
    let now = |(id, addresses)| (now_called(&configuration.membership, id), addresses);
    let is_there =
        |(id, _): &(NodeId, &NodeAddresses)| configuration.datacenter(id.datacenter).is_some();
    let place = |(id, addresses): (NodeId, &NodeAddresses)| NodePlace {
        node: id.to_string(),
        datacenter: node.name_of(id.datacenter),
        client: addresses.client.clone(),
        admin: addresses.admin.clone(),
        is_member: members.contains_key(&id),
    };
    node.config.nodes().map(now).filter(is_there).map(place).collect()
}

fn links_of(node: &Node) -> Vec<LinkStatus> {
    let now = clock::steady();
    let one = |link: &std::sync::Arc<crate::peer::link::Link>| {
        let since = link.connected_since();
        let shape = link.shape();
        LinkStatus {
            node: link.node().to_string(),
            datacenter: node.name_of(link.node().datacenter),
            address: link.address().to_owned(),
            connected: since.is_some(),
            connected_seconds: since.map(|since| now.0.saturating_sub(since.0).as_secs()),
            through: link.through().map(|relay| relay.to_string()),
            boot: link.boot().0,
            queued_bytes: link.queued_bytes(),
            delay_ms: shape.delay.as_secs_f64() * 1e3,
            cut: shape.is_cut,
        }
    };
    node.links.all().values().map(one).collect()
}

fn lag_of(node: &Node) -> Vec<DatacenterLag> {
    let cuts = node.cuts();
    let lags = node.lags().into_iter();
    lags.map(|(peer, lag)| DatacenterLag {
        datacenter: node.name_of(peer),
        lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
        applied_to: cuts.applied.at(peer).0,
        stable_to: cuts.stable.at(peer).0,
    })
    .collect()
}

/// What is wrong with this node.
fn trouble_here(node: &Node, control: Option<&ControlStatus>, links: &[LinkStatus]) -> Vec<String> {
    let mut reasons = Vec::new();
    let topology = topology_here(node);
    reasons.extend(topology.comes_back);
    reasons.extend(quarantines(&node.config).iter().filter_map(waiting_in));
    if topology.is_gone && !topology.is_lapsed {
        reasons
            .push("its datacenter is of this deployment no more, requests are refused".to_owned());
    }
    if let Some(why) = topology.waits_to_begin {
        reasons.push(format!("its datacenter does not begin yet: {why}"));
    }
    if let Some(why) = topology.outage {
        reasons.push(format!(
            "the deployment's agreement cannot be reached, no datacenter can be added or removed: {why}"
        ));
    }
    let unbegun = node.unbegun();
    reasons.extend(unbegun.as_ref().map(ToString::to_string));
    if control.is_some_and(|control| control.lease_ms == 0) {
        reasons.push("it has no lease, requests are refused".to_owned());
    }
    if let Some(why) = control.and_then(|control| control.outage.as_ref()) {
        reasons.push(format!("the agreement cannot be reached: {why}"));
    }
    if let Some(disk) = disk_of(node)
        && (node.log.is_short())
    {
        let DiskStatus { folder, free_bytes, reserve_bytes, .. } = disk;
        let what = if node.log.is_disk_full() { "full" } else { "low" };
        reasons.push(format!(
            "the disk of {folder} is {what}, writes are refused: {free_bytes} bytes are free, \
             writes leave {reserve_bytes}"
        ));
    }
    reasons.extend(outbox_of(node).trouble());
    if node.checkpoints.is_disk_full() {
        reasons.push("the disk is full, the log is not cut".to_owned());
    }
    let failed_loads = count_of(&node.cold.tally.failed_loads);
    if 0 < failed_loads {
        reasons.push(format!(
            "{failed_loads} values could not be read: the checkpoint is damaged, copy it anew"
        ));
    }
    if 0 < node.unsettled() && unbegun.is_none() {
        reasons.push(format!("{} shards are settling", node.unsettled()));
    }
    let lost: Vec<&str> =
        links.iter().filter(|link| !link.connected).map(|link| link.node.as_str()).collect();
    if !lost.is_empty() {
        reasons.push(format!("no link to {}", lost.join(", ")));
    }
    let around = |link: &LinkStatus| {
        link.through.as_ref().map(|relay| format!("{} (through {relay})", link.node))
    };
    let around: Vec<String> = links.iter().filter_map(around).collect();
    if !around.is_empty() {
        reasons.push(format!("no straight link to {}", around.join(", ")));
    }
    let cut: Vec<&str> =
        links.iter().filter(|link| link.cut).map(|link| link.node.as_str()).collect();
    if !cut.is_empty() {
        reasons.push(format!("cut off on purpose from {}", cut.join(", ")));
    }
    reasons
}

/// What a quarantine holds that this node is to execute again, and has not.
fn waiting_in(quarantine: &Quarantine) -> Option<String> {
    let Quarantine { number, folder, newest, is_replayed } = quarantine;
    (!is_replayed && !newest.is_empty()).then(|| {
        format!(
            "what its datacenter had never sent as {number} is not executed again yet: it is in {}",
            folder.display()
        )
    })
}

fn verdict<'a>(trouble: impl Iterator<Item = &'a String>) -> String {
    let reasons: Vec<&str> = trouble.map(String::as_str).collect();
    if reasons.is_empty() {
        "healthy".to_owned()
    } else {
        format!("degraded: {}", reasons.join("; "))
    }
}

/// All metrics as text, with what is read only now.
pub(crate) fn metrics_of(node: &Node) -> String {
    let status = status_of(node);
    let telemetry = &node.telemetry;
    let set = |name: &'static str, value: u64| {
        telemetry.set(name, None, float(value));
    };
    set("antecede_used_memory_bytes", status.used_memory_bytes);
    set("antecede_max_memory_bytes", status.max_memory_bytes);
    set("antecede_keys", status.keys as u64);
    set("antecede_connected_clients", status.connections as u64);
    set("antecede_settling_shards", status.settling);
    set("antecede_log_appended_to", status.log.appended_to);
    set("antecede_log_written_to", status.log.written_to);
    set("antecede_log_synced_to", status.log.synced_to);
    let cold = &status.cold;
    set("antecede_values_on_disk", cold.values as u64);
    set("antecede_values_on_disk_bytes", cold.bytes as u64);
    set("antecede_parked_requests", cold.parked as u64);
    telemetry.evicted.absolute(cold.evicted);
    telemetry.loads.absolute(cold.loads);
    telemetry.failed_loads.absolute(cold.failed_loads);
    set("antecede_log_pending_bytes", status.log.pending_bytes);
    set("antecede_disk_full", u64::from(status.log.disk_full));
    set("antecede_log_cut_to", status.log.cut_to);
    set("antecede_checkpoint_milliseconds", status.log.checkpoint_ms);
    telemetry.checkpoints.absolute(status.log.checkpoints);
    telemetry.checkpoint_keys.absolute(status.log.checkpoint_keys);
    set_outbox(node, &status.outbox);
    if let Some(disk) = &status.log.disk {
        set("antecede_disk_free_bytes", disk.free_bytes);
    }
    let registry = &node.registry;
    telemetry.connections.absolute(count_of(&registry.connections));
    telemetry.refused_connections.absolute(count_of(&registry.refused));
    telemetry.read_bytes.absolute(count_of(&registry.read_bytes));
    telemetry.written_bytes.absolute(count_of(&registry.written_bytes));
    set("antecede_epoch", status.epoch);
    let configuration = node.configuration();
    if let Some(part) = configuration.datacenter(node.id.datacenter) {
        let counts = Counts::of(part);
        set("antecede_dark_shards", counts.dark);
        let states = [
            ("serving", counts.serving),
            ("syncing", counts.syncing),
            ("last-serving", counts.last_serving),
            ("offline", counts.offline),
        ];
        for (state, count) in states {
            telemetry.set("antecede_replicas", Some(state.to_owned()), float(count));
        }
    }
    if let Some(control) = &status.control {
        set("antecede_lease_milliseconds", control.lease_ms);
        set("antecede_control_up", u64::from(control.reachable));
        set("antecede_control_decides", u64::from(control.decides));
    }
    set_standing(node, &status);
    set("antecede_relays", node.links.relays.count() as u64);
    for link in &status.links {
        let peer = || Some(link.node.clone());
        telemetry.set("antecede_link_up", peer(), float(u64::from(link.connected)));
        let is_relayed = u64::from(link.through.is_some());
        telemetry.set("antecede_link_relayed", peer(), float(is_relayed));
        telemetry.set("antecede_link_queued_bytes", peer(), float(link.queued_bytes as u64));
    }
    for lag in &status.lag {
        let from = Some(lag.datacenter.clone());
        telemetry.set("antecede_lag_milliseconds", from, float(lag.lag_ms));
    }
    telemetry.render()
}

/// Sets what this node's datacenter may do, and what is left of an earlier number of it.
fn set_standing(node: &Node, status: &Status) {
    let telemetry = &node.telemetry;
    telemetry.set("antecede_membership_epoch", None, float(status.topology.version));
    let waiting = status.quarantine.iter().filter_map(waiting_in).count();
    telemetry.set("antecede_quarantines_waiting", None, float(waiting as u64));
    for standing in STANDINGS {
        let is_it = u64::from(status.topology.standing == standing);
        telemetry.set("antecede_standing", Some(standing.to_owned()), float(is_it));
    }
}

/// A number as metrics have it; beyond 2^53 it is only near.
pub(super) fn float(value: u64) -> f64 {
    let [high, low] = [value >> 32, value & 0xffff_ffff];
    let part = |half: u64| u32::try_from(half).map_or(0.0, f64::from);
    part(high) * 4_294_967_296.0 + part(low)
}
