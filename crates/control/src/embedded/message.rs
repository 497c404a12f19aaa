//! Writes what members and nodes say to each other as bytes: a hello, then requests and replies.
//!
//! Ensures: reading never panics; a request that is read cannot make the library break one of its
//! own assumptions (entries follow each other, nobody speaks in another's name).
#![deny(clippy::indexing_slicing)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::{Boot, NodeId},
};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::{
    Backing, GroupId,
    codec::{
        read_entry, read_expected, read_key, read_log_id, read_meta, read_stored, read_text,
        read_vote, write_entry, write_key, write_log_id, write_meta, write_stored, write_vote,
    },
    founding::Stage,
    membership::{Change, MemberState, MembershipError},
    raft::{Counted, SnapshotMeta, Types, Vote},
};
use crate::store::{Beat, Beats, Renewal, Revision, Seen, StoreKey, Stored};

/// The form of everything here. Both sides of a connection must have the same.
pub(crate) const VERSION: u8 = 2;

/// How a hello begins, so that no other protocol is taken for this one.
const MAGIC: [u8; 8] = *b"antecede";

type Read<T> = Result<T, DecodeError>;

/// The first frame of a connection, from the side that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u8,
    pub(crate) group: GroupId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) backing: Backing,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut writer = Writer::new(&mut bytes);
        writer.u8(self.version);
        writer.node(self.from);
        writer.node(self.to);
        self.group.write(&mut writer);
        self.backing.write(&mut writer);
        bytes
    }

    /// `None` if it is no hello of any version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes.strip_prefix(&MAGIC)?);
        let version = reader.u8().ok()?;
        let (from, to) = (reader.node().ok()?, reader.node().ok()?);
        let group = GroupId::read(&mut reader).ok()?;
        // The first version did not say it, and had one only.
        let backing = Backing::read(&mut reader).unwrap_or(Backing::Embedded);
        Some(Self { version, group, from, to, backing })
    }
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Welcome {
    /// Requests may follow.
    Accepted,
    /// The other side speaks another version.
    OtherVersion(u8),
    /// The other side is this member.
    OtherMember(NodeId),
    /// The other side is of this group.
    OtherGroup(GroupId),
    /// The other side agrees by this.
    OtherBacking(Backing),
}

impl Welcome {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        match self {
            Self::Accepted => writer.u8(0),
            Self::OtherVersion(version) => {
                writer.u8(1);
                writer.u8(version);
            }
            Self::OtherMember(node) => {
                writer.u8(2);
                writer.node(node);
            }
            Self::OtherGroup(group) => {
                writer.u8(3);
                group.write(&mut writer);
            }
            Self::OtherBacking(backing) => {
                writer.u8(4);
                backing.write(&mut writer);
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            0 => Self::Accepted,
            1 => Self::OtherVersion(reader.u8()?),
            2 => Self::OtherMember(reader.node()?),
            3 => Self::OtherGroup(GroupId::read(&mut reader)?),
            4 => Self::OtherBacking(Backing::read(&mut reader)?),
            found => return Err(DecodeError::UnknownTag { what: "answer to a hello", found }),
        })
    }
}

/// What is asked of a member.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Raft: take these entries.
    Append(AppendEntriesRequest<Types>),
    /// Raft: vote for me.
    Vote(VoteRequest<u64>),
    /// Raft: take this state.
    Snapshot { vote: Vote, meta: SnapshotMeta, image: Vec<u8> },
    /// The newest state of a key.
    Read { key: StoreKey },
    /// Swap a key.
    Swap { key: StoreKey, expected: Option<Revision>, value: Arc<[u8]> },
    /// Wait a while for a state newer than `after`, at any member.
    Await { key: StoreKey, after: Option<Revision> },
    /// A node lives.
    Beat(Beat),
    /// What was heard of nodes.
    Beats,
    /// Who the members are.
    Members,
    /// Change the members.
    Change(Change),
    /// Who leads, as far as the one that is asked knows.
    Leader,
    /// How far the founder that is asked has come.
    Stage,
}

