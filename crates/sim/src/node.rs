//! Runs one node: its replicas, its log on a simulated disk, its keeper of cuts, its sessions.
//!
//! The machines, the log's code and the bytes of its records are those of the server; only the
//! disk, the clocks and the wires are simulated.
//!
//! Ensures: nothing of a run survives its end but what the disk holds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antecede_model::{
    clock::{Steady, Timestamp},
    configuration::Configuration,
    ids::{Boot, Epoch, LogIndex, NodeId, Position, SessionId, ShardId},
};
use antecede_protocol::{
    chain::{Cuts, Input, Shard, ShardOptions},
    geo::{
        cuts::{CutInput, CutKeeper},
        kept::{Behind, Bound, Kept},
    },
    machine::{Here, Lease, Outputs, Persisted, Room, Storage},
    mutation::Mutation,
    record::Record,
    unsent::OwnWrites,
};
use antecede_storage::{Identity, Log, Options, SimulatedDisk, checkpoint::SimulatedCheckpoints};

use crate::{
    checkpoints::Batch,
    connection::Connection,
    faults::Trigger,
    leave::Leave,
    moment::{Moment, NodeClock},
    plan::Durability,
    rot::{Rot, Unseen},
    world::Arrival,
};

/// Settings of the logs: small segments, so that a run fills several.
pub(crate) const LOG_OPTIONS: Options = Options {
    segment_bytes: 32 * 1024,
    pending_bytes_max: 8 << 20,
    record_bytes_max: 1 << 20,
    salt: 0x51,
    zero_ahead: false,
};

/// The log of a node, as its machines see it.
#[derive(Debug)]
pub struct NodeLog {
    log: Log<SimulatedDisk>,
    durability: Durability,
    scratch: Vec<u8>,
    room: Room,
    held_up_by: Option<Behind>,
    /// What was appended since the world looked last.
    pub fresh: Vec<(LogIndex, Record)>,
    /// All that was appended and read back, also what was cut since.
    whole: Vec<(u64, Record)>,
    /// What was written last says that everything up to here had been synced.
    claims: u64,
    /// The last of what was synced says it, so that the next start knows.
    proves: u64,
}

impl NodeLog {
    /// How far the log has come.
    #[must_use]
    pub fn persisted(&self) -> Persisted {
        let positions = self.log.positions();
        let (written, synced) = (positions.written_to.get(), positions.synced_to.get());
        let counted = match self.durability {
            Durability::Always => synced,
            Durability::Interval | Durability::Memory => written,
        };
        Persisted { to: LogIndex(counted), synced_to: LogIndex(synced) }
    }

    /// The last record appended.
    #[must_use]
    pub fn appended_to(&self) -> u64 {
        self.log.positions().appended_to.get()
    }

    /// Hands everything to the operating system.
    pub fn write(&mut self) {
        let before = self.log.positions();
        let after = self.log.write().expect("simulated disks have room and do not fail here");
        if before.written_to < after.written_to {
            self.claims = before.synced_to.get();
        }
    }

    /// Removes what lies before, as far as whole segments allow it.
    pub fn cut_to(&mut self, index: u64) {
        let index = antecede_storage::LogIndex::new(index);
        self.log.cut_to(index).expect("simulated disks do not fail here");
    }

    /// Makes everything written durable.
    pub fn sync(&mut self) {
        self.log.sync().expect("simulated disks do not fail here");
        self.proves = self.claims;
    }
}

impl Storage for NodeLog {
    fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex {
        self.scratch.clear();
        write(&mut self.scratch);
        let record = Record::read(&self.scratch).expect("a machine appends whole records");
        let index = self.log.append(&[&self.scratch]).expect("runs append little");
        let index = LogIndex(index.get());
        self.whole.push((index.0, record.clone()));
        self.fresh.push((index, record));
        index
    }

    fn reached(&self) -> Persisted {
        self.persisted()
    }

    fn room(&self) -> Room {
        if self.log.is_full() { Room::None } else { self.room }
    }

    fn has_memory(&self) -> bool {
        true
    }

