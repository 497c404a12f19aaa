//! Machine tests of chains and of replication between datacenters, on a network that keeps order; and
//! the window against a plain list.

/// Datacenters that have much to make up for.
mod catching_up;
/// Recovery from checkpoints.
mod checkpoints;
/// Values that are on disk only.
mod cold;
/// What is kept for a datacenter that is behind.
mod kept;
/// A datacenter alone.
mod lone;
/// Requests with an id.
mod retries;
/// A datacenter that is being added.
mod seed;
/// Logs that were set back.
mod set_back;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antecede_model::{
    clock::{Now, Wall},
    configuration::{Layout, Waiting},
    ids::{DeploymentId, LogIndex, RequestId},
    key::ShardCount,
    membership::Gone,
    operation::{Action, Condition, Operation, SetReply, ShardOperation, Ttl},
    response::Response,
    retry::Retry,
};

use super::*;
use crate::{
    entry::Identity,
    geo::{
        cuts::{CutInput, CutKeeper},
        kept::{Behind, Bound, Kept},
    },
    machine::{Lease, Room},
    message::{Carried, Place, Reply},
    record::Record,
};

/// Request ids that a shard of these tests remembers.
const RETRIES: usize = 4;

/// A node's log in memory; nothing is persisted before the test says so.
#[derive(Debug, Default)]
struct Disk {
    records: Vec<Vec<u8>>,
    persisted: usize,
    room: Room,
    held_up_by: Option<Behind>,
}

impl Storage for Disk {
    fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.records.push(bytes);
        LogIndex(self.records.len() as u64)
    }

    fn reached(&self) -> Persisted {
        let to = LogIndex(self.persisted as u64);
        Persisted { to, synced_to: to }
    }

    fn room(&self) -> Room {
        self.room
    }

    fn has_memory(&self) -> bool {
        true
    }

    fn held_up_by(&self) -> Option<Behind> {
        self.held_up_by
    }
}

#[derive(Debug)]
struct Node {
    boot: Boot,
    shards: BTreeMap<ShardId, Shard>,
    keeper: CutKeeper,
    bound: Bound,
    disk: Disk,
    is_up: bool,
    holds_disk: bool,
}

/// Datacenters of nodes that hold every shard, and a network between them.
struct Deployment {
    configuration: Arc<Configuration>,
    nodes: BTreeMap<NodeId, Node>,
    queue: VecDeque<(NodeId, NodeId, Boot, Message)>,
    replies: BTreeMap<u64, Reply>,
    cut: BTreeSet<(NodeId, NodeId)>,
    millis: u64,
    asked: u64,
    events: Vec<Event>,
    loads: VecDeque<(NodeId, crate::machine::Load)>,
    /// Every message between replicas that was sent, whether it arrived or not.
    said: Vec<(NodeId, ShardMessage)>,
    lease_until: Lease,
}

fn dc(number: u16) -> DatacenterId {
    DatacenterId(number)
}

