//! Says what a run consists of, before it runs: the deployment, the weather between its nodes, the
//! clients and the faults. Drawn from the seed; shrinking takes parts away.
//!
//! A profile bends the draw towards one kind of trouble, so that a rare coincidence becomes a usual
//! one. Most seeds draw from everything.

use std::collections::BTreeSet;

use antecede_model::{
    configuration::{Configuration, Layout},
    ids::{DatacenterId, DeploymentId, NodeId},
    key::ShardCount,
};
use antecede_protocol::{mutation::Mutations, retries::KEPT_MAX};

use crate::{
    chance::Chance,
    checkpoints, cold,
    drains::{self, Drain},
    faults::{self, Fault},
    members::{self, MemberChange},
    moment::{MICRO, MILLI, Moment, SECOND},
    profiles::Profile,
};

/// When the faults stop, and clients ask for nothing new.
pub const ACTIVE: Moment = Moment(30 * SECOND);
/// Of a thousand runs in which members may change, in how many some nodes hear late of it.
const LATE_PER_MILLE: u64 = 250;
/// Of a thousand runs in which members change, how many have one that lapses.
const LAPSE_PER_MILLE: u64 = 400;
/// The same where all but the first are added.
const LAPSE_PER_MILLE_GROWN: u64 = 200;

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Which kind of trouble is sought.
    pub profile: Profile,
    /// The deployment.
    pub shape: Shape,
    /// The network.
    pub weather: Weather,
    /// The clients.
    pub workload: Workload,
    /// What goes wrong, sorted by time.
    pub faults: Vec<Fault>,
    /// Clients that take part, by number; all unless the run was shrunk.
    pub clients: Vec<u32>,
    /// A deliberate bug.
    pub mutations: Mutations,
    /// What becomes of the members of the deployment.
    pub members: Vec<MemberChange>,
    /// Nodes that shall hold nothing, and may again.
    pub drains: Vec<Drain>,
    /// Whether some nodes hear late of other members.
    pub hears_late: bool,
}

/// When a node counts a record as persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced.
    Always,
    /// Once it was handed to the operating system; synced every second.
    Interval,
    /// At once; nothing survives the process.
    Memory,
}

/// Who says which replicas serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// The seed says it.
    #[default]
    Drawn,
    /// Nobody: the configuration is fixed.
    Fixed,
    /// Managers, wherever the durability allows it.
    Managed,
    /// Managers, and nothing but trouble with leases.
    Leases,
    /// The same, and many nodes that shall hold nothing for a while.
    Moves,
}

/// Whether datacenters are added, removed or lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Members {
    /// The seed says it.
    #[default]
    Drawn,
    /// None are.
    Off,
    /// Some are, wherever managers decide.
    On,
    /// The same, and some nodes hear late of it.
    Late,
    /// All but the first are added, wherever managers decide, and some nodes hear late of it.
    Grown,
}

/// Whether nodes take checkpoints and cut their logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpoints {
    /// The seed says it.
    #[default]
    Drawn,
    /// None do.
    Off,
    /// All do that have disks.
    On,
}

/// Whether nodes that take checkpoints forget values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// The seed says it.
    #[default]
    Drawn,
    /// None do.
    Off,
    /// All do.
    On,
}

/// The deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many datacenters.
    pub datacenters: u16,
    /// How many come back under a number of their own; they come after the others.
    pub successors: u16,
    /// Nodes in each.
    pub nodes: u16,
    /// Replicas of a shard in each.
    pub chain: u16,
    /// Shards.
    pub shards: u16,
    /// When a record counts as persisted.
    pub durability: Durability,
    /// Whether managers decide who serves; else the configuration is fixed.
    pub is_managed: bool,
    /// Bytes of entries that a shard keeps for replicas that are away.
    pub kept_bytes_max: usize,
    /// Bytes of entries that a shard lets go of before its log says so.
    pub trimmed_bytes_min: usize,
    /// Bytes that a node keeps for other datacenters before it refuses writes; zero for no limit.
    pub outbox_bytes_max: u64,
    /// How long a copy pauses between two parts.
    pub part_pause_millis: u64,
    /// Request ids that a shard remembers.
    pub retries_max: usize,
    /// Mean time between two steps of a node's checkpoints, in nanoseconds; zero where none are
    /// taken.
    pub checkpoint_every: u64,
    /// Mean time between two moments at which a node forgets values that are on disk, in
    /// nanoseconds; zero where all stay in memory.
    pub forget_every: u64,
    /// Mean time of each half of a load, in nanoseconds.
    pub load_time: u64,
}

