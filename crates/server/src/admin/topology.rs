//! Which datacenters there are: shown, planned and changed on request.
//!
//! What is shown is read from the deployment's agreement, and from what this node knows if that does
//! not answer. A plan is a wish tried on the members without writing; to apply is to write, for
//! the version that was planned for. What follows goes on by itself (`control::deployment`).
//!
//! Ensures: only who is on this machine changes anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use antecede_control::StoreError;
use antecede_model::{
    clock::Timestamp,
    cut::Cut,
    ids::{DatacenterId, MembershipEpoch, NodeId},
    membership::{Membership, Standing},
};
use antecede_protocol::manager::membership::{
    MembershipError, Wish, in_words, refuse_outdated, wished,
};
use axum::{
    Json,
    extract::{ConnectInfo, State, connect_info::Connected},
    http::StatusCode,
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::warn;

use super::Admin;
use super::outbox::{OutboxStatus, outbox_of};
use crate::control::deployment::Deployment;
use crate::control::waiting::{change_of, waits_of};
use crate::node::Node;

/// The members, as the deployment has agreed on them.
#[derive(Clone, Debug, Serialize)]
pub struct Topology {
    /// Grows by one with each change.
    pub version: u64,
    /// Whether the deployment's agreement has told this; if not, this node did.
    pub is_agreed: bool,
    /// Why nothing can be changed now; absent if it can.
    pub unchangeable: Option<String>,
    /// The change that is under way.
    pub change: Option<String>,
    /// What it waits for.
    pub waits: Vec<String>,
    /// The datacenters.
    pub datacenters: Vec<TopologyMember>,
    /// Those that are members no more.
    pub gone: Vec<TopologyGone>,
    /// What this node keeps for others; absent where it keeps nothing.
    pub kept: Option<TopologyKept>,
}

/// What a node keeps for the datacenters that are behind.
#[derive(Clone, Debug, Serialize)]
pub struct TopologyKept {
    /// Bytes, about.
    pub bytes: u64,
    /// The limit; 0: none.
    pub max_bytes: u64,
    /// Whether writes are refused because of it.
    pub is_full: bool,
    /// The name of the datacenter that is furthest behind.
    pub furthest: String,
}

/// A datacenter.
#[derive(Clone, Debug, Serialize)]
pub struct TopologyMember {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// What it does.
    pub standing: &'static str,
    /// Whether it serves and nothing else.
    pub is_open: bool,
    /// Whether it is let go of because it is behind, and comes back by itself.
    pub is_lapsed: bool,
    /// Whose data it copies, or is to.
    pub from: Option<String>,
    /// Its nodes, and where other nodes reach them.
    pub nodes: BTreeMap<String, String>,
    /// The newest version that all of its nodes act by.
    pub acknowledged: u64,
    /// The newest version of which it has done all.
    pub done: u64,
    /// Shards that somebody serves there, as far as this node knows.
    pub shards_served: usize,
    /// Shards in all.
    pub shards: usize,
    /// By how much it is behind what is applied anywhere, in milliseconds, as far as this node knows.
    pub behind_ms: Option<u64>,
    /// Up to when each other datacenter has applied what this one wrote, in milliseconds of Unix
    /// time, as far as this node knows.
    pub applied_by: BTreeMap<String, u64>,
}

/// A datacenter that is a member no more.
#[derive(Clone, Debug, Serialize)]
pub struct TopologyGone {
    /// Its number, which is never used again.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Whether it was lost.
    pub was_lost: bool,
    /// The version that went on without it.
    pub since: u64,
    /// The number under which its nodes come back by themselves; absent unless it has lapsed.
    pub successor: Option<u16>,
}

/// The members as a node acts by them.
#[derive(Clone, Debug, Serialize)]
pub struct TopologyStatus {
    /// The version that it acts by.
    pub version: u64,
    /// What its datacenter may do.
    pub standing: &'static str,
    /// Whether its datacenter is a member no more.
    pub is_gone: bool,
    /// Whether its datacenter is let go of because it was behind, and comes back by itself.
    pub is_lapsed: bool,
    /// How its datacenter comes back, after it has lapsed; absent when it serves again.
    pub comes_back: Option<String>,
    /// The change that is under way; told by the node that decides for its datacenter.
    pub change: Option<String>,
    /// What it waits for.
    pub waits: Vec<String>,
    /// Why the deployment's agreement cannot be reached.
    pub outage: Option<String>,
    /// Why its datacenter does not begin yet.
    pub waits_to_begin: Option<String>,
}

/// All that a datacenter may be, in a word.
pub(super) const STANDINGS: [&str; 7] =
    ["joining", "copying", "open", "leaving", "lost", "gone", "none"];

/// What people ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The version that it was planned for.
    version: Option<u64>,
    change: WantedChange,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum WantedChange {
    Add {
        id: u16,
        name: String,
        /// Numbers of its nodes, and where other nodes reach them.
        nodes: BTreeMap<u16, String>,
        from: Option<String>,
    },
    Remove {
        name: String,
    },
    RemoveLost {
        name: String,
    },
    Lapse {
        name: String,
    },
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// Somebody who is elsewhere.
    #[error(
        "changes are taken from the machine of the node only: run this command there, on {address}"
    )]
    Elsewhere {
        /// Where this was asked.
        address: SocketAddr,
    },
    /// Nobody agrees on datacenters.
    #[error("datacenters cannot be added or removed: {0}")]
    Nobody(String),
    /// It does not answer.
    #[error("the deployment's agreement cannot be reached")]
    Store(#[from] StoreError),
    /// It has not begun.
    #[error(
        "the deployment has not agreed on its first members yet; see that a node of each datacenter \
         runs"
    )]
    NotBegun,
    /// No such datacenter.
    #[error("there is no datacenter called {0}; see antecede topology show")]
    Unknown(String),
    /// What was asked for cannot be.
    #[error(transparent)]
    Members(#[from] MembershipError),
    /// The settings of this deployment do not have room for it.
    #[error("{0}")]
    Wrong(String),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Elsewhere { .. } => StatusCode::FORBIDDEN,
            Self::Nobody(_) => StatusCode::NOT_IMPLEMENTED,
            // The members changed between the look and the swap.
            Self::Members(MembershipError::Outdated { .. })
            | Self::Store(StoreError::Conflict { .. }) => StatusCode::PRECONDITION_FAILED,
            Self::Store(_) | Self::NotBegun => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Members(
                MembershipError::Changing { .. }
                | MembershipError::Used { .. }
                | MembershipError::NoNodes { .. }
                | MembershipError::Unknown { .. }
                | MembershipError::NotServing { .. }
                | MembershipError::Last { .. },
            ) => StatusCode::CONFLICT,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
        };
        let cause = std::error::Error::source(&self).map(ToString::to_string);
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        (status, format!("{self}{cause}\n")).into_response()
    }
}

