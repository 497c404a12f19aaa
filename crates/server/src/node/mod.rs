//! One node: its replicas, its log, its links and its sessions, and how inputs and outputs move.
//!
//! Whoever has something for a replica (a connection, a link, a timer, the log) brings a `Work`:
//! it holds the time of the batch and collects what the machines want done. While a replica's
//! mutex is held, its messages are put into the links' buffers (so that a shard's messages keep
//! their order); those with a timestamp above the node's ceiling are put aside with the replica
//! until a larger ceiling is in the log. The rest is done at the end of the batch, without a lock: messages to this node itself
//! go to their replicas, replies to mailboxes, links and log are flushed.
//!
//! Ensures: no two replicas' mutexes are held at once; none over an await or a write to disk.
//! Ensures: no replica's message with a timestamp above the node's ceiling leaves before a larger
//! ceiling counts as persisted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use antecede_model::{
    clock::{Now, Steady, Timestamp},
    configuration::Configuration,
    ids::{Boot, LogIndex, NodeId, RequestId, ShardId},
    response::Response,
};
use antecede_protocol::{
    chain::{Cuts, Input, Shard, Watermarks},
    event::Event,
    geo::cuts::{CutInput, CutKeeper},
    machine::{Envelope, Here, Lease, Outputs, Persisted},
    message::{Body, LocalRequest, Message, Reply},
    session::Handover,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use self::checkpoint::Checkpoints;
use self::cold::ColdValues;
use self::current::Current;
use self::log::{Appender, NodeLog};
use self::mailbox::Sessions;
use self::memory::Memory;
use self::met::{Beginning, Met};
use self::outbox::Outbox;
use self::timers::Timers;
use crate::clock;
use crate::config::Config;
use crate::connection::registry::Registry;
use crate::control::Control;
use crate::peer::{LinkError, Links};
use crate::telemetry::Telemetry;

/// What lets the log be cut.
pub(crate) mod checkpoint;
/// Values that are on disk only.
pub(crate) mod cold;
/// The configuration and the lease.
pub(crate) mod current;
/// What is left on the disk.
pub(crate) mod free;
/// The log, and who waits for it.
pub(crate) mod log;
/// Mailboxes of connections.
pub(crate) mod mailbox;
/// Which datacenters there are, in the data folder.
mod members;
/// Memory in use.
pub(crate) mod memory;
/// Whom the node has met.
pub(crate) mod met;
pub use memory::MemoryFigure;
/// Start: recovery, boot number.
pub(crate) mod open;
/// What is kept for other datacenters.
pub(crate) mod outbox;
pub use open::StartError;
/// Exchange of configurations.
mod reconfigure;
/// Records of the log on their way back into the replicas.
mod replay;
/// Wake-ups and the work that is due at intervals.
pub(crate) mod timers;

/// How often a batch goes on flushing what its own flush has set going, before it leaves the rest
/// to the log's thread.
const FLUSH_ROUNDS_MAX: usize = 8;

/// Ticks without any news after which a node counts as quiet.
const QUIET_TICKS_MIN: u32 = 8;
/// Of so many ticks of a quiet node one is carried out.
const QUIET_TICKS_SKIPPED: u32 = 4;

/// For how many ticks nothing has moved.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    ticks: u32,
    appended_to: u64,
    cuts: Arc<Cuts>,
}

/// A replica with what waits beside it, in this order: each request looks at most of it.
#[derive(Debug)]
#[repr(C)]
struct Replica {
    /// Messages that wait, each for a ceiling at this place of the log.
    held: Vec<(LogIndex, NodeId, Message)>,
    /// The last place that this shard appended to, or that something held waits for.
    appended_to: LogIndex,
    /// How far the log had come when the shard was last told.
    told: Persisted,
    /// Whether the shard is among those that wait for the log to be persisted.
    is_unpersisted: bool,
    /// Whether it is among those that wait for a sync.
    is_unsynced: bool,
    /// When it will be woken.
    wake_at: Option<Steady>,
    /// Whether the configuration says that it serves.
    serves: bool,
    /// Whether it counts among those that do not serve yet.
    is_counted: bool,
    /// Whether it does not begin: what it lacks may have been here, in a folder that was lost.
    is_withheld: bool,
    shard: Shard,
}

