//! One replica of one shard: order, commit, reads, restarts, and its part between datacenters.
//!
//! The head orders entries, the tail commits them, acknowledgements run back (van Renesse and
//! Schneider, OSDI 2004); every replica answers reads of clean keys (CRAQ, USENIX ATC 2009 section 2.3).
//! An entry commits when every replica has persisted it: `Persisted` notes run down behind the
//! entries, so that all disks of a chain work at the same time.
//!
//! Assumes: storage keeps what it said is persisted; a restarted process has a larger boot.
//! Ensures: a reply is released only when the position it was computed from is committed; nothing
//! uncommitted is shown, sent to another datacenter or called applied.
//! Invariant: `committed_to <= min(persisted by all) <= end of the log`.

/// Checkpoints, and recovery from one.
mod checkpoint;
/// Requests that wait for values that are on disk only.
mod cold;
/// Entries on their way down the chain, commits on their way up.
mod commit;
/// Copies of what a replica lacks that was away.
mod copy;
/// Reads of dirty keys, and the questions to the tail.
mod read;
/// Requests of sessions: who evaluates them, and when the reply may leave.
mod request;
/// Replicas that are short of disk, as far as the head knows.
mod room;
/// Which runs of the other replicas count.
mod runs;
/// Copies from another datacenter, for one that is being added.
mod seed;
/// Agreement with the neighbours after a restart or a new epoch.
mod settle;
/// The end of the log that is kept in memory.
mod window;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use antecede_model::{
    applied::AppliedSet,
    clock::{Hlc, Steady, Timestamp},
    configuration::Configuration,
    cut::Cut,
    ids::{Boot, DatacenterId, Epoch, LogIndex, NodeId, Position, RequestId, SessionId, ShardId},
    membership::Standing,
    refusal::Refusal,
};

use self::{
    checkpoint::Checkpoints, cold::Cold, copy::Copying, read::Reads, request::PendingReply,
    room::Shortage, settle::Settling, window::Window,
};
use crate::{
    entry::{Entry, Seen},
    event::Event,
    geo::{
        cuts::initial_cuts,
        dependency::Waiters,
        hand_on::HandingOn,
        inbox::Inbox,
        outbox::{Outbox, Resumed},
        stable::Collection,
    },
    machine::{Here, Outputs, Persisted, Storage},
    message::{Body, LocalRequest, Message, Progress, Promise, ShardMessage},
    mutation::{Mutation, Mutations},
    record::Record,
    retries::Retries,
    state::Keys,
};

/// How long a replica waits for an answer before it asks or sends again.
pub const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How often neighbours ask each other while they settle.
pub const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// Uncommitted entries that a head holds; past it writes are refused with `Refusal::Busy`: a chain
/// that cannot drain must slow its clients, not fill its memory.
pub const DIRTY_MAX: usize = 16_384;
/// Entries in one message down the chain.
const FORWARD_MAX: usize = 512;
/// Bytes of entries in one message, about.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// What a replica is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// A message from another node, already decoded and checked.
    Message {
        /// The sender.
        from: NodeId,
        /// Its run.
        boot: Boot,
        /// What it says.
        message: ShardMessage,
    },
    /// A request of a session on this node.
    Request(LocalRequest<'a>),
    /// The node's log has come this far.
    Persisted(Persisted),
    /// The cuts have moved, or the time for ticks has come.
    Cuts(&'a Cuts),
    /// A new configuration (a scripted one, until there is a manager).
    Configuration(Arc<Configuration>),
    /// A node runs anew and can be reached.
    Restarted(NodeId),
    /// The time that the replica asked to be woken at has come.
    Wake,
    /// What was read from the checkpoint for a `Load`.
    Loaded(Loaded<'a>),
}

/// What became of a load.
#[derive(Clone, Copy, Debug)]
pub struct Loaded<'a> {
    /// The hash.
    pub hash: u64,
    /// Which load it was.
    pub number: u64,
    /// The records of the hash, if there are any that are not damaged.
    pub records: Option<&'a [u8]>,
}

/// The cuts as a node knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Applied in every datacenter.
    pub stable: Cut,
    /// Applied in this datacenter.
    pub applied: Cut,
    /// Up to when promises are wanted; zero: none are.
    pub ticks_to: Timestamp,
    /// Up to where the other datacenter that has most of what began here has all of it; the end of
    /// time where there is no other.
    pub followed_to: Timestamp,
    /// At least every logical time that the tails had when they reported what went into `stable`.
    pub hlc: Timestamp,
}