/// What the network and the disks are like.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Mean one-way delay inside a datacenter, in nanoseconds.
    pub local_delay: u64,
    /// Mean one-way delay between datacenters, by (from, to), each in the order of the shape.
    pub wide_delays: Vec<Vec<u64>>,
    /// Of a thousand messages, how many are late by many times the delay.
    pub late_per_mille: u64,
    /// Of a thousand messages that the protocol sends again, how many are lost.
    pub lost_per_mille: u64,
    /// Of a thousand such messages, how many arrive twice.
    pub repeated_per_mille: u64,
    /// Of a thousand such messages, how many may be overtaken.
    pub overtaken_per_mille: u64,
    /// Mean time that the disk takes to write, in nanoseconds; syncing takes twice as long.
    pub disk_delay: u64,
    /// How far wall clocks are off at most, in milliseconds.
    pub skew_millis: u64,
    /// How far wall clocks run apart at most, in parts per million.
    pub drift_ppm: u64,
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How many clients; spread over the datacenters.
    pub clients: u32,
    /// How many commands each sends at most.
    pub operations: u32,
    /// Mean time between an answer and the next command, in nanoseconds.
    pub think: u64,
    /// Groups of keys with one hash tag each, so that a group lies in one shard.
    pub groups: u64,
    /// Keys in a group that everybody writes.
    pub hot_keys: u64,
    /// Of a thousand commands, how many go to keys that only one datacenter writes.
    pub home_per_mille: u64,
    /// Of a thousand turns, how many send several commands at once.
    pub pipeline_per_mille: u64,
    /// Commands sent at once at most.
    pub pipeline_max: u64,
    /// Of a thousand turns, how many move the session to another node with a token.
    pub move_per_mille: u64,
    /// Of a thousand clients, how many use the level `eventual`.
    pub eventual_per_mille: u64,
    /// Of a thousand commands, how many read.
    pub read_per_mille: u64,
    /// Of a thousand writes, how many remove their key.
    pub delete_per_mille: u64,
    /// Of a thousand writes, how many are conditional or answer what was there.
    pub conditional_per_mille: u64,
    /// Of a thousand commands, how many are `MULTI`, `MSET` or `MGET` in one shard.
    pub batch_per_mille: u64,
    /// Of a thousand commands, how many are `WAIT`.
    pub wait_per_mille: u64,
    /// Of a thousand commands, how many set or read keys that expire.
    pub mortal_per_mille: u64,
    /// Of a thousand writes, how many have a request id.
    pub id_per_mille: u64,
    /// Whether a client keeps to one shard.
    pub one_group_each: bool,
}