    fn held_up_by(&self) -> Option<Behind> {
        self.held_up_by
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its run.
    pub boot: Boot,
    /// Counts its runs for the world: what was meant for an earlier one is dropped.
    pub life: u32,
    /// Whether it runs.
    pub is_up: bool,
    /// Whether it is gone for ever.
    pub is_removed: bool,
    /// Its replicas, by shard number.
    pub shards: Vec<Option<Shard>>,
    /// Its keeper of cuts.
    pub keeper: CutKeeper,
    /// How much it keeps for other datacenters.
    pub bound: Bound,
    /// What its replicas were told of the cuts.
    told_cuts: Arc<Cuts>,
    /// Its log, while it runs.
    pub log: NodeLog,
    /// What its machines want done.
    pub out: Outputs,
    /// Machines that want to be woken.
    pub wakes: Vec<(ShardId, Steady)>,
    /// Its sessions.
    pub connections: BTreeMap<SessionId, Connection>,
    /// The last number given to a session.
    pub last_session: u64,
    /// Its clocks.
    pub clock: NodeClock,
    /// The largest timestamp that it persisted a ceiling for.
    pub hlc_floor: Timestamp,
    /// Whether its run began with an empty log.
    pub began_empty: bool,
    /// Until when its process stands still.
    pub paused_until: Moment,
    /// Whether nothing passes between it and those that decide who serves.
    pub is_cut_from_control: bool,
    /// Since when nothing was wrong with it by itself: it runs, is as fast as others, and is heard.
    pub well_since: Moment,
    /// Until when it may answer.
    pub lease_until: Lease,
    /// How far it has come with leaving, if it was asked to stop.
    pub leave: Option<Leave>,
    /// What it knows of the deployment.
    pub configuration: Arc<Configuration>,
    /// Whether a flush of the log is under way.
    pub is_flushing: bool,
    /// Replicas that have appended something that is not synced.
    pub unsynced: BTreeMap<ShardId, u64>,
    /// When it crashes, if it is about to.
    pub trigger: Option<(Trigger, bool, u64)>,
    /// Nanoseconds that a message takes.
    pub cost: u64,
    /// Messages that it has not got to.
    pub(crate) inbox: VecDeque<Box<Arrival>>,
    /// How many times as long its disk takes.
    pub disk_factor: u64,
    /// What its disk still takes.
    room: Room,
    /// Nodes that it has no link to at this moment.
    pub no_link: BTreeSet<NodeId>,
    /// Its checkpoints.
    pub checkpoints: SimulatedCheckpoints,
    /// What is about to be written of the next one.
    pub batch: Option<Batch>,
    /// A record that is read back with a changed bit, by a deliberate bug.
    pub(crate) unseen: Option<Unseen>,
    /// What a bit has changed of since it ran last.
    pub(crate) rot: Option<Box<Rot>>,
    /// The run in which it may lack what an earlier one had, until it has agreed with others.
    pub(crate) may_lack_in: Option<Boot>,
    /// How far its log had come when its last run ended.
    pub(crate) ended: Ended,
    pub(crate) disk: SimulatedDisk,
    options: ShardOptions,
    durability: Durability,
    /// What was in the log when the last run ended, also what was cut.
    pub(crate) whole: Vec<(u64, Record)>,
}

/// How far a log had come when a run ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ended {
    /// What was synced.
    pub(crate) synced_to: u64,
    /// Something that was synced says that everything up to here had been before.
    pub(crate) proves: u64,
}

/// What a node read back from its log.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Records in order, also those that were cut off.
    pub records: Vec<(u64, Record)>,
    /// The last record of the log.
    pub to: u64,
    /// Replicas that the whole log makes, where they were recovered from checkpoints.
    pub by_whole_log: Vec<Option<Shard>>,
}

impl Node {
    /// A node that has never run.
    #[must_use]
    pub fn new(
        id: NodeId,
        configuration: Arc<Configuration>,
        options: ShardOptions,
        durability: Durability,
        clock: NodeClock,
        outbox_bytes_max: u64,
    ) -> Self {
        Self {
            id,
            boot: Boot(0),
            life: 0,
            is_up: false,
            is_removed: false,
            shards: Vec::new(),
            keeper: CutKeeper::new(Arc::clone(&configuration), id.datacenter)
                .with_mutations(options.mutations),
            bound: Bound::new(outbox_bytes_max),
            told_cuts: Arc::default(),
            log: closed(durability),
            out: Outputs::default(),
            wakes: Vec::new(),
            connections: BTreeMap::new(),
            last_session: 0,
            clock,
            hlc_floor: Timestamp::ZERO,
            began_empty: true,
            paused_until: Moment::default(),
            is_cut_from_control: false,
            well_since: Moment::default(),
            lease_until: Lease::Unbounded,
            leave: None,
            configuration,
            is_flushing: false,
            unsynced: BTreeMap::new(),
            trigger: None,
            cost: 0,
            inbox: VecDeque::new(),
            disk_factor: 1,
            room: Room::Ample,
            no_link: BTreeSet::new(),
            checkpoints: SimulatedCheckpoints::new(),
            batch: None,
            unseen: None,
            rot: None,
            may_lack_in: None,
            ended: Ended::default(),
            disk: SimulatedDisk::new(),
            options,
            durability,
            whole: Vec::new(),
        }
    }

