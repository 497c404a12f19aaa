//! Writes messages as bytes and reads them back.
//!
//! Tags are fixed numbers: a new variant gets a new one, an old one is never used again.
//!
//! Ensures: bodies of entries are checked here, so that machines read them without errors.
//! Limits: lists of more than `ITEMS_MAX` items are refused.
#![deny(clippy::indexing_slicing)]

use antecede_model::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    configuration::Datacenter,
    consistency::Consistency,
    context::Dependencies,
    cut::Cut,
    dependency::Dependency,
    ids::{
        Boot, DatacenterId, Epoch, Lineage, MembershipEpoch, Position, RequestId, SessionId,
        ShardId,
    },
    operation::ShardOperation,
    response::Response,
    retry::Retry,
};
use smallvec::SmallVec;

use super::{ITEMS_MAX, replicate};
use crate::{
    copied::{Part, Start},
    entry::{Entry, Identity},
    message::{
        Asker, Body, Carried, Copied, CopyAsk, CutReport, CutScope, HadApplied, Message, Place,
        Progress, Promise, Received, Reply, Request, ShardMessage,
    },
};

/// Writes a message behind what `to` holds.
pub fn write_message(message: &Message, to: &mut Vec<u8>) {
    let mut writer = Writer::new(to);
    let to = &mut writer;
    match message {
        Message::Shard(message) => {
            to.u8(0);
            to.shard(message.shard);
            to.number(message.epoch.0);
            to.timestamp(message.hlc);
            write_body(&message.body, message.hlc, to);
        }
        Message::Reply(request, reply) => {
            to.u8(1);
            write_request_id(*request, to);
            write_reply(reply, to);
        }
        Message::Cut(report) => {
            to.u8(2);
            write_cut_report(report, to);
        }
        Message::AskConfiguration(of) => {
            to.u8(3);
            to.datacenter(*of);
        }
        Message::Configuration(of, part) => {
            to.u8(4);
            to.datacenter(*of);
            part.write(to);
        }
    }
}

/// Reads a message.
///
/// # Errors
/// [`DecodeError`] when the bytes are none, or more than one.
pub fn read_message(bytes: &[u8]) -> Result<Message, DecodeError> {
    let mut reader = Reader::new(bytes);
    let from = &mut reader;
    let message = match from.u8()? {
        0 => {
            let (shard, epoch) = (from.shard()?, Epoch(from.number()?));
            let hlc = from.timestamp()?;
            Message::Shard(ShardMessage { shard, epoch, hlc, body: read_body(hlc, from)? })
        }
        1 => Message::Reply(read_request_id(from)?, read_reply(from)?),
        2 => Message::Cut(read_cut_report(from)?),
        3 => Message::AskConfiguration(from.datacenter()?),
        4 => Message::Configuration(from.datacenter()?, Box::new(Datacenter::read(from)?)),
        found => return Err(DecodeError::UnknownTag { what: "message", found }),
    };
    reader.finish()?;
    Ok(message)
}

