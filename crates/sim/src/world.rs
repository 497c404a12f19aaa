//! Runs a whole deployment in virtual time: takes what happens next from the queue and tells the
//! machine that it concerns, until everything has come to rest again.
//!
//! A run has four parts: clients and faults together; healing, after which everything must come to
//! rest; idling, in which nothing may be written; and judging. What the nodes do with each other is
//! in `talk`, what clients do in `visit`, what goes wrong in `trouble`, how it ends in `rest`.
//!
//! Ensures: nothing is asked of the machine that it runs on; the same plan gives the same trace.
//! Invariant: what is meant for an earlier run of a node never reaches a later one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use antecede_check::{History, Record};
use antecede_model::{
    clock::Steady,
    configuration::Configuration,
    ids::{Boot, DatacenterId, NodeId, SessionId, ShardId},
    response::Response,
};
use antecede_protocol::{
    chain::ShardOptions, geo::cuts::CUTS_EVERY, machine::Lease, manager::Decision,
    session::SessionOptions,
};

use crate::{
    chance::Chance,
    check::{Failure, cuts::Promises, visibility::Delays},
    client::{Client, Standing},
    control::{Beat, ControlPlane, Told},
    lapse::Lapsing,
    ledger::Ledger,
    members::{self, MembersPlane, MembersWrite},
    moment::{MILLI, Moment, NodeClock, SECOND},
    network::{Class, Network},
    node::Node,
    parcel::Parcel,
    plan::{ACTIVE, Durability, Plan, streams},
    rest::Rest,
    trace::Trace,
    workload::{AskId, KeyTable},
};

/// How far clocks may be apart.
const MAX_CLOCK_DRIFT: Duration = Duration::from_millis(500);
/// Little, so that heads often keep no more of a blocked entry than its header.
const BLOCKED_BYTES_MAX: usize = 2_048;
/// Little, so that a copy of few keys has several parts.
const PART_BYTES: usize = 100;
/// How long a session waits for the shards before it says that it does not know.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Steps that a run may take; far above what any run needs.
const STEPS_MAX: u64 = 20_000_000;

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) boot: Boot,
    pub(crate) connection: u32,
    pub(crate) class: Class,
    pub(crate) parcel: Parcel,
}

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A message reaches a node.
    Arrive(Box<Arrival>),
    /// A busy node gets to a message.
    Work(Place),
    /// A replica is woken.
    Wake(Place, ShardId),
    /// A session is woken.
    WakeSession(Place, SessionId),
    /// A node's log is handed to the operating system.
    Write(Place),
    /// A node's log is synced, because something waits for it.
    Sync(Place),
    /// A node's log is synced, because it is time.
    SyncEvery(Place),
    /// A node goes on with its checkpoint.
    Checkpoint(Place),
    /// A node forgets values.
    Forget(Place),
    /// A node reads a value, or hears of it.
    Load(Place, Box<crate::cold::Underway>),
    /// A node exchanges its cuts.
    Cuts(Place),
    /// The sessions of a node learn that a link is lost.
    LinkLost(Place, NodeId),
    /// The replicas of a node learn that another one runs anew.
    LinkBack(Place, NodeId),
    /// A client may do something.
    Turn(u32),
    /// A client has waited long enough for what it asked at this turn.
    GiveUp(u32, u64),
    /// The fault of this number begins.
    Begin(usize),
    /// The fault of this number ends.
    End(usize),
    /// A node starts.
    Start(usize),
    /// A node learns of a configuration.
    Configure(Place, Arc<Configuration>),
    /// A node says that it lives.
    Beat(Place),
    /// A control plane hears it.
    Hear(Place, Box<Beat>),
    /// A node is told what holds.
    Renew(Place, Told),
    /// A node writes back what it was told, since its lease had ended.
    WriteBack(Place, Told),
    /// A node is told that this holds.
    WrittenBack(Place, Steady),
    /// A node that was asked to stop looks how far it has come.
    Leave(Place),
    /// A manager looks at what it has heard.
    Manage(DatacenterId),
    /// People ask for this change of the members.
    Wish(usize),
    /// A datacenter that is about to lapse is cut off from everybody, or is so no more.
    CutOff(DatacenterId, bool),
    /// A node of one that has lapsed stops for good.
    PutAside(Place),
    /// People ask for this of a node.
    Drain(usize),
    /// Something reaches the register of the members.
    Members(MembersWrite),
    /// A decision reaches the register of a datacenter, made when that had this revision.
    Decide(DatacenterId, u64, Box<Decision>),
}