impl Deployment {
    fn of(datacenters: u16, nodes: u16, shards: u32) -> Self {
        let configuration = Arc::new(Configuration::of(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(shards).unwrap(),
            chain_length: nodes,
            datacenters: (1..=datacenters).map(|id| (dc(id), format!("dc{id}"), nodes)).collect(),
        }));
        let mut deployment = Self {
            configuration: Arc::clone(&configuration),
            nodes: BTreeMap::new(),
            queue: VecDeque::new(),
            replies: BTreeMap::new(),
            cut: BTreeSet::new(),
            millis: 1_000_000,
            asked: 0,
            events: Vec::new(),
            loads: VecDeque::new(),
            said: Vec::new(),
            lease_until: Lease::Unbounded,
        };
        let all: Vec<NodeId> =
            configuration.datacenters.values().flat_map(|dc| dc.nodes.clone()).collect();
        for node in all {
            deployment.nodes.insert(
                node,
                Node {
                    boot: Boot(0),
                    shards: BTreeMap::new(),
                    keeper: CutKeeper::new(Arc::clone(&configuration), node.datacenter),
                    bound: Bound::new(0),
                    disk: Disk::default(),
                    is_up: false,
                    holds_disk: false,
                },
            );
            deployment.start(node);
        }
        deployment.settle();
        deployment.pass(1000);
        deployment
    }

    fn here(&self, node: NodeId) -> Here {
        Here {
            node,
            boot: self.nodes[&node].boot,
            now: Now {
                steady: Steady(Duration::from_millis(self.millis)),
                wall: Wall(self.millis * 1000),
            },
            hlc_floor: Timestamp::ZERO,
            lease_until: self.lease_until,
        }
    }

    fn start(&mut self, node: NodeId) {
        let configuration = Arc::clone(&self.configuration);
        let options = ShardOptions {
            blocked_bytes_max: 1024,
            kept_bytes_max: 0,
            trimmed_bytes_min: 0,
            part_bytes: 1,
            part_pause: Duration::ZERO,
            retries_max: RETRIES,
            has_checkpoints: false,
            away_bytes_min: None,
            max_clock_drift: Duration::from_millis(500),
            hash_secret: 7,
            mutations: Mutations::NONE,
        };
        let shards: Vec<ShardId> = configuration.shards_of(node).collect();
        let state = self.nodes.get_mut(&node).unwrap();
        state.boot = Boot(state.boot.0 + 1);
        state.is_up = true;
        state.disk.records.truncate(state.disk.persisted);
        state.shards = shards
            .into_iter()
            .map(|shard| (shard, Shard::new(shard, node, Arc::clone(&configuration), options)))
            .collect();
        for (index, record) in (1..).map(LogIndex).zip(&state.disk.records) {
            let record = Record::read(record).unwrap();
            if let Some(shard) = record.shard() {
                state.shards.get_mut(&shard).unwrap().recover(index, record);
            }
        }
        let here = self.here(node);
        let mut out = Outputs::default();
        let state = self.nodes.get_mut(&node).unwrap();
        let end = LogIndex(state.disk.records.len() as u64);
        for shard in state.shards.values_mut() {
            shard.end_recovery(end).unwrap();
            shard.start(&here, &mut state.disk, &mut out);
        }
        self.take(node, out);
    }

    fn crash(&mut self, node: NodeId) {
        self.nodes.get_mut(&node).unwrap().is_up = false;
        self.queue.retain(|(from, to, ..)| *from != node && *to != node);
    }

    fn tell(&mut self, node: NodeId, shard: ShardId, input: Input<'_>) {
        let here = self.here(node);
        let mut out = Outputs::default();
        let state = self.nodes.get_mut(&node).unwrap();
        if let Some(machine) = state.shards.get_mut(&shard) {
            machine.handle(&here, input, &mut state.disk, &mut out);
        }
        self.take(node, out);
    }

    fn take(&mut self, node: NodeId, out: Outputs) {
        let boot = self.nodes[&node].boot;
        for (to, message) in out.early {
            if let Message::Shard(message) = &message {
                self.said.push((to, message.clone()));
            }
            self.queue.push_back((node, to, boot, message));
        }
        for (request, reply) in out.replies {
            if request.node == node {
                self.replies.insert(request.number, reply);
            } else {
                self.queue.push_back((node, request.node, boot, Message::Reply(request, reply)));
            }
        }
        self.events.extend(out.events);
        self.loads.extend(out.loads.into_iter().map(|load| (node, load)));
    }

    /// Delivers and persists until nothing moves any more; time stands still.
    fn settle(&mut self) {
        for _ in 0..200 {
            while let Some((from, to, boot, message)) = self.queue.pop_front() {
                let is_cut = self.cut.contains(&(from, to));
                if is_cut || !self.nodes[&to].is_up {
                    continue;
                }
                self.deliver(from, to, boot, &message);
            }
            let all: Vec<NodeId> = self.nodes.keys().copied().collect();
            for node in all {
                self.persist(node);
            }
            if self.queue.is_empty() {
                return;
            }
        }
        panic!("the deployment does not come to rest");
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, boot: Boot, message: &Message) {
        let mut bytes = Vec::new();
        crate::wire::write_message(message, &mut bytes);
        match crate::wire::read_message(&bytes).unwrap() {
            Message::Shard(message) => {
                self.tell(to, message.shard, Input::Message { from, boot, message });
            }
            Message::Reply(request, reply) => {
                self.replies.insert(request.number, reply);
            }
            Message::Cut(report) => {
                let here = self.here(to);
                let mut out = Outputs::default();
                let keeper = &mut self.nodes.get_mut(&to).unwrap().keeper;
                keeper.handle(&here, CutInput::Report { from, report }, &mut out);
                self.take(to, out);
            }
            Message::AskConfiguration(_) | Message::Configuration(..) => {
                unreachable!("the configuration of these tests stays as it is")
            }
        }
    }

    fn persist(&mut self, node: NodeId) {
        let state = self.nodes.get_mut(&node).unwrap();
        if !state.is_up || state.holds_disk || state.disk.persisted == state.disk.records.len() {
            return;
        }
        state.disk.persisted = state.disk.records.len();
        let to = LogIndex(state.disk.persisted as u64);
        let shards: Vec<ShardId> = state.shards.keys().copied().collect();
        for shard in shards {
            self.tell(node, shard, Input::Persisted(Persisted { to, synced_to: to }));
        }
    }

    /// Lets time pass: timers, cuts and ticks.
    fn pass(&mut self, millis: u64) {
        let until = self.millis + millis;
        while self.millis < until {
            self.millis += 50;
            let all: Vec<NodeId> = self.nodes.keys().copied().collect();
            for node in all {
                if !self.nodes[&node].is_up {
                    continue;
                }
                let shards: Vec<ShardId> = self.nodes[&node].shards.keys().copied().collect();
                for shard in &shards {
                    self.tell(node, *shard, Input::Wake);
                }
                if self.millis.is_multiple_of(250) {
                    self.exchange_cuts(node, &shards);
                }
            }
            self.settle();
        }
    }

    fn exchange_cuts(&mut self, node: NodeId, shards: &[ShardId]) {
        let here = self.here(node);
        let mut out = Outputs::default();
        let state = self.nodes.get_mut(&node).unwrap();
        let watermarks: Vec<(ShardId, Watermarks)> = state
            .shards
            .iter()
            .filter_map(|(id, shard)| shard.watermarks().map(|marks| (*id, marks)))
            .collect();
        state.keeper.handle(&here, CutInput::Watermarks(&watermarks), &mut out);
        let cuts = Arc::clone(state.keeper.cuts());
        let kept = state.shards.values().map(Shard::kept).fold(Kept::default(), Kept::with);
        let behind = state.keeper.furthest_behind(node.datacenter).map(|(peer, _)| peer);
        state.bound.update(here.now, kept, behind);
        state.disk.held_up_by = state.bound.held_up_by();
        self.take(node, out);
        for shard in shards {
            self.tell(node, *shard, Input::Cuts(&cuts));
        }
    }

    fn shard_of(&self, key: &str) -> ShardId {
        self.configuration.shard_count.shard_of(key.as_bytes())
    }

    fn replica(&self, datacenter: u16, key: &str, place: usize) -> NodeId {
        self.configuration.chain(dc(datacenter), self.shard_of(key))[place]
    }

    /// Asks a replica without letting anything else happen; the number finds the reply.
    fn ask(&mut self, node: NodeId, key: &str, action: Action<'_>, carried: &Carried) -> u64 {
        self.ask_as(None, node, key, action, carried)
    }

    /// The same with a request id.
    fn ask_as(
        &mut self,
        retry: Option<&Retry>,
        node: NodeId,
        key: &str,
        action: Action<'_>,
        carried: &Carried,
    ) -> u64 {
        self.asked += 1;
        let id = RequestId { node, session: SessionId(self.asked), number: self.asked };
        let operation = ShardOperation::One(Operation { key: key.as_bytes(), action });
        let request = LocalRequest { id, operation: &operation, carried, retry };
        self.tell(node, self.shard_of(key), Input::Request(request));
        self.asked
    }

    fn put(&mut self, datacenter: u16, key: &str, value: &str) -> Reply {
        self.put_after(datacenter, key, value, &Carried::default())
    }

    fn put_after(&mut self, datacenter: u16, key: &str, value: &str, after: &Carried) -> Reply {
        let head = self.replica(datacenter, key, 0);
        let number = self.ask(head, key, set(value), after);
        self.settle();
        self.replies[&number].clone()
    }

    fn get_at(&mut self, node: NodeId, key: &str) -> Response {
        let number = self.ask(node, key, Action::Get, &Carried::default());
        self.settle();
        self.replies[&number].response.clone()
    }

    fn get(&mut self, datacenter: u16, key: &str) -> Response {
        let node = self.replica(datacenter, key, 0);
        self.get_at(node, key)
    }

    fn cut_off(&mut self, left: u16, right: u16) {
        for from in self.nodes.keys() {
            for to in self.nodes.keys() {
                let pair = (from.datacenter.0, to.datacenter.0);
                if pair == (left, right) || pair == (right, left) {
                    self.cut.insert((*from, *to));
                }
            }
        }
    }
}