fn write_body(body: &Body, hlc: Timestamp, to: &mut Writer<'_>) {
    match body {
        Body::Forward { entries } => write_entries(0, entries, to),
        Body::Persisted(promise) => write_promise(promise, to),
        Body::Ack(progress) => write_progress(2, *progress, to),
        Body::SendAgain { from } => write_number(3, from.0, to),
        Body::Question { number } => write_number(4, *number, to),
        Body::Answer { number, committed_to } => {
            write_number(5, *number, to);
            to.number(committed_to.0);
        }
        Body::SettleAsk { committed_at_most } => {
            to.u8(6);
            to.option(*committed_at_most, |to, position| to.number(position.0));
        }
        Body::SettleTell { last, is_complete, asked_by } => {
            to.u8(7);
            to.option(*last, |to, identity| identity.write(to));
            to.flag(*is_complete);
            to.option(*asked_by, |to, boot| to.number(boot.0));
        }
        Body::TakeBack { from } => write_number(8, from.0, to),
        Body::Returned { entries } => write_entries(9, entries, to),
        Body::Request(request) => write_request(request, to),
        Body::AwaitApplied { asker, writes } => {
            to.u8(11);
            write_asker(*asker, to);
            write_writes(writes, to);
        }
        Body::Applied { by, writes } => {
            to.u8(12);
            to.shard(*by);
            write_writes(writes, to);
        }
        Body::Replicate(entries) => {
            to.u8(13);
            replicate::write(entries, hlc, to);
        }
        Body::Received(received) => {
            to.u8(14);
            write_received(received, to);
        }
        Body::Fetch { membership, lineage, stamps } => {
            write_number(15, membership.0, to);
            to.number(u64::from(lineage.0));
            write_stamps(stamps, to);
        }
        Body::HadApplied(had) => {
            write_number(23, had.membership.0, to);
            to.number(u64::from(had.lineage.0));
            to.timestamp(had.to);
        }
        Body::CopyAsk(ask) => write_copy_ask(ask, to),
        Body::CopyAnew { number, start } => {
            write_number(17, *number, to);
            start.write(to);
        }
        Body::Copied(copied) => write_copied(copied, to),
        Body::NoRoom { node } => {
            to.u8(19);
            to.node(*node);
        }
        Body::HandOn { membership, origin, entries } => {
            write_handing(21, *membership, *origin, to);
            write_list(entries, to);
        }
        Body::HandedOn { membership, origin, stamps } => {
            write_handing(22, *membership, *origin, to);
            write_stamps(stamps, to);
        }
    }
}

fn write_request(request: &Request, to: &mut Writer<'_>) {
    to.u8(if request.retry.is_some() { 20 } else { 10 });
    write_request_id(request.id, to);
    write_carried(&request.carried, to);
    to.bytes(&request.operation);
    if let Some(retry) = &request.retry {
        retry.write(to);
    }
}

fn write_handing(tag: u8, membership: MembershipEpoch, origin: DatacenterId, to: &mut Writer<'_>) {
    write_number(tag, membership.0, to);
    to.datacenter(origin);
}

fn write_number(tag: u8, number: u64, to: &mut Writer<'_>) {
    to.u8(tag);
    to.number(number);
}

fn read_body(hlc: Timestamp, from: &mut Reader<'_>) -> Result<Body, DecodeError> {
    Ok(match from.u8()? {
        0 => Body::Forward { entries: read_entries(from)? },
        1 => Body::Persisted(read_promise(from)?),
        2 => Body::Ack(read_progress(from)?),
        3 => Body::SendAgain { from: Position(from.number()?) },
        4 => Body::Question { number: from.number()? },
        5 => Body::Answer { number: from.number()?, committed_to: Position(from.number()?) },
        6 => {
            Body::SettleAsk { committed_at_most: from.option(|from| Ok(Position(from.number()?)))? }
        }
        7 => Body::SettleTell {
            last: from.option(Identity::read)?,
            is_complete: from.flag()?,
            asked_by: from.option(|from| Ok(Boot(from.number()?)))?,
        },
        8 => Body::TakeBack { from: Position(from.number()?) },
        9 => Body::Returned { entries: read_entries(from)? },
        10 => Body::Request(read_request(from)?),
        11 => Body::AwaitApplied { asker: read_asker(from)?, writes: read_writes(from)? },
        12 => Body::Applied { by: from.shard()?, writes: read_writes(from)? },
        13 => Body::Replicate(replicate::read(hlc, from)?),
        14 => Body::Received(read_received(from)?),
        15 => Body::Fetch {
            membership: MembershipEpoch(from.number()?),
            lineage: read_lineage(from)?,
            stamps: read_stamps(from)?,
        },
        16 => Body::CopyAsk(read_copy_ask(from)?),
        17 => Body::CopyAnew { number: from.number()?, start: Start::read(from)? },
        18 => Body::Copied(read_copied(from)?),
        19 => Body::NoRoom { node: from.node()? },
        20 => {
            let request = read_request(from)?;
            Body::Request(Request { retry: Some(Retry::read(from)?), ..request })
        }
        21 => Body::HandOn {
            membership: MembershipEpoch(from.number()?),
            origin: from.datacenter()?,
            entries: read_entries(from)?,
        },
        22 => Body::HandedOn {
            membership: MembershipEpoch(from.number()?),
            origin: from.datacenter()?,
            stamps: read_stamps(from)?,
        },
        23 => Body::HadApplied(HadApplied {
            membership: MembershipEpoch(from.number()?),
            lineage: read_lineage(from)?,
            to: from.timestamp()?,
        }),
        found => return Err(DecodeError::UnknownTag { what: "message for a shard", found }),
    })
}

