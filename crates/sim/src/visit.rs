//! Lets clients connect, ask, be told, move on with tokens, and give up.

use std::sync::Arc;

use antecede_check::{Outcome, Record};
use antecede_model::{
    clock::Timestamp,
    dependency::Dependency,
    ids::{DatacenterId, SessionId},
    response::Response,
    token::SessionToken,
    version::Version,
};
use antecede_protocol::session::{Answers, Session, SessionInput, View, command::Command};

use crate::{
    chance::Chance,
    check::{durable, visible_at},
    client::{Asked, Brought, Seen, Standing, keys_of, outcome_of},
    connection::{Connection, Handing, Taps},
    moment::{MILLI, SECOND},
    plan::ACTIVE,
    workload::{Ask, Drawer, KeyId},
    world::{Happening, Place, World},
};

impl World {
    /// A client may do something.
    pub(crate) fn turn(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let has_more = 0 < client.left || client.again.is_some();
        if !client.waiting.is_empty() || ACTIVE <= self.now || !has_more {
            return;
        }
        match std::mem::replace(&mut client.standing, Standing::Apart) {
            Standing::Connected(session) => {
                client.standing = Standing::Connected(session);
                self.ask_something(number);
            }
            Standing::Apart => self.connect(number, None),
            Standing::Moving(brought) => self.connect(number, Some(brought)),
        }
    }

    pub(crate) fn turn_after(&mut self, number: u32, nanos: u64) {
        self.queue.add(self.now.after(nanos), Happening::Turn(number));
    }

    /// Connects a client to some node that runs, with the past that it brings.
    fn connect(&mut self, number: u32, brought: Option<Box<Brought>>) {
        let client = self.clients.get_mut(&number).expect("turns are given to clients");
        let datacenter = if brought.is_some() && client.chance.per_mille(600) {
            let count = u64::from(self.plan.shape.numbers());
            DatacenterId(u16::try_from(client.chance.between(1, count)).expect("few datacenters"))
        } else {
            client.home
        };
        let datacenter = self.datacenter_of_repeat(number).unwrap_or(datacenter);
        let datacenter = self.comes_back_as(datacenter);
        let client = self.clients.get_mut(&number).expect("turns are given to clients");
        let running: Vec<usize> = (0..self.nodes.len())
            .filter(|at| {
                let node = &self.nodes[*at];
                let runs = node.is_up && node.paused_until <= self.now;
                runs && node.id.datacenter == datacenter
            })
            .collect();
        if running.is_empty() {
            client.standing = brought.map_or(Standing::Apart, Standing::Moving);
            return self.turn_after(number, 200 * MILLI);
        }
        let place = client.chance.pick(&running);
        let node = &mut self.nodes[place];
        let knows = node.configuration.membership.epoch;
        if let Some(brought) = brought.as_ref().filter(|brought| knows < brought.membership) {
            client.standing = Standing::Moving(brought.clone()); // It is told to try again.
            return self.turn_after(number, 200 * MILLI);
        }
        node.last_session += 1;
        let session = SessionId(node.last_session);
        client.node = node.id;
        client.home = datacenter;
        client.last_write = None; // `WAIT` speaks of this connection's writes.
        client.standing = Standing::Connected(session);
        let connection = Connection {
            session: Session::new(session, node.id, self.session_options),
            client: number,
            backlog: std::collections::VecDeque::new(),
            answers: Answers::default(),
            taps: Taps::default(),
            wake: None,
        };
        node.connections.insert(session, connection);
        let mut asks = Vec::new();
        if client.is_eventual {
            asks.push(Ask::Eventual);
        }
        match brought {
            Some(brought) => asks.push(Ask::After(Box::new(brought.context))),
            None => {
                self.sessions_begun += 1;
                client.begin_session(self.sessions_begun);
            }
        }
        if asks.is_empty() { self.ask_something(number) } else { self.ask(number, asks) }
    }