impl Cuts {
    /// Whether any promise is wanted.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        self.ticks_to != Timestamp::ZERO
    }
}

/// Limits and settings of a replica.
#[derive(Clone, Copy, Debug)]
pub struct ShardOptions {
    /// How far a peer's clock may be ahead.
    pub max_clock_drift: Duration,
    /// The deployment's secret for the order of scans.
    pub hash_secret: u64,
    /// Bytes of blocked bodies that are kept per shard and origin; past it only headers are.
    pub blocked_bytes_max: usize,
    /// Bytes of entries that are kept per shard, past what serving replicas need, for those that
    /// are away: within them a replica that comes back gets entries instead of a whole copy.
    pub kept_bytes_max: usize,
    /// Bytes of entries that are let go of before the log says so; `record::TRIMMED_BYTES_MIN` in
    /// every deployment.
    pub trimmed_bytes_min: usize,
    /// Bytes of keys that one message of a copy brings, about.
    pub part_bytes: usize,
    /// How long a replica that copies waits between two parts, so that the tail serves others first.
    pub part_pause: Duration,
    /// Request ids that are remembered; `retries::KEPT_MAX` in every deployment.
    pub retries_max: usize,
    /// Whether checkpoints are taken, for which removed keys must be remembered.
    pub has_checkpoints: bool,
    /// Values of at least so many bytes may be on disk only, once a checkpoint has them; none where
    /// all stay in memory.
    pub away_bytes_min: Option<usize>,
    /// A deliberate bug, for the simulator's tests only.
    pub mutations: Mutations,
}

/// What the keeper of cuts needs from a tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Per origin, how far its line is applied and persisted here.
    pub applied: Vec<(DatacenterId, Timestamp)>,
    /// Up to when it wants promises: of that time is something that is not stable yet, or waits for
    /// them; zero if nothing is.
    pub ticks_to: Timestamp,
    /// Whether it has handed out what the membership asks for.
    pub is_handed_out: bool,
    /// The tail's logical time.
    pub hlc: Timestamp,
}

/// Where a replica stands in its chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// Whether it is in the chain at all.
    pub(crate) is_member: bool,
    /// Towards the head; `None` at the head.
    pub(crate) previous: Option<NodeId>,
    /// Towards the tail; `None` at the tail.
    pub(crate) next: Option<NodeId>,
}

impl Neighbours {
    fn of(node: NodeId, chain: &[NodeId]) -> Self {
        let Some(place) = chain.iter().position(|member| *member == node) else {
            return Self::default();
        };
        Self {
            is_member: true,
            previous: place.checked_sub(1).and_then(|before| chain.get(before)).copied(),
            next: chain.get(place + 1).copied(),
        }
    }

    pub(crate) const fn is_head(self) -> bool {
        self.is_member && self.previous.is_none()
    }

    pub(crate) const fn is_tail(self) -> bool {
        self.is_member && self.next.is_none()
    }
}

/// What one origin's line of stamps has come to in this shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// In the log, also dirty.
    pub(crate) received: AppliedSet,
    /// Committed.
    pub(crate) applied: AppliedSet,
    /// Committed, and safe from a power loss in every replica: what peers may be told.
    pub(crate) durable: AppliedSet,
    /// The largest stamp of an entry that is not a tick, committed.
    pub(crate) newest_write: Timestamp,
}