/// How many keys the shard of a key has.
fn count(deployment: &mut Deployment, node: NodeId, key: &str) -> Response {
    deployment.asked += 1;
    let id = RequestId { node, session: SessionId(deployment.asked), number: deployment.asked };
    let carried = Carried::default();
    let request =
        LocalRequest { id, operation: &ShardOperation::Count, carried: &carried, retry: None };
    deployment.tell(node, deployment.shard_of(key), Input::Request(request));
    deployment.settle();
    deployment.replies[&id.number].response.clone()
}

#[test]
fn a_key_whose_time_is_over_is_not_counted_hidden_or_not() {
    let mut deployment = Deployment::of(1, 2, 1);
    let [head, tail] = [0, 1].map(|place| deployment.replica(1, "stays", place));
    deployment.put(1, "stays", "v");
    let until = Ttl::Until(deployment.millis + 10);
    let (condition, reply) = (Condition::Always, SetReply::Status);
    for (key, ttl) in [("goes", until), ("later", Ttl::Until(deployment.millis + 5_000))] {
        let action = Action::Set { value: b"v", condition, ttl, reply };
        deployment.ask(head, key, action, &Carried::default());
    }
    deployment.settle();
    assert_eq!(count(&mut deployment, tail, "stays"), Response::Integer(3));
    // Time passes, but nothing wakes the head to hide it.
    deployment.millis += 11;
    for node in [head, tail] {
        assert_eq!(count(&mut deployment, node, "stays"), Response::Integer(2));
    }
    let tombstones = |deployment: &Deployment| {
        deployment.nodes[&tail].shards[&deployment.shard_of("goes")].keys.tombstone_count()
    };
    assert_eq!(tombstones(&deployment), 0, "it is not hidden yet");
    assert_eq!(deployment.get(1, "goes"), Response::Nil);
    assert_eq!(count(&mut deployment, tail, "stays"), Response::Integer(2));
}

fn set(value: &str) -> Action<'_> {
    Action::Set {
        value: value.as_bytes(),
        condition: Condition::Always,
        ttl: Ttl::Clear,
        reply: SetReply::Status,
    }
}

fn value(text: &str) -> Response {
    Response::Bytes(text.as_bytes().to_vec())
}

fn after_write(reply: &Reply) -> Carried {
    let mut carried = Carried { time: reply.visible_at, ..Carried::default() };
    carried.dependencies.exact.extend(reply.wrote);
    carried
}

mod within_a_datacenter {
    use super::*;

    #[test]
    fn what_one_replica_was_given_every_replica_answers() {
        for length in 1..=3 {
            let mut chain = Deployment::of(1, length, 4);
            assert_eq!(chain.put(1, "k", "v").response, Response::Ok);
            for place in 0..usize::from(length) {
                let node = chain.replica(1, "k", place);
                assert_eq!(chain.get_at(node, "k"), value("v"), "chain of {length}, place {place}");
            }
        }
    }

    #[test]
    fn a_write_is_answered_only_when_every_disk_has_it() {
        for slow in 0..3 {
            let mut chain = Deployment::of(1, 3, 1);
            let node = chain.replica(1, "k", slow);
            chain.nodes.get_mut(&node).unwrap().holds_disk = true;
            let head = chain.replica(1, "k", 0);
            let number = chain.ask(head, "k", set("v"), &Carried::default());
            chain.settle();
            assert!(!chain.replies.contains_key(&number), "answered without the disk of {slow}");
            let tail = chain.replica(1, "k", 2);
            assert_eq!(chain.get_at(tail, "k"), Response::Nil);
            chain.nodes.get_mut(&node).unwrap().holds_disk = false;
            chain.settle();
            assert_eq!(chain.replies[&number].response, Response::Ok);
        }
    }