    fn ask_something(&mut self, number: u32) {
        let client = self.clients.get_mut(&number).expect("turns are given to clients");
        if let Some(again) = client.again.take().or_else(|| self.draw_repeat(number)) {
            return self.send_commands(number, vec![again]);
        }
        let client = self.clients.get_mut(&number).expect("turns are given to clients");
        let workload = &self.plan.workload;
        if client.chance.per_mille(workload.move_per_mille) {
            return self.ask(number, vec![Ask::Token]);
        }
        let count = if client.chance.per_mille(workload.pipeline_per_mille) {
            client.chance.between(2, workload.pipeline_max)
        } else {
            1
        };
        let node = &self.nodes[Self::place_in(self.plan.shape.nodes, client.node)];
        let mut drawer = Drawer {
            keys: &self.keys,
            workload,
            datacenter: client.node.datacenter,
            client: number,
            may_delete: !client.is_eventual,
            values: &mut client.values,
            wall_millis: node.clock.at(self.now).wall.millis(),
        };
        let asks: Vec<Ask> = (0..count).map(|_| drawer.draw(&mut client.chance)).collect();
        let asks = asks.into_iter().map(|ask| self.with_id(number, ask)).collect();
        self.ask(number, asks);
    }

    fn place_in(nodes: u16, node: antecede_model::ids::NodeId) -> usize {
        usize::from(node.datacenter.0 - 1) * usize::from(nodes) + usize::from(node.number - 1)
    }

    /// Sends commands of a client, all at once.
    fn ask(&mut self, number: u32, asks: Vec<Ask>) {
        let client = self.clients.get_mut(&number).expect("only clients ask");
        client.left = client.left.saturating_sub(u32::try_from(asks.len()).unwrap_or(u32::MAX));
        let (call, shown) = (self.now, client.shown);
        let asked = asks.into_iter().map(|ask| Asked { ask, call, shown, tries: 0, first: None });
        self.send_commands(number, asked.collect());
    }

    fn send_commands(&mut self, number: u32, asked: Vec<Asked>) {
        let client = self.clients.get_mut(&number).expect("only clients ask");
        let Standing::Connected(session) = client.standing else { return };
        client.turn += 1;
        let turn = client.turn;
        let asks: Vec<Ask> = asked.iter().map(|asked| asked.ask.clone()).collect();
        client.waiting.extend(asked);
        if !client.chance.per_mille(100) {
            let patience = client.chance.pick(&[SECOND / 2, 3 * SECOND, 6 * SECOND]);
            self.queue.add(self.now.after(patience), Happening::GiveUp(number, turn));
        }
        let place = Self::place_in(self.plan.shape.nodes, client.node);
        if self.trace.is_on() {
            let names = asks.iter().map(|ask| ask.tell(&self.keys)).collect::<Vec<_>>().join("; ");
            self.trace.line(
                self.now,
                format_args!("client {number} asks {}: {names}", self.nodes[place].id),
            );
        }
        if let Some(connection) = self.nodes[place].connections.get_mut(&session) {
            connection.backlog.extend(asks);
        }
        self.pump(place, session, None);
        self.absorb(place);
    }

    /// Tells a session something, and gives it the commands that it can take.
    pub(crate) fn pump(
        &mut self,
        number: usize,
        session: SessionId,
        input: Option<SessionInput<'_>>,
    ) {
        let node = &mut self.nodes[number];
        let Some(mut connection) = node.connections.remove(&session) else { return };
        let configuration = Arc::clone(&node.configuration);
        let cuts = Arc::clone(node.keeper.cuts());
        let view = View {
            now: node.clock.at(self.now),
            configuration: &configuration,
            stable: &cuts.stable,
            lease_until: node.here(self.now).lease_until,
            applied: &cuts.applied,
            applied_at: cuts.hlc,
        };
        let mut handing = Handing { node, now: self.now, taps: &mut connection.taps };
        let (inner, answers) = (&mut connection.session, &mut connection.answers);
        if let Some(input) = input {
            inner.handle(&view, input, &mut handing, answers);
        }
        while let Some(ask) = connection.backlog.front() {
            let command: Command<'_> = ask.command(&self.keys);
            if !inner.can_take(&view, &command) {
                break;
            }
            inner.handle(&view, SessionInput::Command(&command), &mut handing, answers);
            connection.backlog.pop_front();
        }
        if let Some(at) = answers.wake.take() {
            let at = node.clock.moment_of(at).max(self.now.after(1_000));
            if connection.wake.is_none_or(|armed| at < armed) {
                connection.wake = Some(at);
                let place = Place { node: number, life: node.life };
                self.queue.add(at, Happening::WakeSession(place, session));
            }
        }
        let client = connection.client;
        let ready = std::mem::take(&mut connection.answers.ready);
        node.connections.insert(session, connection);
        for response in ready {
            self.answered(client, number, session, &response);
        }
    }

