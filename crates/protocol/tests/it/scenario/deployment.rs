//! Runs the machines of all nodes in virtual time, and writes down all that passes between them.
//!
//! Every datacenter has as many nodes as its chains have replicas, and node 1 is the head of every
//! shard, so that "A head" means one node; nodes keep these names when the script decides that others
//! serve. Messages take no time; time passes only when the script says so, from one timer to the next.
//!
//! Ensures: the same script gives the same lines. After every input: what a tail commits is
//! persisted by its whole chain, replicas of a chain hold the same committed entries, no two
//! replicas have diverged, none serves before it has all keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use antecede_model::{
    clock::{Now, Steady, Timestamp, Wall},
    configuration::{Chain, Configuration, Datacenter, Waiting},
    ids::{Boot, DatacenterId, DeploymentId, Epoch, LogIndex, NodeId, ShardId},
    key::ShardCount,
    membership::{Member, Membership},
};
use antecede_protocol::{
    chain::{Input, Shard, ShardOptions, Watermarks},
    event::Event,
    geo::cuts::{CUTS_EVERY, CutInput, CutKeeper},
    machine::{Here, Lease, Outputs, Storage},
    message::{Message, Reply},
    mutation::Mutations,
    wire,
};

use super::{
    client::Clients,
    disk::Disk,
    network::{Fate, Network, Packet},
    telling::{self, EPOCH_MILLIS},
};

/// Messages at one moment after which a deployment is taken to talk in a circle.
const MESSAGES_MAX: usize = 2_000;

/// One process and its disk.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) boot: Boot,
    pub(super) shards: BTreeMap<ShardId, Shard>,
    pub(super) keeper: CutKeeper,
    pub(super) disk: Disk,
    pub(super) configuration: Arc<Configuration>,
    pub(super) is_up: bool,
    /// Until when it may answer.
    pub(super) lease: Lease,
    /// Added to the true time.
    pub(super) clock_offset_millis: i64,
    /// When shards want to be woken.
    wakes: BTreeMap<ShardId, Steady>,
    /// The largest timestamp that left the node; its ceiling is as tight as can be.
    ceiling: Timestamp,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) configuration: Arc<Configuration>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) network: Network,
    pub(super) clients: Clients,
    /// True time since the beginning.
    pub(super) millis: u64,
    /// What passed since the block began.
    pub(super) lines: Vec<String>,
    /// What happened since the beginning, with the node.
    pub(super) events: Vec<(NodeId, Event)>,
    /// What must never be and was.
    pub(super) violations: Vec<String>,
    /// A deliberate bug, to see that the stories notice it.
    pub(super) mutations: Mutations,
    /// Bytes of its log that a shard keeps for replicas that are away.
    kept_bytes_max: usize,
}

/// What a deployment is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) datacenters: u16,
    pub(super) chain_length: u16,
    pub(super) shards: u32,
    pub(super) kept_bytes_max: usize,
}

/// What a datacenter decides of all its chains.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) datacenter: DatacenterId,
    /// Head first.
    pub(super) serving: Vec<NodeId>,
    /// Nodes that are in neither are gone.
    pub(super) waiting: BTreeMap<NodeId, Waiting>,
}

fn configuration(size: Size) -> Configuration {
    let shard_count = ShardCount::new(size.shards).unwrap();
    let datacenters = (1..=size.datacenters).map(|id| {
        let datacenter = DatacenterId(id);
        let nodes: Vec<NodeId> =
            (1..=size.chain_length).map(|number| NodeId { datacenter, number }).collect();
        let chains = shard_count.shards().map(|_| Chain::of(nodes.clone())).collect();
        let name = telling::datacenter(datacenter).to_string();
        (datacenter, Datacenter::of(name, nodes, chains))
    });
    let datacenters: BTreeMap<DatacenterId, Datacenter> = datacenters.collect();
    let members = datacenters.iter().map(|(id, part)| {
        let nodes = part.nodes.iter().map(|node| (*node, String::new()));
        (*id, Member::open(part.name.clone(), nodes.collect()))
    });
    let membership = Arc::new(Membership::first(members));
    Configuration { deployment: DeploymentId::default(), membership, shard_count, datacenters }
}

