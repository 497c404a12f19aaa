//! Takes entries of another datacenter in order and once, and keeps those that have to wait.
//!
//! An entry names the stamp before it, so that a gap is seen and a repeat is known. An entry whose
//! dependencies are all applied goes on to `apply` at once; any other waits, and nothing waits
//! behind it but what depends on it. Reading a link never stops because of blocked entries: past
//! `blocked_bytes_max` only their headers are kept, and the bodies are asked for again when their
//! turn has come (PITFALLS A18).
//!
//! Ensures: an entry of a line is admitted at most once while this head lives; after a restart
//! the log's received set tells which ones are repeats.
//! Invariant: an entry is in exactly one of the sender's log only, `blocked`, the local log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use antecede_model::{
    clock::{Steady, Timestamp},
    context::Dependencies,
    dependency::Dependency,
    ids::{DatacenterId, NodeId},
};
use smallvec::SmallVec;

use crate::{
    chain::{RETRY_AFTER, Shard, after},
    entry::{Body as EntryBody, Entry},
    event::Event,
    machine::{Here, Outputs, Storage},
    message::{Body, HadApplied, Received, Replicate},
    mutation::Mutation,
};

/// What `blocked_bytes_max` usually is.
pub const BLOCKED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries that a sender may have on their way beyond what was received, as long as few wait.
pub const CREDIT: u32 = 8_192;
/// Entries of one origin that may wait in all shards together before senders are asked to pause:
/// more would come long before their turn, and stand in the way of what has its turn now.
const WAITING_MAX: usize = 16_384;
/// The same for one shard at least.
const WAITING_IN_SHARD_MIN: usize = 64;
/// Entries that may come before their sender hears so, as long as nothing was applied.
const UNHEARD_MAX: usize = 512;
/// For how long a sender may not hear that entries have come, while nothing is applied.
const HEAR_WITHIN: Duration = Duration::from_millis(50);
/// The time between two reports of what was applied.
const TELL_EVERY: Duration = Duration::from_millis(5);
/// The same while so many entries wait that nobody can be waiting for a report, and the time within
/// which a sender hears then that more have come: what it may send on that is sent in one message.
const TELL_EVERY_BEHIND: Duration = Duration::from_millis(100);
/// Entries that wait, from which on a shard counts as behind: a quarter of those that may where
/// there are many shards.
const BEHIND_MIN: usize = 16;
/// Single applied stamps that a report names at most.
const ABOVE_MAX: usize = 256;
/// Bodies that are asked for in one message.
const FETCH_MAX: usize = 256;

/// Dependencies: of most writes one, the one before it in its session.
type Missing = SmallVec<[Dependency; 1]>;

/// An entry that waits for what it depends on.
#[derive(Debug)]
struct Blocked {
    entry: Entry,
    /// Whether the body was let go of.
    is_header_only: bool,
    /// Bytes of the body, also when it was let go of.
    bytes: usize,
    /// Exact dependencies that are missing, each once.
    missing: Missing,
    /// Floors that are missing.
    floors: Vec<(DatacenterId, Timestamp)>,
}

/// What arrives from one other datacenter for one shard.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The node that sends, and hears how far this datacenter has come.
    sender: Option<NodeId>,
    /// Up to here everything is in the log or blocked.
    received_to: Timestamp,
    blocked: BTreeMap<Timestamp, Blocked>,
    blocked_bytes: usize,
    /// Those of which only the header was kept.
    headers: BTreeSet<Timestamp>,
    /// Entries that may enter the chain once their bodies are here again.
    ready: BTreeSet<Timestamp>,
    /// When to ask again.
    again_at: Option<Steady>,
    /// What the sender was last told to have been received.
    told_received: Timestamp,
    /// The watermark that the sender was last told.
    told: Timestamp,
    /// When it was told last what was applied.
    told_at: Option<Steady>,
    /// When to tell it next, if there is something to tell.
    tell_at: Option<Steady>,
    /// Entries that have come since.
    unheard: usize,
    /// What was applied above the watermark since, as much as one report names.
    above: Vec<Timestamp>,
}

