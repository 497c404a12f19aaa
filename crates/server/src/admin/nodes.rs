//! Which nodes of the datacenter hold what, and which of them shall hold nothing: shown, planned and
//! changed on request.
//!
//! What is shown is read from the datacenter's agreement, and from what this node knows if that does
//! not answer. A wish is written there; managers move replicas by themselves then.
//!
//! Ensures: only who is on this machine changes anything.
//! Limits: a node tells of its own datacenter only.

use std::collections::BTreeSet;

use antecede_control::StoreError;
use antecede_model::{
    configuration::Datacenter,
    ids::{NodeId, ShardId},
};
use antecede_protocol::manager::moves::{held_by, relit_with, why_stuck, with_drained};
use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Admin, topology::Ends};

/// The nodes of a datacenter, as it has agreed on them.
#[derive(Clone, Debug, Serialize)]
pub struct Nodes {
    /// The datacenter's name.
    pub datacenter: String,
    /// The epoch of its part of the configuration.
    pub epoch: u64,
    /// Whether the agreement has told this; if not, this node did.
    pub is_agreed: bool,
    /// How many replicas each shard shall have.
    pub replicas: u16,
    /// How many shards there are.
    pub shards: usize,
    /// The nodes.
    pub nodes: Vec<NodeHolding>,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeHolding {
    /// The node.
    pub node: String,
    /// Whether it is known to be gone.
    pub is_absent: bool,
    /// Whether it shall hold nothing.
    pub is_drained: bool,
    /// Why its replicas do not leave, where they should.
    pub waits: Option<String>,
    /// Shards that it has a replica of.
    pub held: usize,
    /// Those of them that it copies.
    pub copies: usize,
    /// Shards that it is the head of.
    pub heads: usize,
    /// Shards that it is the tail of.
    pub tails: usize,
}

/// What people ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The node.
    node: String,
    /// Whether it shall hold nothing, or may hold replicas again.
    is_drained: bool,
}

/// With whose data which chains shall begin again that nobody can serve any more.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relit {
    /// The node.
    node: String,
    /// The shards.
    shards: BTreeSet<u16>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// Somebody who is elsewhere.
    #[error("changes are taken from the machine of the node only: run this command there")]
    Elsewhere,
    /// Nobody decides.
    #[error(
        "replicas cannot be moved: nobody decides in this datacenter; see control.store in the \
         settings"
    )]
    Nobody,
    /// It does not answer.
    #[error("the datacenter's agreement cannot be reached")]
    Store(#[from] StoreError),
    /// It has not begun.
    #[error("the datacenter has no configuration yet; see antecede status")]
    NotBegun,
    /// No such node.
    #[error("datacenter {datacenter} has no node {node}; its nodes are {nodes}")]
    Unknown {
        /// The datacenter.
        datacenter: String,
        /// What was asked for.
        node: String,
        /// What there is.
        nodes: String,
    },
    /// All shards are served, or can be.
    #[error("none of these shards of node {node} has lost its data: nothing is to be done")]
    NothingLost {
        /// The node.
        node: String,
    },
    /// What is lost here is elsewhere.
    #[error(
        "other datacenters have the data of these shards, and what would begin here with less could \
         never become the same again: let this datacenter come back with what they have (antecede \
         topology plan lapse {datacenter} against a node of another datacenter)"
    )]
    NotAlone {
        /// The datacenter.
        datacenter: String,
    },
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Elsewhere => StatusCode::FORBIDDEN,
            Self::Nobody => StatusCode::NOT_IMPLEMENTED,
            Self::Store(StoreError::Conflict { .. }) => StatusCode::PRECONDITION_FAILED,
            Self::Store(_) | Self::NotBegun => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
            Self::NothingLost { .. } | Self::NotAlone { .. } => StatusCode::CONFLICT,
        };
        let cause = std::error::Error::source(&self).map(ToString::to_string);
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        (status, format!("{self}{cause}\n")).into_response()
    }
}

