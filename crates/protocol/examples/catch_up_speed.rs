//! Measures how fast a datacenter takes what another has written while they were cut off.
//!
//! `cargo run --release -p antecede-protocol --example catch_up_speed -- 200000 256 400 3 2 1`
//! runs the machines of two datacenters of three nodes in one thread, without disks and sockets, and
//! these numbers are what is meant without any: entries written in each datacenter that writes,
//! shards, sessions in each of these, nodes in each datacenter, datacenters, and how many of them
//! write. Sessions write to random keys, each write after the session's last one, while no message
//! passes; then messages pass until every other datacenter has applied all. It tells the
//! time of one core that this takes for all nodes, and the messages that were sent.
//!
//! Limits: nothing is encoded, a disk takes no time, time passes a millisecond with each round of
//! messages, which stands for a hop.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use antecede_model::{
    clock::{Now, Steady, Timestamp, Wall},
    configuration::{Configuration, Layout},
    dependency::Dependency,
    ids::{Boot, DatacenterId, DeploymentId, LogIndex, NodeId, RequestId, SessionId, ShardId},
    key::ShardCount,
    operation::{Action, Condition, Operation, SetReply, ShardOperation, Ttl},
};
use antecede_protocol::{
    chain::{Cuts, Input, Shard, ShardOptions},
    geo::{
        cuts::{CUTS_EVERY, CutInput, CutKeeper},
        inbox::BLOCKED_BYTES_MAX,
        kept::Behind,
    },
    machine::{Here, Lease, Outputs, Persisted, Room, Storage},
    message::{Body, Carried, LocalRequest, Message},
    mutation::Mutations,
};

/// A log that is on disk as soon as it is asked for.
#[derive(Default)]
struct Disk {
    scratch: Vec<u8>,
    appended: u64,
    persisted: u64,
}

impl Storage for Disk {
    fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex {
        self.scratch.clear();
        write(&mut self.scratch);
        self.appended += 1;
        LogIndex(self.appended)
    }

    fn reached(&self) -> Persisted {
        Persisted { to: LogIndex(self.persisted), synced_to: LogIndex(self.persisted) }
    }

    fn room(&self) -> Room {
        Room::Ample
    }

    fn has_memory(&self) -> bool {
        true
    }

    fn held_up_by(&self) -> Option<Behind> {
        None
    }
}

struct Node {
    shards: BTreeMap<ShardId, Shard>,
    /// Shards that have appended since the disk was told to write.
    touched: Vec<ShardId>,
    wakes: BTreeMap<ShardId, Steady>,
    keeper: CutKeeper,
    disk: Disk,
}

struct Deployment {
    configuration: Arc<Configuration>,
    nodes: BTreeMap<NodeId, Node>,
    queue: Vec<(NodeId, NodeId, Message)>,
    wrote: BTreeMap<u64, (Dependency, Timestamp)>,
    is_cut: bool,
    millis: u64,
    sent: BTreeMap<&'static str, u64>,
}

