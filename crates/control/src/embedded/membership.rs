//! Changes who the members are: add, remove, replace, one change at a time.
//!
//! A new member first learns: it receives everything and counts for nothing. Only when it has the
//! entry that made it a learner does it vote; so a node that cannot be reached never becomes part
//! of a majority. If it does not get that far in time, it is forgotten again.
//!
//! Assumes: a node that is added again after its file was lost was removed before, or it could
//! vote twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::NodeId,
};
use openraft::{
    BasicNode, ChangeMembers,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};

use super::{
    codec::read_text,
    raft::{Metrics, Raft, StoredMembership, member_of, node_of},
};
use crate::store::Outage;

/// Members that vote. More make every decision slower and survive no more than is ever needed.
pub const MEMBERS_MAX: usize = 5;

/// A member as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Where it listens.
    pub address: String,
    /// Whether it counts for majorities, or only learns.
    pub votes: bool,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// One more.
    Add { node: NodeId, address: String },
    /// One less.
    Remove { node: NodeId },
    /// One instead of another.
    Replace { old: NodeId, new: NodeId, address: String },
}

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// It is a member already.
    #[error("node {node} is a member already, at {address}")]
    AlreadyMember {
        /// The node.
        node: NodeId,
        /// Where the member listens.
        address: String,
    },
    /// It is no member.
    #[error("node {node} is no member; the members are {members}")]
    NotMember {
        /// The node.
        node: NodeId,
        /// The members.
        members: String,
    },
    /// There would be no member left.
    #[error("node {node} is the last member and cannot be removed; add another one first")]
    LastMember {
        /// The node.
        node: NodeId,
    },
    /// There would be too many.
    #[error("there are {MEMBERS_MAX} members already; replace one, or remove one first")]
    TooMany,
    /// Another change is under way.
    #[error("another change of the members is under way; wait until it is done")]
    InProgress,
    /// The new member did not receive what it needs.
    #[error(
        "node {node} did not catch up within {limit:?} and was not made a member; see that it \
         runs, was started to join this group, and is reached at {address}"
    )]
    NotCaughtUp {
        /// The node.
        node: NodeId,
        /// Where it should listen.
        address: String,
        /// How long it had.
        limit: Duration,
    },
    /// It may have happened in part.
    #[error(
        "the outcome of a change of the members is unknown, because {outage}; read the members"
    )]
    Unknown {
        /// What went wrong.
        outage: Outage,
    },
    /// It did not happen.
    #[error("the members cannot be changed, because {outage}")]
    Unavailable {
        /// What went wrong.
        outage: Outage,
    },
}

/// How a change ended at the member that tried it.
pub(crate) enum Ended {
    /// The new members.
    Done,
    /// Refused, for a reason that every member would give.
    Refused(MembershipError),
    /// It is not known how far it came.
    LeaderChanged,
    /// The member has stopped.
    Stopped,
}

/// The members that a member knows.
pub(crate) fn members_of(membership: &StoredMembership) -> BTreeMap<NodeId, MemberState> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let state = |(member, node): (&u64, &BasicNode)| {
        let votes = voters.contains(member);
        Some((node_of(*member)?, MemberState { address: node.addr.clone(), votes }))
    };
    membership.nodes().filter_map(state).collect()
}

/// Carries out a change at the leader.
pub(crate) async fn change(raft: &Raft, change: &Change, learn_limit: Duration) -> Ended {
    let members = members_of(&raft.metrics().borrow().membership_config);
    match steps(&members, change) {
        Err(refused) => Ended::Refused(refused),
        Ok(changes) => {
            if let Change::Add { node, address } | Change::Replace { new: node, address, .. } =
                change
                && let Err(ended) = learn(raft, *node, address, learn_limit).await
            {
                return ended;
            }
            match raft.change_membership(changes, false).await {
                Ok(_) => Ended::Done,
                Err(error) => ended(error),
            }
        }
    }
}

