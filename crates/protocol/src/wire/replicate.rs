//! Writes entries on their way to another datacenter without what they have in common.
//!
//! Origin and lineage stand once. In line, the stamp before an entry is the stamp of the entry
//! written before it, and a stamp is written as the distance above that one. The stamp before the
//! first stands as the distance below the message's HLC, which is seldom long. Entries that were
//! fetched stand alone: each names its own stamp and `previous`.
//!
//! Assumes: entries in line have their neighbour's stamp as `previous` (the outbox takes them from
//! the log in order), all entries have the origin and lineage of the message.
//! Ensures: stamps grow along the entries in line; bodies are checked.
//! Not here: identity and visible-at, which the receiving datacenter gives anew.
#![deny(clippy::indexing_slicing)]

use antecede_model::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    ids::MembershipEpoch,
};

use super::message::{limited_list, read_lineage};
use crate::{
    entry::{Body, Entry, Identity},
    message::Replicate,
};

pub(super) fn write(replicate: &Replicate, hlc: Timestamp, to: &mut Writer<'_>) {
    to.number(replicate.membership.0);
    to.datacenter(replicate.origin);
    to.number(u64::from(replicate.lineage.0));
    // Wraps round where the HLC is the smaller one; that is long, and right.
    to.number(hlc.0.wrapping_sub(replicate.previous.0));
    to.flag(replicate.is_fetched);
    to.length(replicate.entries.len());
    let mut before = replicate.previous;
    for entry in &replicate.entries {
        debug_assert_eq!((entry.origin, entry.lineage), (replicate.origin, replicate.lineage));
        if replicate.is_fetched {
            to.timestamp(entry.stamp);
            to.number(entry.stamp.0.wrapping_sub(entry.previous.0));
        } else {
            debug_assert_eq!(entry.previous, before, "entries in line follow one another");
            to.number(entry.stamp.0.wrapping_sub(before.0));
            before = entry.stamp;
        }
        match &entry.body {
            Body::Tick => to.length(0),
            Body::Write(bytes) => to.bytes(bytes),
        }
    }
}

pub(super) fn read(hlc: Timestamp, from: &mut Reader<'_>) -> Result<Replicate, DecodeError> {
    let membership = MembershipEpoch(from.number()?);
    let origin = from.datacenter()?;
    let lineage = read_lineage(from)?;
    let previous = Timestamp(hlc.0.wrapping_sub(from.number()?));
    let is_fetched = from.flag()?;
    let mut before = previous;
    let entries = limited_list(from, "entries", |from| {
        let (previous, stamp) =
            if is_fetched { fetched_stamps(from)? } else { stamps_in_line(before, from)? };
        before = stamp;
        Ok(Entry {
            identity: Identity::default(),
            origin,
            lineage,
            stamp,
            previous,
            visible_at: stamp,
            body: read_body(stamp, from)?,
            kept: None,
        })
    })?;
    Ok(Replicate { membership, origin, lineage, previous, entries, is_fetched })
}

fn fetched_stamps(from: &mut Reader<'_>) -> Result<(Timestamp, Timestamp), DecodeError> {
    let stamp = from.timestamp()?;
    let found = from.number()?;
    let previous = stamp.0.checked_sub(found).ok_or(DecodeError::OverLimit {
        what: "a distance below a stamp",
        found,
        limit: stamp.0,
    })?;
    Ok((Timestamp(previous), stamp))
}

fn stamps_in_line(
    before: Timestamp,
    from: &mut Reader<'_>,
) -> Result<(Timestamp, Timestamp), DecodeError> {
    let found = from.number()?;
    let stamp = before.0.checked_add(found).filter(|stamp| before.0 < *stamp).ok_or(
        DecodeError::OverLimit {
            what: "a distance above the stamp before",
            found,
            limit: u64::MAX - before.0,
        },
    )?;
    Ok((before, Timestamp(stamp)))
}

fn read_body(stamp: Timestamp, from: &mut Reader<'_>) -> Result<Body, DecodeError> {
    let bytes = from.bytes()?;
    if bytes.is_empty() {
        return Ok(Body::Tick);
    }
    Body::check(bytes, stamp)?;
    Ok(Body::Write(bytes.into()))
}
