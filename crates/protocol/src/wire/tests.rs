//! Tests of the bytes between nodes, and of those in a node's log: golden bytes, round trips, damage,
//! limits, what a write costs.

use std::sync::Arc;

use antecede_model::{
    applied::AppliedSet,
    clock::{Timestamp, Wall},
    codec::{DecodeError, Writer},
    configuration::{Chain, Configuration, Datacenter, Layout, Waiting},
    consistency::Consistency,
    context::Dependencies,
    cut::Cut,
    dependency::Dependency,
    ids::{
        Boot, DatacenterId, DeploymentId, Epoch, Lineage, MembershipEpoch, NodeId, Position,
        RequestId, SessionId, ShardId,
    },
    key::ShardCount,
    membership::{Gone, Member, Membership, Standing},
    operation::{Action, Condition, Operation, SetReply, ShardOperation, Ttl},
    refusal::Refusal,
    response::{Response, Word},
    retry::{Retry, WrittenId},
    sighting::Sighting,
    version::Version,
};
use proptest::{collection::vec, option, prelude::*};
use smallvec::{SmallVec, smallvec};

use super::{
    ITEMS_MAX,
    frame::{FRAME_BYTES_MAX, FRAME_BYTES_USUAL, FrameError, FrameReader, FrameWriter},
    hello::{Hello, Keeps, LinkRefusal, ReadHelloError},
    read_message,
    relay::{Opening, RelayAnswer, RelayRefusal, RelayRequest},
    write_message,
};
use crate::{
    checkpointed::CheckpointMeta,
    copied::{LineStart, Part, Start},
    entry::{self, Change, Effect, Entry, Identity},
    message::{
        Asker, Body, Carried, Copied, CopyAsk, CutReport, CutScope, HadApplied, Message, Place,
        Progress, Promise, Received, Replicate, Reply, Request, ShardMessage,
    },
    record::Record,
    retries::{Kept, Remembered, Retries},
    state::Keys,
};

const NOW: u64 = 1_800_000_000_000 << 16;

fn bytes_of(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(message, &mut bytes);
    bytes
}