impl Deployment {
    /// All nodes running and settled, one second after the beginning.
    pub(super) fn of(size: Size, mutations: Mutations) -> Self {
        let configuration = Arc::new(configuration(size));
        let all = configuration.datacenters.values().flat_map(|datacenter| &datacenter.nodes);
        let nodes = all.map(|node| {
            let keeper = CutKeeper::new(Arc::clone(&configuration), node.datacenter);
            let keeper = keeper.with_mutations(mutations);
            let state = Node {
                boot: Boot(0),
                shards: BTreeMap::new(),
                keeper,
                disk: Disk::default(),
                configuration: Arc::clone(&configuration),
                is_up: false,
                lease: Lease::Unbounded,
                clock_offset_millis: 0,
                wakes: BTreeMap::new(),
                ceiling: Timestamp::ZERO,
            };
            (*node, state)
        });
        let nodes: BTreeMap<NodeId, Node> = nodes.collect();
        let mut deployment = Self {
            configuration: Arc::clone(&configuration),
            nodes,
            network: Network::default(),
            clients: Clients::default(),
            millis: 0,
            lines: Vec::new(),
            events: Vec::new(),
            violations: Vec::new(),
            mutations,
            kept_bytes_max: size.kept_bytes_max,
        };
        for node in deployment.all_nodes() {
            deployment.start(node);
        }
        deployment.drain();
        deployment.pass(1000);
        deployment
    }

    pub(super) fn all_nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn node(&mut self, node: NodeId) -> &mut Node {
        self.nodes.get_mut(&node).expect("the script names nodes that there are")
    }

    /// What people call a node.
    pub(super) fn name(&self, node: NodeId) -> String {
        let datacenter = telling::datacenter(node.datacenter);
        let count = self.configuration.datacenters[&node.datacenter].nodes.len();
        match (usize::from(node.number), count) {
            (_, 1) => datacenter.to_string(),
            (1, _) => format!("{datacenter} head"),
            (number, _) if number == count => format!("{datacenter} tail"),
            (_, 3) => format!("{datacenter} middle"),
            (number, _) => format!("{datacenter} {number}"),
        }
    }

    pub(super) fn tell_line(&mut self, who: &str, what: &str) {
        self.lines.push(format!("{who:<20}  {what}"));
    }

    fn tell_at(&mut self, node: NodeId, what: &str) {
        let name = self.name(node);
        self.tell_line(&name, what);
    }

    fn tell_message(&mut self, packet: &Packet, fate: &str) {
        let asker = match &packet.message {
            Message::Reply(request, _) => self.clients.name_of(*request),
            Message::Shard(_)
            | Message::Cut(_)
            | Message::AskConfiguration(_)
            | Message::Configuration(..) => String::new(),
        };
        let what = telling::message(&packet.message, &asker);
        let who = format!("{} -> {}", self.name(packet.from), self.name(packet.to));
        self.tell_line(&who, &format!("{what}{fate}"));
    }

    pub(super) fn here(&self, node: NodeId) -> Here {
        let state = &self.nodes[&node];
        Here {
            node,
            boot: state.boot,
            now: self.now(node),
            hlc_floor: state.ceiling,
            lease_until: state.lease,
        }
    }

    pub(super) fn now(&self, node: NodeId) -> Now {
        let wall = (EPOCH_MILLIS + self.millis)
            .checked_add_signed(self.nodes[&node].clock_offset_millis)
            .expect("clocks differ by little");
        Now { steady: Steady(Duration::from_millis(self.millis)), wall: Wall(wall * 1000) }
    }