    /// Begins a run: reads the log back and starts the replicas.
    ///
    /// # Errors
    /// Why the log was refused.
    pub fn start(&mut self, now: Moment) -> Result<Recovered, String> {
        let mut recovered = Recovered::default();
        self.life += 1;
        self.clock.born = now;
        self.log = match self.durability {
            Durability::Memory => {
                self.boot = Boot(u64::from(self.life));
                closed(self.durability)
            }
            Durability::Always | Durability::Interval => {
                let log = self.open_log(&mut recovered)?;
                // As the server does: a folder that is empty does not make it an older run.
                let counts_anew = self.options.mutations.has(Mutation::CountRunsAnew);
                let after = if counts_anew { Boot(0) } else { self.boot };
                self.boot = Boot(log.log.boot().max(after.0 + 1));
                log
            }
        };
        self.log.room = self.room;
        recovered.to = self.log.appended_to();
        self.log.proves = recovered.to; // The new segment says so.
        self.log.claims = recovered.to;
        self.bound = Bound::new(self.bound.bytes_max());
        self.began_empty = recovered.records.is_empty() && self.whole.is_empty();
        self.keeper = self.new_keeper();
        self.out = Outputs::default();
        self.out.appended_to = LogIndex(self.log.appended_to());
        let count = self.configuration.shard_count.count();
        self.shards = (0..count).map(|number| self.new_replica(ShardId(number))).collect();
        self.recover(&mut recovered)?;
        self.is_up = true;
        let here = self.here(now);
        for place in 0..self.shards.len() {
            if let Some(replica) = &mut self.shards[place] {
                replica.start(&here, &mut self.log, &mut self.out);
                self.take_wake(ShardId(u16::try_from(place).expect("few shards")));
            }
        }
        Ok(recovered)
    }

    /// Brings the replicas to where checkpoints and log say that they were.
    fn recover(&mut self, recovered: &mut Recovered) -> Result<(), String> {
        let mut replicas = std::mem::take(&mut self.shards);
        let mut is_loaded = vec![false; replicas.len()];
        for (number, replica) in replicas.iter_mut().enumerate() {
            if let Some(replica) = replica {
                let shard = ShardId(u16::try_from(number).expect("few shards"));
                is_loaded[number] = self.load(shard, replica)?;
            }
        }
        read_back(&mut replicas, &recovered.records, recovered.to)?;
        let first = recovered.records.first().map(|(index, _)| *index);
        let first = first.unwrap_or_else(|| self.log.appended_to() + 1);
        let mut whole = std::mem::take(&mut self.whole);
        whole.retain(|(index, _)| *index < first);
        whole.append(&mut recovered.records);
        let references = is_loaded.iter().enumerate().map(|(number, is_loaded)| {
            let shard = ShardId(u16::try_from(number).expect("few shards"));
            is_loaded.then(|| self.new_replica(shard)).flatten()
        });
        recovered.by_whole_log = references.collect();
        read_back(&mut recovered.by_whole_log, &whole, recovered.to)?;
        self.shards = replicas;
        self.log.whole.clone_from(&whole);
        recovered.records = whole;
        Ok(())
    }

    fn open_log(&mut self, recovered: &mut Recovered) -> Result<NodeLog, String> {
        let identity = self.log_identity();
        let mut damaged = None;
        let disk = self.disk.clone();
        let unseen = self.unseen.clone();
        let take = |index: antecede_storage::LogIndex, bytes: &[u8]| match Record::read(bytes) {
            Ok(mut record) => {
                unseen.iter().for_each(|unseen| unseen.change(index.get(), &mut record));
                recovered.records.push((index.get(), record));
            }
            Err(error) => damaged = Some(format!("record {index}: {error}")),
        };
        let opened = Log::open(disk, LOG_OPTIONS, identity, take);
        let (log, _) = opened.map_err(|error| error.to_string())?;
        match damaged {
            Some(damage) => Err(damage),
            None => Ok(NodeLog { log, ..closed(self.durability) }),
        }
    }

