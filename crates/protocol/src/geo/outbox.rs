//! Sends committed entries that began here to another datacenter, in order.
//!
//! The outbox is a view of the log: a place in it for each peer, kept by the tail in memory. A new
//! tail asks the peer how far it has come. Entries go out once they survive a power loss of the
//! whole chain; they stay in the log until they are stable. Who does not say in time that entries were
//! received is asked where it stands, and sent again from there on; nothing is sent to one that does
//! not answer.
//!
//! After a time without a link a peer may lack hundreds of thousands of entries. It is sent few at
//! first, and more as it tells that it has received them, so that what other writes wait for does not
//! stand behind what waits for it; and a place in the log is found by its stamp, not by walking.
//!
//! Ensures: entries of a line arrive with the stamp before each, so that a gap is seen.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use antecede_model::{
    clock::{Steady, Timestamp},
    configuration::Configuration,
    ids::{DatacenterId, MembershipEpoch, NodeId, Position, RequestId},
    response::Response,
};
use smallvec::SmallVec;

use crate::{
    chain::{MESSAGE_BYTES_MAX, RETRY_AFTER, Shard, after},
    entry::Entry,
    event::Event,
    machine::{Here, Outputs},
    message::{Body, HadApplied, Received, Replicate},
    mutation::Mutation,
};

/// Entries in one message to another datacenter.
const REPLICATE_MAX: usize = 512;
/// Entries that are sent before anything is known to be received.
const AT_FIRST: usize = 128;
/// Entries that are sent all the same to a peer where so many wait that it takes no more, after
/// `RETRY_AFTER`; twice as many each time for as long as this shard stands still there. What waits
/// there may wait for a datacenter that is away: what waits for nothing must not stand behind it, at
/// whatever rate it is written.
const TRICKLE: usize = 8;
/// How often that doubles.
const TRICKLE_DOUBLINGS: u32 = 10;

/// One peer datacenter's view of this shard's entries.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Whether the peer has told in this boot and epoch how far it has come.
    is_known: bool,
    /// The last stamp that was sent.
    sent_to: Timestamp,
    /// The position up to which entries were looked at for sending.
    sent_position: Position,
    /// What the peer's head has.
    received_to: Timestamp,
    /// What the peer has applied and persisted.
    applied_to: Timestamp,
    /// Single stamps that it has applied above.
    above: BTreeSet<Timestamp>,
    /// What lies before the entries that are kept for it: it had applied them.
    had_applied: Timestamp,
    /// How many entries it takes beyond what it has received; none while too many wait there.
    credit: usize,
    /// How many it is sent all the same.
    trickle: usize,
    /// How often it was sent some all the same since it took any, or applied any.
    trickled: u32,
    /// How many are sent beyond what it has received; more as it keeps up.
    in_flight_max: usize,
    /// Stamps that were sent and are not known to be received.
    in_flight: VecDeque<Timestamp>,
    /// The largest stamp that was ever sent in this boot.
    newest_sent: Timestamp,
    /// When to ask or send again.
    again_at: Option<Steady>,
    /// `received_to` and `applied_to` when the timer was set.
    at_check: (Timestamp, Timestamp),
}

/// Where the line of this datacenter went on when this replica became its tail: between the two
/// there is nothing, or the log was set back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resumed {
    /// The last stamp before.
    before: Timestamp,
    /// The first one since.
    after: Option<Timestamp>,
}

impl Resumed {
    /// Takes note of an entry that the log has from now on.
    pub(crate) fn note(&mut self, entry: &Entry, here: DatacenterId) {
        if entry.origin == here {
            self.after.get_or_insert(entry.stamp);
        }
    }
}

impl Outbox {
    /// Whether the peer has applied and persisted a write of this datacenter.
    fn has_applied(&self, stamp: Timestamp) -> bool {
        stamp <= self.applied_to || self.above.contains(&stamp)
    }

    /// Sends again from a stamp on.
    fn go_back(&mut self, to: Timestamp, position: Position) {
        self.received_to = to;
        self.sent_to = to;
        self.sent_position = position;
        self.in_flight.clear();
        self.in_flight_max = AT_FIRST;
    }
}

/// Someone who waits until enough datacenters have applied a write.
#[derive(Clone, Copy, Debug)]
pub struct ReplicationWait {
    request: RequestId,
    stamp: Timestamp,
    count: u64,
    until: Option<Steady>,
}