    /// Starts a process on what its disk holds.
    pub(super) fn start(&mut self, node: NodeId) {
        let options = ShardOptions {
            blocked_bytes_max: antecede_protocol::geo::inbox::BLOCKED_BYTES_MAX,
            kept_bytes_max: self.kept_bytes_max,
            trimmed_bytes_min: antecede_protocol::record::TRIMMED_BYTES_MIN,
            part_bytes: 1,
            part_pause: Duration::ZERO,
            retries_max: antecede_protocol::retries::KEPT_MAX,
            has_checkpoints: false,
            away_bytes_min: None,
            max_clock_drift: Duration::from_millis(500),
            hash_secret: 7,
            mutations: self.mutations,
        };
        let configuration = Arc::clone(&self.node(node).configuration);
        let state = self.node(node);
        state.boot = Boot(state.boot.0 + 1);
        state.is_up = true;
        let keeper = CutKeeper::new(Arc::clone(&configuration), node.datacenter);
        state.keeper = keeper.with_mutations(options.mutations);
        let make = |shard| (shard, Shard::new(shard, node, Arc::clone(&configuration), options));
        let mut shards: BTreeMap<ShardId, Shard> =
            configuration.shards_of(node).map(make).collect();
        let records = state.disk.records();
        let end = records.last().map_or(LogIndex(0), |(index, ..)| *index);
        for (index, shard, record) in records {
            shards.get_mut(&shard).unwrap().recover(index, record);
        }
        let here = self.here(node);
        for (shard, mut machine) in shards {
            let mut out = Outputs::default();
            machine.end_recovery(end).expect("nothing of these logs is damaged");
            machine.start(&here, &mut self.node(node).disk, &mut out);
            self.node(node).shards.insert(shard, machine);
            self.take(node, Some(shard), out);
        }
    }

    /// Ends a process; what its disk has not persisted is gone.
    pub(super) fn crash(&mut self, node: NodeId) {
        let state = self.node(node);
        state.is_up = false;
        state.shards.clear();
        state.wakes.clear();
        let lost = state.disk.crash();
        self.tell_at(node, &format!("crashes, {lost} records are lost"));
        self.lose_links_to(node);
    }

    pub(super) fn tell(&mut self, node: NodeId, shard: ShardId, input: Input<'_>) {
        let here = self.here(node);
        let mut out = Outputs::default();
        let state = self.node(node);
        if let Some(machine) = state.shards.get_mut(&shard) {
            machine.handle(&here, input, &mut state.disk, &mut out);
            if machine.is_settled() && machine.keys().frontier().is_some() {
                self.violations.push(format!("{node} serves shard {shard} and lacks keys"));
            }
        }
        self.take(node, Some(shard), out);
    }

    fn take(&mut self, node: NodeId, shard: Option<ShardId>, out: Outputs) {
        for event in out.events {
            let told = telling::event(&event, |other| self.name(other));
            self.tell_at(node, &told);
            self.check_event(node, &event);
            self.events.push((node, event));
        }
        for (to, message) in out.early {
            self.send(node, to, message);
        }
        for (request, reply) in out.replies {
            self.send(node, request.node, Message::Reply(request, reply));
        }
        let state = self.node(node);
        if let (Some(shard), Some(at)) = (shard, out.wake) {
            let wake = state.wakes.entry(shard).or_insert(at);
            *wake = at.min(*wake);
        }
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let state = self.node(from);
        let boot = state.boot;
        let hlc = match &message {
            Message::Shard(message) => message.hlc,
            Message::Cut(report) => report.hlc,
            Message::Reply(_, reply) => reply.visible_at,
            Message::AskConfiguration(_) | Message::Configuration(..) => Timestamp::ZERO,
        };
        state.ceiling = state.ceiling.max(hlc);
        self.network.send(Packet { from, to, boot, message });
    }

    /// Delivers and persists until nothing moves any more; time stands still.
    pub(super) fn drain(&mut self) {
        let mut count = 0;
        loop {
            while let Some(fate) = self.network.next() {
                count += 1;
                assert!(count < MESSAGES_MAX, "messages run in a circle at {} ms", self.millis);
                match fate {
                    Fate::Arrives(packet) => self.deliver(packet),
                    Fate::Lost(packet) => self.tell_message(&packet, "  (lost)"),
                    Fate::Held(packet) => self.tell_message(&packet, "  (held)"),
                }
            }
            for node in self.all_nodes() {
                self.persist(node);
            }
            if self.network.is_quiet() {
                self.check_prefixes();
                return;
            }
        }
    }