impl Plan {
    /// What the seed says.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self::with_profile(seed, Self::profile_of(seed))
    }

    /// What the seed says when this kind of trouble is sought.
    #[must_use]
    pub fn with_profile(seed: u64, profile: Profile) -> Self {
        Self::drawn(seed, profile, Control::Drawn)
    }

    /// The same, with this control plane.
    #[must_use]
    pub fn drawn(seed: u64, profile: Profile, control: Control) -> Self {
        let mut chance = Chance::new(seed, streams::SHAPE);
        let shape = Shape::draw(&mut chance);
        let weather = Weather::draw(&mut chance, shape);
        let workload = Workload::draw(&mut chance);
        let mut plan = Self {
            seed,
            profile,
            shape,
            weather,
            workload,
            faults: Vec::new(),
            clients: Vec::new(),
            mutations: Mutations::NONE,
            members: Vec::new(),
            drains: Vec::new(),
            hears_late: false,
        };
        profile.bend(&mut plan, &mut chance);
        let mut chance = Chance::new(seed, streams::FAULTS);
        plan.faults = faults::draw(&mut chance, &plan);
        plan.draw_control(control);
        plan.draw_checkpoints(Checkpoints::Drawn);
        plan.draw_memory(Memory::Drawn);
        plan.draw_disks();
        plan.draw_ids();
        plan.draw_trims();
        plan.draw_lines();
        plan.draw_rot(control);
        plan.draw_drains(control == Control::Moves);
        plan.draw_members(Members::Drawn);
        plan.draw_outbox();
        plan.clients = (0..plan.workload.clients).collect();
        plan
    }

    /// Which profile a seed draws.
    #[must_use]
    pub fn profile_of(seed: u64) -> Profile {
        Profile::draw(&mut Chance::new(seed, streams::PLAN))
    }

    /// Draws whether managers decide who serves, and what goes wrong with them. It comes last and
    /// from a stream of its own, so that the rest of a seed means what it means without.
    fn draw_control(&mut self, control: Control) {
        let mut chance = Chance::new(self.seed, streams::CONTROL);
        let is_drawn = chance.per_mille(500);
        let is_wanted = match control {
            Control::Drawn => is_drawn || self.profile == Profile::Rot,
            Control::Fixed => false,
            Control::Managed | Control::Leases | Control::Moves => true,
        };
        let wants_leases = matches!(control, Control::Leases | Control::Moves);
        if wants_leases {
            self.shape.durability = Durability::Always;
        }
        if !is_wanted || self.shape.durability != Durability::Always {
            return;
        }
        self.shape.is_managed = true;
        self.shape.kept_bytes_max = chance.pick(&[0, 0, 2_000, 100_000]);
        self.shape.part_pause_millis = chance.pick(&[0, 2, 100]);
        let seeks_leases = chance.per_mille(150);
        if seeks_leases && control == Control::Drawn || wants_leases {
            self.seek_leases(&mut chance);
        } else {
            self.faults.extend(faults::draw_control(&mut chance, self));
        }
        self.faults.sort_by_key(|fault| fault.at);
    }

    /// Draws whether nodes take checkpoints, and how often, wherever they have disks.
    pub fn draw_checkpoints(&mut self, wanted: Checkpoints) {
        let mut chance = Chance::new(self.seed, streams::CHECKPOINTS);
        let is_drawn = chance.per_mille(500);
        let every = chance.pick(&checkpoints::EVERY);
        let is_wanted = match wanted {
            Checkpoints::Drawn => is_drawn,
            Checkpoints::Off => false,
            Checkpoints::On => true,
        };
        let has_disks = self.shape.durability != Durability::Memory;
        self.shape.checkpoint_every = if is_wanted && has_disks { every } else { 0 };
    }

    /// Draws whether values may be on disk only, wherever checkpoints are taken.
    pub fn draw_memory(&mut self, wanted: Memory) {
        let mut chance = Chance::new(self.seed, streams::MEMORY);
        let is_drawn = chance.per_mille(600);
        let every = chance.pick(&cold::EVERY);
        self.shape.load_time = chance.pick(&cold::LOAD_TIMES);
        let is_wanted = match wanted {
            Memory::Drawn => is_drawn,
            Memory::Off => false,
            Memory::On => true,
        };
        let has_checkpoints = 0 < self.shape.checkpoint_every;
        self.shape.forget_every = if is_wanted && has_checkpoints { every } else { 0 };
    }

    /// Draws disks without room, for some seeds, from a stream of their own.
    fn draw_disks(&mut self) {
        let mut chance = Chance::new(self.seed, streams::DISKS);
        if chance.per_mille(300) {
            self.faults.extend(faults::draw_disks(&mut chance, self));
            self.faults.sort_by_key(|fault| fault.at);
        }
    }

    /// Draws how often logs say what was let go of, from a stream of its own.
    fn draw_trims(&mut self) {
        let mut chance = Chance::new(self.seed, streams::TRIMS);
        self.shape.trimmed_bytes_min = chance.pick(&[0, 0, 1_000, usize::MAX]);
    }

    /// Draws whether writes have request ids, and how many a shard remembers, from a stream of
    /// their own.
    fn draw_ids(&mut self) {
        let mut chance = Chance::new(self.seed, streams::IDS);
        let is_sought = self.profile == Profile::Retries;
        if is_sought || self.profile == Profile::Mixed && chance.per_mille(300) {
            self.workload.id_per_mille = chance.pick(&[500, 900]);
            self.shape.retries_max = chance.pick(&[2, 20, 100, KEPT_MAX]);
        }
    }

    /// Draws lines that are cut inside a datacenter, for some seeds with managers, from a stream of
    /// their own.
    fn draw_lines(&mut self) {
        let mut chance = Chance::new(self.seed, streams::LINES);
        if self.shape.is_managed && chance.per_mille(300) {
            self.faults.extend(faults::draw_lines(&mut chance, self));
            self.faults.sort_by_key(|fault| fault.at);
        }
    }

    /// Draws bits that change on disks, for some seeds with managers, from a stream of their own:
    /// only there others give back what a disk has lost.
    fn draw_rot(&mut self, control: Control) {
        let mut chance = Chance::new(self.seed, streams::ROT);
        let is_sought = self.profile == Profile::Rot;
        let seeks_leases = matches!(control, Control::Leases | Control::Moves);
        let is_drawn = chance.per_mille(200) && !seeks_leases;
        if self.shape.is_managed && (is_sought || is_drawn) {
            let count = if is_sought { chance.between(6, 14) } else { chance.between(1, 3) };
            self.faults.extend(faults::draw_rot(&mut chance, self, count));
            self.faults.sort_by_key(|fault| fault.at);
        }
    }

    /// Draws nodes that shall hold nothing, for some seeds with managers, from a stream of their own.
    /// Most of them get a node more than a chain is long, so that there is somewhere to go.
    fn draw_drains(&mut self, are_sought: bool) {
        let mut chance = Chance::new(self.seed, streams::DRAINS);
        if !self.shape.is_managed || !chance.per_mille(350) && !are_sought {
            return;
        }
        if self.shape.datacenters < 4 && chance.per_mille(800) {
            self.shape.nodes = self.shape.nodes.max(self.shape.chain + 1);
        }
        let most = if are_sought { 12 } else { 3 };
        self.drains = drains::draw(&mut chance, self.shape, most);
    }

    /// Draws datacenters that are added, removed or lost, wherever managers decide, from a stream of
    /// its own.
    pub fn draw_members(&mut self, wanted: Members) {
        let mut chance = Chance::new(self.seed, streams::MEMBERS);
        let is_drawn = chance.per_mille(250);
        let mut grows = Chance::new(self.seed, streams::GROWTH);
        let (is_wanted, is_grown) = match wanted {
            Members::Drawn => (is_drawn, grows.per_mille(200)),
            Members::Off => (false, false),
            Members::On | Members::Late => (true, false),
            Members::Grown => (true, true),
        };
        if wanted == Members::Grown {
            // So a node with no place in any chain, which has sessions only, hears of it last.
            (self.shape.shards, self.shape.nodes) = (2, self.shape.chain + 2);
        }
        let mut late = Chance::new(self.seed, streams::LATE);
        let is_late = match wanted {
            Members::Drawn => late.per_mille(LATE_PER_MILLE),
            Members::Off | Members::On => false,
            Members::Late | Members::Grown => true,
        };
        self.hears_late = is_grown || is_late;
        self.members.clear();
        if is_wanted && self.shape.is_managed {
            let datacenters = self.shape.datacenters;
            self.members = if is_grown {
                members::draw_growth(&mut grows, datacenters)
            } else {
                members::draw(&mut chance, datacenters)
            };
            let mut lapses = Chance::new(self.seed, streams::LAPSES);
            let share = if is_grown { LAPSE_PER_MILLE_GROWN } else { LAPSE_PER_MILLE };
            if lapses.per_mille(share) {
                members::draw_lapse(&mut lapses, &mut self.members, datacenters);
            }
        }
        self.make_room_for_successors();
    }

    /// The datacenters that lapse, each with the number under which it comes back.
    pub fn lapses(&self) -> impl Iterator<Item = (DatacenterId, DatacenterId)> {
        let lapsing = self.members.iter().filter(|change| change.kind.is_lapse());
        let numbers = (self.shape.datacenters + 1..).map(DatacenterId);
        lapsing.map(|change| change.datacenter).zip(numbers)
    }

    /// What people call a datacenter.
    #[must_use]
    pub fn name_of(&self, id: DatacenterId) -> String {
        let before = self.lapses().find(|(_, successor)| *successor == id);
        format!("dc{}", before.map_or(id, |(lapsed, _)| lapsed))
    }

    /// Whoever comes back is where it was before.
    fn make_room_for_successors(&mut self) {
        let count = usize::from(self.shape.datacenters);
        let before: Vec<usize> =
            self.lapses().map(|(lapsed, _)| usize::from(lapsed.0 - 1)).collect();
        self.shape.successors = u16::try_from(before.len()).expect("few datacenters");
        let delays = &mut self.weather.wide_delays;
        delays.truncate(count);
        for row in delays.iter_mut() {
            row.truncate(count);
            row.extend(before.iter().map(|place| row[*place]).collect::<Vec<_>>());
        }
        delays.extend(before.iter().map(|place| delays[*place].clone()).collect::<Vec<_>>());
    }

    /// Draws how much is kept for a datacenter that is behind, and cuts that last long enough for that
    /// to matter, for some seeds, from a stream of their own.
    fn draw_outbox(&mut self) {
        let mut chance = Chance::new(self.seed, streams::OUTBOX);
        if self.profile == Profile::Mixed && chance.per_mille(250) {
            self.shape.outbox_bytes_max = chance.pick(&[20_000, 60_000, 200_000]);
            self.faults.extend(faults::draw_long_cuts(&mut chance, self));
            self.faults.sort_by_key(|fault| fault.at);
        }
    }

    /// Nodes fall silent for about as long as it takes to give them up, while clients of their
    /// datacenter write and read a few keys at all of its nodes.
    fn seek_leases(&mut self, chance: &mut Chance) {
        self.shape.chain = self.shape.chain.max(2);
        self.shape.nodes = self.shape.nodes.max(self.shape.chain);
        self.shape.shards = 2;
        self.workload.groups = 2;
        self.workload.home_per_mille = 800;
        self.workload.move_per_mille = 0;
        self.workload.read_per_mille = 700;
        self.faults = faults::draw_silences(chance, self);
    }

    /// The first configuration of the deployment.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        let shape = self.shape;
        let shard_count =
            ShardCount::new(u32::from(shape.shards)).expect("shapes have a power of two of shards");
        let layout = Layout {
            deployment: DeploymentId(*b"simulated deploy"),
            shard_count,
            chain_length: shape.chain,
            datacenters: (1..=shape.numbers())
                .map(|id| (DatacenterId(id), self.name_of(DatacenterId(id)), shape.nodes))
                .collect(),
        };
        if shape.is_managed { Configuration::managed(&layout) } else { Configuration::of(&layout) }
    }
}