/// A request without an id.
fn read_request(from: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let id = read_request_id(from)?;
    let carried = read_carried(from)?;
    let operation = from.bytes()?;
    check_operation(operation)?;
    Ok(Request { id, operation: operation.to_vec(), carried, retry: None })
}

fn write_copy_ask(ask: &CopyAsk, to: &mut Writer<'_>) {
    write_number(16, ask.number, to);
    to.option(ask.last, |to, identity| identity.write(to));
    to.option(ask.committed, |to, identity| identity.write(to));
    to.option(ask.window_from, |to, position| to.number(position.0));
    to.option(ask.part_from, |to, hash| to.fixed64(hash));
    to.flag(ask.is_whole);
}

fn read_copy_ask(from: &mut Reader<'_>) -> Result<CopyAsk, DecodeError> {
    Ok(CopyAsk {
        number: from.number()?,
        last: from.option(Identity::read)?,
        committed: from.option(Identity::read)?,
        window_from: from.option(|from| Ok(Position(from.number()?)))?,
        part_from: from.option(Reader::fixed64)?,
        is_whole: from.flag()?,
    })
}

fn write_copied(copied: &Copied, to: &mut Writer<'_>) {
    write_number(18, copied.number, to);
    to.number(copied.behind.0);
    to.number(copied.committed_to.0);
    to.number(copied.durable_to.0);
    write_list(&copied.history, to);
    write_list(&copied.entries, to);
    to.option(copied.part.as_ref(), |to, part| part.write(to));
}

fn read_copied(from: &mut Reader<'_>) -> Result<Copied, DecodeError> {
    Ok(Copied {
        number: from.number()?,
        behind: Position(from.number()?),
        committed_to: Position(from.number()?),
        durable_to: Position(from.number()?),
        history: read_entries(from)?,
        entries: read_entries(from)?,
        part: from.option(Part::read)?,
    })
}

/// As [`Reader::list`], with a limit of its own on the number of items.
pub(super) fn limited_list<'a, T>(
    from: &mut Reader<'a>,
    what: &'static str,
    read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.clone().number()?;
    if (ITEMS_MAX as u64) < count {
        return Err(DecodeError::OverLimit { what, found: count, limit: ITEMS_MAX as u64 });
    }
    from.list(what, read)
}

/// Reads an operation once, so that the replica reads it without errors.
fn check_operation(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    ShardOperation::read(&mut reader)?;
    reader.finish()
}

fn write_entries(tag: u8, entries: &[Entry], to: &mut Writer<'_>) {
    to.u8(tag);
    write_list(entries, to);
}

fn write_list(entries: &[Entry], to: &mut Writer<'_>) {
    to.length(entries.len());
    for entry in entries {
        entry.write(to);
    }
}

fn read_entries(from: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    limited_list(from, "entries", Entry::read)
}

fn write_progress(tag: u8, progress: Progress, to: &mut Writer<'_>) {
    to.u8(tag);
    to.number(progress.persisted_to.0);
    to.number(progress.synced_to.0);
}

fn read_progress(from: &mut Reader<'_>) -> Result<Progress, DecodeError> {
    Ok(Progress { persisted_to: Position(from.number()?), synced_to: Position(from.number()?) })
}