impl Inbox {
    /// Bodies that are needed now, then the oldest that there is room for.
    fn wanted_bodies(&self, blocked_bytes_max: usize) -> Vec<Timestamp> {
        let mut stamps: Vec<Timestamp> = self.ready.iter().take(FETCH_MAX).copied().collect();
        let mut bytes = self.blocked_bytes;
        if self.headers.len() <= stamps.len() {
            return stamps;
        }
        // At most `FETCH_MAX` of those that are ready stand between them.
        for stamp in &self.headers {
            if self.ready.contains(stamp) {
                continue;
            }
            bytes += self.blocked.get(stamp).map_or(0, |blocked| blocked.bytes);
            if blocked_bytes_max < bytes || FETCH_MAX <= stamps.len() {
                break;
            }
            stamps.push(*stamp);
        }
        stamps
    }
}

impl Shard {
    pub(crate) fn on_replicate(
        &mut self,
        here: &Here,
        from: NodeId,
        replicate: Replicate,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let Replicate { membership, origin, lineage, previous, entries, is_fetched } = replicate;
        let is_stale = membership != self.configuration.membership.epoch
            || lineage != self.configuration.lineage(origin, self.shard)
            || origin != from.datacenter
            || self.configuration.datacenter(origin).is_none();
        let takes_all = self.options.mutations.has(Mutation::TakeFromLapsed)
            && self.configuration.membership.is_lapsed(origin);
        if is_stale && !takes_all {
            out.event(Event::StaleMessage { from });
            return;
        }
        if !self.neighbours.is_head() || !self.is_settled() {
            return; // The sender tries again, with the configuration that it then has.
        }
        self.inboxes.entry(origin).or_default().sender = Some(from);
        self.go_on_behind_log(origin);
        let count = entries.len();
        if is_fetched {
            self.take_bodies(here, origin, entries, storage, out);
        } else {
            self.take_in_order(here, (origin, previous), entries, storage, out);
        }
        self.send_entries(here, out);
        self.tell_of_arrival(here, origin, count, out);
    }

    /// A sender knows what this datacenter has said that it has: what the log of a head that serves
    /// lacks of that was taken from it. Without a lease the chain may have gone on without it.
    pub(crate) fn on_had_applied(
        &mut self,
        here: &Here,
        from: NodeId,
        had: HadApplied,
        out: &mut Outputs,
    ) {
        let origin = from.datacenter;
        if had.membership != self.configuration.membership.epoch
            || had.lineage != self.configuration.lineage(origin, self.shard)
        {
            out.event(Event::StaleMessage { from });
            return;
        }
        let here_to = self.lines.get(&origin).map(|line| line.received.watermark());
        let here_to = here_to.unwrap_or_default();
        let is_judge = self.neighbours.is_head() && self.is_settled() && self.may_answer(here);
        if is_judge && here_to < had.to {
            let (shard, had_to) = (self.shard, had.to);
            out.event(Event::Older { shard, origin, by: from, had_to, here_to });
        }
    }

    /// Tells the sender that entries have come: soon, together with what is applied until then, or
    /// at once if it asks, has sent what does not fit, or may wait for it.
    fn tell_of_arrival(
        &mut self,
        here: &Here,
        origin: DatacenterId,
        count: usize,
        out: &mut Outputs,
    ) {
        let Some(inbox) = self.inboxes.get_mut(&origin) else { return };
        let has_come_further = inbox.told_received < inbox.received_to;
        inbox.unheard += count;
        if !has_come_further || UNHEARD_MAX <= inbox.unheard {
            if count == 0 {
                self.tell_all_above(origin);
            }
            self.tell_origin(here, origin, out);
            return;
        }
        let within =
            if BEHIND_MIN <= inbox.blocked.len() { TELL_EVERY_BEHIND } else { HEAR_WITHIN };
        let at = after(here.now.steady, within);
        self.tell_origin_at(origin, at, out);
    }