/// Whether a change makes sense, and what the library has to do for it once everybody has learnt.
fn steps(
    members: &BTreeMap<NodeId, MemberState>,
    change: &Change,
) -> Result<ChangeMembers<u64, BasicNode>, MembershipError> {
    let mut voters: BTreeSet<NodeId> =
        members.iter().filter(|(_, member)| member.votes).map(|(node, _)| *node).collect();
    let (added, removed) = match change {
        Change::Add { node, .. } => (Some(*node), None),
        Change::Remove { node } => (None, Some(*node)),
        Change::Replace { old, new, .. } => (Some(*new), Some(*old)),
    };
    if let Some(node) = added.filter(|node| voters.contains(node)) {
        let address = members.get(&node).map_or_else(String::new, |member| member.address.clone());
        return Err(MembershipError::AlreadyMember { node, address });
    }
    if let Some(node) = removed {
        if !members.contains_key(&node) {
            let names: Vec<String> = members.keys().map(NodeId::to_string).collect();
            return Err(MembershipError::NotMember { node, members: names.join(", ") });
        }
        if !voters.contains(&node) && added.is_none() {
            return Ok(ChangeMembers::RemoveNodes(BTreeSet::from([member_of(node)])));
        }
        voters.remove(&node);
    }
    voters.extend(added);
    if let Some(node) = removed.filter(|_| voters.is_empty()) {
        return Err(MembershipError::LastMember { node });
    }
    if MEMBERS_MAX < voters.len() {
        return Err(MembershipError::TooMany);
    }
    Ok(ChangeMembers::ReplaceAllVoters(voters.into_iter().map(member_of).collect()))
}

/// Makes a node learn until it has all that was there when it began.
async fn learn(raft: &Raft, node: NodeId, address: &str, limit: Duration) -> Result<(), Ended> {
    let member = member_of(node);
    let added = raft.add_learner(member, BasicNode::new(address), false).await.map_err(ended)?;
    let index = added.log_id.index;
    let has_learnt = |metrics: &Metrics| {
        let reached = metrics.replication.as_ref().and_then(|all| all.get(&member).copied());
        let has_all = reached.flatten().is_some_and(|log_id| index <= log_id.index);
        // Without a leader here nothing is replicated, and the next step says so.
        has_all || metrics.replication.is_none()
    };
    let waited = raft.wait(Some(limit)).metrics(has_learnt, "a new member learns").await;
    if waited.is_ok() {
        return Ok(());
    }
    let forget = ChangeMembers::RemoveNodes(BTreeSet::from([member]));
    raft.change_membership(forget, false).await.map_err(ended)?;
    let address = address.to_owned();
    Err(Ended::Refused(MembershipError::NotCaughtUp { node, address, limit }))
}

fn ended(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Ended {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Ended::LeaderChanged,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            // A learner that is gone again was forgotten by another change beside this one.
            ChangeMembershipError::InProgress(_)
            | ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::LearnerNotFound(_) => {
                Ended::Refused(MembershipError::InProgress)
            }
        },
        RaftError::Fatal(_) => Ended::Stopped,
    }
}

impl Change {
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Add { node, address } => {
                writer.u8(0);
                writer.node(*node);
                writer.bytes(address.as_bytes());
            }
            Self::Remove { node } => {
                writer.u8(1);
                writer.node(*node);
            }
            Self::Replace { old, new, address } => {
                writer.u8(2);
                writer.node(*old);
                writer.node(*new);
                writer.bytes(address.as_bytes());
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Self::Add { node: reader.node()?, address: read_text(reader)? },
            1 => Self::Remove { node: reader.node()? },
            2 => Self::Replace {
                old: reader.node()?,
                new: reader.node()?,
                address: read_text(reader)?,
            },
            found => return Err(DecodeError::UnknownTag { what: "change of members", found }),
        })
    }
}

impl MembershipError {
    /// Writes what a member may answer; outages are the caller's own view and never sent.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::AlreadyMember { node, address } => {
                writer.u8(0);
                writer.node(*node);
                writer.bytes(address.as_bytes());
            }
            Self::NotMember { node, members } => {
                writer.u8(1);
                writer.node(*node);
                writer.bytes(members.as_bytes());
            }
            Self::LastMember { node } => {
                writer.u8(2);
                writer.node(*node);
            }
            Self::TooMany => writer.u8(3),
            Self::InProgress | Self::Unknown { .. } | Self::Unavailable { .. } => writer.u8(4),
            Self::NotCaughtUp { node, address, limit } => {
                writer.u8(5);
                writer.node(*node);
                writer.bytes(address.as_bytes());
                writer.number(limit.as_secs());
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Self::AlreadyMember { node: reader.node()?, address: read_text(reader)? },
            1 => Self::NotMember { node: reader.node()?, members: read_text(reader)? },
            2 => Self::LastMember { node: reader.node()? },
            3 => Self::TooMany,
            4 => Self::InProgress,
            5 => {
                let (node, address) = (reader.node()?, read_text(reader)?);
                let limit = Duration::from_secs(reader.number()?);
                Self::NotCaughtUp { node, address, limit }
            }
            found => return Err(DecodeError::UnknownTag { what: "refused change", found }),
        })
    }
}