impl Replica {
    fn new(shard: Shard) -> Self {
        Self {
            shard,
            held: Vec::new(),
            appended_to: LogIndex::default(),
            told: Persisted::default(),
            is_unpersisted: false,
            is_unsynced: false,
            wake_at: None,
            serves: false,
            is_counted: false,
            is_withheld: false,
        }
    }
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) boot: Boot,
    pub(crate) started: Now,
    pub(crate) config: Arc<Config>,
    pub(crate) current: Current,
    pub(crate) control: Control,
    hlc_floor: Timestamp,
    /// Whether this run began with nothing of any shard.
    has_begun_empty: bool,
    /// Whom it has met.
    pub(crate) met: Met,
    /// Whether its replicas may begin with what they have.
    pub(crate) beginning: Beginning,
    replicas: Box<[Option<Mutex<Replica>>]>,
    pub(crate) log: NodeLog,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) cold: ColdValues,
    pub(crate) memory: Memory,
    pub(crate) outbox: Outbox,
    pub(crate) sessions: Sessions,
    pub(crate) links: Links,
    pub(crate) timers: Timers,
    pub(crate) telemetry: Telemetry,
    pub(crate) registry: Registry,
    /// Client connections at a time; may be changed while the node runs.
    pub(crate) connections_max: AtomicU64,
    idle_timeout_millis: AtomicU64,
    /// Whether the oldest write has waited too long for a sync.
    is_sync_late: AtomicBool,
    keeper: Mutex<CutKeeper>,
    quiet: Mutex<Quiet>,
    cuts: RwLock<Arc<Cuts>>,
    unsettled: AtomicU64,
    /// Held while the configuration is exchanged, or while facts are measured under it.
    reconfiguring: Mutex<()>,
    /// The newest run of each node that has spoken.
    boots: Mutex<BTreeMap<NodeId, Boot>>,
    stopping: watch::Sender<bool>,
}

/// What one task has to do in one batch. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Work {
    now: Now,
    out: Outputs,
    /// Messages of this node to itself.
    loopback: VecDeque<Message>,
    /// Replies to sessions of this node.
    replies: Vec<(RequestId, Reply)>,
    /// The last place of the log that this batch appended to.
    appended_to: LogIndex,
}

impl Work {
    /// A batch that begins now.
    pub(crate) fn begin() -> Self {
        let mut work = Self::default();
        work.restart();
        work
    }

    /// Begins the next batch.
    pub(crate) fn restart(&mut self) {
        self.now = clock::now();
    }

    /// Looks at the clocks again if something was said after the batch began: a long batch must not
    /// take what is newer than itself for a clock that is ahead.
    fn look_again_before(&mut self, said_at: Option<Timestamp>) {
        if said_at.is_some_and(|said_at| self.now.wall.millis() < said_at.millis()) {
            self.now = clock::now();
        }
    }

    /// The time of the batch.
    pub(crate) const fn now(&self) -> Now {
        self.now
    }

    /// The replies to sessions of this node that were not delivered yet.
    pub(crate) const fn replies(&mut self) -> &mut Vec<(RequestId, Reply)> {
        &mut self.replies
    }

    /// Whether the batch has appended to the log.
    pub(crate) fn has_appended(&self) -> bool {
        LogIndex::default() < self.appended_to
    }

    /// Sends a message of this node to itself.
    pub(crate) fn loop_back(&mut self, message: Message) {
        self.loopback.push_back(message);
    }
}

impl Node {
    /// The cuts as they are known now.
    pub(crate) fn cuts(&self) -> Arc<Cuts> {
        Arc::clone(&self.cuts.read())
    }

    /// The configuration as it is known now.
    pub(crate) fn configuration(&self) -> Arc<Configuration> {
        self.current.configuration()
    }

    /// Whether this node holds a replica of a shard.
    pub(crate) fn holds(&self, shard: ShardId) -> bool {
        self.replica(shard).is_some()
    }

    fn replica(&self, shard: ShardId) -> Option<&Mutex<Replica>> {
        self.replicas.get(usize::from(shard.0)).and_then(Option::as_ref)
    }