    /// What its log holds of its own datacenter's writes, read by the log alone.
    ///
    /// # Errors
    /// Why the log was refused.
    pub fn own_writes(&self) -> Result<OwnWrites, String> {
        let mut writes = OwnWrites::of(self.id.datacenter);
        let mut damaged = None;
        let take = |index: antecede_storage::LogIndex, bytes: &[u8]| match Record::read(bytes) {
            Ok(record) => writes.take(record),
            Err(error) => damaged = Some(format!("record {index}: {error}")),
        };
        let opened = Log::open(self.disk.clone(), LOG_OPTIONS, self.log_identity(), take);
        opened.map_err(|error| error.to_string())?;
        damaged.map_or(Ok(writes), Err)
    }

    pub(crate) fn log_identity(&self) -> Identity {
        Identity { deployment: *b"simulated deploy", node: self.id.to_bits() }
    }

    fn new_keeper(&self) -> CutKeeper {
        CutKeeper::new(Arc::clone(&self.configuration), self.id.datacenter)
            .with_mutations(self.options.mutations)
    }

    fn new_replica(&self, shard: ShardId) -> Option<Shard> {
        let configuration = &self.configuration;
        let chain = configuration.chain_of(self.id.datacenter, shard)?;
        // It may become a member later, or have been one by another configuration.
        let part = configuration.datacenter(self.id.datacenter)?;
        let is_managed = !part.boots.is_empty() || chain.serving.is_empty();
        let holds = is_managed || chain.members().any(|member| member == self.id);
        holds.then(|| Shard::new(shard, self.id, Arc::clone(configuration), self.options))
    }

    /// Ends a run: what is in memory is gone, and what the disk has not synced perhaps too.
    pub fn end(&mut self, is_power_loss: bool, seed: u64) {
        self.is_up = false;
        self.disk = if is_power_loss { self.disk.crash(seed) } else { self.disk.reopen() };
        self.checkpoints = self.checkpoints.crash(seed);
        self.batch = None;
        self.whole = std::mem::take(&mut self.log.whole);
        let synced_to = self.log.persisted().synced_to.0;
        self.ended = Ended { synced_to, proves: self.log.proves };
        self.close();
        self.connections.clear();
        self.wakes.clear();
        self.out = Outputs::default();
        self.unsynced.clear();
        self.is_flushing = false;
        self.trigger = None;
        self.leave = None;
        self.inbox.clear();
    }

    /// Forgets what the log and the replicas held in memory.
    pub(crate) fn close(&mut self) {
        self.log = closed(self.durability);
        self.shards.clear();
    }

