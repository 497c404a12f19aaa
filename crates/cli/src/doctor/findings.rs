//! Says for each thing that is wrong what mends it: what nodes told in, findings out.
//!
//! A cause is told once, where it lies, and what follows from it is left out: a node that is gone
//! explains links and replicas that are missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::told::{Chain, Heard, Quarantine, Told};
use crate::nodes::left_over::LeftOver;

/// A lag that nobody should wait for without asking why.
const LAG_MAX_MS: u64 = 30_000;

/// A limit that is reached within so many seconds is worth a word.
const FULL_SOON_S: u64 = 3_600;

/// What kind of thing is wrong, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Answers of different deployments.
    Mixed,
    /// A whole datacenter is silent.
    DatacenterSilent,
    /// Most members of an agreement are gone.
    NoMajority,
    /// Shards that nobody can serve any more.
    Lost,
    /// Shards that nobody serves.
    Dark,
    /// A disk without room.
    DiskFull,
    /// What is kept for a datacenter that is behind is too much, or will be soon.
    OutboxFull,
    /// A node is silent.
    NodeSilent,
    /// The memory limit is reached.
    MemoryFull,
    /// A node has lost touch with the agreement.
    NoLease,
    /// Two nodes that run do not reach each other.
    NoLink,
    /// Links are cut on purpose.
    Cut,
    /// A node of a third datacenter passes on between two that do not reach each other.
    Detour,
    /// A datacenter is far behind another one.
    Lag,
    /// The agreement on datacenters cannot be reached.
    NoDeployment,
    /// A datacenter that is no member, or does not begin.
    NoMember,
    /// A datacenter is being added or removed.
    Topology,
    /// What a datacenter had never sent is not executed again.
    Unsent,
    /// Replicas are missing, or copy, for no other reason that is told.
    Replicas,
    /// A node with a new folder has not heard from all others.
    Unbegun,
    /// Nodes have just started.
    Settling,
    /// Nodes run different builds.
    Versions,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Its kind.
    pub(super) kind: Kind,
    /// Where.
    pub(super) place: String,
    /// What is wrong.
    pub(super) what: String,
    /// What mends it.
    pub(super) action: String,
}

fn finding(kind: Kind, place: impl Into<String>, what: String, action: String) -> Finding {
    Finding { kind, place: place.into(), what, action }
}

/// All that is wrong, worst first.
pub(super) fn of(heard: &Heard) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(mixed(heard));
    let silent = silent_datacenters(heard);
    for name in &silent {
        found.push(silent_datacenter(heard, name));
    }
    found.extend(silent_nodes(heard, &silent));
    found.extend(agreements(heard));
    found.extend(lost(heard));
    found.extend(dark(heard));
    for told in heard.told() {
        found.extend(of_node(heard, told));
    }
    found.extend(topology(heard));
    found.extend(quarantines(heard));
    found.extend(replicas(heard));
    found.extend(versions(heard));
    found.sort_by_key(|finding| finding.kind);
    found
}

fn place_of(told: &Told) -> String {
    format!("{} {}", told.datacenter, told.node)
}

fn mixed(heard: &Heard) -> Option<Finding> {
    let ids: BTreeSet<&str> = heard.told().map(|told| told.deployment.as_str()).collect();
    (1 < ids.len()).then(|| {
        let ids = ids.into_iter().collect::<Vec<_>>().join(", ");
        let what = format!("the nodes belong to different deployments: {ids}");
        let action = "ask the nodes of one deployment only: correct --admin, or the files of the \
                      nodes that name another deployment.id";
        finding(Kind::Mixed, "deployment", what, action.to_owned())
    })
}

/// Datacenters none of whose nodes answers.
fn silent_datacenters(heard: &Heard) -> Vec<String> {
    let answering: BTreeSet<&str> = heard.told().map(|told| told.datacenter.as_str()).collect();
    let named = heard.places().into_values().map(|place| place.datacenter.as_str());
    let named: BTreeSet<&str> = named.collect();
    named.difference(&answering).map(|name| (*name).to_owned()).collect()
}

fn silent_datacenter(heard: &Heard, name: &str) -> Finding {
    let places = heard.places();
    let nodes: Vec<&str> =
        places.values().filter(|place| place.datacenter == name).map(|p| p.node.as_str()).collect();
    let runs = nodes.iter().any(|node| heard.is_linked(node));
    let (what, action) = if runs {
        (
            "no admin port of it answers, but other nodes have links to it".to_owned(),
            "it runs: ask from a machine that reaches its admin ports (listen.admin)".to_owned(),
        )
    } else {
        (
            "none of its nodes answers, and no other datacenter has a link to it".to_owned(),
            format!(
                "see to the network to it; if its machines are down, start its nodes {}, each with \
                 `antecede serve --config FILE` on its old folder; the others go on meanwhile and \
                 keep what it misses, so leave room on their disks; if it is lost for ever, see \
                 docs/guide/recover.md",
                nodes.join(", ")
            ),
        )
    };
    finding(Kind::DatacenterSilent, name, what, action)
}

