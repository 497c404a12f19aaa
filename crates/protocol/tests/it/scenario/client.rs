//! Asks for clients: single requests handed to a replica, and sessions with pipelines.
//!
//! A single request is evaluated as if a session without a past had sent it, with the dependencies
//! that the script names. A session takes its commands as soon as it can.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use antecede_model::{
    clock::Steady,
    codec::Writer,
    consistency::Consistency,
    context::{Context, Dependencies},
    ids::{NodeId, RequestId, SessionId, ShardId},
    operation::{Operation, ShardOperation},
    response::Response,
};
use antecede_protocol::{
    chain::Input,
    entry::Entry,
    machine::Lease,
    message::{Body, Carried, LocalRequest, Message, Reply, Request, ShardMessage},
    session::{
        Answers, Handover, Requests, Session, SessionInput, SessionOptions, View, command::Command,
    },
};

use super::{asking::Ask, deployment::Deployment, telling};

/// Sessions of the script are numbered from here on, single requests below.
const SESSIONS_FROM: u64 = 1_000_000;

/// A single request.
#[derive(Debug)]
struct Single {
    name: String,
    reply: Option<Reply>,
}

/// A client with a session.
#[derive(Debug)]
pub(super) struct Client {
    name: String,
    pub(super) node: NodeId,
    pub(super) session: Session,
    /// Commands that the session has not taken yet.
    backlog: VecDeque<Ask>,
    /// Commands without an answer, those of the backlog too.
    pub(super) unanswered: usize,
    /// Answers since the script last gave it commands.
    pub(super) answers: Vec<Response>,
    wake: Option<Steady>,
}

/// All who ask.
#[derive(Debug, Default)]
pub(super) struct Clients {
    singles: Vec<Single>,
    sessions: BTreeMap<SessionId, Client>,
}

impl Clients {
    pub(super) const fn is_session(&self, request: RequestId) -> bool {
        SESSIONS_FROM <= request.session.0
    }

    pub(super) fn name_of(&self, request: RequestId) -> String {
        if self.is_session(request) {
            let gone = || "a session that is gone".to_owned();
            return self.sessions.get(&request.session).map_or_else(gone, |one| one.name.clone());
        }
        let place = usize::try_from(request.session.0 - 1).unwrap();
        self.singles[place].name.clone()
    }

    /// The reply to the single request of a name, if it has come.
    pub(super) fn reply(&self, name: &str) -> Option<&Reply> {
        self.single(name).reply.as_ref()
    }

    fn single(&self, name: &str) -> &Single {
        let found = self.singles.iter().find(|single| single.name == name);
        found.unwrap_or_else(|| panic!("no request is called {name}"))
    }

    pub(super) fn has_single(&self, name: &str) -> bool {
        self.singles.iter().any(|single| single.name == name)
    }

    pub(super) fn client(&self, name: &str) -> Option<&Client> {
        self.sessions.values().find(|client| client.name == name)
    }

    fn id_of(&self, name: &str) -> SessionId {
        let found = self.sessions.iter().find(|(_, client)| client.name == name);
        *found.unwrap_or_else(|| panic!("no session is called {name}")).0
    }

    pub(super) fn wakes(&self) -> impl Iterator<Item = Steady> {
        self.sessions.values().filter_map(|client| client.wake)
    }
}

/// A single request as the script words it.
#[derive(Clone, Debug, Default)]
pub(super) struct Clauses {
    pub(super) name: Option<String>,
    /// Names of writes that it depends on.
    pub(super) after: Vec<String>,
    /// The name of a write up to which it depends on everything of that origin.
    pub(super) floor: Option<String>,
    pub(super) is_eventual: bool,
}

impl Deployment {
    /// Hands a request to a replica.
    pub(super) fn ask(&mut self, node: NodeId, operation: Operation<'_>, clauses: &Clauses) {
        let carried = self.carried(clauses);
        let number = self.clients.singles.len() as u64 + 1;
        let name = clauses.name.clone().unwrap_or_else(|| format!("r{number}"));
        assert!(!self.clients.has_single(&name), "two requests are called {name}");
        self.clients.singles.push(Single { name: name.clone(), reply: None });
        let id = RequestId { node, session: SessionId(number), number: 1 };
        let key = String::from_utf8(operation.key.to_vec()).unwrap();
        let shard = self.shard_of(&key);
        let operation = ShardOperation::One(operation);
        let who = format!("{name} -> {}", self.name(node));
        self.tell_line(&who, &format!("s{shard} {}", telling::operation(&operation)));
        let request = LocalRequest { id, operation: &operation, carried: &carried, retry: None };
        self.tell(node, shard, Input::Request(request));
        self.drain();
    }