/// Both ends of a connection to the admin port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    remote: SocketAddr,
    local: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { remote: *stream.remote_addr(), local: stream.io().local_addr().ok() }
    }
}

impl Ends {
    /// Whether the other end is on this machine.
    pub(super) fn is_here(&self) -> bool {
        let is_same = self.local.is_some_and(|local| local.ip() == self.remote.ip());
        self.remote.ip().is_loopback() || is_same
    }

    fn check(&self) -> Result<(), Refused> {
        if self.is_here() {
            return Ok(());
        }
        Err(Refused::Elsewhere { address: self.local.unwrap_or(self.remote) })
    }
}

/// Shows the members.
pub(super) async fn show(State(admin): State<Admin>) -> Json<Topology> {
    let node = &admin.node;
    let own = || Arc::clone(&node.configuration().membership);
    let (members, is_agreed, unchangeable) = match store_of(&admin) {
        Err(refused) => (own(), false, Some(refused.to_string())),
        Ok(store) => match store.read().await {
            Ok(Some(members)) => (Arc::new(members), true, None),
            Ok(None) => (own(), false, Some(Refused::NotBegun.to_string())),
            Err(why) => (own(), false, Some(why.to_string())),
        },
    };
    Json(topology_of(node, &members, is_agreed, unchangeable))
}