/// Nodes that do not answer in datacenters that do.
fn silent_nodes(heard: &Heard, silent: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    let places = heard.places();
    for place in places.values().filter(|place| !silent.contains(&place.datacenter)) {
        if heard.node(&place.node).is_some() {
            continue;
        }
        let Some(admin) = &place.admin else { continue };
        let (what, action) = if heard.is_linked(&place.node) {
            (
                format!("its admin port {admin} does not answer, but other nodes have links to it"),
                format!("it runs: see to it that {admin} can be reached from here"),
            )
        } else {
            (
                format!("it does not answer at {admin}, and no node has a link to it"),
                "start it on its machine with `antecede serve --config FILE`, its own file and \
                 folder; if its disk is lost, with an empty folder: it copies everything"
                    .to_owned(),
            )
        };
        let name = format!("{} {}", place.datacenter, place.node);
        found.push(finding(Kind::NodeSilent, name, what, action));
    }
    // Ports that nobody names: a wrong address, or nobody who could name them answers.
    let named: BTreeSet<&str> =
        places.values().filter_map(|place| place.admin.as_deref()).collect();
    for (admin, told) in &heard.by_admin {
        if told.is_none() && !named.contains(admin.as_str()) {
            let what = format!("nobody answers at {admin}, and no node names it as its admin port");
            let action = "correct the address, or start the node that should be there".to_owned();
            found.push(finding(Kind::NodeSilent, admin.as_str(), what, action));
        }
    }
    found
}

/// Agreements that cannot be reached, by datacenter.
fn agreements(heard: &Heard) -> Vec<Finding> {
    let mut by_datacenter: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for told in heard.told().filter(|told| told.control.is_some()) {
        by_datacenter.entry(&told.datacenter).or_default().push(told);
    }
    let mut found = Vec::new();
    for (name, nodes) in by_datacenter {
        let is_out = |told: &&&Told| told.control.as_ref().is_some_and(|known| !known.reachable);
        let out: Vec<&&Told> = nodes.iter().filter(is_out).collect();
        let Some(first) = out.first() else { continue };
        let members: Vec<&str> =
            first.nodes.iter().filter(|place| place.is_member).map(|p| p.node.as_str()).collect();
        let gone: Vec<&str> =
            members.iter().copied().filter(|member| heard.node(member).is_none()).collect();
        let majority = members.len() / 2 + 1;
        if members.len() - gone.len() < majority && !members.is_empty() {
            let what = format!(
                "its agreement has no majority: {} of its members {} do not answer; no node \
                 answers clients until {majority} members run",
                gone.join(", "),
                members.join(", ")
            );
            let action = format!(
                "start {}, each with `antecede serve --config FILE` on its own folder; if a folder \
                 is lost, see docs/guide/recover.md first",
                gone.join(", ")
            );
            found.push(finding(Kind::NoMajority, name, what, action));
            continue;
        }
        for told in out {
            if let Some(waits) = told.control.as_ref().and_then(|known| known.waits.as_ref()) {
                let what = format!("its member of the agreement has not begun: {waits}");
                let action = "start those that it names, each on its own folder; where most \
                              members have lost their folders, or one will never run, see \
                              docs/guide/recover.md first";
                let place = place_of(told);
                found.push(finding(Kind::NoLease, place, what, action.to_owned()));
                continue;
            }
            let why = told.control.as_ref().and_then(|known| known.outage.clone());
            let what = format!(
                "it cannot reach the agreement: {}",
                why.unwrap_or_else(|| "it has not answered yet".to_owned())
            );
            let action = format!(
                "see to the network between it and {} (control addresses in its file)",
                members.join(", ")
            );
            found.push(finding(Kind::NoLease, place_of(told), what, action));
        }
    }
    found
}