fn bytes_of_record(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    match record {
        Record::Entry { shard, committed_to, entry } => {
            Record::write_entry(&mut bytes, *shard, *committed_to, entry);
        }
        Record::CutBack { shard, to } => Record::write_cut_back(&mut bytes, *shard, *to),
        Record::Trimmed { shard, to } => Record::write_trimmed(&mut bytes, *shard, *to),
        Record::Begun { shard, start } => Record::write_begun(&mut bytes, *shard, start),
        Record::History { shard, entry } => Record::write_history(&mut bytes, *shard, entry),
        Record::Part { shard, part } => Record::write_part(&mut bytes, *shard, part),
        Record::Ceiling(ceiling) => Record::write_ceiling(&mut bytes, *ceiling),
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_shard(body: Body) -> Message {
    Message::Shard(ShardMessage { shard: ShardId(17), epoch: Epoch(1), hlc: Timestamp(NOW), body })
}

/// A write as a head makes it: one effect, and what it depends on.
fn write(stamp: u64, previous: u64, dependencies: &Dependencies, effect: Effect<'_>) -> Entry {
    let mut body = Vec::new();
    entry::Body::encode(&mut body, Timestamp(stamp), dependencies, [effect].into_iter());
    Entry {
        identity: Identity::default(),
        origin: DatacenterId(1),
        lineage: Lineage(1),
        stamp: Timestamp(stamp),
        previous: Timestamp(previous),
        visible_at: Timestamp(stamp),
        body: entry::Body::Write(body.into()),
        kept: None,
    }
}

/// What a client's first request came to.
fn kept() -> Kept {
    let id = WrittenId::of(b"eu.app-1:1763767616000001").unwrap();
    Kept::of(id.with_words(0x0403_0201), &Response::Integer(-3))
}

/// A write whose request had an id.
fn write_with_id() -> Entry {
    Entry { kept: Some(Arc::new(kept())), ..small_write() }
}

/// What a shard remembers that has forgotten one id already.
fn remembered() -> Remembered {
    let mut retries = Retries::new(1, true);
    for position in [2_u64, 300] {
        retries.push(Position(position), Timestamp(NOW + position), &Arc::new(kept()));
    }
    retries.settle(Position(300));
    retries.at_position(Position(300))
}

fn set<'a>(key: &'a [u8], value: &'a [u8], seen: Option<u64>) -> Effect<'a> {
    let seen = seen
        .map(|stamp| Version { timestamp: Timestamp(stamp), origin: DatacenterId(1) })
        .into_iter()
        .collect();
    Effect { key, seen, change: Change::Set { value, deadline: None } }
}

fn in_chain(mut entry: Entry, position: u64) -> Entry {
    entry.identity = Identity {
        epoch: Epoch(1),
        boot: Boot(3),
        position: Position(position),
        checksum: entry.computed_checksum(),
    };
    entry
}

fn small_write() -> Entry {
    write(NOW + 9, NOW + 2, &Dependencies::default(), set(b"k", b"v", Some(NOW)))
}

fn request(number: u64) -> RequestId {
    let node = NodeId { datacenter: DatacenterId(2), number: 3 };
    RequestId { node, session: SessionId(5), number }
}

fn dependency() -> Dependency {
    Dependency { origin: DatacenterId(2), shard: ShardId(40), stamp: Timestamp(NOW - 1) }
}

/// What a copy begins with: an entry applied ahead of a blocked one, and a line without any.
fn start_of_copy() -> Start {
    let mut applied = AppliedSet::default();
    applied.raise(Timestamp(NOW + 2));
    applied.record(Timestamp(NOW + 4), Timestamp(NOW + 6));
    let newest_write = Timestamp(NOW + 6);
    Start {
        last: Some(in_chain(small_write(), 300).identity),
        lines: vec![
            LineStart { origin: DatacenterId(1), applied, newest_write },
            LineStart { origin: DatacenterId(2), ..LineStart::default() },
        ],
        shown_to: Timestamp(NOW + 9),
        collected_to: Timestamp(NOW - 7),
        retries: Remembered::default(),
    }
}

/// A key, and a tombstone.
fn part_of_copy() -> Part {
    let mut keys = Keys::new(1);
    let removed = Effect { change: Change::Delete, ..set(b"gone", b"", None) };
    let entries = [
        in_chain(small_write(), 1),
        in_chain(write(NOW + 12, NOW + 9, &Dependencies::default(), removed), 2),
    ];
    for entry in &entries {
        keys.commit(entry, &mut Vec::new());
    }
    let part = keys.part(0, usize::MAX).unwrap();
    assert_eq!(part.records.len(), 2);
    Part { next: Some(u64::MAX), ..part }
}

/// A chain that copies, one that is dark, one with a replica that is gone.
fn membership() -> Membership {
    let nodes = [(NodeId { datacenter: DatacenterId(2), number: 1 }, "two:7400".to_owned())];
    let from = Some(DatacenterId(1));
    let joining = Member {
        standing: Standing::Joining { from },
        acknowledged: MembershipEpoch(2),
        ..Member::open("two".to_owned(), nodes.into())
    };
    let mut membership = Membership::first([(DatacenterId(2), joining)]);
    let since = MembershipEpoch(300);
    let gone = Gone { name: "old".to_owned(), was_lost: true, since, successor: None };
    membership.gone.insert(DatacenterId(1), gone);
    membership
}

fn part_of_configuration() -> Datacenter {
    let node = |number| NodeId { datacenter: DatacenterId(2), number };
    let chain = |epoch, serving: &[u16], waiting: &[(u16, Waiting)]| Chain {
        epoch: Epoch(epoch),
        serving: serving.iter().map(|number| node(*number)).collect(),
        waiting: waiting.iter().map(|(number, why)| (node(*number), *why)).collect(),
    };
    Datacenter {
        name: "two".to_owned(),
        epoch: Epoch(300),
        nodes: vec![node(1), node(2), node(3)],
        absent: [node(3)].into(),
        short: [node(2)].into(),
        apart: [node(1)].into(),
        boots: [(node(1), Boot(300)), (node(2), Boot(4))].into(),
        replicas: 3,
        drained: [node(2)].into(),
        retiring: [(ShardId(2), (node(2), Epoch(299)))].into(),
        chains: vec![
            chain(299, &[2], &[(1, Waiting::Syncing)]),
            chain(7, &[], &[(1, Waiting::LastServing), (3, Waiting::LastServing)]),
            chain(300, &[1, 2], &[(3, Waiting::Offline)]),
        ],
        membership: Some(Arc::new(membership())),
    }
}

mod golden {
    use super::*;

    #[track_caller]
    fn check(message: &Message, wanted: &str) {
        let bytes = bytes_of(message);
        assert_eq!(read_message(&bytes).as_ref(), Ok(message));
        assert_eq!(hex(&bytes), wanted, "nodes of other builds read messages of this form");
    }

    #[test]
    fn messages_down_and_up_the_chain_keep_their_bytes() {
        let progress = Progress { persisted_to: Position(300), synced_to: Position(2) };
        let entries = vec![in_chain(small_write(), 7)];
        check(
            &of_shard(Body::Forward { entries: entries.clone() }),
            "001101000000505c18a30100010103078fd3f5510101090000505c18a301070b000001016b010109000176090000505c18a301",
        );
        let promise = Promise { progress, boots: smallvec![] };
        check(&of_shard(Body::Persisted(promise)), "001101000000505c18a30101ac020200");
        let promise = Promise { progress, boots: smallvec![Boot(300), Boot(0)] };
        check(&of_shard(Body::Persisted(promise)), "001101000000505c18a30101ac020202ac0200");
        check(&of_shard(Body::Ack(progress)), "001101000000505c18a30102ac0202");
        check(&of_shard(Body::SendAgain { from: Position(9) }), "001101000000505c18a3010309");
        let node = NodeId { datacenter: DatacenterId(1), number: 2 };
        let (membership, origin) = (MembershipEpoch(1), DatacenterId(3));
        let handed = vec![];
        check(
            &of_shard(Body::HandOn { membership, origin, entries: handed }),
            "001101000000505c18a30115010300",
        );
        let stamps = vec![Timestamp(NOW)];
        check(
            &of_shard(Body::HandedOn { membership, origin, stamps }),
            "001101000000505c18a30116010301000000505c18a301",
        );
        check(&of_shard(Body::NoRoom { node }), "001101000000505c18a3011302000100");
        check(&of_shard(Body::Question { number: 4 }), "001101000000505c18a3010404");
        check(
            &of_shard(Body::Answer { number: 4, committed_to: Position(8) }),
            "001101000000505c18a301050408",
        );
        let ask = |committed_at_most| of_shard(Body::SettleAsk { committed_at_most });
        check(&ask(None), "001101000000505c18a3010600");
        check(&ask(Some(Position(300))), "001101000000505c18a3010601ac02");
        let last = Some(entries[0].identity);
        check(
            &of_shard(Body::SettleTell { last, is_complete: true, asked_by: Some(Boot(3)) }),
            "001101000000505c18a30107010103078fd3f551010103",
        );
        check(&of_shard(Body::TakeBack { from: Position(9) }), "001101000000505c18a3010809");
        check(
            &of_shard(Body::Returned { entries }),
            "001101000000505c18a30109010103078fd3f5510101090000505c18a301070b000001016b010109000176090000505c18a301",
        );
    }

    #[test]
    fn requests_and_replies_keep_their_bytes() {
        let mut operation = Vec::new();
        ShardOperation::One(Operation { key: b"k", action: Action::Get })
            .write(&mut Writer::new(&mut operation));
        let carried = Carried {
            dependencies: Dependencies {
                exact: vec![dependency()],
                floor: vec![(DatacenterId(3), Timestamp(NOW - 2))],
            },
            time: Timestamp(NOW),
            level: Consistency::Linearizable,
            place: Place::Head,
        };
        check(
            &of_shard(Body::Request(Request { id: request(6), operation, carried, retry: None })),
            "001101000000505c18a3010a030002000506000000505c18a3010101010228ffffff4f5c18a3010103feffff4f5c18a3010400016b00",
        );
        let reply = Reply {
            response: Response::Bytes(b"v".to_vec()),
            wrote: Some(dependency()),
            observed: SmallVec::from_elem(Version::default(), 1),
            shard: ShardId(40),
            visible_at: Timestamp(NOW),
        };
        check(
            &Message::Reply(request(6), reply),
            "0103000200050628000000505c18a301010228ffffff4f5c18a30101000000000000000000030176",
        );
    }

    #[test]
    fn messages_between_datacenters_keep_their_bytes() {
        let writes = vec![(DatacenterId(2), Timestamp(NOW - 1))];
        let asker = Asker::Session(request(6));
        check(
            &of_shard(Body::AwaitApplied { asker, writes: writes.clone() }),
            "001101000000505c18a3010b010300020005060102ffffff4f5c18a301",
        );
        let asker = Asker::Shard(ShardId(1));
        check(
            &of_shard(Body::AwaitApplied { asker, writes: writes.clone() }),
            "001101000000505c18a3010b00010102ffffff4f5c18a301",
        );
        check(
            &of_shard(Body::Applied { by: ShardId(40), writes }),
            "001101000000505c18a3010c280102ffffff4f5c18a301",
        );
        let replicate = Replicate {
            membership: MembershipEpoch(1),
            origin: DatacenterId(1),
            lineage: Lineage(1),
            previous: Timestamp(NOW + 2),
            entries: vec![small_write()],
            is_fetched: false,
        };
        let told = |replicate| {
            let Message::Shard(message) = of_shard(Body::Replicate(replicate)) else {
                unreachable!("it is one of a shard")
            };
            Message::Shard(ShardMessage { hlc: Timestamp(NOW + 9), ..message })
        };
        check(
            &told(replicate.clone()),
            "001101090000505c18a3010d010101070001070b000001016b010109000176",
        );
        check(
            &told(Replicate { is_fetched: true, ..replicate }),
            "001101090000505c18a3010d010101070101090000505c18a301070b000001016b010109000176",
        );
        check(
            &of_shard(Body::Received(Received {
                membership: MembershipEpoch(1),
                lineage: Lineage(1),
                received_to: Timestamp(NOW),
                applied_to: Timestamp(NOW - 5),
                above: vec![Timestamp(NOW - 3)],
                credit: 100,
            })),
            "001101000000505c18a3010e0101000000505c18a301fbffff4f5c18a30101fdffff4f5c18a30164",
        );
        let (membership, lineage) = (MembershipEpoch(1), Lineage(1));
        let stamps = vec![Timestamp(NOW)];
        check(
            &of_shard(Body::Fetch { membership, lineage, stamps }),
            "001101000000505c18a3010f010101000000505c18a301",
        );
        check(
            &of_shard(Body::HadApplied(HadApplied { membership, lineage, to: Timestamp(NOW) })),
            "001101000000505c18a301170101000000505c18a301",
        );
    }

    #[test]
    fn cut_reports_keep_their_bytes() {
        let report = |scope| {
            let (epoch, membership, hlc) = (Epoch(1), MembershipEpoch(1), Timestamp(NOW));
            Message::Cut(CutReport { epoch, membership, hlc, scope })
        };
        let applied = Cut::of([(DatacenterId(1), Timestamp(NOW - 1))]);
        check(
            &report(CutScope::Node {
                shards: vec![(ShardId(0), ShardId(255))],
                applied: applied.clone(),
                ticks_to: Timestamp(NOW),
                is_handed_out: true,
            }),
            "020101000000505c18a30100000000505c18a3010101ffffff4f5c18a301010100ff01",
        );
        check(
            &report(CutScope::Datacenter { applied, ticks_to: Timestamp::ZERO }),
            "020101000000505c18a3010100000000000000000101ffffff4f5c18a301",
        );
    }

    #[test]
    fn messages_of_a_copy_keep_their_bytes() {
        let last = Some(in_chain(small_write(), 300).identity);
        let committed = Some(in_chain(small_write(), 299).identity);
        let ask = CopyAsk {
            number: 300,
            last,
            committed,
            window_from: None,
            part_from: None,
            is_whole: true,
        };
        check(
            &of_shard(Body::CopyAsk(ask.clone())),
            "001101000000505c18a30110ac02010103ac028fd3f551010103ab028fd3f551000001",
        );
        let lacking = CopyAsk {
            last: None,
            committed: None,
            window_from: Some(Position(300)),
            part_from: Some(1 << 40),
            is_whole: false,
            ..ask
        };
        check(
            &of_shard(Body::CopyAsk(lacking)),
            "001101000000505c18a30110ac02000001ac0201000000000001000000",
        );
        check(
            &of_shard(Body::CopyAnew { number: 300, start: start_of_copy() }),
            "001101000000505c18a30111ac02010103ac028fd3f5510201020000505c18a30101040000505c18a301060000505c18a301060000505c18a301020000000000000000000000000000000000090000505c18a301f9ffff4f5c18a301",
        );
        let nothing = Body::CopyAnew { number: 1, start: Start::default() };
        check(&of_shard(nothing), "001101000000505c18a3011101000000000000000000000000000000000000");
        let copied = Copied {
            number: 300,
            behind: Position(7),
            committed_to: Position(9),
            durable_to: Position(8),
            history: vec![in_chain(small_write(), 3)],
            entries: vec![in_chain(small_write(), 9)],
            part: Some(part_of_copy()),
        };
        check(
            &of_shard(Body::Copied(copied.clone())),
            "001101000000505c18a30112ac02070908010103038fd3f5510101090000505c18a301070b000001016b010109000176090000505c18a301010103098fd3f5510101090000505c18a301070b000001016b010109000176090000505c18a30101000000000000000001ffffffffffffffff02100101000c0000505c18a30104676f6e650e000100090000505c18a301016b76",
        );
        let end = Copied { history: Vec::new(), entries: Vec::new(), part: None, ..copied };
        check(&of_shard(Body::Copied(end)), "001101000000505c18a30112ac02070908000000");
    }

    #[test]
    fn messages_about_configurations_keep_their_bytes() {
        check(&Message::AskConfiguration(DatacenterId(300)), "03ac02");
        let part = Box::new(part_of_configuration());
        check(
            &Message::Configuration(DatacenterId(2), part),
            "04020195010374776fac02030100020002000200030002000103000200010200020001010002000201000200ac020200020004030102000200010202000200ab02030dab0201020002000101000200000d0700020100020001030002000111ac02020100020002000200010300020002010127010102180374776f01010002000874776f3a37343030010101020000010108036f6c6401ac0200",
        );
    }

    #[track_caller]
    fn check_record(record: &Record, wanted: &str) {
        let bytes = bytes_of_record(record);
        assert_eq!(Record::read(&bytes).as_ref(), Ok(record));
        assert_eq!(hex(&bytes), wanted, "logs of other builds hold records of this form");
    }

    #[test]
    fn records_of_a_log_keep_their_bytes() {
        let shard = ShardId(17);
        let (committed_to, entry) = (Position(300), in_chain(small_write(), 301));
        check_record(
            &Record::Entry { shard, committed_to, entry: entry.clone() },
            "0011ac020103ad028fd3f5510101090000505c18a301070b000001016b010109000176090000505c18a301",
        );
        check_record(&Record::Ceiling(Timestamp(NOW)), "01000000505c18a301");
        check_record(&Record::CutBack { shard, to: Position(300) }, "0211ac02");
        check_record(&Record::Trimmed { shard, to: Position(300) }, "0611ac02");
        check_record(
            &Record::Begun { shard, start: start_of_copy() },
            "0311010103ac028fd3f5510201020000505c18a30101040000505c18a301060000505c18a301060000505c18a301020000000000000000000000000000000000090000505c18a301f9ffff4f5c18a301",
        );
        check_record(
            &Record::History { shard, entry },
            "04110103ad028fd3f5510101090000505c18a301070b000001016b010109000176090000505c18a301",
        );
        check_record(
            &Record::Part { shard, part: part_of_copy() },
            "0511000000000000000001ffffffffffffffff02100101000c0000505c18a30104676f6e650e000100090000505c18a301016b76",
        );
    }

    #[test]
    fn what_carries_a_request_id_keeps_its_bytes() {
        let shard = ShardId(17);
        let entry = in_chain(write_with_id(), 301);
        check_record(
            &Record::Entry { shard, committed_to: Position(300), entry: entry.clone() },
            "0011ac020103ad024da3c9f581800401090000505c18a301070b000001016b010109000176056170702d3181a0dfb1b284910301020304010205090000505c18a301",
        );
        check(
            &of_shard(Body::Forward { entries: vec![entry.clone()] }),
            "001101000000505c18a30100010103ad024da3c9f581800401090000505c18a301070b000001016b010109000176056170702d3181a0dfb1b284910301020304010205090000505c18a301",
        );
        let not_kept = Arc::new(Kept { answer: None, ..kept() });
        let entry = in_chain(Entry { kept: Some(not_kept), ..entry }, 301);
        check_record(
            &Record::History { shard, entry },
            "04110103ad020c9163bf81800401090000505c18a301070b000001016b010109000176056170702d3181a0dfb1b28491030102030400090000505c18a301",
        );
        let start = Start { retries: remembered(), ..start_of_copy() };
        check_record(
            &Record::Begun { shard, start: start.clone() },
            "0311030103ac028fd3f5510201020000505c18a30101040000505c18a301060000505c18a301060000505c18a301020000000000000000000000000000000000090000505c18a301f9ffff4f5c18a301011581a0dfb1b284910301ac022c0100505c18a301056170702d3181a0dfb1b284910301020304010205",
        );
        check(
            &of_shard(Body::CopyAnew { number: 300, start: start.clone() }),
            "001101000000505c18a30111ac02030103ac028fd3f5510201020000505c18a30101040000505c18a301060000505c18a301060000505c18a301020000000000000000000000000000000000090000505c18a301f9ffff4f5c18a301011581a0dfb1b284910301ac022c0100505c18a301056170702d3181a0dfb1b284910301020304010205",
        );
        let meta = CheckpointMeta { start, ..CheckpointMeta::default() };
        let mut bytes = Vec::new();
        meta.write(&mut bytes);
        assert_eq!(CheckpointMeta::read(&bytes), Ok(meta));
        let mut operation = Vec::new();
        ShardOperation::One(Operation { key: b"k", action: Action::Delete })
            .write(&mut Writer::new(&mut operation));
        let (carried, retry) = (Carried::default(), Some(kept().retry));
        let request = Request { id: request(6), operation, carried, retry };
        check(
            &of_shard(Body::Request(request)),
            "001101000000505c18a301140300020005060000000000000000010000000400016b09056170702d3181a0dfb1b284910301020304",
        );
    }

    #[test]
    fn other_datacenters_are_not_sent_request_ids() {
        let replicate = |entry| {
            of_shard(Body::Replicate(Replicate {
                membership: MembershipEpoch(1),
                origin: DatacenterId(1),
                lineage: Lineage(1),
                previous: Timestamp(NOW + 2),
                entries: vec![entry],
                is_fetched: false,
            }))
        };
        let (with, without) = (replicate(write_with_id()), replicate(small_write()));
        assert_eq!(bytes_of(&with), bytes_of(&without));
    }

    #[test]
    fn a_frame_keeps_its_bytes() {
        let mut writer = FrameWriter::new();
        writer.push(&of_shard(Body::SettleAsk { committed_at_most: None })).unwrap();
        writer.push(&of_shard(Body::Question { number: 1 })).unwrap();
        let mut bytes = Vec::new();
        writer.swap(&mut bytes);
        assert_eq!(
            hex(&bytes),
            "a7ce0022000000d160f6990d000000001101000000505c18a30106000d000000001101000000505c18a3010401"
        );
    }

    #[test]
    fn a_hello_keeps_its_bytes() {
        let mut bytes = Vec::new();
        hello_of(1).write(&mut bytes);
        assert_eq!(
            hex(&bytes),
            "616e74656365646523001ef7a7a1010230313233343536373839616263646566010001000301000000505c18a301010102"
        );
    }
}

mod any {
    use super::*;

    fn stamp() -> impl Strategy<Value = Timestamp> + Clone {
        any::<u64>().prop_map(Timestamp)
    }

    fn datacenter() -> impl Strategy<Value = DatacenterId> + Clone {
        any::<u16>().prop_map(DatacenterId)
    }

    fn writes() -> impl Strategy<Value = Vec<(DatacenterId, Timestamp)>> {
        vec((datacenter(), stamp()), 0..4)
    }

    fn request() -> impl Strategy<Value = RequestId> {
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(node, session, number)| RequestId {
            node: NodeId::from_bits(node),
            session: SessionId(session),
            number,
        })
    }

    fn dependency() -> impl Strategy<Value = Dependency> {
        (datacenter(), any::<u16>(), stamp()).prop_map(|(origin, shard, stamp)| Dependency {
            origin,
            shard: ShardId(shard),
            stamp,
        })
    }

    fn version() -> impl Strategy<Value = Version> {
        (stamp(), datacenter()).prop_map(|(timestamp, origin)| Version { timestamp, origin })
    }

    fn body(stamp: Timestamp) -> impl Strategy<Value = entry::Body> {
        let key = vec(any::<u8>(), 0..9);
        let seen = vec((datacenter(), 0..=stamp.0), 0..3);
        let change = (0..6_u8, any::<u64>(), vec(any::<u8>(), 0..9));
        let effects = vec((key, seen, change), 0..3);
        let exact = vec((datacenter(), any::<u16>(), 0..=stamp.0), 0..4);
        let write = (exact, effects).prop_map(move |(exact, effects)| {
            let exact = exact
                .into_iter()
                .map(|(origin, shard, stamp)| Dependency {
                    origin,
                    shard: ShardId(shard),
                    stamp: Timestamp(stamp),
                })
                .collect();
            let effects: Vec<_> = effects
                .iter()
                .map(|(key, seen, (tag, deadline, value))| Effect {
                    key,
                    seen: seen
                        .iter()
                        .map(|(origin, stamp)| Version {
                            timestamp: Timestamp(*stamp),
                            origin: *origin,
                        })
                        .collect(),
                    change: match tag {
                        0 => Change::Set { value, deadline: None },
                        1 => Change::Set { value, deadline: Some(*deadline) },
                        2 => Change::Delete,
                        3 => Change::Ttl { deadline: None },
                        4 => Change::Ttl { deadline: Some(*deadline) },
                        _ => Change::Hide,
                    },
                })
                .collect();
            let mut bytes = Vec::new();
            let dependencies = Dependencies { exact, floor: Vec::new() };
            entry::Body::encode(&mut bytes, stamp, &dependencies, effects.into_iter());
            entry::Body::Write(bytes.into())
        });
        prop_oneof![Just(entry::Body::Tick), write]
    }

    fn retry() -> impl Strategy<Value = Retry> {
        ("[A-Za-z0-9_-]{1,64}", any::<u64>(), any::<u32>())
            .prop_map(|(client, number, words)| Retry { client: client.into(), number, words })
    }

    fn kept_of_any() -> impl Strategy<Value = Kept> {
        (retry(), 0..5000_usize)
            .prop_map(|(retry, length)| Kept::of(retry, &Response::Bytes(vec![7; length])))
    }

    fn remembered_of_any() -> impl Strategy<Value = Remembered> {
        vec(kept_of_any(), 0..5).prop_map(|all| {
            let mut retries = Retries::new(3, true);
            for (kept, position) in all.into_iter().zip(1..) {
                retries.push(Position(position), Timestamp(position), &Arc::new(kept));
            }
            retries.at_position(Position(9))
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), stamp());
        (stamp(), datacenter())
            .prop_flat_map(move |(stamp, origin)| {
                let kept = option::weighted(0.3, kept_of_any());
                (body(stamp), Just((stamp, origin)), numbers.clone(), 0..=stamp.0, kept)
            })
            .prop_map(|(body, (stamp, origin), numbers, previous, kept)| {
                let (epoch, boot, position, lineage, visible_at) = numbers;
                let mut entry = Entry {
                    identity: Identity {
                        epoch: Epoch(epoch),
                        boot: Boot(boot),
                        position: Position(position),
                        checksum: 0,
                    },
                    origin,
                    lineage: Lineage(lineage),
                    stamp,
                    previous: Timestamp(previous),
                    visible_at,
                    body,
                    kept: kept.map(Arc::new),
                };
                entry.identity.checksum = entry.computed_checksum();
                entry
            })
    }

    fn replicate() -> impl Strategy<Value = Replicate> {
        (vec(entry(), 0..4), any::<bool>(), any::<u64>(), stamp()).prop_map(
            |(mut entries, is_fetched, membership, previous)| {
                entries.sort_by_key(|entry| entry.stamp);
                entries.dedup_by_key(|entry| entry.stamp);
                entries.retain(|entry| is_fetched || previous < entry.stamp);
                let mut before = previous;
                for entry in &mut entries {
                    entry.identity = Identity::default();
                    (entry.origin, entry.lineage) = (DatacenterId(7), Lineage(2));
                    entry.visible_at = entry.stamp;
                    entry.kept = None;
                    if !is_fetched {
                        entry.previous = before;
                    }
                    before = entry.stamp;
                }
                let membership = MembershipEpoch(membership);
                let (origin, lineage) = (DatacenterId(7), Lineage(2));
                Replicate { membership, origin, lineage, previous, entries, is_fetched }
            },
        )
    }

    fn response() -> impl Strategy<Value = Response> {
        let bytes = || vec(any::<u8>(), 0..9);
        let leaf = prop_oneof![
            Just(Response::Ok),
            Just(Response::Nil),
            Just(Response::Aborted),
            any::<i64>().prop_map(Response::Integer),
            bytes().prop_map(Response::Bytes),
            Just(Response::Word(Word::Raw)),
            prop_oneof![
                version().prop_map(Sighting::Present),
                stamp().prop_map(|at| Sighting::Absent { at }),
            ]
            .prop_map(Response::Observed),
            (option::of(any::<u64>()), vec(bytes(), 0..3))
                .prop_map(|(next, keys)| Response::Scanned { next, keys }),
            any::<u16>()
                .prop_map(|shard| Response::Refused(Refusal::Settling { shard: ShardId(shard) })),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| vec(inner, 0..4).prop_map(Response::List))
    }

    fn carried() -> impl Strategy<Value = Carried> {
        let level = prop_oneof![Just(Consistency::Eventual), Just(Consistency::Linearizable)];
        let place = prop_oneof![Just(Place::Anywhere), Just(Place::Head), Just(Place::Tail)];
        (vec(dependency(), 0..4), writes(), stamp(), level, place).prop_map(
            |(exact, floor, time, level, place)| Carried {
                dependencies: Dependencies { exact, floor },
                time,
                level,
                place,
            },
        )
    }

    fn operation() -> impl Strategy<Value = Vec<u8>> {
        (vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..9)).prop_map(|(key, value)| {
            let (condition, ttl, reply) = (Condition::Always, Ttl::Clear, SetReply::Status);
            let action = Action::Set { value: &value, condition, ttl, reply };
            let mut bytes = Vec::new();
            ShardOperation::One(Operation { key: &key, action })
                .write(&mut Writer::new(&mut bytes));
            bytes
        })
    }

    fn chain_body() -> impl Strategy<Value = Body> {
        let position = || any::<u64>().prop_map(Position);
        let progress = || {
            (position(), position())
                .prop_map(|(persisted_to, synced_to)| Progress { persisted_to, synced_to })
        };
        let last = option::of(entry().prop_map(|entry| entry.identity));
        prop_oneof![
            vec(entry(), 0..4).prop_map(|entries| Body::Forward { entries }),
            (progress(), vec(any::<u64>().prop_map(Boot), 0..4)).prop_map(|(progress, boots)| {
                Body::Persisted(Promise { progress, boots: boots.into() })
            }),
            progress().prop_map(Body::Ack),
            position().prop_map(|from| Body::SendAgain { from }),
            any::<u32>().prop_map(|bits| Body::NoRoom { node: NodeId::from_bits(bits) }),
            any::<u64>().prop_map(|number| Body::Question { number }),
            (any::<u64>(), position())
                .prop_map(|(number, committed_to)| Body::Answer { number, committed_to }),
            option::of(position())
                .prop_map(|committed_at_most| Body::SettleAsk { committed_at_most }),
            (last, any::<bool>()).prop_map(|(last, is_complete)| Body::SettleTell {
                last,
                is_complete,
                asked_by: is_complete.then_some(Boot(7)),
            }),
            position().prop_map(|from| Body::TakeBack { from }),
            vec(entry(), 0..4).prop_map(|entries| Body::Returned { entries }),
        ]
    }

    fn other_body() -> impl Strategy<Value = Body> {
        let stamps = || vec(stamp(), 0..4);
        let asker = prop_oneof![
            any::<u16>().prop_map(|shard| Asker::Shard(ShardId(shard))),
            request().prop_map(Asker::Session),
        ];
        let numbers = (any::<u64>(), any::<u32>(), stamp(), stamp(), any::<u32>());
        let epoch = || any::<u64>().prop_map(MembershipEpoch);
        let handed = prop_oneof![
            (epoch(), datacenter(), vec(entry(), 0..4)).prop_map(
                |(membership, origin, entries)| Body::HandOn { membership, origin, entries }
            ),
            (epoch(), datacenter(), stamps()).prop_map(|(membership, origin, stamps)| {
                Body::HandedOn { membership, origin, stamps }
            }),
        ];
        prop_oneof![
            (request(), operation(), carried(), option::of(retry())).prop_map(
                |(id, operation, carried, retry)| {
                    Body::Request(Request { id, operation, carried, retry })
                }
            ),
            (asker, writes()).prop_map(|(asker, writes)| Body::AwaitApplied { asker, writes }),
            (any::<u16>(), writes())
                .prop_map(|(by, writes)| Body::Applied { by: ShardId(by), writes }),
            replicate().prop_map(Body::Replicate),
            (numbers, stamps()).prop_map(
                |((membership, lineage, received_to, applied_to, credit), above)| {
                    Body::Received(Received {
                        membership: MembershipEpoch(membership),
                        lineage: Lineage(lineage),
                        received_to,
                        applied_to,
                        above,
                        credit,
                    })
                }
            ),
            (any::<u64>(), any::<u32>(), stamps()).prop_map(|(membership, lineage, stamps)| {
                let (membership, lineage) = (MembershipEpoch(membership), Lineage(lineage));
                Body::Fetch { membership, lineage, stamps }
            }),
            (any::<u64>(), any::<u32>(), stamp()).prop_map(|(membership, lineage, to)| {
                let (membership, lineage) = (MembershipEpoch(membership), Lineage(lineage));
                Body::HadApplied(HadApplied { membership, lineage, to })
            }),
            handed,
        ]
    }

    fn start() -> impl Strategy<Value = Start> {
        let links = vec((1_u64..99, 1_u64..99), 0..4);
        let applied = (any::<u32>(), links).prop_map(|(watermark, links)| {
            let mut applied = AppliedSet::default();
            applied.raise(Timestamp(u64::from(watermark)));
            let mut last = u64::from(watermark);
            for (gap, length) in links {
                let previous = last + gap;
                last = previous + length;
                applied.record(Timestamp(previous), Timestamp(last));
            }
            applied
        });
        let line = (datacenter(), applied, stamp()).prop_map(|(origin, applied, newest_write)| {
            LineStart { origin, applied, newest_write }
        });
        let last = option::of(entry().prop_map(|entry| entry.identity));
        (last, vec(line, 0..3), stamp(), stamp(), remembered_of_any()).prop_map(
            |(last, lines, shown_to, collected_to, retries)| Start {
                last,
                lines,
                shown_to,
                collected_to,
                retries,
            },
        )
    }

    /// Of keys that entries have made.
    fn part() -> impl Strategy<Value = Part> {
        (vec(entry(), 0..4), 1..600_usize).prop_map(|(mut entries, bytes_max)| {
            let mut keys = Keys::new(1);
            for (entry, position) in entries.iter_mut().zip(1..) {
                entry.identity.position = Position(position);
                keys.commit(entry, &mut Vec::new());
            }
            let first = keys.part(0, bytes_max).unwrap();
            first.next.map_or(first, |from| keys.part(from, bytes_max).unwrap())
        })
    }

    fn copy_body() -> impl Strategy<Value = Body> {
        let position = || any::<u64>().prop_map(Position);
        let name = || option::of(entry().prop_map(|entry| entry.identity));
        let names = (name(), name());
        let ask =
            (any::<u64>(), names, option::of(position()), option::of(any::<u64>()), any::<bool>());
        let copied = (
            (any::<u64>(), position(), position(), position()),
            vec(entry(), 0..3),
            vec(entry(), 0..3),
            option::of(part()),
        );
        prop_oneof![
            ask.prop_map(|(number, (last, committed), window_from, part_from, is_whole)| {
                let ask = CopyAsk { number, last, committed, window_from, part_from, is_whole };
                Body::CopyAsk(ask)
            }),
            (any::<u64>(), start()).prop_map(|(number, start)| Body::CopyAnew { number, start }),
            copied.prop_map(|(numbers, history, entries, part)| {
                let (number, behind, committed_to, durable_to) = numbers;
                let copied =
                    Copied { number, behind, committed_to, durable_to, history, entries, part };
                Body::Copied(copied)
            }),
        ]
    }

    fn part_of_configuration() -> impl Strategy<Value = Datacenter> {
        let node = || any::<u32>().prop_map(NodeId::from_bits);
        let epoch = || any::<u64>().prop_map(Epoch);
        let why = prop_oneof![
            Just(Waiting::Syncing),
            Just(Waiting::LastServing),
            Just(Waiting::Offline),
        ];
        let chain = (epoch(), vec(node(), 0..4), vec((node(), why), 0..3)).prop_map(
            |(epoch, serving, waiting)| Chain {
                epoch,
                serving,
                waiting: waiting.into_iter().collect(),
            },
        );
        let boots = vec((node(), any::<u64>().prop_map(Boot)), 0..4);
        let some = || vec(node(), 0..3);
        let nodes = (vec(node(), 0..4), some(), some(), some(), some());
        let retiring = vec((any::<u16>().prop_map(ShardId), (node(), epoch())), 0..3);
        let wished = (any::<u16>(), retiring);
        (".{0,9}", epoch(), nodes, boots, wished, vec(chain, 0..4), any::<bool>()).prop_map(
            |(name, epoch, nodes, boots, (replicas, retiring), chains, has_members)| {
                let (nodes, absent, short, apart, drained) = nodes;
                Datacenter {
                    name,
                    epoch,
                    nodes,
                    absent: absent.into_iter().collect(),
                    short: short.into_iter().collect(),
                    apart: apart.into_iter().collect(),
                    boots: boots.into_iter().collect(),
                    replicas,
                    drained: drained.into_iter().collect(),
                    retiring: retiring.into_iter().collect(),
                    chains,
                    membership: has_members.then(|| Arc::new(membership())),
                }
            },
        )
    }

    pub(super) fn record() -> impl Strategy<Value = Record> {
        let shard = || any::<u16>().prop_map(ShardId);
        let position = || any::<u64>().prop_map(Position);
        prop_oneof![
            (shard(), position(), entry()).prop_map(|(shard, committed_to, entry)| {
                Record::Entry { shard, committed_to, entry }
            }),
            (shard(), position()).prop_map(|(shard, to)| Record::CutBack { shard, to }),
            (shard(), position()).prop_map(|(shard, to)| Record::Trimmed { shard, to }),
            (shard(), start()).prop_map(|(shard, start)| Record::Begun { shard, start }),
            (shard(), entry()).prop_map(|(shard, entry)| Record::History { shard, entry }),
            (shard(), part()).prop_map(|(shard, part)| Record::Part { shard, part }),
            stamp().prop_map(Record::Ceiling),
        ]
    }

    fn cut_report() -> impl Strategy<Value = CutReport> {
        let shard = || any::<u16>().prop_map(ShardId);
        let scope = prop_oneof![
            (vec((shard(), shard()), 0..3), writes(), stamp()).prop_map(
                |(shards, applied, ticks_to)| CutScope::Node {
                    is_handed_out: shards.is_empty(),
                    shards,
                    applied: Cut::of(applied),
                    ticks_to,
                }
            ),
            (writes(), stamp()).prop_map(|(applied, ticks_to)| CutScope::Datacenter {
                applied: Cut::of(applied),
                ticks_to,
            }),
        ];
        (any::<u64>(), any::<u64>(), stamp(), scope).prop_map(|(epoch, membership, hlc, scope)| {
            let (epoch, membership) = (Epoch(epoch), MembershipEpoch(membership));
            CutReport { epoch, membership, hlc, scope }
        })
    }

    pub(super) fn message() -> impl Strategy<Value = Message> {
        let body = prop_oneof![chain_body(), other_body(), copy_body()];
        let reply =
            (response(), option::of(dependency()), vec(version(), 0..3), any::<u16>(), stamp())
                .prop_map(|(response, wrote, observed, shard, visible_at)| Reply {
                    response,
                    wrote,
                    observed: SmallVec::from_vec(observed),
                    shard: ShardId(shard),
                    visible_at,
                });
        prop_oneof![
            4 => (any::<u16>(), any::<u64>(), stamp(), body).prop_map(
                |(shard, epoch, hlc, body)| Message::Shard(ShardMessage {
                    shard: ShardId(shard),
                    epoch: Epoch(epoch),
                    hlc,
                    body,
                })
            ),
            1 => (request(), reply).prop_map(|(request, reply)| Message::Reply(request, reply)),
            1 => cut_report().prop_map(Message::Cut),
            1 => (datacenter(), part_of_configuration())
                .prop_map(|(of, part)| Message::Configuration(of, Box::new(part))),
            1 => datacenter().prop_map(Message::AskConfiguration),
        ]
    }
}

