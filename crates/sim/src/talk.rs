//! Carries out what the machines of a node want done: records to the disk, messages to the wires,
//! replies to sessions, events to the properties.

use antecede_model::{
    clock::Timestamp,
    dependency::Dependency,
    ids::{DatacenterId, NodeId, RequestId, SessionId, ShardId},
};
use antecede_protocol::{
    chain::{Input, Shard},
    entry::Entry,
    event::Event,
    geo::cuts::CutInput,
    message::{Body, Message, Reply},
    mutation::Mutation,
    record::Record,
    session::SessionInput,
};

use crate::{
    check::{Failure, chain_prefix, durable, visible_at},
    faults::Trigger,
    moment::MILLI,
    network::{Class, Fate},
    parcel::Parcel,
    plan::Durability,
    rest::is_probe,
    world::{Arrival, Happening, Place, World},
};

impl World {
    /// Carries out all that the machines of a node want done.
    pub(crate) fn absorb(&mut self, number: usize) {
        // What sessions do with replies makes new outputs.
        while self.failure.is_none() && self.nodes[number].is_up {
            let has_appended = self.absorb_records(number);
            if !self.nodes[number].is_up {
                return;
            }
            self.absorb_events(number);
            self.absorb_wakes(number);
            self.absorb_loads(number);
            if has_appended && self.crash_if_due(number, Trigger::Append) {
                return;
            }
            self.absorb_messages(number);
            if !self.nodes[number].is_up || !self.absorb_replies(number) {
                break;
            }
        }
        self.tell_broken_links();
    }

    fn absorb_records(&mut self, number: usize) -> bool {
        let fresh = std::mem::take(&mut self.nodes[number].log.fresh);
        for (index, record) in &fresh {
            self.note(number, index.0, record);
            if let Some(shard) = record.shard() {
                self.nodes[number].unsynced.insert(shard, index.0);
            }
            if let Record::Entry { shard, entry, .. } = record
                && self.is_in_epoch(number, *shard)
                && self.is_new(number, *shard, entry)
            {
                let datacenter = self.nodes[number].id.datacenter;
                let result = visible_at::at_append(&self.ledger, datacenter, *shard, entry);
                self.hold(result);
            }
            self.check_taken(number, record);
        }
        if self.plan.shape.durability == Durability::Memory {
            self.count_persisted(number); // What is appended counts at once.
        }
        for (_, record) in &fresh {
            self.check_prefix(number, record);
        }
        for _ in 0..fresh.len() {
            if self.crashes_at_output(number) {
                return false;
            }
        }
        let has_appended = !fresh.is_empty();
        if has_appended && !self.nodes[number].is_flushing {
            self.flush_soon(number);
        }
        has_appended
    }

    /// Whether a node knows the newest state of a chain; else nobody will see what it logs.
    fn is_in_epoch(&self, number: usize, shard: ShardId) -> bool {
        let node = &self.nodes[number];
        let datacenter = node.id.datacenter;
        node.configuration.chain_epoch(datacenter, shard)
            == self.configuration.chain_epoch(datacenter, shard)
    }

    /// Tells the ledger of a record that a node has.
    pub(crate) fn note(&mut self, number: usize, index: u64, record: &Record) {
        let id = self.nodes[number].id;
        let Record::Entry { shard, entry, .. } = record else {
            return self.note_copy(number, index, record);
        };
        if self.trace.is_on() {
            let kind = if entry.is_tick() { "tick" } else { "write" };
            let identity = entry.identity;
            let line = format_args!(
                "{id} has shard {shard} #{} (epoch {}, boot {}): {kind} {}",
                identity.position,
                identity.epoch,
                identity.boot,
                entry.version()
            );
            self.trace.line(self.now, line);
        }
        let noted = self.ledger.add(id, *shard, entry, index, &self.keys);
        self.hold(noted);
    }

    /// Tells the ledger what a copy does to a node's log.
    fn note_copy(&mut self, number: usize, index: u64, record: &Record) {
        let id = self.nodes[number].id;
        let what = match record {
            Record::CutBack { shard, to } => format!("takes shard {shard} back to #{to}"),
            Record::Begun { shard, start } => {
                format!("copies shard {shard} from #{} on", start.position())
            }
            Record::History { shard, entry } => {
                format!("has shard {shard} from #{} on", entry.identity.position)
            }
            Record::Part { shard, part } => {
                format!("has copied {} keys of shard {shard}", part.records.len())
            }
            Record::Trimmed { shard, to } => {
                format!("notes that nobody needs shard {shard} up to #{to}")
            }
            Record::Entry { .. } | Record::Ceiling(_) => return,
        };
        self.trace.line(self.now, format_args!("{id} {what}"));
        self.ledger.copy(id, record, index);
    }