/// Tries a change without writing it; answers with the members as they would be.
pub(super) async fn plan(
    State(admin): State<Admin>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Topology>, Response> {
    let tried = async {
        let members = store_of(&admin)?.read().await?.ok_or(Refused::NotBegun)?;
        let next = next_of(&members, &wanted)?;
        Ok::<_, Refused>(topology_of(&admin.node, &next, true, None))
    };
    tried.await.map(Json).map_err(IntoResponse::into_response)
}

/// Makes a change; answers with the members as they are from then on.
pub(super) async fn apply(
    State(admin): State<Admin>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Topology>, Response> {
    let changed = async {
        ends.check()?;
        if wanted.version.is_none() {
            let why = "version is missing: say the one that was planned for";
            return Err(Refused::Wrong(why.to_owned()));
        }
        let next = store_of(&admin)?.replace(|members| next_of(members, &wanted)).await?;
        let next = next.ok_or(Refused::NotBegun)??;
        let change = change_of(&next).unwrap_or_default();
        warn!(node = %admin.node.id, version = %next.epoch, change, "the members of the deployment are changed, as was asked for");
        Ok::<_, Refused>(topology_of(&admin.node, &next, true, None))
    };
    changed.await.map(Json).map_err(IntoResponse::into_response)
}

fn store_of(admin: &Admin) -> Result<&Deployment, Refused> {
    if let Err(why) = admin.node.config.deployment_store() {
        return Err(Refused::Nobody(why));
    }
    admin.deployment.as_deref().ok_or_else(|| Refused::Nobody("this node is stopping".to_owned()))
}

/// The members as they are wished, if that may be.
fn next_of(members: &Membership, wanted: &Wanted) -> Result<Membership, Refused> {
    if let Some(version) = wanted.version {
        refuse_outdated(members, MembershipEpoch(version))?;
    }
    let id_of = |name: &str| {
        let found = members.members.iter().find(|(_, member)| member.name == name);
        found.map(|(id, _)| *id).ok_or_else(|| Refused::Unknown(name.to_owned()))
    };
    let wish = match &wanted.change {
        WantedChange::Add { id, name, nodes, from } => {
            let datacenter = DatacenterId(*id);
            check_added(*id, name, nodes)?;
            let node = |(number, address): (&u16, &String)| {
                (NodeId { datacenter, number: *number }, address.clone())
            };
            Wish::Add {
                id: datacenter,
                name: name.clone(),
                nodes: nodes.iter().map(node).collect(),
                from: from.as_deref().map(id_of).transpose()?,
            }
        }
        WantedChange::Remove { name } => Wish::Remove(id_of(name)?),
        WantedChange::RemoveLost { name } => Wish::RemoveLost(id_of(name)?),
        WantedChange::Lapse { name } => Wish::Lapse(id_of(name)?),
    };
    Ok(wished(members, &wish)?)
}

/// Refuses what no settings could say.
fn check_added(id: u16, name: &str, nodes: &BTreeMap<u16, String>) -> Result<(), Refused> {
    if id == 0 {
        return Err(Refused::Wrong("datacenters are numbered from 1".to_owned()));
    }
    if name.is_empty() {
        return Err(Refused::Wrong(format!("datacenter {id} needs a name")));
    }
    for (wanted, (number, address)) in (1_u16..).zip(nodes) {
        if wanted != *number {
            let why =
                format!("number the nodes of {name} 1, 2, 3 without gaps: {wanted} is missing");
            return Err(Refused::Wrong(why));
        }
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            let why = format!("node {id}.{number} is at \"{address}\", give host:port");
            return Err(Refused::Wrong(why));
        }
    }
    Ok(())
}

/// What this node tells of the members with its status.
pub(super) fn topology_here(node: &Node) -> TopologyStatus {
    let (here, known) = (node.id.datacenter, node.control.deployment());
    let members = &node.configuration().membership;
    let newest = known.members.as_ref();
    TopologyStatus {
        version: members.epoch.0,
        standing: word_of(members, here),
        is_gone: members.is_gone(here),
        is_lapsed: members.is_lapsed(here),
        comes_back: comes_back_of(node, members),
        change: newest.and_then(|newest| change_of(newest)),
        waits: newest.map_or_else(Vec::new, |newest| waits_of(newest, here, &known.laggards)),
        outage: known.outage,
        waits_to_begin: known.waits,
    }
}

/// How this node's datacenter comes back after it has lapsed; `None` if it has not, or is back.
fn comes_back_of(node: &Node, members: &Membership) -> Option<String> {
    let (here, config) = (node.id.datacenter, &node.config);
    let name = node.name_of(here);
    if members.is_lapsed(here) {
        return Some(format!("datacenter {name} ({here}) has lapsed, and comes back by itself"));
    }
    let before = config.before.last().filter(|_| !members.is_gone(here))?;
    let is = match members.standing(here) {
        Some(Standing::Open | Standing::Leaving | Standing::Lost) => return None,
        Some(standing @ (Standing::Joining { .. } | Standing::Copying { .. })) => {
            in_words(standing)
        }
        None => "asking to be taken in",
    };
    Some(format!("datacenter {name} ({before}) has lapsed, comes back as {here}: {is}"))
}

/// What a datacenter may do, in a word.
fn word_of(members: &Membership, id: DatacenterId) -> &'static str {
    match members.standing(id) {
        Some(Standing::Joining { .. }) => "joining",
        Some(Standing::Copying { .. }) => "copying",
        Some(Standing::Open) => "open",
        Some(Standing::Leaving) => "leaving",
        Some(Standing::Lost) => "lost",
        None if members.is_gone(id) => "gone",
        None => "none",
    }
}