proptest! {
    #[test]
    fn messages_come_back(message in any::message()) {
        prop_assert_eq!(read_message(&bytes_of(&message)), Ok(message));
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
        let read = read_message(&bytes);
        prop_assert!(read.is_ok() || read.is_err());
        let read = Hello::read(&bytes);
        prop_assert!(read.is_ok() || read.is_err());
        let mut reader = FrameReader::new();
        reader.feed(&bytes);
        prop_assert!(!matches!(reader.next(), Ok(Some(_))));
    }

    #[test]
    fn messages_with_changed_bytes_are_read_or_refused_without_a_panic(
        message in any::message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(&message);
        let length = bytes.len();
        prop_assert!(read_message(&bytes[..cut.index(length)]).is_err());
        for (place, byte) in changes {
            bytes[place.index(length)] = byte;
        }
        let read = read_message(&bytes);
        prop_assert!(read.is_ok() || read.is_err());
    }

    #[test]
    fn records_come_back_and_damaged_ones_are_read_or_refused_without_a_panic(
        record in any::record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of_record(&record);
        prop_assert_eq!(Record::read(&bytes), Ok(record));
        let length = bytes.len();
        prop_assert!(Record::read(&bytes[..cut.index(length)]).is_err());
        for (place, byte) in changes {
            bytes[place.index(length)] = byte;
        }
        if let Ok(changed) = Record::read(&bytes) {
            let again = bytes_of_record(&changed);
            prop_assert_eq!(Record::read(&again), Ok(changed));
        }
    }

    #[test]
    fn keys_of_a_copy_that_were_read_can_be_installed(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        next in option::of(1..u64::MAX),
    ) {
        let mut part = Part { next, ..part_of_copy() };
        for (place, byte) in changes {
            let at = place.index(part.records.len());
            let record = &mut part.records[at];
            let at = place.index(record.len());
            record[at] = byte;
        }
        let bytes = bytes_of_record(&Record::Part { shard: ShardId(1), part: part.clone() });
        if let Ok(Record::Part { part, shard: _ }) = Record::read(&bytes) {
            let mut keys = Keys::new(1);
    keys.copy_from(&start_of_copy());
            prop_assert!(keys.install(&part));
            prop_assert_eq!(keys.frontier(), next);
            prop_assert!(keys.live_count() + keys.tombstone_count() <= part.records.len());
            let again = keys.part(0, usize::MAX).unwrap();
            prop_assert!(again.records.iter().all(|record| part.records.contains(record)));
        }
    }

    #[test]
    fn frames_come_back_however_their_bytes_arrive(
        messages in vec(any::message(), 0..6),
        flushes in vec(any::<bool>(), 6),
        steps in vec(1..60_usize, 1..20),
    ) {
        let (mut writer, mut sent, mut flushed) = (FrameWriter::new(), Vec::new(), Vec::new());
        for (message, flush) in messages.iter().zip(flushes) {
            writer.push(message).unwrap();
            if flush {
                writer.swap(&mut flushed);
                sent.extend_from_slice(&flushed);
            }
        }
        writer.swap(&mut flushed);
        sent.extend_from_slice(&flushed);
        let (mut reader, mut found) = (FrameReader::new(), Vec::new());
        let mut rest = &sent[..];
        for step in steps.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (fed, later) = rest.split_at(step.min(rest.len()));
            reader.feed(fed);
            rest = later;
            while let Some(message) = reader.next().unwrap() {
                found.push(message);
            }
        }
        prop_assert_eq!(found, messages);
        prop_assert_eq!(reader.held_bytes(), 0);
    }
}