    fn carried(&self, clauses: &Clauses) -> Carried {
        let mut carried = Carried::default();
        let mut dependencies = Dependencies::default();
        for name in &clauses.after {
            let reply = self.clients.reply(name).expect("what is depended on has been answered");
            carried.time = carried.time.max(reply.visible_at);
            let wrote = reply.wrote.expect("what is depended on is a write");
            dependencies.exact.push(wrote);
        }
        if let Some(name) = &clauses.floor {
            let reply =
                self.clients.reply(name).expect("a floor is the stamp of an answered write");
            let wrote = reply.wrote.expect("a floor is the stamp of a write");
            carried.time = carried.time.max(reply.visible_at);
            dependencies.floor.push((wrote.origin, wrote.stamp));
        }
        dependencies.exact.sort_unstable();
        carried.dependencies = dependencies;
        if clauses.is_eventual {
            carried.level = Consistency::Eventual;
        }
        carried
    }

    pub(super) fn reply_to_client(&mut self, request: RequestId, reply: Reply) {
        if self.clients.is_session(request) {
            if let Some(client) = self.clients.sessions.get(&request.session)
                && client.node == request.node
            {
                self.tell_session(request.session, SessionInput::Reply(request, reply));
            }
            return;
        }
        let place = usize::try_from(request.session.0 - 1).unwrap();
        let single = &mut self.clients.singles[place];
        assert!(single.reply.is_none(), "{} was answered twice", single.name);
        single.reply = Some(reply);
    }

    /// Connects a client to a node.
    pub(super) fn connect(&mut self, name: &str, node: NodeId) {
        assert!(self.clients.client(name).is_none(), "two sessions are called {name}");
        let id = SessionId(SESSIONS_FROM + self.clients.sessions.len() as u64);
        let options = SessionOptions {
            request_timeout: Duration::from_secs(5),
            max_clock_drift: Duration::from_millis(500),
            mutations: self.mutations,
        };
        let client = Client {
            name: name.to_owned(),
            node,
            session: Session::new(id, node, options),
            backlog: VecDeque::new(),
            unanswered: 0,
            answers: Vec::new(),
            wake: None,
        };
        self.clients.sessions.insert(id, client);
    }

    /// Gives a session commands, all at once.
    pub(super) fn pipeline(&mut self, name: &str, asks: Vec<Ask>) {
        let id = self.clients.id_of(name);
        let client = self.clients.sessions.get_mut(&id).expect("it was just found");
        client.answers.clear();
        client.unanswered += asks.len();
        client.backlog.extend(asks);
        self.pump(id);
        self.drain();
    }

    /// Lets a session take what it can of its backlog.
    fn pump(&mut self, id: SessionId) {
        loop {
            let Some(mut client) = self.clients.sessions.remove(&id) else { return };
            let Some(ask) = client.backlog.front().cloned() else {
                self.clients.sessions.insert(id, client);
                return;
            };
            let command = ask.command();
            let can_take =
                self.with_view(client.node, |view| client.session.can_take(view, &command));
            if can_take {
                client.backlog.pop_front();
            }
            self.clients.sessions.insert(id, client);
            if !can_take {
                return;
            }
            self.give(id, SessionInput::Command(&command));
        }
    }

    fn tell_session(&mut self, id: SessionId, input: SessionInput<'_>) {
        self.give(id, input);
        self.pump(id);
    }

    fn with_view<T>(&self, node: NodeId, look: impl FnOnce(&View<'_>) -> T) -> T {
        let state = &self.nodes[&node];
        let cuts = Arc::clone(state.keeper.cuts());
        look(&View {
            now: self.now(node),
            configuration: &state.configuration,
            stable: &cuts.stable,
            lease_until: Lease::Unbounded,
            applied: &cuts.applied,
            applied_at: cuts.hlc,
        })
    }

    fn give(&mut self, id: SessionId, input: SessionInput<'_>) {
        let Some(mut client) = self.clients.sessions.remove(&id) else { return };
        let node = client.node;
        let configuration = Arc::clone(&self.nodes[&node].configuration);
        let cuts = Arc::clone(self.nodes[&node].keeper.cuts());
        let view = View {
            now: self.now(node),
            configuration: &configuration,
            stable: &cuts.stable,
            lease_until: Lease::Unbounded,
            applied: &cuts.applied,
            applied_at: cuts.hlc,
        };
        let mut answers = Answers::default();
        let mut handing = Handing { deployment: self, node, name: client.name.clone() };
        client.session.handle(&view, input, &mut handing, &mut answers);
        client.wake = answers.wake;
        for answer in answers.ready {
            client.unanswered =
                client.unanswered.checked_sub(1).expect("a session answers what it was asked");
            let told = telling::response(&answer);
            let told = if told.starts_with("ct1_") { "a token".to_owned() } else { told };
            self.tell_line(&format!("{} is told", client.name), &told);
            client.answers.push(answer);
        }
        self.clients.sessions.insert(id, client);
    }

    /// Wakes sessions whose time has come.
    pub(super) fn wake_clients(&mut self) {
        let now = Steady(Duration::from_millis(self.millis));
        let due = |client: &Client| client.wake.is_some_and(|at| at <= now);
        let ids = self.clients.sessions.iter().filter(|(_, client)| due(client));
        let ids: Vec<SessionId> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            self.tell_session(id, SessionInput::Wake);
        }
    }