fn write_promise(promise: &Promise, to: &mut Writer<'_>) {
    write_progress(1, promise.progress, to);
    to.length(promise.boots.len());
    for boot in &promise.boots {
        to.number(boot.0);
    }
}

fn read_promise(from: &mut Reader<'_>) -> Result<Promise, DecodeError> {
    let progress = read_progress(from)?;
    let boots = limited_list(from, "boots", |from| Ok(Boot(from.number()?)))?;
    Ok(Promise { progress, boots: boots.into() })
}

fn write_request_id(id: RequestId, to: &mut Writer<'_>) {
    to.node(id.node);
    to.number(id.session.0);
    to.number(id.number);
}

fn read_request_id(from: &mut Reader<'_>) -> Result<RequestId, DecodeError> {
    Ok(RequestId { node: from.node()?, session: SessionId(from.number()?), number: from.number()? })
}

fn write_asker(asker: Asker, to: &mut Writer<'_>) {
    match asker {
        Asker::Shard(shard) => {
            to.u8(0);
            to.shard(shard);
        }
        Asker::Session(request) => {
            to.u8(1);
            write_request_id(request, to);
        }
    }
}

fn read_asker(from: &mut Reader<'_>) -> Result<Asker, DecodeError> {
    Ok(match from.u8()? {
        0 => Asker::Shard(from.shard()?),
        1 => Asker::Session(read_request_id(from)?),
        found => return Err(DecodeError::UnknownTag { what: "asker", found }),
    })
}

fn write_writes(writes: &[(DatacenterId, Timestamp)], to: &mut Writer<'_>) {
    to.length(writes.len());
    for (origin, stamp) in writes {
        to.datacenter(*origin);
        to.timestamp(*stamp);
    }
}

fn read_writes(from: &mut Reader<'_>) -> Result<Vec<(DatacenterId, Timestamp)>, DecodeError> {
    limited_list(from, "writes", |from| Ok((from.datacenter()?, from.timestamp()?)))
}

fn write_stamps(stamps: &[Timestamp], to: &mut Writer<'_>) {
    to.length(stamps.len());
    for stamp in stamps {
        to.timestamp(*stamp);
    }
}

fn read_stamps(from: &mut Reader<'_>) -> Result<Vec<Timestamp>, DecodeError> {
    limited_list(from, "stamps", Reader::timestamp)
}

pub(super) fn read_lineage(from: &mut Reader<'_>) -> Result<Lineage, DecodeError> {
    read_u32(from, "a lineage").map(Lineage)
}

fn read_u32(from: &mut Reader<'_>, what: &'static str) -> Result<u32, DecodeError> {
    let found = from.number()?;
    let limit = u64::from(u32::MAX);
    u32::try_from(found).map_err(|_| DecodeError::OverLimit { what, found, limit })
}

fn write_received(received: &Received, to: &mut Writer<'_>) {
    to.number(received.membership.0);
    to.number(u64::from(received.lineage.0));
    to.timestamp(received.received_to);
    to.timestamp(received.applied_to);
    write_stamps(&received.above, to);
    to.number(u64::from(received.credit));
}

fn read_received(from: &mut Reader<'_>) -> Result<Received, DecodeError> {
    Ok(Received {
        membership: MembershipEpoch(from.number()?),
        lineage: read_lineage(from)?,
        received_to: from.timestamp()?,
        applied_to: from.timestamp()?,
        above: read_stamps(from)?,
        credit: read_u32(from, "a credit")?,
    })
}

fn write_carried(carried: &Carried, to: &mut Writer<'_>) {
    to.timestamp(carried.time);
    to.u8(match carried.level {
        Consistency::Eventual => 0,
        Consistency::Linearizable => 1,
    });
    to.u8(match carried.place {
        Place::Anywhere => 0,
        Place::Head => 1,
        Place::Tail => 2,
    });
    to.length(carried.dependencies.exact.len());
    for dependency in &carried.dependencies.exact {
        write_dependency(*dependency, to);
    }
    write_writes(&carried.dependencies.floor, to);
}