impl Deployment {
    fn of(shards: u32, nodes: u16, datacenters: u16) -> Self {
        let configuration = Arc::new(Configuration::of(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(shards).expect("a power of two"),
            chain_length: nodes,
            datacenters: (1..=datacenters)
                .map(|id| (DatacenterId(id), format!("dc{id}"), nodes))
                .collect(),
        }));
        let options = ShardOptions {
            max_clock_drift: Duration::from_millis(500),
            hash_secret: 7,
            blocked_bytes_max: BLOCKED_BYTES_MAX,
            kept_bytes_max: 0,
            trimmed_bytes_min: antecede_protocol::record::TRIMMED_BYTES_MIN,
            away_bytes_min: None,
            part_bytes: 1 << 20,
            part_pause: Duration::ZERO,
            retries_max: 1024,
            has_checkpoints: false,
            mutations: Mutations::NONE,
        };
        let all: Vec<NodeId> =
            configuration.datacenters.values().flat_map(|dc| dc.nodes.clone()).collect();
        let mut deployment = Self {
            configuration: Arc::clone(&configuration),
            nodes: BTreeMap::new(),
            queue: Vec::new(),
            wrote: BTreeMap::new(),
            is_cut: true,
            millis: 1_000_000,
            sent: BTreeMap::new(),
        };
        for id in all {
            let shards = configuration
                .shards_of(id)
                .map(|shard| (shard, Shard::new(shard, id, Arc::clone(&configuration), options)));
            let mut node = Node {
                shards: shards.collect(),
                touched: Vec::new(),
                wakes: BTreeMap::new(),
                keeper: CutKeeper::new(Arc::clone(&configuration), id.datacenter),
                disk: Disk::default(),
            };
            let here = deployment.here(id);
            let mut outs = Vec::new();
            for (shard, machine) in &mut node.shards {
                let mut out = Outputs::default();
                machine.start(&here, &mut node.disk, &mut out);
                outs.push((*shard, out));
            }
            deployment.nodes.insert(id, node);
            for (shard, mut out) in outs {
                deployment.take(id, shard, &mut out);
            }
        }
        deployment
    }

    const fn here(&self, node: NodeId) -> Here {
        Here {
            node,
            boot: Boot(1),
            now: Now {
                steady: Steady(Duration::from_millis(self.millis)),
                wall: Wall(self.millis * 1000),
            },
            hlc_floor: Timestamp::ZERO,
            lease_until: Lease::Unbounded,
        }
    }

    fn tell(&mut self, node: NodeId, shard: ShardId, input: Input<'_>) {
        let here = self.here(node);
        let mut out = Outputs::default();
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let Some(machine) = state.shards.get_mut(&shard) else { return };
        machine.handle(&here, input, &mut state.disk, &mut out);
        self.take(node, shard, &mut out);
    }

    fn take(&mut self, node: NodeId, shard: ShardId, out: &mut Outputs) {
        for (to, message) in out.early.drain(..) {
            if self.is_cut && to.datacenter != node.datacenter {
                continue;
            }
            *self.sent.entry(name_of(&message)).or_default() += 1;
            self.queue.push((node, to, message));
        }
        for (request, reply) in out.replies.drain(..) {
            if let Some(wrote) = reply.wrote {
                self.wrote.insert(request.session.0, (wrote, reply.visible_at));
            }
        }
        let Some(state) = self.nodes.get_mut(&node) else { return };
        if out.appended_to != LogIndex::default() {
            state.touched.push(shard);
        }
        if let Some(at) = out.wake {
            let wake = state.wakes.entry(shard).or_insert(at);
            *wake = at.min(*wake);
        }
    }

    /// Delivers what was sent up to now, writes to all disks, and lets a millisecond pass.
    fn round(&mut self) {
        for (from, to, message) in std::mem::take(&mut self.queue) {
            match message {
                Message::Shard(message) => {
                    let boot = Boot(1);
                    self.tell(to, message.shard, Input::Message { from, boot, message });
                }
                Message::Cut(report) => {
                    self.tell_keeper(to, CutInput::Report { from, report });
                }
                Message::Reply(..) | Message::AskConfiguration(_) | Message::Configuration(..) => {}
            }
        }
        self.millis += 1;
        let now = Steady(Duration::from_millis(self.millis));
        let is_time_for_cuts = u128::from(self.millis).is_multiple_of(CUTS_EVERY.as_millis());
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in all {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            node.disk.persisted = node.disk.appended;
            let persisted = node.disk.reached();
            let mut touched = std::mem::take(&mut node.touched);
            let due = node.wakes.extract_if(.., |_, at| *at <= now);
            let due: Vec<ShardId> = due.map(|(shard, _)| shard).collect();
            touched.sort_unstable();
            touched.dedup();
            for shard in touched {
                self.tell(id, shard, Input::Persisted(persisted));
            }
            for shard in due {
                self.tell(id, shard, Input::Wake);
            }
            if is_time_for_cuts {
                self.exchange_cuts(id);
            }
        }
    }

    fn tell_keeper(&mut self, id: NodeId, input: CutInput<'_>) {
        let here = self.here(id);
        let mut out = Outputs::default();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.keeper.handle(&here, input, &mut out);
        self.take(id, ShardId(0), &mut out);
    }

    fn exchange_cuts(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let watermarks = node.shards.iter();
        let watermarks = watermarks.filter_map(|(id, shard)| Some((*id, shard.watermarks()?)));
        let watermarks: Vec<_> = watermarks.collect();
        self.tell_keeper(id, CutInput::Watermarks(&watermarks));
        let Some(node) = self.nodes.get(&id) else { return };
        let cuts: Arc<Cuts> = Arc::clone(node.keeper.cuts());
        let shards: Vec<ShardId> = node.shards.keys().copied().collect();
        for shard in shards {
            self.tell(id, shard, Input::Cuts(&cuts));
        }
    }

    /// Each session writes once, after what it wrote before.
    fn write(&mut self, origin: DatacenterId, sessions: u64, number: u64) {
        for session in 0..sessions {
            let name = u64::from(origin.0) << 32 | session;
            // Any good mixture does.
            let mixed = (number * sessions + name).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = format!("key:{:06}", (mixed >> 20) % 20_000);
            let shard = self.configuration.shard_count.shard_of(key.as_bytes());
            let Some(head) = self.configuration.head(origin, shard) else { continue };
            let mut carried = Carried::default();
            if let Some((wrote, at)) = self.wrote.get(&name) {
                carried.time = *at;
                carried.dependencies.exact.push(*wrote);
            }
            let action = Action::Set {
                value: &[b'v'; 64],
                condition: Condition::Always,
                ttl: Ttl::Clear,
                reply: SetReply::Status,
            };
            let operation = ShardOperation::One(Operation { key: key.as_bytes(), action });
            let id = RequestId { node: head, session: SessionId(name), number };
            let (operation, carried) = (&operation, &carried);
            let request = LocalRequest { id, operation, carried, retry: None };
            self.tell(head, shard, Input::Request(request));
        }
    }

    /// How many entries all replicas have committed, and how many wait.
    fn taken(&self) -> (u64, usize) {
        let shards = self.nodes.values().flat_map(|node| node.shards.values());
        shards.fold((0, 0), |(entries, waiting), shard| {
            (entries + shard.committed_to().0, waiting + shard.blocked_count())
        })
    }
}

