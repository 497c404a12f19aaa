//! What nodes say to each other: a request to be passed on, or a hello and messages of every kind, also long ones.

use std::sync::Arc;

use antecede_model::{
    applied::AppliedSet,
    clock::Timestamp,
    codec::Writer,
    configuration::{Chain, Datacenter, Waiting},
    consistency::Consistency,
    context::Dependencies,
    cut::Cut,
    dependency::Dependency,
    ids::{
        Boot, DatacenterId, DeploymentId, Epoch, Lineage, MembershipEpoch, NodeId, Position,
        RequestId, SessionId, ShardId,
    },
    operation::{
        Action, Condition, ExpireCondition, Operation, Scan, SetReply, ShardOperation, Ttl,
    },
    refusal::Refusal,
    response::{Response, Word},
    retry::Retry,
    sighting::Sighting,
    version::Version,
};
use antecede_protocol::{
    copied::{LineStart, Part, Start},
    entry::{self, Change, Effect, Entry, Identity},
    message::{
        Asker, Body, Carried, Copied, CopyAsk, CutReport, CutScope, HadApplied, Message, Place,
        Progress, Promise, Received, Replicate, Reply, Request, ShardMessage,
    },
    retries::{Kept, Remembered, Retries},
    state::Keys,
    wire::{
        ITEMS_MAX,
        frame::FrameWriter,
        hello::{Hello, Keeps},
        relay::RelayRequest,
    },
};
use smallvec::SmallVec;

/// A moment of 2027.
pub(crate) const NOW: u64 = 1_800_000_000_000 << 16;

/// The hello of a node.
pub(crate) fn hello(number: u16) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        deployment: DeploymentId(*b"0123456789abcdef"),
        node: NodeId { datacenter: DatacenterId(1), number },
        boot: Boot(3),
        membership: MembershipEpoch(1),
        hlc: Timestamp(NOW),
        keeps: Keeps::NewFolder,
        continues: Boot(1),
        known: Boot(2),
    }
}

/// Streams: a hello, and behind it messages of each kind alone, of all kinds, and long ones; and
/// requests to be passed on, and behind them whatever the other end is told.
pub(crate) fn streams() -> Vec<Vec<u8>> {
    let short = short_messages();
    let mut streams = vec![stream(&[]), relay(&[]), relay(&stream(&short))];
    streams.extend(short.iter().map(|message| stream(std::slice::from_ref(message))));
    streams.extend(short.chunks(5).map(stream));
    streams.push(stream(&short));
    streams.extend(long_messages().iter().map(|message| stream(std::slice::from_ref(message))));
    streams
}

fn relay(behind: &[u8]) -> Vec<u8> {
    let Hello { deployment, node, .. } = hello(2);
    let to = NodeId { datacenter: DatacenterId(3), number: 1 };
    let mut bytes = Vec::new();
    RelayRequest { deployment, from: node, to }.write(&mut bytes);
    bytes.extend_from_slice(behind);
    bytes
}

fn stream(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello(2).write(&mut bytes);
    let mut writer = FrameWriter::new();
    for (message, number) in messages.iter().zip(1_usize..) {
        writer.push(message).expect("the messages of the corpus are short enough");
        if number.is_multiple_of(3) || number == messages.len() {
            let mut frame = Vec::new();
            writer.swap(&mut frame);
            bytes.extend(frame);
        }
    }
    bytes
}

fn of_shard(body: Body) -> Message {
    Message::Shard(ShardMessage { shard: ShardId(17), epoch: Epoch(1), hlc: Timestamp(NOW), body })
}

fn stamp(at: u64) -> Timestamp {
    Timestamp(NOW + at)
}

fn version(at: u64) -> Version {
    Version { timestamp: stamp(at), origin: DatacenterId(2) }
}

fn dependency(at: u64) -> Dependency {
    Dependency { origin: DatacenterId(2), shard: ShardId(40), stamp: stamp(at) }
}

fn dependencies() -> Dependencies {
    Dependencies {
        exact: vec![dependency(1), dependency(2)],
        floor: vec![(DatacenterId(3), stamp(0))],
    }
}