mod frames {
    use super::*;

    fn long_message(length: usize) -> Message {
        let reply = Reply {
            response: Response::Bytes(vec![7; length]),
            wrote: None,
            observed: SmallVec::new(),
            shard: ShardId(1),
            visible_at: Timestamp(NOW),
        };
        Message::Reply(request(1), reply)
    }

    fn sent(messages: &[Message]) -> Vec<u8> {
        let (mut writer, mut bytes) = (FrameWriter::new(), Vec::new());
        for message in messages {
            writer.push(message).unwrap();
        }
        writer.swap(&mut bytes);
        assert!(writer.is_empty());
        bytes
    }

    fn lengths(mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let [_, _, _, a, b, c, d, _, _, _, _, rest @ ..] = bytes {
            let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            lengths.push(length);
            bytes = &rest[length..];
        }
        lengths
    }

    #[test]
    fn messages_of_one_flush_share_a_frame() {
        assert_eq!(lengths(&sent(&vec![long_message(10); 50])).len(), 1);
    }

    #[test]
    fn a_full_frame_is_followed_by_another() {
        let bytes = sent(&vec![long_message(FRAME_BYTES_USUAL / 2); 6]);
        let lengths = lengths(&bytes);
        assert_eq!(lengths.len(), 3, "{lengths:?}");
        assert!(lengths.iter().all(|length| *length < FRAME_BYTES_USUAL + 200), "{lengths:?}");
    }

