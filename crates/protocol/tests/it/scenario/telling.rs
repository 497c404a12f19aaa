//! Says messages, entries, events and answers in a few readable words, the same every time.
//!
//! Stamps are told as milliseconds since the beginning of the story, with the counter behind a dot
//! where there is one; writes as `A@1000`, shards as `s2`, positions as `#3`.

use antecede_model::{
    clock::Timestamp,
    codec::Reader,
    cut::Cut,
    dependency::Dependency,
    ids::{DatacenterId, NodeId, ShardId},
    operation::{Action, Condition, Operation, ShardOperation, Ttl},
    response::Response,
    sighting::Sighting,
    version::Version,
};
use antecede_protocol::{
    entry::{Body as EntryBody, Change, Effect, Entry},
    event::Event,
    message::{
        Asker, Body, Copied, CopyAsk, CutReport, CutScope, Message, Place, Progress, Received,
        Replicate, Request,
    },
};

/// Milliseconds since 1970 at which every story begins.
pub(super) const EPOCH_MILLIS: u64 = 1_800_000_000_000;
/// Values longer than this are told by their length.
const SHOWN_BYTES_MAX: usize = 60;

pub(super) fn datacenter(id: DatacenterId) -> char {
    char::from(b'A' + u8::try_from(id.0 - 1).unwrap())
}

pub(super) fn stamp(at: Timestamp) -> String {
    if at == Timestamp::ZERO {
        return "0".to_owned();
    }
    if at == Timestamp::MAX {
        return "ever".to_owned();
    }
    let millis = at.millis().cast_signed() - EPOCH_MILLIS.cast_signed();
    let counter = at.0 & 0xffff;
    if counter == 0 { format!("{millis}") } else { format!("{millis}.{counter}") }
}

fn version(version: Version) -> String {
    format!("{}@{}", datacenter(version.origin), stamp(version.timestamp))
}

fn write_name((origin, at): (DatacenterId, Timestamp)) -> String {
    version(Version { timestamp: at, origin })
}

pub(super) fn dependency(dependency: Dependency) -> String {
    format!("s{} {}", dependency.shard, write_name((dependency.origin, dependency.stamp)))
}

pub(super) fn bytes(bytes: &[u8]) -> String {
    if SHOWN_BYTES_MAX < bytes.len() {
        return format!("({} KiB)", bytes.len() / 1024);
    }
    String::from_utf8_lossy(bytes).into_owned()
}

fn list<T>(items: impl IntoIterator<Item = T>, told: impl Fn(T) -> String) -> String {
    let told: Vec<String> = items.into_iter().map(told).collect();
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}

pub(super) fn response(response: &Response) -> String {
    match response {
        Response::Ok => "OK".to_owned(),
        Response::Nil => "nil".to_owned(),
        Response::Integer(value) => value.to_string(),
        Response::Bytes(value) => bytes(value),
        Response::Word(word) => word.as_str().to_owned(),
        Response::List(items) => {
            format!("[{}]", items.iter().map(self::response).collect::<Vec<_>>().join(", "))
        }
        Response::Aborted => "aborted".to_owned(),
        Response::Observed(Sighting::Absent { at }) => format!("absent at {}", stamp(*at)),
        Response::Observed(Sighting::Present(found)) => format!("present {}", version(*found)),
        Response::Scanned { keys, .. } => format!("keys {}", list(keys, |key| bytes(key))),
        Response::Refused(refusal) => format!("refused {}", refusal.code()),
    }
}

fn effect(effect: &Effect<'_>) -> String {
    let key = bytes(effect.key);
    let change = match effect.change {
        Change::Set { value, deadline: None } => format!("{key} = {}", bytes(value)),
        Change::Set { value, deadline: Some(deadline) } => {
            format!("{key} = {} until {}", bytes(value), deadline - EPOCH_MILLIS)
        }
        Change::Delete => format!("{key} deleted"),
        Change::Ttl { deadline: None } => format!("{key} for ever"),
        Change::Ttl { deadline: Some(deadline) } => {
            format!("{key} until {}", deadline - EPOCH_MILLIS)
        }
        Change::Hide => format!("{key} hidden"),
    };
    if effect.seen.is_empty() {
        return change;
    }
    format!("{change} over {}", list(effect.seen.iter(), |seen| version(*seen)))
}