    fn check_prefix(&mut self, number: usize, record: &Record) {
        let Record::Entry { shard, entry, .. } = record else { return };
        let node = &self.nodes[number];
        let id = node.id;
        let chain = node.configuration.chain(id.datacenter, *shard);
        let Some(place) = chain.iter().position(|member| *member == id) else { return };
        let Some(previous) = place.checked_sub(1).map(|before| chain[before]) else { return };
        let before = &self.nodes[self.place_of(previous)];
        let is_settled = |node: &crate::node::Node| {
            let replica = node.shards.get(usize::from(shard.0)).and_then(Option::as_ref);
            node.is_up && replica.is_some_and(Shard::is_settled)
        };
        let epoch = |of: &crate::node::Node| of.configuration.chain_epoch(id.datacenter, *shard);
        if epoch(node) != epoch(before) || !is_settled(node) || !is_settled(before) {
            return;
        }
        let Some(stored) = self.ledger.image(id, *shard).at(entry.identity.position).copied()
        else {
            return; // Replaced by a later record of the same step.
        };
        let result = chain_prefix::at_append(&self.ledger, (id, previous), *shard, &stored);
        self.hold(result);
    }

    fn absorb_events(&mut self, number: usize) {
        let events = std::mem::take(&mut self.nodes[number].out.events);
        for event in events {
            self.on_event(number, &event);
        }
    }

    fn on_event(&mut self, number: usize, event: &Event) {
        let id = self.nodes[number].id;
        self.trace.line(self.now, format_args!("{id} {event:?}"));
        match event {
            Event::Committed { shard, origin, stamp, .. } => {
                self.on_commit(number, *shard, (*origin, *stamp));
            }
            Event::Applied { shard, origin, stamp, since_stamp, .. } => {
                if self.measured.contains(shard) {
                    let micros = u64::try_from(since_stamp.as_micros()).unwrap_or(u64::MAX);
                    self.delays.add(micros);
                }
                self.on_commit(number, *shard, (*origin, *stamp));
            }
            Event::Seeded { shard } => self.on_seeded(number, *shard),
            // What is in memory only may be gone here, and elsewhere not.
            Event::Older { .. } if self.plan.shape.durability == Durability::Memory => {}
            Event::Diverged { .. } | Event::Drift { .. } | Event::Older { .. } => {
                let what = format!("{id} says {event:?}");
                self.fail(Failure::new("chain_prefix", what));
            }
            Event::LoadFailed { .. } => {
                let what = format!("{id} says {event:?}");
                self.fail(Failure::new("durable", what));
            }
            Event::Waiting { .. }
            | Event::Conflict { .. }
            | Event::Settled { .. }
            | Event::StaleMessage { .. }
            | Event::BodiesDropped { .. } => {}
        }
    }

    /// Whether an entry was given its visible-at in the node's datacenter, and just now: what is
    /// committed there already was looked at before, or came to a datacenter that is added with
    /// what another one had.
    fn is_new(&self, number: usize, shard: ShardId, entry: &Entry) -> bool {
        let here = self.nodes[number].id.datacenter;
        let write = Dependency { origin: entry.origin, shard, stamp: entry.stamp };
        self.configuration.is_open(here) && self.ledger.visible_at(here, write).is_none()
    }

    /// A shard of a datacenter that is added has what another one had committed.
    fn on_seeded(&mut self, number: usize, shard: ShardId) {
        let id = self.nodes[number].id;
        for stored in self.ledger.image(id, shard).entries().to_vec() {
            if stored.origin != id.datacenter {
                let result = self.ledger.commit(id, shard, stored).map(|_| ());
                self.hold(result);
            }
        }
    }