/// Shows the nodes.
pub(super) async fn show(State(admin): State<Admin>) -> Result<Json<Nodes>, Response> {
    let shown = async {
        let node = &admin.node;
        let agreement = admin.agreement.upgrade().ok_or(Refused::Nobody)?;
        match agreement.read_part(node).await {
            Ok(Some(part)) => Ok(nodes_of(&part, true)),
            Ok(None) | Err(_) => {
                let known = node.configuration();
                let part = known.datacenter(node.id.datacenter).ok_or(Refused::NotBegun)?;
                Ok::<_, Refused>(nodes_of(part, false))
            }
        }
    };
    shown.await.map(Json).map_err(IntoResponse::into_response)
}

/// Tries a wish without writing it; answers with the nodes as they are, and what would be waited for.
pub(super) async fn plan(
    State(admin): State<Admin>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Nodes>, Response> {
    let tried = async {
        let agreement = admin.agreement.upgrade().ok_or(Refused::Nobody)?;
        let part = agreement.read_part(&admin.node).await?.ok_or(Refused::NotBegun)?;
        let next = wished(&part, &wanted)?;
        Ok::<_, Refused>(nodes_of(&next.unwrap_or(part), true))
    };
    tried.await.map(Json).map_err(IntoResponse::into_response)
}

/// Writes a wish down; answers with the nodes as they are from then on.
pub(super) async fn apply(
    State(admin): State<Admin>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Nodes>, Response> {
    let changed = async {
        if !ends.is_here() {
            return Err(Refused::Elsewhere);
        }
        let agreement = admin.agreement.upgrade().ok_or(Refused::Nobody)?;
        let next = agreement.replace_part(&admin.node, |part| wished(part, &wanted)).await?;
        let next = next.ok_or(Refused::NotBegun)??;
        let Wanted { node, is_drained } = &wanted;
        let what = if *is_drained { "shall hold nothing" } else { "may hold replicas again" };
        warn!(node = %admin.node.id, epoch = %next.epoch, "node {node} {what}, as was asked for");
        Ok::<_, Refused>(nodes_of(&next, true))
    };
    changed.await.map(Json).map_err(IntoResponse::into_response)
}

/// Lets the chains that nobody can serve any more begin again with what a node holds.
pub(super) async fn relight(
    State(admin): State<Admin>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    Json(wanted): Json<Relit>,
) -> Result<Json<Nodes>, Response> {
    let changed = async {
        if !ends.is_here() {
            return Err(Refused::Elsewhere);
        }
        let agreement = admin.agreement.upgrade().ok_or(Refused::Nobody)?;
        let is_alone = admin.node.configuration().peers(admin.node.id.datacenter).next().is_none();
        let relit = |part: &Datacenter| relit(part, &wanted, is_alone).map(Some);
        let next = agreement.replace_part(&admin.node, relit).await?.ok_or(Refused::NotBegun)??;
        let (id, Relit { node, shards }) = (admin.node.id, &wanted);
        warn!(node = %id, epoch = %next.epoch, ?shards, "shards that had lost their data begin again with what node {node} holds, as was asked for");
        Ok::<_, Refused>(nodes_of(&next, true))
    };
    changed.await.map(Json).map_err(IntoResponse::into_response)
}

fn relit(part: &Datacenter, wanted: &Relit, is_alone: bool) -> Result<Datacenter, Refused> {
    let Relit { node, shards } = wanted;
    let found = named(part, node)?;
    let next = relit_with(part, found, &shards.iter().copied().map(ShardId).collect());
    let next = next.ok_or_else(|| Refused::NothingLost { node: node.clone() })?;
    if !is_alone {
        return Err(Refused::NotAlone { datacenter: part.name.clone() });
    }
    Ok(next)
}

/// The part as it is wished; `None` if it is so already.
fn wished(part: &Datacenter, wanted: &Wanted) -> Result<Option<Datacenter>, Refused> {
    Ok(with_drained(part, named(part, &wanted.node)?, wanted.is_drained))
}

fn named(part: &Datacenter, node: &str) -> Result<NodeId, Refused> {
    let found = part.nodes.iter().find(|known| known.to_string() == node);
    found.copied().ok_or_else(|| Refused::Unknown {
        datacenter: part.name.clone(),
        node: node.to_owned(),
        nodes: part.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })
}

fn nodes_of(part: &Datacenter, is_agreed: bool) -> Nodes {
    Nodes {
        datacenter: part.name.clone(),
        epoch: part.epoch.0,
        is_agreed,
        replicas: part.replicas,
        shards: part.chains.len(),
        nodes: part.nodes.iter().map(|node| holding_of(part, *node)).collect(),
    }
}

fn holding_of(part: &Datacenter, node: NodeId) -> NodeHolding {
    let count = |is_so: &dyn Fn(&antecede_model::configuration::Chain) -> bool| {
        part.chains.iter().filter(|chain| is_so(chain)).count()
    };
    NodeHolding {
        node: node.to_string(),
        is_absent: part.absent.contains(&node),
        is_drained: part.drained.contains(&node),
        waits: why_stuck(part, node),
        held: held_by(part, node),
        copies: count(&|chain| {
            chain.waiting.get(&node) == Some(&antecede_model::configuration::Waiting::Syncing)
        }),
        heads: count(&|chain| chain.serving.first() == Some(&node)),
        tails: count(&|chain| chain.serving.last() == Some(&node)),
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::{configuration::Chain, ids::DatacenterId};

    use super::*;

    #[test]
    fn wish_is_for_a_node_of_the_datacenter_and_tells_what_it_holds_and_waits_for() {
        let node = |number| NodeId { datacenter: DatacenterId(1), number };
        let chains = vec![Chain::of(vec![node(1), node(2)]), Chain::of(vec![node(2), node(1)])];
        let part = Datacenter::of("here".to_owned(), vec![node(1), node(2)], chains);
        let wanted = |node: &str, is_drained| Wanted { node: node.to_owned(), is_drained };
        let refused = wished(&part, &wanted("1.3", true)).unwrap_err();
        assert_eq!(refused.to_string(), "datacenter here has no node 1.3; its nodes are 1.1, 1.2");
        assert_eq!(wished(&part, &wanted("1.2", false)).unwrap(), None, "it is so already");
        let next = wished(&part, &wanted("1.2", true)).unwrap().unwrap();
        let told = nodes_of(&next, true);
        assert_eq!((told.epoch, told.replicas, told.shards), (2, 2, 2));
        let held = &told.nodes[1];
        assert_eq!((held.held, held.copies, held.heads, held.tails), (2, 0, 1, 1));
        assert!(held.is_drained && !held.is_absent && !told.nodes[0].is_drained);
        assert!(held.waits.as_ref().unwrap().starts_with("only 1 nodes"), "{held:?}");
    }

    #[test]
    fn lost_shards_begin_again_only_where_nobody_else_has_their_data() {
        let node = |number| NodeId { datacenter: DatacenterId(1), number };
        let mut lost = Chain::of(Vec::new());
        lost.waiting.insert(node(2), antecede_model::configuration::Waiting::Offline);
        let chains = vec![Chain::of(vec![node(1)]), lost];
        let part = Datacenter::of("here".to_owned(), vec![node(1), node(2)], chains);
        let wanted = |node: &str| Relit { node: node.to_owned(), shards: [0, 1].into() };
        let refused =
            |node, is_alone| relit(&part, &wanted(node), is_alone).unwrap_err().to_string();
        assert!(refused("1.3", true).starts_with("datacenter here has no node 1.3"));
        assert!(refused("1.1", true).starts_with("none of these shards of node 1.1"));
        assert!(refused("1.2", false).starts_with("other datacenters have the data"));
        let next = relit(&part, &wanted("1.2"), true).unwrap();
        assert!(!next.chains[1].is_lost());
        assert_eq!(next.chains[0], part.chains[0]);
    }
}