/// An entry without its position.
fn content(entry: &Entry) -> String {
    let name = write_name((entry.origin, entry.stamp));
    match &entry.body {
        EntryBody::Tick => format!("{name} tick"),
        EntryBody::Write(_) => {
            let mut effects = Vec::new();
            entry.for_each_effect(|found| effects.push(effect(&found)));
            let dependencies = entry.dependencies();
            let exact = dependencies.exact.iter().map(|exact| dependency(*exact));
            let floor = dependencies
                .floor
                .iter()
                .map(|(origin, to)| format!("all of {} to {}", datacenter(*origin), stamp(*to)));
            let after: Vec<String> = exact.chain(floor).collect();
            let after = if after.is_empty() {
                String::new()
            } else {
                format!(" after {}", after.join(", "))
            };
            format!("{name} {}{after}", effects.join(", "))
        }
    }
}

fn entries(entries: &[Entry]) -> String {
    list(entries, |entry| format!("#{} {}", entry.identity.position, content(entry)))
}

fn progress(progress: Progress) -> String {
    if progress.persisted_to == progress.synced_to {
        return format!("to #{}", progress.persisted_to);
    }
    format!("to #{}, synced to #{}", progress.persisted_to, progress.synced_to)
}

fn action(action: &Action<'_>, key: &str) -> String {
    match action {
        Action::Get => format!("get {key}"),
        Action::Set { value, condition, ttl, .. } => {
            let condition = match condition {
                Condition::Always => "",
                Condition::IfAbsent => " if absent",
                Condition::IfPresent => " if present",
            };
            let ttl = match ttl {
                Ttl::Clear => String::new(),
                Ttl::Keep => " keeping its time".to_owned(),
                Ttl::Until(deadline) => format!(" until {}", deadline - EPOCH_MILLIS),
            };
            format!("put {key} = {}{condition}{ttl}", bytes(value))
        }
        Action::Delete => format!("delete {key}"),
        Action::Observe => format!("observe {key}"),
        Action::Append { value } => format!("append {} to {key}", bytes(value)),
        Action::Length
        | Action::Range { .. }
        | Action::Exists
        | Action::Type
        | Action::Expiry(_)
        | Action::Describe(_)
        | Action::Expire { .. }
        | Action::Persist
        | Action::GetAndExpire { .. }
        | Action::GetAndDelete
        | Action::SetRange { .. } => format!("{action:?} of {key}"),
    }
}