impl Shard {
    /// Asks every peer how far it has come; at the start of a tail.
    pub(crate) fn probe_outboxes(&mut self, here: &Here, out: &mut Outputs) {
        if !self.neighbours.is_tail() {
            return;
        }
        let own = self.lines.get(&self.here_datacenter());
        let before = own.map(|line| line.received.watermark()).unwrap_or_default();
        self.resumed = Resumed { before, after: None };
        let peers: Vec<DatacenterId> = self.configuration.peers(self.here_datacenter()).collect();
        for peer in peers {
            self.probe_outbox(here, peer, out);
        }
    }

    /// Lets go of what belongs to datacenters that are there no more.
    pub(crate) fn forget_strangers(&mut self) {
        let configuration = &self.configuration;
        self.outboxes.retain(|peer, _| configuration.datacenters.contains_key(peer));
        let members = &configuration.membership.members;
        self.inboxes.retain(|origin, _| members.contains_key(origin));
    }

    /// Whether every other datacenter has applied and persisted all own writes up to one.
    pub(crate) fn is_applied_by_all(&self, to: Timestamp) -> bool {
        self.configuration
            .peers(self.here_datacenter())
            .all(|peer| self.outboxes.get(&peer).is_some_and(|outbox| to <= outbox.applied_to))
    }

    /// Asks those whose chain of this shard is another one now: their head knows nothing of what
    /// the one before it was sent.
    pub(crate) fn probe_changed_peers(
        &mut self,
        here: &Here,
        before: &Configuration,
        out: &mut Outputs,
    ) {
        if !self.neighbours.is_tail() {
            return;
        }
        let (shard, now) = (self.shard, Arc::clone(&self.configuration));
        let has_new_members = before.membership.epoch != now.membership.epoch;
        for peer in now.peers(self.here_datacenter()) {
            if has_new_members || before.chain_of(peer, shard) != now.chain_of(peer, shard) {
                self.probe_outbox(here, peer, out);
            }
        }
    }

    /// Asks a datacenter whose head runs anew, also where nothing is to be sent to it: its log may
    /// lack what it had.
    pub(crate) fn probe_restarted_peer(&mut self, here: &Here, node: NodeId, out: &mut Outputs) {
        let peer = node.datacenter;
        let is_peer = self.outboxes.contains_key(&peer);
        let is_head = self.configuration.head(peer, self.shard) == Some(node);
        if is_peer && is_head && self.neighbours.is_tail() {
            self.probe_outbox(here, peer, out);
        }
    }

    fn probe_outbox(&mut self, here: &Here, peer: DatacenterId, out: &mut Outputs) {
        self.outboxes.insert(peer, Outbox::default());
        self.send_entries_to(peer, Timestamp::ZERO, Vec::new(), out);
        self.set_timer(here, peer, out);
    }

    /// Sends every peer what it was not sent yet.
    pub(crate) fn send_outboxes(&mut self, here: &Here, out: &mut Outputs) {
        let peers: SmallVec<[DatacenterId; 8]> = self.outboxes.keys().copied().collect();
        for peer in peers {
            self.send_outbox(here, peer, out);
        }
    }

    fn send_outbox(&mut self, here: &Here, peer: DatacenterId, out: &mut Outputs) {
        loop {
            let Some((previous, entries)) = self.next_entries_for(peer) else { return };
            self.send_entries_to(peer, previous, entries, out);
            let outbox = self.outboxes.get(&peer).expect("it was just read");
            if outbox.again_at.is_none() {
                self.set_timer(here, peer, out);
            }
        }
    }

    /// The next run of entries that a peer may be sent, and the stamp before it.
    fn next_entries_for(&mut self, peer: DatacenterId) -> Option<(Timestamp, Vec<Entry>)> {
        let own = self.here_datacenter();
        let durable_to = self.durable_position();
        let outbox = self.outboxes.get_mut(&peer)?;
        if !outbox.is_known || durable_to <= outbox.sent_position {
            return None;
        }
        let mut previous = outbox.sent_to;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for entry in self.window.after(outbox.sent_position) {
            let is_full = REPLICATE_MAX <= entries.len() || MESSAGE_BYTES_MAX <= bytes;
            let is_taken = outbox.in_flight.len() < outbox.credit.min(outbox.in_flight_max);
            let may_be_sent = is_taken || 0 < outbox.trickle;
            if durable_to < entry.identity.position || is_full || !may_be_sent {
                break;
            }
            outbox.sent_position = entry.identity.position;
            if entry.origin == own && outbox.sent_to < entry.stamp {
                bytes += entry.body_bytes();
                if entries.is_empty() {
                    // What lies between was cut from memory because it is stable: the peer has it.
                    previous = entry.previous;
                }
                outbox.sent_to = entry.stamp;
                outbox.in_flight.push_back(entry.stamp);
                outbox.trickle -= usize::from(!is_taken);
                entries.push(entry.for_others());
                if self.options.mutations.has(Mutation::LoseDependenciesOnResend)
                    && entry.stamp <= outbox.newest_sent
                    && let Some(last) = entries.last_mut()
                {
                    last.forget_dependencies();
                }
                outbox.newest_sent = outbox.newest_sent.max(entry.stamp);
            }
        }
        (!entries.is_empty()).then_some((previous, entries))
    }

