//! Writes the library's values as bytes, for the disk and for peers, and reads them back.
//!
//! The bytes are ours, not those of a serialization library over the Raft library's structs, so
//! that an upgrade of either cannot change what is on disk. What is sealed ends with a checksum.
//!
//! Ensures: reading never panics, and yields only values with which the library can work.
#![deny(clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::Boot,
};
use openraft::{BasicNode, EntryPayload, LeaderId, Membership};

use super::raft::{Command, Entry, LogId, SnapshotMeta, StoredMembership, Vote};
use crate::store::{Revision, StoreKey, Stored};

/// Members in a list of them, learners included. More is no list of ours.
const MEMBERS_LISTED_MAX: u64 = 64;

const BLANK: u8 = 0;
const SWAP: u8 = 1;
const BOOT: u8 = 2;
const MEMBERSHIP: u8 = 3;

type Read<T> = Result<T, DecodeError>;

/// Bytes with their checksum in front.
pub(crate) fn seal(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut Writer::new(&mut body));
    let mut sealed = Vec::with_capacity(body.len() + 4);
    sealed.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    sealed.append(&mut body);
    sealed
}

/// Reads what was sealed, all of it.
pub(crate) fn unseal<T>(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Read<T>) -> Read<T> {
    let mut reader = Reader::new(bytes);
    let found = reader.fixed32()?;
    let computed = crc32c::crc32c(reader.rest());
    if found != computed {
        return Err(DecodeError::Checksum { found, computed });
    }
    let value = read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

pub(crate) fn write_vote(writer: &mut Writer<'_>, vote: &Vote) {
    writer.number(vote.leader_id.term);
    writer.number(vote.leader_id.node_id);
    writer.flag(vote.committed);
}

pub(crate) fn read_vote(reader: &mut Reader<'_>) -> Read<Vote> {
    let leader_id = read_leader(reader)?;
    Ok(Vote { leader_id, committed: reader.flag()? })
}

fn read_leader(reader: &mut Reader<'_>) -> Read<LeaderId<u64>> {
    // A term near the end of the numbers would overflow in the library at the next election.
    let term = reader.number_up_to("a term", u64::from(u32::MAX) << 16)?;
    Ok(LeaderId::new(term, reader.number_up_to("a member", u64::from(u32::MAX))?))
}

pub(crate) fn write_log_id(writer: &mut Writer<'_>, log_id: &LogId) {
    writer.number(log_id.leader_id.term);
    writer.number(log_id.leader_id.node_id);
    writer.number(log_id.index);
}

pub(crate) fn read_log_id(reader: &mut Reader<'_>) -> Read<LogId> {
    let leader_id = read_leader(reader)?;
    Ok(LogId::new(leader_id, reader.number_up_to("a place in the log", u64::MAX >> 1)?))
}

pub(crate) fn write_entry(writer: &mut Writer<'_>, entry: &Entry) {
    write_log_id(writer, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => writer.u8(BLANK),
        EntryPayload::Normal(Command::Swap { key, expected, value }) => {
            writer.u8(SWAP);
            write_key(writer, key);
            writer.number(expected.map_or(0, |revision| revision.0));
            writer.bytes(value);
        }
        EntryPayload::Normal(Command::Boot { node, boot }) => {
            writer.u8(BOOT);
            writer.node(*node);
            writer.number(boot.0);
        }
        EntryPayload::Membership(membership) => {
            writer.u8(MEMBERSHIP);
            write_membership(writer, membership);
        }
    }
}

pub(crate) fn read_entry(reader: &mut Reader<'_>) -> Read<Entry> {
    let log_id = read_log_id(reader)?;
    let payload = match reader.u8()? {
        BLANK => EntryPayload::Blank,
        SWAP => EntryPayload::Normal(Command::Swap {
            key: read_key(reader)?,
            expected: read_expected(reader)?,
            value: Arc::from(reader.bytes()?),
        }),
        BOOT => EntryPayload::Normal(Command::Boot {
            node: reader.node()?,
            boot: Boot(reader.number()?),
        }),
        MEMBERSHIP => EntryPayload::Membership(read_membership(reader)?),
        found => return Err(DecodeError::UnknownTag { what: "entry of the agreement", found }),
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn read_expected(reader: &mut Reader<'_>) -> Read<Option<Revision>> {
    let number = reader.number()?;
    Ok((number != 0).then_some(Revision(number)))
}

pub(crate) fn write_key(writer: &mut Writer<'_>, key: &StoreKey) {
    writer.bytes(key.as_str().as_bytes());
}

pub(crate) fn read_key(reader: &mut Reader<'_>) -> Read<StoreKey> {
    let name = read_text(reader)?;
    StoreKey::new(&name).map_err(|_| DecodeError::OverLimit {
        what: "bytes in a key",
        found: name.len() as u64,
        limit: crate::store::KEY_BYTES_MAX as u64,
    })
}

pub(crate) fn read_text(reader: &mut Reader<'_>) -> Read<String> {
    let bytes = reader.bytes()?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let found = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
            Err(DecodeError::UnknownTag { what: "text", found })
        }
    }
}

pub(crate) fn write_stored(writer: &mut Writer<'_>, stored: &Stored) {
    writer.number(stored.revision.0);
    writer.bytes(&stored.value);
}

pub(crate) fn read_stored(reader: &mut Reader<'_>) -> Read<Stored> {
    Ok(Stored { revision: Revision(reader.number()?), value: Arc::from(reader.bytes()?) })
}

fn write_membership(writer: &mut Writer<'_>, membership: &Membership<u64, BasicNode>) {
    let configs = membership.get_joint_config();
    writer.length(configs.len());
    for config in configs {
        writer.length(config.len());
        for member in config {
            writer.number(*member);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    writer.length(nodes.len());
    for (member, node) in nodes {
        writer.number(*member);
        writer.bytes(node.addr.as_bytes());
    }
}

fn read_membership(reader: &mut Reader<'_>) -> Read<Membership<u64, BasicNode>> {
    let member = |reader: &mut Reader<'_>| reader.number_up_to("a member", u64::from(u32::MAX));
    let mut configs = Vec::new();
    for _ in 0..reader.number_up_to("sets of members", MEMBERS_LISTED_MAX)? {
        configs.push(reader.list("members", member)?.into_iter().collect::<BTreeSet<u64>>());
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..reader.number_up_to("members", MEMBERS_LISTED_MAX)? {
        let member = member(reader)?;
        nodes.insert(member, BasicNode::new(read_text(reader)?));
    }
    Ok(Membership::new(configs, nodes))
}

pub(crate) fn write_stored_membership(writer: &mut Writer<'_>, stored: &StoredMembership) {
    writer.option(stored.log_id().as_ref(), write_log_id);
    write_membership(writer, stored.membership());
}

pub(crate) fn read_stored_membership(reader: &mut Reader<'_>) -> Read<StoredMembership> {
    let log_id = reader.option(read_log_id)?;
    Ok(StoredMembership::new(log_id, read_membership(reader)?))
}

pub(crate) fn write_meta(writer: &mut Writer<'_>, meta: &SnapshotMeta) {
    writer.option(meta.last_log_id.as_ref(), write_log_id);
    write_stored_membership(writer, &meta.last_membership);
    writer.bytes(meta.snapshot_id.as_bytes());
}

pub(crate) fn read_meta(reader: &mut Reader<'_>) -> Read<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: reader.option(read_log_id)?,
        last_membership: read_stored_membership(reader)?,
        snapshot_id: read_text(reader)?,
    })
}

#[cfg(test)]
mod tests {
    use antecede_model::ids::{DatacenterId, NodeId};
    use proptest::prelude::*;

    use super::*;

    fn log_id(term: u64, member: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, member), index)
    }

    fn entries() -> Vec<Entry> {
        let node = NodeId { datacenter: DatacenterId(1), number: 2 };
        let key = StoreKey::new("chains").unwrap();
        let swap = Command::Swap { key, expected: Some(Revision(6)), value: Arc::from(*b"seven") };
        let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2"))]);
        let joint = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
        vec![
            Entry { log_id: log_id(0, 0, 0), payload: EntryPayload::Blank },
            Entry { log_id: log_id(3, 1, 200), payload: EntryPayload::Normal(swap) },
            Entry {
                log_id: log_id(3, 1, 201),
                payload: EntryPayload::Normal(Command::Boot { node, boot: Boot(9) }),
            },
            Entry {
                log_id: log_id(4, 2, 202),
                payload: EntryPayload::Membership(Membership::new(joint, nodes)),
            },
        ]
    }

    #[test]
    fn entries_come_back_and_keep_their_bytes() {
        let golden = [
            "c74b674800000000",
            "b0bd1e2b0301c8010106636861696e730605736576656e",
            "77e2ad740301c901020200010009",
            "2a3f57a50402ca0103020101020102020103613a310203623a32",
        ];
        let mut texts = Vec::new();
        for entry in entries() {
            let bytes = seal(|writer| write_entry(writer, &entry));
            assert_eq!(unseal(&bytes, read_entry), Ok(entry));
            texts.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
        assert_eq!(texts, golden, "files of members hold entries of this form");
    }

    #[test]
    fn a_flipped_bit_is_found() {
        for entry in entries() {
            let bytes = seal(|writer| write_entry(writer, &entry));
            for place in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[place / 8] ^= 1 << (place % 8);
                assert!(unseal(&flipped, read_entry).is_err(), "bit {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let read = read_entry(&mut Reader::new(&bytes));
            prop_assert!(read.is_ok() || read.is_err());
            let read = read_meta(&mut Reader::new(&bytes));
            prop_assert!(read.is_ok() || read.is_err());
            let read = read_vote(&mut Reader::new(&bytes));
            prop_assert!(read.is_ok() || read.is_err());
        }
    }
}