    #[test]
    fn a_dirty_key_is_read_by_the_tails_word() {
        let mut chain = Deployment::of(1, 3, 1);
        chain.put(1, "k", "old");
        let tail = chain.replica(1, "k", 2);
        chain.nodes.get_mut(&tail).unwrap().holds_disk = true;
        let head = chain.replica(1, "k", 0);
        chain.ask(head, "k", set("new"), &Carried::default());
        chain.settle();
        for place in 0..3 {
            let node = chain.replica(1, "k", place);
            assert_eq!(chain.get_at(node, "k"), value("old"));
        }
        chain.nodes.get_mut(&tail).unwrap().holds_disk = false;
        chain.settle();
        assert_eq!(chain.get(1, "k"), value("new"));
    }

    #[test]
    fn a_refused_condition_waits_for_what_it_was_computed_from() {
        let mut chain = Deployment::of(1, 2, 1);
        let tail = chain.replica(1, "k", 1);
        chain.nodes.get_mut(&tail).unwrap().holds_disk = true;
        let head = chain.replica(1, "k", 0);
        chain.ask(head, "k", set("first"), &Carried::default());
        let second = Action::Set {
            value: b"second",
            condition: Condition::IfAbsent,
            ttl: Ttl::Clear,
            reply: SetReply::Status,
        };
        let number = chain.ask(head, "k", second, &Carried::default());
        chain.settle();
        assert!(!chain.replies.contains_key(&number));
        chain.nodes.get_mut(&tail).unwrap().holds_disk = false;
        chain.settle();
        assert_eq!(chain.replies[&number].response, Response::Nil);
    }

    #[test]
    fn a_write_that_reaches_another_replica_is_refused_and_not_handed_to_a_head_that_may_be_gone() {
        let mut chain = Deployment::of(1, 3, 1);
        let (head, tail) = (chain.replica(1, "k", 0), chain.replica(1, "k", 2));
        chain.crash(head);
        let number = chain.ask(tail, "k", set("v"), &Carried::default());
        let Response::Refused(refusal) = chain.replies[&number].response else {
            panic!("{:?}", chain.replies[&number]);
        };
        assert!(refusal.was_not_tried(), "the session may hand it over again: {refusal}");
    }

    #[test]
    fn a_read_at_the_head_sees_the_sessions_own_unanswered_write() {
        let mut chain = Deployment::of(1, 2, 1);
        let head = chain.replica(1, "k", 0);
        chain.ask(head, "k", set("v"), &Carried::default());
        let carried = Carried { place: Place::Head, ..Carried::default() };
        let number = chain.ask(head, "k", Action::Get, &carried);
        assert!(!chain.replies.contains_key(&number));
        chain.settle();
        assert_eq!(chain.replies[&number].response, value("v"));
    }
}

mod after_a_restart {
    use super::*;

    #[test]
    fn a_new_epoch_forgets_who_was_short_of_disk_before_it() {
        let mut chain = Deployment::of(1, 2, 1);
        let [head, tail] = [0, 1].map(|place| chain.replica(1, "k", place));
        let shard = chain.shard_of("k");
        chain.nodes.get_mut(&tail).unwrap().disk.room = Room::Low;
        chain.exchange_cuts(tail, &[shard]);
        chain.settle();
        let who_is_short = |chain: &Deployment| {
            let state = &chain.nodes[&head];
            state.shards[&shard].short_of_room(&chain.here(head), &state.disk)
        };
        assert_eq!(who_is_short(&chain), Some(tail));
        let mut next = Configuration::clone(&chain.configuration);
        let here = next.datacenters.get_mut(&dc(1)).unwrap();
        here.epoch = here.epoch.next();
        here.chains[0].epoch = here.epoch;
        chain.tell(head, shard, Input::Configuration(Arc::new(next)));
        assert_eq!(who_is_short(&chain), None, "it would say so again");
    }

    #[test]
    fn a_late_question_of_a_replica_that_is_vouched_for_changes_nothing() {
        let mut chain = Deployment::of(1, 2, 1);
        let [head, copies] = [0, 1].map(|place| chain.replica(1, "k", place));
        let shard = chain.shard_of("k");
        chain.put(1, "k", "v");
        let mut next = Configuration::clone(&chain.configuration);
        let here = next.datacenters.get_mut(&dc(1)).unwrap();
        here.epoch = here.epoch.next();
        here.boots = [(head, Boot(1)), (copies, Boot(1))].into();
        here.chains[0].epoch = here.epoch;
        here.chains[0].serving = vec![head];
        here.chains[0].waiting = [(copies, Waiting::Syncing)].into();
        let next = Arc::new(next);
        for node in [head, copies] {
            chain.tell(node, shard, Input::Configuration(Arc::clone(&next)));
        }
        let mut asked = None;
        for (_, _, _, message) in &chain.queue {
            if let Message::Shard(of_shard) = message
                && let Body::CopyAsk(_) = &of_shard.body
            {
                asked = Some(of_shard.clone());
            }
        }
        chain.settle();
        for _ in 0..5 {
            chain.pass(300);
        }
        let vouched = |chain: &Deployment| chain.nodes[&head].shards[&shard].caught_up();
        assert_eq!(vouched(&chain), Some(copies));
        let mut late = asked.expect("it has asked");
        let Body::CopyAsk(ask) = &mut late.body else { unreachable!() };
        ask.last = ask.last.map(|last| Identity { checksum: !last.checksum, ..last });
        ask.committed = None;
        chain.deliver(copies, head, Boot(1), &Message::Shard(late));
        assert_eq!(
            vouched(&chain),
            Some(copies),
            "it has said so: nothing is committed without it"
        );
    }