/// What a member answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To [`Request::Append`].
    Append(AppendEntriesResponse<u64>),
    /// To [`Request::Vote`].
    Vote(VoteResponse<u64>),
    /// To [`Request::Snapshot`].
    Snapshot(Vote),
    /// The state of a key; to [`Request::Await`] only a newer one.
    State(Option<Stored>),
    /// The swap was done.
    Swapped(Revision),
    /// The key was in another state.
    Conflict(Option<Stored>),
    /// The beat was heard; the members are told along the way.
    Renewed(Renewal, BTreeMap<NodeId, MemberState>),
    /// A newer boot was heard.
    OlderBoot(Boot),
    /// To [`Request::Beats`].
    Beats(Beats),
    /// To [`Request::Members`], and to a change that was done.
    Members(BTreeMap<NodeId, MemberState>),
    /// The change of members was not done.
    NotChanged(MembershipError),
    /// A limit would be passed.
    Full { what: Counted, count: u64 },
    /// Not done: another member leads, if one is known.
    NotLeader(Option<(NodeId, String)>),
    /// Not done: the leader hears no majority.
    NoMajority,
    /// It may or may not be done: the leader was replaced.
    LeaderChanged,
    /// The member has stopped, or cannot read the request.
    Stopped,
    /// To [`Request::Leader`].
    Leads(Option<NodeId>),
    /// To [`Request::Stage`]; to everything where the group has not begun.
    Stage(Stage),
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        match self {
            Self::Append(append) => {
                writer.u8(0);
                write_append(&mut writer, append);
            }
            Self::Vote(request) => {
                writer.u8(1);
                write_vote(&mut writer, &request.vote);
                writer.option(request.last_log_id.as_ref(), write_log_id);
            }
            Self::Snapshot { vote, meta, image } => {
                writer.u8(2);
                write_vote(&mut writer, vote);
                write_meta(&mut writer, meta);
                writer.bytes(image);
            }
            Self::Read { key } => {
                writer.u8(3);
                write_key(&mut writer, key);
            }
            Self::Swap { key, expected, value } => {
                writer.u8(4);
                write_key(&mut writer, key);
                writer.number(expected.map_or(0, |revision| revision.0));
                writer.bytes(value);
            }
            Self::Await { key, after } => {
                writer.u8(5);
                write_key(&mut writer, key);
                writer.number(after.map_or(0, |revision| revision.0));
            }
            Self::Beat(beat) => {
                writer.u8(6);
                writer.node(beat.node);
                writer.number(beat.boot.0);
                writer.bytes(&beat.facts);
            }
            Self::Beats => writer.u8(7),
            Self::Members => writer.u8(8),
            Self::Change(change) => {
                writer.u8(9);
                change.write(&mut writer);
            }
            Self::Leader => writer.u8(10),
            Self::Stage => writer.u8(11),
        }
        bytes
    }

    /// Reads a request that came from `from`.
    pub(crate) fn decode(bytes: &[u8], from: NodeId) -> Read<Self> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        let request = match reader.u8()? {
            0 => Self::Append(read_append(reader, from)?),
            1 => {
                let vote = read_vote_of(reader, from)?;
                Self::Vote(VoteRequest::new(vote, reader.option(read_log_id)?))
            }
            2 => Self::Snapshot {
                vote: read_vote_of(reader, from)?,
                meta: read_meta(reader)?,
                image: reader.bytes()?.to_vec(),
            },
            3 => Self::Read { key: read_key(reader)? },
            4 => Self::Swap {
                key: read_key(reader)?,
                expected: read_expected(reader)?,
                value: Arc::from(reader.bytes()?),
            },
            5 => Self::Await { key: read_key(reader)?, after: read_expected(reader)? },
            6 => Self::Beat(Beat {
                node: reader.node()?,
                boot: Boot(reader.number()?),
                facts: Arc::from(reader.bytes()?),
            }),
            7 => Self::Beats,
            8 => Self::Members,
            9 => Self::Change(Change::read(reader)?),
            10 => Self::Leader,
            11 => Self::Stage,
            found => return Err(DecodeError::UnknownTag { what: "request to a member", found }),
        };
        reader.finish()?;
        Ok(request)
    }
}