/// What is taken away from a plan, to see whether it still fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cutback {
    /// Faults, by their place in the full plan.
    pub faults: BTreeSet<usize>,
    /// Clients, by number.
    pub clients: BTreeSet<u32>,
    /// Commands that each client sends at most.
    pub operations: Option<u32>,
}

impl Plan {
    /// The plan with parts taken away.
    #[must_use]
    pub fn cut_back(mut self, cutback: &Cutback) -> Self {
        let faults = std::mem::take(&mut self.faults).into_iter().enumerate();
        let kept = faults.filter(|(place, _)| !cutback.faults.contains(place));
        self.faults = kept.map(|(_, fault)| fault).collect();
        self.clients.retain(|client| !cutback.clients.contains(client));
        if let Some(operations) = cutback.operations {
            self.workload.operations = self.workload.operations.min(operations);
        }
        self
    }
}

/// The streams that the parts of a run draw from.
pub mod streams {
    /// Which profile.
    pub const PLAN: u64 = 1;
    /// Deployment, network, clients.
    pub const SHAPE: u64 = 2;
    /// Faults.
    pub const FAULTS: u64 = 3;
    /// Messages.
    pub const NETWORK: u64 = 4;
    /// Disks and clocks.
    pub const NODES: u64 = 5;
    /// Managers and what goes wrong with them.
    pub const CONTROL: u64 = 6;
    /// Whether checkpoints are taken.
    pub const CHECKPOINTS: u64 = 7;
    /// When and of what.
    pub const CHECKPOINTS_AT_WORK: u64 = 8;
    /// Disks without room.
    pub const DISKS: u64 = 9;
    /// Whether writes have request ids.
    pub const IDS: u64 = 10;
    /// Lines inside datacenters.
    pub const LINES: u64 = 11;
    /// Datacenters that are added, removed or lost.
    pub const MEMBERS: u64 = 12;
    /// What happens to the agreement on them.
    pub const MEMBERS_AT_WORK: u64 = 13;
    /// Whether values are forgotten.
    pub const MEMORY: u64 = 14;
    /// When and which, and how long it takes to load them.
    pub const MEMORY_AT_WORK: u64 = 15;
    /// Nodes that shall hold nothing.
    pub const DRAINS: u64 = 16;
    /// How much is kept for other datacenters.
    pub const OUTBOX: u64 = 18;
    /// Whether a deployment grows from one datacenter, and when.
    pub const GROWTH: u64 = 20;
    /// Whether some nodes hear late of other members.
    pub const LATE: u64 = 23;
    /// Who lapses, and when it hears of that.
    pub const LAPSES: u64 = 22;
    /// Who hears late of new members.
    pub const GROWTH_AT_WORK: u64 = 21;
    /// Bits that change on disks.
    pub const ROT: u64 = 26;
    /// Which bits, and what people do then.
    pub const ROT_AT_WORK: u64 = 27;
    /// How often logs say what was let go of.
    pub const TRIMS: u64 = 28;
    /// The first client; each has its own.
    pub const CLIENTS: u64 = 1000;
    /// What the first client draws for its request ids; each has its own.
    pub const CLIENT_IDS: u64 = 2000;
}