    #[test]
    fn a_head_without_room_does_not_ask_for_what_it_lost_again_and_again() {
        let mut chain = Deployment::of(1, 2, 1);
        let [head, tail] = [0, 1].map(|place| chain.replica(1, "k", place));
        chain.nodes.get_mut(&head).unwrap().holds_disk = true;
        chain.ask(head, "k", set("v"), &Carried::default());
        chain.settle();
        chain.crash(head);
        chain.nodes.get_mut(&head).unwrap().disk.room = Room::None;
        chain.start(head);
        let mut delivered = 0;
        while let Some((from, to, boot, message)) = chain.queue.pop_front() {
            chain.deliver(from, to, boot, &message);
            delivered += 1;
            assert!(delivered < 100, "each answer leads to the next question");
        }
        let state = chain.nodes.get_mut(&head).unwrap();
        (state.disk.room, state.holds_disk) = (Room::Ample, false);
        chain.pass(1_000);
        assert_eq!(chain.get_at(head, "k"), value("v"), "it has what it lost");
        assert_eq!(chain.get_at(tail, "k"), value("v"));
    }

    #[test]
    fn every_replica_comes_back_and_nothing_acknowledged_is_lost() {
        for place in 0..3 {
            let mut chain = Deployment::of(1, 3, 1);
            chain.put(1, "a", "1");
            let node = chain.replica(1, "a", place);
            chain.crash(node);
            chain.start(node);
            chain.pass(500);
            assert_eq!(chain.put(1, "b", "2").response, Response::Ok, "place {place}");
            for place in 0..3 {
                let node = chain.replica(1, "a", place);
                assert_eq!(chain.get_at(node, "a"), value("1"));
                assert_eq!(chain.get_at(node, "b"), value("2"));
            }
        }
    }

    #[test]
    fn a_tail_gets_again_what_it_had_acknowledged_and_lost_also_where_that_is_lost_on_its_way() {
        let mut chain = Deployment::of(1, 2, 1);
        let [head, tail] = [0, 1].map(|place| chain.replica(1, "k", place));
        // With a weaker fsync: its word is given before the disk has it.
        chain.nodes.get_mut(&tail).unwrap().holds_disk = true;
        chain.ask(head, "k", set("v"), &Carried::default());
        chain.settle();
        let disk = &chain.nodes[&tail].disk;
        let to = LogIndex(disk.records.len() as u64);
        let persisted = Persisted { to, synced_to: disk.reached().synced_to };
        let shard = chain.shard_of("k");
        chain.tell(tail, shard, Input::Persisted(persisted));
        chain.settle();
        assert_eq!(chain.get_at(head, "k"), value("v"), "it is committed");
        chain.crash(tail);
        chain.nodes.get_mut(&tail).unwrap().holds_disk = false;
        chain.start(tail);
        let mut lost = 0;
        while let Some((from, to, boot, message)) = chain.queue.pop_front() {
            let forwards =
                matches!(&message, Message::Shard(of) if matches!(of.body, Body::Forward { .. }));
            if from == head && forwards && lost == 0 {
                lost += 1;
            } else {
                chain.deliver(from, to, boot, &message);
            }
        }
        assert_eq!(lost, 1, "what it lost was sent once");
        chain.pass(1_000);
        assert_eq!(chain.get_at(tail, "k"), value("v"));
        assert_eq!(chain.put(1, "k", "next").response, Response::Ok);
    }

    #[test]
    fn a_head_takes_back_what_it_lost_before_it_writes_again() {
        let mut chain = Deployment::of(1, 3, 1);
        let head = chain.replica(1, "k", 0);
        chain.nodes.get_mut(&head).unwrap().holds_disk = true;
        chain.ask(head, "k", set("lost by the head"), &Carried::default());
        chain.settle();
        chain.crash(head);
        chain.nodes.get_mut(&head).unwrap().holds_disk = false;
        chain.start(head);
        chain.pass(500);
        assert_eq!(chain.get(1, "k"), value("lost by the head"));
        chain.put(1, "k", "next");
        for place in 0..3 {
            let node = chain.replica(1, "k", place);
            assert_eq!(chain.get_at(node, "k"), value("next"));
        }
        assert!(!chain.events.iter().any(|event| matches!(event, Event::Diverged { .. })));
    }

    #[test]
    fn a_promise_that_rests_on_an_earlier_run_is_refused_also_when_it_comes_late() {
        let mut chain = Deployment::of(1, 3, 1);
        let [head, middle, tail] = [0, 1, 2].map(|place| chain.replica(1, "k", place));
        chain.ask(head, "k", set("v"), &Carried::default());
        chain.nodes.get_mut(&head).unwrap().holds_disk = true;
        chain.settle();
        let shard = chain.shard_of("k");
        let at_tail = |chain: &Deployment| chain.nodes[&tail].shards[&shard].committed_to();
        let (before, end) = (at_tail(&chain), chain.nodes[&tail].shards[&shard].end());
        assert!(before < end, "the head has not written its own entry yet");
        let boot = chain.nodes[&middle].boot;
        let progress = Progress { persisted_to: end, synced_to: end };
        let first = chain.nodes[&head].boot;
        let says = |of: Boot, progress| {
            let message = ShardMessage {
                shard,
                epoch: Epoch(1),
                hlc: Timestamp::ZERO,
                body: Body::Persisted(Promise { progress, boots: smallvec::smallvec![of] }),
            };
            Input::Message { from: middle, boot, message }
        };
        chain.tell(tail, shard, says(Boot(first.0 + 1), Progress::default()));
        chain.tell(tail, shard, says(first, progress));
        assert_eq!(at_tail(&chain), before, "the tail knows of a newer run");
        assert_eq!(chain.nodes[&tail].shards[&shard].known_boot(head), Some(Boot(first.0 + 1)));
        chain.tell(tail, shard, says(Boot(first.0 + 1), progress));
        assert_eq!(at_tail(&chain), end);
    }