fn topology_of(
    node: &Node,
    members: &Membership,
    is_agreed: bool,
    unchangeable: Option<String>,
) -> Topology {
    let laggards = node.control.deployment().laggards;
    let one = |id: &DatacenterId| member_of(node, members, *id);
    let gone = members.gone.iter().map(|(id, gone)| TopologyGone {
        id: id.0,
        name: gone.name.clone(),
        was_lost: gone.was_lost,
        since: gone.since.0,
        successor: gone.successor.map(|id| id.0),
    });
    Topology {
        version: members.epoch.0,
        is_agreed,
        unchangeable,
        change: change_of(members),
        waits: waits_of(members, node.id.datacenter, &laggards),
        datacenters: members.members.keys().filter_map(one).collect(),
        gone: gone.collect(),
        kept: kept_of(outbox_of(node)),
    }
}

fn kept_of(outbox: OutboxStatus) -> Option<TopologyKept> {
    let OutboxStatus { bytes, max_bytes, held_up_by, peers, .. } = outbox;
    let is_full = held_up_by.is_some();
    let furthest = || peers.into_iter().max_by_key(|peer| peer.behind_ms).map(|it| it.datacenter);
    let furthest = held_up_by.or_else(furthest).filter(|_| 0 < bytes)?;
    Some(TopologyKept { bytes, max_bytes, is_full, furthest })
}

fn member_of(node: &Node, members: &Membership, id: DatacenterId) -> Option<TopologyMember> {
    let member = members.members.get(&id)?;
    let configuration = node.configuration();
    let name = |id: DatacenterId| {
        members.members.get(&id).map_or_else(|| id.to_string(), |member| member.name.clone())
    };
    let chains = configuration.datacenter(id).map_or(&[][..], |there| there.chains.as_slice());
    let cuts: BTreeMap<DatacenterId, Cut> = members
        .members
        .keys()
        .filter_map(|other| Some((*other, node.applied_at(*other)?)))
        .collect();
    let applied_by = cuts.iter().filter(|(other, _)| **other != id);
    Some(TopologyMember {
        id: id.0,
        name: member.name.clone(),
        standing: if member.is_lapsed { "lapsing" } else { in_words(member.standing) },
        is_lapsed: member.is_lapsed,
        is_open: member.standing == Standing::Open,
        from: match member.standing {
            Standing::Joining { from } => from.map(name),
            Standing::Copying { from } => Some(name(from)),
            Standing::Open | Standing::Leaving | Standing::Lost => None,
        },
        nodes: member.nodes.iter().map(|(id, at)| (id.to_string(), at.clone())).collect(),
        acknowledged: member.acknowledged.0,
        done: member.done.0,
        shards_served: chains.iter().filter(|chain| !chain.serving.is_empty()).count(),
        shards: usize::from(configuration.shard_count.count()),
        behind_ms: cuts.get(&id).map(|own| behind(own, &cuts, members)),
        applied_by: applied_by.map(|(other, cut)| (name(*other), cut.at(id).millis())).collect(),
    })
}