fn read_carried(from: &mut Reader<'_>) -> Result<Carried, DecodeError> {
    let time = from.timestamp()?;
    let level = match from.u8()? {
        0 => Consistency::Eventual,
        1 => Consistency::Linearizable,
        found => return Err(DecodeError::UnknownTag { what: "consistency level", found }),
    };
    let place = match from.u8()? {
        0 => Place::Anywhere,
        1 => Place::Head,
        2 => Place::Tail,
        found => return Err(DecodeError::UnknownTag { what: "place", found }),
    };
    let exact = limited_list(from, "dependencies", read_dependency)?;
    let floor = read_writes(from)?;
    Ok(Carried { dependencies: Dependencies { exact, floor }, time, level, place })
}

fn write_dependency(dependency: Dependency, to: &mut Writer<'_>) {
    to.datacenter(dependency.origin);
    to.shard(dependency.shard);
    to.timestamp(dependency.stamp);
}

fn read_dependency(from: &mut Reader<'_>) -> Result<Dependency, DecodeError> {
    Ok(Dependency { origin: from.datacenter()?, shard: from.shard()?, stamp: from.timestamp()? })
}

fn write_reply(reply: &Reply, to: &mut Writer<'_>) {
    to.shard(reply.shard);
    to.timestamp(reply.visible_at);
    to.option(reply.wrote, |to, wrote| write_dependency(wrote, to));
    to.length(reply.observed.len());
    for version in &reply.observed {
        to.version(*version);
    }
    reply.response.write(to);
}

fn read_reply(from: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    let shard: ShardId = from.shard()?;
    let visible_at = from.timestamp()?;
    let wrote = from.option(read_dependency)?;
    let count = from.count("versions observed")?;
    let mut observed = SmallVec::new();
    for _ in 0..count {
        observed.push(from.version()?);
    }
    Ok(Reply { response: Response::read(from)?, wrote, observed, shard, visible_at })
}

fn write_cut(cut: &Cut, to: &mut Writer<'_>) {
    to.length(cut.iter().count());
    for (origin, at) in cut.iter() {
        to.datacenter(origin);
        to.timestamp(at);
    }
}

fn read_cut(from: &mut Reader<'_>) -> Result<Cut, DecodeError> {
    read_writes(from).map(Cut::of)
}

fn write_cut_report(report: &CutReport, to: &mut Writer<'_>) {
    to.number(report.epoch.0);
    to.number(report.membership.0);
    to.timestamp(report.hlc);
    match &report.scope {
        CutScope::Node { shards, applied, ticks_to, is_handed_out } => {
            to.u8(0);
            to.timestamp(*ticks_to);
            write_cut(applied, to);
            to.flag(*is_handed_out);
            to.length(shards.len());
            for (first, last) in shards {
                to.shard(*first);
                to.shard(*last);
            }
        }
        CutScope::Datacenter { applied, ticks_to } => {
            to.u8(1);
            to.timestamp(*ticks_to);
            write_cut(applied, to);
        }
    }
}

fn read_cut_report(from: &mut Reader<'_>) -> Result<CutReport, DecodeError> {
    let epoch = Epoch(from.number()?);
    let membership = MembershipEpoch(from.number()?);
    let hlc = from.timestamp()?;
    let tag = from.u8()?;
    let ticks_to = from.timestamp()?;
    let applied = read_cut(from)?;
    let scope = match tag {
        0 => CutScope::Node {
            is_handed_out: from.flag()?,
            shards: limited_list(from, "runs of shards", |from| {
                Ok((from.shard()?, from.shard()?))
            })?,
            applied,
            ticks_to,
        },
        1 => CutScope::Datacenter { applied, ticks_to },
        found => return Err(DecodeError::UnknownTag { what: "scope of a cut", found }),
    };
    Ok(CutReport { epoch, membership, hlc, scope })
}