    /// A tail has committed an entry.
    fn on_commit(&mut self, number: usize, shard: ShardId, name: (DatacenterId, Timestamp)) {
        let node = &self.nodes[number];
        let id = node.id;
        let Some(stored) = self.ledger.image(id, shard).named(name.0, name.1).copied() else {
            let what = format!("{id} commits {name:?} in shard {shard}, its log does not have it");
            return self.fail(Failure::new("chain_prefix", what));
        };
        // Who serves no more may have taken back what others commit in the epoch before.
        let serving = self.configuration.chain(id.datacenter, shard);
        let chain = node.configuration.chain(id.datacenter, shard);
        let tail = node.shards.get(usize::from(shard.0)).and_then(Option::as_ref);
        let knows_run_of = |replica: NodeId| {
            let present = self.nodes[self.place_of(replica)].boot;
            replica == id || tail.and_then(|tail| tail.known_boot(replica)) == Some(present)
        };
        // What a run has said counts, although its disk was lost since.
        let has_lost = |replica: NodeId| {
            let replica = &self.nodes[self.place_of(replica)];
            replica.may_lack_in == Some(replica.boot) && !knows_run_of(replica.id)
        };
        let is_judged = |member: &NodeId| serving.contains(member) && !has_lost(*member);
        let chain: Vec<NodeId> = chain.iter().copied().filter(is_judged).collect();
        let result = durable::at_commit(&self.ledger, &chain, shard, &stored, knows_run_of);
        self.hold(result);
        match self.ledger.commit(id, shard, stored) {
            Ok(true) => {
                // What one that is gone writes until it knows of that is told to nobody, and promises
                // of one that was removed may still be on their way.
                let is_late_tick =
                    stored.is_tick && self.configuration.membership.is_gone(stored.origin);
                if self.is_judged(id) && !is_late_tick {
                    let result = self.promises.at_commit(id.datacenter, shard, &stored);
                    self.hold(result);
                }
            }
            Ok(false) => {}
            Err(failure) => self.fail(failure),
        }
    }

    fn absorb_wakes(&mut self, number: usize) {
        let place = self.present(number);
        let node = &mut self.nodes[number];
        for (shard, at) in node.wakes.drain(..) {
            // A wake that is due already still comes after what happens now.
            let at = node.clock.moment_of(at).max(self.now.after(1_000));
            self.queue.add(at, Happening::Wake(place, shard));
        }
    }

    fn absorb_messages(&mut self, number: usize) {
        let messages = std::mem::take(&mut self.nodes[number].out.early);
        for (to, message) in &messages {
            if self.crashes_at_output(number) {
                return;
            }
            self.send(number, *to, message);
        }
        let node = &mut self.nodes[number];
        if node.out.early.is_empty() {
            node.out.early = messages; // Keeps its memory.
            node.out.early.clear();
        }
    }

    /// Sends what had left a node before it crashed.
    pub(crate) fn send_early(&mut self, number: usize) {
        self.absorb_messages(number);
    }

    fn send(&mut self, number: usize, to: NodeId, message: &Message) {
        let from = self.nodes[number].id;
        let class = match message {
            Message::Reply(..) => Class::Connected,
            Message::Shard(shard) if matches!(shard.body, Body::Request(_)) => Class::Connected,
            Message::Shard(_)
            | Message::Cut(_)
            | Message::AskConfiguration(_)
            | Message::Configuration(..) => Class::Resent,
        };
        let class = if from == to { Class::Connected } else { class };
        let fate = self.network.send(self.now, from, to, class);
        if self.trace.is_on() {
            let line = format_args!("{from} -> {to} {fate:?} {message:?}");
            self.trace.line(self.now, line);
        }
        let arrival = |parcel| {
            let boot = self.nodes[number].boot;
            let connection = self.network.connection(from, to);
            Happening::Arrive(Box::new(Arrival { from, to, boot, connection, class, parcel }))
        };
        match fate {
            Fate::Lost => {}
            Fate::Arrives(at) => {
                let happening = arrival(Parcel::pack(message));
                self.queue.add(at, happening);
            }
            Fate::Twice(first, second) => {
                let parcel = Parcel::pack(message);
                let (one, other) = (arrival(parcel.clone()), arrival(parcel));
                self.queue.add(first, one);
                self.queue.add(second, other);
            }
        }
    }

    /// Passes on replies; true if a session here got one.
    fn absorb_replies(&mut self, number: usize) -> bool {
        let replies = std::mem::take(&mut self.nodes[number].out.replies);
        let id = self.nodes[number].id;
        let mut is_local = false;
        for (request, reply) in replies {
            if self.crashes_at_output(number) {
                return false;
            }
            if request.node == id {
                is_local = true;
                self.reply(number, request, reply);
            } else {
                self.send(number, request.node, &Message::Reply(request, reply));
            }
        }
        is_local
    }

    fn reply(&mut self, number: usize, request: RequestId, reply: Reply) {
        if is_probe(request.session) {
            return self.rest.answer(request.number, &reply.response);
        }
        if self.trace.is_on() {
            self.trace.line(self.now, format_args!("{request:?} is told {reply:?}"));
        }
        self.tap(number, request, &reply);
        self.pump(number, request.session, Some(SessionInput::Reply(request, reply)));
    }