fn entry(at: u64, changes: &[Change<'_>]) -> Entry {
    let mut bytes = Vec::new();
    let effects = changes.iter().map(|change| Effect {
        key: b"key",
        seen: SmallVec::from_slice(&[version(3)]),
        change: *change,
    });
    entry::Body::encode(&mut bytes, stamp(at), &dependencies(), effects);
    let body =
        if changes.is_empty() { entry::Body::Tick } else { entry::Body::Write(bytes.into()) };
    let mut entry = Entry {
        identity: Identity { epoch: Epoch(1), boot: Boot(3), position: Position(at), checksum: 0 },
        origin: DatacenterId(1),
        lineage: Lineage(1),
        stamp: stamp(at),
        previous: stamp(at - 1),
        visible_at: stamp(at),
        body,
        kept: None,
    };
    entry.identity.checksum = entry.computed_checksum();
    entry
}

fn retry(number: u64) -> Retry {
    Retry { client: "app-1_".into(), number: 1_800_000_000_000_000 + number, words: 7 }
}

/// The entry under a request id, with an answer or without.
fn with_id(entry: Entry, answer: Option<Response>) -> Entry {
    let kept = Some(Arc::new(Kept { retry: retry(5), answer }));
    let mut entry = Entry { kept, ..entry };
    entry.identity.checksum = entry.computed_checksum();
    entry
}

fn remembered() -> Remembered {
    let mut retries = Retries::new(2, true);
    for number in 1..=4 {
        let answer = Response::List(vec![Response::Ok, Response::Integer(-1)]);
        let kept = Arc::new(Kept::of(retry(number), &answer));
        retries.push(Position(number), stamp(number), &kept);
    }
    retries.at_position(Position(4))
}

/// A write of each kind, several at once, and a tick.
fn entries() -> Vec<Entry> {
    let changes = [
        Change::Set { value: b"value", deadline: None },
        Change::Set { value: b"value", deadline: Some(1_800_000_000_000) },
        Change::Delete,
        Change::Ttl { deadline: None },
        Change::Ttl { deadline: Some(1_800_000_000_000) },
        Change::Hide,
    ];
    let mut entries = vec![entry(10, &changes), entry(11, &[])];
    let each = changes.iter().zip(12..);
    entries.extend(each.map(|(change, at)| entry(at, std::slice::from_ref(change))));
    entries.push(with_id(entry(18, &changes), Some(Response::Bytes(b"value".to_vec()))));
    entries.push(with_id(entry(19, &changes), None));
    entries
}

fn request_id() -> RequestId {
    let node = NodeId { datacenter: DatacenterId(2), number: 3 };
    RequestId { node, session: SessionId(5), number: 7 }
}

fn operations() -> Vec<Vec<u8>> {
    let of = |action| Operation { key: b"key", action };
    let set = || Action::Set {
        value: b"value",
        condition: Condition::IfAbsent,
        ttl: Ttl::Until(1_800_000_000_000),
        reply: SetReply::Previous,
    };
    let expire = Action::Expire { deadline: 9, condition: ExpireCondition::IfLater };
    let all = [
        ShardOperation::One(of(Action::Get)),
        ShardOperation::One(of(set())),
        ShardOperation::One(of(expire)),
        ShardOperation::One(of(Action::SetRange { offset: 3, value: b"xyz" })),
        ShardOperation::Batch {
            watched: vec![
                (b"watched", Sighting::Present(version(4))),
                (b"other", Sighting::Absent { at: stamp(4) }),
            ],
            operations: vec![of(set()), of(Action::Delete), of(Action::Observe)],
        },
        ShardOperation::Scan(Scan { from: 3, count: 10, pattern: Some(b"a*") }),
        ShardOperation::Count,
        ShardOperation::Random { draw: 99 },
        ShardOperation::Replicated { stamp: stamp(5), count: 2, timeout_millis: 100 },
    ];
    let bytes = all.iter().map(|operation| {
        let mut bytes = Vec::new();
        operation.write(&mut Writer::new(&mut bytes));
        bytes
    });
    bytes.collect()
}

fn reply(response: Response) -> Message {
    let reply = Reply {
        response,
        wrote: Some(dependency(6)),
        observed: SmallVec::from_slice(&[version(7), version(8)]),
        shard: ShardId(40),
        visible_at: stamp(9),
    };
    Message::Reply(request_id(), reply)
}

fn replies() -> impl Iterator<Item = Message> {
    let nested = Response::List(vec![Response::Ok, Response::List(vec![Response::Integer(-5)])]);
    let responses = [
        Response::Ok,
        Response::Nil,
        Response::Aborted,
        Response::Integer(i64::MIN),
        Response::Bytes(b"value".to_vec()),
        Response::Word(Word::Embstr),
        Response::Observed(Sighting::Present(version(1))),
        Response::Scanned { next: Some(4), keys: vec![b"key".to_vec(); 3] },
        nested,
        Response::Refused(Refusal::Busy { shard: ShardId(3), held: 9, limit: 8 }),
        Response::Refused(Refusal::NotYet { missing: 3, waited_millis: 50 }),
        Response::Refused(Refusal::DiskFull {
            node: NodeId { datacenter: DatacenterId(1), number: 2 },
        }),
        Response::Refused(Refusal::Drift { ahead_millis: 900, limit_millis: 500 }),
        Response::Refused(Refusal::Forgotten { shard: ShardId(3), forgotten_to: 1 << 50 }),
        Response::Refused(Refusal::NotKept { limit: 4096 }),
    ];
    responses.into_iter().map(reply)
}

fn cut_reports() -> [Message; 2] {
    let cut = || Cut::of([(DatacenterId(1), stamp(1)), (DatacenterId(2), stamp(2))]);
    let report = |scope| {
        let (epoch, membership) = (Epoch(1), MembershipEpoch(1));
        Message::Cut(CutReport { epoch, membership, hlc: stamp(3), scope })
    };
    let shards = vec![(ShardId(0), ShardId(99)), (ShardId(200), ShardId(255))];
    [
        report(CutScope::Node {
            shards,
            applied: cut(),
            ticks_to: Timestamp(9),
            is_handed_out: true,
        }),
        report(CutScope::Datacenter { applied: cut(), ticks_to: Timestamp::ZERO }),
    ]
}

fn replicate(entries: Vec<Entry>, is_fetched: bool) -> Body {
    Body::Replicate(Replicate {
        membership: MembershipEpoch(1),
        origin: DatacenterId(1),
        lineage: Lineage(1),
        previous: stamp(9),
        entries,
        is_fetched,
    })
}

/// What a copy begins with, of one line with stamps applied ahead of others.
fn start() -> Start {
    let mut applied = AppliedSet::default();
    applied.raise(stamp(2));
    applied.record(stamp(4), stamp(6));
    applied.record(stamp(8), stamp(9));
    let line = LineStart { origin: DatacenterId(2), applied, newest_write: stamp(9) };
    let last = entries().last().map(|entry| entry.identity);
    let (shown_to, collected_to) = (stamp(9), stamp(1));
    let retries = Remembered::default();
    Start { last, lines: vec![line], shown_to, collected_to, retries }
}

/// A key with a time to live, one that was removed, and one with a long name.
fn part() -> Part {
    let long = [b'k'; 300];
    let all = [
        (&b"key"[..], Change::Set { value: b"value", deadline: Some(1_800_000_000_000) }),
        (&b"key"[..], Change::Ttl { deadline: Some(1_900_000_000_000) }),
        (&b"gone"[..], Change::Delete),
        (&long[..], Change::Set { value: b"value", deadline: None }),
    ];
    let mut keys = Keys::new(1);
    for ((key, change), at) in all.into_iter().zip(10..) {
        let mut bytes = Vec::new();
        let seen = keys.committed(key).seen();
        let effect = Effect { key, seen, change };
        entry::Body::encode(&mut bytes, stamp(at), &dependencies(), [effect].into_iter());
        let entry = Entry { body: entry::Body::Write(bytes.into()), ..entry(at, &[]) };
        keys.commit(&entry, &mut Vec::new());
    }
    keys.part(0, usize::MAX).expect("all values are in memory")
}

fn copies() -> Vec<Body> {
    let start = start();
    let last = start.last;
    let copied = Copied {
        number: 4,
        behind: Position(299),
        committed_to: Position(300),
        durable_to: Position(2),
        history: entries(),
        entries: entries(),
        part: Some(part()),
    };
    let end = Copied { history: Vec::new(), entries: Vec::new(), part: None, ..copied };
    let (window_from, part_from) = (Some(Position(9)), Some(1 << 60));
    vec![
        Body::CopyAsk(CopyAsk {
            number: 4,
            last,
            committed: last,
            window_from,
            part_from,
            is_whole: false,
        }),
        Body::CopyAsk(CopyAsk {
            number: 5,
            last: None,
            committed: None,
            window_from: None,
            part_from: None,
            is_whole: true,
        }),
        Body::CopyAnew { number: 4, start: start.clone() },
        Body::CopyAnew { number: 4, start: Start { retries: remembered(), ..start } },
        Body::Copied(copied),
        Body::Copied(end),
    ]
}

fn configurations() -> [Message; 2] {
    let node = |number| NodeId { datacenter: DatacenterId(2), number };
    let chain = |why| Chain {
        epoch: Epoch(300),
        serving: vec![node(2), node(3)],
        waiting: [(node(1), why)].into(),
    };
    let waits = [Waiting::Syncing, Waiting::LastServing, Waiting::Offline];
    let part = Datacenter {
        name: "two".to_owned(),
        epoch: Epoch(301),
        nodes: (1..=3).map(node).collect(),
        absent: [node(1)].into(),
        short: [node(3)].into(),
        apart: [node(2)].into(),
        boots: [(node(2), Boot(3)), (node(3), Boot(300))].into(),
        replicas: 3,
        drained: [node(1)].into(),
        retiring: [(ShardId(1), (node(3), Epoch(300)))].into(),
        chains: waits.into_iter().map(chain).collect(),
        membership: None,
    };
    [
        Message::AskConfiguration(DatacenterId(2)),
        Message::Configuration(DatacenterId(2), Box::new(part)),
    ]
}

fn bodies() -> Vec<Body> {
    let progress = Progress { persisted_to: Position(300), synced_to: Position(2) };
    let (membership, lineage) = (MembershipEpoch(1), Lineage(1));
    let writes = vec![(DatacenterId(2), stamp(1)), (DatacenterId(3), stamp(2))];
    let last = entries().last().map(|entry| entry.identity);
    vec![
        Body::Forward { entries: entries() },
        Body::Persisted(Promise { progress, boots: SmallVec::new() }),
        Body::Persisted(Promise { progress, boots: SmallVec::from_slice(&[Boot(3), Boot(300)]) }),
        Body::Ack(progress),
        Body::SendAgain { from: Position(9) },
        Body::HandOn { membership, origin: DatacenterId(3), entries: entries() },
        Body::HandedOn { membership, origin: DatacenterId(3), stamps: vec![stamp(1), stamp(2)] },
        Body::NoRoom { node: NodeId { datacenter: DatacenterId(1), number: 2 } },
        Body::Question { number: 4 },
        Body::Answer { number: 4, committed_to: Position(8) },
        Body::SettleAsk { committed_at_most: None },
        Body::SettleAsk { committed_at_most: Some(Position(300)) },
        Body::SettleTell { last, is_complete: true, asked_by: Some(Boot(3)) },
        Body::TakeBack { from: Position(9) },
        Body::Returned { entries: entries() },
        Body::AwaitApplied { asker: Asker::Shard(ShardId(1)), writes: writes.clone() },
        Body::AwaitApplied { asker: Asker::Session(request_id()), writes: writes.clone() },
        Body::Applied { by: ShardId(40), writes },
        replicate(entries(), false),
        replicate(entries(), true),
        Body::Received(Received {
            membership,
            lineage,
            received_to: stamp(9),
            applied_to: stamp(4),
            above: vec![stamp(6), stamp(8)],
            credit: 100,
        }),
        Body::Fetch { membership, lineage, stamps: vec![stamp(1), stamp(2)] },
        Body::HadApplied(HadApplied { membership, lineage, to: stamp(4) }),
    ]
}

/// A message of each kind.
fn short_messages() -> Vec<Message> {
    let carried = Carried {
        dependencies: dependencies(),
        time: stamp(4),
        level: Consistency::Linearizable,
        place: Place::Head,
    };
    let ids = [None, Some(retry(4))];
    let requests = ids.into_iter().flat_map(|retry| {
        let request = |operation| Request {
            id: request_id(),
            operation,
            carried: carried.clone(),
            retry: retry.clone(),
        };
        operations().into_iter().map(request).map(Body::Request).collect::<Vec<_>>()
    });
    let of_shards = bodies().into_iter().chain(copies()).chain(requests).map(of_shard);
    of_shards.chain(replies()).chain(cut_reports()).chain(configurations()).collect()
}

/// Messages in pieces, and lists at and beyond their limits.
fn long_messages() -> Vec<Message> {
    let (membership, lineage) = (MembershipEpoch(1), Lineage(1));
    let fetch = |count| Body::Fetch { membership, lineage, stamps: vec![stamp(1); count] };
    let ticks = (0..30_000).map(|at| entry(10 + at, &[])).collect();
    vec![
        of_shard(fetch(ITEMS_MAX)),
        of_shard(fetch(ITEMS_MAX + 1)),
        of_shard(replicate(ticks, false)),
        reply(Response::Bytes(vec![7; 2_500_000])),
        reply(Response::List(vec![Response::Nil; 300_000])),
        reply(Response::Scanned { next: None, keys: vec![Vec::new(); 300_000] }),
    ]
}