fn write_append(writer: &mut Writer<'_>, append: &AppendEntriesRequest<Types>) {
    write_vote(writer, &append.vote);
    writer.option(append.prev_log_id.as_ref(), write_log_id);
    writer.option(append.leader_commit.as_ref(), write_log_id);
    writer.length(append.entries.len());
    for entry in &append.entries {
        write_entry(writer, entry);
    }
}

fn read_append(reader: &mut Reader<'_>, from: NodeId) -> Read<AppendEntriesRequest<Types>> {
    let vote = read_vote_of(reader, from)?;
    let prev_log_id = reader.option(read_log_id)?;
    let leader_commit = reader.option(read_log_id)?;
    let entries = reader.list("entries", read_entry)?;
    let mut previous = prev_log_id;
    for entry in &entries {
        let wanted = previous.map_or(0, |log_id| log_id.index + 1);
        if entry.log_id.index != wanted || Some(entry.log_id) <= previous {
            let found = entry.log_id.index;
            return Err(DecodeError::OverLimit { what: "entries in order", found, limit: wanted });
        }
        previous = Some(entry.log_id);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// A vote, which nobody sends for another.
fn read_vote_of(reader: &mut Reader<'_>, from: NodeId) -> Read<Vote> {
    let vote = read_vote(reader)?;
    let (found, limit) = (vote.leader_id.node_id, u64::from(from.to_bits()));
    if found != limit {
        return Err(DecodeError::OverLimit { what: "the sender of a vote", found, limit });
    }
    Ok(vote)
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        match self {
            Self::Append(_) | Self::Vote(_) | Self::Snapshot(_) => self.encode_raft(&mut writer),
            Self::State(state) => {
                writer.u8(3);
                writer.option(state.as_ref(), write_stored);
            }
            Self::Swapped(revision) => {
                writer.u8(4);
                writer.number(revision.0);
            }
            Self::Conflict(current) => {
                writer.u8(5);
                writer.option(current.as_ref(), write_stored);
            }
            Self::Renewed(renewal, members) => {
                writer.u8(6);
                writer.node(renewal.leader);
                write_members(&mut writer, members);
            }
            Self::OlderBoot(newest) => {
                writer.u8(7);
                writer.number(newest.0);
            }
            Self::Beats(beats) => {
                writer.u8(8);
                write_beats(&mut writer, beats);
            }
            Self::Members(members) => {
                writer.u8(9);
                write_members(&mut writer, members);
            }
            Self::NotChanged(error) => {
                writer.u8(10);
                error.write(&mut writer);
            }
            Self::Full { what, count } => {
                writer.u8(11);
                writer.flag(*what == Counted::Nodes);
                writer.number(*count);
            }
            Self::NotLeader(leader) => {
                writer.u8(12);
                writer.option(leader.as_ref(), |writer, (node, address)| {
                    writer.node(*node);
                    writer.bytes(address.as_bytes());
                });
            }
            Self::NoMajority => writer.u8(13),
            Self::LeaderChanged => writer.u8(14),
            Self::Stopped => writer.u8(15),
            Self::Leads(leader) => {
                writer.u8(16);
                writer.option(*leader, Writer::node);
            }
            Self::Stage(stage) => {
                writer.u8(17);
                stage.write(&mut writer);
            }
        }
        bytes
    }

    fn encode_raft(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Append(response) => {
                writer.u8(0);
                match response {
                    AppendEntriesResponse::Success => writer.u8(0),
                    AppendEntriesResponse::PartialSuccess(to) => {
                        writer.u8(1);
                        writer.option(to.as_ref(), write_log_id);
                    }
                    AppendEntriesResponse::Conflict => writer.u8(2),
                    AppendEntriesResponse::HigherVote(vote) => {
                        writer.u8(3);
                        write_vote(writer, vote);
                    }
                }
            }
            Self::Vote(response) => {
                writer.u8(1);
                write_vote(writer, &response.vote);
                writer.flag(response.vote_granted);
                writer.option(response.last_log_id.as_ref(), write_log_id);
            }
            Self::Snapshot(vote) => {
                writer.u8(2);
                write_vote(writer, vote);
            }
            Self::State(_)
            | Self::Swapped(_)
            | Self::Conflict(_)
            | Self::Renewed(..)
            | Self::OlderBoot(_)
            | Self::Beats(_)
            | Self::Members(_)
            | Self::NotChanged(_)
            | Self::Full { .. }
            | Self::NotLeader(_)
            | Self::NoMajority
            | Self::LeaderChanged
            | Self::Stopped
            | Self::Leads(_)
            | Self::Stage(_) => {}
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        let reply = match reader.u8()? {
            0 => Self::Append(match reader.u8()? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(reader.option(read_log_id)?),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(read_vote(reader)?),
                found => return Err(DecodeError::UnknownTag { what: "answer of Raft", found }),
            }),
            1 => {
                let vote = read_vote(reader)?;
                let is_granted = reader.flag()?;
                Self::Vote(VoteResponse::new(vote, reader.option(read_log_id)?, is_granted))
            }
            2 => Self::Snapshot(read_vote(reader)?),
            3 => Self::State(reader.option(read_stored)?),
            4 => Self::Swapped(Revision(reader.number()?)),
            5 => Self::Conflict(reader.option(read_stored)?),
            6 => Self::Renewed(Renewal { leader: reader.node()? }, read_members(reader)?),
            7 => Self::OlderBoot(Boot(reader.number()?)),
            8 => Self::Beats(read_beats(reader)?),
            9 => Self::Members(read_members(reader)?),
            10 => Self::NotChanged(MembershipError::read(reader)?),
            11 => {
                let what = if reader.flag()? { Counted::Nodes } else { Counted::Bytes };
                Self::Full { what, count: reader.number()? }
            }
            12 => {
                Self::NotLeader(reader.option(|reader| Ok((reader.node()?, read_text(reader)?)))?)
            }
            13 => Self::NoMajority,
            14 => Self::LeaderChanged,
            15 => Self::Stopped,
            16 => Self::Leads(reader.option(Reader::node)?),
            17 => Self::Stage(Stage::read(reader)?),
            found => return Err(DecodeError::UnknownTag { what: "answer of a member", found }),
        };
        reader.finish()?;
        Ok(reply)
    }
}