    fn tap(&mut self, number: usize, request: RequestId, reply: &Reply) {
        let connections = &mut self.nodes[number].connections;
        if let Some(connection) = connections.get_mut(&request.session) {
            connection.taps.reply(request, reply);
        }
    }

    /// A message reaches a node, which may be busy.
    pub(crate) fn arrive(&mut self, arrival: Box<Arrival>) {
        let number = self.place_of(arrival.to);
        if arrival.connection != self.network.connection(arrival.from, arrival.to) {
            return;
        }
        if !self.nodes[number].is_up {
            match arrival.class {
                Class::Connected => self.break_link(arrival.from, arrival.to),
                Class::Resent => {}
            }
            return;
        }
        let node = &mut self.nodes[number];
        if node.cost == 0 && node.inbox.is_empty() {
            return self.handle(&arrival);
        }
        node.inbox.push_back(arrival);
        if node.inbox.len() == 1 {
            let at = self.now.after(node.cost + 1);
            self.queue.add(at, Happening::Work(self.present(number)));
        }
    }

    /// A busy node gets to the next message.
    pub(crate) fn work(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        let Some(arrival) = self.nodes[place.node].inbox.pop_front() else { return };
        self.handle(&arrival);
        let node = &self.nodes[place.node];
        if self.is_present(place) && !node.inbox.is_empty() {
            let at = self.now.after(node.cost + 1);
            self.queue.add(at, Happening::Work(place));
        }
    }

    /// A node handles a message.
    fn handle(&mut self, arrival: &Arrival) {
        let number = self.place_of(arrival.to);
        if !self.nodes[number].is_up
            || arrival.connection != self.network.connection(arrival.from, arrival.to)
        {
            return;
        }
        if self.does_not_read(number, arrival.from) {
            return;
        }
        self.tally.messages += 1;
        let message = match arrival.parcel.unpack() {
            Ok(message) => message,
            Err(why) => {
                let what = format!("{} cannot read what {} sent: {why}", arrival.to, arrival.from);
                return self.fail(Failure::new("no_stuck", what));
            }
        };
        let (from, boot, now) = (arrival.from, arrival.boot, self.now);
        let node = &mut self.nodes[number];
        match message {
            Message::Shard(message) => {
                node.tell(now, message.shard, Input::Message { from, boot, message });
            }
            Message::Reply(request, reply) => self.reply(number, request, reply),
            Message::Cut(report) => {
                let here = node.here(now);
                node.keeper.handle(&here, CutInput::Report { from, report }, &mut node.out);
                node.out.wake = None; // Keepers are told the time by `exchange_cuts`.
            }
            Message::AskConfiguration(of) => {
                if let Some(part) = node.configuration.datacenter(of) {
                    let told = Message::Configuration(of, Box::new(part.clone()));
                    node.out.early.push((from, told));
                }
            }
            Message::Configuration(of, part) => {
                let mut next =
                    antecede_model::configuration::Configuration::clone(&node.configuration);
                if of != node.id.datacenter && next.adopt(of, &part) {
                    node.reconfigure(now, &std::sync::Arc::new(next));
                }
            }
        }
        self.absorb(number);
    }

    /// A deliberate bug: nothing is taken from a link between datacenters while too much is blocked.
    fn does_not_read(&self, number: usize, from: NodeId) -> bool {
        let node = &self.nodes[number];
        self.plan.mutations.has(Mutation::StopReadingWhenBlocked)
            && from.datacenter != node.id.datacenter
            && node.shards.iter().flatten().any(|shard| shard.has_let_go_of_bodies(from.datacenter))
    }

    /// Lets a session go on.
    pub(crate) fn wake_session(&mut self, place: Place, session: SessionId) {
        if self.is_present(place) {
            if let Some(connection) = self.nodes[place.node].connections.get_mut(&session) {
                connection.wake = None;
            }
            self.pump(place.node, session, Some(SessionInput::Wake));
            self.absorb(place.node);
        }
    }

    fn disk_delay(&mut self, number: usize) -> u64 {
        match self.plan.shape.durability {
            Durability::Memory => 1_000,
            Durability::Always | Durability::Interval => {
                let mean = self.plan.weather.disk_delay;
                self.chance.spread(mean) * self.nodes[number].disk_factor + 1_000
            }
        }
    }