impl Shape {
    fn draw(chance: &mut Chance) -> Self {
        let datacenters = chance.pick(&[2, 3, 3, 3, 4]);
        let chain = chance.pick(&[1, 2, 3, 3]);
        let nodes = if datacenters == 4 { chain } else { chain + chance.pick(&[0, 0, 1]) };
        let durability = match chance.below(10) {
            0 if 1 < chain => Durability::Memory,
            1 if 1 < chain => Durability::Interval,
            _ => Durability::Always,
        };
        let shards = chance.pick(&[2, 4, 4, 8]);
        Self {
            datacenters,
            successors: 0,
            nodes,
            chain,
            shards,
            durability,
            is_managed: false,
            outbox_bytes_max: 0,
            part_pause_millis: 0,
            retries_max: KEPT_MAX,
            checkpoint_every: 0,
            forget_every: 0,
            load_time: 0,
            kept_bytes_max: 0,
            trimmed_bytes_min: usize::MAX,
        }
    }

    /// How many numbers of datacenters there are.
    #[must_use]
    pub const fn numbers(self) -> u16 {
        self.datacenters + self.successors
    }

    /// All nodes, in order.
    pub fn all_nodes(self) -> impl Iterator<Item = NodeId> {
        (1..=self.numbers()).flat_map(move |dc| {
            (1..=self.nodes).map(move |number| NodeId { datacenter: DatacenterId(dc), number })
        })
    }
}