/// A crash at one output of a node, which does not get out any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// The node.
    pub node: NodeId,
    /// Which of its outputs, from 1: records to its log, messages, replies.
    pub output: u64,
    /// Whether the power goes, not only the process.
    pub is_power_loss: bool,
    /// For how long it is down, in nanoseconds.
    pub lasts: u64,
}

/// A run of a node: its place and its life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) life: u32,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Commands that were answered or given up.
    pub operations: u64,
    /// Of these, answered without a refusal.
    pub served: u64,
    /// Faults that took place.
    pub faults: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Records appended to all logs.
    pub records: u64,
    /// Virtual nanoseconds.
    pub virtual_time: u64,
    /// Events of the queue.
    pub steps: u64,
    /// Decisions of managers that took effect.
    pub epochs: u64,
    /// Batches of checkpoints that became durable.
    pub checkpoints: u64,
    /// Values that were taken out of memory.
    pub forgotten: u64,
    /// Values that were read back.
    pub loads: u64,
    /// Rounds in which a node took no writes, since it kept too much for other datacenters.
    pub held_up: u64,
    /// Acknowledged writes that were given up with their datacenter.
    pub given_up: u64,
    /// Datacenters that have lapsed and come back.
    pub returned: u64,
    /// Bits that changed on disks.
    pub rotten: u64,
    /// Starts that were refused for it.
    pub refused: u64,
    /// Starts that took the damage for a torn end.
    pub torn: u64,
    /// Of these, such that cut off what had been synced.
    pub cut_short: u64,
    /// Folders that were set aside for it.
    pub set_aside: u64,
    /// Folders that were put back as they had been, since others did not have all of it.
    pub restored: u64,
    /// Whether some register could not be decided.
    pub undecided: u64,
}

/// A deployment in virtual time.
#[derive(Debug)]
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Moment,
    pub(crate) queue: crate::queue::Queue<Happening>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) keys: KeyTable,
    pub(crate) ledger: Ledger,
    /// What clients asked and were told.
    pub(crate) records: Vec<Record>,
    pub(crate) trace: Trace,
    pub(crate) chance: Chance,
    /// For what checkpoints draw, so that the rest of a seed is drawn as without.
    pub(crate) checkpoint_chance: Chance,
    /// For what is forgotten, and how long loads take.
    pub(crate) memory_chance: Chance,
    /// For which bits change, and how long people take.
    pub(crate) rot_chance: Chance,
    pub(crate) failure: Option<Failure>,
    pub(crate) configuration: Arc<Configuration>,
    /// Who decides, in each datacenter; none where the configuration is fixed.
    pub(crate) control: BTreeMap<DatacenterId, ControlPlane>,
    /// What the datacenters agree on.
    pub(crate) members: MembersPlane,
    pub(crate) members_chance: Chance,
    pub(crate) growth_chance: Chance,
    /// Datacenters that lapse.
    pub(crate) lapses: BTreeMap<DatacenterId, Lapsing>,
    /// Datacenters that are lost for ever, or have lapsed.
    pub(crate) lost: BTreeSet<DatacenterId>,
    pub(crate) session_options: SessionOptions,
    pub(crate) sessions_begun: u64,
    /// What each request id was answered first.
    pub(crate) answers_by_id: BTreeMap<AskId, Response>,
    pub(crate) told_lost: BTreeSet<(NodeId, NodeId)>,
    /// What cuts have promised.
    pub(crate) promises: Promises,
    pub(crate) rest: Rest,
    /// Where a node crashes, if it is counted.
    pub(crate) crash_point: Option<CrashPoint>,
    /// What each node has put out: records, messages, replies.
    pub(crate) outputs: Vec<u64>,
    pub(crate) tally: Tally,
    /// Shards whose delays are measured; all that matter where a run is compared with another.
    pub(crate) measured: BTreeSet<ShardId>,
    pub(crate) delays: Delays,
}