    pub(super) fn deliver(&mut self, packet: Packet) {
        if !self.nodes[&packet.to].is_up {
            self.tell_message(&packet, "  (lost)");
            return;
        }
        self.tell_message(&packet, "");
        let Packet { from, to, boot, message } = packet;
        let mut bytes = Vec::new();
        wire::write_message(&message, &mut bytes);
        match wire::read_message(&bytes).expect("what a machine says can be read") {
            Message::Shard(message) => {
                self.tell(to, message.shard, Input::Message { from, boot, message });
            }
            Message::Reply(request, reply) => self.answer(request, reply),
            Message::Cut(report) => {
                let here = self.here(to);
                let mut out = Outputs::default();
                self.node(to).keeper.handle(&here, CutInput::Report { from, report }, &mut out);
                self.take(to, None, out);
            }
            Message::AskConfiguration(of) => {
                if let Some(part) = self.node(to).configuration.datacenter(of).cloned() {
                    self.send(to, from, Message::Configuration(of, Box::new(part)));
                }
            }
            Message::Configuration(of, part) => {
                let mut next = Configuration::clone(&self.node(to).configuration);
                if next.adopt(of, &part) {
                    self.hear_of(to, &Arc::new(next));
                }
            }
        }
    }

    fn answer(&mut self, request: antecede_model::ids::RequestId, reply: Reply) {
        if !self.clients.is_session(request) {
            let (name, told) = (self.clients.name_of(request), telling::response(&reply.response));
            self.tell_line(&name, &told);
        }
        self.reply_to_client(request, reply);
    }

    fn persist(&mut self, node: NodeId) {
        let state = self.node(node);
        if !state.is_up {
            return;
        }
        let count = state.disk.persist();
        let reached = state.disk.reached();
        if count == 0 {
            return;
        }
        let plural = if count == 1 { "" } else { "s" };
        self.tell_at(node, &format!("persists {count} record{plural}"));
        let shards: Vec<ShardId> = self.nodes[&node].shards.keys().copied().collect();
        for shard in shards {
            self.tell(node, shard, Input::Persisted(reached));
        }
    }

    /// Lets time pass, from one timer to the next.
    pub(super) fn pass(&mut self, millis: u64) {
        let until = self.millis + millis;
        while self.millis < until {
            self.millis = self.next_moment().min(until);
            for node in self.all_nodes() {
                self.wake_node(node);
            }
            self.wake_clients();
            self.drain();
        }
    }

    fn next_moment(&self) -> u64 {
        let every = millis_of(CUTS_EVERY);
        let exchange = (self.millis / every + 1) * every;
        let wakes = self.nodes.values().flat_map(|node| node.wakes.values().copied());
        let next = wakes.chain(self.clients.wakes()).map(|at| millis_of(at.0)).min();
        next.map_or(exchange, |next| next.max(self.millis + 1).min(exchange))
    }

    fn wake_node(&mut self, node: NodeId) {
        if !self.nodes[&node].is_up {
            return;
        }
        let now = Steady(Duration::from_millis(self.millis));
        let wakes = &self.nodes[&node].wakes;
        let due: Vec<ShardId> =
            wakes.iter().filter(|(_, at)| **at <= now).map(|(shard, _)| *shard).collect();
        for shard in due {
            self.node(node).wakes.remove(&shard);
            self.tell(node, shard, Input::Wake);
        }
        if self.millis.is_multiple_of(millis_of(CUTS_EVERY)) {
            self.exchange_cuts(node);
        }
    }

    fn exchange_cuts(&mut self, node: NodeId) {
        let here = self.here(node);
        let mut out = Outputs::default();
        let state = self.node(node);
        let watermarks: Vec<(ShardId, Watermarks)> = state
            .shards
            .iter()
            .filter_map(|(id, shard)| shard.watermarks().map(|marks| (*id, marks)))
            .collect();
        state.keeper.handle(&here, CutInput::Watermarks(&watermarks), &mut out);
        let cuts = Arc::clone(state.keeper.cuts());
        let shards: Vec<ShardId> = state.shards.keys().copied().collect();
        self.take(node, None, out);
        for shard in shards {
            self.tell(node, shard, Input::Cuts(&cuts));
        }
        self.cuts_moved(node);
    }

    /// Gives a new configuration of a datacenter to some nodes.
    pub(super) fn reconfigure(&mut self, datacenter: DatacenterId, epoch: u64, reached: &[NodeId]) {
        let mut next = (*self.configuration).clone();
        let there = next.datacenters.get_mut(&datacenter).unwrap();
        there.epoch = Epoch(epoch);
        there.chains.iter_mut().for_each(|chain| chain.epoch = Epoch(epoch));
        let next = Arc::new(next);
        self.configuration = Arc::clone(&next);
        for node in reached {
            self.tell_at(*node, &format!("hears of epoch {epoch}"));
            self.hear_of(*node, &next);
        }
    }