    #[test]
    fn all_replicas_at_once_come_back() {
        let mut chain = Deployment::of(1, 3, 2);
        for number in 0..20 {
            chain.put(1, &format!("k{number}"), "v");
        }
        let all: Vec<NodeId> = chain.nodes.keys().copied().collect();
        for node in &all {
            chain.crash(*node);
        }
        for node in &all {
            chain.start(*node);
        }
        chain.pass(1000);
        for number in 0..20 {
            assert_eq!(chain.get(1, &format!("k{number}")), value("v"));
        }
    }

    #[test]
    fn head_and_middle_take_back_what_only_the_tail_has() {
        let mut chain = Deployment::of(1, 3, 1);
        let (head, middle) = (chain.replica(1, "k", 0), chain.replica(1, "k", 1));
        for node in [head, middle] {
            chain.nodes.get_mut(&node).unwrap().holds_disk = true;
        }
        chain.ask(head, "k", set("kept by the tail"), &Carried::default());
        chain.settle();
        for node in [head, middle] {
            chain.crash(node);
            chain.nodes.get_mut(&node).unwrap().holds_disk = false;
        }
        for node in [head, middle] {
            chain.start(node);
        }
        chain.pass(1000);
        assert_eq!(chain.get(1, "k"), value("kept by the tail"));
        assert_eq!(chain.put(1, "k", "next").response, Response::Ok);
    }
}

mod between_datacenters {
    use super::*;

    #[test]
    fn a_write_in_one_is_read_in_the_others() {
        for length in 1..=3 {
            let mut deployment = Deployment::of(3, length, 4);
            deployment.put(1, "k", "v");
            deployment.pass(100);
            assert_eq!(deployment.get(2, "k"), value("v"));
            assert_eq!(deployment.get(3, "k"), value("v"));
        }
    }

    #[test]
    fn a_replica_that_is_behind_collects_nothing() {
        let mut deployment = Deployment::of(2, 1, 1);
        deployment.put(1, "k", "v");
        let head = deployment.replica(1, "k", 0);
        let number = deployment.ask(head, "k", Action::Delete, &Carried::default());
        deployment.settle();
        assert_eq!(deployment.replies[&number].response, Response::Integer(1));
        let shard = deployment.shard_of("k");
        let tombstones =
            |deployment: &Deployment| deployment.nodes[&head].shards[&shard].keys.tombstone_count();
        // The others say that they have everything, twice: what that is has not come here yet.
        for seconds in [1, 2] {
            let ahead = Timestamp::from_millis(deployment.millis + seconds * 1_000);
            let all = [(dc(1), ahead), (dc(2), ahead)];
            let stable = Cut::of(all);
            let cuts = Cuts { applied: stable.clone(), stable, hlc: ahead, ..Cuts::default() };
            deployment.tell(head, shard, Input::Cuts(&cuts));
        }
        assert_eq!(tombstones(&deployment), 1);
        deployment.pass(5_000);
        assert_eq!(tombstones(&deployment), 0, "it has caught up");
    }

    #[test]
    fn a_replica_that_has_not_committed_all_of_one_that_is_gone_collects_nothing() {
        let mut deployment = Deployment::of(2, 2, 1);
        deployment.put(1, "k", "v");
        let (head, tail) = (deployment.replica(1, "k", 0), deployment.replica(1, "k", 1));
        deployment.ask(head, "k", Action::Delete, &Carried::default());
        deployment.settle();
        // The tail commits what the other one has written, and the head does not hear of it.
        deployment.cut.insert((tail, head));
        deployment.put(2, "other", "v");
        deployment.settle();
        let shard = deployment.shard_of("k");
        let mut configuration = Configuration::clone(&deployment.configuration);
        configuration.datacenters.remove(&dc(2));
        let members = Arc::make_mut(&mut configuration.membership);
        let since = members.epoch;
        members.members.remove(&dc(2));
        members.gone.insert(
            dc(2),
            Gone { name: "dc2".to_owned(), was_lost: false, since, successor: None },
        );
        let state = deployment.nodes.get_mut(&head).unwrap();
        state.shards.get_mut(&shard).unwrap().configuration = Arc::new(configuration);
        let everything = Cut::of([(dc(1), Timestamp::MAX), (dc(2), Timestamp::MAX)]);
        let tombstones =
            |deployment: &Deployment| deployment.nodes[&head].shards[&shard].keys.tombstone_count();
        let collect = |deployment: &mut Deployment, seconds: u64| {
            let hlc = Timestamp::from_millis(deployment.millis + seconds * 1_000);
            let cuts = Cuts { stable: everything.clone(), hlc, ..Cuts::default() };
            deployment.tell(head, shard, Input::Cuts(&cuts));
        };
        collect(&mut deployment, 1);
        collect(&mut deployment, 2);
        assert_eq!(tombstones(&deployment), 1, "it has yet to commit what that may hide");
        deployment.cut.clear();
        while deployment.nodes[&head].shards[&shard].committed_to
            < deployment.nodes[&tail].shards[&shard].committed_to
        {
            deployment.pass(100);
        }
        collect(&mut deployment, 3);
        collect(&mut deployment, 4);
        assert_eq!(tombstones(&deployment), 0, "it has committed that");
    }