/// One replica of one shard. What each request looks at stands first, and together.
#[derive(Debug)]
#[repr(C)]
pub struct Shard {
    pub(crate) shard: ShardId,
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) neighbours: Neighbours,
    /// Whether a replica of the chain does not serve.
    lacks_replicas: bool,
    /// Whether this replica answers nobody, so that the others may go on without it.
    is_aside: bool,
    /// Whether nothing may begin in the datacenter but promises: it is being removed, and what began
    /// there after it has handed out what it had would be lost; or it is not open yet, and may be
    /// given up without a word.
    takes_no_writes: bool,
    /// Why the datacenter answers nobody, if it does not.
    refuses_all: Option<Refusal>,
    pub(crate) committed_to: Position,
    /// Up to where `durable` of the lines was counted.
    durable_to: Position,
    /// What this replica has.
    own: Progress,
    /// Positions that wait for this node's disk, with their places in its log.
    unpersisted: VecDeque<(LogIndex, Position)>,
    pending: VecDeque<PendingReply>,
    pub(crate) window: Window,
    settling: Settling,
    pub(crate) waiters: Waiters,
    pub(crate) keys: Keys,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) options: ShardOptions,
    /// The tail that this replica copies from; `None` unless it is syncing.
    donor: Option<NodeId>,
    /// At the tail: the replica that copies from it.
    joiner: Option<NodeId>,
    pub(crate) boots: BTreeMap<NodeId, Boot>,
    pub(crate) hlc: Hlc,
    /// What requests with an id came to, in the whole log, also dirty.
    retries: Retries,
    pub(crate) lines: BTreeMap<DatacenterId, Line>,
    unsynced: VecDeque<(LogIndex, Position)>,
    /// What every replica before this one has, and the runs of theirs that said so; everything at
    /// the head.
    before: Promise,
    /// What every replica has, by the word of the successor's present run; nothing at the tail.
    after: Progress,
    /// What every replica has, as far as is known here.
    pub(crate) all: Progress,
    /// What the successor's present run was last told of `min(own, before)`, if anything.
    told: Option<Promise>,
    /// How far entries were sent to the successor.
    sent_to: Position,
    /// The last reads that were handed on to the head of this epoch.
    handed_on: VecDeque<RequestId>,
    /// What was heard last of a replica behind this one that is short of disk.
    shortage: Option<Shortage>,
    reads: Reads,
    copying: Copying,
    checkpoints: Checkpoints,
    cold: Cold,
    /// The last entry of each session, which its next one depends on, until it is stable.
    follows: BTreeMap<(NodeId, SessionId), Timestamp>,
    pub(crate) cuts: Cuts,
    pub(crate) outboxes: BTreeMap<DatacenterId, Outbox>,
    pub(crate) resumed: Resumed,
    pub(crate) inboxes: BTreeMap<DatacenterId, Inbox>,
    pub(crate) handing_on: HandingOn,
    pub(crate) collection: Collection,
    /// The earliest moment that the shell was asked to wake this machine at.
    wake: Option<Steady>,
    resend_at: Option<Steady>,
    scratch: Vec<u8>,
}