    fn tell_origin_at(&mut self, origin: DatacenterId, at: Steady, out: &mut Outputs) {
        let Some(inbox) = self.inboxes.get_mut(&origin) else { return };
        if inbox.tell_at.is_none_or(|before| at < before) {
            inbox.tell_at = Some(at);
            self.arm(at, out);
        }
    }

    /// An entry is applied and persisted above the watermark of its origin.
    pub(crate) fn note_above(&mut self, origin: DatacenterId, stamp: Timestamp) {
        if let Some(inbox) = self.inboxes.get_mut(&origin)
            && inbox.above.len() < ABOVE_MAX
        {
            inbox.above.push(stamp);
        }
    }

    /// A sender that asks may have missed what it was told.
    fn tell_all_above(&mut self, origin: DatacenterId) {
        let Some(line) = self.lines.get(&origin) else { return };
        let Some(inbox) = self.inboxes.get_mut(&origin) else { return };
        inbox.above = line.durable.above().take(ABOVE_MAX).collect();
    }

    /// The line goes on behind what the log holds without a gap: after a restart, and where an entry
    /// that had been blocked before it enters among others that are in the log already.
    fn go_on_behind_log(&mut self, origin: DatacenterId) {
        let line = self.lines.entry(origin).or_default();
        if let Some(inbox) = self.inboxes.get_mut(&origin) {
            inbox.received_to = inbox.received_to.max(line.received.watermark());
        }
    }

    fn take_in_order(
        &mut self,
        here: &Here,
        (origin, previous): (DatacenterId, Timestamp),
        entries: Vec<Entry>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let received_to = self.inboxes.entry(origin).or_default().received_to;
        let ignores_gap = self.options.mutations.has(Mutation::IgnorePrevious);
        if received_to < previous && !ignores_gap {
            return; // A gap: the sender hears where this datacenter stands.
        }
        for entry in entries {
            if self.short_of_room(here, storage).is_some() {
                break;
            }
            let inbox = self.inboxes.entry(origin).or_default();
            if entry.stamp <= inbox.received_to || entry.origin != origin {
                continue;
            }
            if inbox.received_to < entry.previous && !ignores_gap {
                break;
            }
            inbox.received_to = entry.stamp;
            let is_held =
                self.lines.get(&origin).is_some_and(|line| line.received.contains(entry.stamp));
            if !is_held {
                self.admit(here, entry, storage, out);
            }
        }
    }

    /// Whether an entry waits here for its dependencies.
    pub(crate) fn is_blocked(&self, origin: DatacenterId, stamp: Timestamp) -> bool {
        self.inboxes.get(&origin).is_some_and(|inbox| inbox.blocked.contains_key(&stamp))
    }

    /// Lets an entry into the chain, or keeps it if its body may wait here. Else it is let go of:
    /// whoever sent it sends it again, and the first of those that lack something lacks nothing.
    pub(crate) fn admit_whole(
        &mut self,
        here: &Here,
        entry: Entry,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let blocked_bytes = self.inboxes.get(&entry.origin).map_or(0, |inbox| inbox.blocked_bytes);
        let fits = blocked_bytes + entry.body_bytes() <= self.options.blocked_bytes_max;
        let (missing, floors) = self.missing_of(&entry);
        if fits || missing.is_empty() && floors.is_empty() {
            self.admit(here, entry, storage, out);
        }
    }

    /// Lets an entry into the chain, or keeps it until its dependencies are applied.
    fn admit(&mut self, here: &Here, entry: Entry, storage: &mut dyn Storage, out: &mut Outputs) {
        let (missing, floors) = self.missing_of(&entry);
        if missing.is_empty() && floors.is_empty() {
            self.enter_chain(here, entry, storage, out);
            return;
        }
        let origin = entry.origin;
        if let Some(first) = missing.first() {
            out.event(Event::Waiting {
                shard: self.shard,
                origin,
                stamp: entry.stamp,
                missing: *first,
            });
        }
        for dependency in &missing {
            self.await_dependency(here, *dependency, (origin, entry.stamp), out);
        }
        for floor in &floors {
            self.waiters.await_floor(*floor, (origin, entry.stamp));
        }
        let inbox = self.inboxes.entry(origin).or_default();
        let bytes = entry.body_bytes();
        let is_header_only = self.options.blocked_bytes_max < inbox.blocked_bytes + bytes;
        let mut entry = entry;
        if is_header_only {
            entry.body = EntryBody::Tick;
            out.event(Event::BodiesDropped { shard: self.shard, count: 1 });
        } else {
            inbox.blocked_bytes += bytes;
        }
        let stamp = entry.stamp;
        if is_header_only {
            inbox.headers.insert(stamp);
        }
        inbox.blocked.insert(stamp, Blocked { entry, is_header_only, bytes, missing, floors });
    }