    /// Gives its disk room, or takes it.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
        self.log.room = room;
    }

    /// Whether its values may be on disk only.
    #[must_use]
    pub const fn forgets(&self) -> bool {
        self.options.away_bytes_min.is_some()
    }

    /// Whether a deliberate bug is switched on.
    pub(crate) fn is_mutated(&self, mutation: Mutation) -> bool {
        self.options.mutations.has(mutation)
    }

    /// The secret that orders its keys.
    #[must_use]
    pub const fn hash_secret(&self) -> u64 {
        self.options.hash_secret
    }

    /// Whether its disk has no room for new writes.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.room != Room::Ample
    }

    /// Where and when the machines run.
    #[must_use]
    pub fn here(&self, now: Moment) -> Here {
        Here {
            node: self.id,
            boot: self.boot,
            now: self.clock.at(now),
            hlc_floor: self.hlc_floor,
            lease_until: if self.is_silent() {
                Lease::Until(Steady::default())
            } else {
                self.lease_until
            },
        }
    }

    /// Whether it has given up its right to serve, to leave.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let is_mutated = self.options.mutations.has(Mutation::LeaveWithLease);
        self.leave.is_some_and(|leave| leave.is_silent()) && !is_mutated
    }

    /// Whether a replica of it serves, as far as it knows, and has not settled yet.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.serving().any(|(_, replica)| !replica.is_settled())
    }

    /// Whether a replica of it is to leave, and has not answered all that it took before.
    #[must_use]
    pub fn has_open_retirement(&self) -> bool {
        let part = self.configuration.datacenter(self.id.datacenter);
        let retires = |shard| part.is_some_and(|part| part.retires(shard) == Some(self.id));
        self.serving().any(|(shard, replica)| retires(shard) && replica.has_open_replies())
    }

    /// Its replicas that serve, as far as it knows.
    fn serving(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        let serves = |shard| self.configuration.chain(self.id.datacenter, shard).contains(&self.id);
        let all = (0..).map(ShardId).zip(&self.shards);
        let there = all.filter_map(|(shard, replica)| Some((shard, replica.as_ref()?)));
        there.filter(move |(shard, _)| serves(*shard))
    }

    /// The epoch of its datacenter, as it knows it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.configuration.epoch(self.id.datacenter)
    }

    /// Gives a replica one input; false if there is no such replica here.
    pub fn tell(&mut self, now: Moment, shard: ShardId, input: Input<'_>) -> bool {
        let here = self.here(now);
        let Some(Some(replica)) = self.shards.get_mut(usize::from(shard.0)) else { return false };
        replica.handle(&here, input, &mut self.log, &mut self.out);
        self.take_wake(shard);
        true
    }

    /// The end of a replica's log, if there is such a replica here.
    #[must_use]
    pub fn end_of(&self, shard: ShardId) -> Option<Position> {
        self.shards.get(usize::from(shard.0))?.as_ref().map(Shard::end)
    }

    /// What a session is told of the write that a replica has just appended.
    #[must_use]
    pub fn stamped_behind(&self, shard: ShardId, behind: Position) -> Option<Timestamp> {
        self.shards.get(usize::from(shard.0))?.as_ref()?.stamped_in_log_order(behind)
    }

    fn take_wake(&mut self, shard: ShardId) {
        if let Some(at) = self.out.wake.take() {
            self.wakes.push((shard, at));
        }
    }

    /// Tells the replicas that appended how far the log has come.
    pub fn persisted(&mut self, now: Moment) {
        let persisted = self.log.persisted();
        let shards: Vec<ShardId> = self.unsynced.keys().copied().collect();
        for shard in shards {
            self.tell(now, shard, Input::Persisted(persisted));
        }
        self.unsynced.retain(|_, index| persisted.synced_to.0 < *index);
    }

    /// Gathers the watermarks of the tails here, and tells the replicas what the keeper makes of
    /// them; true if that is something new.
    pub fn exchange_cuts(&mut self, now: Moment) -> bool {
        let here = self.here(now);
        let watermarks: Vec<_> = (0..)
            .map(ShardId)
            .zip(&self.shards)
            .filter_map(|(shard, replica)| Some((shard, replica.as_ref()?.watermarks()?)))
            .collect();
        self.keeper.handle(&here, CutInput::Watermarks(&watermarks), &mut self.out);
        self.out.wake = None;
        let replicas = self.shards.iter().flatten();
        let kept = replicas.map(Shard::kept).fold(Kept::default(), Kept::with);
        let behind = self.keeper.furthest_behind(self.id.datacenter).map(|(peer, _)| peer);
        self.bound.update(here.now, kept, behind);
        self.log.held_up_by = self.bound.held_up_by();
        let cuts = Arc::clone(self.keeper.cuts());
        for number in 0..self.shards.len() {
            let shard = ShardId(u16::try_from(number).expect("few shards"));
            self.tell(now, shard, Input::Cuts(&cuts));
        }
        let has_moved = *self.told_cuts != *cuts;
        self.told_cuts = cuts;
        has_moved
    }

    /// Tells all replicas that another node runs anew.
    pub fn note_restart(&mut self, now: Moment, of: NodeId) {
        for number in 0..self.shards.len() {
            let shard = ShardId(u16::try_from(number).expect("few shards"));
            self.tell(now, shard, Input::Restarted(of));
        }
    }

    /// Takes a new configuration.
    pub fn reconfigure(&mut self, now: Moment, configuration: &Arc<Configuration>) {
        self.configuration = Arc::clone(configuration);
        self.keeper.configure(Arc::clone(configuration), self.id.datacenter);
        for number in 0..self.shards.len() {
            let shard = ShardId(u16::try_from(number).expect("few shards"));
            self.tell(now, shard, Input::Configuration(Arc::clone(configuration)));
        }
    }
}

/// Gives replicas what a log says of them.
fn read_back(
    replicas: &mut [Option<Shard>],
    records: &[(u64, Record)],
    end: u64,
) -> Result<(), String> {
    for (index, record) in records {
        if let Some(shard) = record.shard()
            && let Some(replica) = &mut replicas[usize::from(shard.0)]
        {
            replica.recover(LogIndex(*index), record.clone());
        }
    }
    let mut replicas = replicas.iter_mut().flatten();
    let ended = replicas.try_for_each(|replica| replica.end_recovery(LogIndex(end)));
    ended.map_err(|error| error.to_string())
}

/// A log that keeps nothing: in memory, or of a node that does not run.
fn closed(durability: Durability) -> NodeLog {
    let log = Log::memory(LOG_OPTIONS);
    let (scratch, fresh, whole, room) = (Vec::new(), Vec::new(), Vec::new(), Room::Ample);
    let (held_up_by, claims, proves) = (None, 0, 0);
    NodeLog { log, durability, scratch, room, held_up_by, fresh, whole, claims, proves }
}