fn write_members(writer: &mut Writer<'_>, members: &BTreeMap<NodeId, MemberState>) {
    writer.length(members.len());
    for (node, member) in members {
        writer.node(*node);
        writer.bytes(member.address.as_bytes());
        writer.flag(member.votes);
    }
}

fn read_members(reader: &mut Reader<'_>) -> Read<BTreeMap<NodeId, MemberState>> {
    let member = |reader: &mut Reader<'_>| {
        let node = reader.node()?;
        Ok((node, MemberState { address: read_text(reader)?, votes: reader.flag()? }))
    };
    Ok(reader.list("members", member)?.into_iter().collect())
}

fn write_beats(writer: &mut Writer<'_>, beats: &Beats) {
    writer.number(millis(beats.since_leader));
    writer.length(beats.nodes.len());
    for (node, seen) in &beats.nodes {
        writer.node(*node);
        writer.number(seen.boot.0);
        writer.number(millis(seen.ago));
        writer.bytes(&seen.facts);
    }
}

fn read_beats(reader: &mut Reader<'_>) -> Read<Beats> {
    let since_leader = Duration::from_millis(reader.number()?);
    let node = |reader: &mut Reader<'_>| {
        let node = reader.node()?;
        let boot = Boot(reader.number()?);
        let ago = Duration::from_millis(reader.number()?);
        Ok((node, Seen { boot, ago, facts: Arc::from(reader.bytes()?) }))
    };
    let nodes = reader.list("nodes", node)?.into_iter().collect();
    Ok(Beats { since_leader, nodes })
}