    /// What of an entry's dependencies is not applied here yet.
    fn missing_of(&self, entry: &Entry) -> (Missing, Vec<(DatacenterId, Timestamp)>) {
        let Dependencies { exact, floor } = entry.dependencies();
        let mut missing: Missing = exact.into_iter().collect();
        entry.for_each_effect(|effect| {
            missing.extend(effect.seen.iter().map(|version| Dependency {
                origin: version.origin,
                shard: self.shard,
                stamp: version.timestamp,
            }));
        });
        if self.options.mutations.has(Mutation::SkipDependencyChecks) {
            return (Missing::new(), Vec::new());
        }
        missing.retain(|dependency| !self.is_here(*dependency));
        missing.sort_unstable();
        missing.dedup();
        let floors =
            floor.into_iter().filter(|(origin, to)| !self.is_covered(*origin, *to)).collect();
        (missing, floors)
    }

    /// Whether a dependency is known here to be applied, or comes before in this shard's log.
    fn is_here(&self, dependency: Dependency) -> bool {
        if dependency.shard == self.shard {
            // What is behind it in this log is applied after it.
            return self.holds(dependency.origin, dependency.stamp)
                || self.configuration.membership.is_gone(dependency.origin);
        }
        self.is_covered(dependency.origin, dependency.stamp)
    }

    /// Whether this shard's log holds an entry of an origin, also dirty.
    fn holds(&self, origin: DatacenterId, stamp: Timestamp) -> bool {
        let Some(line) = self.lines.get(&origin) else { return false };
        if self.options.mutations.has(Mutation::NewerVersionSatisfies) {
            let newest = line.received.above().last();
            return stamp <= newest.unwrap_or_else(|| line.received.watermark());
        }
        line.received.contains(stamp)
    }

    /// Whether everything of an origin up to a stamp is applied here.
    ///
    /// What began here has been applied here before anyone else could hear of it.
    pub(crate) fn is_covered(&self, origin: DatacenterId, stamp: Timestamp) -> bool {
        stamp <= self.covered_to(origin)
    }

    /// Up to where everything of an origin is applied here.
    pub(crate) fn covered_to(&self, origin: DatacenterId) -> Timestamp {
        if origin == self.here_datacenter() {
            return Timestamp::MAX;
        }
        self.cuts.stable.at(origin).max(self.cuts.applied.at(origin))
    }

    /// A dependency is applied: entries that waited for nothing else go on.
    pub(crate) fn resolve(
        &mut self,
        here: &Here,
        dependency: Dependency,
        waiting: &[(DatacenterId, Timestamp)],
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        for (origin, stamp) in waiting {
            let Some(inbox) = self.inboxes.get_mut(origin) else { continue };
            let Some(blocked) = inbox.blocked.get_mut(stamp) else { continue };
            blocked.missing.retain(|missing| *missing != dependency);
            if blocked.missing.is_empty() && blocked.floors.is_empty() {
                self.unblock(here, *origin, *stamp, storage, out);
            }
        }
    }

    /// An entry stands in this log now: those that waited only for it may enter right behind.
    pub(crate) fn release_behind(
        &mut self,
        here: &Here,
        dependency: Dependency,
        entering: &mut Vec<Entry>,
        out: &mut Outputs,
    ) {
        for (origin, stamp) in self.waiters.take(dependency) {
            let Some(inbox) = self.inboxes.get_mut(&origin) else { continue };
            let Some(blocked) = inbox.blocked.get_mut(&stamp) else { continue };
            blocked.missing.retain(|missing| *missing != dependency);
            if blocked.missing.is_empty() && blocked.floors.is_empty() {
                entering.extend(self.take_unblocked(here, origin, stamp, out));
            }
        }
    }