/// Shards all of whose data a datacenter has lost.
fn lost(heard: &Heard) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, told) in heard.newest() {
        let lost = told.chains.iter().filter(|chain| chain.is_lost()).count();
        if lost == 0 {
            continue;
        }
        let what = format!(
            "{lost} of {} shards are served by no node: all that had their data came back with empty \
             folders",
            told.chains.len()
        );
        let others: Vec<&str> = heard.newest().into_keys().filter(|it| *it != name).collect();
        let action = if others.is_empty() {
            let left = LeftOver::of(heard, name);
            let missing =
                left.missing_words().map_or_else(String::new, |words| format!("{words}; "));
            format!(
                "{missing}what they held is gone, where there is no other datacenter: `antecede nodes \
                 relight` lets them begin again with what is left: {}; keep old folders that may \
                 still be somewhere",
                left.words()
            )
        } else {
            format!(
                "let {name} come back with what the others have: `antecede topology plan lapse \
                 {name}` against a node of {}",
                others.join(" or ")
            )
        };
        found.push(finding(Kind::Lost, name, what, action));
    }
    found
}

/// Shards that nobody serves, by datacenter.
fn dark(heard: &Heard) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, told) in heard.newest() {
        // Without the agreement nobody knows who serves.
        if told.control.as_ref().is_some_and(|known| !known.reachable) {
            continue;
        }
        let dark: Vec<_> = told.chains.iter().filter(|chain| chain.serving.is_empty()).collect();
        let last: BTreeSet<&str> =
            dark.iter().flat_map(|chain| &chain.last_serving).map(String::as_str).collect();
        // Where the last ones are there, a manager is about to begin again with them.
        let missing: Vec<&str> =
            last.into_iter().filter(|node| heard.node(node).is_none()).collect();
        if missing.is_empty() {
            continue;
        }
        let what = format!(
            "{} of {} shards are served by no node: {} served them last and do not answer",
            dark.len(),
            told.chains.len(),
            missing.join(", ")
        );
        let action = format!(
            "start {}: only their folders have the newest data of these shards",
            missing.join(" or ")
        );
        found.push(finding(Kind::Dark, name, what, action));
    }
    found
}

/// A node whose shards do not begin.
fn unbegun(told: &Told) -> Option<Finding> {
    let unbegun = told.unbegun.as_ref()?;
    let place = place_of(told);
    if unbegun.is_lost {
        let action =
            "see whether the right disk is mounted, and start it on its folder if that is \
                      still somewhere; until then its chains take no writes, and what only this \
                      node had is refused: docs/guide/recover.md says how it gets back what others \
                      have"
                .to_owned();
        return Some(finding(Kind::Lost, place, unbegun.why.clone(), action));
    }
    let action = format!(
        "start {}, or see to the links to them; if it never had another folder and one of them will \
         not come: `antecede serve --begin-at-once data`",
        unbegun.waits_for.join(", ")
    );
    Some(finding(Kind::Unbegun, place, unbegun.why.clone(), action))
}

/// What is wrong with one node that answers.
fn of_node(heard: &Heard, told: &Told) -> Vec<Finding> {
    let mut found = Vec::new();
    let place = place_of(told);
    if told.log.disk_full {
        let disk = told.log.disk.clone().unwrap_or_default();
        let what = format!(
            "the disk of {} has no room for new writes: {} MiB are free, writes leave {} MiB",
            disk.folder,
            disk.free_bytes >> 20,
            disk.reserve_bytes >> 20
        );
        let action = format!(
            "free space on it (`df -h {}` shows it), or make it larger; writes go on by \
             themselves, and the node needs no restart",
            disk.folder
        );
        found.push(finding(Kind::DiskFull, place.as_str(), what, action));
    }
    if 0 < told.max_memory_bytes && told.max_memory_bytes <= told.used_memory_bytes {
        let what = format!(
            "its memory limit is reached, writes are refused with OOM: {} of {} MiB",
            told.used_memory_bytes >> 20,
            told.max_memory_bytes >> 20
        );
        let action = "delete keys, or raise it: `CONFIG SET maxmemory 8gb` at this node, and \
                      limits.maxmemory in its file"
            .to_owned();
        found.push(finding(Kind::MemoryFull, place.as_str(), what, action));
    }
    found.extend(outbox(told));
    found.extend(unbegun(told));
    if 0 < told.settling
        && told.unbegun.is_none()
        && told.control.as_ref().is_none_or(|known| 0 < known.lease_ms)
    {
        let what = format!("{} shards are settling with their chain", told.settling);
        let action = "wait some seconds; if it stays so, see to what is named above".to_owned();
        found.push(finding(Kind::Settling, place.as_str(), what, action));
    }
    found.extend(links(heard, told));
    for lag in told.lag.iter().filter(|lag| LAG_MAX_MS < lag.lag_ms) {
        // Of a datacenter that is away nothing can come.
        if heard.told().any(|other| other.datacenter == lag.datacenter) {
            let what = format!("it is {} s behind {}", lag.lag_ms / 1000, lag.datacenter);
            let action = format!(
                "see to the links to {} (antecede_link_queued_bytes in /metrics), and to the \
                 clocks; it catches up by itself",
                lag.datacenter
            );
            found.push(finding(Kind::Lag, place.as_str(), what, action));
        }
    }
    found
}