impl Shard {
    /// A replica with an empty log. Feed it the log with [`Shard::recover`], then
    /// [`Shard::start`] it.
    #[must_use]
    pub fn new(
        shard: ShardId,
        node: NodeId,
        configuration: Arc<Configuration>,
        options: ShardOptions,
    ) -> Self {
        let chain = configuration.chain(node.datacenter, shard);
        let neighbours = Neighbours::of(node, chain);
        let epoch = configuration.chain_epoch(node.datacenter, shard);
        let lines =
            configuration.datacenters.keys().map(|origin| (*origin, Line::default())).collect();
        let cuts = initial_cuts(&configuration, node.datacenter);
        let mut replica = Self {
            shard,
            configuration,
            options,
            node,
            epoch,
            neighbours,
            donor: None,
            joiner: None,
            lacks_replicas: false,
            is_aside: false,
            refuses_all: None,
            takes_no_writes: false,
            boots: BTreeMap::new(),
            hlc: Hlc::default(),
            keys: Keys::new(options.hash_secret),
            retries: Retries::new(
                options.retries_max,
                !options.mutations.has(Mutation::ForgetWithoutFloor),
            ),
            window: Window::default(),
            lines,
            unpersisted: VecDeque::new(),
            unsynced: VecDeque::new(),
            own: Progress::default(),
            before: Promise::default(),
            after: Progress::default(),
            all: Progress::default(),
            told: None,
            sent_to: Position(0),
            committed_to: Position(0),
            durable_to: Position(0),
            pending: VecDeque::new(),
            handed_on: VecDeque::new(),
            shortage: None,
            reads: Reads::default(),
            settling: Settling::default(),
            copying: Copying::default(),
            checkpoints: Checkpoints::default(),
            cold: Cold::default(),
            follows: BTreeMap::new(),
            cuts,
            outboxes: BTreeMap::new(),
            resumed: Resumed::default(),
            inboxes: BTreeMap::new(),
            waiters: Waiters::default(),
            handing_on: HandingOn::default(),
            collection: Collection::default(),
            wake: None,
            resend_at: None,
            scratch: Vec::new(),
        };
        replica.note_standing();
        replica.before = replica.before_at_start();
        replica.forget_keys();
        replica
    }

    /// Takes over what the membership lets this datacenter do.
    fn note_standing(&mut self) {
        let own = self.node.datacenter;
        let standing = self.configuration.membership.standing(own);
        let has_lapsed = self.configuration.membership.is_lapsed(own);
        if has_lapsed && self.options.mutations.has(Mutation::ServeLapsed) {
            return;
        }
        self.refuses_all = match standing {
            Some(Standing::Open | Standing::Leaving) => None,
            Some(Standing::Joining { .. } | Standing::Copying { .. }) => Some(Refusal::Joining),
            Some(Standing::Lost) | None if has_lapsed => Some(Refusal::Lapsed),
            Some(Standing::Lost) | None => Some(Refusal::Gone),
        };
        let leaves = match standing {
            Some(Standing::Leaving) => !self.options.mutations.has(Mutation::WriteWhileLeaving),
            Some(Standing::Joining { .. } | Standing::Copying { .. } | Standing::Lost) | None => {
                true
            }
            Some(Standing::Open) => false,
        };
        self.takes_no_writes = leaves;
    }

    /// Nothing stands before the head, so nothing holds it back.
    fn before_at_start(&self) -> Promise {
        let progress = if self.neighbours.is_head() {
            Progress { persisted_to: Position(u64::MAX), synced_to: Position(u64::MAX) }
        } else {
            Progress::default()
        };
        Promise { progress, boots: self.boots_before() }
    }

    /// Handles one input.
    pub fn handle(
        &mut self,
        here: &Here,
        input: Input<'_>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        self.follow_log(here, storage, out);
        match input {
            Input::Request(request) => self.on_local_request(here, request, storage, out),
            Input::Message { from, boot, message } => {
                self.on_message(here, (from, boot), message, storage, out);
            }
            Input::Persisted(persisted) => self.on_persisted(here, persisted, storage, out),
            Input::Cuts(cuts) => self.on_cuts(here, cuts, storage, out),
            Input::Configuration(new) => self.on_configuration(here, new, storage, out),
            Input::Restarted(node) => self.probe_restarted_peer(here, node, out),
            Input::Wake => self.on_wake(here, storage, out),
            Input::Loaded(loaded) => self.on_loaded(here, &loaded, storage, out),
        }
        self.ask_what_is_new(out);
        self.check_invariants();
    }

    /// Catches up with the node's log before anything is answered: shards of one log are told one
    /// after the other that it has come further, and none may look older than another.
    fn follow_log(&mut self, here: &Here, storage: &mut dyn Storage, out: &mut Outputs) {
        if let Some((index, _)) = self.unpersisted.front() {
            let persisted = storage.reached();
            if *index <= persisted.to {
                self.on_persisted(here, persisted, storage, out);
            }
        }
    }