const fn name_of(message: &Message) -> &'static str {
    let Message::Shard(message) = message else { return "between nodes" };
    match &message.body {
        Body::Replicate(_) => "replicate",
        Body::Received(_) => "received",
        Body::AwaitApplied { .. } => "await applied",
        Body::Applied { .. } => "applied",
        Body::Fetch { .. } => "fetch",
        Body::HadApplied(_) => "had applied",
        Body::Forward { .. }
        | Body::Persisted(_)
        | Body::Ack(_)
        | Body::NoRoom { .. }
        | Body::SendAgain { .. }
        | Body::Question { .. }
        | Body::Answer { .. }
        | Body::SettleAsk { .. }
        | Body::SettleTell { .. }
        | Body::TakeBack { .. }
        | Body::Returned { .. }
        | Body::Request(_)
        | Body::CopyAsk(_)
        | Body::CopyAnew { .. }
        | Body::Copied(_) => "of chains",
        Body::HandOn { .. } | Body::HandedOn { .. } => "of a lost datacenter",
    }
}

#[expect(clippy::disallowed_methods, reason = "this program measures time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "this program is for reading what it prints")]
fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut number = |usual: u64| numbers.next().map_or(usual, |found| found.expect("a number"));
    let (entries, shards, sessions) = (number(200_000), number(256), number(400));
    let small = |number: u64| u16::try_from(number).expect("a small number");
    let (nodes, datacenters, writing) = (small(number(3)), small(number(2)), small(number(1)));
    let shard_count = u32::try_from(shards).expect("a number of shards");
    let mut deployment = Deployment::of(shard_count, nodes, datacenters);
    for _ in 0..100 {
        deployment.round();
    }
    for number in 0..entries / sessions {
        for origin in 1..=writing {
            deployment.write(DatacenterId(origin), sessions, number);
        }
        for _ in 0..6 {
            deployment.round();
        }
    }
    let written = (entries / sessions) * sessions * u64::from(writing);
    let answered = u64::try_from(deployment.wrote.len());
    assert_eq!(answered, Ok(sessions * u64::from(writing)), "writes were answered");
    let (before, _) = deployment.taken();
    let count = written * u64::from(datacenters - 1);
    println!(
        "{count} entries to take, of {sessions} sessions in each of {writing} datacenters, \
         {shards} shards"
    );
    (deployment.is_cut, deployment.sent) = (false, BTreeMap::new());
    let (began, began_at) = (now(), deployment.millis);
    let mut told = began;
    loop {
        deployment.round();
        let (taken, waiting) = deployment.taken();
        let entries = (taken - before) / u64::from(nodes);
        let is_over = count <= entries;
        if is_over || Duration::from_secs(5) < told.elapsed() {
            told = now();
            let (took, hops) = (began.elapsed(), deployment.millis - began_at);
            println!("{took:?}, {hops} hops: {entries} taken, {waiting} wait");
        }
        if is_over {
            break;
        }
    }
    let rate = u128::from(count) * 1_000_000 / began.elapsed().as_micros().max(1);
    println!("{rate} entries a second on one core for all nodes; sent {:?}", deployment.sent);
}