/// Writes that are refused, or will be, since another datacenter is too far behind.
fn outbox(told: &Told) -> Option<Finding> {
    let outbox = &told.outbox;
    let (mib, max_mib) = (outbox.bytes >> 20, outbox.max_bytes >> 20);
    let furthest = outbox.peers.iter().max_by_key(|peer| peer.behind_ms);
    let furthest = furthest.map(|peer| peer.datacenter.clone()).unwrap_or_default();
    let (what, behind) = match (&outbox.held_up_by, outbox.full_in_seconds) {
        (Some(behind), _) => {
            let what = format!(
                "writes are refused with OUTBOXFULL: {mib} of {max_mib} MiB are kept for {behind}, \
                 which is behind by {} s",
                outbox.oldest_ms / 1_000
            );
            (what, behind.clone())
        }
        (None, Some(seconds)) if seconds < FULL_SOON_S && outbox.max_bytes / 4 <= outbox.bytes => {
            let what = format!(
                "{mib} of {max_mib} MiB are kept for {furthest}; at this rate writes are refused in \
                 {seconds} s"
            );
            (what, furthest)
        }
        (None, _) => return None,
    };
    let action = format!(
        "bring {behind} back, or mend the links to it: writes go on by themselves when it has caught \
         up; to gain time raise limits.outbox in the files of the nodes and restart one after the \
         other; if that takes too long, let go of it until it comes back by itself with all data \
         anew, `antecede topology plan lapse {behind}`; if {behind} is lost for ever, `antecede \
         topology plan remove {behind} --lost`"
    );
    Some(finding(Kind::OutboxFull, place_of(told), what, action))
}

/// Links of a node to others that run.
fn links(heard: &Heard, told: &Told) -> Vec<Finding> {
    let mut found = Vec::new();
    let cut: BTreeSet<&str> =
        told.links.iter().filter(|link| link.cut).map(|link| link.datacenter.as_str()).collect();
    for datacenter in cut {
        let what = format!("its links to {datacenter} are cut on purpose");
        let admin = heard
            .by_admin
            .iter()
            .find(|(_, other)| other.as_ref().is_some_and(|other| other.node == told.node));
        let action = format!(
            "when that is over: `curl -X POST http://{}/v1/faults/heal`",
            admin.map_or("ADMIN", |(admin, _)| admin.trim_start_matches("http://"))
        );
        found.push(finding(Kind::Cut, place_of(told), what, action));
    }
    for link in told.links.iter().filter(|link| !link.connected && !link.cut) {
        if heard.node(&link.node).is_some() {
            let what = format!("it does not reach {} at {}, which runs", link.node, link.address);
            let action = format!(
                "see to the network and the firewall between them: {} must be reached from {}",
                link.address, told.node
            );
            found.push(finding(Kind::NoLink, place_of(told), what, action));
        }
    }
    for link in &told.links {
        let Some(relay) = &link.through else { continue };
        let what = format!("{relay} passes on what it sends to {} at {}", link.node, link.address);
        let action = format!(
            "see to the network and the firewall between the two: {} must be reached from {}; until \
             then nothing is missing, but all of it crosses {relay}'s datacenter and takes its way",
            link.address, told.node
        );
        found.push(finding(Kind::Detour, place_of(told), what, action));
    }
    found
}