    /// A client is told the answer to the oldest command that it waits for.
    fn answered(&mut self, number: u32, place: usize, session: SessionId, response: &Response) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let is_same = matches!(client.standing, Standing::Connected(here) if here == session);
        if !is_same || client.node != self.nodes[place].id {
            return; // It has given up, or went on after an unknown outcome.
        }
        let Some(asked) = client.waiting.pop_front() else { return };
        self.tally.operations += 1;
        if outcome_of(response) == Outcome::Ok {
            self.tally.served += 1;
        }
        if self.trace.is_on() {
            let line = format_args!("client {number} is told {response:?}");
            self.trace.line(self.now, line);
        }
        let seen = match asked.ask.plain() {
            Ask::One(step) => {
                let connection = self.nodes[place].connections.get_mut(&session);
                connection.map_or_else(Seen::default, |connection| {
                    let id = asked.ask.id().map(|id| id.number);
                    connection.taps.take(id, &step.operation(&self.keys))
                })
            }
            Ask::ReadSeveral(_)
            | Ask::WriteSeveral(_)
            | Ask::Transaction(_)
            | Ask::Wait { .. }
            | Ask::Token
            | Ask::After(_)
            | Ask::Eventual
            | Ask::Retried { .. } => Seen::default(),
        };
        self.check_refuses(place, &asked, response);
        let Some((asked, response)) = self.look_at_repeat(number, asked, response) else { return };
        let response = &response;
        self.record(number, &asked, response, seen);
        self.go_on(number, &asked, response);
    }

    /// Puts what was answered into the history and the ledger.
    fn record(&mut self, number: u32, asked: &Asked, response: &Response, seen: Seen) {
        let here = self.clients[&number].node.datacenter;
        let is_namesake = |place: &str| self.plan.name_of(here) == place;
        let is_executed_here = asked.ask.id().is_some_and(|id| is_namesake(&id.place));
        let client = self.clients.get_mut(&number).expect("only clients are answered");
        let ledger = &self.ledger;
        let version_of = |value: &[u8]| ledger.version_of(value);
        let mut records =
            client.records(asked, response, self.now, seen, (&self.keys, &version_of));
        if is_executed_here && outcome_of(response) == Outcome::Ok {
            // Perhaps not where the id was given: one that came back has the same name.
            records.iter_mut().for_each(|record| record.dc = here.0);
        }
        let written = records
            .iter()
            .filter(|record| record.op != antecede_check::Kind::Read)
            .find_map(|record| record.version);
        self.show(number, &records);
        self.records.extend(records);
        if !asked.ask.is_write() || outcome_of(response) != Outcome::Ok {
            return;
        }
        let (Some(version), Some(key)) = (written, keys_of(&asked.ask).first().copied()) else {
            // A key that expires, or nothing was written: what `WAIT` means is not known here.
            self.clients.get_mut(&number).expect("it is there").last_write = None;
            return;
        };
        let shard = self.keys.of_id(key).shard;
        let write =
            Dependency { origin: DatacenterId(version.1), shard, stamp: Timestamp(version.0) };
        let place = self.ledger.acknowledged().len();
        self.ledger.acknowledge(write, self.records.len());
        self.clients.get_mut(&number).expect("it is there").last_write = Some(place);
        let result = durable::at_acknowledgement(&self.ledger, write);
        self.hold(result);
        if !self.clients[&number].is_eventual {
            self.hold(visible_at::at_acknowledgement(write.stamp, asked.shown));
        }
    }

    /// Takes note of the logical times that a client is shown by an answer.
    fn show(&mut self, number: u32, records: &[Record]) {
        let client = self.clients.get_mut(&number).expect("only clients are answered");
        for record in records.iter().filter(|record| record.outcome == Outcome::Ok) {
            let Some(version) = record.version else { continue };
            let Some(key) = self.keys.find(record.key.as_bytes()) else { continue };
            let write = Dependency {
                origin: DatacenterId(version.1),
                shard: self.keys.of_id(key).shard,
                stamp: Timestamp(version.0),
            };
            let shown = self.ledger.visible_at(client.node.datacenter, write);
            client.shown = client.shown.max(shown.unwrap_or_default());
        }
    }

    /// What a client does after an answer.
    fn go_on(&mut self, number: u32, asked: &Asked, response: &Response) {
        let outcome = outcome_of(response);
        match asked.ask.plain() {
            Ask::Token => return self.move_on(number, response),
            Ask::After(_) if outcome != Outcome::Ok => return self.lose_connection(number),
            Ask::Wait { .. } => self.check_wait(number, response),
            Ask::One(_)
            | Ask::ReadSeveral(_)
            | Ask::WriteSeveral(_)
            | Ask::Transaction(_)
            | Ask::After(_)
            | Ask::Eventual
            | Ask::Retried { .. } => {}
        }
        if outcome == Outcome::Unknown {
            return self.lose_connection(number);
        }
        let client = self.clients.get_mut(&number).expect("it is there");
        if client.waiting.is_empty() {
            // Who has arrived with a token goes on at once.
            let has_arrived = matches!(asked.ask, Ask::After(_));
            let think = if has_arrived { MILLI } else { self.plan.workload.think };
            let think = client.chance.spread(think);
            self.turn_after(number, think);
        }
    }

    fn check_wait(&mut self, number: u32, response: &Response) {
        let last = self.clients[&number].last_write;
        let (Response::Integer(answered), Some(place)) = (response, last) else { return };
        let write = self.ledger.acknowledged()[place].write;
        let is_settled = |node| {
            let replica = self.nodes[self.place_of(node)].shards.get(usize::from(write.shard.0));
            replica
                .and_then(Option::as_ref)
                .is_some_and(antecede_protocol::chain::Shard::is_settled)
        };
        let configuration = &self.configuration;
        let result = durable::at_wait(&self.ledger, configuration, write, *answered, is_settled);
        self.hold(result);
    }

    /// A client takes its token elsewhere.
    fn move_on(&mut self, number: u32, response: &Response) {
        let Response::Bytes(text) = response else { return self.lose_connection(number) };
        let text = String::from_utf8_lossy(text);
        let (deployment, membership) =
            (self.configuration.deployment, self.configuration.membership.epoch);
        let made_at = self.place_of(self.clients[&number].node);
        let brought = match SessionToken::decode(&text, deployment, membership) {
            Ok(context) => {
                let membership = self.nodes[made_at].configuration.membership.epoch;
                Box::new(Brought { context, membership })
            }
            Err(error) => {
                let what = format!("the token {text} of client {number}: {error}");
                return self.fail(crate::check::Failure::new("session", what));
            }
        };
        self.disconnect(number);
        let client = self.clients.get_mut(&number).expect("it is there");
        client.standing = Standing::Moving(brought);
        self.turn_after(number, MILLI);
    }

    /// A client has waited long enough.
    pub(crate) fn give_up(&mut self, number: u32, turn: u64) {
        let Some(client) = self.clients.get(&number) else { return };
        if client.turn == turn && !client.waiting.is_empty() {
            self.trace.line(self.now, format_args!("client {number} gives up"));
            self.lose_connection(number);
        }
    }

    /// A client has lost its connection, and will begin a new session.
    pub(crate) fn lose_connection(&mut self, number: u32) {
        self.disconnect(number);
        let client = self.clients.get_mut(&number).expect("it is there");
        client.standing = Standing::Apart;
        let waiting = std::mem::take(&mut client.waiting);
        for asked in &waiting {
            if !client.asks_again(asked) {
                self.records.extend(client.unanswered(asked, &self.keys));
            }
        }
        let pause = client.chance.between(5, 300) * MILLI;
        self.tally.operations += waiting.len() as u64;
        self.turn_after(number, pause);
    }

    fn disconnect(&mut self, number: u32) {
        let client = &self.clients[&number];
        if let Standing::Connected(session) = client.standing {
            let place = self.place_of(client.node);
            let connections = &mut self.nodes[place].connections;
            if connections.get(&session).is_some_and(|connection| connection.client == number) {
                connections.remove(&session);
            }
        }
    }

    /// Lets the sessions of a node look again at what has moved.
    pub(crate) fn wake_waiting_sessions(&mut self, place: Place) {
        let sessions: Vec<SessionId> = self.nodes[place.node]
            .connections
            .iter()
            .filter(|(_, connection)| {
                self.clients.get(&connection.client).is_some_and(|it| !it.waiting.is_empty())
            })
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.pump(place.node, session, Some(SessionInput::Wake));
        }
        self.absorb(place.node);
    }

    /// The version that a value was written with, for people.
    #[must_use]
    pub fn version_of(&self, value: &[u8]) -> Option<Version> {
        self.ledger.version_of(value)
    }

    /// A stream of draws for a part that is no client.
    #[must_use]
    pub fn stream(&self, stream: u64) -> Chance {
        Chance::new(self.plan.seed, stream)
    }

    /// All keys of the run.
    #[must_use]
    pub fn all_keys(&self) -> Vec<KeyId> {
        self.keys.all().map(|(key, _)| key).collect()
    }
}