/// By how much a cut is behind the furthest of all, at the origin where that is most.
fn behind(own: &Cut, all: &BTreeMap<DatacenterId, Cut>, members: &Membership) -> u64 {
    let lag = |origin: &DatacenterId| {
        let furthest = all.values().map(|cut| cut.at(*origin)).max().unwrap_or(Timestamp::ZERO);
        furthest.millis().saturating_sub(own.at(*origin).millis())
    };
    members.members.keys().map(lag).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(remote: &str, local: &str) -> Ends {
        Ends { remote: remote.parse().unwrap(), local: Some(local.parse().unwrap()) }
    }

    #[test]
    fn only_who_is_on_the_same_machine_changes_anything() {
        assert!(ends("127.0.0.1:5", "127.0.0.1:80").check().is_ok());
        assert!(ends("10.0.0.1:5", "10.0.0.1:80").check().is_ok());
        let refused = ends("10.0.0.2:5", "10.0.0.1:80").check().unwrap_err();
        assert!(refused.to_string().contains("10.0.0.1:80"), "{refused}");
        assert_eq!(refused.into_response().status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_wish_is_checked_before_it_is_believed() {
        let members = || {
            let open = |name: &str| {
                antecede_model::membership::Member::open(name.to_owned(), BTreeMap::new())
            };
            Membership::first([(DatacenterId(1), open("eu")), (DatacenterId(2), open("us"))])
        };
        let next = |text: &str| next_of(&members(), &serde_json::from_str::<Wanted>(text).unwrap());
        let add = |nodes: &str, more: &str| {
            let words = format!(
                r#"{{"version": 1, "change": {{"add": {{"id": 3, "name": "ap", "nodes": {nodes}{more}}}}}}}"#
            );
            next(&words)
        };
        let added = add(r#"{"1": "host:1"}"#, r#", "from": "us""#).unwrap();
        let from = Some(DatacenterId(2));
        assert_eq!(added.standing(DatacenterId(3)), Some(Standing::Joining { from }));
        assert!(matches!(add(r#"{"2": "host:1"}"#, ""), Err(Refused::Wrong(_))));
        assert!(matches!(add(r#"{"1": "host"}"#, ""), Err(Refused::Wrong(_))));
        assert!(matches!(add("{}", ""), Err(Refused::Members(MembershipError::NoNodes { .. }))));
        let unknown = add(r#"{"1": "host:1"}"#, r#", "from": "mars""#);
        assert!(matches!(unknown, Err(Refused::Unknown(_))));
        let late = next(r#"{"version": 7, "change": {"remove": {"name": "us"}}}"#).unwrap_err();
        assert_eq!(late.into_response().status(), StatusCode::PRECONDITION_FAILED);
        let lost = next(r#"{"change": {"remove_lost": {"name": "us"}}}"#).unwrap();
        assert_eq!(lost.standing(DatacenterId(2)), Some(Standing::Lost));
        assert!(!lost.is_lapsed(DatacenterId(2)));
        let lapsing = next(r#"{"change": {"lapse": {"name": "us"}}}"#).unwrap();
        assert!(lapsing.is_lapsed(DatacenterId(2)));
    }

    #[test]
    fn a_datacenter_is_behind_by_what_it_lacks_of_the_origin_that_it_lacks_most_of() {
        let ids = [DatacenterId(1), DatacenterId(2)];
        let at = |one: u64, two: u64| {
            Cut::of(
                [one, two]
                    .into_iter()
                    .zip(ids)
                    .map(|(millis, id)| (id, Timestamp::from_millis(millis))),
            )
        };
        let open = || antecede_model::membership::Member::open(String::new(), BTreeMap::new());
        let members = Membership::first(ids.map(|id| (id, open())));
        let all = BTreeMap::from([(ids[0], at(50, 40)), (ids[1], at(20, 45))]);
        assert_eq!(behind(&all[&ids[0]], &all, &members), 5);
        assert_eq!(behind(&all[&ids[1]], &all, &members), 30);
    }
}