    fn flush_soon(&mut self, number: usize) {
        self.nodes[number].is_flushing = true;
        let at = self.now.after(self.disk_delay(number));
        self.queue.add(at, Happening::Write(self.present(number)));
    }

    /// A node's log is handed to the operating system.
    pub(crate) fn write(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        self.nodes[place.node].log.write();
        if self.crash_if_due(place.node, Trigger::Written) {
            return;
        }
        match self.plan.shape.durability {
            Durability::Always => {
                let at = self.now.after(2 * self.disk_delay(place.node));
                self.queue.add(at, Happening::Sync(place));
            }
            Durability::Interval | Durability::Memory => self.advance_log(place.node),
        }
    }

    /// A node's log is synced.
    pub(crate) fn sync(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        self.nodes[place.node].log.sync();
        if self.crash_if_due(place.node, Trigger::Synced) {
            return;
        }
        self.advance_log(place.node);
    }

    /// A node's log is synced every second.
    pub(crate) fn sync_every(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        self.nodes[place.node].log.sync();
        self.queue.add(self.now.after(crate::moment::SECOND), Happening::SyncEvery(place));
        self.count_persisted(place.node);
        self.nodes[place.node].persisted(self.now);
        self.absorb(place.node);
    }

    fn advance_log(&mut self, number: usize) {
        self.nodes[number].is_flushing = false;
        self.count_persisted(number);
        self.nodes[number].persisted(self.now);
        self.absorb(number);
        let node = &self.nodes[number];
        let is_behind = node.is_up && node.log.persisted().to.0 < node.log.appended_to();
        if is_behind && !node.is_flushing {
            self.flush_soon(number);
        }
    }

    fn count_persisted(&mut self, number: usize) {
        let node = &self.nodes[number];
        let persisted = node.log.persisted();
        let facts = self.ledger.node_mut(node.id);
        facts.counted_to = persisted.to.0;
        facts.synced_to = persisted.synced_to.0;
    }

    /// Tells the sessions at both ends of broken connections, a little later.
    fn tell_broken_links(&mut self) {
        for (node, of) in self.network.take_broken() {
            self.break_link(node, of);
        }
    }

    /// Tells the sessions of a node, a little later, that its link to another one is lost.
    pub(crate) fn break_link(&mut self, node: NodeId, of: NodeId) {
        let number = self.place_of(node);
        if node != of && self.nodes[number].is_up && self.told_lost.insert((node, of)) {
            let at = self.now.after(self.chance.between(MILLI, 300 * MILLI));
            self.queue.add(at, Happening::LinkLost(self.present(number), of));
        }
    }

    /// The sessions of a node learn that a link is lost.
    pub(crate) fn link_lost(&mut self, place: Place, of: NodeId) {
        let id = self.nodes[place.node].id;
        self.told_lost.remove(&(id, of));
        if !self.is_present(place) {
            return;
        }
        self.trace.line(self.now, format_args!("{id} has lost its link to {of}"));
        if !self.can_reach(id, of) {
            self.nodes[place.node].no_link.insert(of);
        }
        let sessions: Vec<SessionId> = self.nodes[place.node].connections.keys().copied().collect();
        for session in sessions {
            self.pump(place.node, session, Some(SessionInput::LinkLost(of)));
        }
        self.absorb(place.node);
    }

    /// Tells all other nodes, a little later, that one runs anew.
    pub(crate) fn tell_of_restart(&mut self, of: NodeId) {
        for number in 0..self.nodes.len() {
            if self.nodes[number].is_up && self.nodes[number].id != of {
                let at = self.now.after(self.chance.between(MILLI, 300 * MILLI));
                self.queue.add(at, Happening::LinkBack(self.present(number), of));
            }
        }
    }

    /// The replicas of a node learn that another one runs anew.
    pub(crate) fn link_back(&mut self, place: Place, of: NodeId) {
        let id = self.nodes[place.node].id;
        if self.is_present(place) && self.can_reach(id, of) {
            self.nodes[place.node].note_restart(self.now, of);
            self.absorb(place.node);
        }
    }

    fn can_reach(&self, from: NodeId, to: NodeId) -> bool {
        self.nodes[self.place_of(to)].is_up && !self.network.is_cut(from, to)
    }

    /// Forgets that links are missing where they are not any more.
    pub(crate) fn forget_missing_links(&mut self) {
        for number in 0..self.nodes.len() {
            let from = self.nodes[number].id;
            let mut missing = std::mem::take(&mut self.nodes[number].no_link);
            missing.retain(|to| !self.can_reach(from, *to));
            self.nodes[number].no_link = missing;
        }
    }
}