/// Datacenters that come and go.
fn topology(heard: &Heard) -> Vec<Finding> {
    let mut found = Vec::new();
    let admin = heard.by_admin.iter().find(|(_, told)| told.is_some()).map(|(admin, _)| admin);
    let show = format!(
        "`antecede topology show --admin {}` shows how far it is",
        admin.map_or("ADMIN", String::as_str)
    );
    for told in heard.told() {
        if told.topology.is_gone && !told.topology.is_lapsed {
            let what = "its datacenter is of this deployment no more: it refuses everything";
            let action = "stop it, and send its clients elsewhere; its folder may be kept until \
                          nobody can ask for its data";
            found.push(finding(Kind::NoMember, place_of(told), what.to_owned(), action.to_owned()));
        }
        if let Some(what) = &told.topology.comes_back {
            let action = "wait: it copies what the others have, then executes again what it had \
                          never sent; see that its nodes reach those of the others"
                .to_owned();
            found.push(finding(Kind::NoMember, place_of(told), what.clone(), action));
        }
        if let Some(why) = &told.topology.waits_to_begin {
            let what = "its datacenter does not begin".to_owned();
            found.push(finding(Kind::NoMember, told.datacenter.as_str(), what, why.clone()));
        }
        if let Some(why) = &told.topology.outage {
            let what = format!(
                "the agreement on datacenters cannot be reached, none can be added or removed: {why}"
            );
            let action =
                "see that the first nodes of most datacenters run and reach each other at \
                          their control addresses; all else goes on meanwhile"
                    .to_owned();
            found.push(finding(Kind::NoDeployment, told.datacenter.as_str(), what, action));
        }
    }
    let changes: BTreeSet<&str> =
        heard.told().filter_map(|told| told.topology.change.as_deref()).collect();
    for change in changes {
        let known = heard.told().filter(|told| told.topology.change.as_deref() == Some(change));
        let waits: BTreeSet<&str> =
            known.flat_map(|told| &told.topology.waits).map(String::as_str).collect();
        let waits: Vec<&str> = waits.into_iter().collect();
        let what = match waits.is_empty() {
            true => change.to_owned(),
            false => format!("{change}; it waits: {}", waits.join("; ")),
        };
        found.push(finding(Kind::Topology, "deployment", what, show.clone()));
    }
    found
}

/// What datacenters had never sent when they lapsed, and did not execute again yet.
fn quarantines(heard: &Heard) -> Vec<Finding> {
    let mut by_number: BTreeMap<(&str, u16), Vec<(&Told, &Quarantine)>> = BTreeMap::new();
    for told in heard.told() {
        for quarantine in &told.quarantine {
            let key = (told.datacenter.as_str(), quarantine.number);
            by_number.entry(key).or_default().push((told, quarantine));
        }
    }
    let mut found = Vec::new();
    for ((name, number), all) in by_number {
        for (told, _) in all.iter().filter(|(_, it)| !it.is_replayed && !it.newest.is_empty()) {
            let what = format!("what {name} had never sent as {number} is not executed again yet");
            let action = "wait; if it stays so, its log says why".to_owned();
            found.push(finding(Kind::Unsent, place_of(told), what, action));
        }
        let covered: BTreeSet<u16> = all.iter().flat_map(|(_, it)| &it.newest).copied().collect();
        let shards = all.iter().map(|(told, _)| told.chains.len()).max().unwrap_or_default();
        let missing = shards.saturating_sub(covered.len());
        let is_marked = all.iter().any(|(_, it)| it.is_replayed && it.newest.is_empty());
        if missing == 0 || is_marked {
            continue;
        }
        let folders: Vec<String> =
            all.iter().map(|(told, it)| format!("{} on {}", it.folder, told.node)).collect();
        let what = format!(
            "what {name} had never sent as {number} is executed again by itself for {} of {shards} \
             shards: the nodes that have the newest end of the others were not heard",
            covered.len()
        );
        let action = format!(
            "bring those nodes back first, if they can be; else gather the folders ({}) on one \
             machine, `antecede unsent replay FOLDERS --admin ADMINS --to HOST:PORT`, and make an \
             empty file replayed in one of them",
            folders.join(", ")
        );
        found.push(finding(Kind::Unsent, name, what, action));
    }
    found
}

/// Replicas that are missing though their nodes run and have room.
fn replicas(heard: &Heard) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, told) in heard.newest() {
        let is_explained = |node: &String| heard.node(node).is_none_or(|told| told.log.disk_full);
        let is_copied = |chain: &&Chain| !chain.syncing.is_empty();
        let short = told.chains.iter().filter(|chain| {
            let waiting = chain.syncing.iter().chain(&chain.offline);
            !chain.serving.is_empty() && waiting.clone().any(|node| !is_explained(node))
        });
        let (count, copied) = (short.clone().count(), short.filter(is_copied).count());
        if 0 < count {
            let what = format!("{count} shards lack a replica, {copied} are copied now");
            let action = "wait: nodes that were away copy what they missed, some shards at a time"
                .to_owned();
            found.push(finding(Kind::Replicas, name, what, action));
        }
    }
    found
}

fn versions(heard: &Heard) -> Option<Finding> {
    let versions: BTreeSet<&str> = heard.told().map(|told| told.version.as_str()).collect();
    (1 < versions.len()).then(|| {
        let what = format!(
            "the nodes run different builds: {}",
            versions.iter().copied().collect::<Vec<_>>().join(", ")
        );
        let action = "give all nodes the same build, one node after the other".to_owned();
        finding(Kind::Versions, "deployment", what, action)
    })
}