    fn send_entries_to(
        &self,
        peer: DatacenterId,
        previous: Timestamp,
        entries: Vec<Entry>,
        out: &mut Outputs,
    ) {
        let Some(head) = self.configuration.head(peer, self.shard) else { return };
        let own = self.here_datacenter();
        let replicate = Replicate {
            membership: self.configuration.membership.epoch,
            origin: own,
            lineage: self.configuration.lineage(own, self.shard),
            previous,
            entries,
            is_fetched: false,
        };
        out.early(head, self.message(Body::Replicate(replicate)));
    }

    fn set_timer(&mut self, here: &Here, peer: DatacenterId, out: &mut Outputs) {
        let at = after(here.now.steady, RETRY_AFTER);
        let outbox = self.outboxes.get_mut(&peer).expect("the timer is of a peer");
        outbox.again_at = Some(at);
        outbox.at_check = (outbox.received_to, outbox.applied_to);
        self.arm(at, out);
    }

    pub(crate) fn on_received(
        &mut self,
        here: &Here,
        from: NodeId,
        received: &Received,
        out: &mut Outputs,
    ) {
        if received.membership != self.configuration.membership.epoch {
            out.event(Event::StaleMessage { from });
            return;
        }
        let peer = from.datacenter;
        if self.lacks_what_others_have(received) {
            if !self.may_answer(here) {
                return; // The chain may have gone on without this replica; it asks again.
            }
            let had_to = received.received_to.max(received.applied_to);
            let (origin, here_to) = (self.here_datacenter(), self.resumed.before);
            out.event(Event::Older { shard: self.shard, origin, by: from, had_to, here_to });
        }
        let Some(outbox) = self.outboxes.get_mut(&peer) else { return };
        outbox.credit = usize::try_from(received.credit).unwrap_or(usize::MAX);
        if 0 < outbox.credit {
            (outbox.trickle, outbox.trickled) = (0, 0);
        }
        if outbox.applied_to <= received.applied_to {
            outbox.above.extend(received.above.iter().copied());
            if outbox.applied_to < received.applied_to {
                outbox.applied_to = received.applied_to;
                outbox.above = outbox.above.split_off(&received.applied_to.next());
            }
        }
        // A head that has restarted stands where its log ends: what it lost is sent again.
        let received_to = received.received_to.max(outbox.applied_to);
        if !outbox.is_known || received_to < outbox.received_to {
            outbox.is_known = true;
            let position = self.window.position_at(received_to);
            outbox.go_back(received_to, position);
            let own = self.node.datacenter;
            let last = self.lines.get(&own).map(|line| line.received.watermark());
            let first_kept = self.window.after(position).find(|entry| entry.origin == own);
            // What lies before was let go of: all others had applied and persisted it.
            let cut_to = first_kept.map(|entry| entry.previous).or(last);
            outbox.had_applied = cut_to.unwrap_or_default();
        }
        let had_to = outbox.had_applied.max(outbox.applied_to);
        outbox.received_to = received_to;
        let before = outbox.in_flight.len();
        while outbox.in_flight.front().is_some_and(|stamp| *stamp <= received_to) {
            outbox.in_flight.pop_front();
        }
        // What was received makes room for as much again, and for as much more.
        outbox.in_flight_max += before - outbox.in_flight.len();
        outbox.in_flight_max = outbox.in_flight_max.min(outbox.credit.max(AT_FIRST));
        if received.received_to < had_to {
            let (membership, lineage) = (received.membership, received.lineage);
            let had = HadApplied { membership, lineage, to: had_to };
            out.early(from, self.message(Body::HadApplied(had)));
        }
        self.answer_replication_waits(here, out);
        self.send_outbox(here, peer, out);
    }

    /// Whether another datacenter has more of what was written here than this tail, to which nothing
    /// may be missing: what is sent is on the disks of all replicas before.
    fn lacks_what_others_have(&self, received: &Received) -> bool {
        let has_to = received.received_to.max(received.applied_to);
        self.resumed.before < has_to
            && self.resumed.after.is_none_or(|after| has_to < after)
            && self.neighbours.is_tail()
            && self.is_settled()
    }