pub(super) fn operation(operation: &ShardOperation<'_>) -> String {
    let one = |one: &Operation<'_>| action(&one.action, &bytes(one.key));
    match operation {
        ShardOperation::One(found) => one(found),
        ShardOperation::Batch { watched, operations } => {
            let watched = if watched.is_empty() {
                String::new()
            } else {
                format!(" if {} stayed", list(watched, |(key, _)| bytes(key)))
            };
            format!("[{}]{watched}", operations.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        ShardOperation::Scan(_) => "scan".to_owned(),
        ShardOperation::Count => "count".to_owned(),
        ShardOperation::Random { .. } => "random".to_owned(),
        ShardOperation::Replicated { stamp: at, count, .. } => {
            format!("wait until {count} others have {}", stamp(*at))
        }
    }
}

fn request(request: &Request) -> String {
    let read = ShardOperation::read(&mut Reader::new(&request.operation)).unwrap();
    let place = match request.carried.place {
        Place::Anywhere => "",
        Place::Head => " at the head",
        Place::Tail => " at the tail",
    };
    format!("{}{place}", operation(&read))
}

fn replicate(replicate: &Replicate) -> String {
    let told = list(&replicate.entries, content);
    if replicate.is_fetched {
        return format!("fetched: {told}");
    }
    format!("behind {}: {told}", stamp(replicate.previous))
}

fn received(received: &Received) -> String {
    let above = if received.above.is_empty() {
        String::new()
    } else {
        format!(" and {}", list(&received.above, |at| stamp(*at)))
    };
    let (to, applied) = (stamp(received.received_to), stamp(received.applied_to));
    format!("to {to}, applied to {applied}{above}")
}

fn body(said: &Body, own: ShardId) -> String {
    match said {
        Body::Forward { entries } | Body::Returned { entries } => self::entries(entries),
        Body::Persisted(promise) => progress(promise.progress),
        Body::Ack(told) => progress(*told),
        Body::SendAgain { from } | Body::TakeBack { from } => format!("from #{from}"),
        Body::NoRoom { node } => format!("{node} is short of disk"),
        Body::HandOn { origin, entries, .. } => {
            format!("{} of {}", self::entries(entries), datacenter(*origin))
        }
        Body::HadApplied(had) => format!("up to {}", stamp(had.to)),
        Body::HandedOn { origin, stamps, .. } => {
            let stamps = list(stamps, |at| stamp(*at));
            format!("{stamps} of {}", datacenter(*origin))
        }
        Body::Question { number } => format!("{number}: what is committed?"),
        Body::Answer { number, committed_to } => format!("{number}: to #{committed_to}"),
        Body::SettleAsk { committed_at_most } => {
            let at_most = committed_at_most.map(|to| format!("; committed at most to #{to}"));
            format!("where does your log end?{}", at_most.unwrap_or_default())
        }
        Body::SettleTell { last, is_complete, asked_by: _ } => {
            let end = last.map_or(0, |identity| identity.position.0);
            let complete = if *is_complete { "complete" } else { "not known to be complete" };
            format!("my log ends at #{end}, {complete}")
        }
        Body::Request(found) => request(found),
        Body::AwaitApplied { asker, writes } => {
            let told = list(writes, |write| write_name(*write));
            match asker {
                Asker::Shard(shard) => format!("{told} for s{shard}"),
                Asker::Session(_) => format!("{told} for a session"),
            }
        }
        Body::Applied { by, writes } => {
            format!("s{by} {} for s{own}", list(writes, |write| write_name(*write)))
        }
        Body::Replicate(found) => replicate(found),
        Body::Received(found) => received(found),
        Body::Fetch { stamps, .. } => list(stamps, |at| stamp(*at)),
        Body::CopyAsk(ask) => copy_ask(ask),
        Body::CopyAnew { number: _, start } => format!("begin behind #{}", start.position()),
        Body::Copied(found) => copied(found),
    }
}

fn copy_ask(ask: &CopyAsk) -> String {
    let end = ask.last.map_or(0, |identity| identity.position.0);
    let keys = if ask.part_from.is_some() { ", lacks keys" } else { "" };
    let history = ask.window_from.map(|from| format!(", lacks history up to #{from}"));
    let whole = if ask.is_whole { ", is whole" } else { "" };
    format!("what comes behind #{end}?{keys}{}{whole}", history.unwrap_or_default())
}

fn copied(found: &Copied) -> String {
    let mut told = vec![format!("behind #{}", found.behind)];
    if !found.history.is_empty() {
        told.push(format!("before: {}", entries(&found.history)));
    }
    if !found.entries.is_empty() {
        told.push(entries(&found.entries));
    }
    if let Some(part) = &found.part {
        let more = if part.next.is_some() { "; there are more" } else { "" };
        told.push(format!("{} keys{more}", part.records.len()));
    }
    format!("to #{}: {}", found.committed_to, told.join("; "))
}

/// The word that a message is known by.
pub(super) const fn kind(message: &Message) -> &'static str {
    match message {
        Message::Reply(..) => "reply",
        Message::Cut(_) => "cut",
        Message::AskConfiguration(_) => "ask-configuration",
        Message::Configuration(..) => "configuration",
        Message::Shard(message) => match message.body {
            Body::Forward { .. } => "forward",
            Body::Persisted(_) => "persisted",
            Body::Ack(_) => "ack",
            Body::SendAgain { .. } => "send-again",
            Body::NoRoom { .. } => "no-room",
            Body::HandOn { .. } => "hand-on",
            Body::HandedOn { .. } => "handed-on",
            Body::Question { .. } => "question",
            Body::Answer { .. } => "answer",
            Body::SettleAsk { .. } => "settle-ask",
            Body::SettleTell { .. } => "settle-tell",
            Body::TakeBack { .. } => "take-back",
            Body::Returned { .. } => "returned",
            Body::Request(_) => "request",
            Body::AwaitApplied { .. } => "await-applied",
            Body::Applied { .. } => "applied",
            Body::Replicate(_) => "replicate",
            Body::Received(_) => "received",
            Body::Fetch { .. } => "fetch",
            Body::HadApplied(_) => "had-applied",
            Body::CopyAsk(_) => "copy-ask",
            Body::CopyAnew { .. } => "copy-anew",
            Body::Copied(_) => "copied",
        },
    }
}

/// The shard that a message is about.
pub(super) const fn shard_of(message: &Message) -> Option<ShardId> {
    match message {
        Message::Shard(message) => Some(message.shard),
        Message::Reply(_, reply) => Some(reply.shard),
        Message::Cut(_) | Message::AskConfiguration(_) | Message::Configuration(..) => None,
    }
}

pub(super) fn cut(cut: &Cut) -> String {
    list(cut.iter(), |(origin, to)| format!("{} to {}", datacenter(origin), stamp(to)))
}

fn cut_report(report: &CutReport) -> String {
    let ticks = |to: Timestamp| {
        if to == Timestamp::ZERO {
            String::new()
        } else {
            format!(", wants ticks to {}", stamp(to))
        }
    };
    match &report.scope {
        CutScope::Node { shards, applied, ticks_to, is_handed_out: _ } => {
            let shards = list(shards, |(first, last)| format!("s{first}-s{last}"));
            format!("of a node with {shards}: {}{}", cut(applied), ticks(*ticks_to))
        }
        CutScope::Datacenter { applied, ticks_to } => {
            format!("of a datacenter: {}{}", cut(applied), ticks(*ticks_to))
        }
    }
}

/// A message; `asker` names who a reply is for.
pub(super) fn message(message: &Message, asker: &str) -> String {
    let kind = kind(message);
    match message {
        Message::Shard(message) => {
            format!("s{} {kind} {}", message.shard, body(&message.body, message.shard))
        }
        Message::Reply(_, reply) => {
            format!("s{} {kind} to {asker}: {}", reply.shard, response(&reply.response))
        }
        Message::Cut(report) => format!("{kind} {}", cut_report(report)),
        Message::AskConfiguration(of) => format!("{kind} of {}", datacenter(*of)),
        Message::Configuration(of, part) => {
            format!("{kind} of {}, epoch {}", datacenter(*of), part.epoch)
        }
    }
}

/// What happened, without the node where it did.
pub(super) fn event(event: &Event, node: impl Fn(NodeId) -> String) -> String {
    match event {
        Event::Committed { shard, position, origin, stamp: at } => {
            format!("s{shard} commits #{position} {}", write_name((*origin, *at)))
        }
        Event::Applied { shard, origin, stamp: at, visible_at, .. } => {
            let name = write_name((*origin, *at));
            format!("s{shard} applies {name}, visible at {}", stamp(*visible_at))
        }
        Event::Waiting { shard, origin, stamp: at, missing } => {
            let name = write_name((*origin, *at));
            format!("s{shard} waits: {name} needs {}", dependency(*missing))
        }
        Event::Conflict { shard, winner, loser } => {
            format!("s{shard} drops {}, {} wins", version(*loser), version(*winner))
        }
        Event::Drift { from, ahead_millis, limit_millis } => {
            let from = node(*from);
            format!("refuses {from}: {ahead_millis} ms ahead, the limit is {limit_millis} ms")
        }
        Event::Settled { shard } => format!("s{shard} is settled"),
        Event::Seeded { shard } => format!("s{shard} stands alone"),
        Event::Diverged { shard, with, position } => {
            format!("s{shard} DIVERGED from {} at #{position}", node(*with))
        }
        Event::Older { shard, origin, by, had_to, here_to } => {
            let (origin, by) = (datacenter(*origin), node(*by));
            let (had_to, here_to) = (stamp(*had_to), stamp(*here_to));
            format!("s{shard} is OLDER: {by} knows {origin} up to {had_to}, here are {here_to}")
        }
        Event::StaleMessage { from } => format!("refuses {} as stale", node(*from)),
        Event::BodiesDropped { shard, count } => format!("s{shard} drops {count} body"),
        Event::LoadFailed { shard, hash } => format!("s{shard} cannot load {hash:x}"),
    }
}