    /// What the keeper of cuts needs; `None` unless this replica is the tail and has settled.
    #[must_use]
    pub fn watermarks(&self) -> Option<Watermarks> {
        if !self.neighbours.is_tail() || !self.is_settled() {
            return None;
        }
        let mut applied: Vec<(DatacenterId, Timestamp)> =
            self.lines.iter().map(|(origin, line)| (*origin, line.durable.watermark())).collect();
        // Of an origin that is new nothing is here.
        let unheard = self.configuration.origins().filter(|id| !self.lines.contains_key(id));
        applied.extend(unheard.map(|origin| (origin, Timestamp::ZERO)));
        if self.options.mutations.has(Mutation::TailClockAsTick) {
            applied.retain(|(origin, _)| *origin != self.node.datacenter);
            applied.push((self.node.datacenter, self.hlc.last()));
        }
        Some(Watermarks {
            applied,
            ticks_to: self.ticks_wanted_to(),
            is_handed_out: self.is_handed_out(),
            hlc: self.hlc.last(),
        })
    }

    /// What of an origin is applied and persisted here, once the replica has settled.
    #[must_use]
    pub fn applied_of(&self, origin: DatacenterId) -> Option<AppliedSet> {
        let is_whole = self.neighbours.is_member && self.is_settled();
        is_whole
            .then(|| self.lines.get(&origin).map(|line| line.durable.clone()).unwrap_or_default())
    }

    /// The versions that a write of a key would find now; only the head knows them.
    #[must_use]
    pub fn newest_versions(&self, here: &Here, key: &[u8]) -> Option<Seen> {
        let may_tell = self.neighbours.is_head() && self.is_settled() && self.may_answer(here);
        may_tell.then(|| self.keys.newest(key).seen())
    }