impl Weather {
    fn draw(chance: &mut Chance, shape: Shape) -> Self {
        let count = usize::from(shape.datacenters);
        let mut wide_delays = vec![vec![0; count]; count];
        for row in &mut wide_delays {
            for delay in row {
                *delay = chance.pick(&[5, 10, 20, 40, 80]) * MILLI;
            }
        }
        let is_rough = chance.per_mille(500);
        let rough = |chance: &mut Chance, most| if is_rough { chance.below(most) } else { 0 };
        Self {
            local_delay: chance.pick(&[50, 100, 300, 1000]) * MICRO,
            wide_delays,
            late_per_mille: chance.pick(&[0, 2, 10]),
            lost_per_mille: rough(chance, 10),
            repeated_per_mille: rough(chance, 20),
            overtaken_per_mille: rough(chance, 50),
            disk_delay: chance.pick(&[20, 100, 500, 2000]) * MICRO,
            skew_millis: chance.pick(&[0, 1, 20, 200]),
            drift_ppm: chance.pick(&[0, 50, 200]),
        }
    }
}

impl Workload {
    fn draw(chance: &mut Chance) -> Self {
        let clients = u32::try_from(chance.between(8, 16)).expect("few clients");
        let operations = 2400 / clients;
        Self {
            clients,
            operations,
            think: 25 * SECOND / u64::from(operations),
            groups: chance.between(3, 6),
            hot_keys: chance.between(2, 3),
            home_per_mille: 250,
            pipeline_per_mille: chance.pick(&[0, 50, 150]),
            pipeline_max: chance.between(2, 6),
            move_per_mille: chance.pick(&[0, 15, 40]),
            eventual_per_mille: chance.pick(&[0, 0, 150]),
            read_per_mille: chance.pick(&[400, 550, 700]),
            delete_per_mille: chance.pick(&[20, 100, 250]),
            conditional_per_mille: chance.pick(&[50, 200]),
            batch_per_mille: chance.pick(&[0, 60, 120]),
            wait_per_mille: chance.pick(&[0, 0, 10]),
            mortal_per_mille: chance.pick(&[0, 0, 30]),
            id_per_mille: 0,
            one_group_each: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_plan() {
        for seed in 0..50 {
            assert_eq!(format!("{:?}", Plan::of(seed)), format!("{:?}", Plan::of(seed)));
        }
    }

    #[test]
    fn every_plan_has_ten_faults_and_enough_operations() {
        for seed in 0..200 {
            let plan = Plan::of(seed);
            let operations = plan.workload.clients * plan.workload.operations;
            assert!(10 <= plan.faults.len(), "seed {seed} has {} faults", plan.faults.len());
            assert!(1_000 <= operations, "seed {seed} has {operations} operations");
        }
    }

    #[test]
    fn seeds_reach_every_profile_and_shape() {
        let plans: Vec<Plan> = (0..500).map(Plan::of).collect();
        for profile in Profile::ALL {
            assert!(plans.iter().any(|plan| plan.profile == *profile), "{profile:?} is not drawn");
        }
        for durability in [Durability::Always, Durability::Interval, Durability::Memory] {
            assert!(plans.iter().any(|plan| plan.shape.durability == durability));
        }
        for chain in 1..=3 {
            assert!(plans.iter().any(|plan| plan.shape.chain == chain));
        }
    }
}