    /// Asks peers again that do not move.
    pub(crate) fn outboxes_when_due(&mut self, here: &Here, out: &mut Outputs) {
        self.answer_replication_waits(here, out);
        let own = self.here_datacenter();
        let newest = self.lines.get(&own).map(|line| line.durable.watermark());
        let newest = newest.unwrap_or_default();
        let peers: Vec<DatacenterId> = self.outboxes.keys().copied().collect();
        for peer in peers {
            let outbox = self.outboxes.get_mut(&peer).expect("it was just listed");
            let Some(due) = outbox.again_at else { continue };
            if here.now.steady < due {
                self.arm(due, out);
                continue;
            }
            outbox.again_at = None;
            if outbox.is_known && newest <= outbox.applied_to {
                continue;
            }
            outbox.trickle = 0;
            if outbox.at_check.1 < outbox.applied_to {
                outbox.trickled = 0;
            }
            if outbox.is_known && outbox.credit == 0 {
                outbox.trickle = TRICKLE << outbox.trickled.min(TRICKLE_DOUBLINGS);
                outbox.trickled = outbox.trickled.saturating_add(1);
            }
            let has_moved = outbox.at_check != (outbox.received_to, outbox.applied_to);
            let is_behind = outbox.received_to < outbox.sent_to;
            if !has_moved {
                // What was sent may be lost, or there is no link: it is sent again once the peer has
                // told where it stands.
                outbox.is_known &= !is_behind;
                let previous = outbox.sent_to;
                self.send_entries_to(peer, previous, Vec::new(), out);
            }
            self.send_outbox(here, peer, out);
            self.set_timer(here, peer, out);
        }
    }

    /// Sends bodies again that the receiver had no room for.
    pub(crate) fn on_fetch(
        &self,
        from: NodeId,
        membership: MembershipEpoch,
        stamps: &[Timestamp],
        out: &mut Outputs,
    ) {
        if membership != self.configuration.membership.epoch {
            out.event(Event::StaleMessage { from });
            return;
        }
        let own = self.here_datacenter();
        let wanted: BTreeSet<Timestamp> = stamps.iter().copied().collect();
        let found = wanted.iter().filter_map(|stamp| {
            let entry = self.window.at(self.window.position_at(*stamp))?;
            let is_it = entry.origin == own
                && entry.stamp == *stamp
                && entry.identity.position <= self.durable_position();
            is_it.then_some(entry)
        });
        let mut bytes = 0;
        let fitting = found.take(REPLICATE_MAX).take_while(|entry| {
            let fits = bytes < MESSAGE_BYTES_MAX;
            bytes += entry.body_bytes();
            fits
        });
        let entries: Vec<Entry> = fitting.map(Entry::for_others).collect();
        if entries.is_empty() {
            return;
        }
        let replicate = Replicate {
            membership,
            origin: own,
            lineage: self.configuration.lineage(own, self.shard),
            previous: Timestamp::ZERO,
            entries,
            is_fetched: true,
        };
        out.early(from, self.message(Body::Replicate(replicate)));
    }

    /// `WAIT`: answers when enough other datacenters have applied a write, or at the time-out.
    pub(crate) fn on_wait(
        &mut self,
        here: &Here,
        request: RequestId,
        (stamp, count, timeout_millis): (Timestamp, u64, u64),
        out: &mut Outputs,
    ) {
        if !self.neighbours.is_tail() {
            self.hand_to_tail(request, (stamp, count, timeout_millis), out);
            return;
        }
        let until = (0 < timeout_millis)
            .then(|| after(here.now.steady, std::time::Duration::from_millis(timeout_millis)));
        self.waiters.replication.push(ReplicationWait { request, stamp, count, until });
        if let Some(until) = until {
            self.arm(until, out);
        }
        self.answer_replication_waits(here, out);
    }

    fn answer_replication_waits(&mut self, here: &Here, out: &mut Outputs) {
        if self.waiters.replication.is_empty() {
            return;
        }
        let waits = std::mem::take(&mut self.waiters.replication);
        for wait in waits {
            let applied =
                self.outboxes.values().filter(|outbox| outbox.has_applied(wait.stamp)).count();
            let is_enough = wait.count <= applied as u64;
            let is_over = wait.until.is_some_and(|until| until <= here.now.steady);
            if is_enough || is_over {
                let count = i64::try_from(applied).unwrap_or(i64::MAX);
                out.reply(wait.request, self.plain_reply(Response::Integer(count)));
            } else {
                if let Some(until) = wait.until {
                    self.arm(until, out);
                }
                self.waiters.replication.push(wait);
            }
        }
    }
}