/// Rounded down: what was heard seems no longer ago, and the leader no older, than it is by a
/// millisecond.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use antecede_model::ids::{DatacenterId, DeploymentId};
    use openraft::{EntryPayload, LeaderId};
    use proptest::prelude::*;

    use super::{
        super::raft::{Entry, LogId},
        *,
    };

    const FROM: NodeId = NodeId { datacenter: DatacenterId(0), number: 7 };

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId::new(2, 7), index)
    }

    fn append(indexes: &[u64]) -> Request {
        let entry = |index: &u64| Entry { log_id: log_id(*index), payload: EntryPayload::Blank };
        Request::Append(AppendEntriesRequest {
            vote: Vote::new_committed(2, 7),
            prev_log_id: Some(log_id(4)),
            entries: indexes.iter().map(entry).collect(),
            leader_commit: None,
        })
    }

    #[test]
    fn a_hello_keeps_its_bytes() {
        let deployment = DeploymentId([0xab; 16]);
        let group = GroupId { deployment, datacenter: Some(DatacenterId(2)) };
        let backing = Backing::Etcd;
        let hello = Hello { version: VERSION, group, from: FROM, to: FROM, backing };
        let bytes = hello.encode();
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "616e746563656465020700000007000000abababababababababababababababab010201";
        assert_eq!(text, golden, "every version begins with such a hello");
        assert_eq!(Hello::decode(&bytes), Some(hello));
        let first = Hello::decode(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(first.backing, Backing::Embedded, "the first version had one only");
        assert_eq!(Hello::decode(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    }

    #[test]
    fn the_question_of_founders_keeps_its_bytes() {
        assert_eq!(Request::Stage.encode(), [11]);
        assert!(matches!(Request::decode(&[11], FROM), Ok(Request::Stage)));
        for (stage, tag) in [(Stage::Nothing, 0), (Stage::Ready, 1), (Stage::Begun, 2)] {
            assert_eq!(Reply::Stage(stage).encode(), [17, tag]);
            let read = Reply::decode(&[17, tag]);
            assert!(matches!(read, Ok(Reply::Stage(found)) if found == stage), "{read:?}");
        }
        assert!(Reply::decode(&[17, 3]).is_err());
    }

    #[test]
    fn entries_that_do_not_follow_each_other_are_refused() {
        assert!(Request::decode(&append(&[5, 6]).encode(), FROM).is_ok());
        for refused in [[5, 7], [4, 5], [6, 7], [5, 5]] {
            assert!(Request::decode(&append(&refused).encode(), FROM).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn nobody_speaks_in_the_name_of_another() {
        let other = NodeId { number: 8, ..FROM };
        assert!(Request::decode(&append(&[5]).encode(), other).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(tag in 0..20_u8, rest: Vec<u8>) {
            let mut bytes = vec![tag];
            bytes.extend(rest);
            let read = Request::decode(&bytes, FROM);
            prop_assert!(read.is_ok() || read.is_err());
            let read = Reply::decode(&bytes);
            prop_assert!(read.is_ok() || read.is_err());
            let read = Welcome::decode(&bytes);
            prop_assert!(read.is_ok() || read.is_err());
            let hello = Hello::decode(&[MAGIC.as_slice(), &bytes].concat());
            prop_assert!(hello.is_none() || hello.is_some());
        }
    }
}