    /// The shards that this node holds, in order.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> {
        (0_u16..)
            .zip(&self.replicas)
            .filter(|(_, replica)| replica.is_some())
            .map(|(number, _)| ShardId(number))
    }

    /// Looks at a replica's machine.
    pub(crate) fn look<T>(&self, shard: ShardId, look: impl FnOnce(&Shard) -> T) -> Option<T> {
        self.replica(shard).map(|replica| look(&replica.lock().shard))
    }

    /// Whether a stop was asked for.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until a stop is asked for.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as the node, so that this cannot fail.
        drop(self.stopping.subscribe().wait_for(|is_stopping| *is_stopping).await);
    }

    /// Asks all tasks of the node to end.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        self.checkpoints.stop();
        self.cold.stop();
    }

    /// How long a client may be silent; zero: for ever.
    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_millis.load(Ordering::Relaxed))
    }

    pub(crate) fn set_idle_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.idle_timeout_millis.store(millis, Ordering::Relaxed);
    }

    /// Whether writers should be slowed down, because syncs lag.
    pub(crate) fn is_sync_late(&self) -> bool {
        self.is_sync_late.load(Ordering::Relaxed)
    }

    /// Takes note of a run of another node.
    ///
    /// # Errors
    /// When a newer run has spoken already, or has been given the node's rights.
    pub(crate) fn learn_boot(&self, node: NodeId, boot: Boot) -> Result<(), LinkError> {
        let configuration = self.configuration();
        let decided = configuration.datacenter(node.datacenter);
        if let Some(known) = decided.and_then(|there| there.boots.get(&node).copied())
            && boot < known
        {
            return Err(LinkError::OlderBoot { node, found: boot, known });
        }
        let mut boots = self.boots.lock();
        let known = boots.entry(node).or_insert(boot);
        if boot < *known {
            return Err(LinkError::OlderBoot { node, found: boot, known: *known });
        }
        *known = boot;
        Ok(())
    }

    /// Shards that have not agreed with their neighbours since the start.
    pub(crate) fn unsettled(&self) -> u64 {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// Why clients should go elsewhere; `None` while this node answers them.
    pub(crate) fn why_not_ready(&self) -> Option<String> {
        if self.is_stopping() {
            return Some("it is stopping".to_owned());
        }
        // A replica that has not heard of the newest configuration yet answers by the one before.
        let acted_on = self.current.acted_on();
        let not_member = self.why_not_member(&self.configuration());
        if let Some(why) = not_member.or_else(|| self.why_not_member(&acted_on)) {
            return Some(why.to_owned());
        }
        if let Some(why) = self.unbegun() {
            return Some(why.to_string());
        }
        if self.current.has_given_up_lease() {
            return Some("it leaves its chains, to stop".to_owned());
        }
        if !self.has_lease(clock::steady()) {
            return Some("it has no lease".to_owned());
        }
        let here = acted_on.datacenter(self.id.datacenter)?;
        let dark = here.chains.iter().filter(|chain| chain.serving.is_empty()).count();
        if 0 < dark {
            return Some(format!("{dark} shards are served by no node"));
        }
        match self.unsettled() {
            0 => None,
            settling => Some(format!("{settling} shards are settling")),
        }
    }

    pub(crate) fn here(&self, now: Now) -> Here {
        Here {
            node: self.id,
            boot: self.boot,
            now,
            hlc_floor: self.hlc_floor,
            lease_until: self.current.lease(),
        }
    }

    /// Until when the node may answer.
    pub(crate) fn lease(&self) -> Lease {
        self.current.lease()
    }

    const fn appender(&self, now: Now) -> Appender<'_> {
        Appender { log: &self.log, node: self, now }
    }

    /// Hands an input to the replica of a shard; without one here it is dropped.
    pub(crate) fn input(&self, shard: ShardId, input: Input<'_>, work: &mut Work) {
        let Some(replica) = self.replica(shard) else {
            return;
        };
        let mut replica = replica.lock();
        self.handle(shard, &mut replica, input, work);
        self.follow_log(shard, &mut replica, work);
    }

    /// Hands a session's request to the replica of a shard on this node.
    pub(crate) fn request(
        &self,
        shard: ShardId,
        request: LocalRequest<'_>,
        work: &mut Work,
    ) -> Handover {
        let Some(replica) = self.replica(shard) else {
            return Handover::NoLink;
        };
        let mut replica = replica.lock();
        let before = replica.shard.end();
        let id = request.id;
        self.handle(shard, &mut replica, Input::Request(request), work);
        let stamp = replica.shard.stamped_in_log_order(before);
        let is_parked = 0 < replica.shard.parked_count() && replica.shard.has_parked(id);
        self.follow_log(shard, &mut replica, work);
        if let Some((answered, reply)) = work.replies.last()
            && *answered == id
        {
            if let Response::Refused(refusal) = reply.response
                && refusal.was_not_tried()
            {
                work.replies.pop();
                return Handover::Refused(refusal);
            }
            return Handover::Answered;
        }
        match stamp {
            Some(stamp) if work.replies.iter().all(|(answered, _)| *answered != id) => {
                Handover::Stamped(stamp)
            }
            Some(_) => Handover::Answered,
            None if is_parked => Handover::Parked,
            None => Handover::UnderWay,
        }
    }

    fn handle(&self, shard: ShardId, replica: &mut Replica, input: Input<'_>, work: &mut Work) {
        if replica.is_withheld {
            self.refuse_withheld(shard, &input, work);
            return;
        }
        let here = self.here(work.now);
        let mut storage = self.appender(work.now);
        replica.shard.handle(&here, input, &mut storage, &mut work.out);
        self.collect(shard, replica, work);
    }

    /// Refuses a request to a replica that does not begin, which takes nothing else either.
    fn refuse_withheld(&self, shard: ShardId, input: &Input<'_>, work: &mut Work) {
        let request = if let Input::Request(request) = input {
            request.id
        } else if let Input::Message { message, .. } = input
            && let Body::Request(request) = &message.body
        {
            request.id
        } else {
            return;
        };
        let refused = Response::Refused(self.refusal_of_unbegun());
        work.out.reply(request, Reply::plain(shard, refused));
        self.route(work);
    }

    /// Takes what the machine of a replica wants done, as far as its order matters.
    fn collect(&self, shard: ShardId, replica: &mut Replica, work: &mut Work) {
        let out = &mut work.out;
        replica.appended_to = replica.appended_to.max(out.appended_to);
        work.appended_to = work.appended_to.max(out.appended_to);
        out.appended_to = LogIndex::default();
        if let Some(at) = out.wake.take()
            && replica.wake_at.is_none_or(|before| at < before)
        {
            self.timers.set(shard, replica.wake_at, at);
            replica.wake_at = Some(at);
        }
        if !work.out.loads.is_empty() {
            self.cold.ask(work.out.loads.drain(..));
        }
        self.hold_back_above_ceiling(replica, work);
        if !replica.held.is_empty() {
            let persisted = self.log.persisted();
            let is_released =
                |(after, _, _): &mut (LogIndex, NodeId, Message)| *after <= persisted.to;
            let released = replica.held.extract_if(.., is_released);
            work.out.early.extend(released.map(|(_, to, message)| (to, message)));
        }
        self.route(work);
        self.count_unsettled(replica);
    }

    /// Counts a replica that shall serve and does not yet, and counts it no more when it does.
    fn count_unsettled(&self, replica: &mut Replica) {
        let counts = replica.serves && !replica.shard.is_settled();
        if counts == replica.is_counted {
            return;
        }
        replica.is_counted = counts;
        if counts {
            self.unsettled.fetch_add(1, Ordering::Relaxed);
        } else {
            self.unsettled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A timestamp beyond the node's ceiling is told once a larger ceiling is on disk.
    fn hold_back_above_ceiling(&self, replica: &mut Replica, work: &mut Work) {
        let is_above = |message: &Message| match message {
            Message::Shard(told) => !self.log.covers(told.hlc),
            Message::Reply(..)
            | Message::Cut(_)
            | Message::AskConfiguration(_)
            | Message::Configuration(..) => false,
        };
        let out = &mut work.out;
        if !out.early.iter().any(|(_, message)| is_above(message)) {
            return;
        }
        for (to, message) in std::mem::take(&mut out.early) {
            let raised = match &message {
                Message::Shard(told) => self.log.raise_ceiling(work.now, told.hlc),
                Message::Reply(..)
                | Message::Cut(_)
                | Message::AskConfiguration(_)
                | Message::Configuration(..) => None,
            };
            if let Some(index) = raised {
                replica.appended_to = replica.appended_to.max(index);
                work.appended_to = work.appended_to.max(index);
                replica.held.push((index, to, message));
            } else {
                out.early.push((to, message));
            }
        }
    }

    /// Puts messages into the buffers of their links, and sorts out what stays on this node.
    fn route(&self, work: &mut Work) {
        for (to, message) in work.out.early.drain(..) {
            if to == self.id {
                work.loopback.push_back(message);
            } else {
                self.links.push(to, &message);
            }
        }
        for (request, reply) in work.out.replies.drain(..) {
            if request.node == self.id {
                work.replies.push((request, reply));
            } else {
                self.links.push(request.node, &Message::Reply(request, reply));
            }
        }
    }

    /// Tells a replica how far the log has come, at once if that concerns it, or later.
    fn follow_log(&self, shard: ShardId, replica: &mut Replica, work: &mut Work) {
        let mut persisted = self.log.persisted();
        while replica.told.to < replica.appended_to && replica.appended_to <= persisted.to {
            replica.told = persisted;
            self.handle(shard, replica, Input::Persisted(persisted), work);
            persisted = self.log.persisted();
        }
        if replica.told.to < replica.appended_to {
            if !replica.is_unpersisted {
                replica.is_unpersisted = true;
                self.log.touch(shard);
            }
        } else if replica.told.synced_to < replica.appended_to && !replica.is_unsynced {
            replica.is_unsynced = true;
            self.log.touch_unsynced(shard);
        }
    }

    /// Tells all replicas that wait for the log how far it has come.
    fn on_persisted(&self, work: &mut Work) {
        let touched = self.log.take_touched();
        for shard in touched.unpersisted.into_iter().chain(touched.unsynced) {
            let Some(replica) = self.replica(shard) else { continue };
            let mut replica = replica.lock();
            let persisted = self.log.persisted();
            replica.is_unpersisted = false;
            if replica.told.synced_to < persisted.synced_to {
                replica.is_unsynced = false;
            }
            if replica.told != persisted {
                replica.told = persisted;
                self.handle(shard, &mut replica, Input::Persisted(persisted), work);
            }
            self.follow_log(shard, &mut replica, work);
        }
    }

    /// Handles a message of another node, or of this one.
    pub(crate) fn receive(&self, envelope: Envelope, work: &mut Work) {
        let Envelope { from, boot, message } = envelope;
        work.look_again_before(said_at(&message));
        match message {
            Message::Shard(message) => {
                let shard = message.shard;
                if self.holds(shard) {
                    self.input(shard, Input::Message { from, boot, message }, work);
                } else {
                    self.telemetry.misdirected.increment(1);
                }
            }
            Message::Reply(request, reply) if request.node == self.id => {
                work.replies.push((request, reply));
            }
            Message::Reply(..) => self.telemetry.misdirected.increment(1),
            Message::Cut(report) => {
                let input = CutInput::Report { from, report };
                self.tell_keeper(input, work);
            }
            Message::AskConfiguration(of) => {
                if let Some(part) = self.configuration().datacenter(of) {
                    let told = Message::Configuration(of, Box::new(part.clone()));
                    work.out.early(from, told);
                    self.route(work);
                }
            }
            Message::Configuration(of, part) if of != self.id.datacenter => {
                self.adopt(of, &part, work);
            }
            // What holds here is told by the agreement only.
            Message::Configuration(..) => self.telemetry.misdirected.increment(1),
        }
    }

    fn tell_keeper(&self, input: CutInput<'_>, work: &mut Work) {
        let here = self.here(work.now);
        let cuts = {
            let mut keeper = self.keeper.lock();
            keeper.handle(&here, input, &mut work.out);
            Arc::clone(keeper.cuts())
        };
        self.route(work);
        let has_moved = !Arc::ptr_eq(&cuts, &*self.cuts.read());
        if has_moved {
            *self.cuts.write() = cuts;
            self.sessions.poke();
        }
    }

    /// Tells all replicas that a node of another datacenter runs anew, once there is a link to it.
    pub(crate) fn note_restart(&self, of: NodeId) {
        if of.datacenter == self.id.datacenter {
            return; // Chains settle by their own questions.
        }
        let mut work = Work::begin();
        for shard in self.shards() {
            self.input(shard, Input::Restarted(of), &mut work);
        }
        self.finish(&mut work);
    }

    /// Gathers what is applied, and tells all replicas where the cuts are.
    ///
    /// While nothing moves for [`QUIET_TICKS_MIN`] ticks, only every [`QUIET_TICKS_SKIPPED`]th is
    /// carried out: an idle node looks at hundreds of shards that have nothing to say.
    pub(crate) fn tick(&self, work: &mut Work) {
        if self.is_quiet() {
            return;
        }
        let mut watermarks: Vec<(ShardId, Watermarks)> = Vec::new();
        for shard in self.shards() {
            if let Some(Some(found)) = self.look(shard, Shard::watermarks) {
                watermarks.push((shard, found));
            }
        }
        let is_late = log::SYNC_LAG_MAX < self.log.sync_lag(work.now);
        self.is_sync_late.store(is_late, Ordering::Relaxed);
        self.tell_keeper(CutInput::Watermarks(&watermarks), work);
        self.count_kept(work.now);
        let cuts = self.cuts();
        for shard in self.shards() {
            self.input(shard, Input::Cuts(&cuts), work);
        }
        self.finish(work);
    }

    /// Whether this tick can be left out.
    fn is_quiet(&self) -> bool {
        let appended_to = self.log.positions().appended_to.get();
        let cuts = self.cuts();
        let mut quiet = self.quiet.lock();
        let is_same = quiet.appended_to == appended_to
            && Arc::ptr_eq(&quiet.cuts, &cuts)
            && !cuts.wants_ticks();
        quiet.ticks = if is_same { quiet.ticks.wrapping_add(1) } else { 0 };
        quiet.appended_to = appended_to;
        quiet.cuts = cuts;
        QUIET_TICKS_MIN < quiet.ticks && !quiet.ticks.is_multiple_of(QUIET_TICKS_SKIPPED)
    }

    /// Wakes the replicas whose time has come.
    pub(crate) fn wake_due(&self, work: &mut Work) {
        let mut due = Vec::new();
        self.timers.take_due(work.now.steady, &mut due);
        for shard in due {
            let Some(replica) = self.replica(shard) else { continue };
            let mut replica = replica.lock();
            replica.wake_at = None;
            self.handle(shard, &mut replica, Input::Wake, work);
            self.follow_log(shard, &mut replica, work);
        }
        self.finish(work);
    }

    /// Does what a batch wants done, as far as it needs no disk.
    pub(crate) fn send_off(&self, work: &mut Work) {
        while let Some(message) = work.loopback.pop_front() {
            let (from, boot) = (self.id, self.boot);
            self.receive(Envelope { from, boot, message }, work);
        }
        if !work.out.events.is_empty() {
            for event in &work.out.events {
                if let Event::Drift { from, .. } = event {
                    self.links.to(*from).into_iter().for_each(|link| link.distrust());
                }
            }
            self.telemetry.tell(self, &mut work.out.events);
        }
        self.links.flush();
        self.sessions.deliver(&mut work.replies);
    }

    /// Whether what a batch has appended is not persisted yet.
    pub(crate) fn must_flush(&self, work: &Work) -> bool {
        self.log.persisted().to < work.appended_to
    }

    /// Persists what a batch has appended, or sees to it that another thread does.
    pub(crate) fn flush(&self, work: &mut Work) {
        for _ in 0..FLUSH_ROUNDS_MAX {
            if !work.has_appended() {
                return;
            }
            let appended_to = std::mem::take(&mut work.appended_to);
            if self.log.persisted().to < appended_to {
                let began = clock::steady();
                if !self.log.flush_inline() {
                    return; // Another thread is at it, and its end is told to `on_log_advanced`.
                }
                let took = clock::steady().0.saturating_sub(began.0);
                self.telemetry.flush_seconds.record(took.as_secs_f64());
            }
            self.on_persisted(work);
            self.send_off(work);
        }
        if work.has_appended() {
            work.appended_to = LogIndex::default();
            self.log.request_flush();
        }
    }

    /// Ends a batch of a task that has nothing to answer itself.
    pub(crate) fn finish(&self, work: &mut Work) {
        self.send_off(work);
        self.flush(work);
    }

    /// The log has come further, on a thread that does nothing else for the node.
    pub(crate) fn on_log_advanced(&self) {
        let mut work = Work::begin();
        self.on_persisted(&mut work);
        self.send_off(&mut work);
        if work.has_appended() {
            self.log.request_flush();
        }
    }
}

/// The time that came with a message, if one did.
fn said_at(message: &Message) -> Option<Timestamp> {
    match message {
        Message::Shard(message) => Some(message.hlc),
        Message::Cut(report) => Some(report.hlc),
        Message::Reply(..) | Message::AskConfiguration(_) | Message::Configuration(..) => None,
    }
}