    #[test]
    fn an_effect_is_never_seen_before_its_cause() {
        let mut deployment = Deployment::of(3, 1, 4);
        let (photo, acl) = ("{a}photo", "{b}acl");
        assert_ne!(deployment.shard_of(photo), deployment.shard_of(acl));
        deployment.cut_off(1, 3);
        let cause = deployment.put(1, photo, "of me");
        deployment.pass(100);
        assert_eq!(deployment.get(2, photo), value("of me"));
        deployment.put_after(2, acl, "public", &after_write(&cause));
        deployment.pass(1000);
        assert_eq!(deployment.get(3, acl), Response::Nil, "the cause has not arrived");
        deployment.cut.clear();
        deployment.pass(1000);
        assert_eq!(deployment.get(3, photo), value("of me"));
        assert_eq!(deployment.get(3, acl), value("public"));
    }

    #[test]
    fn both_sides_of_a_cut_go_on_and_end_equal() {
        let mut deployment = Deployment::of(2, 2, 2);
        deployment.cut_off(1, 2);
        deployment.put(1, "k", "from one");
        deployment.millis += 5;
        deployment.put(2, "k", "from two");
        deployment.pass(1000);
        assert_eq!(deployment.get(1, "k"), value("from one"));
        assert_eq!(deployment.get(2, "k"), value("from two"));
        deployment.cut.clear();
        deployment.pass(1000);
        assert_eq!(deployment.get(1, "k"), value("from two"));
        assert_eq!(deployment.get(2, "k"), value("from two"));
        let conflicts =
            deployment.events.iter().filter(|event| matches!(event, Event::Conflict { .. }));
        assert_eq!(conflicts.count(), 2, "each datacenter drops the loser once");
    }

    #[test]
    fn everything_becomes_stable_and_then_nothing_is_written_any_more() {
        let mut deployment = Deployment::of(3, 2, 4);
        for number in 0..10 {
            deployment.put(1, &format!("k{number}"), "v");
        }
        deployment.pass(5000);
        let lengths: Vec<usize> =
            deployment.nodes.values().map(|node| node.disk.records.len()).collect();
        deployment.pass(5000);
        let after: Vec<usize> =
            deployment.nodes.values().map(|node| node.disk.records.len()).collect();
        assert_eq!(lengths, after, "an idle deployment writes nothing");
        for node in deployment.nodes.values() {
            for shard in node.shards.values() {
                assert_eq!(shard.window_size().0, 0, "stable writes are let go of");
            }
        }
    }

    #[test]
    fn a_tombstone_is_collected_once_nobody_can_miss_it() {
        let mut deployment = Deployment::of(2, 1, 2);
        deployment.put(1, "k", "v");
        let head = deployment.replica(1, "k", 0);
        deployment.ask(head, "k", Action::Delete, &Carried::default());
        deployment.settle();
        let count = |deployment: &Deployment| -> usize {
            let nodes = deployment.nodes.values();
            nodes.flat_map(|node| node.shards.values()).map(|s| s.keys().tombstone_count()).sum()
        };
        assert!(0 < count(&deployment));
        deployment.pass(8000);
        assert_eq!(count(&deployment), 0);
        assert_eq!(deployment.get(2, "k"), Response::Nil);
    }

    #[test]
    fn a_tombstone_asks_for_promises_up_to_one_time_however_long_they_take() {
        let mut deployment = Deployment::of(2, 1, 1);
        deployment.put(1, "k", "v");
        let head = deployment.replica(1, "k", 0);
        deployment.ask(head, "k", Action::Delete, &Carried::default());
        deployment.settle();
        let shard = deployment.shard_of("k");
        let shards = &mut deployment.nodes.get_mut(&head).unwrap().shards;
        let shard = shards.get_mut(&shard).unwrap();
        let deleted = shard.lines[&dc(1)].newest_write;
        let mut wanted = BTreeSet::new();
        // The other datacenter promises nothing yet, so the tombstone stays.
        for later in 0..50 {
            let now = Timestamp(deleted.0 + (later << 20));
            shard.cuts.stable.advance(dc(1), now);
            shard.hlc.witness(now);
            shard.collect_when_stable();
            wanted.insert(shard.ticks_wanted_to());
        }
        assert!(0 < shard.keys().tombstone_count());
        assert!(wanted.first() > Some(&Timestamp::ZERO), "it asks");
        assert_eq!(wanted.len(), 2, "for what was noted first, and the second time: {wanted:?}");
    }

    #[test]
    fn a_restarted_receiver_goes_on_where_its_log_ends() {
        let mut deployment = Deployment::of(2, 1, 1);
        deployment.put(1, "a", "1");
        deployment.pass(100);
        let receiver = deployment.replica(2, "a", 0);
        deployment.crash(receiver);
        deployment.put(1, "b", "2");
        deployment.pass(500);
        deployment.start(receiver);
        deployment.pass(2000);
        assert_eq!(deployment.get(2, "a"), value("1"));
        assert_eq!(deployment.get(2, "b"), value("2"));
    }
}

mod windows {
    use antecede_model::{ids::Lineage, ids::Position};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::entry::{Body as EntryBody, Entry, Identity};

    /// An entry as the head of an epoch makes it; other heads make others at the same position.
    fn entry(position: u64, epoch: u64) -> Entry {
        let origin = DatacenterId(1);
        let mut entry = Entry {
            identity: Identity::default(),
            origin,
            lineage: Lineage(1),
            stamp: Timestamp(position * 10 + epoch),
            previous: Timestamp(position),
            visible_at: Timestamp(position * 10 + epoch),
            body: EntryBody::Write(vec![7; usize::try_from(position).unwrap()].into()),
            kept: None,
        };
        let (epoch, position) = (Epoch(epoch), Position(position));
        let checksum = entry.computed_checksum();
        entry.identity = Identity { epoch, boot: Boot(1), position, checksum };
        entry
    }