    /// Whether the replica may answer clients.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settling.is_settled
    }

    /// Loads the part of the index that a key needs, so that the next look finds it in the cache.
    ///
    /// For a batch: once for every key of it, then [`Shard::prefetch_record`] for every key, then
    /// the looks.
    pub fn prefetch(&self, key: &[u8]) {
        self.keys.prefetch(self.keys.hash(key));
    }

    /// Loads the record that a key's part of the index points at.
    pub fn prefetch_record(&self, key: &[u8]) {
        self.keys.prefetch_record(self.keys.hash(key));
    }

    /// The keys, for counters and checks.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What is committed here.
    #[must_use]
    pub const fn committed_to(&self) -> Position {
        self.committed_to
    }

    /// Bytes that entries take in memory, and how many there are.
    #[must_use]
    pub fn window_size(&self) -> (usize, u64) {
        (self.window.bytes(), self.window.end().0 - self.window.cut_to().0)
    }

    /// The entry at a position, while it is held in memory; for checks.
    #[must_use]
    pub fn entry_at(&self, position: Position) -> Option<&Entry> {
        self.window.at(position)
    }

    /// The last position of the log.
    #[must_use]
    pub fn end(&self) -> Position {
        self.window.end()
    }

    fn on_message(
        &mut self,
        here: &Here,
        (from, boot): (NodeId, Boot),
        message: ShardMessage,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let is_neighbour = from.datacenter == self.node.datacenter;
        let is_stale = is_neighbour
            && (message.epoch != self.epoch || !self.is_current_boot(here, (from, boot), out));
        if is_stale {
            self.refuse_stale(from, message, out);
            return;
        }
        if let Err(drift) = self.hlc.merge(here.now.wall, message.hlc, self.options.max_clock_drift)
        {
            out.event(Event::Drift {
                from,
                ahead_millis: drift.ahead_millis,
                limit_millis: drift.limit_millis,
            });
            return;
        }
        if self.neighbours.is_member {
            self.on_body(here, (from, boot), message.body, storage, out);
            return;
        }
        let body = message.body;
        if let Body::CopyAnew { number, start } = &body {
            self.on_copy_anew(here, (from, *number), start, storage, out);
        } else if let Body::Copied(copied) = body {
            self.on_copied(here, from, copied, storage, out);
        } else {
            self.refuse_as_stranger(body, out);
        }
    }

    /// Refuses what was said in another epoch, or by a run that has no part in this one.
    fn refuse_stale(&self, from: NodeId, message: ShardMessage, out: &mut Outputs) {
        if let Body::Request(request) = message.body {
            // It was not evaluated: whoever asks need not wait to be told so.
            self.refuse(request.id, Refusal::Settling { shard: self.shard }, out);
        } else {
            out.event(Event::StaleMessage { from });
        }
    }

    fn on_body(
        &mut self,
        here: &Here,
        (from, boot): (NodeId, Boot),
        body: Body,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        match body {
            Body::Forward { entries } => self.on_forward(here, from, entries, storage, out),
            Body::Persisted(promise) => self.on_promise(here, from, &promise, out),
            Body::Ack(progress) => self.on_ack(here, from, progress, out),
            Body::NoRoom { node } => self.on_no_room(here, from, node, out),
            Body::SendAgain { from: position } => self.on_send_again(here, from, position, out),
            Body::Question { number } => {
                if self.may_answer(here) {
                    self.on_question(from, number, out); // Else it asks again.
                }
            }
            Body::Answer { number, committed_to } => {
                self.on_answer(here, number, committed_to, out);
            }
            Body::SettleAsk { committed_at_most } => {
                self.on_settle_ask((from, boot), committed_at_most, out);
            }
            Body::SettleTell { last, is_complete, asked_by } => {
                if asked_by == Some(here.boot) {
                    self.on_settle_tell(here, from, last, is_complete, out);
                } else {
                    self.ask_at_once(here, out);
                }
            }
            Body::TakeBack { from: position } => self.on_take_back(from, position, out),
            Body::Returned { entries } => self.on_returned(here, from, entries, storage, out),
            Body::Request(request) => self.on_remote_request(here, &request, storage, out),
            Body::AwaitApplied { asker, writes } => {
                if self.may_answer(here) {
                    self.on_await_applied(from, asker, writes, out); // Else it asks again.
                }
            }
            Body::Applied { by, writes } => self.on_applied(here, by, &writes, storage, out),
            Body::Replicate(replicate) => self.on_replicate(here, from, replicate, storage, out),
            Body::Received(received) => self.on_received(here, from, &received, out),
            Body::Fetch { membership: of, stamps, .. } => self.on_fetch(from, of, &stamps, out),
            Body::HadApplied(had) => self.on_had_applied(here, from, had, out),
            Body::CopyAsk(ask) if from.datacenter != self.node.datacenter => {
                self.on_seed_ask(here, from, ask, out);
            }
            Body::CopyAsk(ask) => self.on_copy_ask(here, (from, boot), ask, out),
            Body::HandOn { membership, origin, entries } => {
                self.on_hand_on(here, from, (membership, origin), entries, (storage, out));
            }
            Body::HandedOn { membership, origin, stamps } => {
                self.on_handed_on(from, (membership, origin), stamps, out);
            }
            Body::CopyAnew { .. } | Body::Copied(_) => {} // It has become the tail since it asked.
        }
    }

    fn on_wake(&mut self, here: &Here, storage: &mut dyn Storage, out: &mut Outputs) {
        self.wake = None;
        self.settle_again(here, out);
        self.resend_when_due(here, out);
        self.ask_again_when_due(here, out);
        self.outboxes_when_due(here, out);
        self.inboxes_when_due(here, out);
        self.copy_when_due(here, storage, out);
        self.hand_on_when_due(here, out);
    }

    fn on_cuts(&mut self, here: &Here, cuts: &Cuts, storage: &mut dyn Storage, out: &mut Outputs) {
        if self.cuts != *cuts {
            if !self.options.mutations.has(Mutation::NewHeadIgnoresTicks) {
                self.hlc.witness(cuts.hlc);
            }
            self.cuts = cuts.clone();
            let end_before = self.window.end();
            self.resolve_what_is_covered(here, storage, out);
            self.release_floors(here, storage, out);
            if end_before < self.window.end() {
                self.send_entries(here, out);
            }
            self.trim();
            self.forget_followed();
        }
        self.collect_when_stable();
        self.get_rid_of_promises(storage);
        self.tell_shortage(storage, out);
        self.hand_on_when_due(here, out);
        if self.neighbours.is_head() && self.is_settled() {
            self.tick_when_wanted(here, storage, out);
            self.hide_expired(here, storage, out);
        }
    }

    /// Puts an entry into the log, gives it to the disk and counts it as received.
    pub(crate) fn append(&mut self, entry: Entry, storage: &mut dyn Storage, out: &mut Outputs) {
        let position = entry.identity.position;
        let shard = self.shard;
        let committed_to = self.committed_to;
        self.tell_trimmed(storage, out);
        let index = self.log(storage, out, &mut |bytes| {
            Record::write_entry(bytes, shard, committed_to, &entry);
        });
        self.unpersisted.push_back((index, position));
        self.unsynced.push_back((index, position));
        self.take(index, entry);
        if self.options.mutations.has(Mutation::AcknowledgeBeforePersisting) {
            self.own = Progress { persisted_to: position, synced_to: position };
        }
    }

    /// Takes an entry into memory, as the last of the log.
    fn take(&mut self, index: LogIndex, entry: Entry) {
        self.keys.add_dirty(&entry);
        self.take_unread(index, entry);
    }

    /// The same while nobody can read what is not committed.
    fn take_unread(&mut self, index: LogIndex, entry: Entry) {
        self.hlc.witness(entry.stamp);
        self.hlc.witness(entry.visible_at);
        let line = self.lines.entry(entry.origin).or_default();
        line.received.record(entry.previous, entry.stamp);
        self.resumed.note(&entry, self.node.datacenter);
        if let Some(kept) = &entry.kept
            && !self.knows_retries_no_more()
        {
            if entry.is_tick() {
                self.retries.begin_anew(kept.retry.number);
            } else {
                self.retries.push(entry.identity.position, entry.stamp, kept);
            }
        }
        self.window.push(entry, index);
    }

    /// A deliberate bug: only a head that executes them knows ids.
    fn knows_retries_no_more(&self) -> bool {
        let is_at_work = self.neighbours.is_head() && self.settling.is_settled;
        self.options.mutations.has(Mutation::RetriesOnlyAtHead) && !is_at_work
    }

    /// A message about this shard.
    pub(crate) fn message(&self, body: Body) -> Message {
        Message::Shard(ShardMessage {
            shard: self.shard,
            epoch: self.epoch,
            hlc: self.hlc.last(),
            body,
        })
    }

    /// A message for another shard of this datacenter.
    pub(crate) fn message_about(&self, shard: ShardId, body: Body) -> Message {
        let epoch = self.configuration.chain_epoch(self.here_datacenter(), shard);
        Message::Shard(ShardMessage { shard, epoch, hlc: self.hlc.last(), body })
    }

    /// Sees to it that the machine is woken at `at` or earlier.
    pub(crate) fn arm(&mut self, at: Steady, out: &mut Outputs) {
        if self.wake.is_none_or(|armed| at < armed) {
            self.wake = Some(at);
            out.wake_at(at);
        }
    }

    pub(crate) const fn here_datacenter(&self) -> DatacenterId {
        self.node.datacenter
    }

    /// What must hold after every input.
    fn check_invariants(&self) {
        assert!(self.committed_to <= self.window.end(), "committed what was never received");
        assert!(self.own.persisted_to <= self.window.end(), "persisted what was never received");
        assert!(self.committed_to <= self.own.persisted_to, "committed what is not persisted here");
        assert!(self.window.cut_to() <= self.committed_to, "cut what is not committed");
        assert!(self.durable_to <= self.committed_to, "durable before committed");
    }
}

/// Later by a delay.
pub(crate) fn after(now: Steady, delay: Duration) -> Steady {
    Steady(now.0 + delay)
}