    /// Decides who serves, in which runs, by the manager's rules on epochs; tells some nodes.
    pub(super) fn decide(&mut self, decided: &Decided, reached: &[NodeId]) {
        let mut next = (*self.configuration).clone();
        let there = next.datacenters.get_mut(&decided.datacenter).unwrap();
        there.epoch = there.epoch.next();
        let mut restarted = BTreeSet::new();
        there.absent.clear();
        for node in &there.nodes {
            let state = &self.nodes[node];
            if state.is_up && there.boots.insert(*node, state.boot) != Some(state.boot) {
                restarted.insert(*node);
            }
            if !decided.serving.contains(node) && !decided.waiting.contains_key(node) {
                there.absent.insert(*node);
            }
        }
        let mut waiting = decided.waiting.clone();
        waiting.extend(there.absent.iter().map(|node| (*node, Waiting::Offline)));
        for chain in &mut there.chains {
            let has_new_runs = decided.serving.iter().any(|node| restarted.contains(node));
            if chain.serving != decided.serving || has_new_runs {
                chain.epoch = there.epoch;
            }
            (chain.serving, chain.waiting) = (decided.serving.clone(), waiting.clone());
        }
        let epoch = there.epoch;
        let next = Arc::new(next);
        self.configuration = Arc::clone(&next);
        for node in reached {
            let told = if self.nodes[node].is_up { "hears" } else { "will hear" };
            self.tell_at(*node, &format!("{told} of epoch {epoch}"));
            self.hear_of(*node, &next);
        }
    }

    fn hear_of(&mut self, node: NodeId, next: &Arc<Configuration>) {
        let state = self.node(node);
        state.configuration = Arc::clone(next);
        state.keeper.configure(Arc::clone(next), node.datacenter);
        let shards: Vec<ShardId> = state.shards.keys().copied().collect();
        for shard in shards {
            self.tell(node, shard, Input::Configuration(Arc::clone(next)));
        }
    }

    /// What a tail commits must be on every disk of the chain.
    fn check_event(&mut self, node: NodeId, event: &Event) {
        let name = match event {
            Event::Committed { shard, origin, stamp, .. }
            | Event::Applied { shard, origin, stamp, .. } => (*shard, *origin, *stamp),
            Event::Diverged { .. } => {
                self.violations.push(format!("replicas diverged: {event:?}"));
                return;
            }
            Event::Waiting { .. }
            | Event::Conflict { .. }
            | Event::Drift { .. }
            | Event::Settled { .. }
            | Event::Seeded { .. }
            | Event::Older { .. }
            | Event::StaleMessage { .. }
            | Event::BodiesDropped { .. }
            | Event::LoadFailed { .. } => return,
        };
        for replica in self.nodes[&node].configuration.chain(node.datacenter, name.0) {
            if !self.nodes[replica].disk.has_persisted(name) {
                let found = format!("{event:?} at {node}, but {replica} has not persisted it");
                self.violations.push(found);
            }
        }
    }

    /// Replicas of a chain hold the same entries wherever both have committed.
    fn check_prefixes(&mut self) {
        let mut violations = Vec::new();
        for (node, state) in &self.nodes {
            for (other, peer) in &self.nodes {
                if node.datacenter != other.datacenter || node.number <= other.number {
                    continue;
                }
                for (shard, left) in &state.shards {
                    let Some(right) = peer.shards.get(shard) else { continue };
                    let to = left.committed_to().min(right.committed_to());
                    let mut position = to;
                    while let (Some(one), Some(two)) =
                        (left.entry_at(position), right.entry_at(position))
                    {
                        if one.identity != two.identity {
                            let place = format!("#{position} of s{shard}");
                            violations.push(format!("{node} and {other} differ at {place}"));
                        }
                        position.0 -= 1;
                    }
                }
            }
        }
        self.violations.extend(violations);
    }

    pub(super) fn shard_of(&self, key: &str) -> ShardId {
        self.configuration.shard_count.shard_of(key.as_bytes())
    }

    pub(super) fn links(&self, from: &[NodeId], to: &[NodeId]) -> BTreeSet<(NodeId, NodeId)> {
        let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| from != to).collect()
    }
}

pub(super) fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("stories are short")
}