    /// A window with the whole log beside it, of which it holds what is behind `cut_to`.
    struct Both {
        window: Window,
        log: Vec<Entry>,
        cut_to: usize,
        /// Whether the name of the last entry before the window is known.
        knows_before: bool,
        /// How many of the entries that are held nobody needs.
        spare: usize,
    }

    impl Both {
        /// Does a step, if it can be done: which, how many times, and what new entries are of.
        fn step(&mut self, (kind, count, epoch): (u8, usize, u64)) {
            for _ in 0..count {
                let held = self.log.len() - self.cut_to;
                match kind {
                    0 | 1 => {
                        self.log.push(entry(self.log.len() as u64 + 1, epoch));
                        let place = LogIndex(self.log.len() as u64);
                        self.window.push(self.log[self.log.len() - 1].clone(), place);
                    }
                    6 if self.spare < held => {
                        self.window.spare_first_needed();
                        self.spare += 1;
                    }
                    2 if 0 < held => {
                        self.spare = self.spare.saturating_sub(1);
                        self.window.cut_front();
                        self.cut_to += 1;
                        self.knows_before = true;
                    }
                    3 if 0 < self.cut_to => self.push_front(),
                    _ => {}
                }
            }
            if kind == 4 {
                // What is cut is not committed; what was put before the window is.
                let is_first_kept = !self.knows_before && self.cut_to < self.log.len();
                let kept = self.cut_to + usize::from(is_first_kept);
                let to = self.log.len().saturating_sub(count).max(kept);
                self.window.cut_back(Position(to as u64));
                self.log.truncate(to);
                self.spare = self.spare.min(to - self.cut_to);
            }
            if kind == 5 {
                self.window = Window::behind(self.log.last().map(|entry| entry.identity));
                (self.cut_to, self.knows_before, self.spare) = (self.log.len(), true, 0);
            }
        }

        fn push_front(&mut self) {
            let before = self.log[self.cut_to - 1].clone();
            let position = before.identity.position.0;
            for wrong in [entry(position + 1, 1), entry(position.saturating_sub(1), 1)] {
                assert!(!self.window.push_front(wrong, LogIndex(1)), "it does not belong there");
            }
            let of_others = entry(position, before.identity.epoch.0 + 1);
            if self.knows_before {
                assert!(!self.window.push_front(of_others, LogIndex(1)), "it is not the one");
            }
            assert!(self.window.push_front(before, LogIndex(position)));
            self.cut_to -= 1;
            self.knows_before = false;
            self.spare = 0;
        }

        fn check(&self) {
            let window = &self.window;
            assert_eq!(window.end(), Position(self.log.len() as u64));
            assert_eq!(window.cut_to(), Position(self.cut_to as u64));
            let held = &self.log[self.cut_to..];
            assert!(window.after(Position(0)).eq(held));
            assert!(window.before(window.end()).eq(held.iter().rev()));
            assert_eq!(window.first_needed(), held.get(self.spare));
            for at in 0..=self.log.len() {
                let first = (at.max(self.cut_to) < self.log.len()).then(|| at.max(self.cut_to) + 1);
                let place = first.map(|first| LogIndex(first as u64));
                assert_eq!(window.first_place_after(Position(at as u64)), place, "behind {at}");
            }
            for (time, entry) in held.iter().map(|entry| (entry.visible_at, entry)) {
                assert_eq!(window.position_at(time), entry.identity.position);
                let before = Position(entry.identity.position.0 - 1);
                assert_eq!(window.position_at(Timestamp(time.0 - 1)), before);
            }
            let bytes: usize = held.iter().map(Entry::body_bytes).sum();
            assert_eq!(window.bytes(), bytes);
            assert_eq!(window.has_spare(), 0 < self.spare);
            let needed = &held[self.spare..];
            let bytes: usize = needed.iter().map(Entry::body_bytes).sum();
            let least = bytes + size_of_val(needed);
            let (count, weight) = window.needed();
            assert_eq!(count, needed.len() as u64);
            assert!(least <= weight && weight <= bytes + 2 * size_of_val(needed));
            assert_eq!(window.last(), self.log.last().map(|entry| entry.identity));
            for at in 0..=self.log.len() {
                let identity = at.checked_sub(1).map(|at| self.log[at].identity);
                let is_known = self.cut_to < at || at == self.cut_to && self.knows_before;
                let position = Position(at as u64);
                assert_eq!(window.identity_at(position), identity.filter(|_| is_known), "{at}");
                let can_continue = if at == 0 { self.cut_to == 0 } else { is_known };
                assert_eq!(window.continues(identity), can_continue, "behind {at}");
                if let Some(identity) = identity {
                    let of_others = entry(identity.position.0, identity.epoch.0 + 1).identity;
                    assert!(!window.continues(Some(of_others)), "a log that went another way");
                }
            }
            let beyond = entry(self.log.len() as u64 + 1, 1).identity;
            assert!(!window.continues(Some(beyond)), "a log that is longer");
        }
    }

    proptest! {
        #[test]
        fn a_window_is_the_end_of_a_log_whatever_is_cut_and_put_before_it(
            steps in vec((0_u8..7, 0_usize..5, 1_u64..4), 1..30),
        ) {
            let (window, log) = (Window::default(), Vec::new());
            let mut both = Both { window, log, cut_to: 0, knows_before: false, spare: 0 };
            for step in steps {
                both.step(step);
                both.check();
            }
        }
    }

    #[test]
    #[should_panic(expected = "a log has no gaps")]
    fn an_entry_with_a_gap_before_it_is_not_taken() {
        let mut window = Window::behind(Some(entry(3, 1).identity));
        window.push(entry(5, 1), LogIndex(2));
    }
}