    /// The cuts have moved: floors may be covered now.
    pub(crate) fn release_floors(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let mut ready = Vec::new();
        for floor in self.waiters.origins_of_floors() {
            let covered_to = self.covered_to(floor);
            for (_, to, origin, stamp) in self.waiters.take_floors(floor, covered_to) {
                let inbox = self.inboxes.get_mut(&origin);
                let Some(blocked) = inbox.and_then(|it| it.blocked.get_mut(&stamp)) else {
                    continue;
                };
                blocked.floors.retain(|missing| *missing != (floor, to));
                if blocked.floors.is_empty() && blocked.missing.is_empty() {
                    ready.push((origin, stamp));
                }
            }
        }
        ready.sort_unstable();
        for (origin, stamp) in ready {
            self.unblock(here, origin, stamp, storage, out);
        }
    }

    fn unblock(
        &mut self,
        here: &Here,
        origin: DatacenterId,
        stamp: Timestamp,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        if let Some(entry) = self.take_unblocked(here, origin, stamp, out) {
            self.enter_chain(here, entry, storage, out);
        }
    }

    /// Takes an entry that waits for nothing any more; one without its body asks for that first.
    fn take_unblocked(
        &mut self,
        here: &Here,
        origin: DatacenterId,
        stamp: Timestamp,
        out: &mut Outputs,
    ) -> Option<Entry> {
        let inbox = self.inboxes.get_mut(&origin)?;
        if inbox.blocked.get(&stamp)?.is_header_only {
            inbox.ready.insert(stamp);
            self.fetch(here, origin, out);
            return None;
        }
        let blocked = inbox.blocked.remove(&stamp)?;
        inbox.blocked_bytes -= blocked.bytes;
        if !inbox.headers.is_empty() {
            self.fetch(here, origin, out); // There is room for bodies again.
        }
        Some(blocked.entry)
    }

    /// Asks for bodies that were let go of: of entries that wait for nothing else, and of the
    /// oldest others as far as there is room.
    fn fetch(&mut self, here: &Here, origin: DatacenterId, out: &mut Outputs) {
        let at = after(here.now.steady, RETRY_AFTER);
        let blocked_bytes_max = self.options.blocked_bytes_max;
        let Some(inbox) = self.inboxes.get_mut(&origin) else { return };
        let Some(sender) = inbox.sender else { return };
        if inbox.again_at.is_some() {
            return;
        }
        let stamps = inbox.wanted_bodies(blocked_bytes_max);
        if !stamps.is_empty() {
            inbox.again_at = Some(at);
            let body = Body::Fetch {
                membership: self.configuration.membership.epoch,
                lineage: self.configuration.lineage(origin, self.shard),
                stamps,
            };
            out.early(sender, self.message(body));
            self.arm(at, out);
        }
    }

    fn take_bodies(
        &mut self,
        here: &Here,
        origin: DatacenterId,
        entries: Vec<Entry>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let mut has_come_further = false;
        let is_short = self.short_of_room(here, storage).is_some();
        for mut entry in entries {
            let Some(inbox) = self.inboxes.get_mut(&origin) else { return };
            let Some(blocked) = inbox.blocked.get_mut(&entry.stamp) else { continue };
            if is_short || !blocked.is_header_only {
                continue;
            }
            entry.previous = blocked.entry.previous;
            has_come_further = true;
            inbox.headers.remove(&entry.stamp);
            if inbox.ready.remove(&entry.stamp) {
                inbox.blocked.remove(&entry.stamp);
                self.enter_chain(here, entry, storage, out);
            } else {
                blocked.is_header_only = false;
                inbox.blocked_bytes += blocked.bytes;
                blocked.entry = entry;
            }
        }
        // Without room for a body the next one is asked for when the timer says so.
        if has_come_further && let Some(inbox) = self.inboxes.get_mut(&origin) {
            inbox.again_at = None;
            self.fetch(here, origin, out);
        }
    }