/// What the replicas of all nodes are made with.
fn shard_options(plan: &Plan) -> ShardOptions {
    let shape = plan.shape;
    ShardOptions {
        max_clock_drift: MAX_CLOCK_DRIFT,
        hash_secret: 7,
        blocked_bytes_max: BLOCKED_BYTES_MAX,
        kept_bytes_max: shape.kept_bytes_max,
        trimmed_bytes_min: shape.trimmed_bytes_min,
        part_bytes: PART_BYTES,
        part_pause: Duration::from_millis(shape.part_pause_millis),
        retries_max: shape.retries_max,
        has_checkpoints: 0 < shape.checkpoint_every,
        away_bytes_min: (0 < shape.forget_every).then_some(crate::cold::AWAY_BYTES_MIN),
        mutations: plan.mutations,
    }
}

impl World {
    /// The world of a plan, before anything has happened.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let by_settings = Arc::new(plan.configuration());
        let configuration = Arc::new(members::first(&by_settings, &plan));
        let keys = KeyTable::of(&plan.workload, plan.shape.numbers(), configuration.shard_count);
        let mut chance = Chance::new(plan.seed, streams::NODES);
        let shape = plan.shape;
        let mutations = plan.mutations;
        let options = shard_options(&plan);
        let session_options = SessionOptions {
            request_timeout: REQUEST_TIMEOUT,
            max_clock_drift: MAX_CLOCK_DRIFT,
            mutations,
        };
        let nodes = shape
            .all_nodes()
            .map(|id| {
                let clock = draw_clock(&mut chance, &plan);
                let is_new = configuration.datacenter(id.datacenter).is_none();
                let known = if is_new { &by_settings } else { &configuration };
                let outbox_bytes_max = shape.outbox_bytes_max;
                Node::new(id, Arc::clone(known), options, shape.durability, clock, outbox_bytes_max)
            })
            .collect();
        let network =
            Network::new(shape, plan.weather.clone(), Chance::new(plan.seed, streams::NETWORK));
        let ledger = Ledger::new(shape.all_nodes(), shape.shards, shape.durability);
        let mut world = Self {
            now: Moment::default(),
            queue: crate::queue::Queue::default(),
            nodes,
            network,
            clients: BTreeMap::new(),
            keys,
            ledger,
            records: Vec::new(),
            trace,
            chance,
            checkpoint_chance: Chance::new(plan.seed, streams::CHECKPOINTS_AT_WORK),
            memory_chance: Chance::new(plan.seed, streams::MEMORY_AT_WORK),
            rot_chance: Chance::new(plan.seed, streams::ROT_AT_WORK),
            failure: None,
            configuration,
            control: BTreeMap::new(),
            members: MembersPlane::default(),
            members_chance: Chance::new(plan.seed, streams::MEMBERS_AT_WORK),
            growth_chance: Chance::new(plan.seed, streams::GROWTH_AT_WORK),
            lapses: BTreeMap::new(),
            lost: BTreeSet::new(),
            session_options,
            sessions_begun: 0,
            answers_by_id: BTreeMap::new(),
            told_lost: BTreeSet::new(),
            promises: Promises::default(),
            rest: Rest::default(),
            crash_point: None,
            outputs: vec![0; shape.all_nodes().count()],
            tally: Tally::default(),
            measured: BTreeSet::new(),
            delays: Delays::default(),
            plan,
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.now.after(self.chance.below(20 * MILLI));
            self.queue.add(at, Happening::Start(node));
        }
        for number in self.plan.clients.clone() {
            let client = self.new_client(number);
            self.clients.insert(number, client);
            let at = Moment(self.chance.between(100 * MILLI, SECOND));
            self.queue.add(at, Happening::Turn(number));
        }
        self.begin_control();
        self.begin_members();
        self.begin_lapses();
        self.begin_drains();
        for (number, fault) in self.plan.faults.iter().enumerate() {
            self.queue.add(fault.at, Happening::Begin(number));
        }
    }

    fn new_client(&self, number: u32) -> Client {
        let plan = &self.plan;
        let mut chance = Chance::new(plan.seed, streams::CLIENTS + u64::from(number));
        let count = u32::from(plan.shape.datacenters);
        let dc = u16::try_from(number % count + 1).expect("few datacenters");
        let home = DatacenterId(dc);
        Client {
            number,
            home,
            node: NodeId { datacenter: home, number: 1 },
            is_eventual: chance.per_mille(plan.workload.eventual_per_mille),
            chance,
            left: plan.workload.operations,
            values: 0,
            standing: Standing::Apart,
            session: 0,
            seq: 0,
            transaction: 0,
            waiting: std::collections::VecDeque::new(),
            turn: 0,
            shown: antecede_model::clock::Timestamp::ZERO,
            last_write: None,
            again: None,
            answered: std::collections::VecDeque::new(),
            id_chance: Chance::new(plan.seed, streams::CLIENT_IDS + u64::from(number)),
            last_id: 0,
        }
    }

    /// Runs until everything has come to rest, and judges what happened.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn run(&mut self) -> Result<(), Failure> {
        self.run_to(ACTIVE)?;
        self.heal();
        self.come_to_rest()?;
        self.idle()?;
        self.judge()
    }

    /// Runs for a while with one crash, or none; then as [`World::run`].
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn run_script(&mut self, end: Moment, crash: Option<CrashPoint>) -> Result<(), Failure> {
        self.crash_point = crash;
        self.run_to(end)?;
        self.crash_point = None;
        self.heal();
        self.come_to_rest()?;
        self.idle()?;
        self.judge()
    }

    /// How much a node has put out.
    #[must_use]
    pub fn outputs_of(&self, node: NodeId) -> u64 {
        self.outputs[self.place_of(node)]
    }

    /// Counts an output of a node; true if it crashes before that gets out.
    pub(crate) fn crashes_at_output(&mut self, number: usize) -> bool {
        self.outputs[number] += 1;
        let Some(point) = self.crash_point else { return false };
        let is_here = self.place_of(point.node) == number && self.outputs[number] == point.output;
        if is_here {
            self.crash(number, point.is_power_loss, point.lasts);
        }
        is_here
    }

    /// Runs to a moment.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn run_to(&mut self, end: Moment) -> Result<(), Failure> {
        while let Some(next) = self.queue.next_at()
            && next <= end
        {
            let Some((at, happening)) = self.queue.take() else { break };
            self.now = at;
            self.tally.steps += 1;
            if STEPS_MAX < self.tally.steps {
                let what = format!("{STEPS_MAX} steps were not enough");
                self.fail(Failure::new("no_stuck", what));
            }
            self.happen(happening);
            if let Some(failure) = self.failure.take() {
                self.trace.line(self.now, format_args!("FAILED {failure}"));
                return Err(failure);
            }
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until) = self.is_paused(&happening) {
            self.queue.add(until, happening);
            return;
        }
        match happening {
            Happening::Arrive(arrival) => self.arrive(arrival),
            Happening::Work(place) => self.work(place),
            Happening::Wake(place, shard) => self.wake(place, shard),
            Happening::WakeSession(place, session) => self.wake_session(place, session),
            Happening::Write(place) => self.write(place),
            Happening::Sync(place) => self.sync(place),
            Happening::SyncEvery(place) => self.sync_every(place),
            Happening::Checkpoint(place) => self.checkpoint(place),
            Happening::Forget(place) => self.forget(place),
            Happening::Load(place, underway) => self.load(place, *underway),
            Happening::Cuts(place) => self.exchange_cuts(place),
            Happening::LinkLost(place, of) => self.link_lost(place, of),
            Happening::LinkBack(place, of) => self.link_back(place, of),
            Happening::Turn(client) => self.turn(client),
            Happening::GiveUp(client, turn) => self.give_up(client, turn),
            Happening::Begin(fault) => self.begin(fault),
            Happening::End(fault) => self.end(fault),
            Happening::Start(node) => self.start(node),
            Happening::Configure(place, configuration) => self.configure(place, &configuration),
            Happening::Beat(place) => self.beat(place),
            Happening::Hear(place, beat) => self.hear(place, *beat),
            Happening::Renew(place, told) => self.renew(place, told),
            Happening::WriteBack(place, told) => self.write_back(place, &told),
            Happening::WrittenBack(place, sent) => self.written_back(place, sent),
            Happening::Leave(place) => self.go_on_leaving(place),
            Happening::Wish(number) => self.wish(number),
            Happening::CutOff(datacenter, is_on) => self.cut_off(datacenter, is_on),
            Happening::PutAside(place) => self.put_aside(place),
            Happening::Drain(number) => self.drain(number),
            Happening::Members(write) => self.on_members(write),
            Happening::Manage(datacenter) => self.manage(datacenter),
            Happening::Decide(datacenter, behind, decision) => {
                self.decide(datacenter, behind, &decision);
            }
        }
    }

    /// Until when the process that something happens to stands still, if it does.
    fn is_paused(&self, happening: &Happening) -> Option<Moment> {
        let node = match happening {
            Happening::Arrive(arrival) => self.place_of(arrival.to),
            Happening::Work(place)
            | Happening::Wake(place, _)
            | Happening::WakeSession(place, _)
            | Happening::Write(place)
            | Happening::Sync(place)
            | Happening::SyncEvery(place)
            | Happening::Checkpoint(place)
            | Happening::Forget(place)
            | Happening::Load(place, _)
            | Happening::Cuts(place)
            | Happening::LinkLost(place, _)
            | Happening::LinkBack(place, _)
            | Happening::Configure(place, _)
            | Happening::Beat(place)
            | Happening::Leave(place)
            | Happening::PutAside(place)
            | Happening::Renew(place, _)
            | Happening::WrittenBack(place, _) => place.node,
            Happening::Turn(client) => self.place_of(self.clients.get(client)?.node),
            Happening::GiveUp(..)
            | Happening::Begin(_)
            | Happening::End(_)
            | Happening::Start(_)
            | Happening::Hear(..)
            | Happening::WriteBack(..)
            | Happening::Wish(_)
            | Happening::CutOff(..)
            | Happening::Drain(_)
            | Happening::Members(_)
            | Happening::Manage(_)
            | Happening::Decide(..) => return None,
        };
        Some(self.nodes[node].paused_until).filter(|until| self.now < *until)
    }

    /// The place of a node in the list.
    pub(crate) fn place_of(&self, node: NodeId) -> usize {
        let of_datacenter = usize::from(node.datacenter.0 - 1);
        of_datacenter * usize::from(self.plan.shape.nodes) + usize::from(node.number - 1)
    }

    /// The run of a node that is under way.
    pub(crate) fn present(&self, node: usize) -> Place {
        Place { node, life: self.nodes[node].life }
    }

    /// Whether a run of a node is still under way.
    pub(crate) fn is_present(&self, place: Place) -> bool {
        let node = &self.nodes[place.node];
        node.is_up && node.life == place.life
    }

    /// Takes note of a property that does not hold; the first counts.
    pub(crate) fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }

    /// Takes note of a property that may not hold.
    pub(crate) fn hold(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.fail(failure);
        }
    }

    fn wake(&mut self, place: Place, shard: ShardId) {
        if self.is_present(place) {
            let now = self.now;
            self.nodes[place.node].tell(now, shard, antecede_protocol::chain::Input::Wake);
            self.absorb(place.node);
        }
    }

    fn exchange_cuts(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        let node = &mut self.nodes[place.node];
        let has_moved = node.exchange_cuts(self.now);
        self.tally.held_up += u64::from(node.bound.held_up_by().is_some());
        if has_moved {
            let cuts = node.keeper.cuts();
            // One that is alone says so of itself; that is no promise to anybody.
            if node.configuration.peers(node.id.datacenter).next().is_some() {
                self.promises.note(node.id.datacenter, &cuts.applied, &cuts.stable);
            }
        }
        if has_moved && self.trace.is_on() {
            let line = format_args!("{} knows {:?}", node.id, node.keeper.cuts());
            self.trace.line(self.now, line);
        }
        let every = u64::try_from(CUTS_EVERY.as_nanos()).expect("a short time");
        self.queue.add(self.now.after(every), Happening::Cuts(place));
        self.absorb(place.node);
        if has_moved {
            self.wake_waiting_sessions(place);
        }
    }

    /// Starts a node, unless it runs or is gone.
    pub(crate) fn start(&mut self, number: usize) {
        let node = &self.nodes[number];
        if node.is_up || node.is_removed || !self.may_start(number) {
            return;
        }
        let node = &mut self.nodes[number];
        if self.control.is_empty() {
            node.configuration = Arc::clone(&self.configuration);
        } else {
            node.lease_until = Lease::Until(Steady::default());
        }
        node.paused_until = Moment::default();
        node.well_since = self.now;
        let id = node.id;
        let recovered = match node.start(self.now) {
            Ok(recovered) => recovered,
            Err(why) => return self.refused(number, &why),
        };
        if !self.may_go_on(number, &recovered) {
            return self.start(number);
        }
        let node = &self.nodes[number];
        let boot = node.boot;
        let persisted = node.log.persisted();
        self.ledger.begin_again(id);
        let count = recovered.records.len();
        for (index, record) in &recovered.records {
            self.note(number, *index, record);
        }
        let facts = self.ledger.node_mut(id);
        facts.counted_to = persisted.to.0;
        facts.synced_to = persisted.synced_to.0;
        self.trace.line(self.now, format_args!("{id} starts, boot {boot}, {count} records"));
        let place = self.present(number);
        let phase = self.chance.below(250 * MILLI);
        self.queue.add(self.now.after(phase), Happening::Cuts(place));
        if self.plan.shape.durability == Durability::Interval {
            self.queue.add(self.now.after(SECOND), Happening::SyncEvery(place));
        }
        self.compare_recovered(number, &recovered.by_whole_log);
        self.checkpoint_later(number);
        self.forget_later(number);
        if !self.control.is_empty() {
            self.queue.add(self.now.after(1_000), Happening::Beat(place));
        }
        self.forget_missing_links();
        self.tell_of_restart(id);
        self.absorb(number);
    }

    fn configure(&mut self, place: Place, configuration: &Arc<Configuration>) {
        if !self.is_present(place) {
            return;
        }
        let node = &mut self.nodes[place.node];
        let mut next = Configuration::clone(&node.configuration);
        let mut is_news = false;
        for (of, part) in &configuration.datacenters {
            is_news |= next.adopt(*of, part);
        }
        if is_news {
            let id = node.id;
            self.trace.line(self.now, format_args!("{id} learns of a configuration"));
            node.reconfigure(self.now, &Arc::new(next));
            self.absorb(place.node);
        }
    }

    /// What the run came to.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { virtual_time: self.now.0, records: self.ledger.appended(), ..self.tally.clone() }
    }

    /// The trace.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The history of the clients.
    #[must_use]
    pub fn history(&self) -> History {
        crate::client::history_of(&self.records)
    }

    /// Measures the delays of these shards.
    pub fn measure(&mut self, shards: impl IntoIterator<Item = ShardId>) {
        self.measured = shards.into_iter().collect();
    }

    /// What was measured.
    #[must_use]
    pub const fn delays(&self) -> &Delays {
        &self.delays
    }
}

fn draw_clock(chance: &mut Chance, plan: &Plan) -> NodeClock {
    let around = |chance: &mut Chance, most: u64| {
        let drawn = i64::try_from(chance.below(2 * most + 1)).expect("small");
        drawn - i64::try_from(most).expect("small")
    };
    NodeClock {
        offset_micros: around(chance, plan.weather.skew_millis * 1000),
        rate_ppm: around(chance, plan.weather.drift_ppm),
        born: Moment::default(),
    }
}