    #[test]
    fn a_long_message_travels_in_pieces_between_others() {
        let messages = [long_message(1), long_message(3 * FRAME_BYTES_USUAL + 5), long_message(2)];
        let bytes = sent(&messages);
        assert_eq!(lengths(&bytes).len(), 6);
        let mut reader = FrameReader::new();
        let mut found = Vec::new();
        for part in bytes.chunks(100_000) {
            reader.feed(part);
            while let Some(message) = reader.next().unwrap() {
                found.push(message);
            }
        }
        assert_eq!(found, messages);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_head() {
        let mut bytes = sent(&[long_message(1)]);
        let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
        bytes[3..7].copy_from_slice(&length.to_le_bytes());
        let mut reader = FrameReader::new();
        reader.feed(&bytes[..11]);
        assert!(matches!(reader.next(), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn an_announced_length_takes_no_memory_before_the_bytes_arrive() {
        let mut bytes = sent(&[long_message(1)]);
        let length = u32::try_from(FRAME_BYTES_MAX).unwrap();
        bytes[3..7].copy_from_slice(&length.to_le_bytes());
        let mut reader = FrameReader::new();
        reader.feed(&bytes);
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(reader.held_bytes(), bytes.len());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sent(&[of_shard(Body::SettleAsk { committed_at_most: None })]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut reader = FrameReader::new();
            reader.feed(&damaged);
            assert!(!matches!(reader.next(), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_message_in_pieces_is_not_interrupted() {
        let bytes = sent(&[long_message(FRAME_BYTES_USUAL + 5)]);
        let piece = lengths(&bytes)[0] + 11;
        let mut reader = FrameReader::new();
        reader.feed(&bytes[..piece]);
        assert_eq!(reader.next(), Ok(None));
        reader.feed(&sent(&[long_message(1)]));
        assert!(matches!(reader.next(), Err(FrameError::Damaged(_))));
    }
}

#[test]
fn copies_that_contradict_themselves_are_refused() {
    let told = |part| {
        let (behind, committed_to, durable_to) = (Position(9), Position(9), Position(9));
        let (history, entries) = (Vec::new(), Vec::new());
        let part = Some(part);
        let copied = Copied { number: 1, behind, committed_to, durable_to, history, entries, part };
        read_message(&bytes_of(&of_shard(Body::Copied(copied))))
    };
    let part = part_of_copy();
    assert!(told(Part { from: 5, next: Some(6), ..part.clone() }).is_ok());
    for next in [4, 5] {
        let refused = told(Part { from: 5, next: Some(next), ..part.clone() });
        assert!(matches!(refused, Err(DecodeError::OverLimit { what: "a first hash", .. })));
    }
    for (length, record) in part.records.iter().flat_map(|record| (0..12).zip([record; 12])) {
        let records = vec![record[..length].into()];
        let refused = told(Part { records, ..part.clone() });
        assert!(refused.is_err(), "the first {length} bytes of a record are none");
    }
}

#[test]
fn tags_that_there_are_not_are_refused() {
    for tag in [5, 255] {
        let read = read_message(&[tag, 0, 0]);
        assert!(matches!(read, Err(DecodeError::UnknownTag { what: "message", .. })), "{tag}");
    }
    let bytes = bytes_of(&of_shard(Body::Question { number: 1 }));
    let tag_at = bytes.len() - 2;
    for tag in [24, 255] {
        let mut bytes = bytes.clone();
        bytes[tag_at] = tag;
        let read = read_message(&bytes);
        let what = "message for a shard";
        assert!(matches!(read, Err(DecodeError::UnknownTag { what: found, .. }) if found == what));
    }
    for tag in [7, 255] {
        let read = Record::read(&[tag, 0, 0]);
        assert!(matches!(read, Err(DecodeError::UnknownTag { what: "log record", .. })), "{tag}");
    }
}

#[test]
fn what_follows_a_message_or_a_record_is_refused() {
    let mut bytes = bytes_of(&Message::AskConfiguration(DatacenterId(1)));
    bytes.push(0);
    assert!(read_message(&bytes).is_err());
    let mut bytes = bytes_of_record(&Record::CutBack { shard: ShardId(1), to: Position(2) });
    bytes.push(0);
    assert!(Record::read(&bytes).is_err());
}

#[test]
fn a_list_that_is_too_long_is_refused() {
    let stamps = vec![Timestamp(1); ITEMS_MAX + 1];
    let (membership, lineage) = (MembershipEpoch(1), Lineage(1));
    let bytes = bytes_of(&of_shard(Body::Fetch { membership, lineage, stamps }));
    assert!(matches!(read_message(&bytes), Err(DecodeError::OverLimit { what: "stamps", .. })));
}

#[test]
fn a_request_with_an_operation_that_is_none_is_refused() {
    let operation = vec![99];
    let id = request(1);
    let message = Request { id, operation, carried: Carried::default(), retry: None };
    assert!(read_message(&bytes_of(&of_shard(Body::Request(message)))).is_err());
}

/// The design allows 40 bytes beyond key and value for usual sessions; this message head
/// included.
#[test]
fn a_replicated_write_costs_few_bytes_beyond_key_and_value() {
    let (key, value) = (b"user:12345678", [b'v'; 128]);
    let spacing = 3 << 16;
    let entries = (0..10)
        .map(|at| {
            let stamp = NOW + (at + 1) * spacing;
            let stamp_of_dependency = Timestamp(stamp - (2_000 << 16));
            let dependency = Dependency {
                origin: DatacenterId(2),
                shard: ShardId(200),
                stamp: stamp_of_dependency,
            };
            let dependencies = Dependencies { exact: vec![dependency], floor: Vec::new() };
            let seen = Some(stamp - (3_600_000 << 16));
            write(stamp, NOW + at * spacing, &dependencies, set(key, &value, seen))
        })
        .collect();
    let message = of_shard(Body::Replicate(Replicate {
        membership: MembershipEpoch(1),
        origin: DatacenterId(1),
        lineage: Lineage(1),
        previous: Timestamp(NOW),
        entries,
        is_fetched: false,
    }));
    let mut writer = FrameWriter::new();
    writer.push(&message).unwrap();
    let mut bytes = Vec::new();
    writer.swap(&mut bytes);
    let each = bytes.len() / 10 - key.len() - value.len();
    assert!(each <= 40, "{each} bytes a write");
    assert_eq!(each, 30);
    let mut reader = FrameReader::new();
    reader.feed(&bytes);
    assert_eq!(reader.next(), Ok(Some(message)));
}

fn hello_of(number: u16) -> Hello {
    Hello {
        version_min: 1,
        version_max: 2,
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

mod hellos {
    use std::time::Duration;

    use super::*;

    fn judge(theirs: &Hello) -> Result<u16, LinkRefusal> {
        let configuration = Configuration::of(&Layout {
            deployment: hello_of(1).deployment,
            shard_count: ShardCount::new(1).unwrap(),
            chain_length: 2,
            datacenters: vec![(DatacenterId(1), "one".to_owned(), 2)],
        });
        let wall = Wall(Timestamp(NOW).millis() * 1000);
        hello_of(1).accept(theirs, &configuration, wall, Duration::from_millis(500))
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(judge(&hello_of(2)), Ok(2));
        assert_eq!(judge(&Hello { version_max: 9, ..hello_of(2) }), Ok(2));
        assert_eq!(judge(&Hello { version_max: 1, ..hello_of(2) }), Ok(1));
    }

    #[test]
    fn refusals_name_both_sides() {
        let refusal = judge(&Hello { deployment: DeploymentId([1; 16]), ..hello_of(2) });
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "node 1.2 is of deployment 01010101010101010101010101010101, this node 1.1 is of \
             30313233343536373839616263646566; check the address"
        );
        let refusal = judge(&hello_of(3)).unwrap_err();
        assert!(refusal.to_string().starts_with("node 1.3 (membership 1) is not in the"));
        assert_eq!(judge(&hello_of(1)), Err(LinkRefusal::SameNode(hello_of(1).node)));
        let refusal = judge(&Hello { version_min: 3, version_max: 4, ..hello_of(2) });
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "node 1.2 speaks protocol 3 to 4, this node 1.1 speaks 1 to 2; upgrade one of them"
        );
        let ahead = Timestamp(NOW + (501 << 16));
        let refusal = judge(&Hello { hlc: ahead, ..hello_of(2) }).unwrap_err();
        assert!(matches!(refusal, LinkRefusal::Drift { ahead_millis: 501, .. }));
        assert_eq!(judge(&Hello { hlc: Timestamp(NOW + (500 << 16)), ..hello_of(2) }), Ok(2));
    }

    #[test]
    fn a_hello_is_read_once_all_of_it_is_there() {
        let mut bytes = Vec::new();
        hello_of(1).write(&mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Hello::read(&bytes[..length]), Ok(None), "{length} bytes");
        }
        let length = bytes.len();
        bytes.extend_from_slice(b"frames");
        assert_eq!(Hello::read(&bytes), Ok(Some((hello_of(1), length))));
    }

    #[test]
    fn what_a_later_build_adds_is_skipped() {
        let mut bytes = Vec::new();
        hello_of(1).write(&mut bytes);
        let mut content = bytes.split_off(14);
        content.extend_from_slice(b"more");
        bytes[8..10].copy_from_slice(&u16::try_from(content.len()).unwrap().to_le_bytes());
        bytes[10..14].copy_from_slice(&crc32c::crc32c(&content).to_le_bytes());
        bytes.extend_from_slice(&content);
        assert_eq!(Hello::read(&bytes), Ok(Some((hello_of(1), bytes.len()))));
    }

    #[test]
    fn another_protocol_is_refused_at_its_first_byte() {
        assert_eq!(Hello::read(b"GET / HTTP/1.1"), Err(ReadHelloError::NotAHello));
        assert_eq!(Hello::read(b"*"), Err(ReadHelloError::NotAHello));
    }

    #[test]
    fn a_damaged_hello_is_refused() {
        let mut bytes = Vec::new();
        hello_of(1).write(&mut bytes);
        bytes[20] ^= 1;
        assert!(matches!(Hello::read(&bytes), Err(ReadHelloError::Damaged(_))));
    }
}

mod relays {
    use super::*;

    fn node(datacenter: u16, number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(datacenter), number }
    }

    fn request() -> RelayRequest {
        RelayRequest { deployment: hello_of(1).deployment, from: node(1, 1), to: node(3, 2) }
    }

    fn accepts(here: NodeId, request: RelayRequest) -> Result<(), RelayRefusal> {
        let names = ["one", "two", "three"];
        let of = |at: u16| (DatacenterId(at), names[usize::from(at) - 1].to_owned(), 2);
        let configuration = Configuration::of(&Layout {
            deployment: hello_of(1).deployment,
            shard_count: ShardCount::new(1).unwrap(),
            chain_length: 2,
            datacenters: (1..=3).map(of).collect(),
        });
        request.accept(here, &configuration)
    }

    #[test]
    fn only_a_node_of_a_third_datacenter_passes_on_and_only_for_nodes_that_it_knows() {
        assert_eq!(accepts(node(2, 1), request()), Ok(()));
        for here in [node(1, 2), node(3, 1)] {
            assert_eq!(accepts(here, request()), Err(RelayRefusal::NoSuchWay), "{here}");
        }
        let near = RelayRequest { to: node(1, 2), ..request() };
        assert_eq!(accepts(node(2, 1), near), Err(RelayRefusal::NoSuchWay));
        for (from, to) in
            [(node(1, 3), node(3, 2)), (node(1, 1), node(3, 3)), (node(4, 1), node(3, 1))]
        {
            let unknown = RelayRequest { from, to, ..request() };
            assert_eq!(accepts(node(2, 1), unknown), Err(RelayRefusal::NoSuchWay), "{from} {to}");
        }
        let other = RelayRequest { deployment: DeploymentId([1; 16]), ..request() };
        assert_eq!(accepts(node(2, 1), other), Err(RelayRefusal::OtherDeployment));
    }

    #[test]
    fn a_connection_begins_with_a_hello_or_a_request() {
        let (mut hello, mut relay) = (Vec::new(), Vec::new());
        hello_of(1).write(&mut hello);
        request().write(&mut relay);
        let wanted = [Opening::Hello(hello_of(1)), Opening::Relay(request())];
        for (mut bytes, wanted) in [hello, relay].into_iter().zip(wanted) {
            for length in 0..bytes.len() {
                assert_eq!(Opening::read(&bytes[..length]), Ok(None), "{length} bytes");
            }
            let length = bytes.len();
            bytes.extend_from_slice(b"what follows");
            assert_eq!(Opening::read(&bytes), Ok(Some((wanted, length))));
            bytes[length - 1] ^= 1;
            assert!(matches!(Opening::read(&bytes), Err(ReadHelloError::Damaged(_))));
        }
        assert_eq!(Opening::read(b"anterior"), Err(ReadHelloError::NotAHello));
        assert_eq!(Opening::read(b"*"), Err(ReadHelloError::NotAHello));
    }

    #[test]
    fn every_answer_is_read_as_it_was_meant() {
        let refusals = [
            RelayRefusal::OtherDeployment,
            RelayRefusal::NoSuchWay,
            RelayRefusal::Unreached,
            RelayRefusal::Busy,
        ];
        let refused = refusals.into_iter().map(RelayAnswer::Refused);
        for answer in refused.chain([RelayAnswer::Open]) {
            let mut bytes = Vec::new();
            answer.write(&mut bytes);
            assert_eq!(RelayAnswer::read(&bytes[..bytes.len() - 1]), Ok(None));
            assert_eq!(RelayAnswer::read(&bytes), Ok(Some((answer, bytes.len()))));
        }
    }

    #[test]
    fn a_request_and_its_answer_keep_their_bytes() {
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        request().write(&mut asked);
        RelayAnswer::Refused(RelayRefusal::Unreached).write(&mut answered);
        assert_eq!(
            hex(&asked),
            "616e746572656c791800c4b81ab5303132333435363738396162636465660100010002000300"
        );
        assert_eq!(hex(&answered), "616e746572656c790100a5a02d4103");
    }
}