    pub(crate) fn inboxes_when_due(&mut self, here: &Here, out: &mut Outputs) {
        let origins: Vec<DatacenterId> = self.inboxes.keys().copied().collect();
        for origin in origins {
            let Some(inbox) = self.inboxes.get_mut(&origin) else { continue };
            let Some(due) = inbox.again_at else { continue };
            if here.now.steady < due {
                self.arm(due, out);
                continue;
            }
            inbox.again_at = None;
            self.fetch(here, origin, out);
        }
        self.tell_origins_when_due(here, out);
        self.ask_dependencies_when_due(here, out);
    }

    /// Tells every origin what was applied since, at once or a little after the last time.
    pub(crate) fn tell_origins(&mut self, here: &Here, out: &mut Outputs) {
        let origins: SmallVec<[DatacenterId; 8]> = self.inboxes.keys().copied().collect();
        for origin in origins {
            let line = self.lines.entry(origin).or_default();
            let Some(inbox) = self.inboxes.get(&origin) else { continue };
            if line.durable.watermark() <= inbox.told && inbox.above.is_empty() {
                continue;
            }
            let is_behind = BEHIND_MIN <= inbox.blocked.len();
            let every = if is_behind { TELL_EVERY_BEHIND } else { TELL_EVERY };
            match inbox.told_at.map(|told_at| after(told_at, every)) {
                Some(at) if here.now.steady < at => self.tell_origin_at(origin, at, out),
                _ => self.tell_origin(here, origin, out),
            }
        }
    }

    fn tell_origins_when_due(&mut self, here: &Here, out: &mut Outputs) {
        let origins: Vec<DatacenterId> = self.inboxes.keys().copied().collect();
        for origin in origins {
            let due = self.inboxes.get(&origin).and_then(|inbox| inbox.tell_at);
            match due {
                Some(at) if here.now.steady < at => self.arm(at, out),
                Some(_) => self.tell_origin(here, origin, out),
                None => {}
            }
        }
    }

    fn tell_origin(&mut self, here: &Here, origin: DatacenterId, out: &mut Outputs) {
        self.go_on_behind_log(origin);
        let lineage = self.configuration.lineage(origin, self.shard);
        let line = self.lines.entry(origin).or_default();
        let Some(inbox) = self.inboxes.get_mut(&origin) else { return };
        let applied_to = line.durable.watermark();
        let mut above = std::mem::take(&mut inbox.above);
        above.retain(|stamp| applied_to < *stamp);
        above.sort_unstable();
        if inbox.told < applied_to || !above.is_empty() {
            inbox.told_at = Some(here.now.steady);
        }
        (inbox.told, inbox.told_received) = (applied_to, inbox.received_to);
        (inbox.tell_at, inbox.unheard) = (None, 0);
        let shards = usize::from(self.configuration.shard_count.count());
        let waiting_max = (WAITING_MAX / shards).max(WAITING_IN_SHARD_MIN);
        let room = waiting_max.saturating_sub(inbox.blocked.len());
        let credit = match u32::try_from(room) {
            Ok(room) if !inbox.blocked.is_empty() => room.min(CREDIT),
            _ => CREDIT,
        };
        let received = Received {
            membership: self.configuration.membership.epoch,
            lineage,
            received_to: inbox.received_to,
            applied_to,
            above,
            credit,
        };
        let Some(sender) = inbox.sender else { return };
        out.early(sender, self.message(Body::Received(received)));
    }

    /// Whether bodies of an origin's blocked entries had to be let go of.
    #[must_use]
    pub fn has_let_go_of_bodies(&self, origin: DatacenterId) -> bool {
        let inbox = self.inboxes.get(&origin);
        inbox.is_some_and(|inbox| !inbox.headers.is_empty())
    }

    /// How many entries wait here for what they depend on.
    #[must_use]
    pub fn blocked_count(&self) -> usize {
        self.inboxes.values().map(|inbox| inbox.blocked.len()).sum()
    }
}