    /// Sessions on a node look at the cuts again.
    pub(super) fn cuts_moved(&mut self, node: NodeId) {
        let here = self.clients.sessions.iter().filter(|(_, client)| client.node == node);
        let ids: Vec<SessionId> = here.map(|(id, _)| *id).collect();
        for id in ids {
            self.tell_session(id, SessionInput::Wake);
        }
    }

    /// A process has ended: its sessions are gone, others lose their links to it.
    pub(super) fn lose_links_to(&mut self, node: NodeId) {
        self.clients.sessions.retain(|_, client| client.node != node);
        let ids: Vec<SessionId> = self.clients.sessions.keys().copied().collect();
        for id in ids {
            self.tell_session(id, SessionInput::LinkLost(node));
        }
    }

    /// The context of a session.
    pub(super) fn context(&self, name: &str) -> &Context {
        let client = self.clients.client(name);
        client.unwrap_or_else(|| panic!("no session is called {name}")).session.context()
    }
}

/// Hands over the requests of one session.
struct Handing<'a> {
    deployment: &'a mut Deployment,
    node: NodeId,
    name: String,
}

impl Requests for Handing<'_> {
    fn request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>) -> Handover {
        let is_reached = self.deployment.nodes[&to].is_up
            && !self.deployment.network.is_cut(self.node, to)
            && !self.deployment.network.is_cut(to, self.node);
        if !is_reached {
            return Handover::NoLink;
        }
        if to != self.node {
            self.send_request(to, shard, request);
            return Handover::UnderWay;
        }
        let place = match request.carried.place {
            antecede_protocol::message::Place::Anywhere => "",
            antecede_protocol::message::Place::Head => " at the head",
            antecede_protocol::message::Place::Tail => " at the tail",
        };
        let told = telling::operation(request.operation);
        let who = format!("{} -> {}", self.name, self.deployment.name(to));
        self.deployment.tell_line(&who, &format!("s{shard} {told}{place}"));
        let end = |deployment: &Deployment| {
            deployment.nodes[&to].shards.get(&shard).map(antecede_protocol::chain::Shard::end)
        };
        let before = end(self.deployment);
        self.deployment.tell(to, shard, Input::Request(request));
        let after = end(self.deployment);
        let machine = self.deployment.nodes[&to].shards.get(&shard);
        let is_committed =
            machine.is_some_and(|machine| after.is_some_and(|to| to <= machine.committed_to()));
        let entry: Option<&Entry> =
            machine.and_then(|machine| machine.entry_at(after.unwrap_or_default()));
        match entry {
            Some(entry) if before != after && !is_committed => Handover::Stamped(entry.stamp),
            Some(_) | None => Handover::UnderWay,
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.deployment.send(self.node, to, message);
    }
}

impl Handing<'_> {
    fn send_request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>) {
        let mut operation = Vec::new();
        request.operation.write(&mut Writer::new(&mut operation));
        let hlc = request.carried.time;
        let carried = request.carried.clone();
        let body = Body::Request(Request {
            id: request.id,
            operation,
            carried,
            retry: request.retry.cloned(),
        });
        let configuration = &self.deployment.nodes[&self.node].configuration;
        let epoch = configuration.chain_epoch(self.node.datacenter, shard);
        let message = Message::Shard(ShardMessage { shard, epoch, hlc, body });
        self.deployment.send(self.node, to, message);
    }
}

/// What a session was asked for, as a command.
impl Ask {
    /// The command.
    pub(super) fn command(&self) -> Command<'_> {
        match self {
            Self::Words(words) => super::asking::command(words),
            Self::After { context, timeout_millis } => {
                Command::After { context: context.clone(), timeout_millis: *timeout_millis }
            }
        }
    }
}
